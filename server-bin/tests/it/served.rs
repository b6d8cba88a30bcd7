//! The served folder is deleted and made again, replaced, or lost: its path decides.

use crate::common::{Modes, PATIENCE, Reply, Server, command};
use ringwrightd_test_support::daemon::nobody;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A file that has just changed is not kept open.
const SETTLED: Duration = Duration::from_millis(60);

/// A folder in which every user may look up names.
fn top() -> TempDir {
    let top = tempfile::tempdir().unwrap();
    fs::set_permissions(top.path(), Permissions::from_mode(0o755)).unwrap();
    top
}

/// A folder with one file.
fn release(path: PathBuf, content: &str) -> PathBuf {
    fs::create_dir_all(&path).unwrap();
    fs::write(path.join("a.txt"), content).unwrap();
    path
}

/// Files stay open for as long as they may: it is the folder that is looked up again.
fn start(path: &Path) -> Server {
    let server = Server::http(path, &["--shards", "2", "--open-files-valid", "1h"]);
    thread::sleep(SETTLED);
    for _ in 0..8 {
        assert_eq!(server.get("/a.txt", "").body, b"old");
    }
    server
}

/// Asks until the reply is as expected. From then on, every shard answers in that way.
#[track_caller]
fn until(server: &Server, expected: impl Fn(&Reply) -> bool) {
    let begun = Instant::now();
    let mut asking = server.client();
    while let reply = asking.request("GET", "/a.txt")
        && !expected(&reply)
    {
        assert!(begun.elapsed() < PATIENCE, "it stays {reply:?}");
        thread::sleep(Duration::from_millis(5));
    }
    for _ in 0..16 {
        let reply = server.get("/a.txt", "");
        assert!(expected(&reply), "again {reply:?}");
    }
}

#[track_caller]
fn until_new(server: &Server) {
    until(server, |reply| (reply.status, &reply.body[..]) == (200, b"new"));
}

#[test]
fn a_folder_that_is_deleted_and_made_again_is_served() {
    let top = top();
    let path = release(top.path().join("site"), "old");
    let server = start(&path);
    fs::remove_dir_all(&path).unwrap();
    release(path.clone(), "new");
    until_new(&server);
    let ended = server.stop().cleanly();
    let line = format!("the path {} leads to another folder now", path.display());
    assert!(ended.stderr.contains(&line), "{}", ended.stderr);
}

#[test]
fn a_folder_that_is_replaced_by_rename_is_served() {
    let top = top();
    let path = release(top.path().join("site"), "old");
    let next = release(top.path().join("next"), "new");
    symlink("a.txt", next.join("link")).unwrap();
    let server = start(&path);
    fs::rename(&path, top.path().join("before")).unwrap();
    fs::rename(&next, &path).unwrap();
    until_new(&server);
    // Nothing outside of the new one is shown either.
    for target in ["/link", "/../before/a.txt", "/%2e%2e/before/a.txt"] {
        assert_eq!(server.get(target, "").status, 404, "{target}");
    }
    server.stop().cleanly();
}

#[test]
fn the_folder_beneath_another_parent_is_served() {
    let top = top();
    let path = release(top.path().join("parent/site"), "old");
    release(top.path().join("next/site"), "new");
    let server = start(&path);
    fs::rename(top.path().join("parent"), top.path().join("before")).unwrap();
    fs::rename(top.path().join("next"), top.path().join("parent")).unwrap();
    until_new(&server);
    server.stop().cleanly();
}

#[test]
fn a_link_that_is_switched_leads_to_what_is_served() {
    let top = top();
    release(top.path().join("releases/1"), "old");
    release(top.path().join("releases/2"), "new");
    let (path, next) = (top.path().join("current"), top.path().join("next"));
    symlink("releases/1", &path).unwrap();
    let server = start(&path);
    let switch = |to: &str| {
        symlink(to, &next).unwrap();
        fs::rename(&next, &path).unwrap();
    };
    switch("releases/2");
    until_new(&server);
    let at_rest = server.descriptors();
    for _ in 0..3 {
        switch("releases/1");
        until(&server, |reply| reply.body == b"old");
        switch("releases/2");
        until_new(&server);
    }
    // Each shard lets the old folder and its files go. A client may still be leaving.
    let begun = Instant::now();
    while server.descriptors() > at_rest {
        assert!(begun.elapsed() < PATIENCE, "{at_rest} became {}", server.descriptors());
        thread::sleep(Duration::from_millis(5));
    }
    server.stop().cleanly();
}

#[test]
fn a_missing_folder_is_503_until_it_is_there_again() {
    let top = top();
    let path = release(top.path().join("site"), "old");
    let server = start(&path);
    let missing = |reply: &Reply| {
        reply.status == 503 && reply.fields.get("retry-after").is_some_and(|it| it == "1")
    };
    fs::rename(&path, top.path().join("away")).unwrap();
    until(&server, missing);
    assert_eq!(server.client().request("OPTIONS", "/a.txt").status, 204, "no file is needed");
    assert_eq!(server.client().request("HEAD", "/a.txt").status, 503);
    fs::write(&path, "a file of that name").unwrap();
    until(&server, missing);
    fs::remove_file(&path).unwrap();
    fs::rename(top.path().join("away"), &path).unwrap();
    until(&server, |reply| reply.body == b"old");
    let ended = server.stop().cleanly();
    let line = format!("cannot serve the folder {}: No such file", path.display());
    assert!(ended.stderr.contains(&line), "{}", ended.stderr);
}

/// The daemon in this working folder, as a user for whom permissions count.
fn start_in(working: &Path, dir: &[&str]) -> Server {
    let mut daemon = command(&[&["http", "--listen", "127.0.0.1:0"], dir].concat());
    // SAFETY: geteuid(2) has no arguments and cannot fail.
    if unsafe { libc::geteuid() } == 0 {
        daemon = nobody(daemon);
    }
    let daemon: &mut Command = daemon.current_dir(working);
    Server::start(daemon, "http")
}

#[test]
fn a_folder_that_may_not_be_looked_up_is_403_until_it_may() {
    let top = top();
    let path = release(top.path().join("parent/site"), "old");
    let server = start_in(Path::new("/"), &[path.to_str().unwrap()]);
    let mode = |mode| {
        let parent = top.path().join("parent");
        fs::set_permissions(parent, Permissions::from_mode(mode)).unwrap();
    };
    mode(0o600);
    until(&server, |reply| reply.status == 403);
    mode(0o755);
    until(&server, |reply| reply.body == b"old");
    server.stop().cleanly();
}

#[test]
fn a_relative_path_begins_at_the_working_folder() {
    let top = top();
    let path = release(top.path().join("site"), "old");
    // The default is the working folder.
    for (working, dir) in [(top.path(), &["site"][..]), (&path, &["."]), (&path, &[])] {
        let server = start_in(working, dir);
        assert_eq!(server.get("/a.txt", "").body, b"old");
        fs::remove_dir_all(&path).unwrap();
        release(path.clone(), "new");
        until_new(&server);
        server.stop().cleanly();
        release(path.clone(), "old");
    }
}
