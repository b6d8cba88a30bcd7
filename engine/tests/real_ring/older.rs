//! Kernels that lack features: each feature is switched off, so that it counts as not found, and
//! the main tests of this program run again.

use crate::both::{VARIABLE, WITHOUT, kind};
use crate::common::{Scripted, ask, serve};
use ringwright::{Config, Engine, Error, Features, RingChoice, RingKind, probe};
use std::process::Command;

/// Echo, probes, half-closes, resets, deadlines, files both ways, broadcasts, and cancels that race
/// with what they cancel.
const STORIES: [&str; 16] = [
    "lifecycle::bytes_come_in_order_whatever_the_pieces",
    "lifecycle::a_half_close_is_seen_and_still_answered",
    "lifecycle::shutdown_sends_fin_after_the_last_byte_and_still_receives",
    "lifecycle::close_never_turns_an_unread_reply_into_a_reset",
    "lifecycle::abort_is_a_reset",
    "lifecycle::deadlines_end_the_idle_the_half_sent_and_the_stalled",
    "lifecycle::drain_lets_what_is_in_flight_finish",
    "files::files_of_every_size_arrive_whole_and_in_order",
    "files::nothing_leads_out_of_the_directory",
    "files::a_fifo_is_not_opened_for_its_name",
    "files::transfers_that_wait_for_a_pipe_get_one",
    "uploads::files_of_every_size_come_whole_and_the_stream_stays_in_step",
    "handle::a_broadcast_does_with_slow_readers_as_it_is_told",
    "pressure::a_thousand_connections_take_turns_with_sixteen_buffers",
    "pressure::connecting_out_runs_the_same_handlers",
    "pressure::a_connect_that_nobody_answers_times_out",
];

/// Runs the stories again without these features, if this run is about that ring.
fn stories_pass(ring: RingKind, without: &str) {
    if kind() != ring {
        return;
    }
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.arg("--exact").args(STORIES).env(VARIABLE, ring.to_string()).env(WITHOUT, without);
    let output = command.output().expect("this program again");
    let (said, errors) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "without {without}: {said}\n{errors}");
    let all = format!("test result: ok. {} passed", STORIES.len());
    assert!(said.contains(&all), "a story is gone: {said}");
}

#[test]
fn without_multishot_receives() {
    stories_pass(RingKind::IoUring, "multishot_receive");
}

#[test]
fn without_no_sqarray() {
    stories_pass(RingKind::IoUring, "no_sqarray");
}

#[test]
fn without_no_iowait() {
    stories_pass(RingKind::IoUring, "no_iowait");
}

#[test]
fn without_cachestat() {
    stories_pass(kind(), "cachestat");
}

#[test]
fn without_openat2() {
    stories_pass(RingKind::Epoll, "openat2");
}

/// With everything that Linux 6.1 lacks switched off, and what it has and the ring can do without.
#[test]
fn without_any_of_them() {
    stories_pass(kind(), "multishot_receive,no_sqarray,no_iowait,cachestat,openat2");
}

/// No receive is a multishot one, and connections are parked between their messages.
#[test]
fn each_receive_is_a_single_one_where_no_multishot_receive_is_known() {
    if kind() != RingKind::IoUring {
        return;
    }
    let server = serve(|config| config.features.multishot_receive = false);
    let mut client = server.connect();
    for text in ["one", "two", "three"] {
        assert_eq!(ask(&mut client, &format!("echo {text}")), text);
        assert_eq!(server.engine.handle().ledger().sum.streaming_now, 0);
    }
    drop(client);
    server.finish();
}

/// A ring on io_uring cannot be made without these. `auto` takes epoll and says why.
#[test]
fn epoll_serves_where_a_required_feature_is_missing_unless_io_uring_is_asked_for() {
    if kind() != RingKind::IoUring {
        return;
    }
    for (features, name) in [
        (Features { ext_arg: false, ..Features::ALL }, "IORING_FEAT_EXT_ARG"),
        (Features { buffer_ring: false, ..Features::ALL }, "IORING_REGISTER_PBUF_RING"),
    ] {
        let start = |ring| {
            let config = Config { shards: Some(1), ring, features, ..Config::default() };
            Engine::start(config, |_| Scripted::unobserved())
        };
        let engine = start(RingChoice::Auto).expect("it starts on epoll");
        let notices = engine.notices().join("\n");
        assert!(notices.contains("epoll replaces io_uring"), "{notices}");
        assert!(notices.contains(name), "{notices}");
        engine.handle().drain(std::time::Duration::ZERO);
        assert_eq!(engine.join().expect("a clean end").ring.kind, RingKind::Epoll);
        let error = start(RingChoice::IoUring).map(drop).expect_err("it is required");
        let Error::Ring(probe::CreateRingError::KernelTooOld { missing, .. }) = error else {
            panic!("{error}");
        };
        assert_eq!(missing, name);
    }
}
