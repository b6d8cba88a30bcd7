//! The checks of what serving a folder needs beside a ring.

use crate::packets;
use ringwright::RingKind;
use std::fmt;
use std::io;
use std::path::Path;

/// The way out if openat2(2) is forbidden.
const ALLOW_OPENAT2: &str = "a seccomp profile forbids it: allow openat2 there (docker, podman: \
    --security-opt seccomp=PROFILE.json; systemd: SystemCallFilter=@file-system)";

/// Columns of a line of a cause, which is indented.
const COLUMNS: usize = 94;

/// The results of the checks.
#[derive(Debug)]
pub struct Folder(Vec<Check>);

/// A check.
#[derive(Debug)]
struct Check {
    name: &'static str,
    purpose: &'static str,
    /// An error is the cause, with a remedy.
    outcome: Result<(), String>,
    /// True if nothing can be served without it.
    required: bool,
}

impl Folder {
    /// Checks how files are opened and, with `dir`, that folder.
    #[must_use]
    pub fn examine(dir: Option<&Path>, ring: Option<RingKind>) -> Self {
        // Operations of io_uring pass no seccomp filter, and the call itself serves epoll only.
        let mut checks = Vec::new();
        if ring == Some(RingKind::Epoll) {
            checks.push(Check {
                name: "openat2(2)",
                purpose: "opening files; else segment by segment",
                outcome: try_openat2(),
                required: false,
            });
        }
        if let Some(dir) = dir {
            checks.extend(of_dir(dir));
        }
        Self(checks)
    }

    /// Returns true if files can be served.
    #[must_use]
    pub fn can_serve(&self) -> bool {
        self.0.iter().all(|check| check.outcome.is_ok() || !check.required)
    }
}

fn of_dir(dir: &Path) -> Vec<Check> {
    let folder = packets::Folder::open(dir).and_then(|folder| {
        // Opening it does not need search permission; serving files does.
        std::fs::metadata(dir.join(".")).map(|_| folder)
    });
    let opened = folder.as_ref().map(drop).map_err(|error| {
        format!("{}: {error}; give a directory that this user may read and enter", dir.display())
    });
    let mut checks =
        vec![Check { name: "DIR", purpose: "serving it", outcome: opened, required: true }];
    if let Ok(folder) = folder {
        let uploads = folder.create_unnamed().map_err(|error| without_uploads(dir, &error));
        let purpose = "packets: uploads, invisible until they are complete";
        checks.push(Check { name: "O_TMPFILE", purpose, outcome: uploads, required: false });
        let names = std::fs::metadata("/proc/self/fd").map(drop).map_err(|error| {
            format!("/proc/self/fd: {error}; mount proc on /proc, or use packets --read-only")
        });
        let purpose = "packets: naming complete uploads";
        checks.push(Check { name: "/proc", purpose, outcome: names, required: false });
    }
    checks
}

/// The cause of a failed creation of a file without a name.
fn without_uploads(dir: &Path, error: &io::Error) -> String {
    let dir = dir.display();
    match error.raw_os_error() {
        // EISDIR comes from kernels without it.
        Some(libc::EOPNOTSUPP | libc::EISDIR) => format!(
            "uploads to {dir} will fail: its file system has no O_TMPFILE; put it on ext4, XFS, \
             Btrfs or tmpfs, or use packets --read-only"
        ),
        Some(libc::EROFS) => format!(
            "uploads to {dir} will fail: it is mounted read-only; mount it for writing (systemd: \
             ReadWritePaths=), or use packets --read-only"
        ),
        Some(libc::EACCES | libc::EPERM) => format!(
            "uploads to {dir} will fail: {error}; give this user write permission (chmod +w), or \
             use packets --read-only"
        ),
        _ => format!("uploads to {dir} will fail: {error}"),
    }
}

/// Calls openat2(2) in a child process, because a seccomp filter may kill the process that calls.
fn try_openat2() -> Result<(), String> {
    // SAFETY: an open_how is made of integers.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = (libc::O_PATH | libc::O_CLOEXEC) as u64;
    how.resolve = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_SYMLINKS;
    let mut status = 0;
    // SAFETY: the child makes two system calls and leaves by the second one. The kernel reads the
    // structure and the path, and writes the status, during the calls.
    let ended = unsafe {
        let child = libc::fork();
        if child == 0 {
            let no_core = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            libc::setrlimit(libc::RLIMIT_CORE, &raw const no_core);
            let (how, bytes) = (&raw const how, size_of::<libc::open_how>());
            let path = c".".as_ptr();
            let opened = libc::syscall(libc::SYS_openat2, libc::AT_FDCWD, path, how, bytes);
            libc::_exit(if opened < 0 { *libc::__errno_location() } else { 0 });
        }
        if child < 0 { -1 } else { libc::waitpid(child, &raw mut status, 0) }
    };
    if ended < 0 {
        // Nothing is known.
        return Ok(());
    }
    match status {
        _ if libc::WIFSIGNALED(status) => Err(format!(
            "openat2(2) kills the process (signal {}): {ALLOW_OPENAT2}",
            libc::WTERMSIG(status)
        )),
        _ => match libc::WEXITSTATUS(status) {
            errno @ (libc::EPERM | libc::ENOSYS) => Err(format!(
                "openat2(2) fails ({}): {ALLOW_OPENAT2}",
                io::Error::from_raw_os_error(errno)
            )),
            // The current folder may be unreadable, which is no lack of the call.
            _ => Ok(()),
        },
    }
}

impl fmt::Display for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return Ok(());
        }
        writeln!(f, "\n{:<28} {:<9} used for", "files", "")?;
        for check in &self.0 {
            let state = match (&check.outcome, check.required) {
                (Ok(()), _) => "found",
                (Err(_), true) => "MISSING",
                (Err(_), false) => "absent",
            };
            writeln!(f, "  {:<26} {state:<9} {}", check.name, check.purpose)?;
            if let Err(cause) = &check.outcome {
                for line in lines(cause) {
                    writeln!(f, "      {line}")?;
                }
            }
        }
        Ok(())
    }
}

/// The text in lines.
fn lines(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= COLUMNS => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
