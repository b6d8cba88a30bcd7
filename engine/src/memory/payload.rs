//! Bytes that leave from the application's own memory, without a copy into a send buffer.

use crate::panics::discard;
use std::fmt;
use std::ops::{Bound, RangeBounds};
use std::ptr::NonNull;
use std::sync::Arc;

/// Bytes to send, together with the value that owns them.
///
/// [`Connection::send_payload`](crate::Connection::send_payload) sends a long payload from where it
/// lies, and [`EngineHandle::send`](crate::EngineHandle::send) and
/// [`Local::send_to`](crate::Local::send_to) do so for connections elsewhere. The engine drops the
/// owner when the last byte has left, or when the connection ends. A short payload is copied into
/// the send buffer and dropped at once.
///
/// | made from | memory of the budget |
/// |---|---|
/// | `Vec<u8>`, `String` | the capacity |
/// | `Box<[u8]>` | the length |
/// | `Arc<[u8]>`, [`range`](Self::range) | the length of the slice, divided by its holders |
/// | `&'static [u8]`, `&'static str` | none |
/// | [`from_owner`](Self::from_owner), `bytes::Bytes` (feature `bytes`) | the length |
///
/// A range of a slice with other holders counts for no more than its own length.
///
/// ```
/// use ringwright::Payload;
/// use std::sync::Arc;
///
/// let whole: Arc<[u8]> = Arc::from(&b"0123456789"[..]);
/// let middle = Payload::range(whole.clone(), 2..5);
/// assert_eq!(middle.as_ref(), b"234");
/// assert_eq!(Payload::from("a page").len(), 6);
/// ```
pub struct Payload {
    owner: Owner,
    /// The part of the owner's bytes that is still to be sent.
    start: usize,
    length: usize,
}

enum Owner {
    Static(&'static [u8]),
    Vec(Vec<u8>),
    Shared(Arc<[u8]>),
    Foreign(Foreign),
}

impl Owner {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Static(bytes) => bytes,
            Self::Vec(bytes) => bytes,
            Self::Shared(bytes) => bytes,
            Self::Foreign(owner) => owner.bytes(),
        }
    }
}

/// A value of the application with the bytes that it owns. It lies on the heap, so the bytes stay
/// where they are even if they are part of the value.
struct Foreign(NonNull<Held<dyn Send>>);

struct Held<T: ?Sized> {
    bytes: NonNull<[u8]>,
    owner: T,
}

// SAFETY: the owner is `Send`. The pointer to the bytes is a borrow of the owner, which only this
// value has.
unsafe impl Send for Foreign {}

impl Foreign {
    fn new<T: AsRef<[u8]> + Send + 'static>(owner: T) -> Self {
        let held = Box::into_raw(Box::new(Held { bytes: NonNull::from(&[]), owner }));
        let this = Self(NonNull::new(held as *mut Held<dyn Send>).expect("a box has an address"));
        // SAFETY: `held` is valid until `this` is dropped, also if `as_ref` panics. The borrow of
        // the owner lasts as long: nothing else uses the owner before its drop.
        unsafe {
            let owner: &T = &(*held).owner;
            (*held).bytes = NonNull::from(owner.as_ref());
        }
        this
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: the bytes are borrowed from the owner, which lives as long as this value and is
        // not used meanwhile.
        unsafe { (*self.0.as_ptr()).bytes.as_ref() }
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        // SAFETY: the pointer is that of a box, and this is its only drop.
        discard(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

impl Payload {
    fn new(owner: Owner) -> Self {
        let length = owner.bytes().len();
        Self { owner, start: 0, length }
    }

    /// A range of shared bytes. The whole slice stays in memory until the range has left.
    ///
    /// # Panics
    /// If the range is not inside the slice, as indexing does.
    #[must_use]
    pub fn range(bytes: Arc<[u8]>, range: impl RangeBounds<usize>) -> Self {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(last) => last.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => bytes.len(),
        };
        let length = bytes[start..end].len();
        Self { owner: Owner::Shared(bytes), start, length }
    }

    /// The bytes of any value that owns them, for example a mapped file. `as_ref` is called once.
    ///
    /// The owner is dropped on the shard's thread. A panic of its drop goes no further.
    #[must_use]
    pub fn from_owner<T: AsRef<[u8]> + Send + 'static>(owner: T) -> Self {
        Self::new(Owner::Foreign(Foreign::new(owner)))
    }

    /// The number of bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.length
    }

    /// Returns whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The memory that this payload keeps from being freed, in bytes.
    pub(crate) fn held_bytes(&self) -> usize {
        match &self.owner {
            Owner::Static(_) => 0,
            Owner::Vec(bytes) => bytes.capacity(),
            // Each holder has its part, so a broadcast to everybody takes few times its length. A
            // short range of bytes that others hold anyway keeps no more than itself.
            Owner::Shared(bytes) => {
                let part = bytes.len() / Arc::strong_count(bytes);
                if self.is_shared() { part.min(self.length) } else { part }
            }
            Owner::Foreign(owner) => owner.bytes().len(),
        }
    }

    /// Returns whether others hold the bytes as well.
    pub(crate) fn is_shared(&self) -> bool {
        matches!(&self.owner, Owner::Shared(bytes) if Arc::strong_count(bytes) > 1)
    }

    /// Takes bytes off the front.
    pub(crate) fn advance(&mut self, bytes: usize) {
        assert!(bytes <= self.length, "no more was sent than was there");
        self.start += bytes;
        self.length -= bytes;
    }
}

impl AsRef<[u8]> for Payload {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        &self.owner.bytes()[self.start..self.start + self.length]
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Payload").field("len", &self.length).finish_non_exhaustive()
    }
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        Self::new(Owner::Vec(bytes))
    }
}

impl From<String> for Payload {
    fn from(text: String) -> Self {
        text.into_bytes().into()
    }
}

impl From<Box<[u8]>> for Payload {
    fn from(bytes: Box<[u8]>) -> Self {
        bytes.into_vec().into()
    }
}

impl From<Arc<[u8]>> for Payload {
    fn from(bytes: Arc<[u8]>) -> Self {
        Self::new(Owner::Shared(bytes))
    }
}

impl From<&'static [u8]> for Payload {
    fn from(bytes: &'static [u8]) -> Self {
        Self::new(Owner::Static(bytes))
    }
}

impl<const N: usize> From<&'static [u8; N]> for Payload {
    fn from(bytes: &'static [u8; N]) -> Self {
        bytes.as_slice().into()
    }
}

impl From<&'static str> for Payload {
    fn from(text: &'static str) -> Self {
        text.as_bytes().into()
    }
}

#[cfg(feature = "bytes")]
impl From<bytes::Bytes> for Payload {
    fn from(bytes: bytes::Bytes) -> Self {
        Self::from_owner(bytes)
    }
}

#[cfg(test)]
mod tests;
