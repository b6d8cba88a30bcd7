//! A hundred reloads under load.

use super::load::Load;
use super::{ADMIN, metric, reload};
use crate::configured::{Configured, Port, folder, text, wait_until};
use std::fmt::Write;
use std::thread;

const SITES: usize = 16;

/// Sites of one address. Each has a header field with this value, and a rule with a root.
fn config(port: &Port, value: usize) -> String {
    let mut config = ADMIN.to_owned();
    for site in 0..SITES {
        let address = port.address();
        write!(
            config,
            "[[site]]\nlisten = [\"{address}\"]\nnames = [\"s{site}.example\"]\n\
             root = \"s{site}\"\nprecompressed = true\n\
             [[site.rule]]\nmatch = \"*\"\nheaders = {{ X-Value = \"{value}\" }}\n\
             [[site.rule]]\nmatch = \"/alias/**\"\nroot = \"s0\"\n"
        )
        .unwrap();
    }
    config
}

#[test]
fn a_hundred_reloads_under_load_lose_no_request_and_nothing_grows() {
    let files: Vec<(String, String)> =
        (0..SITES).map(|site| (format!("s{site}/a.txt"), format!("site {site}"))).collect();
    let files: Vec<(&str, &str)> =
        files.iter().map(|(path, text)| (&path[..], &text[..])).collect();
    let port = Port::reserve();
    let running = Configured::start(folder(&files), &config(&port, 0), &["http", "admin http"]);
    let in_rest = running.server.descriptors();
    let resident = || metric(&running, "process_resident_memory_bytes");
    let load = Load::default();
    let before = thread::scope(|scope| {
        for client in 0..3 {
            let site = client * 5;
            let (host, body) = (format!("s{site}.example"), format!("site {site}"));
            let mut last = 0;
            load.client(scope, port.address(), host, move |reply| {
                assert_eq!(text(reply), (200, &body[..]));
                assert!(!reply.fields.contains_key("connection"));
                let value: usize = reply.field("x-value").parse().unwrap();
                assert!(value >= last, "{value} after {last}");
                last = value;
            });
        }
        let mut before = 0;
        for value in 1..=100 {
            let replies = load.replies();
            let (generation, changed) = reload(&running, &config(&port, value));
            assert_eq!((generation, changed.len()), (value as u64 + 1, SITES));
            wait_until("requests in between", || load.replies() > replies);
            if value == 40 {
                before = resident();
            }
        }
        load.end();
        before
    });
    // The shards have let go of what they served before.
    let reply = running.ask_once("GET", "/a.txt", "Host: s7.example\r\n");
    assert_eq!((text(&reply), reply.field("x-value")), ((200, "site 7"), "100"));
    running
        .server
        .ledger_once(|ledger| ledger["connections"]["open"] == 0 && ledger["balanced"] == true);
    assert!(resident() < before + (8 << 20), "{before} bytes, then {}", resident());
    // A shard that has nothing to do still has the directories of one generation before.
    wait_until("no more descriptors than before", || {
        running.server.descriptors() <= in_rest + 6 * SITES
    });
    assert_eq!(metric(&running, "ringwright_config_reloads_total{result=\"success\"}"), 100);
    running.stop();
}
