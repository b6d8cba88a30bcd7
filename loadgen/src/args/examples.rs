//! The text after the options in each `--help`: examples, figures, exit statuses, environment.

/// Joins the examples of a command with the figures and exit statuses that all commands share, and
/// with its note on environment variables.
macro_rules! with_common {
    ($($text:literal),+ ; $environment:literal) => {
        concat!(
            $($text),+,
            "

Units: times take ns us ms s m h (100ms, 1.5s), counts k M G (10k), sizes B KiB MiB GiB (64KiB).

Figures for --fail-if, compared by < <= > >= == != with a number and its unit (5ms 10k 64KiB 90%):
  p50 p99 p99.95 mean max …       latency; service time if the run has no --rate
  service.p99 connect.p99 lag.p99 first_byte.p99 session.p99 probe.p99 reaction.p99
  errors errors.reset findings findings.lost_reply leaks replies_per_s own_cpu cpu_per_reply
  bystander_ratio.p99
  statuses.503 …                  any other number in the JSON report, by its path

Exit status:
  0    passed
  1    errors or findings, a --fail-if condition is true, or the server leaked resources
  2    wrong usage
  3    no connection could be established
  4    ringload was the bottleneck: too slow for its rate, or out of ports or descriptors
  130  interrupted; the report covers the run up to then

Environment:
  ",
            $environment
        )
    };
}

pub(super) const COMMANDS: &str = "\
Examples:
  ringload http http://127.0.0.1:8080/ -c 256 -d 30s
  ringload http http://127.0.0.1:8080/ -R 5k --fail-if 'p99>5ms' --html report.html
  ringload echo 127.0.0.1:7000 --size 4KiB --pipeline 8 --json report.json
  ringload packets 127.0.0.1:7100 put backup.tar
  ringload churn 127.0.0.1:7000 -d 1m
  ringload idle 127.0.0.1:8080 --protocol http -c 10k --hold 5m
  ringload search http://127.0.0.1:8080/ --slo 'p99<5ms'
  ringload plan drain.toml
  ringload compare monday.json today.json

Each command has its own options and examples: ringload COMMAND --help

Exit status:
  0    passed
  1    errors or findings, a --fail-if condition is true, or the server leaked resources
  2    wrong usage
  3    no connection could be established
  4    ringload was the bottleneck: too slow for its rate, or out of ports or descriptors
  130  interrupted; the report covers the run up to then";

pub(super) const HTTP: &str = with_common!(
    "\
Examples:
  ringload http http://127.0.0.1:8080/ -c 256 -d 30s
      Closed loop: each of 256 connections sends its next request when the reply has arrived.
  ringload http http://127.0.0.1:8080/ -n 100k --requests-per-connection 10
  ringload http http://127.0.0.1:8080/ -c 1k --think 500ms
      Each of 1,000 connections waits for 500 ms before its next request.
  ringload http http://127.0.0.1:8080/ -c 256 -R 20k
      Open loop: 20,000 requests per second, also when the server falls behind. Latency is
      measured from the time at which a request was scheduled.
  ringload http http://127.0.0.1:8080/ -c 256 -R 1k:20k -d 1m
      The rate rises evenly; --stages FILE has several rates, such as '30s 1k:20k' and '1m 20k'.
  ringload http http://127.0.0.1:8080/ --conn-rate 2k --arrivals poisson
      2,000 new connections per second at random times, one request on each.
  ringload http http://127.0.0.1:8080/ -R 5k --drain-ok
      For a server that is restarted during the run: clean closes are counted, not errors.
  ringload http http://127.0.0.1:8080/now --vary-ok
      For a page with a time or a token: bodies that differ are counted, not errors.
  ringload http http://127.0.0.1:8080/form -b 'name=value' -H 'Content-Type: text/plain'
      POST; -X names another method, and -b @FILE sends the content of a file.
  ringload http http://127.0.0.1:8080/ --urls requests.txt --seed 7
      Draws from lines of the form WEIGHT METHOD URL [BODY], such as '3 GET /index.html'.
  ringload http http://127.0.0.1:8080/missing --expect-status 404
      Any other status is an error, 200 included.
  ringload http http://127.0.0.1:8080/ --proxy-protocol v2 --clients 192.0.2.0/24
      As a proxy: each connection begins with a header that names one of 256 clients.
  ringload http http://example.org/ --resolve example.org:80:127.0.0.1
  ringload http http://127.0.0.1:8080/ -R 30/m -d 10m --json - | jq .latency_us
      A request every 2 seconds; the report goes to standard output, the summary to standard error.
  ringload http http://127.0.0.1:8080/ -R 5k --fail-if 'p99>5ms' --fail-if 'errors>0'
      Exit status 1 if more than one request in a hundred takes longer than 5 ms, or on any error.
  ringload http http://127.0.0.1:8080/ -c 1k --ledger http://127.0.0.1:9000
      Exit status 1 if this ringwrightd holds more resources after the run than before it.
  ringload http http://127.0.0.1:80/ -c 1k --pid $(cat /run/nginx.pid)
      The same check for any server: descriptors, threads, sockets in CLOSE_WAIT.";
    "Every option but -H, --resolve and --fail-if can also be set by an environment variable, such
  as RINGLOAD_REQUESTS_PER_CONNECTION. The command line takes precedence."
);

pub(super) const SEARCH: &str = with_common!(
    "\
The search first measures a closed loop. Then each probe is an open loop with a fixed rate, which
must meet every --slo, and 99 % of the requests that are due must be answered. Probes bracket the
highest such rate until the bracket is narrower than 4 %. A longer probe confirms the result.

Examples:
  ringload search http://127.0.0.1:8080/ --slo 'p99<5ms' --slo 'errors==0'
  ringload search http://127.0.0.1:8080/ -c 256 -t 2 --slo 'p99.9<50ms' --max-time 5m
  ringload search http://127.0.0.1:8080/ --slo 'p99<5ms' --json - | jq .search.rate
      The exit status is 4 if ringload itself was the limit: give it more --threads or CPUs.";
    "Every option but -H, --resolve, --slo and --fail-if can also be set by an environment variable,
  such as RINGLOAD_MAX_TIME. The command line takes precedence."
);

pub(super) const ECHO: &str = with_common!(
    "\
Examples:
  ringload echo 127.0.0.1:7000 -c 256 -d 30s
      Closed loop: each of 256 connections sends its next message when the echo has arrived.
  ringload echo 127.0.0.1:7000 --size 4KiB --pipeline 8 --json report.json
  ringload echo 127.0.0.1:7000 --expect-disconnects
      For a server that ends connections on purpose: its disconnects are counted, not errors.
  ringload echo 127.0.0.1:7000 -R 20k
      Open loop: 20,000 messages per second, also when the server falls behind. Latency is
      measured from the time at which a message was scheduled.
  ringload echo 127.0.0.1:7000 --conn-rate 2k --arrivals poisson
      2,000 new connections per second at random times, one message on each.";
    "Every option but --resolve and --fail-if can also be set by an environment variable, such as
  RINGLOAD_REQUESTS_PER_CONNECTION. The command line takes precedence."
);

pub(super) const PACKETS: &str = with_common!(
    "\
Examples:
  ringload packets 127.0.0.1:7100 --size 1KiB --digest-every 10
  ringload packets 127.0.0.1:7100 -c 256 -R 20k
      Open loop: 20,000 requests per second, also when the server falls behind. Latency is
      measured from the time at which a request was scheduled.
  ringload packets 127.0.0.1:7100 put backup.tar --as monday.tar --replace
  ringload packets 127.0.0.1:7100 get monday.tar --out backup.tar
  ringload packets 127.0.0.1:7100 list";
    "Every option but --resolve, --fail-if and those of put and get can also be set by an
  environment variable, such as RINGLOAD_DIGEST_EVERY. The command line takes precedence."
);

pub(super) const PUT: &str = "\
Examples:
  ringload packets 127.0.0.1:7100 put backup.tar
  ringload packets 127.0.0.1:7100 put backup.tar --as monday.tar --replace
  ringload packets 127.0.0.1:7100 --timeout 1m put backup.tar --json report.json
  ringload packets 127.0.0.1:7100 put *.tar --resume

Figures for --fail-if: bytes_per_s elapsed_s leaks, and any other number in the JSON report.

Exit status: 0 stored and verified, 1 a file failed or differs, 2 wrong usage, 3 no connection could
be established, 130 interrupted.";

pub(super) const GET: &str = "\
Examples:
  ringload packets 127.0.0.1:7100 get monday.tar
  ringload packets 127.0.0.1:7100 get monday.tar --out backup.tar
  ringload packets 127.0.0.1:7100 get monday.tar --out - | tar t
  ringload packets 127.0.0.1:7100 get monday.tar tuesday.tar --resume

Figures for --fail-if: bytes_per_s elapsed_s leaks, and any other number in the JSON report.

Exit status: 0 received and verified, 1 a file failed or differs, 2 wrong usage, 3 no connection
could be established, 130 interrupted.";

pub(super) const REPORT: &str = with_common!(
    "\
Examples:
  ringload report monday.json today.json
  ringload report monday.json --html monday.html
  ringload report monday.json --fail-if 'p99>5ms'";
    "RINGLOAD_JSON and RINGLOAD_HTML set --json and --html. The command line takes precedence."
);

pub(super) const MERGE: &str = with_common!(
    "\
Examples:
  ringload merge machine1.json machine2.json
  ringload merge machine1.json machine2.json --json all.json --html all.html";
    "RINGLOAD_JSON and RINGLOAD_HTML set --json and --html. The command line takes precedence."
);

pub(super) const COMPARE: &str = "\
Examples:
  ringload compare monday.json today.json
  ringload compare monday1.json,monday2.json today1.json,today2.json --fail-if 'ratio.p99>1.1'
      Several runs on each side show which differences exceed the noise between runs.

Figures for --fail-if: ratio.p99, ratio.replies_per_s and so on are B divided by A.

Exit status: 0 compared, 1 a --fail-if condition is true, 2 wrong usage.";

pub(super) const IDLE: &str = with_common!(
    "\
Examples:
  ringload idle 127.0.0.1:7000
      1,000 idle connections to an echo server for a minute.
  ringload idle 127.0.0.1:8080 --protocol http -c 10k --hold 5m --probe-every 30s
  ringload idle 127.0.0.1:7100 --protocol packets -c 100k --conn-rate 5k
      More connections than one address has ports: on loopback they use several source addresses.
  ringload idle 127.0.0.1:7000 --clients 127.1.0.0/16
      From 65,536 source addresses, for a server that limits connections per address.";
    "Every option but --resolve and --fail-if can also be set by an environment variable, such as
  RINGLOAD_PROBE_EVERY. The command line takes precedence."
);

pub(super) const CHURN: &str = with_common!(
    "\
Each connection runs a script: at a POINT of the connection's life it injects a fault of one KIND.
The seed determines the scripts.

Points:
  before_accept    during the connect, probably before the server accepts
  connected        after the handshake, before the first byte
  in_header        inside the header of a request or frame
  boundary         between a header and its body
  in_body          inside a body
  asked            after a complete request, before the first byte of the reply is read
  in_reply         inside a reply
  between_replies  between two replies to pipelined requests
  in_file          inside a file transfer, in either direction
  idle             after a complete exchange
  deadline         at the moment of the server's own timeout; needs --deadline
  capacity         while many other connections open and close

Kinds:
  none             no fault: continue normally
  fin              send a FIN and leave
  half_close       send a FIN and read the rest
  rst              reset the connection
  close_unread     close with unread data, so that the kernel resets the connection
  stop_reading     send everything, stop reading behind a tiny window, then read the rest
  dribble          send one byte at a time
  vanish           send nothing more, not even an ACK
  reconnect        reset, and connect again at once from the same port

An oracle judges each outcome by the protocol and by --oracle, --deadline and --may-reject. An
outcome that they do not allow is a finding: ringload shrinks its script to the shortest one that
still fails and prints the command that replays it.

Examples:
  ringload churn 127.0.0.1:7000
      All faults against an echo server for 10 seconds.
  ringload churn 127.0.0.1:7000 --faults rst,half_close,idle/vanish -c 200 -d 1m
  ringload churn 127.0.0.1:7000 --faults all,-vanish --may-reject
      For a server that allows few connections.
  ringload churn 127.0.0.1:7000 -n 10k --conn-rate 500 --seed 7
      The same scripts in each run.
  ringload churn 127.0.0.1:7000 --deadline 10s --faults deadline
      For a server with --idle-timeout 10s.
  ringload churn http://127.0.0.1:8080/index.html --path /large.iso
      Any HTTP server.
  ringload churn 127.0.0.1:7000 --proxy-protocol v1
      For a server behind a proxy: the faults follow the header.
  ringload churn packets://127.0.0.1:7100
      Also sends packets with wrong lengths. Files that it stores on the server remain there.";
    "Every option but --may-reject, --path, --resolve and --fail-if can also be set by an
  environment variable, such as RINGLOAD_DEADLINE. The command line takes precedence."
);

pub(super) const REPLAY: &str = "\
A script is one line: the target, seed=N and number=N, say=REQUEST,... and then its steps.
  connect[:OPTION,...]   open a connection; the options are
                           rcvbuf=N      receive buffer in bytes
                           from=ADDRESS  source address
                           again         source address and port of the previous connection
                           nowait        do not wait for the handshake
  send=N|all             send N bytes of the requests, or the rest
  dribble=N@T            send N bytes, one every T
  flood=T                send as much as the kernel accepts for T, and read nothing
  recv=N|reply|end       read N more bytes, one more reply, or up to the server's FIN or RST
  wait=T                 neither send nor read for T
  fin                    shut down sending (SHUT_WR)
  rst                    reset the connection
  close                  close the connection
  vanish=T               ignore all packets and acknowledge nothing; disappear after T
  crowd=N:fin|rst|close  open N more connections that leave at once

Examples:
  ringload replay 'echo://127.0.0.1:7000 seed=7 number=42 say=64,100 connect send=100 fin recv=end'
  ringload replay 'echo://[::1]:7000 say=64 connect:nowait rst connect:again send=all recv=reply'
  ringload replay race.txt --times 1000
      Repeats the scripts in race.txt until one has a finding, at most 1000 times.
  ringload replay 'echo://[::1]:7000 say=9 connect send=all recv=reply' --company 50

Figures for --fail-if: findings, leaks, and any number in the JSON report by its path, such as
walks (how often the scripts ran).

Exit status: 0 every outcome was allowed, 1 findings, a --fail-if condition or a leak, 2 wrong
usage, 3 no connection could be established, 4 ringload ran out of ports or descriptors, 130
interrupted.";

pub(crate) const PLAN: &str = r#"Example of a plan:
  seed = 7                         # seed of the first part; each further part adds 1
  restarts = false                 # true: something else restarts the server when it ends

  [server]                         # optional; needed for signals
  command = ["ringwrightd", "http", "www", "--admin", "127.0.0.1:9000"]
                                   # must stay this process: a shell must exec the server
                                   # or: pid = 4711, or: pid-file = "/run/nginx.pid"
  ready = "listening"              # ready when a line of its standard output contains this,
  ready-address = "127.0.0.1:8080" # and when this address accepts a connection
  ready-within = "10s"
  drain = "30s"                    # after TERM, INT or QUIT it must end within this, status 0
  ledger = "http://127.0.0.1:9000" # admin address; a leak fails the plan, as with --ledger
  check-process = true             # check its descriptors and threads, as with --pid

  [[phase]]                        # optional; phases follow each other
  name = "calm"
  length = "10s"

  [[part]]                         # one ringload process
  name = "herd"
  run = "idle 127.0.0.1:8080 --protocol http -c 5000 --probe-every 5s"
                                   # its command line, without -d or --hold
  start = "0s"                     # relative to the start of the plan, or of its phase
  length = "25s"                   # default: the rest of the phase, or of all phases

  [[part]]
  name = "load"
  run = "http http://127.0.0.1:8080/ -c 64 -R 5k"
  phase = "calm"
  fail-if = ["p99>50ms"]

  [[at]]
  time = "5s"                      # relative to the start of the plan, or of its phase
  signal = "HUP"                   # TERM HUP INT QUIT KILL USR1 USR2 WINCH STOP CONT
                                   # or: command = ["sh", "-c", "…"], must end with status 0

A part that is still running when the server is told to end, or may be restarted, gets --drain-ok:
clean closes are no errors, but a truncated or reset reply is.

Examples:
  ringload plan drain.toml --check
  ringload plan drain.toml --json report.json --html report.html

Figures for --fail-if: leaks, and any number in the JSON report by its path, such as
parts.load.report.errors_total.

Exit status: 0 all parts passed, 1 a part or the server failed, 2 wrong usage, 3 no part could
connect, 4 ringload was the bottleneck, 130 interrupted; the report covers the run up to then."#;
