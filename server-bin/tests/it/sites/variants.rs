//! `precompressed`: variants of files.

use crate::common::Reply;
use crate::configured::{Configured, field, folder, settle, text, wait_until, write};
use std::fs::File;
use std::time::{Duration, SystemTime};

const FILES: [(&str, &str); 9] = [
    ("www/a.js", "original"),
    ("www/a.js.gz", "gz!"),
    ("www/a.js.br", "br!!"),
    ("www/a.js.zst", "zst!!"),
    ("www/b.js", "only gzip"),
    ("www/b.js.gz", "b.gz"),
    ("www/d.js", "none"),
    ("www/i/index.html", "page"),
    ("www/i/index.html.gz", "i.gz"),
];

fn site() -> Configured {
    Configured::site(folder(&FILES), "precompressed = true\n")
}

fn accept(codings: &str) -> String {
    format!("Accept-Encoding: {codings}\r\n")
}

/// The body, and the coding that it has.
fn coded(reply: &Reply) -> (&str, Option<&str>) {
    assert_eq!(reply.status, 200);
    assert_eq!(reply.field("vary"), "Accept-Encoding");
    assert_eq!(reply.field("content-length"), reply.body.len().to_string());
    (text(reply).1, field(reply, "content-encoding"))
}

#[test]
fn the_client_chooses_among_the_variants() {
    let running = site();
    const ORIGINAL: (&str, Option<&str>) = ("original", None);
    const GZIP: (&str, Option<&str>) = ("gz!", Some("gzip"));
    const BROTLI: (&str, Option<&str>) = ("br!!", Some("br"));
    const ZSTD: (&str, Option<&str>) = ("zst!!", Some("zstd"));
    for (codings, expected) in [
        ("gzip", GZIP),
        ("GZIP", GZIP),
        ("br", BROTLI),
        ("zstd", ZSTD),
        ("gzip, deflate, br, zstd", ZSTD),
        ("gzip, br", BROTLI),
        ("gzip;q=1, br;q=0.5", GZIP),
        ("gzip;q=0.2, br;q=0.5, zstd;q=0", BROTLI),
        ("*", ZSTD),
        ("*, zstd;q=0", BROTLI),
        ("*;q=0", ORIGINAL),
        ("gzip;q=0", ORIGINAL),
        ("gzip;q=0.000", ORIGINAL),
        ("*;q=0, gzip", GZIP),
        ("identity", ORIGINAL),
        ("identity, gzip;q=0.5", ORIGINAL),
        ("deflate", ORIGINAL),
        ("", ORIGINAL),
    ] {
        let reply = running.get("/a.js", &accept(codings));
        assert_eq!(coded(&reply), expected, "{codings}");
        assert_eq!(reply.field("content-type"), "text/javascript; charset=utf-8");
    }
    let two_lines = accept("gzip;q=0") + &accept("br");
    assert_eq!(coded(&running.get("/a.js", &two_lines)), BROTLI);
    assert_eq!(coded(&running.get("/a.js", "")), ORIGINAL);
    assert_eq!(coded(&running.get("/b.js", &accept("br, gzip"))), ("b.gz", Some("gzip")));
    assert_eq!(coded(&running.get("/d.js", &accept("br, gzip"))), ("none", None));
    assert_eq!(coded(&running.get("/i/", &accept("br, gzip"))), ("i.gz", Some("gzip")));
    let head = running.ask("HEAD", "/a.js", &accept("br"));
    assert_eq!((head.field("content-length"), head.field("content-encoding")), ("4", "br"));
    running.stop();
}

#[test]
fn a_variant_has_ranges_and_a_tag_of_its_own() {
    let running = site();
    let (gzip, original) = (accept("gzip"), running.get("/a.js", ""));
    let variant = running.get("/a.js", &gzip);
    let (tag, other) = (variant.field("etag"), original.field("etag"));
    assert_ne!(tag, other);
    assert!(!tag.starts_with("W/"), "{tag}");
    let part = running.get("/a.js", &format!("{gzip}Range: bytes=0-1\r\n"));
    assert_eq!(text(&part), (206, "gz"));
    assert_eq!(part.field("content-range"), "bytes 0-1/3");
    assert_eq!((part.field("vary"), part.field("content-encoding")), ("Accept-Encoding", "gzip"));
    let beyond = running.get("/a.js", &format!("{gzip}Range: bytes=3-\r\n"));
    assert_eq!((beyond.status, beyond.field("content-range")), (416, "bytes */3"));
    let range = "Range: bytes=0-1\r\n";
    let part = running.get("/a.js", &format!("{gzip}{range}If-Range: {tag}\r\n"));
    assert_eq!(text(&part), (206, "gz"));
    let whole = running.get("/a.js", &format!("{gzip}{range}If-Range: {other}\r\n"));
    assert_eq!(text(&whole), (200, "gz!"));
    let same = running.get("/a.js", &format!("{gzip}If-None-Match: {tag}\r\n"));
    assert_eq!((same.status, same.field("etag")), (304, tag));
    assert_eq!(same.field("vary"), "Accept-Encoding");
    let changed = running.get("/a.js", &format!("{gzip}If-None-Match: {other}\r\n"));
    assert_eq!(text(&changed), (200, "gz!"));
    let same = running.get("/a.js", &format!("If-None-Match: {other}\r\n"));
    assert_eq!((same.status, same.field("vary")), (304, "Accept-Encoding"));
    running.stop();
}

#[test]
fn an_older_variant_is_not_sent() {
    let files = folder(&FILES);
    let old = SystemTime::now() - Duration::from_secs(3600);
    File::options()
        .write(true)
        .open(files.path().join("www/a.js.br"))
        .and_then(|file| file.set_modified(old))
        .unwrap();
    settle();
    let running = Configured::site(files, "precompressed = true\n");
    assert_eq!(coded(&running.get("/a.js", &accept("br"))), ("original", None));
    assert_eq!(coded(&running.get("/a.js", &accept("br, gzip"))), ("gz!", Some("gzip")));
    running.stop();
}

#[test]
fn a_variant_that_is_asked_for_by_its_name_is_a_file() {
    let running = site();
    for fields in ["", "Accept-Encoding: gzip\r\n"] {
        let reply = running.get("/a.js.gz", fields);
        assert_eq!(text(&reply), (200, "gz!"));
        assert_eq!(field(&reply, "content-encoding"), None);
        assert_eq!(reply.field("content-type"), "application/gzip");
    }
    running.stop();
}

#[test]
fn variants_come_and_go_while_the_server_runs() {
    let running = site();
    assert_eq!(coded(&running.get("/d.js", &accept("br"))), ("none", None));
    write(running.path(), "www/d.js.br", "new");
    wait_until("the new variant", || {
        running.ask_once("GET", "/d.js", &accept("br")).body == b"new"
    });
    std::fs::remove_file(running.path().join("www/d.js.br")).unwrap();
    wait_until("the original again", || {
        running.ask_once("GET", "/d.js", &accept("br")).body == b"none"
    });
    running.stop();
}

/// A coding that the client prefers is missing, and another variant answers.
#[test]
fn a_missing_variant_is_not_looked_for_with_each_request() {
    let text = "[engine]\nshards = 1\n[[site]]\nlisten = [\"127.0.0.1:0\"]\nroot = \"www\"\n\
                precompressed = true\n";
    let long = "a".repeat(20_000);
    let files = [("www/b.js", "only gzip"), ("www/l.js", &long)];
    let files = folder(&[&files[..], &[("www/b.js.gz", "gz"), ("www/l.js.gz", "gz")]].concat());
    let running = Configured::start(files, text, &["http"]);
    for path in ["/b.js", "/l.js"] {
        let ask = || running.ask_once("GET", path, &accept("zstd, gzip"));
        // At any request the second may be over for which it is believed.
        let is_believed = (0..5).any(|_| {
            assert_eq!(coded(&ask()), ("gz", Some("gzip")));
            let new = format!("www{path}.zst");
            write(running.path(), &new, "zst");
            let believed = coded(&ask()).1 == Some("gzip");
            wait_until("the new variant", || coded(&ask()).1 == Some("zstd"));
            std::fs::remove_file(running.path().join(&new)).unwrap();
            wait_until("the other variant", || coded(&ask()).1 == Some("gzip"));
            believed
        });
        assert!(is_believed, "{path}");
    }
    running.stop();
}

#[test]
fn without_the_key_there_are_no_variants() {
    let running = Configured::site(folder(&FILES), "");
    let reply = running.get("/a.js", &accept("gzip"));
    assert_eq!(text(&reply), (200, "original"));
    assert_eq!((field(&reply, "vary"), field(&reply, "content-encoding")), (None, None));
    running.stop();
}
