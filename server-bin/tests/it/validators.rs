//! No validator ever stands for two versions of a file.

use crate::common::{Modes, PATIENCE, Reply, Server, tree};
use std::collections::HashSet;
use std::fs::{self, File, FileTimes};
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use twox_hash::XxHash3_128;

/// A file whose tag is a digest of its contents, and one that is too large for that.
const SMALL: usize = 1_000;
const LARGE: usize = 40_000;

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
    for (bytes, open_files) in [(SMALL, "1024"), (SMALL, "0"), (LARGE, "1024"), (LARGE, "0")] {
        let server = Server::http(tree.path(), &["--shards", "1", "--open-files", open_files]);
        let mut tags = 0;
        for round in 0..150_u8 {
            let (old, new) = (vec![b'a' + round % 2; bytes], vec![b'b' - round % 2; bytes]);
            let change = WAYS[usize::from(round) % WAYS.len()];
            fs::write(&path, &old).unwrap();
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
            // A large one has a weak tag at first, and a strong one then.
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
        assert!(tags >= if bytes == SMALL { 150 } else { 70 }, "{tags} replies had a strong tag");
        server.stop().cleanly();
    }
}

#[test]
fn a_large_file_that_has_just_changed_has_a_weak_tag() {
    let tree = tree();
    let path = tree.path().join("large.txt");
    let server = Server::http(tree.path(), &["--shards", "1"]);
    let mut client = server.client();
    let give_up = Instant::now() + PATIENCE;
    loop {
        let begun = Instant::now();
        fs::write(&path, [b'a'; LARGE]).unwrap();
        let tag = client.request("GET", "/large.txt").field("etag").to_owned();
        // On a busy machine it may have settled.
        if begun.elapsed() < Duration::from_millis(20) {
            assert!(tag.starts_with("W/\""), "{tag}");
            thread::sleep(Duration::from_millis(25));
            let again = client.ask(&format!(
                "GET /large.txt HTTP/1.1\r\nHost: x\r\nIf-None-Match: {tag}\r\n\r\n"
            ));
            assert_eq!(again.status, 200);
            assert!(again.field("etag").starts_with('"'), "{again:?}");
            break;
        }
        assert!(Instant::now() < give_up, "no reply comes within 20 ms");
    }
    drop(client);
    server.stop().cleanly();
}

/// The tag of these contents.
fn tag_of(contents: &[u8]) -> String {
    format!("\"{:032x}\"", XxHash3_128::oneshot(contents))
}

/// Ends a thread when dropped.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Also while the file is being changed, and for parts.
#[test]
fn a_small_file_has_the_tag_of_the_bytes_that_are_sent() {
    let tree = tree();
    let path = tree.path().join("app.js");
    let is_over = AtomicBool::new(false);
    for open_files in ["1024", "0"] {
        let server = Server::http(tree.path(), &["--shards", "1", "--open-files", open_files]);
        fs::write(&path, [b'a'; SMALL]).unwrap();
        is_over.store(false, Ordering::Relaxed);
        let seen = thread::scope(|scope| {
            scope.spawn(|| {
                let mut pause_us = 0;
                for (version, change) in (b'a'..=b'z').cycle().zip(WAYS.iter().cycle()) {
                    if is_over.load(Ordering::Relaxed) {
                        return;
                    }
                    change(&path, &[version; SMALL]);
                    set_time(&path);
                    pause_us = (pause_us + 1_700) % 30_000;
                    thread::sleep(Duration::from_micros(pause_us));
                }
            });
            // Also after a check that fails: the scope waits for the thread.
            let _over = Over(&is_over);
            let mut client = server.client();
            let mut ask = |fields: &str| {
                client.ask(&format!("GET /app.js HTTP/1.1\r\nHost: x\r\n{fields}\r\n"))
            };
            let mut seen = HashSet::new();
            let give_up = Instant::now() + PATIENCE;
            while seen.len() < 20 && Instant::now() < give_up {
                // One way removes the file for a moment, another one empties it.
                let reply = ask("");
                if reply.status == 404 {
                    continue;
                }
                let tag = tag_of(&reply.body);
                assert_eq!((reply.status, reply.field("etag")), (200, &*tag));
                let part = ask(&format!("Range: bytes=500-\r\nIf-Range: {tag}\r\n"));
                match part.status {
                    206 => assert_eq!(part.body, reply.body[500..]),
                    200 => assert_eq!(part.field("etag"), tag_of(&part.body)),
                    status => assert!(matches!(status, 404 | 416), "{part:?}"),
                }
                let again = ask(&format!("If-None-Match: {tag}\r\n"));
                match again.status {
                    304 => assert_eq!(again.field("etag"), tag),
                    200 => assert_eq!(again.field("etag"), tag_of(&again.body)),
                    status => assert_eq!(status, 404),
                }
                seen.insert(tag);
            }
            seen.len()
        });
        assert_eq!(seen, 20, "versions in {PATIENCE:?}");
        server.stop().cleanly();
    }
}

/// On a disk and in memory, where the page cache cannot be asked for a range; as the file is
/// opened, and while it stays open; after the page cache was emptied.
#[test]
fn two_copies_have_one_tag() {
    assert_eq!(tag_of(b""), "\"99aa06d3014798d86001c324468d497f\"", "as every server has it");
    let contents: [&[u8]; 4] = [b"", b"one", &[b'x'; 8_192], &[b'y'; 16 << 10]];
    let make = |top: &Path, modified_s: u64| {
        for content in contents {
            let path = top.join(content.len().to_string());
            fs::write(&path, content).unwrap();
            let times = FileTimes::new().set_modified(UNIX_EPOCH + Duration::from_secs(modified_s));
            let file = File::options().write(true).open(&path).unwrap();
            file.set_times(times).unwrap();
            file.sync_all().unwrap();
            // SAFETY: no pointers.
            let gone =
                unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
            assert_eq!(gone, 0);
        }
    };
    let trees = [tempfile::tempdir().unwrap(), tempfile::tempdir_in("/dev/shm").unwrap()];
    make(trees[0].path(), 1_500_000_000);
    make(trees[1].path(), 1_600_000_000);
    thread::sleep(Duration::from_millis(60));
    for (tree, open_files) in trees.iter().flat_map(|tree| [(tree, "1024"), (tree, "0")]) {
        let server = Server::http(tree.path(), &["--shards", "1", "--open-files", open_files]);
        for _ in 0..3 {
            for content in contents {
                let target = format!("/{}", content.len());
                let reply = server.get(&target, "");
                assert_eq!(reply.field("etag"), tag_of(content), "{target}");
                assert!(reply.body == content, "{target}");
                let tag = tag_of(content);
                let reply = server.get(&target, &format!("If-None-Match: {tag}\r\n"));
                assert_eq!(reply.status, 304, "{target}");
            }
        }
        server.stop().cleanly();
    }
}

/// The length of a file is that of its contents, or nobody is told one.
#[test]
fn files_of_the_kernel_are_sent_as_they_are_read() {
    // statx(2) says 4,096 bytes, and 0 bytes.
    for (dir, name) in [("/sys/devices/system/cpu", "possible"), ("/proc/sys/kernel", "ostype")] {
        let expected = fs::read(Path::new(dir).join(name)).unwrap();
        let told = fs::metadata(Path::new(dir).join(name)).unwrap().len();
        assert_ne!(told, expected.len() as u64);
        let server = Server::http(Path::new(dir), &["--shards", "1"]);
        let mut client = server.client();
        for _ in 0..3 {
            let reply = client.request("GET", &format!("/{name}"));
            assert_eq!((reply.status, &reply.body), (200, &expected));
            assert_eq!(reply.field("etag"), tag_of(&expected));
            // Its times are not those of its contents.
            assert!(!reply.fields.contains_key("last-modified"), "{reply:?}");
            let head = client.request("HEAD", &format!("/{name}"));
            assert_eq!(head.field("content-length"), expected.len().to_string());
        }
        let part = server.get(&format!("/{name}"), "Range: bytes=-2\r\n");
        assert_eq!((part.status, &part.body[..]), (206, &expected[expected.len() - 2..]));
        drop(client);
        server.stop().cleanly();
    }
    // It is too long to be read before the reply, and its length is not known.
    let server = Server::http(Path::new("/proc"), &["--shards", "1"]);
    let mut client = server.client();
    assert_eq!(client.request("GET", "/kallsyms").status, 500);
    assert_eq!(client.request("GET", "/sys/kernel/ostype").body, b"Linux\n", "it goes on");
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
