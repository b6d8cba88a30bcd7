//! A complete configuration, and each of its keys wrong in every way.

use crate::configured::{USERS, folder};
use ringwrightd::config::load::{Source, load};
use ringwrightd::config::plan::plan;
use serde_json::Value as Json;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::ops::Range;
use tempfile::TempDir;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

pub const COMPLETE: &str = include_str!("complete.toml");
const SCHEMA: &str = include_str!("../../../config.schema.json");

/// Values that a key cannot have though their type may be right, by the path of the key.
const WRONG: &[(&str, &[&str])] = &[
    ("engine.shards", &["0", "257", "'many'", "true"]),
    ("engine.ring", &["'uring'", "''"]),
    ("engine.pin", &["'yes'", "1"]),
    ("engine.pin_from", &["'x'"]),
    ("engine.max_connections", &["0", "1048577", "'10q'"]),
    ("engine.max_per_ip", &["0", "65536", "'x'"]),
    ("engine.at_capacity", &["'drop'"]),
    ("engine.balance", &["'on'"]),
    ("engine.evict_idle", &["'maybe'", "1"]),
    ("engine.min_rate", &["'x'", "'5GiB'"]),
    ("engine.bans", &["['300.0.0.1']", "'192.0.2.1'", "['192.0.2.0/33']", "[1]"]),
    ("engine.buffers", &["0", "3", "65536", "1000000"]),
    ("engine.buffer_size", &["0", "63", "'2MiB'", "5000000000"]),
    ("engine.send_buffers", &["0", "65537"]),
    ("engine.send_buffer_size", &["63", "'2MiB'", "'1.5'"]),
    ("engine.memory_budget", &["0", "'x'"]),
    ("engine.probe", &["'both'"]),
    ("engine.park_after", &["'0s'", "'never'"]),
    ("engine.streaming_max", &["'x'"]),
    ("engine.workers", &["1025", "'none'"]),
    ("engine.backlog", &["0", "65536"]),
    ("engine.accept_backoff", &["'0s'", "'never'"]),
    ("engine.pipes", &["0", "65537"]),
    ("engine.pipe_size", &["4095", "'2GiB'"]),
    ("engine.sendfile_max", &["'x'", "'5GiB'"]),
    ("engine.splice_from", &["0", "'x'"]),
    ("engine.open_files", &["'x'"]),
    ("engine.open_files_valid", &["'0s'", "'never'"]),
    ("engine.io_workers", &["0", "1025"]),
    ("engine.submission_entries", &["0", "3", "65536"]),
    ("engine.output_high", &["0", "'x'"]),
    ("engine.output_low", &["0", "'1GiB'"]),
    ("engine.output_max", &["'2GiB'", "0", "1"]),
    ("engine.jobs_max", &["0", "1048577"]),
    ("engine.jobs_per_connection", &["0", "65537"]),
    ("engine.commands_max", &["0", "15"]),
    ("engine.keepalive", &["'0s'", "'500ms'", "'10h'"]),
    ("engine.user_timeout", &["'0s'", "'500us'", "'1000h'"]),
    ("engine.drain_delay", &["'never'", "'x'"]),
    ("engine.timeouts.idle", &["'0s'", "'x'", "'5'"]),
    ("engine.timeouts.request", &["'0s'", "'x'"]),
    ("engine.timeouts.write", &["'0s'", "'x'"]),
    ("engine.timeouts.drain", &["'0s'", "'never'"]),
    ("engine.timeouts.linger", &["'0s'", "'never'"]),
    ("engine.timeouts.linger_total", &["'0s'", "'never'"]),
    ("log.access", &["1"]),
    ("log.format", &["'xml'"]),
    ("log.error", &["1"]),
    ("log.level", &["'loud'", "3"]),
    ("admin.listen", &["'nowhere'", "'127.0.0.1:99999'", "''", "['127.0.0.1:0']", "'unix:'"]),
    ("admin.read", &["'nowhere'", "''", "'unix:none/a'"]),
    ("admin.names", &["['a b']", "['*.a']", "['']", "'a.example'"]),
    ("admin.token", &["'nowhere'", "'/dev/zero'", "'empty'"]),
    (
        "site.listen",
        &["[]", "['nowhere']", "['127.0.0.1']", "'127.0.0.1:0'", "['unix:a (mode=0888)']"],
    ),
    ("site.names", &["['a b']", "['*']", "['']", "['a..b']", "['a:80']", "'a.example'"]),
    ("site.default", &["'yes'", "1"]),
    ("site.root", &["'nowhere'", "'users'"]),
    ("site.index", &["['']", "['a/b']", "['.hidden']", "'index.html'"]),
    ("site.spa", &["'app.html'", "'/'", "'/a/'", "'/.hidden'", "'/a%2fb'"]),
    ("site.precompressed", &["'yes'", "1"]),
    ("site.errors", &["{ 200 = '/a.html' }", "{ x = '/a.html' }", "'/404.html'"]),
    ("site.errors.404", &["'404.html'", "'/'"]),
    ("site.health", &["'healthz'", "'/'"]),
    ("site.listing", &["'xml'", "true"]),
    ("site.symlinks", &["'follow'", "false"]),
    ("site.max_ranges", &["0", "65", "70000"]),
    ("site.proxy_protocol_from", &["['x']", "'10.0.0.0/8'", "['unix:']"]),
    ("site.max_connections", &["0", "'x'"]),
    ("site.timeouts", &["'5s'", "5"]),
    ("site.timeouts.idle", &["'0s'", "'x'"]),
    ("site.timeouts.request", &["'0s'", "'x'"]),
    ("site.timeouts.write", &["'0s'", "'x'"]),
    ("site.listener", &["'x'", "5"]),
    ("site.listener.v6_only", &["'yes'", "1"]),
    ("site.listener.backlog", &["0", "65536", "5000000000"]),
    ("site.listener.keepalive", &["'0s'", "'500ms'", "'10h'"]),
    ("site.listener.user_timeout", &["'0s'", "'500us'", "'1000h'"]),
    ("site.listener.output_high", &["0", "'x'"]),
    ("site.listener.output_low", &["0", "'1GiB'"]),
    ("site.listener.output_max", &["'2GiB'", "0", "1"]),
    ("site.min_rate", &["'x'", "'5GiB'"]),
    ("site.real_ip", &["{}", "{ from = ['x'] }", "['10.0.0.0/8']"]),
    ("site.real_ip.from", &["['x']", "'10.0.0.0/8'"]),
    ("site.real_ip.header", &["'via'"]),
    ("site.rule.match", &["''", "'a/b'", "'/a//b'", "'***'"]),
    ("site.rule.root", &["'nowhere'", "'users'"]),
    ("site.rule.headers", &["{ 'a b' = 'x' }", "{ Date = 'x' }", "{ X = 1 }", "'X: y'"]),
    ("site.rule.headers.X-A", &["\"a\\nb\"", "1"]),
    ("site.rule.type", &["\"a\\nb\"", "''"]),
    ("site.rule.cache", &["\"a\\nb\""]),
    ("site.rule.redirect", &["'evil.test'", "'//evil'", "''", "{ to = '/x', status = 200 }"]),
    ("site.rule.redirect.to", &["''", "'//x'", "'/{x}'"]),
    ("site.rule.redirect.status", &["200", "304", "999", "70000"]),
    ("site.rule.auth", &["'nowhere'", "{ realm = 'x' }"]),
    ("site.rule.auth.file", &["'nowhere'"]),
    ("site.rule.auth.realm", &["'a\"b'", "\"a\\nb\""]),
    ("site.rule.listing", &["'xml'"]),
    ("site.rule.rate", &["'fast'", "'0/s'", "'10/d'", "{ burst = 1 }"]),
    ("site.rule.rate.per_address", &["'10'", "'0/s'"]),
    ("site.rule.rate.burst", &["0", "'x'"]),
    ("site.rule.allow", &["['x']", "'127.0.0.1'"]),
    ("site.rule.deny", &["['x']", "'127.0.0.1'"]),
    ("site.rule.cors", &["'null'", "['*']", "{ origins = [] }", "'https://a.example/'"]),
    ("site.rule.cors.origins", &["[]", "['x']", "'https://a.example'"]),
    ("site.rule.cors.max_age", &["'never'", "'x'"]),
    ("site.rule.status", &["[99]", "[600]", "[70000]", "404", "['404']"]),
    ("echo.listen", &["[]", "['nowhere']", "['unix:@']", "['fd:']"]),
    ("echo.proxy_protocol_from", &["['x']"]),
    ("echo.max_connections", &["0", "'x'"]),
    ("echo.timeouts", &["'5s'", "5"]),
    ("echo.timeouts.idle", &["'0s'", "'x'"]),
    ("echo.timeouts.request", &["'0s'", "'x'"]),
    ("echo.timeouts.write", &["'0s'", "'x'"]),
    ("echo.listener", &["'x'", "5"]),
    ("echo.listener.v6_only", &["'yes'", "1"]),
    ("echo.listener.backlog", &["0", "65536", "5000000000"]),
    ("echo.listener.keepalive", &["'0s'", "'500ms'", "'10h'"]),
    ("echo.listener.user_timeout", &["'0s'", "'500us'", "'1000h'"]),
    ("echo.listener.output_high", &["0", "'x'"]),
    ("echo.listener.output_low", &["0", "'1GiB'"]),
    ("echo.listener.output_max", &["'2GiB'", "0", "1"]),
    ("echo.min_rate", &["'x'", "'5GiB'"]),
    ("packets.listen", &["[]", "['nowhere']", "['unix:none/a']"]),
    ("packets.root", &["'nowhere'", "'users'"]),
    ("packets.proxy_protocol_from", &["['x']"]),
    ("packets.max_connections", &["0", "'x'"]),
    ("packets.timeouts", &["'5s'", "5"]),
    ("packets.timeouts.idle", &["'0s'", "'x'"]),
    ("packets.timeouts.request", &["'0s'", "'x'"]),
    ("packets.timeouts.write", &["'0s'", "'x'"]),
    ("packets.listener", &["'x'", "5"]),
    ("packets.listener.v6_only", &["'yes'", "1"]),
    ("packets.listener.backlog", &["0", "65536", "5000000000"]),
    ("packets.listener.keepalive", &["'0s'", "'500ms'", "'10h'"]),
    ("packets.listener.user_timeout", &["'0s'", "'500us'", "'1000h'"]),
    ("packets.listener.output_high", &["0", "'x'"]),
    ("packets.listener.output_low", &["0", "'1GiB'"]),
    ("packets.listener.output_max", &["'2GiB'", "0", "1"]),
    ("packets.min_rate", &["'x'", "'5GiB'"]),
    ("packets.upload_max", &["0", "'x'"]),
    ("packets.read_only", &["'yes'"]),
    ("packets.replace", &["'yes'"]),
    ("packets.sync", &["'yes'"]),
    ("packets.offer_timeout", &["'0s'", "'never'"]),
    ("packets.resume_timeout", &["'0s'", "'never'"]),
    ("packets.resume_max", &["'x'"]),
];

/// Values of no key.
const WRONG_TYPES: [&str; 7] =
    ["1979-05-27", "[[1]]", "1.5", "{ zzz = 1 }", "-1", "inf", "99999999999999999999"];

/// Keys that a table must have.
const REQUIRED: [&str; 10] = [
    "site.listen",
    "site.root",
    "site.real_ip.from",
    "site.rule.match",
    "site.rule.redirect.to",
    "site.rule.auth.file",
    "site.rule.rate.per_address",
    "site.rule.cors.origins",
    "echo.listen",
    "packets.listen",
];

/// A key of the complete configuration.
#[derive(Clone, Debug)]
struct Key {
    /// As messages name it: `site[0].rule[1].match`.
    path: String,
    key: Range<usize>,
    value: Range<usize>,
    /// It is in an inline table.
    is_inline: bool,
}

impl Key {
    /// The path without indices.
    fn name(&self) -> String {
        let mut name = String::new();
        let mut is_index = false;
        for c in self.path.chars() {
            match c {
                '[' => is_index = true,
                ']' => is_index = false,
                c if !is_index => name.push(c),
                _ => {}
            }
        }
        name
    }

    fn last(&self) -> &str {
        self.path.rsplit('.').next().unwrap()
    }

    /// The path of the table that has it.
    fn table(&self) -> &str {
        &self.path[..self.path.len() - self.last().len() - 1]
    }

    /// The names of this key are anybody's: header fields and statuses.
    fn is_free(&self) -> bool {
        self.table().ends_with(".headers") || self.table().ends_with(".errors")
    }
}

/// All keys that have a value, tables in one line among them.
fn keys() -> Vec<Key> {
    fn of_table(table: &DeTable<'_>, path: &str, is_inline: bool, keys: &mut Vec<Key>) {
        for (key, value) in table.iter() {
            let path = format!("{path}{}", key.get_ref());
            of_value(value, (&path, key.span()), is_inline, keys);
        }
    }
    fn of_value(
        value: &Spanned<DeValue<'_>>,
        (path, key): (&str, Range<usize>),
        is_inline: bool,
        keys: &mut Vec<Key>,
    ) {
        let span = value.span();
        match value.get_ref() {
            DeValue::Table(table) if COMPLETE[span.clone()].starts_with('[') => {
                of_table(table, &format!("{path}."), false, keys);
            }
            DeValue::Array(array) if array.iter().any(|one| one.get_ref().is_table()) => {
                for (at, one) in array.iter().enumerate() {
                    of_value(one, (&format!("{path}[{at}]"), key.clone()), false, keys);
                }
            }
            value => {
                keys.push(Key { path: path.to_owned(), key, value: span, is_inline });
                if let DeValue::Table(table) = value {
                    of_table(table, &format!("{path}."), true, keys);
                }
            }
        }
    }
    let document = DeTable::parse(COMPLETE).unwrap();
    let mut keys = Vec::new();
    of_table(document.get_ref(), "", false, &mut keys);
    keys
}

pub fn files() -> TempDir {
    let token = "0123456789abcdef0123456789abcdef";
    folder(&[
        ("users", USERS),
        ("token", token),
        ("empty", ""),
        ("www/index.html", ""),
        ("alias/a.txt", ""),
    ])
}

/// Checks a text in-process, as `check` does. Names of hosts are not looked up.
pub fn check(files: &TempDir, text: &str) -> Result<(), String> {
    let folder = files.path().to_owned();
    let source = Source { name: "c.toml".into(), text: text.into(), folder };
    let loaded = load(Some(&source), &[])?;
    let file = &loaded.file;
    let sites = file.site.iter().flat_map(|site| &site.listen);
    let echo = file.echo.iter().flat_map(|echo| &echo.listen);
    let packets = file.packets.iter().flat_map(|packets| &packets.listen);
    let mut listen =
        sites.chain(echo).chain(packets).chain(&file.admin.listen).chain(&file.admin.read);
    let is_looked_up = |text: &String| {
        let is_name = !text.ends_with(":99999") && !text.starts_with("unix:");
        let is_name = is_name && !text.starts_with("fd:");
        text.parse::<SocketAddr>().is_err() && text.contains(':') && is_name
    };
    if listen.any(is_looked_up) {
        return Ok(());
    }
    plan(file, &source.folder).map(drop).map_err(|faults| source.text().describe(&faults))
}

/// The line and the column of a position, from 1.
fn place(text: &str, at: usize) -> (usize, usize) {
    let line_start = text[..at].rfind('\n').map_or(0, |at| at + 1);
    (text[..at].matches('\n').count() + 1, text[line_start..at].chars().count() + 1)
}

fn replaced(range: &Range<usize>, by: &str) -> String {
    format!("{}{by}{}", &COMPLETE[..range.start], &COMPLETE[range.end..])
}

/// The first lines of the faults that a text has.
fn faults(said: &str) -> impl Iterator<Item = &str> {
    said.lines().filter(|line| line.starts_with("c.toml:"))
}

/// A fault of this line names one of these keys.
#[track_caller]
fn is_refused(files: &TempDir, text: &str, line: usize, keys: &[&str], why: &str) {
    let said = check(files, text).expect_err(why);
    let start = format!("c.toml:{line}:");
    let is_fault = |fault: &str| {
        let Some(rest) = fault.strip_prefix(&start) else { return false };
        let Some((column, what)) = rest.split_once(": ") else { return false };
        let named = what.split([' ', ':']).next().unwrap();
        // A fault of an element of an array names the array and the index.
        let named = named
            .strip_suffix(']')
            .and_then(|key| key.rsplit_once('['))
            .map_or(named, |(key, _)| key);
        column.parse::<usize>().is_ok()
            && keys.iter().any(|key| {
                named == *key || key.strip_suffix(']').is_some_and(|key| key.starts_with(named))
            })
    };
    assert!(faults(&said).any(is_fault), "{why}: no {start} of {keys:?} in {said}");
}

#[test]
fn the_complete_configuration_has_every_key_and_is_valid() {
    check(&files(), COMPLETE).unwrap_or_else(|said| panic!("{said}"));
    let schema: Json = serde_json::from_str(SCHEMA).unwrap();
    let mut known = BTreeSet::new();
    of_schema(&schema, &schema, "", &mut known);
    let found: BTreeSet<String> =
        keys().iter().filter(|key| !key.is_free()).map(Key::name).collect();
    assert_eq!(found, known, "keys of complete.toml, and of the schema");
    let listed: BTreeSet<String> = WRONG.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(listed, keys().iter().map(Key::name).collect(), "keys of WRONG");
}

/// The paths of all keys without indices.
fn of_schema(all: &Json, schema: &Json, path: &str, keys: &mut BTreeSet<String>) {
    if let Some(target) = schema["$ref"].as_str() {
        let name = target.strip_prefix("#/$defs/").unwrap();
        of_schema(all, &all["$defs"][name], path, keys);
    }
    for one in schema["anyOf"].as_array().into_iter().flatten() {
        of_schema(all, one, path, keys);
    }
    of_items(all, schema, path, keys);
    for (key, schema) in schema["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        let is_table =
            ["engine", "engine.timeouts", "log", "admin", "site", "site.rule", "echo", "packets"];
        if !is_table.contains(&&path[..]) {
            keys.insert(path.clone());
        }
        of_schema(all, schema, &path, keys);
    }
}

fn of_items(all: &Json, schema: &Json, path: &str, keys: &mut BTreeSet<String>) {
    if schema["items"].is_object() {
        of_schema(all, &schema["items"], path, keys);
    }
}

#[test]
fn a_wrong_value_is_refused_at_its_place() {
    let files = files();
    for key in keys() {
        let (_, more) = WRONG.iter().find(|(name, _)| *name == key.name()).unwrap();
        let (line, _) = place(COMPLETE, key.value.start);
        for value in WRONG_TYPES.iter().chain(*more) {
            let text = replaced(&key.value, value);
            let why = format!("{} = {value}", key.path);
            // The rules of a site are checked key by key of a rule.
            let inner = format!("{}.", key.path);
            let said = check(&files, &text).expect_err(&why);
            let names_inner = faults(&said).any(|fault| {
                fault.starts_with(&format!("c.toml:{line}:")) && fault.contains(&inner)
            });
            if !names_inner {
                let outer = if key.is_inline { key.table() } else { &key.path };
                is_refused(&files, &text, line, &[&key.path, outer], &why);
            }
        }
    }
}

#[test]
fn a_misspelled_key_is_refused_at_its_place() {
    let files = files();
    for key in keys().into_iter().filter(|key| !key.is_free()) {
        let wrong = format!("{}x", key.last());
        let text = replaced(&key.key, &wrong);
        let (line, column) = place(COMPLETE, key.key.start);
        let said = check(&files, &text).expect_err(&key.path);
        let start = format!("c.toml:{line}:{column}: {}.{wrong}: unknown key; ", key.table());
        assert!(said.starts_with(&start), "{start} is not in {said}");
        assert!(said.contains(&format!("did you mean `{}`?", key.last())), "{said}");
    }
}

#[test]
fn a_key_that_is_given_twice_is_refused_at_its_place() {
    let files = files();
    for key in keys() {
        let pair = &COMPLETE[key.key.start..key.value.end];
        let (text, at) = if key.is_inline {
            let end = key.value.start..key.value.end;
            let value = &COMPLETE[end.clone()];
            (replaced(&end, &format!("{value}, {pair}")), key.value.end + 2)
        } else {
            let start = key.key.start..key.key.start;
            (replaced(&start, &format!("{pair}\n")), key.value.end + 1)
        };
        let (line, column) = place(&text, at);
        let said = check(&files, &text).expect_err(&key.path);
        let start = format!("c.toml:{line}:{column}: ");
        assert!(said.starts_with(&start) && said.contains("duplicate key"), "{start}: {said}");
        assert!(said.contains(&key.path), "{}: {said}", key.path);
    }
}

#[test]
fn a_missing_key_is_refused_at_its_table() {
    let files = files();
    for key in keys() {
        let mut range = key.key.start..key.value.end;
        if COMPLETE[range.end..].starts_with(", ") {
            range.end += 2;
        } else if COMPLETE[..range.start].ends_with(", ") {
            range.start -= 2;
        }
        let text = replaced(&range, "");
        let is_required = REQUIRED.contains(&&key.name()[..]) || key.name() == "packets.root";
        match check(&files, &text) {
            Ok(()) => assert!(!is_required, "{}", key.path),
            Err(said) if is_required => {
                let missing = format!("{}: the key `{}` is missing", key.table(), key.last());
                assert!(said.contains(&missing), "{}: {said}", key.path);
                let table = key.table().rsplit('.').next().unwrap();
                let table = table.split('[').next().unwrap();
                let shown = said.lines().nth(1).unwrap();
                assert!(shown.contains(table), "{}: {said}", key.path);
            }
            // Another key needs this one.
            Err(said) => {
                assert!(["site[0].names"].contains(&&key.path[..]), "{}: {said}", key.path);
            }
        }
    }
}

#[test]
fn a_key_in_another_table_is_refused_at_its_place() {
    let files = files();
    let all = keys();
    let lines = COMPLETE.lines().enumerate().filter(|(_, line)| line.starts_with('['));
    let mut seen = [0; 2];
    for (number, header) in lines {
        let at = COMPLETE.lines().take(number + 1).map(|line| line.len() + 1).sum::<usize>();
        let table = header.trim_matches(['[', ']']);
        for key in all.iter().filter(|key| !key.is_inline) {
            let path = format!("{table}.{}", key.last());
            let has_it = all.iter().any(|other| other.name() == path)
                || ["engine.timeouts", "site.rule"].contains(&&path[..]);
            if has_it {
                seen[0] += 1;
                continue;
            }
            seen[1] += 1;
            let pair = &COMPLETE[key.key.start..key.value.end];
            let text = replaced(&(at..at), &format!("{pair}\n"));
            let said = check(&files, &text).expect_err(&path);
            let start = format!("c.toml:{}:1: ", number + 2);
            assert!(said.starts_with(&start), "{} in {header}: {said}", key.path);
            let rest = format!(".{}: unknown key; ", key.last());
            assert!(said.contains(&rest), "{} in {header}: {said}", key.path);
        }
    }
    assert!(seen[0] > 50 && seen[1] > 500, "{seen:?}");
}
