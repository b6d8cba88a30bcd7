//! The families of a connection, in the order of the walk.
//!
//! Builds with `--cfg 'ringwright_without="NAME"'` lack a family. They only show that nothing else
//! needs it: `.ci/full` runs seeds that do not ask for it.

use super::Shard;
use super::bounds::Full;
use super::close::Closing;
use super::connect::Connecting;
use super::core::Core;
use super::delivery::Delivery;
use super::family::{After, Family, Outcome, Vetoes};
use super::file::FilesOut;
use super::forward::Forwards;
use super::incoming::FilesIn;
use super::jobs::JobResults;
use super::naming::Names;
use super::opening::Opening;
use super::rare::Rare;
use super::receive::Input;
use super::send::Output;
use super::slots::Slot;
use super::timer::Timer;
use super::turn::{Calling, Submitting};
use crate::handler::Handler;
#[cfg(any(test, feature = "testing"))]
use crate::ring::simulated::SimulatedRing;
use crate::ring::{Kind, Ring};

/// Makes everything that is done for each family, from the families, their operations, and the cfg
/// with which each exists.
macro_rules! families {
    ($($(#[doc = $what:literal])+ $family:ident: $($kind:ident)*, if $cfg:meta;)+) => {
        /// A deadline of a connection, by family.
        #[derive(Clone, Copy)]
        pub(super) enum Due {
            $($(#[doc = $what])+ #[cfg($cfg)] $family(<$family as Family>::Due),)+
        }

        /// The families and the operations of each.
        #[cfg(test)]
        const OWNERS: &[(&str, &[Kind])] = &[$((stringify!($family), &[$(Kind::$kind),*])),+];

        impl Core {
            /// Returns everything that the families keep a connection from.
            #[inline]
            pub(super) fn vetoes(&self, connection: &Slot) -> Vetoes {
                let mut vetoes = Vetoes::NONE;
                $(#[cfg($cfg)] { vetoes = vetoes | $family::vetoes(connection); })+
                if !connection.is_plain() {
                    let rare = self.slots.rare_of(connection);
                    $(#[cfg($cfg)] { vetoes = vetoes | $family::record_vetoes(rare); })+
                }
                vetoes
            }
        }

        /// Returns whether a connection only receives and sends, as far as its slot says.
        #[inline]
        fn is_slot_quiet(connection: &Slot) -> bool {
            $(#[cfg($cfg)] if !$family::is_quiet(connection) { return false; })+
            true
        }

        /// The same, as far as its record says.
        #[inline]
        fn is_record_quiet(rare: &Rare) -> bool {
            $(#[cfg($cfg)] if !$family::is_record_quiet(rare) { return false; })+
            true
        }

        /// Returns whether all deadlines of a record count from the last activity.
        #[inline]
        fn counts_from_activity(rare: &Rare) -> bool {
            $(#[cfg($cfg)] if !$family::counts_from_activity(rare) { return false; })+
            true
        }

        impl<R: Ring, H: Handler> Shard<R, H> {
            /// Hands the result of an operation to its family.
            #[inline(always)]
            pub(super) fn completed(
                &mut self,
                slot: u32,
                outcome: Outcome,
                call: Calling,
            ) -> After {
                match outcome.kind {
                    $($(
                        #[cfg($cfg)]
                        Kind::$kind => $family::completed(self, slot, outcome, call),
                    )*)+
                    kind => unreachable!("{kind:?} belongs to no connection"),
                }
            }

            /// Makes the callbacks of a connection that are due.
            fn report_all(&mut self, slot: u32, call: Calling) {
                $(#[cfg($cfg)] $family::report(self, slot, call);)+
            }

            /// Submits the operations that a connection wants.
            #[inline(always)]
            fn submit_all_of(
                &mut self,
                slot: u32,
                quiet: bool,
                may: Submitting,
            ) -> Result<(), Full> {
                $(#[cfg($cfg)] if $family::ALWAYS || !quiet {
                    $family::submit(self, slot, may)?;
                })+
                Ok(())
            }

            /// The earliest deadline of a connection, in ms, and which it is.
            pub(super) fn next_deadline(&self, slot: u32) -> Option<(u64, Due)> {
                let connection = &self.core.slots[slot];
                let mut next: Option<(u64, Due)> = None;
                $(#[cfg($cfg)] $family::due(self, slot, connection, &mut |since_ms, after_ms, due| {
                    if let Some(after_ms) = after_ms
                        && next.is_none_or(|(at_ms, _)| since_ms + after_ms < at_ms)
                    {
                        next = Some((since_ms + after_ms, Due::$family(due)));
                    }
                });)+
                next
            }

            /// A deadline of a connection has passed.
            pub(super) fn on_due(&mut self, slot: u32, due: Due, call: Calling) {
                match due {
                    $(#[cfg($cfg)] Due::$family(due) => $family::expired(self, slot, due, call),)+
                }
            }

            /// Gives everything back that a connection holds. No operation uses it any more.
            pub(super) fn release_all(&mut self, slot: u32) {
                $(#[cfg($cfg)] $family::release(self, slot);)+
            }
        }

        #[cfg(any(test, feature = "testing"))]
        impl<H: Handler> Shard<SimulatedRing, H> {
            /// Calls `fail` for each thing of a connection that will not go on by itself.
            pub(super) fn check_families(&self, slot: u32, fail: &dyn Fn(&str)) {
                let connection = &self.core.slots[slot];
                $(#[cfg($cfg)] $family::check(self, slot, connection, fail);)+
            }
        }
    };
}

families! {
    /// The connect of an outgoing connection.
    Connecting: Connect CancelConnect, if not(ringwright_without = "connects");
    /// A file that is being opened or made.
    Opening: Open, if all();
    /// Files on their way out.
    FilesOut: PollOut Read Splice, if not(ringwright_without = "files_out");
    /// The output queue.
    Output: Send, if all();
    /// A file that is being given its name.
    Names: Publish, if not(ringwright_without = "naming");
    /// A range of the stream that goes into a file.
    FilesIn: Write SpliceToFile PollIn, if not(ringwright_without = "files_in");
    /// A range of the stream that goes to another connection.
    Forwards: , if not(any(ringwright_without = "files_in", ringwright_without = "files_out"));
    /// Jobs on the workers.
    JobResults: , if not(ringwright_without = "jobs");
    /// Output that the peer has yet to acknowledge.
    Delivery: , if all();
    /// Receiving.
    Input: Receive Probe Hangup CancelReceive, if all();
    /// The timer of the application.
    Timer: , if all();
    /// Idle time, `finish`, and the end.
    Closing: Close, if all();
}

impl<R: Ring, H: Handler> Shard<R, H> {
    /// Returns whether a connection only receives and sends.
    #[inline(always)]
    pub(super) fn is_quiet(&self, slot: u32) -> bool {
        let connection = &self.core.slots[slot];
        is_slot_quiet(connection)
            && (connection.is_plain() || is_record_quiet(self.core.slots.rare_of(connection)))
    }

    /// Returns whether all deadlines of a connection count from its last activity.
    #[inline]
    pub(super) fn counts_from_activity(&self, connection: &Slot) -> bool {
        connection.is_plain() || counts_from_activity(self.core.slots.rare_of(connection))
    }

    /// Makes the callbacks of a connection that are due, and submits what it wants.
    pub(super) fn walk(&mut self, slot: u32, may: Submitting, call: Calling) -> Result<(), Full> {
        let quiet = self.is_quiet(slot);
        if !quiet {
            self.report_all(slot, call);
            // That may have been the slot's end.
            if self.core.slots.get(slot).is_none() {
                return Ok(());
            }
        }
        self.submit_all_of(slot, quiet, may)?;
        self.arm_deadline(slot);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_operation_of_a_connection_belongs_to_one_family() {
        for kind in Kind::ALL {
            let owners = OWNERS.iter().filter(|(_, kinds)| kinds.contains(kind)).count();
            assert_eq!(owners == 1, kind.place_in_slot().is_some(), "{kind:?}");
            assert!(owners < 2, "{kind:?}");
        }
    }
}
