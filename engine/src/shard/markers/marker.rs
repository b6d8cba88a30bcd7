//! A marker in the output of a connection.

/// A marker of a connection.
pub struct Marker {
    /// The handler's, or the number of a credit.
    pub tag: u64,
    /// The bytes that have not left since the marker before. While the marker waits for the peer:
    /// those that have left since the one that waits before it.
    pub unsent_bytes: u64,
    /// The next marker of the same list.
    pub next: u32,
    pub kind: MarkerKind,
}

/// The event at which a marker is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MarkerKind {
    /// The bytes before it have left.
    Sent,
    /// The peer has acknowledged them.
    Acknowledged,
    /// As `Sent`, and a stream gets a credit back.
    Credit,
}
