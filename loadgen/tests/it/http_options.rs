//! The options that change what `ringload http` sends, and which replies are right.

use crate::support::{http, ok, run_http, server};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

#[test]
fn only_expected_statuses_pass() {
    let address = server(|stream| {
        let not_found = b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\ngone";
        http(stream, |_, _| Some(not_found.to_vec()));
    });
    run_http(address, "-n 10 -c 2").only("bad_status");
    for list in ["404", "200,4xx"] {
        let ended = run_http(address, &format!("-n 10 -c 2 --expect-status {list}"));
        ended.passed();
        assert_eq!(ended.report["statuses"], serde_json::json!({ "404": 10 }), "{ended}");
        assert_eq!(ended.report["plan"]["expect_status"], list, "{ended}");
    }
    run_http(address, "-n 10 -c 2 --expect-status 2xx,304").only("bad_status");
}

/// Answers each request with what `reply` makes of its method and path, its head and its body.
fn requests(
    reply: impl Fn(&str, &str, &[u8]) -> Vec<u8> + Clone + Send + 'static,
) -> std::net::SocketAddr {
    server(move |mut stream| {
        let (mut unread, mut bytes) = (Vec::new(), [0; 1 << 16]);
        loop {
            while let Some(end) = unread.windows(4).position(|part| part == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&unread[..end + 4]).into_owned();
                let length = head.split("Content-Length: ").nth(1).map_or(0, |rest| {
                    let digits = rest.split("\r\n").next().expect("a line");
                    digits.parse().expect("a length")
                });
                if unread.len() < end + 4 + length {
                    break;
                }
                let answer = reply(
                    head.split(" HTTP/1.1\r\n").next().expect("a request line"),
                    &head,
                    &unread[end + 4..][..length],
                );
                unread.drain(..end + 4 + length);
                if stream.write_all(&answer).is_err() {
                    return;
                }
            }
            match stream.read(&mut bytes) {
                Ok(count) if count > 0 => unread.extend_from_slice(&bytes[..count]),
                _ => return,
            }
        }
    })
}

#[test]
fn the_method_and_the_body_arrive() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("body");
    let large: Vec<u8> = (0..300_000_u32).map(|at| (at % 251) as u8).collect();
    std::fs::write(&file, &large).expect("a file");
    for (options, line, body) in [
        ("-b a=b", "POST /", &b"a=b"[..]),
        ("-X PATCH -b a=b", "PATCH /", b"a=b"),
        ("-X DELETE", "DELETE /", b""),
        (&format!("-X PUT -b @{} --pipeline 3", file.display()), "PUT /", &large),
    ] {
        let (line, body) = (line.to_string(), body.to_vec());
        let (method, length) = (line[..line.len() - 2].to_string(), body.len());
        let address = requests(move |seen, _, received| {
            ok(if seen == line && received == body { b"right" } else { b"WRONG!" })
        });
        let ended = run_http(address, &format!("-n 30 -c 2 {options}"));
        ended.passed();
        assert_eq!(ended.count("received_bytes"), 30 * ok(b"right").len() as u64, "{ended}");
        assert_eq!(ended.report["plan"]["method"], method, "{ended}");
        let announced = ended.report["plan"]["body_bytes"].as_u64().unwrap_or_default();
        assert_eq!(announced, length as u64, "{ended}");
    }
}

#[test]
fn a_reply_to_head_has_no_body() {
    let address = requests(|line, _, _| {
        let ok = ok(b"hello");
        let end = if line == "HEAD /" { ok.len() - 5 } else { ok.len() };
        ok[..end].to_vec()
    });
    run_http(address, "-n 30 -c 2 -X HEAD --pipeline 3").passed();
    run_http(address, "-n 30 -c 2 --pipeline 3").passed();
}

#[test]
fn requests_are_drawn_from_a_list_by_weight_and_seed() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("body"), "from a file").expect("a file");
    let list = folder.path().join("list");
    let text =
        "# Comment\n6 GET /a\n3 HEAD /b\n1 POST /c of the line\n2 PUT /d @body\n0 GET /never\n";
    std::fs::write(&list, text).expect("a file");
    let run = |seed| {
        let seen = Arc::new(Mutex::new(BTreeMap::<String, u64>::new()));
        let address = requests({
            let seen = seen.clone();
            move |line, head, body| {
                assert!(head.contains("\r\nX-Test: yes\r\n"), "{head}");
                let body = String::from_utf8_lossy(body);
                *seen.lock().expect("no panic").entry(format!("{line} {body}")).or_default() += 1;
                let ok = ok(line.as_bytes());
                let body_bytes = if line.starts_with("HEAD") { line.len() } else { 0 };
                ok[..ok.len() - body_bytes].to_vec()
            }
        });
        let list = list.display();
        let options =
            format!("-n 1200 -c 1 --pipeline 4 --seed {seed} -H X-Test:yes --urls {list}");
        let ended = run_http(address, &options);
        ended.passed();
        assert_eq!(
            (&ended.report["plan"]["urls"], &ended.report["plan"]["method"]),
            (&5.into(), &serde_json::Value::Null),
            "{ended}"
        );
        seen.lock().expect("no panic").clone()
    };
    let seen = run(7);
    let lines: Vec<_> = seen.keys().map(String::as_str).collect();
    assert_eq!(lines, ["GET /a ", "HEAD /b ", "POST /c of the line", "PUT /d from a file"]);
    for (line, share) in lines.into_iter().zip([600, 300, 100, 200]) {
        assert!(seen[line].abs_diff(share) < 100, "{seen:?}");
    }
    assert_eq!(run(7), seen, "the seed decides");
    assert_ne!(run(8), seen);
}

/// A body of each line is expected, and an error names the line.
#[test]
fn replies_are_compared_per_line_of_a_list() {
    let folder = tempfile::tempdir().expect("a folder");
    let list = folder.path().join("list");
    std::fs::write(&list, "1 GET /a\n1 GET /b\n").expect("a file");
    let count = Arc::new(AtomicU64::new(0));
    let address = requests(move |line, _, _| match line {
        "GET /b" if count.fetch_add(1, Ordering::Relaxed) == 5 => ok(b"other"),
        _ => ok(line.as_bytes()),
    });
    let ended = run_http(address, &format!("-n 60 -c 1 --urls {}", list.display()));
    ended.only("wrong_bytes");
    assert_eq!(ended.count("deviating_bodies"), 1, "{ended}");
    let first = ended.report["first_errors"]["wrong_bytes"].as_str().expect("an error");
    assert!(first.starts_with("GET /b: the body"), "{ended}");
}

#[test]
fn a_request_that_is_not_idempotent_is_not_repeated() {
    // Answers the first request on each connection, and ends it at the second one.
    let address = server(|mut stream| {
        let mut bytes = [0; 1024];
        if stream.read(&mut bytes).unwrap_or(0) > 0 {
            stream.write_all(&ok(b"hello")).expect("the client waits for it");
            let _ = stream.read(&mut bytes);
        }
    });
    let ended = run_http(address, "-n 20 -c 1");
    assert!(ended.passed().count("repeated") > 0, "{ended}");
    let ended = run_http(address, "-n 20 -c 1 -X POST");
    assert_eq!((ended.count("repeated"), ended.only("eof").count("lost")), (0, 10), "{ended}");
}

/// A request that is sent again is the same one, and no draw is lost.
#[test]
fn a_repeated_request_of_a_list_is_the_same_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let list = folder.path().join("list");
    let lines: Vec<_> = ('a'..='h').map(|name| format!("1 GET /{name}\n")).collect();
    std::fs::write(&list, lines.concat()).expect("a file");
    // Answers so many requests on each connection. Then it says so, or ends it at the next one.
    let run = |most: u64, announces: bool| {
        let answered = Arc::new(Mutex::new(String::new()));
        let address = server({
            let answered = answered.clone();
            move |stream| {
                http(stream, |head, number| {
                    if number == most {
                        return None;
                    }
                    answered.lock().expect("no panic").push_str(&head[5..6]);
                    let close = announces && number + 1 == most;
                    let field = if close { "Connection: close\r\n" } else { "" };
                    let head = format!("HTTP/1.1 200 OK\r\n{field}Content-Length: 0\r\n\r\n");
                    Some(head.into_bytes())
                });
            }
        });
        let options = format!("-n 60 -c 1 --seed 7 --urls {}", list.display());
        let options = options + if announces { " --pipeline 3" } else { "" };
        run_http(address, &options).passed();
        let answered = answered.lock().expect("no panic");
        answered.clone()
    };
    let expected = run(u64::MAX, false);
    assert_eq!(expected.len(), 60);
    assert_eq!(run(1, false), expected, "repeated");
    assert_eq!(run(2, true), expected, "withdrawn");
}
