//! The few system calls the standard library has no face for.

use std::io;
use std::mem::MaybeUninit;
use std::time::Duration;

/// CPU time of this process, all threads.
#[derive(Clone, Copy, Debug, Default)]
pub struct CpuTime {
    /// In our own code.
    pub user: Duration,
    /// In the kernel on our behalf.
    pub system: Duration,
}

/// What `getrusage(2)` says of this process.
#[must_use]
pub fn cpu_time() -> CpuTime {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: `usage` is valid for writes of a rusage, and zeroed is a valid one.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        usage.assume_init()
    };
    let duration = |time: libc::timeval| {
        Duration::from_secs(time.tv_sec as u64) + Duration::from_micros(time.tv_usec as u64)
    };
    CpuTime { user: duration(usage.ru_utime), system: duration(usage.ru_stime) }
}

/// The kernel's release, as `uname -r` prints it.
#[must_use]
pub fn kernel_release() -> String {
    first_line("/proc/sys/kernel/osrelease").unwrap_or_else(|| "unknown".into())
}

/// What the kernel calls the first CPU (`model name` of /proc/cpuinfo).
#[must_use]
pub fn cpu_model() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let named = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    named.map_or_else(|| "unknown".into(), |(_, model)| model.trim().into())
}

/// The governor of the first CPU's clock; none where the kernel has no say in it.
#[must_use]
pub fn governor() -> Option<String> {
    first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
}

/// First and last port that a connect may take by itself (`net.ipv4.ip_local_port_range`).
#[must_use]
pub fn ports() -> [u64; 2] {
    let line = first_line("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut ports = line.split_whitespace().map(|port| port.parse().unwrap_or_default());
    [ports.next().unwrap_or_default(), ports.next().unwrap_or_default()]
}

/// What the kernel caps a listener's backlog at (`net.core.somaxconn`).
#[must_use]
pub fn somaxconn() -> u64 {
    let line = first_line("/proc/sys/net/core/somaxconn");
    line.and_then(|line| line.parse().ok()).unwrap_or_default()
}

/// Descriptors that this process may have open now: the soft limit.
#[must_use]
pub fn descriptors_max() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is valid for writes of an rlimit.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    limit.rlim_cur
}

fn first_line(path: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    text.lines().next().map(|line| line.trim().into())
}

/// Raises the soft limit of open descriptors to the hard one.
///
/// # Errors
/// The limit, when it allows less than `needed`; or errno of `getrlimit(2)`.
pub fn allow_descriptors(needed: u64) -> Result<(), String> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is valid for writes of an rlimit.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(format!("getrlimit(RLIMIT_NOFILE): {}", io::Error::last_os_error()));
    }
    if limit.rlim_max < needed {
        return Err(format!(
            "{needed} descriptors are needed, the hard limit is {}: raise it (ulimit -Hn, or \
             LimitNOFILE= of a unit), or ask for fewer --connections",
            limit.rlim_max
        ));
    }
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` is a valid rlimit, read only.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } != 0 {
        return Err(format!("setrlimit(RLIMIT_NOFILE): {}", io::Error::last_os_error()));
    }
    Ok(())
}

/// Has this thread woken when it asked for it, not up to 50 µs later together with others: it sends
/// on schedule (`PR_SET_TIMERSLACK` of prctl(2)).
pub fn wake_in_time() {
    // SAFETY: the option takes a number of nanoseconds, and no pointer. It does not fail.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1 as libc::c_ulong) };
}

/// Refuses a place in the set of allowed CPUs that is not there.
///
/// # Errors
/// How many there are.
pub fn check_cpu(place: usize) -> Result<(), String> {
    let mut set = MaybeUninit::<libc::cpu_set_t>::zeroed();
    // SAFETY: the set is valid for writes of its size, and zeroed is a valid, empty one.
    let allowed = unsafe {
        libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), set.as_mut_ptr());
        libc::CPU_COUNT(set.assume_init_ref())
    };
    // None: more CPUs than the set has room for. Then the engine, which counts them too, takes it.
    if allowed > 0 && place >= allowed as usize {
        return Err(format!("--pin-from {place}: there are {allowed} CPUs, counted from 0"));
    }
    Ok(())
}

/// SIGINT and SIGTERM, taken by waiting for them instead of by a handler.
pub struct Interrupts {
    set: libc::sigset_t,
}

impl Interrupts {
    /// Blocks them in this thread and in all that it starts from now on.
    ///
    /// # Errors
    /// errno of `pthread_sigmask(3)`.
    pub fn block() -> io::Result<Self> {
        let mut set = MaybeUninit::<libc::sigset_t>::zeroed();
        // SAFETY: the set is initialised by sigemptyset before anything else reads it.
        let set = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            libc::sigaddset(set.as_mut_ptr(), libc::SIGINT);
            libc::sigaddset(set.as_mut_ptr(), libc::SIGTERM);
            set.assume_init()
        };
        // SAFETY: `set` is initialised; the old mask is not asked for.
        match unsafe {
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut())
        } {
            0 => Ok(Self { set }),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    /// Waits for one of them, at most `timeout`; true when one came.
    #[must_use]
    pub fn wait(&self, timeout: Duration) -> bool {
        let timeout = libc::timespec {
            tv_sec: timeout.as_secs().try_into().unwrap_or(libc::time_t::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        // SAFETY: the set and the timeout are valid; no information about the signal is asked for.
        let signal = unsafe {
            libc::sigtimedwait(&raw const self.set, std::ptr::null_mut(), &raw const timeout)
        };
        // -1 is the timeout, or EINTR after a stop and continue: neither is one of ours.
        signal > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_descriptors_than_the_hard_limit_are_refused_with_a_remedy() {
        let error = allow_descriptors(u64::MAX - 1).expect_err("nobody has that many");
        assert!(error.contains("ulimit") && error.contains("--connections"), "{error}");
        assert_eq!(allow_descriptors(16), Ok(()));
    }

    #[test]
    fn a_cpu_that_is_not_there_is_refused() {
        assert_eq!(check_cpu(0), Ok(()));
        let error = check_cpu(100_000).expect_err("nobody has that many");
        assert!(error.contains("counted from 0"), "{error}");
    }

    #[test]
    fn a_signal_that_was_blocked_is_waited_for() {
        let interrupts = Interrupts::block().expect("blocking signals needs no right");
        assert!(!interrupts.wait(Duration::from_millis(1)));
        // SAFETY: raises a signal that this thread blocks.
        unsafe { libc::pthread_kill(libc::pthread_self(), libc::SIGTERM) };
        assert!(interrupts.wait(Duration::from_secs(5)));
        assert!(!interrupts.wait(Duration::ZERO));
    }

    #[test]
    fn time_spent_is_seen() {
        let before = cpu_time();
        let mut spent = 0_u64;
        while (cpu_time().user + cpu_time().system) == (before.user + before.system) {
            spent = std::hint::black_box(spent + 1);
        }
    }

    #[test]
    fn the_machine_is_known() {
        assert_ne!(kernel_release(), "unknown");
        // Not every architecture's kernel has a name for it.
        assert!(!cpu_model().is_empty());
        let [first, last] = ports();
        assert!(0 < first && first < last && last < 65_536, "{first} to {last}");
        assert!(somaxconn() > 0 && descriptors_max() > 0);
    }
}
