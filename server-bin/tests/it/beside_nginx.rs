//! Every row of `server-bin/HTTP.md`: the answers of the daemon and of nginx to one request.

use crate::common::{Modes, PATIENCE, Server};
use ringwright_test_support::{leave_out, needs_program};
use std::fmt::Write as _;
use std::fs::{self, File, FileTimes};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant, UNIX_EPOCH};
use tempfile::TempDir;

/// The version that the page is about: others may answer differently.
const VERSION: &str = "nginx/1.22.1";

/// Follows each request. Its body tells whether it was answered.
const NEXT: &[u8] = b"GET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
const NEXT_BODY: &[u8] = b"the next request";

/// A request of the page and the answers it names.
struct Row {
    shown: String,
    request: Vec<u8>,
    /// The client stops in the middle of the request.
    is_cut: bool,
    ours: String,
    theirs: String,
}

#[test]
fn the_daemon_answers_as_the_page_says() {
    let site = site();
    let server = Server::http(site.path(), &["--shards", "1"]);
    let rows = rows();
    compare(&rows, |row| &row.ours, || tcp(server.address));
    server.stop().cleanly();
}

#[test]
fn nginx_answers_as_the_page_says() {
    if !needs_program("nginx", "nginx-light") {
        return;
    }
    let said = Command::new("nginx").arg("-v").output().unwrap().stderr;
    if !String::from_utf8_lossy(&said).contains(VERSION) {
        leave_out(VERSION);
        return;
    }
    let site = site();
    let nginx = Nginx::start(site.path());
    let rows = rows();
    compare(&rows, |row| &row.theirs, || nginx.connect());
}

#[test]
fn the_page_counts_its_rows_and_says_why_answers_differ() {
    let rows = rows();
    let alike = rows.iter().filter(|row| row.ours == row.theirs).count();
    let sentence = format!("Both give the same answer to {alike} of {} requests", rows.len());
    assert!(page().contains(&sentence), "the page should say {sentence:?}");
    for line in page().lines().filter(|line| line.starts_with("| `")) {
        let cells = cells(line);
        assert_eq!(cells[1] == cells[2], cells[3].is_empty(), "the last column of {line}");
    }
}

/// Sends every request, and shows all rows at once that are not as the page says.
fn compare<S: Read + Write>(
    rows: &[Row],
    expected: impl Fn(&Row) -> &str,
    connect: impl Fn() -> S,
) {
    assert!(rows.len() > 150, "only {} rows found", rows.len());
    let mut wrong = String::new();
    for row in rows {
        let answer = answer(connect(), row);
        if answer != expected(row) {
            writeln!(wrong, "{}: {answer}, not {}", row.shown, expected(row)).unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

fn tcp(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// The folder that the page describes.
pub fn site() -> TempDir {
    let site = tempfile::tempdir().unwrap();
    let root = site.path();
    // The workers of nginx are another user if it is started by root.
    fs::set_permissions(root, fs::Permissions::from_mode(0o755)).unwrap();
    for folder in ["dir", ".well-known"] {
        fs::create_dir(root.join(folder)).unwrap();
    }
    for (name, text, seconds) in [
        ("a.txt", "hello", 1_600_000_000),
        ("empty", "", 1_600_000_000),
        ("old.txt", "old", 1),
        ("index.html", "top", 1_600_000_000),
        ("dir/index.html", "folder", 1_600_000_000),
        (".hidden", "hidden", 1_600_000_000),
        (".well-known/x", "well known", 1_600_000_000),
        ("é.txt", "accent", 1_600_000_000),
        ("next", std::str::from_utf8(NEXT_BODY).unwrap(), 1_600_000_000),
    ] {
        fs::write(root.join(name), text).unwrap();
        let times = FileTimes::new().set_modified(UNIX_EPOCH + Duration::from_secs(seconds));
        File::options().write(true).open(root.join(name)).unwrap().set_times(times).unwrap();
    }
    symlink("a.txt", root.join("link")).unwrap();
    site
}

fn page() -> &'static str {
    include_str!("../../HTTP.md")
}

fn cells(line: &str) -> Vec<String> {
    let inner = line.trim_start_matches("| ").trim_end_matches('|').trim_end_matches(' ');
    inner.split(" |").map(|cell| cell.trim().to_owned()).chain([String::new()]).take(4).collect()
}

/// The requests of the page that the daemon does not take for malformed.
pub fn valid_requests() -> impl Iterator<Item = Vec<u8>> {
    rows().into_iter().filter(|row| !row.ours.starts_with("400")).map(|row| row.request)
}

fn rows() -> Vec<Row> {
    let lines = page().lines().filter(|line| line.starts_with("| `"));
    lines
        .map(|line| {
            let (shown, _) = line[3..].split_once("` | ").unwrap();
            let cells = cells(&line[3 + shown.len()..]);
            Row {
                shown: shown.to_owned(),
                request: bytes(shown.trim_end_matches('…')),
                is_cut: shown.ends_with('…'),
                ours: cells[1].clone(),
                theirs: cells[2].clone(),
            }
        })
        .collect()
}

/// The bytes that the page's notation stands for.
fn bytes(shown: &str) -> Vec<u8> {
    let mut text = shown.to_owned();
    while let Some((before, rest)) = text.split_once('{') {
        let (repeated, after) = rest.split_once('}').unwrap();
        let (part, times) = repeated.rsplit_once('*').unwrap();
        text = format!("{before}{}{after}", part.repeat(times.parse().unwrap()));
    }
    let text = text.replace('↵', "\r\n");
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, others @ ..] = rest {
        let (byte, after) = match (first, others) {
            (b'\\', [b'n', after @ ..]) => (b'\n', after),
            (b'\\', [b'r', after @ ..]) => (b'\r', after),
            (b'\\', [b't', after @ ..]) => (b'\t', after),
            (b'\\', [b'0', after @ ..]) => (0, after),
            (b'\\', [b'x', high, low, after @ ..]) => {
                let digits = [*high, *low];
                let digits = std::str::from_utf8(&digits).unwrap();
                (u8::from_str_radix(digits, 16).unwrap(), after)
            }
            _ => (*first, others),
        };
        bytes.push(byte);
        rest = after;
    }
    bytes
}

/// The answer to a request, in the words of the page.
fn answer(mut stream: impl Read + Write, row: &Row) -> String {
    // A server that has refused the first bytes may close before the last ones are written.
    let mut sent = row.request.clone();
    if !row.is_cut {
        sent.extend_from_slice(NEXT);
    }
    let _ = stream.write_all(&sent);
    let mut received = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        match stream.read(&mut chunk).unwrap() {
            0 => break,
            count => received.extend_from_slice(&chunk[..count]),
        }
        if row.is_cut && position(&received, b"\r\n\r\n").is_some() {
            break;
        }
    }
    in_words(row, &received)
}

fn in_words(row: &Row, mut received: &[u8]) -> String {
    let mut said = Vec::new();
    let mut is_next_answered = false;
    let start = position(received, b"HTTP/1.").unwrap_or(received.len());
    if start > 0 {
        said.push(format!("{start} bytes without a head"));
    }
    received = &received[start..];
    while !received.is_empty() {
        let end = position(&received[1..], b"HTTP/1.").map_or(received.len(), |at| at + 1);
        let (reply, rest) = received.split_at(end);
        received = rest;
        let head_end = position(reply, b"\r\n\r\n").unwrap() + 4;
        let (head, body) = reply.split_at(head_end);
        if body == NEXT_BODY {
            is_next_answered = true;
            continue;
        }
        let is_head = row.request.starts_with(b"HEAD ");
        said.push(in_short(std::str::from_utf8(head).unwrap(), is_head && !body.is_empty()));
    }
    if !is_next_answered && !row.is_cut {
        said.push("closes".to_owned());
    }
    said.join(", ")
}

/// The status of a reply, and the fields that the page shows.
fn in_short(head: &str, is_content_wrong: bool) -> String {
    let mut short = head[9..12].to_owned();
    for name in ["location", "content-range", "allow"] {
        let mut fields = head.lines().filter_map(|line| line.split_once(": "));
        if let Some((_, value)) = fields.find(|(it, _)| it.eq_ignore_ascii_case(name)) {
            write!(short, " {value}").unwrap();
        }
    }
    if is_content_wrong {
        short += " with content";
    }
    short
}

fn position(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

/// A running nginx with its defaults, on a Unix socket: no port of the machine is taken.
struct Nginx {
    child: Child,
    folder: TempDir,
}

impl Nginx {
    fn start(root: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().to_str().unwrap();
        let mut settings = format!("daemon off;\npid {at}/pid;\nerror_log {at}/error.log;\n");
        settings += "worker_processes 1;\nevents {}\nhttp {\naccess_log off;\n";
        for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
            writeln!(settings, "{kind}_temp_path {at}/{kind};").unwrap();
        }
        // Otherwise a redirect names the socket.
        settings += "absolute_redirect off;\n";
        let root = root.to_str().unwrap();
        writeln!(settings, "server {{ listen unix:{at}/socket; root {root}; }}\n}}").unwrap();
        let file = folder.path().join("nginx.conf");
        fs::write(&file, settings).unwrap();
        let log = folder.path().join("error.log");
        let child = Command::new("nginx").arg("-e").arg(log).arg("-c").arg(file).spawn().unwrap();
        Self { child, folder }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    fn connect(&self) -> UnixStream {
        let give_up = Instant::now() + PATIENCE;
        let stream = loop {
            match UnixStream::connect(self.socket()) {
                Ok(stream) => break stream,
                Err(error) => assert!(Instant::now() < give_up, "nginx does not start: {error}"),
            }
            thread::sleep(Duration::from_millis(5));
        };
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // SIGTERM, so that the workers end, too.
        // SAFETY: no memory is involved, and the child has not been waited for.
        unsafe { libc::kill(self.child.id() as i32, libc::SIGTERM) };
        let _ = self.child.wait();
    }
}
