//! `cors` of rules.

use crate::common::Reply;
use crate::configured::{Configured, field, folder};

const FILES: [(&str, &str); 3] =
    [("www/all/a.txt", "a"), ("www/some/a.txt", "0123"), ("www/none/a.txt", "a")];

fn site() -> Configured {
    Configured::site(
        folder(&FILES),
        "precompressed = true\n\
         [[site.rule]]\nmatch = \"/all/**\"\ncors = \"*\"\n\
         [[site.rule]]\nmatch = \"/some/**\"\n\
         cors = { max_age = \"90s\", \
         origins = [\"https://a.example\", \"http://b.example:8080\"] }\n",
    )
}

fn allowed(reply: &Reply) -> Option<&str> {
    field(reply, "access-control-allow-origin")
}

fn origin(origin: &str) -> String {
    format!("Origin: {origin}\r\n")
}

#[test]
fn listed_origins_may_read_replies() {
    let running = site();
    for name in ["https://a.example", "http://b.example:8080"] {
        let reply = running.get("/some/a.txt", &origin(name));
        assert_eq!((reply.status, allowed(&reply)), (200, Some(name)));
        assert_eq!(field(&reply, "access-control-expose-headers"), Some("*"));
        let missing = running.get("/some/nope", &origin(name));
        assert_eq!((missing.status, allowed(&missing)), (404, Some(name)));
    }
    for other in ["https://evil.test", "http://a.example", "null", "https://a.example.evil"] {
        let reply = running.get("/some/a.txt", &origin(other));
        assert_eq!((reply.status, allowed(&reply)), (200, None), "{other}");
        assert!(reply.field("vary").contains("Origin"), "{other}");
    }
    let fields = origin("https://a.example");
    let plain = running.get("/some/a.txt", "");
    let (status, tag) = (plain.status, plain.field("etag"));
    assert_eq!((status, allowed(&plain)), (200, None));
    for (more, status) in [
        (String::new(), 200),
        ("Range: bytes=0-1\r\n".into(), 206),
        (format!("If-None-Match: {tag}\r\n"), 304),
    ] {
        let reply = running.get("/some/a.txt", &format!("{fields}{more}"));
        assert_eq!((reply.status, allowed(&reply)), (status, Some("https://a.example")));
        let mut vary: Vec<&str> = reply.field("vary").split(", ").collect();
        vary.sort_unstable();
        assert_eq!(vary, ["Accept-Encoding", "Origin"], "{status}");
    }
    // Different origins one after the other get each their own.
    for name in ["https://a.example", "http://b.example:8080", "https://a.example"] {
        assert_eq!(allowed(&running.get("/some/a.txt", &origin(name))), Some(name));
    }
    running.stop();
}

#[test]
fn all_origins_get_the_same() {
    let running = site();
    for fields in [origin("https://evil.test"), origin("null"), String::new()] {
        let reply = running.get("/all/a.txt", &fields);
        assert_eq!((reply.status, allowed(&reply)), (200, Some("*")));
        assert_eq!(reply.field("vary"), "Accept-Encoding");
    }
    let reply = running.get("/none/a.txt", &origin("https://a.example"));
    assert_eq!((reply.status, allowed(&reply)), (200, None));
    running.stop();
}

#[test]
fn preflights() {
    let running = site();
    let ask = |target: &str, name: &str| {
        let method = "Access-Control-Request-Method: GET\r\n";
        running.ask("OPTIONS", target, &format!("{}{method}", origin(name)))
    };
    let reply = ask("/some/a.txt", "https://a.example");
    assert_eq!((reply.status, allowed(&reply)), (204, Some("https://a.example")));
    assert_eq!(reply.field("access-control-allow-methods"), "GET, HEAD");
    assert_eq!(reply.field("access-control-allow-headers"), "*, Authorization");
    assert_eq!(reply.field("access-control-max-age"), "90");
    assert_eq!(reply.field("vary"), "Origin");
    let reply = ask("/some/nope", "https://evil.test");
    assert_eq!((reply.status, allowed(&reply)), (204, None));
    assert_eq!(reply.field("vary"), "Origin");
    let reply = ask("/all/a.txt", "https://evil.test");
    assert_eq!((allowed(&reply), reply.field("access-control-max-age")), (Some("*"), "600"));
    let reply = ask("/none/a.txt", "https://a.example");
    assert_eq!((reply.status, allowed(&reply)), (204, None));
    running.stop();
}
