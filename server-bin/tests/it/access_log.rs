//! The access log as an operator reads it: which lines it has, and what they say.

use crate::common::{Ended, Modes, Server, tree};
use crate::configured::{Configured, folder, request, settle};
use ringwrightd_test_support::socket::reset;
use serde_json::Value;
use std::fs;
use std::io::Read;
use std::thread;
use std::time::Duration;

/// The lines of a log in the combined format, each from the request on.
fn combined(log: &str) -> Vec<&str> {
    log.lines().map(|line| line.split_once("] ").expect("a line of the format").1).collect()
}

#[test]
fn every_reply_has_its_line_with_what_was_read_of_the_request() {
    let tree = tree();
    let log = tempfile::NamedTempFile::new().unwrap();
    let path = log.path().to_str().unwrap();
    let arguments = ["--access-log", path, "--request-timeout", "300ms", "--shards", "1"];
    let server = Server::http(tree.path(), &arguments);
    let long = "a".repeat(9_000);
    let agent = "Host: x\r\nUser-Agent: me\r\n";
    let fields = format!("{agent}{}", "a: b\r\n".repeat(256));
    let ok = format!("GET /ten.txt HTTP/1.1\r\n{agent}\r\n");
    let cases: [(String, &str); 16] = [
        (format!("GET / HTTP/1.1\r\n{agent} folded\r\n\r\n"), "GET / HTTP/1.1\" 400"),
        ("GET /x HTTP/1.1\nHost: x\n\n".into(), "GET /x HTTP/1.1\" 400"),
        ("GET /x HTTP/1.1\r\nHost: a b\r\n\r\n".into(), "GET /x HTTP/1.1\" 400"),
        ("nonsense\r\n\r\n".into(), "nonsense\" 400"),
        // The beginning of a TLS handshake.
        ("\x16\x03\x01\r\n\r\n".into(), "-\" 400"),
        (
            format!("POST /x HTTP/1.1\r\n{agent}Content-Length: 2000000\r\n\r\n"),
            "POST /x HTTP/1.1\" 413",
        ),
        (format!("GET /{long} HTTP/1.1\r\n{agent}\r\n"), &format!("GET /{}\" 414", &long[..2_043])),
        (format!("GET /f HTTP/1.1\r\n{fields}\r\n"), "GET /f HTTP/1.1\" 431"),
        (
            format!("GET /c HTTP/1.1\r\n{agent}Transfer-Encoding: gzip, chunked\r\n\r\n"),
            "GET /c HTTP/1.1\" 501",
        ),
        (format!("{long} / HTTP/1.1\r\n{agent}\r\n"), &format!("{}\" 501", &long[..2_048])),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(), "PRI * HTTP/2.0\" 505"),
        (
            format!("GET /b HTTP/1.1\r\n{agent}Transfer-Encoding: chunked\r\n\r\nx\r\n"),
            "GET /b HTTP/1.1\" 400",
        ),
        // Incomplete: in the method, the target, a field and the body.
        ("GE".into(), "GE\" 408"),
        ("GET /half".into(), "GET /half\" 408"),
        (format!("GET /t HTTP/1.1\r\n{agent}Incompl"), "GET /t HTTP/1.1\" 408"),
        (
            format!("GET /b HTTP/1.1\r\n{agent}Content-Length: 9\r\n\r\nabc"),
            "GET /b HTTP/1.1\" 408",
        ),
    ];
    for (request, _) in &cases {
        let mut client = server.client();
        assert_eq!(client.ask(&ok).status, 200);
        client.send(request);
        let status = client.reply(false).status;
        client.is_at_its_end();
        assert!(status >= 400, "{request:?}");
    }
    server.stop().cleanly();
    let log = fs::read_to_string(path).unwrap();
    let lines = combined(&log);
    assert_eq!(lines.len(), 2 * cases.len(), "{log}");
    for ((request, expected), lines) in cases.iter().zip(lines.chunks(2)) {
        assert_eq!(lines[0], "\"GET /ten.txt HTTP/1.1\" 200 10 \"-\" \"me\"");
        assert!(lines[1].starts_with(&format!("\"{expected} ")), "{}", lines[1]);
        // A field that was read to its end is there as well, but none from behind the head. How
        // much arrives behind a request line that is too long is chance.
        let agent = if request.contains("User-Agent") { "me" } else { "-" };
        let ends = lines[1].ends_with(&format!("\"-\" \"{agent}\""));
        assert!(ends || request.len() > 9_000, "{}", lines[1]);
    }
}

#[test]
fn the_text_of_a_client_stays_readable_and_in_its_place() {
    let tree = tree();
    let server =
        Server::http(tree.path(), &["--access-log", "-", "--log-format", "json", "--shards", "1"]);
    let text = "Zürich\t\"東京\"\\";
    let mut client = server.client();
    let request = format!(
        "GET /é HTTP/1.1\r\nHost: x\r\nReferer: {text}\r\nUser-Agent: {text}\r\n\r\n\
         GET / HTTP/1.1\r\nHost: x\r\n\r\nGET /no HTTP/1.1\r\nNo colon\r\n\r\n"
    );
    client.send(&request);
    for status in [301, 200, 400] {
        assert_eq!(client.reply(false).status, status);
    }
    client.is_at_its_end();
    let ended = server.stop().cleanly();
    let lines: Vec<Value> =
        ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3, "{}", ended.stdout);
    assert_eq!(lines[0]["line"], "GET /é HTTP/1.1");
    assert_eq!((&lines[0]["referer"], &lines[0]["user_agent"]), (&text.into(), &text.into()));
    assert_eq!((&lines[2]["line"], &lines[2]["status"]), (&"GET /no HTTP/1.1".into(), &400.into()));
    for (line, number) in lines.iter().zip(1..) {
        assert_eq!(line["request"], number);
    }
}

/// The size of a file that does not fit into the buffers of a socket.
const LARGE_BYTES: u64 = 64 << 20;

/// A daemon with a small and a large file, and a log in JSON on standard output.
fn logging(engine: &str) -> Configured {
    let files = folder(&[("www/small.txt", "small"), ("www/large.bin", "")]);
    let large = fs::File::options().write(true).open(files.path().join("www/large.bin")).unwrap();
    large.set_len(LARGE_BYTES).unwrap();
    settle();
    let text = format!(
        "[engine]\nshards = 1\n{engine}\n[log]\naccess = \"-\"\nformat = \"json\"\n\
         [admin]\nlisten = \"127.0.0.1:0\"\n\
         [[site]]\nlisten = [\"127.0.0.1:0\"]\nroot = \"www\"\n"
    );
    Configured::start(files, &text, &["http", "admin http"])
}

fn lines(ended: &Ended) -> Vec<Value> {
    ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_line_is_written_when_the_last_byte_has_left() {
    // By sendfile(2), and through a pipe.
    for engine in ["", "sendfile_max = 0"] {
        let running = logging(engine);
        let [small, large] = ["/small.txt", "/large.bin"].map(|path| request("GET", path, ""));
        let mut client = running.server.client();
        client.send(format!("{small}{large}{small}{large}{small}"));
        // The client reads late.
        thread::sleep(Duration::from_millis(300));
        for bytes in [5, LARGE_BYTES, 5, LARGE_BYTES, 5] {
            assert_eq!(client.reply(false).body.len() as u64, bytes);
        }
        drop(client);
        let lines = lines(&running.stop());
        let found: Vec<_> = lines.iter().map(|it| (&it["request"], &it["bytes"])).collect();
        let of = |request: u64, bytes: u64| (Value::from(request), Value::from(bytes));
        let expected = [of(1, 5), of(2, LARGE_BYTES), of(3, 5), of(4, LARGE_BYTES), of(5, 5)];
        assert_eq!(found, expected.iter().map(|it| (&it.0, &it.1)).collect::<Vec<_>>());
        assert!(lines.iter().all(|line| line["end"] == "complete"), "{lines:?}");
        let duration = |at: usize| lines[at]["duration_ms"].as_u64().unwrap();
        assert!(duration(0) < 200 && duration(1) >= 250, "{engine}: {lines:?}");
    }
}

#[test]
fn a_line_tells_how_much_has_left_and_how_the_reply_ended() {
    let cases = [
        ("client_gone", ""),
        ("timeout", "timeouts = { write = \"300ms\" }"),
        ("drained", "timeouts = { drain = \"300ms\" }"),
    ];
    for (end, engine) in cases {
        for by in ["sendfile_max = \"1MiB\"", "sendfile_max = 0"] {
            let running = logging(&format!("{by}\n{engine}"));
            let mut client = running.server.client();
            client.send(request("GET", "/large.bin", ""));
            assert_eq!(client.head().status, 200);
            client.stream.read_exact(&mut vec![0; 1 << 20]).unwrap();
            let client = client.stream.into_inner();
            let client = if end == "client_gone" {
                reset(client);
                None
            } else {
                Some(client)
            };
            if end != "drained" {
                running.server.ledger_once(|ledger| ledger["connections"]["open"] == 0);
            }
            let lines = lines(&running.server.stop());
            drop(client);
            assert_eq!((lines.len(), &lines[0]["end"]), (1, &end.into()), "{by}: {lines:?}");
            let bytes = lines[0]["bytes"].as_u64().unwrap();
            assert!((1 << 20..LARGE_BYTES).contains(&bytes), "{bytes}");
        }
    }
}

#[test]
fn lost_lines_are_counted_where_an_operator_looks() {
    let tree = tree();
    // Every write(2) to it fails with ENOSPC (full(4)).
    let server = Server::http_with_admin(tree.path(), &["--access-log", "/dev/full"]);
    for _ in 0..3 {
        assert_eq!(server.get("/ten.txt", "").status, 200);
    }
    server.ledger_once(|ledger| ledger["access_log"]["lines_lost"] == 3);
    let metrics = server.admin().request("GET", "/metrics").body;
    let metrics = String::from_utf8(metrics).unwrap();
    assert!(metrics.contains("\nringwright_access_log_lines_lost_total 3\n"), "{metrics}");
    let ended = server.stop().cleanly();
    let said = "--access-log: writing failed, and lines are lost: No space left on device";
    assert_eq!(ended.stderr.matches(said).count(), 1, "{}", ended.stderr);
    assert!(ended.stderr.contains("; 3 line(s) were lost"), "{}", ended.stderr);

    let server = Server::http_with_admin(tree.path(), &[]);
    server.ledger_once(|ledger| ledger["access_log"]["lines_lost"] == 0);
    server.stop().cleanly();
}

/// Fields of a line about a connection, in the combined format: reason, bytes in, bytes out.
#[track_caller]
fn ending<'a>(line: &'a str, protocol: &str) -> Vec<&'a str> {
    assert!(line.starts_with("127.0.0.1 - - ["), "{line}");
    let (_, rest) = line.split_once(" +0000] ").unwrap();
    let fields: Vec<&str> = rest.split(' ').collect();
    assert_eq!((fields.len(), fields[0]), (5, &*format!("\"{protocol}\"")), "{line}");
    let seconds: f64 = fields[4].parse().unwrap();
    assert!((0.0..60.0).contains(&seconds) && fields[4].contains('.'), "{line}");
    fields[1..4].to_vec()
}

#[test]
fn each_connection_of_an_echo_has_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let (path, old) = (folder.path().join("log"), folder.path().join("log.1"));
    let log = ["--access-log", path.to_str().unwrap()];
    for random in [&[][..], &["--disconnect-rate", "0", "--disconnect-seed", "1"]] {
        let arguments = [&log[..], &["--shards", "1", "--idle-timeout", "300ms"], random].concat();
        let server = Server::echo_with_admin(&arguments);
        let echo = |bytes: usize| {
            let mut client = server.client();
            client.send(vec![b'x'; bytes]);
            client.stream.read_exact(&mut vec![0; bytes]).unwrap();
            client
        };
        let mut client = echo(100_000);
        client.half_close();
        client.is_at_its_end();
        let closed = |count: u64| {
            server.ledger_once(|ledger| ledger["connections"]["closed"] == count);
        };
        closed(1);
        // The line of the first connection is in the old file or in none yet.
        fs::rename(&path, &old).unwrap();
        server.signal(libc::SIGUSR1);
        echo(10).is_at_its_end();
        closed(2);
        server.stop().cleanly();
        let all = fs::read_to_string(&old).unwrap() + &fs::read_to_string(&path).unwrap();
        let lines: Vec<_> = all.lines().map(|line| ending(line, "echo")).collect();
        let expected = [["peer_fin", "100000", "100000"], ["idle_timeout", "10", "10"]];
        assert_eq!(lines, expected, "{all}");
        fs::remove_file(&path).unwrap();
        fs::remove_file(&old).unwrap();
    }
}
