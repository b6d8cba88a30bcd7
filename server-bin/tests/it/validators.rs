//! No validator ever stands for two versions of a file.

use crate::common::{PATIENCE, Reply, Server, tree};
use std::fs::{self, File, FileTimes};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const BYTES: usize = 1_000;

/// The ways in which a file of the same size gets other contents and the same time of modification.
const WAYS: [fn(&Path, &[u8]); 5] = [edit, rewrite, recreate, replace, restore];

fn edit(path: &Path, contents: &[u8]) {
    use std::os::unix::fs::FileExt as _;
    File::options().write(true).open(path).unwrap().write_all_at(contents, 0).unwrap();
}

fn rewrite(path: &Path, contents: &[u8]) {
    fs::write(path, contents).unwrap();
}

/// ext4 gives the same inode out again.
fn recreate(path: &Path, contents: &[u8]) {
    fs::remove_file(path).unwrap();
    fs::write(path, contents).unwrap();
}

fn replace(path: &Path, contents: &[u8]) {
    let new = path.with_extension("new");
    fs::write(&new, contents).unwrap();
    set_time(&new);
    fs::rename(new, path).unwrap();
}

fn restore(path: &Path, contents: &[u8]) {
    let backup = path.with_extension("backup");
    fs::write(&backup, contents).unwrap();
    set_time(&backup);
    fs::remove_file(path).unwrap();
    fs::hard_link(&backup, path).unwrap();
    fs::remove_file(backup).unwrap();
}

/// As archives and build tools set it.
fn set_time(path: &Path) {
    let times = FileTimes::new().set_modified(UNIX_EPOCH + Duration::from_secs(1_600_000_000));
    File::options().write(true).open(path).unwrap().set_times(times).unwrap();
}

#[test]
fn no_304_and_no_206_mixes_versions() {
    let tree = tree();
    let path = tree.path().join("app.js");
    fs::write(&path, "").unwrap();
    for arguments in [&["--shards", "1"][..], &["--shards", "1", "--open-files", "0"]] {
        let server = Server::http(tree.path(), arguments);
        let mut tags = 0;
        for round in 0..150_u8 {
            let (old, new) = ([b'a' + round % 2; BYTES], [b'b' - round % 2; BYTES]);
            let change = WAYS[usize::from(round) % WAYS.len()];
            fs::write(&path, old).unwrap();
            set_time(&path);
            // Half of the files are settled when they are first seen, and the pauses differ.
            if round % 4 < 2 {
                thread::sleep(Duration::from_millis(25));
            }
            let first = server.get("/app.js", "Range: bytes=0-499\r\n");
            assert_eq!((first.status, &first.body[..]), (206, &old[..500]));
            thread::sleep(Duration::from_micros(400 * u64::from(round % 10)));
            change(&path, &new);
            set_time(&path);
            // The new version has a weak tag at first, and a strong one then.
            if round % 3 == 0 {
                thread::sleep(Duration::from_millis(25));
            }
            tags += usize::from(first.field("etag").starts_with('"'));
            for (name, validator) in [("etag", "If-None-Match"), ("etag", "If-Match")] {
                let Some(tag) = first.fields.get(name) else { continue };
                let reply = server.get("/app.js", &format!("{validator}: {tag}\r\n"));
                let expected = if validator == "If-Match" { 412 } else { 200 };
                assert_eq!(reply.status, expected, "{validator} in round {round}");
            }
            for name in ["etag", "last-modified"] {
                let Some(validator) = first.fields.get(name) else { continue };
                let fields = format!("Range: bytes=500-\r\nIf-Range: {validator}\r\n");
                let rest = server.get("/app.js", &fields);
                assert_eq!((rest.status, &rest.body[..]), (200, &new[..]), "{name}, round {round}");
            }
        }
        assert!(tags >= 70, "{tags} replies had a strong tag");
        server.stop().cleanly();
    }
}

#[test]
fn a_file_that_has_just_changed_has_a_weak_tag() {
    let tree = tree();
    let path = tree.path().join("ten.txt");
    let server = Server::http(tree.path(), &["--shards", "1"]);
    let mut client = server.client();
    let give_up = Instant::now() + PATIENCE;
    loop {
        let begun = Instant::now();
        fs::write(&path, "abcdefghij").unwrap();
        let tag = client.request("GET", "/ten.txt").field("etag").to_owned();
        // On a busy machine it may have settled.
        if begun.elapsed() < Duration::from_millis(20) {
            assert!(tag.starts_with("W/\""), "{tag}");
            thread::sleep(Duration::from_millis(25));
            let again = client
                .ask(&format!("GET /ten.txt HTTP/1.1\r\nHost: x\r\nIf-None-Match: {tag}\r\n\r\n"));
            assert_eq!(again.status, 200);
            assert!(again.field("etag").starts_with('"'), "{again:?}");
            break;
        }
        assert!(Instant::now() < give_up, "no reply comes within 20 ms");
    }
    drop(client);
    server.stop().cleanly();
}

#[test]
fn a_file_that_stays_keeps_its_tag() {
    let tree = tree();
    let arguments = ["--shards", "1"];
    let server = Server::http(tree.path(), &arguments);
    let tag = server.get("/ten.txt", "").field("etag").to_owned();
    let unchanged = |reply: &Reply| (reply.status, reply.field("etag").to_owned());
    for _ in 0..3 {
        let reply = server.get("/ten.txt", &format!("If-None-Match: {tag}\r\n"));
        assert_eq!(unchanged(&reply), (304, tag.clone()));
    }
    server.stop().cleanly();
    // After a restart, too.
    let server = Server::http(tree.path(), &arguments);
    let reply = server.get("/ten.txt", &format!("If-None-Match: {tag}\r\n"));
    assert_eq!(unchanged(&reply), (304, tag));
    server.stop().cleanly();
}

#[test]
fn a_date_counts_only_if_it_is_the_very_date() {
    let tree = tree();
    let server = Server::http(tree.path(), &["--shards", "1"]);
    let path = tree.path().join("ten.txt");
    let since = |seconds: u64| {
        let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds));
        server.get("/ten.txt", &format!("If-Modified-Since: {date}\r\n")).status
    };
    let set = |seconds: u64| {
        let times = FileTimes::new().set_modified(UNIX_EPOCH + Duration::from_secs(seconds));
        File::options().write(true).open(&path).unwrap().set_times(times).unwrap();
    };
    set(1_600_000_000);
    assert_eq!([1, 0, 2].map(|offset| since(1_599_999_999 + offset)), [304, 200, 200]);
    // Reproducible archives: the date says nothing.
    for seconds in [0, 1] {
        set(seconds);
        assert_eq!((since(seconds), since(1_600_000_000)), (200, 200));
        assert!(!server.get("/ten.txt", "").fields.contains_key("last-modified"));
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    set(now + 1_000);
    assert_eq!(since(now + 1_000), 200, "a date in the future");
    server.stop().cleanly();
}
