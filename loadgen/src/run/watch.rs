//! The thread that watches a run.

use super::GRACE;
use super::live;
use crate::args::LoadArgs;
use crate::load::Shared;
use crate::network::Network;
use crate::report::{Interval, Pacing, Run};
use crate::stats::Stats;
use crate::summary;
use ringload_lifecycle::screen::Screen;
use ringload_lifecycle::system::{self, Interrupts};
use ringload_lifecycle::timeline::Timeline;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// Interval at which the thread checks the shards.
const POLL: Duration = Duration::from_millis(10);
/// Interval between two lines of output.
const LINE: Duration = Duration::from_secs(1);

/// Longest wait for aborted connections; the engine itself waits three seconds for them.
const ABORTED_MAX: Duration = Duration::from_secs(5);

/// Watches a run, prints its progress and ends it.
pub struct Watch<'a> {
    load: &'a LoadArgs,
    title: &'a str,
    screen: Screen,
    pacing: Pacing,
    shared: Arc<Shared>,
    start: Instant,
    last_line: Duration,
    next_line: Duration,
    stopped_at: Duration,
    run: Run,
}

impl<'a> Watch<'a> {
    /// Creates a watch over the counts in `shared`; `title` describes the run.
    pub fn new(load: &'a LoadArgs, title: &'a str, shared: Arc<Shared>) -> Self {
        let start = *shared.started.get_or_init(Instant::now);
        let run = Run {
            stats: Stats::new(),
            intervals: Vec::new(),
            timeline: Timeline::default(),
            elapsed: Duration::ZERO,
            cpu: system::CpuTime::default(),
            threads: Vec::new(),
            network: Network::default(),
            interrupted: false,
        };
        Self {
            load,
            title,
            screen: Screen::open(title, load.common.quiet),
            pacing: load.pacing(),
            shared,
            start,
            last_line: Duration::ZERO,
            next_line: LINE,
            stopped_at: Duration::ZERO,
            run,
        }
    }

    /// Returns after the duration, when all requests are sent, when no connection can be
    /// established, or on a signal.
    pub fn until_over(&mut self, interrupts: &Interrupts) {
        let end = if self.load.requests.is_some() { Duration::MAX } else { self.load.duration };
        loop {
            let elapsed = self.start.elapsed();
            self.stopped_at = elapsed;
            if elapsed >= self.next_line {
                self.line(elapsed);
            }
            self.show(elapsed);
            if elapsed >= end || self.is_over() {
                return;
            }
            let nap = POLL.min(end - elapsed).min(self.next_line.saturating_sub(elapsed));
            if interrupts.wait(nap) {
                self.run.interrupted = true;
                return;
            }
        }
    }

    fn is_over(&self) -> bool {
        let shards = self.load.threads as usize;
        let all = |count: usize| count == shards;
        all(self.shared.finished.load(Ordering::Relaxed))
            || (all(self.shared.hopeless.load(Ordering::Relaxed))
                && !self.shared.connected.load(Ordering::Relaxed))
    }

    /// Takes the counts that the shards have published since the last call and prints a line.
    fn line(&mut self, elapsed: Duration) {
        let mut part = Stats::new();
        part.absorb(&mut self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner));
        let (start, length) = (self.last_line, elapsed - self.last_line);
        let interval = Interval::of(&part, self.pacing, elapsed, length);
        self.keep_histograms(&part, start, length);
        self.run.stats.absorb(&mut part);
        let line = summary::line(&interval, self.run.stats.replies);
        self.screen.line(&summary::heading(), line);
        self.run.keep(interval);
        self.last_line = elapsed;
        while self.next_line <= elapsed {
            self.next_line += LINE;
        }
    }

    /// Updates the live view, if there is one.
    fn show(&mut self, elapsed: Duration) {
        let Self { load, title, screen, pacing, run, .. } = self;
        let done = match load.requests {
            Some(requests) => run.stats.requests as f64 / requests as f64,
            None => elapsed.as_secs_f64() / load.duration.as_secs_f64(),
        };
        screen.show(|| live::load(title, *pacing, &run.stats, &run.intervals, elapsed, Some(done)));
    }

    fn keep_histograms(&mut self, part: &Stats, start: Duration, length: Duration) {
        for (tag, times) in [
            ("latency", &part.latency_ns),
            ("session", &part.session_ns),
            ("service", &part.service_ns),
            ("connect", &part.connect_ns),
            ("lag", &part.lag_ns),
        ] {
            self.run.timeline.keep(tag, start, length, times);
        }
    }

    /// Stops the engine and waits for the requests in flight. Waits up to `--timeout`, so that the
    /// end of the run does not hide a server that hangs. After a signal, waits up to [`GRACE`];
    /// after a second signal, not at all.
    pub fn stop(&mut self, engine: &ringwright::Engine, interrupts: &Interrupts) {
        let handle = engine.handle();
        self.shared.interrupted.store(self.run.interrupted, Ordering::Relaxed);
        self.shared.ended_ns.store(self.stopped_at.as_nanos() as u64, Ordering::Relaxed);
        self.shared.stop.store(true, Ordering::Relaxed);
        let wait = if self.run.interrupted { GRACE } else { self.load.timeout + GRACE };
        let mut until = Instant::now() + wait + ABORTED_MAX;
        handle.drain(wait);
        // A count of zero open connections is no end condition: none is counted in the first turn,
        // and a thread that joins the engine cannot receive the second signal.
        while !engine.is_finished() && Instant::now() < until {
            if interrupts.wait(Duration::from_millis(1)) {
                if self.run.interrupted {
                    self.screen.close();
                    ringload_lifecycle::note!("ringload: interrupted twice; no report is written");
                    std::process::exit(130);
                }
                self.run.interrupted = true;
                self.shared.interrupted.store(true, Ordering::Relaxed);
                handle.drain(Duration::ZERO);
                until = Instant::now() + ABORTED_MAX;
            }
        }
    }

    /// Returns the result after the shards have ended.
    pub fn result(mut self) -> Run {
        let mut rest = Stats::new();
        rest.absorb(&mut self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner));
        let length = self.start.elapsed().saturating_sub(self.last_line);
        self.keep_histograms(&rest, self.last_line, length);
        self.run.stats.absorb(&mut rest);
        let last_reply = Duration::from_nanos(self.run.stats.last_reply_ns);
        // A run with --count ends with the last reply, not when the thread notices it.
        let all_sent = self.load.requests.is_some() && !self.run.interrupted;
        self.run.elapsed = match all_sent && !last_reply.is_zero() {
            true => last_reply,
            false => last_reply.max(self.stopped_at),
        };
        self.run
    }
}
