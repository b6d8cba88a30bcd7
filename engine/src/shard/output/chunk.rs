//! The links of an output queue.

use crate::files::OpenFile;
use crate::memory::{Payload, PooledPipe, SendBuffer, Spill};

/// A link of an output queue.
pub struct Chunk {
    pub body: Body,
    pub next: u32,
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
    /// A range of a file.
    File(FileChunk),
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
    /// The pipe it goes through, once it has one.
    pub pipe: Option<PooledPipe>,
}

/// The bytes of the budget that a chunk beyond the send buffers takes in addition to its content.
pub const CHUNK_BYTES: usize = size_of::<Chunk>();
