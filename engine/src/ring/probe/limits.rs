//! The kernel's release, sysctls, and the limits and capabilities of this process.

use std::fs;
use std::mem::MaybeUninit;

/// `CAP_IPC_LOCK` and `CAP_SYS_ADMIN` of <linux/capability.h>.
const CAP_IPC_LOCK: u32 = 14;
const CAP_SYS_ADMIN: u32 = 21;

/// The kernel's release: of /proc, as the other facts, or of uname(2).
pub(super) fn release() -> String {
    release_of(text_of)
}

/// The same, by the texts of files of /proc.
pub(super) fn release_of(text_of: impl Fn(&str) -> Option<String>) -> String {
    text_of("sys/kernel/osrelease").map_or_else(release_of_uname, |text| text.trim().to_owned())
}

fn release_of_uname() -> String {
    let mut names = MaybeUninit::<libc::utsname>::uninit();
    // SAFETY: the call fills the names and fails only for an invalid pointer.
    let names = unsafe {
        let result = libc::uname(names.as_mut_ptr());
        assert_eq!(result, 0, "uname(2)");
        names.assume_init()
    };
    let bytes = names.release.iter().map(|byte| byte.cast_unsigned());
    let bytes: Vec<u8> = bytes.take_while(|byte| *byte != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Returns whether a release is `version` or later. True for an unreadable release, because the
/// errno of the failed call then says more.
pub(super) fn at_least(release: &str, version: (u32, u32)) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= version,
        _ => true,
    }
}

/// The text of a file below /proc.
pub(super) fn text_of(name: &str) -> Option<String> {
    fs::read_to_string(format!("/proc/{name}")).ok()
}

/// Reads a number below /proc/sys.
pub(super) fn sysctl(name: &str) -> Option<i64> {
    text_of(&format!("sys/{name}"))?.trim().parse().ok()
}

/// A resource limit, soft and hard (getrlimit(2)).
pub(super) fn limit(resource: libc::__rlimit_resource_t) -> (u64, u64) {
    let mut limit = MaybeUninit::<libc::rlimit>::uninit();
    // SAFETY: the call fills the limit when it succeeds, and it succeeds for a resource that is.
    let limit = unsafe {
        let result = libc::getrlimit(resource, limit.as_mut_ptr());
        assert_eq!(result, 0, "getrlimit(2) of {resource}");
        limit.assume_init()
    };
    (limit.rlim_cur, limit.rlim_max)
}

/// The bytes of `RLIMIT_MEMLOCK` for all rings of this user together. `None` if the limit does not
/// apply: it is unlimited, or the process has `CAP_IPC_LOCK`.
#[must_use]
pub fn memlock_allowed() -> Option<u64> {
    let (soft, _) = limit(libc::RLIMIT_MEMLOCK);
    let free = soft == libc::RLIM_INFINITY || has_capability(CAP_IPC_LOCK);
    (!free).then_some(soft)
}

/// Returns whether the calling thread has a capability in the initial user namespace, where these
/// limits are checked.
pub(super) fn has_capability(capability: u32) -> bool {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let uid_map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    is_capable(capability, &status, &uid_map)
}

/// Returns whether a process may use io_uring where `kernel.io_uring_disabled` is 1. Groups of
/// another user namespace than the initial one have other numbers there, and count as none here.
pub(super) fn is_exempt(group: Option<i64>, status: &str, uid_map: &str) -> bool {
    if is_capable(CAP_SYS_ADMIN, status, uid_map) {
        return true;
    }
    let of = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or("");
    // The fourth number of Gid is the one for file systems (proc_pid_status(5)), which in_group_p()
    // of the kernel compares.
    let groups = of("Gid:").split_whitespace().nth(3).into_iter();
    let mut groups =
        groups.chain(of("Groups:").split_whitespace()).filter_map(|it| it.parse().ok());
    is_first_namespace(uid_map) && group.is_some_and(|group| groups.any(|it: i64| it == group))
}

/// A container's root may have every capability, but only in its own user namespace.
fn is_capable(capability: u32, status: &str, uid_map: &str) -> bool {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    effective & (1 << capability) != 0 && is_first_namespace(uid_map)
}

/// The initial user namespace is the one that maps every user to itself (user_namespaces(7)).
fn is_first_namespace(uid_map: &str) -> bool {
    uid_map.split_whitespace().eq(["0", "0", "4294967295"])
}

pub(super) fn page_bytes() -> u64 {
    // SAFETY: no pointers.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(bytes).expect("a page has a size")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_is_the_one_of_proc() {
        let of_proc = fs::read_to_string("/proc/sys/kernel/osrelease").expect("/proc");
        assert_eq!(release(), of_proc.trim());
        assert_eq!(release_of_uname(), of_proc.trim());
    }

    #[test]
    fn releases_compare_as_numbers() {
        assert!(at_least("6.18.44-fc-v657", (6, 1)));
        assert!(at_least("6.1.0-13-amd64", (6, 1)));
        assert!(at_least("10.0", (6, 1)));
        assert!(at_least("unknown", (6, 1)));
        assert!(!at_least("5.15.0-91-generic", (6, 1)));
        assert!(!at_least("6.0.19", (6, 1)));
    }

    #[test]
    fn a_container_s_root_has_no_say_outside() {
        let all = "Name:\tx\nCapEff:\t000001ffffffffff\n";
        let first = "         0          0 4294967295\n";
        assert!(is_capable(CAP_IPC_LOCK, all, first));
        assert!(!is_capable(CAP_IPC_LOCK, all, "         0     100000      65536\n"));
        assert!(!is_capable(CAP_IPC_LOCK, "CapEff:\t0000000000000000\n", first));
        assert!(is_capable(CAP_IPC_LOCK, "CapEff:\t0000000000004000\n", first));
        assert!(!is_capable(CAP_IPC_LOCK, "", ""));
    }
}
