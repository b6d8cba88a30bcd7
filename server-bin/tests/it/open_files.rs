//! Files that stay open for the next request: whatever befalls them, the next request sees it.

use crate::common::{Client, Modes, PATIENCE, Reply, Server, pattern, tree};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// A file that has just changed is not kept open.
const SETTLED: Duration = Duration::from_millis(60);
/// Files that nobody asks for are closed after three seconds.
const UNUSED: Duration = Duration::from_secs(3);

/// With files that stay valid for as long as a test takes on a busy machine, unless it says
/// otherwise.
fn start(dir: &Path, arguments: &[&str]) -> Server {
    let mut all = vec!["--shards", "1"];
    if !arguments.contains(&"--open-files-valid") {
        all.extend_from_slice(&["--open-files-valid", "1h"]);
    }
    all.extend_from_slice(arguments);
    Server::http_with_admin(dir, &all)
}

/// What the ledger says of files that stay open: now, hits, misses.
#[track_caller]
fn figures(server: &Server) -> [u64; 3] {
    // A reply may be read before the ledger of its turn is out. Connections are listed by their
    // shard, in a later turn.
    let mut visitor = server.admin();
    assert_eq!(visitor.request("GET", "/connections?limit=1").status, 200);
    let reply = visitor.request("GET", "/ledger");
    let ledger: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(ledger["balanced"], true, "{ledger}");
    ["open", "hits", "misses"].map(|name| ledger["file_cache"][name].as_u64().unwrap())
}

/// Asks until the file is one that stays open, and is answered with from there.
#[track_caller]
fn settle(server: &Server, client: &mut Client, target: &str) {
    thread::sleep(SETTLED);
    assert_eq!(client.request("GET", target).status, 200);
    let [_, before, _] = figures(server);
    assert_eq!(client.request("GET", target).status, 200);
    let [_, after, _] = figures(server);
    assert_eq!(after, before + 1, "it is not open");
}

#[test]
fn a_file_that_is_replaced_is_the_new_one_for_the_next_request() {
    let tree = tree();
    let server = start(tree.path(), &[]);
    let mut client = server.client();
    for round in 0..8 {
        let content = format!("round {round}");
        fs::write(tree.path().join("new"), &content).unwrap();
        fs::rename(tree.path().join("new"), tree.path().join("ten.txt")).unwrap();
        assert_eq!(client.request("GET", "/ten.txt").body, content.as_bytes());
        settle(&server, &mut client, "/ten.txt");
    }
    drop(client);
    server.stop().cleanly();
}

#[test]
fn a_file_that_is_edited_is_sent_as_it_is() {
    let tree = tree();
    let path = tree.path().join("ten.txt");
    let server = start(tree.path(), &[]);
    let mut client = server.client();
    let edits: [(&str, &dyn Fn()); 4] = [
        ("abcdefghij", &|| {
            OpenOptions::new().write(true).open(&path).unwrap().write_all(b"abcdefghij").unwrap();
        }),
        ("abc", &|| OpenOptions::new().write(true).open(&path).unwrap().set_len(3).unwrap()),
        ("abcdef", &|| {
            OpenOptions::new().append(true).open(&path).unwrap().write_all(b"def").unwrap();
        }),
        ("", &|| drop(File::create(&path).unwrap())),
    ];
    let mut tags = Vec::new();
    for (content, edit) in edits {
        settle(&server, &mut client, "/ten.txt");
        edit();
        let reply = client.request("GET", "/ten.txt");
        assert_eq!(String::from_utf8_lossy(&reply.body), content);
        settle(&server, &mut client, "/ten.txt");
        tags.push(client.request("GET", "/ten.txt").field("etag").to_owned());
    }
    tags.dedup();
    assert_eq!(tags.len(), 4, "{tags:?}");
    drop(client);
    server.stop().cleanly();
}

#[test]
fn a_file_that_has_lost_its_name_is_gone_for_the_next_request() {
    let tree = tree();
    let path = |name: &str| tree.path().join(name);
    fs::hard_link(path("ten.txt"), path("also.txt")).unwrap();
    let server = start(tree.path(), &[]);
    let mut client = server.client();
    settle(&server, &mut client, "/ten.txt");
    fs::remove_file(path("ten.txt")).unwrap();
    assert_eq!(client.request("GET", "/ten.txt").status, 404, "it has another name still");
    settle(&server, &mut client, "/also.txt");
    fs::rename(path("also.txt"), path("moved.txt")).unwrap();
    assert_eq!(client.request("GET", "/also.txt").status, 404);
    settle(&server, &mut client, "/moved.txt");
    fs::remove_file(path("moved.txt")).unwrap();
    assert_eq!(client.request("GET", "/moved.txt").status, 404);
    assert_eq!(figures(&server)[0], 0, "what is gone is not kept open");
    drop(client);
    server.stop().cleanly();
}

#[test]
fn another_directory_is_seen_within_the_bound() {
    let tree = tree();
    let path = |name: &str| tree.path().join(name);
    fs::create_dir(path("next")).unwrap();
    fs::write(path("next/index.html"), "next").unwrap();
    let server = start(tree.path(), &["--open-files-valid", "300ms"]);
    let mut client = server.client();
    settle(&server, &mut client, "/sub/");
    fs::rename(path("sub"), path("before")).unwrap();
    fs::rename(path("next"), path("sub")).unwrap();
    let renamed = Instant::now();
    while client.request("GET", "/sub/").body != b"next" {
        assert!(renamed.elapsed() < PATIENCE, "the old one is still shown");
    }
    drop(client);
    server.stop().cleanly();
}

#[test]
fn no_more_stay_open_than_may_and_none_for_ever() {
    const FILES: usize = 20;
    let tree = tree();
    for at in 0..FILES {
        fs::write(tree.path().join(format!("{at}.bin")), pattern(100 + at)).unwrap();
    }
    thread::sleep(SETTLED);
    let server = start(tree.path(), &["--open-files", "4"]);
    let mut client = server.client();
    assert_eq!(client.request("GET", "/none").status, 404, "it is let in");
    let at_rest = server.descriptors();
    for at in (0..FILES).chain(0..FILES).chain([FILES - 1; 10]) {
        let reply = client.request("GET", &format!("/{at}.bin"));
        assert_eq!(reply.body, pattern(100 + at), "{at}");
    }
    let [open, hits, misses] = figures(&server);
    assert_eq!((open, hits, misses), (4, 10, 2 * FILES as u64 + 1));
    // Who has asked for the figures may still be leaving.
    let begun = Instant::now();
    while server.descriptors() > at_rest + 4 {
        assert!(begun.elapsed() < UNUSED * 3 / 4, "{} descriptors", server.descriptors());
        thread::sleep(Duration::from_millis(5));
    }
    let begun = Instant::now();
    loop {
        let open = figures(&server)[0];
        thread::sleep(Duration::from_millis(50));
        if open == 0 && server.descriptors() <= at_rest {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{open} open, {} descriptors", server.descriptors());
    }
    drop(client);
    server.stop().cleanly();
}

#[test]
fn none_stay_open_where_none_may() {
    let tree = tree();
    thread::sleep(SETTLED);
    let server = start(tree.path(), &["--open-files", "0"]);
    let mut client = server.client();
    for _ in 0..3 {
        assert_eq!(client.request("GET", "/ten.txt").body, b"0123456789");
    }
    assert_eq!(figures(&server), [0; 3]);
    drop(client);
    server.stop().cleanly();
}

/// Requests of all kinds for files that are open and for some that are not.
fn mixed() -> Vec<(&'static str, &'static str, &'static str, u16)> {
    vec![
        ("GET", "/ten.txt", "", 200),
        ("HEAD", "/ten.txt", "", 200),
        ("GET", "/ten.txt", "Range: bytes=2-4\r\n", 206),
        ("GET", "/middle.bin", "", 200),
        ("GET", "/ten.txt", "If-None-Match: *\r\n", 304),
        ("GET", "/empty", "", 200),
        ("GET", "/missing", "", 404),
        ("GET", "/ten.txt", "If-Match: \"x\"\r\n", 412),
        ("GET", "/eight.bin", "", 200),
        ("GET", "/ten.txt", "Range: bytes=90-\r\n", 416),
        ("GET", "/sub", "", 301),
        ("POST", "/ten.txt", "Content-Length: 0\r\n", 405),
        ("GET", "/sub/", "", 200),
        ("GET", "/middle.bin", "Range: bytes=-5000\r\n", 206),
        ("HEAD", "/middle.bin", "", 200),
        ("GET", "/", "", 200),
    ]
}

#[test]
fn sixteen_pipelined_are_answered_in_order_as_they_would_be_one_by_one() {
    let tree = tree();
    fs::write(tree.path().join("eight.bin"), pattern(8_192)).unwrap();
    thread::sleep(SETTLED);
    let server = start(tree.path(), &[]);
    let requests = mixed();
    let text = |(method, target, fields, _): &(&str, &str, &str, u16)| {
        format!("{method} {target} HTTP/1.1\r\nHost: x\r\n{fields}\r\n")
    };
    let mut alone = server.client();
    let expected: Vec<Reply> = requests.iter().map(|it| alone.ask(&text(it))).collect();
    let [_, before, _] = figures(&server);
    let mut client = server.client();
    let all: String = requests.iter().map(text).collect();
    for _ in 0..20 {
        client.send(&all);
        for (request, expected) in requests.iter().zip(&expected) {
            let reply = client.reply(request.0 == "HEAD");
            assert_eq!((reply.status, request.3), (expected.status, request.3), "{request:?}");
            assert!(reply.body == expected.body, "the body of {request:?}");
            for name in ["content-length", "content-type", "etag", "last-modified"] {
                assert_eq!(reply.fields.get(name), expected.fields.get(name), "{request:?}");
            }
        }
    }
    let [_, after, _] = figures(&server);
    assert!(after >= before + 20 * 12, "{before} hits, then {after}");
    drop((alone, client));
    server.stop().cleanly();
}

/// Memory of the process in KiB.
fn resident_kib(server: &Server) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn who_pipelines_without_reading_is_held_back() {
    const CLIENTS: usize = 40;
    let tree = tree();
    thread::sleep(SETTLED);
    let server = start(tree.path(), &["--write-timeout", "never"]);
    let mut warm = server.client();
    settle(&server, &mut warm, "/ten.txt");
    let before = resident_kib(&server);
    let requests = "GET /ten.txt HTTP/1.1\r\nHost: x\r\n\r\n".repeat(1_000);
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| server.client()).collect();
    let asked = AtomicUsize::new(0);
    thread::scope(|scope| {
        for client in &mut clients {
            let stream = client.stream.get_mut();
            stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
            scope.spawn(|| {
                while let Ok(bytes) = stream.write(requests.as_bytes()) {
                    let asked = asked.fetch_add(bytes, Ordering::Relaxed);
                    assert!(asked < 2 << 30, "it takes whatever it is asked");
                }
            });
        }
    });
    let asked = asked.into_inner();
    let grown = resident_kib(&server) - before;
    // Its unread requests and its queued replies, for each of them. A shard that runs late keeps a
    // batch of receive buffers as well.
    assert!(grown < CLIENTS * 4 * 1_024, "{grown} KiB for {asked} bytes of requests");
    assert_eq!(warm.request("GET", "/ten.txt").body, b"0123456789", "others are served");
    drop((clients, warm));
    server.stop().cleanly();
}
