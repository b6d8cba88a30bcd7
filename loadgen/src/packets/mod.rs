//! A client for the packet protocol of `ringwrightd packets`, which `server-bin/PACKETS.md`
//! describes.

mod exchange;

pub use exchange::Packets;
