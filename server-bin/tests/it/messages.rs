//! `log.error` and `log.level`: the daemon's own messages.

use crate::common::{Modes, PROGRAM, Server, tree};
use crate::configured::{Configured, folder, wait_until};
use ringwrightd_test_support::daemon::Daemon;
use std::fs;
use std::net::TcpStream;
use std::path::Path;

const SITE: &str = "[[site]]\nlisten = [\"127.0.0.1:0\"]\nroot = \"www\"\n";

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[track_caller]
fn wait_for(path: &Path, text: &str) {
    wait_until(text, || read(path).contains(text));
}

/// Each line has time, level and message.
#[track_caller]
fn are_lines(text: &str) {
    for line in text.lines() {
        let mut parts = line.splitn(3, ' ');
        let time = parts.next().unwrap();
        assert!(time.len() == 20 && time.starts_with("20") && time.ends_with('Z'), "{line}");
        assert!(["error", "warn", "info", "debug"].contains(&parts.next().unwrap()), "{line}");
        assert!(!parts.next().unwrap().is_empty(), "{line}");
    }
}

#[test]
fn messages_go_to_the_file_of_the_error_log() {
    let text = format!("[log]\nerror = \"error.log\"\n{SITE}");
    let running = Configured::start(folder(&[("www/a.txt", "a")]), &text, &["http"]);
    let (file, log) = (running.path().join("c.toml"), running.path().join("error.log"));
    fs::write(&file, text.replace("root =", "rot =")).unwrap();
    running.server.signal(libc::SIGHUP);
    wait_for(&log, " error SIGHUP: the reload failed, and nothing has changed: ");
    assert!(read(&log).contains("unknown key; did you mean `root`? 5 | rot = \"www\""), "one line");
    // A new listener, and one that goes.
    let second = text.replace("127.0.0.1:0", "127.0.0.2:0");
    fs::write(&file, &second).unwrap();
    running.server.signal(libc::SIGHUP);
    wait_for(&log, " info SIGHUP: reloaded: generation 2, changed: site[0].listen");
    let said = read(&log);
    assert!(said.contains(" info listening on http://127.0.0.2:"), "{said}");
    assert!(said.contains(" info no longer listening on http://127.0.0.1:"), "{said}");
    let path = log.clone();
    let folder = running.folder;
    let ended = running.server.stop().cleanly();
    let said = read(&path);
    are_lines(&said);
    assert!(said.contains(" info draining: "), "{said}");
    assert!(!ended.stderr.contains("draining"), "{}", ended.stderr);
    assert!(ended.stderr.contains("ledger {"), "the ledger is no message: {}", ended.stderr);
    drop(folder);
}

#[test]
fn the_level_leaves_messages_out_and_a_reload_changes_it() {
    let text = format!("[log]\nerror = \"error.log\"\nlevel = \"LEVEL\"\n{SITE}");
    let of_level = |level: &str| text.replace("LEVEL", level);
    let running = Configured::start(folder(&[("www/", "")]), &of_level("error"), &["http"]);
    let (file, log) = (running.path().join("c.toml"), running.path().join("error.log"));
    let wrong = |level: &str| of_level(level).replace("root", "rot");
    running.server.signal(libc::SIGUSR2);
    running.server.signal(libc::SIGHUP);
    fs::write(&file, wrong("error")).unwrap();
    running.server.signal(libc::SIGHUP);
    wait_for(&log, " error ");
    assert!(!read(&log).contains(" info ") && !read(&log).contains(" warn "), "{}", read(&log));
    fs::write(&file, of_level("debug")).unwrap();
    running.server.signal(libc::SIGHUP);
    wait_for(&log, " info SIGHUP: reloaded: ");
    running.server.signal(libc::SIGUSR2);
    running.server.signal(libc::SIGUSR1);
    wait_for(&log, " warn SIGUSR2: ");
    wait_for(&log, " debug SIGUSR1: the logs were opened again");
    running.stop();
}

#[test]
fn the_error_log_is_made_again_after_a_rename() {
    let (tree, folder) = (tree(), tempfile::tempdir().unwrap());
    let (path, old) = (folder.path().join("log"), folder.path().join("log.1"));
    let server = Server::http(tree.path(), &["--error-log", path.to_str().unwrap()]);
    server.signal(libc::SIGUSR2);
    wait_for(&path, "SIGUSR2");
    fs::rename(&path, &old).unwrap();
    server.signal(libc::SIGUSR1);
    wait_until("SIGUSR1 makes it again", || path.exists());
    // And the next line without a signal.
    fs::remove_file(&path).unwrap();
    server.signal(libc::SIGUSR2);
    wait_for(&path, " warn SIGUSR2: ");
    server.stop().cleanly();
    assert_eq!(read(&old).matches("SIGUSR2").count(), 1);
}

#[test]
fn a_dash_is_standard_error_with_time_and_level() {
    let tree = tree();
    let ended = Server::http(tree.path(), &["--error-log", "-"]).stop().cleanly();
    let lines: Vec<&str> =
        ended.stderr.lines().filter(|line| !line.starts_with("ledger ")).collect();
    assert!(lines.iter().any(|line| line.contains("Z info draining: ")), "{}", ended.stderr);
    are_lines(&lines.join("\n"));
    let quiet = Server::http(tree.path(), &["--log-level", "warn"]).stop().cleanly();
    assert!(!quiet.stderr.contains("draining"), "{}", quiet.stderr);
}

#[test]
fn a_failed_start_is_in_the_log_and_on_standard_error() {
    let folder = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let log = folder.path().join("log");
    let run = |log: &Path| {
        let (dir, log) = (folder.path().to_str().unwrap(), log.to_str().unwrap());
        let arguments = ["http", dir, "--listen", &address, "--error-log", log];
        crate::common::command(&arguments).output().unwrap()
    };
    let output = run(&log);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&address) && read(&log).contains(&address), "{said}");
    are_lines(&read(&log));
    let output = run(&folder.path().join("nowhere/log"));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("--error-log") && said.contains("cannot open the file"), "{said}");
}

/// The messages that the server has lost, by one of its pages, which has the number behind `name`.
fn lost(server: &Server, page: &str, name: &str) -> u64 {
    let body = server.admin().request("GET", page).body;
    let text = String::from_utf8(body).unwrap();
    let (_, rest) = text.split_once(name).unwrap_or_else(|| panic!("no {name} in {text}"));
    let digits = rest.find(|byte: char| !byte.is_ascii_digit()).unwrap();
    rest[..digits].parse().unwrap()
}

#[test]
fn a_disk_that_is_full_costs_lines_which_are_counted() {
    let tree = tree();
    let arguments = ["--error-log", "/dev/full"];
    let server = Server::http_with_admin(tree.path(), &arguments);
    let of_metrics = || lost(&server, "/metrics", "\nringwright_error_log_lines_lost_total ");
    let of_ledger = || lost(&server, "/ledger", "\"error_log\":{\"lines_lost\":");
    // The engine may have said something before, for example that little memory may be locked.
    let before = of_metrics();
    server.signal(libc::SIGUSR2);
    wait_until("a line is lost", || of_metrics() > before);
    assert!(of_ledger() > before);
    let ended = server.stop().cleanly();
    let said = ended.stderr;
    assert_eq!(
        said.matches("--error-log: writing failed, and lines are lost").count(),
        1,
        "{said}"
    );
}

#[test]
fn accepting_that_pauses_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let arguments = ["--shards", "1", "--error-log", log.to_str().unwrap()];
    let daemon = Daemon::with_descriptors(PROGRAM, Some(64), "echo", &arguments);
    let clients: Vec<TcpStream> =
        (0..100).map(|_| TcpStream::connect(daemon.address).unwrap()).collect();
    wait_for(&log, " warn accepting paused ");
    drop(clients);
    daemon.stop();
}
