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
/// table has only standard input, output and error, and copies of the descriptors `kept`.
/// `RLIMIT_NOFILE` limits each table separately.
///
/// # Errors
/// Those of close_range(2): ENOSYS before Linux 5.9, ENOMEM, EPERM from a seccomp filter.
pub fn separate_table(kept: &[i32]) -> io::Result<()> {
    let mut kept: Vec<u32> = kept.iter().filter_map(|number| (*number).try_into().ok()).collect();
    kept.sort_unstable();
    let mut first = libc::STDERR_FILENO as u32 + 1;
    let mut flags = libc::CLOSE_RANGE_UNSHARE;
    for end in kept.into_iter().chain([u32::MAX]) {
        if end > first {
            // SAFETY: no pointers. It closes copies, in a table that only this thread uses; the
            // caller keeps no other descriptor that was open before.
            if unsafe { libc::syscall(libc::SYS_close_range, first, end - 1, flags) } != 0 {
                return Err(io::Error::last_os_error());
            }
            // The table is a separate one from now on.
            flags = 0;
        }
        first = first.max(end.saturating_add(1));
    }
    Ok(())
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
        let [file, _other] = [(); 2].map(|()| std::fs::File::open("/proc/self/limits").unwrap());
        let number = file.as_raw_fd();
        let seen = std::thread::spawn(move || {
            let count = || std::fs::read_dir("/proc/thread-self/fd").unwrap().count();
            let before = count();
            super::separate_table(&[number]).unwrap();
            let kept = std::fs::read_link(format!("/proc/thread-self/fd/{number}")).unwrap();
            (before, count(), kept)
        });
        let (before, after, kept) = seen.join().unwrap();
        assert!(
            before > 5 && after <= 5,
            "{before} before, {after} after, with the one that counts"
        );
        assert!(kept.ends_with("limits"), "{kept:?}");
        let name = format!("/proc/self/fd/{number}");
        assert!(std::fs::read_link(name).is_ok(), "this thread's table is unchanged");
    }
}
