//! HTTP/1.1 without any I/O: bytes in, decisions and bytes out. The strict reading of RFC 9112,
//! because two programs that disagree about where a request ends are how requests are smuggled.
//!
//! Here is no connection, no file and no clock of its own: those are the handler's
//! ([`crate::files`]).

pub mod body;
pub mod conditional;
pub mod date;
pub mod fields;
pub mod forwarded;
pub mod head;
pub mod incoming;
pub mod media;
pub mod range;
pub mod reply;
pub mod status;
pub mod target;

/// Bytes of a request's head at most, the empty line included. Beyond: 431.
pub const HEAD_BYTES_MAX: usize = 16 << 10;
/// Header fields of a request at most. Beyond: 431.
pub const FIELDS_MAX: usize = 256;
/// Bytes of a request target at most. Beyond: 414.
pub const TARGET_BYTES_MAX: usize = 8 << 10;
/// Bytes of a request body that are read and thrown away, chunk framing included. Beyond: 413.
pub const BODY_BYTES_MAX: u64 = 1 << 20;
/// Bytes of the line that announces a chunk. Beyond: 400.
pub const CHUNK_LINE_BYTES_MAX: u32 = 256;
/// Bytes of a chunked body's trailer section. Beyond: 431.
pub const TRAILER_BYTES_MAX: u32 = 8 << 10;

/// Bytes of a request line at most: the target, and room for the longest method and the version.
const REQUEST_LINE_BYTES_MAX: usize = TARGET_BYTES_MAX + 64;

// Offsets into a head are kept in 16 bits.
const _: () = assert!(HEAD_BYTES_MAX <= u16::MAX as usize);
const _: () = assert!(REQUEST_LINE_BYTES_MAX < HEAD_BYTES_MAX);
