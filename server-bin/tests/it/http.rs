//! HTTP/1.1 as a client sees it.

use crate::common::{Client, Modes, Reply, Server, command_below, pattern, tree};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

#[test]
fn every_status_and_a_clean_end() {
    let tree = tree();
    let server = Server::http(tree.path(), &["--request-timeout", "300ms", "--shards", "2"]);
    let long_target = "a".repeat(9_000);
    let many_fields = "a: b\r\n".repeat(256);
    let large_field = format!("a: {}\r\n", "b".repeat(17_000));
    let request = |line: &str, fields: &str| format!("{line} HTTP/1.1\r\nHost: x\r\n{fields}\r\n");
    // Request, status, and whether the connection goes on after it.
    let cases = [
        (request("GET /ten.txt", ""), 200, true),
        (request("GET /ten.txt", "Connection: close\r\n"), 200, false),
        ("GET /ten.txt HTTP/1.0\r\n\r\n".into(), 200, false),
        ("GET /ten.txt HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".into(), 200, true),
        (request("GET http://x/ten.txt?query", ""), 200, true),
        (request("GET http://[::1]:80/ten.txt", ""), 200, true),
        ("GET /ten.txt HTTP/1.1\r\nHost: a,b\r\n\r\n".into(), 200, true),
        ("GET /ten.txt HTTP/1.1\r\nHost: a:b:c\r\n\r\n".into(), 400, false),
        ("GET /ten.txt HTTP/1.1\r\nHost: [::1\r\n\r\n".into(), 400, false),
        ("GET /ten.txt HTTP/1.1\r\nHost: a%zz\r\n\r\n".into(), 400, false),
        (request("GET http://a:b:c/ten.txt", ""), 400, false),
        (request("GET /a%20b%20%C3%A9.txt", ""), 200, true),
        (request("GET /empty", ""), 200, true),
        (request("GET /sub/../ten.txt", ""), 200, true),
        (request("GET /nothing/./%2e%2e/ten.txt", ""), 200, true),
        (request("GET /../../../../../../../../etc/passwd", ""), 404, true),
        (request("GET /ten.txt", "Range: bytes=0-3\r\n"), 206, true),
        (request("GET /sub", ""), 301, true),
        (request("GET /ten.txt", "If-None-Match: *\r\n"), 304, true),
        (request("GET /ten.txt", "If-Match: \"x\"\r\n"), 412, true),
        (request("GET /ten.txt", "Range: bytes=10-\r\n"), 416, true),
        (request("GET /ten.txt", "Content-Length: 3\r\n") + "abc", 200, true),
        (
            request("GET /ten.txt", "Transfer-Encoding: chunked\r\n") + "1\r\na\r\n0\r\n\r\n",
            200,
            true,
        ),
        (request("GET /nothing", ""), 404, true),
        (request("GET /ten.txt/", ""), 404, true),
        (request("GET /bare/", ""), 404, true),
        (request("POST /ten.txt", "Content-Length: 3\r\n") + "abc", 405, true),
        (request("OPTIONS *", ""), 204, true),
        (request("OPTIONS /ten.txt", "Content-Length: 3\r\n") + "abc", 204, true),
        ("OPTIONS /ten.txt HTTP/1.0\r\n\r\n".into(), 204, false),
        (request("OPTIONS ten.txt", ""), 400, false),
        (request("OPTIONS /", "Expect: wonders\r\n"), 417, true),
        (request("BREW /pot", ""), 501, true),
        (request("GET /ten.txt", "Expect: wonders\r\n"), 417, true),
        ("GET / HTTP/1.1\r\n\r\n".into(), 400, false),
        ("GET / HTTP/1.1\nHost: x\n\n".into(), 400, false),
        ("nonsense\r\n\r\n".into(), 400, false),
        (request("GET *", ""), 400, false),
        (request("GET /", "Host: y\r\n"), 400, false),
        (request("GET /", "Content-Length: 1\r\nContent-Length: 1\r\n") + "a", 400, false),
        (request("GET /", "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"), 400, false),
        (request("GET /", "Transfer-Encoding: chunked\r\n") + "x\r\n", 400, false),
        (request("GET /", " folded\r\n"), 400, false),
        (request("GET /%00", ""), 400, false),
        ("GET /ten.txt HTTP/1.1\r\nHost: x\r\nIncompl".into(), 408, false),
        (request("GET /", "Content-Length: 9\r\n") + "abc", 408, false),
        (request("POST /", "Content-Length: 2000000\r\n"), 413, false),
        (request(&format!("GET /{long_target}"), ""), 414, false),
        (request(&format!("{long_target} /"), ""), 501, false),
        (request(&format!("{} /", &long_target[..8_000]), ""), 501, true),
        (request("GET /", &many_fields), 431, false),
        (request("GET /", &many_fields["a: b\r\n".len()..]), 200, true),
        (request("GET /", &large_field), 431, false),
        (request("GET /", "Transfer-Encoding: gzip\r\n"), 400, false),
        (request("GET /", "Transfer-Encoding: gzip, chunked\r\n"), 501, false),
        ("GET / HTTP/2.0\r\nHost: x\r\n\r\n".into(), 505, false),
        ("GET / HTTP/0.9\r\nHost: x\r\n\r\n".into(), 505, false),
        ("GET / HTTP/1.2\r\nHost: x\r\n\r\n".into(), 200, true),
        ("GET / HTTP/1.9\r\nHost: x\r\nConnection: close\r\n\r\n".into(), 200, false),
    ];
    for (request, status, goes_on) in cases {
        let shown = &request[..request.len().min(100)];
        let mut client = server.client();
        let reply = client.ask(&request);
        assert_eq!(reply.status, status, "{shown:?}");
        assert_eq!(reply.field("server"), "ringwright");
        assert_eq!(reply.field("x-content-type-options"), "nosniff");
        assert!(reply.field("date").ends_with(" GMT"));
        let said = reply.fields.get("connection").map(String::as_str);
        assert_eq!(said == Some("close"), !goes_on, "{shown:?}: {said:?}");
        if goes_on {
            let next = client.ask("GET /ten.txt HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            assert_eq!(next.body, b"0123456789", "after {shown:?}");
        }
        client.is_at_its_end();
    }
    server.stop().cleanly();
}

#[test]
fn what_a_reply_says() {
    let tree = tree();
    let server = Server::http(tree.path(), &["--shards", "1"]);
    let reply = server.get("/ten.txt", "");
    assert_eq!(reply.body, b"0123456789");
    assert_eq!(reply.field("content-type"), "text/plain; charset=utf-8");
    assert_eq!(reply.field("accept-ranges"), "bytes");
    assert!(reply.field("last-modified").ends_with(" GMT"));
    let tag = reply.field("etag").to_owned();
    assert!(tag.starts_with('"') && tag.ends_with('"'));
    assert_eq!(server.get("/", "").body, b"<h1>root</h1>");
    assert_eq!(server.get("/sub/", "").body, b"<h1>sub</h1>");
    assert_eq!(server.get("/sub?a=b", "").field("location"), "/sub/?a=b");
    assert_eq!(server.get("//sub", "").field("location"), "/sub/");
    let raw = server.get("/a%20b%20é.txt?é", "");
    assert_eq!((raw.status, raw.field("location")), (301, "/a%20b%20%C3%A9.txt?%C3%A9"));
    assert_eq!(server.get(raw.field("location"), "").status, 200);
    let mut client = server.client();
    client.send(b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.reply(false).status, 400, "no UTF-8");
    let refused = server.client().ask("DELETE / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(refused.field("allow"), "GET, HEAD, OPTIONS");
    for target in ["*", "/", "/ten.txt", "http://x"] {
        let options = server.client().ask(&format!("OPTIONS {target} HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert_eq!((options.status, options.field("allow")), (204, "GET, HEAD, OPTIONS"));
        assert!(!options.fields.contains_key("content-length"), "RFC 9110, 8.6");
    }

    let unchanged = server.get("/ten.txt", &format!("If-None-Match: {tag}\r\n"));
    assert_eq!((unchanged.status, unchanged.field("etag")), (304, tag.as_str()));
    assert!(!unchanged.fields.contains_key("content-length"));
    let modified = reply.field("last-modified");
    assert_eq!(server.get("/ten.txt", &format!("If-Modified-Since: {modified}\r\n")).status, 304);
    assert_eq!(server.get("/ten.txt", "If-None-Match: \"other\"\r\n").status, 200);
    let old = "If-Unmodified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
    assert_eq!(server.get("/ten.txt", old).status, 412);

    // A file replaced by another of the same size and time is another one.
    let root = tree.path();
    let time = std::fs::metadata(root.join("ten.txt")).unwrap().modified().unwrap();
    std::fs::write(root.join("new"), "abcdefghij").unwrap();
    std::fs::File::options()
        .write(true)
        .open(root.join("new"))
        .unwrap()
        .set_modified(time)
        .unwrap();
    std::fs::rename(root.join("new"), root.join("ten.txt")).unwrap();
    let replaced = server.get("/ten.txt", &format!("If-None-Match: {tag}\r\n"));
    assert_eq!((replaced.status, &replaced.body[..]), (200, &b"abcdefghij"[..]));
    server.stop().cleanly();
}

#[test]
fn ranges() {
    let tree = tree();
    let server = Server::http(tree.path(), &["--shards", "1"]);
    let tag = server.get("/ten.txt", "").field("etag").to_owned();
    let part = |reply: &Reply| {
        let body = String::from_utf8_lossy(&reply.body).into_owned();
        (reply.status, body, reply.fields.get("content-range").cloned().unwrap_or_default())
    };
    let whole = (200, "0123456789".to_owned(), String::new());
    for (fields, expected) in [
        ("Range: bytes=2-4\r\n", (206, "234".into(), "bytes 2-4/10".into())),
        ("Range: bytes=7-\r\n", (206, "789".into(), "bytes 7-9/10".into())),
        ("Range: bytes=-3\r\n", (206, "789".into(), "bytes 7-9/10".into())),
        ("Range: bytes=0-99\r\n", (206, "0123456789".into(), "bytes 0-9/10".into())),
        ("Range: bytes=0-1,4-5\r\n", (206, "012345".into(), "bytes 0-5/10".into())),
        ("Range: lines=1-2\r\n", whole.clone()),
        ("Range: bytes=1-2\r\nIf-Range: \"x\"\r\n", whole.clone()),
        (
            &format!("Range: bytes=1-2\r\nIf-Range: {tag}\r\n"),
            (206, "12".into(), "bytes 1-2/10".into()),
        ),
    ] {
        assert_eq!(part(&server.get("/ten.txt", fields)), expected, "{fields:?}");
    }
    let beyond = server.get("/ten.txt", "Range: bytes=10-12\r\n");
    assert_eq!((beyond.status, beyond.field("content-range")), (416, "bytes */10"));
    for range in ["0-", "0-99", "-5", "10-12"] {
        let empty = server.get("/empty", &format!("Range: bytes={range}\r\n"));
        assert_eq!(part(&empty), (200, String::new(), String::new()), "{range}");
    }
    // Larger than a send buffer: by splice, at an offset that is no page's.
    let middle = pattern(200_000);
    let reply = server.get("/middle.bin", "Range: bytes=4097-150000\r\n");
    assert_eq!(reply.status, 206);
    assert!(reply.body == middle[4097..=150_000], "a part differs");
    server.stop().cleanly();
}

#[test]
fn head_is_get_without_a_body() {
    let tree = tree();
    let server = Server::http(tree.path(), &["--shards", "1"]);
    for target in ["/ten.txt", "/middle.bin", "/sub", "/nothing", "/empty"] {
        let mut client = server.client();
        let head = client.ask(&format!("HEAD {target} HTTP/1.1\r\nHost: x\r\n\r\n"));
        let get = client.ask(&format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert_eq!(head.status, get.status, "{target}");
        for name in ["content-length", "content-type", "etag", "last-modified", "location"] {
            assert_eq!(head.fields.get(name), get.fields.get(name), "{name} of {target}");
        }
        assert_eq!(get.body.len().to_string(), get.field("content-length"));
    }
    server.stop().cleanly();
}

#[test]
fn a_reply_to_head_has_no_content_whatever_the_status() {
    let tree = tree();
    let server = Server::http(tree.path(), &["--shards", "1", "--request-timeout", "300ms"]);
    let head = |target: &str, fields: &str| {
        format!("HEAD {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{fields}\r\n")
    };
    let chunked = "Transfer-Encoding: chunked\r\n";
    for (request, status) in [
        (head("/ten.txt", ""), 200),
        (head("/ten.txt", "Range: bytes=0-1\r\n"), 200),
        (head("/sub", ""), 301),
        (head("/ten.txt", "If-None-Match: *\r\n"), 304),
        ("HEAD / HTTP/1.1\r\n\r\n".into(), 400),
        ("HEAD / HTTP/1.1\nHost: x\n\n".into(), 400),
        ("HEAD /\r\n\r\n".into(), 400),
        ("\r\nHEAD / HTTP/1.1\r\nNo colon\r\n\r\n".into(), 400),
        (head("/%00", ""), 400),
        (head("/", chunked) + "x", 400),
        (head("/nothing", ""), 404),
        (head("/.hidden", ""), 404),
        ("HEAD / HTTP/1.1\r\nHost: x\r\nIncompl".into(), 408),
        (head("/", chunked) + "3\r\na", 408),
        (head("/ten.txt", "If-Match: \"x\"\r\n"), 412),
        (head("/", "Content-Length: 2000000\r\n"), 413),
        (head("/", chunked) + "fffffff\r\n", 413),
        (head(&"/a".repeat(5_000), ""), 414),
        (head("/", "Expect: wonders\r\n"), 417),
        (head("/", &format!("A: {}\r\n", "b".repeat(17_000))), 431),
        (head("/", "Transfer-Encoding: gzip, chunked\r\n"), 501),
        ("HEAD / HTTP/2.0\r\nHost: x\r\n\r\n".into(), 505),
    ] {
        let mut client = server.client();
        client.send(&request);
        assert_eq!(client.reply(true).status, status, "{:?}", &request[..request.len().min(100)]);
        // Not a byte follows the head of the reply.
        client.is_at_its_end();
    }
    server.stop().cleanly();
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let tree = tree();
    for number in 0..50 {
        // Small ones and spliced ones by turns.
        let bytes = if number % 3 == 0 { 20_000 + number } else { number };
        std::fs::write(tree.path().join(format!("{number}.bin")), pattern(bytes)).unwrap();
    }
    let server = Server::http(tree.path(), &["--shards", "1"]);
    let mut client = server.client();
    let requests: String =
        (0..50).map(|number| format!("GET /{number}.bin HTTP/1.1\r\nHost: x\r\n\r\n")).collect();
    client.send(&requests);
    for number in 0..50 {
        let bytes = if number % 3 == 0 { 20_000 + number } else { number };
        let reply = client.reply(false);
        assert_eq!(reply.status, 200, "{number}");
        assert!(reply.body == pattern(bytes), "the reply to {number} is another's");
    }
    // What was asked before our FIN is answered after it, then the connection ends.
    client.send(&requests);
    client.half_close();
    for _ in 0..50 {
        assert_eq!(client.reply(false).status, 200);
    }
    client.is_at_its_end();
    drop(client);
    server.stop().cleanly();
}

#[test]
fn a_client_that_asks_without_reading_is_held_back() {
    let tree = tree();
    let arguments = ["--shards", "1", "--drain-timeout", "100ms"];
    let server = Server::http_with_admin(tree.path(), &arguments);
    let address = server.address;
    let requests = "GET /middle.bin HTTP/1.1\r\nHost: x\r\n\r\n\
                    GET /none HTTP/1.1\r\nHost: x\r\n\r\n"
        .repeat(100_000);
    let mut client = server.client();
    let writer = client.stream.get_ref().try_clone().unwrap();
    let asked = requests.len();
    let writer = thread::spawn(move || {
        // What the server does not read, and the kernel does not keep, fails in the end.
        let _ = std::io::Write::write_all(&mut &writer, requests.as_bytes());
    });
    thread::sleep(Duration::from_millis(300));
    assert!(server.descriptors() < 100, "{} descriptors", server.descriptors());
    assert_eq!(Client::new(address).ask("GET /ten.txt HTTP/1.1\r\nHost: x\r\n\r\n").status, 200);
    let middle = pattern(200_000);
    for number in 0..200 {
        let reply = client.reply(false);
        assert_eq!(reply.status, if number % 2 == 0 { 200 } else { 404 });
        assert!(number % 2 == 1 || reply.body == middle);
    }
    // Before the end, which discards the rest of the input: what the server reads ahead.
    let ledger = String::from_utf8(server.admin().request("GET", "/ledger").body).unwrap();
    let (_, received) = ledger.split_once("\"received\":").unwrap();
    let received: usize = received.split(',').next().unwrap().parse().unwrap();
    assert!(received < asked / 2, "{received} of {asked} bytes were read for 200 replies");
    server.stop().cleanly();
    writer.join().unwrap();
}

#[test]
fn a_request_byte_by_byte() {
    let tree = tree();
    let server = Server::http(tree.path(), &["--shards", "1"]);
    let mut client = server.client();
    let request = "\r\nGET /ten.txt HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n\
                   3 ; x = \"y\"\r\nabc\r\n0\r\nTrailer: y\r\n\r\n";
    for byte in request.bytes() {
        client.send([byte]);
        thread::sleep(Duration::from_micros(500));
    }
    assert_eq!(client.reply(false).body, b"0123456789");
    assert_eq!(client.ask("GET / HTTP/1.1\r\nHost: x\r\n\r\n").status, 200);
    drop(client);
    server.stop().cleanly();
}

#[test]
fn a_body_announced_is_asked_for() {
    let tree = tree();
    let server = Server::http(tree.path(), &["--shards", "1"]);
    let mut client = server.client();
    let expecting = "HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n";
    assert_eq!(client.ask(&format!("GET /ten.txt {expecting}")).status, 100);
    client.send("abc");
    assert_eq!(client.reply(false).body, b"0123456789");
    // A refusal does not ask for the body. The client may send it or not, so the connection ends.
    let reply = client.ask(&format!("PUT /ten.txt {expecting}"));
    assert_eq!((reply.status, reply.field("connection")), (405, "close"));
    client.is_at_its_end();
    drop(client);
    server.stop().cleanly();
}

#[test]
fn a_refusal_does_not_wait_for_the_body() {
    let tree = tree();
    let server = Server::http(tree.path(), &["--shards", "1", "--request-timeout", "1s"]);
    let chunked = "Transfer-Encoding: chunked\r\n";
    // Request line, fields, status, the body for a second write.
    let cases = [
        ("POST /ten.txt", "Content-Length: 3\r\n", 405, "abc"),
        ("POST /ten.txt", chunked, 405, "1\r\na\r\n0\r\n\r\n"),
        ("BREW /pot", "Content-Length: 3\r\n", 501, "abc"),
        ("GET /.hidden", "Content-Length: 3\r\n", 404, "abc"),
        ("HEAD /.hidden", chunked, 404, "0\r\n\r\n"),
    ];
    let mut client = server.client();
    for (line, fields, status, body) in cases {
        let request = format!("{line} HTTP/1.1\r\nHost: x\r\n{fields}\r\n");
        assert_eq!(client.ask(&request).status, status, "{line}");
        client.send(body);
        // The connection goes on behind the body.
        assert_eq!(client.ask("GET /ten.txt HTTP/1.1\r\nHost: x\r\n\r\n").body, b"0123456789");
        // The body together with its head and the next request makes no difference.
        client.send(format!("{request}{body}GET /ten.txt HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert_eq!(client.reply(line.starts_with("HEAD")).status, status, "{line}");
        assert_eq!(client.reply(false).body, b"0123456789", "after {line}");
    }
    // A request has one reply: a body that is malformed, too large or late gets no second one.
    for body in ["x\r\n", "fffffff\r\n", "3\r\na"] {
        let mut client = server.client();
        let request = format!("POST / HTTP/1.1\r\nHost: x\r\n{chunked}\r\n");
        assert_eq!(client.ask(&request).status, 405);
        client.send(body);
        client.is_at_its_end();
    }
    drop(client);
    server.stop().cleanly();
}

#[test]
fn the_reply_to_a_bare_line_feed_says_why() {
    let tree = tree();
    let server = Server::http_with_admin(tree.path(), &["--shards", "1"]);
    let chunked = "POST / HTTP/1.0\nTransfer-Encoding: chunked\r\n\r\n";
    for request in ["GET / HTTP/1.1\nHost: x\n\n", "GET / HTTP/1.1\r\nHost: x\n", "\n", chunked] {
        for mut client in [server.client(), server.admin()] {
            let reply = client.ask(request);
            assert_eq!(reply.status, 400, "{request:?}");
            let text = String::from_utf8(reply.body).unwrap();
            assert!(text.contains("each line must end with CR LF"), "{text}");
            client.is_at_its_end();
        }
    }
    server.stop().cleanly();
}

#[test]
fn a_body_above_the_limit_is_refused_whatever_the_method() {
    let tree = tree();
    let server = Server::http(tree.path(), &["--shards", "1"]);
    for method in ["GET", "HEAD", "OPTIONS", "POST", "PUT", "DELETE", "TRACE", "BREW"] {
        for more in ["", "Expect: 100-continue\r\n", "Expect: wonders\r\n"] {
            let fields = format!("Host: x\r\nContent-Length: 1048577\r\n{more}");
            let mut client = server.client();
            let reply = client.ask(&format!("{method} / HTTP/1.1\r\n{fields}\r\n"));
            assert_eq!(reply.status, 413, "{method} {more}");
            client.is_at_its_end();
        }
    }
    server.stop().cleanly();
}

/// Ends a thread of a test that fails as well.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn neither_trickling_nor_silence_holds_a_connection() {
    let tree = tree();
    let timeouts = ["--request-timeout", "400ms", "--idle-timeout", "900ms", "--shards", "1"];
    let server = Server::http(tree.path(), &timeouts);
    // A head, and a body, a byte at a time.
    for start in
        ["GET / HTTP/1.1\r\nHost: ", "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 999\r\n\r\n"]
    {
        let mut client = server.client();
        client.send(start);
        let writer = client.stream.get_ref().try_clone().unwrap();
        let is_over = AtomicBool::new(false);
        // No last byte comes before the end of the connection.
        thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    thread::sleep(Duration::from_millis(50));
                    let _ = std::io::Write::write_all(&mut &writer, b"x");
                }
            });
            let over = SetOnDrop(&is_over);
            assert_eq!(client.reply(false).status, 408, "{start:?}");
            client.is_at_its_end();
            drop(over);
        });
    }
    // Between two requests there is nothing to say.
    let mut client = server.client();
    assert_eq!(client.ask("GET / HTTP/1.1\r\nHost: x\r\n\r\n").status, 200);
    client.is_at_its_end();
    drop(client);
    server.client().is_at_its_end();
    let ended = server.stop().cleanly();
    assert!(ended.stderr.contains("\"idle_timeout\":2"), "{}", ended.stderr);
}

/// Many clients each pipelined requests for eight files. Together they took every descriptor.
#[test]
fn whoever_reads_nothing_leaves_descriptors_to_the_others() {
    const CLIENTS: usize = 100;
    let tree = tree();
    for number in 0..40 {
        std::fs::write(tree.path().join(format!("{number}.bin")), pattern(2_000_000)).unwrap();
    }
    let mut limited = command_below("-n 512", &["http", tree.path().to_str().unwrap()]);
    limited.args(["--shards", "1", "--open-files", "0"]).args([
        "--listen",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
    ]);
    let server = Server::start_with_admin(&mut limited, "http");
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| server.client()).collect();
    for (at, client) in clients.iter_mut().enumerate() {
        let request = |file: usize| format!("GET /{}.bin HTTP/1.1\r\nHost: x\r\n\r\n", file % 40);
        client.send((at..at + 9).map(request).collect::<String>());
    }
    server.ledger_once(|ledger| ledger["files"].as_u64() >= Some(CLIENTS as u64));
    thread::sleep(Duration::from_millis(300));
    let ledger = server.ledger_once(|_| true);
    let files = ledger["files"].as_u64().unwrap();
    assert!(files < 2 * CLIENTS as u64, "{files} files are open: {ledger}");
    assert_eq!(server.client().ask("GET /ten.txt HTTP/1.1\r\nHost: x\r\n\r\n").status, 200);
    drop(clients);
    server.stop().cleanly();
}

/// What came while the process was stopped lay in the sockets, and the deadline fired first.
#[test]
fn what_came_while_the_process_was_stopped_is_answered() {
    let tree = tree();
    let server = Server::http(tree.path(), &["--request-timeout", "1s", "--shards", "1"]);
    let mut clients: Vec<Client> = (0..100).map(|_| server.client()).collect();
    clients.iter_mut().for_each(|client| client.send("GET /ten.txt HTTP/1.1\r\nHo"));
    thread::sleep(Duration::from_millis(200));
    server.signal(libc::SIGSTOP);
    clients.iter_mut().for_each(|client| client.send("st: x\r\n\r\n"));
    thread::sleep(Duration::from_millis(1_500));
    server.signal(libc::SIGCONT);
    for client in &mut clients {
        assert_eq!(client.reply(false).status, 200);
    }
    drop(clients);
    server.stop().cleanly();
}

#[test]
fn garbage_harms_nobody() {
    let tree = tree();
    let server =
        Server::http(tree.path(), &["--request-timeout", "200ms", "--idle-timeout", "400ms"]);
    let pieces = [
        "GET /ten.txt HTTP/1.1\r\n",
        "HEAD / HTTP/1.0\r\n",
        "Host: x\r\n",
        "Content-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Expect: 100-continue\r\n",
        "Range: bytes=1-\r\n",
        "\r\n",
        "5\r\nhello\r\n",
        "0\r\n\r\n",
        "\n",
        "\0\u{7f}\u{fffd}",
        ": ",
        "GET",
    ];
    // Every run is the same: a linear congruential generator (Knuth's MMIX).
    let mut seed = 1_u64;
    let mut random = |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % below
    };
    let mut crowd = Vec::new();
    for _ in 0..400 {
        let mut client = server.client();
        for _ in 0..=random(6) {
            let text: String = (0..=random(8)).map(|_| pieces[random(pieces.len())]).collect();
            // It may have been refused already.
            let _ = std::io::Write::write_all(client.stream.get_mut(), text.as_bytes());
        }
        match random(3) {
            0 => drop(client),
            1 => {
                client.half_close();
                crowd.push(client);
            }
            _ => crowd.push(client),
        }
    }
    for client in &mut crowd {
        // Whatever it was, it ends: answered, refused or timed out.
        let end = std::io::Read::read_to_end(&mut client.stream, &mut Vec::new());
        let waited = end.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
        assert!(!waited, "a connection was left hanging");
    }
    assert_eq!(server.get("/ten.txt", "").body, b"0123456789");
    drop(crowd);
    let ended = server.stop().cleanly();
    assert!(ended.stderr.contains("\"handler_panics\":0"), "{}", ended.stderr);
}
