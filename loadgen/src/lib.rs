//! The parts of `ringload`, a load generator that checks every byte of every reply.
//!
//! # Commands
//! [`args`] reads the command line. [`flow::carry_out`] runs one command and delivers its result,
//! a [`ringload_lifecycle::delivery::Delivery`]: the JSON report, the summary and the exit status.
//!
//! - [`run`] loads a server. Its clients are outgoing connections of a `ringwright` engine, and one
//!   [`load::Load`] per shard drives them. A [`ringload_lifecycle::clients::Protocol`] makes the
//!   requests and checks the replies.
//! - [`transfer`] uploads, downloads and lists files, with blocking calls.
//! - [`ringload_lifecycle`] has `idle`, `churn` and `replay`, which run without the engine, and
//!   everything that all commands share: formats, reports, names, units.
//! - [`search`] finds the highest rate at which a server meets objectives.
//! - [`plan`] runs several commands as child processes.
//! - [`output`] writes reports, and reads them for `report`, `merge` and `compare`.
//!
//! # Results
//! [`stats`] counts, [`mod@report`] and [`summary`] present the counts. [`verdict`] evaluates
//! `--fail-if`, `--ledger` and `--pid`. [`threads`], [`network`] and [`saturation`] show whether
//! the run measured the server or ringload itself.

pub mod args;
pub mod condition;
pub mod flow;
pub mod load;
pub mod network;
pub mod output;
pub mod plan;
pub mod profile;
pub mod report;
pub mod run;
pub mod saturation;
pub mod search;
pub mod stats;
pub mod summary;
pub mod threads;
pub mod transfer;
pub mod verdict;
