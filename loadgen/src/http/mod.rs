//! HTTP/1.1 as a client of one server speaks it.

pub mod bodies;
pub mod chunk;
mod exchange;
pub mod fingerprint;
pub mod head;
pub mod list;
pub mod reply;
mod requests;
mod statuses;
mod url;

pub use exchange::{Http, HttpState, Learnt, Rules};
pub use requests::{Request, Requests};
pub use statuses::Statuses;
pub use url::{PORT, Url};
