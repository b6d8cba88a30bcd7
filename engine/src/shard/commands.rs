//! What other threads ask for.

use super::Shard;
use super::connect::Connect;
use crate::Reason;
use crate::handler::Handler;
use crate::mailbox::Command;
use crate::ring::Ring;

impl<R: Ring, H: Handler> Shard<R, H> {
    /// Carries out the commands that have come.
    pub(super) fn read_mailbox(&mut self) {
        if self.wake_armed {
            return;
        }
        let event = self.mailbox.event();
        self.ring.clear_wake(event);
        // From here on a sender writes again, so a command that this loop misses wakes us.
        self.mailbox.acknowledge();
        // Counted before the commands: those that a job has sent precede its result.
        let results = self.core.jobs.results_waiting();
        // As many as are there now: threads that never stop sending cannot hold up the shard.
        for _ in 0..self.mailbox.len() {
            let Some(command) = self.mailbox.next() else { break };
            self.obey(command);
        }
        self.read_results(results);
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Listen(sockets) => self.listen(sockets),
            Command::Kick(id) => {
                mark!("kick");
                if let Some(slot) = self.core.slots.find(id) {
                    self.core.end(slot, Reason::Kicked, true);
                }
            }
            Command::KickAll => self.core.end_all(Reason::Kicked),
            Command::DrainConnection(id) => {
                let opened = |slot: &u32| self.core.slots[*slot].opened;
                if let Some(slot) = self.core.slots.find(id).filter(opened) {
                    self.tell_of_drain(slot);
                }
            }
            Command::DrainConnections => self.core.drain_all(),
            Command::Send(id, bytes) => {
                if let Some(slot) = self.core.slots.find(id) {
                    self.core.send_unasked(slot, bytes);
                }
            }
            Command::Broadcast(bytes, audience, slow) => {
                self.core.broadcast(&bytes, &audience, slow);
            }
            // Whoever asked may have given up: then nobody takes the answer.
            Command::Find(id, answer) => {
                let slot = self.core.slots.find(id);
                let _ = answer.try_send(slot.map(|slot| self.core.info(slot)));
            }
            Command::List { from, limit, answer } => {
                let _ = answer.try_send(self.core.list(from, limit));
            }
            Command::Ban(bans) => self.ban(bans),
            Command::Connect(to, tag) => {
                self.core.connects.ask(Connect { to, tag, kept: false });
            }
            Command::KeepConnected(to, tag, reconnect) => {
                if let Err(refused) = self.core.keep_connected(to, tag, reconnect) {
                    self.fail(&Connect { to, tag, kept: false }, refused.into());
                }
            }
            Command::StopReconnecting(tag) => {
                self.core.stop_reconnecting(tag);
            }
            Command::Drain => {
                let deadline_ms = self.mailbox.take_deadline();
                self.drain(deadline_ms);
            }
            Command::Stop => {
                mark!("stop");
                self.begin_drain();
                self.end_drain(Reason::Stopped);
            }
        }
    }

    fn drain(&mut self, deadline_ms: u64) {
        if self.drain_ends_at_ms.is_some() {
            mark!("drain after its end");
            return;
        }
        let at_ms = self.core.now_ms + deadline_ms;
        let earlier = self.drain_deadline_ms.map_or(at_ms, |before| before.min(at_ms));
        self.drain_deadline_ms = Some(earlier);
        self.begin_drain();
    }

    fn begin_drain(&mut self) {
        if !std::mem::replace(&mut self.core.draining, true) {
            self.stop_listening();
            self.core.links.end();
            self.core.drain_all();
        }
    }
}
