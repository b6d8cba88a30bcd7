//! The CPU use of each thread of this process, and its waits for a CPU.

use serde::Serialize;
use std::fs;
use std::time::{Duration, Instant};

/// The CPU use of one thread in a period of time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ThreadUse {
    /// Its name: `shard-0`, …
    pub name: String,
    /// CPU time, in our code and in the kernel.
    pub cpu_s: f64,
    /// Time that it was ready to run and others ran.
    pub wait_s: f64,
    /// Share of that time in which it was running or ready to run.
    pub busy: f64,
}

impl ThreadUse {
    /// Describes a thread that ran for `cpu` within `wall` and waited for a CPU for `wait`.
    #[must_use]
    pub fn new(name: &str, wall: Duration, cpu: Duration, wait: Duration) -> Self {
        let busy = (cpu + wait).as_secs_f64() / wall.as_secs_f64().max(f64::MIN_POSITIVE);
        Self {
            name: name.into(),
            cpu_s: cpu.as_secs_f64(),
            wait_s: wait.as_secs_f64(),
            busy: busy.min(1.0),
        }
    }
}

/// The times of all threads at one moment.
#[derive(Clone, Debug)]
pub struct Threads {
    at: Instant,
    threads: Vec<Thread>,
}

#[derive(Clone, Debug)]
struct Thread {
    id: String,
    name: String,
    cpu: Duration,
    wait: Duration,
}

impl Threads {
    /// Reads the threads of this process. Without `CONFIG_SCHED_INFO` in the kernel there are none.
    #[must_use]
    pub fn now() -> Self {
        let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().map_while(Result::ok);
        let threads = tasks.filter_map(|task| {
            let read = |file: &str| fs::read_to_string(task.path().join(file)).ok();
            let (cpu, wait) = parse(&read("schedstat")?)?;
            let id = task.file_name().to_string_lossy().into_owned();
            Some(Thread { id, name: read("comm")?.trim().into(), cpu, wait })
        });
        Self { at: Instant::now(), threads: threads.collect() }
    }

    /// Returns what each thread has used since `before`, those that have ended or begun in between
    /// left out.
    #[must_use]
    pub fn since(&self, before: &Self) -> Vec<ThreadUse> {
        let wall = self.at - before.at;
        let each = self.threads.iter().filter_map(|now| {
            let then = before.threads.iter().find(|then| then.id == now.id)?;
            let cpu = now.cpu.saturating_sub(then.cpu);
            Some(ThreadUse::new(&now.name, wall, cpu, now.wait.saturating_sub(then.wait)))
        });
        let mut all: Vec<_> = each.collect();
        all.sort_by(|one, other| one.name.cmp(&other.name));
        all
    }
}

/// `RUN_NS WAIT_NS SLICES` (Documentation/scheduler/sched-stats.rst).
fn parse(schedstat: &str) -> Option<(Duration, Duration)> {
    let mut times = schedstat.split_whitespace().map(|time| time.parse().map(Duration::from_nanos));
    Some((times.next()?.ok()?, times.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn a_thread_that_works_and_one_that_sleeps_are_told_apart() {
        let (tell, told) = std::sync::mpsc::channel();
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let works = thread::Builder::new().name("works".into()).spawn(move || {
            tell.send(()).expect("it is waited for");
            while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {}
        });
        let works = works.expect("a thread");
        told.recv().expect("it runs");
        // A wait for a CPU that is not over yet is not counted: on a busy machine it takes several
        // tries.
        let begun = std::time::Instant::now();
        let used = loop {
            let before = Threads::now();
            thread::sleep(Duration::from_millis(100));
            let used = Threads::now().since(&before);
            let works = used.iter().find(|one| one.name == "works").expect("it is there");
            if works.cpu_s > 0.0 && works.busy > 0.8 {
                break used;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "{used:?}");
        };
        stop.send(()).expect("it runs");
        works.join().expect("no panic");
        let works = used.iter().find(|one| one.name == "works").expect("it was there");
        let own = fs::read_to_string("/proc/thread-self/comm").expect("a name");
        let own = used.iter().find(|one| one.name == own.trim()).expect("this one");
        assert!(own.busy < works.busy, "{used:?}");
    }

    #[test]
    fn what_is_no_schedstat_is_nothing() {
        let times = (Duration::from_nanos(5), Duration::from_nanos(70));
        assert_eq!(parse("5 70 2\n"), Some(times));
        assert_eq!((parse(""), parse("5"), parse("x 7 2")), (None, None, None));
    }
}
