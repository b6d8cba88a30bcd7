use super::super::needs_io_uring;
use super::*;

const NEEDS: Requirements = Requirements {
    ring: RingChoice::Auto,
    shards: 2,
    max_connections: 10_000,
    memlock_needed_bytes: 1 << 20,
    listeners: 1,
    backlog: 1_024,
    pipes: 64,
    pipe_bytes: 64 << 10,
};

fn assert_fits_a_screen(text: &str) {
    assert!(text.lines().count() <= 42, "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= COLUMNS), "{text}");
    assert!(text.lines().all(|line| line.trim_end() == line), "{text}");
}

#[test]
fn this_machine_is_examined() {
    let small = Requirements { max_connections: 10, backlog: 16, pipes: 1, ..NEEDS };
    let found = examine(&small);
    if !needs_io_uring() {
        assert_eq!((found.ring, found.can_run), (Some(RingKind::Epoll), true), "{found}");
        return assert_fits_a_screen(&found.to_string());
    }
    assert_eq!((found.ring, &found.io_uring), (Some(RingKind::IoUring), &Ok(())));
    assert_eq!(found.features.len(), 9 + OPERATIONS.len());
    let enough = |feature: &Feature| feature.found || !feature.required;
    assert!(found.features.iter().all(enough), "{found}");
    assert!(found.can_run, "{found}");
    assert_fits_a_screen(&found.to_string());
}

#[test]
fn epoll_replaces_what_is_forbidden_unless_io_uring_is_asked_for() {
    let forbidden = || Err(CreateRingError::Disabled { value: 2, group: -1 });
    assert_eq!(choose(RingChoice::Auto, &Ok(())), Some(RingKind::IoUring));
    assert_eq!(choose(RingChoice::Auto, &forbidden()), Some(RingKind::Epoll));
    assert_eq!(choose(RingChoice::IoUring, &forbidden()), None);
    assert_eq!(choose(RingChoice::Epoll, &Ok(())), Some(RingKind::Epoll));
    let call = "io_uring_setup(2)";
    let full = Err(CreateRingError::Descriptors { call, allowed: 3, hard: 3 });
    assert_eq!(choose(RingChoice::Auto, &full), None);
}

#[test]
fn descriptors_are_counted_for_all_that_hold_them() {
    // 10,000 connections, 2 * (ring, its event, wake-up, listener, 1,024 waiting, 128 pipe ends),
    // 64.
    let needed = 10_000 + 2 * (3 + 1 + 1_024 + 128) + 64;
    assert!(descriptors(&NEEDS, (needed, needed)).enough);
    let low = descriptors(&NEEDS, (needed - 1, needed));
    assert!(!low.enough && low.required);
    assert!(low.remedy.starts_with(&format!("ulimit -n {needed}")), "{}", low.remedy);
    let lower = descriptors(&NEEDS, (1_024, 4_096));
    assert!(lower.remedy.contains("hard limit"), "{}", lower.remedy);
}

#[test]
fn locked_memory_counts_for_all_shards() {
    assert!(locked_memory(&NEEDS, None).enough);
    assert!(locked_memory(&NEEDS, Some(2 << 20)).enough);
    assert!(!locked_memory(&NEEDS, Some((2 << 20) - 1)).enough);
}

#[test]
fn what_only_slows_is_not_required() {
    let low = backlog(&NEEDS, Some(128));
    assert!(!low.enough && !low.required);
    assert!(backlog(&NEEDS, Some(1_024)).enough && backlog(&NEEDS, None).enough);
    // 2 shards, 64 pipes of 64 KiB.
    let pages = 2 * 64 * ((64 << 10) / page_bytes());
    assert!(pipes(&NEEDS, Some(pages)).enough && !pipes(&NEEDS, Some(pages - 1)).enough);
    assert!(!pipes(&NEEDS, Some(1)).required);
    assert!(cpus(&NEEDS, 2, None).enough && cpus(&NEEDS, 4, Some(2.0)).enough);
    assert!(!cpus(&NEEDS, 1, None).enough && !cpus(&NEEDS, 4, Some(1.5)).enough);
}

/// All that can go wrong at once, with long numbers.
#[test]
fn the_worst_case_fits_a_screen() {
    let needs = Requirements {
        ring: RingChoice::Auto,
        shards: 1_024,
        max_connections: 10_000_000,
        memlock_needed_bytes: 1 << 32,
        listeners: 64,
        backlog: 65_535,
        pipes: 32_000,
        pipe_bytes: 1 << 20,
    };
    let limits = vec![
        descriptors(&needs, (1 << 20, 1 << 30)),
        locked_memory(&needs, Some(1 << 30)),
        backlog(&needs, Some(1)),
        pipes(&needs, Some(16_384)),
        cpus(&needs, 1_000, Some(0.25)),
    ];
    assert!(limits.iter().all(|limit| !limit.enough));
    let mut features = features(true, true);
    for feature in &mut features {
        feature.found = false;
    }
    let release = "6.18.44-some-distribution-with-a-long-name".to_owned();
    let ring = Some(RingKind::IoUring);
    let missing = Examination { release, ring, io_uring: Ok(()), features, limits, can_run: false };
    assert_fits_a_screen(&missing.to_string());

    let found = missing.release.clone();
    let too_old = CreateRingError::KernelTooOld { found, missing: "IORING_SETUP_DEFER_TASKRUN" };
    let disabled = CreateRingError::Disabled { value: 1, group: i64::MAX };
    for error in [too_old, disabled] {
        let examination = Examination {
            ring: None,
            io_uring: Err(error),
            features: Vec::new(),
            ..missing.clone()
        };
        let text = examination.to_string();
        assert_fits_a_screen(&text);
        assert!(text.starts_with("ringwright cannot run here"), "{text}");
    }
}
