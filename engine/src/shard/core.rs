//! What a callback may change: everything of a shard except the ring, the handler and the
//! memory that bytes are being read from. Nothing here makes a system call.

use super::again::Again;
use super::budget::Budget;
use super::connect::Connects;
use super::file_cache::FileCache;
use super::forward::Forward;
use super::groups::Groups;
use super::incoming::Incoming;
use super::jobs::Jobs;
use super::listeners::Listeners;
use super::markers::Markers;
use super::naming::Naming;
use super::output::{Chunk, Loan};
use super::reconnect::Links;
use super::regular_paths::RegularPaths;
use super::settings::{ClientLimits, Marks, OF_CONFIG, Settings};
use super::slots::{Fill, NONE, Slot, Slots};
use super::state::{Event, State};
use super::sweep::Sweeps;
use super::timer::LaterTimers;
use super::timers::Timers;
use crate::admission::Admission;
use crate::config::{Config, IdleOperation, ListenerSettings, SharedSettings, milliseconds};
use crate::files::{Closing, Directory, FilesOpen, NewFile, PublishOptions};
use crate::handle::EngineHandle;
use crate::info::{ConnectionInfo, EndedConnection, Origin, SendStatus};
use crate::ledger::ShardLedger;
use crate::mailbox::{Audience, BanList, SlowReaders};
use crate::memory::{Kept, SendBuffers, Spills};
use crate::ring::{Errno, Ring, Traffic, calls};
use crate::scope::{number_of, plain, scoped};
use crate::{ConnectionId, Reason};
use slab::Slab;
use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// The part of all descriptors that files may take before they are short.
const FILES_PART: u64 = 8;

/// Kept carry buffers and paths: beyond, they are freed.
const SPARES_MAX: usize = 64;
/// Length of a mapping for kept input that is not unmapped when it is empty, at most.
const SPARE_MAPPED_BYTES_MAX: usize = 256 << 10;

/// The configuration in the units the loop uses.
#[derive(Clone, Debug)]
pub struct Limits {
    pub receive_buffer_bytes: usize,
    /// From this capacity on, kept input is mapped.
    pub mapped_bytes_min: usize,
    /// 0 while the memory budget is short.
    pub streaming_connections_max: usize,
    /// A paused connection's multishot receive is cancelled when it has brought this much. 0 while
    /// the memory budget is short.
    pub kept_while_paused_bytes: usize,
    pub sendfile_bytes_max: u32,
    pub splice_from_bytes: u64,
    pub idle_operation: IdleOperation,
    pub park_after_ms: u64,
    pub connect_ms: u64,
    /// Options of the sockets that connect out.
    pub keepalive_s: Option<u32>,
    pub user_timeout_ms: Option<u32>,
    pub linger_ms: u64,
    pub linger_total_ms: u64,
    /// Files that may be open before handlers are asked to open fewer.
    pub files_share: u64,
}

impl Limits {
    pub fn new(config: &Config, mapped_bytes_min: usize) -> Self {
        let ms = milliseconds;
        Self {
            receive_buffer_bytes: config.receive_buffer_bytes as usize,
            mapped_bytes_min,
            streaming_connections_max: config.streaming_connections_max,
            kept_while_paused_bytes: config.receive_buffer_bytes as usize,
            sendfile_bytes_max: config.sendfile_bytes_max,
            splice_from_bytes: config.splice_from_bytes,
            idle_operation: config.idle_operation,
            park_after_ms: ms(config.park_after),
            connect_ms: ms(config.connect_timeout),
            keepalive_s: config.keepalive_s(),
            user_timeout_ms: config.user_timeout_ms(),
            linger_ms: ms(config.linger_timeout),
            linger_total_ms: ms(config.linger_total),
            files_share: calls::descriptors_allowed().0
                / FILES_PART
                / config.shards.unwrap_or(1) as u64,
        }
    }
}

/// An open on its way; the path's memory stays where it is until the ring is done with it.
pub struct OpenRequest {
    pub directory: Directory,
    /// NUL-terminated; of a file that is to be made without a name, nothing.
    pub path: Vec<u8>,
    pub creates: bool,
    /// The path leads to a regular file, now or a moment ago, which is to be opened next.
    pub found: bool,
    /// Of the directory and the path.
    pub hash: u64,
    /// It may lead to a file system where opening waits for more than a disk.
    pub waits: bool,
    /// It waits until others of that kind have ended.
    pub queued: bool,
    /// The path leads across a symbolic link, which is followed.
    pub follows: bool,
    /// The number of times that a rename elsewhere has disturbed it.
    pub disturbed: u8,
    /// When it was submitted, here and on the wall clock.
    pub begun_ms: u64,
    pub begun_wall_ms: i64,
}

pub struct Core {
    /// Closures that the current callback has left for connections, as `connection.rs` makes them.
    pub closures: VecDeque<(ConnectionId, Box<dyn Any>)>,
    pub shard: usize,
    pub limits: Limits,
    pub now_ms: u64,
    /// The same in microseconds.
    pub now_us: u64,
    pub slots: Slots,
    pub timers: Timers,
    /// What only grows in the shard's ledger; the rest is filled in when it is published.
    pub counters: ShardLedger,
    pub chunks: Slab<Chunk>,
    pub send_buffers: SendBuffers,
    pub spills: Spills,
    pub carries: Slab<Kept>,
    /// The memory that kept input, and output beyond the send buffers, may take.
    pub budget: Budget,
    pub opens: Slab<OpenRequest>,
    pub incoming: Slab<Incoming>,
    pub forwards: Slab<Forward>,
    pub namings: Slab<Naming>,
    /// Slots whose wants may have changed.
    pub touched: VecDeque<u32>,
    /// Files open in the hands of handlers and output queues.
    pub files_open: Arc<FilesOpen>,
    /// Those of them that stay open for the next one who asks for them.
    pub file_cache: FileCache,
    pub regular_paths: RegularPaths,
    pub again: Again,
    /// Files to close on the ring.
    pub files_closing: Vec<Closing>,
    /// Requested connects that have no slot yet.
    pub connects: Connects,
    /// Connections that are kept up.
    pub links: Links,
    /// When `Handler::tick` is due.
    pub tick_at_us: Option<u64>,
    /// There are several handlers (`handlers.rs`): the upper bits of tags have their numbers.
    pub has_handlers: bool,
    /// When each of these is to be called, by number; empty for a single one.
    ticks_at_us: Vec<Option<u64>>,
    pub draining: bool,
    /// The listeners that are open here or have clients here.
    pub listeners: Listeners,
    /// The settings that connections have.
    pub settings: Settings,
    pub groups: Groups,
    pub later_timers: LaterTimers,
    /// The handler has asked to be told that a queue has room, and was not told.
    pub asked_for_room: bool,
    /// Markers in the output of connections.
    pub markers: Markers,
    /// Bytes of the long receive buffer that may be queued without a copy, or are.
    pub loan: Loan,
    /// What is being done to all connections, some at a time.
    pub sweeps: Sweeps,
    /// There are sweeps, or the memory budget is not calm, or a turn has left something.
    pub upkeep: bool,
    pub admission: Arc<Admission>,
    /// The addresses that are not let in.
    pub bans: Arc<BanList>,
    pub handle: EngineHandle,
    pub jobs: Jobs,
    /// The bytes of connections that are ending, by slot.
    pub traffic: BTreeMap<u32, Traffic>,
    /// The errors with which connections are ending, by slot.
    pub errnos: BTreeMap<u32, Errno>,
    /// The slot whose `closed` is being called; `NONE`: none is.
    pub reporting: u32,
    spare_carries: Vec<Kept>,
    /// A mapped one for the next that is long, because a new one costs a page fault for 4 KiB each.
    spare_mapped: Option<Kept>,
    spare_paths: Vec<Vec<u8>>,
}

impl Core {
    pub fn new<R: Ring>(
        shard: usize,
        config: &Config,
        ring: &mut R,
        send_buffers: SendBuffers,
        admission: Arc<Admission>,
        handle: EngineHandle,
        jobs: Jobs,
    ) -> Self {
        let capacity = config.max_connections.min(crate::id::SLOTS_MAX);
        let now_ms = ring.now_ms();
        let mapped_bytes_min = if R::SMALL_TURNS { 512 } else { 32 << 10 };
        let (of_config, budget) = (ListenerSettings::of(config), Budget::new(config));
        Self {
            shard,
            closures: VecDeque::new(),
            limits: Limits::new(config, mapped_bytes_min),
            now_ms,
            now_us: now_ms * 1000,
            slots: Slots::new(shard, capacity),
            timers: Timers::new(now_ms, capacity),
            counters: ShardLedger::default(),
            chunks: Slab::with_capacity(config.send_buffers as usize),
            send_buffers,
            spills: Spills::new(config.send_buffer_bytes),
            carries: Slab::new(),
            settings: Settings::new(&of_config, milliseconds(config.park_after), &budget),
            budget,
            opens: Slab::new(),
            incoming: Slab::new(),
            forwards: Slab::new(),
            namings: Slab::new(),
            touched: VecDeque::with_capacity(1024),
            files_open: Arc::new(FilesOpen::new(ring.outside())),
            again: Again::new(config.send_buffer_bytes as usize),
            regular_paths: RegularPaths::default(),
            file_cache: FileCache::new(config.open_files, milliseconds(config.open_files_valid)),
            files_closing: Vec::new(),
            connects: Connects::default(),
            links: Links::new(config.reconnects_max, shard, now_ms),
            tick_at_us: None,
            has_handlers: false,
            ticks_at_us: Vec::new(),
            draining: false,
            listeners: Listeners::default(),
            groups: Groups::default(),
            later_timers: LaterTimers::default(),
            asked_for_room: false,
            markers: Markers::default(),
            loan: Loan::default(),
            sweeps: Sweeps::default(),
            upkeep: false,
            admission,
            bans: Arc::default(),
            handle,
            jobs,
            traffic: BTreeMap::new(),
            errnos: BTreeMap::new(),
            reporting: NONE,
            spare_carries: Vec::new(),
            spare_mapped: None,
            spare_paths: Vec::new(),
        }
    }

    /// Puts a slot on the list of those whose wants are turned into operations.
    #[inline]
    pub fn touch(&mut self, slot: u32) {
        if self.slots[slot].touch() {
            self.touched.push_back(slot);
        }
    }

    /// Puts a slot in front of that list.
    #[cold]
    pub fn touch_first(&mut self, slot: u32) {
        if self.slots[slot].touch() {
            self.touched.push_front(slot);
        }
    }

    pub fn id(&self, slot: u32) -> ConnectionId {
        ConnectionId::new(self.shard, slot, self.slots.generation(slot))
    }

    /// Ends a connection now: what is queued is lost. The first reason counts.
    pub fn end(&mut self, slot: u32, reason: Reason, abortive: bool) {
        let connection = &mut self.slots[slot];
        if connection.state().is_over() {
            return;
        }
        connection.give_reason(reason);
        connection.end_by_reset(abortive);
        connection.on(Event::End);
        self.touch(slot);
    }

    /// Ends a connection whose operation has failed.
    pub fn fail(&mut self, slot: u32, errno: Errno) {
        let connection = &self.slots[slot];
        if connection.opened() && !connection.state().is_over() {
            self.errnos.insert(slot, errno);
        }
        self.end(slot, Reason::from_errno(errno.0), false);
    }

    /// Asks for a tick of the handler whose callback runs.
    pub fn tick_at(&mut self, at_us: u64) {
        self.tick_at_us = Some(at_us);
        if self.has_handlers {
            let number = usize::from(self.handle.handler());
            if number >= self.ticks_at_us.len() {
                self.ticks_at_us.resize(number + 1, None);
            }
            self.ticks_at_us[number] = Some(at_us);
            self.tick_at_us = self.ticks_at_us.iter().flatten().min().copied();
        }
    }

    /// Takes the tick of a handler that is due.
    pub fn take_tick(&mut self, handler: u8) -> bool {
        let now_us = self.now_us;
        let at_us = self.ticks_at_us.get_mut(usize::from(handler));
        let is_due = at_us.and_then(|at| at.take_if(|at| *at <= now_us)).is_some();
        self.tick_at_us = self.ticks_at_us.iter().flatten().min().copied();
        is_due
    }

    /// A tag of the handler whose callback runs, as it goes through the shard.
    #[inline]
    pub fn scoped(&self, tag: u64) -> u64 {
        if self.has_handlers { scoped(self.handle.handler(), tag) } else { tag }
    }

    /// The origin of a connection as its handler has it.
    pub fn shown_origin(&self, slot: u32) -> Origin {
        match self.slots.origin(slot) {
            Origin::Connected(tag) if self.has_handlers => Origin::Connected(plain(tag)),
            origin => origin,
        }
    }

    /// The number of the handler that serves a connection of this origin.
    pub fn handler_of(&self, origin: Origin) -> u8 {
        match origin {
            Origin::Listener(number) => self.listeners.handler_of(number),
            Origin::Connected(tag) => number_of(tag),
        }
    }

    /// The same of the connection whose `closed` is being called.
    pub fn handler_of_reported(&self) -> u8 {
        self.handler_of(self.slots.origin(self.reporting))
    }

    /// Gives a connection other settings than those it was accepted with.
    pub fn set_settings(&mut self, slot: u32, settings: &SharedSettings) {
        self.give_settings_back(slot);
        // Outgoing connections with the settings of the configuration are not counted.
        if self.is_accepted(slot) || settings.number != OF_CONFIG {
            self.settings.take(settings, &mut self.budget);
        }
        self.slots[slot].set_settings(settings.number);
        self.touch(slot);
    }

    fn give_settings_back(&mut self, slot: u32) {
        let number = self.slots[slot].settings();
        if self.is_accepted(slot) || number != OF_CONFIG {
            self.settings.give_back(number);
        }
    }

    fn is_accepted(&self, slot: u32) -> bool {
        matches!(self.slots.origin(slot), Origin::Listener(_))
    }

    /// Ends a connection gracefully: queued output leaves, then FIN, then the rest of the input
    /// is read and thrown away, within limits.
    pub fn close(&mut self, slot: u32, reason: Reason) {
        let connection = &mut self.slots[slot];
        match connection.state() {
            State::Open | State::HalfClosedByPeer | State::HalfClosedByUs => {
                // A close that answers the peer's FIN is the peer's doing.
                let answers_fin = connection.state() == State::HalfClosedByPeer;
                let reason = if answers_fin && reason == Reason::LocalClose {
                    Reason::PeerFin
                } else {
                    reason
                };
                connection.give_reason(reason);
                connection.on(Event::Close);
                if connection.state() == State::Lingering {
                    connection.note_progress(self.now_ms);
                }
                self.drop_carry(slot);
                self.touch(slot);
            }
            State::Connecting => self.end(slot, reason, false),
            State::Draining | State::Lingering | State::Ending | State::Closing => {}
        }
    }

    /// Lets a connection end by itself: with a FIN of ours, as soon as nothing is under way and
    /// nothing has come or gone for `quiet_ms`.
    pub fn finish(&mut self, slot: u32, quiet_ms: u64) {
        let quiet_ms = u32::try_from(quiet_ms).unwrap_or(NONE - 1);
        self.slots.rare_mut(slot).finish_after(quiet_ms);
        self.touch(slot);
    }

    /// Returns whether a connection is to end by a deadline: the engine drains, or the listener of
    /// the connection was removed.
    #[cold]
    #[inline(never)]
    pub fn drains(&self, slot: u32) -> bool {
        let leaves = |origin| match origin {
            Origin::Listener(number) => self.listeners.is_leaving(number),
            Origin::Connected(_) => false,
        };
        self.draining || leaves(self.slots.origin(slot))
    }

    /// Ends the count of a client whose connection ends, and its memberships.
    pub fn forget_client(&mut self, slot: u32) {
        if !bug!("member-after-end") {
            self.groups.forget(slot);
        }
        if let Origin::Listener(number) = self.slots.origin(slot) {
            self.listeners.leave(number);
        }
        self.give_settings_back(slot);
    }

    /// The water marks of a connection.
    #[inline]
    pub fn marks_of(&self, connection: &Slot) -> &Marks {
        self.settings.marks_of(connection.settings())
    }

    /// The limits of a connection: those of its listener when it was accepted, or its own.
    #[inline]
    pub fn limits_of(&self, connection: &Slot) -> &ClientLimits {
        self.settings.of(connection.settings())
    }

    /// What is known of a connection.
    pub fn info(&self, slot: u32) -> ConnectionInfo {
        let connection = &self.slots[slot];
        let since = |at_ms: u64| Duration::from_millis(self.now_ms.saturating_sub(at_ms));
        ConnectionInfo {
            id: self.id(slot),
            peer: self.slots.peer(slot),
            origin: self.shown_origin(slot),
            state: connection.state().name(),
            age: since(self.slots.identity(slot).opened_ms.get()),
            idle: since(connection.active_ms()),
            queued_bytes: connection.output_bytes() as usize,
            user_data: self.slots.rare(slot).user_data(),
        }
    }

    /// The connection whose `closed` is being called.
    pub fn ended(&self) -> Option<EndedConnection> {
        let slot = Some(self.reporting).filter(|slot| *slot != NONE)?;
        let opened_ms = self.slots.identity(slot).opened_ms.get();
        Some(EndedConnection {
            peer: self.slots.peer(slot),
            origin: self.shown_origin(slot),
            lifetime: Duration::from_millis(self.now_ms.saturating_sub(opened_ms)),
            traffic: self.traffic.get(&slot).copied(),
            error: self.errnos.get(&slot).copied(),
            user_data: self.slots.rare(slot).user_data(),
        })
    }

    /// What is known of the connections from a slot on, so many at most.
    pub fn list(&self, from: u32, limit: usize) -> Vec<ConnectionInfo> {
        let open = |slot: &u32| self.slots.get(*slot).is_some_and(|it| it.is_shown());
        let slots = (from..self.slots.made() as u32).filter(open).take(limit);
        slots.map(|slot| self.info(slot)).collect()
    }

    /// Sends one payload to the connections of an audience from slot `from` on, after a look at
    /// `most` slots or members. Returns the slot from which it has to go on, if any are left.
    pub fn broadcast(
        &mut self,
        bytes: &Arc<[u8]>,
        audience: &Audience,
        slow: SlowReaders,
        from: u32,
        most: u32,
    ) -> Option<u32> {
        let made = self.slots.made() as u32;
        if let Audience::Group(group) = audience {
            let members = self.groups.members(*group, from..made, most as usize);
            members.iter().for_each(|slot| self.broadcast_to(*slot, bytes, slow));
            let last = members.last().filter(|_| members.len() == most as usize)?;
            return Some(*last + 1);
        }
        let end = made.min(from.saturating_add(most));
        for slot in from..end {
            let shown = self.slots.get(slot).is_some_and(|it| it.is_shown());
            if shown && audience.includes(self.slots.origin(slot)) {
                self.broadcast_to(slot, bytes, slow);
            }
        }
        (end < made).then_some(end)
    }

    fn broadcast_to(&mut self, slot: u32, bytes: &Arc<[u8]>, slow: SlowReaders) {
        match slow {
            SlowReaders::Skip if self.slots[slot].is_full() => {
                self.counters.broadcasts_skipped += 1;
            }
            SlowReaders::Disconnect if self.slots[slot].is_full() => {
                self.end(slot, Reason::OutputTooLong, true);
            }
            _ => {
                self.send_unasked(slot, bytes.clone().into(), None);
            }
        }
    }

    /// Asks for one call of `Handler::mailbox_room`.
    pub fn ask_for_room(&mut self) {
        if !std::mem::replace(&mut self.asked_for_room, true) {
            self.handle.notify_shard_of_room(self.shard);
        }
    }

    /// Returns whether so many more bytes may be queued.
    #[inline]
    pub fn fits(&self, slot: u32, bytes: usize) -> bool {
        let connection = &self.slots[slot];
        let most = self.marks_of(connection).output_bytes_max;
        connection.output_bytes() as usize + bytes <= most as usize
    }

    /// The number of bytes that the output queue takes yet.
    pub fn room_bytes(&self, slot: u32) -> usize {
        let connection = &self.slots[slot];
        self.marks_of(connection).output_bytes_max.saturating_sub(connection.output_bytes())
            as usize
    }

    /// After bytes did not fit: `writable` follows, unless it would come at once.
    #[cold]
    pub fn refuse(&mut self, slot: u32) -> SendStatus {
        let connection = &self.slots[slot];
        if connection.output_bytes() >= self.marks_of(connection).low_bytes {
            self.mark_full(slot);
        }
        self.touch(slot);
        SendStatus::Refused
    }

    /// Compares the queue with its marks after something was queued. Returns whether it is full.
    pub fn queued(&mut self, slot: u32) -> bool {
        let connection = &self.slots[slot];
        if connection.output_bytes() > self.marks_of(connection).high_bytes {
            return self.queued_above(slot);
        }
        let full = connection.is_full();
        self.touch(slot);
        full
    }

    #[cold]
    #[inline(never)]
    fn queued_above(&mut self, slot: u32) -> bool {
        let (connection, rare) = (&self.slots[slot], self.slots.rare(slot));
        let is_paused = !connection.is_full() && !rare.receives_while_full();
        let high_bytes = self.limits_of(connection).output_high_bytes;
        if is_paused && connection.output_bytes() as usize <= high_bytes {
            self.counters.budget_pauses += 1;
        }
        self.mark_full(slot);
        self.touch(slot);
        true
    }

    #[cold]
    fn mark_full(&mut self, slot: u32) {
        let reads = self.slots.rare(slot).receives_while_full() && !bug!("full-stops-relay");
        let fill = if reads { Fill::FullAndReading } else { Fill::FullAndPaused };
        self.slots[slot].set_fill(fill);
    }

    /// Sets whether a connection receives while its output queue is full.
    pub fn receive_while_full(&mut self, slot: u32, on: bool) {
        if self.slots.rare(slot).receives_while_full() == on {
            return;
        }
        self.slots.rare_mut(slot).receive_while_full(on);
        let connection = &mut self.slots[slot];
        if connection.is_full() {
            // Bytes that were kept during the pause follow.
            connection.owe_delivery();
            self.mark_full(slot);
            self.touch(slot);
        }
    }

    /// Returns whether `writable` is due: the queue fell below the low-water mark, or below the
    /// level that the application asked for.
    #[inline]
    pub fn is_room_to_report(&self, slot: u32) -> bool {
        let connection = &self.slots[slot];
        let bytes = connection.output_bytes();
        (connection.is_full() && bytes < self.marks_of(connection).low_bytes)
            || (!connection.is_plain() && bytes < self.slots.rare_of(connection).notify_below())
    }

    /// Keeps bytes that the application has not used, behind those kept already.
    #[inline(never)]
    pub fn keep(&mut self, slot: u32, bytes: &[u8]) {
        let mut carry = self.slots[slot].carry();
        if carry == NONE {
            let spare = self.spare_carries.pop().unwrap_or_default();
            self.charge(spare.capacity());
            carry = self.carries.insert(spare) as u32;
            self.slots[slot].set_carry(carry);
        }
        let kept = &mut self.carries[carry as usize];
        let before = kept.capacity();
        if kept.wants_mapping(bytes.len(), self.limits.mapped_bytes_min) {
            mark!("kept input is mapped");
            let short = kept.move_to(self.spare_mapped.take(), bytes.len());
            self.spare_carry(short);
        }
        let kept = &mut self.carries[carry as usize];
        kept.extend(bytes);
        let after = kept.capacity();
        self.discharge(before);
        self.charge(after);
    }

    /// The kept bytes.
    pub fn kept(&self, slot: u32) -> &[u8] {
        match self.slots[slot].carry() {
            NONE => &[],
            carry => &self.carries[carry as usize],
        }
    }

    /// The number of kept bytes.
    #[inline(always)]
    pub fn kept_bytes(&self, slot: u32) -> usize {
        match self.slots[slot].carry() {
            NONE => 0,
            carry => self.carries[carry as usize].len(),
        }
    }

    /// Takes the kept bytes out, to show them to the application.
    pub fn take_carry(&mut self, slot: u32) -> Kept {
        match self.slots[slot].take_carry() {
            NONE => Kept::default(),
            carry => {
                let bytes = self.carries.remove(carry as usize);
                self.discharge(bytes.capacity());
                bytes
            }
        }
    }

    /// Puts kept bytes back after `used` of them were used.
    pub fn put_carry_back(&mut self, slot: u32, mut bytes: Kept, used: usize) {
        if used >= bytes.len() || self.slots[slot].state().is_over() {
            self.spare_carry(bytes);
            return;
        }
        bytes.remove_front(used);
        // Memory of a long batch comes back when a short rest is left of it.
        if bytes.capacity() > 4 * self.limits.receive_buffer_bytes.max(bytes.len()) {
            bytes.shrink(self.limits.mapped_bytes_min);
        }
        assert!(self.slots[slot].carry() == NONE, "nothing is kept while kept bytes are shown");
        self.charge(bytes.capacity());
        self.slots[slot].set_carry(self.carries.insert(bytes) as u32);
    }

    /// Throws the kept bytes away.
    pub fn drop_carry(&mut self, slot: u32) {
        let bytes = self.take_carry(slot);
        self.spare_carry(bytes);
        self.slots[slot].owe_no_delivery();
        self.forget_message(slot);
    }

    /// No message is begun and not finished, or nobody listens for the rest of it.
    #[inline]
    pub fn forget_message(&mut self, slot: u32) {
        if let Some(rare) = self.slots.rare_if_any(slot) {
            rare.forget_message();
            self.release_hold(slot);
        }
    }

    pub fn spare_carry(&mut self, mut bytes: Kept) {
        if bytes.is_mapped() {
            if self.spare_mapped.is_none() && bytes.capacity() <= SPARE_MAPPED_BYTES_MAX {
                bytes.truncate(0);
                self.spare_mapped = Some(bytes);
            }
            return;
        }
        let keep_bytes_max = 4 * self.limits.receive_buffer_bytes;
        if self.spare_carries.len() < SPARES_MAX && (1..=keep_bytes_max).contains(&bytes.capacity())
        {
            bytes.truncate(0);
            self.spare_carries.push(bytes);
        }
    }

    /// Asks for a file to be opened; for one without a name to be made, if there is no path.
    pub fn request_open(&mut self, slot: u32, directory: &Directory, path: Option<&[u8]>) {
        assert!(self.slots.rare(slot).open() == NONE, "one open at a time per connection");
        let mut memory = self.spare_paths.pop().unwrap_or_default();
        memory.extend_from_slice(path.unwrap_or_default());
        memory.push(0);
        let hash = path.map_or(0, |path| RegularPaths::hash(directory, path));
        let request = OpenRequest {
            directory: directory.clone(),
            path: memory,
            creates: path.is_none(),
            found: path.is_some() && self.regular_paths.contains(hash, self.now_ms),
            hash,
            waits: directory.waits(),
            queued: false,
            follows: false,
            disturbed: 0,
            begun_ms: 0,
            begun_wall_ms: 0,
        };
        self.slots.rare_mut(slot).begin_open(self.opens.insert(request) as u32);
        self.touch(slot);
    }

    /// Forgets an open that is not in flight.
    pub fn finish_open(&mut self, slot: u32) -> Option<OpenRequest> {
        let rare = self.slots.rare_if_any(slot)?;
        let open = rare.take_open();
        self.opens.try_remove(open as usize)
    }

    /// Forgets an open that has come to nothing.
    pub fn forget_open(&mut self, slot: u32) {
        if let Some(request) = self.finish_open(slot) {
            self.spare_path(request.path);
        }
    }

    /// Keeps the memory of a path for the next one.
    pub fn spare_path(&mut self, mut path: Vec<u8>) {
        if self.spare_paths.len() < SPARES_MAX {
            path.clear();
            self.spare_paths.push(path);
        }
    }

    /// The next bytes of the stream go into a file.
    pub fn request_receive(&mut self, slot: u32, file: NewFile, offset: u64, length: u64) {
        assert!(self.slots.incoming(slot) == NONE, "one file at a time is received");
        let incoming = Incoming::new(file, offset, length, self.now_ms);
        self.slots.rare_mut(slot).begin_incoming(self.incoming.insert(incoming) as u32);
        // Whoever sends a file does not send a message.
        self.forget_message(slot);
        self.touch(slot);
    }

    /// A file is to get its name.
    pub fn request_naming(
        &mut self,
        slot: u32,
        file: NewFile,
        name: &[u8],
        publish: PublishOptions,
    ) {
        assert!(self.slots.rare(slot).naming() == NONE, "one file at a time is published");
        let naming = Naming::new(file, name, publish);
        self.slots.rare_mut(slot).begin_naming(self.namings.insert(naming) as u32);
        self.touch(slot);
    }
}
