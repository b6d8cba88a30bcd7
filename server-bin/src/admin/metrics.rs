//! The page at `/metrics`.

use super::exposition::{Exposition, Kind};
use super::samples::about_shards;
use super::watched::{Condition, Watched};
use crate::echo::ending::Ending;
use crate::generation::Generation;
use crate::messages;
use crate::reload::Reloads;
use crate::site::counters::{self, Sums};
use ringwright::Ledger;
use std::fmt::Display;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Metrics of the process, with the standard names of Prometheus client libraries.
pub struct Process {
    /// Time since 1970-01-01.
    started: Duration,
    /// /proc/self/statm. It stays open because the process may have no free descriptor later.
    statm: Option<File>,
}

impl Process {
    /// Creates the metrics of a process that starts now.
    pub fn new() -> Self {
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { started, statm: File::open("/proc/self/statm").ok() }
    }
}

/// Formats all metrics.
pub fn page(watched: &Watched, process: &Process) -> String {
    let mut page = Exposition::default();
    about_itself(&mut page, watched, process);
    if let Some(served) = watched.served() {
        about_engine(&mut page, &served.handle.ledger());
        about_shards(&mut page, &served.handle.shard_ledgers());
    }
    if let Some(reloader) = watched.reloader() {
        about_sites(&mut page, &reloader.generation());
    }
    if let Some(endings) = watched.endings() {
        let name = "ringwright_disconnects_total";
        let help = "Connections ended at random (--disconnect-rate), by the way they ended.";
        page.family(Kind::Counter, name, help);
        for ending in Ending::ALL {
            page.sample(name, &[("ending", &ending.name())], endings.of(ending));
        }
    }
    page.into_text()
}

fn about_itself(page: &mut Exposition, watched: &Watched, process: &Process) {
    use Kind::{Counter, Gauge};
    page.family(Gauge, "ringwright_build_info", "Always 1. The label has the version.");
    page.sample("ringwright_build_info", &[("version", &env!("CARGO_PKG_VERSION"))], 1);
    let ready = watched.condition() == Condition::Ready;
    let help = "1 while the server accepts new connections, else 0.";
    single(page, Gauge, "ringwright_ready", help, u8::from(ready));
    let name = "process_start_time_seconds";
    let help = "Start time of the process in seconds since 1970-01-01 UTC.";
    single(page, Gauge, name, help, process.started.as_secs_f64());
    let name = "ringwright_access_log_lines_lost_total";
    let help = "Lines that the access log (--access-log) has lost: its output was too slow, or \
                writing failed.";
    single(page, Counter, name, help, watched.lines_lost());
    let name = "ringwright_error_log_lines_lost_total";
    let help = "Lines that the error log (--error-log) has lost: its output was too slow, or \
                writing failed.";
    single(page, Counter, name, help, messages::lines_lost());
    if let Some(reloader) = watched.reloader() {
        about_reloads(page, &reloader.counts());
    }
    if let Some(seconds) = cpu_seconds() {
        let help = "User and system CPU time in seconds.";
        single(page, Counter, "process_cpu_seconds_total", help, seconds);
    }
    if let Some(bytes) = process.statm.as_ref().and_then(|statm| resident_bytes(statm).ok()) {
        let help = "Resident memory (RSS) in bytes.";
        single(page, Gauge, "process_resident_memory_bytes", help, bytes);
    }
}

fn about_reloads(page: &mut Exposition, reloads: &Reloads) {
    use Kind::{Counter, Gauge};
    let help = "The number of the configuration in use, from 1.";
    single(page, Gauge, "ringwright_config_generation", help, reloads.generation);
    let help = "1 if the last reload succeeded or there was none, else 0.";
    let name = "ringwright_config_last_reload_successful";
    single(page, Gauge, name, help, u8::from(reloads.last_succeeded));
    let help = "Time of the last successful reload, or of the start, in seconds since 1970-01-01.";
    let name = "ringwright_config_last_reload_success_timestamp_seconds";
    single(page, Gauge, name, help, reloads.last_success);
    let name = "ringwright_config_reloads_total";
    page.family(Counter, name, "Reloads of the configuration, by result.");
    for (result, count) in [("success", reloads.succeeded), ("failure", reloads.failed)] {
        page.sample(name, &[("result", &result)], count);
    }
}

fn about_sites(page: &mut Exposition, generation: &Generation) {
    let sums: Vec<(&str, Sums)> =
        generation.sites().iter().map(|site| (&site.label[..], site.counters.sums())).collect();
    if sums.is_empty() {
        return;
    }
    let name = "ringwright_http_requests_total";
    page.family(Kind::Counter, name, "Replies by site, method and status.");
    for (site, sums) in &sums {
        for (method, status, count) in &sums.replies {
            let labels: [(&str, &dyn Display); 3] =
                [("site", site), ("method", method), ("status", status)];
            page.sample(name, &labels, count);
        }
    }
    let name = "ringwright_http_response_bytes_total";
    page.family(Kind::Counter, name, "Bytes of contents that were queued, by site.");
    for (site, sums) in &sums {
        page.sample(name, &[("site", site)], sums.bytes);
    }
    let name = "ringwright_http_request_duration_seconds";
    let help = "Time from the end of a request's head until its reply was queued, by site.";
    page.family(Kind::Histogram, name, help);
    let bucket = format!("{name}_bucket");
    for (site, sums) in &sums {
        let mut total = 0;
        for (at, count) in sums.durations.iter().enumerate() {
            total += count;
            let bound = counters::BOUNDS_US.get(at).map(|us| Duration::from_micros(*us));
            let bound =
                bound.map_or_else(|| "+Inf".into(), |bound| bound.as_secs_f64().to_string());
            page.sample(&bucket, &[("site", site), ("le", &bound)], total);
        }
        let seconds = Duration::from_micros(sums.duration_us).as_secs_f64();
        page.sample(&format!("{name}_sum"), &[("site", site)], seconds);
        page.sample(&format!("{name}_count"), &[("site", site)], total);
    }
}

fn about_engine(page: &mut Exposition, ledger: &Ledger) {
    use Kind::Gauge;
    let help = "Always 1. The labels have the version and the kernel interface.";
    page.family(Gauge, "ringwright_info", help);
    let version: &dyn Display = &env!("CARGO_PKG_VERSION");
    page.sample("ringwright_info", &[("version", version), ("ring", &ledger.ring.kind)], 1);
    let help = "Maximum number of open connections over all shards (--max-connections).";
    single(page, Gauge, "ringwright_permits", help, ledger.permits.total);
    let help = "Number of further connections that could be opened now.";
    single(page, Gauge, "ringwright_permits_free", help, ledger.permits.free);
    let help = "Number of further clients that could be accepted now.";
    single(page, Gauge, "ringwright_permits_for_clients", help, ledger.permits_for_clients);
    let help = "Maximum number of open descriptors (RLIMIT_NOFILE).";
    single(page, Gauge, "process_max_fds", help, ledger.descriptors.total);
    let help = "Descriptors that the server leaves of process_max_fds.";
    single(page, Gauge, "ringwright_descriptors_free", help, ledger.descriptors.free);
    single(page, Gauge, "ringwright_workers", "Worker threads.", ledger.workers);
    let help = "Jobs that wait for a worker.";
    single(page, Gauge, "ringwright_jobs_queued", help, ledger.jobs_queued);
    single(page, Gauge, "ringwright_jobs_running", "Jobs that are running.", ledger.jobs_running);
    let help = "1 if the ledger balances, else 0. Under load it may be 0 briefly, because the \
                shards publish their counters at different times.";
    single(page, Gauge, "ringwright_ledger_balanced", help, u8::from(ledger.balanced()));
}

fn single(page: &mut Exposition, kind: Kind, name: &str, help: &str, value: impl Display) {
    page.family(kind, name, help);
    page.sample(name, &[], value);
}

fn cpu_seconds() -> Option<f64> {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::uninit();
    // SAFETY: the pointer is valid for writes, and getrusage(2) fills the structure on success.
    let usage = unsafe {
        if libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) != 0 {
            return None;
        }
        usage.assume_init()
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 * 1e-6;
    Some(seconds(usage.ru_utime) + seconds(usage.ru_stime))
}

/// Reads the resident memory. The second number in statm is resident pages: proc_pid_statm(5).
fn resident_bytes(statm: &File) -> io::Result<u64> {
    let mut text = [0; 128];
    let length = statm.read_at(&mut text, 0)?;
    let text = str::from_utf8(&text[..length]).map_err(io::Error::other)?;
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    // SAFETY: sysconf(3) accesses no memory of the caller.
    let page_bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    Ok(pages.unwrap_or(0) * u64::try_from(page_bytes).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringwright::Capacity;

    /// The values of all samples.
    fn values(page: Exposition) -> Vec<String> {
        let text = page.into_text();
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        samples.map(|line| line.rsplit_once(' ').unwrap().1.to_owned()).collect()
    }

    #[test]
    fn every_figure_of_the_engine_is_published() {
        let pair = |total| Capacity { total, free: total - 1 };
        let mut ledger = Ledger::default();
        (ledger.permits, ledger.descriptors) = (pair(111), pair(333));
        ledger.permits_for_clients = 222;
        (ledger.workers, ledger.jobs_queued, ledger.jobs_running) = (444, 555, 666);
        let mut page = Exposition::default();
        about_engine(&mut page, &ledger);
        let values = values(page);
        for value in ["111", "110", "222", "333", "332", "444", "555", "666"] {
            assert!(values.contains(&value.to_owned()), "{value} in {values:?}");
        }
    }
}
