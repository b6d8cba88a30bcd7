//! The links of an output queue.

use crate::files::OpenFile;
use crate::memory::{Payload, PooledPipe, SendBuffer, Spill};

/// A link of an output queue.
pub struct Chunk {
    pub body: Body,
    pub next: u32,
}

impl Chunk {
    pub fn is_piped(&self) -> bool {
        matches!(self.body, Body::Piped(_))
    }
}

/// The content of a chunk.
pub enum Body {
    /// Bytes `start..end` of a send buffer.
    Pooled { buffer: SendBuffer, start: u32, end: u32 },
    /// Bytes of a buffer beyond the send buffers, from `start` on: none of those was free.
    Spilled { spill: Spill, start: u32 },
    /// Bytes that belong to the application, or copies for which there was no buffer. They take
    /// `charged` bytes of the budget.
    Payload { payload: Payload, charged: u32 },
    /// Bytes `start..end` of the long receive buffer. Only a callback leaves such a chunk, and what
    /// does not leave right behind it is copied (`shard/long.rs`).
    Lent { start: u32, end: u32 },
    /// Bytes of another connection's stream, in a pipe.
    Piped(PooledPipe),
    /// A range of a file.
    File(FileChunk),
}

impl Body {
    /// The bytes that will leave.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Pooled { start, end, .. } | Self::Lent { start, end } => u64::from(end - start),
            Self::Spilled { spill, start } => u64::from(spill.length() - start),
            Self::Payload { payload, .. } => payload.len() as u64,
            Self::Piped(pipe) => u64::from(pipe.held_bytes),
            Self::File(file) => {
                let in_pipe = file.pipe.as_ref().map_or(0, |pipe| pipe.held_bytes);
                let to_read = if file.cancelled { 0 } else { file.remaining };
                to_read + u64::from(in_pipe)
            }
        }
    }
}

/// A range of a file on its way.
pub struct FileChunk {
    pub file: OpenFile,
    pub offset: u64,
    /// Bytes not yet read from the file.
    pub remaining: u64,
    /// The page cache did not have it.
    pub uncached: bool,
    /// Zeros replace bytes that cannot be read.
    pub padded: bool,
    /// Nothing more is read from the file: the rest is zeros.
    pub cut_off: bool,
    /// The application has given it up while an operation reads it. The result is dropped.
    pub cancelled: bool,
    /// The pipe it goes through, once it has one.
    pub pipe: Option<PooledPipe>,
}

/// The bytes of the budget that a chunk beyond the send buffers takes in addition to its content.
pub const CHUNK_BYTES: usize = size_of::<Chunk>();
