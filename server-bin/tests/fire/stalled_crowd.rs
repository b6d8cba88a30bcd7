//! Ten thousand clients that pipeline requests and read no reply: the daemon's memory has a bound,
//! and a client that reads is served beside them.
//!
//! They are in a network namespace with small socket buffers (tcp(7), tcp_rmem and tcp_wmem):
//! otherwise the kernel's part would take the whole machine.

use crate::{PATIENCE, PROGRAM, alone, scaled, until};
use ringwright_test_support::{needs_root, raise_descriptor_limit};
use ringwrightd_test_support::daemon::Daemon;
use ringwrightd_test_support::socket::Sources;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

const CROWD: usize = 10_000;
/// The daemon's memory with the whole crowd, at most.
const RESIDENT_KIB_MAX: usize = 512 << 10;
/// Memory that a small crowd needs as well: the receive and send buffers of two shards, and the
/// memory that the allocator keeps.
const BUFFERS_KIB: usize = 2 * (512 * 4 + 256 * 16) + (2 << 10);
/// The default on a machine with 8 GiB or more. A tenth of the crowd gets a tenth of it.
const BUDGET_BYTES: usize = 256 << 20;
const REQUESTS_PER_WRITE: usize = 16;
/// Nobody gets anything away for so long: then everybody is stalled.
const QUIET: Duration = Duration::from_secs(1);

const BODY: [u8; 1024] = [7; 1024];

#[test]
fn stalled_crowd_of_echoes() {
    stalled_crowd("echo", &BODY);
}

#[test]
fn stalled_crowd_of_downloads() {
    stalled_crowd("http", b"GET /small.bin HTTP/1.1\r\nHost: localhost\r\n\r\n");
}

fn stalled_crowd(mode: &'static str, request: &'static [u8]) {
    if !needs_root("it makes a network namespace") {
        return;
    }
    let _alone = alone();
    // Namespaces are of threads, and this one ends with the test.
    thread::spawn(move || in_a_namespace_of_its_own(mode, request)).join().unwrap();
}

fn in_a_namespace_of_its_own(mode: &str, request: &[u8]) {
    enter_namespace();
    assert!(raise_descriptor_limit() > CROWD + CROWD / 10, "raise it (ulimit -Hn)");
    let crowd_size = scaled(CROWD);
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("small.bin"), BODY).unwrap();
    let budget = (BUDGET_BYTES / (CROWD / crowd_size)).to_string();
    let mut arguments = vec!["--write-timeout", "never", "--max-connections", "11k"];
    arguments.extend(["--memory-budget", &budget]);
    if mode == "http" {
        arguments.push(folder.path().to_str().unwrap());
    }
    let daemon = Daemon::start(PROGRAM, mode, &arguments);
    let before = daemon.resident_kib();
    let mut sources = Sources::new(0);
    let mut crowd: Vec<TcpStream> =
        (0..crowd_size).map(|_| sources.connect(daemon.address).unwrap()).collect();
    crowd.iter().for_each(|client| client.set_nonblocking(true).unwrap());
    let begun = Instant::now();
    let sent = fill(&mut crowd, request);
    let (after, ledger) = (daemon.resident_kib(), daemon.ledger());
    eprintln!(
        "{mode}: {crowd_size} stalled clients, {} requests in {:.1?}; resident {before} KiB \
         before, {after} KiB with them; kernel's part {} KiB; budget {} of {} bytes, {} pauses",
        sent / request.len(),
        begun.elapsed(),
        kernel_kib(),
        ledger.number("memory_budget.used"),
        ledger.number("memory_budget.bytes"),
        ledger.number("memory_budget.pauses"),
    );
    let fixed = before + BUFFERS_KIB;
    let most = fixed + (RESIDENT_KIB_MAX - fixed) / (CROWD / crowd_size);
    assert!(after <= most, "{after} KiB of {most}: {ledger:?}");
    let begun = Instant::now();
    let mut reader = sources.connect(daemon.address).unwrap();
    for _ in 0..20 {
        reader.write_all(request).unwrap();
        read_reply(&mut reader, mode);
    }
    eprintln!("20 requests of a client that reads take {:.1?}", begun.elapsed());
    // The first one reads again: its replies come, and the server reads on.
    crowd[0].set_nonblocking(false).unwrap();
    crowd[0].set_read_timeout(Some(PATIENCE)).unwrap();
    for _ in 0..30 {
        read_reply(&mut crowd[0], mode);
    }
    drop(reader);
    // All ends at once would be more completions than the queue has places.
    while !crowd.is_empty() {
        crowd.truncate(crowd.len().saturating_sub(100));
        thread::sleep(Duration::from_millis(5));
    }
    until(PATIENCE, || match daemon.ledger().number("memory_budget.used") {
        0 => Ok(()),
        bytes => Err(format!("{bytes} bytes of the budget are in use")),
    });
    eprintln!("{} KiB after all have left", daemon.resident_kib());
    daemon.stop();
}

/// Sends until nobody gets anything away, and returns how many bytes were sent.
fn fill(crowd: &mut [TcpStream], request: &[u8]) -> usize {
    let many = request.repeat(REQUESTS_PER_WRITE);
    let mut sent = vec![0; crowd.len()];
    let mut moved = Instant::now();
    while moved.elapsed() < QUIET {
        for (client, sent) in crowd.iter_mut().zip(&mut sent) {
            match client.write(&many[*sent % request.len()..]) {
                Ok(bytes) => {
                    *sent += bytes;
                    moved = Instant::now();
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
            }
        }
    }
    sent.iter().sum()
}

/// A whole reply, which ends with the file or is what was sent.
fn read_reply(client: &mut TcpStream, mode: &str) {
    let mut head = Vec::new();
    let mut byte = [0];
    while mode == "http" && !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let expected = if mode == "http" { "HTTP/1.1 200 " } else { "" };
    assert!(head.starts_with(expected.as_bytes()), "{}", String::from_utf8_lossy(&head));
    let mut body = [0; BODY.len()];
    client.read_exact(&mut body).unwrap();
    assert_eq!(body, BODY);
}

/// Memory of all TCP sockets of this kernel (proc_pid_net(5), sockstat).
fn kernel_kib() -> usize {
    let text = fs::read_to_string("/proc/thread-self/net/sockstat").unwrap();
    let tcp = text.lines().find(|line| line.starts_with("TCP:")).unwrap();
    let pages: usize = tcp.rsplit(' ').next().unwrap().parse().unwrap();
    pages * 4
}

/// This thread and the processes that it starts have a network of their own from here on.
fn enter_namespace() {
    // SAFETY: no pointers.
    assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0, "unshare(2)");
    // SAFETY: the request names the interface "lo", NUL-terminated, and lives during the call.
    unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[..2].copy_from_slice(&[b'l' as _, b'o' as _]);
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as _;
        assert_eq!(libc::ioctl(socket, libc::SIOCSIFFLAGS as _, &raw const request), 0, "ioctl(2)");
        libc::close(socket);
    }
    fs::write("/proc/sys/net/ipv4/tcp_wmem", "4096 4096 16384").unwrap();
    fs::write("/proc/sys/net/ipv4/tcp_rmem", "4096 8192 16384").unwrap();
}
