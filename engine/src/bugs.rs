//! Switches for known bugs of such servers. They exist only in a build with
//! `--cfg ringwright_bugs`, in which `RINGWRIGHT_BUG=NAME` turns one bug on.
//! `engine/bugs` shows that a test catches each of them.

/// True while the named bug is on. Without the cfg this is the literal `false`.
#[cfg(ringwright_bugs)]
macro_rules! bug {
    ($name:literal) => {
        crate::bugs::is_on(const { crate::bugs::number_of($name) })
    };
}
#[cfg(not(ringwright_bugs))]
macro_rules! bug {
    ($name:literal) => {
        false
    };
}

#[cfg(ringwright_bugs)]
pub use switches::{is_on, number_of};

#[cfg(ringwright_bugs)]
mod switches {
    use std::io::Write;
    use std::sync::LazyLock;

    /// Declares each bug: a sentence that describes it, its name, and a test filter. At least one
    /// test that the filter selects must fail. `engine/bugs` reads names and filters from here.
    macro_rules! bugs {
        ($(#[doc = $sentence:literal] $name:literal => $_filter:literal,)*) => {
            const BUGS: &[(&str, &str)] = &[$(($name, $sentence)),*];
        };
    }

    bugs! {
        /// A listener is not armed again when its multishot accept ends with a success.
        "accept-not-rearmed" => "simulation",
        /// The callback `half_closed` is not called if our FIN precedes the peer's.
        "answering-fin-untold" => "simulation",
        /// Output of a connection counts as progress of a range that it forwards.
        "activity-counts-as-progress" => "testing::tests::forwards",
        /// The connection count of an address does not go down when a connection ends.
        "address-count-kept" => "simulation",
        /// Connections that the memory budget has paused are not resumed when the marks rise again.
        "budget-forgets-readers" => "simulation::budget",
        /// A descriptor is closed without shutdown while a receive is armed, so no FIN is sent.
        "close-without-shutdown" => "simulation",
        /// The callback `closed` runs when the close is submitted and again when it completes.
        "closed-twice" => "simulation",
        /// A connect requested in `connect_failed` is tried at once, again and again.
        "connect-spins" => "simulation::outgoing",
        /// A connect that is still in the submission queue is cut before the kernel takes it.
        "cut-before-connect" => "simulation::outgoing",
        /// Deadlines fire before the bytes that came during a pause of the process are read.
        "deadline-before-input" => "simulation::delivery",
        /// The first look at a stalled reader starts its deadline again, however often it is asked.
        "deadline-starts-again" => "simulation::delivery",
        /// A pipe that still holds bytes returns to the pool, and another connection gets them.
        "dirty-pipe-kept" => "simulation",
        /// A drain ends a shard while jobs of the shard itself are in progress.
        "drain-leaves-shard-jobs" => "simulation",
        /// A drain waits until the name of a connect is resolved, or takes too long.
        "drain-waits-for-names" => "simulation::outgoing",
        /// A drain begins before the clients that other shards have handed over are let in.
        "handed-over-forgotten" => "simulation::balancing",
        /// A hold that is dropped without a value is never reported.
        "dropped-hold-untold" => "simulation",
        /// An accept that failed for lack of descriptors is armed again without a pause.
        "emfile-spins" => "simulation::scenarios::accepting_pauses",
        /// A receive that finds no free buffer ends its connection.
        "enobufs-ends" => "simulation",
        /// A connection ends when both FINs are there, although the peer still reads.
        "ends-undelivered" => "simulation::delivery",
        /// A send that fails with EPIPE makes the shard stop listening.
        "epipe-ends-shard" => "simulation",
        /// A connect that finds no permit or no descriptor delays all that are requested later.
        "failed-connect-delays-others" => "simulation::outgoing",
        /// A file that cannot be sent to its end resets the connection and destroys earlier output.
        "file-end-resets" => "simulation",
        /// A cached file is reused if its status was checked one turn ago, not in this turn.
        "file-asked-last-turn" => "simulation::changes",
        /// A cached file is reused although its status no longer matches the cached one.
        "file-not-asked" => "simulation::changes",
        /// The watch for a reset behind a FIN, which io_uring reports again at once, never rests.
        "fin-spins" => "simulation::scenarios::a_fin_that_is_not_read",
        /// Bytes that follow an uploaded file in the receive buffers are written into the file.
        "file-swallows-the-stream" => "simulation",
        /// A full output queue pauses receiving, although the application wants to receive on.
        "full-stops-relay" => "simulation::relay",
        /// A one-shot receive with nothing to read keeps the turn of one that waits for a buffer.
        "idle-keeps-turn" => "simulation::scenarios::a_receive",
        /// A send that empties the queue does not report that it is below the level asked for.
        "level-not-reported" => "simulation::relay",
        /// Bytes that were lent to an output queue and did not leave at once are not copied.
        "loan-not-copied" => "testing::tests::long",
        /// A slot stays a member of its groups when its connection ends.
        "member-after-end" => "simulation",
        /// A shard that has asked for a notice of room is not told when the queue empties.
        "room-not-told" => "mailbox::",
        /// The multishot receive stays armed while an upload is spliced from the same socket.
        "multishot-beside-splice" => "simulation",
        /// A completion is accepted although its token has the generation of an earlier connection.
        "no-generation-check" => "simulation::scenarios::stale_completions",
        /// The permit returns when the close is submitted, before the slot is free.
        "permit-before-slot" => "simulation",
        /// A shard takes a permit in advance for a client that may never come.
        "permit-without-client" => "simulation",
        /// A marker that waits for the peer is reached by what a reset has destroyed.
        "reset-acknowledges" => "simulation::delivery",
        /// The result 0 of a zero-length receive is taken for the end of the stream.
        "probe-is-eof" => "simulation",
        /// Bytes that lie in a pipe are lost at the end of a forwarded range.
        "range-end-loses-pipe" => "simulation::forwards",
        /// A connection that found the submission queue full is not flushed again.
        "rearm-dropped" => "simulation",
        /// A connection whose peer still reads the last reply is closed as idle.
        "reader-is-idle" => "simulation::delivery",
        /// A reconnect is not scheduled after the second failure in a row.
        "reconnect-forgotten" => "simulation",
        /// A connection whose reconnecting was stopped is made again when it ends.
        "reconnect-given-up" => "simulation",
        /// The backoff between reconnect attempts does not grow.
        "reconnect-no-backoff" => "simulation",
        /// Accepted connections take the permits that are reserved for outgoing ones.
        "reservation-ignored" => "simulation",
        /// The permit for a client that was reset in the waiting room is lost.
        "reset-while-waiting" => "simulation",
        /// Job results are delivered in the order of completion, not of submission.
        "results-as-they-come" => "simulation",
        /// The descriptor is closed and the slot freed while operations are in flight.
        "slot-freed-in-flight" => "simulation",
        /// A marker that waits for the peer is reached when the bytes before it have left.
        "sent-counts-as-acknowledged" => "simulation::delivery",
        /// A slow connection makes room although another one is idle.
        "slow-before-idle" => "simulation::slow",
        /// A peer is slow because something, though not the same, was unacknowledged at each look.
        "slow-by-chance" => "shard::slow",
        /// A slow connection is closed gracefully, and keeps its permit until its peer has read.
        "slow-peer-lingers" => "simulation::slow",
        /// The receive buffer of a stale completion is lost.
        "stale-keeps-buffer" => "simulation::scenarios::stale_completions",
        /// The end of a connection abandons a publish, and the temporary name of the file stays.
        "temporary-name-left" => "simulation",
        /// A graceful close does not wait for the FIN of the peer, so unread input causes a reset.
        "unread-resets-reply" => "simulation",
        /// After a write error, bytes that were taken from the socket are reported as missing.
        "unstored-counts-as-missing" => "simulation",
    }

    static ON: LazyLock<Option<usize>> = LazyLock::new(|| {
        let name = std::env::var_os("RINGWRIGHT_BUG")?.to_string_lossy().into_owned();
        let number = BUGS.iter().position(|bug| bug.0 == name);
        Some(number.unwrap_or_else(|| refuse(&name)))
    });

    pub fn is_on(number: usize) -> bool {
        *ON == Some(number)
    }

    /// Runs at compile time: a name that is not declared does not build.
    pub const fn number_of(name: &str) -> usize {
        let mut number = 0;
        while number < BUGS.len() {
            if is_same(BUGS[number].0.as_bytes(), name.as_bytes()) {
                return number;
            }
            number += 1;
        }
        panic!("bugs.rs declares no bug of this name");
    }

    const fn is_same(mut left: &[u8], mut right: &[u8]) -> bool {
        while let ([a, left_rest @ ..], [b, right_rest @ ..]) = (left, right) {
            if *a != *b {
                return false;
            }
            (left, right) = (left_rest, right_rest);
        }
        left.is_empty() && right.is_empty()
    }

    fn refuse(name: &str) -> ! {
        let mut message = format!("RINGWRIGHT_BUG={name}: no such bug. The names are:\n");
        for (name, sentence) in BUGS {
            message += &format!("  {name}:{sentence}\n");
        }
        // Not `eprintln!`: the test harness would capture the text and lose it.
        let _ = std::io::stderr().write_all(message.as_bytes());
        std::process::exit(2);
    }
}
