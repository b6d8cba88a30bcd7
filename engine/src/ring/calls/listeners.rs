//! Listening sockets: one per shard and address.

use super::{
    SocketFile, TcpOptions, bind, checked, close, local_address, set, stream_socket, unix,
};
use crate::address::Address;
use crate::ring::{Descriptor, Errno, Instruction, direct};
use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

/// The pause between two attempts to listen on an address in use.
const RETRY_PAUSE: Duration = Duration::from_millis(5);

/// Options set once on a listener and inherited by what it accepts (tcp(7)).
#[derive(Debug)]
pub struct ListenerOptions<'a> {
    /// All IP addresses of the engine.
    pub addresses: &'a [SocketAddr],
    /// Until then, an address in use is tried again.
    pub deadline: Instant,
    /// listen(2) backlog.
    pub backlog: u32,
    /// `IPV6_V6ONLY`; `None`: as the other addresses demand.
    pub v6_only: Option<bool>,
    pub tcp: TcpOptions,
    /// Refuses banned addresses from the first moment on; empty: none.
    pub filter: &'a [Instruction],
    /// Why the kernel did not take it.
    pub filter_failed: Cell<Option<Errno>>,
}

/// Listening sockets, with the address on which they listen, and the file of a Unix socket.
#[derive(Debug)]
pub struct Listening {
    pub address: Address,
    /// One for each shard.
    pub sockets: Vec<Descriptor>,
    pub file: Option<SocketFile>,
}

/// Opens one listening socket per shard on the same address. With port 0, the first one takes a
/// free port and the others follow. A Unix socket is opened once, and shared.
///
/// The first socket listens before it gets `SO_REUSEPORT`. listen(2) fails on it if any other
/// socket listens on the address, and the kernel decides that under the lock of the port. bind(2)
/// alone decides nothing: several sockets with `SO_REUSEADDR` may be bound to an address on which
/// nobody listens yet. A single shard needs no `SO_REUSEPORT`, so nobody can join it later.
///
/// An address in use is tried again until the deadline. The sockets of a killed process live on for
/// some milliseconds, while the kernel ends the operations of its rings.
///
/// # Errors
/// EADDRINUSE also if another process listens on that address with `SO_REUSEPORT`. The kernel would
/// give it a part of the clients.
pub(crate) fn listeners(
    address: &Address,
    shards: usize,
    options: &ListenerOptions<'_>,
) -> io::Result<Listening> {
    let mut sockets = Vec::with_capacity(shards);
    loop {
        let opened = match address {
            Address::Ip(address) => open(*address, shards, options, &mut sockets)
                .map(|bound| (Address::Ip(bound), None)),
            Address::Unix(path) => {
                let (backlog, deadline) = (options.backlog, options.deadline);
                unix::listener(path, shards, backlog, deadline, &mut sockets)
                    .map(|file| (address.clone(), file))
            }
        };
        match opened {
            Ok((address, file)) => return Ok(Listening { address, sockets, file }),
            Err(error) => {
                sockets.drain(..).for_each(close);
                let in_use = error.raw_os_error() == Some(libc::EADDRINUSE);
                if !in_use || Instant::now() >= options.deadline {
                    return Err(error);
                }
                thread::sleep(RETRY_PAUSE);
            }
        }
    }
}

fn open(
    mut address: SocketAddr,
    shards: usize,
    options: &ListenerOptions<'_>,
    sockets: &mut Vec<Descriptor>,
) -> io::Result<SocketAddr> {
    for shard in 0..shards {
        let socket = stream_socket(&address)?;
        sockets.push(socket);
        if shard > 0 {
            set(socket, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
        }
        address = listen(socket, &address, options)?;
        if shard == 0 && shards > 1 {
            set(socket, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
        }
    }
    Ok(address)
}

fn listen(
    socket: Descriptor,
    address: &SocketAddr,
    options: &ListenerOptions<'_>,
) -> io::Result<SocketAddr> {
    set(socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    options.tcp.set(socket)?;
    let v6_only = leaves_out_ipv4(address, options.addresses).then_some(true);
    if let Some(only) = options.v6_only.or(v6_only) {
        set(socket, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, only.into())?;
    }
    bind(socket, address)?;
    if !options.filter.is_empty()
        && let Err(errno) = direct::set_filter(socket, options.filter)
    {
        // The shard checks the address of each accepted client instead.
        options.filter_failed.set(Some(errno));
    }
    // SAFETY: no pointers.
    checked(unsafe { libc::listen(socket.0, options.backlog as i32) })?;
    local_address(socket)
}

/// Returns whether the engine has IPv4 addresses with the port of this IPv6 wildcard. The wildcard
/// takes IPv4 as well otherwise, which conflicts with them (ipv6(7), `IPV6_V6ONLY`).
fn leaves_out_ipv4(address: &SocketAddr, all: &[SocketAddr]) -> bool {
    let wildcard = address.is_ipv6() && address.ip().is_unspecified() && address.port() != 0;
    wildcard && all.iter().any(|other| other.is_ipv4() && other.port() == address.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;
    use std::sync::Barrier;

    fn plain() -> ListenerOptions<'static> {
        ListenerOptions {
            addresses: &[],
            deadline: Instant::now(),
            backlog: 128,
            v6_only: None,
            tcp: TcpOptions { keepalive_s: None, user_timeout_ms: None },
            filter: &[],
            filter_failed: Cell::new(None),
        }
    }

    /// Two starts at the same instant, on an address that was free just before.
    fn race(address: &str, shards: usize) -> usize {
        let Listening { address: bound, sockets, .. } =
            listeners(&address.parse().unwrap(), 1, &plain()).unwrap();
        sockets.into_iter().for_each(close);
        let (begin, end) = (Barrier::new(2), Barrier::new(2));
        let start = || {
            begin.wait();
            let result = listeners(&bound, shards, &plain());
            end.wait();
            match result {
                Ok(Listening { sockets, .. }) => {
                    assert_eq!(sockets.len(), shards);
                    sockets.into_iter().for_each(close);
                    1
                }
                Err(error) => {
                    assert_eq!(error.raw_os_error(), Some(libc::EADDRINUSE));
                    0
                }
            }
        };
        thread::scope(|scope| {
            let other = scope.spawn(start);
            start() + other.join().unwrap()
        })
    }

    #[test]
    fn clients_reach_the_socket_of_every_shard() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Listening { address, sockets, .. } =
                listeners(&address.parse().unwrap(), 3, &plain()).unwrap();
            let to = address.ip().unwrap();
            let clients: Vec<_> = (0..64).map(|_| TcpStream::connect(to).unwrap()).collect();
            for socket in &sockets {
                let mut poll = libc::pollfd { fd: socket.0, events: libc::POLLIN, revents: 0 };
                // SAFETY: the array of one is valid, and the call fills it.
                let ready = unsafe { libc::poll(&raw mut poll, 1, 60_000) };
                assert_eq!(ready, 1, "a socket got none of 64 clients");
            }
            drop(clients);
            sockets.into_iter().for_each(close);
        }
    }

    #[test]
    fn of_two_starts_at_the_same_instant_one_listens() {
        for address in ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0", "[::]:0"] {
            for shards in [1, 2, 5] {
                for round in 0..200 {
                    let listening = race(address, shards);
                    assert!(listening <= 1, "{address}, {shards} shard(s), round {round}");
                }
            }
        }
    }
}
