//! `health`, and `drain_delay`.

use crate::common::Reply;
use crate::configured::{Configured, folder, request, text, wait_until};

const FILES: [(&str, &str); 1] = [("www/a.txt", "file")];

fn start(delay: &str) -> Configured {
    let text = format!(
        "[engine]\ndrain_delay = \"{delay}\"\n\
         [admin]\nlisten = \"127.0.0.1:0\"\n\
         [[site]]\nlisten = [\"127.0.0.1:0\"]\nroot = \"www\"\nhealth = \"/healthz\"\n\
         [[site.rule]]\nmatch = \"/healthz\"\ndeny = [\"127.0.0.0/8\"]\n"
    );
    Configured::start(folder(&FILES), &text, &["http", "admin http"])
}

fn says_close(reply: &Reply) -> bool {
    reply.fields.get("connection").is_some_and(|value| value == "close")
}

#[test]
fn health_fails_during_the_drain_delay_and_all_else_goes_on() {
    let running = start("10m");
    let health = running.get("/healthz", "");
    assert_eq!(health.status, 200, "before all rules");
    assert_eq!(running.ask("HEAD", "/healthz", "").status, 200);
    assert_eq!(running.get("/healthz/", "").status, 404);
    let mut kept = running.server.client();
    assert!(!says_close(&kept.ask(&request("GET", "/a.txt", ""))));
    running.server.signal(libc::SIGTERM);
    wait_until("the health check fails", || running.ask_once("GET", "/healthz", "").status == 503);
    assert_eq!(running.server.admin().request("GET", "/readyz").status, 503);
    assert_eq!(running.server.admin().request("GET", "/livez").status, 200);
    let last = kept.ask(&request("GET", "/a.txt", ""));
    assert_eq!(text(&last), (200, "file"));
    assert!(says_close(&last));
    kept.is_at_its_end();
    // New clients are accepted and served.
    let reply = running.ask_once("GET", "/a.txt", "");
    assert_eq!((text(&reply), says_close(&reply)), ((200, "file"), true));
    assert!(says_close(&running.ask_once("HEAD", "/healthz", "")));
    running.server.signal(libc::SIGTERM);
    running.server.wait().cleanly();
}

#[test]
fn after_the_delay_the_server_drains() {
    let running = start("20ms");
    running.server.signal(libc::SIGTERM);
    let ended = running.server.wait().cleanly();
    assert!(ended.stderr.contains("accepting for 20ms more"), "{}", ended.stderr);
}

#[test]
fn the_health_path_is_no_file_without_the_key() {
    let running = Configured::site(folder(&FILES), "");
    assert_eq!(running.get("/healthz", "").status, 404);
    running.stop();
}
