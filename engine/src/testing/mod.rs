//! Tests of a handler on a simulated kernel: no sockets, no threads, no clock (feature `testing`).
//!
//! A [`Bench`] runs the shards of an engine with *your* [`Handler`](crate::Handler). Clients,
//! files, time and faults exist only in memory. A test therefore runs in microseconds and gives the
//! same result every time. After each turn of a shard the bench checks the invariants of the
//! engine: no buffer, permit or descriptor is lost, no connection is forgotten. A panic of the
//! handler fails the test.
//!
//! * [`Bench::connect`], [`Bench::send`], [`Bench::run`] and [`Bench::received`] script a client.
//! * [`Bench::set_faults`] makes the kernel fail: sends end short, buffers run out, peers reset.
//! * [`at_every_cut`] delivers bytes in two parts, cut at every place in turn.
//! * [`Storm`] runs many seeds. Each one draws clients, the pieces in which they send, their ends,
//!   and faults. A seed that fails is reduced to the few events that make it fail.
//!
//! Enable the feature for tests only:
//!
//! ```toml
//! [dev-dependencies]
//! ringwright = { version = "0.1", features = ["testing"] }
//! ```
//!
//! # Example
//! A protocol of lines: the reply to a line is the line in upper case. The test finds out whether
//! the handler copes with lines that arrive in two parts, and with everything that a network and
//! a kernel may do.
//!
//! ```
//! use ringwright::testing::{Bench, Storm, at_every_cut};
//! use ringwright::{Config, Connection, Handler, Origin};
//!
//! struct Shout;
//!
//! impl Handler for Shout {
//!     type State = ();
//!     fn opened(&mut self, _: &mut Connection<'_>, _: Origin) {}
//!     fn received(&mut self, _: &mut (), connection: &mut Connection<'_>, bytes: &[u8]) -> usize {
//!         // All whole lines: a rest is shown again only with further bytes.
//!         let used = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
//!         let _ = connection.send(&bytes[..used].to_ascii_uppercase());
//!         used
//!     }
//! }
//!
//! at_every_cut(b"hello\nworld\n", |first, second| {
//!     let mut bench = Bench::new(Config::default(), |_| Shout);
//!     let client = bench.connect();
//!     for part in [first, second] {
//!         bench.send(client, part);
//!         bench.run();
//!     }
//!     assert_eq!(bench.received(client), b"HELLO\nWORLD\n");
//!     assert!(bench.finish().balanced());
//! });
//!
//! Storm::new(Config::default(), |_| Shout)
//!     .sends(b"one\ntwo\nthree\n")
//!     .judge(|client| {
//!         let reply = client.sent().to_ascii_uppercase();
//!         assert!(reply.starts_with(client.received()), "a reply of nothing that was asked");
//!         assert!(client.was_disturbed() || client.received() == reply);
//!     })
//!     .run(0..200);
//! ```

mod bench;
mod machine;
mod script;
mod shift;
mod storm;
#[cfg(test)]
mod tests;

pub use crate::marks::Reached;
pub use crate::ring::simulated::Faults;
pub use bench::{Bench, Client, ClientEnd, Place, at_every_cut, file_content};
pub use storm::{Storm, StormClient};

pub(crate) use machine::{Machine, choose};
pub(crate) use shift::Shift;
