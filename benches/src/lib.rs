//! Ringwright beside its peers and its limit.
//!
//! Three programs: `ringwright-limit` (the bare ring: nothing but the system calls),
//! `ringwright-peer-tokio` (the same echo on tokio) and `ringwright-compare` (interleaved runs of
//! two servers). What they share is here.

#![cfg(target_os = "linux")]

pub mod arguments;
pub mod bare;
pub mod compare;
pub mod instructions;
pub mod machine;
