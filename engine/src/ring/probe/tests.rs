use super::super::kernel::KernelRing;
use super::super::{Features, RingChoice, RingKind};
use super::*;
use std::process::Command;
use std::time::{Duration, Instant};

/// The longest wait for anything that must happen.
const PATIENCE: Duration = Duration::from_secs(60);

fn facts() -> Facts {
    Facts {
        release: "6.18.44".to_owned(),
        disabled: Some(0),
        group: Some(-1),
        exempt: false,
        rings: 2,
        memlock_needed: 9_000,
        memlock_allowed: Some(8_000),
        descriptors: (1_024, 4_096),
    }
}

fn cause(errno: i32, facts: &Facts) -> CreateRingError {
    CreateRingError::of("io_uring_setup(2)", &io::Error::from_raw_os_error(errno), facts)
}

#[test]
fn a_switched_off_io_uring_is_told_from_a_filtered_one() {
    let with = |disabled| Facts { disabled, ..facts() };
    let off = cause(libc::EPERM, &with(Some(2)));
    assert_eq!(off, CreateRingError::Disabled { value: 2, group: -1 });
    assert!(off.to_string().contains("kernel.io_uring_disabled is 2"), "{off}");
    let reserved = cause(libc::EPERM, &Facts { group: Some(115), ..with(Some(1)) });
    assert!(reserved.to_string().contains("kernel.io_uring_group (115)"), "{reserved}");
    for disabled in [Some(0), None] {
        for errno in [libc::EPERM, libc::EACCES, libc::ENOSYS] {
            let filtered = cause(errno, &with(disabled));
            assert!(matches!(filtered, CreateRingError::Filtered { .. }), "{filtered}");
            assert!(filtered.to_string().contains("container or seccomp profile"), "{filtered}");
            // The system calls of io_uring are in this set, not in @io-event (systemd.exec(5)).
            assert!(filtered.to_string().contains("SystemCallFilter=@aio"), "{filtered}");
        }
    }
}

/// The files of /proc of a process that may do nothing special.
fn proc(disabled: &'static str, group: &'static str) -> impl Fn(&str) -> Option<String> {
    move |name| {
        let text = match name {
            "sys/kernel/osrelease" => "6.18.44\n",
            "sys/kernel/io_uring_disabled" => disabled,
            "sys/kernel/io_uring_group" => group,
            "thread-self/status" => {
                "Uid:\t7\t7\t7\t7\nGid:\t7\t7\t7\t100\nGroups:\t4 115 \nCapEff:\t0000000000000000\n"
            }
            "self/uid_map" => "         0          0 4294967295\n",
            _ => return None,
        };
        Some(text.to_owned())
    }
}

#[test]
fn the_sysctl_is_the_cause_only_where_it_applies_to_this_process() {
    let found = |disabled, group| {
        let facts = Facts::from_texts(proc(disabled, group));
        assert_eq!(facts.release, "6.18.44");
        cause(libc::EPERM, &facts)
    };
    assert_eq!(found("2\n", "-1\n"), CreateRingError::Disabled { value: 2, group: -1 });
    // Not even a member of the group may use it then.
    assert_eq!(found("2\n", "115\n"), CreateRingError::Disabled { value: 2, group: 115 });
    assert_eq!(found("1\n", "116\n"), CreateRingError::Disabled { value: 1, group: 116 });
    let nobody = found("1\n", "-1\n");
    assert_eq!(nobody, CreateRingError::Disabled { value: 1, group: -1 });
    assert!(nobody.to_string().contains("(-1: no group)"), "{nobody}");
    // The group of the file system, a further one, and no sysctl: a filter is the cause.
    for (disabled, group) in [("1\n", "100\n"), ("1\n", "115\n"), ("0\n", "-1\n"), ("", "")] {
        let filtered = found(disabled, group);
        assert!(
            matches!(filtered, CreateRingError::Filtered { .. }),
            "{disabled}{group}: {filtered}"
        );
    }
}

#[test]
fn groups_of_another_namespace_and_other_capabilities_exempt_nobody() {
    let (first, other) = ("0 0 4294967295", "0 100000 65536");
    let status = |capabilities: &str| format!("Gid:\t7\t7\t7\t7\nCapEff:\t{capabilities}\n");
    let is_exempt = |group, capabilities, map| limits::is_exempt(group, &status(capabilities), map);
    assert!(is_exempt(None, "0000000000200000", first), "CAP_SYS_ADMIN");
    assert!(!is_exempt(None, "0000000000200000", other));
    assert!(!is_exempt(None, "0000000000004000", first), "CAP_IPC_LOCK");
    assert!(is_exempt(Some(7), "0", first) && !is_exempt(Some(7), "0", other));
    assert!(!limits::is_exempt(Some(7), "", first) && !limits::is_exempt(None, "", first));
}

#[test]
fn an_old_kernel_is_named_with_what_it_lacks() {
    let old = Facts { release: "5.15.0-91-generic".to_owned(), disabled: None, ..facts() };
    for errno in [libc::EINVAL, libc::ENOSYS] {
        let text = cause(errno, &old).to_string();
        assert!(text.contains("kernel 5.15.0-91-generic is too old"), "{text}");
        assert!(text.contains("Linux 6.1 or later"), "{text}");
    }
    let new = cause(libc::EINVAL, &facts());
    assert_eq!(
        new,
        CreateRingError::Call { call: "io_uring_setup(2)", errno: Errno(libc::EINVAL) }
    );
}

#[test]
fn memory_is_locked_memory_only_where_that_is_limited() {
    let limited = cause(libc::ENOMEM, &facts()).to_string();
    assert!(limited.contains("2 ring(s) of this process need 9000 bytes"), "{limited}");
    assert!(limited.contains("RLIMIT_MEMLOCK allows 8000"), "{limited}");
    assert!(limited.contains("ulimit -l"), "{limited}");
    let free = cause(libc::ENOMEM, &Facts { memlock_allowed: None, ..facts() });
    assert!(matches!(free, CreateRingError::Call { .. }), "{free}");
}

#[test]
fn too_few_descriptors_are_named() {
    let text = cause(libc::EMFILE, &facts()).to_string();
    assert!(text.contains("RLIMIT_NOFILE is 1024 (hard limit 4096)"), "{text}");
    assert!(matches!(cause(libc::ENFILE, &facts()), CreateRingError::Call { .. }));
}

/// The arena is leaked. Half of it is for receiving.
fn setup(arena_bytes: usize) -> Setup {
    Setup {
        submission_entries: 64,
        completion_entries: 256,
        arena_address: Box::leak(vec![0u8; arena_bytes].into_boxed_slice()).as_mut_ptr(),
        arena_bytes,
        arena_registered: true,
        receive_buffers: 128,
        receive_buffer_bytes: u32::try_from(arena_bytes / 256).expect("a small arena"),
        io_workers_max: 1,
        features: Features::ALL,
        started: Instant::now(),
    }
}

#[test]
fn locked_memory_is_counted_in_pages() {
    let setup = setup(1 << 20);
    let page = page_bytes();
    let queues = (512u64 + 4 * 64 + 16 * 256).next_multiple_of(page);
    let entries = (64u64 * 64).next_multiple_of(page);
    let buffers = (16u64 * 128).next_multiple_of(page);
    let least = queues + entries + buffers;
    assert_eq!(memlock_needed(&setup), least + (1 << 20));
    assert_eq!(memlock_needed(&Setup { arena_registered: false, ..setup }), least);
}

/// Limits and filters cannot be undone, so each test runs in a process of its own: this program
/// again, with one test and a variable that marks the child.
fn in_a_child(test: &str, child: impl FnOnce()) {
    const CHILD: &str = "RINGWRIGHT_TEST_CHILD";
    if std::env::var_os(CHILD).is_some() {
        return child();
    }
    if !needs_io_uring() {
        return;
    }
    let (_, module) = module_path!().split_once("::").expect("a module of the crate");
    let output = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", &format!("{module}::{test}"), "--nocapture"])
        .env(CHILD, "1")
        .output()
        .expect("this program again");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("1 passed"), "the test was found: {text}");
}

fn set_limit(resource: libc::__rlimit_resource_t, soft: u64) {
    let limit = libc::rlimit { rlim_cur: soft, rlim_max: soft };
    // SAFETY: the limit is read during the call.
    assert_eq!(unsafe { libc::setrlimit(resource, &raw const limit) }, 0);
}

/// Root may lock without a limit: becomes a user without other processes, because locked memory
/// counts for all processes of a user. An ordinary user stays who it is.
fn becomes_a_user_of_its_own() {
    let user = 1_000_000_000 + std::process::id();
    // SAFETY: no pointers that are read.
    unsafe {
        if libc::geteuid() == 0 {
            assert_eq!(libc::setgroups(0, std::ptr::null()), 0);
            assert_eq!(libc::setgid(user), 0);
            assert_eq!(libc::setuid(user), 0);
        }
    }
}

/// Returns whether the kernel counts rings as locked memory, which not every release does: a ring
/// far larger than the limit fails.
fn rings_count() -> bool {
    io_uring::IoUring::new(32_768).is_err()
}

#[test]
fn an_ordinary_user_is_told_of_the_locked_memory_missing() {
    in_a_child("an_ordinary_user_is_told_of_the_locked_memory_missing", || {
        const ALLOWED: u64 = 256 << 10;
        set_limit(libc::RLIMIT_MEMLOCK, ALLOWED);
        becomes_a_user_of_its_own();
        assert_eq!(memlock_allowed(), Some(ALLOWED));
        let large = setup(1 << 20);
        // An ordinary user's other tests may have filled the limit for a moment.
        let begun = Instant::now();
        let ring = loop {
            match KernelRing::new(&large) {
                Ok(ring) => break ring,
                Err(error) => assert!(begun.elapsed() < PATIENCE, "the rings fit: {error}"),
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        assert!(!ring.has_arena(), "1 MiB in 256 KiB");
        drop(ring);
        set_limit(libc::RLIMIT_MEMLOCK, 4096);
        if !rings_count() {
            return;
        }
        let error = KernelRing::new(&large).map(drop).expect_err("not even the rings fit");
        let CreateRingError::LockedMemory { needed_bytes, allowed_bytes, .. } = error else {
            panic!("{error}");
        };
        assert!(needed_bytes > allowed_bytes && allowed_bytes == 4096, "{needed_bytes}");
    });
}

#[test]
fn the_locked_memory_of_all_rings_of_the_process_is_told() {
    if !ringwright_test_support::needs_root("the count is shared with all rings of the user") {
        return;
    }
    in_a_child("the_locked_memory_of_all_rings_of_the_process_is_told", || {
        let setup = Setup { arena_registered: false, ..setup(1 << 16) };
        let each = memlock_needed(&setup);
        let allowed = 2 * each + page_bytes();
        set_limit(libc::RLIMIT_MEMLOCK, allowed);
        becomes_a_user_of_its_own();
        if !rings_count() {
            return;
        }
        let rings = [(); 2].map(|()| KernelRing::new(&setup).expect("two rings fit"));
        let error = KernelRing::new(&setup).map(drop).expect_err("a third one does not");
        let CreateRingError::LockedMemory { rings: number, needed_bytes, allowed_bytes, .. } =
            error
        else {
            panic!("{error}");
        };
        assert_eq!((number, needed_bytes, allowed_bytes), (3, 3 * each, allowed));
        drop(rings);
        assert_eq!(Held::of_process(), Held { rings: 0, bytes: 0 });
    });
}

/// The result of [`memlock_needed`] is enough, and hardly more than enough.
#[test]
fn the_locked_memory_computed_is_what_the_kernel_asks_for() {
    if !ringwright_test_support::needs_root("the count is shared with all rings of the user") {
        return;
    }
    in_a_child("the_locked_memory_computed_is_what_the_kernel_asks_for", || {
        let setup = setup(1 << 20);
        // An arena of the heap begins in the middle of a page and takes part of one more.
        let enough = memlock_needed(&setup) + page_bytes();
        set_limit(libc::RLIMIT_MEMLOCK, enough);
        becomes_a_user_of_its_own();
        KernelRing::new(&setup).map(drop).expect("as much as computed");
        let unregistered = Setup { arena_registered: false, ..setup };
        set_limit(libc::RLIMIT_MEMLOCK, memlock_needed(&unregistered) - 2 * page_bytes());
        if rings_count() {
            KernelRing::new(&unregistered).map(drop).expect_err("two pages less");
        }
    });
}

#[test]
fn a_full_descriptor_table_is_named() {
    in_a_child("a_full_descriptor_table_is_named", || {
        set_limit(libc::RLIMIT_NOFILE, 3);
        let error = KernelRing::new(&setup(1 << 16)).map(drop).expect_err("no descriptor left");
        let call = "io_uring_setup(2)";
        assert_eq!(error, CreateRingError::Descriptors { call, allowed: 3, hard: 3 });
    });
}

/// Makes io_uring_setup(2) fail with EPERM from now on, as the profile of a container does.
fn forbid_io_uring() {
    let statement = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let number = libc::SYS_io_uring_setup as u32;
    let refuse = libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned();
    let mut program = [
        // `struct seccomp_data` begins with the number of the call.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, number),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, refuse),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the kernel copies the program during the call.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let mode = libc::SECCOMP_MODE_FILTER;
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program), 0);
    }
}

#[test]
fn a_seccomp_filter_is_named() {
    in_a_child("a_seccomp_filter_is_named", || {
        forbid_io_uring();
        let error = KernelRing::new(&setup(1 << 16)).map(drop).expect_err("forbidden");
        let filtered =
            CreateRingError::Filtered { call: "io_uring_setup(2)", errno: Errno(libc::EPERM) };
        assert_eq!(error, filtered);
        let needs = Requirements {
            ring: RingChoice::IoUring,
            shards: 1,
            max_connections: 1,
            memlock_needed_bytes: 0,
            listeners: 1,
            backlog: 1,
            pipes: 1,
            pipe_bytes: 4096,
        };
        let found = examine(&needs);
        assert_eq!((found.ring, found.can_run), (None, false));
        assert_eq!(found.io_uring, Err(filtered));
        let found = examine(&Requirements { ring: RingChoice::Auto, ..needs });
        assert_eq!((found.ring, found.can_run), (Some(RingKind::Epoll), true), "{found}");
    });
}
