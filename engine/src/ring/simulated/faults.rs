//! What may go wrong, and how often.

use super::rng::Rng;

/// Declares each fault: what happens, its name, and the highest probability that a seed draws
/// outside of storms, in per mille.
macro_rules! faults {
    ($($(#[doc = $what:literal])+ $name:ident <= $most:literal,)*) => {
        /// The faults, with their probabilities in per mille. Each is drawn anew at every
        /// opportunity.
        ///
        /// `Faults::none()` is a kernel and a network without faults.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Faults {
            $($(#[doc = $what])+ pub $name: u16,)*
        }

        impl Faults {
            /// The names of all faults: the names of the fields.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($name)),*];

            /// The highest probability that a seed draws for each of them, in the same order.
            const MOST: &'static [u16] = &[$($most),*];

            /// The probability of the fault with this name.
            pub fn by_name(&mut self, name: &str) -> Option<&mut u16> {
                match name {
                    $(stringify!($name) => Some(&mut self.$name),)*
                    _ => None,
                }
            }
        }
    };
}

faults! {
    /// EMFILE though descriptors are free: accept, open, socket, pipe.
    no_descriptor <= 200,
    /// ENFILE, ENOBUFS or ENOMEM from accept and open; ECONNABORTED from accept.
    no_memory <= 200,
    /// ENOBUFS or ENOMEM from a send, ENOMEM from a read of a file or a splice.
    no_send_memory <= 100,
    /// ENOMEM for a socket filter.
    no_filter_memory <= 500,
    /// ENOMEM from a receive or a probe.
    no_receive_memory <= 100,
    /// EINTR or EAGAIN from a receive, a probe, a poll or a send.
    cut_short <= 100,
    /// A receive that ends without bytes has taken a buffer all the same.
    buffer_at_end <= 500,
    /// EIO from statx(2).
    no_status <= 100,
    /// A multishot ends with a completion that succeeded.
    multishot_end <= 300,
    /// A receive takes less than is there.
    short_receive <= 300,
    /// A send ends short though the peer is well.
    short_send <= 100,
    /// A read of a file, a splice from it or to a socket moves less than it could.
    short_file <= 300,
    /// A read, a splice or an open never ends.
    hung_storage <= 0,
    /// EIO from a read or a splice.
    file_error <= 30,
    /// A file is not in the page cache.
    not_cached <= 700,
    /// ENOSPC or EDQUOT for what is written to a file.
    no_space <= 60,
    /// EINTR from a splice.
    file_interrupted <= 100,
    /// A file loses its end just before it is read.
    truncate <= 20,
    /// EAGAIN from a splice to a socket that has room.
    splice_again <= 300,
    /// What could happen now waits for another look.
    delay <= 700,
    /// What has happened is reported later.
    late_completion <= 500,
    /// A write to the event descriptor comes later.
    late_wake <= 300,
    /// The kernel takes nothing from a full submission queue.
    submission_refused <= 500,
    /// The enter call is interrupted and submits nothing.
    enter_interrupted <= 200,
    /// An outgoing connect is refused, or finds no route, no port or no memory.
    connect_refused <= 300,
    /// An outgoing connect is never answered.
    connect_silent <= 200,
    /// A peer resets, at every step it makes.
    peer_reset <= 20,
    /// A peer vanishes, at every step it makes.
    peer_vanish <= 10,
}

impl Faults {
    /// No faults.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Draws one fault, by its name, and its probability.
    pub(crate) fn draw_one(rng: &mut Rng) -> (&'static str, u16) {
        let at = rng.below(Self::NAMES.len() as u64) as usize;
        (Self::NAMES[at], rng.up_to(usize::from(Self::MOST[at]) + 10) as u16)
    }

    /// Draws the probabilities. Each fault is absent for half of the seeds, so that the others get
    /// far, and in some seeds one is a storm.
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        let hangs = rng.below(32) == 0;
        let mut draw = |most: u16| match rng.below(40) {
            0 => (4 * most).min(900),
            1..20 => rng.up_to(most.into()) as u16,
            _ => 0,
        };
        let mut faults = Self::none();
        for (name, most) in Self::NAMES.iter().zip(Self::MOST).filter(|(_, most)| **most > 0) {
            *faults.by_name(name).expect("it is one of the names") = draw(*most);
        }
        faults.hung_storage = if hangs { 10 } else { 0 };
        faults
    }
}
