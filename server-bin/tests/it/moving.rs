//! `FROM-NGINX.md` and `FROM-STATIC-WEB-SERVER.md`: each snippet runs, and answers as its table
//! says.

use crate::common::{PATIENCE, Server, command};
use crate::configured::{Port, USERS, settle, write};
use ringwright_test_support::needs_program;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The files that both pages describe.
const FILES: &[(&str, &str)] = &[
    ("srv/www/index.html", "home"),
    ("srv/www/a.txt", "a"),
    ("srv/www/text/index.txt", "text"),
    ("srv/www/app.html", "app"),
    ("srv/www/404.html", "not here"),
    ("srv/www/app.js", "plain"),
    ("srv/www/app.js.gz", "compressed"),
    ("srv/www/assets/site.css", "body {}"),
    ("srv/www/list/one.txt", "1"),
    ("srv/www/new/index.html", "new"),
    ("srv/www/team/x.txt", "team"),
    ("srv/www/internal/x.txt", "internal"),
    ("srv/www/local/x.txt", "local"),
    ("srv/www/api/x.json", "{}"),
    ("srv/www/module.wasm", "wasm"),
    ("srv/www/.hidden", "hidden"),
    ("srv/a/index.html", "site a"),
    ("srv/b/index.html", "site b"),
    ("srv/acme/.well-known/acme-challenge/token", "token"),
    ("etc/users", USERS),
];

/// A folder that takes the place of `/` in the snippets.
fn files() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    // The workers of nginx are another user's.
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    for (path, text) in FILES {
        write(folder.path(), path, text);
    }
    symlink("a.txt", folder.path().join("srv/www/link")).unwrap();
    symlink("/etc/hostname", folder.path().join("srv/www/out")).unwrap();
    settle();
    folder
}

/// A section of a page.
struct Section {
    title: String,
    /// The blocks of code with their language.
    blocks: Vec<(String, String)>,
    /// The cells of the rows of its table.
    rows: Vec<Vec<String>>,
}

fn sections(page: &str) -> Vec<Section> {
    let sections = page.split("\n## ").skip(1);
    sections.map(section).filter(|section| !section.rows.is_empty()).collect()
}

fn section(text: &str) -> Section {
    let (title, rest) = text.split_once('\n').unwrap();
    let (mut blocks, mut rows): (Vec<(String, String)>, _) = (Vec::new(), Vec::new());
    let mut is_inside = false;
    for line in rest.lines() {
        match line.strip_prefix("```") {
            Some("") if is_inside => is_inside = false,
            Some(language) => {
                is_inside = true;
                blocks.push((language.to_owned(), String::new()));
            }
            None if is_inside => {
                let (_, block) = blocks.last_mut().unwrap();
                writeln!(block, "{line}").unwrap();
            }
            None if line.starts_with("| `GET ") || line.starts_with("| `HEAD ") => {
                let cells = line.trim_matches('|').split(" | ");
                rows.push(cells.map(|cell| cell.trim().to_owned()).collect());
            }
            None => {}
        }
    }
    Section { title: title.to_owned(), blocks, rows }
}

impl Section {
    #[track_caller]
    fn block(&self, language: &str) -> &str {
        let found = self.blocks.iter().find(|(it, _)| it == language);
        &found.unwrap_or_else(|| panic!("{}: no block of {language}", self.title)).1
    }
}

/// A reply.
struct Reply {
    status: String,
    fields: HashMap<String, Vec<String>>,
    body: String,
}

/// Sends the request of a cell, such as `GET /↵Host: a`.
fn ask(to: SocketAddr, cell: &str) -> Reply {
    let mut lines = cell.trim_matches('`').split('↵');
    let mut request = format!("{} HTTP/1.1\r\nConnection: close\r\n", lines.next().unwrap());
    let lines: Vec<&str> = lines.collect();
    if !lines.iter().any(|line| line.starts_with("Host:")) {
        request += "Host: example.org\r\n";
    }
    lines.iter().for_each(|line| write!(request, "{line}\r\n").unwrap());
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(format!("{request}\r\n").as_bytes()).unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    let (head, body) = reply.split_once("\r\n\r\n").unwrap();
    let mut fields = HashMap::<String, Vec<String>>::new();
    for (name, value) in head.lines().skip(1).filter_map(|line| line.split_once(": ")) {
        fields.entry(name.to_ascii_lowercase()).or_default().push(value.to_owned());
    }
    Reply { status: head[9..12].to_owned(), fields, body: body.to_owned() }
}

/// Everything in which a reply differs from its cell.
fn differences(reply: &Reply, cell: &str) -> Vec<String> {
    let mut found = Vec::new();
    if reply.status != cell[..3] {
        found.push(format!("the status is {}", reply.status));
    }
    for (at, part) in cell.split('`').enumerate() {
        let before = cell.split('`').nth(at.wrapping_sub(1)).unwrap_or_default();
        match part.split_once(": ") {
            _ if at % 2 == 0 => {}
            None => {
                assert!(before.ends_with("no "), "{cell}");
                if let Some(values) = reply.fields.get(part) {
                    found.push(format!("{part} is {values:?}"));
                }
            }
            Some((name, expected)) => {
                let values = reply.fields.get(name).cloned().unwrap_or_default();
                let holds = |value: &String| match expected.split_once('…') {
                    Some((begin, end)) => value.starts_with(begin) && value.ends_with(end),
                    None => value == expected,
                };
                if !values.iter().any(holds) {
                    found.push(format!("{name} is {values:?}"));
                }
            }
        }
    }
    let outside: String = cell.split('`').step_by(2).collect();
    if let Some(body) = outside.split('"').nth(1)
        && reply.body != body
    {
        found.push(format!("the body is {:?}", reply.body));
    }
    found
}

/// The daemon with a snippet.
fn daemon(folder: &Path, snippet: &str, port: &Port) -> Server {
    let root = folder.to_str().unwrap();
    let text = snippet
        .replace("[::]:80", &port.address().to_string())
        .replace("\"/srv/", &format!("\"{root}/srv/"))
        .replace("\"/etc/", &format!("\"{root}/etc/"));
    let file = folder.join("site.toml");
    fs::write(&file, text).unwrap();
    Server::start(&mut command(&["run", file.to_str().unwrap()]), "http")
}

/// nginx with a snippet.
struct Nginx(Child);

impl Nginx {
    fn start(folder: &Path, snippet: &str, port: &Port) -> Self {
        let root = folder.to_str().unwrap();
        let snippet = snippet
            .replace("listen 80", &format!("listen {}", port.address()))
            .replace(" /srv/", &format!(" {root}/srv/"))
            .replace(" /etc/", &format!(" {root}/etc/"));
        let mut text = format!("daemon off;\npid {root}/pid;\nerror_log {root}/error.log;\n");
        text += "worker_processes 1;\nevents {}\nhttp {\naccess_log off;\n";
        for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
            writeln!(text, "{kind}_temp_path {root}/{kind};").unwrap();
        }
        text += "include /etc/nginx/mime.types;\nabsolute_redirect off;\n";
        let file = folder.join("nginx.conf");
        fs::write(&file, format!("{text}{snippet}}}\n")).unwrap();
        let log = folder.join("error.log");
        let mut nginx = Command::new("nginx");
        let mut child = nginx.arg("-e").arg(&log).arg("-c").arg(&file).spawn().unwrap();
        let give_up = Instant::now() + PATIENCE;
        while TcpStream::connect(port.address()).is_err() {
            let ended = child.try_wait().unwrap();
            let log = fs::read_to_string(&log).unwrap_or_default();
            assert!(ended.is_none() && Instant::now() < give_up, "{snippet}{log}");
            thread::sleep(Duration::from_millis(5));
        }
        Self(child)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // SIGTERM, so that the workers end, too.
        // SAFETY: no memory is involved, and the child has not been waited for.
        unsafe { libc::kill(self.0.id() as i32, libc::SIGTERM) };
        let _ = self.0.wait();
    }
}

fn page(name: &str) -> Vec<Section> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    sections(&fs::read_to_string(path).unwrap())
}

#[test]
fn snippets_of_nginx_answer_as_those_beside_them() {
    if !needs_program("nginx", "nginx-light") {
        return;
    }
    let (mut wrong, sections) = (Vec::new(), page("FROM-NGINX.md"));
    assert!(sections.len() >= 12, "{} sections", sections.len());
    for section in &sections {
        let (folder, ports) = (files(), [Port::reserve(), Port::reserve()]);
        let nginx = Nginx::start(folder.path(), section.block("nginx"), &ports[0]);
        let server = daemon(folder.path(), section.block("toml"), &ports[1]);
        for row in &section.rows {
            let replies = [&ports[0], &ports[1]].map(|port| ask(port.address(), &row[0]));
            let is_same = row[2] == "the same";
            let cells = [&row[1], if is_same { &row[1] } else { &row[2] }];
            for (reply, (cell, who)) in replies.iter().zip(cells.iter().zip(["nginx", "ours"])) {
                for difference in differences(reply, cell) {
                    wrong.push(format!("{}: {}: {who}: {difference}", section.title, row[0]));
                }
            }
            let [theirs, ours] = &replies;
            if is_same && theirs.status.starts_with('2') && theirs.body != ours.body {
                let bodies = format!("{:?} and {:?}", theirs.body, ours.body);
                wrong.push(format!("{}: {}: bodies {bodies}", section.title, row[0]));
            }
        }
        drop(nginx);
        server.stop().cleanly();
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn snippets_beside_those_of_static_web_server_answer_as_it_is_documented() {
    let (mut wrong, sections) = (Vec::new(), page("FROM-STATIC-WEB-SERVER.md"));
    assert!(sections.len() >= 8, "{} sections", sections.len());
    for section in &sections {
        let (folder, port) = (files(), Port::reserve());
        let server = daemon(folder.path(), section.block("toml"), &port);
        for row in &section.rows {
            for difference in differences(&ask(port.address(), &row[0]), &row[1]) {
                wrong.push(format!("{}: {}: {difference}", section.title, row[0]));
            }
        }
        server.stop().cleanly();
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
