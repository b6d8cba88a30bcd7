//! The form of the sources. The files that `tidy.txt` lists have lines of at most 100 columns,
//! functions of at most 70 lines, and sentences with a subject. The whole tree has no Rust file
//! that nothing compiles, no module whose file `#[path]` names, and no figure that nothing refers
//! to.
//!
//! The rules read text, not a syntax tree. Their limits:
//! - A function is seen if `fn` and its name stand in the source. One that a macro names is not.
//!   `{` in a signature (a const generic block) is taken for the body.
//! - Modules that a macro declares, and `#[path]` on a module with a body, are not followed.
//! - A sentence begins with a line, or after `.`, `!` or `?` and a space. Text in double quotes
//!   and inline code is not judged.
//! - A column is a `char`.

mod features;
mod layers;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::ops::Range;
use std::path::Path;

const COLUMNS_MAX: usize = 100;
const FUNCTION_LINES_MAX: usize = 70;
/// Files that may name the file of a module with `#[path]`. `loom.rs` compiles four modules of the
/// engine a second time, with loom's atomics in place of the standard ones. A feature of the engine
/// for that would reach all builds of `cargo test --workspace`, where loom's atomics panic outside
/// of a model.
const PATHS_ALLOWED: [&str; 1] = ["engine/tests/loom.rs"];
/// Openings of a sentence that leave out its subject.
const HEADLESS: [&str; 9] =
    ["What", "Who", "Whoever", "Whose", "Whether", "Of", "So", "How long", "How many"];

/// Text by path from the root, with `/` between folders.
type Tree = BTreeMap<String, String>;

#[derive(Debug, PartialEq)]
struct Finding {
    line: usize,
    rule: &'static str,
    text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.line, self.rule, self.text)
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Language {
    Rust,
    Markdown,
    /// Comments begin with `#`: shell, TOML, Python.
    Hash,
}

impl Language {
    fn of(path: &str) -> Option<Self> {
        let name = path.rsplit('/').next().unwrap_or(path);
        match name.rsplit_once('.') {
            Some((_, "rs")) => Some(Self::Rust),
            Some((_, "md")) => Some(Self::Markdown),
            Some((_, "sh" | "toml" | "py")) => Some(Self::Hash),
            Some(_) => None,
            None => Some(Self::Hash),
        }
    }
}

/// Every finding in one file.
fn check(language: Language, text: &str) -> Vec<Finding> {
    let mut found = wide_lines(language, text);
    match language {
        Language::Rust => {
            found.extend(long_functions(text));
            found.extend(headless_comments(comments(text)));
        }
        Language::Markdown => found.extend(headless_sentences(text)),
        Language::Hash => {
            let lines = (1..).zip(text.lines().map(str::trim_start));
            let comments = lines.filter(|(_, line)| line.starts_with('#'));
            found.extend(headless_comments(comments.filter(|(_, line)| !line.starts_with("#!"))));
        }
    }
    found.sort_by_key(|finding| finding.line);
    found
}

// Lines.

fn wide_lines(language: Language, text: &str) -> Vec<Finding> {
    let mut fence = Fence::default();
    let mut found = Vec::new();
    for (line, row) in (1..).zip(text.lines()) {
        let columns = row.chars().count();
        let excepted = language == Language::Markdown && (fence.covers(row) || cannot_break(row));
        if columns > COLUMNS_MAX && !excepted {
            let start: String = row.trim().chars().take(60).collect();
            let text = format!("{columns} columns, at most {COLUMNS_MAX}: {start}…");
            found.push(Finding { line, rule: "line width", text });
        }
    }
    found
}

/// A row of a table, one link, or a line with a URL that would not fit on a line of its own.
fn cannot_break(row: &str) -> bool {
    let indent = row.chars().count() - row.trim_start().chars().count();
    let too_long = |word: &str| indent + word.chars().count() > COLUMNS_MAX;
    let is_url = |word: &str| word.contains("://") || word.contains("](");
    let item = row.trim().trim_start_matches(['-', '*', '>', ' ', '!']);
    let ends_with_target = |rest: &str| rest.trim_end_matches(['.', ',', ';']).ends_with(')');
    let link = item.strip_prefix('[').and_then(|link| link.split_once("]("));
    row.trim_start().starts_with('|')
        || row.split_whitespace().any(|word| is_url(word) && too_long(word))
        || link.is_some_and(|(name, rest)| {
            !name.contains(']') && !rest.contains(' ') && ends_with_target(rest)
        })
        || (item.starts_with('[') && item.contains("]: "))
}

/// Finds the fenced blocks of Markdown. Holds the opening fence of the block that is open.
#[derive(Default)]
struct Fence(Option<String>);

impl Fence {
    /// Takes the next line; true for the lines of a block and for its two fences.
    fn covers(&mut self, row: &str) -> bool {
        let row = row.trim();
        let mark = row.chars().next().filter(|mark| matches!(mark, '`' | '~'));
        let run: String = row.chars().take_while(|c| Some(*c) == mark).collect();
        match &self.0 {
            Some(open) => {
                if run.starts_with(open.as_str()) && run == row {
                    self.0 = None;
                }
                true
            }
            // Backticks with more of them on the same line are inline code.
            None if run.len() >= 3 && !row[run.len()..].contains('`') => {
                self.0 = Some(run);
                true
            }
            None => false,
        }
    }
}

// Sentences.

fn headless_comments<'a>(comments: impl Iterator<Item = (usize, &'a str)>) -> Vec<Finding> {
    let (mut fence, mut before) = (Fence::default(), 0);
    let mut found = Vec::new();
    for (line, comment) in comments {
        if line != before + 1 {
            fence = Fence::default();
        }
        before = line;
        let comment = comment.trim_start_matches(['/', '!', '*', '#']);
        if !fence.covers(comment) && headless(comment).is_some() {
            found.push(Finding { line, rule: "headless sentence", text: comment.trim().into() });
        }
    }
    found
}

fn headless_sentences(text: &str) -> Vec<Finding> {
    let mut fence = Fence::default();
    let mut found = Vec::new();
    for (line, row) in (1..).zip(text.lines().map(str::trim)) {
        let question = row.starts_with('#') && row.ends_with('?');
        let bare = without_quotes(row);
        let mut parts = bare.split('|');
        if !fence.covers(row) && !question && parts.any(|part| headless(part).is_some()) {
            found.push(Finding { line, rule: "headless sentence", text: row.into() });
        }
    }
    found
}

/// The first headless opening of a sentence in a line.
fn headless(line: &str) -> Option<&'static str> {
    let line = without_quotes(line);
    let ends = line.match_indices(['.', '!', '?']).map(|(at, _)| &line[at + 1..]);
    let after = ends.map(|rest| rest.trim_start_matches([')', '*', '_']));
    let sentences = after.filter(|rest| rest.starts_with(char::is_whitespace));
    std::iter::once(line.as_str()).chain(sentences).find_map(|sentence| {
        let sentence = sentence.trim_start_matches(|c: char| !c.is_alphanumeric() && c != '"');
        let opens = |words: &&&str| {
            let rest = sentence.strip_prefix(**words);
            rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '-'))
        };
        HEADLESS.iter().find(opens).copied()
    })
}

/// The line with `x` for each span of inline code or text in double quotes.
fn without_quotes(line: &str) -> String {
    let (mut bare, mut rest) = (String::new(), line);
    while let Some(at) = rest.find(['`', '"']) {
        bare.push_str(&rest[..at]);
        let run = rest[at..].len() - rest[at..].trim_start_matches(&rest[at..=at]).len();
        let (mark, after) = rest[at..].split_at(if rest[at..].starts_with('`') { run } else { 1 });
        match after.find(mark) {
            Some(end) => {
                bare.push('x');
                rest = &after[end + mark.len()..];
            }
            None => {
                bare.push_str(mark);
                rest = after;
            }
        }
    }
    bare + rest
}

// Rust.

#[derive(Clone, Copy, Debug, PartialEq)]
enum Piece {
    Comment,
    /// A string or a character.
    Literal,
}

/// The comments and literals of a Rust source, in order.
fn pieces(text: &str) -> Vec<(Piece, Range<usize>)> {
    let (mut at, mut found) = (0, Vec::new());
    while let Some(next) = text[at..].chars().next() {
        let rest = &text[at..];
        let word = rest.find(|c| !is_of_word(c)).unwrap_or(rest.len());
        let (piece, bytes) = if rest.starts_with("//") {
            (Some(Piece::Comment), rest.find('\n').unwrap_or(rest.len()))
        } else if rest.starts_with("/*") {
            (Some(Piece::Comment), block_comment_bytes(rest))
        } else if let Some(bytes) = literal_bytes(rest) {
            (Some(Piece::Literal), bytes)
        } else {
            (None, word.max(next.len_utf8()))
        };
        found.extend(piece.map(|piece| (piece, at..at + bytes)));
        at += bytes;
    }
    found
}

fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn block_comment_bytes(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while let Some(next) = text[at..].find(['/', '*']) {
        at += next;
        let (change, bytes) = match text.get(at..at + 2) {
            Some("/*") => (1, 2),
            Some("*/") => (-1, 2),
            _ => (0, 1),
        };
        (depth, at) = (depth + change, at + bytes);
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

/// The length of the literal that begins here, if one does.
fn literal_bytes(text: &str) -> Option<usize> {
    let body = text.trim_start_matches(['b', 'c', 'r']);
    let prefix = text.len() - body.len();
    if text[..prefix].contains('r') {
        let hashes = body.len() - body.trim_start_matches('#').len();
        let inside = body[hashes..].strip_prefix('"')?;
        let end = format!("\"{}", &body[..hashes]);
        let close = inside.find(&end).map_or(inside.len(), |at| at + end.len());
        return Some(prefix + hashes + 1 + close);
    }
    let mut inside = body.char_indices();
    let (_, quote) = inside.next().filter(|(_, quote)| matches!(quote, '"' | '\''))?;
    let first = inside.clone().next().map(|(_, c)| c);
    // A lifetime has no second quote.
    if quote == '\'' && first != Some('\\') && inside.clone().nth(1)?.1 != '\'' {
        return None;
    }
    while let Some((at, c)) = inside.next() {
        if c == '\\' {
            inside.next();
        } else if c == quote {
            return Some(prefix + at + 1);
        }
    }
    Some(text.len())
}

/// The source with spaces in place of the pieces that `hides` names. Offsets stay the same.
fn masked(text: &str, hides: &[Piece]) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for (piece, range) in pieces(text) {
        if hides.contains(&piece) {
            bytes[range].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
        }
    }
    String::from_utf8(bytes).expect("whole characters are replaced")
}

/// Each line of each comment, with its line number.
fn comments(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let of_comment = |(piece, range): &(Piece, Range<usize>)| {
        (*piece == Piece::Comment).then(|| (line_of(text, range.start), &text[range.clone()]))
    };
    let found: Vec<_> = pieces(text).iter().filter_map(of_comment).collect();
    found.into_iter().flat_map(|(line, comment)| (line..).zip(comment.lines().map(str::trim)))
}

fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// Each `keyword NAME` of a masked source: its offset, the name, and the offset behind the name.
fn named<'a>(code: &'a str, keyword: &'a str) -> impl Iterator<Item = (usize, &'a str, usize)> {
    code.match_indices(keyword).filter_map(move |(at, _)| {
        let after = &code[at + keyword.len()..];
        let rest = after.trim_start();
        let name = &rest[..rest.find(|c| !is_of_word(c)).unwrap_or(rest.len())];
        let alone = !code[..at].ends_with(is_of_word) && rest.len() < after.len();
        (alone && !name.is_empty()).then(|| (at, name, code.len() - rest.len() + name.len()))
    })
}

/// The offset behind the brace that closes the one at `open`.
fn closed_at(code: &str, open: usize) -> usize {
    let mut depth = 0_u32;
    for (at, brace) in code[open..].match_indices(['{', '}']) {
        depth = if brace == "{" { depth + 1 } else { depth.saturating_sub(1) };
        if depth == 0 {
            return open + at + 1;
        }
    }
    code.len()
}

/// The offset of a function's body. Returns `None` for a declaration that ends with a semicolon.
fn body_of(code: &str, from: usize) -> Option<usize> {
    let mut depth = 0_i32;
    for (at, c) in code[from..].char_indices() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            '{' => return Some(from + at),
            ';' if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

fn long_functions(text: &str) -> Vec<Finding> {
    let code = masked(text, &[Piece::Comment, Piece::Literal]);
    let lines_of = |(at, name, from)| {
        let end = closed_at(&code, body_of(&code, from)?);
        Some((at, name, line_of(&code, end) - line_of(&code, at) + 1))
    };
    let functions = named(&code, "fn").filter_map(lines_of);
    let long = functions.filter(|(_, _, lines)| *lines > FUNCTION_LINES_MAX);
    let finding = |(at, name, lines): (usize, &str, usize)| Finding {
        line: line_of(&code, at),
        rule: "function length",
        text: format!("{name} has {lines} lines, at most {FUNCTION_LINES_MAX}"),
    };
    long.map(finding).collect()
}

// The tree.

/// Rust files that no target compiles, neither itself nor through `mod`.
fn orphaned_sources(tree: &Tree) -> Vec<&str> {
    let mut found: BTreeSet<String> = BTreeSet::new();
    // The flag: modules that the file declares lie in its own folder, not in one of its name.
    let mut next: Vec<(String, bool)> = targets(tree).into_iter().map(|it| (it, true)).collect();
    while let Some((path, owns_folder)) = next.pop() {
        let Some(text) = tree.get(&path) else { continue };
        if found.insert(path.clone()) {
            next.extend(modules(&path, owns_folder, text));
        }
    }
    let sources = tree.keys().filter(|path| path.ends_with(".rs"));
    sources.filter(|path| !found.contains(*path)).map(String::as_str).collect()
}

/// File and line of each `#[path]` outside of the files that may have one.
fn given_paths(tree: &Tree) -> Vec<String> {
    let mut found = Vec::new();
    let sources = tree.iter().filter(|(path, _)| path.ends_with(".rs"));
    for (path, text) in sources.filter(|(path, _)| !PATHS_ALLOWED.contains(&path.as_str())) {
        let code = masked(text, &[Piece::Comment, Piece::Literal]);
        let attributes = code.match_indices("path").filter(|(at, name)| {
            let before = code[..*at].trim_end();
            let is_inside = before.rfind("#[").is_some_and(|open| !before[open..].contains(']'));
            let is_whole = before.ends_with(['[', ',']);
            is_inside && is_whole && code[at + name.len()..].trim_start().starts_with('=')
        });
        found.extend(attributes.map(|(at, _)| format!("{path}:{}", line_of(text, at))));
    }
    found
}

/// The files that Cargo compiles as roots of crates.
fn targets(tree: &Tree) -> Vec<String> {
    let manifests = tree.iter().filter_map(|(path, text)| {
        let folder = path.strip_suffix("Cargo.toml").filter(|_| text.contains("[package]"))?;
        Some((folder, text))
    });
    let of_package = |(folder, manifest): (&str, &String)| {
        let sources: Vec<String> = tree
            .keys()
            .filter(|path| {
                let inside = path.strip_prefix(folder);
                inside.is_some_and(|inside| {
                    is_found_by_cargo(inside) || manifest.contains(&format!("path = \"{inside}\""))
                })
            })
            .cloned()
            .collect();
        sources
    };
    manifests.flat_map(of_package).collect()
}

fn is_found_by_cargo(path: &str) -> bool {
    let inside = |folder| path.strip_prefix(folder);
    let program = ["src/bin/", "examples/", "tests/", "benches/"].into_iter().find_map(inside);
    let is_program = |name: &str| match name.split_once('/') {
        None => name.ends_with(".rs"),
        Some((_, file)) => file == "main.rs",
    };
    matches!(path, "build.rs" | "src/lib.rs" | "src/main.rs") || program.is_some_and(is_program)
}

/// The files in which the modules declared here may be, each with its `owns_folder`.
fn modules(path: &str, owns_folder: bool, text: &str) -> Vec<(String, bool)> {
    let code = masked(text, &[Piece::Comment, Piece::Literal]);
    let plain = masked(text, &[Piece::Comment]);
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let own = if owns_folder { folder } else { path.trim_end_matches(".rs") };
    let mut inline: Vec<(&str, usize)> = Vec::new();
    let mut found = Vec::new();
    for (at, name, behind) in named(&code, "mod") {
        inline.retain(|(_, end)| at < *end);
        let sign = code[behind..].trim_start().chars().next();
        if sign == Some('{') {
            inline.push((name, closed_at(&code, behind + code[behind..].find('{').unwrap())));
        }
        if sign != Some(';') {
            continue;
        }
        let within: String = inline.iter().map(|(name, _)| format!("/{name}")).collect();
        let before = code[..at].rfind([';', '{', '}']).map_or(0, |end| end + 1);
        let given =
            plain[before..at].split_once("path = \"").and_then(|(_, it)| it.split_once('"'));
        match given {
            Some((given, _)) if inline.is_empty() => {
                found.push((joined(folder, given), true));
            }
            Some((given, _)) => found.push((joined(&format!("{own}{within}"), given), true)),
            None => {
                let base = format!("{own}{within}");
                found.push((joined(&base, &format!("{name}.rs")), false));
                found.push((joined(&base, &format!("{name}/mod.rs")), true));
            }
        }
    }
    found
}

/// A path from a folder on, without `.` and `..`.
fn joined(folder: &str, path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in folder.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => _ = parts.pop(),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Figures and data of `benches/` and `loadgen/` that no document and no source names.
fn orphaned_figures(tree: &Tree) -> Vec<&str> {
    let names = |path: &str, text: &str| -> Option<String> {
        match Language::of(path)? {
            Language::Rust => Some(text.to_owned()),
            Language::Hash => path.ends_with(".sh").then(|| text.to_owned()),
            // A file name in an example command is no reference.
            Language::Markdown => {
                let mut fence = Fence::default();
                Some(text.lines().filter(|row| !fence.covers(row)).collect::<Vec<_>>().join("\n"))
            }
        }
    };
    let texts: Vec<String> = tree.iter().filter_map(|(path, text)| names(path, text)).collect();
    let is_figure = |path: &&str| {
        let ours = path.starts_with("benches/") || path.starts_with("loadgen/");
        ours && [".svg", ".png", ".json"].iter().any(|end| path.ends_with(end))
    };
    let is_named = |path: &str| {
        let name = path.rsplit('/').next().unwrap_or(path);
        let ends_longer = |before: &str| before.ends_with(|c| is_of_word(c) || "-.".contains(c));
        texts.iter().any(|text| text.match_indices(name).any(|(at, _)| !ends_longer(&text[..at])))
    };
    tree.keys().map(String::as_str).filter(is_figure).filter(|path| !is_named(path)).collect()
}

/// All files but those of `target` and of folders with a dot (`.ci` is one of ours).
fn read_tree(root: &Path, folder: &str, tree: &mut Tree) {
    let at = root.join(folder);
    for entry in fs::read_dir(&at).unwrap_or_else(|error| panic!("{}: {error}", at.display())) {
        let entry = entry.expect("an entry of a folder");
        let name = entry.file_name().into_string().expect("names here are UTF-8");
        let path = joined(folder, &name);
        let kind = entry.file_type().expect("the type of an entry");
        let left_out = name == "target" || (name.starts_with('.') && name != ".ci");
        if kind.is_dir() && !left_out {
            read_tree(root, &path, tree);
        } else if kind.is_file() {
            let bytes =
                fs::read(root.join(&path)).unwrap_or_else(|error| panic!("{path}: {error}"));
            tree.insert(path, String::from_utf8(bytes).unwrap_or_default());
        }
    }
}

fn tree() -> Tree {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the engine has a parent");
    let mut tree = Tree::new();
    read_tree(root, "", &mut tree);
    tree
}

/// The files that a list names, and the entries that name none.
fn listed<'a>(tree: &'a Tree, list: &'a str) -> (BTreeSet<&'a str>, Vec<Finding>) {
    let (mut files, mut wrong) = (BTreeSet::new(), Vec::new());
    for (line, entry) in (1..).zip(list.lines().map(str::trim)) {
        if entry.is_empty() || entry.starts_with('#') {
            continue;
        }
        let folder = entry.strip_suffix("**");
        let fits = |path: &&str| match folder {
            Some(folder) => path.starts_with(folder),
            None => *path == entry,
        };
        let paths = tree.keys().map(String::as_str).filter(fits);
        let known: Vec<&str> = paths.filter(|path| Language::of(path).is_some()).collect();
        if known.is_empty() {
            wrong.push(Finding { line, rule: "nothing to check", text: entry.into() });
        }
        files.extend(known);
    }
    (files, wrong)
}

#[test]
fn listed_files_are_tidy() {
    let tree = tree();
    let (files, wrong) = listed(&tree, include_str!("../tidy.txt"));
    let mut report: Vec<String> = wrong.iter().map(|it| format!("tidy.txt:{it}")).collect();
    for path in files {
        let language = Language::of(path).expect("only known files are listed");
        report.extend(check(language, &tree[path]).iter().map(|it| format!("{path}:{it}")));
    }
    assert!(report.is_empty(), "{} findings\n{}", report.len(), report.join("\n"));
}

#[test]
fn every_rust_file_is_compiled() {
    let tree = tree();
    let orphans = orphaned_sources(&tree);
    let report = orphans.iter().map(|path| format!("{path}:1: orphan: no mod and no target\n"));
    assert!(orphans.is_empty(), "{}", report.collect::<String>());
}

#[test]
fn no_module_has_a_given_path() {
    let found = given_paths(&tree());
    assert!(found.is_empty(), "#[path] is not allowed here:\n{}", found.join("\n"));
}

#[test]
fn every_figure_is_referred_to() {
    let tree = tree();
    let orphans = orphaned_figures(&tree);
    let report = orphans.iter().map(|path| format!("{path}:1: orphan: nothing refers to it\n"));
    assert!(orphans.is_empty(), "{}", report.collect::<String>());
}

// The rules themselves.

/// The lines at which a rule finds something.
fn lines(language: Language, rule: &str, text: &str) -> Vec<usize> {
    let found = check(language, text);
    found.iter().filter(|finding| finding.rule == rule).map(|finding| finding.line).collect()
}

#[test]
fn lines_are_as_wide_as_allowed() {
    let fits = "é".repeat(COLUMNS_MAX);
    let wide = "wide ".repeat(21);
    for language in [Language::Rust, Language::Markdown, Language::Hash] {
        assert_eq!(lines(language, "line width", &fits), [] as [usize; 0]);
        assert_eq!(lines(language, "line width", &format!("a\n{wide}\n")), [2]);
    }
    let literal = format!("const A: &str = \"{}\";", "x".repeat(COLUMNS_MAX));
    assert_eq!(lines(Language::Rust, "line width", &literal), [1]);
}

#[test]
fn markdown_that_cannot_be_broken_may_be_wide() {
    let (word, words) = ("w".repeat(COLUMNS_MAX), "wide ".repeat(21));
    let excepted = [
        format!("| {words} |"),
        format!("```\n{words}\n```"),
        format!("- [{words}](file.md)"),
        format!("![{words}](file.svg)"),
        format!("See https://example.org/{word} for more."),
        format!("[name]: https://example.org/{words}"),
    ];
    for text in excepted {
        assert_eq!(lines(Language::Markdown, "line width", &text), [] as [usize; 0], "{text}");
    }
    let breakable = [
        format!("[short](file.md) {words}"),
        format!("{words} https://example.org"),
        format!("```\ncode\n```\n{words}"),
        format!("a `b` ```c``` {words}"),
        format!("```c``` d\n{words}"),
    ];
    for text in breakable {
        let last = text.lines().count();
        assert_eq!(lines(Language::Markdown, "line width", &text), [last], "{text}");
    }
}

#[test]
fn functions_are_as_long_as_allowed() {
    let function = |lines: usize| format!("\nfn f() {{\n{}}}\n", "    g();\n".repeat(lines - 2));
    assert_eq!(lines(Language::Rust, "function length", &function(70)), [] as [usize; 0]);
    assert_eq!(lines(Language::Rust, "function length", &function(71)), [2]);
    let bodies = "    g();\n".repeat(30);
    // Braces that close nothing; a type and a declaration that have no body.
    let tricky = format!(
        "fn f<'a>(_: [u8; 4], _: fn(u8)) -> u8 {{\n{bodies}'}}'; b'\\''; \"}}\\\"\"; \
         r#\"\" }}\"#; // }}\n/* /* }} */ }} */ '\\u{{7d}}';\n{bodies}}}\n\
         trait T {{ fn g(_: [u8; 4]); }}\nfn h() {{\n{bodies}}}\n"
    );
    assert_eq!(lines(Language::Rust, "function length", &tricky), [] as [usize; 0]);
    let nested = tricky.replacen('\n', &format!("\n{bodies}"), 1);
    assert_eq!(lines(Language::Rust, "function length", &nested), [1]);
}

#[test]
fn a_comment_has_a_subject() {
    let headless = [
        "/// What it is.",
        "//! Whether it is.",
        "    // Whoever comes.",
        "let a = 1; // Of a.",
        "// It ends. So it begins.",
        "/// - How long it takes.",
        "/* Whose it is. */",
        "/**\n * Who it is. */",
    ];
    for text in headless {
        let line = text.lines().count();
        assert_eq!(lines(Language::Rust, "headless sentence", text), [line], "{text}");
    }
    let fine = [
        "/// The end, so that",
        "/// Offset, Sort, However, Someone.",
        "/// How it ends.",
        "// So-called slots.",
        "let a = \"// What it is.\";",
        "let a = r#\"\n// What it is.\n\"#;",
        "/// ```\n/// What it prints.\n/// ```",
        "/// `What` is a name. \"Who?\" is a question.",
    ];
    for text in fine {
        assert_eq!(lines(Language::Rust, "headless sentence", text), [] as [usize; 0], "{text}");
    }
    assert_eq!(lines(Language::Hash, "headless sentence", "#!/bin/Who\na=1\n  # So b.\n"), [3]);
    assert_eq!(lines(Language::Hash, "headless sentence", "# The end.\n\"# What\"\n"), []);
    // A block that one comment leaves open does not reach into the next.
    let open = "/// ```\n/// text\nfn f();\n/// What it is.";
    assert_eq!(lines(Language::Rust, "headless sentence", open), [4]);
}

#[test]
fn a_sentence_has_a_subject() {
    let headless = [
        "So it goes.",
        "- Of these.",
        "1. Whose turn it is.",
        "## What it does",
        "It ends.** Who begins?",
        "| name | How many there are |",
        "So that it ends.",
        "It `ends`. So it is.",
        "What's in it.",
    ];
    for text in headless {
        assert_eq!(lines(Language::Markdown, "headless sentence", text), [1], "{text}");
    }
    let fine = [
        "## Who is it for?",
        "```\nWhat it prints.\n```",
        "~~~\nWhat it prints.\n```\nSo\n~~~",
        "| \"It ends. Who begins it?\" | Only the queue starts it. |",
        "`So` it is, and ``a ` So`` too.",
        "The file a.b of version 1.2 ends so that others begin.",
    ];
    for text in fine {
        let found = lines(Language::Markdown, "headless sentence", text);
        assert_eq!(found, [] as [usize; 0], "{text}");
    }
}

fn tree_of(files: &[(&str, &str)]) -> Tree {
    files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect()
}

#[test]
fn a_source_without_a_mod_is_an_orphan() {
    let tree = tree_of(&[
        ("a/Cargo.toml", "[package]\n[[bin]]\npath = \"src/other.rs\""),
        ("a/build.rs", ""),
        ("a/src/lib.rs", "mod b; pub(crate) mod c;\n#[path = \"../far/d.rs\"] mod d; // mod e;"),
        ("a/src/b.rs", "mod inner { mod deep; }\nmod side;"),
        ("a/src/b/inner/deep.rs", ""),
        ("a/src/b/side.rs", ""),
        ("a/src/c/mod.rs", "mod f;"),
        ("a/src/c/f.rs", ""),
        ("a/far/d.rs", "mod g;"),
        ("a/far/g.rs", ""),
        ("a/src/other.rs", ""),
        ("a/src/bin/one.rs", ""),
        ("a/tests/all/main.rs", "mod h;"),
        ("a/tests/all/h.rs", ""),
    ]);
    assert_eq!(orphaned_sources(&tree), [] as [&str; 0]);
    let orphans = ["a/src/e.rs", "a/src/side.rs", "a/tests/all/i.rs", "b/src/lib.rs"];
    let mut more = tree.clone();
    more.extend(tree_of(&orphans.map(|path| (path, ""))));
    assert_eq!(orphaned_sources(&more), orphans);
}

#[test]
fn a_given_path_is_found() {
    let tree = tree_of(&[
        ("a/src/lib.rs", "mod b;\n#[path = \"c.rs\"]\nmod d;\n#[ path=\"e.rs\"] mod f;"),
        ("a/src/some.rs", "#[cfg_attr(test,\n    path = \"g.rs\")]\nmod h;"),
        ("a/src/fine.rs", "//! #[path = \"a.rs\"]\nconst A: &str = \"#[path = 1]\";"),
        ("a/src/other.rs", "fn f(x: [u8; 1]) { let path = 1; g!(x, path = path); }"),
        (PATHS_ALLOWED[0], "#[path = \"../src/a.rs\"]\nmod a;"),
        ("a/README.md", "#[path = \"a.rs\"]"),
    ]);
    assert_eq!(given_paths(&tree), ["a/src/lib.rs:2", "a/src/lib.rs:4", "a/src/some.rs:2"]);
}

#[test]
fn a_figure_without_a_reference_is_an_orphan() {
    let tree = tree_of(&[
        ("server-bin/elsewhere.svg", ""),
        ("benches/one.svg", ""),
        ("benches/two.json", ""),
        ("benches/results-three.svg", ""),
        ("loadgen/four.png", ""),
        ("benches/README.md", "![one](one.svg) ![three](results-three.svg)"),
        ("benches/run.sh", "cat \"$folder/two.json\""),
        ("loadgen/src/lib.rs", "const PICTURE: &str = \"four.png\";"),
    ]);
    assert_eq!(orphaned_figures(&tree), [] as [&str; 0]);
    let mut more = tree.clone();
    more.extend(tree_of(&[
        ("benches/three.svg", ""),
        ("loadgen/five.json", ""),
        ("README.md", "```\nload --json five.json\n```"),
    ]));
    assert_eq!(orphaned_figures(&more), ["benches/three.svg", "loadgen/five.json"]);
}

#[test]
fn a_list_names_files_that_exist() {
    let files = ["a/b.rs", "a/c/d.md", "a/e.svg", "ab.rs", "f"].map(|path| (path, ""));
    let tree = tree_of(&files);
    let (files, wrong) = listed(&tree, "# All of a.\na/**\n\nf\n");
    assert_eq!(files.into_iter().collect::<Vec<_>>(), ["a/b.rs", "a/c/d.md", "f"]);
    assert_eq!(wrong, []);
    let (_, wrong) = listed(&tree, "gone.rs\na/e.svg\ngone/**");
    assert_eq!(wrong.iter().map(|finding| finding.line).collect::<Vec<_>>(), [1, 2, 3]);
}
