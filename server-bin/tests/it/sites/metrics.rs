//! Replies in `/metrics`, by site.

use crate::common::Client;
use crate::configured::{Configured, Port, folder, request, rest, wait_until};

fn page(running: &Configured) -> String {
    String::from_utf8(running.server.admin().request("GET", "/metrics").body).unwrap()
}

#[test]
fn requests_that_cannot_be_read_count_for_the_default_site() {
    let port = Port::reserve();
    let listen = format!(
        "listen = [\"{}\"]\nroot = \"www\"\ntimeouts = {{ request = \"200ms\" }}\n",
        port.address()
    );
    let text = format!(
        "[admin]\nlisten = \"127.0.0.1:0\"\n\
         [[site]]\n{listen}names = [\"a.example\"]\n\
         [[site]]\n{listen}names = [\"b.example\"]\ndefault = true\n"
    );
    let schemes = ["http", "admin http"];
    let running = Configured::start(folder(&[("www/a.txt", "a")]), &text, &schemes);
    let long = format!("GET /{} HTTP/1.1\r\n", "x".repeat(70_000));
    let a_host = "Host: a.example\r\n";
    let unread = [
        "nonsense\r\n\r\n".to_owned(),
        format!("GET / HTTP/9.9\r\n{a_host}\r\n"),
        format!("GET / HTTP/1.1\r\n{a_host}{a_host}\r\n"),
        "GET / HTTP/1.1\r\nHost: a.exam".to_owned(),
        long,
        // Its head is read.
        request("GET", "/a.txt", &format!("{a_host}Content-Length: 5\r\n")),
    ];
    for sent in &unread {
        let mut client = Client::new(running.server.address);
        client.send(sent);
        assert!(rest(&mut client).starts_with(b"HTTP/1.1 "), "{}", &sent[..20.min(sent.len())]);
    }
    let sample = |site: &str, method: &str, status: u16| {
        format!(
            "ringwright_http_requests_total{{site=\"{site}\",method=\"{method}\",\
             status=\"{status}\"}} "
        )
    };
    let mut said = String::new();
    wait_until("all are counted", || {
        said = page(&running);
        said.contains(&sample("a.example", "GET", 408))
    });
    for (status, count) in [(400, 2), (408, 1), (414, 1), (505, 1)] {
        let line = format!("{}{count}\n", sample("b.example", "other", status));
        assert!(said.contains(&line), "{line}{said}");
    }
    assert!(!said.contains(&sample("a.example", "other", 400)), "{said}");
    // They have no duration.
    let durations = "ringwright_http_request_duration_seconds_count{site=\"b.example\"} 0\n";
    assert!(
        said.contains(durations) || !said.contains(&durations[..durations.len() - 2]),
        "{said}"
    );
    running.stop();
}
