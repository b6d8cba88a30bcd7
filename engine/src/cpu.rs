//! The CPUs that this process may use, from its affinity mask and its cgroups.

use crate::cgroup;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, PoisonError};

/// The limit on CPUs in a mask. A kernel is built for at most 8,192.
const CPUS_MAX: usize = 1 << 16;
/// CPUs per word of a mask.
const WORD: usize = u64::BITS as usize;

/// The default number of shards: one per whole CPU that the process may use, at least 1.
///
/// A calling thread that is bound to one CPU does not limit it, see [`of_process`].
///
/// The affinity mask and the cgroup quota both limit it. A fraction of a CPU beyond the last whole
/// one is left to io-wq threads, workers and the kernel. A shard on it would be throttled in the
/// middle of a batch.
#[must_use]
pub fn default_shards() -> usize {
    shards(of_process().len(), quota())
}

pub(crate) fn shards(allowed: usize, quota: Option<f64>) -> usize {
    quota.map_or(allowed, |cpus| allowed.min(cpus as usize)).max(1)
}

/// The CPUs that the process may use, in ascending order: those of its first thread and those of
/// the calling thread. A program may bind the thread that starts an engine to one CPU. The shards
/// still use the others.
#[must_use]
pub fn of_process() -> Vec<usize> {
    let mut cpus = allowed();
    cpus.extend(allowed_to(std::process::id().cast_signed()));
    cpus.sort_unstable();
    cpus.dedup();
    cpus
}

/// The CPUs that the calling thread may run on, in ascending order (sched_getaffinity(2)).
#[must_use]
pub fn allowed() -> Vec<usize> {
    allowed_to(0)
}

/// The CPUs of a thread; 0 is the calling thread.
fn allowed_to(thread: libc::pid_t) -> Vec<usize> {
    let mut cpus = 1024;
    while cpus <= CPUS_MAX {
        let mut mask = vec![0u64; cpus / WORD];
        // SAFETY: the kernel writes at most the bytes of the mask.
        let result = unsafe {
            libc::sched_getaffinity(thread, size_of_val(&mask[..]), mask.as_mut_ptr().cast())
        };
        if result == 0 {
            return (0..cpus).filter(|cpu| mask[cpu / WORD] >> (cpu % WORD) & 1 == 1).collect();
        }
        // ESRCH: the first thread has ended.
        if io::Error::last_os_error().raw_os_error() == Some(libc::ESRCH) {
            return Vec::new();
        }
        // EINVAL: the kernel knows more CPUs than the mask has bits.
        cpus *= 2;
    }
    vec![0]
}

/// Binds the calling thread to one CPU (sched_setaffinity(2)).
///
/// # Errors
/// EINVAL if there is no such CPU or the process may not use it.
pub fn pin(cpu: usize) -> io::Result<()> {
    bind(&[cpu])
}

/// The number of shards of this process that are bound to each CPU, by CPU.
static BOUND: Mutex<BTreeMap<usize, usize>> = Mutex::new(BTreeMap::new());

/// A CPU for one shard. It counts as used until this is dropped.
#[derive(Debug)]
pub(crate) struct Place(usize);

impl Place {
    /// Takes a CPU for each of `count` shards: the CPUs in their order, beginning with the one at
    /// position `from`, except that a CPU with fewer shards of this process comes first.
    pub fn take(cpus: &[usize], from: usize, count: usize) -> Vec<Self> {
        let mut bound = BOUND.lock().unwrap_or_else(PoisonError::into_inner);
        choose(&mut bound, cpus, from, count).into_iter().map(Self).collect()
    }

    pub fn cpu(&self) -> usize {
        self.0
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut bound = BOUND.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shards) = bound.get_mut(&self.0) {
            *shards -= 1;
        }
    }
}

fn choose(
    bound: &mut BTreeMap<usize, usize>,
    cpus: &[usize],
    from: usize,
    count: usize,
) -> Vec<usize> {
    let mut chosen = Vec::with_capacity(count);
    for shard in 0..count {
        let begin = (from % cpus.len().max(1)).wrapping_add(shard);
        let in_order = (0..cpus.len()).map(|next| cpus[(begin + next) % cpus.len()]);
        // The first one of several with the fewest shards.
        let Some(cpu) = in_order.min_by_key(|cpu| bound.get(cpu).copied().unwrap_or(0)) else {
            break;
        };
        *bound.entry(cpu).or_default() += 1;
        chosen.push(cpu);
    }
    chosen
}

/// Binds the calling thread to these CPUs (sched_setaffinity(2)).
pub(crate) fn bind(cpus: &[usize]) -> io::Result<()> {
    let last = cpus.iter().max().filter(|last| **last < CPUS_MAX);
    let last = last.ok_or(io::Error::from_raw_os_error(libc::EINVAL))?;
    let mut mask = vec![0u64; (last + 1).next_multiple_of(1024) / WORD];
    for cpu in cpus {
        mask[cpu / WORD] |= 1 << (cpu % WORD);
    }
    // SAFETY: the kernel reads the bytes of the mask.
    let result =
        unsafe { libc::sched_setaffinity(0, size_of_val(&mask[..]), mask.as_ptr().cast()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The CPU time that the cgroups of this process allow, in CPUs. `None`: no limit.
///
/// It is the smallest `cpu.max` (cgroup v2) or `cpu.cfs_quota_us` (v1) from the process's own group
/// up to the topmost visible one.
#[must_use]
pub fn quota() -> Option<f64> {
    cgroup::quota()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_whole_cpus_and_at_least_one() {
        assert_eq!(shards(8, None), 8);
        assert_eq!(shards(8, Some(2.9)), 2);
        assert_eq!(shards(2, Some(16.0)), 2);
        assert_eq!(shards(2, Some(0.25)), 1);
        assert_eq!(shards(0, None), 1);
    }

    #[test]
    fn shards_of_several_engines_spread_over_the_cpus() {
        let mut bound = BTreeMap::new();
        let cpus = [0, 1, 4, 5];
        assert_eq!(choose(&mut bound, &cpus, 1, 2), [1, 4]);
        assert_eq!(choose(&mut bound, &cpus, 0, 3), [0, 5, 4], "first the unused ones");
        assert_eq!(choose(&mut bound, &cpus, 0, 3), [0, 1, 5]);
        assert_eq!(choose(&mut BTreeMap::new(), &cpus, usize::MAX, 6), [5, 0, 1, 4, 5, 0]);
        assert_eq!(choose(&mut BTreeMap::new(), &[], 0, 2), [0usize; 0]);
    }

    #[test]
    fn a_place_is_given_back() {
        // No machine has these CPUs, so no other test takes them.
        let cpus = [CPUS_MAX, CPUS_MAX + 1];
        let first = Place::take(&cpus, 0, 1);
        let second = Place::take(&cpus, 0, 1);
        assert_eq!([first[0].cpu(), second[0].cpu()], cpus);
        drop(first);
        assert_eq!(Place::take(&cpus, 0, 1)[0].cpu(), CPUS_MAX);
    }

    #[test]
    fn a_bound_thread_does_not_limit_the_process() {
        let before = of_process();
        let bound_to = before[0];
        let after = std::thread::spawn(move || {
            pin(bound_to).expect("an allowed CPU");
            (allowed(), of_process(), default_shards())
        });
        let (allowed, process, shards) = after.join().expect("no panic");
        assert_eq!((allowed, process, shards), (vec![bound_to], before, default_shards()));
    }

    #[test]
    fn a_pinned_thread_may_run_on_that_cpu_only() {
        let before = allowed();
        assert!(!before.is_empty());
        let last = *before.last().expect("at least one");
        let after = std::thread::spawn(move || {
            pin(last).expect("an allowed CPU");
            allowed()
        });
        assert_eq!(after.join().expect("no panic"), [last]);
        assert_eq!(allowed(), before, "other threads stay as they were");
        assert_eq!(
            pin(CPUS_MAX - 1).map_err(|error| error.raw_os_error()),
            Err(Some(libc::EINVAL))
        );
    }
}
