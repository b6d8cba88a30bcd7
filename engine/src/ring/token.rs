//! `user_data` of every operation: what it was, and for which life of which slot.
//!
//! Encoded and decoded here and nowhere else:
//!
//! | bits | field |
//! |---|---|
//! | 56..64 | [`Kind`] |
//! | 32..56 | the low 24 bits of the slot's generation |
//! | 0..32 | slot, or listener number, or file descriptor, as the kind says |
//!
//! A slot is reused only when nothing is in flight for it, so a stale token means a bug or a
//! kernel surprise; the generation makes such a completion harmless either way.

/// What an operation was submitted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Multishot accept; the slot field is the listener's number.
    Accept = 1,
    /// Receive into provided buffers, one shot or many.
    Receive = 2,
    /// Zero-length receive or poll: "something is there to read".
    Probe = 3,
    /// Poll for error and hang-up only.
    Hangup = 4,
    /// Stream send.
    Send = 5,
    /// Poll for room in the socket's send buffer.
    PollOut = 6,
    /// Read of a small file into a send buffer.
    Read = 7,
    /// Splice from a file into a pipe.
    Splice = 8,
    /// Open a path beneath a directory.
    Open = 9,
    /// Connect out.
    Connect = 10,
    /// Close a connection's descriptor.
    Close = 11,
    /// Close a file; the slot field is the file descriptor.
    CloseFile = 12,
    /// Cancel the receive side of a slot.
    CancelReceive = 13,
    /// Cancel an accept; the slot field is the listener's number.
    CancelAccept = 14,
    /// The event descriptor other threads write to.
    Wake = 15,
    /// Cancel a connect that takes too long.
    CancelConnect = 16,
    /// Cancel the poll of the event descriptor.
    CancelWake = 17,
    /// Write of received bytes to a file.
    Write = 18,
    /// Splice from a pipe into a file.
    SpliceToFile = 19,
    /// Poll for bytes that go into a file.
    PollIn = 20,
    /// One of the steps by which a file gets its name.
    Publish = 21,
}

const KINDS: [Kind; 21] = [
    Kind::Accept,
    Kind::Receive,
    Kind::Probe,
    Kind::Hangup,
    Kind::Send,
    Kind::PollOut,
    Kind::Read,
    Kind::Splice,
    Kind::Open,
    Kind::Connect,
    Kind::Close,
    Kind::CloseFile,
    Kind::CancelReceive,
    Kind::CancelAccept,
    Kind::Wake,
    Kind::CancelConnect,
    Kind::CancelWake,
    Kind::Write,
    Kind::SpliceToFile,
    Kind::PollIn,
    Kind::Publish,
];

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
        Self((kind as u64) << 56 | (generation & GENERATION_MASK) << 32 | slot as u64)
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
        KINDS.get(((self.0 >> 56) as usize).wrapping_sub(1)).copied()
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
        fn what_goes_in_comes_out(kind in 0..KINDS.len(), generation: u64, slot: u32) {
            let token = Token::new(KINDS[kind], generation, slot);
            let back = Token::from_user_data(token.user_data());
            prop_assert_eq!(back.kind(), Some(KINDS[kind]));
            prop_assert_eq!(back.slot(), slot);
            prop_assert!(back.is_of(generation));
            prop_assert!(!back.is_of(generation.wrapping_add(1)));
        }
    }

    #[test]
    fn foreign_values_have_no_kind() {
        assert_eq!(Token::from_user_data(0).kind(), None);
        assert_eq!(Token::from_user_data(u64::MAX).kind(), None);
        for (at, kind) in KINDS.iter().enumerate() {
            assert_eq!(*kind as usize, at + 1, "KINDS is in the order of the discriminants");
        }
    }
}
