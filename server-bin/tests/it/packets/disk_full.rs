//! A disk that is full: a small tmpfs in a mount namespace of its own, with the daemon inside.

use super::client::*;
use super::{Served, same, until};
use crate::common::pattern;
use crate::root::needs_root;
use std::ffi::CString;
use std::io;
use std::path::Path;
use std::thread;

/// From here on what this thread mounts is seen by this thread and its children alone.
fn leave_mount_namespace() {
    // SAFETY: no memory is involved. The thread gets a file system context of its own by it, too.
    assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNS) }, 0, "{}", io::Error::last_os_error());
    mount(c"none", Path::new("/"), c"", libc::MS_REC | libc::MS_PRIVATE, c"");
}

fn mount(
    source: &std::ffi::CStr,
    at: &Path,
    kind: &std::ffi::CStr,
    flags: u64,
    data: &std::ffi::CStr,
) {
    let at = CString::new(at.to_str().unwrap()).unwrap();
    let data = data.as_ptr().cast();
    // SAFETY: all of them are C strings that outlive the call.
    let result = unsafe { libc::mount(source.as_ptr(), at.as_ptr(), kind.as_ptr(), flags, data) };
    assert_eq!(result, 0, "mount(2): {}", io::Error::last_os_error());
}

/// Chunks that are written from receive buffers, and chunks that go through a pipe.
#[test]
fn a_full_disk_ends_a_put_and_keeps_the_stream_in_step() {
    if !needs_root("it mounts a small disk") {
        return;
    }
    let on_small_disk = || {
        leave_mount_namespace();
        let dir = tempfile::tempdir().unwrap();
        mount(c"none", dir.path(), c"tmpfs", 0, c"size=1m");
        let served = Served::start_in(dir, &[]);
        let mut client = served.client();
        client.upload(1, "kept", &pattern(100_000), 60_000);
        for (id, chunk) in [(2, 5_000), (3, 60_000), (4, 300_000), (5, 3_000_000)] {
            let (bytes, name) = (pattern(3_000_000), "large");
            let mut writer = client.stream.get_ref().try_clone().unwrap();
            let writing = thread::spawn(move || {
                let chunks = bytes.chunks(chunk).flat_map(|chunk| data(id, chunk));
                let all = [put(id, name, 3_000_000), chunks.collect(), packet(ECHO, id, b"!")];
                io::Write::write_all(&mut writer, &all.concat()).unwrap();
            });
            client.expect(ACCEPTED, id);
            let text = client.error(id, DISK_FULL);
            assert!(text.contains("os error 28"), "{text}");
            assert_eq!(client.expect(ECHOED, id), b"!", "chunks of {chunk}");
            writing.join().unwrap();
            assert_eq!(served.names(), ["kept"]);
            // All of its room is there again.
            client.upload(6, "room", &pattern(800_000), 800_000);
            std::fs::remove_file(served.dir.path().join("room")).unwrap();
        }
        // An upload that waits to be resumed makes room: for the next one, because the one that
        // filled the disk is over.
        let mut half = served.client();
        half.write(&[put_resumable(1, "half", 900_000, 1), data(1, &pattern(600_000))].concat());
        assert_eq!(half.resumed(1), 0);
        half.echoes();
        crate::socket::reset(half.into_stream());
        until(|| same(served.daemon.ledger().number("connections.open"), 1));
        client.write(&[put(8, "room", 800_000), data(8, &pattern(800_000))].concat());
        client.expect(ACCEPTED, 8);
        client.error(8, DISK_FULL);
        client.upload(9, "room", &pattern(800_000), 800_000);
        std::fs::remove_file(served.dir.path().join("room")).unwrap();
        assert!(client.download(7, "kept") == pattern(100_000));
        drop(client);
        served.stop(&["kept"]);
    };
    thread::spawn(on_small_disk).join().unwrap();
}
