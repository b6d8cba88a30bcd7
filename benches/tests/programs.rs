//! The programs as they are run: a limit that answered wrongly would be no limit.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const LIMIT: &str = env!("CARGO_BIN_EXE_ringwright-limit");
const TOKIO: &str = env!("CARGO_BIN_EXE_ringwright-peer-tokio");
const GLOMMIO: &str = env!("CARGO_BIN_EXE_ringwright-peer-glommio");
const MONOIO: &str = env!("CARGO_BIN_EXE_ringwright-peer-monoio");
const COMPIO: &str = env!("CARGO_BIN_EXE_ringwright-peer-compio");
const HYPER: &str = env!("CARGO_BIN_EXE_ringwright-peer-hyper");
const COMPARE: &str = env!("CARGO_BIN_EXE_ringwright-bench");
/// The longest wait for anything that must happen.
const WAIT_MAX: Duration = Duration::from_secs(60);

struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    fn start(program: &str, arguments: &[&str]) -> Self {
        let mut child = Command::new(program)
            .args(arguments)
            .args(["--listen", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().rsplit("//").next().unwrap().parse().unwrap();
        Self { child, address }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect_timeout(&self.address, WAIT_MAX).unwrap();
        stream.set_read_timeout(Some(WAIT_MAX)).unwrap();
        stream
    }

    fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// As a service manager would; answers the exit status.
    fn terminate(mut self) -> Option<i32> {
        ringwright_benches::machine::terminate(self.child.id());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns true if io_uring is allowed here. Otherwise the caller returns at once, or leaves out
/// the programs that need it. A process of its own tries, because a filter may kill it.
#[must_use]
#[track_caller]
fn needs_io_uring() -> bool {
    let mut limit = Command::new(LIMIT);
    limit.args(["echo", "--listen", "127.0.0.1:0"]).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = limit.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    // It listens before it has a ring.
    let address = line.trim().rsplit("//").next().unwrap_or_default();
    let echoed = TcpStream::connect(address).and_then(|mut stream| {
        stream.write_all(b"?")?;
        stream.read_exact(&mut [0])
    });
    let _ = child.kill();
    child.wait().unwrap();
    if echoed.is_err() {
        ringwright_test_support::leave_out("io_uring");
    }
    echoed.is_ok()
}

/// More than all receive buffers hold, so that receives starve and go on; then a half-close, after
/// which the rest must still come, and then the end.
fn echoes_everything(server: &Server, length: usize) {
    let sent: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
    let stream = server.connect();
    let mut writer = stream.try_clone().unwrap();
    let mut received = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            writer.write_all(&sent).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        (&stream).read_to_end(&mut received).unwrap();
    });
    assert!(received == sent, "{} of {length} bytes, or other bytes", received.len());
}

fn echoes_once(stream: &mut TcpStream) {
    stream.write_all(b"still there?").unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"still there?");
}

#[test]
fn the_limit_echoes_everything_and_forgets_every_connection() {
    if !needs_io_uring() {
        return;
    }
    let server = Server::start(LIMIT, &["echo"]);
    let mut held = server.connect();
    echoes_once(&mut held);
    let descriptors_before = server.descriptors();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| echoes_everything(&server, 8 << 20));
        }
    });
    for _ in 0..10 {
        // Closed with unread input: a reset, while replies are on their way.
        server.connect().write_all(&[1; 100_000]).unwrap();
    }
    let begun = Instant::now();
    while server.descriptors() != descriptors_before {
        let descriptors = server.descriptors();
        assert!(
            begun.elapsed() < WAIT_MAX,
            "{descriptors} descriptors, {descriptors_before} before"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    echoes_once(&mut held);
    assert_eq!(server.terminate(), Some(0));
}

#[test]
fn the_peers_echo_everything() {
    let peers = [TOKIO, MONOIO, COMPIO, GLOMMIO];
    for &peer in if needs_io_uring() { &peers[..] } else { &peers[..1] } {
        for buffer in ["64", "4096", "65536"] {
            let server = Server::start(peer, &["--buffer", buffer]);
            echoes_everything(&server, 1 << 20);
            // One that is reset is the end of itself alone.
            server.connect().write_all(&[1; 100_000]).unwrap();
            echoes_once(&mut server.connect());
        }
    }
}

/// All replies to requests that were sent at once, and the length of one.
fn pipelined(server: &Server, requests: usize) -> (Vec<u8>, usize) {
    let mut stream = server.connect();
    stream.write_all(&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(requests)).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut replies = Vec::new();
    stream.read_to_end(&mut replies).unwrap();
    let one = replies.len() / requests;
    assert_eq!(replies.len(), one * requests);
    (replies, one)
}

fn body_bytes(reply: &[u8]) -> usize {
    reply.len() - reply.windows(4).position(|window| window == b"\r\n\r\n").unwrap() - 4
}

#[test]
fn hyper_answers_every_pipelined_request() {
    for arguments in [&["--size", "1024"][..], &["--size", "1024", "--pipeline-flush"]] {
        let server = Server::start(HYPER, arguments);
        for _ in 0..50 {
            let (replies, one) = pipelined(&server, 100);
            assert_eq!(body_bytes(&replies[..one]), 1024);
            assert!(replies.starts_with(b"HTTP/1.1 200 OK\r\n"));
        }
    }
}

#[test]
fn the_limit_answers_every_pipelined_request() {
    if !needs_io_uring() {
        return;
    }
    let server = Server::start(LIMIT, &["http", "--size", "1024"]);
    let (replies, one) = pipelined(&server, 500);
    assert!(replies.chunks(one).all(|reply| reply == &replies[..one]));
    assert_eq!(body_bytes(&replies[..one]), 1024);
    assert_eq!(server.terminate(), Some(0));
}

/// Sixteen at a time, of several files, and the server's CPU time beside it.
#[test]
fn the_bare_client_pipelines_over_several_files() {
    if !needs_io_uring() {
        return;
    }
    let server = Server::start(HYPER, &["--size", "100"]);
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("report.json");
    let status = Command::new(LIMIT)
        .args(["load", &server.address.to_string(), "--http", "/file", "--files", "7"])
        .args(["--pipeline", "16", "--connections", "3", "--duration", "200ms"])
        .args(["--cpu-of", &server.child.id().to_string(), "--json"])
        .arg(&json)
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    let replies = report["replies"].as_u64().unwrap();
    assert!(replies > 0 && replies.is_multiple_of(16), "{replies}");
    let cpu_s = report["server_cpu_s"].as_f64().unwrap();
    assert!(cpu_s > 0.0 && cpu_s < 1.0, "{cpu_s}");
}

#[test]
fn what_is_not_measured_is_a_mistake_of_usage() {
    let output = Command::new(COMPARE).args(["compare", "speed"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("compare --list"));
    let output = Command::new(COMPARE).args(["compare", "--list"]).output().unwrap();
    let listed = String::from_utf8(output.stdout).unwrap();
    assert!(
        ["echo", "half-http", "idle", "probe"]
            .iter()
            .all(|name| listed.lines().any(|it| it == *name))
    );
}

#[test]
fn a_comparison_leaves_its_report_and_its_picture() {
    if !needs_io_uring() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (json, svg) = (folder.path().join("report.json"), folder.path().join("report.svg"));
    let status = Command::new(COMPARE)
        .args(["echo", "--a", "limit", "--b", "tokio", "--load", "bare", "--seed", "1"])
        .args(["--pairs", "3", "--connections", "1,4", "--seconds", "0.1"])
        .args(["--server-cpu", "0", "--load-cpu", "0", "--json"])
        .arg(&json)
        .arg("--svg")
        .arg(&svg)
        .status()
        .unwrap();
    assert!(status.success());
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    assert_eq!((&report["ring"], &report["with"]), (&"io_uring".into(), &"bare".into()));
    let results = report["results"].as_array().unwrap();
    assert_eq!(results.len(), 2);
    for of in results {
        let median = of["throughput_ratio"]["median"].as_f64().unwrap();
        let ratios = of["pairs"].as_array().unwrap().iter().map(|pair| {
            let rate = |side: &str| pair[side]["replies_per_s"].as_f64().unwrap();
            rate("a") / rate("b")
        });
        let mut ratios: Vec<f64> = ratios.collect();
        ratios.sort_by(f64::total_cmp);
        assert!(ratios.len() == 3 && (ratios[1] - median).abs() < 1e-9, "{ratios:?}: {median}");
        assert!(of["a"]["server_cpu_us_per_reply"].as_f64().unwrap() > 0.0);
    }
    let picture = std::fs::read_to_string(&svg).unwrap();
    assert_eq!(picture.matches("<circle").count(), 2 * 2 * 3);
}

#[test]
fn generators_are_compared_by_their_own_cpu_time() {
    if !needs_io_uring() {
        return;
    }
    if !ringwright_test_support::needs_program("wrk", "wrk") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (json, svg) = (folder.path().join("report.json"), folder.path().join("report.svg"));
    let output = Command::new(COMPARE)
        .args(["generators", "--a", "bare", "--b", "wrk", "--server", "limit", "--seed", "1"])
        .args(["--pairs", "1", "--connections", "4", "--seconds", "1"])
        .args(["--server-cpu", "0", "--load-cpu", "0", "--json"])
        .arg(&json)
        .arg("--svg")
        .arg(&svg)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    assert_eq!((&report["a"], &report["b"]), (&"bare".into(), &"wrk".into()));
    assert_eq!((&report["ring"], &report["with"]), (&"io_uring".into(), &"limit".into()));
    let of = &report["results"][0];
    let number = |side: &str, name: &str| of["pairs"][0][side][name].as_f64().unwrap();
    for side in ["a", "b"] {
        // Both figures are of the same CPU time.
        let us = number(side, "load_user_us_per_reply") + number(side, "load_system_us_per_reply");
        let product = us * number(side, "replies_per_load_cpu_s");
        assert!((product - 1e6).abs() < 1.0, "{side}: {product}");
        let busy = number(side, "replies_per_s") / number(side, "replies_per_load_cpu_s");
        assert!((busy - number(side, "load_busy")).abs() < 1e-6 && busy < 1.1, "{side}: {busy}");
    }
    let ratio = number("a", "replies_per_load_cpu_s") / number("b", "replies_per_load_cpu_s");
    let median = of["replies_per_load_cpu_s_ratio"]["median"].as_f64().unwrap();
    assert!((ratio - median).abs() < 1e-9, "{ratio}: {median}");
    let picture = std::fs::read_to_string(&svg).unwrap();
    assert_eq!(picture.matches("<circle").count(), 2);
}

/// A program that prints its arguments on standard error and fails, as `ringwrightd` does where its
/// ring is forbidden.
fn refusing(folder: &Path, name: &str) -> String {
    let program = folder.join(name);
    // A shell of its own writes it: a child that another test forks meanwhile would keep the file
    // open for writing here, and nobody could execute it (ETXTBSY).
    let make = "printf '#!/bin/sh\necho \"refused: $*\" >&2\nexit 1\n' >\"$0\" && chmod +x \"$0\"";
    let status = Command::new("sh").args(["-c", make]).arg(&program).status().unwrap();
    assert!(status.success());
    format!("{name}={}", program.display())
}

/// Another ring than the one that is asked for is never measured.
#[test]
fn a_ring_that_is_not_there_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let server = refusing(folder.path(), "ringwrightd");
    for (arguments, ring) in [
        (&["echo", "--b", "limit"][..], "io_uring"),
        (&["echo", "--b", "limit", "--ring", "io_uring"], "io_uring"),
        (&["http", "--b", "limit", "--ring", "epoll"], "epoll"),
        (&["echo", "--a", "ringwrightd-epoll", "--b", "limit"], "epoll"),
        (&["compare", "calls", "--quick", "--no-build", "--ring", "epoll"], "epoll"),
    ] {
        let out = folder.path().join("out");
        let mut bench = Command::new(COMPARE);
        bench.args(arguments).args(["--program", &server]);
        for program in ["ringload", "nginx", "strace"] {
            bench.args(["--program", &format!("{program}={LIMIT}")]);
        }
        if arguments[0] == "compare" {
            bench.arg("--out").arg(&out);
        }
        let output = bench.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("refused: ") && said.contains(&format!("--ring {ring}")), "{said}");
    }
    let load = refusing(folder.path(), "ringload");
    let output = Command::new(COMPARE)
        .args(["echo", "--a", "limit", "--b", "tokio", "--ring", "epoll", "--seconds", "0.1"])
        .args(["--server-cpu", "0", "--load-cpu", "0", "--program", &load])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("refused: ") && said.contains("--ring epoll"), "{said}");
    for ring in ["auto", "uring"] {
        let output = Command::new(COMPARE).args(["echo", "--ring", ring]).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{ring}");
    }
}

#[test]
fn who_does_not_speak_the_protocol_is_a_mistake_of_usage() {
    for (arguments, named) in [
        (&["echo", "--load", "wrk"][..], "wrk does not support echo"),
        (&["http", "--a", "tokio"], "tokio does not support http"),
        (&["generators", "--server", "tokio"], "tokio does not support http"),
    ] {
        let output = Command::new(COMPARE).args(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(named), "{said}");
    }
}

#[test]
fn a_missing_program_is_named_with_its_remedy() {
    // The other programs run before the missing one is started.
    if !needs_io_uring() {
        return;
    }
    for (arguments, path) in [
        (&["http", "--a", "limit", "--load", "bare"][..], "nginx=/nonexistent/nginx"),
        (&["generators", "--a", "bare", "--server", "limit"], "wrk=/nonexistent/wrk"),
    ] {
        let output =
            Command::new(COMPARE).args(arguments).args(["--program", path]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1));
        assert!(said.contains("/nonexistent/"), "{said}");
    }
}
