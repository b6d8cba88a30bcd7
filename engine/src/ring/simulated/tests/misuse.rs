//! Mistakes that a real kernel would answer with somebody else's data.

use super::*;

#[test]
#[should_panic(expected = "not open")]
fn a_descriptor_closed_twice() {
    let mut bench = Bench::new(1);
    let (_, socket) = bench.accepted(Plan::plain(), b"");
    bench.ring.close_now(socket);
    bench.ring.close_now(socket);
}

#[test]
#[should_panic(expected = "receive multishot on descriptor 1000001: not open")]
fn a_descriptor_used_after_its_close() {
    let mut bench = Bench::new(1);
    let (_, socket) = bench.accepted(Plan::plain(), b"");
    bench.ring.close_now(socket);
    bench.push(token(Kind::Receive, 1), Op::Receive { socket, multishot: true });
    bench.all_within(1);
}

#[test]
#[should_panic(expected = "which an operation uses")]
fn a_descriptor_closed_at_once_while_an_operation_uses_it() {
    let mut bench = Bench::new(1);
    let (_, socket) = bench.accepted(Plan::plain(), b"");
    bench.push(token(Kind::Probe, 1), Op::Probe { socket });
    bench.ring.close_now(socket);
}

#[test]
#[should_panic(expected = "buffer 3 is provided twice")]
fn a_buffer_given_twice() {
    Bench::new(1).ring.provide(3);
}

#[test]
#[should_panic(expected = "there is none such")]
fn a_buffer_that_does_not_exist() {
    Bench::new(1).ring.provide(BUFFERS);
}

#[test]
#[should_panic(expected = "is in flight already")]
fn two_operations_of_one_token() {
    let mut bench = Bench::new(1);
    let (_, socket) = bench.accepted(Plan::plain(), b"");
    for _ in 0..2 {
        bench.push(token(Kind::Probe, 1), Op::Probe { socket });
    }
}

#[test]
#[should_panic(expected = "not in the arena")]
fn a_read_into_a_receive_buffer() {
    let mut bench = Bench::new(1);
    let kind = crate::ring::FileKind::Regular;
    bench.ring.add_file("f", SimulatedFile { key: 1, bytes: 100, kind });
    let directory = bench.ring.add_directory();
    bench.push(
        token(Kind::Open, 1),
        Op::Open { directory, path: c"f".as_ptr(), waits: false, path_only: false, follows: false },
    );
    let file = Descriptor(bench.one().result);
    // SAFETY: still within the arena.
    let address = unsafe { bench.read_address().sub(1) };
    bench.push(token(Kind::Read, 1), Op::Read { file, address, length: 10, offset: 0 });
    bench.all_within(1);
}

#[test]
#[should_panic(expected = "open of what may be a FIFO or a device")]
fn an_open_of_what_is_no_regular_file() {
    let mut bench = Bench::new(1);
    let kind = crate::ring::FileKind::Other;
    bench.ring.add_file("fifo", SimulatedFile { key: 1, bytes: 0, kind });
    let directory = bench.ring.add_directory();
    for path_only in [true, false] {
        let path = c"fifo".as_ptr();
        bench.push(
            token(Kind::Open, 1),
            Op::Open { directory, path, waits: false, path_only, follows: false },
        );
        bench.one();
    }
}
