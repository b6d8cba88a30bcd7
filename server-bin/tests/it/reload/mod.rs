//! Reading the configuration again: what changes, what stays, and what clients notice of it.

mod changes;
mod listeners;
mod load;
mod many;
mod refused;

use crate::common::Reply;
use crate::configured::Configured;
use serde_json::Value;
use std::fs;

/// An admin listener, in front of the rest of a configuration.
const ADMIN: &str = "[admin]\nlisten = \"127.0.0.1:0\"\n";

/// Writes the configuration anew.
fn write(running: &Configured, text: &str) {
    fs::write(running.path().join("c.toml"), text).unwrap();
}

/// `POST /reload`.
#[track_caller]
fn post(running: &Configured) -> Reply {
    running.server.admin().request("POST", "/reload")
}

/// Writes the configuration anew and reloads it: the generation and the keys that changed.
#[track_caller]
fn reload(running: &Configured, text: &str) -> (u64, Vec<String>) {
    write(running, text);
    let reply = post(running);
    assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
    let answer: Value = serde_json::from_slice(&reply.body).unwrap();
    let changed = answer["changed"].as_array().unwrap();
    let changed = changed.iter().map(|key| key.as_str().unwrap().to_owned()).collect();
    (answer["generation"].as_u64().unwrap(), changed)
}

/// The reload is refused: what it says.
#[track_caller]
fn refused(running: &Configured, text: &str) -> String {
    write(running, text);
    let reply = post(running);
    let said = String::from_utf8(reply.body).unwrap();
    assert_eq!(reply.status, 422, "{said}");
    said
}

/// A sample of `/metrics`.
#[track_caller]
fn metric(running: &Configured, name: &str) -> u64 {
    let reply = running.server.admin().request("GET", "/metrics");
    let page = String::from_utf8(reply.body).unwrap();
    let sample = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let sample = sample.unwrap_or_else(|| panic!("no {name} in {page}"));
    sample.parse::<f64>().unwrap() as u64
}
