//! Listening Unix-domain stream sockets, and their files.
//!
//! All shards have descriptors of one socket. An abstract name has no file. The registry owns a
//! file and removes it when the listener begins to end, while the socket is open: its inode number
//! belongs to no other file, and another start finds a listener, not a dead socket. A drain makes
//! no last call, because nobody finds the socket any more, and no shutdown(2), which would end it
//! for the other shards.
//!
//! A connection has its family in its identity, which matters in four places. A hang-up with unread
//! bytes does not end it (`shard/receive.rs`). A send of the ring is at most 64 KiB, because its
//! completion is the only sign of progress (`shard/send.rs`). `min_rate` leaves it out
//! (`shard/slow.rs`). It is let in without a look at its address (`shard/accept.rs`). An abort is
//! shutdown(2) of both halves.

use super::{checked, close, last_errno, stream};
use crate::address::{PATH_BYTES_MAX, PeerCredentials, SocketPath};
use crate::ring::{Descriptor, Errno};
use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::mem;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// The longest wait for another start that holds the folder's lock. Anybody who may read a folder
/// can lock it, so a start goes on without.
const LOCK_WAIT: Duration = Duration::from_millis(200);
/// The pause between two attempts.
const LOCK_PAUSE: Duration = Duration::from_millis(1);

/// The file of a listening socket. Dropped, it is removed, unless the path leads elsewhere by then.
///
/// Invariant: the socket is still open when this is dropped. It holds the inode, so that no other
/// file has its number, and a start that finds the file finds somebody who listens.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let same = |found: &Metadata| is_socket(found, self.device, self.inode);
        if fs::symlink_metadata(&self.path).is_ok_and(|found| same(&found)) {
            // A folder that may not be changed any more keeps it: the next start replaces it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn is_socket(found: &Metadata, device: u64, inode: u64) -> bool {
    found.file_type().is_socket() && (found.dev(), found.ino()) == (device, inode)
}

/// Listens on a path, once for all shards. Each has a descriptor of its own.
///
/// No client can connect before the file has its mode: connect(2) is refused until listen(2). The
/// file begins with the permissions that both the mode and the umask leave, because bind(2) takes
/// those of the socket (fchmod(2)). The rest is added before listen(2). The umask, which belongs to
/// the whole process, is not touched.
///
/// Starts of this program exclude each other by a lock on the folder (flock(2)): a socket that is
/// bound and does not listen yet looks like one that a killed process has left.
pub fn listener(
    address: &SocketPath,
    shards: usize,
    backlog: u32,
    deadline: Instant,
    sockets: &mut Vec<Descriptor>,
) -> io::Result<Option<SocketFile>> {
    address.check().map_err(|wrong| io::Error::new(io::ErrorKind::InvalidInput, wrong))?;
    let socket = stream(libc::AF_UNIX)?;
    sockets.push(socket);
    let file = if address.is_abstract() {
        bind(socket, &address.path)?;
        // SAFETY: no pointers.
        checked(unsafe { libc::listen(socket.0, backlog as i32) })?;
        None
    } else {
        Some(listen_on_file(socket, address, backlog, deadline)?)
    };
    share(socket, shards, sockets)?;
    Ok(file)
}

/// Duplicates a listening socket for further shards.
pub fn share(socket: Descriptor, shards: usize, sockets: &mut Vec<Descriptor>) -> io::Result<()> {
    for _ in 1..shards {
        // SAFETY: no pointers.
        let copy = checked(unsafe { libc::fcntl(socket.0, libc::F_DUPFD_CLOEXEC, 0) })?;
        sockets.push(Descriptor(copy));
    }
    Ok(())
}

fn listen_on_file(
    socket: Descriptor,
    address: &SocketPath,
    backlog: u32,
    deadline: Instant,
) -> io::Result<SocketFile> {
    let _lock = lock_folder(&address.path, deadline);
    if let Some(mode) = address.mode {
        // SAFETY: no pointers.
        checked(unsafe { libc::fchmod(socket.0, mode) })?;
    }
    if let Err(error) = bind(socket, &address.path) {
        if error.raw_os_error() != Some(libc::EADDRINUSE) || !remove_dead(&address.path)? {
            return Err(error);
        }
        bind(socket, &address.path)?;
    }
    let file = identify(address)?;
    // SAFETY: no pointers.
    checked(unsafe { libc::listen(socket.0, backlog as i32) })?;
    Ok(file)
}

/// Locks the folder of a path. `None`: it cannot be read, or somebody else keeps the lock.
fn lock_folder(path: &Path, deadline: Instant) -> Option<File> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = File::open(folder.unwrap_or(Path::new("."))).ok()?;
    let until = deadline.min(Instant::now() + LOCK_WAIT);
    loop {
        match folder.try_lock() {
            Ok(()) => return Some(folder),
            Err(fs::TryLockError::WouldBlock) if Instant::now() < until => {
                thread::sleep(LOCK_PAUSE);
            }
            Err(_) => return None,
        }
    }
}

/// Removes a socket file on which nobody listens. Returns false if somebody does.
fn remove_dead(path: &Path) -> io::Result<bool> {
    let found = fs::symlink_metadata(path)?;
    if !found.file_type().is_socket() {
        let what = "a file that is not a socket has this path; remove it or choose another path";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, what));
    }
    if !is_refused(path)? {
        return Ok(false);
    }
    // A program that takes no lock may have replaced it meanwhile.
    if is_socket(&fs::symlink_metadata(path)?, found.dev(), found.ino()) {
        fs::remove_file(path)?;
    }
    Ok(true)
}

/// Returns whether connect(2) says that nobody listens on a socket file.
fn is_refused(path: &Path) -> io::Result<bool> {
    let socket = stream(libc::AF_UNIX)?;
    let (address, length) = to_sockaddr(path);
    // SAFETY: the address has this length.
    let connected =
        checked(unsafe { libc::connect(socket.0, (&raw const address).cast(), length) });
    close(socket);
    let errno = connected.err().and_then(|error| error.raw_os_error());
    Ok(errno == Some(libc::ECONNREFUSED))
}

/// Gives the file that bind(2) has made the mode that was asked for, and remembers which it is.
fn identify(address: &SocketPath) -> io::Result<SocketFile> {
    let path = &address.path;
    let flags = libc::O_PATH | libc::O_NOFOLLOW;
    let found = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let status = found.metadata()?;
    let file = SocketFile { path: path.clone(), device: status.dev(), inode: status.ino() };
    if !status.file_type().is_socket() {
        return Err(io::Error::other("the file was replaced while it was being made"));
    }
    if let Some(mode) = address.mode
        && status.mode() & 0o777 != mode
    {
        // The path of the open file: nobody can put another one in its place meanwhile.
        let path = format!("/proc/self/fd/{}", found.as_raw_fd());
        fs::set_permissions(path, Permissions::from_mode(mode))?;
    }
    Ok(file)
}

fn bind(socket: Descriptor, path: &Path) -> io::Result<()> {
    let (address, length) = to_sockaddr(path);
    // SAFETY: the address has this length.
    checked(unsafe { libc::bind(socket.0, (&raw const address).cast(), length) }).map(drop)
}

/// A new non-blocking socket, connected to a path, or to the abstract name behind an `@`.
pub(crate) fn connect(to: &SocketPath) -> Result<Descriptor, Errno> {
    let path = to.path.as_os_str().as_bytes();
    // An abstract name.
    let name = path.strip_prefix(b"@");
    let wrong = name.is_none() && path.contains(&0);
    if wrong || name.unwrap_or(path).is_empty() || path.len() > PATH_BYTES_MAX {
        return Err(Errno(libc::EINVAL));
    }
    let (address, length) = to_sockaddr(&to.path);
    let socket = stream(libc::AF_UNIX).map_err(|_| last_errno())?;
    // SAFETY: the address has this length.
    let connected = unsafe { libc::connect(socket.0, (&raw const address).cast(), length) };
    if connected < 0 {
        let errno = last_errno();
        close(socket);
        return Err(errno);
    }
    Ok(socket)
}

/// The process at the other end, when it connected (`SO_PEERCRED`).
///
/// # Errors
/// As getsockopt(2).
pub fn peer_credentials(socket: Descriptor) -> io::Result<PeerCredentials> {
    let mut found = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = mem::size_of_val(&found) as libc::socklen_t;
    let (level, name) = (libc::SOL_SOCKET, libc::SO_PEERCRED);
    // SAFETY: the kernel writes at most `length` bytes.
    checked(unsafe {
        libc::getsockopt(socket.0, level, name, (&raw mut found).cast(), &raw mut length)
    })?;
    let pid = u32::try_from(found.pid).ok().filter(|pid| *pid > 0);
    Ok(PeerCredentials { pid, uid: found.uid, gid: found.gid })
}

/// A path of at most 107 bytes as the kernel takes it. The `@` of an abstract name stands for a NUL
/// byte, and the length ends the name.
fn to_sockaddr(path: &Path) -> (libc::sockaddr_un, libc::socklen_t) {
    // SAFETY: all-zero bytes are a valid sockaddr_un.
    let mut address: libc::sockaddr_un = unsafe { mem::zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    let bytes = path.as_os_str().as_bytes();
    for (to, byte) in address.sun_path.iter_mut().zip(bytes) {
        *to = byte.cast_signed();
    }
    let mut length = mem::size_of::<libc::sockaddr_un>();
    if bytes.first() == Some(&b'@') {
        address.sun_path[0] = 0;
        length = mem::offset_of!(libc::sockaddr_un, sun_path) + bytes.len();
    }
    (address, length as libc::socklen_t)
}

/// The opposite: the bytes that the kernel gave.
pub fn from_sun_path(bytes: &[libc::c_char]) -> SocketPath {
    let bytes: Vec<u8> = bytes.iter().map(|byte| byte.cast_unsigned()).collect();
    let path = match &bytes[..] {
        [0, name @ ..] => [b"@", name].concat(),
        path => path.split(|byte| *byte == 0).next().unwrap_or_default().to_vec(),
    };
    SocketPath { path: PathBuf::from(OsString::from_vec(path)), mode: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::{FromRawFd, OwnedFd};
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// A folder of its own, removed at the end.
    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Self {
            static NUMBER: AtomicU64 = AtomicU64::new(0);
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let name = format!("ringwright-unix-{}-{number}", std::process::id());
            let folder = std::env::temp_dir().join(name);
            fs::create_dir(&folder).unwrap();
            Self(folder)
        }

        fn at(&self, name: &str, mode: Option<u32>) -> SocketPath {
            SocketPath { path: self.0.join(name), mode }
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    /// Sockets that are closed at the end.
    struct Open {
        sockets: Vec<Descriptor>,
        file: Option<SocketFile>,
    }

    impl Drop for Open {
        fn drop(&mut self) {
            self.file = None;
            self.sockets.drain(..).for_each(close);
        }
    }

    fn open(address: &SocketPath, shards: usize) -> io::Result<Open> {
        let mut open = Open { sockets: Vec::new(), file: None };
        open.file = listener(address, shards, 16, Instant::now(), &mut open.sockets)?;
        Ok(open)
    }

    fn mode_of(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn a_socket_has_its_mode_and_one_descriptor_for_each_shard() {
        let folder = Folder::new();
        for mode in [0o600, 0o660, 0o777, 0o000] {
            let address = folder.at("a", Some(mode));
            let open = open(&address, 3).unwrap();
            assert_eq!(open.sockets.len(), 3);
            assert_eq!(mode_of(&address.path), mode, "{mode:o}");
            drop(open);
            assert!(!address.path.exists());
        }
        // umask(2) is that of the process, which std honours for a folder as well.
        fs::create_dir(folder.0.join("plain")).unwrap();
        let _open = open(&folder.at("a", None), 1).unwrap();
        assert_eq!(mode_of(&folder.0.join("a")), mode_of(&folder.0.join("plain")));
    }

    #[test]
    fn every_descriptor_accepts_from_the_one_socket() {
        let folder = Folder::new();
        let address = folder.at("a", None);
        let open = open(&address, 2).unwrap();
        for socket in &open.sockets {
            let mut client = UnixStream::connect(&address.path).unwrap();
            let accepted = crate::ring::direct::accept_now(*socket).unwrap();
            // SAFETY: the descriptor is new and owned by nobody else.
            let accepted = unsafe { OwnedFd::from_raw_fd(accepted.0) };
            let mut accepted = UnixStream::from(accepted);
            client.write_all(b"a").unwrap();
            accepted.set_nonblocking(false).unwrap();
            accepted.read_exact(&mut [0]).unwrap();
        }
    }

    #[test]
    fn a_dead_socket_is_replaced_and_nothing_else() {
        let folder = Folder::new();
        let address = folder.at("a", None);
        drop(UnixListener::bind(&address.path).unwrap());
        assert!(address.path.exists(), "a closed socket leaves its file");
        let first = open(&address, 1).unwrap();
        let error = open(&address, 1).err().unwrap();
        assert_eq!(error.raw_os_error(), Some(libc::EADDRINUSE));
        assert!(UnixStream::connect(&address.path).is_ok(), "the first one was harmed");
        drop(first);
        for make in [
            (|path: &Path| fs::write(path, "mine")) as fn(&Path) -> io::Result<()>,
            |path| fs::create_dir(path),
            |path| std::os::unix::fs::symlink("nowhere", path),
        ] {
            make(&address.path).unwrap();
            let error = open(&address, 1).err().unwrap();
            assert!(error.to_string().contains("not a socket"), "{error}");
            let found = fs::symlink_metadata(&address.path).unwrap();
            let remove = if found.is_dir() { fs::remove_dir } else { fs::remove_file };
            remove(&address.path).unwrap();
        }
        let missing = folder.at("none/a", None);
        assert_eq!(open(&missing, 1).err().unwrap().raw_os_error(), Some(libc::ENOENT));
    }

    #[test]
    fn a_file_that_was_replaced_stays() {
        let folder = Folder::new();
        let address = folder.at("a", None);
        let first = open(&address, 1).unwrap();
        fs::remove_file(&address.path).unwrap();
        let second = UnixListener::bind(&address.path).unwrap();
        drop(first);
        assert!(UnixStream::connect(&address.path).is_ok());
        drop(second);
    }

    /// Each start finds what a killed process has left, and the other one on its way.
    #[test]
    fn of_two_starts_at_the_same_instant_one_listens() {
        let folder = Folder::new();
        let address = folder.at("a", Some(0o666));
        for round in 0..200 {
            drop(UnixListener::bind(&address.path).unwrap());
            let (begin, end) = (Barrier::new(2), Barrier::new(2));
            let start = || {
                let mut open = Open { sockets: Vec::new(), file: None };
                begin.wait();
                let until = Instant::now() + Duration::from_secs(60);
                let result = listener(&address, 1, 16, until, &mut open.sockets);
                end.wait();
                open.file = result.ok().flatten();
                u32::from(open.file.is_some())
            };
            let both = thread::scope(|scope| {
                let other = scope.spawn(start);
                start() + other.join().unwrap()
            });
            assert_eq!(both, 1, "round {round}");
        }
    }
}
