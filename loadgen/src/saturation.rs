//! Whether a run on schedule measured the server, or ringload itself.

use crate::stats::Stats;
use crate::threads::ThreadUse;
use crate::units::show_time;
use hdrhistogram::Histogram;

/// A lag below this is nobody's business: a thread that sleeps is woken by some 100 µs later.
const LAG_MIN_NS: u64 = 1_000_000;
/// The lag may be so much of the latency, both at the 99th percentile.
const LAG_SHARE_MAX: f64 = 0.1;
/// A thread that has something to do for so much of the time is never idle.
const BUSY_MIN: f64 = 0.95;
/// Of what was to be sent, so much may be left over.
const UNSENT_SHARE_MAX: f64 = 0.01;

/// Why ringload was the bottleneck; `None`: it was not.
///
/// Either requests left late although a connection was free: the 99th percentile of that lag is more
/// than 1 ms and more than a tenth of the 99th percentile of the latency. Or a thread had no idle
/// time (it ran, or waited for a CPU, for 95 % of the time), and requests piled up before it: more
/// than 1 % were never sent, or they waited longer to be sent than for their replies. A slow server
/// leaves the threads idle, and connections busy: neither is the case.
#[must_use]
pub fn judge(stats: &Stats, threads: &[ThreadUse]) -> Option<String> {
    let latency_ns =
        if stats.latency_ns.is_empty() { &stats.session_ns } else { &stats.latency_ns };
    let p99 = |times: &Histogram<u64>| times.value_at_quantile(0.99).min(times.max());
    let (lag, latency) = (p99(&stats.lag_ns), p99(latency_ns));
    if lag > LAG_MIN_NS && lag as f64 > LAG_SHARE_MAX * latency as f64 {
        return Some(format!(
            "ringload was late: 99 % of its requests left within {} of their time with a \
             connection free, of a p99 of {}",
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
            "ringload could send no faster: its thread {} was busy {:.0} % of the time, and {} of \
             {} requests were never sent",
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
        assert!(late.contains("within 2.00 ms") && late.contains("p99 of 10.0 ms"), "{late}");
        assert_eq!(judge(&stats(2 * MS, 30 * MS, 28 * MS, 0), &threads(500)), None);
        assert_eq!(
            judge(&stats(MS / 2, MS, MS / 2, 0), &threads(500)),
            None,
            "it is as good as none"
        );
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
