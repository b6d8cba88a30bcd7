//! Transfers that clients abort or leave give back everything that they held.

use super::client::*;
use super::{Served, alone};
use crate::common::pattern;
use ringwrightd_test_support::scale::scaled;
use ringwrightd_test_support::socket::{Sources, reset};
use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::thread;
use std::time::Instant;

/// Of each kind.
const TRANSFERS: usize = 10_000;
const CLIENTS: u8 = 4;

/// Has `client` done by so many clients at a time, and looks what is left.
fn transfers(client: impl Fn(SocketAddr, u8, u32) + Copy + Send + 'static) {
    let _alone = alone();
    let served = Served::start(&["--shards", "2"]);
    // Four chunks and a bit.
    File::create(served.dir.path().join("large")).unwrap().set_len((4 << 20) + 1).unwrap();
    served.client().echoes();
    served.comes_to_rest();
    let descriptors = served.daemon.descriptors();
    let address = served.daemon.address;
    let begun = Instant::now();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let each = scaled(TRANSFERS) as u32 / u32::from(CLIENTS);
            thread::spawn(move || client(address, number, each))
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
    served.comes_to_rest();
    let taken = begun.elapsed();
    eprintln!(
        "{} in {taken:.1?}, {} KiB resident",
        scaled(TRANSFERS),
        served.daemon.resident_kib()
    );
    // Pipes are kept for the next one.
    let pipes = served.daemon.descriptors_of("pipe").len();
    let left = served.daemon.descriptors() - pipes;
    assert!(
        left <= descriptors,
        "{descriptors} descriptors before, {left} and {pipes} pipes after"
    );
    assert_eq!(served.names(), ["large"]);
    served.stop(&["large"]);
}

#[test]
fn gets_that_clients_abort() {
    transfers(|address, _, each| {
        let mut client = Client::connect(address);
        for id in 0..each {
            let size = (4_u64 << 20) + 1;
            let requests = [packet(GET, id, b"large"), take(id, 0, size), packet(ABORT, id, b"")];
            client.write(&requests.concat());
            client.expect(OFFER, id);
            let mut chunks = 0;
            loop {
                let answer = client.answer();
                if answer.says() == (ABORTED, id, 0) {
                    break;
                }
                client.chunk(&answer);
                chunks += 1;
            }
            assert_eq!(chunks, 1, "the chunk that was under way");
        }
    });
}

#[test]
fn gets_whose_clients_vanish() {
    transfers(|address, number, each| {
        let mut sources = Sources::new(number);
        for id in 0..each {
            let mut client = Client::on(sources.connect(address).unwrap());
            client.write(&[packet(GET, id, b"large"), take(id, 0, (4 << 20) + 1)].concat());
            client.expect(OFFER, id);
            if id % 4 > 0 {
                let mut some = vec![0; 1 + (id as usize * 7919) % 200_000];
                client.stream.read_exact(&mut some).unwrap();
            }
            if id % 2 == 0 {
                reset(client.into_stream());
            }
        }
    });
}

#[test]
fn puts_that_clients_abort() {
    transfers(|address, number, each| {
        let mut client = Client::connect(address);
        let bytes = pattern(100_000);
        for id in 0..each {
            let name = format!("{number}-{id}");
            let some = &bytes[..1 + (id as usize * 7919) % bytes.len()];
            let mut requests = put(id, &name, 1 << 20);
            if id % 4 > 0 {
                requests.extend(data(id, some));
            }
            requests.extend(packet(ABORT, id, b""));
            client.write(&requests);
            client.expect(ACCEPTED, id);
            client.expect(ABORTED, id);
        }
    });
}

#[test]
fn puts_whose_clients_vanish() {
    transfers(|address, number, each| {
        let mut sources = Sources::new(number);
        let bytes = pattern(200_000);
        for id in 0..each {
            let mut client = Client::on(sources.connect(address).unwrap());
            let chunk = data(id, &bytes);
            let some = &chunk[..(id as usize * 7919) % chunk.len()];
            client.write(&[&put(id, &format!("{number}-{id}"), 1 << 20), some].concat());
            if id % 4 > 0 {
                client.expect(ACCEPTED, id);
            }
            if id % 2 == 0 {
                reset(client.into_stream());
            }
        }
    });
}
