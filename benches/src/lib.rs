//! Ringwright beside its peers and its limit.
//!
//! `ringwright-bench` measures: the daemon beside `ringwright-limit` (the bare ring: nothing but the
//! system calls), `ringwright-peer-…` (the same work on other runtimes) and nginx. This library is
//! what these programs share.

#![cfg(target_os = "linux")]

pub mod arguments;
pub mod bare;
pub mod compare;
pub mod machine;
pub mod peer;
pub mod suite;
