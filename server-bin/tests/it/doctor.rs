//! `ringwrightd doctor`: each cause is made for real, and it names that cause and a remedy.

use crate::common::{command, command_below};
use crate::namespace::{in_mount_namespace, mount, mount_over};
use crate::ring::IO_URING;
use ringwright_test_support::{
    needs_io_uring, needs_root,
    seccomp::{fails_with, filter},
};
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// The three settings of the kernel that decide.
const SETTING: &str = "/proc/sys/kernel/io_uring_disabled";
const GROUP: &str = "/proc/sys/kernel/io_uring_group";
const RELEASE: &str = "/proc/sys/kernel/osrelease";
/// The options for which the limits of a test machine are enough.
const SMALL: [&str; 3] = ["doctor", "--max-connections", "10"];
/// `CAP_SYS_ADMIN` and `CAP_IPC_LOCK` of <linux/capability.h>.
const CAP_SYS_ADMIN: libc::c_ulong = 21;
const CAP_IPC_LOCK: libc::c_ulong = 14;

/// Its exit status, and what it prints with single blanks between words.
#[track_caller]
fn outcome(mut command: Command) -> (Option<i32>, String) {
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.lines().all(|line| line.chars().count() <= 100), "{said}");
    let status = output.status.code();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        stderr.contains("the server cannot run on this system"),
        status == Some(1),
        "{said}"
    );
    (status, said.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// `doctor` after `prepare` in its process.
fn doctor(
    arguments: &[&str],
    prepare: impl Fn() -> io::Result<()> + Send + Sync + 'static,
) -> Command {
    let mut command = command(&[&SMALL[..], arguments].concat());
    // SAFETY: the closures make system calls only, apart from an allocation, which glibc allows
    // after its fork.
    unsafe { command.pre_exec(prepare) };
    command
}

fn filtered(calls: &'static [libc::c_long], outcome: u32, arguments: &[&str]) -> Command {
    doctor(arguments, move || {
        filter(calls, outcome);
        Ok(())
    })
}

/// From the next exec on, root is without this capability; others have none.
fn without(capability: libc::c_ulong) -> io::Result<()> {
    // SAFETY: no pointers.
    unsafe {
        if libc::geteuid() == 0 && libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

#[track_caller]
fn says(said: &str, parts: &[&str]) {
    for part in parts {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn a_filter_is_named_and_epoll_serves() {
    for (outcome_of_calls, cause) in [
        (fails_with(libc::EPERM), "io_uring_setup(2) failed (Operation not permitted"),
        (fails_with(libc::ENOSYS), "io_uring_setup(2) failed (Function not implemented"),
        (libc::SECCOMP_RET_KILL_PROCESS, "io_uring_setup(2) kills the process (signal 31)"),
    ] {
        // A filter of the system's own may come before those of this test.
        if !needs_io_uring() {
            return;
        }
        let (status, said) = outcome(filtered(&IO_URING, outcome_of_calls, &["--ring", "auto"]));
        assert!(said.starts_with("ringwright can run here, on epoll: Linux "), "{said}");
        says(&said, &[cause, "allow io_uring_setup, io_uring_enter and io_uring_register"]);
        says(&said, &["--security-opt seccomp=PROFILE.json", "SystemCallFilter=@aio"]);
        says(&said, &["`ringwrightd doctor --seccomp-profile docker`"]);
        assert!(!said.contains("MEMLOCK"), "epoll locks none: {said}");
        assert_eq!(status, Some(0), "{said}");
        let (status, said) =
            outcome(filtered(&IO_URING, outcome_of_calls, &["--ring", "io_uring"]));
        assert!(said.starts_with("ringwright cannot run here: "), "{said}");
        says(&said, &[cause]);
        assert_eq!(status, Some(1), "{said}");
    }
}

/// The sysctl belongs to the machine, so that this one is left as it is: another text is mounted
/// over it, and a filter answers as the kernel would.
#[test]
fn the_sysctl_is_named() {
    if !needs_root("it mounts files over /proc/sys") || !needs_io_uring() {
        return;
    }
    in_mount_namespace(|| {
        let folder = tempfile::tempdir().unwrap();
        let [setting, group] = ["setting", "group"].map(|name| folder.path().join(name));
        fs::write(&setting, "2\n").unwrap();
        fs::write(&group, "4242\n").unwrap();
        mount_over(&setting, Path::new(SETTING));
        mount_over(&group, Path::new(GROUP));
        let forbidden = || {
            doctor(&["--ring", "auto"], || {
                filter(&IO_URING, fails_with(libc::EPERM));
                without(CAP_SYS_ADMIN)
            })
        };
        let (status, said) = outcome(forbidden());
        assert!(said.starts_with("ringwright can run here, on epoll: Linux "), "{said}");
        says(&said, &["kernel.io_uring_disabled is 2", "sysctl -w kernel.io_uring_disabled=0"]);
        assert!(!said.contains("seccomp"), "{said}");
        assert_eq!(status, Some(0), "{said}");

        fs::write(&setting, "1\n").unwrap();
        let (status, said) = outcome(forbidden());
        says(&said, &["kernel.io_uring_disabled is 1", "CAP_SYS_ADMIN"]);
        says(&said, &["kernel.io_uring_group (4242)", "sysctl -w kernel.io_uring_group=GID"]);
        assert_eq!(status, Some(0), "{said}");
        // A member of the group, and root with CAP_SYS_ADMIN, are forbidden by the filter.
        let mut member = forbidden();
        member.gid(4242);
        let admin = filtered(&IO_URING, fails_with(libc::EPERM), &["--ring", "auto"]);
        for exempt in [member, admin] {
            let (_, said) = outcome(exempt);
            says(&said, &["a container or seccomp profile or a security module forbids it"]);
        }
    });
}

#[test]
fn an_old_kernel_is_named() {
    if !needs_root("it mounts a file over /proc/sys") || !needs_io_uring() {
        return;
    }
    in_mount_namespace(|| {
        let folder = tempfile::tempdir().unwrap();
        let release = folder.path().join("release");
        fs::write(&release, "5.15.0-91-generic\n").unwrap();
        mount_over(&release, Path::new(RELEASE));
        for (errno, lacks) in [
            // Linux 5.15 does not know a flag; before 5.1 there is no io_uring.
            (libc::EINVAL, "it lacks IORING_SETUP_DEFER_TASKRUN"),
            (libc::ENOSYS, "it lacks io_uring"),
        ] {
            let command = filtered(&IO_URING, fails_with(errno), &["--ring", "auto"]);
            let (status, said) = outcome(command);
            let first = "ringwright can run here, on epoll: Linux 5.15.0-91-generic (needed for \
                         io_uring: 6.1)";
            assert!(said.starts_with(first), "{said}");
            says(&said, &["kernel 5.15.0-91-generic is too old", lacks, "use Linux 6.1 or later"]);
            assert_eq!(status, Some(0), "{said}");
        }
    });
}

/// No room for a ring, for its buffers, and for the rings of all shards.
#[test]
fn too_little_locked_memory_is_named() {
    if !needs_io_uring() {
        return;
    }
    let below = |bytes: u64, ring: &'static str| {
        outcome(doctor(&["--shards", "2", "--ring", ring], move || {
            let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
            // SAFETY: the kernel reads the limit during the call.
            assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) }, 0);
            without(CAP_IPC_LOCK)
        }))
    };
    for bytes in [0, 16 << 10, 64 << 10] {
        let (status, said) = below(bytes, "auto");
        assert!(said.starts_with("ringwright cannot run here: "), "{bytes}: {said}");
        let row = format!("RLIMIT_MEMLOCK TOO SMALL {} KiB 288 KiB, unused", bytes >> 10);
        says(&said, &[&row, "ulimit -l unlimited (systemd: LimitMEMLOCK=infinity)"]);
        if bytes < 64 << 10 {
            says(&said, &["the 2 ring(s) of this process need 294912 bytes"]);
            says(&said, &[&format!("RLIMIT_MEMLOCK allows {bytes} bytes for all rings")]);
        }
        assert_eq!(status, Some(1), "{said}");
        let (status, said) = below(bytes, "epoll");
        assert!(said.starts_with("ringwright can run here, on epoll: "), "{said}");
        assert_eq!(status, Some(0), "{said}");
    }
}

#[test]
fn too_few_descriptors_are_named() {
    for ring in ["auto", "epoll"] {
        let arguments = ["doctor", "--shards", "1", "--ring", ring];
        let (status, said) = outcome(command_below("-n 64", &arguments));
        assert!(said.starts_with("ringwright cannot run here"), "{said}");
        says(&said, &["RLIMIT_NOFILE TOO SMALL 64 of 64", "(systemd: LimitNOFILE="]);
        says(&said, &["or allow fewer connections"]);
        assert_eq!(status, Some(1), "{said}");
    }
}

#[test]
fn a_forbidden_openat2_is_named() {
    const CALLS: [libc::c_long; 1] = [libc::SYS_openat2];
    for (outcome_of_call, cause) in [
        (fails_with(libc::EPERM), "openat2(2) fails (Operation not permitted"),
        (fails_with(libc::ENOSYS), "openat2(2) fails (Function not implemented"),
        (libc::SECCOMP_RET_KILL_PROCESS, "openat2(2) kills the process (signal 31)"),
    ] {
        let (status, said) = outcome(filtered(&CALLS, outcome_of_call, &["--ring", "epoll"]));
        assert!(said.starts_with("ringwright can run here, on epoll"), "{said}");
        says(&said, &["openat2(2) absent opening files", cause, "allow openat2 there"]);
        assert_eq!(status, Some(0), "{said}");
    }
}

#[test]
fn a_folder_is_checked() {
    let folder = tempfile::tempdir().unwrap();
    let of = |path: &Path| outcome(doctor(&[path.to_str().unwrap()], || Ok(())));
    let (status, said) = of(folder.path());
    says(&said, &["DIR found", "O_TMPFILE found", "/proc found"]);
    assert_eq!((status, fs::read_dir(folder.path()).unwrap().count()), (Some(0), 0), "{said}");
    let (status, said) = of(&folder.path().join("none"));
    assert!(said.starts_with("ringwright cannot run here"), "{said}");
    says(&said, &["DIR MISSING", "No such file or directory"]);
    assert_eq!(status, Some(1), "{said}");
}

#[test]
fn a_folder_without_o_tmpfile_is_named() {
    if !needs_root("it mounts file systems") {
        return;
    }
    in_mount_namespace(|| {
        let top = tempfile::tempdir().unwrap();
        mount(c"none", top.path(), c"tmpfs", 0, c"");
        let folder = |name: &str| {
            let folder = top.path().join(name);
            fs::create_dir(&folder).unwrap();
            folder
        };
        let of = |path: &Path| outcome(doctor(&[path.to_str().unwrap()], || Ok(())));
        // POSIX message queues: files can be made there, but none without a name.
        let queues = folder("mqueue");
        mount(c"none", &queues, c"mqueue", 0, c"");
        let (status, said) = of(&queues);
        let cause = format!("uploads to {} will fail: its file system has no", queues.display());
        says(&said, &["O_TMPFILE absent packets: uploads", &cause]);
        says(&said, &["put it on ext4, XFS, Btrfs or tmpfs, or use packets --read-only"]);
        assert_eq!(status, Some(0), "{said}");

        let ram = folder("ramfs");
        mount(c"none", &ram, c"ramfs", 0, c"");
        let overlay = folder("overlay");
        let [lower, upper, work] = ["lower", "upper", "work"].map(folder);
        let places = format!(
            "lowerdir={},upperdir={},workdir={}",
            lower.display(),
            upper.display(),
            work.display()
        );
        let places = std::ffi::CString::new(places).unwrap();
        mount(c"none", &overlay, c"overlay", 0, &places);
        for path in [top.path(), &ram, &overlay] {
            says(&of(path).1, &["O_TMPFILE found"]);
        }
        mount(c"none", top.path(), c"", libc::MS_REMOUNT | libc::MS_RDONLY, c"");
        says(&of(top.path()).1, &["O_TMPFILE absent", "it is mounted read-only"]);
    });
}
