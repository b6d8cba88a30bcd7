//! A file system in user space whose files have other lengths than stat(2) says.

use crate::common::{Modes, PATIENCE, Server};
use ringwright_test_support::leave_out;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::thread::{self, JoinHandle};
use tempfile::TempDir;

/// The operations of linux/fuse.h that the server of files answers.
const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const READ: u32 = 15;
const RELEASE: u32 = 18;
const FLUSH: u32 = 25;
const INIT: u32 = 26;
const INTERRUPT: u32 = 36;
const BATCH_FORGET: u32 = 42;
/// The replies to open(2) may say that reads pass the page cache.
const FOPEN_DIRECT_IO: u32 = 1;
const ROOT: u64 = 1;
/// Files above this are not read before the reply.
const LARGE: u64 = 1 << 20;

/// A file of the file system.
struct Odd {
    name: &'static str,
    /// The length that stat(2) says.
    told: u64,
    /// The length of its contents.
    real: u64,
    /// Each read asks the server of files.
    direct: bool,
}

const FILES: [Odd; 8] = [
    Odd { name: "equal", told: 1_000, real: 1_000, direct: false },
    Odd { name: "shorter", told: 1_000, real: 300, direct: false },
    Odd { name: "shorter-direct", told: 1_000, real: 300, direct: true },
    Odd { name: "longer-direct", told: 300, real: 1_000, direct: true },
    Odd { name: "none-direct", told: 0, real: 500, direct: true },
    Odd { name: "empty-direct", told: 500, real: 0, direct: true },
    Odd { name: "large-shorter", told: 10 << 20, real: 1 << 20, direct: false },
    Odd { name: "large-shorter-direct", told: 10 << 20, real: 1 << 20, direct: true },
];

fn contents(length: u64) -> Vec<u8> {
    (0..length).map(|at| b'a' + (at % 23) as u8).collect()
}

/// The file system is mounted while this lives.
struct Mounted {
    dir: TempDir,
    server: Option<JoinHandle<()>>,
}

impl Mounted {
    fn new() -> io::Result<Self> {
        let device = OpenOptions::new().read(true).write(true).open("/dev/fuse")?;
        let dir = tempfile::tempdir()?;
        let data = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
        let data = CString::new(data).unwrap();
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        mount("ringwright", dir.path(), "fuse.ringwright", flags, data.as_c_str())?;
        let server = thread::spawn(move || serve(device));
        Ok(Self { dir, server: Some(server) })
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Its requests end with ENODEV then.
        let _ = unmount(self.dir.path(), UnmountFlags::DETACH);
        if let Some(server) = self.server.take() {
            let _ = server.join();
        }
    }
}

/// Answers the kernel's requests until the end of the mount.
fn serve(mut device: File) {
    let mut request = vec![0; 1 << 20];
    loop {
        let length = match device.read(&mut request) {
            Ok(length) => length,
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return,
            // A request that was interrupted.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => continue,
            Err(error) => panic!("/dev/fuse: {error}"),
        };
        let operation = u32_at(&request, 4);
        if [FORGET, INTERRUPT, BATCH_FORGET].contains(&operation) {
            continue;
        }
        let node = u64_at(&request, 16);
        let (error, body) = match answer(operation, node, &request[40..length]) {
            Ok(body) => (0, body),
            Err(errno) => (-errno, Vec::new()),
        };
        let mut reply = (16 + body.len() as u32).to_ne_bytes().to_vec();
        reply.extend(i32::to_ne_bytes(error));
        reply.extend(&request[8..16]);
        reply.extend(body);
        // The request may have been interrupted.
        let _ = device.write(&reply);
    }
}

fn answer(operation: u32, node: u64, body: &[u8]) -> Result<Vec<u8>, i32> {
    let file = |node: u64| (node.checked_sub(ROOT + 1)).and_then(|at| FILES.get(at as usize));
    match operation {
        INIT => {
            // Version 7.31; of what the kernel offers, nothing.
            let mut reply = [7_u32, 31, 1 << 17, 0, 0, 1 << 17].map(u32::to_ne_bytes).concat();
            reply.resize(64, 0);
            Ok(reply)
        }
        LOOKUP => {
            let name = body.strip_suffix(b"\0").unwrap_or(body);
            let at = FILES.iter().position(|file| file.name.as_bytes() == name);
            let node = ROOT + 1 + at.ok_or(libc::ENOENT)? as u64;
            let mut reply = [node, 0, 0, 0, 0].map(u64::to_ne_bytes).concat();
            reply.extend(attributes(node, file(node)));
            Ok(reply)
        }
        GETATTR => Ok([&[0; 16][..], &attributes(node, file(node))].concat()),
        OPEN => {
            let flags = if file(node).ok_or(libc::ENOENT)?.direct { FOPEN_DIRECT_IO } else { 0 };
            Ok([&[0; 8][..], &flags.to_ne_bytes(), &[0; 4]].concat())
        }
        READ => {
            let contents = contents(file(node).ok_or(libc::EISDIR)?.real);
            let (offset, size) = (u64_at(body, 8) as usize, u32_at(body, 16) as usize);
            let start = offset.min(contents.len());
            Ok(contents[start..(start + size).min(contents.len())].to_vec())
        }
        RELEASE | FLUSH => Ok(Vec::new()),
        _ => Err(libc::ENOSYS),
    }
}

/// `struct fuse_attr` of a file; `None`: of the root.
fn attributes(node: u64, file: Option<&Odd>) -> Vec<u8> {
    let (size, mode) = file.map_or((0, 0o040_755), |file| (file.told, 0o100_644));
    let times = 1_000_000_000;
    let mut reply =
        [node, size, size.div_ceil(512), times, times, times].map(u64::to_ne_bytes).concat();
    reply.extend([0_u32, 0, 0, mode, 1, 0, 0, 0, 4096, 0].map(u32::to_ne_bytes).concat());
    reply
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// All that the daemon sends on a connection of its own. A reset is an error.
fn get(server: &Server, name: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!("GET /{name} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut received = Vec::new();
    stream.read_to_end(&mut received).unwrap_or_else(|error| panic!("{name}: {error}"));
    received
}

/// Each has its head and what there is, and then a FIN.
#[test]
fn a_file_of_another_length_than_told_is_sent_as_far_as_it_goes() {
    let mounted = match Mounted::new() {
        Ok(mounted) => mounted,
        Err(error) => return leave_out(&format!("root and /dev/fuse ({error})")),
    };
    let server = Server::http(mounted.dir.path(), &["--shards", "1"]);
    for Odd { name, told, real, .. } in FILES {
        let received = get(&server, name);
        let head = received.windows(4).position(|it| it == b"\r\n\r\n").unwrap() + 4;
        let (head, body) = received.split_at(head);
        let head = String::from_utf8_lossy(head);
        assert!(head.starts_with("HTTP/1.1 200 "), "{name}: {head}");
        assert!(body == contents(real), "{name}: {} bytes of contents", body.len());
        // A file that is not read before the reply has the length that was told.
        let length = if told > LARGE { told } else { real };
        assert!(head.contains(&format!("\r\nContent-Length: {length}\r\n")), "{name}: {head}");
    }
    server.stop().cleanly();
}
