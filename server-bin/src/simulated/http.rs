//! Requests over HTTP: each gets its own reply, complete and in order, whatever the kernel does.

use super::{FILES, Simulated, content, seeds};
use ringwright::testing::{ClientEnd, StormClient};

const CONFIGURATION: &str = r#"
[engine]
open_files = 2
workers = 1

[[site]]
listen = ["127.0.0.1:8080"]
root = "root"
"#;

/// A request, and what is a right reply to it.
struct Exchange {
    request: String,
    has_body: bool,
    status: u16,
    body: Option<Vec<u8>>,
}

fn get(path: &str, fields: &str, status: u16, body: Option<Vec<u8>>) -> Exchange {
    let request = format!("GET /{path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    Exchange { request, has_body: true, status, body }
}

fn exchanges() -> Vec<Exchange> {
    let mut all: Vec<Exchange> = (0..FILES.len())
        .map(|number| get(FILES[number].0, "", 200, Some(content(number))))
        .collect();
    let ranges = [(1, 10_000..20_000), (2, 299_000..300_000), (0, 0..1)];
    all.extend(ranges.map(|(number, range): (usize, std::ops::Range<usize>)| {
        let field = format!("Range: bytes={}-{}\r\n", range.start, range.end - 1);
        get(FILES[number].0, &field, 206, Some(content(number)[range].to_vec()))
    }));
    all.push(get("nothing", "", 404, None));
    all.push(get("small", "Range: bytes=5000-\r\n", 416, None));
    all.push(get("%zz", "", 400, None));
    let head = "HEAD /large HTTP/1.1\r\nHost: a\r\n\r\n".to_owned();
    all.push(Exchange { request: head, has_body: false, status: 200, body: None });
    let post = "POST /small HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello".to_owned();
    all.push(Exchange { request: post, has_body: true, status: 405, body: None });
    let chunked = "GET /small HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
                   3\r\nabc\r\n0\r\n\r\n";
    let body = Some(content(0));
    all.push(Exchange { request: chunked.to_owned(), has_body: true, status: 200, body });
    all
}

/// A reply as a client reads it.
struct Reply {
    status: u16,
    body: Vec<u8>,
    closes: bool,
}

/// Takes the first reply from `bytes`. `None`: it is not complete.
fn take_reply(bytes: &mut &[u8], has_body: bool) -> Option<Reply> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&bytes[..end]).expect("a head is ASCII").to_lowercase();
    assert!(head.starts_with("http/1.1 "), "not the head of a reply: {head}");
    let status: u16 = head[9..12].parse().expect("a status");
    let field = |name: &str| {
        let line = head.lines().find(|line| line.starts_with(name));
        line.map(|line| line[name.len()..].trim().to_owned())
    };
    let length = field("content-length:").map_or(0, |length| length.parse().expect("a number"));
    let length = if has_body && status != 304 { length } else { 0 };
    let body = bytes.get(end..end + length)?.to_vec();
    *bytes = &bytes[end + length..];
    Some(Reply { status, body, closes: field("connection:").is_some_and(|it| it == "close") })
}

/// Compares everything that a client has read with the requests that have left it.
fn judge(client: &StormClient, conversations: &[Vec<Exchange>]) {
    let text = |exchanges: &[Exchange]| -> String {
        exchanges.iter().map(|exchange| exchange.request.as_str()).collect()
    };
    let exchanges = conversations
        .iter()
        .find(|exchanges| text(exchanges).as_bytes().starts_with(client.sent()))
        .expect("it says one of these");
    let (mut left, mut asked) = (client.sent().len(), 0);
    while let Some(rest) =
        exchanges.get(asked).and_then(|next| left.checked_sub(next.request.len()))
    {
        (left, asked) = (rest, asked + 1);
    }
    let (mut bytes, mut answered, mut closes) = (client.received(), 0, false);
    while !bytes.is_empty() {
        assert!(!closes, "a reply follows the last one");
        let exchange = exchanges.get(answered).expect("a reply to nothing");
        let Some(reply) = take_reply(&mut bytes, exchange.has_body) else { break };
        let failed = matches!(reply.status, 408 | 500 | 503);
        // The file is shorter for everybody from then on.
        let failed = failed || client.had_fault("truncate");
        let right = reply.status == exchange.status
            && exchange.body.as_ref().is_none_or(|body| *body == reply.body);
        assert!(
            right || failed,
            "{:?} is answered by {} with {} bytes",
            exchange.request,
            reply.status,
            reply.body.len()
        );
        (answered, closes) = (answered + 1, reply.closes);
    }
    if client.was_disturbed() || client.end() == ClientEnd::Reset {
        return;
    }
    let cut_short = !bytes.is_empty();
    assert!(!cut_short || client.end() == ClientEnd::Finished, "half a reply, and it stays open");
    assert!(
        cut_short || closes || answered == asked,
        "{answered} replies to {asked} requests, {:?}",
        client.end()
    );
}

#[test]
fn every_request_gets_its_own_reply_whatever_the_kernel_does() {
    let simulated = Simulated::new(CONFIGURATION);
    // Each conversation begins elsewhere, so that everything follows everything.
    let conversations: Vec<Vec<Exchange>> = (0..12)
        .map(|first| {
            let mut all = exchanges();
            all.rotate_left(first);
            all.truncate(5);
            all
        })
        .collect();
    let mut storm = simulated.storm().judge(|client| judge(client, &conversations));
    for exchanges in &conversations {
        let text: String = exchanges.iter().map(|exchange| exchange.request.as_str()).collect();
        storm = storm.sends(text);
    }
    let reached = storm.run(seeds());
    for mark in ["receive without a buffer", "send cut short", "receive failed", "hang-up"] {
        assert!(reached.count(mark) > 0, "{mark}");
    }
}
