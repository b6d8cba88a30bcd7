//! The changes of a reload, for the next request of a connection that stays.

use super::{ADMIN, metric, reload, write};
use crate::common::{Modes, Server};
use crate::configured::{Configured, JOE, NOT_JOE, USERS, folder, request, text, wait_until};
use serde_json::{Value, json};
use std::fs;
use tempfile::TempDir;

/// Joe with the password of [`NOT_JOE`].
const USERS_LATER: &str = "joe:$6$rounds=1000$saltsalt$ywWKWaZjudto7JB0XrHQZRBRfH3AXA3jCrVe\
    dcy4NF3PpY.aoK0yW4zC00ISzLEqRN.Jew.Bf8GVbDcJ36xQS1\n";

fn files() -> TempDir {
    folder(&[("www/a.txt", "a"), ("other/a.txt", "of the other root"), ("users", USERS)])
}

/// A site with these keys, and `[engine]` with those.
fn config(engine: &str, site: &str) -> String {
    format!(
        "[engine]\n{engine}\n{ADMIN}[[site]]\nlisten = [\"127.0.0.1:0\"]\nroot = \"www\"\n{site}"
    )
}

fn header(value: &str) -> String {
    format!("[[site.rule]]\nmatch = \"*\"\nheaders = {{ X-A = \"{value}\" }}\n")
}

fn start(text: &str) -> Configured {
    Configured::start(files(), text, &["http", "admin http"])
}

#[test]
fn the_next_request_of_an_open_connection_has_the_new_rules() {
    let running = start(&config("", &header("1")));
    let mut clients: Vec<_> = (0..6).map(|_| running.server.client()).collect();
    let mut ask = |expected: &str| {
        for client in &mut clients {
            for _ in 0..2 {
                let reply = client.ask(&request("GET", "/a.txt", ""));
                assert_eq!((text(&reply), reply.field("x-a")), ((200, "a"), expected));
            }
        }
    };
    ask("1");
    let answer = reload(&running, &config("", &header("2")));
    assert_eq!(answer, (2, vec!["site[0].rule[0].headers.X-A".to_owned()]));
    ask("2");
    assert_eq!(reload(&running, &config("", &header("2"))), (3, vec![]));
    ask("2");
    // SIGHUP does the same; only its end is not seen.
    write(&running, &config("", &header("3")));
    running.server.signal(libc::SIGHUP);
    wait_until("the third value", || running.ask_once("GET", "/a.txt", "").field("x-a") == "3");
    ask("3");
    assert_eq!(metric(&running, "ringwright_config_generation"), 4);
    let ended = running.stop();
    let said = "SIGHUP: reloaded: generation 4, changed: site[0].rule[0].headers.X-A";
    assert!(ended.stderr.contains(said), "{}", ended.stderr);
}

#[test]
fn a_root_changes_and_open_files_of_the_old_one_are_not_sent() {
    let running = start(&config("", ""));
    let mut client = running.server.client();
    let mut ask = |expected: &str| {
        for _ in 0..3 {
            let reply = client.ask(&request("GET", "/a.txt", ""));
            assert_eq!(text(&reply), (200, expected));
        }
    };
    ask("a");
    let other = config("", "").replace("\"www\"", "\"other\"");
    assert_eq!(reload(&running, &other), (2, vec!["site[0].root".to_owned()]));
    ask("of the other root");
    reload(&running, &config("", ""));
    ask("a");
    running.stop();
}

#[test]
fn password_files_are_read_again() {
    let site = "[[site.rule]]\nmatch = \"*\"\nauth = \"users\"\n";
    let running = start(&config("", site));
    let status = |fields: &str| running.get("/a.txt", fields).status;
    assert_eq!([status(JOE), status(NOT_JOE)], [200, 401]);
    fs::write(running.path().join("users"), USERS_LATER).unwrap();
    assert_eq!(status(JOE), 200, "nothing was said yet");
    assert_eq!(reload(&running, &config("", site)), (2, vec![]));
    assert_eq!([status(JOE), status(NOT_JOE)], [401, 200]);
    running.stop();
}

#[test]
fn bans_and_workers_set_at_run_time_survive() {
    let engine = |bans: &str, workers: usize| format!("bans = [{bans}]\nworkers = {workers}");
    let running = start(&config(&engine("\"192.0.2.1\", \"192.0.2.2\"", 2), ""));
    let bans = |expected: Value| {
        let reply = running.server.admin().request("GET", "/bans");
        let bans: Value = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!(bans["bans"], expected);
    };
    let workers = |expected: u64| {
        wait_until("the workers", || metric(&running, "ringwright_workers") == expected);
    };
    bans(json!(["192.0.2.1/32", "192.0.2.2/32"]));
    for (method, target) in
        [("PUT", "/bans/198.51.100.7"), ("DELETE", "/bans/192.0.2.2"), ("PUT", "/workers/5")]
    {
        assert_eq!(running.server.admin().request(method, target).status, 204, "{target}");
    }
    workers(5);
    // Another key changes.
    reload(&running, &config(&engine("\"192.0.2.1\", \"192.0.2.2\"", 2), &header("1")));
    bans(json!(["192.0.2.1/32", "198.51.100.7/32"]));
    workers(5);
    let (_, changed) = reload(&running, &config(&engine("\"192.0.2.3\"", 2), &header("1")));
    assert_eq!(changed, ["engine.bans"]);
    bans(json!(["192.0.2.3/32", "198.51.100.7/32"]));
    workers(5);
    let (_, changed) = reload(&running, &config(&engine("", 3), &header("1")));
    assert_eq!(changed, ["engine.bans", "engine.workers"]);
    bans(json!(["198.51.100.7/32"]));
    workers(3);
    running.stop();
}

#[test]
fn the_durations_of_a_drain_change() {
    let running = start(&config("drain_delay = \"10m\"", ""));
    let (_, changed) = reload(&running, &config("drain_delay = \"10ms\"", ""));
    assert_eq!(changed, ["engine.drain_delay"]);
    let ended = running.stop();
    assert!(ended.stderr.contains("accepting for 10ms more"), "{}", ended.stderr);
}

#[test]
fn the_server_without_a_file_reads_its_directory_and_log_anew() {
    let files = files();
    let path = files.path().join("log");
    let arguments = ["--access-log", path.to_str().unwrap()];
    let server = Server::http_with_admin(&files.path().join("www"), &arguments);
    assert_eq!(server.get("/a.txt", "").status, 200);
    fs::rename(&path, files.path().join("log.1")).unwrap();
    let reply = server.admin().request("POST", "/reload");
    assert_eq!(text(&reply), (200, "{\"generation\":2,\"changed\":[]}"));
    wait_until("a new log", || path.exists());
    server.stop().cleanly();
}
