//! A bounded pool of pipes for files on their way to sockets.

use crate::ring::{Calls, Errno, Pipe};

/// Pipes made on demand, at most `total`; idle ones are kept. One that still holds bytes is
/// closed instead of kept: its next user would send them to somebody else.
#[derive(Debug)]
pub struct PipePool {
    total: u32,
    capacity_bytes: u32,
    taken: u32,
    idle: Vec<Pipe>,
}

/// A pipe on loan, and how many bytes are in it.
#[derive(Debug)]
pub struct PooledPipe {
    /// Both ends.
    pub pipe: Pipe,
    /// Bytes put in and not taken out.
    pub held_bytes: u32,
}

impl PipePool {
    /// A pool of at most `total` pipes of about `capacity_bytes`.
    pub fn new(total: u32, capacity_bytes: u32) -> Self {
        Self { total, capacity_bytes, taken: 0, idle: Vec::with_capacity(total as usize) }
    }

    /// Takes a pipe. `Ok(None)`: all are on loan, wait for one.
    ///
    /// # Errors
    /// EMFILE, ENFILE: there is no descriptor for a new one.
    pub fn take<C: Calls>(&mut self, calls: &mut C) -> Result<Option<PooledPipe>, Errno> {
        if self.taken == self.total {
            return Ok(None);
        }
        let pipe = match self.idle.pop() {
            Some(pipe) => pipe,
            None => calls.pipe(self.capacity_bytes)?,
        };
        self.taken += 1;
        Ok(Some(PooledPipe { pipe, held_bytes: 0 }))
    }

    /// Takes a pipe back that no operation uses any more.
    pub fn give_back<C: Calls>(&mut self, pooled: PooledPipe, calls: &mut C) {
        assert!(self.taken > 0, "more pipes came back than were taken");
        self.taken -= 1;
        if pooled.held_bytes == 0 || bug!("dirty-pipe-kept") {
            self.idle.push(pooled.pipe);
        } else {
            calls.close_now(pooled.pipe.read);
            calls.close_now(pooled.pipe.write);
        }
    }

    /// Closes the idle ones, at the end of a shard.
    pub fn close_idle<C: Calls>(&mut self, calls: &mut C) {
        for pipe in self.idle.drain(..) {
            calls.close_now(pipe.read);
            calls.close_now(pipe.write);
        }
    }

    /// The bytes that one pipe holds, about.
    #[cfg(any(test, feature = "testing"))]
    pub fn bytes_each(&self) -> u32 {
        self.capacity_bytes
    }

    /// Pipes at most.
    pub fn total(&self) -> u32 {
        self.total
    }

    /// Pipes not on loan (made or yet to be made).
    pub fn free(&self) -> u32 {
        self.total - self.taken
    }

    /// Pipes that are open, on loan or idle: two descriptors each.
    pub fn made(&self) -> u64 {
        u64::from(self.taken) + self.idle.len() as u64
    }
}
