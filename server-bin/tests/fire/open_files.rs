//! Files that stay open where descriptors are short: whoever connects comes first.

use crate::{PATIENCE, PROGRAM, alone, same, until};
use ringwrightd_test_support::daemon::Daemon;
use ringwrightd_test_support::socket::Sources;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

const DESCRIPTORS: usize = 128;
/// A sixteenth of those that are not kept for the admin listener.
const STAY_OPEN: usize = 6;
const CLIENTS: usize = 200;
/// A file that has just changed is not kept open.
const SETTLED: Duration = Duration::from_millis(60);

fn get(stream: &mut TcpStream, number: usize) -> String {
    write!(stream, "GET /{number} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut reply = vec![0; 4_096];
    let mut length = 0;
    // A head without a body would be a reply without its file.
    while !reply[..length].ends_with(b"end") {
        match stream.read(&mut reply[length..]).unwrap() {
            0 => break,
            read => length += read,
        }
    }
    String::from_utf8_lossy(&reply[..length]).into_owned()
}

#[test]
fn open_files_give_way_to_clients() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    for number in 0..2 * STAY_OPEN {
        fs::write(folder.path().join(number.to_string()), format!("file {number} end")).unwrap();
    }
    thread::sleep(SETTLED);
    let arguments = [folder.path().to_str().unwrap(), "--shards", "1", "--idle-timeout", "never"];
    let daemon = Daemon::with_descriptors(PROGRAM, Some(DESCRIPTORS as u64), "http", &arguments);
    let at_rest = daemon.descriptors_at_rest();
    let mut sources = Sources::new(0);
    let mut first = sources.connect(daemon.address).unwrap();
    first.set_read_timeout(Some(PATIENCE)).unwrap();
    for number in 0..2 * STAY_OPEN {
        assert!(get(&mut first, number).ends_with(&format!("file {number} end")));
    }
    let open = || daemon.ledger().number("file_cache.open");
    // A reply may be read before the ledger of its turn is published.
    until(PATIENCE, || same("open files", open(), STAY_OPEN as u64));
    until(PATIENCE, || same("balanced", daemon.ledger().is_balanced(), true));
    let clients: Vec<TcpStream> =
        (0..CLIENTS).map(|_| sources.connect(daemon.address).unwrap()).collect();
    until(PATIENCE, || match daemon.ledger().number("accept_backoffs") {
        0 => Err(format!("{} of {DESCRIPTORS} descriptors", daemon.descriptors())),
        _ => same("open files", open(), 0),
    });
    drop(clients);
    until(PATIENCE, || same("descriptors", daemon.descriptors(), at_rest + 1));
    assert!(get(&mut first, 0).ends_with("file 0 end"));
    assert!(get(&mut first, 0).ends_with("file 0 end"));
    // It goes on with others.
    until(PATIENCE, || same("open files", open(), 1));
    drop(first);
    daemon.stop();
}
