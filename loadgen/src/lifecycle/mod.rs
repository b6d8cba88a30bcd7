//! `ringload churn` and `replay`: connections that follow scripts, and oracles that judge the
//! server.
//!
//! Everything here runs on plain sockets with its own packet codec, so that a bug of the engine
//! cannot hide itself. No code of the engine runs in these commands. The only link to it is a type:
//! [`crate::run::Failure`], the error of all commands, has a variant for `ringwright::Error`.
//!
//! A [`script::Script`] describes one connection. A [`dialect::Dialect`] implements one protocol:
//! the requests, the check of received bytes, and the judgement of each ending. [`oracle`] has the
//! rules that all protocols share. [`walk`] runs many scripts at once and records the results.

pub mod bystander;
pub mod cell;
pub mod churn;
pub mod dialect;
pub mod dialects;
pub mod draw;
pub mod finding;
pub mod oracle;
pub mod replay;
pub mod script;
pub mod shrink;
pub mod socket;
pub mod walk;
