//! The pressure that an idle daemon reports to the kernel's accounts (PSI).

use crate::common::{Modes, Server, command};
use ringwright_test_support::{leave_out, needs_root};
use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

/// A cgroup v2 of one daemon; removed when dropped.
struct Group(PathBuf);

impl Group {
    /// `None` where no cgroup v2 hierarchy accounts for pressure.
    fn new() -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let root = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"))?;
        let name = format!("ringwright-test-{}", std::process::id());
        let group = PathBuf::from(root.split(' ').nth(1)?).join(name);
        fs::create_dir(&group).ok()?;
        let group = Self(group);
        group.0.join("io.pressure").exists().then_some(group)
    }

    fn add(&self, server: &Server) {
        fs::write(self.0.join("cgroup.procs"), server.pid().to_string()).unwrap();
    }

    /// The time in which all of its threads that were not idle waited for I/O.
    fn io_pressure(&self) -> Duration {
        let text = fs::read_to_string(self.0.join("io.pressure")).unwrap();
        let full = text.lines().find(|line| line.starts_with("full")).unwrap();
        Duration::from_micros(full.rsplit_once("total=").unwrap().1.trim().parse().unwrap())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// Returns whether a wait need not count as I/O: never on epoll, and on io_uring if the kernel
/// takes `IORING_ENTER_NO_IOWAIT` (Linux 6.15).
fn can_wait_without_pressure() -> bool {
    let doctor = String::from_utf8(command(&["doctor"]).output().unwrap().stdout).unwrap();
    let mut lines = doctor.lines();
    lines.next().is_some_and(|line| line.contains(", on epoll"))
        || lines.any(|line| line.contains("IORING_FEAT_NO_IOWAIT") && line.contains("found"))
}

#[test]
fn an_idle_daemon_does_not_wait_for_io() {
    if !needs_root("it makes a cgroup") {
        return;
    }
    if !can_wait_without_pressure() {
        return leave_out("IORING_FEAT_NO_IOWAIT (Linux 6.15)");
    }
    let Some(group) = Group::new() else {
        return leave_out("a cgroup v2 hierarchy with io.pressure");
    };
    let server = Server::echo_with_admin(&[]);
    group.add(&server);
    let before = group.io_pressure();
    thread::sleep(Duration::from_secs(2));
    let waited = group.io_pressure() - before;
    server.stop().cleanly();
    // The daemon may read a page of its program from the disk.
    assert!(waited < Duration::from_millis(500), "{waited:?} of 2 s");
}
