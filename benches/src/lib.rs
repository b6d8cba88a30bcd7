//! Ringwright beside its peers and its limit.
//!
//! Three programs: `ringwright-limit` (the bare ring: nothing but the system calls),
//! `ringwright-peer-tokio` (the same echo on tokio) and `ringwright-compare` (interleaved runs of
//! two servers); and the example `instructions` (what an operation of the engine costs, counted). What
//! they share is here.

#![cfg(target_os = "linux")]

pub mod arguments;
pub mod bare;
pub mod compare;
pub mod instructions;
pub mod machine;
