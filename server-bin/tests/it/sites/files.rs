//! The file that answers: `root`, `index`, `spa`, `max_ranges`, and `root` of a rule.

use crate::configured::{Configured, field, folder, text};

#[test]
fn index_files_are_tried_in_order() {
    let files = [
        ("www/index.html", "html"),
        ("www/index.txt", "txt"),
        ("www/t/index.txt", "only txt"),
        ("www/n/other.html", "other"),
        ("www/d/index.html/", ""),
        ("www/d/index.txt", "beside a directory"),
    ];
    let running = Configured::site(folder(&files), "index = [\"index.html\", \"index.txt\"]\n");
    assert_eq!(text(&running.get("/", "")), (200, "html"));
    let reply = running.get("/t/", "");
    assert_eq!(text(&reply), (200, "only txt"));
    assert_eq!(reply.field("content-type"), "text/plain; charset=utf-8");
    assert_eq!(text(&running.get("/d/", "")), (200, "beside a directory"));
    assert_eq!(running.get("/n/", "").status, 404);
    running.stop();
    let running = Configured::site(folder(&files), "index = [\"index.txt\"]\n");
    assert_eq!(text(&running.get("/", "")), (200, "txt"));
    running.stop();
    let running = Configured::site(folder(&files), "");
    assert_eq!(text(&running.get("/", "")), (200, "html"));
    assert_eq!(running.get("/t/", "").status, 404);
    running.stop();
}

const HTML: &str = "Accept: text/html,application/xhtml+xml,*/*;q=0.8\r\n";

#[test]
fn navigations_to_what_does_not_exist_get_the_shell() {
    let files = [("www/app.html", "shell"), ("www/a.txt", "file"), ("www/sub/b.txt", "b")];
    let running = Configured::site(
        folder(&files),
        "spa = \"/app.html\"\n\
         [[site.rule]]\nmatch = \"app.html\"\nheaders = { X-Shell = \"1\" }\n\
         [[site.rule]]\nmatch = \"/nope\"\nheaders = { X-Nope = \"1\" }\n",
    );
    let shell = running.get("/app.html", "");
    for (target, fields) in [
        ("/nope", ""),
        ("/nope", "Accept: */*\r\n"),
        ("/nope", HTML),
        ("/nope", "Accept: TEXT/HTML;q=0.1\r\n"),
        ("/nope.png", HTML),
        ("/v1.2/nope", ""),
        ("/sub/nope", ""),
        ("/sub/", ""),
        ("/sub/nope/deep?q=.x", ""),
        ("/", ""),
    ] {
        let reply = running.get(target, fields);
        assert_eq!(text(&reply), (200, "shell"), "{target} {fields}");
        assert_eq!(reply.fields, shell.fields, "{target} {fields}: the fields of the shell");
        assert_eq!((field(&reply, "x-shell"), field(&reply, "x-nope")), (Some("1"), None));
    }
    for (target, fields) in [
        ("/nope.png", ""),
        ("/nope.png", "Accept: */*\r\n"),
        ("/nope", "Accept: image/png\r\n"),
        ("/nope", "Accept: application/json, */*\r\n"),
        ("/nope", "Accept: text/htmlx\r\n"),
        ("/.hidden", HTML),
    ] {
        assert_eq!(running.get(target, fields).status, 404, "{target} {fields}");
    }
    let head = running.ask("HEAD", "/nope", "");
    assert_eq!((head.status, head.field("content-length"), head.body.len()), (200, "5", 0));
    let fields = format!("If-None-Match: {}\r\n", shell.field("etag"));
    assert_eq!(running.get("/nope", &fields).status, 304);
    assert_eq!(running.get("/nope", "Range: bytes=1-2\r\n").body, b"he");
    for (method, status) in [("POST", 405), ("DELETE", 405), ("OPTIONS", 204)] {
        assert_eq!(running.ask_once(method, "/nope", "").status, status, "{method}");
    }
    assert_eq!(text(&running.get("/a.txt", HTML)), (200, "file"));
    assert_eq!(running.get("/sub", HTML).status, 301);
    running.stop();
}

#[test]
fn without_its_file_spa_is_a_404() {
    let running = Configured::site(folder(&[("www/", "")]), "spa = \"/app.html\"\n");
    assert_eq!(running.get("/nope", HTML).status, 404);
    running.stop();
}

#[test]
fn a_request_has_at_most_max_ranges() {
    let content: String = ('a'..='z').cycle().take(4000).collect();
    let files = [("www/a.txt", &content[..])];
    let running = Configured::site(folder(&files), "max_ranges = 2\n");
    let reply = running
        .server
        .client()
        .ask("GET /a.txt HTTP/1.1\r\nHost: x\r\nRange: bytes=0-1,1000-1001\r\n\r\n");
    assert_eq!(reply.status, 206);
    let boundary = reply.field("content-type").strip_prefix("multipart/byteranges; boundary=");
    let boundary = boundary.unwrap_or_else(|| panic!("{reply:?}"));
    let (_, body) = text(&reply);
    let part = |range: &str, bytes: &str| {
        format!(
            "--{boundary}\r\nContent-Type: text/plain; charset=utf-8\r\n\
             Content-Range: bytes {range}/4000\r\n\r\n{bytes}\r\n"
        )
    };
    let expected = part("0-1", "ab") + &part("1000-1001", "mn") + &format!("--{boundary}--\r\n");
    assert_eq!(body.trim_start_matches("\r\n"), expected);
    let three = "Range: bytes=0-1,1000-1001,2000-2001\r\n";
    let reply = running.get("/a.txt", three);
    assert_eq!(text(&reply), (200, &content[..]), "three are too many");
    running.stop();
    let running = Configured::site(folder(&files), "");
    assert_eq!(running.server.get("/a.txt", three).status, 206, "16 by default");
    running.stop();
    let running = Configured::site(folder(&files), "max_ranges = 1\n");
    let reply = running.get("/a.txt", "Range: bytes=0-1,1000-1001\r\n");
    assert_eq!(reply.status, 200);
    assert_eq!(running.get("/a.txt", "Range: bytes=0-1\r\n").body, b"ab");
    running.stop();
}

#[test]
fn a_rule_replaces_the_root() {
    let files = [
        ("www/a.txt", "of the site"),
        ("www/x/a.txt", "shadowed"),
        ("www/x/only.txt", "shadowed"),
        ("alias/x/a.txt", "of the alias"),
        ("alias/x/index.html", "index"),
        ("alias/a.txt", "not asked for"),
    ];
    let running =
        Configured::site(folder(&files), "[[site.rule]]\nmatch = \"/x/**\"\nroot = \"alias\"\n");
    assert_eq!(text(&running.get("/x/a.txt", "")), (200, "of the alias"));
    assert_eq!(text(&running.get("/x/", "")), (200, "index"));
    assert_eq!(text(&running.get("/a.txt", "")), (200, "of the site"));
    assert_eq!(running.get("/x/only.txt", "").status, 404);
    assert_eq!(running.get("/x", "").field("location"), "/x/");
    // The other order of the first requests: nothing is mixed up between the roots.
    assert_eq!(text(&running.get("/x/../a.txt", "")), (200, "of the site"));
    running.stop();
}
