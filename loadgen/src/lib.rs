//! The parts of `ringload`, a load generator that is a client on the `ringwright` engine and
//! checks every byte that comes back.
//!
//! From the command line ([`args`]) to a run ([`run`]): one [`load::Load`] per shard keeps its
//! connections busy, a [`protocol::Protocol`] ([`echo`], [`http`], [`packets`]) makes the requests
//! and judges the replies, [`stats`] counts, [`report`] and [`summary`] tell. [`transfer`] moves one
//! file instead; a [`herd`] is idle, and a
//! [`plan`] has several of these at once.
//! connections busy, or sends on a schedule, a [`protocol::Protocol`] ([`echo`], [`http`],
//! [`packets`]) makes the requests and judges the replies, [`stats`] counts, [`report`] and
//! [`summary`] tell. [`threads`], [`network`] and [`saturation`] say whether it was the server that
//! was measured. [`transfer`] moves one file instead.

/// As `eprintln!`, but nobody who hears it is no reason to end a run: `eprintln!` panics.
#[macro_export]
macro_rules! note {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($words)*);
    }};
}

pub mod args;
pub mod delivery;
pub mod echo;
pub mod flow;
pub mod herd;
pub mod http;
pub mod lifecycle;
pub mod load;
pub mod network;
pub mod output;
pub mod packets;
pub mod plan;
pub mod protocol;
pub mod report;
#[cfg(test)]
#[path = "../../engine/tests/support/root.rs"]
mod root;
pub mod run;
pub mod saturation;
pub mod stats;
pub mod stream;
pub mod summary;
pub mod system;
pub mod threads;
pub mod timeline;
pub mod transfer;
pub mod units;
pub mod verdict;
