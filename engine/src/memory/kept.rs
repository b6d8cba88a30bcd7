//! Received bytes that the application has not used: on the heap while they are few, in a mapping
//! of their own when there are many. malloc(3) would keep memory of that size for good.

use super::Arena;
use std::ops::Deref;

/// A byte string that grows at its end and shrinks at its beginning.
#[derive(Debug)]
pub enum Kept {
    Heap(Vec<u8>),
    Mapped { memory: Arena, length: usize },
}

impl Default for Kept {
    fn default() -> Self {
        Self::Heap(Vec::new())
    }
}

impl Deref for Kept {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Heap(bytes) => bytes,
            // SAFETY: `length` bytes were written, and nobody else has the mapping.
            Self::Mapped { memory, length } => unsafe {
                std::slice::from_raw_parts(memory.address(), *length)
            },
        }
    }
}

impl Kept {
    /// Memory that it takes, in bytes.
    pub fn capacity(&self) -> usize {
        match self {
            Self::Heap(bytes) => bytes.capacity(),
            Self::Mapped { memory, .. } => memory.bytes(),
        }
    }

    /// Returns whether it has a mapping of its own.
    pub fn is_mapped(&self) -> bool {
        matches!(self, Self::Mapped { .. })
    }

    /// Returns whether so many more bytes need a mapping that it does not have.
    #[inline]
    pub fn wants_mapping(&self, more: usize, mapped_bytes_min: usize) -> bool {
        match self {
            Self::Heap(bytes) => bytes.len() + more > mapped_bytes_min,
            Self::Mapped { .. } => false,
        }
    }

    /// Moves the bytes to `spare`, which is empty, or to a new mapping if there is no spare of a
    /// length that suits. Makes space for `more` bytes, and returns what the bytes lay in.
    pub fn move_to(&mut self, spare: Option<Self>, more: usize) -> Self {
        let needed = self.len() + more;
        let suits = needed..=4 * needed;
        let spare = spare.filter(|spare| suits.contains(&spare.capacity()));
        let mut longer = spare.unwrap_or_else(|| Self::with_space(needed));
        longer.extend(self);
        std::mem::replace(self, longer)
    }

    /// A mapping for so many bytes and half as many again; on the heap where none can be made.
    fn with_space(bytes: usize) -> Self {
        Self::mapped(bytes + bytes / 2).unwrap_or_else(|| Self::Heap(Vec::with_capacity(bytes)))
    }

    fn mapped(bytes: usize) -> Option<Self> {
        Arena::new(bytes).ok().map(|memory| Self::Mapped { memory, length: 0 })
    }

    /// Appends a copy.
    pub fn extend(&mut self, more: &[u8]) {
        match self {
            Self::Heap(bytes) => bytes.extend_from_slice(more),
            Self::Mapped { memory, length } if *length + more.len() <= memory.bytes() => {
                // SAFETY: the range lies behind the bytes that are there and inside the mapping,
                // which nobody else has.
                unsafe {
                    let target = memory.address().add(*length);
                    std::ptr::copy_nonoverlapping(more.as_ptr(), target, more.len());
                }
                *length += more.len();
            }
            Self::Mapped { .. } => {
                let _shorter = self.move_to(None, more.len());
                self.extend(more);
            }
        }
    }

    /// Removes the first `count` bytes.
    pub fn remove_front(&mut self, count: usize) {
        match self {
            Self::Heap(bytes) => drop(bytes.drain(..count)),
            Self::Mapped { memory, length } => {
                assert!(count <= *length, "no more is removed than there is");
                *length -= count;
                // SAFETY: both ranges lie inside the bytes that were written.
                unsafe {
                    let begin = memory.address();
                    std::ptr::copy(begin.add(count), begin, *length);
                }
            }
        }
    }

    /// Keeps the first `count` bytes.
    pub fn truncate(&mut self, count: usize) {
        match self {
            Self::Heap(bytes) => bytes.truncate(count),
            Self::Mapped { length, .. } => *length = count.min(*length),
        }
    }

    /// Gives memory back that the bytes do not need.
    pub fn shrink(&mut self, mapped_bytes_min: usize) {
        match self {
            Self::Heap(bytes) => bytes.shrink_to_fit(),
            Self::Mapped { length, .. } if *length < mapped_bytes_min => {
                *self = Self::Heap(self.to_vec());
            }
            Self::Mapped { length, .. } => {
                if let Some(mut shorter) = Self::mapped(*length) {
                    shorter.extend(self);
                    *self = shorter;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAPPED_BYTES_MIN: usize = 512;

    proptest! {
        #[test]
        fn it_holds_what_a_vec_would(
            steps in prop::collection::vec((0..5, 0_usize..6_000), 1..40)
        ) {
            let (mut kept, mut model) = (Kept::default(), Vec::new());
            let mut spare = None;
            for (number, (step, count)) in steps.into_iter().enumerate() {
                match step {
                    0 | 1 => {
                        let more = vec![number as u8; count];
                        if kept.wants_mapping(count, MAPPED_BYTES_MIN) {
                            let before = kept.move_to(spare.take(), count);
                            prop_assert!(kept.is_mapped() && !before.is_mapped());
                        }
                        kept.extend(&more);
                        model.extend(more);
                    }
                    2 => {
                        let count = count.min(model.len());
                        kept.remove_front(count);
                        model.drain(..count);
                    }
                    3 => {
                        kept.truncate(count);
                        model.truncate(count);
                    }
                    _ => {
                        kept.shrink(MAPPED_BYTES_MIN);
                        spare = Kept::mapped(count.max(1));
                    }
                }
                prop_assert!(kept[..] == model[..] && kept.capacity() >= model.len());
                prop_assert!(!kept.wants_mapping(0, MAPPED_BYTES_MIN));
            }
        }
    }
}
