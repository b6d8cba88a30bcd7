//! The admin listener of the built daemon, from outside.

mod answers;
mod bans;
mod changes;
mod connections;
mod crowded;
mod draining;
mod exposition;
mod metrics;

use crate::common::{Reply, Server};
use serde_json::Value;

/// GET of JSON.
#[track_caller]
fn json(server: &Server, target: &str) -> Value {
    let reply = server.admin().request("GET", target);
    assert_eq!((reply.status, reply.field("content-type")), (200, "application/json"));
    parsed(&reply)
}

#[track_caller]
fn parsed(reply: &Reply) -> Value {
    serde_json::from_slice(&reply.body).unwrap_or_else(|error| panic!("{error}: {reply:?}"))
}

/// Asks for the ledger until it is as expected.
#[track_caller]
fn ledger_once(server: &Server, expected: impl Fn(&Value) -> bool) -> Value {
    server.ledger_once(expected)
}
