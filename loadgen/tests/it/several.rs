//! Several files on a connection, resumed files, and lists: from good servers, and from such as
//! misbehave in one way each.

use crate::support::packets::{
    ABORT, DATA, DIGEST_FILE, Files, GET_RANGE, KEPT, LIST, PUT, PUT_RESUMABLE, Request, chunks,
    error, files, packet, range,
};
use crate::support::transfers::{Folder, change, good, noise, serve};
use crate::support::{Ended, STARTED_MAX, nobody, start_in};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};

/// Bytes of a chunk of the server's.
const CHUNK: usize = 1 << 20;

fn run(folder: &Folder, address: SocketAddr, options: &str) -> Ended {
    start_in(&folder.path(""), "packets", &address.to_string(), options).end()
}

/// Adds a file to those of a server.
fn add(files: &Files, name: &[u8], bytes: &[u8]) {
    files.lock().expect("no panic").insert(name.to_vec(), bytes.to_vec());
}

fn read(folder: &Folder, name: &str) -> Vec<u8> {
    std::fs::read(folder.path(name)).expect("a file")
}

#[track_caller]
fn passed(ended: &Ended, count: usize) {
    assert_eq!(ended.status, 0, "{ended}");
    assert_eq!(ended.report["outcome"], "passed", "{ended}");
    let files = ended.report["files"].as_array().expect("files");
    assert_eq!(files.len(), count, "{ended}");
    assert!(files.iter().all(|file| file["error"].is_null()), "{ended}");
}

/// Asserts that this one failed in that way, with these words.
#[track_caller]
fn failed(ended: &Ended, at: usize, kind: &str, says: &str) {
    assert_eq!((ended.status, &ended.report["outcome"]), (1, &"failed".into()), "{ended}");
    let error = &ended.report["files"][at]["error"];
    assert_eq!(error["kind"], kind, "{ended}");
    let detail = error["detail"].as_str().unwrap_or_default();
    assert!(detail.contains(says), "{says:?} is not in {detail:?}\n{ended}");
    assert!(ended.stdout.contains(detail) && ended.stdout.contains("FAILED"), "{ended}");
}

#[test]
fn several_files_arrive_and_chunks_may_take_turns() {
    let (folder, large, small) = (Folder::new(), noise(3 * CHUNK), noise(10));
    let there = files("large", &large);
    add(&there, b"small", &small);
    add(&there, b"empty", b"");
    passed(&run(&folder, good(&there), "get large small empty"), 3);
    assert!(read(&folder, "large") == large && read(&folder, "small") == small);
    assert_eq!(folder.names(), ["empty", "large", "small"]);
    // The second file comes between two chunks of the first.
    let folder = Folder::new();
    let address = serve(&there, move || {
        let mut held = None;
        move |request: &Request, answer: Vec<u8>| {
            if request.kind != GET_RANGE {
                return Some(answer);
            }
            let at = range([0; 4], b"").len() + 13 + CHUNK;
            match held.take() {
                None => {
                    held = Some(answer);
                    Some(Vec::new())
                }
                Some(first) => {
                    let (begin, end): (&[u8], &[u8]) = first.split_at(at);
                    Some([begin, &answer, end].concat())
                }
            }
        }
    });
    let ended = run(&folder, address, "get large small");
    passed(&ended, 2);
    assert!(ended.report["files"][1]["verification"] == "same", "{ended}");
    assert!(read(&folder, "large") == large && read(&folder, "small") == small);
    assert_eq!(folder.names(), ["large", "small"]);
}

#[test]
fn a_file_that_fails_leaves_the_others() {
    let (folder, bytes) = (Folder::new(), noise(300_000));
    let there = files("good", &bytes);
    add(&there, b"different", b"words");
    add(&there, b"taken", b"words");
    std::fs::create_dir(folder.path("taken")).expect("our own folder");
    folder.write("different", b"old");
    let address = change(&there, DIGEST_FILE, |request, answer| {
        let is_it = request.fields == b"different";
        Some(if is_it { packet(0x82, request.id, &[0xab; 32]) } else { answer })
    });
    let ended = run(&folder, address, "get missing different taken good");
    failed(&ended, 0, "bad_status", "error 4 NO_SUCH_FILE: there is no such file: missing; ");
    failed(&ended, 1, "wrong_bytes", "that of the server's file is abab");
    failed(&ended, 2, "other", "taken is a directory; remove it first");
    assert!(ended.report["files"][3]["error"].is_null(), "{ended}");
    assert!(ended.stdout.contains("FAILED: 3 of 4"), "{ended}");
    assert!(read(&folder, "good") == bytes);
    assert_eq!(read(&folder, "different"), b"old", "what was there stays");
    assert_eq!(folder.names(), ["different", "good", "taken"]);
}

/// A server that cuts the first answer to a request of this kind, and is good from then on.
fn cuts_once(files: &Files, kind: u8, cut: usize) -> SocketAddr {
    let was_cut = Arc::new(AtomicBool::new(false));
    serve(files, move || {
        let (was_cut, mut is_over) = (was_cut.clone(), false);
        let mut count = 0;
        move |request: &Request, mut answer: Vec<u8>| {
            if is_over {
                return None;
            }
            if request.kind == kind && !was_cut.load(Ordering::Relaxed) {
                count += answer.len().max(request.fields.len());
                if count > cut {
                    was_cut.store(true, Ordering::Relaxed);
                    is_over = true;
                    if kind == DATA {
                        return None;
                    }
                    answer.truncate(cut);
                }
            }
            Some(answer)
        }
    })
}

#[test]
fn a_download_is_resumed_if_the_file_is_the_same() {
    let (folder, bytes) = (Folder::new(), noise(4 * CHUNK));
    let there = files("there", &bytes);
    let address = cuts_once(&there, GET_RANGE, 2 * CHUNK + 500_000);
    let cut = run(&folder, address, "--timeout 1s get there --resume");
    failed(&cut, 0, "timeout", "bytes are kept in .ringload-");
    assert_eq!(folder.names().len(), 1, "{:?}", folder.names());
    let ended = run(&folder, address, "get there --resume");
    passed(&ended, 1);
    let file = &ended.report["files"][0];
    assert!(file["resumed_from_bytes"].as_u64() > Some(2_000_000), "{ended}");
    assert!(file["transferred_bytes"].as_u64() < Some(2_300_000), "{ended}");
    assert!(file["verification"] == "same" && read(&folder, "there") == bytes, "{ended}");
    assert_eq!(folder.names(), ["there"]);
    // Another version is got from its beginning.
    let (folder, other) = (Folder::new(), noise(CHUNK));
    let address = cuts_once(&there, GET_RANGE, 2 * CHUNK);
    run(&folder, address, "--timeout 1s get there --resume");
    add(&there, b"there", &other);
    let ended = run(&folder, address, "get there --resume");
    passed(&ended, 1);
    assert_eq!(ended.report["files"][0]["resumed_from_bytes"], 0, "{ended}");
    assert!(read(&folder, "there") == other);
}

/// Without --resume nothing stays, and the end of the connection is the end of all files.
#[test]
fn a_download_that_is_cut_leaves_nothing() {
    let (folder, bytes) = (Folder::new(), noise(4 * CHUNK));
    let there = files("a", &bytes);
    add(&there, b"b", &bytes);
    let address = cuts_once(&there, GET_RANGE, CHUNK);
    let ended = run(&folder, address, "--timeout 1s get a b");
    failed(&ended, 0, "eof", "");
    failed(&ended, 1, "eof", "");
    assert!(folder.names().is_empty(), "{:?}", folder.names());
}

#[test]
fn a_wrong_answer_ends_the_connection_and_leaves_nothing() {
    type Twist = fn([u8; 4]) -> Vec<u8>;
    let cases: [(Twist, &str, &str); 6] = [
        (|id| chunks(id, b"words"), "protocol", "unexpected DATA"),
        (
            |id| [range(id, b"word"), chunks(id, b"words")].concat(),
            "protocol",
            "5 bytes; 4 bytes are",
        ),
        (|id| [range(id, b"words"), chunks(id, b"word")].concat(), "protocol", "SENT after 4"),
        (|_| range([9; 4], b"words"), "protocol", "RANGE 151587081 answers no pending request"),
        (|_| vec![0, 1, 0, 1], "protocol", "a packet with a body of 65537"),
        (|_| error([0; 4], 13, "too late"), "bad_status", "error 13 EXPIRED: too late"),
    ];
    for (twist, kind, says) in cases {
        let folder = Folder::new();
        let address =
            change(&files("a", b""), GET_RANGE, move |request, _| Some(twist(request.id)));
        let ended = run(&folder, address, "get b a");
        failed(&ended, 0, kind, says);
        assert!(folder.names().is_empty(), "{:?}", folder.names());
    }
}

#[test]
fn several_files_are_put_on_one_connection() {
    let (folder, there) = (Folder::new(), files("taken", b"old"));
    let (large, small) = (noise(2 * CHUNK + 5), noise(9));
    for (name, bytes) in [("large", &large[..]), ("taken", b"new"), ("small", &small)] {
        folder.write(name, bytes);
    }
    let connections = Arc::new(AtomicBool::new(false));
    let address = serve(&there, move || {
        assert!(!connections.swap(true, Ordering::Relaxed), "a second connection");
        |_: &Request, answer: Vec<u8>| Some([packet(0x90, [0; 4], b"hello"), answer].concat())
    });
    let ended = run(&folder, address, "put large missing taken small");
    failed(&ended, 1, "other", "cannot open missing: No such file or directory");
    failed(&ended, 2, "bad_status", "error 6 EXISTS: the name is taken: taken; use --replace");
    assert!(ended.stdout.contains("FAILED: 2 of 4"), "{ended}");
    let stored = there.lock().expect("no panic");
    assert!(stored[&b"large"[..]] == large && stored[&b"small"[..]] == small);
    assert_eq!(stored[&b"taken"[..]], b"old");
}

#[test]
fn an_upload_is_resumed() {
    let (folder, bytes) = (Folder::new(), noise(4 * CHUNK + 5));
    let there = files("other", b"");
    folder.write("file", &bytes);
    let address = cuts_once(&there, DATA, 2 * CHUNK + 5);
    let ended = run(&folder, address, "put file --resume");
    assert_eq!(ended.status, 1, "{ended}");
    assert!(ended.stdout.contains("run it again with --resume"), "{ended}");
    let kept = there.lock().expect("no panic")[&[KEPT, b"file"].concat()].len();
    let ended = run(&folder, address, "put file --resume");
    passed(&ended, 1);
    assert_eq!(ended.report["files"][0]["resumed_from_bytes"], kept, "{ended}");
    assert_eq!(ended.report["files"][0]["verification"], "same", "{ended}");
    assert!(there.lock().expect("no panic")[&b"file"[..]] == bytes);
    // More than there is.
    let more = (bytes.len() as u64 + 1).to_be_bytes();
    let address =
        change(&there, PUT_RESUMABLE, move |request, _| Some(packet(0x8d, request.id, &more)));
    failed(&run(&folder, address, "put file --resume"), 0, "protocol", "RESUMED from 4194310");
}

/// The refusal comes while the file is still being sent.
#[test]
fn a_put_that_is_refused_in_the_middle_says_why() {
    let folder = Folder::new();
    folder.write("large", &noise(3 * CHUNK));
    folder.write("small", b"words");
    let there = files("other", b"");
    let address = serve(&there, || {
        let mut refused = None;
        move |request: &Request, answer: Vec<u8>| match request.kind {
            DATA if refused.is_none() => {
                refused = Some(request.id);
                Some(error(request.id, 8, "no space is left"))
            }
            // Sent before the refusal came.
            DATA if refused == Some(request.id) => Some(Vec::new()),
            PUT | DATA | ABORT | DIGEST_FILE => Some(answer),
            other => panic!("{other}"),
        }
    });
    let ended = run(&folder, address, "put large small");
    failed(&ended, 0, "bad_status", "error 8 DISK_FULL: no space is left: large; free space on");
    assert!(ended.report["files"][1]["error"].is_null(), "{ended}");
}

#[test]
fn a_list_shows_sizes_and_names() {
    let (folder, there) = (Folder::new(), files("b", &noise(1_234)));
    add(&there, b"a\x1b[2J", b"");
    let ended = run(&folder, good(&there), "list");
    passed(&ended, 2);
    let lines: Vec<&str> = ended.stdout.lines().map(str::trim).collect();
    assert!(lines[0].starts_with("0  a") && !lines[0].contains('\x1b'), "{ended}");
    assert_eq!(lines[1..], ["1,234  b"], "{ended}");
    // A name that leads out of a folder, a page without an end, and no list at all.
    let page = |more: u8, name: &[u8]| [&[more][..], &[0; 8], &[name.len() as u8], name].concat();
    for (fields, says) in [
        (page(0, b"../x"), "is not a valid file name"),
        (page(1, b"x"), "does not begin behind the page before"),
        (vec![1], "does not begin behind the page before"),
        (vec![7], "a field of LISTED is missing"),
    ] {
        let address =
            change(&there, LIST, move |request, _| Some(packet(0x85, request.id, &fields)));
        failed(&run(&folder, address, "list"), 0, "protocol", says);
    }
    let address = change(&there, LIST, |request, _| Some(error(request.id, 11, "no workers")));
    failed(&run(&folder, address, "list"), 0, "bad_status", "must run with --workers above 0");
}

#[test]
fn an_interrupt_ends_all_downloads() {
    for (option, left) in [("", 0), ("--resume", 1)] {
        let (folder, there) = (Folder::new(), files("a", &noise(3 * CHUNK)));
        let (sender, receiver) = mpsc::channel();
        let address = change(&there, GET_RANGE, move |request, mut answer| {
            // The first question of --resume is for no bytes.
            if request.fields[8..16] != [0; 8] {
                answer.truncate(1_500_000);
                sender.send(()).expect("the test waits");
            }
            Some(answer)
        });
        let options = format!("--timeout 100s get a missing {option}");
        let running = start_in(&folder.path(""), "packets", &address.to_string(), &options);
        receiver.recv_timeout(STARTED_MAX).expect("it runs");
        // Until the first chunk is there.
        let begun = std::time::Instant::now();
        let has_data = || {
            let names = folder.names();
            let sizes =
                names.iter().map(|name| folder.path(name).metadata().map_or(0, |it| it.len()));
            sizes.sum::<u64>() > 1_000_000
        };
        while !has_data() {
            assert!(begun.elapsed() < STARTED_MAX, "{:?}", folder.names());
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        running.signal(libc::SIGINT);
        let ended = running.end();
        assert_eq!(
            (ended.status, &ended.report["outcome"]),
            (130, &"interrupted".into()),
            "{ended}"
        );
        assert!(ended.stdout.contains("INTERRUPTED"), "{ended}");
        assert_eq!(folder.names().len(), left, "{:?}", folder.names());
    }
}

#[test]
fn what_does_not_fit_together_is_wrong_usage() {
    let folder = Folder::new();
    for (options, says) in [
        ("put a b --as c", "--as takes one FILE"),
        ("get a b --out c", "--out takes one NAME"),
        ("get a --out c --resume", "--out takes one NAME, and not --resume"),
        ("get a b a", "\"a\" is given twice"),
        ("put a x/a", "\"a\" is given twice"),
        ("get a ../b", "is not a valid file name"),
        ("get a/b", "is not a valid file name"),
        ("get .hidden", "must not begin with a dot"),
        ("put", "required"),
        ("get", "required"),
        ("list a", "unexpected argument"),
        ("-c 5 list", "--connections applies to load"),
    ] {
        let ended = run(&folder, nobody(), options);
        assert!(ended.status == 2 && ended.stderr.contains(says), "{options}: {ended}");
    }
    for options in ["get a b", "list", "put a b", "get a --resume"] {
        let ended = run(&folder, nobody(), options);
        assert_eq!((ended.status, &ended.report["outcome"]), (3, &"unreachable".into()), "{ended}");
        assert!(ended.stdout.contains("is the server running there?"), "{ended}");
    }
    assert!(folder.names().is_empty(), "{:?}", folder.names());
}
