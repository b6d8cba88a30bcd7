//! Limits of the cgroups of this process and of its machine: CPU time and memory.

use std::fs;
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};

/// The CPU time that the cgroups of this process allow, in CPUs. `None`: no limit.
pub fn quota() -> Option<f64> {
    let (membership, mounts) = own()?;
    let groups = groups("cpu", &membership, &mounts);
    let quotas = groups.iter().filter_map(|(version, group)| group_quota(*version, group, &read));
    quotas.min_by(f64::total_cmp)
}

/// The memory that this process may use, in bytes: the smallest one of the machine's memory
/// (`MemTotal`, or sysinfo(2) without /proc) and the limits of its cgroups.
pub fn memory_bytes() -> Option<u64> {
    let (membership, mounts) = own().unwrap_or_default();
    let groups = groups("memory", &membership, &mounts);
    let limits = groups.iter().filter_map(|(version, group)| group_memory(*version, group, &read));
    let machine = read(Path::new("/proc/meminfo")).and_then(|text| machine_memory(&text));
    limits.chain(machine.or_else(installed_memory)).min()
}

fn read(file: &Path) -> Option<String> {
    fs::read_to_string(file).ok()
}

/// The groups of this process, and what is mounted (cgroups(7), proc_pid_mountinfo(5)).
fn own() -> Option<(String, String)> {
    Some((read(Path::new("/proc/self/cgroup"))?, read(Path::new("/proc/self/mountinfo"))?))
}

/// The folders of the groups that govern a resource, from the process's own group up to the topmost
/// visible one.
fn groups(controller: &str, membership: &str, mounts: &str) -> Vec<(Version, PathBuf)> {
    let hierarchies = mounts.lines().filter_map(|line| hierarchy(line, controller, membership));
    let mut all = Vec::new();
    for (version, top, own) in hierarchies {
        let visible = own.ancestors().take_while(|group| group.starts_with(&top));
        all.extend(visible.map(|group| (version, group.to_owned())));
    }
    all
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Version {
    One,
    Two,
}

/// Reads a line of /proc/self/mountinfo. If it mounts a hierarchy that governs the resource,
/// returns its mount point and the folder of this process's group in it.
fn hierarchy(
    line: &str,
    controller: &str,
    membership: &str,
) -> Option<(Version, PathBuf, PathBuf)> {
    let (mount, file_system) = line.split_once(" - ")?;
    let (root, top) = {
        let mut fields = mount.split(' ').skip(3);
        (fields.next()?, Path::new(fields.next()?))
    };
    let mut fields = file_system.split(' ');
    let version = match (fields.next()?, fields.nth(1)?) {
        ("cgroup2", _) => Version::Two,
        ("cgroup", options) if options.split(',').any(|it| it == controller) => Version::One,
        _ => return None,
    };
    let group = membership.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, group) = (fields.next()?, fields.next()?);
        let ours = match version {
            Version::Two => controllers.is_empty(),
            Version::One => controllers.split(',').any(|it| it == controller),
        };
        ours.then_some(group)
    })?;
    // Only a part of the hierarchy may be mounted, as in a container. The group's path then either
    // begins with that part, or lies outside of the visible part and the mount point stands for it.
    let below = Path::new(group).strip_prefix(root).unwrap_or(Path::new(""));
    Some((version, top.to_owned(), top.join(below)))
}

fn group_quota(
    version: Version,
    group: &Path,
    read: &impl Fn(&Path) -> Option<String>,
) -> Option<f64> {
    let (quota, period) = match version {
        Version::Two => {
            let text = read(&group.join("cpu.max"))?;
            let (quota, period) = text.trim().split_once(' ')?;
            (quota.to_owned(), period.to_owned())
        }
        Version::One => {
            (read(&group.join("cpu.cfs_quota_us"))?, read(&group.join("cpu.cfs_period_us"))?)
        }
    };
    // "max" (v2) and -1 (v1) mean no limit.
    let quota: u64 = quota.trim().parse().ok()?;
    let period: u64 = period.trim().parse().ok()?;
    (period > 0).then(|| quota as f64 / period as f64)
}

fn group_memory(
    version: Version,
    group: &Path,
    read: &impl Fn(&Path) -> Option<String>,
) -> Option<u64> {
    let file = match version {
        Version::Two => "memory.max",
        Version::One => "memory.limit_in_bytes",
    };
    // "max" (v2) means no limit; v1 has a number above every machine's memory.
    read(&group.join(file))?.trim().parse().ok()
}

/// `MemTotal` of /proc/meminfo, in bytes.
fn machine_memory(text: &str) -> Option<u64> {
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = total.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The machine's memory in bytes (sysinfo(2)).
fn installed_memory() -> Option<u64> {
    let mut info = MaybeUninit::<libc::sysinfo>::uninit();
    // SAFETY: the call fills the figures when it succeeds.
    let info = unsafe {
        if libc::sysinfo(info.as_mut_ptr()) != 0 {
            return None;
        }
        info.assume_init()
    };
    info.totalram.checked_mul(info.mem_unit.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2: &str = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate";
    const V1: &str = "33 30 0:30 /docker/ab /sys/fs/cgroup/cpu,cpuacct ro shared:9 - cgroup cgroup \
                      rw,cpu,cpuacct\n\
                      34 30 0:31 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset";

    /// Reads from these files only.
    fn reading(files: &[(&str, &str)]) -> impl Fn(&Path) -> Option<String> {
        move |file| {
            let found = files.iter().find(|(name, _)| Path::new(name) == file);
            found.map(|(_, text)| (*text).to_owned())
        }
    }

    fn quota_of(membership: &str, mounts: &str, files: &[(&str, &str)]) -> Option<f64> {
        let read = reading(files);
        let groups = groups("cpu", membership, mounts);
        let quotas = groups.iter().filter_map(|(version, it)| group_quota(*version, it, &read));
        quotas.min_by(f64::total_cmp)
    }

    #[test]
    fn the_least_quota_up_to_the_root_counts() {
        let files = [
            ("/sys/fs/cgroup/a.slice/b.service/cpu.max", "max 100000\n"),
            ("/sys/fs/cgroup/a.slice/cpu.max", "150000 100000\n"),
            ("/sys/fs/cgroup/cpu.max", "400000 100000\n"),
        ];
        assert_eq!(quota_of("0::/a.slice/b.service\n", V2, &files), Some(1.5));
        assert_eq!(quota_of("0::/\n", V2, &files), Some(4.0));
        assert_eq!(quota_of("0::/a.slice/b.service\n", V2, &files[..1]), None);
    }

    #[test]
    fn the_older_hierarchy_counts_where_cpu_is_mounted() {
        let membership = "5:cpuset:/elsewhere\n4:cpu,cpuacct:/docker/ab/worker\n0::/\n";
        let files = [
            ("/sys/fs/cgroup/cpu,cpuacct/worker/cpu.cfs_quota_us", "-1\n"),
            ("/sys/fs/cgroup/cpu,cpuacct/worker/cpu.cfs_period_us", "100000\n"),
            ("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "250000\n"),
            ("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
            ("/sys/fs/cgroup/cpuset/elsewhere/cpu.cfs_quota_us", "1\n"),
        ];
        assert_eq!(quota_of(membership, V1, &files), Some(2.5));
    }

    #[test]
    fn a_group_outside_of_what_is_mounted_is_judged_by_the_top() {
        let files = [("/sys/fs/cgroup/cpu.max", "50000 100000\n")];
        assert_eq!(quota_of("0::/../../host.slice\n", V2, &files), Some(0.5));
        assert_eq!(quota_of("", V2, &files), None);
        assert_eq!(quota_of("0::/\n", "nonsense\n", &files), None);
    }

    #[test]
    fn the_least_limit_on_memory_counts() {
        let v1 = "41 30 0:33 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory";
        let files = [
            ("/sys/fs/cgroup/a/b/memory.max", "max\n"),
            ("/sys/fs/cgroup/a/memory.max", "268435456\n"),
            ("/sys/fs/cgroup/memory/c/memory.limit_in_bytes", "9223372036854771712\n"),
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "1073741824\n"),
        ];
        let read = reading(&files);
        let least = |membership: &str, mounts: &str| {
            let groups = groups("memory", membership, mounts);
            groups.iter().filter_map(|(version, it)| group_memory(*version, it, &read)).min()
        };
        assert_eq!(least("0::/a/b\n", V2), Some(256 << 20));
        assert_eq!(least("0::/\n", V2), None);
        assert_eq!(least("9:memory:/c\n", v1), Some(1 << 30));
        let machine = "MemTotal:       24689916 kB\nMemFree:  1 kB\n";
        assert_eq!(machine_memory(machine), Some(24_689_916 << 10));
        assert_eq!(machine_memory("MemFree: 1 kB\n"), None);
        assert!(memory_bytes().is_some_and(|bytes| bytes > 1 << 20));
    }
}
