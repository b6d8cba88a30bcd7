//! The limit of open file descriptors.

use std::io;

/// Raises the soft `RLIMIT_NOFILE` to the hard one: every connection is a descriptor. The limit
/// after that.
///
/// # Errors
/// As getrlimit(2) and setrlimit(2).
pub fn raise_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a valid rlimit, which outlives the call.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    if limit.rlim_cur < limit.rlim_max {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: as above; the kernel only reads it.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(limit.rlim_cur)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let raised = super::raise_limit().unwrap();
        assert_eq!(super::raise_limit().unwrap(), raised);
        let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
        let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
        let columns: Vec<&str> = line["Max open files".len()..].split_whitespace().collect();
        assert_eq!(columns[..2], [raised.to_string(), raised.to_string()]);
    }
}
