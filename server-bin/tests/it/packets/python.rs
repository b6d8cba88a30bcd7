//! A client in another language, written from `PACKETS.md` alone.

use super::Served;
use crate::common::pattern;
use ringwright_test_support::needs_program;
use sha2::{Digest, Sha256};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

const SCRIPT: &str = include_str!("client.py");

fn run(served: &Served, dir: &Path, arguments: &[&str]) -> Output {
    let address = served.daemon.address.to_string();
    let mut python = Command::new("python3");
    python.current_dir(dir).args(["-c", SCRIPT, &address]).args(arguments);
    python.output().expect("python3 is there")
}

#[track_caller]
fn says(output: Output) -> String {
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), stderr.as_str()), (Some(0), ""));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_client_of_under_60_lines_does_all_of_it() {
    if !needs_program("python3", "python3") {
        return;
    }
    assert!(SCRIPT.lines().count() < 60, "{} lines", SCRIPT.lines().count());
    assert!(SCRIPT.lines().all(|line| line.len() <= 100), "the lines are lines");
    let served = Served::start(&[]);
    let home = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| run(&served, home.path(), arguments);
    let bytes = pattern(5_000_000);
    fs::write(home.path().join("mine"), &bytes).unwrap();
    assert_eq!(says(run(&["echo", "hello"])), "hello\n");
    let sum: String = Sha256::digest("hello").iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(says(run(&["digest", "hello"])), sum + "\n");
    assert_eq!(says(run(&["list"])), "");
    assert_eq!(says(run(&["put", "mine"])), "");
    assert_eq!(says(run(&["put", "mine", "other"])), "");
    assert_eq!(says(run(&["list"])), "5000000 mine\n5000000 other\n");
    assert_eq!(says(run(&["get", "other", "back"])), "");
    assert!(fs::read(home.path().join("back")).unwrap() == bytes);
    for (arguments, code) in [(["put", "mine"], "error 6: "), (["get", "nothing"], "error 4: ")] {
        let output = run(&arguments);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.starts_with(code), "{stderr}");
    }
    served.stop(&["mine", "other"]);
}
