//! Clients that send whatever comes to mind: requests that make sense and some that make none, in
//! any order, cut anywhere, given up at any point. Whatever is answered, nothing panics, nothing
//! is kept, and nobody else notices.

use super::client::*;
use super::{Served, alone};
use crate::common::pattern;
use ringwrightd_test_support::scale::scaled;
use ringwrightd_test_support::socket::Sources;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::Duration;

const CLIENTS: u8 = 4;
const CONNECTIONS: usize = 1_000;
const PACKETS: u64 = 40;
const NAMES: [&str; 5] = ["large", "a", "b", "directory", "\u{e4}"];

/// xorshift64*.
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % bound
    }

    fn bytes(&mut self) -> Vec<u8> {
        let bound = [1, 30, 3_000, 65_532][self.below(4) as usize];
        let length = self.below(bound) as usize;
        pattern(length)
    }

    fn new_word(&mut self, id: u32, name: &str, size: u64) -> Vec<u8> {
        let version = [ANY, [1; 16]][self.below(2) as usize];
        match self.below(4) {
            0 => get_range(id, name, self.below(3), REST, version),
            1 => get_range(id, name, self.below(3), size, version),
            2 => get_range(id, name, u64::MAX - self.below(2), size, version),
            _ => put_resumable(id, name, size, self.below(2) as u8),
        }
    }

    /// Something to send. Ids are few, so that they meet.
    fn packet(&mut self) -> Vec<u8> {
        let id = self.below(3) as u32;
        let name = NAMES[self.below(NAMES.len() as u64) as usize];
        let size = [0, 1, 1_000, 100_000, 1 << 20][self.below(5) as usize];
        match self.below(45) {
            0..4 => packet(ECHO, id, &self.bytes()),
            4..7 => packet(DIGEST, id, &self.bytes()),
            7..9 => packet(DIGEST_FILE, id, name.as_bytes()),
            9 => packet(BROADCAST, id, &self.bytes()),
            10 => packet(LIST, id, &name.as_bytes()[..self.below(2) as usize]),
            11..15 => packet(GET, id, name.as_bytes()),
            15..19 => take(id, self.below(3), size),
            19..24 => {
                let mut packet = put(id, name, size);
                packet[9] = self.below(2) as u8;
                packet
            }
            24..34 => {
                let length = self.below(1 + size.min(200_000)) as usize;
                if length == 0 { data(id, b"x") } else { data(id, &pattern(length)) }
            }
            34..38 => packet(ABORT, id, b""),
            38..43 => self.new_word(id, name, size),
            43 => packet(self.below(256) as u8, id, &self.bytes()),
            _ => {
                // Seldom: after it the connection is over.
                let mut bytes = self.bytes();
                bytes.truncate(if self.below(4) == 0 { 100 } else { 0 });
                bytes
            }
        }
    }
}

fn story(address: SocketAddr, sources: &mut Sources, draw: &mut Draw) {
    let stream = sources.connect(address).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut reader = stream.try_clone().unwrap();
    // Some read nothing for a while.
    let reads_after = Duration::from_millis(draw.below(3) * 10);
    let reading = thread::spawn(move || {
        thread::sleep(reads_after);
        let mut block = vec![0; 1 << 16];
        while reader.read(&mut block).is_ok_and(|count| count > 0) {}
    });
    let packets = draw.below(PACKETS);
    for _ in 0..packets {
        let packet = draw.packet();
        let cut = draw.below(packet.len() as u64 + 1) as usize;
        let mut writer = &stream;
        let pieces = [&packet[..cut], &packet[cut..]];
        if pieces.iter().any(|piece| writer.write_all(piece).is_err()) {
            break;
        }
        if draw.below(8) == 0 {
            thread::sleep(Duration::from_millis(draw.below(4)));
        }
    }
    match draw.below(3) {
        0 => abort(&stream),
        1 => {
            let _ = stream.shutdown(Shutdown::Both);
        }
        _ => {
            // Until the server has had enough of it.
            let _ = stream.shutdown(Shutdown::Write);
            reading.join().unwrap();
            return;
        }
    }
    let _ = reading.join();
}

/// Ends it with RST, although somebody else has it, too (connect(2), `AF_UNSPEC`).
fn abort(stream: &TcpStream) {
    let nowhere = libc::sockaddr { sa_family: libc::AF_UNSPEC as u16, sa_data: [0; 14] };
    let length = size_of_val(&nowhere) as libc::socklen_t;
    // SAFETY: the address is as long as is said, and the kernel only reads it.
    unsafe { libc::connect(stream.as_raw_fd(), &raw const nowhere, length) };
}

#[test]
fn nothing_that_clients_send_is_too_much() {
    let _alone = alone();
    let arguments = ["--shards", "2", "--replace", "--offer-timeout", "10ms", "--workers", "2"];
    let brief = ["--resume-timeout", "50ms"];
    let served = Served::start(&[&arguments[..], &brief, &["--idle-timeout", "15s"]].concat());
    served.write("large", &pattern(3 << 20));
    std::fs::create_dir(served.dir.path().join("directory")).unwrap();
    let address = served.daemon.address;
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            thread::spawn(move || {
                let (mut sources, mut draw) = (Sources::new(number), Draw(1 + u64::from(number)));
                for _ in 0..scaled(CONNECTIONS) {
                    story(address, &mut sources, &mut draw);
                }
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
    served.comes_to_rest();
    // Before that, a broadcast of another client might come first.
    served.client().echoes();
    served.comes_to_rest();
    let kib = served.daemon.resident_kib();
    assert!(kib < 100 << 10, "{kib} KiB resident");
    let names = served.names();
    assert!(names.iter().all(|name| NAMES.contains(&name.as_str())), "{names:?}");
    // Everybody was answered to the end, and nobody was forgotten.
    assert_eq!(served.daemon.ledger().number("closed_by.idle_timeout"), 0);
    // No handler has panicked: that is looked at, too.
    served.daemon.stop();
}
