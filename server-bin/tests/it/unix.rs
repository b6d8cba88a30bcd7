//! Listeners on Unix sockets: sites, services and the admin listener.

use crate::common::{Client, PATIENCE, Server, command};
use crate::config::run;
use crate::configured::{Configured, Port, folder, request, text, wait_until};
use ringwright_test_support::needs_program;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command};

const FILES: [(&str, &str); 2] = [("www/a.txt", "a file"), ("two/a.txt", "another file")];

/// Sends bytes, and reads to the end of the connection.
#[track_caller]
fn send(path: &Path, bytes: &[u8]) -> String {
    let mut client = UnixStream::connect(path).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    String::from_utf8(answer).unwrap()
}

/// GET with these fields: the reply as text.
#[track_caller]
fn get(path: &Path, target: &str, fields: &str) -> String {
    let lines = format!("Host: localhost\r\nConnection: close\r\n{fields}");
    send(path, format!("GET {target} HTTP/1.1\r\n{lines}\r\n").as_bytes())
}

fn mode_of(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn every_kind_of_listener_may_be_a_unix_socket() {
    let files = folder(&FILES);
    fs::create_dir(files.path().join("run")).unwrap();
    fs::create_dir(files.path().join("uploads")).unwrap();
    let running = Configured::start(
        files,
        "[log]\naccess = \"access.log\"\nformat = \"json\"\n\
         [admin]\nlisten = \"unix:run/admin (mode=0600)\"\nread = \"unix:run/read\"\n\
         [[site]]\nlisten = [\"unix:run/site (mode=0660)\", \"127.0.0.1:0\"]\nroot = \"www\"\n\
         [[echo]]\nlisten = [\"unix:run/echo\"]\n\
         [[packets]]\nlisten = [\"unix:run/packets\"]\nroot = \"uploads\"\n",
        &["http+unix", "http", "echo+unix", "packets+unix", "admin http+unix", "admin http+unix"],
    );
    let at = |name: &str| running.path().join("run").join(name);
    assert_eq!((mode_of(&at("site")), mode_of(&at("admin"))), (0o660, 0o600));
    let reply = get(&at("site"), "/a.txt", "");
    assert!(reply.starts_with("HTTP/1.1 200 ") && reply.ends_with("a file"), "{reply}");
    assert_eq!(text(&running.get("/a.txt", "")), (200, "a file"));
    let mut echo = UnixStream::connect(at("echo")).unwrap();
    echo.write_all(b"back").unwrap();
    let mut answer = [0; 4];
    echo.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"back");
    let connections = get(&at("admin"), "/connections", "");
    assert!(connections.contains("\"peer\":\"unix:\""), "{connections}");
    let addresses = get(&at("admin"), "/addresses", "");
    assert!(addresses.contains("{\"address\":\"unix:\",\"connections\":1}"), "{addresses}");
    assert!(get(&at("read"), "/readyz", "").starts_with("HTTP/1.1 200 "));
    assert!(!get(&at("read"), "/connections", "").starts_with("HTTP/1.1 200 "));
    drop(echo);
    let log = running.path().join("access.log");
    wait_until("both are logged", || {
        let log = fs::read_to_string(&log).unwrap();
        let line = |protocol: &str| {
            let mut lines = log.lines().filter(|line| line.contains("\"peer\":\"unix:\""));
            lines.any(|line| line.contains(protocol))
        };
        line("GET /a.txt") && line("\"protocol\":\"echo\"")
    });
    let run = running.path().join("run");
    let files = running.server.stop().cleanly();
    drop(files);
    assert_eq!(fs::read_dir(run).unwrap().count(), 0, "sockets stay behind");
}

#[test]
fn curl_asks_through_a_unix_socket() {
    if !needs_program("curl", "curl") {
        return;
    }
    let files = folder(&FILES);
    let socket = files.path().join("socket");
    let listen = format!("unix:{}", socket.display());
    let root = files.path().join("www");
    let arguments = ["http", root.to_str().unwrap(), "--listen", &listen, "--shards", "2"];
    let server = Server::start_listening(&mut command(&arguments), &["http+unix"]);
    for _ in 0..3 {
        let output = Command::new("curl")
            .args(["-sS", "--unix-socket", socket.to_str().unwrap(), "http://localhost/a.txt"])
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "a file", "{output:?}");
    }
    // A second daemon says who is in its way, and harms nobody.
    let output = run(&["http", root.to_str().unwrap(), "--listen", &listen], &[]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("a process listens"), "{said}");
    assert!(get(&socket, "/a.txt", "").ends_with("a file"));
    server.stop().cleanly();
    assert!(!socket.exists());
}

#[test]
fn a_proxy_behind_a_unix_socket_names_the_client() {
    let rules = "[[site.rule]]\nmatch = \"a.txt\"\nallow = [\"198.51.100.0/24\"]\n";
    let site = |name: &str, keys: &str| {
        format!("[[site]]\nlisten = [\"unix:{name}\"]\nroot = \"www\"\n{keys}\n{rules}")
    };
    let all = [
        site("plain", ""),
        site("real", "real_ip = { from = [\"unix\"] }"),
        site("header", "proxy_protocol_from = [\"unix\"]"),
        site("other", "real_ip = { from = [\"0.0.0.0/0\", \"::/0\"] }"),
    ];
    let log = "[log]\naccess = \"access.log\"\n";
    let text = format!("{log}{}", all.concat());
    let running = Configured::start(folder(&FILES), &text, &["http+unix"; 4]);
    let at = |name: &str| running.path().join(name);
    let field = "X-Forwarded-For: 198.51.100.7\r\n";
    let status = |reply: &str| reply[9..12].parse::<u16>().unwrap();
    // Without an address it is in no list of allowed ones.
    assert_eq!(status(&get(&at("plain"), "/a.txt", field)), 403);
    assert_eq!(status(&get(&at("other"), "/a.txt", field)), 403);
    assert_eq!(status(&get(&at("real"), "/a.txt", field)), 200);
    assert_eq!(status(&get(&at("real"), "/a.txt", "X-Forwarded-For: 192.0.2.1\r\n")), 403);
    assert_eq!(status(&get(&at("real"), "/a.txt", "")), 403);
    let request = "GET /a.txt HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    for (source, expected) in [("198.51.100.7", 200), ("192.0.2.1", 403)] {
        let header = format!("PROXY TCP4 {source} 192.0.2.9 4711 80\r\n");
        let reply = send(&at("header"), format!("{header}{request}").as_bytes());
        assert_eq!(status(&reply), expected, "{source}");
    }
    assert_eq!(send(&at("header"), request.as_bytes()), "", "the header is missing");
    let log = running.path().join("access.log");
    wait_until("all are logged", || {
        let log = fs::read_to_string(&log).unwrap();
        let count = |start: &str| log.lines().filter(|line| line.starts_with(start)).count();
        (count("unix: - - ["), count("198.51.100.7 "), count("192.0.2.1 ")) == (3, 2, 2)
    });
    running.stop();
}

#[test]
fn a_reload_adds_and_removes_unix_sockets() {
    const ADMIN: &str = "[admin]\nlisten = \"unix:admin.sock\"\n";
    let site = |name: &str, root: &str| {
        format!("[[site]]\nlisten = [\"unix:{name}\"]\nroot = \"{root}\"\n")
    };
    let first = site("one.sock", "www");
    let schemes = ["http+unix", "admin http+unix"];
    let running = Configured::start(folder(&FILES), &format!("{ADMIN}{first}"), &schemes);
    let at = |name: &str| running.path().join(name);
    let reload = |text: &str, status: u16| {
        fs::write(at("c.toml"), format!("{ADMIN}{text}")).unwrap();
        let lines = "Host: localhost\r\nContent-Length: 0\r\nConnection: close\r\n";
        let request = format!("POST /reload HTTP/1.1\r\n{lines}\r\n");
        let reply = send(&at("admin.sock"), request.as_bytes());
        assert!(reply.starts_with(&format!("HTTP/1.1 {status} ")), "{reply}");
        reply
    };
    let serves = |name: &str, body: &str| {
        let reply = get(&at(name), "/a.txt", "");
        assert!(reply.ends_with(body), "{name}: {reply}");
    };
    reload(&format!("{first}{}", site("two.sock", "two")), 200);
    serves("two.sock", "another file");
    serves("one.sock", "\r\na file");
    reload(&site("two.sock", "www"), 200);
    assert!(!at("one.sock").exists(), "it was removed");
    serves("two.sock", "\r\na file");
    // It comes back, and the mode of one that stays cannot change.
    reload(&format!("{}{}", site("two.sock", "www"), site("one.sock", "two")), 200);
    serves("one.sock", "another file");
    let before = mode_of(&at("two.sock"));
    let refused = reload(&site("two.sock (mode=0600)", "www"), 422);
    assert!(refused.contains("cannot change its mode while the server runs"), "{refused}");
    assert_eq!(mode_of(&at("two.sock")), before);
    serves("one.sock", "another file");
    running.stop();
}

#[test]
fn check_finds_what_is_wrong_with_a_socket() {
    let files = folder(&FILES);
    fs::write(files.path().join("file"), "").unwrap();
    let site = |listen: &str| format!("[[site]]\nlisten = [{listen}]\nroot = \"www\"\n");
    let packets = "[[packets]]\nlisten = [\"unix:a\"]\nroot = \"two\"\n";
    let admin = |keys: &str| format!("[admin]\n{keys}\n{}", site("\"unix:a\""));
    let long = format!("\"unix:{}\"", "a".repeat(108));
    for (text, expected) in [
        (site(&long), "at most 107 bytes"),
        (site("\"unix:none/a\""), "does not exist; make it"),
        (site("\"unix:file\""), "is not a socket"),
        (site("\"unix:a\", \"unix:./a (mode=0660)\""), "is given twice"),
        (site("\"unix:a (mode=0660)\"") + &site("\"unix:a\""), "with another mode"),
        (site("\"unix:a\"") + packets, "is already taken by site[0].listen[0]"),
        (admin("listen = \"unix:a\""), "is already taken by site[0].listen[0]"),
        (admin("listen = \"unix:b\"\nread = \"unix:b\""), "is already taken by admin.listen"),
    ] {
        let path = files.path().join("c.toml");
        fs::write(&path, &text).unwrap();
        let output = run(&["check", path.to_str().unwrap()], &[]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && said.contains(expected), "{text}\n{said}");
    }
    let both = format!("{}{}", site("\"unix:a\""), site("\"unix:a\"").replace("www", "two"));
    fs::write(files.path().join("c.toml"), both).unwrap();
    let path = files.path().join("c.toml");
    assert!(run(&["check", path.to_str().unwrap()], &[]).status.success(), "sites share a socket");
}

/// The snippet of DEPLOYMENT.md about Unix sockets that has this line.
fn snippet(line: &str) -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("DEPLOYMENT.md");
    let page = fs::read_to_string(page).unwrap();
    let section = page.split("## Through a Unix socket\n").nth(1).unwrap();
    let mut blocks = section.split("```\n").skip(1).step_by(2);
    blocks.find(|block| block.contains(line)).unwrap().to_owned()
}

/// A program that is ended when this is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // SAFETY: no memory is involved, and the child has not been waited for.
        unsafe { libc::kill(self.0.id() as i32, libc::SIGTERM) };
        let _ = self.0.wait();
    }
}

/// The daemon of the page with these rules, behind a proxy of the page.
fn behind(daemon: &str, proxy: impl FnOnce(&Path, &Port) -> Child) {
    let rule = "[[site.rule]]\nmatch = \"a.txt\"\nallow = [\"127.0.0.1\"]\n";
    let text = daemon.replace("/run/ringwrightd/site.sock", "site.sock").replace("/srv/www", "www");
    let text = format!("[log]\naccess = \"access.log\"\n{text}{rule}");
    let running = Configured::start(folder(&FILES), &text, &["http+unix"]);
    let port = Port::reserve();
    let proxy = Running(proxy(running.path(), &port));
    wait_until("the proxy listens", || TcpStream::connect(port.address()).is_ok());
    let mut client = Client::new(port.address());
    for _ in 0..3 {
        assert_eq!(text_of(&mut client), (200, "a file".into()));
    }
    drop((client, proxy));
    let log = running.path().join("access.log");
    wait_until("the client's address is logged", || {
        let log = fs::read_to_string(&log).unwrap();
        log.lines().filter(|line| line.starts_with("127.0.0.1 ")).count() == 3
    });
    running.stop();
}

fn text_of(client: &mut Client) -> (u16, String) {
    let reply = client.ask(&request("GET", "/a.txt", ""));
    let (status, body) = text(&reply);
    (status, body.to_owned())
}

#[test]
fn nginx_passes_requests_through_a_unix_socket() {
    if !needs_program("nginx", "nginx-light") {
        return;
    }
    behind(&snippet("real_ip = "), |at, port| {
        let server = snippet("proxy_pass ")
            .replace("/run/ringwrightd", at.to_str().unwrap())
            .replace("listen 80;", &format!("listen {};", port.address()));
        let at = at.to_str().unwrap();
        // SAFETY: no arguments, and it cannot fail.
        let user = if unsafe { libc::geteuid() } == 0 { "user root;\n" } else { "" };
        let mut text = format!("{user}daemon off;\npid {at}/pid;\nerror_log {at}/error.log;\n");
        text += "events {}\nhttp {\naccess_log off;\n";
        for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
            text += &format!("{kind}_temp_path {at}/{kind};\n");
        }
        let file = format!("{at}/nginx.conf");
        fs::write(&file, format!("{text}{server}}}\n")).unwrap();
        Command::new("nginx").args(["-c", &file]).spawn().unwrap()
    });
}

#[test]
fn haproxy_passes_requests_through_a_unix_socket() {
    if !needs_program("haproxy", "haproxy") {
        return;
    }
    let proxied = "proxy_protocol_from = [\"unix\"]";
    let daemon = snippet("real_ip = ").replace("real_ip = { from = [\"unix\"] }", proxied);
    assert!(daemon.contains(proxied));
    behind(&daemon, |at, port| {
        let text = snippet("send-proxy-v2")
            .replace("/run/ringwrightd", at.to_str().unwrap())
            .replace("bind :80", &format!("bind {}", port.address()));
        let file = at.join("haproxy.cfg");
        fs::write(&file, text).unwrap();
        Command::new("haproxy").args(["-db", "-f", file.to_str().unwrap()]).spawn().unwrap()
    });
}
