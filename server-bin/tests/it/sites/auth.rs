//! `auth` of rules.

use crate::common::Reply;
use crate::configured::{Configured, JOE, NOT_JOE, USERS, field, folder, text};

const CHALLENGE: &str = "Basic realm=\"The team\", charset=\"UTF-8\"";

fn site() -> Configured {
    Configured::site(
        folder(&[
            ("users", USERS),
            ("www/p/x.txt", "secret"),
            ("www/p/index.html", "index"),
            ("www/p/x.txt.gz", "packed"),
            ("www/short/x.txt", "short"),
            ("www/cached/x.txt", "cached"),
            ("www/open.txt", "open"),
        ]),
        "precompressed = true\n\
         [[site.rule]]\nmatch = \"/p/**\"\nauth = { file = \"users\", realm = \"The team\" }\n\
         cors = \"*\"\n\
         [[site.rule]]\nmatch = \"/short/**\"\nauth = \"users\"\n\
         [[site.rule]]\nmatch = \"/cached/**\"\nauth = \"users\"\ncache = \"max-age=5\"\n",
    )
}

#[track_caller]
fn is_refused(reply: &Reply, challenge: &str) {
    assert_eq!((reply.status, reply.field("www-authenticate")), (401, challenge));
    assert!(text(reply).1.is_empty() || text(reply).1.starts_with("401"), "{reply:?}");
    assert_eq!(field(reply, "etag"), None);
}

#[test]
fn only_the_right_password_opens() {
    let running = site();
    // First the wrong ones, then the right one, then the wrong ones again: the right one is
    // remembered.
    for _ in 0..2 {
        for fields in [
            "",
            NOT_JOE,
            "Authorization: Basic am9l\r\n",
            "Authorization: Bearer am9lOnB3\r\n",
            "Authorization: Basic am9lOnB3IA==\r\n",
            "Authorization: Basic Sm9lOnB3\r\n",
            "Authorization: Basic am9lOnB3\r\nAuthorization: Basic am9lOnB3\r\n",
            // Nobody of that name.
            "Authorization: Basic YW5uOnB3\r\n",
        ] {
            is_refused(&running.get("/p/x.txt", fields), CHALLENGE);
            is_refused(&running.get("/p/nope", fields), CHALLENGE);
            is_refused(&running.ask("HEAD", "/p/", fields), CHALLENGE);
        }
        let reply = running.get("/p/x.txt", JOE);
        assert_eq!((text(&reply), reply.field("cache-control")), ((200, "secret"), "private"));
        assert_eq!(text(&running.get("/p/", JOE)), (200, "index"));
        let packed = running.get("/p/x.txt", &format!("{JOE}Accept-Encoding: gzip\r\n"));
        assert_eq!((text(&packed), packed.field("cache-control")), ((200, "packed"), "private"));
        assert_eq!(running.get("/p/nope", JOE).status, 404);
    }
    assert_eq!(text(&running.get("/open.txt", "")), (200, "open"));
    running.stop();
}

#[test]
fn replies_are_private_unless_a_rule_says_otherwise() {
    let running = site();
    let realm = "Basic realm=\"restricted\", charset=\"UTF-8\"";
    is_refused(&running.get("/short/x.txt", ""), realm);
    let reply = running.get("/short/x.txt", JOE);
    assert_eq!((reply.status, reply.field("cache-control")), (200, "private"));
    let fields = format!("{JOE}If-None-Match: {}\r\n", reply.field("etag"));
    let same = running.get("/short/x.txt", &fields);
    assert_eq!((same.status, same.field("cache-control")), (304, "private"));
    let part = running.get("/short/x.txt", &format!("{JOE}Range: bytes=0-0\r\n"));
    assert_eq!((part.status, part.field("cache-control")), (206, "private"));
    let reply = running.get("/cached/x.txt", JOE);
    assert_eq!((reply.status, reply.field("cache-control")), (200, "max-age=5"));
    assert_eq!(field(&running.get("/open.txt", JOE), "cache-control"), None);
    running.stop();
}

#[test]
fn preflights_carry_no_password_and_pass() {
    let running = site();
    let fields = "Origin: https://a.example\r\nAccess-Control-Request-Method: GET\r\n";
    let reply = running.ask("OPTIONS", "/p/x.txt", fields);
    assert_eq!((reply.status, reply.field("access-control-allow-origin")), (204, "*"));
    // The request itself does not.
    let reply = running.get("/p/x.txt", fields);
    is_refused(&reply, CHALLENGE);
    assert_eq!(reply.field("access-control-allow-origin"), "*", "a page may read the 401");
    running.stop();
}

#[test]
fn a_file_that_is_sent_for_another_path_asks_for_a_user_too() {
    let files = [("users", USERS), ("www/index.html", "index"), ("www/app.html", "shell")];
    let keys = "spa = \"/app.html\"\n[[site.rule]]\nmatch = \"*.html\"\n\
         auth = { file = \"users\", realm = \"The team\" }\n";
    for (target, body) in [("/", "index"), ("/nope", "shell")] {
        let running = Configured::site(folder(&files), keys);
        for fields in ["", NOT_JOE] {
            is_refused(&running.get(target, fields), CHALLENGE);
        }
        // The password is checked for this path first.
        let reply = running.get(target, JOE);
        assert_eq!((text(&reply), reply.field("cache-control")), ((200, body), "private"));
        is_refused(&running.get(target, NOT_JOE), CHALLENGE);
        running.stop();
    }
}

#[test]
fn many_clients_with_passwords_are_all_answered() {
    let running = site();
    std::thread::scope(|scope| {
        for at in 0..32 {
            let mut client = running.server.client();
            scope.spawn(move || {
                let fields = if at % 2 == 0 { JOE } else { NOT_JOE };
                let status = if at % 2 == 0 { 200 } else { 401 };
                let request = crate::configured::request("GET", "/p/x.txt", fields);
                for _ in 0..3 {
                    assert_eq!(client.ask(&request).status, status);
                }
            });
        }
    });
    running.stop();
}
