//! The engine on the real rings.

mod admission;
mod both;
mod coming;
mod common;
mod delivery;
#[path = "../support/descriptors.rs"]
mod descriptors;
mod ended;
mod files;
#[path = "../support/filter.rs"]
mod filter;
mod framing;
mod keeper;
#[path = "../support/left_out.rs"]
mod left_out;
mod lifecycle;
mod listening;
mod older;
mod outgoing;
mod pressure;
mod reconnect;
mod relay;
mod remote;
#[path = "../support/root.rs"]
mod root;
mod sockets;
mod ticks;
mod unix;
mod unprivileged;
mod uploads;
mod workers;
