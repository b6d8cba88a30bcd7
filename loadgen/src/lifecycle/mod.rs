//! The lives of connections, told by scripts and judged by oracles.
//!
//! Everything here runs on plain sockets and shares no code with the engine, so that a bug of ours
//! cannot hide itself.
//!
//! A [`dialect::Dialect`] knows one protocol: what a connection says, what must be heard, and what
//! each ending may look like.

pub mod dialect;
pub mod finding;
