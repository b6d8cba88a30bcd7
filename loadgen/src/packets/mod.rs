//! The packets of `ringwrightd packets`, as `server-bin/PACKETS.md` has them, spoken by a client.

mod exchange;
pub mod wire;

pub use exchange::Packets;
