//! The options of the load commands: `http`, `echo` and `packets`.

use super::CommonArgs;
use crate::profile::{Ramp, Stages};
use crate::report::Pacing;
use clap::{Args, ValueEnum};
use ringload_lifecycle::args::{CONNECTIONS_MAX, DURATION_MAX, RouteArgs};
use ringload_lifecycle::units::{Rate, parse_count, parse_duration};
use ringwright::RingChoice;
use std::time::Duration;

/// Maximum of `--pipeline`.
const PIPELINE_MAX: u64 = 1_024;
/// Maximum of bytes in flight on a connection: they stay in memory until they are sent.
const FLIGHT_BYTES_MAX: u64 = 64 << 20;
/// Maximum of `--rate` and `--conn-rate`, per second.
const RATE_MAX: f64 = 10e6;

ringload_lifecycle::named! {
    /// Distribution of scheduled requests or connections over time.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
    pub enum Arrivals {
        /// At equal intervals
        Uniform = "uniform",
        /// At random times, like independent clients; --seed makes them repeatable
        Poisson = "poisson",
    }
}

/// `--ring`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RingOf {
    /// io_uring, or epoll where io_uring is forbidden
    Auto,
    /// io_uring, or no run
    #[value(name = "io_uring")]
    IoUring,
    /// epoll
    Epoll,
}

impl RingOf {
    /// The engine's setting.
    #[must_use]
    pub const fn choice(self) -> RingChoice {
        match self {
            Self::Auto => RingChoice::Auto,
            Self::IoUring => RingChoice::IoUring,
            Self::Epoll => RingChoice::Epoll,
        }
    }
}

/// The options of the load commands.
#[derive(Clone, Debug, Args)]
pub struct LoadArgs {
    /// Connections to keep open, each with --pipeline requests in flight; with --conn-rate, the
    /// most that may be open at once
    #[arg(short, long, value_name = "COUNT", default_value = "64",
          env = "RINGLOAD_CONNECTIONS", hide_env = true, value_parser = parse_count)]
    pub connections: u64,
    /// Threads that drive the connections, each with its own ring
    #[arg(short, long, value_name = "COUNT", default_value = "1",
          env = "RINGLOAD_THREADS", hide_env = true, value_parser = parse_count)]
    pub threads: u64,
    /// Duration of the run, at most 24h
    #[arg(short, long, value_name = "TIME", default_value = "10s",
          env = "RINGLOAD_DURATION", hide_env = true, value_parser = parse_duration)]
    pub duration: Duration,
    /// Stop after COUNT requests instead of after --duration
    #[arg(id = "count", short = 'n', long, alias = "requests", value_name = "COUNT",
          env = "RINGLOAD_COUNT", hide_env = true, value_parser = parse_count)]
    pub requests: Option<u64>,
    /// Requests to send per second in total (0.2, 20k; also 30/m or 5/h) on a fixed schedule, even
    /// if replies are late (open loop). Latency is measured from the scheduled time. FROM:TO
    /// changes the rate evenly over --duration
    #[arg(short = 'R', long, value_name = "RATE", env = "RINGLOAD_RATE", hide_env = true)]
    pub rate: Option<Ramp>,
    /// Rates of requests that follow each other, instead of --rate and --duration. A line of FILE
    /// is TIME RATE or TIME FROM:TO, for example '30s 1k:20k'
    #[arg(long, value_name = "FILE", env = "RINGLOAD_STAGES", hide_env = true,
          value_parser = Stages::read)]
    pub stages: Option<Stages>,
    /// Connections to open per second in total on a fixed schedule (open loop), each for
    /// --requests-per-connection requests (default 1)
    #[arg(long, value_name = "RATE", env = "RINGLOAD_CONN_RATE", hide_env = true)]
    pub conn_rate: Option<Rate>,
    /// Distribution of the schedule of --rate or --conn-rate over time
    #[arg(
        long,
        value_name = "HOW",
        default_value = "uniform",
        env = "RINGLOAD_ARRIVALS",
        hide_env = true
    )]
    pub arrivals: Arrivals,
    /// Expect the server to drain or restart: refused connects, and connections that it closes
    /// cleanly before the first byte of a reply, are counted but are not errors
    #[arg(long, env = "RINGLOAD_DRAIN_OK", hide_env = true,
          value_parser = clap::builder::FalseyValueParser::new())]
    pub drain_ok: bool,
    /// Expect the server to end connections at any time, by a FIN or a reset: such ends are counted
    /// but are not errors, even in the middle of a reply
    #[arg(long, env = "RINGLOAD_EXPECT_DISCONNECTS", hide_env = true,
          value_parser = clap::builder::FalseyValueParser::new())]
    pub expect_disconnects: bool,
    /// Requests in flight on each connection, at most 1024
    #[arg(long, value_name = "COUNT", default_value = "1",
          env = "RINGLOAD_PIPELINE", hide_env = true, value_parser = parse_count)]
    pub pipeline: u64,
    /// Wait for TIME between a reply and the next request on its connection, at most 24h; needs
    /// --pipeline 1, and no --rate or --conn-rate
    #[arg(long, value_name = "TIME", env = "RINGLOAD_THINK", hide_env = true,
          value_parser = parse_duration)]
    pub think: Option<Duration>,
    /// Close each connection after COUNT requests and open a new one
    #[arg(long, value_name = "COUNT",
          env = "RINGLOAD_REQUESTS_PER_CONNECTION", hide_env = true, value_parser = parse_count)]
    pub requests_per_connection: Option<u64>,
    /// Longest wait for a connect and for a reply (put and get: time without progress), at most 24h
    #[arg(long, global = true, value_name = "TIME", default_value = "10s",
          env = "RINGLOAD_TIMEOUT", hide_env = true, value_parser = parse_duration)]
    pub timeout: Duration,
    /// Pin the first thread to this CPU and each further thread to the next one. CPUs are counted
    /// from 0 among those that this process may use
    #[arg(long, value_name = "CPU", env = "RINGLOAD_PIN_FROM", hide_env = true)]
    pub pin_from: Option<usize>,
    /// Kernel interface of the threads. Where auto chooses epoll, standard error says why.
    /// Transfers of files need none
    #[arg(
        long,
        global = true,
        value_name = "RING",
        default_value = "auto",
        env = "RINGLOAD_RING",
        hide_env = true
    )]
    pub ring: RingOf,
    /// The options that say how connections reach the server.
    #[command(flatten)]
    pub route: RouteArgs,
    /// The options that every command takes.
    #[command(flatten)]
    pub common: CommonArgs,
}

impl LoadArgs {
    /// Returns what triggers the next request: a reply, or a schedule.
    #[must_use]
    pub const fn pacing(&self) -> Pacing {
        match (self.rate.is_some() || self.stages.is_some(), self.conn_rate) {
            (true, _) => Pacing::Requests,
            (false, Some(_)) => Pacing::Connections,
            (false, None) => Pacing::Closed,
        }
    }

    /// Drops settings from the environment that the command line overrides, and checks that the
    /// options fit together. `message_bytes` is the size of one message. `from_line` returns true
    /// for an option that was given on the command line.
    ///
    /// # Errors
    /// Names the options that do not fit together, and the limit.
    pub fn settle(
        &mut self,
        message_bytes: u64,
        from_line: impl Fn(&str) -> bool,
    ) -> Result<(), String> {
        match (from_line("duration"), from_line("count")) {
            (true, true) => return Err("give either --duration or --count, not both".into()),
            // RINGLOAD_COUNT is overridden by the command line.
            (true, false) => self.requests = None,
            (false, _) => {}
        }
        if self.duration > DURATION_MAX || self.timeout > DURATION_MAX {
            return Err("--duration and --timeout must be at most 24h".into());
        }
        if self.connections > CONNECTIONS_MAX {
            return Err(format!(
                "--connections {} is too large; the maximum is {CONNECTIONS_MAX}",
                self.connections
            ));
        }
        if self.threads > self.connections {
            return Err(format!(
                "--threads {} exceeds --connections {}: each thread needs at least one connection",
                self.threads, self.connections
            ));
        }
        self.route.check_unbound(&from_line)?;
        self.check_rates(&from_line)?;
        self.check_think(from_line)?;
        if self.pipeline > PIPELINE_MAX {
            return Err(format!(
                "--pipeline {} is too large; the maximum is {PIPELINE_MAX}",
                self.pipeline
            ));
        }
        if message_bytes.saturating_mul(self.pipeline) > FLIGHT_BYTES_MAX {
            return Err(format!(
                "{} requests of {message_bytes} bytes in flight are too large; the maximum of all \
                 together is 64MiB",
                self.pipeline
            ));
        }
        Ok(())
    }

    fn check_think(&mut self, from_line: impl Fn(&str) -> bool) -> Result<(), String> {
        if self.think.is_some_and(|think| think > DURATION_MAX) {
            return Err("--think must be at most 24h".into());
        }
        if self.is_on_schedule() || self.pipeline > 1 {
            if from_line("think") {
                return Err("--think needs --pipeline 1, and no --rate or --conn-rate".into());
            }
            // From the environment, for other runs.
            self.think = None;
        }
        Ok(())
    }

    fn check_rates(&mut self, from_line: impl Fn(&str) -> bool) -> Result<(), String> {
        // A rate in the environment is overridden by another one on the command line.
        let given = ["rate", "conn_rate", "stages"].map(&from_line);
        if given.contains(&true) {
            let [rate, conn_rate, stages] = given;
            self.rate = self.rate.filter(|_| rate);
            self.conn_rate = self.conn_rate.filter(|_| conn_rate);
            self.stages = self.stages.take().filter(|_| stages);
        }
        let rates = [self.rate.is_some(), self.conn_rate.is_some(), self.stages.is_some()];
        if rates.iter().filter(|is_set| **is_set).count() > 1 {
            return Err("--rate, --conn-rate and --stages: give one, not both".into());
        }
        if let Some(stages) = &self.stages {
            if from_line("duration") || from_line("count") {
                return Err(
                    "--stages sets the duration; --duration and --count do not apply".into()
                );
            }
            (self.duration, self.requests) = (stages.length(), None);
        }
        if self.rate.is_some_and(|ramp| !ramp.is_constant()) {
            if from_line("count") {
                return Err("--rate FROM:TO needs --duration, not --count".into());
            }
            self.requests = None;
        }
        let rate = self.rate.map(|ramp| ramp.from.per_s().max(ramp.to.per_s()));
        let conn_rate = self.conn_rate.map(Rate::per_s);
        let stages = self.stages.as_ref().map(Stages::rate_max);
        for (name, rate) in [("--rate", rate), ("--conn-rate", conn_rate), ("--stages", stages)] {
            if rate.is_some_and(|rate| rate > RATE_MAX) {
                return Err(format!("{name} must be at most 10M"));
            }
        }
        if from_line("arrivals") && !self.is_on_schedule() {
            return Err("--arrivals needs --rate or --conn-rate, or --stages".into());
        }
        Ok(())
    }

    /// Returns the stages of a rate that changes.
    #[must_use]
    pub fn stages(&self) -> Option<Stages> {
        let ramp = self.rate.filter(|ramp| !ramp.is_constant());
        self.stages.clone().or_else(|| Some(Stages::one(self.duration, ramp?)))
    }

    /// Returns the rate of the requests if it does not change.
    #[must_use]
    pub fn constant_rate(&self) -> Option<Rate> {
        self.rate.filter(|ramp| ramp.is_constant()).map(|ramp| ramp.from)
    }

    /// Returns the number of requests after which a connection is closed, or `None` if connections
    /// stay open.
    #[must_use]
    pub fn quota(&self) -> Option<u64> {
        let default = matches!(self.pacing(), Pacing::Connections).then_some(1);
        self.requests_per_connection.or(default)
    }

    /// Returns true if `--rate` or `--conn-rate` is set.
    #[must_use]
    pub const fn is_on_schedule(&self) -> bool {
        !matches!(self.pacing(), Pacing::Closed)
    }
}
