//! `/metrics`, read strictly and compared with what was done and with `/ledger`.

use super::exposition::{Family, read};
use super::{json, ledger_once};
use crate::common::{Client, Modes, Server};
use std::collections::HashMap;
use std::io::Read;

#[track_caller]
fn metrics(server: &Server) -> HashMap<String, Family> {
    let reply = server.admin().request("GET", "/metrics");
    assert_eq!(reply.status, 200);
    assert_eq!(reply.field("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    read(str::from_utf8(&reply.body).unwrap())
}

#[test]
fn every_sample_is_told_properly_and_is_true() {
    let server = Server::echo_with_admin(&["--shards", "2", "--max-connections", "100"]);
    let before = metrics(&server);
    assert_eq!(before["ringwright_connections_opened_total"].total(), 0.0);
    // Published although it never changes.
    assert!(before["ringwright_memory_budget_bytes"].total() >= f64::from(16 << 20));
    for _ in 0..10 {
        let mut client = server.client();
        client.send("0123456789");
        client.stream.read_exact(&mut [0; 10]).unwrap();
        client.half_close();
        client.is_at_its_end();
    }
    let staying: Vec<Client> = (0..3).map(|_| server.client()).collect();
    ledger_once(&server, |ledger| {
        ledger["connections"]["opened"] == 13 && ledger["connections"]["closed"] == 10
    });
    let after = metrics(&server);
    assert_eq!(before.len(), after.len());
    for (name, expected) in [
        ("ringwright_connections_opened_total", 13.0),
        ("ringwright_connections_closed_total", 10.0),
        ("ringwright_connections_accepted_total", 13.0),
        ("ringwright_connections_open", 3.0),
        ("ringwright_received_bytes_total", 100.0),
        ("ringwright_sent_bytes_total", 100.0),
        ("ringwright_permits", 100.0),
        ("ringwright_permits_free", 97.0),
        ("ringwright_permits_for_clients", 97.0),
        ("ringwright_memory_budget_used_bytes", 0.0),
        ("ringwright_memory_budget_pauses_total", 0.0),
        ("ringwright_ready", 1.0),
        ("ringwright_ledger_balanced", 1.0),
    ] {
        assert_eq!(after[name].total(), expected, "{name}");
    }
    let ended = &after["ringwright_connections_closed_total"];
    assert_eq!(ended.sum("reason", "peer_fin"), 10.0);
    for shard in ["0", "1"] {
        let reasons = ended.samples.keys().filter(|(_, labels)| labels[0].1 == shard).count();
        let ledger = json(&server, "/ledger");
        assert_eq!(reasons, ledger["closed_by"].as_object().unwrap().len());
        assert_eq!(after["ringwright_receive_buffers"].sum("shard", shard), 512.0);
    }
    assert!(after["process_resident_memory_bytes"].total() > 1e6);
    assert!(after["process_cpu_seconds_total"].total() > 0.0);
    assert!(after["process_start_time_seconds"].total() > 1.7e9);
    // Counters only grow.
    for (name, family) in before.iter().filter(|(_, family)| family.kind == "counter") {
        for (sample, value) in &family.samples {
            assert!(after[name].samples[sample] >= *value, "{sample:?}");
        }
    }
    drop(staying);
    ledger_once(&server, |ledger| ledger["connections"]["open"] == 0);
    assert_eq!(metrics(&server)["ringwright_connections_open"].total(), 0.0);
    server.stop().cleanly();
}
