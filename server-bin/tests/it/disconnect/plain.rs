//! Clients of plain sockets.

use super::seen::{Last, MESSAGE, Seen, Visit, visit};
use super::{disconnecting, disconnects, told};
use crate::common::{Modes, PATIENCE, Server};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

/// A stall does not end sooner.
const STALL_MIN: Duration = Duration::from_millis(100);

#[test]
fn every_ending_is_seen_by_a_plain_client() {
    let server = Server::echo_with_admin(&[
        "--shards",
        "1",
        "--disconnect-rate",
        "0.4",
        "--disconnect-seed",
        "1",
    ]);
    let visits: Vec<Visit> = thread::scope(|scope| {
        let visitors: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| (0..20).map(|_| visit(server.address)).collect::<Vec<_>>()))
            .collect();
        visitors.into_iter().flat_map(|visitor| visitor.join().unwrap()).collect()
    });
    let count = |matches: fn(&Visit) -> bool| visits.iter().filter(|it| matches(it)).count() as u64;
    let told = disconnects(&server);
    let sum = |names: &[&str]| names.iter().map(|name| told[*name]).sum::<u64>();
    assert_eq!(told.len(), 8, "{told:?}");
    assert!(told.values().all(|count| *count > 0), "one is never drawn: {told:?}");
    assert_eq!(told.values().sum::<u64>(), 80, "{told:?}");
    assert_eq!(count(|it| it.is_cut_by(Last::Fin)), sum(&["cut_close"]), "{told:?}");
    assert_eq!(count(|it| it.is_cut_by(Last::Rst)), sum(&["cut_reset"]), "{told:?}");
    let unanswered = sum(&["reset_at_once", "reset", "stall"]);
    assert_eq!(count(|it| it.is_unanswered_by(Last::Rst)), unanswered, "{told:?}");
    let late = count(|it| it.is_unanswered_by(Last::Rst) && it.last_message_took >= STALL_MIN);
    assert!(late >= told["stall"], "{late} ended late: {told:?}");
    // A FIN that follows a whole echo is seen by who asks for the next one.
    let mut left: Vec<TcpStream> = visits
        .into_iter()
        .filter(|it| it.is_unanswered_by(Last::Fin))
        .filter_map(|it| it.stream)
        .collect();
    let finished = left.len() as u64;
    assert_eq!(finished, sum(&["close_at_once", "close", "half_close"]), "{told:?}");
    // Of these, only those whose server has half-closed are reset, after a while.
    let give_up = Instant::now() + PATIENCE;
    while left.len() as u64 > finished - told["half_close"] {
        assert!(Instant::now() < give_up, "{} of {finished} were not reset: {told:?}", left.len());
        thread::sleep(Duration::from_millis(20));
        left.retain(|stream| stream.take_error().unwrap().is_none());
    }
    drop(left);
    server.stop().cleanly();
}

#[test]
fn at_a_probability_of_1_nobody_gets_a_byte() {
    let server = disconnecting(&["--disconnect-rate", "100%", "--disconnect-seed", "1"]);
    let seen: Vec<Seen> = (0..40).map(|_| visit(server.address).seen).collect();
    assert!(seen.iter().all(|seen| (seen.whole, seen.part) == (0, 0)), "{seen:?}");
    let resets = seen.iter().filter(|seen| seen.last == Last::Rst).count() as u64;
    let told = told(&server.stop().cleanly());
    assert_eq!(told["reset_at_once"], resets);
    assert_eq!(told["close_at_once"], 40 - resets);
    assert!((1..40).contains(&resets), "{resets} of 40");
}

/// The second run is told the seed that the first has drawn.
#[test]
fn a_seed_repeats_every_ending_to_the_byte() {
    fn run(seed: &[&str]) -> (Vec<Seen>, String) {
        let server = disconnecting(&[&["--disconnect-rate", "30%"], seed].concat());
        let seen = (0..15).map(|_| visit(server.address).seen).collect();
        (seen, server.stop().cleanly().stderr)
    }
    let (first, stderr) = run(&[]);
    let words: Vec<&str> = stderr.split_whitespace().collect();
    let seed = words.windows(2).find(|pair| pair[0] == "--disconnect-seed");
    let seed = seed.unwrap_or_else(|| panic!("no seed in {stderr}"))[1];
    let another = if seed == "5" { "6" } else { "5" };
    let (again, other) = thread::scope(|scope| {
        let again = scope.spawn(|| run(&["--disconnect-seed", seed]));
        let other = scope.spawn(|| run(&["--disconnect-seed", another]));
        (again.join().unwrap(), other.join().unwrap())
    });
    assert_eq!(first, again.0, "seed {seed}");
    assert!(!again.1.contains("--disconnect-seed"), "it was given: {}", again.1);
    assert_ne!(first, other.0, "seeds {seed} and {another}");
    assert!(first.iter().any(|seen| seen.whole > 0), "{first:?}");
}

#[test]
fn nobody_is_left_who_does_not_ask_for_it() {
    for (rate, is_told) in [(&[][..], false), (&["--disconnect-rate", "0"], true)] {
        let server = disconnecting(rate);
        let mut clients: Vec<_> = (0..20).map(|_| server.client()).collect();
        for round in 0..50_u8 {
            for client in &mut clients {
                client.send([round; MESSAGE]);
                let mut back = [0; MESSAGE];
                std::io::Read::read_exact(&mut client.stream, &mut back).unwrap();
                assert_eq!(back, [round; MESSAGE]);
            }
        }
        drop(clients);
        let ended = server.stop().cleanly();
        assert_eq!(ended.stderr.contains("disconnected"), is_told, "{}", ended.stderr);
        if is_told {
            assert!(told(&ended).values().all(|count| *count == 0), "{}", ended.stderr);
        }
        assert!(ended.stderr.contains("\"local_close\":0,\"aborted\":0"), "{}", ended.stderr);
    }
}
