//! Targets of outgoing connections, and the way to them.

use crate::address::{Address, SocketPath};
use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Resolves `HOST:PORT`.
pub(crate) type Resolver = Arc<dyn Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync>;

/// The target of an outgoing connection, and the way to it.
///
/// [`Local::connect`](crate::Local::connect),
/// [`Local::keep_connected`](crate::Local::keep_connected) and the same methods of
/// [`EngineHandle`](crate::EngineHandle) take it. They take an address as it is, too.
///
/// ```
/// use ringwright::{Address, Connect};
/// use std::net::{Ipv4Addr, SocketAddr};
/// use std::time::Duration;
///
/// let one = Connect::from(SocketAddr::from(([192, 0, 2, 1], 80)));
/// let any = Connect::to_any(["192.0.2.1:80", "192.0.2.2:80"].map(|text| {
///     text.parse::<Address>().expect("an address")
/// }));
/// let name = Connect::to_name("example.org:80")
///     .source_ip(Ipv4Addr::new(192, 0, 2, 9))
///     .timeout(Duration::from_secs(2));
/// let unix = Connect::from("unix:/run/app.sock".parse::<Address>()?);
/// # drop((one, any, name, unix));
/// # Ok::<(), ringwright::ParseAddressError>(())
/// ```
///
/// # Several addresses
/// The addresses of a list or of a name are tried one after another, in their order, until one
/// answers. Together they are one attempt: it holds one permit of `max_connections`, and one
/// callback follows. [`ConnectError`] names the failures of all of them.
///
/// # Names
/// A worker resolves the name, so a name needs [`Config::workers`](crate::Config::workers). The
/// ledger counts this as a job. A kept connection resolves it again at each attempt.
///
/// Names are looked up in /etc/hosts (hosts(5)), then by the name servers of resolv.conf(5), within
/// 5 seconds. `localhost` stays on this machine. The C library is not asked: its getaddrinfo(3)
/// loads shared libraries even into a program that is linked statically. For nsswitch.conf(5), give
/// a [`resolver`](Self::resolver) that calls [`ToSocketAddrs`](std::net::ToSocketAddrs).
///
/// # Unix sockets
/// A path is at most 107 bytes long; its `mode` is ignored. A path that begins with `@` is an
/// abstract name ([`to_abstract`](Self::to_abstract)); write `./@name` for a file. A Unix socket
/// answers at once: EAGAIN means that its backlog is full.
#[derive(Clone)]
pub struct Connect {
    target: Target,
    source: Option<SocketAddr>,
    timeout: Option<Duration>,
    resolver: Option<Resolver>,
}

#[derive(Clone)]
enum Target {
    Address(Address),
    List(Arc<[Address]>),
    Name(Arc<str>),
}

impl Connect {
    fn new(target: Target) -> Self {
        Self { target, source: None, timeout: None, resolver: None }
    }

    /// Connects to one address.
    pub fn to(address: impl Into<Address>) -> Self {
        Self::new(Target::Address(address.into()))
    }

    /// Connects to the first of several addresses that answers. An empty list fails.
    pub fn to_any(addresses: impl IntoIterator<Item = impl Into<Address>>) -> Self {
        Self::new(Target::List(addresses.into_iter().map(Into::into).collect()))
    }

    /// Connects to `HOST:PORT`. The text of an [`Address`] is taken as it is, and needs no worker:
    /// an IP address with a port, `unix:PATH` or `unix:@NAME`.
    pub fn to_name(name: impl Into<Arc<str>>) -> Self {
        let name = name.into();
        Self::new(match name.parse() {
            Ok(address) => Target::Address(address),
            Err(_) => Target::Name(name),
        })
    }

    /// Connects to a Unix socket with an abstract name (unix(7)), of at most 106 bytes.
    pub fn to_abstract(name: impl AsRef<[u8]>) -> Self {
        let path = PathBuf::from(OsStr::from_bytes(&[b"@", name.as_ref()].concat()));
        Self::to(Address::Unix(SocketPath { path, mode: None }))
    }

    /// Connects from an IP address of this machine, and any port of it. Addresses of the other
    /// family then fail with EAFNOSUPPORT. It does not apply to Unix sockets.
    #[must_use]
    #[doc(alias = "bind")]
    pub fn source_ip(self, ip: impl Into<IpAddr>) -> Self {
        self.source(SocketAddr::new(ip.into(), 0))
    }

    /// Connects from an address and a port. Port 0 takes any (`IP_BIND_ADDRESS_NO_PORT`, ip(7)), so
    /// that one local port may serve several targets. With another port only one connection at a
    /// time reaches the same target.
    #[must_use]
    #[doc(alias = "bind")]
    pub fn source(mut self, source: impl Into<SocketAddr>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The time in which each address must answer, and in which the name must be resolved. Default:
    /// [`Config::connect_timeout`](crate::Config::connect_timeout). The resolution is 1 ms.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Resolves the name by `resolve`, on a worker thread, instead of by the engine's own resolver.
    /// It gets the text given to [`to_name`](Self::to_name).
    ///
    /// ```
    /// use ringwright::Connect;
    /// use std::net::ToSocketAddrs;
    ///
    /// let connect = Connect::to_name("localhost:80")
    ///     .resolver(|name| name.to_socket_addrs().map(Iterator::collect));
    /// # drop(connect);
    /// ```
    #[must_use]
    #[doc(alias("dns", "getaddrinfo"))]
    pub fn resolver(
        mut self,
        resolve: impl Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
    ) -> Self {
        self.resolver = Some(Arc::new(resolve));
        self
    }

    /// The addresses, unless a name has to be resolved first.
    pub(crate) fn addresses(&self) -> &[Address] {
        match &self.target {
            Target::Address(address) => std::slice::from_ref(address),
            Target::List(addresses) => addresses,
            Target::Name(_) => &[],
        }
    }

    /// The name to resolve, if it is one.
    pub(crate) fn name(&self) -> Option<&Arc<str>> {
        match &self.target {
            Target::Name(name) => Some(name),
            Target::Address(_) | Target::List(_) => None,
        }
    }

    /// The source address; `None`: the kernel chooses.
    pub(crate) fn source_address(&self) -> Option<SocketAddr> {
        self.source
    }

    /// The limit for each address; `None`: that of the configuration.
    pub(crate) fn timeout_each(&self) -> Option<Duration> {
        self.timeout
    }

    /// The function that resolves the name.
    pub(crate) fn resolver_of_name(&self) -> Resolver {
        let own = || -> Resolver {
            Arc::new(|name: &str| ringwright_names::resolve(name).map_err(io::Error::other))
        };
        self.resolver.clone().unwrap_or_else(own)
    }
}

impl From<SocketAddr> for Connect {
    fn from(address: SocketAddr) -> Self {
        Self::to(address)
    }
}

impl From<Address> for Connect {
    fn from(address: Address) -> Self {
        Self::to(address)
    }
}

impl From<Vec<SocketAddr>> for Connect {
    fn from(addresses: Vec<SocketAddr>) -> Self {
        Self::to_any(addresses)
    }
}

impl fmt::Display for Connect {
    /// The address, the addresses or the name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = self.name() {
            return f.write_str(name);
        }
        for (number, address) in self.addresses().iter().enumerate() {
            let before = if number == 0 { "" } else { ", " };
            write!(f, "{before}{address}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect")
            .field("target", &format_args!("{self}"))
            .field("source", &self.source)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// The failures of several addresses, inside the error of
/// [`Handler::connect_failed`](crate::Handler::connect_failed).
///
/// [`io::Error::kind`] is that of the last failure. The error of a single address is its errno
/// ([`io::Error::raw_os_error`]) and not this.
///
/// ```
/// fn explain(error: &std::io::Error) {
///     let inside = error.get_ref().and_then(|it| it.downcast_ref::<ringwright::ConnectError>());
///     for (address, error) in inside.iter().flat_map(|it| it.failures()) {
///         println!("{address}: {error}");
///     }
/// }
/// # explain(&std::io::Error::other("nothing"));
/// ```
#[derive(Debug)]
pub struct ConnectError {
    failures: Vec<(Address, io::Error)>,
}

impl ConnectError {
    pub(crate) fn new(failures: Vec<(Address, io::Error)>) -> Self {
        Self { failures }
    }

    /// The addresses in the order in which they were tried, and why each has failed.
    #[must_use]
    pub fn failures(&self) -> &[(Address, io::Error)] {
        &self.failures
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no address could be connected to (")?;
        for (number, (address, error)) in self.failures.iter().enumerate() {
            let before = if number == 0 { "" } else { "; " };
            write!(f, "{before}{address}: {error}")?;
        }
        f.write_str(")")
    }
}

impl std::error::Error for ConnectError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        text.parse().expect("an address")
    }

    #[test]
    fn a_target_names_its_addresses() {
        let two = [address("192.0.2.1:80"), address("unix:/run/a.sock")];
        let any = Connect::to_any(two.clone());
        assert_eq!(
            (any.addresses(), any.to_string()),
            (&two[..], "192.0.2.1:80, unix:/run/a.sock".into())
        );
        let ip = SocketAddr::from(([192, 0, 2, 1], 80));
        assert_eq!(Connect::from(ip).addresses(), Connect::from(vec![ip]).addresses());
        // An address needs no resolver.
        for text in ["[::1]:80", "unix:/run/a.sock", "unix:@a"] {
            assert_eq!(Connect::to_name(text).addresses(), [address(text)]);
        }
        let name = Connect::to_name("localhost:80");
        assert_eq!(
            (name.addresses(), name.name().map(|it| &**it)),
            (&[][..], Some("localhost:80"))
        );
        let hidden = Connect::to_abstract("a");
        assert_eq!(hidden.to_string(), "unix:@a");
    }

    #[test]
    fn the_resolver_is_the_one_that_was_given() {
        let found = SocketAddr::from(([192, 0, 2, 7], 9));
        let connect = Connect::to_name("a:1").resolver(move |name| {
            assert_eq!(name, "a:1");
            Ok(vec![found])
        });
        assert_eq!(connect.resolver_of_name()("a:1").expect("an answer"), [found]);
        let own = Connect::to_name("localhost:1").resolver_of_name();
        assert!(own("localhost:1").is_ok_and(|found| !found.is_empty()));
        assert!(own("localhost").is_err());
    }

    #[test]
    fn an_error_names_every_address() {
        let failed = |text, errno| (address(text), io::Error::from_raw_os_error(errno));
        let error = ConnectError::new(vec![
            failed("192.0.2.1:80", libc::ECONNREFUSED),
            failed("[2001:db8::1]:80", libc::ENETUNREACH),
        ]);
        let said = error.to_string();
        assert!(said.contains("192.0.2.1:80: Connection refused"), "{said}");
        assert!(said.contains("; [2001:db8::1]:80: Network is unreachable"), "{said}");
        assert_eq!(error.failures().len(), 2);
    }
}
