//! Tests of the rules that fail a run, and of the report such a run writes.

use crate::support::{echo, nobody, run_echo, server, without_notice};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

fn address() -> SocketAddr {
    server(|stream| echo(stream, |_, _| true))
}

#[test]
fn a_demand_that_is_not_met_is_status_one_and_named() {
    let met =
        run_echo(address(), "-n 100 --fail-if errors>0 --fail-if p99>1000s --fail-if p50<1ns");
    met.passed();
    assert!(met.stdout.contains("errors>0: passed, 0"), "{met}");
    let missed = run_echo(address(), "-n 100 --fail-if replies<1k --fail-if errors>0");
    assert_eq!((missed.status, &missed.report["outcome"]), (1, &"failed".into()), "{missed}");
    assert_eq!(
        missed.report["verdicts"],
        json!([
            { "expression": "replies<1k", "value": 100.0, "evaluated": true, "failed": true },
            { "expression": "errors>0", "value": 0.0, "evaluated": true, "failed": false },
        ])
    );
    assert!(missed.stdout.contains("replies<1k: FAILED, 100"), "{missed}");
    // A rule on a figure that this kind of run does not have.
    let none = run_echo(address(), "-n 100 --fail-if findings>0");
    assert_eq!(none.status, 1, "{none}");
    assert!(none.stdout.contains("report of kind load has no findings"), "{none}");
}

#[test]
fn a_mistake_in_a_demand_is_found_before_the_run() {
    let ended = run_echo(address(), "-d 20s --fail-if p9>5ms");
    assert_eq!((ended.status, &ended.report), (2, &Value::Null), "{ended}");
    assert!(ended.stderr.contains("did you mean 'p90'?"), "{ended}");
    let ended = run_echo(address(), "-d 20s --fail-if p99>5");
    assert!(ended.status == 2 && ended.stderr.contains("such as 5ms"), "{ended}");
}

#[test]
fn who_is_not_reached_stays_unreachable() {
    let ended = run_echo(nobody(), "-n 10 -c 1 --fail-if errors>0");
    assert_eq!((ended.status, &ended.report["outcome"]), (3, &"unreachable".into()), "{ended}");
    assert_eq!(ended.report["verdicts"][0]["failed"], true, "{ended}");
    // The schedule of a run without connections has times, but they are not those of a server.
    let ended = run_echo(nobody(), "-n 5 -R 1k -c 1 --fail-if p99>1000s --fail-if replies<1");
    assert_eq!(ended.status, 3, "{ended}");
    let text = "p99>1000s: not evaluated, no connection could be established";
    assert!(ended.stdout.contains(text), "{ended}");
    assert_eq!(ended.report["verdicts"][1]["evaluated"], false, "{ended}");
}

/// An admin listener with one ledger after the other, the last one for ever.
fn admin(ledgers: Vec<Value>) -> String {
    let (ledgers, next) = (Arc::new(ledgers), Arc::new(AtomicU64::new(0)));
    let address = server(move |mut stream| {
        let at = next.fetch_add(1, Ordering::SeqCst) as usize;
        let body = ledgers[at.min(ledgers.len() - 1)].to_string();
        let mut head = [0; 1 << 10];
        let read = stream.read(&mut head).unwrap_or_default();
        assert!(head[..read].starts_with(b"GET /ledger HTTP/1.1\r\n"));
        let _ = stream.write_all(&crate::support::ok(body.as_bytes()));
    });
    format!("http://{address}")
}

fn ledger(open: u64, free: u64) -> Value {
    json!({
        "connections": { "open": open }, "buffers": { "total": 8, "free": free }, "balanced": true,
    })
}

#[test]
fn a_ledger_that_comes_to_rest_passes_and_a_leak_is_named() {
    // At rest only at the fourth look.
    let url = admin(vec![ledger(0, 8), ledger(9, 2), ledger(1, 8), ledger(0, 8)]);
    let good = run_echo(address(), &format!("-n 100 --ledger {url}"));
    good.passed();
    assert_eq!(good.report["ledger"]["leaks"], json!([]), "{good}");
    assert!(good.stdout.contains("everything was released"), "{good}");
    let url = admin(vec![ledger(1, 8), ledger(3, 7)]);
    let bad = run_echo(address(), &format!("-n 100 --settle 300ms --ledger {url}"));
    assert_eq!((bad.status, &bad.report["outcome"]), (1, &"failed".into()), "{bad}");
    assert_eq!(bad.report["ledger"]["leaks"].as_array().map(Vec::len), Some(2), "{bad}");
    assert!(bad.stdout.contains("connections.open: 3, before the run 1"), "{bad}");
    assert!(bad.stdout.contains("buffers in use: 1, before the run 0"), "{bad}");
    assert_eq!(bad.report["ledger"]["before"], ledger(1, 8));
}

#[test]
fn without_a_ledger_there_is_no_run() {
    let nobody = nobody();
    let ended = run_echo(address(), &format!("-d 20s --ledger http://{nobody}"));
    assert_eq!((ended.status, &ended.stdout[..]), (3, ""), "{ended}");
    assert!(ended.stderr.contains(&format!("--ledger http://{nobody}")), "{ended}");
    let other =
        server(|stream| crate::support::http(stream, |_, _| Some(crate::support::ok(b"[]"))));
    let ended = run_echo(address(), &format!("-d 20s --ledger http://{other}"));
    assert!(ended.status == 2 && ended.stderr.contains("--ledger http://"), "{ended}");
    let ended = run_echo(address(), &format!("-d 20s --pid {}", u32::MAX));
    assert!(ended.status == 2 && ended.stderr.contains("no such process"), "{ended}");
}

/// A process of its own that echoes; one that leaks keeps every connection, for ever unclosed, and
/// a thread with it. It is this test program, started again for one test.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    fn start(leaks: bool) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "verdicts::a_server_for_the_tests_above", "--nocapture"])
            .env("SERVE", if leaks { "leaking" } else { "good" })
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut lines = lines.map_while(Result::ok);
        let address = lines
            .find_map(|line| line.split_once("listening ")?.1.parse().ok())
            .expect("it says where it listens");
        Self { child, address }
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().expect("our own child");
        self.child.wait().expect("our own child");
    }
}

/// Does nothing unless it is started by [`Server`].
#[test]
fn a_server_for_the_tests_above() {
    let Ok(how) = std::env::var("SERVE") else { return };
    static KEPT: Mutex<Vec<TcpStream>> = Mutex::new(Vec::new());
    let address = server(move |stream| {
        let kept = stream.try_clone().expect("a descriptor");
        echo(stream, |_, _| true);
        if how == "leaking" {
            KEPT.lock().expect("nobody panics").push(kept);
            loop {
                thread::park();
            }
        }
    });
    println!("listening {address}");
    // Until the parent has gone.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

#[test]
fn a_process_that_gives_everything_back_passes() {
    let server = Server::start(false);
    let ended = run_echo(server.address, &format!("-c 8 -n 400 --pid {}", server.pid()));
    ended.passed();
    let seen = &ended.report["process"];
    assert_eq!((&seen["stays"], &seen["pid"]), (&json!([]), &json!(server.pid())), "{ended}");
    assert_eq!(seen["after"]["sockets"]["LISTEN"], 1, "{ended}");
    assert!(ended.stdout.contains("everything was released; resident memory "), "{ended}");
}

#[test]
fn a_process_that_keeps_connections_is_found_out() {
    let server = Server::start(true);
    let options = format!("-c 8 -n 400 --settle 1s --pid {}", server.pid());
    let ended = run_echo(server.address, &options);
    assert_eq!(ended.status, 1, "{ended}");
    for part in [
        "descriptors: socket: 9, before the run 1",
        "sockets in CLOSE_WAIT: 8, before the run 0",
        "threads: ",
    ] {
        assert!(ended.stdout.contains(part), "{part}\n{ended}");
    }
}

/// A folder for files that runs leave behind.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

fn ringload(folder: &tempfile::TempDir, line: &str) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_ringload"))
        .current_dir(folder.path())
        .args(line.split_whitespace())
        .output()
        .expect("the program starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let stderr = without_notice(&text(&output.stderr));
    (output.status.code().unwrap_or(-1), text(&output.stdout), stderr)
}

fn read(folder: &tempfile::TempDir, name: &str) -> String {
    std::fs::read_to_string(folder.path().join(name))
        .unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn a_run_leaves_files_that_are_read_merged_and_compared() {
    let (folder, address) = (folder(), address());
    for name in ["a", "b"] {
        let line = format!(
            "echo {address} -c 4 -n 2k --quiet --json {name}.json --html {name}.html \
             --hlog {name}.hlog"
        );
        let (status, _, stderr) = ringload(&folder, &line);
        assert_eq!((status, &stderr[..]), (0, ""));
        assert!(read(&folder, &format!("{name}.hlog")).contains("\nTag=service,0.000,"));
        assert!(read(&folder, &format!("{name}.html")).contains("Percentiles of the times"));
    }
    let (status, stdout, _) = ringload(&folder, "report a.json --html again.html");
    assert!(status == 0 && stdout.contains("service time  p50"), "{stdout}");
    assert_eq!(read(&folder, "again.html"), read(&folder, "a.html"));

    let (status, stdout, _) = ringload(&folder, "merge a.json b.json --json a.json");
    assert!(status == 0 && stdout.contains("4,000 in "), "{stdout}");
    let merged: Value = serde_json::from_str(&read(&folder, "a.json")).expect("JSON");
    assert_eq!(
        (&merged["replies"], &merged["service_time_us"]["samples"]),
        (&4000.into(), &4000.into())
    );

    let (status, stdout, _) = ringload(&folder, "compare b.json,b.json b.json --json c.json");
    assert!(status == 0 && stdout.contains("1.000"), "{stdout}");
    let (status, stdout, _) = ringload(&folder, "compare b.json b.json --fail-if ratio.p99>0.9");
    assert!(status == 1 && stdout.contains("ratio.p99>0.9: FAILED, 1"), "{stdout}");
}

#[test]
fn files_that_are_no_reports_and_options_of_runs_are_wrong_usage() {
    let folder = folder();
    std::fs::write(folder.path().join("x"), "{}").expect("a file");
    for (line, says) in [
        ("report none", "none"),
        ("report x", "not a report of ringload --json"),
        ("merge", "required"),
        ("compare x", "required"),
        ("report x --ledger http://127.0.0.1:1", "--ledger applies to a run"),
        ("report x x --html y", "give one FILE"),
        ("compare x x --html y", "ringload report FILE"),
        ("echo 127.0.0.1:1 --html /proc/no/such/file", "--html /proc/no/such/file"),
        ("echo 127.0.0.1:1 --hlog /proc/no/such/file", "--hlog /proc/no/such/file"),
    ] {
        let (status, stdout, stderr) = ringload(&folder, line);
        assert!(status == 2 && stderr.contains(says), "{line}: {status} {stdout}{stderr}");
    }
}

/// A stranger's finding: a start that failed emptied the report of the day before.
#[test]
fn a_report_stays_until_there_is_another() {
    let folder = tempfile::tempdir().expect("a folder");
    let kept = folder.path().join("kept.json");
    std::fs::write(&kept, "the day before").expect("a file");
    let json = kept.to_str().expect("plain");
    let run = |arguments: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_ringload"))
            .args(["echo", "127.0.0.1:1", "-n", "1", "--json", json])
            .args(arguments)
            .output()
            .expect("the program starts")
    };
    assert_eq!(run(&["--pid", "4000000000"]).status.code(), Some(2));
    let same = run(&["--html", json]);
    assert_eq!(same.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&same.stderr).contains("same file"), "{same:?}");
    assert_eq!(std::fs::read_to_string(&kept).expect("it is there"), "the day before");
    assert_eq!(run(&[]).status.code(), Some(3), "nobody listens there");
    let report = std::fs::read_to_string(&kept).expect("it is there");
    assert!(report.starts_with('{') && report.contains("unreachable"), "{report}");
}

/// eprintln! and println! panic when nobody hears them.
#[test]
fn nobody_who_listens_is_no_reason_to_panic() {
    let full = || std::fs::File::create("/dev/full").expect("a device that is full");
    let program = || {
        let mut program = Command::new(env!("CARGO_BIN_EXE_ringload"));
        program.args(["echo", "127.0.0.1:1", "-n", "1"]).stdout(Stdio::null());
        program
    };
    let status = program().stderr(full()).status().expect("the program starts");
    assert_eq!(status.code(), Some(3));
    let status = program().stdout(full()).stderr(Stdio::null()).status();
    assert_eq!(status.expect("the program starts").code(), Some(1), "the summary is lost");
}
