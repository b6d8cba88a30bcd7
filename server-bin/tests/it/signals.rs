//! The effect of each signal, and an access log that is rotated.

use crate::common::{Modes, PATIENCE, Server, command, tree};
use std::fs::{self, File};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::time::{Duration, Instant};

#[track_caller]
fn get(server: &Server) {
    assert_eq!(server.client().ask("GET /ten.txt HTTP/1.1\r\nHost: x\r\n\r\n").status, 200);
}

#[track_caller]
fn wait_for_content(path: &Path) {
    let give_up = Instant::now() + PATIENCE;
    while fs::metadata(path).map_or(0, |status| status.len()) == 0 {
        assert!(Instant::now() < give_up, "nothing is written into {}", path.display());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Removes the access log. SIGUSR1 makes it again.
#[track_caller]
fn make_again(server: &Server, log: &Path) {
    fs::remove_file(log).unwrap();
    server.signal(libc::SIGUSR1);
    let give_up = Instant::now() + PATIENCE;
    while !log.exists() {
        assert!(Instant::now() < give_up, "SIGUSR1 makes no file");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn sigquit_drains() {
    let tree = tree();
    let server = Server::http(tree.path(), &[]);
    server.signal(libc::SIGQUIT);
    let ended = server.wait().cleanly();
    assert!(ended.stderr.contains("draining: "), "{}", ended.stderr);
}

#[test]
fn signals_without_an_effect_say_so() {
    let tree = tree();
    let server = Server::http(tree.path(), &["--access-log", "-"]);
    for signal in [libc::SIGHUP, libc::SIGUSR1, libc::SIGUSR2] {
        server.signal(signal);
        get(&server);
    }
    let ended = server.stop().cleanly();
    for said in [
        "SIGHUP: reloaded: generation 2, no value has changed",
        "SIGUSR1: no file is written that could be opened again",
        "SIGUSR2: handing over to a new binary is not supported yet",
    ] {
        assert!(ended.stderr.contains(said), "{said}: {}", ended.stderr);
    }
}

#[test]
fn a_rotated_access_log_is_made_again() {
    let tree = tree();
    let folder = tempfile::tempdir().unwrap();
    let (path, old) = (folder.path().join("log"), folder.path().join("log.1"));
    let server = Server::http(tree.path(), &["--access-log", path.to_str().unwrap()]);
    get(&server);
    wait_for_content(&path);
    // Without a signal a later line makes it again, with one it is there at once.
    fs::rename(&path, &old).unwrap();
    get(&server);
    wait_for_content(&path);
    make_again(&server, &path);
    get(&server);
    server.stop().cleanly();
    for path in [&path, &old] {
        assert_eq!(fs::read_to_string(path).unwrap().lines().count(), 1, "{}", path.display());
    }
}

#[test]
fn a_terminal_that_hangs_up_starts_a_drain() {
    let tree = tree();
    // SAFETY: the descriptor is new and owned by nobody else.
    let terminal = unsafe {
        let terminal = libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC);
        assert!(terminal >= 0 && libc::unlockpt(terminal) == 0, "a pseudo-terminal");
        File::from_raw_fd(terminal)
    };
    let mut name = [0; 64];
    // SAFETY: the buffer has this length.
    let named = unsafe { libc::ptsname_r(terminal.as_raw_fd(), name.as_mut_ptr(), name.len()) };
    assert_eq!(named, 0);
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let (dir, path) = (tree.path().to_str().unwrap(), log.to_str().unwrap());
    let mut daemon = command(&["http", dir, "--listen", "127.0.0.1:0", "--access-log", path]);
    // SAFETY: setsid and open may be called between fork and exec (signal-safety(7)). The leader of
    // a session gets the first terminal that it opens as its controlling terminal.
    unsafe {
        daemon.pre_exec(move || {
            if libc::setsid() < 0 || libc::open(name.as_ptr(), libc::O_RDWR) < 0 {
                return Err(std::io::Error::last_os_error());
            }
            Ok(())
        });
    }
    let server = Server::start(&mut daemon, "http");
    server.signal(libc::SIGHUP);
    // The new file shows that both signals were handled while the terminal was there.
    make_again(&server, &log);
    drop(terminal);
    let ended = server.wait().cleanly();
    assert!(ended.stderr.contains("SIGHUP: reloaded"), "{}", ended.stderr);
    assert!(ended.stderr.contains("draining: "), "{}", ended.stderr);
}

#[test]
fn an_ignored_sighup_stays_ignored() {
    let tree = tree();
    let mut daemon = command(&["http", tree.path().to_str().unwrap(), "--listen", "127.0.0.1:0"]);
    // SAFETY: signal may be called between fork and exec (signal-safety(7)).
    unsafe {
        daemon.pre_exec(|| {
            libc::signal(libc::SIGHUP, libc::SIG_IGN);
            Ok(())
        });
    }
    let server = Server::start(&mut daemon, "http");
    server.signal(libc::SIGHUP);
    get(&server);
    let ended = server.stop().cleanly();
    assert!(!ended.stderr.contains("SIGHUP"), "{}", ended.stderr);
}
