//! What may go wrong, and how often.

use super::rng::Rng;

/// Probabilities in per mille, each drawn anew at every opportunity. May be changed at any time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// EMFILE though descriptors are free: accept, open, socket, pipe.
    pub no_descriptor: u16,
    /// ENFILE, ENOBUFS or ENOMEM from accept and open; ECONNABORTED from accept.
    pub no_memory: u16,
    /// ENOBUFS or ENOMEM from a send, ENOMEM from a read of a file or a splice.
    pub no_send_memory: u16,
    /// ENOMEM for a socket filter.
    pub no_filter_memory: u16,
    /// ENOMEM from a receive or a probe.
    pub no_receive_memory: u16,
    /// EINTR or EAGAIN from a receive, a probe, a poll or a send.
    pub cut_short: u16,
    /// A receive that ends without bytes has taken a buffer all the same.
    pub buffer_at_end: u16,
    /// EIO from statx(2).
    pub no_status: u16,
    /// A multishot ends with a completion that succeeded.
    pub multishot_end: u16,
    /// A receive takes less than is there.
    pub short_receive: u16,
    /// A send ends short though the peer is well.
    pub short_send: u16,
    /// A read of a file, a splice from it or to a socket moves less than it could.
    pub short_file: u16,
    /// A read, a splice or an open never ends.
    pub hung_storage: u16,
    /// EIO from a read or a splice.
    pub file_error: u16,
    /// A file is not in the page cache.
    pub not_cached: u16,
    /// ENOSPC or EDQUOT for what is written to a file.
    pub no_space: u16,
    /// EINTR from a splice.
    pub file_interrupted: u16,
    /// A file loses its end just before it is read.
    pub truncate: u16,
    /// EAGAIN from a splice to a socket that has room.
    pub splice_again: u16,
    /// What could happen now waits for another look.
    pub delay: u16,
    /// What has happened is reported later.
    pub late_completion: u16,
    /// A write to the event descriptor comes later.
    pub late_wake: u16,
    /// The kernel takes nothing from a full submission queue.
    pub submission_refused: u16,
    /// The enter call is interrupted and submits nothing.
    pub enter_interrupted: u16,
    /// An outgoing connect is refused, or finds no route, no port or no memory.
    pub connect_refused: u16,
    /// An outgoing connect is never answered.
    pub connect_silent: u16,
    /// A peer resets, at every step it makes.
    pub peer_reset: u16,
    /// A peer vanishes, at every step it makes.
    pub peer_vanish: u16,
}

impl Faults {
    /// A kernel and a network as in the books.
    pub fn none() -> Self {
        Self::default()
    }

    /// Each fault is absent for half of the seeds, so that the others get far; and now and then
    /// one is a storm.
    pub fn draw(rng: &mut Rng) -> Self {
        let hangs = rng.below(32) == 0;
        let mut draw = |most: usize| match rng.below(40) {
            0 => (4 * most).min(900) as u16,
            1..20 => rng.up_to(most) as u16,
            _ => 0,
        };
        Self {
            no_descriptor: draw(200),
            no_memory: draw(200),
            no_send_memory: draw(100),
            no_filter_memory: draw(500),
            no_receive_memory: draw(100),
            cut_short: draw(100),
            buffer_at_end: draw(500),
            no_status: draw(100),
            multishot_end: draw(300),
            short_receive: draw(300),
            short_send: draw(100),
            short_file: draw(300),
            hung_storage: if hangs { 10 } else { 0 },
            file_error: draw(30),
            not_cached: draw(700),
            no_space: draw(60),
            file_interrupted: draw(100),
            truncate: draw(20),
            splice_again: draw(300),
            delay: draw(700),
            late_completion: draw(500),
            late_wake: draw(300),
            submission_refused: draw(500),
            enter_interrupted: draw(200),
            connect_refused: draw(300),
            connect_silent: draw(200),
            peer_reset: draw(20),
            peer_vanish: draw(10),
        }
    }
}
