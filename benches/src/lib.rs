//! Benchmarks that compare Ringwright with other servers and runtimes.
//!
//! `ringwright-bench` compares the daemon with nginx, with `ringwright-peer-…` (the same work on
//! other runtimes), and with `ringwright-limit`, a bare ring that makes only the system calls and
//! is the upper bound. This library is the code that these programs share.

#![cfg(target_os = "linux")]

pub mod arguments;
pub mod bare;
pub mod compare;
pub mod machine;
pub mod peer;
pub mod suite;
