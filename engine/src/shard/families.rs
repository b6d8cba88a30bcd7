//! The families of a connection, in the order of the walk.

use super::Shard;
use super::bounds::Full;
use super::close::Closing;
use super::connect::Connecting;
use super::core::Core;
use super::delivery::Delivery;
use super::family::{After, Family, Outcome, Vetoes};
use super::incoming::FilesIn;
use super::jobs::JobResults;
use super::naming::Names;
use super::opening::Opening;
use super::rare::Rare;
use super::receive::Input;
use super::send::Output;
use super::slots::Slot;
use super::timer::Timer;
use crate::handler::Handler;
#[cfg(any(test, feature = "testing"))]
use crate::ring::simulated::SimulatedRing;
use crate::ring::{Kind, Ring};

/// Makes everything that is done for each family, from the families and their operations.
macro_rules! families {
    ($($(#[doc = $what:literal])+ $family:ident: $($kind:ident)*;)+) => {
        /// What is due on a connection.
        #[derive(Clone, Copy)]
        pub(super) enum Due {
            $($(#[doc = $what])+ $family(<$family as Family>::Due),)+
        }

        /// The families and the operations of each.
        #[cfg(test)]
        const OWNERS: &[(&str, &[Kind])] = &[$((stringify!($family), &[$(Kind::$kind),*])),+];

        impl Core {
            /// What the families keep a connection from.
            #[inline]
            pub(super) fn vetoes(&self, connection: &Slot) -> Vetoes {
                let of_slot = Vetoes::NONE $(| $family::vetoes(connection))+;
                if connection.is_plain() {
                    return of_slot;
                }
                let rare = self.slots.rare_of(connection);
                of_slot $(| $family::record_vetoes(rare))+
            }
        }

        /// Returns whether a connection only receives and sends. So it is with almost every request.
        #[inline]
        fn is_quiet(core: &Core, connection: &Slot) -> bool {
            let is_record_quiet = |rare: &Rare| true $(&& $family::is_record_quiet(rare))+;
            true $(&& $family::is_quiet(connection))+
                && (connection.is_plain() || is_record_quiet(core.slots.rare_of(connection)))
        }

        /// Returns whether all deadlines of a record count from the last activity.
        #[inline]
        fn counts_from_activity(rare: &Rare) -> bool {
            true $(&& $family::counts_from_activity(rare))+
        }

        impl<R: Ring, H: Handler> Shard<R, H> {
            /// Hands the result of an operation to its family.
            #[inline(always)]
            pub(super) fn completed(&mut self, slot: u32, outcome: Outcome) -> After {
                match outcome.kind {
                    $($(Kind::$kind => $family::completed(self, slot, outcome),)*)+
                    kind => unreachable!("{kind:?} belongs to no connection"),
                }
            }

            /// Makes the callbacks of a connection that are due.
            fn report_all(&mut self, slot: u32) {
                $($family::report(self, slot);)+
            }

            /// Submits what a connection wants.
            #[inline(always)]
            fn submit_all_of(&mut self, slot: u32, quiet: bool) -> Result<(), Full> {
                $(if $family::ALWAYS || !quiet {
                    $family::submit(self, slot)?;
                })+
                Ok(())
            }

            /// The earliest deadline of a connection, in ms, and which it is.
            pub(super) fn next_deadline(&self, slot: u32) -> Option<(u64, Due)> {
                let connection = &self.core.slots[slot];
                let mut next: Option<(u64, Due)> = None;
                $($family::due(self, slot, connection, &mut |since_ms, after_ms, due| {
                    if let Some(after_ms) = after_ms
                        && next.is_none_or(|(at_ms, _)| since_ms + after_ms < at_ms)
                    {
                        next = Some((since_ms + after_ms, Due::$family(due)));
                    }
                });)+
                next
            }

            /// A deadline of a connection has passed.
            pub(super) fn on_due(&mut self, slot: u32, due: Due) {
                match due {
                    $(Due::$family(due) => $family::expired(self, slot, due),)+
                }
            }

            /// Gives everything back that a connection holds. No operation uses it any more.
            pub(super) fn release_all(&mut self, slot: u32) {
                $($family::release(self, slot);)+
            }
        }

        #[cfg(any(test, feature = "testing"))]
        impl<H: Handler> Shard<SimulatedRing, H> {
            /// Calls `fail` for each thing of a connection that will not go on by itself.
            pub(super) fn check_families(&self, slot: u32, fail: &dyn Fn(&str)) {
                let connection = &self.core.slots[slot];
                $($family::check(self, slot, connection, fail);)+
            }
        }
    };
}

families! {
    /// The connect of an outgoing connection.
    Connecting: Connect CancelConnect;
    /// A file that is being opened or made.
    Opening: Open;
    /// The output queue.
    Output: Send PollOut Read Splice;
    /// A file that is being given its name.
    Names: Publish;
    /// A range of the stream that goes into a file.
    FilesIn: Write SpliceToFile PollIn;
    /// Jobs on the workers.
    JobResults: ;
    /// What the peer has yet to acknowledge.
    Delivery: ;
    /// Receiving.
    Input: Receive Probe Hangup CancelReceive;
    /// The timer of the application.
    Timer: ;
    /// Idle time, `finish`, and the end.
    Closing: Close;
}

impl<R: Ring, H: Handler> Shard<R, H> {
    /// Returns whether a connection only receives and sends.
    #[inline]
    pub(super) fn is_quiet(&self, slot: u32) -> bool {
        is_quiet(&self.core, &self.core.slots[slot])
    }

    /// Returns whether all deadlines of a connection count from its last activity.
    #[inline]
    pub(super) fn counts_from_activity(&self, connection: &Slot) -> bool {
        connection.is_plain() || counts_from_activity(self.core.slots.rare_of(connection))
    }

    /// Makes the callbacks of a connection that are due, and submits what it wants.
    pub(super) fn walk(&mut self, slot: u32) -> Result<(), Full> {
        let quiet = self.is_quiet(slot);
        if !quiet {
            self.report_all(slot);
            // That may have been the slot's end.
            if self.core.slots.get(slot).is_none() {
                return Ok(());
            }
        }
        self.submit_all_of(slot, quiet)?;
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
