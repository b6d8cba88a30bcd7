//! `ringwrightd doctor --seccomp-profile`: seccomp profiles under which the daemon uses io_uring.

use crate::options::ProfileOf;

/// The system calls that the default profiles of Docker and containerd lack.
const IO_URING: &[&str] = &["io_uring_enter", "io_uring_register", "io_uring_setup"];

/// The other system calls of the daemon on either ring, and of the C library that starts it. A test
/// runs the daemon under a profile that kills it for any other call.
const DAEMON: &[&str] = &[
    "accept4",
    "access",
    "arch_prctl",
    "bind",
    "brk",
    "cachestat",
    "clock_getres",
    "clock_gettime",
    "clock_nanosleep",
    "close",
    "close_range",
    "connect",
    "epoll_create1",
    "epoll_ctl",
    "epoll_pwait",
    "epoll_pwait2",
    "epoll_wait",
    "eventfd2",
    "execve",
    "exit",
    "exit_group",
    "fadvise64",
    "fcntl",
    "fdatasync",
    "fstat",
    "fstatfs",
    "fsync",
    "ftruncate",
    "futex",
    "getdents64",
    "getegid",
    "geteuid",
    "getgid",
    "getpeername",
    "getpid",
    "getrandom",
    "getrusage",
    "getsockname",
    "getsockopt",
    "gettid",
    "gettimeofday",
    "getuid",
    "ioctl",
    "linkat",
    "listen",
    "lseek",
    "lstat",
    "madvise",
    "membarrier",
    "mmap",
    "mprotect",
    "mremap",
    "munmap",
    "nanosleep",
    "newfstatat",
    "open",
    "openat",
    "openat2",
    "pipe2",
    "poll",
    "ppoll",
    "prctl",
    "pread64",
    "preadv2",
    "prlimit64",
    "pwrite64",
    "read",
    "readlink",
    "readlinkat",
    "readv",
    "recvfrom",
    "recvmsg",
    "renameat",
    "renameat2",
    "restart_syscall",
    "rseq",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "sched_getaffinity",
    "sched_setaffinity",
    "sched_setscheduler",
    "sched_yield",
    "sendfile",
    "sendmmsg",
    "sendmsg",
    "sendto",
    "set_robust_list",
    "set_tid_address",
    "setsockopt",
    "shutdown",
    "sigaltstack",
    "socket",
    "socketpair",
    "splice",
    "stat",
    "statx",
    "sysinfo",
    "tgkill",
    "uname",
    "unlinkat",
    "wait4",
    "write",
    "writev",
];

/// The system calls with which runc and crun start a program after they have loaded the profile.
const RUNTIME: &[&str] = &[
    "capget",
    "capset",
    "chdir",
    "dup3",
    "faccessat",
    "faccessat2",
    "fchdir",
    "fchown",
    "getcwd",
    "getppid",
    "getrlimit",
    "setgid",
    "setgroups",
    "setresgid",
    "setresuid",
    "setrlimit",
    "setsid",
    "setuid",
    "statfs",
    "umask",
];

/// The bits of clone(2) that make namespaces (`CLONE_NEW…` of <linux/sched.h>), as in Docker's own
/// profile.
const NAMESPACES: u32 = 0x7e02_0000;

/// A drop-in for a unit of systemd. It works whether or not the unit has a `SystemCallFilter=`: a
/// list of allowed calls gets longer, and a list of forbidden calls gets shorter.
const SYSTEMD: &str = "\
# Lets ringwrightd.service use io_uring. Save as
# /etc/systemd/system/ringwrightd.service.d/io_uring.conf, then run: systemctl daemon-reload
[Service]
SystemCallFilter=@system-service io_uring_setup io_uring_enter io_uring_register
# Rings and registered buffers are locked memory, which counts for all services of a user together.
LimitMEMLOCK=infinity
";

/// The text of a profile.
#[must_use]
pub fn text(of: ProfileOf) -> String {
    match of {
        ProfileOf::Docker => docker(),
        ProfileOf::Systemd => SYSTEMD.to_owned(),
    }
}

/// A profile in Docker's format, which Podman, containerd and Kubernetes read as well.
///
/// A call that is not allowed fails with ENOSYS, as on a kernel without it, so that programs use an
/// older one instead. Docker before 23 does not know `defaultErrnoRet`. For clone3(2) the errno is
/// therefore named again: with EPERM, the C library would make no thread.
fn docker() -> String {
    let io_uring = allowed("io_uring", IO_URING);
    let daemon = allowed("the daemon and the C library", DAEMON);
    let runtime = allowed("runc and crun, before they start the daemon", RUNTIME);
    let errno = libc::ENOSYS;
    format!(
        r#"{{
  "defaultAction": "SCMP_ACT_ERRNO",
  "defaultErrnoRet": {errno},
  "syscalls": [
{io_uring},
{daemon},
{runtime},
    {{
      "comment": "threads and processes, but no namespaces",
      "names": [
        "clone"
      ],
      "action": "SCMP_ACT_ALLOW",
      "args": [
        {{
          "index": 0,
          "value": {NAMESPACES},
          "valueTwo": 0,
          "op": "SCMP_CMP_MASKED_EQ"
        }}
      ]
    }},
    {{
      "comment": "its flags are in memory, where no filter can check them",
      "names": [
        "clone3"
      ],
      "action": "SCMP_ACT_ERRNO",
      "errnoRet": {errno}
    }}
  ]
}}
"#
    )
}

/// A group of the profile.
fn allowed(comment: &str, names: &[&str]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("        \"{name}\"")).collect();
    let names = names.join(",\n");
    format!(
        r#"    {{
      "comment": "{comment}",
      "names": [
{names}
      ],
      "action": "SCMP_ACT_ALLOW"
    }}"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_call_is_named_twice() {
        let mut all: Vec<&str> = [IO_URING, DAEMON, RUNTIME].concat();
        all.push("clone");
        let number = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), number);
    }

    #[test]
    fn the_profile_is_json_in_docker_s_format() {
        let profile: serde_json::Value = serde_json::from_str(&docker()).unwrap();
        assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
        assert_eq!(profile["defaultErrnoRet"], 38);
        let groups = profile["syscalls"].as_array().unwrap();
        let names = |at: usize| groups[at]["names"].as_array().unwrap().len();
        assert_eq!([names(0), names(1), names(2)], [IO_URING, DAEMON, RUNTIME].map(<[_]>::len));
        // The value in Docker's default profile.
        assert_eq!(groups[3]["args"][0]["value"], 2_114_060_288_u32);
        let is_allowed = |at: usize| groups[at]["action"] == "SCMP_ACT_ALLOW";
        assert!(groups.len() == 5 && (0..4).all(is_allowed), "{groups:?}");
        assert_eq!(
            (&groups[4]["names"][0], &groups[4]["errnoRet"]),
            (&"clone3".into(), &38.into())
        );
    }
}
