//! The command line; each file has the options of one family of commands.

mod common;
mod examples;
mod files;
mod http;
mod list;
mod load;
mod plan;
mod search;
mod transfer;

pub use common::{CommonArgs, STDOUT, WithCommon};
#[cfg(test)]
pub(crate) use examples::PLAN as PLAN_EXAMPLE;
pub use files::Reports;
pub use http::{Body, HttpArgs, List};
pub use load::{Arrivals, LoadArgs};
pub use plan::PlanArgs;
pub use search::SearchArgs;
pub use transfer::Transfer;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command, CommandFactory, FromArgMatches, Parser, Subcommand};
use ringload_lifecycle::args::{ChurnArgs, IdleArgs, ReplayArgs, parse_address};
use ringload_lifecycle::packets::{BODY_BYTES_MAX, PREFIX_BYTES};
use ringload_lifecycle::units::parse_size;

/// Maximum of `--size` for `packets`: the largest body of an ECHO or DIGEST.
const PACKET_SIZE_MAX: u64 = (BODY_BYTES_MAX - PREFIX_BYTES) as u64;

/// Load generator that checks every byte of every reply
#[derive(Debug, Parser)]
#[command(name = "ringload", version, after_help = examples::COMMANDS, max_term_width = 100)]
pub struct Cli {
    /// The command and its options.
    #[command(subcommand)]
    pub target: Target,
}

/// The command and its options.
#[derive(Debug, Subcommand)]
pub enum Target {
    /// Load an HTTP/1.1 server with requests for one URL, or with those of a list
    #[command(after_help = examples::HTTP, max_term_width = 100)]
    Http(HttpArgs),
    /// Load an echo server; every byte must come back
    #[command(after_help = examples::ECHO, max_term_width = 100)]
    Echo {
        /// The server: HOST:PORT
        #[arg(value_parser = parse_address)]
        address: String,
        /// Size of a message
        #[arg(long, value_name = "SIZE", default_value = "64", env = "RINGLOAD_SIZE",
              hide_env = true, value_parser = parse_size)]
        size: u64,
        /// The options of the load commands.
        #[command(flatten)]
        load: LoadArgs,
    },
    /// Load a packet server with echo and digest requests, or transfer files
    #[command(after_help = examples::PACKETS, max_term_width = 100, disable_help_subcommand = true)]
    Packets {
        /// The server: HOST:PORT
        #[arg(value_parser = parse_address)]
        address: String,
        /// Size of the data in a request, at most 65531 bytes
        #[arg(long, value_name = "SIZE", default_value = "64", env = "RINGLOAD_SIZE",
              hide_env = true, value_parser = parse_size)]
        size: u64,
        /// Every COUNTth request of a connection asks for a SHA-256 digest, the others for an echo;
        /// 0: echoes only
        #[arg(
            long,
            value_name = "COUNT",
            default_value = "4",
            env = "RINGLOAD_DIGEST_EVERY",
            hide_env = true
        )]
        digest_every: u64,
        /// The options of the load commands.
        #[command(flatten)]
        load: LoadArgs,
        /// A file transfer or a list instead of load.
        #[command(subcommand)]
        transfer: Option<Transfer>,
    },
    /// Find the highest rate of HTTP requests at which the server meets objectives
    #[command(after_help = examples::SEARCH, max_term_width = 100, mut_args = search::hide)]
    Search(SearchArgs),
    /// The commands that read JSON reports.
    #[command(flatten)]
    Reports(Reports),
    /// Hold many idle connections and check that each one still answers
    #[command(after_help = examples::IDLE, max_term_width = 100, mut_args = hide_log)]
    Idle(WithCommon<IdleArgs>),
    /// Run several commands at once, in phases, and signal or restart the server meanwhile
    #[command(after_help = examples::PLAN, max_term_width = 100, mut_args = hide_log)]
    Plan(PlanArgs),
    /// Inject faults at every point of a connection's life and check how the server reacts
    #[command(after_help = examples::CHURN, max_term_width = 100, mut_args = hide_log)]
    Churn(WithCommon<ChurnArgs>),
    /// Replay the script of a churn finding, step by step
    #[command(after_help = examples::REPLAY, max_term_width = 100, mut_args = hide_log)]
    Replay(WithCommon<ReplayArgs>),
}

impl Cli {
    /// Reads a command line and the environment.
    ///
    /// # Errors
    /// clap's errors, and options that do not fit together.
    pub fn read<I, T>(arguments: I) -> Result<Self, clap::Error>
    where
        I: IntoIterator<Item = T>,
        T: Into<std::ffi::OsString> + Clone,
    {
        let matches = with_old_environment(Self::command()).try_get_matches_from(arguments)?;
        let mut cli = Self::from_arg_matches(&matches)?;
        let (_, given) = matches.subcommand().expect("clap requires a sub-command");
        cli.settle(given).map_err(|wrong| {
            Self::command().error(clap::error::ErrorKind::ValueValidation, wrong)
        })?;
        Ok(cli)
    }

    /// Returns the load options of `http`, `echo` and `packets`.
    #[must_use]
    pub const fn load(&self) -> Option<&LoadArgs> {
        match &self.target {
            Target::Http(HttpArgs { load, .. })
            | Target::Echo { load, .. }
            | Target::Packets { load, .. } => Some(load),
            Target::Search(_)
            | Target::Reports(_)
            | Target::Idle(_)
            | Target::Plan(_)
            | Target::Churn(_)
            | Target::Replay(_) => None,
        }
    }

    /// Returns the options that every command takes.
    #[must_use]
    pub const fn common(&self) -> &CommonArgs {
        match &self.target {
            Target::Http(HttpArgs { load, .. })
            | Target::Echo { load, .. }
            | Target::Packets { load, .. } => &load.common,
            Target::Search(search) => &search.http.load.common,
            Target::Reports(reports) => reports.common(),
            Target::Idle(idle) => &idle.common,
            Target::Plan(plan) => &plan.common,
            Target::Churn(churn) => &churn.common,
            Target::Replay(replay) => &replay.common,
        }
    }

    fn settle(&mut self, given: &ArgMatches) -> Result<(), String> {
        let from_line = |name: &str| given.value_source(name) == Some(ValueSource::CommandLine);
        let without_log = match &mut self.target {
            Target::Idle(idle) => Some(&mut idle.common),
            Target::Plan(plan) => Some(&mut plan.common),
            Target::Churn(churn) => Some(&mut churn.common),
            Target::Replay(replay) => Some(&mut replay.common),
            _ => None,
        };
        if let Some(common) = without_log {
            if from_line("hlog") {
                return Err("--hlog applies to load: http, echo and packets".into());
            }
            // From the environment, for other commands.
            common.hlog = None;
        }
        match &mut self.target {
            Target::Http(http) => http.settle(from_line),
            Target::Search(search) => search.settle(from_line),
            Target::Echo { size, load, .. } => load.settle(*size, from_line),
            Target::Packets { size, .. } if *size > PACKET_SIZE_MAX => Err(format!(
                "--size {size} is too large for a packet; the maximum is {PACKET_SIZE_MAX}"
            )),
            Target::Packets { size, load, transfer, .. } => {
                if let Some(transfer) = transfer {
                    load.common.hlog = None;
                    transfer.check(&load.common, from_line)?;
                }
                load.settle(*size, from_line)
            }
            Target::Reports(reports) => reports.check(from_line),
            Target::Idle(idle) => idle.own.check(),
            Target::Plan(_) => Ok(()),
            Target::Churn(churn) => churn.own.settle(from_line),
            Target::Replay(replay) => replay.own.check(),
        }
    }
}

/// Environment variables that were renamed with their option: the old name, the new one, and the
/// option.
const OLD_ENVIRONMENT: [(&str, &str, &str); 2] = [
    ("RINGLOAD_REQUESTS", "RINGLOAD_COUNT", "count"),
    ("RINGLOAD_PATIENCE", "RINGLOAD_TIMEOUT", "timeout"),
];

/// Makes an option read its old variable if only that one is set. `RINGLOAD_PATIENCE` never applied
/// to load and `idle`, whose `--timeout` has always had this name.
fn with_old_environment(command: Command) -> Command {
    let is_set = |name: &str| std::env::var_os(name).is_some();
    let used: Vec<_> =
        OLD_ENVIRONMENT.into_iter().filter(|(old, new, _)| is_set(old) && !is_set(new)).collect();
    command.mut_subcommands(|command| {
        let had_patience = ["churn", "replay"].contains(&command.get_name());
        used.iter().fold(command, |command, (old, _, option)| {
            let had_it = (*option == "timeout") == had_patience;
            match had_it && command.get_arguments().any(|arg| arg.get_id() == option) {
                true => command.mut_arg(option, |arg| arg.env(*old)),
                false => command,
            }
        })
    })
}

/// Hides `--hlog` from the help of a command that records no latencies of each second.
fn hide_log(option: Arg) -> Arg {
    let is_log = option.get_id() == "hlog";
    if is_log { option.hide(true) } else { option }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Stages;
    use crate::report::Pacing;
    use std::time::Duration;

    fn read(line: &str) -> Result<Cli, String> {
        Cli::read(line.split(' ')).map_err(|error| error.to_string())
    }

    fn transfer(cli: &Cli) -> Option<(&str, &Transfer)> {
        match &cli.target {
            Target::Packets { address, transfer: Some(transfer), .. } => Some((address, transfer)),
            _ => None,
        }
    }

    #[test]
    fn the_command_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn defaults_are_those_documented() {
        let cli = read("ringload echo 127.0.0.1:7000").expect("a command line");
        let Target::Echo { address, size, .. } = &cli.target else { panic!("{cli:?}") };
        assert_eq!((address.as_str(), *size), ("127.0.0.1:7000", 64));
        let load = cli.load().expect("it is load");
        assert_eq!((load.connections, load.threads, load.pipeline), (64, 1, 1));
        assert_eq!((load.duration, load.requests), (Duration::from_secs(10), None));
        assert_eq!(load.timeout, Duration::from_secs(10));
    }

    #[test]
    fn help_lists_no_option_that_a_command_refuses() {
        let mut cli = Cli::command();
        for (command, shown) in
            [("report", false), ("merge", false), ("compare", false), ("http", true)]
        {
            let command = cli.find_subcommand_mut(command).expect("a command");
            let help = command.render_long_help().to_string();
            for option in ["--hlog", "--ledger", "--pid", "--settle", "--seed"] {
                assert_eq!(help.contains(&format!("{option} <")), shown, "{option}: {help}");
            }
        }
    }

    /// Each option with its meaning. A new option needs a line here, and an option that means the
    /// same as another one must have the other one's name.
    const MEANINGS: [(&str, Option<char>, &str); 57] = [
        ("arrivals", None, "distribution of a schedule"),
        ("as", None, "name on the server"),
        ("body", Some('b'), "body of a request"),
        ("bystanders", None, "connections that behave well"),
        ("check", None, "do not run"),
        ("clients", None, "addresses of the clients"),
        ("company", None, "copies of a script"),
        ("conn-rate", None, "connections to start per second"),
        ("connections", Some('c'), "connections at the same time"),
        ("count", Some('n'), "end of the run by a number"),
        ("deadline", None, "the server's own timeout"),
        ("digest-every", None, "share of digests"),
        ("drain-ok", None, "the server may drain"),
        ("duration", Some('d'), "end of the run by a time"),
        ("expect-disconnects", None, "the server may end connections"),
        ("expect-status", None, "statuses of replies without an error"),
        ("fail-if", None, "condition that fails the run"),
        ("faults", None, "faults to inject"),
        ("header", Some('H'), "field of a request"),
        ("help", Some('h'), "help"),
        ("hlog", None, "log of latencies"),
        ("hold", None, "time for which all connections stay open"),
        ("html", None, "report as a page"),
        ("json", None, "report as JSON"),
        ("ledger", None, "admin address to find leaks"),
        ("max-time", None, "longest duration of a search"),
        ("may-reject", None, "the server may be full"),
        ("method", Some('X'), "method of a request"),
        ("no-verify", None, "no digest of a file"),
        ("oracle", None, "rules for the server"),
        ("out", None, "target file"),
        ("path", None, "further path"),
        ("pid", None, "process to find leaks"),
        ("pin-from", None, "first CPU"),
        ("pipeline", None, "requests in flight"),
        ("probe-every", None, "interval of probes"),
        ("protocol", None, "protocol of the server"),
        ("proxy-protocol", None, "header in front of a connection"),
        ("quiet", None, "no progress"),
        ("rate", Some('R'), "requests to send per second"),
        ("replace", None, "overwrite a file"),
        ("requests-per-connection", None, "requests before a new connection"),
        ("resolve", None, "address of a name"),
        ("resume", None, "continue a transfer"),
        ("ring", None, "kernel interface"),
        ("seed", None, "random numbers"),
        ("settle", None, "wait for the server after the run"),
        ("size", None, "size of a message"),
        ("slo", None, "objective of a search"),
        ("stages", None, "rates that follow each other"),
        ("think", None, "wait between requests"),
        ("threads", Some('t'), "threads"),
        ("timeout", None, "longest wait for the server"),
        ("times", None, "repetitions until a finding"),
        ("urls", None, "list of requests"),
        ("vary-ok", None, "the body may differ"),
        ("version", Some('V'), "version"),
    ];

    fn walk(command: &Command, each: &mut impl FnMut(&str, &Arg)) {
        command.get_arguments().for_each(|arg| each(command.get_name(), arg));
        command.get_subcommands().for_each(|command| walk(command, each));
    }

    #[test]
    fn one_meaning_has_one_name_in_all_commands() {
        let mut meanings = std::collections::BTreeSet::new();
        assert!(MEANINGS.iter().all(|(.., meaning)| meanings.insert(meaning)));
        let mut seen = std::collections::BTreeMap::new();
        walk(&Cli::command(), &mut |command, arg| {
            let Some(long) = arg.get_long() else { return };
            let known = MEANINGS.iter().find(|(name, ..)| *name == long);
            let (_, short, _) =
                known.unwrap_or_else(|| panic!("{command} --{long} has no meaning"));
            // A letter belongs to one option, and an option has its letter everywhere.
            assert_eq!(arg.get_short(), *short, "{command} --{long}");
            let value = arg.get_value_names().map(|names| names.concat());
            let env = arg.get_env().map(|name| name.to_string_lossy().into_owned());
            if let Some(env) = &env {
                let must = format!("RINGLOAD_{}", long.to_uppercase().replace('-', "_"));
                assert_eq!(*env, must, "{command} --{long}");
            }
            let is = (value, env);
            let first = seen.entry(long.to_string()).or_insert_with(|| is.clone());
            assert_eq!(is, *first, "{command} --{long}");
        });
        let shorts: Vec<_> = MEANINGS.iter().filter_map(|(_, short, _)| *short).collect();
        let different: std::collections::BTreeSet<_> = shorts.iter().collect();
        assert_eq!(shorts.len(), different.len(), "a letter has two meanings");
        for (name, ..) in MEANINGS {
            let is_given = seen.contains_key(name) || ["help", "version"].contains(&name);
            assert!(is_given, "no command has --{name}");
        }
    }

    #[test]
    fn old_names_are_still_understood() {
        let load = |line: &str| read(line).expect(line).load().expect("it is load").clone();
        assert_eq!(load("ringload echo a:1 --requests 5").requests, Some(5));
        for line in ["ringload churn a:1 --patience 2s", "ringload replay x --patience 2s"] {
            let patience = match read(line).expect(line).target {
                Target::Churn(churn) => churn.own.oracle.patience,
                Target::Replay(replay) => replay.own.oracle.patience,
                other => panic!("{other:?}"),
            };
            assert_eq!(patience, Duration::from_secs(2), "{line}");
        }
        let mut cli = Cli::command();
        for (command, old) in [("http", "--requests "), ("churn", "--patience")] {
            let help = cli.find_subcommand_mut(command).expect("a command").render_long_help();
            assert!(!help.to_string().contains(old), "{help}");
        }
    }

    #[test]
    fn only_load_has_a_log() {
        let mut cli = Cli::command();
        for (command, line) in [
            ("idle", "ringload idle a:1 --hlog x"),
            ("plan", "ringload plan x.toml --hlog x"),
            ("churn", "ringload churn a:1 --hlog x"),
            ("replay", "ringload replay x --hlog x"),
        ] {
            let help = cli.find_subcommand_mut(command).expect("a command").render_long_help();
            assert!(!help.to_string().contains("--hlog"), "{help}");
            let error = read(line).expect_err(line);
            assert!(error.contains("--hlog applies to load"), "{error}");
        }
        assert!(read("ringload packets a:1 --hlog x get y").is_err());
        assert!(read("ringload packets a:1 --hlog x").is_ok());
    }

    #[test]
    fn one_thing_goes_to_standard_output() {
        assert!(read("ringload packets a:1 --json - get x").is_ok());
        let error = read("ringload packets a:1 --json - get x --out -").expect_err("both");
        assert!(error.contains("standard output takes one"), "{error}");
    }

    #[test]
    fn an_address_has_a_host_and_a_port() {
        let error = parse_address("localhost:").expect_err("no port");
        assert!(error.contains("the port is missing"), "{error}");
        for address in ["localhost:7100", "127.0.0.1:1", "[::1]:65535"] {
            assert_eq!(parse_address(address).as_deref(), Ok(address));
        }
    }

    #[test]
    fn what_is_given_is_taken() {
        let cli = read(
            "ringload http http://localhost:8080/a -H X:y -H Z:w -c 1k -t 2 -n 10k --pipeline 4 \
             --requests-per-connection 7 --timeout 100ms --json out --quiet --seed 3 --pin-from 1",
        )
        .expect("a command line");
        let Target::Http(HttpArgs { url, fields, load, .. }) = &cli.target else {
            panic!("{cli:?}")
        };
        assert_eq!(url.to_string(), "http://localhost:8080/a");
        let field = |name: &str, value: &str| (name.to_string(), value.to_string());
        assert_eq!(fields, &[field("X", "y"), field("Z", "w")]);
        assert_eq!((load.connections, load.threads, load.pipeline), (1_000, 2, 4));
        assert_eq!((load.requests, load.requests_per_connection), (Some(10_000), Some(7)));
        assert_eq!((load.timeout, load.common.quiet), (Duration::from_millis(100), true));
        assert_eq!((load.common.seed, load.pin_from), (Some(3), Some(1)));
        assert_eq!(load.common.json.as_deref(), Some("out".as_ref()));
    }

    #[test]
    fn a_rate_makes_the_loop_open() {
        let load = |line: &str| read(line).expect(line).load().expect("it is load").clone();
        let plain = load("ringload echo a:1");
        assert_eq!((plain.pacing(), plain.arrivals), (Pacing::Closed, Arrivals::Uniform));
        let requests = load("ringload echo a:1 -R 10k --arrivals poisson --drain-ok");
        assert_eq!(requests.pacing(), Pacing::Requests);
        assert_eq!((requests.constant_rate(), requests.stages()), (Some(10_000.into()), None));
        let ramp = load("ringload echo a:1 -R 1k:20k -d 30s");
        let stages = Stages::one(Duration::from_secs(30), "1k:20k".parse().expect("a ramp"));
        assert_eq!((ramp.pacing(), ramp.constant_rate()), (Pacing::Requests, None));
        assert_eq!(ramp.stages(), Some(stages));
        assert_eq!((requests.arrivals, requests.drain_ok), (Arrivals::Poisson, true));
        let connections = load("ringload echo a:1 --conn-rate 500");
        assert_eq!(connections.pacing(), Pacing::Connections);
        assert_eq!(connections.conn_rate, Some(500.into()));
    }

    #[test]
    fn a_file_is_moved_instead_of_load() {
        let cli = read("ringload packets a:1 put dir/x --as y --replace --json out --quiet")
            .expect("a command line");
        let (address, put) = transfer(&cli).expect("a transfer");
        assert_eq!((address, put.names()), ("a:1", vec![b"y".to_vec()]));
        assert!(matches!(put, Transfer::Put { replace: true, no_verify: false, .. }));
        assert_eq!(cli.common().json.as_deref(), Some("out".as_ref()));
        assert!(cli.common().quiet);
        let cli = read("ringload packets a:1 --timeout 2s get x --no-verify").expect("a line");
        let (_, get) = transfer(&cli).expect("a transfer");
        assert!(matches!(get, Transfer::Get { out: None, no_verify: true, .. }));
        assert_eq!(cli.load().expect("a file").timeout, Duration::from_secs(2));
        let cli = read("ringload packets a:1 put dir/x").expect("a command line");
        assert_eq!(transfer(&cli).expect("a transfer").1.names(), [b"x"]);
        assert!(transfer(&read("ringload packets a:1 -c 2").expect("a command line")).is_none());
    }

    #[test]
    fn wrong_usage_is_named() {
        for (line, says) in [
            ("ringload http ftp://a/", "ftp:// is not supported"),
            ("ringload echo a", "expected HOST:PORT"),
            ("ringload echo [::1]", "expected HOST:PORT"),
            ("ringload packets ::1:7100", "in brackets"),
            ("ringload packets a:65536 get x", "from 1 to 65535"),
            ("ringload echo a:1 -d 5", "100ms"),
            ("ringload echo a:1 -d 25h", "at most 24h"),
            ("ringload echo a:1 -n 0", "must not be zero"),
            ("ringload echo a:1 -n 5 -d 5s", "not both"),
            ("ringload echo a:1 -c 2 -t 3", "--threads 3"),
            ("ringload echo a:1 -c 2M", "--connections 2000000 is too large"),
            ("ringload echo a:1 -R 0", "must not be zero"),
            ("ringload echo a:1 -R 11M", "--rate must be at most 10M"),
            ("ringload echo a:1 --conn-rate 11M", "--conn-rate must be at most 10M"),
            ("ringload echo a:1 -R 5 --conn-rate 5", "not both"),
            ("ringload echo a:1 -R 5:11M", "--rate must be at most 10M"),
            ("ringload echo a:1 -R 5:", "expected a rate"),
            ("ringload echo a:1 -R 5:6 -n 5", "needs --duration"),
            ("ringload echo a:1 --stages /missing", "cannot read /missing"),
            ("ringload echo a:1 --arrivals poisson", "--arrivals needs --rate or --conn-rate"),
            ("ringload echo a:1 -R 5 --arrivals often", "uniform, poisson"),
            ("ringload packets a:1 -R 5 put x", "--rate applies to load"),
            ("ringload packets a:1 --drain-ok put x", "--drain-ok applies to load"),
            ("ringload packets a:1 --ring epoll list", "--ring applies to load"),
            ("ringload packets a:1 put x y --ring epoll", "--ring applies to load"),
            ("ringload packets a:1 get x --resume --ring auto", "--ring applies to load"),
            ("ringload echo a:1 --think 1s -R 5", "--think needs --pipeline 1"),
            ("ringload echo a:1 --think 1s --pipeline 2", "--think needs --pipeline 1"),
            ("ringload echo a:1 --think 25h", "--think must be at most 24h"),
            ("ringload packets a:1 --think 1s list", "--think applies to load"),
            ("ringload echo a:1 --pipeline 2k", "--pipeline 2000 is too large"),
            ("ringload echo a:1 --size 1MiB --pipeline 65", "64MiB"),
            ("ringload echo a:1 --clients 127.1.0.0/16", "--clients needs --proxy-protocol"),
            ("ringload idle a:1 --clients 127.1.0.0/33", "127.1.0.0/16"),
            ("ringload echo a:1 --resolve a:1", "NAME:PORT:ADDRESS"),
            ("ringload packets a:1 --proxy-protocol v1 list", "--proxy-protocol applies to load"),
            ("ringload echo a:1 -H X:y", "unexpected argument"),
            ("ringload http http://a/ --expect-status ok", "200,304 or 2xx"),
            ("ringload http http://a/ -H X", "Name: value"),
            ("ringload http http://a/ -H (:y", "invalid field name"),
            ("ringload http http://a/ -H X:\u{7}", "control character"),
            ("ringload http http://a/ -H Content-Length:5", "-b sends a body"),
            ("ringload churn a", "expected HOST:PORT"),
            ("ringload churn a:1 --faults fast", "unknown fault"),
            ("ringload churn a:1 --timeout 11m", "at most 10m"),
            ("ringload churn a:1 -n 5 -d 5s", "not both"),
            ("ringload churn a:1 --bystanders 1001", "--bystanders must be at most"),
            ("ringload replay", "SCRIPT"),
            ("ringload replay x --times 2M", "--times and --company"),
            ("ringload packets a:1 --size 64KiB", "the maximum is 65531"),
            ("ringload packets a:1 --digest-every 1.5", "--digest-every"),
            ("ringload packets a:1 -c 5 put x", "--connections applies to load"),
            ("ringload packets a:1 --digest-every 5 get x", "--digest-every applies to load"),
            ("ringload packets a:1 put dir/..", "is not a valid file name"),
            ("ringload packets a:1 put x --as a/b", "without slashes"),
            ("ringload packets a:1 get ../x", "without slashes"),
            ("ringload packets a:1 get .x", "begin with a dot"),
            ("ringload packets a:1 send x", "unexpected argument 'send'"),
        ] {
            let error = read(line).expect_err(line);
            assert!(error.contains(says), "{line}: {error}");
        }
    }
}
