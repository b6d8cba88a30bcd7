//! HTTP/1.1 as a client of one URL speaks it.

pub mod bodies;
pub mod chunk;
mod exchange;
pub mod fingerprint;
pub mod head;
pub mod reply;
mod statuses;
mod url;

pub use exchange::{Http, Learnt, Rules};
pub use statuses::Statuses;
pub use url::{PORT, Url};
