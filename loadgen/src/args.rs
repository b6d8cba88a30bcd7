//! The command line.

use crate::http::{Url, head};
use crate::units::{parse_count, parse_duration, parse_size};
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use std::path::PathBuf;
use std::time::Duration;

/// Most connections of a run: beyond, a single address has no ports for them by far.
const CONNECTIONS_MAX: u64 = 1_000_000;
/// Most requests in flight on a connection.
const PIPELINE_MAX: u64 = 1_024;
/// Most bytes in flight on a connection: they are kept in memory until they are sent.
const FLIGHT_BYTES_MAX: u64 = 64 << 20;
/// Longest run and longest wait for a reply.
const DURATION_MAX: Duration = Duration::from_secs(24 * 60 * 60);

const EXAMPLES: &str = "\
Examples:
  ringload http http://127.0.0.1:8080/ -c 256 -d 30s
  ringload http http://127.0.0.1:8080/ -n 100k --requests-per-connection 10
  ringload echo 127.0.0.1:7000 --size 4KiB --pipeline 8 --json report.json

Exit status:
  0  every reply was right        3    nothing could be connected to
  1  errors were seen             130  interrupted; the report covers what was done
  2  wrong usage

Every option but -H can be set in the environment: --requests-per-connection is
RINGLOAD_REQUESTS_PER_CONNECTION. What is given on the command line goes first.";

/// Puts load on a server and checks every byte that comes back.
#[derive(Debug, Parser)]
#[command(name = "ringload", version, after_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    /// What to speak, and to whom.
    #[command(subcommand)]
    pub target: Target,
}

/// What to speak, and to whom.
#[derive(Debug, Subcommand)]
pub enum Target {
    /// GET one URL over HTTP/1.1; every body must be the first one's
    #[command(after_help = EXAMPLES, max_term_width = 100)]
    Http {
        /// What to ask for.
        #[arg(help = "http://HOST[:PORT][/PATH]")]
        url: Url,
        /// A field to send with every request (repeatable)
        #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = parse_field)]
        fields: Vec<(String, String)>,
        /// How to load it.
        #[command(flatten)]
        load: LoadArgs,
    },
    /// Send bytes to an echo server; each must come back
    #[command(after_help = EXAMPLES, max_term_width = 100)]
    Echo {
        /// HOST:PORT
        address: String,
        /// Bytes of a message
        #[arg(long, value_name = "SIZE", default_value = "64", env = "RINGLOAD_SIZE",
              hide_env = true, value_parser = parse_size)]
        size: u64,
        /// How to load it.
        #[command(flatten)]
        load: LoadArgs,
    },
}

/// How to load it.
#[derive(Clone, Debug, Args)]
pub struct LoadArgs {
    /// Connections kept open, each with one request in flight at a time (see --pipeline)
    #[arg(short, long, value_name = "COUNT", default_value = "64",
          env = "RINGLOAD_CONNECTIONS", hide_env = true, value_parser = parse_count)]
    pub connections: u64,
    /// Threads, a ring each
    #[arg(short, long, value_name = "COUNT", default_value = "1",
          env = "RINGLOAD_THREADS", hide_env = true, value_parser = parse_count)]
    pub threads: u64,
    /// Length of the run, at most 24h
    #[arg(short, long, value_name = "TIME", default_value = "10s",
          env = "RINGLOAD_DURATION", hide_env = true, value_parser = parse_duration)]
    pub duration: Duration,
    /// Requests to send, instead of a length of time
    #[arg(short = 'n', long, value_name = "COUNT",
          env = "RINGLOAD_REQUESTS", hide_env = true, value_parser = parse_count)]
    pub requests: Option<u64>,
    /// Requests in flight on a connection
    #[arg(long, value_name = "COUNT", default_value = "1",
          env = "RINGLOAD_PIPELINE", hide_env = true, value_parser = parse_count)]
    pub pipeline: u64,
    /// Close a connection after so many requests and open another
    #[arg(long, value_name = "COUNT",
          env = "RINGLOAD_REQUESTS_PER_CONNECTION", hide_env = true, value_parser = parse_count)]
    pub requests_per_connection: Option<u64>,
    /// Longest wait for a reply, and for a connect
    #[arg(long, value_name = "TIME", default_value = "10s",
          env = "RINGLOAD_TIMEOUT", hide_env = true, value_parser = parse_duration)]
    pub timeout: Duration,
    /// Write the report as JSON too (described in report.schema.json)
    #[arg(long, value_name = "FILE", env = "RINGLOAD_JSON", hide_env = true)]
    pub json: Option<PathBuf>,
    /// Print no line per second, only the summary
    #[arg(long, env = "RINGLOAD_QUIET", hide_env = true,
          value_parser = clap::builder::FalseyValueParser::new())]
    pub quiet: bool,
    /// Seed of the bytes sent; taken from the clock by default, and reported
    #[arg(long, value_name = "NUMBER", env = "RINGLOAD_SEED", hide_env = true)]
    pub seed: Option<u64>,
    /// Pin the first thread to this CPU of those allowed, counted from 0, the next to the next
    #[arg(long, value_name = "CPU", env = "RINGLOAD_PIN_FROM", hide_env = true)]
    pub pin_from: Option<usize>,
}

impl Cli {
    /// Reads a command line and the environment.
    ///
    /// # Errors
    /// clap's, and what does not fit together.
    pub fn read<I, T>(arguments: I) -> Result<Self, clap::Error>
    where
        I: IntoIterator<Item = T>,
        T: Into<std::ffi::OsString> + Clone,
    {
        let matches = Self::command().try_get_matches_from(arguments)?;
        let mut cli = Self::from_arg_matches(&matches)?;
        let (_, given) = matches.subcommand().expect("clap requires a sub-command");
        cli.settle(given).map_err(|wrong| {
            Self::command().error(clap::error::ErrorKind::ValueValidation, wrong)
        })?;
        Ok(cli)
    }

    /// How to load it.
    #[must_use]
    pub const fn load(&self) -> &LoadArgs {
        match &self.target {
            Target::Http { load, .. } | Target::Echo { load, .. } => load,
        }
    }

    fn settle(&mut self, given: &ArgMatches) -> Result<(), String> {
        let message_bytes = match &self.target {
            Target::Http { .. } => 0,
            Target::Echo { size, .. } => *size,
        };
        let (Target::Http { load, .. } | Target::Echo { load, .. }) = &mut self.target;
        let from_line = |name| given.value_source(name) == Some(ValueSource::CommandLine);
        match (from_line("duration"), from_line("requests")) {
            (true, true) => return Err("give either --duration or --requests, not both".into()),
            // The environment asked for a number of requests; the command line knows better.
            (true, false) => load.requests = None,
            (false, _) => {}
        }
        if load.duration > DURATION_MAX || load.timeout > DURATION_MAX {
            return Err("--duration and --timeout are at most 24h".into());
        }
        if load.connections > CONNECTIONS_MAX {
            return Err(format!("--connections is at most {CONNECTIONS_MAX}"));
        }
        if load.threads > load.connections {
            return Err(format!(
                "--threads {} are more than --connections {}: some would have nothing to do",
                load.threads, load.connections
            ));
        }
        if load.pipeline > PIPELINE_MAX {
            return Err(format!("--pipeline is at most {PIPELINE_MAX}"));
        }
        if message_bytes.saturating_mul(load.pipeline) > FLIGHT_BYTES_MAX {
            return Err("--size times --pipeline is at most 64MiB".into());
        }
        Ok(())
    }
}

/// `Name: value`, as it may stand in a request.
fn parse_field(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("expected 'Name: value'")?;
    let value = value.trim();
    if name.is_empty() || !name.bytes().all(head::is_token) {
        return Err("the name is no token (letters, digits and !#$%&'*+-.^_`|~)".into());
    }
    if !value.bytes().all(head::is_text) {
        return Err("there is a control character in the value".into());
    }
    for framing in ["content-length", "transfer-encoding"] {
        if name.eq_ignore_ascii_case(framing) {
            return Err(format!("{name} announces a body, and a GET has none here"));
        }
    }
    Ok((name.into(), value.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Cli, String> {
        Cli::read(line.split(' ')).map_err(|error| error.to_string())
    }

    #[test]
    fn the_command_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn defaults_are_those_documented() {
        let cli = read("ringload echo 127.0.0.1:7000").expect("a command line");
        assert!(
            matches!(&cli.target, Target::Echo { address, size: 64, .. } if address == "127.0.0.1:7000")
        );
        let load = cli.load();
        assert_eq!((load.connections, load.threads, load.pipeline), (64, 1, 1));
        assert_eq!((load.duration, load.requests), (Duration::from_secs(10), None));
        assert_eq!(load.timeout, Duration::from_secs(10));
    }

    #[test]
    fn what_is_given_is_taken() {
        let cli = read(
            "ringload http http://localhost:8080/a -H X:y -H Z:w -c 1k -t 2 -n 10k --pipeline 4 \
             --requests-per-connection 7 --timeout 100ms --json out --quiet --seed 3 --pin-from 1",
        )
        .expect("a command line");
        let Target::Http { url, fields, load } = &cli.target else { panic!("{cli:?}") };
        assert_eq!(url.to_string(), "http://localhost:8080/a");
        let field = |name: &str, value: &str| (name.to_string(), value.to_string());
        assert_eq!(fields, &[field("X", "y"), field("Z", "w")]);
        assert_eq!((load.connections, load.threads, load.pipeline), (1_000, 2, 4));
        assert_eq!((load.requests, load.requests_per_connection), (Some(10_000), Some(7)));
        assert_eq!((load.timeout, load.quiet), (Duration::from_millis(100), true));
        assert_eq!((load.seed, load.pin_from), (Some(3), Some(1)));
        assert_eq!(load.json.as_deref(), Some("out".as_ref()));
    }

    #[test]
    fn wrong_usage_is_named() {
        for (line, says) in [
            ("ringload http ftp://a/", "ftp:// is not spoken"),
            ("ringload echo a:1 -d 5", "100ms"),
            ("ringload echo a:1 -d 25h", "at most 24h"),
            ("ringload echo a:1 -n 0", "must not be zero"),
            ("ringload echo a:1 -n 5 -d 5s", "not both"),
            ("ringload echo a:1 -c 2 -t 3", "--threads 3"),
            ("ringload echo a:1 -c 2M", "--connections is at most"),
            ("ringload echo a:1 --pipeline 2k", "--pipeline is at most"),
            ("ringload echo a:1 --size 1MiB --pipeline 65", "64MiB"),
            ("ringload echo a:1 -H X:y", "unexpected argument"),
            ("ringload http http://a/ -H X", "Name: value"),
            ("ringload http http://a/ -H (:y", "no token"),
            ("ringload http http://a/ -H X:\u{7}", "control character"),
            ("ringload http http://a/ -H Content-Length:5", "announces a body"),
            ("ringload churn a:1", "unrecognized subcommand"),
        ] {
            let error = read(line).expect_err(line);
            assert!(error.contains(says), "{line}: {error}");
        }
    }
}
