//! Length-prefixed packets: a view of the bytes that `received` gets.
//!
//! [`Handler::received`](crate::Handler::received) gets everything unread in one piece, so a packet
//! needs no reassembly. [`Packets::finish`] prevents further calls before the next packet is
//! complete: at most one call for its length and one for its end. A packet that is too long is an
//! error value. The handler answers it and calls
//! [`protocol_error`](crate::Connection::protocol_error), and the peer can still read the answer.
//!
//! The page of [`Framing`] has an example.

use crate::{Config, Connection, SendStatus};
use std::fmt;
use std::iter::once;

/// Length-prefixed packets over any split of the stream.
///
/// A packet is a length of four bytes, big-endian, followed by the body. The length counts the body
/// alone, and 0 is allowed. `Framing` knows the largest body that is allowed. It holds no bytes:
/// the engine keeps an incomplete packet and delivers it again, so a packet needs no reassembly.
///
/// ```
/// use ringwright::packets::Framing;
/// use ringwright::{Config, Connection, Handler, Origin};
///
/// /// Sends every packet back. A packet that is too long ends its connection with an error packet.
/// struct EchoPackets(Framing);
///
/// impl Handler for EchoPackets {
///     type State = ();
///     fn opened(&mut self, _: &mut Connection<'_>, _: Origin) {}
///     fn received(&mut self, _: &mut (), connection: &mut Connection<'_>, bytes: &[u8]) -> usize {
///         let mut packets = self.0.packets(bytes);
///         for packet in &mut packets {
///             match packet {
///                 // A received body is short enough to be sent.
///                 Ok(body) => drop(self.0.send(connection, &[body])),
///                 Err(too_long) => {
///                     let _ = self.0.send(connection, &[too_long.to_string().as_bytes()]);
///                     connection.protocol_error();
///                     return bytes.len();
///                 }
///             }
///         }
///         packets.finish(connection)
///     }
/// }
///
/// let config = Config::default();
/// let handler = EchoPackets(Framing::new(32 << 10, &config)?);
/// # drop(handler);
/// # Ok::<(), ringwright::packets::CreateFramingError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Framing {
    body_bytes_max: usize,
}

/// The error of a packet whose body is longer than the maximum. The bytes behind it have no
/// meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FramePacketError {
    /// The length of the body, in bytes: the one that the packet states, or the one to be sent.
    pub body_bytes: usize,
    /// The maximum, in bytes.
    pub body_bytes_max: usize,
}

impl fmt::Display for FramePacketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { body_bytes, body_bytes_max } = self;
        write!(f, "a packet of {body_bytes} bytes is too long: {body_bytes_max} are allowed")
    }
}

impl std::error::Error for FramePacketError {}

/// The error of a maximum for which no packet of that size could be received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CreateFramingError {
    /// The requested maximum, in bytes.
    pub body_bytes_max: usize,
    /// The value of [`Config::message_bytes_max`](crate::Config::message_bytes_max).
    pub message_bytes_max: usize,
}

impl fmt::Display for CreateFramingError {
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

impl std::error::Error for CreateFramingError {}

impl Framing {
    /// The size of the length in front of a body, in bytes.
    pub const HEADER_BYTES: usize = 4;

    /// Packets whose bodies have at most `body_bytes_max` bytes.
    ///
    /// # Errors
    /// [`CreateFramingError`] if the largest packet does not fit into `message_bytes_max`, because
    /// its connection would end with [`Reason::MessageTooLong`](crate::Reason::MessageTooLong)
    /// before the packet is complete. The same error for a maximum that does not fit into 32 bits.
    pub fn new(body_bytes_max: usize, config: &Config) -> Result<Self, CreateFramingError> {
        let message_bytes_max = config.message_bytes_max;
        let packet_bytes_max = body_bytes_max.saturating_add(Self::HEADER_BYTES);
        if packet_bytes_max > message_bytes_max || u32::try_from(body_bytes_max).is_err() {
            return Err(CreateFramingError { body_bytes_max, message_bytes_max });
        }
        Ok(Self { body_bytes_max })
    }

    /// The largest body, in bytes.
    #[must_use]
    pub fn body_bytes_max(self) -> usize {
        self.body_bytes_max
    }

    /// Iterates over the packets in the bytes that [`Handler::received`](crate::Handler::received)
    /// got, without copying them.
    #[must_use]
    pub fn packets(self, bytes: &[u8]) -> Packets<'_> {
        Packets { framing: self, bytes, used: 0 }
    }

    /// Sends one packet whose body is the concatenation of `pieces`. On a connection that is ending
    /// it does nothing.
    ///
    /// # Errors
    /// [`FramePacketError`] if the pieces together are longer than the maximum. Nothing was sent
    /// then.
    pub fn send(
        self,
        connection: &mut Connection<'_>,
        pieces: &[&[u8]],
    ) -> Result<SendStatus, FramePacketError> {
        let body_bytes = pieces.iter().map(|piece| piece.len()).sum();
        let header = self.header(body_bytes)?;
        // All of the packet or nothing.
        Ok(connection.send_vectored(once(&header[..]).chain(pieces.iter().copied())))
    }

    /// Returns the length to send in front of a body of `body_bytes` bytes. It serves bodies that
    /// [`send`](Self::send) cannot send: payloads
    /// ([`send_with_head`](crate::Connection::send_with_head)) and files.
    ///
    /// # Errors
    /// [`FramePacketError`] if the body is longer than the maximum.
    pub fn header(self, body_bytes: usize) -> Result<[u8; Self::HEADER_BYTES], FramePacketError> {
        let Self { body_bytes_max } = self;
        match u32::try_from(body_bytes) {
            Ok(length) if body_bytes <= body_bytes_max => Ok(length.to_be_bytes()),
            _ => Err(FramePacketError { body_bytes, body_bytes_max }),
        }
    }
}

/// An iterator over the bodies of the complete packets in a slice, oldest first.
///
/// A caller may stop before the end: packets that were not taken are not used. A packet that is too
/// long is the last item, and every further call returns it again.
#[derive(Clone, Debug)]
pub struct Packets<'a> {
    framing: Framing,
    bytes: &'a [u8],
    used: usize,
}

impl<'a> Packets<'a> {
    /// The number of bytes of the packets taken so far, with their lengths.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used
    }

    /// The number of bytes that the next packet takes, as far as is known: the whole packet, or the
    /// four bytes of its length.
    #[must_use]
    pub fn need(&self) -> usize {
        match self.next_body_bytes() {
            Some(Ok(body_bytes)) => Framing::HEADER_BYTES + body_bytes,
            Some(Err(_)) | None => Framing::HEADER_BYTES,
        }
    }

    /// Asks the connection for no call before the next packet is complete, see
    /// [`Connection::need`]. Returns the number of used bytes, which is what
    /// [`Handler::received`](crate::Handler::received) returns.
    #[must_use = "it is what `received` returns"]
    pub fn finish(self, connection: &mut Connection<'_>) -> usize {
        connection.need(self.need());
        self.used
    }

    fn next_body_bytes(&self) -> Option<Result<usize, FramePacketError>> {
        let header = self.bytes[self.used..].first_chunk::<{ Framing::HEADER_BYTES }>()?;
        let (body_bytes, body_bytes_max) =
            (u32::from_be_bytes(*header) as usize, self.framing.body_bytes_max);
        let too_long = FramePacketError { body_bytes, body_bytes_max };
        Some(if body_bytes <= body_bytes_max { Ok(body_bytes) } else { Err(too_long) })
    }
}

impl<'a> Iterator for Packets<'a> {
    type Item = Result<&'a [u8], FramePacketError>;

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
