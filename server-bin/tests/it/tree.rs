//! The tree that is served: what must stay inside, what must not hang, what is large.

use crate::common::{Client, Modes, PATIENCE, Server, pattern, takes_less_than, tree};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::symlink;
use std::thread;
use std::time::{Duration, Instant};

const LARGE: u64 = 100 << 20;

#[test]
fn nothing_outside_and_nothing_hidden_is_shown() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "secret").unwrap();
    let tree = tree();
    let root = tree.path();
    symlink(outside.path().join("secret"), root.join("link")).unwrap();
    symlink(outside.path(), root.join("folder")).unwrap();
    symlink("ten.txt", root.join("inner")).unwrap();
    symlink("/", root.join("root")).unwrap();
    let server = Server::http(root, &["--shards", "1"]);
    let name = outside.path().file_name().unwrap().to_str().unwrap();
    for (target, status) in [
        ("/link", 404),
        ("/folder/secret", 404),
        ("/inner", 404),
        ("/root/etc/passwd", 404),
        ("/../etc/passwd", 404),
        (&format!("/../{name}/secret"), 404),
        (&format!("/%2e%2e/{name}/secret"), 404),
        (&format!("/..%2f{name}/secret"), 400),
        (&format!("/sub/../../{name}/secret"), 404),
        ("//etc/passwd", 404),
        ("/.hidden", 404),
        ("/%2ehidden", 404),
        ("/sub/.git/config", 404),
        ("/sub/../.hidden", 404),
        ("/./sub/./.git/config", 404),
    ] {
        let reply = server.get(target, "");
        assert_eq!(reply.status, status, "{target}");
        assert!(!String::from_utf8_lossy(&reply.body).contains("secret"), "{target}");
    }
    assert_eq!(server.get("/ten.txt", "").status, 200);
    server.stop().cleanly();
}

#[test]
fn well_known_files_at_the_top_are_shown() {
    let tree = tree();
    let challenges = tree.path().join(".well-known/acme-challenge");
    fs::create_dir_all(&challenges).unwrap();
    fs::write(challenges.join("token"), "key").unwrap();
    fs::write(challenges.join(".hidden"), "secret").unwrap();
    fs::create_dir(tree.path().join("sub/.well-known")).unwrap();
    fs::write(tree.path().join("sub/.well-known/x"), "secret").unwrap();
    let server = Server::http(tree.path(), &["--shards", "1"]);
    assert_eq!(server.get("/.well-known/acme-challenge/token", "").body, b"key");
    assert_eq!(server.get("/.well-known", "").field("location"), "/.well-known/");
    for target in
        ["/.well-known/acme-challenge/.hidden", "/sub/.well-known/x", "/.well-known/../.hidden"]
    {
        assert_eq!(server.get(target, "").status, 404, "{target}");
    }
    server.stop().cleanly();
}

#[test]
fn what_is_no_file_neither_hangs_nor_shows() {
    let tree = tree();
    let path = tree.path().join("fifo");
    let name = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
    // SAFETY: the name is a valid C string for the duration of the call.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o644) }, 0);
    let _socket = std::os::unix::net::UnixListener::bind(tree.path().join("socket")).unwrap();
    let server = Server::http(tree.path(), &["--shards", "1"]);
    for target in ["/fifo", "/socket", "/fifo/x"] {
        assert_eq!(server.get(target, "").status, 404, "{target}");
    }
    server.stop().cleanly();
}

/// A file of 100 MiB, most of it a hole: known bytes at its ends and in the middle.
fn large_file(path: &std::path::Path) {
    let mut file = File::create(path).unwrap();
    file.set_len(LARGE).unwrap();
    for offset in [0, LARGE / 2 - 777, LARGE - 70_000] {
        file.seek(SeekFrom::Start(offset)).unwrap();
        file.write_all(&pattern(70_000)).unwrap();
    }
}

/// FNV-1a, eight bytes at a time.
fn checksum(mut source: impl Read, bytes: u64) -> u64 {
    let mut buffer = vec![0; 1 << 20];
    let mut left = bytes;
    let mut sum = 0xcbf2_9ce4_8422_2325_u64;
    while left > 0 {
        let step = buffer.len().min(left as usize);
        source.read_exact(&mut buffer[..step]).unwrap();
        for word in buffer[..step].chunks(8) {
            let mut padded = [0; 8];
            padded[..word.len()].copy_from_slice(word);
            sum = (sum ^ u64::from_le_bytes(padded)).wrapping_mul(0x0100_0000_01b3);
        }
        left -= step as u64;
    }
    sum
}

#[test]
fn a_large_file_arrives_as_it_is() {
    let tree = tree();
    let path = tree.path().join("large.bin");
    large_file(&path);
    let server = Server::http(tree.path(), &["--shards", "1"]);
    let mut client = server.client();
    client
        .send("GET /large.bin HTTP/1.1\r\nHost: x\r\n\r\nGET /ten.txt HTTP/1.1\r\nHost: x\r\n\r\n");
    let head = client.head();
    assert_eq!((head.status, head.field("content-length")), (200, "104857600"));
    let sum = checksum(&mut client.stream, LARGE);
    assert_eq!(sum, checksum(File::open(&path).unwrap(), LARGE));
    assert_eq!(client.reply(false).body, b"0123456789", "the reply behind it");
    drop(client);
    server.stop().cleanly();
}

#[test]
fn beyond_four_gigabytes_offsets_still_fit() {
    let tree = tree();
    let size = 5_u64 << 30;
    let mut file = File::create(tree.path().join("huge.bin")).unwrap();
    file.set_len(size).unwrap();
    file.seek(SeekFrom::Start(size - 500_000)).unwrap();
    file.write_all(&pattern(500_000)).unwrap();
    let server = Server::http(tree.path(), &["--shards", "1"]);
    let head = server.client().ask("HEAD /huge.bin HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(head.field("content-length"), size.to_string());
    let reply = server.get("/huge.bin", "Range: bytes=-500000\r\n");
    assert_eq!(
        reply.field("content-range"),
        format!("bytes {}-{}/{size}", size - 500_000, size - 1)
    );
    assert!(reply.body == pattern(500_000), "the end of a large file differs");
    server.stop().cleanly();
}

#[test]
fn sixty_stalled_downloads_hold_no_thread_and_nobody_up() {
    let tree = tree();
    large_file(&tree.path().join("large.bin"));
    let server = Server::http(tree.path(), &["--shards", "1"]);
    let idle_threads = server.threads();
    let stalled: Vec<Client> = (0..60)
        .map(|_| {
            let mut client = server.client();
            client.send("GET /large.bin HTTP/1.1\r\nHost: x\r\n\r\n");
            client
        })
        .collect();
    thread::sleep(Duration::from_millis(500));
    for target in ["/ten.txt", "/middle.bin", "/", "/nothing"] {
        takes_less_than(Duration::from_millis(50), || {
            let reply = server.get(target, "");
            assert!(matches!(reply.status, 200 | 404), "{target}");
        });
    }
    // Two classes of kernel workers, four each, and not one per download.
    let threads = server.threads();
    assert!(threads <= idle_threads + 2 * 4 + 2, "{idle_threads} threads became {threads}");
    // They were stalled, not forgotten.
    let sum = checksum(File::open(tree.path().join("large.bin")).unwrap(), LARGE);
    for mut client in stalled.into_iter().step_by(30) {
        assert_eq!(client.head().status, 200);
        assert_eq!(checksum(&mut client.stream, LARGE), sum);
    }
    server.stop().cleanly();
}

/// The reply before it and what is left of the file arrive, then a FIN. No reset destroys them, and
/// the reply behind the file does not fill the gap.
#[test]
fn a_file_cut_short_ends_its_own_connection_only() {
    // More than the sockets hold, so that the rest is read after the cut.
    const KEPT: u64 = LARGE - (1 << 20);
    let tree = tree();
    let path = tree.path().join("large.bin");
    large_file(&path);
    let server = Server::http(tree.path(), &["--shards", "1"]);
    let mut bystander = server.client();
    let small = "GET /ten.txt HTTP/1.1\r\nHost: x\r\n\r\n";
    assert_eq!(bystander.ask(small).status, 200);
    let mut client = server.client();
    client.send(format!("{small}GET /large.bin HTTP/1.1\r\nHost: x\r\n\r\n{small}"));
    assert_eq!(client.reply(false).body, b"0123456789");
    let head = client.head();
    assert_eq!((head.status, head.field("content-length")), (200, &*LARGE.to_string()));
    File::options().write(true).open(&path).unwrap().set_len(KEPT).unwrap();
    let sum = checksum(&mut client.stream, KEPT);
    assert_eq!(sum, checksum(File::open(&path).unwrap(), KEPT));
    client.is_at_its_end();
    assert_eq!(bystander.ask(small).status, 200);
    drop((client, bystander));
    let ended = server.stop().cleanly();
    assert!(ended.stderr.contains("\"file_truncated\":1"), "{}", ended.stderr);
}

#[test]
fn a_client_that_leaves_in_the_middle_is_cleaned_up_after() {
    let tree = tree();
    large_file(&tree.path().join("large.bin"));
    let server = Server::http(tree.path(), &["--shards", "1"]);
    assert_eq!(server.get("/ten.txt", "").status, 200);
    let before = server.descriptors();
    for _ in 0..20 {
        let mut client = server.client();
        client.send("GET /large.bin HTTP/1.1\r\nHost: x\r\n\r\n");
        let mut some = [0; 10_000];
        client.stream.read_exact(&mut some).unwrap();
    }
    let give_up = Instant::now() + PATIENCE;
    // Its idle pipes it may keep.
    while server.descriptors() > before + 2 * 20 {
        assert!(Instant::now() < give_up, "{before} became {}", server.descriptors());
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(server.get("/middle.bin", "").body, pattern(200_000));
    server.stop().cleanly();
}

#[test]
fn a_reader_that_stalls_is_cut_off_and_a_slow_one_is_not() {
    let tree = tree();
    large_file(&tree.path().join("large.bin"));
    let arguments = ["--write-timeout", "1s", "--shards", "1"];
    let server = Server::http(tree.path(), &arguments);
    let ask = || {
        let mut client = server.client();
        client.send("GET /large.bin HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(client.head().status, 200);
        client
    };
    let mut stalled = ask();
    let mut slow = ask();
    let mut left = LARGE;
    let mut buffer = vec![0; 1 << 20];
    // A hundred steps of 20 ms: twice the deadline in all.
    while left > 0 {
        let step = buffer.len().min(left as usize);
        slow.stream.read_exact(&mut buffer[..step]).unwrap();
        left -= step as u64;
        thread::sleep(Duration::from_millis(20));
    }
    let mut received = 0;
    while let Ok(bytes @ 1..) = stalled.stream.read(&mut buffer) {
        received += bytes as u64;
    }
    assert!(received < LARGE, "the stalled reader got everything");
    drop(slow);
    let ended = server.stop().cleanly();
    assert!(ended.stderr.contains("\"transfer_timeout\":1"), "{}", ended.stderr);
}
