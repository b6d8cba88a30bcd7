//! What other threads ask for.

use super::Shard;
use super::bounds::SERVE_UNTIL;
use super::connect::Attempt;
use super::turn::Calling;
use crate::connection::ConnectionTask;
use crate::handler::Handler;
use crate::local::ShardTask;
use crate::mailbox::{Audience, Command, SlowReaders};
use crate::message::Message;
use crate::panics::discard;
use crate::ring::Ring;
use crate::{ConnectionId, Reason};
use std::any::Any;
use std::sync::Arc;

/// The commands and results that the shard has found and not yet carried out.
#[derive(Default)]
pub(super) struct Commands {
    /// Commands that are still in the mailbox.
    count: usize,
    /// Clients that other shards have handed over. The commands precede them: what all shards were
    /// told before they got a listener comes before its clients.
    clients: usize,
    /// Results of jobs. The commands precede them.
    results: usize,
    /// The command before them goes on from this slot.
    broadcast: Option<Broadcast>,
}

struct Broadcast {
    bytes: Arc<[u8]>,
    audience: Audience,
    slow: SlowReaders,
    /// The next slot.
    from: u32,
}

impl Commands {
    /// One more result can be taken.
    pub fn expect_result(&mut self) {
        self.results += 1;
    }

    pub fn has_rest(&self) -> bool {
        self.clients > 0 || self.count > 0 || self.results > 0 || self.broadcast.is_some()
    }
}

impl<R: Ring, H: Handler> Shard<R, H> {
    /// Carries out the commands that have come.
    pub(super) fn read_mailbox(&mut self, call: Calling) {
        // Another wake-up follows until the mailbox is looked into.
        if self.wake_armed || self.commands.has_rest() {
            return;
        }
        let event = self.mailbox.event();
        self.ring.clear_wake(event);
        // From here on a sender writes again, so a command that this loop misses wakes us.
        self.mailbox.acknowledge();
        if self.mailbox.takes_room_notice() {
            self.core.asked_for_room = false;
            self.application.mailbox_room(call, &mut self.core);
        }
        self.commands.clients = self.transit.waiting(self.core.shard);
        // Counted before the commands: those that a job has sent precede its result.
        self.commands.results = self.core.jobs.results_waiting();
        // As many as are there now: threads that never stop sending cannot hold up the shard.
        self.commands.count = self.mailbox.len();
        self.carry_out(call);
    }

    /// Carries out the commands that were found and takes the results, until the turn has lasted
    /// long.
    pub(super) fn carry_out(&mut self, call: Calling) {
        let mut served = 0_usize;
        while self.commands.has_rest() {
            let long = self.carry_out_next(call);
            served += 1;
            if (long || served.is_multiple_of(Self::SERVED)) && self.lasts(SERVE_UNTIL) {
                mark!("commands wait for the next turn");
                self.core.upkeep = true;
                return;
            }
        }
    }

    /// Returns whether that may have taken long.
    fn carry_out_next(&mut self, call: Calling) -> bool {
        if self.commands.broadcast.is_some() {
            self.broadcast_on();
            return true;
        }
        if self.commands.count == 0 {
            if self.commands.clients > 0 {
                self.commands.clients -= 1;
                self.take_over_next(call);
            } else {
                self.commands.results -= 1;
                self.read_result(call);
            }
            return false;
        }
        self.commands.count -= 1;
        let Some(command) = self.mailbox.next() else { return false };
        let long = matches!(
            command,
            Command::List { .. }
                | Command::Ban(_)
                | Command::Listen(_)
                | Command::RemoveListener(..)
        );
        self.obey(call, command);
        long
    }

    /// Slots that a broadcast comes to before the next look at the clock.
    const BROADCAST_SLOTS: u32 = if R::SMALL_TURNS { 3 } else { 4_096 };

    fn broadcast_on(&mut self) {
        let Some(broadcast) = &mut self.commands.broadcast else { return };
        let Broadcast { bytes, audience, slow, from } = broadcast;
        match self.core.broadcast(bytes, audience, *slow, *from, Self::BROADCAST_SLOTS) {
            Some(next) => {
                mark!("a broadcast goes on with further connections");
                *from = next;
            }
            None => self.commands.broadcast = None,
        }
    }

    fn obey(&mut self, call: Calling, command: Command) {
        match command {
            Command::Listen(opened) => self.listen(opened),
            Command::RemoveListener(number, deadline_ms) => {
                self.remove_listener(call, number, deadline_ms);
            }
            Command::SetListener(number, settings) => self.set_listener(number, settings),
            Command::PauseListener(number, paused) => self.pause_listener(number, paused),
            Command::Kick(id) => {
                mark!("kick");
                if let Some(slot) = self.core.slots.find(id) {
                    self.core.end(slot, Reason::Kicked, true);
                }
            }
            Command::KickAll => self.core.end_all(Reason::Kicked),
            Command::DrainConnection(id) => {
                let opened = |slot: &u32| self.core.slots[*slot].opened();
                if let Some(slot) = self.core.slots.find(id).filter(opened) {
                    self.tell_of_drain(call, slot);
                }
            }
            Command::DrainConnections => self.core.drain_all(),
            Command::Send(id, payload, credit) => {
                if let Some(slot) = self.core.slots.find(id) {
                    self.core.send_unasked(slot, payload, credit);
                }
            }
            Command::Broadcast(bytes, audience, slow) => {
                self.commands.broadcast = Some(Broadcast { bytes, audience, slow, from: 0 });
            }
            Command::Post(id, message) => self.deliver(call, id, message),
            Command::Run(id, task) => self.run_task(call, id, task),
            // Whoever asked may have given up: then nobody takes the answer.
            Command::Find(id, answer) => {
                let slot = self.core.slots.find(id);
                let _ = answer.try_send(slot.map(|slot| self.core.info(slot)));
            }
            Command::List { from, limit, answer } => {
                let _ = answer.try_send(self.core.list(from, limit));
            }
            Command::Ban(bans) => self.ban(call, bans),
            Command::Connect(connect, tag) => {
                self.core.connects.ask(Attempt::new(*connect, tag, false));
            }
            Command::KeepConnected(connect, tag, reconnect) => {
                let attempt = Attempt::new(*connect, tag, false);
                let kept = self.core.keep_connected(attempt.connect.clone(), tag, reconnect);
                if let Err(refused) = kept {
                    self.fail(call, &attempt, refused.into());
                }
            }
            Command::CancelConnect(tag) => {
                self.core.cancel_connect(tag);
            }
            Command::StopReconnecting(tag) => {
                self.core.stop_reconnecting(tag);
            }
            Command::Drain => {
                let deadline_ms = self.mailbox.take_deadline();
                self.drain(call, deadline_ms);
            }
            Command::Stop => {
                mark!("stop");
                self.begin_drain(call);
                self.end_drain(Reason::Stopped);
            }
        }
    }

    /// Gives a message to the handler.
    fn deliver(&mut self, call: Calling, id: Option<ConnectionId>, message: Message) {
        let Some(id) = id else {
            self.core.counters.messages_delivered += 1;
            return self.application.message(call, &mut self.core, message);
        };
        let Some(slot) = self.find_receiver(id) else {
            mark!("a message to a connection that has gone");
            return message.discard();
        };
        self.core.counters.messages_delivered += 1;
        self.application.message_to(call, &mut self.core, slot, message);
        self.core.touch(slot);
    }

    /// Calls a closure of another thread.
    fn run_task(&mut self, call: Calling, id: Option<ConnectionId>, task: Box<dyn Any + Send>) {
        let Some(id) = id else {
            let task = task.downcast::<ShardTask>().expect("`local.rs` makes it");
            return self.application.run_on_shard(call, &mut self.core, *task);
        };
        let Some(slot) = self.find_receiver(id) else { return discard(task) };
        let task = task.downcast::<ConnectionTask>().expect("`connection.rs` makes it");
        self.application.run_on_connection(call, &mut self.core, slot, *task);
        self.core.touch(slot);
    }

    /// Returns the slot of a connection that still gets callbacks about its work. Without one, the
    /// message or closure counts as unclaimed.
    fn find_receiver(&mut self, id: ConnectionId) -> Option<u32> {
        let hears = |slot: &u32| self.core.slots[*slot].state().hears();
        let slot = self.core.slots.find(id).filter(hears);
        self.core.counters.messages_unclaimed += u64::from(slot.is_none());
        slot
    }

    fn drain(&mut self, call: Calling, deadline_ms: u64) {
        if self.drain_ends_at_ms.is_some() {
            mark!("drain after its end");
            return;
        }
        let at_ms = self.core.now_ms + deadline_ms;
        let earlier = self.drain_deadline_ms.map_or(at_ms, |before| before.min(at_ms));
        self.drain_deadline_ms = Some(earlier);
        self.begin_drain(call);
    }

    fn begin_drain(&mut self, call: Calling) {
        if !self.core.draining {
            // Before: their `opened` precedes `drain_begun`.
            self.stop_taking_over(call);
            self.core.draining = true;
            self.stop_listening();
            self.core.links.end();
            let deadline_ms = self.drain_deadline_ms.map(|at_ms| at_ms - self.core.now_ms);
            report!(drain_begun(self.core.shard, self.core.slots.len(), deadline_ms));
            self.application.drain_begun(call, &mut self.core);
            self.core.drain_all();
        }
    }
}
