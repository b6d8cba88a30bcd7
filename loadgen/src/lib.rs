//! The parts of `ringload`, a load generator that checks every byte of every reply.
//!
//! # Commands
//! [`args`] reads the command line. [`flow::carry_out`] runs one command and delivers its result: a
//! [`delivery::Delivery`] with the JSON report, the summary and the exit status.
//!
//! - [`run`] loads a server. Its clients are outgoing connections of a `ringwright` engine, and one
//!   [`load::Load`] per shard drives them. A [`protocol::Protocol`] ([`echo`], [`http`],
//!   [`packets`]) makes the requests and checks the replies.
//! - [`transfer`] uploads or downloads one file, through a connection of the same engine.
//! - [`herd`] holds idle connections and probes them.
//! - [`lifecycle`] injects faults and judges the server's reactions.
//! - [`search`] finds the highest rate at which a server meets objectives.
//! - [`plan`] runs several commands as child processes.
//! - [`output`] writes reports, and reads them for `report`, `merge` and `compare`.
//!
//! # Results
//! [`stats`] counts, [`mod@report`] and [`summary`] present the counts. [`verdict`] evaluates
//! `--fail-if`, `--ledger` and `--pid`. [`threads`], [`network`] and [`saturation`] show whether
//! the run measured the server or ringload itself.

/// Prints a line to standard error and ignores a failure; `eprintln!` would panic if standard error
/// is closed.
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
pub mod random;
pub mod report;
pub mod route;
pub mod run;
pub mod saturation;
pub mod search;
pub mod stats;
pub mod stream;
pub mod summary;
pub mod system;
pub mod threads;
pub mod timeline;
pub mod transfer;
pub mod units;
pub mod verdict;
