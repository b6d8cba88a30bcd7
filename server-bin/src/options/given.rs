//! The values of the command line and the environment, as keys of the configuration.

use crate::config::load::{Given, Origin};
use clap::ArgMatches;
use clap::parser::ValueSource;
use toml::Value;

/// The form of a value in the configuration.
#[derive(Clone, Copy)]
pub(super) enum Form {
    Text,
    List,
    Switch,
    /// A table from texts such as `404=/404.html`.
    Table,
}

use Form::{List, Switch, Table, Text};

/// The argument, the key that it sets, and the form of its value.
pub(super) type Keys = &'static [(&'static str, &'static str, Form)];

pub(super) const COMMON: Keys = &[
    ("shards", "engine.shards", Text),
    ("max_connections", "engine.max_connections", Text),
    ("buffers", "engine.buffers", Text),
    ("ring", "engine.ring", Text),
    ("pin_from", "engine.pin_from", Text),
    ("at_capacity", "engine.at_capacity", Text),
    ("balance", "engine.balance", Text),
    ("evict_idle", "engine.evict_idle", Text),
    ("min_rate", "engine.min_rate", Text),
    ("max_per_ip", "engine.max_per_ip", Text),
    ("ban", "engine.bans", List),
    ("idle_timeout", "engine.timeouts.idle", Text),
    ("request_timeout", "engine.timeouts.request", Text),
    ("write_timeout", "engine.timeouts.write", Text),
    ("drain_timeout", "engine.timeouts.drain", Text),
    ("drain_delay", "engine.drain_delay", Text),
    ("workers", "engine.workers", Text),
    ("access_log", "log.access", Text),
    ("log_format", "log.format", Text),
    ("error_log", "log.error", Text),
    ("log_level", "log.level", Text),
    ("admin", "admin.listen", Text),
    ("admin_read", "admin.read", Text),
    ("buffer_size", "engine.buffer_size", Text),
    ("memory_budget", "engine.memory_budget", Text),
    ("probe", "engine.probe", Text),
];

pub(super) const HTTP: Keys = &[
    ("dir", "site[0].root", Text),
    ("listen", "site[0].listen", List),
    ("spa", "site[0].spa", Text),
    ("precompressed", "site[0].precompressed", Switch),
    ("error_page", "site[0].errors", Table),
    ("listing", "site[0].listing", Text),
    ("symlinks", "site[0].symlinks", Text),
    ("proxy_protocol_from", "site[0].proxy_protocol_from", List),
    ("open_files", "engine.open_files", Text),
    ("open_files_valid", "engine.open_files_valid", Text),
];

const ECHO: Keys = &[("listen", "echo[0].listen", List)];

const PACKETS: Keys = &[
    ("dir", "packets[0].root", Text),
    ("listen", "packets[0].listen", List),
    ("upload_max", "packets[0].upload_max", Text),
    ("read_only", "packets[0].read_only", Switch),
    ("replace", "packets[0].replace", Switch),
    ("sync", "packets[0].sync", Switch),
    ("offer_timeout", "packets[0].offer_timeout", Text),
    ("resume_timeout", "packets[0].resume_timeout", Text),
    ("resume_max", "packets[0].resume_max", Text),
];

/// Environment variables that belong to one site or service. Beside a file they would redirect all
/// of them.
pub(super) const OF_ONE_SERVICE: [&str; 14] = [
    "RINGWRIGHTD_DIR",
    "RINGWRIGHTD_LISTEN",
    "RINGWRIGHTD_SPA",
    "RINGWRIGHTD_PRECOMPRESSED",
    "RINGWRIGHTD_LISTING",
    "RINGWRIGHTD_SYMLINKS",
    "RINGWRIGHTD_PROXY_PROTOCOL_FROM",
    "RINGWRIGHTD_UPLOAD_MAX",
    "RINGWRIGHTD_READ_ONLY",
    "RINGWRIGHTD_REPLACE",
    "RINGWRIGHTD_SYNC",
    "RINGWRIGHTD_OFFER_TIMEOUT",
    "RINGWRIGHTD_RESUME_TIMEOUT",
    "RINGWRIGHTD_RESUME_MAX",
];

/// The values that were given to a mode of the program. A mode without a file has its directory and
/// its addresses among them in any case.
pub(super) fn given(mode: &str, matches: &ArgMatches) -> Vec<Given> {
    let own = match mode {
        "http" => HTTP,
        "echo" => ECHO,
        "packets" => PACKETS,
        "run" => &[],
        _ => return Vec::new(),
    };
    let all = own.iter().chain(COMMON);
    let given = all.filter_map(|(argument, key, form)| one(matches, argument, key, *form));
    let rules = if mode == "http" { rules(matches) } else { None };
    given.chain(rules).collect()
}

/// The rules of `--header`, `--cache-control` and `--mime`.
fn rules(matches: &ArgMatches) -> Option<Given> {
    let texts = |argument| {
        let raw = matches.get_raw(argument).into_iter().flatten();
        raw.map(|raw| raw.to_string_lossy().into_owned()).collect::<Vec<_>>()
    };
    let rule = |pattern: &str, key: &str, value: Value| {
        let pairs = [("match", Value::String(pattern.to_owned())), (key, value)];
        Value::Table(pairs.map(|(key, value)| (key.to_owned(), value)).into_iter().collect())
    };
    let mut rules = Vec::new();
    for text in texts("header") {
        let Some((pattern, (name, value))) = split_header(&text) else { continue };
        let fields = [(name.to_owned(), Value::String(value.to_owned()))];
        rules.push(rule(pattern, "headers", Value::Table(fields.into_iter().collect())));
    }
    for text in texts("cache_control") {
        let Some((pattern, value)) = text.split_once('=') else { continue };
        rules.push(rule(pattern, "cache", Value::String(value.to_owned())));
    }
    for text in texts("mime") {
        let Some((extension, media_type)) = text.split_once('=') else { continue };
        let pattern = format!("*.{extension}");
        rules.push(rule(&pattern, "type", Value::String(media_type.to_owned())));
    }
    let origin = Some(Origin::Flag("--header, --cache-control, --mime".into()));
    (!rules.is_empty()).then_some(Given { key: "site[0].rule", value: Value::Array(rules), origin })
}

/// Splits `GLOB: Name: value`.
pub(super) fn split_header(text: &str) -> Option<(&str, (&str, &str))> {
    let (pattern, field) = text.split_once(':')?;
    let (name, value) = field.split_once(':')?;
    Some((pattern.trim(), (name.trim(), value.trim())))
}

fn one(
    matches: &ArgMatches,
    argument: &'static str,
    key: &'static str,
    form: Form,
) -> Option<Given> {
    let dashed = argument.replace('_', "-");
    let origin = match matches.value_source(argument)? {
        ValueSource::CommandLine if argument == "dir" => Some(Origin::Flag("DIR".into())),
        ValueSource::CommandLine => Some(Origin::Flag(format!("--{dashed}"))),
        ValueSource::EnvVariable => {
            let variable = format!("RINGWRIGHTD_{}", argument.to_uppercase());
            Some(Origin::Environment(variable))
        }
        _ if matches!(argument, "dir" | "listen") => None,
        _ => return None,
    };
    let is_address = matches!(argument, "listen" | "admin" | "admin_read");
    let mut texts = matches.get_raw(argument)?.map(|raw| {
        let text = raw.to_string_lossy().into_owned();
        if is_address { absolute(text) } else { text }
    });
    let value = match form {
        Text => Value::String(texts.next()?),
        List => Value::Array(texts.map(Value::String).collect()),
        Switch => Value::Boolean(matches.get_flag(argument)),
        Table => {
            let pairs = texts.filter_map(|text| {
                let (key, value) = text.split_once('=')?;
                Some((key.to_owned(), Value::String(value.to_owned())))
            });
            Value::Table(pairs.collect())
        }
    };
    Some(Given { key, value, origin })
}

/// A path of a Unix socket begins at the current folder, not at that of the configuration.
fn absolute(text: String) -> String {
    let path =
        text.strip_prefix("unix:").filter(|path| !matches!(path.as_bytes(), [] | [b'@', ..]));
    let path = path.and_then(|path| std::path::absolute(path).ok());
    path.map_or(text, |path| format!("unix:{}", path.display()))
}
