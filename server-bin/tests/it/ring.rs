//! `--ring`: the kernel interface that is asked for, and the one that the system allows.

use crate::common::{Modes, Server, command, tree};
use ringwright_test_support::{
    needs_io_uring,
    seccomp::{fails_with, filter},
};
use std::os::unix::process::CommandExt;
use std::process::Command;

pub const IO_URING: [libc::c_long; 3] =
    [libc::SYS_io_uring_setup, libc::SYS_io_uring_register, libc::SYS_io_uring_enter];

/// The daemon with a seccomp filter: the calls of io_uring have this outcome.
fn filtered(outcome: u32, arguments: &[&str]) -> Command {
    let mut command = command(arguments);
    // SAFETY: the closure makes system calls only, apart from an allocation, which glibc allows
    // after its fork.
    unsafe {
        command.pre_exec(move || {
            filter(&IO_URING, outcome);
            Ok(())
        });
    }
    command
}

fn http_filtered(outcome: u32, dir: &std::path::Path) -> Command {
    let any = "127.0.0.1:0";
    let dir = dir.to_str().unwrap();
    filtered(outcome, &["http", dir, "--ring", "auto", "--listen", any, "--admin", any])
}

#[test]
fn the_ring_that_is_asked_for_serves_and_is_named() {
    let tree = tree();
    let server = Server::http_with_admin(tree.path(), &["--ring", "epoll"]);
    assert_eq!(server.get("/ten.txt", "").body, b"0123456789");
    let ledger = server.ledger_once(|_| true);
    let ring = &ledger["ring"];
    assert_eq!(
        (ring["kind"].as_str(), ring["reason"].as_str()),
        (Some("epoll"), Some("requested"))
    );
    assert!(ring["enters"].as_u64().unwrap() > 0);
    let metrics = String::from_utf8(server.admin().request("GET", "/metrics").body).unwrap();
    let line = metrics.lines().find(|line| line.starts_with("ringwright_info{"));
    assert!(line.is_some_and(|line| line.contains("ring=\"epoll\"")), "{line:?}");
    let ended = server.stop().cleanly();
    assert!(!ended.stderr.contains("epoll replaces"), "{}", ended.stderr);
}

#[test]
fn where_io_uring_is_forbidden_epoll_serves_and_one_line_says_why() {
    // A filter of the system's own may come before those of this test.
    if !needs_io_uring() {
        return;
    }
    let tree = tree();
    for (outcome, cause) in [
        (fails_with(libc::EPERM), "Operation not permitted"),
        (fails_with(libc::ENOSYS), "Function not implemented"),
        (libc::SECCOMP_RET_KILL_PROCESS, "killed by signal 31"),
    ] {
        let server = Server::start_with_admin(&mut http_filtered(outcome, tree.path()), "http");
        assert_eq!(server.get("/ten.txt", "").body, b"0123456789");
        let ledger = server.ledger_once(|_| true);
        let ring = &ledger["ring"];
        assert_eq!(ring["kind"], "epoll");
        let reason = ring["reason"].as_str().unwrap();
        assert!(reason.contains("io_uring_setup(2)") && reason.contains(cause), "{reason}");
        let ended = server.stop().cleanly();
        let lines: Vec<_> = ended.stderr.lines().filter(|line| line.contains("epoll")).collect();
        let notice = "ringwrightd: epoll replaces io_uring, which is forbidden: io_uring_setup(2)";
        // The other line is the ledger.
        assert!(lines.len() == 2 && lines[0].starts_with(notice), "{}", ended.stderr);
        assert!(lines[0].contains("SystemCallFilter=@aio"), "the remedy: {}", lines[0]);
    }
}

#[test]
fn where_io_uring_is_forbidden_nothing_else_serves_whoever_asks_for_it() {
    // A filter of the system's own may come before those of this test.
    if !needs_io_uring() {
        return;
    }
    let arguments = ["echo", "--listen", "127.0.0.1:0", "--ring", "io_uring"];
    let output = filtered(fails_with(libc::EPERM), &arguments).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("io_uring_setup(2)") && stderr.contains("seccomp"), "{stderr}");
    assert!(output.stdout.is_empty());
}
