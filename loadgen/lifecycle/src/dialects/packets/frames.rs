//! Splits a stream of bytes into packets.

use crate::finding::{Finding, Rule};
use crate::packets;

/// An incomplete packet.
#[derive(Debug, Default)]
pub struct Frames(Vec<u8>);

impl Frames {
    /// Consumes bytes until a packet is complete and returns its body, or `None` if more are
    /// needed.
    ///
    /// # Errors
    /// The length is not allowed.
    pub fn next(&mut self, bytes: &mut &[u8]) -> Result<Option<Vec<u8>>, Finding> {
        loop {
            let missing = self.missing()?;
            if missing == 0 {
                return Ok(Some(std::mem::take(&mut self.0).split_off(packets::LENGTH_BYTES)));
            }
            if bytes.is_empty() {
                return Ok(None);
            }
            let (part, rest) = bytes.split_at(missing.min(bytes.len()));
            self.0.extend_from_slice(part);
            *bytes = rest;
        }
    }

    /// Returns the number of bytes of the incomplete packet.
    pub fn begun_bytes(&self) -> usize {
        self.0.len()
    }

    /// Returns the number of bytes that the packet, or its length field, still needs.
    fn missing(&self) -> Result<usize, Finding> {
        let Some(length) = self.0.first_chunk() else {
            return Ok(packets::LENGTH_BYTES - self.0.len());
        };
        let length = u32::from_be_bytes(*length);
        if !(packets::PREFIX_BYTES..=packets::BODY_BYTES_MAX).contains(&(length as usize)) {
            return Err(Finding::new(
                Rule::Protocol,
                format_args!("a packet has the invalid length {length}"),
            ));
        }
        Ok(packets::LENGTH_BYTES + length as usize - self.0.len())
    }
}
