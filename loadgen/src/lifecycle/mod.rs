//! The lives of connections, told by scripts and judged by oracles.
//!
//! Everything here runs on plain sockets and shares no code with the engine, so that a bug of ours
//! cannot hide itself.
//!
//! A [`script::Script`] is one connection's story. A [`dialect::Dialect`] knows one protocol: what
//! a connection says, what must be heard, and what each ending may look like ([`oracle`] has what
//! is the same for all). [`walk`] walks many scripts at once and tells what was seen.

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
