//! `match`, `headers`, `type`, `cache`, `status`, `allow` and `deny` of rules.

use crate::configured::{Configured, connect_from, field, folder, text, twice};
use std::net::Ipv4Addr;

const FILES: [(&str, &str); 9] = [
    ("www/index.html", "index"),
    ("www/a.js", "0123456789"),
    ("www/a/b.js", "b"),
    ("www/a/c/d.js", "d"),
    ("www/a/index.html", "index of a"),
    ("www/x.txt", "x"),
    ("www/é.txt", "e"),
    ("www/404.html", "not here"),
    ("www/data.foo", "data"),
];

#[test]
fn patterns_match_segments_and_paths() {
    let patterns =
        ["*.js", "/a/**", "/a/*", "/**/*.js", "?.txt", "/a.js", "a.js", "*", "/a/**/d.js", "é.txt"];
    let rules = patterns.iter().enumerate().map(|(at, pattern)| {
        format!("[[site.rule]]\nmatch = \"{pattern}\"\nheaders = {{ X-{at} = \"1\" }}\n")
    });
    let running = Configured::site(folder(&FILES), &rules.collect::<String>());
    for (target, expected) in [
        ("/a.js", &["*.js", "/**/*.js", "/a.js", "a.js", "*"][..]),
        ("/a/b.js", &["*.js", "/a/**", "/a/*", "/**/*.js", "*"]),
        ("/a/c/d.js", &["*.js", "/a/**", "/**/*.js", "*", "/a/**/d.js"]),
        // The file that is sent decides.
        ("/a/", &["/a/**", "/a/*", "*"]),
        ("/x.txt", &["?.txt", "*"]),
        ("/%c3%a9.txt", &["*", "é.txt"]),
        ("//a//./b%2ejs?q=/x.txt", &["*.js", "/a/**", "/a/*", "/**/*.js", "*"]),
    ] {
        let reply = running.get(target, "");
        assert_eq!(reply.status, 200, "{target}");
        let found = patterns.iter().enumerate();
        let found = found.filter(|(at, _)| field(&reply, &format!("x-{at}")).is_some());
        let found: Vec<&str> = found.map(|(_, pattern)| *pattern).collect();
        assert_eq!(found, expected, "{target}");
    }
    running.stop();
}

#[test]
fn fields_are_set_replaced_and_removed() {
    let running = Configured::site(
        folder(&FILES),
        "[[site.rule]]\nmatch = \"*\"\n\
         headers = { X-A = \"1\", X-B = \"2\", Server = \"other\", ETag = \"\" }\n\
         [[site.rule]]\nmatch = \"*.js\"\n\
         headers = { X-A = \"3\", X-B = \"\", Server = \"\", X-Content-Type-Options = \"\", \
         Last-Modified = \"\", Accept-Ranges = \"\" }\n",
    );
    let plain = running.get("/x.txt", "");
    assert_eq!(plain.field("x-a"), "1");
    assert_eq!((plain.field("x-b"), plain.field("server")), ("2", "other"));
    assert_eq!(plain.field("x-content-type-options"), "nosniff");
    assert_eq!((field(&plain, "etag"), field(&plain, "last-modified").is_some()), (None, true));
    for (target, fields) in [("/a.js", ""), ("/a.js", "Range: bytes=0-1\r\n")] {
        let reply = running.get(target, fields);
        assert_eq!(reply.field("x-a"), "3");
        for gone in
            ["x-b", "server", "x-content-type-options", "etag", "last-modified", "accept-ranges"]
        {
            assert_eq!(field(&reply, gone), None, "{gone}");
        }
    }
    // Error replies, too.
    let missing = running.get("/nope.js", "");
    assert_eq!((missing.status, missing.field("x-a")), (404, "3"));
    assert_eq!(field(&missing, "server"), None);
    running.stop();
}

#[test]
fn a_type_replaces_the_content_type() {
    let running = Configured::site(
        folder(&FILES),
        "[[site.rule]]\nmatch = \"*.foo\"\ntype = \"application/x-foo\"\n",
    );
    assert_eq!(running.get("/data.foo", "").field("content-type"), "application/x-foo");
    let part = running.get("/data.foo", "Range: bytes=0-1\r\n");
    assert_eq!((part.status, part.field("content-type")), (206, "application/x-foo"));
    let missing = running.get("/nope.foo", "");
    assert_eq!(missing.field("content-type"), "text/plain; charset=utf-8");
    assert_eq!(running.get("/x.txt", "").field("content-type"), "text/plain; charset=utf-8");
    running.stop();
}

#[test]
fn caches_keep_no_errors() {
    let running = Configured::site(
        folder(&FILES),
        "errors = { 404 = \"/404.html\" }\n\
         [[site.rule]]\nmatch = \"**\"\ncache = \"max-age=60, immutable\"\n\
         headers = { Expires = \"Thu, 01 Jan 2037 00:00:00 GMT\" }\n\
         [[site.rule]]\nmatch = \"/old\"\nredirect = { to = \"/x.txt\", status = 308 }\n\
         [[site.rule]]\nmatch = \"/found\"\nredirect = \"/x.txt\"\n\
         [[site.rule]]\nmatch = \"x.txt\"\ndeny = [\"192.0.2.0/24\"]\n\
         [[site.rule]]\nmatch = \"é.txt\"\ndeny = [\"127.0.0.0/8\"]\n",
    );
    let tag = running.get("/a.js", "").field("etag").to_owned();
    for (target, fields, status) in [
        ("/a.js", String::new(), 200),
        ("/a.js", "Range: bytes=0-1\r\n".into(), 206),
        ("/a", String::new(), 301),
        ("/a.js", format!("If-None-Match: {tag}\r\n"), 304),
        ("/old", String::new(), 308),
    ] {
        let reply = running.get(target, &fields);
        assert_eq!(reply.status, status, "{target} {fields}");
        assert_eq!(reply.field("cache-control"), "max-age=60, immutable", "{status}");
        assert!(field(&reply, "expires").is_some(), "{status}");
    }
    for (target, fields, status) in [
        ("/found", "", 302),
        ("/nope", "", 404),
        ("/%c3%a9.txt", "", 403),
        ("/a.js", "If-Match: \"x\"\r\n", 412),
        ("/a.js", "Range: bytes=10-\r\n", 416),
    ] {
        let reply = running.get(target, fields);
        assert_eq!(reply.status, status, "{target} {fields}");
        assert_eq!(field(&reply, "cache-control"), None, "{status}");
        assert_eq!(field(&reply, "expires"), None, "{status}");
    }
    running.stop();
}

#[test]
fn a_rule_with_statuses_applies_to_those_alone() {
    let running = Configured::site(
        folder(&FILES),
        "[[site.rule]]\nmatch = \"*\"\ncache = \"no-store\"\nheaders = { X-Gone = \"1\" }\n\
         status = [404, 416]\n",
    );
    for (target, fields, status) in [("/nope", "", 404), ("/x.txt", "Range: bytes=9-\r\n", 416)] {
        let reply = running.get(target, fields);
        assert_eq!(reply.status, status);
        assert_eq!((reply.field("cache-control"), reply.field("x-gone")), ("no-store", "1"));
    }
    let reply = running.get("/x.txt", "");
    assert_eq!((field(&reply, "cache-control"), field(&reply, "x-gone")), (None, None));
    running.stop();
}

#[test]
fn addresses_are_allowed_and_denied() {
    let running = Configured::site(
        folder(&FILES),
        "[[site.rule]]\nmatch = \"a.js\"\nallow = [\"127.0.0.3\", \"127.0.1.0/24\"]\n\
         [[site.rule]]\nmatch = \"x.txt\"\ndeny = [\"127.0.0.3\", \"127.0.1.0/24\"]\n\
         [[site.rule]]\nmatch = \"b.js\"\nallow = [\"127.0.0.0/8\"]\ndeny = [\"127.0.0.3\"]\n\
         [[site.rule]]\nmatch = \"b.js\"\nallow = [\"192.0.2.0/24\"]\n",
    );
    let others = Ipv4Addr::new(127, 0, 0, 4);
    for address in [Ipv4Addr::new(127, 0, 0, 3), Ipv4Addr::new(127, 0, 1, 77), others] {
        let is_listed = address != others;
        let mut client = connect_from(address, running.server.address);
        let status = |may: bool| if may { 200 } else { 403 };
        let allowed = twice(&mut client, "GET", "/a.js", "");
        assert_eq!(allowed.status, status(is_listed), "{address}");
        let denied = twice(&mut client, "GET", "/x.txt", "");
        assert_eq!(denied.status, status(!is_listed), "{address}");
        // The first rule with the key decides.
        let both = twice(&mut client, "GET", "/a/b.js", "");
        assert_eq!(both.status, status(address != Ipv4Addr::new(127, 0, 0, 3)), "{address}");
        assert_eq!(text(&twice(&mut client, "GET", "/", "")), (200, "index"));
    }
    running.stop();
}
