//! Files got: from good servers, and from such as misbehave in one way each. Nothing may be left
//! behind.

use crate::support::packets::{DIGEST_FILE, GET, Request, TAKE, error, files, packet, packets};
use crate::support::transfers::{Folder, change, failed, get, good, moved, noise, start_get};
use crate::support::{SOON, STARTED_MAX, nobody, server};
use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

/// Bytes of a head of DATA: length, type, id, count.
const DATA_HEAD_BYTES: usize = 4 + 5 + 4;
/// The offset of the second DATA packet of an answer.
const SECOND: usize = DATA_HEAD_BYTES + (1 << 20);

fn pipe(path: &Path) {
    let name = CString::new(path.as_os_str().as_bytes()).expect("no NUL");
    // SAFETY: the path is a valid C string.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
}

#[test]
fn files_of_every_size_arrive() {
    for size in [0, 1, 256 << 10, 1 << 20, (1 << 20) + 1, 9_999_999] {
        let (folder, bytes) = (Folder::new(), noise(size));
        let address = good(&files("there", &bytes));
        let ended = get(address, &folder.path("here"), "");
        moved(&ended, &bytes);
        assert_eq!(ended.report["verification"], "same", "{ended}");
        assert_eq!(ended.report["plan"]["replace"], false, "{ended}");
        assert_eq!(folder.names(), ["here"]);
        assert!(std::fs::read(folder.path("here")).expect("a file") == bytes, "{ended}");
    }
}

#[test]
fn what_was_there_is_replaced_only_by_what_is_right() {
    let (folder, new) = (Folder::new(), noise(300_000));
    let there = files("there", &new);
    let here = folder.write("here", b"old");
    let bad = change(&there, DIGEST_FILE, |request, _| Some(packet(0x82, request.id, &[0xab; 32])));
    let ended = get(bad, &here, "");
    failed(&ended, "wrong_bytes", &format!("that of the server's file is {}", "ab".repeat(32)));
    assert!(ended.stdout.contains("no file was written"), "{ended}");
    assert_eq!(std::fs::read(&here).expect("a file"), b"old");
    // Through a link: what it leads to is replaced.
    let link = folder.path("link");
    symlink("here", &link).expect("a link");
    moved(&get(good(&there), &link, ""), &new);
    assert!(link.is_symlink());
    assert!(std::fs::read(&here).expect("a file") == new);
    assert_eq!(folder.names(), ["here", "link"]);
}

#[test]
fn a_digest_that_there_is_none_of() {
    let (folder, bytes) = (Folder::new(), noise(300_000));
    let there = files("there", &bytes);
    let address =
        change(&there, DIGEST_FILE, |request, _| Some(error(request.id, 11, "no workers")));
    let ended = get(address, &folder.path("here"), "");
    moved(&ended, &bytes);
    assert!(ended.stdout.contains("not compared: the server has no workers"), "{ended}");
    let address = change(&there, DIGEST_FILE, |_, _| panic!("asked for"));
    let ended = get(address, &folder.path("other"), "--no-verify");
    moved(&ended, &bytes);
    assert_eq!(ended.report["verification"], "not_asked", "{ended}");
    assert_eq!(folder.names(), ["here", "other"]);
}

#[test]
fn broadcasts_of_others_do_not_matter() {
    let (folder, bytes) = (Folder::new(), noise(300_000));
    let message = packet(0x90, [0; 4], b"hello, all");
    let address = change(&files("there", &bytes), TAKE, move |_, answer| {
        Some([&message[..], &answer, &message].concat())
    });
    moved(&get(address, &folder.path("here"), ""), &bytes);
}

#[test]
fn to_standard_output_goes_the_file_and_nothing_else() {
    let folder = Folder::new();
    let address = good(&files("there", b"hello, file\n"));
    let ended = get(address, Path::new("-"), "");
    assert_eq!((ended.status, &*ended.stdout), (0, "hello, file\n"), "{ended}");
    assert!(ended.stderr.contains("sha256  ") && ended.report["plan"]["file"].is_null(), "{ended}");
    // Nobody reads it: that is a failure like any other to write.
    let mut child = Command::new(env!("CARGO_BIN_EXE_ringload"))
        .args(["packets", &good(&files("there", &noise(9 << 20))).to_string()])
        .args(["get", "there", "--out", "-"])
        .current_dir(folder.path(""))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("its end");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("cannot write to standard output: Broken pipe"), "{said}");
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn a_refused_get_to_standard_output_has_written_nothing() {
    let ended = get(good(&files("other", b"")), Path::new("-"), "");
    assert_eq!((ended.status, &*ended.stdout), (1, ""), "{ended}");
    assert!(ended.stderr.contains("FAILED: no file was written."), "{ended}");
}

#[test]
fn what_was_written_before_it_failed_is_named() {
    let (folder, there) = (Folder::new(), files("there", &noise(2 << 20)));
    let out = folder.path("pipe");
    pipe(&out);
    // For both, so that the open does not wait.
    let mut reader = File::options().read(true).write(true).open(&out).expect("the pipe");
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = [0; 1 << 16];
        while reader.read(&mut bytes).is_ok() {
            let _ = sender.send(());
        }
    });
    let receiver = Arc::new(Mutex::new(receiver));
    let address = server(move |stream| {
        let mut writer = stream.try_clone().expect("a second descriptor");
        packets(stream, &there, |request, answer| {
            if request.kind != TAKE {
                return Some(answer);
            }
            writer.write_all(&answer[..SECOND]).ok()?;
            let written = receiver.lock().expect("no panic").recv_timeout(STARTED_MAX);
            written.expect("the first block");
            Some(error(request.id, 9, "a bad disk"))
        });
    });
    let ended = get(address, &out, "");
    failed(&ended, "bad_status", "error 9 FAILED: a bad disk");
    assert!(
        ended.stdout.contains("FAILED: the data that was written is not the complete file."),
        "{ended}"
    );
}

#[test]
fn a_full_disk_is_said_once() {
    let ended = get(good(&files("there", &noise(9 << 20))), Path::new("/dev/full"), "");
    failed(&ended, "other", "cannot write to /dev/full: No space left on device");
    assert!(!ended.stderr.contains("panicked"), "{ended}");
    assert!(ended.stdout.contains("FAILED: no file was written."), "{ended}");
}

#[test]
fn a_name_with_control_characters_is_shown_escaped() {
    let folder = Folder::new();
    let output = Command::new(env!("CARGO_BIN_EXE_ringload"))
        .args(["packets", &good(&files("nl\nx\u{1b}[2J", b"hello")).to_string(), "get"])
        .arg("nl\nx\u{1b}[2J")
        .current_dir(folder.path(""))
        .output()
        .expect("the program starts");
    assert_eq!(output.status.code(), Some(0));
    for said in [output.stdout, output.stderr] {
        let said = String::from_utf8_lossy(&said);
        assert!(said.contains(r"get nl\nx\u{1b}[2J into nl\nx\u{1b}[2J"), "{said:?}");
        assert!(!said.contains('\u{1b}'), "{said:?}");
    }
    assert_eq!(folder.names(), ["nl\nx\u{1b}[2J"]);
    // In a message too.
    let ended = Command::new(env!("CARGO_BIN_EXE_ringload"))
        .args(["packets", "127.0.0.1:1", "get", "x", "--out", "no\u{1b}/x"])
        .current_dir(folder.path(""))
        .output()
        .expect("the program starts");
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.code() == Some(2) && said.contains(r"no\u{1b}/x: No such"), "{said:?}");
}

#[test]
fn a_slow_reader_is_waited_for_and_a_pipe_stays_a_pipe() {
    let (folder, bytes) = (Folder::new(), noise(24 << 20));
    let out = folder.path("pipe");
    pipe(&out);
    let reader = thread::spawn({
        let out = out.clone();
        move || {
            let mut file = File::open(out).expect("the pipe");
            // Longer than --timeout: the server is not to blame.
            thread::sleep(Duration::from_secs(3));
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).expect("all of it");
            bytes
        }
    });
    let ended = get(good(&files("there", &bytes)), &out, "--timeout 2s");
    moved(&ended, &bytes);
    assert!(reader.join().expect("no panic") == bytes);
    let kind = std::fs::symlink_metadata(&out).expect("still there").file_type();
    assert!(kind.is_fifo() && folder.names() == ["pipe"]);
}

#[test]
fn a_chunk_that_is_not_what_it_should_be() {
    type Twist = fn(&Request, Vec<u8>) -> Vec<u8>;
    /// Replaces the byte count in the head of the DATA packet at `at`.
    fn recount(mut answer: Vec<u8>, at: usize, count: u32) -> Vec<u8> {
        answer[at + 9..at + DATA_HEAD_BYTES].copy_from_slice(&count.to_be_bytes());
        answer
    }
    let bytes = noise(3 << 19);
    let cases: [(Twist, &str); 8] = [
        (|_, answer| recount(answer, 0, 0), "DATA announces 0 bytes; 1572864 bytes are missing"),
        (|_, answer| recount(answer, 0, (1 << 20) + 1), "DATA announces 1048577 bytes"),
        (
            |_, answer| recount(answer, SECOND, 1 << 20),
            "DATA announces 1048576 bytes; 524288 bytes are missing",
        ),
        (
            |request, answer| [&answer[..SECOND], &packet(0x87, request.id, b"")].concat(),
            "SENT after 1048576 of 1572864 bytes",
        ),
        (
            |_, mut answer| {
                answer[8] ^= 2;
                answer
            },
            "DATA 3 answers no pending request",
        ),
        (|_, _| vec![0, 1, 0, 1], "is too long"),
        (|request, _| packet(0x89, request.id, b""), "STORED after 0 of 1572864 bytes"),
        // The speed of the disk decides if this is a late answer or an unexpected one.
        (|_, answer| answer.repeat(2), "DATA "),
    ];
    for (twist, says) in cases {
        let folder = Folder::new();
        let address = change(&files("there", &bytes), TAKE, move |request, answer| {
            Some(twist(request, answer))
        });
        let ended = get(address, &folder.path("here"), "");
        failed(&ended, "protocol", says);
        assert!(folder.names().is_empty(), "{:?}\n{ended}", folder.names());
    }
}

#[test]
fn a_server_that_gives_up() {
    let there = files("there", &noise(2 << 20));
    let folder = Folder::new();
    let here = folder.path("here");
    let address = good(&files("other", b""));
    failed(&get(address, &here, ""), "bad_status", "error 4 NO_SUCH_FILE: there is no such file");
    // In place of the next chunk.
    let address = change(&there, TAKE, |request, mut answer| {
        answer.truncate(SECOND);
        Some([answer, error(request.id, 9, "a bad disk")].concat())
    });
    failed(&get(address, &here, ""), "bad_status", "error 9 FAILED: a bad disk");
    // In the middle of a chunk there is no way to say why.
    let address = server({
        let there = there.clone();
        move |stream| {
            let mut writer = stream.try_clone().expect("a second descriptor");
            packets(stream, &there, |request, answer| {
                if request.kind != TAKE {
                    return Some(answer);
                }
                writer.write_all(&answer[..SECOND + DATA_HEAD_BYTES + 5_000]).ok()?;
                None
            });
        }
    });
    failed(&get(address, &here, ""), "eof", "(FIN) after 1053576 of 2097152 bytes");
    let address = change(&there, TAKE, |_, mut answer| {
        answer.truncate(SECOND + 5);
        Some(answer)
    });
    let ended = get(address, &here, "--timeout 1s");
    failed(&ended, "timeout", "after 1048576 of 2097152 bytes");
    assert!(ended.took < SOON, "{ended}");
    let address = change(&there, GET, |_, _| None);
    failed(&get(address, &here, ""), "eof", "(FIN) before the size was known");
    let offer = |size: u64, request: &Request| {
        packet(0x86, request.id, &[size.to_be_bytes(), [0; 8]].concat())
    };
    let address = change(&there, GET, move |request, _| Some(offer(u64::MAX, request)));
    failed(&get(address, &here, ""), "protocol", "OFFER announces 18446744073709551615 bytes");
    // In the middle of the packet that says the size.
    let address = server(move |mut stream| {
        let _ = stream.read(&mut [0; 100]);
        let _ = stream.write_all(&[0, 0, 0, 21, 0x86, 0, 0, 0, 1, 0]);
    });
    failed(&get(address, &here, ""), "eof", "(FIN) before the size was known");
    let address = change(&there, DIGEST_FILE, |_, _| None);
    failed(&get(address, &here, ""), "eof", "after 2097152 of 2097152 bytes");
    assert!(folder.names().is_empty(), "{:?}", folder.names());
}

#[test]
fn an_interrupt_leaves_nothing_behind() {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let folder = Folder::new();
        let (sender, receiver) = mpsc::channel();
        let address = change(&files("there", &noise(2 << 20)), TAKE, move |_, mut answer| {
            answer.truncate(1_500_000);
            sender.send(()).expect("the test waits");
            Some(answer)
        });
        let running = start_get(address, &folder.path("here"), "");
        receiver.recv_timeout(STARTED_MAX).expect("it runs");
        assert_eq!(folder.names().len(), 1, "beside its place meanwhile");
        running.signal(signal);
        let ended = running.end();
        assert_eq!(ended.status, 130, "{ended}");
        assert_eq!(ended.report["outcome"], "interrupted", "{ended}");
        assert!(ended.stdout.contains("INTERRUPTED: no file was written."), "{ended}");
        assert!(ended.took < SOON, "{ended}");
        assert!(folder.names().is_empty(), "{:?}", folder.names());
    }
}

#[test]
fn nobody_listens() {
    let folder = Folder::new();
    let ended = get(nobody(), &folder.path("here"), "");
    assert_eq!((ended.status, &ended.report["outcome"]), (3, &"unreachable".into()), "{ended}");
    assert_eq!(ended.report["error"]["kind"], "connect_refused", "{ended}");
    assert!(ended.stdout.contains("no connection could be established"), "{ended}");
    assert!(folder.names().is_empty(), "{:?}", folder.names());
}

#[test]
fn where_a_file_cannot_be_written() {
    let (folder, address) = (Folder::new(), good(&files("there", b"")));
    let ended = get(address, &folder.path(""), "");
    assert!(ended.status == 2 && ended.stderr.contains("is a directory"), "{ended}");
    let ended = get(address, &folder.path("not-there/here"), "");
    assert!(ended.status == 2 && ended.stderr.contains("No such file"), "{ended}");
    // Somebody takes its place meanwhile.
    let here = folder.path("here");
    let address = change(&files("there", b"hello"), TAKE, {
        let here = here.clone();
        move |_, answer| {
            std::fs::create_dir(&here).expect("our own folder");
            Some(answer)
        }
    });
    failed(&get(address, &here, ""), "other", "cannot rename ");
    assert_eq!(folder.names(), ["here"]);
}
