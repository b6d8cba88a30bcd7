//! Work that gives way to the shards: reading a configuration, and freeing one.
//!
//! It runs on a thread with the policy `SCHED_IDLE` (sched(7)). A shard that wakes up on the same
//! CPU preempts the thread at once. With a nice value it would wait for the end of the thread's
//! slice, which is 3 ms on many machines.

use std::io;
use std::thread;

/// Runs `work` on a thread of its own.
///
/// # Errors
/// As the start of a thread.
pub fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let work = move || {
        give_way();
        work();
    };
    thread::Builder::new().name(name.into()).spawn(work).map(drop)
}

/// Frees a value that is large.
pub fn free(value: impl Send + 'static) {
    // Without a thread the value is freed here.
    let _ = spawn("free", move || drop(value));
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
        spawn("test", move || {
            // SAFETY: no pointers.
            sender.send(unsafe { libc::syscall(libc::SYS_sched_getscheduler, 0) }).unwrap();
        })
        .unwrap();
        assert_eq!(receiver.recv().unwrap(), libc::c_long::from(libc::SCHED_IDLE));
    }
}
