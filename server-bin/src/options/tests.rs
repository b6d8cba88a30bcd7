//! Tests of the options.

use super::parse::{BUFFER_BYTES, BUFFERS_MAX, CONNECTIONS_MAX, SHARDS_MAX};
use super::*;
use crate::config::file::File;
use crate::config::load::{Loaded, load};
use crate::config::plan::plan;
use ringwright::{
    AtCapacity, Balance, Connection, Engine, Error, Handler, IdleOperation, ListenerSettings,
    Origin,
};
use std::path::Path;

#[test]
fn the_definition_is_consistent() {
    Options::command().debug_assert();
}

/// The configuration of a command line.
fn loaded(arguments: &[&str]) -> Loaded {
    let all = ["ringwrightd"].iter().chain(arguments).map(OsString::from);
    load(None, &Options::parse_all(all).unwrap().given).unwrap()
}

/// The settings of the engine for a command line.
fn config(arguments: &[&str]) -> Config {
    plan(&loaded(arguments).file, Path::new(".")).unwrap().engine
}

#[test]
fn the_defaults_of_flags_are_those_of_their_keys() {
    let matches = Options::command().get_matches_from(["ringwrightd", "http"]);
    let (_, http) = matches.subcommand().unwrap();
    let mut with_default = 0;
    for (argument, key, _) in given::HTTP.iter().chain(given::COMMON) {
        let Some(mut raw) = http.get_raw(argument) else { continue };
        if key.starts_with("site") {
            continue;
        }
        let value = raw.next().unwrap().to_str().unwrap().into();
        let given = [Given { key, value, origin: None }];
        assert_eq!(load(None, &given).unwrap().file, File::default(), "{argument}");
        with_default += 1;
    }
    assert!(with_default > 12, "{with_default}");
}

#[test]
fn defaults_are_those_of_the_engine() {
    let (config, default) = (config(&["echo"]), Config::default());
    let [listener] = &config.listeners[..] else { panic!("{:?}", config.listeners) };
    assert_eq!(listener.address, "127.0.0.1:7000".parse().unwrap());
    let of_engine = ListenerSettings {
        transfer_timeout: default.write_timeout,
        ..ListenerSettings::of(&default)
    };
    assert_eq!(listener.settings, Some(of_engine));
    assert!(config.raise_descriptors, "the daemon has no select(2)");
    assert_eq!(config.transfer_timeout, config.write_timeout, "one flag sets both");
    let same = Config {
        listeners: Vec::new(),
        raise_descriptors: false,
        transfer_timeout: default.transfer_timeout,
        ..config
    };
    assert_eq!(format!("{same:?}"), format!("{default:?}"));
    assert_eq!(loaded(&["http"]).file.admin.listen, None, "there is no admin listener by default");
}

#[test]
fn each_mode_has_the_settings_of_its_protocol() {
    let settings = |arguments: &[&str]| config(arguments).listeners[0].settings.clone().unwrap();
    let (http, of_http) = (config(&["http"]), settings(&["http"]));
    assert_eq!((http.evict_idle, http.workers, http.open_files), (true, 4, 1024));
    assert_eq!((of_http.evict_idle, of_http.min_rate), (true, 64));
    let off = settings(&["http", "--evict-idle", "off"]);
    assert_eq!((off.evict_idle, off.min_rate), (false, 0));
    assert_eq!(settings(&["http", "--min-rate", "0"]).min_rate, 0);
    let (packets, of_packets) = (config(&["packets"]), settings(&["packets"]));
    assert_eq!((packets.evict_idle, of_packets.min_rate, packets.workers), (false, 0, 2));
    assert!(of_packets.message_bytes_max > of_http.message_bytes_max);
    assert!(settings(&["echo", "--access-log", "-"]).count_traffic);
    assert!(!settings(&["http", "--access-log", "-"]).count_traffic, "it logs replies");
    let echo = settings(&["echo", "--evict-idle", "on", "--min-rate", "1KiB"]);
    assert_eq!((echo.evict_idle, echo.min_rate), (true, 1024));
}

#[test]
fn each_flag_sets_its_key() {
    type IsSet = fn(&Config) -> bool;
    let flags: [(&[&str], IsSet); 19] = [
        (&["--shards", "3"], |config| config.shards == Some(3)),
        (&["--max-connections", "77"], |config| config.max_connections == 77),
        (&["--buffers", "64"], |config| config.receive_buffers == 64),
        (&["--ring", "epoll"], |config| config.ring == RingChoice::Epoll),
        (&["--pin-from", "1"], |config| config.pin_from == 1),
        (&["--at-capacity", "reject"], |config| config.at_capacity == AtCapacity::Reject),
        (&["--balance", "off"], |config| config.balance == Balance::Off),
        (&["--evict-idle", "on"], |config| config.evict_idle),
        (&["--max-per-ip", "5"], |config| config.max_per_address == Some(5)),
        (&["--ban", "192.0.2.1,192.0.2.2"], |config| config.bans.len() == 2),
        (&["--idle-timeout", "never"], |config| config.idle_timeout.is_none()),
        (&["--request-timeout", "2s"], |config| config.receive_timeout == seconds(2)),
        (&["--write-timeout", "3s"], |config| config.write_timeout == seconds(3)),
        (&["--workers", "9"], |config| config.workers == 9),
        (&["--buffer-size", "8KiB"], |config| config.receive_buffer_bytes == 8 << 10),
        (&["--memory-budget", "64MiB"], |config| config.memory_budget_bytes == Some(64 << 20)),
        (&["--probe", "recv"], |config| config.idle_operation == IdleOperation::Receive),
        (&["--listen", "127.0.0.1:5,[::1]:5"], |config| config.listeners.len() == 2),
        (&["--listen", "127.0.0.1:5", "--listen", "127.0.0.1:6"], |c| c.listeners.len() == 2),
    ];
    for (flags, is_set) in flags {
        assert!(is_set(&config(&[&["echo"], flags].concat())), "{flags:?}");
    }
    let file = loaded(&["http", "--drain-timeout", "9s", "--drain-delay", "1s"]).file;
    assert_eq!(file.engine.timeouts.drain.0, Duration::from_secs(9));
    assert_eq!(file.engine.drain_delay.0, Duration::from_secs(1));
    let file = loaded(&["http", "--access-log", "x", "--log-format", "json"]).file;
    assert_eq!((file.log.access, file.log.format), (Some("x".into()), Format::Json));
    assert_eq!(loaded(&["http", "--admin", "[::1]:9"]).file.admin.listen.unwrap(), "[::1]:9");
    assert_eq!(loaded(&["http", "--admin-read", "[::1]:8"]).file.admin.read.unwrap(), "[::1]:8");
    let config = config(&["http", "--open-files", "7", "--open-files-valid", "2s"]);
    assert_eq!((config.open_files, Some(config.open_files_valid)), (7, seconds(2)));
}

#[test]
fn flags_of_http_set_the_keys_of_the_site() {
    let arguments = [
        "http",
        "--spa=/app.html",
        "--precompressed",
        "--error-page=404=/404.html",
        "--error-page=403=/403.html",
        "--listing=json",
        "--header=*.js: X-A: b: c",
        "--cache-control=/assets/**=max-age=5",
        "--mime=md=text/markdown",
        "--proxy-protocol-from=192.0.2.0/24,::1",
    ];
    let site = plan(&loaded(&arguments).file, Path::new(".")).unwrap().sites[0].spec.clone();
    assert_eq!((site.spa.as_deref(), site.precompressed), (Some("app.html"), true));
    assert_eq!((site.errors[&404].as_str(), site.errors[&403].as_str()), ("404.html", "403.html"));
    assert_eq!(site.listing, Listing::Json);
    let [header, cache, media] = &site.rules[..] else { panic!("{:?}", site.rules) };
    assert_eq!(header.matching, "*.js");
    assert_eq!(header.headers, [("X-A".to_owned(), "b: c".to_owned())]);
    assert_eq!(
        (cache.matching.as_str(), cache.cache.as_deref()),
        ("/assets/**", Some("max-age=5"))
    );
    assert_eq!(media.matching, "*.md");
    assert_eq!(media.content_type.as_deref(), Some("text/markdown"));
    let all = plan(&loaded(&arguments).file, Path::new(".")).unwrap();
    let proxies = &all.proxies[0];
    assert!(proxies.has("192.0.2.7".parse().ok()) && proxies.has("::1".parse().ok()));
    for (flag, value) in [("--header", "X-A"), ("--error-page", "404"), ("--mime", "=x")] {
        is_refused("http", flag, value);
    }
}

fn seconds(seconds: u64) -> Option<Duration> {
    Some(Duration::from_secs(seconds))
}

/// The key of the setting that the engine refuses.
fn refused_by_the_engine(config: Config) -> &'static str {
    struct Unused;
    impl Handler for Unused {
        type State = ();
        fn opened(&mut self, _: &mut Connection<'_>, _: Origin) {}
        fn received(&mut self, (): &mut (), _: &mut Connection<'_>, _: &[u8]) -> usize {
            unreachable!("the engine does not start")
        }
    }
    match Engine::start(config, |_| Unused).map(drop) {
        Err(Error::Config { key, .. }) => key,
        other => panic!("the engine refuses no setting: {other:?}"),
    }
}

#[test]
fn limits_are_those_of_the_engine() {
    // The engine checks this key after the others and reports the first wrong key.
    let last = "message_bytes_max";
    let config = || Config { message_bytes_max: 0, shards: Some(1), ..Config::default() };
    let shards = |shards| Config { shards: Some(shards), ..config() };
    let connections = |max_connections| Config { max_connections, ..config() };
    let per_ip = |limit| Config { max_per_address: Some(limit), ..config() };
    let buffers = |receive_buffers| Config { receive_buffers, ..config() };
    let bytes = |receive_buffer_bytes| Config { receive_buffer_bytes, ..config() };
    let workers = |workers| Config { workers, ..config() };
    let (least, most) = (*BUFFER_BYTES.start(), *BUFFER_BYTES.end());
    for (key, allowed, refused) in [
        ("shards", shards(1), shards(0)),
        ("shards", shards(SHARDS_MAX), shards(SHARDS_MAX + 1)),
        ("max_connections", connections(1), connections(0)),
        ("max_connections", connections(CONNECTIONS_MAX), connections(CONNECTIONS_MAX + 1)),
        ("max_per_address", per_ip(1), per_ip(0)),
        ("receive_buffers", buffers(1), buffers(0)),
        ("receive_buffers", buffers(BUFFERS_MAX), buffers(BUFFERS_MAX - 1)),
        ("receive_buffer_bytes", bytes(least), bytes(least - 1)),
        ("receive_buffer_bytes", bytes(most), bytes(most + 1)),
        ("workers", workers(WORKERS_MAX), workers(WORKERS_MAX + 1)),
    ] {
        assert_eq!(refused_by_the_engine(allowed), last, "{key}");
        assert_eq!(refused_by_the_engine(refused), key);
    }
}

#[test]
fn each_mode_takes_the_common_options() {
    for mode in ["http", "echo", "packets"] {
        let config = config(&[mode, "--workers", "3", "--request-timeout", "2s"]);
        assert_eq!((config.workers, config.receive_timeout), (3, seconds(2)));
    }
}

#[test]
fn an_address_given_twice_is_one_listener() {
    let listeners = |listen: &str| config(&["echo", "--listen", listen]).listeners.len();
    assert_eq!(listeners("127.0.0.1:80,[::1]:80,127.0.0.1:80"), 2);
    assert_eq!(listeners("127.0.0.1:0,127.0.0.1:0"), 2);
}

#[test]
fn limits_are_inclusive() {
    for (flag, values) in [
        ("--shards", ["1", "256"]),
        ("--max-connections", ["1", "1048576"]),
        ("--max-per-ip", ["1", "65535"]),
        ("--min-rate", ["0", "4294967295"]),
        ("--buffers", ["1", "32768"]),
        ("--buffer-size", ["64", "1MiB"]),
        ("--memory-budget", ["1MiB", "1TiB"]),
        ("--workers", ["0", "1024"]),
    ] {
        for value in values {
            let arguments = ["ringwrightd", "packets", flag, value];
            assert!(Options::try_parse_from(arguments).is_ok(), "{flag} {value}");
        }
    }
}

#[test]
fn examples_in_the_help_are_valid() {
    let notes = [PROGRAM_NOTES, HTTP_NOTES, ECHO_LONG_NOTES, PACKETS_NOTES, DOCTOR_NOTES];
    for note in notes {
        let examples = note.lines().filter(|line| line.starts_with("  ringwrightd "));
        let mut found = 0;
        for example in examples {
            let command = example.trim_start().split("  ").next().unwrap();
            let options = Options::try_parse_from(command.split(' '));
            options.and_then(Options::checked).unwrap_or_else(|error| panic!("{error}"));
            found += 1;
        }
        assert!(found > 0, "{note}");
    }
}

#[test]
fn mistakes_name_the_flag() {
    for (flag, value) in [
        ("--shards", "0"),
        ("--shards", "-1"),
        ("--listen", "127.0.0.1"),
        ("--max-connections", "0"),
        ("--max-connections", "2M"),
        ("--shards", "257"),
        ("--idle-timeout", "5"),
        ("--buffers", "1000"),
        ("--buffers", "65536"),
        ("--buffer-size", "63"),
        ("--memory-budget", "1023KiB"),
        ("--memory-budget", "half"),
        ("--buffer-size", "1048577"),
        ("--probe", "none"),
        ("--ring", "io-uring"),
        ("--at-capacity", "panic"),
        ("--balance", "on"),
        ("--log-format", "xml"),
        ("--admin", "9000"),
        ("--max-per-ip", "0"),
        ("--max-per-ip", "65536"),
        ("--min-rate", "-1"),
        ("--min-rate", "4GiB"),
        ("--ban", "192.0.2.0/33"),
        ("--ban", "localhost"),
    ] {
        is_refused("http", flag, value);
    }
    for (flag, value) in [
        ("--disconnect-rate", "101%"),
        ("--disconnect-rate", "-0.1"),
        ("--disconnect-rate", "5 %"),
        ("--disconnect-rate", "often"),
        ("--disconnect-seed", "-1"),
    ] {
        is_refused("echo", flag, value);
    }
    for (flag, value) in [
        ("--upload-max", "0"),
        ("--upload-max", "16Gib"),
        ("--offer-timeout", "0s"),
        ("--offer-timeout", "never"),
        ("--workers", "1025"),
        ("--workers", "-1"),
        ("--workers", "auto"),
    ] {
        is_refused("packets", flag, value);
    }
}

#[track_caller]
fn is_refused(mode: &str, flag: &str, value: &str) {
    let arguments = ["ringwrightd".to_owned(), mode.into(), format!("{flag}={value}")];
    let error = Options::try_parse_from(arguments).unwrap_err();
    assert_eq!(error.exit_code(), 2, "{flag} {value}");
    assert!(error.to_string().contains(flag), "{error}");
}

#[test]
fn read_only_contradicts_replace() {
    let checked = |flags: &[&str]| {
        let all = [&["ringwrightd", "packets"], flags].concat();
        Options::try_parse_from(all).and_then(Options::checked)
    };
    let error = checked(&["--read-only", "--replace"]).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    let said = error.to_string();
    assert!(said.contains("--read-only") && said.contains("--replace"), "{said}");
    for one in ["--read-only", "--replace"] {
        checked(&[one]).unwrap();
    }
}

#[test]
fn packets_have_16_gib() {
    let packets = |flags: &[&str]| {
        let plan = plan(&loaded(&[&["packets"], flags].concat()).file, Path::new(".")).unwrap();
        plan.packets[0].clone()
    };
    let default = packets(&[]);
    assert_eq!(default.rules.upload_bytes_max, 16 << 30);
    assert_eq!(default.rules.offer_timeout, Duration::from_secs(30));
    assert_eq!(default.kept.timeout, Duration::from_secs(600));
    assert_eq!(default.kept.bytes_max, 16 << 30);
    assert!(!default.rules.read_only && !default.rules.replace && !default.rules.sync);
    let given = packets(&["--replace", "--sync", "--upload-max", "1KiB", "--resume-max", "0"]);
    assert!(given.rules.replace && given.rules.sync);
    assert_eq!((given.rules.upload_bytes_max, given.kept.bytes_max), (1 << 10, 0));
    let given = packets(&["--read-only", "--offer-timeout", "1s", "--resume-timeout", "2s"]);
    assert!(given.rules.read_only);
    assert_eq!(given.rules.offer_timeout, Duration::from_secs(1));
    assert_eq!(given.kept.timeout, Duration::from_secs(2));
}
