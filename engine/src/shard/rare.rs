//! What few connections need at a time, in records that the others do without.

/// "None" for the 32-bit indices stored in a slot.
pub const NONE: u32 = u32::MAX;

/// Of a connection that does more than to receive and to send. One that is parked gives it back
/// when all of it is as it was in the beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rare {
    /// Of a connection made by us.
    tag: Option<u64>,
    /// The application's earliest timer, ms; 0: none.
    timer_ms: u64,
    /// The application's own number for the connection.
    user_data: u64,
    /// Since when a message is incomplete, ms; 0: none is.
    receiving_since_ms: u64,
    /// Of the peer's address, if it is one of IPv6.
    flow: u32,
    scope: u32,
    /// An open under way.
    open: u32,
    /// Its jobs under way.
    jobs: u32,
    /// The list of its timers but the earliest.
    later_timers: u32,
    /// The reasons for which the application has paused it, one bit each; 0 if the only one is the
    /// first, or if it is not paused.
    pauses: u32,
    /// A range of the stream on its way into a file.
    incoming: u32,
    /// A range of the stream on its way to another connection.
    forward: u32,
    /// The slot of the connection whose range comes to this one.
    forwarded_by: u32,
    /// A file on its way to its name.
    naming: u32,
    /// Ends by itself once it has been quiet for so long, ms; `NONE`: does not.
    finish_ms: u32,
    /// When the shard last asked what the peer has acknowledged, ms; 0: not since the last output.
    looked_ms: u64,
    /// When a reset is watched for again, ms; 0: at any time.
    watch_ms: u64,
    /// Bytes acknowledged by then, modulo 2^32.
    acknowledged: u32,
    /// `writable` is due once fewer bytes of output are queued; 0: it was not asked for.
    notify_below: u32,
    /// Files sent whose `file_sent` is owed.
    files_sent: u16,
    /// The number of the earliest timer.
    timer_number: u8,
    /// Receiving goes on while the output queue is full.
    receives_while_full: bool,
    /// Some output was unacknowledged by then.
    delivering: bool,
    /// Input was thrown away while draining or lingering.
    discards: bool,
    /// It is paused because a job of it was not taken, until there is room.
    paused_for_jobs: bool,
    /// Waits for a place in the queue of jobs.
    waits_for_workers: bool,
    /// The forwarded range waits for room in the other connection's output queue.
    forward_waits: bool,
    /// The forwarded range has an end.
    forward_is_finite: bool,
    /// A marker of the output waits until the peer has acknowledged the bytes before it.
    markers_wait: bool,
    /// In the queue of the memory budget: it is held ([`Pause::Budget`](super::slots::Pause)), or
    /// was.
    in_budget_queue: bool,
}

/// Makes the functions that read the fields of a type.
macro_rules! read {
    ($of:ident: $($field:ident: $type:ty,)+) => {
        impl $of {
            $(
                #[inline]
                pub fn $field(&self) -> $type {
                    self.$field
                }
            )+
        }
    };
}
pub(super) use read;

read! {
    Rare:
    tag: Option<u64>,
    timer_ms: u64,
    user_data: u64,
    receiving_since_ms: u64,
    flow: u32,
    scope: u32,
    open: u32,
    jobs: u32,
    later_timers: u32,
    pauses: u32,
    incoming: u32,
    forward: u32,
    forwarded_by: u32,
    naming: u32,
    finish_ms: u32,
    looked_ms: u64,
    watch_ms: u64,
    acknowledged: u32,
    notify_below: u32,
    files_sent: u16,
    timer_number: u8,
    receives_while_full: bool,
    delivering: bool,
    discards: bool,
    paused_for_jobs: bool,
    waits_for_workers: bool,
    forward_waits: bool,
    forward_is_finite: bool,
    markers_wait: bool,
}

#[cfg(any(test, feature = "testing"))]
read! {
    Rare:
    in_budget_queue: bool,
}

impl Rare {
    /// What a connection without a record has.
    pub const DEFAULT: Self = Self {
        tag: None,
        timer_ms: 0,
        user_data: 0,
        receiving_since_ms: 0,
        flow: 0,
        scope: 0,
        open: NONE,
        jobs: NONE,
        later_timers: NONE,
        pauses: 0,
        incoming: NONE,
        forward: NONE,
        forwarded_by: NONE,
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
        timer_number: 0,
        paused_for_jobs: false,
        waits_for_workers: false,
        forward_waits: false,
        forward_is_finite: false,
        markers_wait: false,
        in_budget_queue: false,
    };

    /// A record of an outgoing connection, or of a peer whose address has more than fits elsewhere.
    pub fn set_origin(&mut self, tag: Option<u64>, flow: u32, scope: u32) {
        (self.tag, self.flow, self.scope) = (tag, flow, scope);
    }

    /// Sets the application's earliest timer; 0: there is none.
    pub fn set_timer(&mut self, at_ms: u64, number: u8) {
        (self.timer_ms, self.timer_number) = (at_ms, number);
    }

    /// Its timers but the earliest are in that list.
    pub fn set_later_timers(&mut self, list: u32) {
        self.later_timers = list;
    }

    /// Takes the number of that list out, if there is one.
    pub fn take_later_timers(&mut self) -> Option<u32> {
        Some(std::mem::replace(&mut self.later_timers, NONE)).filter(|list| *list != NONE)
    }

    /// Sets the application's own number.
    pub fn set_user_data(&mut self, user_data: u64) {
        self.user_data = user_data;
    }

    /// Sets the reasons for a pause; 0: the first alone, or none.
    pub fn set_pauses(&mut self, reasons: u32) {
        self.pauses = reasons;
    }

    /// A message is incomplete since then.
    pub fn begin_message(&mut self, since_ms: u64) {
        self.receiving_since_ms = since_ms;
    }

    /// No message is incomplete, or nobody waits for the rest of it.
    pub fn forget_message(&mut self) {
        self.receiving_since_ms = 0;
    }

    /// A reset is watched for again then; 0: at once.
    pub fn set_watch(&mut self, at_ms: u64) {
        self.watch_ms = at_ms;
    }

    /// Input is thrown away.
    pub fn note_discarded(&mut self) {
        self.discards = true;
    }

    /// An open begins.
    pub fn begin_open(&mut self, open: u32) {
        self.open = open;
    }

    /// Takes the open under way out; [`NONE`]: there is none.
    pub fn take_open(&mut self) -> u32 {
        std::mem::replace(&mut self.open, NONE)
    }

    /// Its jobs are in that record; [`NONE`]: there is no job.
    pub fn set_jobs(&mut self, jobs: u32) {
        self.jobs = jobs;
    }

    /// Takes the number of that record out; [`NONE`]: there is none.
    pub fn take_jobs(&mut self) -> u32 {
        std::mem::replace(&mut self.jobs, NONE)
    }

    /// It is paused until there is room for a job.
    pub fn pause_for_jobs(&mut self) {
        self.paused_for_jobs = true;
    }

    /// The pause is not, or no longer, for room for a job. Returns whether it was.
    pub fn end_pause_for_jobs(&mut self) -> bool {
        std::mem::replace(&mut self.paused_for_jobs, false)
    }

    /// Enters or leaves the queue for a place among the jobs. Returns whether it was in it.
    pub fn wait_for_workers(&mut self, waits: bool) -> bool {
        std::mem::replace(&mut self.waits_for_workers, waits)
    }

    /// A range of the stream goes into a file.
    pub fn begin_incoming(&mut self, incoming: u32) {
        self.incoming = incoming;
    }

    /// Takes that range out; [`NONE`]: there is none.
    pub fn take_incoming(&mut self) -> u32 {
        std::mem::replace(&mut self.incoming, NONE)
    }

    /// A range of the stream goes to another connection, and has an end or none.
    pub fn set_forward(&mut self, forward: u32, is_finite: bool) {
        (self.forward, self.forward_is_finite) = (forward, is_finite);
    }

    /// Takes that range out, if there is one.
    pub fn take_forward(&mut self) -> Option<u32> {
        self.forward_is_finite = false;
        Some(std::mem::replace(&mut self.forward, NONE)).filter(|forward| *forward != NONE)
    }

    /// The forwarded range waits for room, or does not.
    pub fn set_forward_waits(&mut self, waits: bool) {
        self.forward_waits = waits;
    }

    /// A marker waits for the peer, or none does.
    pub fn set_markers_wait(&mut self, waits: bool) {
        self.markers_wait = waits;
    }

    /// A range of that slot's stream comes to this connection; [`NONE`]: no longer.
    pub fn set_forwarded_by(&mut self, slot: u32) {
        self.forwarded_by = slot;
    }

    /// A file is given its name.
    pub fn begin_naming(&mut self, naming: u32) {
        self.naming = naming;
    }

    /// Takes that file out; [`NONE`]: there is none.
    pub fn take_naming(&mut self) -> u32 {
        std::mem::replace(&mut self.naming, NONE)
    }

    /// It ends by itself once it has been quiet for so long.
    pub fn finish_after(&mut self, quiet_ms: u32) {
        self.finish_ms = quiet_ms.min(NONE - 1);
    }

    /// The shard has asked what the peer has acknowledged.
    pub fn note_look(&mut self, now_ms: u64, acknowledged: u32, delivering: bool) {
        (self.looked_ms, self.acknowledged) = (now_ms, acknowledged);
        self.delivering = delivering;
    }

    /// Forgets the last look: the write deadline begins anew with the next output.
    pub fn forget_look(&mut self) {
        (self.looked_ms, self.acknowledged) = (0, 0);
    }

    /// `writable` is due below so many queued bytes; 0: it is not asked for.
    pub fn set_notify_below(&mut self, bytes: u32) {
        self.notify_below = bytes;
    }

    /// Receiving goes on while the output queue is full, or does not.
    pub fn receive_while_full(&mut self, on: bool) {
        self.receives_while_full = on;
    }

    /// A file has left: its `file_sent` is owed.
    pub fn owe_file_sent(&mut self) {
        self.files_sent += 1;
    }

    /// One `file_sent` is called now.
    pub fn note_file_sent(&mut self) {
        self.files_sent -= 1;
    }

    /// Enters or leaves the queue of the memory budget. Returns whether it was in it.
    pub fn set_in_budget_queue(&mut self, is_in: bool) -> bool {
        std::mem::replace(&mut self.in_budget_queue, is_in)
    }

    /// Whether something goes on that the application will be told of.
    pub fn is_at_work(&self) -> bool {
        self.jobs != NONE || self.incoming != NONE || self.naming != NONE
    }
}
