//! The choice of the site by the name that a request asks for.

use crate::common::{Client, Reply};
use crate::configured::{Configured, Port, folder, text};

const FILES: [(&str, &str); 4] = [
    ("one/index.html", "one"),
    ("two/index.html", "two"),
    ("three/index.html", "three"),
    ("four/index.html", "four"),
];

/// Four sites on one address; the last one with these keys.
fn sites(port: &Port, last: &str) -> String {
    let listen = format!("listen = [\"{}\"]", port.address());
    format!(
        "[[site]]\n{listen}\nroot = \"one\"\nnames = [\"one.example\"]\n\
         [[site]]\n{listen}\nroot = \"two\"\nnames = [\"*.example\"]\n\
         [[site]]\n{listen}\nroot = \"three\"\nnames = [\"*.deep.example\", \"10.0.0.1\"]\n\
         [[site]]\n{listen}\nroot = \"four\"\nnames = [\"four.example\"]\n{last}"
    )
}

#[track_caller]
fn ask(running: &Configured, request: &str) -> Reply {
    Client::new(running.server.address).ask(request)
}

#[test]
fn the_host_chooses_the_site() {
    let port = Port::reserve();
    let running = Configured::start(folder(&FILES), &sites(&port, "default = true\n"), &["http"]);
    for (host, site) in [
        ("one.example", "one"),
        ("ONE.Example", "one"),
        ("one.example:8080", "one"),
        ("one.example.", "one"),
        ("one.example.:80", "one"),
        ("a.example", "two"),
        ("a.b.example", "two"),
        ("deep.example", "two"),
        ("A.Deep.Example.:1", "three"),
        ("b.a.deep.example", "three"),
        ("10.0.0.1", "three"),
        ("10.0.0.1:80", "three"),
        ("four.example", "two"),
        ("10.0.0.2", "four"),
        ("example", "four"),
        ("one.example.org", "four"),
        ("xone.test", "four"),
        ("[::1]:80", "four"),
    ] {
        let reply = ask(&running, &format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        // The exact name is found although a suffix matches, too.
        let site = if host == "four.example" { "four" } else { site };
        assert_eq!(text(&reply), (200, site), "{host}");
    }
    running.stop();
}

#[test]
fn an_absolute_target_goes_before_the_host() {
    let port = Port::reserve();
    let running = Configured::start(folder(&FILES), &sites(&port, "default = true\n"), &["http"]);
    for (target, host, site) in [
        ("http://one.example/", "a.example", "one"),
        ("http://ONE.example:80/", "a.example", "one"),
        ("http://one.example", "other.test", "one"),
        ("http://other.test/", "one.example", "four"),
        ("/", "one.example", "one"),
    ] {
        let reply = ask(&running, &format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(text(&reply), (200, site), "{target} of {host}");
    }
    // HTTP/1.1 has a Host (RFC 9112, 3.2), also with an absolute target.
    let reply = ask(&running, "GET http://one.example/ HTTP/1.1\r\n\r\n");
    assert_eq!(reply.status, 400);
    running.stop();
}

#[test]
fn requests_that_name_no_site_get_the_default_or_else_the_first() {
    for (last, site) in [("default = true\n", "four"), ("", "one")] {
        let port = Port::reserve();
        let running = Configured::start(folder(&FILES), &sites(&port, last), &["http"]);
        for request in [
            "GET / HTTP/1.0\r\n\r\n",
            "GET / HTTP/1.1\r\nHost:\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: other.test\r\n\r\n",
        ] {
            assert_eq!(text(&ask(&running, request)), (200, site), "{request:?}");
        }
        let named = ask(&running, "GET / HTTP/1.0\r\nHost: a.example\r\n\r\n");
        assert_eq!(text(&named), (200, "two"), "HTTP/1.0 may have a Host");
        running.stop();
    }
}

#[test]
fn each_request_of_a_connection_has_a_site_of_its_own() {
    let port = Port::reserve();
    let running = Configured::start(folder(&FILES), &sites(&port, ""), &["http"]);
    let mut client = Client::new(running.server.address);
    for (host, site) in [("one.example", "one"), ("b.example", "two"), ("c.deep.example", "three")]
        .into_iter()
        .cycle()
        .take(9)
    {
        let reply = client.ask(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(text(&reply), (200, site), "{host}");
    }
    running.stop();
}

#[test]
fn a_site_has_all_of_its_addresses() {
    let any = "\"127.0.0.1:0\"";
    let config = format!("[[site]]\nlisten = [{any}, {any}]\nroot = \"one\"\n");
    let running = Configured::start(folder(&FILES), &config, &["http", "http"]);
    let addresses = running.server.addresses.clone();
    assert_ne!(addresses[0], addresses[1]);
    for address in addresses {
        let reply = Client::new(address).ask("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(text(&reply), (200, "one"));
    }
    running.stop();
}
