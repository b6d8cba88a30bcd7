//! The access log: one line per connection, with the bytes of its files.

use super::Served;
use super::client::{ECHO, ECHOED, GET, data, packet, put, take};
use crate::common::pattern;
use std::fs;

#[test]
fn the_bytes_of_files_count_both_ways() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let log = log.to_str().unwrap();
    let served = Served::start(&["--access-log", log, "--log-format", "json"]);
    let bytes = pattern(300_000);
    let mut client = served.client();
    let uploaded = put(1, "file", 300_000).len() + data(1, &bytes[..100_000]).len() * 3;
    client.upload(1, "file", &bytes, 100_000);
    assert!(client.download(2, "file") == bytes);
    let downloaded = packet(GET, 2, b"file").len() + take(2, 0, 300_000).len();
    assert_eq!(client.ask(ECHO, 3, b"x", ECHOED), b"x");
    let received = uploaded + downloaded + packet(ECHO, 3, b"x").len();
    client.half_close();
    client.is_at_its_end();
    let mut wrong = served.client();
    wrong.write(&u32::MAX.to_be_bytes());
    let _ = std::io::Read::read_to_end(&mut wrong.stream, &mut Vec::new());
    served.has_closed_by("protocol_error", 1);
    served.stop(&["file"]);
    let log = fs::read_to_string(log).unwrap();
    let lines: Vec<serde_json::Value> =
        log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let reasons = lines.iter().map(|line| line["reason"].as_str().unwrap());
    assert_eq!(reasons.collect::<Vec<_>>(), ["peer_fin", "protocol_error"], "{log}");
    assert_eq!(
        (&lines[0]["protocol"], &lines[0]["received_bytes"]),
        (&"packets".into(), &received.into())
    );
    let sent = lines[0]["sent_bytes"].as_u64().unwrap();
    assert!((300_000..301_000).contains(&sent), "{log}");
    assert_eq!(lines[1]["received_bytes"], 4);
    assert!(lines[0]["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{log}");
    assert!(lines[0]["duration_ms"].is_u64() && lines[0]["connection"].is_u64(), "{log}");
}
