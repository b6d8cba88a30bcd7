//! The unit of systemd, judged by systemd-analyze. Its system calls are tried in a container.

use super::{replaced, shipped};
use crate::common::command;
use crate::configured::folder;
use crate::profile::{analyze, can_use_crun, systemd_allows, works_with};
use ringwright_test_support::needs_program;
use std::fs;

/// The exposure that systemd-analyze may find, in tenths of its 10 points.
const EXPOSURE_MAX: &str = "25";

fn unit() -> String {
    fs::read_to_string(shipped("ringwrightd.service")).unwrap()
}

#[test]
fn systemd_accepts_the_unit_and_finds_it_confined() {
    if !needs_program("systemd-analyze", "systemd") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ringwrightd.service");
    // A program that is not installed is a mistake of the unit.
    let program = env!("CARGO_BIN_EXE_ringwrightd");
    fs::write(&file, replaced(&unit(), &[("/usr/local/bin/ringwrightd", program)])).unwrap();
    assert_eq!(analyze(&["verify", "--man=no"], &file), "");
    let threshold = format!("--threshold={EXPOSURE_MAX}");
    // Its exit status tells whether the exposure is below the threshold.
    analyze(&["security", "--offline=true", "--no-pager", &threshold], &file);
}

/// Each command of the unit is one that the daemon takes.
#[test]
fn the_unit_starts_what_there_is() {
    let folder = folder(&[("www/", ""), ("files/", "")]);
    let text = fs::read_to_string(shipped("ringwrightd.toml")).unwrap();
    let roots = [("/srv/www", "www"), ("/var/lib/ringwrightd", "files")];
    let file = folder.path().join("ringwrightd.toml");
    fs::write(&file, replaced(&text, &roots)).unwrap();
    let mut commands = 0;
    let unit = unit();
    for line in unit.lines().filter(|line| line.contains("=/usr/local/bin/ringwrightd ")) {
        let arguments: Vec<&str> = line.split(' ').skip(1).collect();
        let [verb, "/etc/ringwrightd/ringwrightd.toml"] = arguments[..] else { panic!("{line}") };
        let mut command = command(&[verb, file.to_str().unwrap()]);
        if verb == "run" {
            command.arg("--print-config");
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        commands += 1;
    }
    assert_eq!(commands, 3);
}

#[test]
fn the_daemon_needs_no_call_that_the_unit_forbids() {
    if can_use_crun() && needs_program("systemd-analyze", "systemd") {
        let mut names = systemd_allows(&unit());
        // With these crun becomes the container's user after it has set the filter.
        for name in ["capset", "setgroups", "setresuid"] {
            assert!(names.insert(name.to_owned()), "the unit forbids {name}");
        }
        works_with(names);
    }
}
