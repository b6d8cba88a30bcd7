//! Tags of one of several handlers (`handlers.rs`): the number of the handler is in the upper bits.

/// The bits of a tag that are the application's.
const BITS: u32 = 56;

/// The tag as it goes through the shard.
///
/// # Panics
/// If the upper bits are in use.
pub fn scoped(handler: u8, tag: u64) -> u64 {
    assert!(tag >> BITS == 0, "with several handlers, a tag is below 2^56, and {tag:#x} is not");
    u64::from(handler) << BITS | tag
}

/// The number of the handler whose tag it is.
pub fn number_of(tag: u64) -> u8 {
    (tag >> BITS) as u8
}

/// The tag as the application has it.
pub fn plain(tag: u64) -> u64 {
    tag & ((1 << BITS) - 1)
}
