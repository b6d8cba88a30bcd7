//! Length-prefixed packets over any split of the stream: four bytes of length, big-endian, then
//! the body.
//!
//! ```
//! use ringwright::{Config, Connection, Framing, Handler, Origin};
//!
//! /// Sends every packet back, and ends with an error packet whoever sends one that is too long.
//! struct EchoPackets(Framing);
//!
//! impl Handler for EchoPackets {
//!     type State = ();
//!     fn opened(&mut self, _: &mut Connection<'_>, _: Origin) {}
//!     fn received(&mut self, _: &mut (), connection: &mut Connection<'_>, bytes: &[u8]) -> usize {
//!         let mut packets = self.0.packets(bytes);
//!         for packet in &mut packets {
//!             match packet {
//!                 // The body is as long as one that may be received: it can be sent.
//!                 Ok(body) => drop(self.0.send(connection, &[body])),
//!                 Err(too_long) => {
//!                     let _ = self.0.send(connection, &[too_long.to_string().as_bytes()]);
//!                     connection.protocol_error();
//!                     return bytes.len();
//!                 }
//!             }
//!         }
//!         packets.finish(connection)
//!     }
//! }
//!
//! let config = Config::default();
//! let handler = EchoPackets(Framing::new(32 << 10, &config)?);
//! # drop(handler);
//! # Ok::<(), ringwright::FramingTooLarge>(())
//! ```

use crate::{Config, Connection, Room};
use std::fmt;

/// The maximum size of a stream's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Framing {
    body_bytes_max: usize,
}

/// A packet's length is above the maximum: nothing behind it can be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketTooLong {
    /// What the packet says its body has, or what was to be sent.
    pub body_bytes: usize,
    /// What one may have.
    pub body_bytes_max: usize,
}

impl fmt::Display for PacketTooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { body_bytes, body_bytes_max } = self;
        write!(f, "a packet of {body_bytes} bytes is too long: {body_bytes_max} are allowed")
    }
}

impl std::error::Error for PacketTooLong {}

/// Packets of that size could never be complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FramingTooLarge {
    /// The maximum asked for.
    pub body_bytes_max: usize,
    /// Bytes of a message that a connection keeps at most.
    pub message_bytes_max: usize,
}

impl fmt::Display for FramingTooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { body_bytes_max, message_bytes_max } = self;
        write!(
            f,
            "packets of up to {body_bytes_max} bytes cannot be received: message_bytes_max = \
             {message_bytes_max} limits an incomplete packet; raise it to {} (4 bytes of length \
             plus the body, which has at most 4294967295 bytes) or allow only shorter packets",
            body_bytes_max.saturating_add(Framing::HEADER_BYTES)
        )
    }
}

impl std::error::Error for FramingTooLarge {}

impl Framing {
    /// Bytes of the length in front of a body; it counts the body alone.
    pub const HEADER_BYTES: usize = 4;

    /// Packets whose bodies have at most so many bytes; 0 is a length like any other.
    ///
    /// # Errors
    /// A packet would not fit into `message_bytes_max`, and its connection would end with
    /// [`Reason::MessageTooLong`](crate::Reason::MessageTooLong) before it is complete; or its
    /// length does not fit into 32 bits.
    pub fn new(body_bytes_max: usize, config: &Config) -> Result<Self, FramingTooLarge> {
        let message_bytes_max = config.message_bytes_max;
        let packet_bytes_max = body_bytes_max.saturating_add(Self::HEADER_BYTES);
        if packet_bytes_max > message_bytes_max || u32::try_from(body_bytes_max).is_err() {
            return Err(FramingTooLarge { body_bytes_max, message_bytes_max });
        }
        Ok(Self { body_bytes_max })
    }

    /// The maximum.
    #[must_use]
    pub fn body_bytes_max(self) -> usize {
        self.body_bytes_max
    }

    /// The packets in what [`Handler::received`](crate::Handler::received) was shown, without
    /// copying them: it is shown everything unread in one piece.
    #[must_use]
    pub fn packets(self, bytes: &[u8]) -> Packets<'_> {
        Packets { framing: self, bytes, used: 0 }
    }

    /// Sends one packet made of these pieces. A connection that is ending takes nothing.
    ///
    /// # Errors
    /// Together they are longer than the maximum; nothing was sent.
    pub fn send(
        self,
        connection: &mut Connection<'_>,
        pieces: &[&[u8]],
    ) -> Result<Room, PacketTooLong> {
        let header = self.header(pieces.iter().map(|piece| piece.len()).sum())?;
        let mut room = connection.send(&header);
        for piece in pieces {
            // Behind the header in the same send buffer, or in the same send with MSG_MORE.
            room = connection.send(piece);
        }
        Ok(room)
    }

    /// What goes in front of a body of that length, for bodies that are sent otherwise: shared, or
    /// from a file.
    ///
    /// # Errors
    /// The body is longer than the maximum.
    pub fn header(self, body_bytes: usize) -> Result<[u8; Self::HEADER_BYTES], PacketTooLong> {
        let Self { body_bytes_max } = self;
        match u32::try_from(body_bytes) {
            Ok(length) if body_bytes <= body_bytes_max => Ok(length.to_be_bytes()),
            _ => Err(PacketTooLong { body_bytes, body_bytes_max }),
        }
    }
}

/// An iterator over the bodies of the complete packets in some bytes, oldest first. It may be left
/// before its end: what it was not asked for is not used. A packet that is too long is its last
/// item, again and again: nothing behind it has a meaning.
#[derive(Clone, Debug)]
pub struct Packets<'a> {
    framing: Framing,
    bytes: &'a [u8],
    used: usize,
}

impl<'a> Packets<'a> {
    /// Bytes of the packets taken so far, their lengths included.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used
    }

    /// Bytes behind the used ones that the next packet has, as far as is known: its length, or
    /// what it takes to know it.
    #[must_use]
    pub fn need(&self) -> usize {
        match self.next_body_bytes() {
            Some(Ok(body_bytes)) => Framing::HEADER_BYTES + body_bytes,
            Some(Err(_)) | None => Framing::HEADER_BYTES,
        }
    }

    /// Asks the connection not to call before the next packet is complete, and returns what
    /// [`Handler::received`](crate::Handler::received) returns: how many bytes were used.
    #[must_use = "it is what `received` returns"]
    pub fn finish(self, connection: &mut Connection<'_>) -> usize {
        connection.need(self.need());
        self.used
    }

    fn next_body_bytes(&self) -> Option<Result<usize, PacketTooLong>> {
        let header = self.bytes[self.used..].first_chunk::<{ Framing::HEADER_BYTES }>()?;
        let (body_bytes, body_bytes_max) =
            (u32::from_be_bytes(*header) as usize, self.framing.body_bytes_max);
        let too_long = PacketTooLong { body_bytes, body_bytes_max };
        Some(if body_bytes <= body_bytes_max { Ok(body_bytes) } else { Err(too_long) })
    }
}

impl<'a> Iterator for Packets<'a> {
    type Item = Result<&'a [u8], PacketTooLong>;

    fn next(&mut self) -> Option<Self::Item> {
        let body_bytes = match self.next_body_bytes()? {
            Ok(body_bytes) => body_bytes,
            Err(too_long) => return Some(Err(too_long)),
        };
        let start = self.used + Framing::HEADER_BYTES;
        let body = self.bytes.get(start..start + body_bytes)?;
        self.used = start + body_bytes;
        Some(Ok(body))
    }
}

#[cfg(test)]
mod tests;
