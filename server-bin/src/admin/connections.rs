//! Connections as JSON.

use crate::clients::Clients;
use ringwright::{ConnectionInfo, Origin};
use std::fmt::Write as _;

/// A page: those connections, and where the next page begins if they fill it.
#[must_use]
pub fn page(
    connections: &[ConnectionInfo],
    limit: usize,
    listeners: &[String],
    clients: &Clients,
) -> String {
    let mut json = String::with_capacity(64 + 192 * connections.len());
    json.push_str("{\"connections\":[");
    for (at, connection) in connections.iter().enumerate() {
        if at > 0 {
            json.push(',');
        }
        append(&mut json, connection, listeners, clients);
    }
    json.push_str("],\"next\":");
    match connections.last() {
        Some(last) if connections.len() >= limit => {
            let _ = write!(json, "\"{}\"", last.id);
        }
        _ => json.push_str("null"),
    }
    json.push('}');
    json
}

/// One connection.
#[must_use]
pub fn one(connection: &ConnectionInfo, listeners: &[String], clients: &Clients) -> String {
    let mut json = String::with_capacity(192);
    append(&mut json, connection, listeners, clients);
    json
}

/// Nothing in it needs escaping: addresses, numbers, and names from the engine's own code.
fn append(json: &mut String, connection: &ConnectionInfo, listeners: &[String], clients: &Clients) {
    let (client, socket) = (clients.of(connection), connection.peer);
    // As text: a number of 64 bits is more than JavaScript can tell apart.
    let _ = write!(json, "{{\"id\":\"{}\",\"peer\":\"{client}\"", connection.id);
    if client != socket {
        let _ = write!(json, ",\"socket\":\"{socket}\"");
    }
    let listener = match connection.origin {
        Origin::Listener(number) => listeners.get(usize::from(number)),
        Origin::Connected(_) => None,
    };
    match listener {
        Some(listener) => {
            let _ = write!(json, ",\"listener\":\"{listener}\"");
        }
        None => json.push_str(",\"listener\":null"),
    }
    let _ = write!(
        json,
        ",\"state\":\"{}\",\"age_seconds\":{:.3},\"idle_seconds\":{:.3},\"queued_bytes\":{}}}",
        connection.state,
        connection.age.as_secs_f64(),
        connection.idle.as_secs_f64(),
        connection.queued_bytes
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringwright::ConnectionId;
    use serde_json::{Value, json};
    use std::time::Duration;

    fn connection(number: u64, origin: Origin) -> ConnectionInfo {
        let peer = ringwright::Peer::Ip("[::1]:4000".parse().unwrap());
        let mut info = ConnectionInfo::new(ConnectionId::from_number(number), peer, origin);
        (info.age, info.idle) = (Duration::from_millis(61_500), Duration::from_micros(1_499));
        info.queued_bytes = 7;
        info
    }

    #[test]
    fn as_scripts_read_it() {
        let listeners = ["echo://127.0.0.1:1".to_owned(), "http://[::1]:2".to_owned()];
        let connections = [
            connection(u64::MAX, Origin::Listener(1)),
            connection(5, Origin::Connected(9)),
            connection(6, Origin::Listener(2)),
        ];
        let clients = Clients::default();
        clients.add(connections[1].id, "192.0.2.1:7".parse().unwrap());
        let page = |connections: &[_], limit| page(connections, limit, &listeners, &clients);
        let one = |connection| one(connection, &listeners, &clients);
        let value: Value = serde_json::from_str(&page(&connections, 4)).unwrap();
        assert_eq!(value["next"], Value::Null);
        let first = json!({
            "id": "18446744073709551615",
            "peer": "[::1]:4000",
            "listener": "http://[::1]:2",
            "state": "open",
            "age_seconds": 61.5,
            "idle_seconds": 0.001,
            "queued_bytes": 7,
        });
        assert_eq!(value["connections"][0], first);
        assert_eq!(value["connections"][1]["listener"], Value::Null);
        assert_eq!(value["connections"][2]["listener"], Value::Null, "a listener unknown");
        let proxied = &value["connections"][1];
        assert_eq!((&proxied["peer"], &proxied["socket"]), (&json!("192.0.2.1:7"), &first["peer"]));
        clients.remove(connections[1].id);
        let direct: Value = serde_json::from_str(&one(&connections[1])).unwrap();
        assert_eq!((&direct["peer"], direct.get("socket")), (&first["peer"], None));
        let one: Value = serde_json::from_str(&one(&connections[0])).unwrap();
        assert_eq!(one, first);
        let full: Value = serde_json::from_str(&page(&connections, 3)).unwrap();
        assert_eq!(full["next"], "6");
        let empty: Value = serde_json::from_str(&page(&[], 3)).unwrap();
        assert_eq!(empty, json!({"connections": [], "next": null}));
    }
}
