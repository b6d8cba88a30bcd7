//! `redirect` of rules.

use crate::configured::{Configured, folder, text};

#[test]
fn targets_are_filled_from_the_request_and_the_configuration() {
    let running = Configured::site(
        folder(&[("www/a.txt", "a"), ("www/old/a.txt", "still there"), ("www/s/a.txt", "s")]),
        "names = [\"one.example\", \"*.one.example\", \"two.example\"]\n\
         [[site.rule]]\nmatch = \"/old/**\"\n\
         redirect = { to = \"https://{name}/new{path}\", status = 308 }\n\
         [[site.rule]]\nmatch = \"/short\"\nredirect = \"/a.txt\"\n\
         [[site.rule]]\nmatch = \"/q\"\nredirect = { to = \"/s?lang=en{query}\", status = 301 }\n\
         [[site.rule]]\nmatch = \"/p/**\"\nredirect = { to = \"{path}x\", status = 307 }\n\
         [[site.rule]]\nmatch = \"/s/**\"\nredirect = { to = \"/a.txt{query}\", status = 303 }\n",
    );
    for (host, target, status, location) in [
        ("one.example", "/old/a%20b.txt?q=1", 308, "https://one.example/new/old/a%20b.txt"),
        ("two.example", "/old/", 308, "https://two.example/new/old/"),
        ("TWO.Example:8080", "/old", 308, "https://two.example/new/old"),
        ("evil.test", "/old/a.txt", 308, "https://one.example/new/old/a.txt"),
        ("a.one.example", "/old/a.txt", 308, "https://one.example/new/old/a.txt"),
        (
            "x",
            "/old//evil.test/%0d%0aX:1",
            308,
            "https://one.example/new/old/evil.test/%0D%0AX%3A1",
        ),
        ("x", "/short", 302, "/a.txt"),
        ("x", "/q?a=1&b=%20", 301, "/s?lang=en&a=1&b=%20"),
        ("x", "/q", 301, "/s?lang=en"),
        ("x", "/p/%2e%2e/p//y", 307, "/p/yx"),
        ("x", "/s/a.txt?q", 303, "/a.txt?q"),
        ("x", "/old/../short", 302, "/a.txt"),
    ] {
        for method in ["GET", "HEAD"] {
            let reply = running.ask(method, target, &format!("Host: {host}\r\n"));
            assert_eq!(
                (reply.status, reply.field("location")),
                (status, location),
                "{method} {target} of {host}"
            );
        }
    }
    assert_eq!(running.get("/oldx", "").status, 404);
    assert_eq!(text(&running.get("/a.txt", "")), (200, "a"));
    running.stop();
}

#[test]
fn no_location_leads_to_a_host_that_the_client_names() {
    let running = Configured::site(
        folder(&[("www/", "")]),
        "[[site.rule]]\nmatch = \"**\"\nredirect = \"{path}.html\"\n",
    );
    for target in ["//evil.test", "/%2e//evil.test/x", "///evil.test", "/./%2E/evil.test"] {
        let reply = running.get(target, "");
        assert_eq!(reply.status, 302, "{target}");
        let location = reply.field("location");
        assert!(location.starts_with("/evil.test"), "{target}: {location}");
    }
    for (target, status) in [("/%5cevil.test", 404), ("/\\evil.test", 404), ("/%2fevil", 400)] {
        assert_eq!(running.ask_once("GET", target, "").status, status, "{target}");
    }
    running.stop();
}

#[test]
fn challenges_for_certificates_are_served_without_https() {
    let running = Configured::site(
        folder(&[("www/.well-known/acme-challenge/token", "key"), ("www/a.txt", "a")]),
        "names = [\"one.example\"]\n\
         [[site.rule]]\nmatch = \"**\"\n\
         redirect = { to = \"https://{name}{path}{query}\", status = 301 }\n",
    );
    let challenge = running.get("/.well-known/acme-challenge/token", "");
    assert_eq!(text(&challenge), (200, "key"));
    let reply = running.get("/a.txt?q", "");
    assert_eq!((reply.status, reply.field("location")), (301, "https://one.example/a.txt?q"));
    running.stop();
}
