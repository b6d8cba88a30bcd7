//! Files put: on good servers, and on such as misbehave in one way each.

use crate::support::packets::{DATA, DIGEST_FILE, Files, PUT, Request, error, files, packet};
use crate::support::transfers::{Folder, change, failed, good, moved, noise, put, start_put};
use crate::support::{SOON, STARTED_MAX};
use std::fs::File;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::{Arc, mpsc};
use std::time::Duration;

#[test]
fn files_of_every_size_arrive() {
    let (folder, there) = (Folder::new(), Files::default());
    let address = good(&there);
    for size in [0, 1, 4 << 20, (4 << 20) + 1, 9_999_999] {
        let bytes = noise(size);
        let file = folder.write(&format!("{size}.bin"), &bytes);
        let ended = put(address, &file, "");
        moved(&ended, &bytes);
        assert_eq!(ended.report["verification"], "same", "{ended}");
        assert_eq!(ended.report["sha256"], ended.report["server_sha256"], "{ended}");
        assert!(ended.stdout.contains("same as the server's"), "{ended}");
        let there = there.lock().expect("no panic");
        assert!(there[format!("{size}.bin").as_bytes()] == bytes, "{ended}");
    }
}

#[test]
fn a_name_of_its_own_and_a_name_that_is_taken() {
    let (folder, there) = (Folder::new(), files("there", b"old"));
    let address = good(&there);
    let file = folder.write("here", b"new");
    let ended = put(address, &file, "--as there");
    let says = "error 6 EXISTS: the name is taken: there; use --replace if the server allows it";
    failed(&ended, "bad_status", says);
    assert!(ended.stdout.contains("the server has not confirmed the file"), "{ended}");
    assert_eq!(there.lock().expect("no panic")[&b"there"[..]], b"old");
    moved(&put(address, &file, "--as there --replace"), b"new");
    assert_eq!(there.lock().expect("no panic")[&b"there"[..]], b"new");
    let address = change(&there, PUT, |request, _| Some(error(request.id, 6, "it is there")));
    let ended = put(address, &file, "--as there --replace");
    let says = "error 6 EXISTS: it is there: there; the server does not allow replacing";
    failed(&ended, "bad_status", says);
}

#[test]
fn a_server_without_workers_is_no_error() {
    let folder = Folder::new();
    let file = folder.write("here", b"hello");
    let address = change(&Files::default(), DIGEST_FILE, |request, _| {
        Some(error(request.id, 11, "no workers"))
    });
    let ended = put(address, &file, "");
    moved(&ended, b"hello");
    assert_eq!(ended.report["verification"], "no_workers", "{ended}");
    assert!(ended.stdout.contains("not compared: the server has no workers"), "{ended}");
}

#[test]
fn a_digest_is_not_asked_for_when_it_is_not_wanted() {
    let folder = Folder::new();
    let file = folder.write("here", b"hello");
    let address = change(&Files::default(), DIGEST_FILE, |_, _| panic!("asked for"));
    let ended = put(address, &file, "--no-verify");
    moved(&ended, b"hello");
    assert_eq!(ended.report["verification"], "not_asked", "{ended}");
}

#[test]
fn another_digest_than_ours() {
    let folder = Folder::new();
    let file = folder.write("here", &noise(100_000));
    let address = change(&Files::default(), DIGEST_FILE, |request, _| {
        Some(packet(0x82, request.id, &[0xab; 32]))
    });
    let ended = put(address, &file, "");
    failed(&ended, "wrong_bytes", &format!("that of the server's file is {}", "ab".repeat(32)));
    assert_eq!(ended.report["verification"], "different", "{ended}");
    assert!(ended.stdout.contains("differs from the server's"), "{ended}");
    assert!(ended.stdout.contains("FAILED: the file is on the server."), "{ended}");
}

#[test]
fn what_a_server_says_at_the_wrong_moment() {
    let folder = Folder::new();
    // More than the sockets take: the end is far when the server begins.
    let file = folder.path("here");
    File::create(&file).and_then(|file| file.set_len(64 << 20)).expect("room for nothing");
    let stored = |request: &Request, _| Some(packet(0x89, request.id, b""));
    for (kind, how, says) in [
        (
            PUT,
            stored as fn(&Request, Vec<u8>) -> Option<Vec<u8>>,
            "unexpected STORED after 0 of 67108864 bytes",
        ),
        (DATA, stored, "STORED after"),
        (PUT, |_, answer| Some(answer.repeat(2)), "ACCEPTED after"),
        (PUT, |request, _| Some(packet(0x86, request.id, &[0; 16])), "OFFER after"),
        (
            PUT,
            |_, _| Some(packet(0x88, [0, 0, 0, 9], b"")),
            "ACCEPTED 9 answers no pending request",
        ),
        (PUT, |_, _| Some(packet(0x82, [0, 0, 0, 2], &[0; 32])), "DIGESTED 2 answers no pending"),
        (PUT, |_, _| Some(vec![0, 1, 0, 1]), "is too long"),
        (PUT, |request, _| Some(packet(0x42, request.id, b"")), "type 0x42"),
        (DIGEST_FILE, |_, _| Some(packet(0x89, [0, 0, 0, 1], b"")), "STORED 1 answers no pending"),
    ] {
        failed(&put(change(&Files::default(), kind, how), &file, ""), "protocol", says);
    }
}

#[test]
fn a_server_that_gives_up() {
    let folder = Folder::new();
    let file = folder.write("here", &noise(9 << 20));
    for (kind, code, says) in [
        (PUT, 15, "error 15 READ_ONLY: no"),
        (DATA, 8, "error 8 DISK_FULL: no"),
        (DIGEST_FILE, 10, "error 10 BUSY: no"),
        // That it has no workers is no excuse before the file is there.
        (PUT, 11, "error 11 NO_WORKERS: no"),
    ] {
        let address =
            change(&Files::default(), kind, move |request, _| Some(error(request.id, code, "no")));
        let ended = put(address, &file, "");
        failed(&ended, "bad_status", says);
        let is_there = ended.stdout.contains("the file is on the server");
        assert_eq!(is_there, kind == DIGEST_FILE, "{ended}");
    }
    let address = change(&Files::default(), PUT, |_, _| Some(error([0, 0, 0, 2], 11, "no")));
    failed(&put(address, &file, ""), "bad_status", "error 11 NO_WORKERS: no");
    let address = change(&Files::default(), PUT, |_, _| None);
    failed(&put(address, &file, ""), "eof", "closed the connection (FIN) after 0 of 9437184 bytes");
    let address = change(&Files::default(), DIGEST_FILE, |_, _| None);
    failed(&put(address, &file, ""), "eof", "after 9437184 of 9437184 bytes");
}

#[test]
fn a_server_that_says_nothing() {
    let folder = Folder::new();
    let file = folder.write("here", &noise(1 << 20));
    for kind in [PUT, DATA, DIGEST_FILE] {
        let address = change(&Files::default(), kind, |_, _| Some(Vec::new()));
        let ended = put(address, &file, "--timeout 300ms");
        failed(&ended, "timeout", "no data for");
        assert!(ended.took < SOON, "{ended}");
    }
}

#[test]
fn a_file_that_shrinks_while_it_is_sent() {
    let folder = Folder::new();
    let path = folder.path("here");
    let file = File::create(&path).expect("a file");
    file.set_len(256 << 20).expect("room for nothing");
    let file = Arc::new(file);
    let address = change(&Files::default(), PUT, move |_, answer| {
        file.set_len(6 << 20).expect("our own file");
        Some(answer)
    });
    let says = format!("{} became shorter during the upload", path.display());
    failed(&put(address, &path, ""), "other", &says);
}

/// A server that takes the first chunk, says so, and reads nothing from then on.
fn stuck(there: &Files) -> (SocketAddr, mpsc::Receiver<()>) {
    let (sender, receiver) = mpsc::channel();
    let address = change(there, DATA, move |_, _| {
        sender.send(()).expect("the test waits");
        loop {
            std::thread::park();
        }
    });
    (address, receiver)
}

#[test]
fn a_server_that_reads_nothing() {
    let folder = Folder::new();
    let path = folder.path("here");
    File::create(&path).and_then(|file| file.set_len(256 << 20)).expect("room for nothing");
    let (address, _receiver) = stuck(&Files::default());
    let ended = put(address, &path, "--timeout 300ms");
    failed(&ended, "timeout", "the server took no data for 300.0ms after");
    assert!(ended.took < SOON, "{ended}");
}

#[test]
fn an_interrupt_ends_it_at_once() {
    let folder = Folder::new();
    let path = folder.path("here");
    File::create(&path).and_then(|file| file.set_len(256 << 20)).expect("room for nothing");
    let there = Files::default();
    let (address, receiver) = stuck(&there);
    let running = start_put(address, &path, "");
    receiver.recv_timeout(STARTED_MAX).expect("it runs");
    running.signal(libc::SIGINT);
    let ended = running.end();
    assert_eq!((ended.status, &ended.report["outcome"]), (130, &"interrupted".into()), "{ended}");
    assert!(ended.stdout.contains("INTERRUPTED: the server has not confirmed"), "{ended}");
    assert!(ended.took < SOON, "{ended}");
    assert!(there.lock().expect("no panic").is_empty());
}

#[test]
fn progress_is_a_line_per_second_unless_quiet() {
    let folder = Folder::new();
    let file = folder.write("here", &noise(1 << 20));
    let address = change(&Files::default(), DATA, |_, answer| {
        std::thread::sleep(Duration::from_millis(1_200));
        Some(answer)
    });
    let ended = put(address, &file, "");
    moved(&ended, &noise(1 << 20));
    let lines: Vec<&str> = ended.stderr.lines().collect();
    assert!(lines.len() >= 2, "{ended}");
    assert!(lines[0].contains("put ") && lines[0].contains(" as here"), "{ended}");
    assert!(lines[1].contains("1.05 MB of  1.05 MB   100%"), "{ended}");
    assert_eq!(put(address, &file, "--quiet --replace").stderr, "");
}

#[test]
fn a_bar_is_drawn_on_a_terminal() {
    let folder = Folder::new();
    let file = folder.write("here", &noise(1 << 20));
    let address = change(&Files::default(), DATA, |_, answer| {
        std::thread::sleep(Duration::from_millis(500));
        Some(answer)
    });
    let (mut terminal, child_side) = crate::support::terminal();
    let status = Command::new(env!("CARGO_BIN_EXE_ringload"))
        .args(["packets", &address.to_string(), "put"])
        .arg(&file)
        .env("TERM", "xterm")
        .stdout(std::process::Stdio::null())
        .stderr(child_side)
        .status()
        .expect("the program starts");
    assert_eq!(status.code(), Some(0));
    let shown = crate::support::read_terminal(&mut terminal);
    assert!(shown.contains("100% █") && shown.contains("1.05 MB of 1.05 MB"), "{shown:?}");
    assert!(!shown.contains("1.0s"), "{shown:?}");
}

#[test]
fn what_cannot_be_put() {
    let (folder, address) = (Folder::new(), good(&Files::default()));
    let ended = put(address, &folder.path("not-there"), "");
    assert!(ended.status == 2 && ended.stderr.contains("No such file"), "{ended}");
    let ended = put(address, &folder.path(""), "--as x");
    assert!(ended.status == 2 && ended.stderr.contains("is not a regular file"), "{ended}");
    let ended = put(address, &folder.write("here", b""), "--as ../x");
    assert!(ended.status == 2 && ended.stderr.contains("without slashes"), "{ended}");
}
