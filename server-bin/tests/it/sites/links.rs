//! `symlinks = "beneath"`: a link leads neither out, nor to a hidden file, nor around a rule.

use crate::common::{Modes, Server};
use crate::configured::{Configured, JOE, NOT_JOE, USERS, field, folder, request, text};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use tempfile::TempDir;

const SECRET: &str = "SECRET";

/// Links in the folder that is served, with their targets.
const LINKS: &[(&str, &str)] = &[
    ("file", "open/x.txt"),
    ("folder", "open"),
    ("again", "file"),
    ("through", "folder/x.txt"),
    ("open/up", "../open/x.txt"),
    ("here", "."),
    ("hash.css", "store/abc"),
    ("token", ".well-known/token"),
    // Out.
    ("out", "../secret"),
    ("out-folder", ".."),
    ("absolute", "/etc/passwd"),
    ("itself", "/ROOT/open/x.txt"),
    ("open/above", "../../secret"),
    ("out-again", "out"),
    ("magic", "/proc/self/root/etc/passwd"),
    // Loops and what does not exist.
    ("loop", "pool"),
    ("pool", "loop"),
    ("self", "self"),
    ("nothing", "nowhere"),
    // Hidden.
    ("dot", ".hidden"),
    ("dot-again", "dot"),
    ("dot-folder", "open/.git"),
    ("inside-dot", ".config/visible"),
    ("deep-well-known", "open/.well-known"),
    // Past rules.
    ("denied", "private/x.txt"),
    ("denied-folder", "private"),
    ("denied-again", "denied-folder/x.txt"),
    ("open/by-name", "../private.key"),
    ("member", "members/x.txt"),
    ("member-folder", "members"),
    ("shell.html", "members/x.txt"),
];

const FILES: &[(&str, &str)] = &[
    ("users", USERS),
    ("secret", SECRET),
    ("www/open/x.txt", "open"),
    ("www/open/index.html", "index"),
    ("www/open/.git/config", SECRET),
    ("www/open/.git/index.html", SECRET),
    ("www/open/.well-known/index.html", SECRET),
    ("www/store/abc", "body {}"),
    ("www/.well-known/token", "token"),
    ("www/.hidden", SECRET),
    ("www/.config/visible", SECRET),
    ("www/private/x.txt", SECRET),
    ("www/private/index.html", SECRET),
    ("www/private/listed/", ""),
    ("www/private.key", SECRET),
    ("www/members/x.txt", SECRET),
    ("www/members/index.html", SECRET),
];

const RULES: &str = "\
    [[site.rule]]\nmatch = \"/private/**\"\ndeny = [\"127.0.0.0/8\"]\n\
    [[site.rule]]\nmatch = \"*.key\"\nallow = [\"192.0.2.1\"]\n\
    [[site.rule]]\nmatch = \"/members/**\"\nauth = { file = \"users\", realm = \"members\" }\n\
    [[site.rule]]\nmatch = \"*.css\"\ncache = \"max-age=60\"\n";

fn files() -> TempDir {
    let files = folder(FILES);
    for (link, target) in LINKS {
        let root = files.path().join("www").display().to_string();
        symlink(target.replace("/ROOT", &root), files.path().join("www").join(link)).unwrap();
    }
    files
}

fn site(keys: &str) -> Configured {
    Configured::site(files(), &format!("symlinks = \"beneath\"\n{keys}{RULES}"))
}

const FIELDS: [&str; 4] =
    ["", "Range: bytes=0-2\r\n", "If-None-Match: \"x\"\r\n", "Accept-Encoding: gzip\r\n"];

#[test]
fn links_beneath_the_folder_are_followed() {
    let running = site("");
    for (target, body) in [
        ("/file", "open"),
        ("/folder/x.txt", "open"),
        ("/folder/", "index"),
        ("/again", "open"),
        ("/through", "open"),
        ("/open/up", "open"),
        ("/folder/up", "open"),
        ("/here/here/again", "open"),
        ("/token", "token"),
        ("/here/.well-known/token", ""),
        ("/open/x.txt", "open"),
    ] {
        let expected = if body.is_empty() { 404 } else { 200 };
        let reply = running.get(target, "");
        assert_eq!(reply.status, expected, "{target}");
        assert!(body.is_empty() || text(&reply).1 == body, "{target}");
    }
    let moved = running.get("/folder", "");
    assert_eq!((moved.status, moved.field("location")), (301, "/folder/"));
    // The name that was asked for decides about type and header fields.
    let styles = running.get("/hash.css", "");
    assert_eq!(styles.field("content-type"), "text/css; charset=utf-8");
    assert_eq!(field(&styles, "cache-control"), Some("max-age=60"));
    assert_eq!(field(&running.get("/store/abc", ""), "cache-control"), None);
    let part = running.get("/file", "Range: bytes=1-2\r\n");
    assert_eq!(text(&part), (206, "pe"));
    let tag = running.get("/file", "").field("etag").to_owned();
    assert_eq!(running.get("/file", &format!("If-None-Match: {tag}\r\n")).status, 304);
    running.stop();
}

/// Bypasses: the links, and the statuses of their replies.
const BYPASSES: &[(&str, u16)] = &[
    ("/out", 404),
    ("/out-folder/secret", 404),
    ("/out-folder", 404),
    ("/out-folder/www/open/x.txt", 404),
    ("/absolute", 404),
    ("/itself", 404),
    ("/open/above", 404),
    ("/folder/above", 404),
    ("/out-again", 404),
    ("/magic", 404),
    ("/loop", 404),
    ("/self", 404),
    ("/self/x.txt", 404),
    ("/nothing", 404),
    ("/dot", 404),
    ("/dot-again", 404),
    ("/here/dot", 404),
    ("/dot-folder", 404),
    ("/dot-folder/", 404),
    ("/dot-folder/config", 404),
    ("/inside-dot", 404),
    ("/deep-well-known", 404),
    ("/deep-well-known/", 404),
    ("/denied", 403),
    ("/denied-folder/x.txt", 403),
    ("/denied-folder/", 403),
    ("/denied-folder", 403),
    ("/denied-folder/listed", 403),
    ("/denied-again", 403),
    ("/here/private/x.txt", 403),
    ("/open/by-name", 403),
    ("/folder/by-name", 403),
    ("/member", 401),
    ("/member-folder/x.txt", 401),
    ("/member-folder/", 401),
    ("/member-folder", 401),
    ("/shell.html", 401),
];

#[test]
fn no_link_leads_out_to_a_hidden_file_or_around_a_rule() {
    for keys in ["", "listing = \"html\"\n", "precompressed = true\n"] {
        let running = site(keys);
        for _ in 0..2 {
            let mut client = running.server.client();
            for (target, status) in BYPASSES {
                for fields in FIELDS {
                    let reply = client.ask(&request("GET", target, fields));
                    assert_eq!(reply.status, *status, "{keys}{target} {fields}");
                    assert!(!text(&reply).1.contains(SECRET), "{keys}{target} {fields}");
                }
            }
        }
        running.stop();
    }
}

#[test]
fn a_user_gets_what_a_link_leads_to_and_no_cache_keeps_it() {
    let running = site("");
    for target in ["/member", "/member-folder/x.txt", "/member-folder/"] {
        for fields in ["", "Range: bytes=0-5\r\n"] {
            let reply = running.get(target, &format!("{JOE}{fields}"));
            assert_eq!(text(&reply).1, SECRET, "{target}");
            assert_eq!(field(&reply, "cache-control"), Some("private"), "{target} {fields}");
        }
        let refused = running.get(target, NOT_JOE);
        assert_eq!(refused.status, 401, "{target}");
        assert!(refused.field("www-authenticate").contains("members"), "{target}");
    }
    let moved = running.get("/member-folder", JOE);
    assert_eq!((moved.status, moved.field("location")), (301, "/member-folder/"));
    running.stop();
}

#[test]
fn the_page_of_spa_error_pages_and_variants_obey_as_well() {
    let files = files();
    for (link, target) in
        [("www/404.html", "../secret"), ("www/403.html", ".hidden"), ("www/x.css.gz", ".hidden")]
    {
        symlink(target, files.path().join(link)).unwrap();
    }
    fs::write(files.path().join("www/x.css"), "plain").unwrap();
    let keys = "spa = \"/shell.html\"\nprecompressed = true\n\
                errors = { 404 = \"/404.html\", 403 = \"/403.html\", 405 = \"/file\" }\n";
    let running = Configured::site(files, &format!("symlinks = \"beneath\"\n{keys}{RULES}"));
    for (method, target, status) in [
        ("GET", "/nope", 401),
        ("GET", "/nope.png", 404),
        ("GET", "/denied", 403),
        ("GET", "/x.css", 200),
        ("POST", "/", 405),
    ] {
        let reply = running.ask_once(method, target, "Accept-Encoding: gzip\r\n");
        assert_eq!(reply.status, status, "{target}");
        assert!(!text(&reply).1.contains(SECRET), "{target}");
        assert_eq!(text(&reply).1 == "open", method == "POST", "{target}");
    }
    assert_eq!(text(&running.get("/nope", JOE)), (200, SECRET));
    running.stop();
}

#[test]
fn a_listing_has_the_links_that_are_served() {
    let running = site("listing = \"json\"\n");
    let reply = running.get("/", "");
    let listed: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
    let names: Vec<&str> =
        listed.as_array().unwrap().iter().map(|entry| entry["name"].as_str().unwrap()).collect();
    for name in ["file", "again", "through", "folder", "token", "hash.css"] {
        assert!(names.contains(&name), "{name} of {names:?}");
    }
    for name in ["out", "absolute", "loop", "nothing", "dot", "dot-folder", "inside-dot", "magic"] {
        assert!(!names.contains(&name), "{name} of {names:?}");
    }
    assert_eq!(running.get("/denied-folder/listed/", "").status, 403);
    let folder = listed.as_array().unwrap().iter().find(|entry| entry["name"] == "folder");
    assert_eq!(folder.unwrap()["type"], "directory");
    running.stop();
}

#[test]
fn the_folder_of_a_rule_follows_links_beneath_itself() {
    let files = files();
    fs::create_dir_all(files.path().join("other/a")).unwrap();
    fs::write(files.path().join("other/a/x.txt"), "aliased").unwrap();
    symlink("x.txt", files.path().join("other/a/link")).unwrap();
    symlink("../../www/open/x.txt", files.path().join("other/a/out")).unwrap();
    let rule = "symlinks = \"beneath\"\n[[site.rule]]\nmatch = \"/a/**\"\nroot = \"other\"\n";
    let running = Configured::site(files, rule);
    assert_eq!(text(&running.get("/a/link", "")), (200, "aliased"));
    assert_eq!(running.get("/a/out", "").status, 404);
    running.stop();
}

#[test]
fn without_the_key_no_link_is_followed_and_a_flag_sets_it() {
    let running = Configured::site(files(), RULES);
    for (link, _) in LINKS {
        assert_eq!(running.get(&format!("/{link}"), "").status, 404, "{link}");
    }
    let root = running.path().join("www");
    let server = Server::http(&root, &["--symlinks", "beneath"]);
    assert_eq!(server.get("/file", "").body, b"open");
    assert_eq!(server.get("/dot", "").status, 404);
    assert_eq!(server.get("/out", "").status, 404);
    server.stop().cleanly();
    running.stop();
}

/// Points a link elsewhere, at once.
fn point(link: &Path, target: &str) {
    let next = link.with_extension("next");
    symlink(target, &next).unwrap();
    fs::rename(&next, link).unwrap();
}

/// While links, files and folders are replaced, nothing hidden and nothing outside is ever sent.
#[test]
fn links_that_are_replaced_while_they_are_followed_show_no_secret() {
    let files = files();
    let root = files.path().join("www");
    symlink("open", root.join("turning")).unwrap();
    symlink("open/x.txt", root.join("changing")).unwrap();
    for folder in [".config", "private"] {
        fs::write(root.join(folder).join("x.txt"), SECRET).unwrap();
    }
    fs::write(files.path().join("x.txt"), SECRET).unwrap();
    let text_of = format!(
        "[engine]\nopen_files_valid = \"1ms\"\n[[site]]\nlisten = [\"127.0.0.1:0\"]\n\
         root = \"www\"\nsymlinks = \"beneath\"\n{RULES}"
    );
    let running = Configured::start(files, &text_of, &["http"]);
    let goes_on = AtomicBool::new(true);
    // Also when the test fails.
    struct Ends<'a>(&'a AtomicBool);
    impl Drop for Ends<'_> {
        fn drop(&mut self) {
            self.0.store(false, Ordering::Relaxed);
        }
    }
    thread::scope(|scope| {
        let (goes_on, root) = (&goes_on, &root);
        scope.spawn(move || {
            while goes_on.load(Ordering::Relaxed) {
                for (folder, file) in [
                    (".config", ".config/visible"),
                    ("open", "open/x.txt"),
                    ("..", "../secret"),
                    ("private", "private/x.txt"),
                    ("/etc", "/etc/passwd"),
                    ("open/../open", "here/open/x.txt"),
                ] {
                    point(&root.join("turning"), folder);
                    point(&root.join("changing"), file);
                }
                let (one, other) = (root.join("open"), root.join("aside"));
                fs::rename(&one, &other).unwrap();
                fs::rename(&other, &one).unwrap();
            }
        });
        let _ends = Ends(goes_on);
        let mut client = running.server.client();
        let mut shown = 0;
        for target in ["/turning/x.txt", "/changing"].iter().cycle().take(4000) {
            let reply = client.ask(&request("GET", target, ""));
            match text(&reply) {
                (200, "open") => shown += 1,
                (403 | 404, body) => assert!(!body.contains(SECRET), "{target}"),
                other => panic!("{target}: {other:?}"),
            }
        }
        assert!(shown > 0);
    });
    point(&root.join("changing"), "open/x.txt");
    // From now on, and as soon as an open file is not believed any more.
    crate::configured::wait_until("the last target is served", || {
        running.ask_once("GET", "/changing", "").body == b"open"
    });
    running.stop();
}
