//! The limit on open file descriptors, `RLIMIT_NOFILE`.

use std::io;

/// Raises the soft limit to the hard limit, because every connection needs a descriptor. Returns
/// the new limit.
///
/// # Errors
/// Those of getrlimit(2) and setrlimit(2).
pub fn raise_limit() -> io::Result<u64> {
    let limit = limit()?;
    if limit.rlim_cur < limit.rlim_max {
        set_limit(limit, limit.rlim_max)?;
    }
    Ok(limit.rlim_max)
}

/// Gives the calling thread, and the threads that it creates, a separate descriptor table. The new
/// table has only standard input, output and error. `RLIMIT_NOFILE` limits each table separately.
///
/// # Errors
/// Those of close_range(2): ENOSYS before Linux 5.9, ENOMEM, EPERM from a seccomp filter.
pub fn separate_table() -> io::Result<()> {
    let (first, last, flags) =
        (libc::STDERR_FILENO + 1, libc::c_uint::MAX, libc::CLOSE_RANGE_UNSHARE);
    // SAFETY: no pointers. It closes copies, in a table that only this thread uses; the caller
    // keeps no descriptor that was open before.
    if unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn limit() -> io::Result<libc::rlimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer refers to a valid rlimit that outlives the call.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } == 0 {
        Ok(limit)
    } else {
        Err(io::Error::last_os_error())
    }
}

fn set_limit(mut limit: libc::rlimit, soft: u64) -> io::Result<()> {
    limit.rlim_cur = soft;
    // SAFETY: the pointer refers to a valid rlimit that outlives the call; the kernel reads it.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    /// The soft and the hard limit as the kernel reports them.
    fn shown() -> [u64; 2] {
        let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
        let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
        let mut columns = line["Max open files".len()..].split_whitespace();
        [(); 2].map(|()| columns.next().unwrap().parse().unwrap())
    }

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let raised = super::raise_limit().unwrap();
        assert_eq!(super::raise_limit().unwrap(), raised);
        assert_eq!(shown(), [raised, raised]);
    }

    #[test]
    fn a_thread_has_its_own_table() {
        let file = std::fs::File::open("/proc/self/limits").unwrap();
        let number = file.as_raw_fd();
        let seen = std::thread::spawn(move || {
            let count = || std::fs::read_dir("/proc/thread-self/fd").unwrap().count();
            let before = count();
            super::separate_table().unwrap();
            (before, count())
        });
        let (before, after) = seen.join().unwrap();
        assert!(
            before > 4 && after <= 4,
            "{before} before, {after} after, with the one that counts"
        );
        let name = format!("/proc/self/fd/{number}");
        assert!(std::fs::read_link(name).is_ok(), "this thread's table is unchanged");
    }
}
