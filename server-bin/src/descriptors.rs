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

/// Lowers the soft limit to `to`, if it is higher. Open descriptors above it stay open.
///
/// # Errors
/// Those of getrlimit(2) and setrlimit(2).
pub fn lower_limit(to: u64) -> io::Result<()> {
    let limit = limit()?;
    set_limit(limit, limit.rlim_cur.min(to))
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
    /// The soft and the hard limit as the kernel reports them.
    fn shown() -> [u64; 2] {
        let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
        let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
        let mut columns = line["Max open files".len()..].split_whitespace();
        [(); 2].map(|()| columns.next().unwrap().parse().unwrap())
    }

    #[test]
    fn the_soft_limit_becomes_the_hard_one_and_can_be_lowered() {
        let raised = super::raise_limit().unwrap();
        assert_eq!(super::raise_limit().unwrap(), raised);
        assert_eq!(shown(), [raised, raised]);
        super::lower_limit(raised - 7).unwrap();
        assert_eq!(shown(), [raised - 7, raised]);
        super::lower_limit(raised).unwrap();
        assert_eq!(shown(), [raised - 7, raised], "a lower limit is not raised");
        assert_eq!(super::raise_limit().unwrap(), raised);
    }
}
