//! Several runs at once, in phases: the options of `plan`.

use super::CommonArgs;
use clap::Args;
use std::path::PathBuf;

/// What `plan --help` shows: a plan with everything in it that can be.
pub(crate) const EXAMPLE: &str = r#"A plan:
  seed = 7                         # of the first part; the others count on
  restarts = false                 # true: something starts the server again when it ends

  [server]                         # needed for signals only
  command = ["ringwrightd", "http", "www", "--admin", "127.0.0.1:9000"]
                                   # itself: signals go to this process (in a shell, exec it)
                                   # or pid = 4711, or pid-file = "/run/nginx.pid"
  ready = "listening"              # a line of its standard output has this; and/or
  ready-address = "127.0.0.1:8080" # this can be connected to
  ready-within = "10s"
  drain = "30s"                    # it must have ended so long after TERM, INT or QUIT, status 0
  ledger = "http://127.0.0.1:9000" # read before and after: a leak fails
  check-process = true             # its descriptors, threads and sockets, before and after

  [[phase]]                        # phases follow each other; a plan may do without
  name = "calm"
  length = "10s"

  [[part]]                         # a ringload of its own, by its command line without the length
  name = "herd"
  run = "idle 127.0.0.1:8080 --protocol http -c 5000 --probe-every 5s"
  start = "0s"                     # since the plan began, or its phase
  length = "25s"                   # what is left of the phase, or of all phases, if not given

  [[part]]
  name = "load"
  run = "http http://127.0.0.1:8080/ -c 64 -R 5k"
  phase = "calm"
  fail-if = ["p99>50ms"]

  [[at]]
  time = "5s"                      # since the plan began, or its phase
  signal = "HUP"                   # TERM HUP INT QUIT KILL USR1 USR2 WINCH STOP CONT
                                   # or command = ["sh", "-c", "…"], which must end with status 0

Parts that are still running when the server is told to end (or may be restarted) have --drain-ok:
what it ends politely is no error, a reply that is cut or reset is.

Exit status: 0 all parts passed, 1 one did not, or the server did not end as it must, 2 wrong usage,
3 no part could connect, 4 ringload was the bottleneck, 130 interrupted, with a partial report."#;

/// A plan: what runs when, and what happens to the server meanwhile.
#[derive(Clone, Debug, Args)]
pub struct PlanArgs {
    /// The plan, as TOML
    #[arg(value_name = "FILE.toml")]
    pub file: PathBuf,
    /// Only read it, and print what would run when
    #[arg(long)]
    pub check: bool,
    /// What every kind of run has.
    #[command(flatten)]
    pub common: CommonArgs,
}
