//! The order of the engine's modules: none imports one above it, so there are no circles.
//!
//! A room is a module of `lib.rs` with all its files; in `shard/` each file is one. An arrow leads
//! from a room to each room that it names by a path: in `use`, or elsewhere as `crate::`, `super::`
//! or `self::`. Names that a module imports from another one lead to the module that has them.
//! Code for tests is not judged, and methods are not seen.

use super::{Piece, Tree, closed_at, is_of_word, line_of, masked, modules, named, tree_of};
use std::collections::{BTreeMap, BTreeSet};

/// All rooms, the lowest first.
const ORDER: [&str; 112] = [
    // Values and helpers that know nothing of the engine.
    "bugs",
    "marks",
    "panics",
    "reason",
    "id",
    "address",
    "connect",
    "reconnect",
    "scope",
    "cgroup",
    "cpu",
    // The kernel.
    "ring",
    "memory",
    "waker",
    "transit",
    "ends",
    "credit",
    // Values, and what all shards share.
    "files",
    "info",
    "error",
    "trace",
    "inherited",
    "admission",
    "config",
    "activation",
    "message",
    "mailbox",
    "workers",
    "ledger",
    "validate",
    "registry",
    // The handle for other threads.
    "handle",
    "listener",
    "stream",
    // Records of a shard.
    "shard/state",
    "shard/u48",
    "shard/identity",
    "shard/timers",
    "shard/rare",
    "shard/slots/slot",
    "shard/slots/leases",
    "shard/slots",
    "shard/listeners",
    "shard/again",
    "shard/file_cache",
    "shard/groups",
    "shard/regular_paths",
    "shard/budget/marks",
    "shard/settings",
    "shard/connect/queue",
    "shard/timer/later",
    "shard/forward/range",
    "shard/incoming/transfer",
    "shard/jobs/pending",
    "shard/naming/steps",
    "shard/markers/marker",
    "shard/markers/waiting",
    "shard/markers/queues",
    "shard/output/chunk",
    "shard/output/loan",
    "shard/reconnect/links",
    "shard/sweep/lists",
    // Everything that a callback may change, and its operations.
    "shard/core",
    "shard/budget",
    "shard/output",
    "shard/markers",
    "shard/reconnect",
    "shard/connect/requests",
    "shard/cached",
    // The application's side.
    "local",
    "connection",
    HANDLER,
    "handlers",
    "packets",
    // The loop of a shard.
    "shard/turn/phase",
    "shard/application",
    "shard/bounds",
    "shard/family",
    "shard/deadlines",
    "shard/timer",
    "shard/delivery",
    "shard/looks",
    "shard/waiting",
    "shard/accept",
    "shard/balance",
    "shard/listening",
    "shard/slow",
    "shard/evict",
    "shard/opening",
    "shard/file",
    "shard/pipes",
    "shard/sendfile",
    "shard/send",
    "shard/receive",
    "shard/long",
    "shard/forward",
    "shard/incoming",
    "shard/naming",
    "shard/jobs",
    "shard/connect",
    "shard/close",
    "shard/families",
    "shard/forbidden",
    "shard/sweep",
    "shard/commands",
    "shard/publish",
    "shard/teardown",
    "shard/turn",
    SHARD,
    "engine",
    "internals",
    "guide",
];
const HANDLER: &str = "handler";
const SHARD: &str = "shard";

type Path = Vec<String>;

struct Module {
    file: String,
    /// The source without comments, literals, imports and code for tests.
    code: String,
    imports: Vec<Import>,
}

struct Import {
    line: usize,
    path: Path,
    /// The name that it has in the module.
    name: String,
}

/// A path in a file that leads into another room.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Arrow {
    from: String,
    to: String,
    place: String,
    path: String,
}

/// The modules below a root file, without those for tests.
fn modules_of(tree: &Tree, root: &str) -> BTreeMap<Path, Module> {
    let mut found = BTreeMap::new();
    let mut next = vec![(Path::new(), root.to_owned(), true)];
    while let Some((path, file, owns_folder)) = next.pop() {
        let Some(text) = tree.get(&file) else { continue };
        let code = without_tests(text);
        for (below, owns_folder) in modules(&file, owns_folder, &code) {
            let stem = below.trim_end_matches("/mod.rs").trim_end_matches(".rs");
            let name = stem.rsplit('/').next().unwrap_or(stem).to_owned();
            next.push(([&path[..], &[name]].concat(), below, owns_folder));
        }
        let (imports, code) = imports(code);
        found.insert(path, Module { file, code, imports });
    }
    found
}

/// The code of a source. Spaces replace comments, literals and each item or statement for tests.
fn without_tests(text: &str) -> String {
    let mut code = masked(text, &[Piece::Comment, Piece::Literal]);
    let conditions: Vec<usize> = code.match_indices("#[cfg(").map(|(at, _)| at).collect();
    for at in conditions {
        // It may lie in an item that is gone already.
        let Some(length) = code[at..].starts_with("#[cfg(").then(|| code[at..].find(")]")) else {
            continue;
        };
        let end = at + length.map_or(0, |length| length + ")]".len());
        let condition = &text[at..end];
        let mut words = condition.split(|c| !is_of_word(c));
        if words.any(|word| word == "test" || word == "testing") && !condition.contains("not(") {
            let end = item_end(&code, end);
            code.replace_range(at..end, &blank(&code[at..end]));
        }
    }
    code
}

/// Items may have commas before their body; fields and arms of a match end with one.
const ITEMS: [&str; 6] = ["fn", "impl", "use", "struct", "enum", "trait"];

/// The offset behind the item, statement, field or arm that begins at `from`.
fn item_end(code: &str, from: usize) -> usize {
    let mut depth = 0_i32;
    for (at, c) in code[from..].char_indices() {
        let before = &code[from..from + at];
        let is_item = ITEMS.iter().any(|word| named(before, word).next().is_some());
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            '{' if depth == 0 && named(before, "use").next().is_none() => {
                return closed_at(code, from + at);
            }
            ';' if depth == 0 => return from + at + 1,
            ',' if depth == 0 && !is_item => return from + at + 1,
            _ => {}
        }
        if depth < 0 {
            return from + at;
        }
    }
    code.len()
}

/// The imports of a module, and its code without them.
fn imports(mut code: String) -> (Vec<Import>, String) {
    let mut found = Vec::new();
    for (at, _, _) in named(&code.clone(), "use") {
        let end = at + code[at..].find(';').unwrap_or(code.len() - at);
        add_imports(line_of(&code, at), &[], &code[at + "use".len()..end], &mut found);
        code.replace_range(at..end, &blank(&code[at..end]));
    }
    (found, code)
}

fn add_imports(line: usize, before: &[String], tree: &str, found: &mut Vec<Import>) {
    let tree = tree.trim();
    if let Some(group) = tree.strip_suffix('}') {
        let (path, group) = group.split_once('{').expect("a group of imports");
        let before = [before, &segments(path)].concat();
        let mut depth = 0;
        let parts = group.split(|c| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            c == ',' && depth == 0
        });
        for part in parts.filter(|part| !part.trim().is_empty()) {
            add_imports(line, &before, part, found);
        }
        return;
    }
    let (path, name) = tree.split_once(" as ").unwrap_or((tree, ""));
    let mut path = [before, &segments(path)].concat();
    if path.len() > 1 && path.last().is_some_and(|last| last == "self" || last == "*") {
        path.pop();
    }
    let name = if name.is_empty() { path.last().map_or("", String::as_str) } else { name.trim() };
    found.push(Import { line, name: name.to_owned(), path });
}

fn segments(path: &str) -> Path {
    path.split("::").map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}

fn blank(code: &str) -> String {
    // As many bytes, so that offsets stay the same.
    code.bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }).collect()
}

/// Line and path of each path in the code that begins with `crate`, `super` or `self`.
fn paths(code: &str) -> Vec<(usize, Path)> {
    let mut found = Vec::new();
    for start in ["crate::", "super::", "self::"] {
        for (at, _) in code.match_indices(start) {
            let before = &code[..at];
            let inside = before.ends_with(|c| is_of_word(c) || c == ':' || c == '$');
            if !inside && !before.ends_with("pub(in ") {
                let end = code[at..].find(|c| !is_of_word(c) && c != ':');
                let end = end.map_or(code.len(), |end| at + end);
                found.push((line_of(code, at), segments(&code[at..end])));
            }
        }
    }
    found
}

/// The module that has the item of a path. Returns `None` for items of other crates.
fn resolve(
    all: &BTreeMap<Path, Module>,
    at: &[String],
    path: &[String],
    depth: u8,
) -> Option<Path> {
    let (mut module, mut rest) = (at.to_vec(), path);
    match path.first()?.as_str() {
        "crate" => (module, rest) = (Path::new(), &path[1..]),
        "self" => rest = &path[1..],
        _ => {}
    }
    while let Some((_, behind)) = rest.split_first().filter(|(part, _)| *part == "super") {
        module.pop()?;
        rest = behind;
    }
    // Names of other crates begin paths as children and imported names do.
    let may_be_foreign = rest.len() == path.len();
    while let Some((name, behind)) = rest.split_first() {
        let child = [&module[..], std::slice::from_ref(name)].concat();
        if !all.contains_key(&child) {
            break;
        }
        (module, rest) = (child, behind);
    }
    let is_foreign = may_be_foreign && rest.len() == path.len();
    let Some(name) = rest.first() else { return Some(module) };
    let import = all[&module].imports.iter().find(|it| it.name == *name && it.path != path);
    match import {
        Some(import) if depth > 0 => {
            let path = [&import.path, &rest[1..]].concat();
            resolve(all, &module, &path, depth - 1)
        }
        _ => (!is_foreign).then_some(module),
    }
}

fn room(module: &[String]) -> Option<String> {
    match module {
        [] => None,
        [shard, ..] if shard == SHARD => Some(module.join("/")),
        [room, ..] => Some(room.clone()),
    }
}

/// The arrows between the rooms of a crate.
fn arrows(tree: &Tree, root: &str, room: impl Fn(&[String]) -> Option<String>) -> BTreeSet<Arrow> {
    let all = modules_of(tree, root);
    let mut found = BTreeSet::new();
    for (at, module) in &all {
        let Some(from) = room(at) else { continue };
        let imports = module.imports.iter().map(|it| (it.line, it.path.clone()));
        for (line, path) in imports.chain(paths(&module.code)) {
            let to = resolve(&all, at, &path, 8).and_then(|module| room(&module));
            if let Some(to) = to.filter(|to| *to != from) {
                let place = format!("{}:{line}", module.file);
                found.insert(Arrow { from: from.clone(), to, place, path: path.join("::") });
            }
        }
    }
    found
}

/// The arrows that lead upwards, and rooms without a place in the order.
fn upwards(order: &[&str], arrows: &BTreeSet<Arrow>) -> Vec<String> {
    let place_of = |room: &str| order.iter().position(|it| *it == room);
    let mut found = Vec::new();
    for arrow in arrows {
        let Arrow { from, to, place, path } = arrow;
        let (Some(below), Some(above)) = (place_of(from), place_of(to)) else {
            found.push(format!("{place}: {from} or {to} has no place in the order"));
            continue;
        };
        if above > below && !extends_shard(order, arrow) {
            found.push(format!("{place}: {from} is below {to}: {path}"));
        }
    }
    found
}

/// The arrows of circles, and those between circles.
fn circles(arrows: BTreeSet<Arrow>) -> Vec<String> {
    let mut rest: Vec<Arrow> = arrows.into_iter().collect();
    loop {
        let [starts, ends] = [|it: &Arrow| it.from.clone(), |it: &Arrow| it.to.clone()]
            .map(|end| rest.iter().map(end).collect::<BTreeSet<String>>());
        let before = rest.len();
        rest.retain(|it| starts.contains(&it.to) && ends.contains(&it.from));
        if rest.len() == before {
            let shown =
                |it: Arrow| format!("{}: {} imports {}: {}", it.place, it.from, it.to, it.path);
            return rest.into_iter().map(shown).collect();
        }
    }
}

/// The files of the loop extend one struct, which is made of what they keep. Each of them may name
/// it, but nothing else of its module.
fn extends_shard(order: &[&str], arrow: &Arrow) -> bool {
    let of_loop = order.iter().skip_while(|room| **room != HANDLER).any(|it| *it == arrow.from);
    of_loop && arrow.to == SHARD && segments(&arrow.path).last().is_some_and(|it| it == "Shard")
}

#[test]
fn no_module_imports_one_above_it() {
    let found = upwards(&ORDER, &arrows(&super::tree(), "engine/src/lib.rs", room));
    assert!(found.is_empty(), "{} findings\n{}", found.len(), found.join("\n"));
}

#[test]
fn modules_of_the_load_generator_import_in_no_circle() {
    for root in ["loadgen/lifecycle/src/lib.rs", "loadgen/src/lib.rs"] {
        let of_files = arrows(&super::tree(), root, |module| Some(module.join("/")));
        let of_folders = arrows(&super::tree(), root, |module| module.first().cloned());
        assert!(!of_files.is_empty() && !of_folders.is_empty(), "{root}");
        // A module and the ones inside it may import each other.
        let is_inside = |Arrow { from, to, .. }: &Arrow| {
            [(from, to), (to, from)]
                .into_iter()
                .any(|(inner, outer)| outer.is_empty() || inner.starts_with(&format!("{outer}/")))
        };
        let of_files = of_files.into_iter().filter(|arrow| !is_inside(arrow));
        let found = [circles(of_folders), circles(of_files.collect())].concat();
        assert!(found.is_empty(), "{} findings\n{}", found.len(), found.join("\n"));
    }
}

/// The arrows of `low.rs` in a crate with further modules, each as its end and its line.
fn found(low: &str) -> Vec<String> {
    let tree = tree_of(&[
        (
            "lib.rs",
            "mod low; mod middle; mod shard;\npub use middle::deep::{Item, Other as Alias};",
        ),
        ("low.rs", low),
        ("low/child.rs", "pub struct Child;"),
        ("middle/mod.rs", "pub mod deep;\npub use deep::Item;\npub fn f() {}"),
        ("middle/deep.rs", "pub struct Item; pub struct Other;"),
        ("shard/mod.rs", "pub mod file;\npub struct Shard;"),
        ("shard/file.rs", "use super::Shard;\npub const C: u8 = 0;"),
    ]);
    let of_low = |arrow: &Arrow| {
        let line = arrow.place.strip_prefix("low.rs:")?;
        Some(format!("{} {line}", arrow.to))
    };
    let mut found: Vec<String> = arrows(&tree, "lib.rs", room).iter().filter_map(of_low).collect();
    found.dedup();
    found
}

#[test]
fn a_path_leads_to_the_module_that_has_the_item() {
    for (low, expected) in [
        ("use crate::middle;", "middle 1"),
        ("use crate::middle::*;", "middle 1"),
        ("use std::fmt;\nuse crate::{Alias, low::x};", "middle 2"),
        ("use super::middle::{\n  deep::{Item as I, Other},\n};", "middle 1"),
        ("use crate::Item;", "middle 1"),
        ("fn f() {\n  crate::middle::f();\n}", "middle 2"),
        ("fn f(_: &super::shard::file::C) {}", "shard/file 1"),
        ("mod child;\nuse child::Child;\nuse crate::shard::Shard;", "shard 3"),
        ("#[cfg(not(test))]\nuse crate::middle;", "middle 2"),
        ("#[cfg(test)]\nuse std::fmt;\nuse crate::middle;", "middle 3"),
    ] {
        assert_eq!(found(low), [expected], "{low}");
    }
}

#[test]
fn tests_comments_and_other_crates_make_no_arrow() {
    for low in [
        "// use crate::middle;\nconst A: &str = \"crate::middle::f\";",
        "use std::fmt;\nuse ::middle::f;\nuse slab::Slab;",
        "#[cfg(test)]\nuse crate::{middle, shard};",
        "#[cfg(test)]\nmod tests {\n  use crate::middle;\n  fn f() { crate::middle::f() }\n}",
        "fn f() {\n  #[cfg(any(test, feature = \"testing\"))]\n  crate::middle::f();\n}",
        "#[cfg(feature = \"testing\")]\nfn f<A, B>() { crate::middle::f() }",
        "macro_rules! m { () => { $crate::middle::f() } }\npub(in crate::shard) fn g() {}",
        "mod child;\nuse self::child::Child;\nuse crate::low;",
    ] {
        assert_eq!(found(low), [] as [&str; 0], "{low}");
    }
}

#[test]
fn an_arrow_must_not_lead_upwards() {
    let arrow = |from: &str, to: &str, path: &str| {
        let [from, to, path] = [from, to, path].map(str::to_owned);
        BTreeSet::from([Arrow { from, to, place: "a.rs:7".into(), path }])
    };
    let order = ["low", "shard/record", HANDLER, "shard/file", SHARD];
    let found = |from, to, path| upwards(&order, &arrow(from, to, path));
    assert_eq!(found(HANDLER, "low", "crate::low::A"), [] as [&str; 0]);
    assert_eq!(found("low", HANDLER, "crate::A"), ["a.rs:7: low is below handler: crate::A"]);
    assert_eq!(found("low", "new", "crate::A"), ["a.rs:7: low or new has no place in the order"]);
    assert_eq!(found("shard/file", SHARD, "super::Shard"), [] as [&str; 0]);
    assert_eq!(found("shard/file", SHARD, "super::LIMIT").len(), 1);
    assert_eq!(found("shard/record", SHARD, "super::Shard").len(), 1);
}

#[test]
fn arrows_of_circles_are_found() {
    let arrow = |(from, to): (&str, &str)| {
        let [from, to, place, path] = [from, to, "a.rs:7", "crate::A"].map(str::to_owned);
        Arrow { from, to, place, path }
    };
    let found = |ends: &[(&str, &str)]| circles(ends.iter().copied().map(arrow).collect());
    assert_eq!(found(&[("a", "b"), ("b", "c"), ("a", "c")]), [] as [&str; 0]);
    let circle = found(&[("a", "b"), ("b", "c"), ("c", "b"), ("c", "d")]);
    assert_eq!(circle, ["a.rs:7: b imports c: crate::A", "a.rs:7: c imports b: crate::A"]);
}
