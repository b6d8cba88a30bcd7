//! Output beyond the send buffers: blocks of further buffers, mapped when they are needed and
//! unmapped when they are empty, so that the memory of clients that did not read comes back.

use super::Arena;
use slab::Slab;
use std::collections::BTreeSet;

/// The size of a block, unless a buffer is larger.
const BLOCK_BYTES: usize = 256 << 10;
/// Empty blocks that stay mapped: queues that are a little longer now and a little shorter then
/// need no new memory, which costs a page fault for every 4 KiB.
const SPARES_MAX: usize = 3;

/// A buffer with bytes.
#[derive(Debug)]
#[must_use = "a spill that is not given back is lost to the shard"]
pub struct Spill {
    block: usize,
    place: u16,
    length: u32,
}

impl Spill {
    /// The number of bytes in it.
    pub fn length(&self) -> u32 {
        self.length
    }
}

#[derive(Debug)]
struct Block {
    memory: Arena,
    free: Vec<u16>,
}

/// The buffers of a shard beyond its send buffers.
#[derive(Debug)]
pub struct Spills {
    bytes_each: usize,
    places: u16,
    blocks: Slab<Block>,
    /// Blocks with a free place. The first one is filled up first, so that the others get empty.
    roomy: BTreeSet<usize>,
    /// Empty blocks that are kept for the next spills.
    spares: usize,
}

impl Spills {
    /// Buffers of so many bytes. Nothing is mapped yet.
    pub fn new(bytes_each: u32) -> Self {
        let bytes_each = bytes_each as usize;
        Self {
            bytes_each,
            places: (BLOCK_BYTES / bytes_each).clamp(1, usize::from(u16::MAX)) as u16,
            blocks: Slab::new(),
            roomy: BTreeSet::new(),
            spares: 0,
        }
    }

    /// Takes an empty buffer. `None`: no memory can be mapped.
    pub fn take(&mut self) -> Option<Spill> {
        let block = match self.roomy.first() {
            Some(block) => *block,
            None => self.map()?,
        };
        let free = &mut self.blocks[block].free;
        if free.len() == usize::from(self.places) {
            self.spares -= 1;
        }
        let place = free.pop().expect("a roomy block has a free place");
        if free.is_empty() {
            self.roomy.remove(&block);
        }
        Some(Spill { block, place, length: 0 })
    }

    fn map(&mut self) -> Option<usize> {
        let memory = Arena::new(usize::from(self.places) * self.bytes_each).ok()?;
        let free = (0..self.places).rev().collect();
        let block = self.blocks.insert(Block { memory, free });
        self.roomy.insert(block);
        self.spares += 1;
        Some(block)
    }

    /// Gives a buffer back that no operation uses any more.
    pub fn give_back(&mut self, spill: Spill) {
        let Spill { block, place, .. } = spill;
        let free = &mut self.blocks[block].free;
        debug_assert!(!free.contains(&place), "a spill is given back once");
        free.push(place);
        self.roomy.insert(block);
        if self.blocks[block].free.len() < usize::from(self.places) {
            return;
        }
        if self.spares == SPARES_MAX {
            self.roomy.remove(&block);
            drop(self.blocks.remove(block));
        } else {
            self.spares += 1;
        }
    }

    /// The first byte of a buffer: what the kernel is told.
    pub fn address(&self, spill: &Spill) -> *mut u8 {
        let memory = &self.blocks[spill.block].memory;
        assert!(spill.place < self.places);
        // SAFETY: the place is in range, so the sum stays inside the block's mapping.
        unsafe { memory.address().add(usize::from(spill.place) * self.bytes_each) }
    }

    /// Appends what fits, and returns the rest. Bytes that are there may be in flight: the kernel
    /// only reads them.
    pub fn extend<'a>(&mut self, spill: &mut Spill, bytes: &'a [u8]) -> &'a [u8] {
        let fits = bytes.len().min(self.bytes_each - spill.length as usize);
        // SAFETY: the range lies behind the bytes that are there and inside this buffer, which
        // whoever has the spill has alone.
        unsafe {
            let target = self.address(spill).add(spill.length as usize);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), target, fits);
        }
        spill.length += fits as u32;
        &bytes[fits..]
    }

    /// Bytes of each buffer.
    pub fn bytes_each(&self) -> usize {
        self.bytes_each
    }

    /// Buffers in use.
    #[cfg(any(test, feature = "testing"))]
    pub fn in_use(&self) -> usize {
        let taken = |block: &Block| usize::from(self.places) - block.free.len();
        self.blocks.iter().map(|(_, block)| taken(block)).sum()
    }

    /// Blocks that are mapped.
    #[cfg(test)]
    pub fn blocks(&self) -> usize {
        self.blocks.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_come_and_go() {
        let mut spills = Spills::new(8 << 10);
        let places = usize::from(spills.places);
        let mut taken: Vec<Spill> =
            (0..4 * places + 1).map(|_| spills.take().expect("memory")).collect();
        assert_eq!((spills.blocks(), spills.in_use()), (5, 4 * places + 1));
        for (at, spill) in taken.iter_mut().enumerate() {
            let bytes = [at as u8; 5_000];
            assert_eq!(spills.extend(spill, &bytes), []);
            assert_eq!(spills.extend(spill, &bytes).len(), 2 * 5_000 - (8 << 10));
        }
        for (at, spill) in taken.iter().enumerate() {
            // SAFETY: that many bytes were written, and nothing else has the buffer.
            let bytes = unsafe { std::slice::from_raw_parts(spills.address(spill), 8 << 10) };
            assert!(spill.length() == 8 << 10 && bytes.iter().all(|byte| *byte == at as u8));
        }
        taken.into_iter().for_each(|spill| spills.give_back(spill));
        assert_eq!((spills.blocks(), spills.in_use()), (SPARES_MAX, 0), "some are kept");
        for _ in 0..2 {
            let taken: Vec<Spill> = (0..SPARES_MAX * places).map_while(|_| spills.take()).collect();
            assert_eq!((spills.blocks(), spills.in_use()), (SPARES_MAX, taken.len()));
            taken.into_iter().for_each(|spill| spills.give_back(spill));
        }
    }
}
