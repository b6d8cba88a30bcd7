//! A handler that forwards: some bytes of the stream to itself, then a range to the output of this
//! connection or of another, and so on.

use super::actor::{Actor, Talk};
use super::book::{Book, Extent, Piece, Record, Role, Shape};
use crate::{Connection, Forwarded, StartForwardError};
use std::io::ErrorKind;

/// A range that is being forwarded.
#[derive(Clone, Copy)]
pub struct Forwarding {
    /// The record of the connection that it goes to, and the number of its piece there.
    record: usize,
    piece: usize,
    length: u64,
}

impl Actor {
    /// Uses some of the bytes shown, and forwards what follows.
    pub(super) fn forward(
        &self,
        talk: &mut Talk,
        connection: &mut Connection<'_>,
        length: usize,
    ) -> usize {
        let header = talk.rng.up_to(length.min(20));
        talk.used += header as u64;
        let shard = connection.local().shard();
        let other = (talk.rng.below(2) == 0).then(|| self.book.borrow().deaf(shard, talk.used));
        let record = other.flatten().unwrap_or(talk.record);
        let to = self.book.borrow().records[record].id;
        let length = talk.rng.pick(&[0, 1, 300, 5_000, 100_000, u64::MAX]);
        match connection.forward(to, length) {
            Ok(()) => {
                let twice = connection.forward(to, length);
                if twice != Err(StartForwardError::InProgress) {
                    self.fail(talk.id, &format!("a second range at a time: {twice:?}"));
                }
                let mut book = self.book.borrow_mut();
                let said = &mut book.records[record].said;
                // Where it ends is known when `forwarded` is called.
                let (key, offset) = (talk.key, talk.used);
                said.push(Piece { key, offset, bytes: 0, shape: Shape::OpenRange });
                talk.forwarding = Some(Forwarding { record, piece: said.len() - 1, length });
            }
            Err(StartForwardError::InProgress) => {
                self.fail(talk.id, "a range is refused, though none is under way");
            }
            Err(_) => {}
        }
        header
    }

    pub(super) fn hear_of_range(&self, talk: &mut Talk, forwarded: &Forwarded) {
        let Some(Forwarding { record, piece, length }) = talk.forwarding.take() else {
            return self.fail(talk.id, "forwarded without forward");
        };
        let mut book = self.book.borrow_mut();
        let piece = &mut book.records[record].said[piece];
        (piece.bytes, piece.shape) = (forwarded.bytes, Shape::Range);
        talk.used += forwarded.bytes;
        talk.resumed = true;
        let mine = &mut book.records[talk.record];
        let told = mine.fin_shown && talk.used > mine.shown;
        mine.shown = mine.shown.max(talk.used);
        drop(book);
        let right = match &forwarded.error {
            None => forwarded.bytes == length,
            Some(error) if error.kind() == ErrorKind::UnexpectedEof => forwarded.bytes < length,
            Some(error) => matches!(error.raw_os_error(), Some(libc::EPIPE | libc::ECANCELED)),
        };
        if told || !right {
            self.fail(talk.id, &format!("{forwarded:?} of {length} bytes, behind its FIN: {told}"));
        }
    }
}

impl Book {
    /// A connection of a shard that says nothing, if there is one.
    fn deaf(&self, shard: usize, any: u64) -> Option<usize> {
        let deaf = |record: &Record| {
            record.part.role == Role::Deaf && record.id.shard() == shard && record.closed.is_none()
        };
        let all: Vec<usize> =
            (0..self.records.len()).filter(|at| deaf(&self.records[*at])).collect();
        (!all.is_empty()).then(|| all[(any % all.len() as u64) as usize])
    }

    /// Returns whether `received` goes on with a range. Blobs may lie anywhere in it.
    pub(super) fn agrees_with_range(
        &self,
        (piece, said): (Piece, &[Piece]),
        received: &[u8],
        used: &[bool],
        extent: Extent,
    ) -> bool {
        let most = usize::try_from(piece.bytes).unwrap_or(usize::MAX);
        let most =
            if piece.shape == Shape::OpenRange { received.len() } else { most.min(received.len()) };
        let common = piece.common(&received[..most]);
        // A blob that follows may begin like the range.
        (common.saturating_sub(2)..=common).rev().any(|length| {
            let rest = &received[length..];
            let left = Piece {
                offset: piece.offset + length as u64,
                bytes: piece.bytes.saturating_sub(length as u64),
                ..piece
            };
            if rest.is_empty() && extent == Extent::Part {
                return true;
            }
            let is_over = (piece.shape == Shape::OpenRange) || left.bytes == 0;
            (is_over && self.agrees_from(said, rest, used.to_vec(), extent))
                || self.blobs_at(rest, used).into_iter().any(|at| {
                    let mut used = used.to_vec();
                    used[at] = true;
                    match rest.get(self.blobs[at].bytes as usize..) {
                        Some(rest) => self.agrees_with_range((left, said), rest, &used, extent),
                        None => extent == Extent::Part,
                    }
                })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::book::Farewell;
    use super::super::scenarios::{config, end, go_on, part, world_of};
    use super::*;
    use crate::ring::simulated::Plan;
    use std::time::Duration;

    /// The end of a range may come while its last bytes lie in a pipe.
    #[test]
    fn ranges_to_a_slow_reader_end_with_all_their_bytes() {
        super::super::run::be_quiet();
        crate::marks::record();
        for seed in 0..30 {
            let mut world = world_of(seed, config(), 1);
            let forwarder = part(Role::Forwarder, Farewell::Close);
            let slow = Plan { read_chunk_max: 500, pace_us: 2_000, ..Plan::plain() };
            let peer = world.add_peer(slow, forwarder, 250_000);
            let socket = &mut world.ring().peers[peer].socket;
            (socket.inbound_capacity, socket.outbound_capacity) = (1 << 20, 2_048);
            go_on(&mut world, Duration::from_secs(3));
            end(&mut world);
        }
        let reached = crate::marks::take();
        assert!(reached.count("a forwarded range goes through a pipe") > 0);
    }
}
