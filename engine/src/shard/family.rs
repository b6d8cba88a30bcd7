//! A family is one kind of work of a connection: input, output, files in, names, jobs, and others.
//!
//! Each family has a file with the operations that it submits, and what it does in each phase of a
//! turn. `families.rs` lists the families in the order of the walk. Everything that is done for
//! every family is made from that list: a new family is one line there, and one file.
//!
//! | phase | function | may | may not |
//! |---|---|---|---|
//! | dispatch | [`Family::completed`] | change state, call the handler | submit |
//! | timers | [`Family::expired`] | change state, report the deadline | submit |
//! | flush | [`Family::report`] | make the callbacks that are due | submit |
//! | flush | [`Family::submit`] | turn state into operations | call the handler |
//! | the end | [`Family::release`] | give everything back | submit, call the handler |
//!
//! The compiler holds the table: a function that submits takes [`Submitting`], one that calls the
//! handler takes [`Calling`], and only the loop makes these marks. `engine/forbidden` builds a
//! family that breaks each cell. One exception has a name: [`Submitting::reads_at_once`].
//!
//! `completed` calls the handler only where the value must not wait: input, which lies in a receive
//! buffer, and the results of opens and connects, which come once. The other functions only look:
//! at what a family keeps a connection from, and when it has to be looked at next.

use super::Shard;
use super::bounds::Full;
use super::rare::Rare;
use super::slots::Slot;
use super::turn::{Calling, Submitting};
use crate::handler::Handler;
use crate::memory::HeldBuffer;
#[cfg(any(test, feature = "testing"))]
use crate::ring::simulated::SimulatedRing;
use crate::ring::{Completion, Kind, Ring};
use std::ops::BitOr;

/// The result of an operation.
pub(super) struct Outcome {
    pub kind: Kind,
    pub completion: Completion,
    /// The receive buffer with the bytes that have come.
    pub buffer: Option<HeldBuffer>,
}

/// The consequence of a completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// The connection is walked in the next flush.
    Walk,
    /// Only its deadlines have changed.
    Quiet,
    /// The slot is free.
    Freed,
}

/// The things that a family keeps a connection from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Vetoes(u8);

impl Vetoes {
    pub const NONE: Self = Self(0);
    /// Ending by the idle deadline.
    pub const IDLE: Self = Self(1);
    /// Ending by `Connection::finish`.
    pub const FINISH: Self = Self(2);
    /// Making room for a client that waits.
    pub const EVICTION: Self = Self(4);
    pub const ALL: Self = Self(7);

    /// These, if the condition holds.
    #[inline]
    pub fn when(self, condition: bool) -> Self {
        if condition { self } else { Self::NONE }
    }

    /// Returns whether one of these is among them.
    #[inline]
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

impl BitOr for Vetoes {
    type Output = Self;

    #[inline]
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// One kind of work of a connection. Each function has a default for families without such a part.
pub(super) trait Family {
    /// The deadlines of the family. `Infallible`: it has none.
    type Due: Copy;

    /// The family is walked always, and not only when the connection is not quiet.
    const ALWAYS: bool = false;

    /// Returns whether the connection only receives and sends, as far as its slot says: there is no
    /// callback to make, and no operation to submit but those of the families that are walked
    /// always.
    #[inline]
    fn is_quiet(_connection: &Slot) -> bool {
        true
    }

    /// The same, as far as its record says, if it has one.
    #[inline]
    fn is_record_quiet(_rare: &Rare) -> bool {
        true
    }

    /// Returns what the connection must not do meanwhile, as far as its slot says.
    #[inline]
    fn vetoes(_connection: &Slot) -> Vetoes {
        Vetoes::NONE
    }

    /// The same, as far as its record says, if it has one.
    #[inline]
    fn record_vetoes(_rare: &Rare) -> Vetoes {
        Vetoes::NONE
    }

    /// Returns whether every deadline counts from the last activity.
    #[inline]
    fn counts_from_activity(_rare: &Rare) -> bool {
        true
    }

    /// Takes the result of an operation of the family.
    fn completed<R: Ring, H: Handler>(
        _shard: &mut Shard<R, H>,
        _slot: u32,
        outcome: Outcome,
        _call: Calling,
    ) -> After {
        unreachable!("a family without operations gets no {:?}", outcome.kind)
    }

    /// Makes the callbacks that are due. The connection may be over after each of them.
    #[inline]
    fn report<R: Ring, H: Handler>(_shard: &mut Shard<R, H>, _slot: u32, _call: Calling) {}

    /// Submits what the state of the connection asks for. If the queue is full, the walk begins
    /// anew in the next turn.
    #[inline]
    fn submit<R: Ring, H: Handler>(
        _shard: &mut Shard<R, H>,
        _slot: u32,
        _may: Submitting,
    ) -> Result<(), Full> {
        Ok(())
    }

    /// Calls `candidate` for each deadline, with the time in ms from which it counts, and the time
    /// after which it has passed. `None`: never.
    #[inline]
    fn due<R: Ring, H: Handler>(
        _shard: &Shard<R, H>,
        _slot: u32,
        _connection: &Slot,
        _candidate: &mut impl FnMut(u64, Option<u64>, Self::Due),
    ) {
    }

    /// A deadline has passed. The connection is walked afterwards.
    fn expired<R: Ring, H: Handler>(
        _shard: &mut Shard<R, H>,
        _slot: u32,
        _due: Self::Due,
        _call: Calling,
    ) {
    }

    /// Gives everything back at the end of the connection. No operation uses it any more.
    #[inline]
    fn release<R: Ring, H: Handler>(_shard: &mut Shard<R, H>, _slot: u32) {}

    /// Calls `fail` for each thing that will not go on by itself.
    #[cfg(any(test, feature = "testing"))]
    fn check<H: Handler>(
        _shard: &Shard<SimulatedRing, H>,
        _slot: u32,
        _connection: &Slot,
        _fail: &dyn Fn(&str),
    ) {
    }
}
