//! Code that must not compile: a family that breaks the table of `family.rs`.
//!
//! Each part is built by `--cfg 'ringwright_breaks="NAME"'`. The script `engine/forbidden` builds
//! them one by one, and this file once without any of them, which must compile.

use super::Shard;
use super::bounds::Full;
use super::family::{After, Family, Outcome};
use super::turn::{Calling, Submitting};
use crate::handler::Handler;
use crate::ring::{Descriptor, Kind, Op, Ring};
use std::convert::Infallible;

/// A family that does in each phase what it may do, and what a build adds.
struct Breaking;

impl Family for Breaking {
    type Due = Infallible;

    fn completed<R: Ring, H: Handler>(
        shard: &mut Shard<R, H>,
        slot: u32,
        _outcome: Outcome,
        call: Calling,
    ) -> After {
        shard.application.file_sent(call, &mut shard.core, slot);
        #[cfg(ringwright_breaks = "completed_submits")]
        let _ = shard.submit(call, slot, Kind::Close, Op::Close { descriptor: Descriptor(3) });
        After::Walk
    }

    fn report<R: Ring, H: Handler>(shard: &mut Shard<R, H>, slot: u32, call: Calling) {
        shard.application.file_sent(call, &mut shard.core, slot);
        #[cfg(ringwright_breaks = "report_submits")]
        let _ = shard.submit(call, slot, Kind::Close, Op::Close { descriptor: Descriptor(3) });
    }

    fn submit<R: Ring, H: Handler>(
        shard: &mut Shard<R, H>,
        slot: u32,
        may: Submitting,
    ) -> Result<(), Full> {
        #[cfg(ringwright_breaks = "submit_calls")]
        shard.application.file_sent(may, &mut shard.core, slot);
        #[cfg(ringwright_breaks = "mark_from_nowhere")]
        shard.application.file_sent(Calling::begin(), &mut shard.core, slot);
        #[cfg(ringwright_breaks = "field_written")]
        {
            shard.core.slots[slot].output_bytes = 0;
        }
        shard.submit(may, slot, Kind::Close, Op::Close { descriptor: Descriptor(3) })
    }

    fn expired<R: Ring, H: Handler>(
        shard: &mut Shard<R, H>,
        slot: u32,
        due: Self::Due,
        call: Calling,
    ) {
        shard.application.file_sent(call, &mut shard.core, slot);
        #[cfg(ringwright_breaks = "expired_submits")]
        let _ = shard.submit(call, slot, Kind::Close, Op::Close { descriptor: Descriptor(3) });
        match due {}
    }

    fn release<R: Ring, H: Handler>(shard: &mut Shard<R, H>, slot: u32) {
        shard.core.drop_carry(slot);
        #[cfg(ringwright_breaks = "release_calls")]
        shard.application.file_sent(Calling::begin(), &mut shard.core, slot);
        #[cfg(ringwright_breaks = "release_submits")]
        let _ = shard.submit(
            Submitting::begin(),
            slot,
            Kind::Close,
            Op::Close { descriptor: Descriptor(3) },
        );
    }

    fn due<R: Ring, H: Handler>(
        shard: &Shard<R, H>,
        slot: u32,
        _connection: &super::slots::Slot,
        _candidate: &mut impl FnMut(u64, Option<u64>, Self::Due),
    ) {
        #[cfg(not(ringwright_breaks = "due_changes"))]
        let _ = shard.core.slots[slot].state();
        #[cfg(ringwright_breaks = "due_changes")]
        shard.core.touch(slot);
    }
}
