//! Receiving files: whole or not at all, and the stream stays in step.

use crate::common::{PATIENCE, ask, is_reset, read_line, reset, start, stream_byte, wait_until};
use ringwright::files::{Directory, NewFile, PublishOptions, ReceiveFileError};
use ringwright::{
    Config, Connection, ConnectionId, Engine, Handler, Ledger, Local, Origin, Reason,
};
use ringwright_test_support::needs_root;
use std::io::{self, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;
use tempfile::TempDir;

/// Lines: `echo TEXT`, or `put NAME BYTES CHUNK HOW` with so many bytes behind it, which go into a
/// file by ranges of at most CHUNK bytes; HOW is made of `sync`, `replace` and `-`.
struct Keeper {
    directory: Directory,
    ended: Sender<Reason>,
}

#[derive(Default)]
struct Put {
    name: String,
    missing: u64,
    chunk: u64,
    publish: PublishOptions,
    /// Bytes of a file that failed, to be skipped.
    skip: u64,
}

impl Put {
    fn answer(connection: &mut Connection<'_>, result: io::Result<()>) {
        let answer = match result {
            Ok(()) => "stored\n".to_owned(),
            Err(error) => format!("error {}\n", error.raw_os_error().unwrap_or(0)),
        };
        let _ = connection.send(answer.as_bytes());
    }

    fn next(&mut self, connection: &mut Connection<'_>, file: NewFile) {
        if self.missing == 0 {
            connection.publish_file(file, self.name.as_bytes(), self.publish).expect("the first");
            // The next file may be whole before this one has its name.
            connection.pause();
            return;
        }
        let (offset, length) = (file.bytes(), self.missing.min(self.chunk));
        self.missing -= length;
        connection.receive_file(file, offset, length).expect("the first");
    }
}

impl Handler for Keeper {
    type State = Put;

    fn opened(&mut self, _: &mut Connection<'_>, _: Origin) -> Put {
        Put::default()
    }

    fn received(&mut self, put: &mut Put, connection: &mut Connection<'_>, bytes: &[u8]) -> usize {
        if put.skip > 0 {
            let skipped = put.skip.min(bytes.len() as u64);
            put.skip -= skipped;
            connection.resume();
            return skipped as usize;
        }
        let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else { return 0 };
        let line = std::str::from_utf8(&bytes[..end]).expect("lines are text");
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["put", name, length, chunk, how] => {
                put.name = name.to_owned();
                put.missing = length.parse().expect("bytes");
                put.chunk = chunk.parse().expect("bytes");
                let (sync, replace) = (how.contains("sync"), how.contains("replace"));
                put.publish = PublishOptions { sync, replace };
                connection.create_file(&self.directory).expect("the first");
                connection.pause();
            }
            _ => {
                let _ = connection.send(&bytes[5..=end]);
                connection.resume();
            }
        }
        end + 1
    }

    fn file_created(
        &mut self,
        put: &mut Put,
        connection: &mut Connection<'_>,
        result: io::Result<NewFile>,
    ) {
        connection.resume();
        match result {
            Ok(file) => put.next(connection, file),
            Err(error) => {
                put.skip = std::mem::take(&mut put.missing);
                Put::answer(connection, Err(error));
            }
        }
    }

    fn file_received(
        &mut self,
        put: &mut Put,
        connection: &mut Connection<'_>,
        result: Result<NewFile, ReceiveFileError>,
    ) {
        match result {
            Ok(file) => put.next(connection, file),
            Err(failed) => {
                put.skip = std::mem::take(&mut put.missing) + failed.missing_bytes;
                Put::answer(connection, Err(failed.error));
            }
        }
    }

    fn file_published(
        &mut self,
        _: &mut Put,
        connection: &mut Connection<'_>,
        result: io::Result<()>,
    ) {
        connection.resume();
        Put::answer(connection, result);
    }

    fn closed(&mut self, _: Option<Put>, _: &mut Local<'_>, _: ConnectionId, reason: Reason) {
        let _ = self.ended.send(reason);
    }
}

struct Uploads {
    dir: TempDir,
    engine: Engine,
    ended: Receiver<Reason>,
}

impl Uploads {
    fn new(change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let directory = Directory::open_to_create(dir.path()).unwrap();
        Self::of(dir, directory, change)
    }

    fn of(dir: TempDir, directory: Directory, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config {
            listeners: vec!["127.0.0.1:0".parse().unwrap()],
            shards: Some(1),
            pin: false,
            ..Config::default()
        };
        change(&mut config);
        let (sender, ended) = channel();
        let factory = move |_| Keeper { directory: directory.clone(), ended: sender.clone() };
        let engine = start(config, factory);
        Self { dir, engine, ended }
    }

    fn connect(&self) -> TcpStream {
        let client = TcpStream::connect(self.engine.addresses()[0]).expect("the server accepts");
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.set_write_timeout(Some(PATIENCE)).unwrap();
        client
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.path()).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn next_end(&self) -> Reason {
        self.ended.recv_timeout(PATIENCE).expect("a connection ends")
    }

    fn finish(self) -> Ledger {
        self.engine.handle().drain(PATIENCE);
        let ledger = self.engine.join().expect("the shard ends well");
        assert!(ledger.balanced(), "{}", ledger.to_json());
        assert_eq!(ledger.sum.pipes.free, ledger.sum.pipes.total, "{}", ledger.to_json());
        assert_eq!((ledger.open(), ledger.sum.files), (0, 0), "{}", ledger.to_json());
        ledger
    }
}

fn content(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| stream_byte(at as u64 ^ bytes as u64)).collect()
}

/// Puts a file and returns the answer.
fn put(client: &mut TcpStream, name: &str, content: &[u8], chunk: u64, how: &str) -> String {
    let mut bytes = format!("put {name} {} {chunk} {how}\n", content.len()).into_bytes();
    bytes.extend_from_slice(content);
    client.write_all(&bytes).expect("it leaves");
    read_line(client).expect("an answer")
}

#[test]
fn files_of_every_size_come_whole_and_the_stream_stays_in_step() {
    for splice_from_bytes in [0, 64 << 10, u64::MAX] {
        let uploads = Uploads::new(|it| it.splice_from_bytes = splice_from_bytes);
        let mut client = uploads.connect();
        for bytes in [0, 1, 1_000, 4_096, 65_535, 65_536, 65_537, 200_000, 5_000_000] {
            for chunk in [u64::MAX, 100_000, 3_000_000] {
                let content = content(bytes);
                let answer = put(&mut client, "file", &content, chunk, "replace");
                assert_eq!(answer, "stored", "{bytes} bytes by {chunk}");
                assert!(std::fs::read(uploads.path().join("file")).unwrap() == content, "{bytes}");
                assert_eq!(ask(&mut client, "echo on"), "on", "{bytes} bytes by {chunk}");
            }
        }
        assert_eq!(uploads.names(), ["file"]);
        drop(client);
        uploads.finish();
    }
}

#[test]
fn puts_in_one_write_follow_each_other() {
    let uploads = Uploads::new(|_| {});
    let mut client = uploads.connect();
    let mut bytes = Vec::new();
    for number in 0..50 {
        let content = content(number * 3_000);
        bytes.extend(format!("put f{number} {} 70000 -\n", content.len()).into_bytes());
        bytes.extend(content);
        bytes.extend(format!("echo {number}\n").into_bytes());
    }
    let mut writer = client.try_clone().unwrap();
    let thread = std::thread::spawn(move || writer.write_all(&bytes));
    let mut answers = Vec::new();
    while answers.len() < 100 {
        answers.push(read_line(&mut client).expect("an answer"));
    }
    thread.join().unwrap().expect("all of it leaves");
    assert_eq!(answers.iter().filter(|answer| *answer == "stored").count(), 50);
    let echoes = answers.iter().filter(|answer| *answer != "stored");
    assert!(echoes.map(|it| it.parse::<usize>().unwrap()).eq(0..50), "{answers:?}");
    for number in 0..50 {
        let path = uploads.path().join(format!("f{number}"));
        assert!(std::fs::read(path).unwrap() == content(number * 3_000));
    }
    drop(client);
    uploads.finish();
}

#[test]
fn a_name_that_is_taken_is_replaced_only_where_that_is_asked_for() {
    let uploads = Uploads::new(|_| {});
    let mut client = uploads.connect();
    let exists = format!("error {}", libc::EEXIST);
    assert_eq!(put(&mut client, "it", b"first", 9, "sync"), "stored");
    assert_eq!(put(&mut client, "it", b"second", 9, "sync"), exists);
    assert_eq!(std::fs::read(uploads.path().join("it")).unwrap(), b"first");
    assert_eq!(put(&mut client, "it", b"third", 9, "sync,replace"), "stored");
    assert_eq!(std::fs::read(uploads.path().join("it")).unwrap(), b"third");
    std::fs::create_dir(uploads.path().join("folder")).unwrap();
    let folder = format!("error {}", libc::EISDIR);
    assert_eq!(put(&mut client, "folder", b"x", 9, "replace"), folder);
    assert_eq!(put(&mut client, "folder", b"x", 9, "-"), exists);
    for wrong in [".", "..", "a/b", "/a"] {
        let answer = put(&mut client, wrong, b"x", 9, "replace");
        assert_eq!(answer, format!("error {}", libc::EINVAL), "{wrong}");
    }
    assert_eq!(uploads.names(), ["folder", "it"]);
    drop(client);
    uploads.finish();
}

#[test]
fn a_directory_that_cannot_be_synced_is_said_to_be_so_before_anything_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let directory = Directory::open(dir.path()).unwrap();
    let uploads = Uploads::of(dir, directory, |_| {});
    let mut client = uploads.connect();
    assert_eq!(put(&mut client, "it", b"x", 9, "sync"), format!("error {}", libc::EBADF));
    assert!(uploads.names().is_empty());
    assert_eq!(put(&mut client, "it", b"x", 9, "-"), "stored");
    drop(client);
    uploads.finish();
}

/// Sends the beginning of a file and waits until the server has taken it.
fn begin(uploads: &Uploads, sent: usize) -> TcpStream {
    let mut client = uploads.connect();
    client.write_all(b"put never 1000000 600000 -\n").unwrap();
    client.write_all(&content(sent)).unwrap();
    let ledger = || uploads.engine.handle().ledger().sum.bytes_received;
    let least = sent as u64;
    wait_until("the beginning is read", || ledger() >= least);
    client
}

#[test]
fn whoever_leaves_or_stalls_in_the_middle_leaves_nothing() {
    let uploads = Uploads::new(|_| {});
    drop(begin(&uploads, 300_000));
    assert_eq!(uploads.next_end(), Reason::PeerFin);
    reset(begin(&uploads, 700_000));
    assert!(is_reset(uploads.next_end()));
    let half = begin(&uploads, 500_000);
    half.shutdown(std::net::Shutdown::Write).unwrap();
    let mut half = half;
    assert_eq!(read_line(&mut half).unwrap(), "error 0", "the end comes too early");
    assert_eq!(uploads.next_end(), Reason::PeerFin);
    assert!(uploads.names().is_empty(), "{:?}", uploads.names());
    uploads.finish();

    let uploads = Uploads::new(|it| it.transfer_timeout = Some(Duration::from_millis(300)));
    let stalled = begin(&uploads, 10);
    assert_eq!(uploads.next_end(), Reason::TransferTimeout);
    drop(stalled);
    assert!(uploads.names().is_empty(), "{:?}", uploads.names());
    uploads.finish();
}

#[test]
fn uploads_that_stall_hold_no_pipe_and_no_thread() {
    let uploads = Uploads::new(|it| {
        it.pipes = 2;
        it.splice_from_bytes = 0;
    });
    let stalled: Vec<TcpStream> = (0..200).map(|_| begin(&uploads, 0)).collect();
    for client in &stalled {
        let mut client = client;
        client.write_all(&[7; 1000]).unwrap();
    }
    let sum = || uploads.engine.handle().ledger().sum;
    wait_until("all wait for more", || {
        let sum = sum();
        sum.files == 200 && sum.pipes.free == sum.pipes.total
    });
    let mut client = uploads.connect();
    assert_eq!(put(&mut client, "other", &content(3_000_000), u64::MAX, "-"), "stored");
    drop((stalled, client));
    uploads.finish();
}

#[test]
fn an_urgent_byte_in_a_file_neither_stops_it_nor_spins() {
    let uploads = Uploads::new(|it| it.splice_from_bytes = 0);
    let mut client = uploads.connect();
    let content = content(1 << 20);
    client.write_all(format!("put it {} {} -\n", content.len(), u64::MAX).as_bytes()).unwrap();
    client.write_all(&content[..100_000]).unwrap();
    let received = || uploads.engine.handle().ledger().sum.bytes_received;
    wait_until("the beginning is read", || received() > 100_000);
    // Not part of the stream: whoever does not ask for it does not get it (tcp(7)).
    socket2::SockRef::from(&client).send_out_of_band(b"!").unwrap();
    client.write_all(&content[100_000..100_010]).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let turns = || uploads.engine.handle().ledger().sum.turns;
    let before = turns();
    std::thread::sleep(Duration::from_millis(300));
    assert!(turns() - before < 50, "it turned {} times", turns() - before);
    client.write_all(&content[100_010..]).unwrap();
    assert_eq!(read_line(&mut client).unwrap(), "stored");
    assert!(std::fs::read(uploads.path().join("it")).unwrap() == content);
    drop(client);
    uploads.finish();
}

/// A tmpfs of that size, which nobody else sees.
fn small_disk(bytes: usize, path: &Path) -> Directory {
    let path = path.to_owned();
    let mount = move || {
        let target = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
        let options = std::ffi::CString::new(format!("size={bytes}")).unwrap();
        // SAFETY: NUL-terminated strings; this thread ends with the namespace it made, which the
        // directory's descriptor keeps.
        unsafe {
            assert_eq!(libc::unshare(libc::CLONE_NEWNS), 0);
            let (slash, none) = (c"/".as_ptr(), std::ptr::null());
            let private = libc::MS_REC | libc::MS_PRIVATE;
            assert_eq!(libc::mount(none, slash, none, private, none.cast()), 0);
            let kind = c"tmpfs".as_ptr();
            assert_eq!(libc::mount(kind, target.as_ptr(), kind, 0, options.as_ptr().cast()), 0);
        }
        Directory::open_to_create(&path).expect("the directory just mounted")
    };
    std::thread::spawn(mount).join().expect("a mount")
}

#[test]
fn a_full_disk_is_an_error_and_the_stream_goes_on() {
    if !needs_root("it mounts a small disk") {
        return;
    }
    for splice_from_bytes in [0, u64::MAX] {
        let dir = tempfile::tempdir().unwrap();
        let disk = small_disk(1 << 20, dir.path());
        let change = |it: &mut Config| it.splice_from_bytes = splice_from_bytes;
        let uploads = Uploads::of(dir, disk, change);
        let mut client = uploads.connect();
        let full = format!("error {}", libc::ENOSPC);
        for chunk in [u64::MAX, 100_000] {
            assert_eq!(put(&mut client, "large", &content(8 << 20), chunk, "-"), full);
            assert_eq!(ask(&mut client, "echo on"), "on");
            // What was taken is free again.
            let fits = content(900_000);
            assert_eq!(put(&mut client, "fits", &fits, chunk, "replace"), "stored");
            assert_eq!(put(&mut client, "fits", b"less", chunk, "replace"), "stored");
        }
        drop(client);
        uploads.finish();
    }
}
