//! The ends of the help texts.

/// Ends the help of every mode.
macro_rules! units {
    () => {
        "Durations need a unit: 500us, 100ms, 5s, 2m, 1h. Counts: 500, 10k, 1M.\n\
         Sizes are in bytes or have a unit: 4096, 64KiB, 1MiB, 16GiB.\n\
         A flag overrides its environment variable."
    };
}

macro_rules! echo_examples {
    () => {
        "Examples:\n  \
           ringwrightd echo --listen 127.0.0.1:7000 --shards 1\n  \
           ringwrightd echo --disconnect-rate 1%     closes connections at random\n  \
           ringwrightd echo --disconnect-rate 1% --disconnect-seed 7 --shards 1\n\n"
    };
}

pub(super) const PROGRAM_NOTES: &str = "Examples:\n  \
      ringwrightd http                          serves the current directory on port 8080\n  \
      ringwrightd http /srv/www --listen 0.0.0.0:80 --max-connections 50k\n  \
      ringwrightd echo --listen 127.0.0.1:7000 --shards 1\n  \
      ringwrightd packets /srv/files --upload-max 64GiB --replace\n  \
      ringwrightd run /etc/ringwrightd.toml     serves the sites of a file\n  \
      ringwrightd doctor                        checks this system\n\n\
    SIGTERM, SIGINT or SIGQUIT starts a drain: the server accepts no new connections and finishes \
    the requests in progress. A second signal ends it at once.\n\
    Exit status: 0 after a clean end, 1 after a failure, 2 for wrong options.";

pub(super) const HTTP_NOTES: &str = concat!(
    "Examples:\n  \
       ringwrightd http                          serves the current directory on port 8080\n  \
       ringwrightd http /srv/www --listen 0.0.0.0:80 --listen 127.0.0.1:8080\n  \
       ringwrightd http /srv/www --access-log /var/log/www.log --log-format json\n  \
       ringwrightd http /srv/www --admin 127.0.0.1:9000 --max-connections 50k\n  \
       ringwrightd http /srv/app --spa /index.html --precompressed --listing html\n\n",
    units!()
);

pub(super) const ECHO_NOTES: &str = concat!(echo_examples!(), units!());

/// `ECHO_NOTES` with a description of `--disconnect-rate`.
pub(super) const ECHO_LONG_NOTES: &str = concat!(
    echo_examples!(),
    "--disconnect-rate ends a connection in one of these ways. All ways of a group are equally \
     likely.\n  \
       Directly after accept, before any byte:\n    \
         close_at_once  FIN\n    \
         reset_at_once  RST; the client's connect(2) may already fail\n  \
       After receiving bytes:\n    \
         close          the echo of these bytes, then FIN\n    \
         reset          RST instead of the echo\n    \
         half_close     FIN instead of the echo; reads for 0.1 to 1 s more, then RST\n    \
         cut_close      a part of the echo, then FIN\n    \
         cut_reset      a part of the echo, then RST 2 to 20 ms later\n    \
         stall          neither sends nor reads for 0.1 to 1 s, then RST\n\
     A connection that sends nothing is ended only directly after accept.\n\n\
     Three numbers select the way in which a connection ends, and the accept or receive at which \
     it ends: the seed, the shard, and the number of connections that the shard accepted before. \
     A seed repeats a run exactly if --shards is 1, the client opens its \
     connections one after another and waits for each echo before it sends more, and each message \
     fits into --buffer-size. With several shards, each shard repeats its own sequence, but the \
     kernel chooses the shard of a connection by the client's port.\n\n\
     The server counts these ways: it prints a line `disconnected {...}` on standard error when \
     it ends, and /metrics has ringwright_disconnects_total.\n\n",
    units!()
);

pub(super) const PACKETS_NOTES: &str = concat!(
    "Examples:\n  \
       ringwrightd packets /srv/files            serves and accepts files on 127.0.0.1:7100\n  \
       ringwrightd packets /srv/files --read-only --listen 0.0.0.0:7100\n  \
       ringwrightd packets /srv/files --upload-max 64GiB --replace --sync\n\n",
    units!()
);

pub(super) const DOCTOR_NOTES: &str = concat!(
    "Examples:\n  \
       ringwrightd doctor\n  \
       ringwrightd doctor /srv/files             checks uploads to this directory as well\n  \
       ringwrightd doctor --shards 8 --max-connections 100k\n  \
       ringwrightd doctor --seccomp-profile docker    prints a profile for docker run\n\n",
    units!()
);

pub(super) const RUN_NOTES: &str = concat!(
    "Examples:\n  \
       ringwrightd run /etc/ringwrightd.toml\n  \
       ringwrightd run site.toml --shards 2 --admin 127.0.0.1:9000\n  \
       ringwrightd run site.toml --print-config  shows each value and where it comes from\n\n",
    units!()
);

pub(super) const CHECK_NOTES: &str = "Example:\n  ringwrightd check /etc/ringwrightd.toml";
