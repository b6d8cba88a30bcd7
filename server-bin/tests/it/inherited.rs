//! Listening sockets that a service manager passes (`LISTEN_FDS`).

use crate::common::{PROGRAM, Server, without_settings};
use crate::configured::folder;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The daemon with these descriptors from 3 on, as systemd starts it. The shell knows the process
/// number that the daemon will have.
fn activated(sockets: &[&OwnedFd], names: &str, arguments: &[&str]) -> Command {
    let mut command = without_settings("sh");
    command
        .args(["-c", "LISTEN_PID=$$ exec \"$0\" \"$@\""])
        .arg(PROGRAM)
        .args(arguments)
        .env("LISTEN_FDS", sockets.len().to_string())
        .env("LISTEN_FDNAMES", names);
    let numbers: Vec<i32> = sockets.iter().map(|socket| socket.as_raw_fd()).collect();
    let pass = move || {
        // Copies beyond the numbers that they shall have.
        let copy = |number: &i32| {
            // SAFETY: plain numbers.
            unsafe { libc::fcntl(*number, libc::F_DUPFD_CLOEXEC, 100) }
        };
        let copies: Vec<i32> = numbers.iter().map(copy).collect();
        for (copy, number) in copies.into_iter().zip(3..) {
            // SAFETY: plain numbers; the copy of dup2(2) stays open in the daemon.
            if unsafe { libc::dup2(copy, number) } < 0 {
                return Err(std::io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: it makes system calls and allocates little; the parent holds no lock of the
    // allocator, whose child has a copy of it (glibc).
    unsafe { command.pre_exec(pass) };
    command
}

fn socket() -> (OwnedFd, SocketAddr) {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    (socket.into(), address)
}

fn get(address: SocketAddr) -> String {
    let mut client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    client.write_all(b"GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    let mut reply = String::new();
    client.read_to_string(&mut reply).unwrap();
    reply
}

fn refused(mut command: Command) -> (Option<i32>, String) {
    let output = command.output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

fn site(files: &Path) -> String {
    let file = files.join("c.toml");
    let root = files.join("www");
    let site = "[[site]]\nlisten = [\"fd:web\"]\nroot = \"www\"\n";
    fs::write(&file, format!("[engine]\nshards = 2\n{site}[[echo]]\nlisten = [\"fd:4\"]\n"))
        .unwrap();
    assert!(root.is_dir());
    file.to_str().unwrap().to_owned()
}

#[test]
fn names_and_numbers_stand_for_inherited_sockets() {
    let files = folder(&[("www/a", "a file")]);
    let file = site(files.path());
    let ((web, at_web), (echo, at_echo)) = (socket(), socket());
    // It was there before the daemon.
    let early = TcpStream::connect(at_echo).unwrap();
    let mut command = activated(&[&web, &echo], "web:echo", &["run", &file]);
    let server = Server::start_listening(&mut command, &["http", "echo"]);
    assert_eq!(server.addresses, [at_web, at_echo]);
    for _ in 0..8 {
        assert!(get(at_web).ends_with("a file"));
    }
    for mut client in [early, TcpStream::connect(at_echo).unwrap()] {
        client.write_all(b"back").unwrap();
        let mut answer = [0; 4];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"back");
    }
    server.stop().cleanly();
    // The sockets still listen, so that no client is refused while the daemon is away, and the next
    // one serves who waits.
    let waiting = std::thread::spawn(move || get(at_web));
    let mut command = activated(&[&web, &echo], "web:echo", &["run", &file]);
    let server = Server::start_listening(&mut command, &["http", "echo"]);
    assert!(waiting.join().unwrap().ends_with("a file"));
    server.stop().cleanly();
}

#[test]
fn the_flag_takes_a_name_as_well() {
    let files = folder(&[("www/a", "a file")]);
    let root = files.path().join("www");
    let (web, at) = socket();
    let arguments = ["http", root.to_str().unwrap(), "--listen", "fd:web"];
    let mut command = activated(&[&web], "web", &arguments);
    let server = Server::start_listening(&mut command, &["http"]);
    assert!(get(at).ends_with("a file"));
    server.stop().cleanly();
}

#[test]
fn sockets_without_a_listener_and_names_without_a_socket_are_errors() {
    let files = folder(&[("www/a", "a file")]);
    let file = site(files.path());
    let ((web, _), (echo, _), (more, at_more)) = (socket(), socket(), socket());
    let run = ["run", &*file];
    let (status, said) = refused(activated(&[&web, &echo, &more], "web:echo:more", &run));
    assert_eq!(status, Some(2), "{said}");
    assert!(said.contains(&format!("more (5, {at_more})")), "{said}");
    let (status, said) = refused(activated(&[&web], "other", &run));
    assert_eq!(status, Some(2), "{said}");
    assert!(said.contains("no inherited socket is web: this process has other"), "{said}");
    let file = fs::File::open(&file).unwrap().into();
    let (status, said) = refused(activated(&[&file], "web", &run));
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("descriptor 3") && said.contains("not a socket"), "{said}");
    // `check` knows no sockets, and a reload of a unit calls it.
    let mut check = without_settings(PROGRAM);
    check.args(["check", run[1]]);
    assert_eq!(refused(check).0, Some(0));
}

#[test]
fn the_admin_listener_takes_inherited_sockets() {
    let files = folder(&[("www/a", "a file")]);
    let file = files.path().join("c.toml");
    let text = |read: &str| {
        let admin = format!("[admin]\nlisten = \"fd:admin\"\nread = \"{read}\"\n");
        format!("{admin}[[site]]\nlisten = [\"fd:web\"]\nroot = \"www\"\n")
    };
    fs::write(&file, text("fd:5")).unwrap();
    let run = ["run", file.to_str().unwrap()];
    let ((web, at_web), (admin, at_admin), (read, at_read)) = (socket(), socket(), socket());
    let mut command = activated(&[&web, &admin, &read], "web:admin:read", &run);
    let server = Server::start_listening(&mut command, &["http", "admin http", "admin http"]);
    assert_eq!(server.addresses, [at_web, at_admin, at_read]);
    let of_admin = |at, target: &str| {
        let mut client = TcpStream::connect(at).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let head = "HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        write!(client, "GET {target} {head}").unwrap();
        let mut reply = String::new();
        client.read_to_string(&mut reply).unwrap();
        reply
    };
    for at in [at_admin, at_read] {
        assert!(of_admin(at, "/livez").starts_with("HTTP/1.1 200 "));
    }
    assert!(of_admin(at_admin, "/connections").starts_with("HTTP/1.1 200 "));
    assert!(!of_admin(at_read, "/connections").starts_with("HTTP/1.1 200 "));
    assert!(get(at_web).ends_with("a file"));
    server.stop().cleanly();
    // One socket is no two listeners, and another one needs a listener.
    fs::write(&file, text("fd:web")).unwrap();
    let (status, said) = refused(activated(&[&web, &admin], "web:admin", &run));
    assert_eq!(status, Some(2), "{said}");
    assert!(said.contains("is already taken by site[0].listen[0]"), "{said}");
    fs::write(&file, text("127.0.0.1:0")).unwrap();
    let (status, said) = refused(activated(&[&web, &admin, &read], "web:admin:read", &run));
    assert_eq!(status, Some(2), "{said}");
    assert!(said.contains(&format!("read (5, {at_read})")), "{said}");
}
