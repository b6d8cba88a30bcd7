//! `errors`: pages for statuses.

use crate::configured::{Configured, USERS, field, folder, request, text};
use std::os::unix::fs::symlink;

const PAGE: &str = "<h1>not here</h1>";

fn site() -> Configured {
    let files = [
        ("www/404.html", PAGE),
        ("www/secret.txt", "secret"),
        ("www/directory/", ""),
        ("www/a.txt", "0123456789"),
    ];
    let files = folder(&files);
    symlink("404.html", files.path().join("www/link.html")).unwrap();
    Configured::site(
        files,
        "errors = { 404 = \"/404.html\", 403 = \"/missing.html\", 405 = \"/directory\", \
         412 = \"/link.html\", 501 = \"/404.html\" }\n\
         [[site.rule]]\nmatch = \"secret.txt\"\ndeny = [\"127.0.0.0/8\"]\n",
    )
}

#[test]
fn an_error_page_has_the_status_of_the_error_and_no_validators() {
    let running = site();
    let page = running.get("/404.html", "");
    assert_eq!(text(&page), (200, PAGE), "as a file");
    for fields in [
        String::new(),
        "Range: bytes=0-1\r\n".into(),
        "Range: bytes=0-1,4-5\r\n".into(),
        "If-None-Match: *\r\n".into(),
        "If-Match: \"x\"\r\n".into(),
        format!("If-None-Match: {}\r\n", page.field("etag")),
        format!("If-Modified-Since: {}\r\n", page.field("last-modified")),
        format!("Range: bytes=0-1\r\nIf-Range: {}\r\n", page.field("etag")),
    ] {
        let reply = running.get("/nope", &fields);
        assert_eq!(text(&reply), (404, PAGE), "{fields}");
        for name in ["etag", "last-modified", "accept-ranges", "content-range"] {
            assert_eq!(field(&reply, name), None, "{name} for {fields}");
        }
        assert_eq!(reply.field("content-type"), page.field("content-type"));
    }
    let head = running.ask("HEAD", "/nope", "");
    assert_eq!((head.status, head.body.len()), (404, 0));
    assert_eq!(head.field("content-length"), PAGE.len().to_string());
    assert_eq!(running.get("/404.html", "").fields, page.fields, "the page is not changed by it");
    assert_eq!(text(&running.ask_once("BREW", "/", "")), (501, PAGE));
    running.stop();
}

#[test]
fn without_a_page_the_status_is_in_words() {
    let running = site();
    for (request, status) in [
        // The page is missing, a directory, a symbolic link, or not configured.
        (request("GET", "/secret.txt", ""), 403),
        (request("DELETE", "/", ""), 405),
        (request("GET", "/a.txt", "If-Match: \"x\"\r\n"), 412),
        (request("GET", "/a.txt", "Range: bytes=10-\r\n"), 416),
    ] {
        let mut client = running.server.client();
        for _ in 0..2 {
            let reply = client.ask(&request);
            assert_eq!(reply.status, status, "{request}");
            assert!(text(&reply).1.starts_with(&status.to_string()), "{reply:?}");
        }
    }
    running.stop();
}

#[test]
fn a_page_that_may_not_be_sent_does_not_change_the_status() {
    let files = [("www/404.html", PAGE), ("www/401.html", PAGE), ("users", USERS)];
    let running = Configured::site(
        folder(&files),
        "errors = { 404 = \"/404.html\", 405 = \"/401.html\" }\n\
         [[site.rule]]\nmatch = \"404.html\"\ndeny = [\"127.0.0.0/8\"]\n\
         [[site.rule]]\nmatch = \"401.html\"\nauth = \"users\"\n",
    );
    let reply = running.get("/nope", "");
    assert!(text(&reply).1.starts_with("404"), "{reply:?}");
    assert_eq!(reply.status, 404);
    let reply = running.ask_once("DELETE", "/", "");
    assert!(text(&reply).1.starts_with("405"), "{reply:?}");
    running.stop();
}
