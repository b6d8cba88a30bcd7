//! A slow disk: a file system of the kernel's FUSE protocol (fuse(4), <linux/fuse.h>), served by
//! two threads of this process. Its one directory has files `0`, `1`, … of zeros. Nobody gets
//! what the disk is slow at before the test says so.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::thread;
use std::time::Duration;
use std::{io, ptr};

/// What the disk has, and what it is slow at.
#[derive(Clone, Copy)]
pub struct Disk {
    pub files: u64,
    pub file_bytes: u64,
    pub slow_at: Slow,
    /// Whether reading ahead does not wait (`FUSE_ASYNC_READ`): as most disks do.
    pub reads_ahead: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slow {
    Open,
    Read,
}

/// What waits for the disk.
#[derive(Default)]
pub struct Held {
    waiting: AtomicUsize,
    is_released: Mutex<bool>,
    released: Condvar,
}

impl Held {
    /// How often it was asked for what it is slow at.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// From now on the disk is quick.
    pub fn release(&self) {
        *self.is_released.lock().unwrap() = true;
        self.released.notify_all();
    }

    /// Returns when that is so, or if the test has failed and will not say it.
    fn wait(&self) {
        let held = self.is_released.lock().unwrap();
        drop(self.released.wait_timeout_while(held, HELD_MAX, |released| !*released).unwrap());
    }
}

/// `FUSE_…` of `enum fuse_opcode`.
mod opcode {
    pub const LOOKUP: u32 = 1;
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const RELEASE: u32 = 18;
    pub const FLUSH: u32 = 25;
    pub const INIT: u32 = 26;
    pub const INTERRUPT: u32 = 36;
    pub const BATCH_FORGET: u32 = 42;
}

/// `sizeof(struct fuse_in_header)`.
const HEADER_BYTES: usize = 40;
/// Beyond `FUSE_MIN_READ_BUFFER`.
const REQUEST_BYTES: usize = 64 << 10;
/// `FUSE_ROOT_ID`; the files have the numbers after it.
const ROOT: u64 = 1;
/// `FUSE_ASYNC_READ`.
const ASYNC_READ: u32 = 1;
const VERSION: [u32; 2] = [7, 31];
/// For how long the kernel may believe what it was told.
const VALID_SECONDS: u64 = 3600;
/// A process that waits for FUSE cannot be killed.
const HELD_MAX: Duration = Duration::from_secs(20);

/// Gives this thread, and what it starts from now on, mounts of their own.
pub fn separate_mounts() {
    let none = ptr::null();
    let (root, flags) = (c"/".as_ptr(), libc::MS_REC | libc::MS_PRIVATE);
    // SAFETY: the strings live on; nothing but mounts and the working directory is touched.
    let result = unsafe {
        match libc::unshare(libc::CLONE_NEWNS) {
            0 => libc::mount(none, root, none, flags, ptr::null()),
            failed => failed,
        }
    };
    let error = io::Error::last_os_error();
    assert_eq!(result, 0, "mounts of its own: {error}; this test must be run as root");
}

/// Mounts `disk` on a directory, for the mounts of this thread only: nothing stays behind when
/// the last process that has them is gone.
pub fn mount(disk: Disk, on: &Path) -> Arc<Held> {
    let device = OpenOptions::new().read(true).write(true).open("/dev/fuse");
    let device = device.unwrap_or_else(|error| panic!("/dev/fuse: {error}; `modprobe fuse`"));
    let options = format!("fd={},rootmode=40755,user_id=0,group_id=0", device.as_raw_fd());
    let (options, on) = (CString::new(options).unwrap(), CString::new(on.to_str().unwrap()));
    let (source, kind, on) = (c"slow".as_ptr(), c"fuse".as_ptr(), on.unwrap());
    let flags = libc::MS_NODEV | libc::MS_NOSUID | libc::MS_RDONLY;
    // SAFETY: all strings outlive the call.
    let result = unsafe { libc::mount(source, on.as_ptr(), kind, flags, options.as_ptr().cast()) };
    assert_eq!(result, 0, "mount(2) of FUSE: {}", io::Error::last_os_error());
    let held = Arc::new(Held::default());
    let (later, slow) = mpsc::channel::<Vec<u8>>();
    let (replies, gate) = (device.try_clone().unwrap(), held.clone());
    thread::spawn(move || {
        for reply in slow {
            gate.wait();
            write(&replies, &reply);
        }
    });
    let server = Server { device, disk, later, held: held.clone() };
    thread::spawn(move || server.serve());
    held
}

struct Server {
    device: File,
    disk: Disk,
    later: mpsc::Sender<Vec<u8>>,
    held: Arc<Held>,
}

impl Server {
    /// Until the file system is gone, which ends read(2) with ENODEV.
    fn serve(mut self) {
        let mut request = vec![0; REQUEST_BYTES];
        while let Ok(bytes) = self.device.read(&mut request) {
            self.answer(&request[..bytes]);
        }
    }

    fn answer(&mut self, request: &[u8]) {
        let (opcode, unique, node) = (u32_at(request, 4), u64_at(request, 8), u64_at(request, 16));
        let body = &request[HEADER_BYTES..];
        let mut slow = None;
        let answer = match opcode {
            opcode::FORGET | opcode::BATCH_FORGET | opcode::INTERRUPT => return,
            opcode::INIT => Ok(initial(if self.disk.reads_ahead { ASYNC_READ } else { 0 })),
            opcode::LOOKUP => self.entry(body.split_last().expect("a name and its NUL").1),
            opcode::GETATTR => Ok([words(&[VALID_SECONDS, 0]), self.attributes(node)].concat()),
            opcode::OPEN => {
                slow = Some(Slow::Open);
                Ok(words(&[0, 0]))
            }
            opcode::READ => {
                slow = Some(Slow::Read);
                let left = self.disk.file_bytes.saturating_sub(u64_at(body, 8));
                Ok(vec![0; left.min(u64::from(u32_at(body, 16))) as usize])
            }
            opcode::RELEASE | opcode::FLUSH => Ok(Vec::new()),
            _ => Err(libc::ENOSYS),
        };
        let (error, answer) = answer.map_or_else(|errno| (-errno, Vec::new()), |body| (0, body));
        let header = [16 + answer.len() as u32, error as u32].map(u32::to_ne_bytes).concat();
        let reply = [header, words(&[unique]), answer].concat();
        if slow == Some(self.disk.slow_at) {
            self.held.waiting.fetch_add(1, Ordering::Relaxed);
            self.later.send(reply).unwrap();
        } else {
            write(&self.device, &reply);
        }
    }

    /// `struct fuse_entry_out`.
    fn entry(&self, name: &[u8]) -> Result<Vec<u8>, i32> {
        let name = str::from_utf8(name).ok().and_then(|name| name.parse::<u64>().ok());
        let number = name.filter(|number| *number < self.disk.files).ok_or(libc::ENOENT)?;
        let node = ROOT + 1 + number;
        Ok([words(&[node, 0, VALID_SECONDS, VALID_SECONDS, 0]), self.attributes(node)].concat())
    }

    /// `struct fuse_attr`.
    fn attributes(&self, node: u64) -> Vec<u8> {
        let (mode, bytes) = match node {
            ROOT => (libc::S_IFDIR | 0o755, 0),
            _ => (libc::S_IFREG | 0o644, self.disk.file_bytes),
        };
        let numbers = words(&[node, bytes, bytes.div_ceil(512), 0, 0, 0]);
        // Three times in nanoseconds, mode, links, user, group, device, block size, flags.
        let rest = [0, 0, 0, mode, 1, 0, 0, 0, 4096, 0].map(u32::to_ne_bytes).concat();
        [numbers, rest].concat()
    }
}

/// `struct fuse_init_out`.
fn initial(flags: u32) -> Vec<u8> {
    let [major, minor] = VERSION;
    let (read_ahead_max, write_max) = (128 << 10, 4096);
    let (background_max, nanoseconds) = (64 | 48 << 16, 1);
    let begun = [major, minor, read_ahead_max, flags, background_max, write_max, nanoseconds];
    let mut out = begun.map(u32::to_ne_bytes).concat();
    out.resize(64, 0);
    out
}

/// ENOENT: who asked was interrupted. ENODEV: the file system is gone.
fn write(mut device: &File, reply: &[u8]) {
    match device.write(reply).map_err(|error| error.raw_os_error()) {
        Ok(_) | Err(Some(libc::ENOENT | libc::ENODEV)) => {}
        Err(errno) => panic!("a reply of FUSE: {errno:?}"),
    }
}

fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap())
}
