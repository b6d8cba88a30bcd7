//! What few connections need at a time, in records that the others do without.

/// "None" for the 32-bit indices stored in a slot.
pub const NONE: u32 = u32::MAX;

/// Of a connection that does more than to receive and to send. One that is parked gives it back
/// when all of it is as it was in the beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rare {
    /// Of a connection made by us.
    pub tag: Option<u64>,
    /// The application's timer, ms; 0: none.
    pub timer_ms: u64,
    /// Since when a message is incomplete, ms; 0: none is.
    pub receiving_since_ms: u64,
    /// Of the peer's address, if it is one of IPv6.
    pub flow: u32,
    pub scope: u32,
    /// An open under way.
    pub open: u32,
    /// Its jobs under way.
    pub jobs: u32,
    /// A range of the stream on its way into a file.
    pub incoming: u32,
    /// A file on its way to its name.
    pub naming: u32,
    /// Ends by itself once it has been quiet for so long, ms; `NONE`: does not.
    pub finish_ms: u32,
    /// When the shard last asked what the peer has acknowledged, ms; 0: not since the last output.
    pub looked_ms: u64,
    /// When a reset is watched for again, ms; 0: at any time.
    pub watch_ms: u64,
    /// Bytes acknowledged by then, modulo 2^32.
    pub acknowledged: u32,
    /// `writable` is due once fewer bytes of output are queued; 0: it was not asked for.
    pub notify_below: u32,
    /// Files sent whose `file_sent` is owed.
    pub files_sent: u16,
    /// Receiving goes on while the output queue is full.
    pub receives_while_full: bool,
    /// Some output was unacknowledged by then.
    pub delivering: bool,
    /// Input was thrown away while draining or lingering.
    pub discards: bool,
    /// It is paused because a job of it was not taken, until there is room.
    pub paused_for_jobs: bool,
    /// Waits for a place in the queue of jobs.
    pub waits_for_workers: bool,
    /// In the queue of the memory budget: it is held ([`Pause::Budget`](super::slots::Pause)), or
    /// was.
    pub in_budget_queue: bool,
}

impl Rare {
    /// What a connection without a record has.
    pub const DEFAULT: Self = Self {
        tag: None,
        timer_ms: 0,
        receiving_since_ms: 0,
        flow: 0,
        scope: 0,
        open: NONE,
        jobs: NONE,
        incoming: NONE,
        naming: NONE,
        finish_ms: NONE,
        looked_ms: 0,
        watch_ms: 0,
        acknowledged: 0,
        notify_below: 0,
        receives_while_full: false,
        delivering: false,
        discards: false,
        files_sent: 0,
        paused_for_jobs: false,
        waits_for_workers: false,
        in_budget_queue: false,
    };

    /// Whether something goes on that the application will be told of.
    pub fn is_at_work(&self) -> bool {
        self.jobs != NONE || self.incoming != NONE || self.naming != NONE
    }
}
