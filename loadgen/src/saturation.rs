//! Detects open-loop runs that measured ringload instead of the server.

use crate::stats::Stats;
use crate::threads::ThreadUse;
use hdrhistogram::Histogram;
use ringload_lifecycle::units::show_time;

/// A smaller lag is ignored: the kernel wakes a sleeping thread up to about 100 µs late.
const LAG_MIN_NS: u64 = 1_000_000;
/// Number of late requests that are no accident; half of all if there are fewer.
const LATE_MIN: u64 = 5;
/// Largest acceptable ratio of lag to latency, both at the 99th percentile.
const LAG_SHARE_MAX: f64 = 0.1;
/// A thread with this share of busy time counts as never idle.
const BUSY_MIN: f64 = 0.95;
/// Largest acceptable share of scheduled requests that were never sent.
const UNSENT_SHARE_MAX: f64 = 0.01;

/// Returns a reason if ringload was the bottleneck.
///
/// There are two criteria:
/// - Requests left late although a connection was free. The 99th percentile of that lag exceeds 1
///   ms and a tenth of the 99th percentile of the latency. With fewer than 500 requests the fifth
///   longest lag counts instead: a single late wake-up is no bottleneck.
/// - A thread had no idle time: it ran, or waited for a CPU, for 95 % of the time. Besides, more
///   than 1 % of the requests were never sent, or requests waited longer to be sent than for the
///   reply.
///
/// A slow server meets neither, because it leaves threads idle and connections busy.
#[must_use]
pub fn judge(stats: &Stats, threads: &[ThreadUse]) -> Option<String> {
    let latency_ns =
        if stats.latency_ns.is_empty() { &stats.session_ns } else { &stats.latency_ns };
    let p99 = |times: &Histogram<u64>| times.value_at_quantile(0.99).min(times.max());
    let sent = stats.lag_ns.len();
    let late = (sent / 100).max(LATE_MIN.min(sent / 2));
    let lag = stats.lag_ns.value_at_quantile(1.0 - late as f64 / sent.max(1) as f64);
    let (lag, latency) = (lag.min(stats.lag_ns.max()), p99(latency_ns));
    if lag > LAG_MIN_NS && lag as f64 > LAG_SHARE_MAX * latency as f64 {
        return Some(format!(
            "ringload was late: although a connection was free, it sent {late} of {sent} requests \
             more than {} after their scheduled time, and the p99 latency is {}; use more CPUs, \
             more --threads or a lower rate",
            show_time(lag),
            show_time(latency)
        ));
    }
    let busiest = threads
        .iter()
        .filter(|thread| thread.name.starts_with("shard-") && thread.busy >= BUSY_MIN)
        .max_by(|one, other| one.busy.total_cmp(&other.busy))?;
    let piled_up = stats.unsent as f64 > UNSENT_SHARE_MAX * stats.intended as f64
        || p99(&stats.latency_ns) > 2 * p99(&stats.service_ns).max(LAG_MIN_NS);
    piled_up.then(|| {
        format!(
            "ringload could not send faster: its thread {} was busy {:.0} % of the time, and {} \
             of {} requests were never sent; use more CPUs, more --threads or a lower rate",
            busiest.name,
            100.0 * busiest.busy,
            stats.unsent,
            stats.intended
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const MS: u64 = 1_000_000;

    fn stats(lag_ns: u64, latency_ns: u64, service_ns: u64, unsent: u64) -> Stats {
        let mut stats = Stats::new();
        (stats.intended, stats.unsent) = (1_000, unsent);
        stats.lag_ns.saturating_record_n(lag_ns, 1_000);
        stats.latency_ns.saturating_record_n(latency_ns, 1_000);
        stats.service_ns.saturating_record_n(service_ns, 1_000);
        stats
    }

    fn threads(busy_ms: u64) -> [ThreadUse; 2] {
        let time = Duration::from_millis;
        [
            ThreadUse::new("ringload", time(1_000), time(990), time(10)),
            ThreadUse::new("shard-0", time(1_000), time(busy_ms - 100), time(100)),
        ]
    }

    #[test]
    fn a_lag_that_is_much_of_the_latency_is_ours() {
        let late = judge(&stats(2 * MS, 10 * MS, 8 * MS, 0), &threads(500));
        let late = late.expect("a fifth is the lag");
        assert!(late.contains("than 2.00 ms") && late.contains("latency is 10.0 ms"), "{late}");
        assert_eq!(judge(&stats(2 * MS, 30 * MS, 28 * MS, 0), &threads(500)), None);
        assert_eq!(
            judge(&stats(MS / 2, MS, MS / 2, 0), &threads(500)),
            None,
            "it is as good as none"
        );
    }

    #[test]
    fn a_single_late_wake_up_is_no_bottleneck() {
        let seldom = |late: u64, of: u64| {
            let mut stats = stats(0, 0, 0, 0);
            stats.lag_ns.reset();
            stats.lag_ns.saturating_record_n(2 * MS, late);
            stats.lag_ns.saturating_record_n(MS / 100, of - late);
            stats.latency_ns.reset();
            stats.latency_ns.saturating_record_n(MS, of);
            judge(&stats, &[]).is_some()
        };
        for (late, of, is_ours) in [
            (1, 20, false),
            (4, 20, false),
            (6, 20, true),
            (3, 4, true),
            (4, 400, false),
            (9, 1_000, false),
            (11, 1_000, true),
        ] {
            assert_eq!(seldom(late, of), is_ours, "{late} of {of}");
        }
    }

    #[test]
    fn requests_that_pile_up_before_a_busy_thread_are_ours() {
        let why = judge(&stats(MS / 10, 900 * MS, MS, 200), &threads(990)).expect("it was busy");
        assert!(why.contains("shard-0 was busy 99 %") && why.contains("200 of 1000"), "{why}");
        // With -n everything is sent in the end.
        assert!(judge(&stats(MS / 10, 900 * MS, MS, 0), &threads(990)).is_some());
        // Busy and in time.
        assert_eq!(judge(&stats(MS / 10, MS, MS, 0), &threads(990)), None);
    }

    #[test]
    fn a_slow_server_is_not_ours() {
        assert_eq!(judge(&stats(MS / 10, 900 * MS, 200 * MS, 200), &threads(300)), None);
        assert_eq!(judge(&stats(MS / 10, 900 * MS, 200 * MS, 200), &[]), None);
    }

    #[test]
    fn sessions_stand_for_the_latency_where_connections_are_on_schedule() {
        let mut stats = Stats::new();
        stats.lag_ns.saturating_record_n(20 * MS, 100);
        stats.session_ns.saturating_record_n(30 * MS, 100);
        assert!(judge(&stats, &[]).is_some());
        stats.session_ns.saturating_record_n(900 * MS, 100);
        assert_eq!(judge(&stats, &[]), None);
    }
}
