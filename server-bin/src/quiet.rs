//! Work that gives way to the shards: reading a configuration, and freeing one.
//!
//! It runs on a thread with the policy `SCHED_IDLE` (sched(7)). A shard that wakes up on the same
//! CPU preempts the thread at once. With a nice value it would wait for the end of the thread's
//! slice, which is 3 ms on many machines.

use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use std::thread;

type Work = Box<dyn FnOnce() + Send>;

/// The queue of the thread, which starts with the first work and ends with the process. There is
/// one, so that the memory of a configuration goes back to where the next one takes it from.
static THREAD: OnceLock<Option<Sender<Work>>> = OnceLock::new();

/// Has the thread run `work` after everything before. Returns false if there is no thread.
pub fn run(work: impl FnOnce() + Send + 'static) -> bool {
    let thread = THREAD.get_or_init(start);
    thread.as_ref().is_some_and(|thread| thread.send(Box::new(work)).is_ok())
}

/// Frees a value that is large.
pub fn free(value: impl Send + 'static) {
    // Without a thread the value is freed here.
    run(move || drop(value));
}

fn start() -> Option<Sender<Work>> {
    let (sender, receiver) = channel::<Work>();
    let work = move || {
        give_way();
        receiver.into_iter().for_each(|work| work());
    };
    thread::Builder::new().name("quiet".into()).spawn(work).ok()?;
    Some(sender)
}

/// Without the permission, the thread stays what it is.
fn give_way() {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the kernel reads the structure during the call, which changes this thread only.
    unsafe {
        libc::syscall(libc::SYS_sched_setscheduler, 0, libc::SCHED_IDLE, &raw const parameters);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn the_thread_has_the_policy() {
        let (sender, receiver) = channel();
        for _ in 0..2 {
            let sender = sender.clone();
            assert!(run(move || {
                // SAFETY: no pointers.
                sender.send(unsafe { libc::syscall(libc::SYS_sched_getscheduler, 0) }).unwrap();
            }));
            assert_eq!(receiver.recv().unwrap(), libc::c_long::from(libc::SCHED_IDLE));
        }
    }
}
