//! A ring that breaks, operations that never end, and what the kernel does when a ring is closed.

use super::super::{Descriptor, Errno};
use super::SimulatedRing;

/// What the enter call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enter {
    /// What it should.
    Works,
    /// It fails the next time, and works again after that.
    FailsOnce(i32),
    /// It fails from now on.
    Fails(i32),
}

/// After a failure whoever tears down waits so long for what is in flight, and no longer.
const PATIENCE_US: u64 = 98_000;

impl SimulatedRing {
    /// From now on, or once, the enter call fails with an error that does not pass.
    pub fn enter_breaks(&mut self) {
        let errno = self.rng.pick(&[libc::EBADF, libc::EFAULT, libc::EIO, libc::ENOMEM]);
        let once = self.rng.below(2) == 0;
        self.enter = if once { Enter::FailsOnce(errno) } else { Enter::Fails(errno) };
    }

    pub(super) fn enter_fails(&mut self) -> Option<Errno> {
        let errno = match self.enter {
            Enter::Works => return None,
            Enter::FailsOnce(errno) => {
                self.enter = Enter::Works;
                errno
            }
            Enter::Fails(errno) => errno,
        };
        // A call that fails at once may be repeated at once: time goes on all the same.
        self.now_us += 1 + self.rng.below(50);
        self.failed_us.get_or_insert(self.now_us);
        self.trace.called(self.now_us, "io_uring_enter", Descriptor::NONE, -i64::from(errno));
        Some(Errno(errno))
    }

    /// Whether those operations that use the descriptor stay for ever, or too long after a failure:
    /// whoever closes it does not have to wait for them, but must not meet one in the queue.
    pub(super) fn never_ends(&self, descriptor: Descriptor, holding: usize) -> bool {
        let users =
            self.pending.iter().flatten().filter(|pending| {
                pending.holding == Some(holding) || pending.second == Some(holding)
            });
        let hung = users.clone().all(|pending| pending.hangs);
        let queued = self.queue.iter().any(|(_, op)| op.uses(descriptor));
        let waited = self.failed_us.is_some_and(|at_us| self.now_us >= at_us + PATIENCE_US);
        matches!(self.enter, Enter::Fails(_)) || ((hung || waited) && !queued)
    }

    /// Whether some operation waits for storage that does not answer.
    pub fn hangs(&self) -> bool {
        self.pending.iter().flatten().any(|pending| pending.hangs)
    }

    /// Its descriptor is closed: the kernel ends all operations and lets go of what they held.
    pub fn end(&mut self) {
        self.catch_up();
        self.queue.clear();
        self.addresses.clear();
        self.completions.clear();
        self.overflowed.clear();
        for at in 0..self.pending.len() {
            let Some(pending) = self.pending[at].take() else { continue };
            self.pending_free.push(at);
            for holding in [pending.holding, pending.second].into_iter().flatten() {
                self.let_go(holding);
            }
        }
    }
}
