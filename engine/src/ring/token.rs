//! `user_data` of every operation: what it was, and for which life of which slot.
//!
//! Encoded and decoded here and nowhere else:
//!
//! | bits | field |
//! |---|---|
//! | 56..64 | [`Kind`], plus 1 |
//! | 32..56 | the low 24 bits of the slot's generation |
//! | 0..32 | slot, or listener number, or file descriptor, as the kind says |
//!
//! A slot is reused only when nothing is in flight for it, so a stale token means a bug or a
//! kernel surprise; the generation makes such a completion harmless either way.

/// Declares the kinds of operations. The second column is the place of the operation among those of
/// a slot, which has at most one in flight in each place. `None`: it belongs to no slot.
macro_rules! kinds {
    ($($(#[doc = $what:literal])+ $kind:ident => $place:expr,)*) => {
        /// The purpose of an operation.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Kind {
            $($(#[doc = $what])+ $kind,)*
        }

        impl Kind {
            /// All kinds.
            pub const ALL: &'static [Self] = &[$(Self::$kind),*];

            /// The place of the operation among those of a slot. `None`: it belongs to no slot.
            #[inline]
            #[must_use]
            pub const fn place_in_slot(self) -> Option<u8> {
                const PLACES: &[Option<u8>] = &[$($place),*];
                PLACES[self as usize]
            }
        }
    };
}

kinds! {
    /// Multishot accept; the slot field is the listener's number.
    Accept => None,
    /// Receive into provided buffers, one shot or many.
    Receive => Some(0),
    /// Zero-length receive or poll: "something is there to read".
    Probe => Some(0),
    /// Poll for error and hang-up only.
    Hangup => Some(1),
    /// Stream send.
    Send => Some(2),
    /// Poll for room in the socket's send buffer.
    PollOut => Some(3),
    /// Read of a small file into a send buffer.
    Read => Some(4),
    /// Splice from a file into a pipe.
    Splice => Some(5),
    /// Open a path beneath a directory.
    Open => Some(6),
    /// Connect out.
    Connect => Some(7),
    /// Close a connection's descriptor.
    Close => Some(8),
    /// Close a file; the slot field is the file descriptor.
    CloseFile => None,
    /// Cancel the receive side of a slot.
    CancelReceive => Some(9),
    /// Cancel an accept; the slot field is the listener's number.
    CancelAccept => None,
    /// The event descriptor other threads write to.
    Wake => None,
    /// Cancel a connect that takes too long.
    CancelConnect => Some(10),
    /// Cancel the poll of the event descriptor.
    CancelWake => None,
    /// Write of received bytes to a file.
    Write => Some(11),
    /// Splice from a pipe into a file.
    SpliceToFile => Some(12),
    /// Poll for bytes that go into a file.
    PollIn => Some(13),
    /// One of the steps by which a file gets its name.
    Publish => Some(14),
}

/// Bits of the generation that travel in a token.
const GENERATION_MASK: u64 = (1 << 24) - 1;

/// The identity of one operation, as the kernel gives it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Token(u64);

impl Token {
    /// Packs an operation's identity.
    #[inline]
    #[must_use]
    pub const fn new(kind: Kind, generation: u64, slot: u32) -> Self {
        Self((kind as u64 + 1) << 56 | (generation & GENERATION_MASK) << 32 | slot as u64)
    }

    /// From the `user_data` of a completion.
    #[inline]
    #[must_use]
    pub const fn from_user_data(user_data: u64) -> Self {
        Self(user_data)
    }

    /// As the `user_data` of a submission.
    #[inline]
    #[must_use]
    pub const fn user_data(self) -> u64 {
        self.0
    }

    /// What the operation was; `None` for a value this module never made.
    #[inline]
    #[must_use]
    pub fn kind(self) -> Option<Kind> {
        Kind::ALL.get(((self.0 >> 56) as usize).wrapping_sub(1)).copied()
    }

    /// The slot (or listener number, or descriptor).
    #[inline]
    #[must_use]
    pub const fn slot(self) -> u32 {
        self.0 as u32
    }

    /// Whether it is the poll of the event descriptor, or its cancel.
    #[cfg(any(test, feature = "testing"))]
    pub fn is_wake(self) -> bool {
        matches!(self.kind(), Some(Kind::Wake | Kind::CancelWake))
    }

    /// Whether this token was made for that generation of the slot.
    #[inline]
    #[must_use]
    pub const fn is_of(self, generation: u64) -> bool {
        (self.0 >> 32) & GENERATION_MASK == generation & GENERATION_MASK
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_goes_in_comes_out(kind in 0..Kind::ALL.len(), generation: u64, slot: u32) {
            let token = Token::new(Kind::ALL[kind], generation, slot);
            let back = Token::from_user_data(token.user_data());
            prop_assert_eq!(back.kind(), Some(Kind::ALL[kind]));
            prop_assert_eq!(back.slot(), slot);
            prop_assert!(back.is_of(generation));
            prop_assert!(!back.is_of(generation.wrapping_add(1)));
        }
    }

    #[test]
    fn only_a_receive_and_a_probe_share_a_place() {
        let places = || Kind::ALL.iter().filter_map(|kind| kind.place_in_slot());
        let shared: Vec<u8> =
            places().filter(|place| places().filter(|it| it == place).count() > 1).collect();
        let place = Kind::Receive.place_in_slot().expect("it belongs to a slot");
        assert_eq!(shared, [place, place]);
        assert_eq!(Kind::Probe.place_in_slot(), Some(place));
        assert!(places().all(|place| u32::from(place) < u16::BITS));
    }

    #[test]
    fn foreign_values_have_no_kind() {
        assert_eq!(Token::from_user_data(0).kind(), None);
        assert_eq!(Token::from_user_data(u64::MAX).kind(), None);
    }
}
