//! The few things asked of the machine: a CPU to stay on, CPU time spent, descriptors enough, and
//! a word when it is time to end.

use std::fs;
use std::io;
use std::mem;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Connections waiting to be accepted; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

static TERMINATED: AtomicBool = AtomicBool::new(false);

/// Binds a listener with a backlog for a burst of connects (std asks for 128) and `TCP_NODELAY`,
/// which the accepted sockets inherit.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    let one: libc::c_int = 1;
    // SAFETY: the descriptor is open, and the option's value is a live c_int of the length given.
    let status = unsafe {
        libc::setsockopt(
            listener.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_NODELAY,
            (&raw const one).cast(),
            mem::size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    check(status)?;
    // SAFETY: listen(2) on a socket that listens already only changes its backlog.
    check(unsafe { libc::listen(listener.as_raw_fd(), BACKLOG) })?;
    Ok(listener)
}

/// Pins the calling thread, and what it spawns later, to one CPU.
pub fn pin_to_cpu(cpu: usize) -> io::Result<()> {
    if cpu >= libc::CPU_SETSIZE as usize {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: an all-zero cpu_set_t is the empty set.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: `cpu` is below CPU_SETSIZE, so the bit lies inside the set.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: the set is live and has the length given; 0 names the calling thread.
    check(unsafe { libc::sched_setaffinity(0, mem::size_of::<libc::cpu_set_t>(), &set) })
}

/// CPU time of a whole process, its ended threads included, by clock_getcpuclockid(3): it counts
/// nanoseconds where `/proc/PID/stat` counts ticks of 10 ms.
pub fn process_cpu_time(pid: u32) -> io::Result<Duration> {
    let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
    let mut clock: libc::clockid_t = 0;
    // SAFETY: the out-parameter is a live clockid_t.
    let error = unsafe { libc::clock_getcpuclockid(pid, &mut clock) };
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error));
    }
    clock_time(clock)
}

/// CPU time of this process so far.
pub fn own_cpu_time() -> io::Result<Duration> {
    clock_time(libc::CLOCK_PROCESS_CPUTIME_ID)
}

fn clock_time(clock: libc::clockid_t) -> io::Result<Duration> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the out-parameter is a live timespec.
    check(unsafe { libc::clock_gettime(clock, &mut time) })?;
    Ok(Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
}

/// CPU time in both its kinds. Their sum is exact to the microsecond; most kernels share it out
/// between the two by what they saw at each tick of the clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct CpuTime {
    /// In the program.
    pub user: Duration,
    /// In the kernel.
    pub system: Duration,
}

impl CpuTime {
    /// Both together.
    pub fn sum(self) -> Duration {
        self.user + self.system
    }
}

impl std::ops::Sub for CpuTime {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self { user: self.user - before.user, system: self.system - before.system }
    }
}

/// CPU time of all children that have ended and were waited for: getrusage(2).
pub fn ended_children_cpu_time() -> io::Result<CpuTime> {
    // SAFETY: an all-zero rusage is a valid value.
    let mut usage: libc::rusage = unsafe { mem::zeroed() };
    // SAFETY: the out-parameter is a live rusage.
    check(unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &mut usage) })?;
    let of = |t: libc::timeval| Duration::new(t.tv_sec as u64, t.tv_usec as u32 * 1000);
    Ok(CpuTime { user: of(usage.ru_utime), system: of(usage.ru_stime) })
}

/// Returns the kernel's release (`/proc/sys/kernel/osrelease`), or an empty string.
pub fn kernel() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}

/// CPUs of the machine that this process may use.
pub fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Raises the soft limit of open descriptors to `count`, and fails when the hard limit is lower.
pub fn need_descriptors(count: u64) -> io::Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the out-parameter is a live rlimit.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) })?;
    if limit.rlim_max < count {
        let hard = limit.rlim_max;
        let message = format!(
            "{count} file descriptors are needed, but the hard limit is {hard}; raise it with \
             ulimit -Hn {count}"
        );
        return Err(io::Error::other(message));
    }
    if limit.rlim_cur < count {
        limit.rlim_cur = count;
        // SAFETY: the structure is live and its soft limit does not exceed the hard one.
        check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) })?;
    }
    Ok(())
}

/// The calling process is to get SIGTERM when the thread that started it ends (prctl(2)).
pub fn end_with_parent() -> io::Result<()> {
    // SAFETY: PR_SET_PDEATHSIG takes a signal number and no memory.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) })
}

/// Sends SIGTERM to a child that was not waited for yet, so that its number is still its own.
pub fn terminate(pid: u32) {
    // SAFETY: kill(2) takes no memory. It can only fail when the child has ended already.
    unsafe { libc::kill(pid as libc::pid_t, libc::SIGTERM) };
}

/// From now on SIGTERM and SIGINT only set a flag, and interrupt a wait; see [`terminated`].
pub fn catch_termination() -> io::Result<()> {
    extern "C" fn on_signal(_: libc::c_int) {
        TERMINATED.store(true, Ordering::Relaxed);
    }
    // SAFETY: an all-zero sigaction is a valid value: no flags (so waits end with EINTR), an empty
    // mask; the handler is filled in below.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = on_signal as extern "C" fn(libc::c_int) as usize;
    for signal in [libc::SIGTERM, libc::SIGINT] {
        // SAFETY: the handler stores to an atomic and does nothing else, which is
        // async-signal-safe (signal-safety(7)); the old action is not asked for.
        check(unsafe { libc::sigaction(signal, &action, std::ptr::null_mut()) })?;
    }
    Ok(())
}

/// Returns true if SIGTERM or SIGINT arrived after [`catch_termination`].
pub fn terminated() -> bool {
    TERMINATED.load(Ordering::Relaxed)
}

fn check(status: libc::c_int) -> io::Result<()> {
    if status == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The machine of a measurement.
#[derive(Deserialize, JsonSchema, Serialize)]
pub struct Description {
    /// `/proc/sys/kernel/osrelease`.
    pub kernel: String,
    /// That this process may use.
    pub cpus: usize,
    /// As the kernel names them.
    pub cpu_model: String,
    /// Memory of the machine.
    pub memory_bytes: u64,
    /// `net.ipv4.tcp_congestion_control`.
    pub congestion_control: String,
}

impl Description {
    /// Describes this machine. Facts that cannot be read are left empty.
    pub fn read() -> Self {
        let line = |path: &str, name: &str| {
            let text = fs::read_to_string(path).unwrap_or_default();
            let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
            line.split_once(':').map_or_else(String::new, |(_, value)| value.trim().to_owned())
        };
        let memory = line("/proc/meminfo", "MemTotal");
        let kib = memory.split(' ').next().and_then(|number| number.parse::<u64>().ok());
        let congestion = fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control");
        Self {
            kernel: kernel(),
            cpus: cpus(),
            cpu_model: line("/proc/cpuinfo", "model name"),
            memory_bytes: kib.unwrap_or(0) * 1024,
            congestion_control: congestion.unwrap_or_default().trim().to_owned(),
        }
    }
}
