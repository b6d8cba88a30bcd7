//! Addresses to listen on: in use, becoming free, and of both families.

use crate::common::{Scripted, address_of_its_own, ask, start, try_start, wait_until};
use crate::sockets::{option, other_end};
use ringwright::{Config, Engine, Error, Listener};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{FromRawFd, RawFd};
use std::thread;
use std::time::{Duration, Instant};

fn config(listeners: Vec<SocketAddr>) -> Config {
    let listeners = listeners.into_iter().map(Listener::from).collect();
    Config { listeners, shards: Some(2), pin: false, ..Config::default() }
}

fn end(engine: Engine) {
    engine.handle().drain(Duration::ZERO);
    assert!(engine.join().unwrap().balanced());
}

#[test]
fn an_address_that_becomes_free_soon_is_waited_for() {
    let other = TcpListener::bind(address_of_its_own()).unwrap();
    let address = other.local_addr().unwrap();
    let closing = thread::spawn(move || {
        thread::sleep(Duration::from_millis(100));
        drop(other);
    });
    let engine = start(config(vec![address]), |_| Scripted::unobserved());
    closing.join().unwrap();
    assert_eq!(ask(&mut TcpStream::connect(address).unwrap(), "echo a"), "a");
    end(engine);
}

#[test]
fn an_address_in_use_is_refused_after_a_second() {
    let other = TcpListener::bind(address_of_its_own()).unwrap();
    let taken = other.local_addr().unwrap();
    let begun = Instant::now();
    // Both addresses together get one second.
    let free = address_of_its_own();
    match try_start(config(vec![free, taken]), |_| Scripted::unobserved()).map(drop) {
        Err(error @ Error::Listen { .. }) => {
            let text = error.to_string();
            assert!(text.contains(&taken.to_string()) && text.contains("for 1 second"), "{text}");
        }
        other => panic!("{other:?}"),
    }
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[test]
fn wildcards_of_both_families_share_a_port() {
    let start_on_both = |order: [&str; 2]| {
        for _ in 0..20 {
            let port = TcpListener::bind("[::]:0").unwrap().local_addr().unwrap().port();
            let listeners = order.map(|wildcard| format!("{wildcard}:{port}").parse().unwrap());
            match try_start(config(listeners.to_vec()), |_| Scripted::unobserved()) {
                Ok(engine) => return (engine, port),
                // Another test may have taken the port in between, or have the locked memory.
                Err(error) => eprintln!("{order:?}: {error}"),
            }
        }
        panic!("{order:?}: no start succeeded");
    };
    for order in [["0.0.0.0", "[::]"], ["[::]", "0.0.0.0"], ["127.0.0.1", "[::]"]] {
        let (engine, port) = start_on_both(order);
        for client in ["127.0.0.1", "[::1]"] {
            let mut client = TcpStream::connect(format!("{client}:{port}")).unwrap();
            assert_eq!(ask(&mut client, "echo a"), "a", "{order:?}");
        }
        end(engine);
    }
}

#[test]
fn an_ipv6_wildcard_alone_takes_both_families() {
    let engine = start(config(vec!["[::]:0".parse().unwrap()]), |_| Scripted::unobserved());
    let port = engine.addresses()[0].port();
    for client in ["127.0.0.1", "[::1]"] {
        let mut client = TcpStream::connect(format!("{client}:{port}")).unwrap();
        assert_eq!(ask(&mut client, "echo a"), "a");
    }
    end(engine);
}

/// A listener decides about IPv4 itself, whatever else the engine listens on.
#[test]
fn a_listener_chooses_its_families_and_its_backlog() {
    let any: Listener = "[::]:0".parse().unwrap();
    let of = |v6_only, backlog| Listener { v6_only, backlog, ..any.clone() };
    let listeners = vec![of(Some(true), Some(7)), of(Some(false), None), of(None, Some(9))];
    let shards = Some(2);
    let config = Config { listeners, shards, backlog: 11, pin: false, ..Config::default() };
    let engine = start(config, |_| Scripted::unobserved());
    let expected = [(false, 7), (true, 11), (true, 9)];
    for (address, (takes_ipv4, backlog)) in engine.addresses().into_iter().zip(expected) {
        let mut client = TcpStream::connect(("::1", address.port())).unwrap();
        assert_eq!(ask(&mut client, "echo a"), "a");
        let by_ipv4 = TcpStream::connect(("127.0.0.1", address.port()));
        assert_eq!(by_ipv4.is_ok(), takes_ipv4, "{address}");
        assert_eq!(backlogs_of(address), [backlog; 2], "{address}");
    }
    // The IPv4 port of an IPv6 listener of its own is free, and can be added.
    let port = engine.addresses()[0].port();
    let added = engine.handle().add_listener(&format!("0.0.0.0:{port}").parse().unwrap()).unwrap();
    let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    assert_eq!(ask(&mut client, "echo b"), "b", "{added:?}");
    end(engine);
}

/// The backlogs of the sockets that listen on an address: `tcpi_sacked` of a listener.
fn backlogs_of(address: SocketAddr) -> Vec<u32> {
    let listens = |socket: RawFd| {
        // SAFETY: only looked at, and not closed: it belongs to the engine.
        let socket = std::mem::ManuallyDrop::new(unsafe { TcpListener::from_raw_fd(socket) });
        socket.local_addr().is_ok_and(|found| found == address)
    };
    let descriptors = std::fs::read_dir("/proc/self/fd").expect("/proc is there");
    let numbers = descriptors.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let accepts =
        |it: &RawFd| listens(*it) && option(*it, libc::SOL_SOCKET, libc::SO_ACCEPTCONN).0 == 1;
    let sockets: Vec<RawFd> = numbers.collect();
    sockets.into_iter().filter(accepts).map(backlog_of).collect()
}

fn backlog_of(socket: RawFd) -> u32 {
    let mut info = [0u32; 8];
    let mut length = size_of_val(&info) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes.
    let result = unsafe {
        let (level, name) = (libc::IPPROTO_TCP, libc::TCP_INFO);
        libc::getsockopt(socket, level, name, info.as_mut_ptr().cast(), &raw mut length)
    };
    assert_eq!(result, 0);
    info[7]
}

#[test]
fn what_a_listener_cannot_have_is_refused() {
    let refused = |listener: Listener| {
        let shards = Some(1);
        let config = Config { listeners: vec![listener], shards, ..Config::default() };
        match config.check() {
            Err(Error::Config { key, .. }) => key,
            other => panic!("{other:?}"),
        }
    };
    let plain = |text: &str| -> Listener { text.parse().unwrap() };
    for address in ["127.0.0.1:0", "unix:/run/a"] {
        let listener = Listener { v6_only: Some(false), ..plain(address) };
        assert_eq!(refused(listener), "v6_only", "{address}");
    }
    for backlog in [0, 65_536] {
        let listener = Listener { backlog: Some(backlog), ..plain("[::1]:0") };
        assert_eq!(refused(listener), "backlog", "{backlog}");
    }
    let engine = start(config(Vec::new()), |_| Scripted::unobserved());
    let wrong = Listener { backlog: Some(0), ..plain("127.0.0.1:0") };
    let error = engine.handle().add_listener(&wrong).unwrap_err();
    assert!(matches!(error, Error::Config { key: "backlog", .. }), "{error}");
    end(engine);
}

/// A socket that others have as well: the shards take turns, nothing is left on it, and it listens
/// on when the engine has ended.
#[test]
fn an_inherited_socket_is_shared_and_stays_as_it_was() {
    let parents = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = parents.local_addr().unwrap();
    // It waited before the engine knew the socket, so that it has inherited other options.
    let mut early = TcpStream::connect(address).unwrap();
    let listener = Listener::inherited(parents.try_clone().unwrap().into()).unwrap();
    let config = Config {
        listeners: vec![listener.clone()],
        shards: Some(2),
        pin: false,
        bans: vec!["127.0.0.9".parse().unwrap()],
        ..Config::default()
    };
    let engine = start(config, |_| Scripted::unobserved());
    assert_eq!(engine.addresses(), [address]);
    assert_eq!(ask(&mut early, "echo early"), "early");
    let mut clients: Vec<TcpStream> =
        (0..64).map(|_| TcpStream::connect(address).unwrap()).collect();
    clients.iter_mut().for_each(|client| assert_eq!(ask(client, "echo a"), "a"));
    for client in clients.iter().chain([&early]) {
        let socket = other_end(client);
        assert_eq!(option(socket, libc::IPPROTO_TCP, libc::TCP_NODELAY).0, 1);
        assert_eq!(option(socket, libc::SOL_SOCKET, libc::SO_KEEPALIVE).0, 1);
        assert_eq!(option(socket, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT).0, 60_000);
    }
    let handle = engine.handle();
    // Nothing hands clients out evenly: a shard that is awake takes whoever has come.
    wait_until("both shards have had 8 clients", || {
        clients.push(TcpStream::connect(address).unwrap());
        assert_eq!(ask(clients.last_mut().unwrap(), "echo c"), "c");
        let open = handle.list(None, 5_000).unwrap();
        let second = open.iter().filter(|connection| connection.id.shard() == 1).count();
        second >= 8 && open.len() - second >= 8
    });
    let error = handle.add_listener(&listener).unwrap_err().to_string();
    assert!(error.contains("already"), "{error}");
    drop((clients, early));
    end(engine);
    // No filter refuses clients, and the parent, or the next program, serves them.
    let mut next = TcpStream::connect(address).unwrap();
    let again = Listener::inherited(parents.into()).unwrap();
    let config = Config { listeners: vec![again], shards: Some(1), ..Config::default() };
    let engine = start(config, |_| Scripted::unobserved());
    assert_eq!(ask(&mut next, "echo b"), "b");
    // Removed, it is closed, and nobody else has it.
    engine.handle().remove_listener(0, Duration::ZERO).unwrap();
    wait_until("it is closed", || TcpStream::connect(address).is_err());
    end(engine);
}
