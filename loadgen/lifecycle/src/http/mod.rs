//! HTTP/1.1 as a client of one server reads it.

pub mod blocking;
pub mod bodies;
pub mod chunk;
pub mod fingerprint;
pub mod head;
#[cfg(test)]
mod mutants;
pub mod reading;
pub mod reply;
mod url;

pub use url::{PORT, Url};
