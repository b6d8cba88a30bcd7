//! Signals, exit status, environment: what a script relies on.

use crate::support::{EARLY, LONG, STARTED_MAX, echo, server, start, without_notice};
use std::io::Read;
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

fn ringload(arguments: &[&str], environment: &[(&str, &str)]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_ringload"))
        .args(arguments)
        .envs(environment.iter().copied())
        .output()
        .expect("the program starts");
    (
        output.status.code().unwrap_or(-1),
        String::from_utf8_lossy(&output.stdout).into_owned(),
        without_notice(&String::from_utf8_lossy(&output.stderr)),
    )
}

#[test]
fn an_interrupt_ends_the_run_with_a_report() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        let (sender, receiver) = mpsc::channel();
        let address = server(move |stream| {
            let sender = sender.clone();
            echo(stream, move |_, offset| offset > 0 || sender.send(()).is_ok());
        });
        let running = start("echo", &address.to_string(), &format!("-d {LONG} -c 2"));
        receiver.recv_timeout(STARTED_MAX).expect("it runs");
        thread::sleep(Duration::from_millis(100));
        running.signal(signal);
        let ended = running.end();
        assert_eq!(ended.status, 130, "{ended}");
        assert_eq!(ended.report["outcome"], "interrupted", "{ended}");
        assert!(ended.count("replies") > 0 && ended.stdout.contains("INTERRUPTED"), "{ended}");
        assert!(ended.took < EARLY, "{ended}");
    }
}

#[test]
fn a_second_interrupt_does_not_wait() {
    let (sender, receiver) = mpsc::channel();
    let address = server(move |mut stream| {
        // From now on a request is in flight.
        let _ = stream.read_exact(&mut [0]);
        let _ = sender.send(());
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let running = start("echo", &address.to_string(), &format!("-d {LONG} -c 2"));
    receiver.recv_timeout(STARTED_MAX).expect("it runs");
    running.signal(libc::SIGINT);
    thread::sleep(Duration::from_millis(200));
    running.signal(libc::SIGINT);
    let ended = running.end();
    assert_eq!((ended.status, &ended.stdout[..]), (130, ""), "{ended}");
    assert!(ended.stderr.contains("no report"), "{ended}");
}

/// As under nohup(1): the signal is ignored when the program starts.
#[test]
fn a_hang_up_that_is_ignored_does_not_end_the_run() {
    let address = server(|stream| echo(stream, |_, _| true)).to_string();
    let script =
        "trap '' HUP; \"$0\" echo $1 -d 400ms -c 1 --quiet & sleep 0.1; kill -HUP $!; wait $!";
    let output = Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_ringload"), &address])
        .output()
        .expect("a shell");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_report_on_standard_output_is_alone_there() {
    let address = server(|stream| echo(stream, |_, _| true)).to_string();
    let run = |options: &[&str]| {
        ringload(&[&["echo", &address, "-n", "10", "-c", "1"], options].concat(), &[])
    };
    let (status, stdout, stderr) = run(&["--json", "-"]);
    let report: serde_json::Value = serde_json::from_str(&stdout).expect("JSON");
    assert_eq!((status, &report["replies"]), (0, &10.into()), "{stderr}");
    assert!(stderr.contains("replies       10 in "), "{stderr}");
    let (_, stdout, _) = run(&["--html", "-"]);
    assert!(stdout.starts_with("<!") && stdout.trim_end().ends_with("</html>"), "{stdout}");
    let (_, stdout, _) = run(&["--hlog", "-"]);
    assert!(stdout.starts_with('#') && !stdout.contains("replies "), "{stdout}");
    for options in [["--json", "-", "--hlog", "-"], ["--html", "-", "--json", "-"]] {
        let (status, stdout, stderr) = run(&options);
        assert_eq!((status, &stdout[..]), (2, ""), "{stderr}");
        assert!(stderr.contains("standard output takes one report"), "{stderr}");
    }
}

#[test]
fn a_slow_rate_is_kept() {
    let address = server(|stream| echo(stream, |_, _| true));
    // At 0, 200 and 400 ms. A busy machine may send them late, which is status 4.
    for (options, requests, seconds) in
        [("-R 300/m -n 3 -c 1", 3, 0.4), ("-R 0.2 -n 1 -c 1", 1, 0.0)]
    {
        let ended = start("echo", &address.to_string(), options).end();
        assert!(matches!(ended.status, 0 | 4), "{ended}");
        assert_eq!((ended.count("replies"), ended.count("errors_total")), (requests, 0), "{ended}");
        assert!(ended.report["elapsed_s"].as_f64() >= Some(seconds), "{ended}");
    }
}

#[test]
fn wrong_usage_is_status_two() {
    for arguments in [
        &[][..],
        &["echo"],
        &["echo", "127.0.0.1:1", "-d", "5"],
        &["http", "https://127.0.0.1/"],
        &["echo", "127.0.0.1:1", "--pin-from", "100000"],
        &["echo", "127.0.0.1:1", "--json", "/proc/no/such/file"],
    ] {
        let (status, stdout, stderr) = ringload(arguments, &[]);
        assert_eq!((status, &stdout[..]), (2, ""), "{arguments:?}: {stderr}");
        assert!(!stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn an_address_without_host_or_port_is_wrong_usage() {
    for address in ["127.0.0.1", "127.0.0.1:99999", "127.0.0.1:0", ":7100", "::1", "[::1]", "a:"] {
        for arguments in
            [&["echo", address][..], &["packets", address], &["packets", address, "get", "x"]]
        {
            let (status, stdout, stderr) = ringload(arguments, &[]);
            assert_eq!((status, &stdout[..]), (2, ""), "{arguments:?}: {stderr}");
            assert!(stderr.contains("expected HOST:PORT"), "{arguments:?}: {stderr}");
        }
    }
    // One that has no address is no wrong usage.
    let (status, _, stderr) = ringload(&["echo", "no-such-host.invalid:1"], &[]);
    assert_eq!(status, 3, "{stderr}");
}

#[test]
fn help_shows_defaults_and_examples() {
    for arguments in
        [&["--help"][..], &["http", "--help"], &["echo", "--help"], &["packets", "--help"]]
    {
        let (status, stdout, _) = ringload(arguments, &[]);
        assert_eq!(status, 0);
        assert!(stdout.contains("Examples:") && stdout.contains("Exit status:"), "{stdout}");
    }
    let (_, stdout, _) = ringload(&["echo", "--help"], &[]);
    assert!(stdout.contains("[default: 64]") && stdout.contains("--requests-per-connection"));
    for part in ["-R, --rate <RATE>", "--conn-rate", "poisson", "--drain-ok", "open loop", "4  "] {
        assert!(stdout.contains(part), "{part:?} is not in:\n{stdout}");
    }
    let (_, stdout, _) = ringload(&["packets", "--help"], &[]);
    for part in ["--digest-every", "[default: 4]", "put", "get", "at most 65531"] {
        assert!(stdout.contains(part), "{stdout}");
    }
    for (command, option) in [("put", "--as <NAME>"), ("get", "--out <FILE>")] {
        let (status, stdout, _) = ringload(&["packets", "a:1", command, "--help"], &[]);
        assert_eq!(status, 0);
        for part in [option, "--no-verify", "--timeout", "--json", "--quiet"] {
            assert!(stdout.contains(part), "{stdout}");
        }
    }
}

#[test]
fn the_environment_is_asked_after_the_command_line() {
    let address = server(|stream| echo(stream, |_, _| true)).to_string();
    let environment = [
        ("RINGLOAD_COUNT", "50"),
        ("RINGLOAD_CONNECTIONS", "3"),
        ("RINGLOAD_QUIET", "1"),
        ("RINGLOAD_SIZE", "10"),
    ];
    let (status, stdout, stderr) = ringload(&["echo", &address, "-c", "2"], &environment);
    assert_eq!((status, &stderr[..]), (0, ""), "{stdout}");
    assert!(stdout.contains("50 in ") && stdout.contains("500 B received"), "{stdout}");
    assert!(stdout.contains("2 opened"), "{stdout}");
    // One rate also excludes another.
    let arguments = ["echo", &address, "--conn-rate", "500"];
    // The old name of a variable is still read.
    let rates = [("RINGLOAD_RATE", "1k"), ("RINGLOAD_REQUESTS", "20"), ("RINGLOAD_QUIET", "1")];
    let (status, stdout, stderr) = ringload(&arguments, &rates);
    assert!(
        matches!(status, 0 | 4) && stdout.contains("20 connections were due"),
        "{stdout}{stderr}"
    );
    // A length of time on the command line takes the place of a number in the environment.
    let (status, stdout, _) = ringload(&["echo", &address, "-d", "200ms"], &environment);
    assert_eq!(status, 0, "{stdout}");
    assert!(!stdout.contains(" 50 in "), "{stdout}");
    let (status, _, stderr) = ringload(&["echo", &address], &[("RINGLOAD_THREADS", "many")]);
    assert!(status == 2 && stderr.contains("many"), "{stderr}");
}
