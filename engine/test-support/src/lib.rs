//! Helpers of the tests of several packages.
//!
//! The engine's own unit tests use them, too. This crate therefore does not depend on the engine:
//! they would have two of it.

mod alone;
mod block_on;
mod descriptors;
mod filter;
mod io_uring;
mod left_out;
mod program;
mod root;
pub mod seccomp;

pub use alone::alone;
pub use block_on::block_on;
pub use descriptors::raise_descriptor_limit;
pub use filter::can_filter;
pub use io_uring::needs_io_uring;
pub use left_out::leave_out;
pub use program::needs_program;
pub use root::needs_root;
