//! The fault matrix against a server with one bug: it must be found, named, and seen again from the
//! command that is printed. The same server without the bug must pass.

use crate::support::broken::{Bug, broken};
use crate::support::{EARLY, Ended, LONG, echo, nobody, server, start};
use std::net::SocketAddr;
use std::process::Command;
use std::thread;
use std::time::Duration;

fn churn(address: SocketAddr, options: &str) -> Ended {
    start("churn", &address.to_string(), options).end()
}

/// Asserts that the rule was found and nothing but what may follow from it.
fn found(ended: &Ended, rule: &str, may_follow: &[&str]) {
    assert_eq!((ended.status, &ended.report["outcome"]), (1, &"failed".into()), "{ended}");
    assert!(ended.report["findings"][rule].as_u64() > Some(0), "no {rule}\n{ended}");
    for name in ended.report["findings"].as_object().expect("findings").keys() {
        assert!(name == rule || may_follow.contains(&&**name), "{name} too\n{ended}");
    }
    assert!(ended.stdout.contains(&format!("\n{rule}: ")), "{ended}");
}

/// Runs the command that was printed for the rule, against a server that may be another one by now.
fn replay(ended: &Ended, rule: &str, address: SocketAddr, options: &str) -> String {
    let told = ended.stdout.split(&format!("\n{rule}: ")).nth(1).expect("it was found");
    let command = told.lines().find_map(|line| line.strip_prefix("  ringload replay "));
    let was = format!("echo://{}", ended.report["plan"]["address"].as_str().expect("an address"));
    let command = format!(
        "'{}' replay {} {options}",
        env!("CARGO_BIN_EXE_ringload"),
        command
            .unwrap_or_else(|| panic!("no command\n{ended}"))
            .replace(&was, &format!("echo://{address}")),
    );
    // As a person would: the shell takes the quotes away.
    let output = Command::new("sh").args(["-c", &command]).output().expect("a shell");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{command}\n{text}\n{errors}\n{ended}");
    assert!(text.contains(&format!("  {rule}: ")), "{command}\n{text}\n{ended}");
    text
}

#[test]
fn a_good_server_passes_all_of_the_matrix() {
    let address = broken(Bug::None);
    let ended = churn(address, "-n 500 -c 32 --seed 1 --bystanders 2 --timeout 15s");
    assert_eq!((ended.status, ended.count("findings_total")), (0, 0), "{ended}");
    let report = &ended.report;
    assert_eq!((ended.count("scripts"), ended.count("unfinished")), (500, 0), "{ended}");
    assert_eq!(report["plan"]["faults"].as_array().map(Vec::len), Some(54), "{ended}");
    assert!(report["bystanders"]["abuse_us"]["samples"].as_u64() > Some(0), "{ended}");
    let opening = "54 cells of the fault matrix";
    assert!(ended.stdout.contains("PASSED") && ended.stderr.contains(opening), "{ended}");
    // The matrix is a function of the seed.
    let again = churn(address, "-n 100 -c 8 --seed 1 --bystanders 0 --quiet --timeout 15s");
    assert_eq!((again.status, &*again.stderr), (0, ""), "{again}");
    assert!(again.report["bystanders"].is_null(), "{again}");
}

#[test]
fn a_reset_instead_of_a_reply_on_half_close_is_found() {
    let address = broken(Bug::ResetsOnHalfClose);
    let options = "-n 300 -c 8 --seed 1 --bystanders 0 --faults asked,in_body,none,-stop_reading";
    let ended = churn(address, options);
    found(&ended, "reset_instead_of_reply", &[]);
    let first = &ended.report["examples"][0];
    assert_eq!(first["seen_again"], "alone", "{ended}");
    let shrunk = first["shrunk"][0].as_str().expect("a script");
    assert!(shrunk.len() < first["script"].as_str().map_or(0, str::len), "{ended}");
    assert!(shrunk.ends_with("fin recv=end"), "{ended}");
    replay(&ended, "reset_instead_of_reply", address, "");
}

#[test]
fn bytes_of_another_connection_are_found_and_attributed() {
    let address = broken(Bug::AnswersWithAnothersBytes);
    let options =
        "-n 150 -c 16 --seed 2 --bystanders 0 --timeout 2s --faults none,half_close,-before_accept";
    let ended = churn(address, options);
    found(&ended, "foreign_bytes", &["wrong_bytes"]);
    assert!(ended.stdout.contains(" belong to offset "), "{ended}");
    assert_eq!(ended.report["examples"][0]["seen_again"], "together", "{ended}");
    let text = replay(&ended, "foreign_bytes", address, "--times 100");
    assert!(text.contains(" belong to offset "), "{text}");
}

#[test]
fn an_accept_that_is_not_armed_again_is_found() {
    let options =
        "-n 32 -c 8 --seed 3 --bystanders 0 --timeout 1s --faults before_accept/rst,asked/none";
    let ended = churn(broken(Bug::ForgetsToAccept), options);
    found(&ended, "not_served", &["no_reaction"]);
    assert!(ended.stdout.contains("the server did not survive"), "{ended}");
    replay(&ended, "not_served", broken(Bug::ForgetsToAccept), "--times 20");
}

#[test]
fn a_connection_that_is_leaked_on_reset_is_found() {
    let options = "-n 40 -c 8 --seed 5 --bystanders 0 --timeout 1s --faults asked/rst,asked/none";
    let ended = churn(broken(Bug::LeaksOnReset), options);
    found(&ended, "not_served", &["no_reaction"]);
    assert!(ended.stdout.contains("the server did not survive"), "{ended}");
    replay(&ended, "not_served", broken(Bug::LeaksOnReset), "--times 20");
}

#[test]
fn a_thread_held_by_a_stalled_reader_is_found() {
    let address = broken(Bug::WaitsForStalledReaders);
    let options = "-d 2s -c 24 --seed 6 --bystanders 2 --timeout 500ms \
                   --faults asked/stop_reading,asked/none";
    let ended = churn(address, options);
    found(&ended, "not_served", &["no_reaction"]);
    replay(&ended, "not_served", address, "--times 50");
    let ratio = ended.report["bystanders"]["ratio_max"].as_f64().expect("a ratio");
    assert!(ratio > 2.0, "{ended}");
}

#[test]
fn a_server_that_is_not_there_is_no_finding() {
    let ended = churn(nobody(), "-d 1s");
    assert_eq!((ended.status, &ended.report["outcome"]), (3, &"unreachable".into()), "{ended}");
}

#[test]
fn an_interrupt_ends_the_run_with_a_report() {
    let running = start("churn", &broken(Bug::None).to_string(), &format!("-d {LONG} -c 4"));
    thread::sleep(Duration::from_millis(1_500));
    running.signal(libc::SIGINT);
    let ended = running.end();
    assert_eq!((ended.status, &ended.report["outcome"]), (130, &"interrupted".into()), "{ended}");
    assert!(ended.took < EARLY && ended.stdout.contains("INTERRUPTED"), "{ended}");
}

/// Some kernels let only privileged users attach a socket filter to TCP.
#[test]
fn a_fault_that_this_user_may_not_play_is_not_counted_as_played() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    const NOBODY: u32 = 65_534;
    let address = server(|stream| echo(stream, |_, _| true)).to_string();
    let folder = tempfile::tempdir().expect("a folder");
    let everyone = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(folder.path(), everyone.clone()).expect("our own folder");
    let program = folder.path().join("ringload");
    std::fs::copy(env!("CARGO_BIN_EXE_ringload"), &program).expect("a copy");
    std::fs::set_permissions(&program, everyone).expect("our own file");
    let mut command = std::process::Command::new(&program);
    let options = "--faults asked/vanish -n 9 -c 2 --bystanders 0 --seed 1 --quiet --json -";
    command.arg("churn").arg(&address).args(options.split(' '));
    // SAFETY: geteuid(2) has no preconditions.
    if unsafe { libc::geteuid() } == 0 {
        command.uid(NOBODY).gid(NOBODY);
    }
    let output = command.output().expect("it starts");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("a report");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), &report["vanished"]), (Some(0), &0.into()), "{text}");
    let not_played = report["not_played"].as_u64().expect("a count");
    assert!(not_played == 0 || not_played == 9, "{report:#}");
    let told = text.matches("vanish was not played in 9 scripts: ").count();
    assert_eq!(told, usize::from(not_played > 0), "{text}");
    assert_eq!(text.contains("not played\n"), not_played > 0, "{text}");
}
