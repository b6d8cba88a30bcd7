//! Both real rings pass these tests. A run tests one of them: the one that the environment variable
//! `RINGWRIGHT_TEST_RING` names, or else the one that `auto` chooses. If that is io_uring, one of
//! the tests runs all others again on epoll, so that no second program must be compiled.

use ringwright::{
    Config, Connection, Engine, Features, Handler, Origin, RingChoice, RingInUse, RingKind,
};
use ringwright_test_support::leave_out;
use std::io::Write;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

pub const VARIABLE: &str = "RINGWRIGHT_TEST_RING";
/// Names features of the kernel that count as missing, with commas between them.
pub const WITHOUT: &str = "RINGWRIGHT_TEST_WITHOUT";

/// The ring that this run tests.
pub fn ring() -> RingChoice {
    match kind() {
        RingKind::IoUring => RingChoice::IoUring,
        RingKind::Epoll => RingChoice::Epoll,
    }
}

/// The features of the kernel that this run may use.
pub fn features() -> Features {
    let mut features = Features::ALL;
    let without = std::env::var(WITHOUT).unwrap_or_default();
    for name in without.split(',').filter(|name| !name.is_empty()) {
        *match name {
            "ext_arg" => &mut features.ext_arg,
            "buffer_ring" => &mut features.buffer_ring,
            "multishot_receive" => &mut features.multishot_receive,
            "no_sqarray" => &mut features.no_sqarray,
            "no_iowait" => &mut features.no_iowait,
            "cachestat" => &mut features.cachestat,
            "openat2" => &mut features.openat2,
            _ => panic!("{WITHOUT}: {name} is no feature"),
        } = false;
    }
    features
}

/// Returns whether the engine learns what the page cache holds (cachestat(2), Linux 6.5).
pub fn knows_page_cache() -> bool {
    // No file: the kernel says so if it has the call.
    // SAFETY: no pointers that are read.
    let result = unsafe { libc::syscall(451, -1, 0, 0, 0) };
    let error = std::io::Error::last_os_error().raw_os_error();
    features().cachestat && result < 0 && error == Some(libc::EBADF)
}

pub fn kind() -> RingKind {
    match std::env::var(VARIABLE).ok().as_deref() {
        None => automatic().kind,
        Some("io_uring") => RingKind::IoUring,
        Some("epoll") => RingKind::Epoll,
        Some(other) => panic!("{VARIABLE} is {other}; io_uring and epoll are known"),
    }
}

/// Returns true if a test that is about io_uring itself can run.
#[must_use]
#[track_caller]
pub fn needs_io_uring(why: &str) -> bool {
    let here = kind() == RingKind::IoUring;
    if !here && std::env::var_os(VARIABLE).is_none() {
        leave_out(&format!("io_uring ({why})"));
    }
    here
}

/// The choice of `auto` on this system.
fn automatic() -> &'static RingInUse {
    struct Nothing;
    impl Handler for Nothing {
        type State = ();
        fn opened(&mut self, _: &mut Connection<'_>, _: Origin) {}
        fn received(&mut self, (): &mut (), _: &mut Connection<'_>, bytes: &[u8]) -> usize {
            bytes.len()
        }
    }
    static RING: OnceLock<RingInUse> = OnceLock::new();
    RING.get_or_init(|| {
        let small = Config {
            shards: Some(1),
            pin: false,
            receive_buffers: 1,
            send_buffers: 1,
            submission_entries: 8,
            ..Config::default()
        };
        let engine = Engine::start(small, |_| Nothing).expect("a small engine");
        engine.handle().drain(Duration::ZERO);
        engine.join().expect("a clean end").ring
    })
}

/// Writes a line past libtest, which captures the print macros.
fn say(line: &str) {
    let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}

#[test]
fn all_tests_pass_on_epoll_as_well() {
    if std::env::var_os(VARIABLE).is_some() {
        return;
    }
    if kind() == RingKind::Epoll {
        say(&format!(
            "the tests of real rings ran on epoll only: io_uring is not used ({})",
            automatic().reason
        ));
        return leave_out("io_uring");
    }
    let program = std::env::current_exe().expect("this program");
    let output = Command::new(program).env(VARIABLE, "epoll").output().expect("it starts");
    let (said, errors) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}\n{errors}");
    let summary = said.lines().find(|line| line.starts_with("test result: ok. "));
    let summary = summary.unwrap_or_else(|| panic!("no result: {said}\n{errors}"));
    // .ci/run looks for this line.
    say(&format!("the tests of real rings ran on io_uring, and on epoll: {summary}"));
}
