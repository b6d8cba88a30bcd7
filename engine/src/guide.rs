//! The guide: how to build a server, page by page.
//!
//! 1. [`life`]: the order of callbacks, and the effect of each method in each state.
//! 2. [`backpressure`]: clients that read slowly, long responses, relays.
//! 3. [`deadlines`]: every wait has one, and the application's timers.
//! 4. [`draining`]: an end that cuts no request off.
//! 5. [`files`]: sending and receiving them.
//! 6. [`workers`]: work that takes longer than a callback may.
//! 7. [`messages`]: messages, groups and closures from other threads and shards.
//! 8. [`tokio`]: a runtime in the same process.
//! 9. [`testing`]: a handler on a simulated kernel.
//! 10. [`tuning`]: which setting helps when, with figures.
//! 11. [`events`]: what the engine tells the crate `tracing`.
//! 12. [`hazards`]: mistakes that the compiler does not find.
//!
//! The programs in these pages are compiled and run with the tests. The folder `examples` of the
//! crate has ten complete ones, each with a test: `echo`, `chat`, `client` (which reconnects),
//! `upload`, `workers`, `tokio`, `packets`, `shutdown`, a small `redis` and a TCP `proxy`.

#[doc = include_str!("guide/backpressure.md")]
pub mod backpressure {}
#[doc = include_str!("guide/deadlines.md")]
pub mod deadlines {}
#[doc = include_str!("guide/draining.md")]
pub mod draining {}
#[doc = include_str!("guide/events.md")]
pub mod events {}
#[doc = include_str!("guide/files.md")]
pub mod files {}
#[doc = include_str!("guide/hazards.md")]
pub mod hazards {}
#[doc = include_str!("guide/life.md")]
pub mod life {}
#[doc = include_str!("guide/messages.md")]
pub mod messages {}
#[doc = include_str!("guide/testing.md")]
pub mod testing {}
#[doc = include_str!("guide/tokio.md")]
pub mod tokio {}
#[doc = include_str!("guide/tuning.md")]
pub mod tuning {}
#[doc = include_str!("guide/workers.md")]
pub mod workers {}
