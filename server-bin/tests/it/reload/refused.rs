//! Reloads that are refused change nothing.

use super::{ADMIN, metric, post, refused, reload, write};
use crate::common::command;
use crate::configured::{Configured, Port, folder, request, text, wait_until};
use std::net::{TcpListener, TcpStream};

const SITE: &str = "[[site]]\nlisten = [\"127.0.0.1:0\"]\nroot = \"www\"\n";
const RULE: &str = "[[site.rule]]\nmatch = \"*\"\nheaders = { X-A = \"1\" }\n";

fn start(text: &str) -> Configured {
    Configured::start(folder(&[("www/a.txt", "a")]), text, &["http", "admin http"])
}

#[track_caller]
fn serves_as_before(running: &Configured) {
    let reply = running.get("/a.txt", "");
    assert_eq!((text(&reply), reply.field("x-a")), ((200, "a"), "1"));
}

#[test]
fn an_error_keeps_the_old_configuration_and_is_told_as_check_tells_it() {
    let valid = format!("{ADMIN}{SITE}{RULE}");
    let running = start(&valid);
    let success = "ringwright_config_last_reload_successful";
    let total = |result: &str| {
        metric(&running, &format!("ringwright_config_reloads_total{{result=\"{result}\"}}"))
    };
    assert_eq!([metric(&running, success), total("success"), total("failure")], [1, 0, 0]);
    let mut kept = running.server.client();
    for (wrong, expected) in [
        (valid.replace("X-A", "Date"), "c.toml:8:11: site[0].rule[0].headers"),
        (valid.replace("headers", "header"), "c.toml:8:1: site[0].rule[0].header: unknown key"),
        (valid.replace("\"www\"", "\"nowhere\""), "c.toml:5:8: site[0].root = \"nowhere\""),
        (valid.replace("[[site]]", "[[site]"), "c.toml:3:"),
        (ADMIN.to_owned(), "there is no listener"),
        (String::new(), "there is no listener"),
    ] {
        let said = refused(&running, &wrong);
        assert!(said.contains(expected), "{expected}: {said}");
        let path = running.path().join("c.toml");
        let output = command(&["check", path.to_str().unwrap()]).output().unwrap();
        let checked = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), checked.trim_end()), (Some(2), said.trim_end()));
        serves_as_before(&running);
        assert_eq!(kept.ask(&request("GET", "/a.txt", "")).field("x-a"), "1");
        assert_eq!(metric(&running, success), 0);
    }
    assert_eq!([total("success"), total("failure")], [0, 6]);
    assert_eq!(metric(&running, "ringwright_config_generation"), 1);
    let (generation, changed) = reload(&running, &valid);
    assert_eq!((generation, changed.len()), (2, 0));
    assert_eq!([metric(&running, success), total("success"), total("failure")], [1, 1, 6]);
    // SIGHUP with a wrong file.
    write(&running, "[engine]\nshards = many\n");
    running.server.signal(libc::SIGHUP);
    wait_until("the failed reload", || metric(&running, success) == 0);
    serves_as_before(&running);
    std::fs::remove_file(running.path().join("c.toml")).unwrap();
    let reply = post(&running);
    assert_eq!(reply.status, 422);
    assert!(text(&reply).1.contains("cannot read the configuration file"), "{reply:?}");
    let ended = running.stop();
    let said = "SIGHUP: the reload failed, and nothing has changed:";
    assert!(ended.stderr.contains(said) && ended.stderr.contains("c.toml:2:"), "{}", ended.stderr);
}

#[test]
fn keys_that_need_a_restart_are_named_with_both_values() {
    let engine = "[engine]\nmax_connections = 100\n";
    let rest = format!("{SITE}{RULE}");
    let running = start(&format!("{engine}{ADMIN}{rest}"));
    for (key, value) in [
        ("pin_from", "1"),
        ("max_connections", "200"),
        ("max_per_ip", "50"),
        ("at_capacity", "\"reject\""),
        ("evict_idle", "\"off\""),
        ("buffers", "64"),
        ("buffer_size", "\"8KiB\""),
        ("send_buffers", "65"),
        ("send_buffer_size", "\"16KiB\""),
        ("memory_budget", "\"32MiB\""),
        ("probe", "\"recv\""),
        ("pin", "false"),
        ("park_after", "\"7s\""),
        ("streaming_max", "7"),
        ("accept_backoff", "\"7ms\""),
        ("splice_from", "\"7KiB\""),
        ("jobs_per_connection", "7"),
        ("commands_max", "77"),
        ("backlog", "77"),
        ("pipes", "7"),
        ("pipe_size", "\"8KiB\""),
        ("sendfile_max", "0"),
        ("open_files", "7"),
        ("open_files_valid", "\"7s\""),
        ("io_workers", "7"),
        ("submission_entries", "128"),
        ("output_high", "\"128KiB\""),
        ("output_low", "\"1KiB\""),
        ("output_max", "\"512MiB\""),
        ("jobs_max", "7"),
        ("keepalive", "\"7s\""),
        ("user_timeout", "\"7s\""),
        ("timeouts.linger", "\"7ms\""),
        ("timeouts.linger_total", "\"7s\""),
    ] {
        let before = if key == "max_connections" { "" } else { "max_connections = 100\n" };
        let said = refused(&running, &format!("[engine]\n{before}{key} = {value}\n{ADMIN}{rest}"));
        let start = format!("engine.{key} cannot change from ");
        assert!(said.contains(&start), "{key}: {said}");
        assert!(said.contains(&format!(" to {value} while the server runs; restart it")), "{said}");
        assert_eq!(said.trim_end().lines().count(), 1, "no other key has changed: {said}");
    }
    for (text, expected) in [
        (format!("{engine}[log]\naccess = \"a.log\"\n{ADMIN}{rest}"), "log.access"),
        (format!("{engine}[log]\nformat = \"json\"\n{ADMIN}{rest}"), "log.format"),
        (format!("{engine}{rest}"), "admin.listen"),
        (format!("{engine}{}{rest}", ADMIN.replace(":0", ":1")), "admin.listen"),
        // A change that could be made comes with one that cannot: neither is.
        (
            format!("[engine]\nmax_connections = 7\n{ADMIN}{rest}").replace("\"1\"", "\"2\""),
            "engine.max_connections cannot change from 100 to 7 while",
        ),
    ] {
        let said = refused(&running, &text);
        assert!(said.contains(expected), "{expected}: {said}");
        serves_as_before(&running);
    }
    assert_eq!(metric(&running, "ringwright_config_generation"), 1);
    running.stop();
}

#[test]
fn flags_of_the_start_hold_at_every_reload() {
    let config = |connections: usize, linger: &str| {
        format!(
            "[engine]\nmax_connections = {connections}\ntimeouts = {{ linger = \"{linger}\" }}\n\
             {ADMIN}{SITE}"
        )
    };
    let running = Configured::start_with(
        folder(&[("www/a.txt", "a")]),
        &config(100, "7s"),
        &["http", "admin http"],
        &["--max-connections", "300"],
    );
    // The flag goes over the file before and after.
    assert_eq!(reload(&running, &config(200, "7s")), (2, vec![]));
    let said = refused(&running, &config(200, "8s"));
    assert!(said.contains("engine.timeouts.linger cannot change from \"7s\" to \"8s\""), "{said}");
    running.stop();
}

#[test]
fn an_address_that_is_taken_leaves_no_other_new_listener() {
    let running = start(&format!("{ADMIN}{SITE}{RULE}"));
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let (free, taken) = (Port::reserve(), holder.local_addr().unwrap());
    let added = format!("[[echo]]\nlisten = [\"{}\", \"{taken}\"]\n", free.address());
    let said = refused(&running, &format!("{ADMIN}{SITE}{RULE}{added}"));
    assert!(said.contains(&taken.to_string()) && said.contains("in use"), "{said}");
    wait_until("the other listener is gone", || TcpStream::connect(free.address()).is_err());
    serves_as_before(&running);
    // Both are free now.
    drop(holder);
    let (_, changed) = reload(&running, &format!("{ADMIN}{SITE}{RULE}{added}"));
    assert!(changed.contains(&"echo[0].listen".to_owned()), "{changed:?}");
    for address in [free.address(), taken] {
        TcpStream::connect(address).unwrap();
    }
    running.stop();
}

#[test]
fn a_listener_cannot_change_its_service() {
    let port = Port::reserve();
    let listen = format!("listen = [\"{}\"]\n", port.address());
    let site = format!("[[site]]\n{listen}root = \"www\"\n{RULE}");
    let running = start(&format!("{ADMIN}{site}"));
    let said = refused(&running, &format!("{ADMIN}[[echo]]\n{listen}"));
    let expected = format!("{} cannot change from http to echo", port.address());
    assert!(said.contains(&expected), "{said}");
    serves_as_before(&running);
    running.stop();
}

#[test]
fn a_listener_keeps_its_backlog_and_takes_other_limits() {
    let port = Port::reserve();
    let listener = |text: &str| {
        let listen = format!("listen = [\"{}\"]\nlistener = {{ {text} }}\n", port.address());
        format!("{ADMIN}[[site]]\n{listen}root = \"www\"\n{RULE}")
    };
    let running = start(&listener("backlog = 64"));
    let said = refused(&running, &listener("backlog = 65"));
    let expected = format!("{} cannot change its backlog while the server runs", port.address());
    assert!(said.contains(&expected), "{said}");
    let (_, changed) = reload(&running, &listener("backlog = 64, output_high = \"1MiB\""));
    assert_eq!(changed, ["site[0].listener.output_high"]);
    serves_as_before(&running);
    running.stop();
}
