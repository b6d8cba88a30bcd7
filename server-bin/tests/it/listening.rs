//! Addresses that the daemon listens on: shared with others, of a killed daemon, of a name.

use crate::common::{Client, Server, command, tree};
use ringwright_test_support::needs_root;
use std::fs;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

/// A port of 127.0.0.1 that was free just now.
fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

#[test]
fn of_two_daemons_started_together_one_serves() {
    for shards in ["1", "2", "1", "2"] {
        let address = free_address();
        let outputs = [(); 2].map(|()| {
            let arguments = ["echo", "--shards", shards, "--listen", &address];
            command(&arguments).spawn().unwrap()
        });
        // The loser ends after a second; then the winner is told to end.
        let ends = thread::scope(|scope| {
            let ends = outputs.map(|child| {
                let pid = child.id() as i32;
                (pid, scope.spawn(move || child.wait_with_output().unwrap()))
            });
            while ends.iter().all(|(_, end)| !end.is_finished()) {
                thread::sleep(Duration::from_millis(5));
            }
            ends.map(|(pid, end)| {
                if !end.is_finished() {
                    // SAFETY: no pointers. The thread has not waited for this child yet.
                    unsafe { libc::kill(pid, libc::SIGTERM) };
                }
                end.join().unwrap()
            })
        });
        let served = ends.iter().filter(|end| end.stdout.starts_with(b"listening")).count();
        let texts = ends.each_ref().map(|end| String::from_utf8_lossy(&end.stderr));
        let refused = texts.iter().filter(|text| text.contains("Address already in use")).count();
        assert_eq!((served, refused), (1, 1), "{shards} shard(s): {texts:?}");
    }
}

#[test]
fn a_daemon_starts_right_after_its_predecessor_was_killed() {
    let tree = tree();
    let address = free_address();
    let arguments = ["http", tree.path().to_str().unwrap(), "--listen", &address];
    for _ in 0..20 {
        let server = Server::start(&mut command(&arguments), "http");
        // The kernel ends these operations after the process has ended.
        let clients: Vec<Client> = (0..50).map(|_| server.client()).collect();
        assert_eq!(server.get("/ten.txt", "").status, 200);
        server.signal(libc::SIGKILL);
        server.wait();
        Server::start(&mut command(&arguments), "http").stop().cleanly();
        drop(clients);
    }
}

#[test]
fn a_name_stands_for_all_of_its_addresses() {
    if !needs_root("it mounts an /etc/hosts of its own") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let hosts = folder.path().join("hosts");
    // The machine does not have the third address (RFC 5737).
    fs::write(&hosts, "127.0.0.1 both.test\n::1 both.test\n203.0.113.1 both.test\n").unwrap();
    let port = free_address().rsplit(':').next().unwrap().to_owned();
    let mut daemon = Command::new("unshare");
    let script = "mount --bind \"$1\" /etc/hosts; exec \"$2\" echo --shards 1 --listen \"$3\" \
                  --admin both.test:0";
    daemon
        .args(["--mount", "sh", "-c", script, "sh"])
        .arg(&hosts)
        .arg(env!("CARGO_BIN_EXE_ringwrightd"))
        .arg(format!("both.test:{port}"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let server = Server::start(&mut daemon, "echo");
    let first_line = format!("listening echo://{}", server.address);
    let ended = server.stop().cleanly();
    let lines: Vec<&str> = ended.stdout.lines().chain([&*first_line]).collect();
    assert_eq!(lines.len(), 4, "{lines:?}");
    for begin in [
        format!("listening echo://127.0.0.1:{port}"),
        format!("listening echo://[::1]:{port}"),
        "listening admin http://127.0.0.1:".into(),
        "listening admin http://[::1]:".into(),
    ] {
        assert!(lines.iter().any(|line| line.starts_with(&begin)), "{begin} in {lines:?}");
    }
}
