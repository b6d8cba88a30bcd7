//! Addresses of listeners and of peers: a TCP port, or a Unix-domain stream socket.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::str::FromStr;

/// The longest path of a socket file in bytes: `sun_path` of unix(7), less its NUL.
pub(crate) const PATH_BYTES_MAX: usize = 107;
/// The text before a path.
const UNIX: &str = "unix:";

/// The address of a listener.
///
/// Its text is `127.0.0.1:80`, `[::1]:80` or `unix:/run/app.sock`. A socket file may have a mode:
/// `unix:/run/app.sock (mode=0660)`. The text that [`Display`](fmt::Display) writes is without it.
/// `unix:@app` is an abstract name.
///
/// ```
/// use ringwright::Address;
///
/// let address: Address = "unix:/run/app.sock (mode=0660)".parse()?;
/// assert_eq!(address.to_string(), "unix:/run/app.sock");
/// # Ok::<(), ringwright::ParseAddressError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// A TCP port. Port 0 takes a free one.
    Ip(SocketAddr),
    /// A Unix-domain stream socket.
    Unix(SocketPath),
}

/// The path of a Unix-domain stream socket to listen on, or its abstract name.
///
/// A path that begins with `@` is an abstract name (unix(7)): there is no file, no mode and no
/// folder, and every process of the network namespace may connect. A listener with such a name that
/// ends resets clients that connect at the same moment, because nothing hides the name from them.
/// `./@app` is a file of this name.
///
/// # The file
/// The engine makes the file when it listens, and removes it when the listener ends, unless the
/// path leads to another file by then. A relative path is relative to the working directory of the
/// process at these moments. The folder must exist.
///
/// A socket file on which nobody listens (connect(2) fails with ECONNREFUSED) is what a killed
/// process has left, and is replaced. A file that is not a socket is never touched.
///
/// # Differences from TCP
/// * All shards share the one socket, and take turns at accepting.
/// * A client has no address ([`Peer::Unix`]). Bans, [`Config::max_per_address`] and the options of
///   TCP do not apply.
/// * There is no reset. The peer of a connection that is aborted, or that a deadline ends, reads
///   what has left, and then the end.
/// * A peer that closes is gone at once, not only when something is sent to it. The bytes that it
///   has sent are shown, then [`Handler::half_closed`] is called, and a connection that is not
///   closed by then ends with [`Reason::PeerReset`].
/// * A peer reads bytes in steps of up to 64 KiB, as far as the kernel tells. One that takes longer
///   than [`Config::write_timeout`] for a step counts as stalled.
/// * The kernel does not count the bytes: [`Config::min_rate`] does not apply, and
///   [`EndedConnection::traffic`] is `None`.
///
/// [`Config::max_per_address`]: crate::Config::max_per_address
/// [`Config::min_rate`]: crate::Config::min_rate
/// [`Config::write_timeout`]: crate::Config::write_timeout
/// [`EndedConnection::traffic`]: crate::EndedConnection::traffic
/// [`Handler::half_closed`]: crate::Handler::half_closed
/// [`Reason::PeerReset`]: crate::Reason::PeerReset
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SocketPath {
    /// The path of the file, at most 107 bytes, or `@` and an abstract name.
    pub path: PathBuf,
    /// The permissions of the file, 0 to 0o777; a client needs to write. `None`: those that the
    /// file mode creation mask of the process leaves of 0o777 (umask(2)).
    ///
    /// The file has them before the first client can connect.
    pub mode: Option<u32>,
}

impl SocketPath {
    /// Checks the length of the path, and that it is one.
    ///
    /// # Errors
    /// The path is empty, longer than 107 bytes, or contains a NUL byte; or the mode is above
    /// 0o777. The text says which.
    pub fn check(&self) -> Result<(), ParseAddressError> {
        let path = self.path.as_os_str().as_bytes();
        let wrong = match path {
            [] => Some("the path of a Unix socket is empty"),
            [b'@'] => Some("the abstract name of a Unix socket is empty"),
            [b'@', ..] if self.mode.is_some() => {
                Some("an abstract Unix socket (`@NAME`) has no file and no mode")
            }
            _ if path.len() > PATH_BYTES_MAX => {
                Some("the path of a Unix socket has at most 107 bytes (unix(7), sun_path)")
            }
            _ if path.contains(&0) => Some("the path of a Unix socket contains a NUL byte"),
            _ if self.mode.is_some_and(|mode| mode > 0o777) => {
                Some("the mode of a Unix socket is 0000 to 0777, in octal digits")
            }
            _ => None,
        };
        wrong.map_or(Ok(()), |wrong| Err(ParseAddressError(wrong)))
    }

    /// Returns whether it is an abstract name, without a file.
    #[must_use]
    pub fn is_abstract(&self) -> bool {
        self.path.as_os_str().as_bytes().first() == Some(&b'@')
    }
}

impl Address {
    /// The IP address and the port. `None`: it is the path of a Unix socket.
    #[must_use]
    pub fn ip(&self) -> Option<SocketAddr> {
        match self {
            Self::Ip(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }

    /// The path of a Unix socket. `None`: it is a TCP port.
    #[must_use]
    pub fn unix(&self) -> Option<&SocketPath> {
        match self {
            Self::Ip(_) => None,
            Self::Unix(path) => Some(path),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Ip(address)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix(SocketPath { path, .. }) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

impl FromStr for Address {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, ParseAddressError> {
        let Some(path) = text.strip_prefix(UNIX) else {
            let wrong = "expected an IP address with a port, or unix:PATH";
            return text.parse().map(Self::Ip).map_err(|_| ParseAddressError(wrong));
        };
        let mut unix = SocketPath { path: path.into(), mode: None };
        if let Some((path, suffix)) = path.split_once(" (") {
            let mode = suffix.strip_suffix(')').and_then(|it| it.strip_prefix("mode="));
            let digits = mode.filter(|it| it.bytes().all(|digit| digit.is_ascii_digit()));
            let mode = digits.and_then(|digits| u32::from_str_radix(digits, 8).ok());
            let wrong =
                ParseAddressError("what follows the path of a Unix socket is not ` (mode=0660)`");
            unix = SocketPath { path: path.into(), mode: Some(mode.ok_or(wrong)?) };
        }
        unix.check()?;
        Ok(Self::Unix(unix))
    }
}

/// The error of a text that is no [`Address`]. Its `Display` text says why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseAddressError(&'static str);

impl fmt::Display for ParseAddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for ParseAddressError {}

/// The process at the other end of a Unix socket, as
/// [`Connection::peer_credentials`](crate::Connection::peer_credentials) returns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct PeerCredentials {
    /// The process that connected, or that listens if the connection is outgoing. `None` if it is
    /// not in the PID namespace of this process. The process may have ended meanwhile, and passed
    /// the socket on.
    pub pid: Option<u32>,
    /// Its effective user.
    pub uid: u32,
    /// Its effective group.
    pub gid: u32,
}

/// The other end of a connection. Its text is `192.0.2.1:4711`, `[2001:db8::1]:4711` or `unix:`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    /// The address of a TCP peer.
    Ip(SocketAddr),
    /// A client of a Unix socket, which has no address. Bans, and limits on the connections of an
    /// address, do not apply to it.
    Unix,
}

impl Peer {
    /// The address and the port of a TCP peer. `None`: a client of a Unix socket.
    #[must_use]
    pub fn address(self) -> Option<SocketAddr> {
        match self {
            Self::Ip(address) => Some(address),
            Self::Unix => None,
        }
    }

    /// The IP address of a TCP peer. `None`: a client of a Unix socket.
    #[must_use]
    pub fn ip(self) -> Option<IpAddr> {
        self.address().map(|address| address.ip())
    }
}

impl From<SocketAddr> for Peer {
    fn from(address: SocketAddr) -> Self {
        Self::Ip(address)
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix => f.write_str(UNIX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unix_address_is_a_path_and_perhaps_a_mode() {
        let unix = |path: &str, mode| Address::Unix(SocketPath { path: path.into(), mode });
        assert_eq!("unix:/run/a.sock".parse(), Ok(unix("/run/a.sock", None)));
        assert_eq!("unix:a b".parse(), Ok(unix("a b", None)));
        assert_eq!("unix:/run/a (mode=0660)".parse(), Ok(unix("/run/a", Some(0o660))));
        assert_eq!(unix("/run/a", Some(0o660)).to_string(), "unix:/run/a");
        assert_eq!("127.0.0.1:80".parse(), Ok(Address::Ip(([127, 0, 0, 1], 80).into())));
        let longest = format!("unix:/{}", "a".repeat(PATH_BYTES_MAX - 1));
        assert!(longest.parse::<Address>().is_ok());
        let refused = |text: &str| text.parse::<Address>().unwrap_err().to_string();
        assert!(refused(&format!("{longest}a")).contains("107 bytes"));
        assert!(refused("unix:").contains("is empty"));
        assert_eq!("unix:@name".parse(), Ok(unix("@name", None)));
        assert_eq!(unix("@name", None).to_string(), "unix:@name");
        assert!(refused("unix:@").contains("is empty"));
        assert!(refused("unix:@name (mode=0660)").contains("no mode"));
        assert!(refused("unix:/a (mode=1000)").contains("0777"));
        for wrong in ["(mode=+60)", "(mode=)", "(mode=0680)", "(mode=0660", "(owner=a)"] {
            assert!(refused(&format!("unix:/a {wrong}")).contains("(mode=0660)"), "{wrong}");
        }
        assert!(refused("localhost:80").contains("unix:PATH"));
    }
}
