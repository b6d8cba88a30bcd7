//! The program: what it prints, what signals do, how it ends.

use crate::common::{Client, Modes, PATIENCE, Server, command, command_below, tree};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

#[test]
fn mistakes_are_exit_status_2_and_name_the_flag() {
    for (arguments, named) in [
        (&["http", "--shards", "0"][..], "--shards"),
        (&["http", "--listen", "nowhere"], "--listen"),
        (&["http", "--idle-timeout", "5"], "--idle-timeout"),
        (&["echo", "--max-connections", "none"], "--max-connections"),
        (&["echo", "--buffers", "1000"], "--buffers"),
        (&["echo", "--speed", "high"], "--speed"),
        (&["echo", "--disconnect-rate", "2"], "--disconnect-rate"),
        (&["echo", "--disconnect-seed", "2"], "--disconnect-rate"),
        (&["http", "--disconnect-rate", "1%"], "--disconnect-rate"),
        (&["sing"], "sing"),
        (&[], "Usage"),
    ] {
        let output = command(arguments).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
        assert!(stderr.contains(named), "{arguments:?}: {stderr}");
        assert!(output.stdout.is_empty());
    }
    let output = command(&["echo"]).env("RINGWRIGHTD_SHARDS", "0").output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr.contains("--shards") && stderr.contains("auto"), "{stderr}");
}

#[test]
fn what_cannot_be_served_is_exit_status_1_and_named() {
    let missing =
        command(&["http", "/no/such/folder", "--listen", "127.0.0.1:0"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8(missing.stderr).unwrap().contains("/no/such/folder"));
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = command(&["echo", "--shards", "1", "--listen", &address]).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains(&address), "{stderr}");
    assert!(output.stdout.is_empty(), "it is not ready, and must not say so");
    for arguments in [
        ["--listen", "127.0.0.1:0", "--admin", &address],
        ["--listen", &address, "--admin", "127.0.0.1:0"],
    ] {
        let output = command(&["echo", "--shards", "1"]).args(arguments).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains(&address), "{stderr}");
        assert_eq!(stderr.contains("--admin"), arguments[3] == address, "{stderr}");
        assert!(output.stdout.is_empty(), "half of it is not ready");
    }
}

#[test]
fn help_tells_defaults_and_examples() {
    let text = |arguments: &[&str]| {
        let output = command(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        String::from_utf8(output.stdout).unwrap()
    };
    let help = text(&["--help"]);
    for expected in ["http", "echo", "doctor", "Examples:", "SIGTERM", "Exit status"] {
        assert!(help.contains(expected), "{expected} is missing in {help}");
    }
    let help = text(&["http", "--help"]);
    for expected in ["127.0.0.1:8080", "RINGWRIGHTD_LISTEN", "--drain-timeout", "[default: 10k]"] {
        assert!(help.contains(expected), "{expected} is missing in {help}");
    }
    for mode in ["http", "echo", "packets", "doctor"] {
        for flag in ["-h", "--help"] {
            let help = text(&[mode, flag]);
            assert!(help.contains("Examples:"), "{mode} {flag}: {help}");
        }
    }
}

#[test]
fn the_environment_counts_and_flags_go_before() {
    let tree = tree();
    let mut daemon = command(&["http", "--listen", "127.0.0.1:0"]);
    daemon
        .env("RINGWRIGHTD_DIR", tree.path())
        .env("RINGWRIGHTD_LISTEN", "127.0.0.1:1,127.0.0.1:2")
        .env("RINGWRIGHTD_SHARDS", "1");
    let server = Server::start(&mut daemon, "http");
    assert_eq!(server.get("/ten.txt", "").body, b"0123456789");
    server.stop().cleanly();
}

#[test]
fn workers_run_in_every_mode_and_a_flag_goes_before_the_environment() {
    for (mode, default) in [("http", 4), ("echo", 0), ("packets", 2)] {
        for (variable, flag, workers) in
            [(None, None, default), (Some("3"), None, 3), (Some("3"), Some("4"), 4)]
        {
            let mut daemon = command(&[mode, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
            daemon.args(["--request-timeout", "5s"]);
            daemon.envs(variable.map(|workers| ("RINGWRIGHTD_WORKERS", workers)));
            daemon.args(flag.map(|workers| format!("--workers={workers}")));
            let server = Server::start_with_admin(&mut daemon, mode);
            server.ledger_once(|ledger| ledger["jobs"]["workers"] == workers);
            server.stop().cleanly();
        }
    }
}

#[test]
fn several_listeners_of_both_kinds() {
    let tree = tree();
    let server = Server::http(tree.path(), &["--listen", "[::1]:0", "--probe", "poll"]);
    assert_eq!(server.get("/ten.txt", "").status, 200);
    let ended = server.stop().cleanly();
    let second = ended.stdout.trim_end().strip_prefix("listening http://[::1]:");
    assert!(second.is_some_and(|port| port != "0"), "{}", ended.stdout);
}

#[test]
fn echo_sends_every_byte_back() {
    let mut daemon = command(&["echo", "--listen", "127.0.0.1:0"]);
    let server = Server::start(&mut daemon, "echo");
    let clients: Vec<_> = (0..8_u8)
        .map(|number| {
            let address = server.address;
            thread::spawn(move || {
                let mut stream = TcpStream::connect(address).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                // More than all buffers on the way: it must be read while it is written.
                let bytes: Vec<u8> = (0..4_000_000_u32).map(|at| at as u8 ^ number).collect();
                let mut writer = stream.try_clone().unwrap();
                let sent = bytes.clone();
                let writing = thread::spawn(move || {
                    writer.write_all(&sent).unwrap();
                    writer.shutdown(Shutdown::Write).unwrap();
                });
                let mut back = Vec::new();
                stream.read_to_end(&mut back).unwrap();
                writing.join().unwrap();
                assert!(back == bytes, "client {number} got {} bytes, and others", back.len());
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
    server.stop().cleanly();
}

#[test]
fn the_smallest_buffers_are_enough() {
    let tree = tree();
    let server = Server::http(tree.path(), &["--buffer-size", "64", "--buffers", "1"]);
    let long = format!("X: {}\r\n", "x".repeat(1_000));
    assert_eq!(server.get("/ten.txt", &long).body, b"0123456789");
    server.stop().cleanly();

    let mut daemon = command(&["echo", "--listen", "127.0.0.1:0", "--buffer-size", "64"]);
    let server = Server::start(&mut daemon, "echo");
    let bytes: Vec<u8> = (0..10_000_u32).map(|at| at as u8).collect();
    let mut client = server.client();
    client.send(&bytes);
    let mut back = vec![0; bytes.len()];
    client.stream.read_exact(&mut back).unwrap();
    assert_eq!(back, bytes);
    drop(client);
    server.stop().cleanly();
}

#[test]
fn a_drain_finishes_what_is_under_way() {
    let tree = tree();
    let length = 20 << 20;
    File::create(tree.path().join("large.bin")).unwrap().set_len(length).unwrap();
    // One shard: when one connection has heard of the drain, all have.
    let server = Server::http_with_admin(tree.path(), &["--shards", "1"]);
    let address = server.address;
    let (request, half) =
        ("GET /ten.txt HTTP/1.1\r\nHost: x\r\n\r\n", "GET /ten.txt HTTP/1.1\r\nHo");
    let mut idle = server.client();
    assert_eq!(idle.ask(request).status, 200);
    let mut begun = server.client();
    begun.send(half);
    // Its body comes together with the rest of the head.
    let mut refused = server.client();
    let half_post = "POST /ten.txt HTTP/1.1\r\nContent-Length: 3\r\nHo";
    refused.send(half_post);
    let mut download = server.client();
    let large = "GET /large.bin HTTP/1.1\r\nHost: x\r\n\r\n";
    download.send(large);
    assert_eq!(download.head().status, 200);
    let sent = request.len() + half.len() + half_post.len() + large.len();
    server.ledger_once(|ledger| ledger["bytes"]["received"] == sent);
    server.signal(libc::SIGTERM);
    // The idle one ends at once.
    idle.is_at_its_end();
    drop(idle);
    // The request that was begun is answered, with the end announced.
    for (mut client, rest, status) in
        [(begun, "st: x\r\n\r\n", 200), (refused, "st: x\r\n\r\nabc", 405)]
    {
        client.send(rest);
        let reply = client.reply(false);
        assert_eq!((reply.status, reply.field("connection")), (status, "close"));
        client.is_at_its_end();
    }
    // The listener is closed as soon as nothing is armed on it.
    let give_up = Instant::now() + PATIENCE;
    while TcpStream::connect(address).is_ok() {
        assert!(Instant::now() < give_up, "new clients are let in while it drains");
        thread::sleep(Duration::from_millis(1));
    }
    let mut left = Vec::new();
    download.stream.read_to_end(&mut left).unwrap();
    assert_eq!(left.len() as u64, length);
    drop(download);
    server.wait().cleanly();
}

#[test]
fn a_drain_has_a_deadline_and_a_second_signal_does_not_wait_for_it() {
    let tree = tree();
    File::create(tree.path().join("large.bin")).unwrap().set_len(100 << 20).unwrap();
    for (drain_timeout, signals) in [("300ms", 1), ("1h", 2)] {
        let server =
            Server::http(tree.path(), &["--drain-timeout", drain_timeout, "--shards", "1"]);
        let mut stalled = server.client();
        stalled.send("GET /large.bin HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(stalled.head().status, 200);
        server.signal(libc::SIGTERM);
        thread::sleep(Duration::from_millis(100));
        if signals == 2 {
            server.signal(libc::SIGINT);
        }
        let ended = server.wait().cleanly();
        assert!(ended.stderr.contains("\"stopped\":1"), "{}", ended.stderr);
    }
}

/// Keep-alive clients and clients that never said anything locked everybody out until the idle
/// timeout.
#[test]
fn at_capacity_the_longest_idle_client_makes_room() {
    let tree = tree();
    for policy in ["wait", "reject"] {
        let arguments = ["--max-connections", "40", "--at-capacity", policy, "--shards", "2"];
        let server = Server::http_with_admin(tree.path(), &arguments);
        let request = "GET /ten.txt HTTP/1.1\r\nHost: x\r\n\r\n";
        let mut idle: Vec<Client> = (0..40).map(|_| server.client()).collect();
        for client in idle.iter_mut().step_by(2) {
            assert_eq!(client.ask(request).status, 200);
        }
        server.ledger_once(|ledger| ledger["connections"]["open"] == 40);
        // Nobody is idle before a tenth of a second has passed.
        thread::sleep(Duration::from_millis(200));
        for _ in 0..20 {
            assert_eq!(server.client().ask(request).status, 200, "{policy}");
        }
        server.ledger_once(|ledger| ledger["closed_by"]["evicted"].as_u64() > Some(0));
        drop(idle);
        server.stop().cleanly();
    }
}

#[test]
fn at_capacity_clients_wait_or_are_turned_away() {
    let tree = tree();
    for (policy, served) in [("wait", true), ("reject", false)] {
        let full = ["--max-connections", "2", "--at-capacity", policy, "--evict-idle", "off"];
        let arguments = [&full[..], &["--shards", "1"]].concat();
        let server = Server::http_with_admin(tree.path(), &arguments);
        let request = "GET /ten.txt HTTP/1.1\r\nHost: x\r\n\r\n";
        let mut within: Vec<Client> = (0..2).map(|_| server.client()).collect();
        for client in &mut within {
            assert_eq!(client.ask(request).status, 200);
        }
        let mut beyond = server.client();
        // Turned away, it may see that before it has written.
        let _ = beyond.stream.get_mut().write_all(request.as_bytes());
        if served {
            server.ledger_once(|ledger| ledger["connections"]["waiting"] == 1);
            drop(within);
            assert_eq!(beyond.reply(false).status, 200);
        } else {
            let mut byte = [0];
            let outcome = beyond.stream.read(&mut byte);
            assert!(matches!(outcome, Ok(0) | Err(_)), "{outcome:?}");
            drop(within);
        }
        drop(beyond);
        let give_up = Instant::now() + PATIENCE;
        loop {
            let mut client = server.client();
            let _ = client.stream.get_mut().write_all(request.as_bytes());
            if matches!(client.stream.read(&mut [0]), Ok(1)) {
                break;
            }
            assert!(Instant::now() < give_up, "{policy}: nobody is served any more");
            thread::sleep(Duration::from_millis(10));
        }
        server.stop().cleanly();
    }
}

#[test]
fn without_descriptors_it_says_so_and_recovers() {
    let tree = tree();
    let mut limited = command_below("-n 24", &["http", tree.path().to_str().unwrap()]);
    // A file that stays open could be served without a free descriptor.
    limited.args(["--listen", "127.0.0.1:0", "--shards", "1", "--open-files", "0"]);
    let server = Server::start(&mut limited, "http");
    let request = "GET /ten.txt HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut first = server.client();
    assert_eq!(first.ask(request).status, 200);
    let crowd: Vec<Client> = (0..30).map(|_| server.client()).collect();
    let give_up = Instant::now() + PATIENCE;
    while server.descriptors() < 24 {
        assert!(Instant::now() < give_up, "{} of 24 descriptors", server.descriptors());
        thread::sleep(Duration::from_millis(5));
    }
    // Open files and spare pipes give way first. Until a waiting client takes it, a descriptor that
    // became free can open the file.
    let mut reply = first.ask(request);
    while reply.status == 200 {
        assert!(Instant::now() < give_up, "it opens files without a free descriptor");
        thread::sleep(Duration::from_millis(5));
        reply = first.ask(request);
    }
    assert_eq!((reply.status, reply.field("retry-after")), (503, "1"));
    drop(crowd);
    while first.ask(request).status != 200 || server.get("/ten.txt", "").status != 200 {
        assert!(Instant::now() < give_up, "it does not recover");
        thread::sleep(Duration::from_millis(5));
    }
    drop(first);
    let ended = server.stop().cleanly();
    let said = "the limit on open files is 24 (hard limit 24)";
    assert!(ended.stderr.contains(said), "{}", ended.stderr);
}

#[test]
fn the_access_log_has_a_line_per_reply() {
    let tree = tree();
    let log = tempfile::NamedTempFile::new().unwrap();
    let path = log.path().to_str().unwrap();
    let server = Server::http(tree.path(), &["--access-log", path]);
    let mut client = server.client();
    assert_eq!(
        client.ask("GET /ten.txt HTTP/1.1\r\nHost: x\r\nUser-Agent: me\r\n\r\n").status,
        200
    );
    assert_eq!(client.ask("GET /x\"y HTTP/1.1\r\nHost: x\r\n\r\n").status, 404);
    assert_eq!(client.ask("nonsense\r\n\r\n").status, 400);
    drop(client);
    server.stop().cleanly();
    let lines = fs::read_to_string(path).unwrap();
    let lines: Vec<&str> = lines.lines().collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines[0].starts_with("127.0.0.1 - - ["), "{lines:?}");
    assert!(lines[0].ends_with("] \"GET /ten.txt HTTP/1.1\" 200 10 \"-\" \"me\""), "{lines:?}");
    assert!(lines[1].contains("] \"GET /x\\\"y HTTP/1.1\" 404 14 "), "{lines:?}");
    assert!(lines[2].contains("] \"nonsense\" 400 16 "), "{lines:?}");

    let server =
        Server::http(tree.path(), &["--access-log", "-", "--log-format", "json", "--shards", "1"]);
    assert_eq!(server.get("/ten.txt", "").status, 200);
    let ended = server.stop().cleanly();
    let line = ended.stdout.trim_end();
    assert!(line.starts_with("{\"time\":\"") && line.ends_with('}'), "{line}");
    assert!(line.contains("\"request\":1,\"status\":200,\"bytes\":10,"), "{line}");
}
