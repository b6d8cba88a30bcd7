//! Opening, reading, splicing.

use super::*;
use crate::ring::FileKind;
use std::ffi::CString;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use tempfile::TempDir;

/// A directory that goes when its test ends.
pub struct Tree(TempDir);

impl Tree {
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    /// On a disk, for the directory for temporary files may be a tmpfs (file-hierarchy(7)).
    fn on_disk() -> Self {
        Self(tempfile::tempdir_in("/var/tmp").expect("a directory"))
    }

    /// A directory descriptor, and one for a file in it.
    fn open(&self) -> Descriptor {
        Descriptor(File::open(self.0.path()).expect("the directory").into_raw_fd())
    }

    pub fn file(&self, bytes: &[u8]) -> Descriptor {
        let path = self.0.path().join("file");
        fs::write(&path, bytes).expect("a file");
        Descriptor(File::open(path).expect("the file").into_raw_fd())
    }
}

fn opening_stays_beneath_its_directory_and_crosses_no_link<R: TestedRing>() {
    let Some(ring) = ring::<R>() else { return };
    opening_stays_beneath(ring, Ok((FileKind::Regular, 5)));
}

/// `with_dots`: the outcome of a path with `..` that stays inside all the way.
pub fn opening_stays_beneath<R: TestedRing>(mut ring: R, with_dots: Result<(FileKind, u64), i32>) {
    let tree = Tree::new();
    fs::create_dir(tree.0.path().join("sub")).expect("a directory");
    fs::write(tree.0.path().join("sub/file"), b"12345").expect("a file");
    symlink("sub/file", tree.0.path().join("link")).expect("a link");
    symlink("sub", tree.0.path().join("linked")).expect("a link");
    for (link, target) in LINKS {
        symlink(target, tree.0.path().join(link)).expect("a link");
    }
    let fifo = CString::new(tree.0.path().join("fifo").as_os_str().as_bytes()).expect("no NUL");
    // SAFETY: a NUL-terminated path.
    assert_eq!(unsafe { libc::mkfifo(fifo.as_ptr(), 0o600) }, 0);

    let directory = tree.open();
    let mut open_with = |path: &std::ffi::CStr, waits: bool, path_only: bool, follows: bool| {
        let path = path.as_ptr();
        ring.submit(0, Op::Open { directory, path, waits, path_only, follows });
        let opened = ring.one().result;
        if opened < 0 {
            return Err(-opened);
        }
        let status = ring.file_status(Descriptor(opened)).expect("an open file");
        ring.close_now(Descriptor(opened));
        Ok((status.kind, status.bytes))
    };
    for (waits, path_only) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut open = |path, waits, path_only| open_with(path, waits, path_only, false);
        assert_eq!(open(c"sub/file", waits, path_only), Ok((FileKind::Regular, 5)));
        assert_eq!(open(c"sub/../sub/file", waits, path_only), with_dots);
        assert_eq!(open(c"sub", waits, path_only).map(|(kind, _)| kind), Ok(FileKind::Directory));
        assert_eq!(open(c"../etc/passwd", waits, path_only), Err(libc::EXDEV));
        assert_eq!(open(c"sub/../../x", waits, path_only), Err(libc::EXDEV));
        assert_eq!(open(c"/etc/passwd", waits, path_only), Err(libc::EXDEV));
        assert_eq!(open(c"link", waits, path_only), Err(libc::ELOOP));
        assert_eq!(open(c"linked/file", waits, path_only), Err(libc::ELOOP));
        assert_eq!(open(c"none", waits, path_only), Err(libc::ENOENT));
        assert_eq!(open(c"sub/file/", waits, path_only), Err(libc::ENOTDIR));
        assert_eq!(open(c"sub/file/none", waits, path_only), Err(libc::ENOTDIR));
        assert_eq!(open(c"linked/", waits, path_only), Err(libc::ELOOP));
        assert_eq!(open(c"", waits, path_only), Err(libc::ENOENT));
        for path in [c".", c"sub/.", c"./sub//"] {
            let kind = open(path, waits, path_only).map(|(kind, _)| kind);
            assert_eq!(kind, Ok(FileKind::Directory), "{path:?}");
        }
        assert_eq!(open(c".//sub/./file", waits, path_only), Ok((FileKind::Regular, 5)));
        assert_eq!(
            open(c"fifo", waits, path_only).map(|(kind, _)| kind),
            Ok(FileKind::Other),
            "and no waiting"
        );
    }
    for (waits, path_only) in [(false, false), (true, false), (false, true), (true, true)] {
        follows_links_beneath(|path| open_with(path, waits, path_only, true));
    }
    // Another file system: only for whoever can wait.
    let proc = Descriptor(File::open("/").expect("the root").into_raw_fd());
    let status = c"proc/uptime";
    for (waits, result) in [(false, -libc::EXDEV), (true, 0)] {
        ring.submit(
            0,
            Op::Open {
                directory: proc,
                path: status.as_ptr(),
                waits,
                path_only: false,
                follows: false,
            },
        );
        let opened = ring.one().result;
        assert_eq!(opened.min(0), result, "waits: {waits}");
        if opened > 0 {
            ring.close_now(Descriptor(opened));
        }
    }
    ring.close_now(proc);
    ring.close_now(directory);
}

/// Links with their targets.
const LINKS: [(&str, &str); 12] = [
    ("twice", "link"),
    ("round", "round/"),
    ("out", "../x"),
    ("sub/out", "../../x"),
    ("sub/up", ".."),
    ("sub/back", "../sub/file"),
    ("around", "sub/../sub/./file"),
    ("absolute", "/etc/passwd"),
    ("empty", "none"),
    ("slash", "sub/file/"),
    ("top", "."),
    ("magic", "/proc/self/fd/0"),
];

/// Links are followed beneath the directory, and no further.
fn follows_links_beneath(mut open: impl FnMut(&std::ffi::CStr) -> Result<(FileKind, u64), i32>) {
    let file = Ok((FileKind::Regular, 5));
    for path in [
        c"link",
        c"linked/file",
        c"linked//./file",
        c"twice",
        c"sub/back",
        c"linked/back",
        c"around",
        c"sub/up/sub/file",
        c"sub/up/linked/up/link",
        c"top/top/link",
        c"sub/file",
    ] {
        assert_eq!(open(path), file, "{path:?}");
    }
    for (path, errno) in [
        (c"round", libc::ELOOP),
        (c"out", libc::EXDEV),
        (c"sub/out", libc::EXDEV),
        (c"linked/out", libc::EXDEV),
        (c"absolute", libc::EXDEV),
        (c"magic", libc::EXDEV),
        (c"empty", libc::ENOENT),
        (c"slash", libc::ENOTDIR),
        (c"link/", libc::ENOTDIR),
        (c"../link", libc::EXDEV),
    ] {
        assert_eq!(open(path), Err(errno), "{path:?}");
    }
    for path in [c"linked", c"linked/", c"sub/up", c"top", c"sub/up/sub/up/linked/."] {
        assert_eq!(open(path).map(|(kind, _)| kind), Ok(FileKind::Directory), "{path:?}");
    }
}

/// A writer that finds a reader goes on, and fails with EPIPE when the reader leaves.
fn looking_a_fifo_up_makes_no_reader<R: TestedRing>() {
    let tree = Tree::new();
    let path = CString::new(tree.0.path().join("fifo").as_os_str().as_bytes()).expect("no NUL");
    // SAFETY: a NUL-terminated path.
    assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
    let directory = tree.open();
    let Some(mut ring) = ring::<R>() else { return };
    for (path_only, errno) in [(true, libc::ENXIO), (false, 0)] {
        let (path_of_fifo, follows) = (c"fifo".as_ptr(), false);
        let op = Op::Open { directory, path: path_of_fifo, waits: false, path_only, follows };
        ring.submit(0, op);
        let fifo = Descriptor(ring.one().result);
        assert_eq!(ring.file_status(fifo).map(|status| status.kind), Ok(FileKind::Other));
        // SAFETY: a NUL-terminated path.
        let writer = unsafe { libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_NONBLOCK) };
        let found = if writer < 0 { direct::last_errno().0 } else { 0 };
        assert_eq!(found, errno, "path_only: {path_only}");
        ring.close_now(fifo);
        if writer >= 0 {
            ring.close_now(Descriptor(writer));
        }
    }
    ring.close_now(directory);
}

fn reading_works_with_the_arena_registered_and_without<R: TestedRing>() {
    let tree = Tree::new();
    let file = tree.file(b"0123456789");
    for arena_registered in [true, false] {
        let setup = Setup { arena_registered, ..setup() };
        let Some(mut ring) = ring_of::<R>(&setup) else { return };
        // SAFETY: inside the leaked arena.
        let address = unsafe { setup.arena_address.add(setup.arena_bytes - 100) };
        ring.submit(0, Op::Read { file, address, length: 100, offset: 4 });
        assert_eq!(ring.one().result, 6);
        // SAFETY: the kernel has written there, and is done.
        assert_eq!(unsafe { std::slice::from_raw_parts(address, 6) }, b"456789");
    }
    calls::close(file);
}

fn a_file_goes_through_a_pipe_to_a_socket<R: TestedRing>() {
    let tree = Tree::new();
    let bytes: Vec<u8> = (0..100_000u32).map(|at| (at % 251) as u8).collect();
    let file = tree.file(&bytes);
    let Some(mut ring) = ring::<R>() else { return };
    let (ours, mut peer) = pair();
    let pipe = ring.pipe(64 << 10).expect("a pipe");
    assert!(pipe.capacity_bytes >= 4096);
    let reader = std::thread::spawn(move || {
        let mut received = Vec::new();
        peer.read_to_end(&mut received).map(|_| received)
    });
    let mut offset = 0;
    while offset < bytes.len() as u64 {
        let length = pipe.capacity_bytes;
        ring.submit(0, Op::Splice { file, offset, pipe: pipe.write, length });
        let mut inside = u32::try_from(ring.one().result).expect("bytes of the file");
        assert!(inside > 0);
        offset += u64::from(inside);
        while inside > 0 {
            match ring.splice_to_socket(pipe.read, ours, inside, offset < bytes.len() as u64) {
                Ok(moved) => inside -= moved,
                Err(Errno(libc::EAGAIN)) => {
                    let events = events(libc::POLLOUT);
                    ring.submit(1, Op::Poll { descriptor: ours, events });
                    ring.one();
                }
                Err(error) => panic!("{error:?}"),
            }
        }
    }
    ring.shutdown(ours, Shutdown::Write).expect("a connected socket");
    assert_eq!(reader.join().expect("no panic").expect("all bytes"), bytes);
    for descriptor in [file, ours, pipe.read, pipe.write] {
        ring.close_now(descriptor);
    }
}

fn splicing_to_a_socket_that_cannot_take_it_never_waits<R: TestedRing>() {
    let Some(mut ring) = ring::<R>() else { return };
    let (ours, _peer) = pair();
    let block = [1u8; 64 << 10];
    // SAFETY: the bytes are sent during the call.
    while unsafe { libc::send(ours.0, block.as_ptr().cast(), block.len(), 0) } > 0 {}
    let pipe = ring.pipe(4096).expect("a pipe");
    // SAFETY: the bytes are read during the call.
    assert_eq!(unsafe { libc::write(pipe.write.0, block.as_ptr().cast(), 4096) }, 4096);
    let full = ring.splice_to_socket(pipe.read, ours, 4096, false);
    assert_eq!(full, Err(Errno(libc::EAGAIN)));
    ring.abort(ours).expect("a connected socket");
    for errno in [libc::ECONNRESET, libc::EPIPE] {
        let dead = ring.splice_to_socket(pipe.read, ours, 4096, false);
        assert_eq!(dead, Err(Errno(errno)), "its error once, then EPIPE, and no signal");
    }
    for descriptor in [ours, pipe.read, pipe.write] {
        ring.close_now(descriptor);
    }
}

/// A pipe with no room must not hold a thread of the kernel.
fn splicing_into_a_full_pipe_is_refused<R: TestedRing>() {
    let tree = Tree::new();
    let file = tree.file(&[1; 4096]);
    let Some(mut ring) = ring::<R>() else { return };
    let pipe = ring.pipe(1 << 20).expect("a pipe");
    let block = vec![1u8; pipe.capacity_bytes as usize];
    // SAFETY: the bytes are read during the call.
    let written = unsafe { libc::write(pipe.write.0, block.as_ptr().cast(), block.len()) };
    assert_eq!(written, block.len() as isize);
    ring.submit(0, Op::Splice { file, offset: 0, pipe: pipe.write, length: 4096 });
    assert_eq!(ring.one().result, -libc::EAGAIN);
    for descriptor in [file, pipe.read, pipe.write] {
        ring.close_now(descriptor);
    }
}

fn the_kernel_tells_what_is_cached_and_sends_it_past_any_pipe<R: TestedRing>() {
    let tree = Tree::on_disk();
    let content: Vec<u8> = (0..300_000_u32).map(|at| (at * 7) as u8).collect();
    let file = tree.file(&content);
    let Some(mut ring) = ring::<R>() else { return };
    if !crate::ring::probe::found(Features::ALL).cachestat {
        // Nothing counts as cached then (Linux 6.4 and older).
        return assert!(!ring.is_cached(file, 0, 300_000));
    }
    assert!(ring.is_cached(file, 0, 300_000), "it was just written");
    assert!(ring.is_cached(file, 299_999, 1));
    assert!(!ring.is_cached(file, 299_999, 2), "there is one byte only");
    assert!(!ring.is_cached(file, 1 << 40, 10));
    // SAFETY: plain numbers.
    unsafe {
        assert_eq!(libc::fsync(file.0), 0);
        assert_eq!(libc::posix_fadvise(file.0, 0, 0, libc::POSIX_FADV_DONTNEED), 0);
    }
    assert!(!ring.is_cached(file, 0, 300_000), "it was dropped from the cache");

    // Reading brings it back.
    std::fs::read(tree.0.path().join("file")).expect("the file");
    assert!(ring.is_cached(file, 100, 200_000));
    let (socket, mut client) = pair();
    let sent = ring.send_file(file, 100, 5_000, socket).expect("there is room");
    assert_eq!(sent, 5_000);
    let mut got = vec![0; 5_000];
    std::io::Read::read_exact(&mut client, &mut got).expect("what was sent");
    assert_eq!(got, content[100..5_100]);
    assert_eq!(ring.send_file(file, 300_000, 10, socket), Ok(0), "behind the end");
    let mut room = 0;
    let full = loop {
        match ring.send_file(file, 0, 300_000, socket) {
            Ok(more) => room += more,
            Err(errno) => break errno,
        }
        assert!(room < 100 << 20, "a socket has some end");
    };
    assert_eq!(full, Errno(libc::EAGAIN), "and no waiting");
    drop(client);
    ring.close_now(socket);
    ring.close_now(file);
}

on_each_ring! {
    opening_stays_beneath_its_directory_and_crosses_no_link,
    looking_a_fifo_up_makes_no_reader,
    reading_works_with_the_arena_registered_and_without,
    a_file_goes_through_a_pipe_to_a_socket,
    splicing_to_a_socket_that_cannot_take_it_never_waits,
    splicing_into_a_full_pipe_is_refused,
    the_kernel_tells_what_is_cached_and_sends_it_past_any_pipe,
}
