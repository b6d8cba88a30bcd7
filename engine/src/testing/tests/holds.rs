//! Holds, and jobs without a connection, on the bench.

use crate::testing::{Bench, Client, ClientEnd};
use crate::workers::{Hold, Job, JobDone, OffloadJobErrorKind, TakeHoldError};
use crate::{Config, Connection, ConnectionId, Handler, Local, Origin, Reason};
use std::time::Duration;

/// Takes a hold for each byte: `h` an ordered one, `u` an unordered one, `s` one of the shard. For
/// a `j` it offloads a job. Each result is sent as a line, and those of the shard are listed.
#[derive(Default)]
struct Takes {
    holds: Vec<Hold>,
    made: u64,
    refused: u64,
    id: Option<ConnectionId>,
    of_shard: Vec<String>,
}

fn text(done: JobDone) -> String {
    let tag = done.tag();
    match done.result::<&str>() {
        Ok(value) => format!("{tag} {value}\n"),
        Err(error) => format!("{tag} {error}\n"),
    }
}

impl Handler for Takes {
    type State = ();

    fn opened(&mut self, connection: &mut Connection<'_>, _: Origin) {
        self.id = Some(connection.id());
    }

    fn received(&mut self, (): &mut (), connection: &mut Connection<'_>, bytes: &[u8]) -> usize {
        for (used, byte) in bytes.iter().enumerate() {
            let hold = match byte {
                b'h' => connection.hold(self.made).map(Some),
                b'u' => connection.hold_unordered(self.made).map(Some),
                b's' => connection.local().hold(self.made).map(Some),
                _ => match connection.offload(Job::new(self.made, || "worked")) {
                    Ok(()) => Ok(None),
                    Err(refused) => panic!("{refused}"),
                },
            };
            match hold {
                Ok(hold) => self.holds.extend(hold),
                Err(TakeHoldError::Full) => {
                    self.refused += 1;
                    return used;
                }
                Err(error) => panic!("{error}"),
            }
            self.made += 1;
        }
        bytes.len()
    }

    fn job_done(&mut self, (): &mut (), connection: &mut Connection<'_>, job: JobDone) {
        let _ = connection.send(text(job).as_bytes());
    }

    fn shard_job_done(&mut self, shard: &mut Local<'_>, job: JobDone) {
        self.of_shard.push(format!("{} {}", shard.shard(), text(job)));
    }

    fn closed(&mut self, _: Option<()>, shard: &mut Local<'_>, _: ConnectionId, reason: Reason) {
        let hold = shard.hold(0).map(|hold| self.holds.push(hold));
        let job = shard.offload(Job::new(0, || "saved")).map_err(|refused| refused.kind);
        self.of_shard.push(format!("{reason:?} {hold:?} {job:?}"));
    }
}

fn bench(change: impl FnOnce(&mut Config)) -> (Bench<Takes>, Client) {
    let mut config = Config { workers: 1, max_connections: 8, ..Config::default() };
    change(&mut config);
    let mut bench = Bench::new(config, |_| Takes::default());
    let client = bench.connect();
    (bench, client)
}

/// Takes a hold out of the handler. The others move up.
fn take(bench: &mut Bench<Takes>, at: usize) -> Hold {
    bench.handler(0).expect("it runs").holds.remove(at)
}

/// Completes a hold, and lets time pass. Returns what the client has got altogether.
fn complete(bench: &mut Bench<Takes>, client: Client, at: usize) -> String {
    take(bench, at).complete("done");
    bench.run();
    heard(bench, client)
}

fn heard(bench: &mut Bench<Takes>, client: Client) -> String {
    String::from_utf8_lossy(bench.received(client)).into_owned()
}

#[test]
fn values_come_in_the_order_of_jobs_and_holds_however_holds_end() {
    let (mut bench, client) = bench(|_| {});
    bench.send(client, b"hhjuh");
    bench.run();
    assert_eq!(complete(&mut bench, client, 3), "", "the last waits for the others");
    assert_eq!(complete(&mut bench, client, 2), "3 done\n", "nobody waits for an unordered one");
    drop(take(&mut bench, 1));
    bench.run();
    assert_eq!(heard(&mut bench, client), "3 done\n");
    let all = "3 done\n0 done\n1 the hold was dropped without a value\n2 worked\n4 done\n";
    assert_eq!(complete(&mut bench, client, 0), all);
    let sum = bench.finish().sum;
    let holds = (sum.holds_taken, sum.holds_dropped, sum.holds_under_way);
    // `closed` adds a job and a hold of the shard, which the end leaves unclaimed.
    assert_eq!((sum.jobs_submitted, sum.jobs_done, sum.jobs_failed, holds), (7, 5, 1, (5, 1, 0)));
}

#[test]
fn a_connection_with_all_its_jobs_and_holds_is_paused_until_one_is_delivered() {
    let (mut bench, client) = bench(|config| config.jobs_per_connection_max = 2);
    bench.send(client, b"huh");
    bench.run();
    let handler = bench.handler(0).expect("it runs");
    assert_eq!((handler.holds.len(), handler.refused), (2, 1));
    assert_eq!(complete(&mut bench, client, 1), "1 done\n");
    assert_eq!(bench.handler(0).expect("it runs").holds.len(), 2, "the third has its hold");
    assert_eq!(complete(&mut bench, client, 1), "1 done\n");
    assert_eq!(complete(&mut bench, client, 0), "1 done\n0 done\n2 done\n");
    assert_eq!(bench.finish().sum.jobs_refused, 1);
}

struct PanicsWhenDropped;

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        panic!("a value that panics when it is dropped");
    }
}

#[test]
fn a_hold_learns_that_its_connection_has_gone_and_its_value_is_dropped() {
    let (mut bench, client) = bench(|_| {});
    bench.send(client, b"hhh");
    bench.run();
    assert!(!bench.handler(0).expect("it runs").holds[0].is_abandoned());
    // It waits for its turn when the connection ends.
    take(&mut bench, 2).complete(PanicsWhenDropped);
    bench.reset(client);
    bench.run();
    for _ in 0..2 {
        let hold = take(&mut bench, 0);
        assert!(hold.is_abandoned());
        hold.complete(PanicsWhenDropped);
    }
    bench.run();
    let sum = bench.ledger().sum;
    // Those that are left are of the shard (`closed`).
    assert_eq!((sum.jobs_unclaimed, sum.jobs_under_way, sum.holds_under_way), (3, 1, 1));
    let handler = bench.handler(0).expect("it runs");
    let left = handler.holds.pop().expect("the one of the shard");
    assert!(handler.holds.is_empty() && !left.is_abandoned());
    bench.finish();
    assert!(left.is_abandoned());
    left.complete(PanicsWhenDropped);
}

#[test]
fn a_connection_with_a_hold_is_not_idle_and_outlives_the_fin_of_its_peer() {
    let (mut bench, client) = bench(|config| config.idle_timeout = Some(Duration::from_secs(1)));
    bench.send(client, b"h");
    bench.advance(Duration::from_secs(5));
    bench.half_close(client);
    bench.advance(Duration::from_secs(5));
    assert_eq!(bench.client_end(client), ClientEnd::Open);
    assert_eq!(complete(&mut bench, client, 0), "0 done\n");
    assert_eq!(bench.client_end(client), ClientEnd::Finished);
    assert_eq!(bench.finish().sum.closed_by[Reason::PeerFin as usize], 1);
}

#[test]
fn commands_sent_before_a_hold_is_completed_precede_its_value() {
    let (mut bench, client) = bench(|_| {});
    bench.send(client, b"h");
    bench.run();
    let id = bench.handler(0).expect("it runs").id.expect("it is open");
    for part in [&b"first\n"[..], b"second\n"] {
        bench.handle().send(id, part).expect("there is room");
    }
    assert_eq!(complete(&mut bench, client, 0), "first\nsecond\n0 done\n");
    bench.finish();
}

#[test]
fn a_drain_waits_for_a_hold_until_its_deadline() {
    for in_time in [true, false] {
        let (mut bench, client) = bench(|_| {});
        bench.send(client, b"h");
        bench.run();
        bench.handle().drain(Duration::from_secs(60));
        bench.advance(Duration::from_secs(50));
        assert_eq!(bench.client_end(client), ClientEnd::Open);
        if in_time {
            assert_eq!(complete(&mut bench, client, 0), "0 done\n");
            assert_eq!(bench.client_end(client), ClientEnd::Finished);
            // `closed` has asked for a job and a hold. The drain waits for the hold.
            assert_eq!(bench.handler(0).expect("it runs").of_shard[1], "0 0 saved\n");
        } else {
            let hold = take(&mut bench, 0);
            bench.advance(Duration::from_secs(14));
            assert_eq!(bench.client_end(client), ClientEnd::Reset);
            assert!(bench.handler(0).is_none() && hold.is_abandoned());
            hold.complete("late");
        }
        bench.finish();
    }
}

#[test]
fn a_drain_waits_for_jobs_of_the_shard_after_the_last_connection() {
    let (mut bench, client) = bench(|_| {});
    bench.send(client, b"s");
    bench.run();
    bench.half_close(client);
    bench.run();
    assert_eq!(bench.client_end(client), ClientEnd::Finished);
    bench.handle().drain(Duration::from_secs(60));
    bench.advance(Duration::from_secs(50));
    let handler = bench.handler(0).expect("it waits");
    assert_eq!(handler.of_shard, ["PeerFin Ok(()) Ok(())", "0 0 saved\n"]);
    drop(take(&mut bench, 1));
    bench.run();
    assert_eq!(bench.handler(0).expect("one is left").of_shard.len(), 3);
    take(&mut bench, 0).complete("loaded");
    bench.run();
    assert!(bench.handler(0).is_none(), "the drain is over");
    let sum = bench.finish().sum;
    assert_eq!((sum.jobs_done, sum.jobs_failed, sum.jobs_unclaimed), (2, 1, 0));
}

#[test]
fn jobs_of_the_shard_have_a_limit_and_end_with_its_deadline() {
    let (mut bench, client) = bench(|config| config.jobs_per_shard_max = 2);
    bench.send(client, b"sss");
    bench.run();
    let handler = bench.handler(0).expect("it runs");
    assert_eq!((handler.holds.len(), handler.refused), (2, 1));
    // It asks again when something comes.
    take(&mut bench, 0).complete("loaded");
    bench.send(client, b"s");
    bench.run();
    let handler = bench.handler(0).expect("it runs");
    assert_eq!(
        (handler.holds.len(), handler.refused, &handler.of_shard[..]),
        (2, 2, &["0 0 loaded\n".to_owned()][..])
    );
    let holds = std::mem::take(&mut handler.holds);
    bench.handle().stop();
    bench.run();
    assert!(bench.handler(0).is_none() && holds.iter().all(Hold::is_abandoned));
    let sum = bench.finish().sum;
    assert_eq!((sum.jobs_done, sum.jobs_unclaimed, sum.jobs_refused), (1, 2, 4));
}

/// Says in `closed` what comes of a job.
struct Late(Vec<(TakeHoldError, OffloadJobErrorKind)>);

impl Handler for Late {
    type State = ();

    fn opened(&mut self, _: &mut Connection<'_>, _: Origin) {}

    fn received(&mut self, (): &mut (), _: &mut Connection<'_>, bytes: &[u8]) -> usize {
        bytes.len()
    }

    fn closed(&mut self, _: Option<()>, shard: &mut Local<'_>, _: ConnectionId, _: Reason) {
        let hold = shard.hold(0).expect_err("it ends");
        let job = shard.offload(Job::new(0, || ())).expect_err("it ends").kind;
        self.0.push((hold, job));
        assert_eq!(self.0[0], (TakeHoldError::Ending, OffloadJobErrorKind::Ending));
    }
}

#[test]
fn a_shard_that_was_stopped_takes_no_job() {
    let mut bench = Bench::new(Config { workers: 1, ..Config::default() }, |_| Late(Vec::new()));
    bench.connect();
    bench.run();
    bench.handle().stop();
    bench.run();
    assert_eq!(bench.finish().sum.jobs_refused, 2);
}

#[test]
fn the_limit_of_a_shard_is_checked() {
    let check = |limit| Config { jobs_per_shard_max: limit, ..Config::default() }.check().is_ok();
    assert_eq!([0, 1, 1 << 20, (1 << 20) + 1].map(check), [false, true, true, false]);
}

#[test]
fn a_hold_can_be_sent_and_shared() {
    fn is_send_and_sync<T: Send + Sync + 'static>() {}
    is_send_and_sync::<Hold>();
}
