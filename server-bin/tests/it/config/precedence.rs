//! A flag goes over the environment, the environment over the file, the file over the default.

use super::run;
use crate::configured::folder;
use std::fs;
use tempfile::TempDir;
use toml::{Table, Value};

const FILE: &str = "[engine]\nmax_connections = 300\nbans = [\"192.0.2.1\", \"192.0.2.2\"]\n\
     timeouts = { idle = \"70s\" }\n[log]\nformat = \"json\"\n\
     [[site]]\nlisten = [\"127.0.0.1:0\"]\nroot = \"www\"\n";

fn files(text: &str) -> TempDir {
    let files = folder(&[("www/a.txt", "")]);
    fs::write(files.path().join("c.toml"), text).unwrap();
    files
}

/// The text of `--print-config` with these flags and variables.
fn printed(files: &TempDir, flags: &[&str], variables: &[(&str, &str)]) -> String {
    let path = files.path().join("c.toml");
    let mut arguments = vec!["run", path.to_str().unwrap(), "--print-config"];
    arguments.extend_from_slice(flags);
    let output = run(&arguments, variables);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn value(printed: &str, path: &[&str]) -> Value {
    let table: Table = toml::from_str(printed).unwrap();
    path.iter().fold(Value::Table(table), |value, key| value[key].clone())
}

/// The comment behind a key.
fn origin<'a>(printed: &'a str, key: &str) -> &'a str {
    let start = format!("{key} = ");
    let line = printed.lines().find(|line| line.starts_with(&start)).unwrap();
    line.rsplit_once("# ").unwrap().1
}

#[test]
fn a_flag_goes_over_the_environment_over_the_file_over_the_default() {
    let files = files(FILE);
    let key = ["engine", "max_connections"];
    let variable = [("RINGWRIGHTD_MAX_CONNECTIONS", "400")];
    let flag = ["--max-connections", "500"];
    for (flags, variables, expected, from) in [
        (&[][..], &[][..], 300, "c.toml:2"),
        (&[], &variable, 400, "RINGWRIGHTD_MAX_CONNECTIONS"),
        (&flag, &[], 500, "--max-connections"),
        (&flag, &variable, 500, "--max-connections"),
    ] {
        let printed = printed(&files, flags, variables);
        assert_eq!(value(&printed, &key), Value::Integer(expected));
        assert!(origin(&printed, key[1]).ends_with(from), "{printed}");
    }
    let printed = printed(&files, &[], &[]);
    assert_eq!(value(&printed, &["engine", "timeouts", "idle"]), "70s".into());
    assert_eq!(origin(&printed, "write"), "default");
    assert_eq!(value(&printed, &["engine", "timeouts", "write"]), "30s".into());
}

#[test]
fn a_list_replaces_the_list_of_the_file() {
    let files = files(FILE);
    let bans = |flags: &[&str], variables: &[(&str, &str)]| {
        let printed = printed(&files, flags, variables);
        let bans = value(&printed, &["engine", "bans"]);
        let bans = bans.as_array().unwrap().iter().map(|ban| ban.as_str().unwrap().to_owned());
        bans.collect::<Vec<_>>()
    };
    let variable = [("RINGWRIGHTD_BAN", "192.0.2.7,192.0.2.8")];
    assert_eq!(bans(&[], &[]), ["192.0.2.1/32", "192.0.2.2/32"]);
    assert_eq!(bans(&["--ban", "192.0.2.9"], &[]), ["192.0.2.9/32"]);
    assert_eq!(bans(&[], &variable), ["192.0.2.7/32", "192.0.2.8/32"]);
    assert_eq!(bans(&["--ban", "192.0.2.9"], &variable), ["192.0.2.9/32"]);
}

#[test]
fn each_flag_of_run_reaches_its_key() {
    let files = files(FILE);
    for (flag, given, path, expected) in [
        ("--shards", "1", &["engine", "shards"][..], Value::Integer(1)),
        ("--ring", "epoll", &["engine", "ring"], "epoll".into()),
        ("--buffers", "128", &["engine", "buffers"], Value::Integer(128)),
        ("--buffer-size", "8KiB", &["engine", "buffer_size"], "8KiB".into()),
        ("--pin-from", "1", &["engine", "pin_from"], Value::Integer(1)),
        ("--at-capacity", "reject", &["engine", "at_capacity"], "reject".into()),
        ("--balance", "off", &["engine", "balance"], "off".into()),
        ("--evict-idle", "off", &["engine", "evict_idle"], "off".into()),
        ("--min-rate", "1KiB", &["engine", "min_rate"], "1KiB".into()),
        ("--max-per-ip", "7", &["engine", "max_per_ip"], Value::Integer(7)),
        ("--idle-timeout", "9s", &["engine", "timeouts", "idle"], "9s".into()),
        ("--request-timeout", "9s", &["engine", "timeouts", "request"], "9s".into()),
        ("--write-timeout", "9s", &["engine", "timeouts", "write"], "9s".into()),
        ("--drain-timeout", "9s", &["engine", "timeouts", "drain"], "9s".into()),
        ("--drain-delay", "9s", &["engine", "drain_delay"], "9s".into()),
        ("--workers", "9", &["engine", "workers"], Value::Integer(9)),
        ("--memory-budget", "32MiB", &["engine", "memory_budget"], "32MiB".into()),
        ("--probe", "recv", &["engine", "probe"], "recv".into()),
        ("--access-log", "a.log", &["log", "access"], "a.log".into()),
        ("--log-format", "combined", &["log", "format"], "combined".into()),
        ("--error-log", "e.log", &["log", "error"], "e.log".into()),
        ("--log-level", "warn", &["log", "level"], "warn".into()),
        ("--admin", "127.0.0.1:0", &["admin", "listen"], "127.0.0.1:0".into()),
    ] {
        let of_flag = printed(&files, &[flag, given], &[]);
        assert_eq!(value(&of_flag, path), expected, "{flag}");
        assert_eq!(origin(&of_flag, path[path.len() - 1]), flag);
        let variable = format!("RINGWRIGHTD_{}", flag[2..].replace('-', "_").to_uppercase());
        let of_variable = printed(&files, &[], &[(&variable, given)]);
        assert_eq!(value(&of_variable, path), expected, "{variable}");
        assert_eq!(origin(&of_variable, path[path.len() - 1]), variable);
    }
}

#[test]
fn settings_of_one_site_beside_a_file_are_refused() {
    let files = files(FILE);
    let path = files.path().join("c.toml");
    let path = path.to_str().unwrap();
    for variable in [
        "RINGWRIGHTD_SPA",
        "RINGWRIGHTD_SYMLINKS",
        "RINGWRIGHTD_LISTEN",
        "RINGWRIGHTD_DIR",
        "RINGWRIGHTD_READ_ONLY",
        "RINGWRIGHTD_UPLOAD_MAX",
    ] {
        let output = run(&["run", path, "--print-config"], &[(variable, "1")]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(variable), "{said}");
        // `check` reads the file alone.
        assert_eq!(run(&["check", path], &[(variable, "1")]).status.code(), Some(0));
    }
    let output = run(&["run", path, "--listen", "127.0.0.1:0"], &[]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_printed_configuration_is_a_file_that_means_the_same() {
    for text in [FILE, super::complete::COMPLETE] {
        let files = super::complete::files();
        fs::write(files.path().join("c.toml"), text).unwrap();
        let first = printed(&files, &[], &[]);
        fs::write(files.path().join("c.toml"), &first).unwrap();
        let path = files.path().join("c.toml");
        let output = run(&["check", path.to_str().unwrap()], &[]);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        let second = printed(&files, &[], &[]);
        let parsed = |printed: &str| toml::from_str::<Table>(printed).unwrap();
        assert_eq!(parsed(&first), parsed(&second));
        // It has all that the file had.
        let before: Table = toml::from_str(text).unwrap();
        let after = parsed(&first);
        for (name, table) in &before {
            assert!(after.contains_key(name), "{name}");
            let count = |value: &Value| value.as_array().map_or(1, Vec::len);
            assert_eq!(count(table), count(&after[name]), "{name}");
        }
    }
}
