//! Tests of the documents about the configuration, which are made from its definition.

mod settings;

use super::file::File;
use super::load::{Source, load};
use super::plan::plan;
use schemars::schema_for;
use serde_json::{Map, Value};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

/// Set this variable to write the documents anew.
const WRITE: &str = "RINGWRIGHT_WRITE_DOCUMENTS";

fn package() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn is_current(name: &str, text: &str) {
    let path = package().join(name);
    if std::env::var_os(WRITE).is_some() {
        fs::write(&path, text).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == text,
        "{name} is out of date: {WRITE}=1 cargo test -p ringwrightd --lib config::tests writes it"
    );
}

fn schema() -> Value {
    let mut schema = serde_json::to_value(schema_for!(File)).unwrap();
    schema["title"] = "ringwrightd".into();
    schema
}

#[test]
fn the_schema_is_current() {
    is_current("config.schema.json", &format!("{:#}\n", schema()));
}

#[test]
fn the_page_of_keys_is_current() {
    is_current("KEYS.md", &keys_page());
}

#[test]
fn the_example_is_valid_and_uses_each_kind_of_table() {
    let text = fs::read_to_string(package().join("example.toml")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for directory in ["www", "app", "downloads", "uploads"] {
        fs::create_dir(folder.path().join(directory)).unwrap();
    }
    // The password is "secret".
    let hash = "$2b$04$abcdefghijklmnopqrstuuC/jEo4GKgFGmzXuIhwyWZVxuvUVxJ.G";
    let hash = format!("joe:{hash}\n");
    fs::write(folder.path().join("users"), hash).unwrap();
    let source = Source { name: "example.toml".into(), text, folder: folder.path().to_owned() };
    let loaded = load(Some(&source), &[]).unwrap_or_else(|error| panic!("{error}"));
    let plan = plan(&loaded.file, &source.folder)
        .unwrap_or_else(|faults| panic!("{}", source.text().describe(&faults)));
    assert_eq!((plan.sites.len(), plan.packets.len()), (3, 1));
    assert_eq!(plan.services.len(), 5, "two sites share two listeners");
    let file = &loaded.file;
    assert!(file.log.access.is_some() && file.admin.listen.is_some() && !file.echo.is_empty());
}

/// The page of keys, from the schema.
fn keys_page() -> String {
    let schema = schema();
    let mut page = String::from(
        "# The keys of the configuration file\n\n\
         A test makes this page from the definition of the keys (`src/config/file.rs`).\n\
         [`example.toml`](example.toml) is a commented example, and\n\
         [`config.schema.json`](config.schema.json) is the schema for editors.\n\n\
         Durations are written as `\"500ms\"`, `\"5s\"`, `\"2m\"` or `\"1h\"`; sizes as\n\
         `4096`, `\"64KiB\"` or `\"1GiB\"`; counts as `500`, `\"10k\"` or `\"1M\"`.\n\
         Relative paths begin at the folder of the file.\n",
    );
    let defaults = serde_json::to_value(File::default()).unwrap();
    for (header, name, about) in [
        ("[engine]", "Engine", "Threads, memory, limits and timeouts of all listeners."),
        ("[engine.timeouts]", "Timeouts", "The time limits of connections."),
        ("[log]", "Log", "The access log."),
        ("[admin]", "Admin", "The admin listener (see README.md)."),
        ("[[site]]", "Site", "A site over HTTP. Sites with the same address share one listener."),
        ("[[site.rule]]", "Rule", "A rule of the site above it."),
        ("[[echo]]", "Echo", "A service that sends every byte back."),
        ("[[packets]]", "Packets", "A service of length-prefixed packets (PACKETS.md)."),
    ] {
        let of_table = match name {
            "Engine" => defaults["engine"].clone(),
            "Timeouts" => defaults["engine"]["timeouts"].clone(),
            "Log" => defaults["log"].clone(),
            _ => Value::Object(Map::new()),
        };
        writeln!(page, "\n## `{header}`\n\n{about}\n").unwrap();
        writeln!(page, "| key | default | meaning |\n|---|---|---|").unwrap();
        let table = &schema["$defs"][name];
        let required = table["required"].as_array().cloned().unwrap_or_default();
        for (key, about) in table["properties"].as_object().unwrap() {
            let text = about["description"].as_str().unwrap_or_default().replace('\n', " ");
            let default = match of_table.get(key).or_else(|| about.get("default")) {
                _ if required.contains(&Value::String(key.clone())) => "required".to_owned(),
                Some(Value::Null) | None => String::new(),
                Some(Value::Object(_)) => String::new(),
                Some(value) => format!("`{value}`"),
            };
            writeln!(page, "| `{key}` | {default} | {} |", text.replace('|', "\\|")).unwrap();
        }
    }
    page
}

#[test]
fn each_key_is_described() {
    let schema = schema();
    for (name, table) in schema["$defs"].as_object().unwrap() {
        for (key, about) in table["properties"].as_object().into_iter().flatten() {
            assert!(about["description"].is_string(), "{name}.{key}");
        }
    }
}
