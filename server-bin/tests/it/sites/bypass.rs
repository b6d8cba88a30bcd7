//! No way of writing a request leads around a rule.

use crate::common::Client;
use crate::configured::{Configured, JOE, Port, USERS, folder, request, text};

const SECRET: &str = "SECRET";

/// Paths that lead to `FOLDER/x.txt`, its variants or its folder.
const WAYS: [&str; 25] = [
    "/FOLDER/x.txt",
    "/FOLDER/x%2etxt",
    "/FOLDER/%78.txt",
    "/%FIRST/x.txt",
    "//FOLDER/x.txt",
    "/FOLDER//x.txt",
    "///FOLDER///x.txt",
    "/./FOLDER/x.txt",
    "/FOLDER/./x.txt",
    "/FOLDER/%2e/x.txt",
    "/FOLDER/%2E%2e/FOLDER/x.txt",
    "/other/../FOLDER/x.txt",
    "/other/%2e%2e/FOLDER/x.txt",
    "/../FOLDER/x.txt",
    "/FOLDER/y/../x.txt",
    "/FOLDER/x.txt?",
    "/FOLDER/x.txt?a=/other/x.txt",
    "http://x/FOLDER/x.txt",
    "http://X:80//FOLDER/./x.txt?q",
    "/FOLDER/x.txt.gz",
    "/FOLDER/x.txt.br",
    "/FOLDER/x.txt.gz.br",
    "/FOLDER/x.txt%2egz",
    "/FOLDER/",
    "/FOLDER",
];

fn ways(folder: &str) -> Vec<String> {
    let encoded = format!("%{:02x}{}", folder.as_bytes()[0], &folder[1..]);
    WAYS.iter().map(|way| way.replace("%FIRST", &encoded).replace("FOLDER", folder)).collect()
}

/// A site whose folders have a rule each.
fn site() -> Configured {
    let mut files = vec![
        ("users".to_owned(), USERS),
        ("www/other/x.txt".to_owned(), "open"),
        ("www/index.html".to_owned(), SECRET),
        ("www/page.html".to_owned(), SECRET),
        ("www/app.html".to_owned(), SECRET),
        ("www/d/by-name.txt".to_owned(), SECRET),
        ("www/d/by-name.txt.gz".to_owned(), SECRET),
    ];
    for folder in ["private", "members", "old"] {
        for file in ["x.txt", "x.txt.gz", "x.txt.br", "x.txt.gz.br", "index.html"] {
            files.push((format!("www/{folder}/{file}"), SECRET));
        }
    }
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (&path[..], *text)).collect();
    Configured::site(
        folder(&files),
        "precompressed = true\nspa = \"/app.html\"\n\
         errors = { 405 = \"/page.html\", 404 = \"/page.html\" }\n\
         [[site.rule]]\nmatch = \"/private/**\"\ndeny = [\"127.0.0.0/8\"]\n\
         [[site.rule]]\nmatch = \"by-name.txt\"\ndeny = [\"127.0.0.0/8\"]\n\
         [[site.rule]]\nmatch = \"/index.html\"\ndeny = [\"127.0.0.0/8\"]\n\
         [[site.rule]]\nmatch = \"page.html\"\nauth = \"users\"\n\
         [[site.rule]]\nmatch = \"app.html\"\nauth = \"users\"\n\
         [[site.rule]]\nmatch = \"/members/**\"\nauth = \"users\"\n\
         [[site.rule]]\nmatch = \"/old/**\"\nredirect = \"/new{path}\"\n",
    )
}

const FIELDS: [&str; 5] = [
    "",
    "Accept-Encoding: gzip\r\n",
    "Accept-Encoding: br\r\n",
    "Range: bytes=0-2\r\n",
    "If-None-Match: \"x\"\r\n",
];

/// Each request gets this status, and never a byte of the secret.
#[track_caller]
fn all_get(running: &Configured, folder: &str, status: u16) {
    let mut client = running.server.client();
    for way in ways(folder) {
        for (method, fields) in
            FIELDS.map(|fields| ("GET", fields)).into_iter().chain([("HEAD", "")])
        {
            let reply = client.ask(&request(method, &way, fields));
            assert_eq!(reply.status, status, "{method} {way} {fields}");
            assert!(!text(&reply).1.contains("SECRET"), "{method} {way} {fields}");
            if status == 302 {
                let location = reply.field("location");
                assert!(location.starts_with("/new/old"), "{way}: {location}");
            }
        }
    }
}

#[test]
fn deny_auth_and_redirect_hold_for_every_form_of_a_path() {
    let running = site();
    // Also when a user has been remembered, and the files are open.
    for _ in 0..2 {
        all_get(&running, "private", 403);
        all_get(&running, "members", 401);
        all_get(&running, "old", 302);
        assert_eq!(text(&running.get("/members/x.txt", JOE)), (200, SECRET));
    }
    running.stop();
}

/// An open file answers under several paths, each with rules of its own.
#[test]
fn rules_hold_for_each_path_of_a_file_that_is_open() {
    let files = [
        ("www/x.js", "original"),
        ("www/x.js.gz", "gz"),
        ("www/y/index.html", "y"),
        ("www/z/index.html", "z"),
    ];
    let running = Configured::site(
        folder(&files),
        "precompressed = true\n\
         [[site.rule]]\nmatch = \"*.gz\"\ndeny = [\"127.0.0.0/8\"]\n\
         [[site.rule]]\nmatch = \"/y/\"\ndeny = [\"127.0.0.0/8\"]\n\
         [[site.rule]]\nmatch = \"/z/index.html\"\ndeny = [\"127.0.0.0/8\"]\n",
    );
    let gzip = "Accept-Encoding: gzip\r\n";
    for _ in 0..5 {
        assert_eq!(text(&running.get("/x.js", gzip)), (200, "gz"));
        assert_eq!(running.get("/x.js.gz", "").status, 403);
        assert_eq!(running.get("/x.js.gz", gzip).status, 403);
        assert_eq!(text(&running.get("/x.js", "")), (200, "original"));
        assert_eq!(text(&running.get("/y/index.html", "")), (200, "y"));
        assert_eq!(running.get("/y/", "").status, 403);
        assert_eq!(running.get("/z/", "").status, 403);
        assert_eq!(running.get("/z/index.html", "").status, 403);
    }
    running.stop();
}

#[test]
fn rules_by_name_hold_for_variants_and_for_the_file_that_is_sent() {
    let running = site();
    for target in ["/d/by-name.txt", "/d/by-name.txt.gz", "/d//by%2dname.txt", "/index.html"] {
        for fields in FIELDS {
            assert_eq!(running.get(target, fields).status, 403, "{target} {fields}");
        }
    }
    for fields in FIELDS {
        let reply = running.get("/", fields);
        assert_eq!(reply.status, 403, "the index file: {fields}");
        // The shell and the pages of errors are for members.
        for (method, target) in [("GET", "/nope"), ("GET", "/nope.png"), ("POST", "/d/")] {
            let reply = running.ask_once(method, target, fields);
            assert!(!text(&reply).1.contains("SECRET"), "{method} {target} {fields}");
        }
    }
    running.stop();
}

#[test]
fn odd_paths_lead_nowhere() {
    let running = site();
    for (target, status) in [
        ("/private%2fx.txt", 400),
        ("/other%2f..%2fprivate/x.txt", 400),
        ("/private%00/x.txt", 400),
        ("/private/x.txt%00", 400),
        ("/private%5cx.txt", 404),
        ("/other/..%5cprivate%5cx.txt", 404),
        ("/%2570rivate/x.txt", 401),
        ("/private/x.txt/", 403),
        ("/private;a=b/x.txt", 401),
        ("/private/.x.txt", 404),
        ("/.private/x.txt", 404),
        // The file system tells upper from lower case, and there are no such files.
        ("/Private/x.txt", 401),
        ("/MEMBERS/x.txt", 401),
        ("/Old/x.txt", 401),
        ("/%", 400),
        ("/%zz", 400),
        ("/private/x.txt#f", 400),
    ] {
        // The shell answers navigations to what does not exist, and it is for members.
        let reply = running.ask_once("GET", target, "Accept: text/html\r\n");
        assert_eq!(reply.status, status, "{target}");
        assert!(!text(&reply).1.contains("SECRET"), "{target}");
    }
    running.stop();
}

#[test]
fn the_rules_are_those_of_the_site_that_answers() {
    let port = Port::reserve();
    let listen = format!("listen = [\"{}\"]", port.address());
    let text_of = format!(
        "[[site]]\n{listen}\nroot = \"www\"\nnames = [\"open.example\"]\n\
         [[site]]\n{listen}\nroot = \"www\"\nnames = [\"closed.example\"]\ndefault = true\n\
         [[site.rule]]\nmatch = \"x.txt\"\ndeny = [\"127.0.0.0/8\"]\n"
    );
    let running = Configured::start(folder(&[("www/x.txt", "text")]), &text_of, &["http"]);
    for (target, host, status) in [
        ("/x.txt", "open.example", 200),
        ("/x.txt", "closed.example", 403),
        ("/x.txt", "OPEN.example.:80", 200),
        ("/x.txt", "Closed.Example.", 403),
        ("http://closed.example/x.txt", "open.example", 403),
        ("http://open.example/x.txt", "closed.example", 200),
        ("/x.txt", "nobody.example", 403),
        ("/x.txt", "127.0.0.1", 403),
    ] {
        let mut client = Client::new(running.server.address);
        // The same root, but no open file of the other site.
        for _ in 0..2 {
            let reply = client.ask(&request("GET", target, &format!("Host: {host}\r\n")));
            assert_eq!(reply.status, status, "{target} of {host}");
        }
    }
    // Two hosts, or one that is none, name no site at all.
    for fields in [
        "Host: open.example\r\nHost: closed.example\r\n",
        "Host: open.example, closed.example\r\n",
        "Host: open.example/x\r\n",
        "Host: user@open.example\r\n",
    ] {
        let reply = Client::new(running.server.address).ask(&request("GET", "/x.txt", fields));
        assert_eq!(reply.status, 400, "{fields}");
    }
    running.stop();
}
