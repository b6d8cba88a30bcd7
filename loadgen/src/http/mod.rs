//! HTTP/1.1 as a client of one server speaks it.

mod exchange;
pub mod list;
mod requests;
mod statuses;

pub use exchange::{Http, HttpState, Learnt, Rules};
pub use requests::{Request, Requests};
pub use statuses::Statuses;
