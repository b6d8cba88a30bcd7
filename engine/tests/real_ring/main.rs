//! The engine on the real rings.

mod admission;
mod both;
mod coming;
mod common;
mod delivery;
mod ended;
mod files;
mod framing;
mod handle;
mod holds;
mod keeper;
mod lifecycle;
mod listening;
mod markers;
mod messages;
mod older;
mod outgoing;
mod pressure;
mod reconnect;
mod relay;
mod sockets;
mod ticks;
mod unix;
mod unprivileged;
mod uploads;
mod workers;
