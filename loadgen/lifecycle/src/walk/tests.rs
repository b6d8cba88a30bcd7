//! Scripts walked against servers that do one certain thing.

use super::*;
use crate::dialects::dialect;
use crate::finding::Rule;
use crate::route::Route;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::Instant;

/// Longer than anything here takes on a machine that is busy.
const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(100);

/// Serves each connection with `serve`; its address.
fn server(serve: impl Fn(TcpStream) + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("its address");
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let serve = serve.clone();
            thread::spawn(move || serve(stream));
        }
    });
    address
}

fn echo(mut stream: TcpStream) {
    let mut bytes = [0; 1 << 14];
    while let Ok(count @ 1..) = stream.read(&mut bytes) {
        if stream.write_all(&bytes[..count]).is_err() {
            return;
        }
    }
}

fn stage(address: SocketAddr, script: &Script, patience: Duration) -> Arc<Stage> {
    Arc::new(Stage {
        dialect: dialect(&script.target).expect("a dialect"),
        address,
        limits: Limits { patience, deadline: None, may_reject: false },
        route: Route::default(),
    })
}

fn script(steps: &str) -> Script {
    format!("echo://127.0.0.1:1 seed=7 number=1 {steps}").parse().expect(steps)
}

/// Walks one script.
fn walk_for(address: SocketAddr, steps: &str, patience: Duration) -> (Walked, Vec<Verdict>) {
    let script = script(steps);
    let stage = stage(address, &script, patience);
    let mut walker = Walker::new(stage.clone(), true).expect("an epoll");
    walker.start(Arc::new(script), 5);
    let since = Instant::now();
    let mut done = Vec::new();
    while done.is_empty() {
        assert!(since.elapsed() < LONG, "{steps} takes too long");
        done = walker.turn(SHORT).expect("epoll");
    }
    assert_eq!((walker.walking(), done.len()), (0, 1));
    let walked = done.remove(0);
    let verdicts = walked.judge(&stage);
    (walked, verdicts)
}

fn walk(address: SocketAddr, steps: &str) -> (Record, Verdict) {
    let (mut walked, mut verdicts) = walk_for(address, steps, LONG);
    assert_eq!((walked.tag, walked.lives.len(), verdicts.len()), (5, 1, 1), "{walked:?}");
    (walked.lives.remove(0).record, verdicts.remove(0))
}

#[test]
fn a_good_server_passes_whatever_the_script_does() {
    let address = server(echo);
    for (steps, outcome) in [
        ("say=64,100 connect send=100 recv=50 fin recv=end", "all of the echo, fin"),
        ("say=64,100 connect send=all recv=reply recv=reply fin recv=end", "all of the echo, fin"),
        ("say=64 connect:nowait send=all fin recv=end", "all of the echo, fin"),
        ("say=20 connect dribble=20@100us fin recv=end", "all of the echo, fin"),
        (
            "say=1000000 connect:rcvbuf=2048 flood=30ms send=all fin recv=end",
            "all of the echo, fin",
        ),
        ("connect fin recv=end", "nothing said, fin"),
        ("connect:nowait rst", "nothing said, we left"),
        ("say=64 connect send=3 rst", "no echo, we left"),
        ("say=64 connect send=all recv=10 close", "part of the echo, we left"),
        ("say=64 connect send=all wait=5ms vanish=5ms", "no echo, we left"),
        (
            "say=64 crowd=5:rst connect:from=127.0.0.9 send=all recv=reply",
            "all of the echo, we left",
        ),
        ("say=5000000 connect send=all recv=end", "all of the echo, silence"),
    ] {
        let patience = if steps.ends_with("all recv=end") { 5 * SHORT } else { LONG };
        let (walked, verdicts) = walk_for(address, steps, patience);
        assert_eq!(verdicts[0], crate::oracle::fine(outcome), "{steps}: {walked:?}");
        let last = walked.trace.last().expect("steps");
        assert_eq!(walked.trace.len(), walked.script.steps.len(), "{steps}");
        assert!(last.began <= walked.took, "{steps}");
    }
}

#[test]
fn deeds_are_told_as_they_were() {
    let address = server(echo);
    let (record, _) =
        walk(address, "say=64,36 connect send=70 wait=20ms send=all recv=100 fin recv=end");
    assert_eq!((record.actions.sent, record.received, record.replies), (100, 100, 2));
    assert!(record.actions.fin && !record.actions.gone && record.actions.stalled, "{record:?}");
    assert!(record.actions.silent >= Duration::from_millis(20), "{record:?}");
    assert!(record.actions.read_to_end && record.reaction.is_some(), "{record:?}");
    let (record, _) = walk(address, "say=64 connect send=all recv=reply rst");
    assert!(
        record.actions.gone && !record.actions.read_to_end && !record.actions.stalled,
        "{record:?}"
    );
    assert_eq!((record.ending, record.reaction), (Ending::Ours, None));
}

#[test]
fn a_reconnect_from_the_same_port_is_a_connection_of_its_own() {
    let address = server(echo);
    let steps = "say=64 connect send=all recv=reply rst connect:again send=all fin recv=end";
    let (walked, verdicts) = walk_for(address, steps, LONG);
    let [first, second] = &walked.lives[..] else { panic!("{walked:?}") };
    assert_eq!(first.local, second.local);
    assert_ne!(first.outgoing.bytes, second.outgoing.bytes);
    assert_eq!((first.record.ending, second.record.ending), (Ending::Ours, Ending::Fin));
    assert!(verdicts.iter().all(|verdict| verdict.finding.is_none()), "{verdicts:?}");
}

/// Reads `count` bytes, and then resets.
fn reset_after(mut stream: TcpStream, count: usize, answer: usize) {
    let mut bytes = vec![0; count];
    let _ = stream.read_exact(&mut bytes);
    let _ = stream.write_all(&bytes[..answer]);
    let socket = socket2::Socket::from(stream);
    socket.set_linger(Some(Duration::ZERO)).expect("a socket");
}

#[test]
fn what_came_before_a_reset_is_heard() {
    let address = server(|stream| reset_after(stream, 64, 60));
    for steps in [
        "say=64 connect send=all wait=50ms recv=end",
        "say=64,64 connect send=64 wait=50ms send=all recv=end",
        "say=64,64 connect send=64 wait=50ms fin recv=end",
    ] {
        let (record, verdict) = walk(address, steps);
        assert_eq!((record.ending, record.received), (Ending::Reset, 60), "{steps}");
        let finding = verdict.finding.expect(steps);
        assert_eq!(finding.rule, Rule::ResetInsteadOfReply, "{steps}: {finding:?}");
    }
    // Nobody looked when it came; but it was not us who ended it.
    let address = server(|stream| reset_after(stream, 64, 64));
    for last in ["rst", "close", "vanish=5ms", ""] {
        let steps = format!("say=64 connect send=all recv=reply wait=50ms {last}");
        let (record, verdict) = walk(address, &steps);
        assert_eq!(record.ending, Ending::Reset, "{steps}");
        assert_eq!(verdict.finding.expect(last).rule, Rule::UnprovokedReset, "{steps}");
    }
}

#[test]
fn a_fin_too_early_and_silence_are_told_apart() {
    let early = server(|mut stream| {
        let _ = stream.read_exact(&mut [0; 10]);
        let _ = stream.shutdown(Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let (record, verdict) = walk(early, "say=64 connect send=all recv=reply");
    assert_eq!(record.ending, Ending::Fin);
    assert_eq!(verdict.finding.expect("lost").rule, Rule::LostReply);

    let deaf = server(|stream| {
        thread::sleep(LONG);
        drop(stream);
    });
    for (steps, rule) in [
        ("say=64 connect send=all recv=reply", Rule::NotServed),
        ("say=64 connect send=all fin recv=end", Rule::NotServed),
        ("connect fin recv=end", Rule::NoReaction),
    ] {
        let (walked, verdicts) = walk_for(deaf, steps, 2 * SHORT);
        assert_eq!(walked.lives[0].record.ending, Ending::Silence, "{steps}");
        assert_eq!(verdicts[0].finding.as_ref().expect(steps).rule, rule, "{steps}");
        assert!(walked.took >= 2 * SHORT, "{steps}");
    }
}

#[test]
fn a_refused_connect_and_one_without_an_answer_are_told_apart() {
    let closed = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = closed.local_addr().expect("its address");
    drop(closed);
    let (record, verdict) = walk(address, "connect");
    assert_eq!(record.ending, Ending::Refused);
    assert_eq!(verdict.finding.expect("refused").rule, Rule::Refused);

    // Its backlog is full, and nobody accepts: the kernel drops the SYN.
    let full =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    full.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
    full.listen(0).expect("a listener");
    let address = full.local_addr().expect("bound").as_socket().expect("an address");
    let _waits = TcpStream::connect(address).expect("room for one");
    let (walked, verdicts) = walk_for(address, "connect", 3 * SHORT);
    assert_eq!(walked.lives[0].record.ending, Ending::ConnectTimeout);
    assert_eq!(verdicts[0].finding.as_ref().expect("no answer").rule, Rule::NotServed);
}

#[test]
fn hundreds_are_walked_at_once() {
    let address = server(echo);
    let template = script("say=64,3000 connect send=80 wait=20ms send=all fin recv=end");
    let stage = stage(address, &template, LONG);
    let mut walker = Walker::new(stage.clone(), false).expect("an epoll");
    let since = Instant::now();
    for number in 0..200 {
        let key = crate::dialect::Key { seed: 7, number };
        walker.start(Arc::new(Script { key, ..template.clone() }), number);
    }
    let mut tags = Vec::new();
    while tags.len() < 200 {
        assert!(since.elapsed() < LONG, "{} of 200", tags.len());
        for walked in walker.turn(SHORT).expect("epoll") {
            let verdicts = walked.judge(&stage);
            assert_eq!(verdicts[0].finding, None);
            assert!(walked.trace.is_empty());
            tags.push(walked.tag);
        }
    }
    tags.sort_unstable();
    assert!(tags.iter().copied().eq(0..200));
    assert_eq!((walker.walking(), walker.shortage()), (0, None));
}

#[test]
fn what_is_abandoned_is_told_without_a_finding() {
    let deaf = server(|stream| {
        thread::sleep(LONG);
        drop(stream);
    });
    let script = script("say=64 connect send=all recv=reply");
    let stage = stage(deaf, &script, LONG);
    let mut walker = Walker::new(stage.clone(), false).expect("an epoll");
    walker.start(Arc::new(script), 0);
    assert!(walker.turn(SHORT).expect("epoll").is_empty());
    let walked = walker.abandon();
    assert_eq!(walked[0].lives[0].record.ending, Ending::Ours);
    assert_eq!(walked[0].judge(&stage)[0].finding, None);
    assert_eq!(walker.walking(), 0);
}
