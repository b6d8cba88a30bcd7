//! `listing` of a site and of a rule.

use crate::common::Reply;
use crate::configured::{Configured, field, folder, text};
use serde_json::Value;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use tempfile::TempDir;

/// Names that a listing has to encode, and not only for HTML.
const NAMES: [&[u8]; 8] = [
    b"a&b <c> \"d\".txt",
    b"javascript:alert(1)",
    b"\xff\xfe.bin",
    "ü ✓.txt".as_bytes(),
    b"per%20cent?q#f",
    b"new\nline",
    b"<script>",
    b"'single'",
];

fn files() -> TempDir {
    let files = folder(&[
        ("www/l/sub/inside.txt", "in a directory"),
        ("www/l/.hidden", "secret"),
        ("www/l/.git/config", "secret"),
        ("www/with/index.html", "index"),
        ("www/off/a.txt", "a"),
        ("www/json/a.txt", "abc"),
    ]);
    let folder = files.path().join("www/l");
    for name in NAMES {
        fs::write(folder.join(OsStr::from_bytes(name)), name).unwrap();
    }
    symlink("sub", folder.join("link")).unwrap();
    symlink("sub/inside.txt", folder.join("link.txt")).unwrap();
    files
}

const KEYS: &str = "listing = \"html\"\n\
     [[site.rule]]\nmatch = \"/off/**\"\nlisting = \"off\"\n\
     [[site.rule]]\nmatch = \"/json/**\"\nlisting = \"json\"\n";

fn hrefs(page: &str) -> Vec<&str> {
    let table = &page[page.find("<table>").unwrap()..];
    table.split("href=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect()
}

/// Each link leads to the file with that content.
#[track_caller]
fn each_leads_somewhere(running: &Configured, hrefs: &[&str]) {
    let mut found: Vec<Vec<u8>> = Vec::new();
    for href in hrefs.iter().filter(|href| !href.ends_with('/')) {
        let reply = running.get(&format!("/l/{href}"), "");
        assert_eq!(reply.status, 200, "{href}");
        found.push(reply.body);
    }
    found.sort();
    let mut names = NAMES.map(<[u8]>::to_vec);
    names.sort();
    assert_eq!(found, names);
}

#[test]
fn a_page_links_every_file_and_nothing_hidden() {
    let running = Configured::site(files(), KEYS);
    let reply = running.get("/l/", "");
    let (status, page) = text(&reply);
    assert_eq!((status, reply.field("content-type")), (200, "text/html; charset=utf-8"));
    assert!(reply.field("content-security-policy").contains("default-src 'none'"));
    let hrefs = hrefs(page);
    assert_eq!(&hrefs[..2], ["../", "sub/"], "directories come first");
    each_leads_somewhere(&running, &hrefs);
    for hidden in [".hidden", ".git", "link"] {
        assert!(!page.contains(&format!(">{hidden}")), "{page}");
    }
    assert!(page.contains("a&amp;b &lt;c&gt; &quot;d&quot;.txt"), "{page}");
    assert_eq!(page.matches("<script>").count(), 1, "{page}");
    let head = running.ask("HEAD", "/l/", "");
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.field("content-length"), reply.body.len().to_string());
    running.stop();
}

#[test]
fn json_has_every_file_and_nothing_hidden() {
    let keys = "listing = \"json\"\n";
    let running = Configured::site(files(), keys);
    let reply = running.get("/l/", "");
    assert_eq!((reply.status, reply.field("content-type")), (200, "application/json"));
    let listed: Value = serde_json::from_slice(&reply.body).unwrap();
    let entries = listed.as_array().unwrap();
    assert_eq!(entries[0]["name"], "sub");
    assert_eq!((&entries[0]["type"], &entries[0]["href"]), (&"directory".into(), &"sub/".into()));
    let hrefs: Vec<&str> = entries.iter().map(|entry| entry["href"].as_str().unwrap()).collect();
    each_leads_somewhere(&running, &hrefs);
    for entry in &entries[1..] {
        let href = entry["href"].as_str().unwrap();
        let head = running.ask("HEAD", &format!("/l/{href}"), "");
        assert_eq!(entry["type"], "file");
        assert_eq!(entry["size"].to_string(), head.field("content-length"));
        assert_eq!(entry["mtime"], head.field("last-modified"));
    }
    running.stop();
}

#[test]
fn a_rule_decides_and_an_index_file_goes_before() {
    let running = Configured::site(files(), KEYS);
    assert_eq!(running.get("/off/", "").status, 404);
    let is_html = |reply: &Reply| reply.field("content-type").starts_with("text/html");
    assert!(is_html(&running.get("/", "")));
    let reply = running.get("/json/", "");
    assert_eq!((reply.status, is_html(&reply)), (200, false));
    assert_eq!(text(&running.get("/with/", "")), (200, "index"));
    let moved = running.get("/json", "");
    assert_eq!((moved.status, moved.field("location")), (301, "/json/"));
    assert_eq!(running.get("/nope/", "").status, 404);
    assert_eq!(running.get("/l/link/", "").status, 404);
    assert_eq!(running.get("/off/a.txt/", "").status, 404);
    assert_eq!(running.get("/l/.git/", "").status, 404);
    running.stop();
}

#[test]
fn there_is_no_listing_by_default() {
    let running = Configured::site(files(), "");
    let reply = running.get("/l/", "");
    assert_eq!((reply.status, field(&reply, "content-security-policy")), (404, None));
    running.stop();
}
