//! The engine on the real ring. Fails where there is no io_uring.

mod admission;
mod common;
mod files;
mod framing;
mod keeper;
mod lifecycle;
mod pressure;
mod reconnect;
mod remote;
mod ticks;
mod unprivileged;
mod uploads;
mod workers;
