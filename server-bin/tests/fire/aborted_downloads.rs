//! Downloads that clients abort, each at another moment and in another way, leave nothing behind.

use crate::download;
use crate::{PATIENCE, PROGRAM, alone, same, scaled, until};
use ringwright_test_support::needs_root;
use ringwrightd_test_support::daemon::Daemon;
use ringwrightd_test_support::socket::{self, Sources};
use std::fs::{self, Permissions};
use std::io::Read;
use std::net::{Shutdown, TcpStream};
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

const DOWNLOADS: usize = 10_000;
const GROWTH_MAX_KIB: usize = 1 << 10;
const FILE_BYTES: u64 = 10 << 20;
/// Far less than there is.
const TAKEN_BYTES: usize = 100_000;
const CLIENTS: u8 = 4;
const PIPES: usize = 32;
/// Four threads of the kernel of either class, for a shard's ring.
const IO_WORKERS_MAX: usize = 2 * 4;

#[test]
fn aborted_downloads() {
    let _alone = alone();
    let tree = tree();
    let arguments = [tree.path().to_str().unwrap(), "--shards", "1"];
    give_up(Daemon::start(PROGRAM, "http", &arguments));
}

/// Files of others go through pipes, which may be full when the client leaves.
#[test]
fn aborted_downloads_through_pipes() {
    if !needs_root("the daemon is another user's") {
        return;
    }
    let _alone = alone();
    let tree = tree();
    let arguments = [tree.path().to_str().unwrap(), "--shards", "1"];
    give_up(Daemon::of_nobody(PROGRAM, tree.path(), "http", &arguments));
}

fn tree() -> tempfile::TempDir {
    let tree = tempfile::tempdir().unwrap();
    fs::set_permissions(tree.path(), Permissions::from_mode(0o755)).unwrap();
    fs::write(tree.path().join("large"), content(0..FILE_BYTES as usize)).unwrap();
    tree
}

fn give_up(daemon: Daemon) {
    let rest = || daemon.descriptors() - daemon.descriptors_of("pipe").len();
    let (threads, descriptors) = (daemon.threads(), rest());
    let mut sources: Vec<Sources> = (0..CLIENTS).map(Sources::new).collect();
    let comes_to_rest = || {
        until(PATIENCE, || {
            let ledger = daemon.ledger();
            same("open", ledger.number("connections.open"), 0)?;
            for pair in ["permits", "slots", "buffers", "send_buffers", "pipes"] {
                same(pair, ledger.in_use(pair), 0)?;
            }
            same("balanced", ledger.is_balanced(), true)?;
            same("descriptors", rest(), descriptors)
        });
        assert!(daemon.threads() <= threads + IO_WORKERS_MAX, "{} threads", daemon.threads());
        assert!(daemon.descriptors_of("pipe").len() <= 2 * PIPES, "ends of pipes");
    };
    let begun = Instant::now();
    // After a tenth, the pools that the daemon keeps have reached their size.
    let downloads = scaled(DOWNLOADS);
    all_give_up(&daemon, &mut sources, 0..downloads / 10);
    comes_to_rest();
    let before = daemon.resident_kib();
    all_give_up(&daemon, &mut sources, downloads / 10..downloads);
    comes_to_rest();
    let after = daemon.resident_kib();
    let (is, seconds) = (daemon.threads(), begun.elapsed().as_secs_f64());
    eprintln!("{seconds:.1} s, {before} to {after} KiB, {is} threads after {threads}");
    assert!(after <= before + GROWTH_MAX_KIB, "it grew from {before} to {after} KiB");
    let ledger = daemon.stop();
    let waits = ledger.number("pipe_waits");
    eprintln!("{waits} waits for a pipe, closed by {:?}", ledger.nonzero("closed_by"));
    assert_eq!(ledger.number("connections.accepted"), downloads as u64, "{ledger:?}");
    assert_eq!(ledger.number("files"), 0, "{ledger:?}");
}

fn all_give_up(daemon: &Daemon, sources: &mut [Sources], numbers: Range<usize>) {
    let next = AtomicUsize::new(numbers.start);
    thread::scope(|scope| {
        for sources in sources {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= numbers.end {
                        return;
                    }
                    let mut client = sources.connect(daemon.address).unwrap();
                    download::ask(&mut client, "large").unwrap();
                    one_gives_up(client, number);
                }
            });
        }
    });
}

fn one_gives_up(mut client: TcpStream, number: usize) {
    match number % 3 {
        // At once. FIN, and RST as soon as something comes.
        0 => {}
        // In the middle, with bytes unread: RST (RFC 9293, 3.5.2).
        1 => {
            takes_some(&mut client);
            assert!(download::unread(&client) > 0, "the whole file has been read");
        }
        // The client will not ask for more, and that is no reason to give it less; then it goes.
        _ => {
            takes_some(&mut client);
            client.shutdown(Shutdown::Write).unwrap();
            takes_more(&mut client, TAKEN_BYTES..10 * TAKEN_BYTES);
            socket::reset(client);
        }
    }
}

fn takes_some(client: &mut TcpStream) {
    let reply = download::head(client);
    assert_eq!((reply.status, reply.body_bytes), (200, FILE_BYTES));
    let begun = reply.begun.len();
    assert!(reply.begun == content(0..begun), "other bytes at the beginning");
    takes_more(client, begun..TAKEN_BYTES);
}

fn takes_more(client: &mut TcpStream, part: Range<usize>) {
    let mut taken = vec![0; part.len()];
    client.read_exact(&mut taken).unwrap();
    assert!(taken == content(part), "other bytes");
}

/// Bytes that show where they belong: what another client left in a pipe does not pass for them.
fn content(part: Range<usize>) -> &'static [u8] {
    static WHOLE: LazyLock<Vec<u8>> =
        LazyLock::new(|| (0..FILE_BYTES as u32 / 4).flat_map(u32::to_ne_bytes).collect());
    &WHOLE[part]
}
