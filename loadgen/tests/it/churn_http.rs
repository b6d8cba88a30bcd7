//! The fault matrix over HTTP, against a server of files with one bug: it must be found, named, and
//! seen again from the command that is printed. The same server without the bug must pass.

use crate::support::files::{FilesBug, PATHS, files};
use crate::support::{Ended, start};
use std::net::SocketAddr;
use std::process::Command;

fn churn(address: SocketAddr, options: &str) -> Ended {
    let paths: Vec<String> = PATHS.iter().map(|path| format!("--path {path}")).collect();
    let options = format!("--protocol http --bystanders 0 {} {options}", paths.join(" "));
    start("churn", &address.to_string(), &options).end()
}

/// Asserts that the rule was found and nothing but what may follow from it, with these words, and
/// that the printed command finds it again.
fn found(bug: FilesBug, rule: &str, may_follow: &[&str], says: &str, options: &str) {
    let address = files(bug);
    let ended = churn(address, options);
    assert_eq!((ended.status, &ended.report["outcome"]), (1, &"failed".into()), "{ended}");
    let findings = ended.report["findings"].as_object().expect("findings");
    assert!(findings.get(rule).and_then(|count| count.as_u64()) > Some(0), "{ended}");
    for name in findings.keys() {
        assert!(name == rule || may_follow.contains(&&**name), "{name} too\n{ended}");
    }
    let told = ended.stdout.split(&format!("\n{rule}: ")).nth(1);
    let told = told.unwrap_or_else(|| panic!("it is not told\n{ended}"));
    assert!(told.contains(says), "{ended}");
    let command = told.lines().find_map(|line| line.strip_prefix("  ringload replay "));
    let command = command.unwrap_or_else(|| panic!("no command\n{ended}"));
    let command = format!("'{}' replay {command} --times 50", env!("CARGO_BIN_EXE_ringload"));
    // As a person would: the shell takes the quotes away.
    let output = Command::new("sh").args(["-c", &command]).output().expect("a shell");
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{command}\n{text}\n{errors}\n{ended}");
    assert!(text.contains(&format!("  {rule}: ")), "{command}\n{text}\n{ended}");
}

#[test]
fn a_good_server_of_files_passes_all_of_the_matrix() {
    let address = files(FilesBug::None);
    let ended = churn(address, "-n 300 -c 16 --seed 4 --timeout 15s --faults all,-stop_reading");
    assert_eq!((ended.status, ended.count("findings_total")), (0, 0), "{ended}");
    let faults = ended.report["plan"]["faults"].as_array().expect("cells");
    for cell in ["in_header/dribble", "in_body/half_close", "in_file/rst", "boundary/fin"] {
        assert!(faults.contains(&cell.into()), "{cell}\n{ended}");
    }
}

#[test]
fn a_file_that_is_cut_is_found() {
    let says = "the FIN came at byte 750000 of 1500000";
    found(FilesBug::CutsFiles, "cut_reply", &[], says, "-n 60 -c 8 --seed 1 --faults in_file/none");
}

#[test]
fn another_files_bytes_are_found_and_attributed() {
    let says = "these bytes belong to offset 0 of /b";
    let options = "-n 60 -c 8 --seed 2 --faults asked/none,connected/none";
    found(FilesBug::AnswersAnother, "foreign_bytes", &[], says, options);
}

#[test]
fn a_reset_instead_of_a_reply_on_half_close_is_found_over_http() {
    let options = "-n 60 -c 8 --seed 3 --faults asked/half_close";
    let rule = "reset_instead_of_reply";
    found(FilesBug::ResetsOnHalfClose, rule, &[], "had not been answered", options);
}

#[test]
fn a_reply_destroyed_by_a_close_with_bytes_unread_is_found() {
    let options = "-n 100 -c 8 --seed 5 --faults boundary/none,in_body/none";
    // Also before the whole body was said.
    let (rule, may_follow) = ("reset_instead_of_reply", &["unprovoked_reset"]);
    found(FilesBug::ClosesUnread, rule, may_follow, "had not been answered", options);
}

#[test]
fn an_end_that_is_announced_and_does_not_come_is_found() {
    let options = "-n 30 -c 8 --seed 6 --timeout 1s --faults asked/none";
    found(FilesBug::ForgetsToClose, "no_reaction", &[], "announced the end", options);
}

#[test]
fn a_path_that_is_not_there_is_named() {
    let address = files(FilesBug::None);
    let ended = churn(address, "-n 1 --path /missing");
    assert_eq!(ended.status, 1, "{ended}");
    assert!(ended.stderr.contains("/missing: the server answers 400"), "{ended}");
}

#[test]
fn a_page_that_varies_is_walked_if_it_may() {
    use crate::support::{http, ok, server};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    let count = Arc::new(AtomicU64::new(0));
    let address = server(move |stream| {
        let count = count.clone();
        http(stream, move |head, _| {
            let length = 1 + count.fetch_add(1, Ordering::Relaxed) % 7;
            let reply = ok(&vec![b'x'; length as usize]);
            let is_head = head.starts_with("HEAD");
            Some(if is_head { reply[..reply.len() - length as usize].to_vec() } else { reply })
        });
    });
    let options = "--protocol http --bystanders 0 -n 40 -c 2 --seed 3 --faults asked/none";
    let ended = start("churn", &address.to_string(), options).end();
    assert!(ended.status == 1 && ended.stderr.contains("--vary-ok"), "{ended}");
    let options = format!("{options} --vary-ok --oracle foreign");
    let ended = start("churn", &address.to_string(), &options).end();
    for rule in ["wrong_bytes", "foreign_bytes", "cut_reply"] {
        assert!(ended.report["findings"][rule].is_null(), "{ended}");
    }
}
