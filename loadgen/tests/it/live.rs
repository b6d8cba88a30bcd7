//! The live view: on a terminal that can, and given back however the run ends.

use crate::support::{LONG, STARTED_MAX, echo, server, terminal, without_notice};
use std::fs::File;
use std::io::Read;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;

const ENTER: &str = "\u{1b}[?1049h";
const LEAVE: &str = "\u{1b}[?1049l";
const HIDE: &str = "\u{1b}[?25l";
const SHOW: &str = "\u{1b}[?25h";

struct Shown {
    text: String,
    status: Option<i32>,
    /// The terminal echoes what is typed, as it did before.
    echoes: bool,
}

/// Runs `ringload echo` with a terminal as its standard error; `signal` comes when it is drawn on.
fn run(options: &str, environment: &[(&str, &str)], signal: Option<i32>) -> Shown {
    let address = server(|stream| echo(stream, |_, _| true));
    let (mut ours, childs) = terminal();
    let mut child = Command::new(env!("CARGO_BIN_EXE_ringload"))
        .args(["echo", &address.to_string(), "-c", "2"])
        .args(options.split_whitespace())
        .env("TERM", "xterm-256color")
        .env_remove("NO_COLOR")
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(childs.try_clone().expect("a descriptor"))
        .spawn()
        .expect("the program starts");
    let (sender, drawn) = mpsc::channel();
    let reader = thread::spawn(move || {
        let (mut bytes, mut part) = (Vec::new(), [0; 1 << 12]);
        // Its end is EIO (pty(7)).
        while let Ok(count @ 1..) = ours.read(&mut part) {
            bytes.extend_from_slice(&part[..count]);
            if String::from_utf8_lossy(&bytes).contains("replies") {
                let _ = sender.send(());
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    });
    if let Some(signal) = signal {
        drawn.recv_timeout(STARTED_MAX).expect("it is drawn");
        // SAFETY: the child has not been waited for, so the id is still its own.
        assert_eq!(unsafe { libc::kill(child.id() as i32, signal) }, 0);
    }
    let status = child.wait().expect("our own child").code();
    let echoes = echoes(&childs);
    drop(childs);
    Shown { text: without_notice(&reader.join().expect("no panic")), status, echoes }
}

fn echoes(terminal: &File) -> bool {
    let mut settings = MaybeUninit::<libc::termios>::zeroed();
    // SAFETY: the descriptor is open, and `settings` is valid for writes of a termios.
    let settings = unsafe {
        assert_eq!(libc::tcgetattr(terminal.as_raw_fd(), settings.as_mut_ptr()), 0);
        settings.assume_init()
    };
    settings.c_lflag & libc::ECHO != 0
}

/// Asserts that the screen was taken and given back, and what stands there afterwards.
fn left_behind(shown: &Shown) -> &str {
    let text = &shown.text;
    assert!(text.starts_with(ENTER) && text.contains(HIDE) && shown.echoes, "{text:?}");
    let (drawn, behind) = text.split_once(LEAVE).unwrap_or_else(|| panic!("{text:?}"));
    assert!(drawn.contains("replies per second") || drawn.contains("no errors"), "{text:?}");
    assert!(behind.starts_with(SHOW), "{text:?}");
    behind
}

#[test]
fn the_view_leaves_the_last_lines_on_the_terminal() {
    let shown = run("-d 1300ms", &[], None);
    let behind = left_behind(&shown);
    assert_eq!(shown.status, Some(0));
    for part in ["ringload echo 127.0.0.1:", " elapsed      replies", "µs"] {
        assert!(behind.contains(part), "{part:?} is not in {behind:?}");
    }
}

#[test]
fn an_interrupt_gives_the_terminal_back() {
    let shown = run(&format!("-d {LONG}"), &[], Some(libc::SIGINT));
    assert!(left_behind(&shown).contains("ringload echo"), "{:?}", shown.text);
    assert_eq!(shown.status, Some(130));
}

#[test]
fn colours_are_left_out_where_they_are_not_wanted() {
    let has_colour = |text: &str| {
        ["\u{1b}[38;", "\u{1b}[3"].iter().any(|code| {
            text.match_indices(code)
                .any(|(at, code)| text[at + code.len()..].starts_with(['1', '2', '5', '6']))
        })
    };
    let plain = run("-d 500ms", &[("NO_COLOR", "1")], None);
    assert!(!has_colour(&plain.text), "{:?}", plain.text);
    let coloured = run("-d 500ms", &[], None);
    assert!(has_colour(&coloured.text), "{:?}", coloured.text);
}

#[test]
fn a_terminal_that_can_only_print_gets_lines_and_quiet_is_quiet() {
    let dumb = run("-d 1300ms", &[("TERM", "dumb")], None);
    assert!(!dumb.text.contains('\u{1b}') && dumb.text.contains(" elapsed "), "{:?}", dumb.text);
    let quiet = run("-d 300ms --quiet", &[], None);
    assert_eq!((&quiet.text[..], quiet.status), ("", Some(0)));
}
