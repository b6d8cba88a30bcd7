//! The options of `churn` and `replay`.

use super::{CONNECTIONS_MAX, DURATION_MAX, RouteArgs, parse_address};
use crate::cell::Faults;
use crate::dialect::Limits;
use crate::dialects::Hints;
use crate::dialects::http::Strictness;
use crate::script::Target;
use crate::units::{Rate, parse_count, parse_duration};
use clap::Args;
use std::time::Duration;

/// Default of `--timeout`.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// Maximum of `--timeout` and `--deadline`.
const PATIENCE_MAX: Duration = Duration::from_secs(10 * 60);
/// Maximum of `--bystanders`: one thread serves them all.
const BYSTANDERS_MAX: u64 = 1_000;
/// Maximum of `--times` and `--company`.
const TIMES_MAX: u64 = 1_000_000;

/// The options that set what the server may and must do.
#[derive(Clone, Debug, Args)]
pub struct OracleArgs {
    /// Longest wait for a reply, or for the server's reaction to a fault; at most 10m
    #[arg(id = "timeout", long, alias = "patience", value_name = "TIME", default_value = "5s",
          env = "RINGLOAD_TIMEOUT", hide_env = true, value_parser = parse_duration)]
    pub patience: Duration,
    /// The server's own idle or request timeout, at most 10m. A connection that is silent for this
    /// time may be closed; one that stays open for --timeout longer is a finding
    #[arg(long, value_name = "TIME",
          env = "RINGLOAD_DEADLINE", hide_env = true, value_parser = parse_duration)]
    pub deadline: Option<Duration>,
    /// Accept that a full server refuses a connection, or closes it without sending a byte
    #[arg(long)]
    pub may_reject: bool,
    /// http: rules for the server. Default: own for a server that sends `Server: ringwright`, else
    /// foreign
    #[arg(long, value_name = "RULES", env = "RINGLOAD_ORACLE", hide_env = true, value_enum)]
    pub oracle: Option<Strictness>,
    /// http: path to request in addition to that of ADDRESS; repeatable. Its body must not change
    /// during the run, see --vary-ok
    #[arg(long = "path", value_name = "PATH")]
    pub paths: Vec<String>,
    /// http: accept that the body of a path differs between replies; status and framing are still
    /// checked
    #[arg(long, visible_alias = "bodies-may-vary", env = "RINGLOAD_VARY_OK", hide_env = true,
          value_parser = clap::builder::FalseyValueParser::new())]
    pub vary_ok: bool,
    /// The options that say how connections reach the server.
    #[command(flatten)]
    pub route: RouteArgs,
}

impl OracleArgs {
    /// Returns the limits in the form that oracles use.
    #[must_use]
    pub const fn limits(&self) -> Limits {
        Limits { patience: self.patience, deadline: self.deadline, may_reject: self.may_reject }
    }

    /// Returns the hints for a dialect that requests `paths` in addition to `--path`.
    #[must_use]
    pub fn hints(&self, paths: Vec<String>) -> Hints {
        let paths = paths.into_iter().chain(self.paths.iter().cloned()).collect();
        Hints {
            paths,
            strictness: self.oracle,
            timeout: self.patience,
            vary_ok: self.vary_ok,
            route: self.route.route(),
        }
    }

    fn check(&self) -> Result<(), String> {
        match self.patience.max(self.deadline.unwrap_or_default()) > PATIENCE_MAX {
            true => Err("--timeout and --deadline must be at most 10m".into()),
            false => Ok(()),
        }
    }
}

/// The options of `churn`.
#[derive(Clone, Debug, Args)]
pub struct ChurnArgs {
    /// The server: HOST:PORT, or PROTOCOL://HOST:PORT[/PATH]
    pub address: String,
    /// Protocol of the server if ADDRESS does not name it: echo, http or packets
    #[arg(
        long,
        value_name = "NAME",
        default_value = "echo",
        env = "RINGLOAD_PROTOCOL",
        hide_env = true
    )]
    pub protocol: String,
    /// Faults to use: all, or a comma-separated list of points, kinds and POINT/KIND pairs; -NAME
    /// excludes one. The end of this help lists the names
    #[arg(
        long,
        value_name = "NAMES",
        default_value = "all",
        allow_hyphen_values = true,
        env = "RINGLOAD_FAULTS",
        hide_env = true
    )]
    pub faults: Faults,
    /// Scripts to run at the same time
    #[arg(short, long, value_name = "COUNT", default_value = "64",
          env = "RINGLOAD_CONNECTIONS", hide_env = true, value_parser = parse_count)]
    pub connections: u64,
    /// Duration of the run, at most 24h
    #[arg(short, long, value_name = "TIME", default_value = "10s",
          env = "RINGLOAD_DURATION", hide_env = true, value_parser = parse_duration)]
    pub duration: Duration,
    /// Stop after COUNT scripts instead of after --duration
    #[arg(short = 'n', long, value_name = "COUNT",
          env = "RINGLOAD_COUNT", hide_env = true, value_parser = parse_count)]
    pub count: Option<u64>,
    /// Scripts to start per second, while fewer than --connections are running. Default: no limit
    #[arg(long, value_name = "RATE", env = "RINGLOAD_CONN_RATE", hide_env = true)]
    pub conn_rate: Option<Rate>,
    /// Well-behaved connections whose latency is measured before and during the faults, at most
    /// 1000; 0 disables them
    #[arg(
        long,
        value_name = "COUNT",
        default_value = "8",
        env = "RINGLOAD_BYSTANDERS",
        hide_env = true
    )]
    pub bystanders: u64,
    /// The options that set what the server may and must do.
    #[command(flatten)]
    pub oracle: OracleArgs,
}

impl ChurnArgs {
    /// Returns the server.
    ///
    /// # Errors
    /// ADDRESS is not valid.
    pub fn target(&self) -> Result<Target, String> {
        match self.address.contains("://") {
            true => self.address.parse(),
            false => {
                parse_address(&self.address)?;
                format!("{}://{}", self.protocol, self.address).parse()
            }
        }
    }

    /// Returns the limits in the form that oracles use.
    #[must_use]
    pub const fn limits(&self) -> Limits {
        self.oracle.limits()
    }

    /// Completes and checks the options. `from_line` tells of an option by its name whether the
    /// command line has it.
    ///
    /// # Errors
    /// Options exclude each other, or a value is too large.
    pub fn settle(&mut self, from_line: impl Fn(&str) -> bool) -> Result<(), String> {
        match (from_line("duration"), from_line("count")) {
            (true, true) => return Err("give either --duration or --count, not both".into()),
            // RINGLOAD_COUNT is overridden by the command line.
            (true, false) => self.count = None,
            (false, _) => {}
        }
        self.target()?;
        self.oracle.check()?;
        if self.duration > DURATION_MAX {
            return Err("--duration must be at most 24h".into());
        }
        if self.connections > CONNECTIONS_MAX {
            return Err(format!(
                "--connections {} is too large; the maximum is {CONNECTIONS_MAX}",
                self.connections
            ));
        }
        if self.bystanders > BYSTANDERS_MAX {
            return Err(format!("--bystanders must be at most {BYSTANDERS_MAX}"));
        }
        Ok(())
    }
}

/// The options of `replay`.
#[derive(Clone, Debug, Args)]
pub struct ReplayArgs {
    /// A script, or a file with one script per line; - is standard input. Several scripts run at
    /// the same time and start in the order given
    #[arg(required = true, value_name = "SCRIPT")]
    pub scripts: Vec<String>,
    /// Repeat up to COUNT times, until a run has a finding
    #[arg(long, value_name = "COUNT", default_value = "1", value_parser = parse_count)]
    pub times: u64,
    /// Run COUNT copies of each script at the same time, each with different bytes
    #[arg(long, value_name = "COUNT", default_value = "1", value_parser = parse_count)]
    pub company: u64,
    /// The options that set what the server may and must do.
    #[command(flatten)]
    pub oracle: OracleArgs,
}

impl ReplayArgs {
    /// Checks the options.
    ///
    /// # Errors
    /// A value is too large.
    pub fn check(&self) -> Result<(), String> {
        self.oracle.check()?;
        if self.times > TIMES_MAX || self.company > TIMES_MAX {
            return Err(format!("--times and --company must be at most {TIMES_MAX}"));
        }
        Ok(())
    }
}
