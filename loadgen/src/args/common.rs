//! The options that every command takes.

use crate::condition::Expression;
use clap::Args;
use ringload_lifecycle::args::RunArgs;
use ringload_lifecycle::http::Url;
use ringload_lifecycle::units::parse_duration;
use std::path::PathBuf;
use std::time::Duration;

/// The path that stands for standard output.
pub const STDOUT: &str = "-";

/// The options that every command takes.
#[derive(Clone, Debug, Args)]
pub struct CommonArgs {
    /// Write the report to FILE as JSON; report.schema.json describes its fields. - is standard
    /// output; the summary then goes to standard error
    #[arg(long, global = true, value_name = "FILE", env = "RINGLOAD_JSON", hide_env = true)]
    pub json: Option<PathBuf>,
    /// Write the report to FILE as one self-contained HTML page with charts; - is standard output
    #[arg(long, global = true, value_name = "FILE", env = "RINGLOAD_HTML", hide_env = true)]
    pub html: Option<PathBuf>,
    /// Write the latencies of each second to FILE as an HdrHistogram log (format 1.3); - is
    /// standard output
    #[arg(long, value_name = "FILE", env = "RINGLOAD_HLOG", hide_env = true)]
    pub hlog: Option<PathBuf>,
    /// Fail (exit status 1) if this condition is true, for example 'p99>5ms', 'errors.reset>0' or
    /// 'replies_per_s<10k'; repeatable. The end of this help lists the figures
    #[arg(long, global = true, value_name = "EXPRESSION")]
    pub fail_if: Vec<Expression>,
    /// Fail if the ringwrightd with this admin address (its --admin) holds more connections,
    /// buffers or descriptors after the run than before it
    #[arg(
        long,
        global = true,
        value_name = "http://ADMIN",
        env = "RINGLOAD_LEDGER",
        hide_env = true
    )]
    pub ledger: Option<Url>,
    /// Fail if the server process with this id, with its child processes, has more open
    /// descriptors, threads or sockets in CLOSE_WAIT after the run than before it
    #[arg(long, global = true, value_name = "NUMBER", env = "RINGLOAD_PID", hide_env = true)]
    pub pid: Option<u32>,
    /// Longest wait after the run for the server to release everything (for --ledger and --pid)
    #[arg(long, global = true, value_name = "TIME", default_value = "5s",
          env = "RINGLOAD_SETTLE", hide_env = true, value_parser = parse_duration)]
    pub settle: Duration,
    /// Print only the summary: no line per second and no progress
    #[arg(long, global = true, env = "RINGLOAD_QUIET", hide_env = true,
          value_parser = clap::builder::FalseyValueParser::new())]
    pub quiet: bool,
    /// Seed for the bytes that are sent and for everything random. Default: from the clock; the
    /// report contains it, so that a run can be repeated
    #[arg(long, value_name = "NUMBER", env = "RINGLOAD_SEED", hide_env = true)]
    pub seed: Option<u64>,
}

/// The options of a command of `ringload_lifecycle`, and those that every command takes.
#[derive(Clone, Debug, Args)]
pub struct WithCommon<A: Args> {
    /// The options of the command.
    #[command(flatten)]
    pub own: A,
    /// The options that every command takes.
    #[command(flatten)]
    pub common: CommonArgs,
}

impl CommonArgs {
    /// Returns the options that a run needs.
    #[must_use]
    pub const fn run(&self) -> RunArgs {
        RunArgs { seed: self.seed, quiet: self.quiet }
    }

    /// Returns true if a report goes to standard output.
    #[must_use]
    pub fn uses_stdout(&self) -> bool {
        let all = [&self.json, &self.html, &self.hlog];
        all.into_iter().flatten().any(|path| path.as_os_str() == STDOUT)
    }

    /// Returns true if an option is given that applies to exactly one report.
    #[must_use]
    pub fn needs_one_report(&self) -> bool {
        self.json.is_some() || self.html.is_some() || !self.fail_if.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Cli, Target};
    use super::*;
    use ringload_lifecycle::args::{HerdProtocol, IdleArgs};

    #[test]
    fn a_url_may_leave_out_its_port_and_an_address_may_not() {
        let address = |line: &str| match Cli::read(line.split(' ')) {
            Ok(Cli { target: Target::Churn(churn) }) => churn.own.target().map(|it| it.address),
            other => Err(format!("{other:?}")),
        };
        for (line, must) in [
            ("ringload churn http://a:/x", "a:80"),
            ("ringload churn http://a", "a:80"),
            ("ringload churn http://[::1]/", "[::1]:80"),
            ("ringload churn http://[::1]:81/", "[::1]:81"),
            ("ringload churn a:7 --protocol http", "a:7"),
        ] {
            assert_eq!(address(line).as_deref(), Ok(must), "{line}");
        }
        for line in [
            "ringload churn a:",
            "ringload churn a: --protocol http",
            "ringload churn echo://a:",
            "ringload churn http://:/",
        ] {
            let error = address(line).expect_err(line);
            assert!(error.contains("expected") || error.contains("missing"), "{line}: {error}");
        }
    }

    fn read(line: &str) -> Result<WithCommon<IdleArgs>, String> {
        match Cli::read(line.split(' ')).map_err(|error| error.to_string())?.target {
            Target::Idle(idle) => Ok(idle),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn defaults_are_a_thousand_connections_for_a_minute() {
        let idle = read("ringload idle localhost:7000").expect("a command line").own;
        assert_eq!((idle.protocol, idle.connections), (HerdProtocol::Echo, 1_000));
        let seconds = Duration::from_secs;
        assert_eq!((idle.hold, idle.probe_every), (seconds(60), seconds(10)));
        assert_eq!((idle.conn_rate, idle.timeout), (None, seconds(10)));
        assert!(!idle.drain_ok);
        assert_eq!(idle.place(), Ok(("localhost:7000".into(), None)));
        let idle = read(
            "ringload idle a:1 -c 20k --hold 5m --probe-every 30s --conn-rate 2k --timeout 1s \
             --drain-ok --protocol packets --json out --quiet --seed 3",
        )
        .expect("a command line");
        let (idle, common) = (idle.own, idle.common);
        assert_eq!((idle.protocol, idle.connections), (HerdProtocol::Packets, 20_000));
        assert_eq!((idle.hold, idle.probe_every), (seconds(300), seconds(30)));
        assert_eq!((idle.conn_rate, common.seed), (Some(2_000.into()), Some(3)));
        assert!(idle.drain_ok);
    }

    #[test]
    fn http_takes_an_address_or_a_url() {
        for (target, path) in [("localhost:81", "/"), ("http://localhost:81/a?b", "/a?b")] {
            let idle = read(&format!("ringload idle {target} --protocol http")).expect(target).own;
            let (address, url) = idle.place().expect(target);
            assert_eq!((&*address, url.map(|url| url.path)), ("localhost:81", Some(path.into())));
        }
    }

    #[test]
    fn wrong_usage_is_named() {
        for (line, says) in [
            ("ringload idle a", "expected HOST:PORT"),
            ("ringload idle http://a/", "a URL needs --protocol http"),
            ("ringload idle ftp://a/ --protocol http", "ftp:// is not supported"),
            ("ringload idle a:1 --protocol gopher", "invalid value 'gopher'"),
            ("ringload idle a:1 -c 2M", "--connections 2000000 is too large"),
            ("ringload idle a:1 --hold 25h", "--hold must be at most 24h"),
            ("ringload idle a:1 --probe-every 0s", "must not be zero"),
        ] {
            let error = read(line).expect_err(line);
            assert!(error.contains(says), "{line}: {error}");
        }
    }
}
