//! Listening sockets that the process has from its parent: socket activation.

use crate::config::Listener;
use crate::error::Error;
use crate::inherited::InheritedSocket;
use crate::ring::calls;
use std::env;
use std::io;
use std::os::fd::OwnedFd;
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};

/// The number of the first descriptor (`SD_LISTEN_FDS_START`).
const FIRST: i32 = 3;
/// The name of a descriptor for which `LISTEN_FDNAMES` has none.
const UNNAMED: &str = "unknown";
/// The limit on inherited descriptors: each is a listener.
const COUNT_MAX: i32 = u16::MAX as i32;

impl Listener {
    /// A listener on a socket that listens already: one that the parent of the process has opened,
    /// or another part of the program. Its address is that of the socket.
    ///
    /// All shards accept from the one socket, and nothing spreads clients evenly over them. The
    /// path of a Unix socket, V6ONLY and the backlog stay as they are; [`backlog`] changes the
    /// latter. `O_NONBLOCK` is set. The connections have the options of [`ListenerSettings`].
    /// Another process may have the same socket. Therefore it gets no socket filter: banned clients
    /// are closed right after accept, and a drain accepts what is in the backlog and leaves the
    /// socket open for others. A filter that was there is removed.
    ///
    /// [`backlog`]: field@Self::backlog
    /// [`ListenerSettings`]: crate::ListenerSettings
    ///
    /// # Errors
    /// [`Error::Inherited`]: it is not a TCP or Unix stream socket, or it does not listen.
    #[doc(alias("from_raw_fd", "from_std", "LISTEN_FDS", "socket activation"))]
    pub fn inherited(socket: OwnedFd) -> Result<Self, Error> {
        let (inherited, address) = InheritedSocket::new(socket)?;
        Ok(Self { inherited: Some(inherited), ..address.into() })
    }
}

/// Takes the listening sockets that a service manager has passed to this process
/// (sd_listen_fds(3)): each with its name from `LISTEN_FDNAMES`, or `unknown`. Empty if
/// `LISTEN_PID` is missing or names another process. Several sockets can have the same name:
/// systemd gives all sockets of a unit the unit's name, unless `FileDescriptorName=` says otherwise.
///
/// Each descriptor gets `FD_CLOEXEC`. The environment stays as it is; `LISTEN_PID` keeps a child
/// from taking it for its own.
///
/// ```no_run
/// use ringwright::{Config, inherited_listeners};
///
/// let mut config = Config::default();
/// for (name, listener) in inherited_listeners()? {
///     println!("{name}: {}", listener.address);
///     config.listeners.push(listener);
/// }
/// # Ok::<(), ringwright::Error>(())
/// ```
///
/// # Hazards
/// Call it once, early in `main`. It trusts the environment: descriptors from 3 on become listeners
/// of the engine. A part of the program that has closed one of them may have opened another file of
/// the same number meanwhile.
///
/// # Errors
/// [`Error::Inherited`]: a variable is not a number, `LISTEN_FDNAMES` does not have a name for each
/// descriptor, one of them is not a listening stream socket, or this is the second call.
#[doc(alias("sd_listen_fds", "LISTEN_FDS", "systemd", "socket activation"))]
pub fn inherited_listeners() -> Result<Vec<(String, Listener)>, Error> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let variable = |name: &str| env::var(name).ok();
    let (pid, count) = (variable("LISTEN_PID"), variable("LISTEN_FDS"));
    let Some(names) = named(process::id(), pid, count, variable("LISTEN_FDNAMES"))? else {
        return Ok(Vec::new());
    };
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Err(wrong("the inherited sockets have been taken already"));
    }
    // All of them are taken first, so that none stays open after an error.
    let adopted = (FIRST..).zip(names).map(|(number, name)| {
        let refused = |source| Error::Inherited { descriptor: Some(number), source };
        Ok((name, calls::adopt(number).map_err(refused)?))
    });
    let adopted: Vec<_> = adopted.collect::<Result<_, Error>>()?;
    adopted.into_iter().map(|(name, socket)| Ok((name, Listener::inherited(socket)?))).collect()
}

/// The names of the descriptors from 3 on. `None`: they are not for this process.
fn named(
    this: u32,
    pid: Option<String>,
    count: Option<String>,
    names: Option<String>,
) -> Result<Option<Vec<String>>, Error> {
    let (Some(pid), Some(count)) = (pid, count) else { return Ok(None) };
    let pid: u32 = pid.parse().map_err(|_| wrong("LISTEN_PID is not a number"))?;
    if pid != this {
        return Ok(None);
    }
    let count = count.parse().ok().filter(|count| (0..=COUNT_MAX).contains(count));
    let count = count.ok_or_else(|| wrong("LISTEN_FDS is not a number of descriptors"))?;
    let Some(names) = names.filter(|names| !names.is_empty()) else {
        return Ok(Some(vec![UNNAMED.to_owned(); count as usize]));
    };
    let names: Vec<String> = names.split(':').map(str::to_owned).collect();
    if names.len() != count as usize {
        return Err(wrong("LISTEN_FDNAMES does not have as many names as LISTEN_FDS says"));
    }
    Ok(Some(names))
}

fn wrong(what: &str) -> Error {
    let source = io::Error::new(io::ErrorKind::InvalidInput, what);
    Error::Inherited { descriptor: None, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream, UdpSocket};

    fn names(pid: &str, count: &str, names: Option<&str>) -> Result<Option<Vec<String>>, String> {
        let owned = |text: &str| Some(text.to_owned());
        named(7, owned(pid), owned(count), names.map(str::to_owned)).map_err(|it| it.to_string())
    }

    #[test]
    fn variables_name_the_descriptors_of_one_process() {
        let list = |names: &[&str]| Ok(Some(names.iter().map(|it| (*it).to_owned()).collect()));
        assert_eq!(names("7", "2", Some("a:b")), list(&["a", "b"]));
        assert_eq!(names("7", "2", Some("a:")), list(&["a", ""]));
        assert_eq!(names("7", "2", None), list(&["unknown", "unknown"]));
        assert_eq!(names("7", "0", Some("")), list(&[]));
        assert_eq!(names("8", "2", Some("a")), Ok(None), "they are another process's");
        assert!(named(7, None, Some("1".to_owned()), None).unwrap().is_none());
        for (pid, count, fd_names, what) in [
            ("x", "1", None, "LISTEN_PID"),
            ("7", "-1", None, "LISTEN_FDS"),
            ("7", "65536", None, "LISTEN_FDS"),
            ("7", "2", Some("a"), "LISTEN_FDNAMES"),
        ] {
            assert!(names(pid, count, fd_names).unwrap_err().contains(what), "{what}");
        }
    }

    #[test]
    fn only_a_stream_socket_that_listens_is_taken_and_only_once() {
        let listening = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listening.local_addr().unwrap();
        let connected = TcpStream::connect(address).unwrap();
        let listener = Listener::inherited(listening.into()).unwrap();
        assert_eq!(listener.address, address.into());
        let socket = listener.inherited.clone().unwrap();
        assert_eq!(Some(&socket), listener.inherited.as_ref());
        drop(socket.take().unwrap());
        assert!(socket.take().unwrap_err().to_string().contains("already"));
        let refused = |socket: OwnedFd| Listener::inherited(socket).unwrap_err().to_string();
        assert!(refused(connected.into()).contains("does not listen"));
        let datagram = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(refused(datagram.into()).contains("stream"));
        let file = std::fs::File::open("/proc/self/status").unwrap();
        assert!(refused(file.into()).contains("not a socket"));
    }
}
