//! The bare ring: a server and a client reduced to their system calls. They are the limit against
//! which an engine is measured, and share no code with the engine.
//!
//! They are measuring instruments. The server has no timeouts, and a client that does not read its
//! replies can occupy every receive buffer.

mod buffers;
pub mod client;
mod connection;
mod ring;
pub mod server;

/// The maximum of connections, of the server and of the client.
pub const CONNECTIONS_MAX: usize = 16 * 1024;

/// The kind and descriptor of an operation: its `user_data` in the kernel.
#[derive(Clone, Copy)]
struct Tag {
    kind: Kind,
    index: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Accept,
    Receive,
    Send,
}

impl Tag {
    fn encode(self) -> u64 {
        (self.kind as u64) << 32 | u64::from(self.index)
    }

    fn decode(user_data: u64) -> Self {
        let kind = match user_data >> 32 {
            0 => Kind::Accept,
            1 => Kind::Receive,
            2 => Kind::Send,
            other => unreachable!("nobody submitted an operation of kind {other}"),
        };
        Self { kind, index: user_data as u32 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_comes_back_as_it_went() {
        for kind in [Kind::Accept, Kind::Receive, Kind::Send] {
            let tag = Tag::decode(Tag { kind, index: u32::MAX }.encode());
            assert!(tag.kind == kind && tag.index == u32::MAX);
        }
    }
}
