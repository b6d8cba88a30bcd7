//! `ringwrightd echo --disconnect-rate`: what clients see of it, whether the server says the same,
//! and whether our own client comes back.

mod kept;
mod plain;
mod seen;

use crate::common::{Ended, Server, command};
use std::collections::BTreeMap;

/// `ringwrightd echo` with one shard and more arguments.
#[track_caller]
fn disconnecting(arguments: &[&str]) -> Server {
    let mut all = vec!["echo", "--listen", "127.0.0.1:0", "--shards", "1"];
    all.extend_from_slice(arguments);
    Server::start(&mut command(&all), "echo")
}

/// How often it has begun each ending, as it says at the end.
#[track_caller]
fn told(ended: &Ended) -> BTreeMap<String, u64> {
    let line = ended.stderr.lines().find_map(|line| line.strip_prefix("disconnected "));
    let line = line.unwrap_or_else(|| panic!("nothing told in {}", ended.stderr));
    serde_json::from_str(line).unwrap()
}

/// The same as its metrics say.
#[track_caller]
fn disconnects(server: &Server) -> BTreeMap<String, u64> {
    let page = server.admin().request("GET", "/metrics").body;
    String::from_utf8(page)
        .unwrap()
        .lines()
        .filter_map(|line| line.strip_prefix("ringwright_disconnects_total{ending=\""))
        .map(|line| {
            let (ending, count) = line.split_once("\"} ").unwrap();
            (ending.to_owned(), count.parse().unwrap())
        })
        .collect()
}
