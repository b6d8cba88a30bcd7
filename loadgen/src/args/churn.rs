//! How to abuse a server: the options of `churn` and `replay`.

use super::{CONNECTIONS_MAX, CommonArgs, DURATION_MAX};
use crate::lifecycle::cell::Faults;
use crate::lifecycle::dialect::Limits;
use crate::lifecycle::dialects::Hints;
use crate::lifecycle::dialects::http::Strictness;
use crate::lifecycle::script::Target;
use crate::units::{parse_count, parse_duration};
use clap::Args;
use std::time::Duration;

/// Longest wait for a reply or a reaction, unless another is asked for.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// Longest patience and deadline.
const PATIENCE_MAX: Duration = Duration::from_secs(10 * 60);
/// Most bystanders: one thread serves them all.
const BYSTANDERS_MAX: u64 = 1_000;
/// Most walks of a replay.
const TIMES_MAX: u64 = 1_000_000;

pub(super) const CHURN_EXAMPLES: &str = "\
Each connection follows a script, drawn from the seed for a cell of the matrix POINT x KIND:
  points  before_accept connected in_header boundary in_body asked in_reply between_replies in_file
          idle deadline capacity
  kinds   none fin half_close rst close_unread stop_reading dribble vanish reconnect
An oracle knows what the protocol allows each connection to see. What it finds is shown with the
script, shrunk to the shortest one that still fails, and the command that replays it.

Examples:
  ringload churn 127.0.0.1:7000                          all of the matrix against an echo, for 10s
  ringload churn 127.0.0.1:7000 --faults rst,half_close,idle/vanish -c 200 -d 1m
  ringload churn 127.0.0.1:7000 --faults all,-vanish --may-reject    it has few connections to give
  ringload churn 127.0.0.1:7000 -n 10k --conn-rate 500 --seed 7      the same scripts each time
  ringload churn 127.0.0.1:7000 --deadline 10s --faults deadline     at its own --idle-timeout
  ringload churn http://127.0.0.1:8080/index.html --path /large.iso  any server: by HTTP's rules
  ringload churn packets://127.0.0.1:7100                lies about lengths, too; what is put stays

Exit status:
  0  every ending was allowed     3    nothing could be connected to
  1  something was found          4    our own ports or descriptors were the limit
  2  wrong usage                  130  interrupted; the report covers what was done";

pub(super) const REPLAY_EXAMPLES: &str = "\
A script is one line: the target, the key of its bytes, what it says, and then its steps.
  connect[:OPTION,...]  rcvbuf=N, from=ADDRESS, again (from the port before), nowait
  send=N|all            say so many bytes of it
  dribble=N@T           N bytes, one every T
  flood=T               say what the kernel takes, and read nothing, for T
  recv=N|reply|end      read N bytes more, one reply more, to the server's FIN or RST
  wait=T                read nothing, say nothing
  fin rst close         SHUT_WR, a reset, a close
  vanish=T              see nothing more, acknowledge nothing; after T be gone without a packet
  crowd=N:fin|rst|close N others come, and leave at once
Those of one command line begin at once, in their order.

Examples:
  ringload replay 'echo://127.0.0.1:7000 seed=7 number=42 say=64,100 connect send=100 fin recv=end'
  ringload replay 'echo://127.0.0.1:7000 say=64 connect:nowait rst connect:again send=all recv=reply'
  ringload replay race.txt --times 1000                  until it fails, a thousand times at most
  ringload replay 'echo://[::1]:7000 say=9 connect send=all recv=reply' --company 50

Exit status: 0 every ending was allowed, 1 not, 2 wrong usage, 3 nothing could be connected to.";

/// By what an ending is judged.
#[derive(Clone, Debug, Args)]
pub struct OracleArgs {
    /// Longest wait for a reply, or for a reaction to what was done
    #[arg(long, value_name = "TIME", default_value = "5s",
          env = "RINGLOAD_PATIENCE", hide_env = true, value_parser = parse_duration)]
    pub patience: Duration,
    /// The server ends what is silent for so long: then it may, and later it must
    #[arg(long, value_name = "TIME",
          env = "RINGLOAD_DEADLINE", hide_env = true, value_parser = parse_duration)]
    pub deadline: Option<Duration>,
    /// The server may be full, and then end a connection before its first byte
    #[arg(long)]
    pub may_reject: bool,
    /// http: hold the server to what ringwrightd promises, or to HTTP's rules; by default to the
    /// first if it says `Server: ringwright`
    #[arg(long, value_name = "OF", env = "RINGLOAD_ORACLE", hide_env = true, value_enum)]
    pub oracle: Option<Strictness>,
    /// http: what is asked for beside the path of ADDRESS; can be given more than once. Its body
    /// must be the same each time
    #[arg(long = "path", value_name = "PATH")]
    pub paths: Vec<String>,
}

impl OracleArgs {
    /// As oracles take it.
    #[must_use]
    pub const fn limits(&self) -> Limits {
        Limits { patience: self.patience, deadline: self.deadline, may_reject: self.may_reject }
    }

    /// What a dialect is told of a server that is asked for these, too.
    #[must_use]
    pub fn hints(&self, paths: Vec<String>) -> Hints {
        let paths = paths.into_iter().chain(self.paths.iter().cloned()).collect();
        Hints { paths, strictness: self.oracle, timeout: self.patience }
    }

    fn check(&self) -> Result<(), String> {
        match self.patience.max(self.deadline.unwrap_or_default()) > PATIENCE_MAX {
            true => Err("--patience and --deadline are at most 10m".into()),
            false => Ok(()),
        }
    }
}

/// How to abuse a server.
#[derive(Clone, Debug, Args)]
pub struct ChurnArgs {
    /// HOST:PORT, or PROTOCOL://HOST:PORT[/PATH]
    pub address: String,
    /// What is spoken, where ADDRESS does not say it
    #[arg(
        long,
        value_name = "NAME",
        default_value = "echo",
        env = "RINGLOAD_PROTOCOL",
        hide_env = true
    )]
    pub protocol: String,
    /// all, or points, kinds and POINT/KIND with commas between them; -NAME leaves out
    #[arg(
        long,
        value_name = "NAMES",
        default_value = "all",
        allow_hyphen_values = true,
        env = "RINGLOAD_FAULTS",
        hide_env = true
    )]
    pub faults: Faults,
    /// Scripts at once
    #[arg(short, long, value_name = "COUNT", default_value = "64",
          env = "RINGLOAD_CONNECTIONS", hide_env = true, value_parser = parse_count)]
    pub connections: u64,
    /// Length of the run, at most 24h
    #[arg(short, long, value_name = "TIME", default_value = "10s",
          env = "RINGLOAD_DURATION", hide_env = true, value_parser = parse_duration)]
    pub duration: Duration,
    /// Scripts to walk, instead of a length of time
    #[arg(short = 'n', long = "count", value_name = "COUNT", conflicts_with = "duration",
          value_parser = parse_count)]
    pub count: Option<u64>,
    /// Scripts to begin per second, as long as there are fewer than -c; as many as possible by
    /// default
    #[arg(long, value_name = "COUNT",
          env = "RINGLOAD_CONN_RATE", hide_env = true, value_parser = parse_count)]
    pub conn_rate: Option<u64>,
    /// Connections that behave well and are timed, before the abuse and beside it; 0: none
    #[arg(
        long,
        value_name = "COUNT",
        default_value = "8",
        env = "RINGLOAD_BYSTANDERS",
        hide_env = true
    )]
    pub bystanders: u64,
    /// By what it is judged.
    #[command(flatten)]
    pub oracle: OracleArgs,
    /// What every kind of run has.
    #[command(flatten)]
    pub common: CommonArgs,
}

impl ChurnArgs {
    /// Whom it is about.
    ///
    /// # Errors
    /// That is no address.
    pub fn target(&self) -> Result<Target, String> {
        match self.address.contains("://") {
            true => self.address.parse(),
            false => format!("{}://{}", self.protocol, self.address).parse(),
        }
    }

    /// As oracles take it.
    #[must_use]
    pub const fn limits(&self) -> Limits {
        self.oracle.limits()
    }

    pub(super) fn check(&self) -> Result<(), String> {
        self.target()?;
        self.oracle.check()?;
        if self.duration > DURATION_MAX {
            return Err("--duration is at most 24h".into());
        }
        if self.connections > CONNECTIONS_MAX {
            return Err(format!("--connections is at most {CONNECTIONS_MAX}"));
        }
        if self.bystanders > BYSTANDERS_MAX {
            return Err(format!("--bystanders is at most {BYSTANDERS_MAX}"));
        }
        Ok(())
    }
}

/// Which scripts again, and how often.
#[derive(Clone, Debug, Args)]
pub struct ReplayArgs {
    /// A script; or a file with one per line; - is standard input
    #[arg(required = true, value_name = "SCRIPT")]
    pub scripts: Vec<String>,
    /// Walks, until one fails
    #[arg(long, value_name = "COUNT", default_value = "1", value_parser = parse_count)]
    pub times: u64,
    /// Copies of each script at once, with bytes of their own
    #[arg(long, value_name = "COUNT", default_value = "1", value_parser = parse_count)]
    pub company: u64,
    /// By what it is judged.
    #[command(flatten)]
    pub oracle: OracleArgs,
    /// What every kind of run has.
    #[command(flatten)]
    pub common: CommonArgs,
}

impl ReplayArgs {
    pub(super) fn check(&self) -> Result<(), String> {
        self.oracle.check()?;
        if self.times > TIMES_MAX || self.company > TIMES_MAX {
            return Err(format!("--times and --company are at most {TIMES_MAX}"));
        }
        Ok(())
    }
}
