//! The simulation itself under many seeds: it makes progress, repeats itself, and a plain
//! receiver that follows the rules reads what was sent.

use super::*;
use std::collections::BTreeMap;

const PEERS: usize = 12;
const BYTES: u64 = 3000;

/// Accepts, reads to the end and closes; what each peer's socket brought.
struct Sink {
    bench: Bench,
    received: BTreeMap<usize, Vec<u8>>,
    peer_of: BTreeMap<u32, usize>,
    wanted: Vec<(Token, Op)>,
}

impl Sink {
    fn new(seed: u64) -> Self {
        let mut bench = Bench::new(seed);
        let listener = bench.listener;
        let mut rng = Rng::new(seed ^ 1);
        // No tries again, and tokens that are as good as descriptors: no generations.
        bench.ring.faults = Faults {
            cut_short: 0,
            no_receive_memory: 0,
            no_send_memory: 0,
            late_completion: 0,
            ..Faults::draw(&mut rng)
        };
        for peer in 0..PEERS {
            let plan = Plan::draw(&mut rng);
            let bytes: Vec<u8> = stream(peer as u64, 0).take(BYTES as usize).collect();
            bench.ring.add_peer(listener, Plan { afterwards: Afterwards::Fin, ..plan }, &bytes);
        }
        let wanted = vec![(token(Kind::Accept, 0), Op::Accept { listener, multishot: true })];
        Self { bench, received: BTreeMap::new(), peer_of: BTreeMap::new(), wanted }
    }

    fn step(&mut self) {
        for (token, op) in std::mem::take(&mut self.wanted) {
            if !self.bench.ring.push(token, op) {
                self.wanted.push((token, op));
            }
        }
        self.bench.ring.submit_and_wait(1, Duration::from_millis(100)).expect("never fails");
        while let Some(completion) = self.bench.ring.completion() {
            self.take(completion);
        }
    }

    fn take(&mut self, completion: Completion) {
        let slot = completion.token.slot();
        let socket = Descriptor(slot as i32);
        let again = Op::Receive { socket, multishot: true };
        if let Some(buffer) = completion.buffer().filter(|_| completion.result <= 0) {
            self.bench.ring.provide(buffer);
        }
        match completion.token.kind() {
            Some(Kind::Accept) => {
                if completion.result >= 0 {
                    self.accepted(Descriptor(completion.result));
                }
                if !completion.more() {
                    let listener = self.bench.listener;
                    self.wanted.push((completion.token, Op::Accept { listener, multishot: true }));
                }
            }
            Some(Kind::Receive) if completion.result > 0 => {
                let bytes = self.bench.bytes_of(completion);
                self.received.entry(self.peer_of[&slot]).or_default().extend(bytes);
                if !completion.more() {
                    self.wanted.push((completion.token, again));
                }
            }
            Some(Kind::Receive) if completion.result == -libc::ENOBUFS => {
                self.wanted.push((completion.token, again));
            }
            Some(Kind::Receive) => {
                self.wanted.push((token(Kind::Close, slot), Op::Close { descriptor: socket }));
            }
            Some(Kind::Close) => assert_eq!(completion.result, 0),
            other => panic!("{other:?} was never asked for"),
        }
    }

    fn accepted(&mut self, socket: Descriptor) {
        match self.bench.ring.peer_address(socket) {
            Ok(address) => {
                self.peer_of.insert(socket.0 as u32, Peer::birth_of(address).1);
                let receive = Op::Receive { socket, multishot: true };
                self.wanted.push((token(Kind::Receive, socket.0 as u32), receive));
            }
            Err(_) => self.bench.ring.close_now(socket),
        }
    }

    fn run(mut self) -> Self {
        for _ in 0..200 {
            self.step();
        }
        self.bench.ring.stop_faults();
        for _ in 0..5000 {
            self.step();
            let open = self.bench.ring.open_counts().sockets;
            if open == 0 && self.bench.ring.peers.iter().all(|peer| peer.established) {
                return self;
            }
        }
        panic!("{}sockets stay open: {:?}", self.bench.ring.trace(), self.bench.ring.peers);
    }
}

#[test]
fn every_seed_comes_to_an_end_and_no_byte_is_out_of_place() {
    let mut whole = 0;
    for seed in 0..SEEDS {
        let sink = Sink::new(seed).run();
        for (peer, bytes) in &sink.received {
            let sent = stream(*peer as u64, 0).take(bytes.len());
            assert!(bytes.iter().copied().eq(sent), "seed {seed}, peer {peer}");
            if bytes.len() as u64 == BYTES {
                whole += 1;
            } else {
                let standing = sink.bench.ring.peers[*peer].standing;
                assert!(matches!(standing, Standing::SentReset | Standing::Vanished));
            }
        }
        assert_eq!(sink.bench.ring.operations_in_flight(), 1, "the accept");
        assert_eq!(sink.bench.ring.buffers_provided(), usize::from(BUFFERS));
    }
    assert!(whole > SEEDS * PEERS as u64 / 3);
}

#[test]
fn a_seed_repeats_itself() {
    let trace = |seed| Sink::new(seed).run().bench.ring.trace();
    assert_eq!(trace(42), trace(42));
    assert_ne!(trace(42).split_once('\n'), trace(43).split_once('\n'));
}
