//! A disk that is full: a small tmpfs in a mount namespace of its own, with the daemon inside.

use super::client::*;
use super::{Served, same, until};
use crate::common::pattern;
use crate::namespace::{in_mount_namespace, mount};
use ringwright_test_support::needs_root;
use std::io;
use std::thread;

/// Chunks that are written from receive buffers, and chunks that go through a pipe.
#[test]
fn a_full_disk_ends_a_put_and_keeps_the_stream_in_step() {
    if !needs_root("it mounts a small disk") {
        return;
    }
    in_mount_namespace(|| {
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
        ringwrightd_test_support::socket::reset(half.into_stream());
        until(|| same(served.daemon.ledger().number("connections.open"), 1));
        client.write(&[put(8, "room", 800_000), data(8, &pattern(800_000))].concat());
        client.expect(ACCEPTED, 8);
        client.error(8, DISK_FULL);
        client.upload(9, "room", &pattern(800_000), 800_000);
        std::fs::remove_file(served.dir.path().join("room")).unwrap();
        assert!(client.download(7, "kept") == pattern(100_000));
        drop(client);
        served.stop(&["kept"]);
    });
}
