//! Ringwright beside its peers and its limit.
//!
//! `ringwright-bench` measures: the daemon beside `ringwright-limit` (the bare ring: nothing but the
//! system calls), `ringwright-peer-…` (the same work on other runtimes) and nginx. The example
//! `instructions` counts what an operation of the engine costs. What they share is here.

#![cfg(target_os = "linux")]

pub mod arguments;
pub mod bare;
pub mod compare;
pub mod instructions;
pub mod machine;
pub mod peer;
pub mod suite;
