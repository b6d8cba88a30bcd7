//! Plans: parts together, the server ended under load, and everything ended in the end.

use crate::support::{Ended, Running, STARTED_MAX, address_of_its_own, echo, server, start};
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Says which server this test program is to be, when a plan starts it as one.
const SERVER: &str = "PLAN_TEST_SERVER";

/// A plan's file, and the folder that it is in.
fn write(text: &str) -> (TempDir, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("plan.toml");
    fs::write(&path, text).expect("it is ours");
    let path = path.to_str().expect("a path in words").to_string();
    (folder, path)
}

fn begin(text: &str) -> (TempDir, Running) {
    let (folder, path) = write(text);
    (folder, start("plan", &path, ""))
}

fn plan(text: &str) -> Ended {
    begin(text).1.end()
}

/// `[server]` of a plan: this program, as the server of that name, at a port that was free.
fn a_server(name: &str) -> (String, SocketAddr) {
    let listener = TcpListener::bind(address_of_its_own()).expect("a free port");
    let address = listener.local_addr().expect("its address");
    let program = std::env::current_exe().expect("this program");
    let text = format!(
        "[server]\ncommand = [\"env\", \"{SERVER}={name} {address}\", {program:?}, \"--exact\", \
         \"plan::serve_when_asked\", \"--nocapture\"]\nready = \"listening\"\n"
    );
    (text, address)
}

fn part<'a>(ended: &'a Ended, name: &str) -> &'a serde_json::Value {
    let parts = ended.report["parts"].as_array().unwrap_or_else(|| panic!("{ended}"));
    parts.iter().find(|part| part["name"] == name).unwrap_or_else(|| panic!("{name}: {ended}"))
}

fn wait(what: &str, is_so: impl Fn() -> bool) {
    let since = Instant::now();
    while !is_so() {
        assert!(since.elapsed() < STARTED_MAX, "{what}");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_server_that_drains_breaks_no_accepted_request() {
    // A connect that completes while the listener is being closed is reset: nothing was accepted.
    let is_clean = |ended: &Ended| part(ended, "load")["report"]["errors"]["connect_failed"] == 0;
    let ended = (0..10).map(|_| drain_under_load()).find(is_clean).expect("clean runs are usual");
    // A machine that is too busy for the schedule says so, and that is no failure of the server's.
    assert!(matches!(ended.status, 0 | 4), "{ended}");
    let server = &ended.report["server"];
    assert_eq!((&server["exit_status"], &server["told"]), (&0.into(), &"TERM".into()), "{ended}");
    assert!(server["drain_s"].as_f64() < Some(60.0) && server["error"].is_null(), "{ended}");
    let herd = &part(&ended, "herd")["report"];
    assert_eq!((&herd["connected"], &herd["lost_total"]), (&20.into(), &0.into()), "{ended}");
    assert_eq!(herd["drained"], 20, "{ended}");
    let load = &part(&ended, "load")["report"];
    assert!(load["replies"].as_u64() > Some(20) && load["errors_total"] == 0, "{ended}");
    assert!(load["refused"].as_u64() > Some(0), "the load went on\n{ended}");
    assert!(ended.stdout.contains("after TERM, status 0"), "{ended}");
    // One line per second, with what the parts said last.
    assert!(ended.stderr.contains("2 of 2 running"), "{ended}");
}

fn drain_under_load() -> Ended {
    let (server, address) = a_server("good");
    plan(&format!(
        "{server}drain = \"60s\"\n\
         [[part]]\nname = \"herd\"\nlength = \"2s\"\n\
         run = \"idle {address} --protocol http -c 20 --probe-every 200ms\"\n\
         [[part]]\nname = \"load\"\nlength = \"2s\"\n\
         run = \"http http://{address}/ -c 4 -R 200\"\n\
         [[at]]\ntime = \"1s\"\nsignal = \"TERM\"\n"
    ))
}

#[test]
fn a_server_that_cuts_its_replies_is_found() {
    let (server, address) = a_server("rude");
    let ended = plan(&format!(
        "{server}[[part]]\nname = \"load\"\nlength = \"1500ms\"\n\
         run = \"http http://{address}/ -c 4\"\n\
         [[at]]\ntime = \"700ms\"\nsignal = \"TERM\"\n"
    ));
    assert_eq!((ended.status, &ended.report["outcome"]), (1, &"failed".into()), "{ended}");
    assert!(ended.report["server"]["error"].is_null(), "it ended with status 0\n{ended}");
    let load = part(&ended, "load");
    assert_eq!((&load["verdict"], &load["exit_status"]), (&"failed".into(), &1.into()), "{ended}");
    let errors = &load["report"]["errors"];
    let cut = errors["eof"].as_u64().unwrap_or(0) + errors["reset"].as_u64().unwrap_or(0);
    assert!((1..=4).contains(&cut), "{ended}");
    // The command that repeats the step, and its output.
    let command = load["command"].as_str().expect("a command");
    assert!(command.ends_with("-d 1500ms --drain-ok"), "{ended}");
    assert!(ended.stdout.contains(&format!("\nload: {command}\n")), "{ended}");
    assert!(ended.stdout.contains("FAILED: 1 of 1 parts did not pass."), "{ended}");
}

#[test]
fn a_server_that_stays_is_ended_and_told() {
    let (server, address) = a_server("stubborn");
    let ended = plan(&format!(
        "{server}drain = \"300ms\"\n\
         [[part]]\nname = \"load\"\nrun = \"http http://{address}/ -c 2 -n 10\"\n\
         [[at]]\ntime = \"500ms\"\nsignal = \"TERM\"\n"
    ));
    assert_eq!((ended.status, &part(&ended, "load")["verdict"]), (1, &"passed".into()), "{ended}");
    let error = ended.report["server"]["error"].as_str().unwrap_or_default();
    assert!(error.contains("had not ended 300ms after TERM"), "{ended}");
    assert_eq!(ended.report["server"]["exit_status"], 137, "{ended}");
    assert!(
        ended.stdout.contains("FAILED: all parts passed, but the server or an event failed."),
        "{ended}"
    );
}

#[test]
fn parts_run_in_their_phases_and_commands_at_their_times() {
    let address = server(|stream| echo(stream, |_, _| true));
    let folder = tempfile::tempdir().expect("a folder");
    let mark = folder.path().join("mark");
    let ended = plan(&format!(
        "seed = 7\n\
         [[phase]]\nname = \"calm\"\nlength = \"400ms\"\n\
         [[phase]]\nname = \"storm\"\nlength = \"500ms\"\n\
         [[part]]\nname = \"herd\"\nrun = \"idle {address} -c 10 --probe-every 200ms\"\n\
         [[part]]\nname = \"storm\"\nphase = \"storm\"\nstart = \"100ms\"\n\
         run = \"echo {address} -c 2\"\nfail-if = [\"errors>0\"]\n\
         [[part]]\nname = \"counted\"\nphase = \"storm\"\nrun = \"echo {address} -c 1 -n 20\"\n\
         [[at]]\nphase = \"storm\"\ntime = \"200ms\"\ncommand = [\"touch\", {mark:?}]\n"
    ));
    assert_eq!(ended.status, 0, "{ended}");
    assert!(mark.exists());
    for (name, start_s, length_s, seed) in
        [("herd", 0.0, Some(0.9), 7), ("storm", 0.5, Some(0.4), 8), ("counted", 0.4, None, 9)]
    {
        let part = part(&ended, name);
        assert_eq!(part["verdict"], "passed", "{ended}");
        assert_eq!(
            (part["start_s"].as_f64(), part["length_s"].as_f64()),
            (Some(start_s), length_s)
        );
        assert!(part["started_s"].as_f64() >= Some(start_s), "{ended}");
        assert_eq!(part["report"]["environment"]["seed"], seed, "{ended}");
    }
    assert_eq!(part(&ended, "counted")["report"]["replies"], 20, "{ended}");
    let event = &ended.report["events"][0];
    assert!(event["done_s"].as_f64() >= Some(0.6) && event["exit_status"] == 0, "{ended}");
}

#[test]
fn a_command_that_fails_and_a_server_that_ends_by_itself_fail_the_plan() {
    let address = server(|stream| echo(stream, |_, _| true));
    let ended = plan(&format!(
        "[server]\ncommand = [\"sh\", \"-c\", \"echo here; sleep 0.3; echo gone >&2; exit 3\"]\n\
         ready = \"here\"\n\
         [[part]]\nname = \"load\"\nrun = \"echo {address} -c 1\"\nlength = \"600ms\"\n\
         [[at]]\ntime = \"100ms\"\ncommand = [\"sh\", \"-c\", \"echo why >&2; exit 5\"]\n"
    ));
    assert_eq!((ended.status, &part(&ended, "load")["verdict"]), (1, &"passed".into()), "{ended}");
    let error = ended.report["events"][0]["error"].as_str().unwrap_or_default();
    assert!(error.contains("status 5") && error.contains("why"), "{ended}");
    let error = ended.report["server"]["error"].as_str().unwrap_or_default();
    assert!(error.contains("ended by itself with status 3") && error.contains("gone"), "{ended}");
}

#[test]
fn an_interrupt_collects_the_reports_and_ends_the_server() {
    let (connected, connections) = mpsc::channel();
    let address = server(move |stream| {
        let _ = connected.send(());
        echo(stream, |_, _| true);
    });
    let (_folder, running) = begin(&format!(
        "[server]\ncommand = [\"sh\", \"-c\", \"echo here; exec sleep 60\"]\nready = \"here\"\n\
         [[part]]\nname = \"herd\"\nrun = \"idle {address} -c 5\"\nlength = \"60s\"\n\
         [[part]]\nname = \"later\"\nrun = \"idle {address}\"\nlength = \"5s\"\nstart = \"50s\"\n"
    ));
    (0..5).for_each(|_| connections.recv_timeout(STARTED_MAX).expect("a connection"));
    running.signal(libc::SIGINT);
    let ended = running.end();
    assert_eq!((ended.status, &ended.report["outcome"]), (130, &"interrupted".into()), "{ended}");
    let herd = part(&ended, "herd");
    assert_eq!(
        (&herd["verdict"], &herd["report"]["connected"]),
        (&"interrupted".into(), &5.into())
    );
    assert_eq!(part(&ended, "later")["verdict"], "not started", "{ended}");
    assert_eq!(ended.report["server"]["told"], "TERM", "{ended}");
    assert!(ended.report["server"]["error"].is_null(), "nobody had taught it to drain\n{ended}");
    let pid = ended.report["server"]["pid"].as_u64().expect("a number");
    assert!(!fs::exists(format!("/proc/{pid}")).expect("proc"), "{ended}");
}

#[test]
fn what_a_plan_has_started_ends_when_it_is_killed() {
    let (left, ends) = mpsc::channel();
    let address = server(move |stream| {
        echo(stream, |_, _| true);
        let _ = left.send(());
    });
    let (folder, path) = write("");
    let pid_file = folder.path().join("pid");
    fs::write(
        &path,
        format!(
            "[server]\ncommand = [\"sh\", \"-c\", \"echo $$ > {pid}; echo here; exec sleep 60\"]\n\
             ready = \"here\"\n\
             [[part]]\nname = \"herd\"\nrun = \"idle {address} -c 3 --probe-every 50ms\"\n\
             length = \"60s\"\n",
            pid = pid_file.display()
        ),
    )
    .expect("it is ours");
    let running = start("plan", &path, "");
    let pid = || fs::read_to_string(&pid_file).unwrap_or_default().trim().to_string();
    wait("a number", || !pid().is_empty());
    thread::sleep(Duration::from_millis(700));
    let lives = || fs::exists(format!("/proc/{}", pid())).expect("proc");
    assert!(lives() && ends.try_recv().is_err());
    running.signal(libc::SIGKILL);
    running.end();
    (0..3).for_each(|_| ends.recv_timeout(STARTED_MAX).expect("the part has ended"));
    wait("the server has ended", || !lives());
}

#[test]
fn a_plan_is_checked_before_anything_starts() {
    let good = "[[part]]\nname = \"a\"\nlength = \"5s\"\nrun = \"echo 127.0.0.1:1 -c 2\"\n";
    let (_folder, path) = write(good);
    let ended = start("plan", &path, "--check").end();
    assert_eq!(ended.status, 0, "{ended}");
    assert!(
        ended.stdout.contains("a, for 5s: ringload echo 127.0.0.1:1 -c 2 -d 5000ms"),
        "{ended}"
    );
    for (text, says) in [
        (good.replace("-c", "-x"), "line 4, column 7: unexpected argument '-x'"),
        (good.replace("length", "lenght"), "line 3, column 1: unknown field `lenght`"),
        (format!("{good}[server]\ncommand = [\"/no/such/program\"]\n"), "/no/such/program"),
    ] {
        let (_folder, path) = write(&text);
        let ended = start("plan", &path, "").end();
        assert_eq!((ended.status, &ended.stdout[..]), (2, ""), "{ended}");
        assert!(ended.stderr.contains(says) && ended.stderr.contains("plan.toml"), "{ended}");
    }
}

/// No test, but the server of a plan, when a plan starts this program as one.
#[test]
fn serve_when_asked() {
    let Ok(what) = std::env::var(SERVER) else { return };
    let (name, address) = what.split_once(' ').expect("a name and an address");
    serve(name, address.parse().expect("an address"));
}

/// It is time to end.
static ENDING: AtomicBool = AtomicBool::new(false);
/// Connections that are there.
static OPEN: AtomicUsize = AtomicUsize::new(0);

extern "C" fn end(_signal: i32) {
    ENDING.store(true, Ordering::Relaxed);
}

/// `good` drains, `rude` exits in the middle of its replies, `stubborn` stays.
fn serve(name: &str, address: SocketAddr) {
    // SAFETY: the handler only stores into an atomic.
    unsafe { libc::signal(libc::SIGTERM, end as *const () as libc::sighandler_t) };
    let listener = TcpListener::bind(address).expect("the port is free");
    listener.set_nonblocking(true).expect("a listener");
    println!("listening");
    let is_rude = name == "rude";
    while name == "stubborn" || !ENDING.load(Ordering::Relaxed) {
        let Ok((stream, _)) = listener.accept() else {
            thread::sleep(Duration::from_millis(1));
            continue;
        };
        take(stream, is_rude);
    }
    // The kernel has accepted the connections in the backlog; serve them too.
    while let Ok((stream, _)) = listener.accept() {
        take(stream, is_rude);
    }
    drop(listener);
    while !is_rude && OPEN.load(Ordering::Relaxed) > 0 {
        thread::sleep(Duration::from_millis(1));
    }
    std::process::exit(0);
}

fn take(stream: TcpStream, is_rude: bool) {
    OPEN.fetch_add(1, Ordering::Relaxed);
    thread::spawn(move || {
        answer(stream, is_rude);
        OPEN.fetch_sub(1, Ordering::Relaxed);
    });
}

/// Answers each request, a rude server in two halves; when it is time to end, what has come is
/// answered before the FIN.
fn answer(mut stream: TcpStream, is_rude: bool) {
    stream.set_nonblocking(false).expect("a socket");
    stream.set_read_timeout(Some(Duration::from_millis(20))).expect("a timeout");
    let (mut unread, mut bytes) = (Vec::new(), [0; 1 << 12]);
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return,
            Ok(count) => unread.extend_from_slice(&bytes[..count]),
            Err(_) if ENDING.load(Ordering::Relaxed) => break,
            Err(_) => {}
        }
        while let Some(end) = unread.windows(4).position(|part| part == b"\r\n\r\n") {
            unread.drain(..end + 4);
            let half = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe";
            stream.write_all(half).expect("it is read");
            if is_rude {
                thread::sleep(Duration::from_millis(50));
            }
            stream.write_all(b"llo").expect("it is read");
        }
    }
    // Everything that still comes is read, so that no reset follows, until the client's FIN.
    stream.set_read_timeout(Some(STARTED_MAX)).expect("a timeout");
    let _ = stream.shutdown(Shutdown::Write);
    while let Ok(1..) = stream.read(&mut bytes) {}
}
