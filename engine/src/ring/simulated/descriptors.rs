//! The descriptor table: lowest free number first, as a kernel does it, since reuse is what finds
//! bugs; and what the numbers stand for, kept by whatever refers to it.

use super::super::Descriptor;

/// The first number given out: far above anything that is real in this process.
pub const FIRST: i32 = 1_000_000;

/// Numbers of one ring.
const NUMBERS: i32 = 1_000_000;

/// What a descriptor may stand for; the number finds it in its own list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Object {
    /// A listening socket.
    Listener(usize),
    /// A stream socket, connected or not: the number of its peer.
    Socket(usize),
    /// The read end of a pipe.
    PipeRead(usize),
    /// The write end of a pipe.
    PipeWrite(usize),
    /// A file found by its path.
    File(usize),
    /// A file that was made without a name.
    Made(usize),
    /// A directory to open beneath.
    Directory,
    /// An event descriptor.
    Event,
}

/// Open descriptors, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenCounts {
    /// Listening sockets.
    pub listeners: usize,
    /// Stream sockets.
    pub sockets: usize,
    /// Ends of pipes: two for each.
    pub pipe_ends: usize,
    /// Files.
    pub files: usize,
}

/// An object held open by descriptors and operations.
#[derive(Debug)]
struct Holding {
    object: Object,
    references: u32,
}

/// The table.
#[derive(Debug)]
pub struct Table {
    first: i32,
    numbers: Vec<Option<usize>>,
    holdings: Vec<Holding>,
    free: Vec<usize>,
    open: usize,
    /// Most descriptors that may be open.
    pub limit: usize,
}

impl Table {
    /// A table in which nothing is open: of the ring of this number.
    pub fn new(ring: usize, limit: usize) -> Self {
        let first = FIRST + ring as i32 * NUMBERS;
        Self { first, numbers: Vec::new(), holdings: Vec::new(), free: Vec::new(), open: 0, limit }
    }

    /// Whether the number is one of this table, open or not.
    pub fn numbers_it(&self, descriptor: Descriptor) -> bool {
        (self.first..self.first + NUMBERS).contains(&descriptor.0)
    }

    /// Whether the next one would be EMFILE.
    pub const fn is_full(&self) -> bool {
        self.open >= self.limit
    }

    /// Opens the lowest free number. The caller has looked whether there is one.
    pub fn insert(&mut self, object: Object) -> Descriptor {
        let holding = match self.free.pop() {
            Some(at) => {
                self.holdings[at] = Holding { object, references: 1 };
                at
            }
            None => {
                self.holdings.push(Holding { object, references: 1 });
                self.holdings.len() - 1
            }
        };
        self.open += 1;
        let number = self.numbers.iter().position(Option::is_none).unwrap_or_else(|| {
            self.numbers.push(None);
            self.numbers.len() - 1
        });
        self.numbers[number] = Some(holding);
        Descriptor(self.first + number as i32)
    }

    /// What the number stands for, if it is open.
    pub fn find(&self, descriptor: Descriptor) -> Option<usize> {
        let number = usize::try_from(descriptor.0.checked_sub(self.first)?).ok()?;
        *self.numbers.get(number)?
    }

    /// The object of a holding.
    pub fn object(&self, holding: usize) -> Object {
        self.holdings[holding].object
    }

    /// Frees the number; what it stood for is kept until [`Table::release`].
    pub fn remove(&mut self, descriptor: Descriptor) -> Option<usize> {
        let holding = self.find(descriptor)?;
        self.numbers[(descriptor.0 - self.first) as usize] = None;
        self.open -= 1;
        Some(holding)
    }

    /// One more user of it.
    pub fn hold(&mut self, holding: usize) {
        self.holdings[holding].references += 1;
    }

    /// How many use it: its descriptor and its operations.
    pub fn references(&self, holding: usize) -> u32 {
        self.holdings[holding].references
    }

    /// One user less; the object if that was the last.
    pub fn release(&mut self, holding: usize) -> Option<Object> {
        let held = &mut self.holdings[holding];
        held.references -= 1;
        if held.references > 0 {
            return None;
        }
        self.free.push(holding);
        Some(held.object)
    }

    /// What is open.
    pub fn counts(&self) -> OpenCounts {
        let mut counts = OpenCounts::default();
        for holding in self.numbers.iter().flatten() {
            match self.holdings[*holding].object {
                Object::Listener(_) => counts.listeners += 1,
                Object::Socket(_) => counts.sockets += 1,
                Object::PipeRead(_) | Object::PipeWrite(_) => counts.pipe_ends += 1,
                Object::File(_) | Object::Made(_) => counts.files += 1,
                Object::Directory | Object::Event => {}
            }
        }
        counts
    }
}
