//! System calls and kernel settings that the standard library does not cover.

use crate::units::show_count;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The kernel's default ephemeral ports (ip(7)).
const PORTS_DEFAULT: [u64; 2] = [32_768, 60_999];
/// The kernel's default limit of a backlog (listen(2)), since Linux 5.4.
const SOMAXCONN_DEFAULT: u64 = 4_096;

/// CPU time of this process, summed over all threads.
#[derive(Clone, Copy, Debug, Default)]
pub struct CpuTime {
    /// Time in user space.
    pub user: Duration,
    /// Time in the kernel.
    pub system: Duration,
}

impl CpuTime {
    /// Returns the time spent since `before`.
    #[must_use]
    pub const fn since(self, before: Self) -> Self {
        Self {
            user: self.user.saturating_sub(before.user),
            system: self.system.saturating_sub(before.system),
        }
    }
}

/// Returns the CPU time of this process (`getrusage(2)`).
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

/// Returns the kernel's release, as `uname -r` prints it.
#[must_use]
pub fn kernel_release() -> String {
    let mut names = MaybeUninit::<libc::utsname>::zeroed();
    // SAFETY: `names` is valid for writes of a utsname, and zeroed is a valid one.
    let names = unsafe {
        libc::uname(names.as_mut_ptr());
        names.assume_init()
    };
    let bytes = names.release.iter().map(|byte| byte.cast_unsigned());
    let bytes: Vec<u8> = bytes.take_while(|byte| *byte != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Returns the name of the first CPU (`model name` in /proc/cpuinfo).
#[must_use]
pub fn cpu_model() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let named = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    named.map_or_else(|| "unknown".into(), |(_, model)| model.trim().into())
}

/// Returns the frequency governor of the first CPU, or `None` if the kernel has none.
#[must_use]
pub fn governor() -> Option<String> {
    first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
}

/// Returns the first and last ephemeral port (`net.ipv4.ip_local_port_range`), or the kernel's
/// default without /proc.
#[must_use]
pub fn ports() -> [u64; 2] {
    let range = read_kernel_setting("net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut ports = range.split_whitespace().filter_map(|port| port.parse().ok());
    match (ports.next(), ports.next()) {
        (Some(first), Some(last)) if first <= last => [first, last],
        _ => PORTS_DEFAULT,
    }
}

/// Describes a lack of local ports (EADDRNOTAVAIL): the counts, and the remedies.
#[must_use]
pub fn no_port() -> String {
    let [first, last] = ports();
    let sockets = std::fs::read_to_string("/proc/net/sockstat").unwrap_or_default();
    let waiting = time_wait(&sockets).map_or_else(String::new, |count| {
        format!(", and {} sockets are in TIME_WAIT", show_count(count))
    });
    format!(
        "no local port is free: net.ipv4.ip_local_port_range allows {} ports ({first} to {last}) \
         per source address and server{waiting}; keep connections open for more requests, lower \
         --connections or the rate, widen the range, set net.ipv4.tcp_tw_reuse=1, or let the \
         server listen on several addresses or ports",
        show_count(last + 1 - first)
    )
}

/// Returns the number of sockets in TIME_WAIT from the text of /proc/net/sockstat.
fn time_wait(sockstat: &str) -> Option<u64> {
    let tcp = sockstat.lines().find_map(|line| line.strip_prefix("TCP: "))?;
    let mut words = tcp.split_ascii_whitespace();
    words.find(|word| *word == "tw")?;
    words.next()?.parse().ok()
}

/// Returns the kernel's limit for a listener's backlog (`net.core.somaxconn`), or the kernel's
/// default without /proc.
#[must_use]
pub fn somaxconn() -> u64 {
    let limit = read_kernel_setting("net/core/somaxconn");
    limit.and_then(|limit| limit.parse().ok()).unwrap_or(SOMAXCONN_DEFAULT)
}

/// Returns the soft limit of open descriptors.
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

/// Returns the trimmed content of `/proc/sys/NAME`, or `None` if it does not exist.
#[must_use]
pub fn read_kernel_setting(name: &str) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/sys/{name}")).ok()?;
    Some(text.trim().into())
}

/// Returns the resident memory of this process (`VmRSS` in proc(5)), or `None` if it is unknown.
#[must_use]
pub fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib << 10)
}

/// Makes `bind(2)` set the address only. `connect(2)` then chooses the port, which may be one that
/// connections to other destinations use too (ip(7), `IP_BIND_ADDRESS_NO_PORT`).
///
/// # Errors
/// errno of `setsockopt(2)`.
pub fn bind_no_port(socket: BorrowedFd<'_>) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the descriptor is open, and the option's value is an int of its size.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Waits until `descriptor` is readable, at most `timeout`. Has microsecond resolution, whereas
/// epoll(7) counts in milliseconds.
pub fn wait_readable(descriptor: &impl AsRawFd, timeout: Duration) {
    let mut wanted = libc::pollfd { fd: descriptor.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let timeout = timespec(timeout);
    // SAFETY: one pollfd is valid for reads and writes, the timeout is valid, and no signal mask
    // is given. The result is ignored because the caller checks the descriptor itself.
    unsafe { libc::ppoll(&raw mut wanted, 1, &raw const timeout, std::ptr::null()) };
}

/// Prepares the child that `command` starts: the kernel sends it `signal` when the thread that
/// started it ends, and the signals that [`Interrupts`] blocks here are unblocked in it.
pub fn prepare_child(command: &mut Command, signal: i32) {
    let parent = std::process::id();
    let arm = move || {
        // SAFETY: prctl(2) and getppid(2) take no pointers here and are async-signal-safe.
        let armed = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal as libc::c_ulong) };
        if armed != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: as above.
        if unsafe { libc::getppid() } as u32 != parent {
            // The parent ended before prctl(2), so the signal would never arrive.
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        let mut none = MaybeUninit::<libc::sigset_t>::zeroed();
        // SAFETY: the set is initialised by sigemptyset before it is read; both are
        // async-signal-safe.
        let unblocked = unsafe {
            libc::sigemptyset(none.as_mut_ptr());
            libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut())
        };
        if unblocked == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    // SAFETY: the closure makes only async-signal-safe system calls between fork(2) and execve(2).
    // It allocates no memory and takes no lock.
    unsafe { command.pre_exec(arm) };
}

/// Sends `signal` to a child that has not been waited for.
pub fn signal(pid: u32, signal: i32) {
    let Ok(pid @ 2..) = libc::pid_t::try_from(pid) else { return };
    // SAFETY: no memory is involved. ESRCH means that the end has not been noticed yet.
    unsafe { libc::kill(pid, signal) };
}

/// Sends `signal` to the process group that a child leads.
pub fn signal_group(leader: u32, signal: i32) {
    let Ok(leader @ 2..) = libc::pid_t::try_from(leader) else { return };
    // SAFETY: as in `signal`.
    unsafe { libc::kill(-leader, signal) };
}

/// A process that is not a child, held by a descriptor. A process id may be reused after the
/// process has ended (pidfd_open(2)).
#[derive(Debug)]
pub struct Process(OwnedFd);

impl Process {
    /// Opens a running process.
    ///
    /// # Errors
    /// errno of `pidfd_open(2)`.
    pub fn open(pid: u32) -> io::Result<Self> {
        let pid = libc::pid_t::try_from(pid).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: no memory is involved.
        let descriptor = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just opened this descriptor, and nothing else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(descriptor as i32) }))
    }

    /// Sends a signal to the process.
    ///
    /// # Errors
    /// errno of `pidfd_send_signal(2)`.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        let none = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: the descriptor is open; with a null siginfo the call acts like kill(2).
        let result = unsafe {
            libc::syscall(libc::SYS_pidfd_send_signal, self.0.as_raw_fd(), signal, none, 0)
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Returns true if the process has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        let mut wanted = libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one pollfd is valid for reads and writes.
        unsafe { libc::poll(&raw mut wanted, 1, 0) == 1 }
    }
}

fn timespec(time: Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: time.as_secs().try_into().unwrap_or(libc::time_t::MAX),
        tv_nsec: time.subsec_nanos().into(),
    }
}

/// Raises the soft limit of open descriptors to the hard one.
///
/// # Errors
/// The hard limit is below `needed`, or errno of `getrlimit(2)` or `setrlimit(2)`.
pub fn allow_descriptors(needed: u64) -> Result<(), String> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is valid for writes of an rlimit.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(format!("getrlimit(RLIMIT_NOFILE): {}", io::Error::last_os_error()));
    }
    if limit.rlim_max < needed {
        return Err(format!(
            "this run needs {needed} file descriptors, but the hard limit is {}; raise it \
             (ulimit -Hn, or LimitNOFILE= in a systemd unit) or lower --connections",
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

/// Disables the timer slack of this thread. By default the kernel delays a wake-up by up to 50 µs,
/// too late for a thread that sends on schedule (`PR_SET_TIMERSLACK` in prctl(2)).
pub fn wake_in_time() {
    // SAFETY: the option takes a number of nanoseconds, and no pointer. It does not fail.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1 as libc::c_ulong) };
}

/// Checks that the set of allowed CPUs has an entry at `place`.
///
/// # Errors
/// States the number of allowed CPUs.
pub fn check_cpu(place: usize) -> Result<(), String> {
    let mut set = MaybeUninit::<libc::cpu_set_t>::zeroed();
    // SAFETY: the set is valid for writes of its size, and zeroed is a valid, empty one.
    let allowed = unsafe {
        libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), set.as_mut_ptr());
        libc::CPU_COUNT(set.assume_init_ref())
    };
    // With more CPUs than the set can hold, the count is 0, and the engine checks the place.
    if allowed > 0 && place >= allowed as usize {
        return Err(format!(
            "--pin-from {place} is too large: this process may use {allowed} CPUs, counted from 0"
        ));
    }
    Ok(())
}

/// SIGINT, SIGTERM and SIGHUP, received by waiting instead of by a handler.
pub struct Interrupts {
    set: libc::sigset_t,
    /// One has been received.
    received: AtomicBool,
}

impl Interrupts {
    /// Blocks the signals in this thread and in all threads that it starts from now on. SIGHUP
    /// stays ignored if it is, as under nohup(1).
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
            // The kernel does not discard a blocked signal, even if it is ignored.
            if !is_ignored(libc::SIGHUP) {
                libc::sigaddset(set.as_mut_ptr(), libc::SIGHUP);
            }
            set.assume_init()
        };
        // SAFETY: `set` is initialised; the old mask is not asked for.
        match unsafe {
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut())
        } {
            0 => Ok(Self { set, received: AtomicBool::new(false) }),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    /// Waits for one of the signals, at most `timeout`. Returns true if one arrived. A SIGHUP after
    /// another signal does not count: the shell and the kernel both send one when a terminal hangs
    /// up.
    #[must_use]
    pub fn wait(&self, timeout: Duration) -> bool {
        let timeout = timespec(timeout);
        // SAFETY: the set and the timeout are valid; no information about the signal is asked for.
        let signal = unsafe {
            libc::sigtimedwait(&raw const self.set, std::ptr::null_mut(), &raw const timeout)
        };
        // -1 means the timeout, or EINTR after SIGSTOP and SIGCONT.
        let was_received = signal > 0 && self.received.swap(true, Ordering::Relaxed);
        signal > 0 && !(was_received && signal == libc::SIGHUP)
    }
}

/// Returns true if this process ignores `signal`.
fn is_ignored(signal: libc::c_int) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: no new action is given, and the old one is valid for writes; zeroed is a valid one.
    let action = unsafe {
        libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr());
        action.assume_init()
    };
    action.sa_sigaction == libc::SIG_IGN
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
    fn a_lack_of_ports_is_described_with_counts_and_remedies() {
        let text = "sockets: used 9\nTCP: inuse 5 orphan 0 tw 28000 alloc 7 mem 1\nUDP: inuse 0\n";
        assert_eq!((time_wait(text), time_wait("TCP: inuse 5\n")), (Some(28_000), None));
        let text = no_port();
        for part in
            ["ip_local_port_range allows", "in TIME_WAIT", "tcp_tw_reuse", "several addresses"]
        {
            assert!(text.contains(part), "{text}");
        }
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
    fn a_hang_up_is_an_interrupt_and_no_second_one() {
        // It is ignored where nohup(1) runs the tests.
        // SAFETY: no handler is installed.
        unsafe { libc::signal(libc::SIGHUP, libc::SIG_DFL) };
        let interrupts = Interrupts::block().expect("blocking signals needs no right");
        let raise = |signal| {
            // SAFETY: raises a signal that this thread blocks.
            unsafe { libc::pthread_kill(libc::pthread_self(), signal) };
        };
        raise(libc::SIGHUP);
        assert!(interrupts.wait(Duration::from_secs(5)));
        raise(libc::SIGHUP);
        assert!(!interrupts.wait(Duration::from_secs(5)));
        raise(libc::SIGINT);
        assert!(interrupts.wait(Duration::from_secs(5)));
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
        // Some architectures have no model name, but the text is never empty.
        assert!(!cpu_model().is_empty());
        let of_proc = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("/proc");
        assert_eq!(kernel_release(), of_proc.trim());
        let [first, last] = ports();
        assert!(0 < first && first < last && last < 65_536, "{first} to {last}");
        assert!(somaxconn() > 0 && descriptors_max() > 0);
    }
}
