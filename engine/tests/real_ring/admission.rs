//! Who is let in: limits per address, bans, and the filter that enforces them.

use crate::common::{
    PATIENCE, Scripted, Server, address_of_its_own, ask, serve, start, try_start, wait_until,
};
use crate::sockets::{option, other_end};
use ringwright::{
    Config, Connection, Handler, Listener, ListenerSettings, ListenerState, Origin, Prefix,
    SendStatus,
};
use ringwright_test_support::can_filter;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

/// A client at an address of its own.
fn connect_from(source: impl Into<IpAddr>, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    late_port(&socket);
    socket.bind(&SockAddr::from(SocketAddr::new(source.into(), 0)))?;
    socket.connect_timeout(&to.into(), Duration::from_millis(400))?;
    let client = TcpStream::from(socket);
    client.set_read_timeout(Some(PATIENCE))?;
    Ok(client)
}

/// Leaves the choice of the port to connect(2), which knows both ends: one that waits in TIME_WAIT
/// for another server is free (ip(7)).
fn late_port(socket: &Socket) {
    let (yes, name): (libc::c_int, _) = (1, libc::IP_BIND_ADDRESS_NO_PORT);
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    let value = (&raw const yes).cast();
    // SAFETY: the value is one int.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_IP, name, value, length) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
}

fn address(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, last)
}

fn ban(server: &Server, prefix: &str) -> bool {
    server.engine.handle().ban(prefix.parse::<Prefix>().unwrap()).unwrap()
}

#[test]
fn an_address_has_no_more_connections_than_it_may() {
    let server = serve(|config| {
        config.max_per_address = Some(2);
        config.shards = Some(2);
    });
    let handle = server.engine.handle();
    let mut first = connect_from(address(1), server.address).unwrap();
    let mut second = connect_from(address(1), server.address).unwrap();
    assert_eq!(ask(&mut first, "echo one"), "one");
    assert_eq!(ask(&mut second, "echo two"), "two");
    assert_eq!(handle.connections_of(address(1).into()), 2);
    let mut third = connect_from(address(1), server.address).unwrap();
    assert_eq!(third.read(&mut [0; 1]).unwrap_or(0), 0, "closed at once");
    let mut other = connect_from(address(2), server.address).unwrap();
    assert_eq!(ask(&mut other, "echo other"), "other");
    drop(first);
    wait_until("its place is free", || handle.connections_of(address(1).into()) == 1);
    let mut fourth = connect_from(address(1), server.address).unwrap();
    assert_eq!(ask(&mut fourth, "echo four"), "four");
    drop((second, third, other, fourth));
    wait_until("all places are free", || {
        [1, 2].into_iter().all(|last| handle.connections_of(address(last).into()) == 0)
    });
    assert_eq!(server.finish().sum.over_address_limit, 1);
}

#[test]
fn places_of_an_address_never_go_stale() {
    let server = serve(|config| {
        config.max_per_address = Some(3);
        config.max_connections = 2;
        config.shards = Some(2);
    });
    let at = server.address;
    let clients: Vec<_> = (0..4)
        .map(|number| {
            std::thread::spawn(move || {
                for round in 0..300 {
                    let Ok(client) = connect_from(address(1 + number % 2), at) else { continue };
                    if round % 3 == 0 { crate::common::reset(client) } else { drop(client) }
                }
            })
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
    let handle = server.engine.handle();
    let nobody = || [1, 2].into_iter().all(|last| handle.connections_of(address(last).into()) == 0);
    // Clients that have left may still be in the queues: they are counted when they are accepted.
    let seen = || {
        let sum = handle.ledger().sum;
        let away = sum.over_address_limit + sum.gone_while_waiting + sum.reset_before_accept;
        (sum.closed, sum.accepted + away)
    };
    wait_until("the queues are empty", || {
        let before = seen();
        std::thread::sleep(Duration::from_millis(200));
        nobody() && before == seen()
    });
    for _ in 0..20 {
        // A place is given back when the connection is gone, not when its client has left.
        wait_until("nobody is counted", nobody);
        assert_eq!(ask(&mut connect_from(address(1), at).unwrap(), "echo in"), "in");
    }
    server.finish();
}

#[test]
fn a_banned_client_gets_no_answer_to_its_syn() {
    if !can_filter() {
        return;
    }
    let server = serve(|config| config.shards = Some(2));
    let handle = server.engine.handle();
    let mut before = connect_from(address(3), server.address).unwrap();
    assert_eq!(ask(&mut before, "echo early"), "early");
    assert!(ban(&server, "127.0.0.3"));
    assert!(!ban(&server, "127.0.0.3"), "it is banned already");
    assert!(ban(&server, "127.9.0.0/16"));
    wait_until("the filters are attached", || handle.ledger().sum.filters_attached == 2);
    for banned in [address(3), Ipv4Addr::new(127, 9, 1, 1), Ipv4Addr::new(127, 9, 255, 255)] {
        let refused = connect_from(banned, server.address).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::TimedOut, "{refused}");
    }
    let mut beside = connect_from(address(4), server.address).unwrap();
    assert_eq!(ask(&mut beside, "echo beside"), "beside");
    // Accepted while a filter was attached: it was taken off again.
    assert_eq!(option(other_end(&beside), libc::SOL_SOCKET, libc::SO_GET_FILTER).1, 0);
    assert_eq!(ask(&mut before, "echo still here"), "still here");
    wait_until("drops are counted", || handle.ledger().sum.listener_drops >= 3);
    assert_eq!(handle.ledger().sum.banned, 0, "the filter did all of it");
    assert_eq!(handle.bans().len(), 2);
    for prefix in handle.bans().iter().copied() {
        assert!(handle.unban(prefix).unwrap());
        assert!(!handle.unban(prefix).unwrap());
    }
    wait_until("the filters are gone", || handle.ledger().sum.filters_attached == 0);
    let mut again = connect_from(address(3), server.address).unwrap();
    assert_eq!(ask(&mut again, "echo again"), "again");
    server.finish();
}

/// A filter would drop the SYN of an exempt client. Other banned clients are closed after accept.
#[test]
fn exempt_clients_get_in_though_they_are_banned_and_are_not_counted() {
    let exempt = |prefix: &str| {
        let settings = ListenerSettings::of(&Config::default());
        Some(ListenerSettings { exempt: vec![prefix.parse().unwrap()], ..settings })
    };
    let server = serve(|config| {
        config.max_per_address = Some(1);
        config.bans = vec!["127.0.0.0/29".parse().unwrap()];
        config.listeners[0].settings = exempt("127.0.0.3");
    });
    let handle = server.engine.handle();
    let mut proxies: Vec<_> =
        (0..3).map(|_| connect_from(address(3), server.address).unwrap()).collect();
    for proxy in &mut proxies {
        assert_eq!(ask(proxy, "echo in"), "in");
    }
    let mut banned = connect_from(address(4), server.address).unwrap();
    assert_eq!(banned.read(&mut [0; 1]).unwrap_or(0), 0, "closed at once");
    // Another prefix is exempt: no filter is in the way of a client that is not banned, either.
    handle.set_listener(0, exempt("127.9.0.0/16")).unwrap();
    if can_filter() {
        wait_until("the filter is attached", || handle.ledger().sum.filters_attached > 0);
        let refused = connect_from(address(3), server.address).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::TimedOut, "{refused}");
    }
    handle.set_listener(0, exempt("127.0.0.0/30")).unwrap();
    wait_until("the filter is gone", || handle.ledger().sum.filters_attached == 0);
    proxies.push(connect_from(address(3), server.address).unwrap());
    assert_eq!(ask(&mut proxies[3], "echo in"), "in");
    drop(proxies);
    assert_eq!(server.finish().sum.over_address_limit, 0);
}

#[test]
fn a_list_too_long_for_a_filter_is_held_against_who_was_accepted() {
    let scattered = (0..3000u32).map(|at| Prefix::from(IpAddr::from(Ipv4Addr::from(at << 12))));
    let bans: Vec<Prefix> = scattered.chain(["127.0.0.3".parse().unwrap()]).collect();
    let server = serve(|config| config.bans = bans);
    let notices = server.engine.notices().join("\n");
    assert!(notices.contains("too long"), "{notices}");
    let mut banned = connect_from(address(3), server.address).unwrap();
    assert_eq!(banned.read(&mut [0; 1]).unwrap_or(0), 0, "closed at once");
    server.still_serves();
    let ledger = server.finish();
    assert_eq!((ledger.sum.banned, ledger.sum.filters_attached), (1, 0));
}

#[test]
fn bans_hold_for_both_families_on_one_listener() {
    if !can_filter() {
        return;
    }
    let server = serve(|config| {
        config.listeners = vec![SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)).into()];
        config.bans = vec!["::1".parse().unwrap(), "127.0.0.0/29".parse().unwrap()];
    });
    let port = server.address.port();
    let (v6, v4) =
        (SocketAddr::from((Ipv6Addr::LOCALHOST, port)), SocketAddr::from(([127, 0, 0, 1], port)));
    let refused = connect_from(Ipv6Addr::LOCALHOST, v6).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::TimedOut, "{refused}");
    let refused = connect_from(address(7), v4).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::TimedOut, "{refused}");
    let mut beside = connect_from(address(8), v4).unwrap();
    assert_eq!(ask(&mut beside, "echo beside"), "beside");
    server.finish();
}

#[test]
fn keepalive_and_user_timeout_are_set_on_what_is_accepted() {
    let server = serve(|config| {
        config.tcp_keepalive = Some(Duration::from_secs(77));
        config.tcp_user_timeout = Some(Duration::from_millis(12_345));
    });
    let mut client = server.connect();
    assert_eq!(ask(&mut client, "echo here"), "here");
    let socket = other_end(&client);
    assert_eq!(option(socket, libc::SOL_SOCKET, libc::SO_KEEPALIVE).0, 1);
    assert_eq!(option(socket, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE).0, 77);
    assert_eq!(option(socket, libc::IPPROTO_TCP, libc::TCP_KEEPINTVL).0, 19);
    assert_eq!(option(socket, libc::IPPROTO_TCP, libc::TCP_KEEPCNT).0, 4);
    assert_eq!(option(socket, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT).0, 12_345);
    drop(client);
    server.finish();
    let defaults = Config::default();
    assert!(defaults.tcp_keepalive.is_some() && defaults.tcp_user_timeout.is_some());
}

/// The line "own" gives the connection settings of its own.
struct Choosing;

impl Handler for Choosing {
    type State = ();

    fn opened(&mut self, _: &mut Connection<'_>, _: Origin) {}

    fn received(&mut self, _: &mut (), connection: &mut Connection<'_>, bytes: &[u8]) -> usize {
        if bytes == b"own\n" {
            let settings = ListenerSettings {
                tcp_keepalive: None,
                tcp_user_timeout: Some(Duration::from_millis(77)),
                output_high_bytes: 3,
                output_low_bytes: 2,
                output_bytes_max: 4,
                ..ListenerSettings::of(&Config::default())
            };
            connection.set_settings(&settings).unwrap();
            assert_eq!(connection.send(b"much more"), SendStatus::Refused);
            assert_eq!(connection.send(b"own\n"), SendStatus::Full);
        } else {
            let _ = connection.send(bytes);
        }
        bytes.len()
    }
}

/// Settings of a listener, of one that has others by now, and of one connection.
#[test]
fn listeners_and_connections_have_options_of_tcp_of_their_own() {
    let settings = |seconds, ms| ListenerSettings {
        tcp_keepalive: Some(Duration::from_secs(seconds)),
        tcp_user_timeout: Some(Duration::from_millis(ms)),
        ..ListenerSettings::of(&Config::default())
    };
    let listener = |settings| Listener {
        settings: Some(settings),
        ..Listener::from(SocketAddr::from((address(1), 0)))
    };
    let listeners = vec![listener(settings(11, 1_100)), listener(settings(22, 2_200))];
    let config = Config { listeners, shards: Some(1), pin: false, ..Config::default() };
    let engine = start(config, |_| Choosing);
    let of = |client: &TcpStream| {
        let socket = other_end(client);
        let keeps = option(socket, libc::SOL_SOCKET, libc::SO_KEEPALIVE).0;
        let idle = option(socket, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE).0;
        (keeps, idle, option(socket, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT).0)
    };
    let connect = |at: usize| {
        let mut client = connect_from(address(1), engine.addresses()[at]).unwrap();
        assert_eq!(ask(&mut client, "a"), "a");
        client
    };
    let (mut first, second) = (connect(0), connect(1));
    assert_eq!((of(&first), of(&second)), ((1, 11, 1_100), (1, 22, 2_200)));
    // A client in the backlog, whose socket has the options of before.
    let handle = engine.handle();
    handle.pause_listener(1).unwrap();
    let paused = || handle.listeners()[1].state == ListenerState::Paused;
    wait_until("the listener pauses", paused);
    connect(0);
    let mut queued = connect_from(address(1), engine.addresses()[1]).unwrap();
    handle.set_listener(1, Some(settings(33, 3_300))).unwrap();
    handle.resume_listener(1).unwrap();
    assert_eq!(ask(&mut queued, "a"), "a");
    assert_eq!((of(&second), of(&queued)), ((1, 22, 2_200), (1, 33, 3_300)));
    assert_eq!(of(&connect(1)), (1, 33, 3_300));
    assert_eq!(ask(&mut first, "own"), "own");
    assert_eq!(of(&first).0, 0);
    assert_eq!(of(&first).2, 77);
    drop((first, second, queued));
    handle.drain(PATIENCE);
    assert!(engine.join().unwrap().balanced());
}

#[test]
fn who_waits_and_is_banned_is_not_let_in() {
    let server = serve(|config| config.max_connections = 1);
    let handle = server.engine.handle();
    let mut inside = connect_from(address(1), server.address).unwrap();
    assert_eq!(ask(&mut inside, "echo in"), "in");
    let mut waiting = connect_from(address(3), server.address).unwrap();
    wait_until("it waits", || handle.ledger().sum.waiting == 1);
    assert!(ban(&server, "127.0.0.3"));
    assert_eq!(waiting.read(&mut [0; 1]).unwrap_or(0), 0, "closed at once");
    drop(inside);
    server.still_serves();
    assert_eq!(server.finish().sum.banned, 1);
}

/// The kernel has memory for one long filter, not for two: it is taken off to make room.
#[test]
fn a_long_list_of_ipv6_addresses_can_be_changed() {
    if !can_filter() {
        return;
    }
    let scattered = |at: u128| IpAddr::from(Ipv6Addr::from((0x2001_0db8 << 96) | at << 17));
    // 20 KiB on older kernels, and 128 KiB on newer ones.
    let allowed = std::fs::read_to_string("/proc/sys/net/core/optmem_max").expect("/proc is there");
    let count = (allowed.trim().parse::<u128>().expect("a number") / 320).min(400);
    let server = serve(|config| {
        config.listeners = vec![SocketAddr::from((Ipv6Addr::LOCALHOST, 0)).into()];
        config.bans = (0..count).map(|at| scattered(at).into()).collect();
    });
    let handle = server.engine.handle();
    for at in count..count + 5 {
        assert!(handle.ban(scattered(at).into()).unwrap());
        wait_until("it is attached", || handle.ledger().sum.filters_attached == 1);
    }
    assert!(ban(&server, "::1"));
    wait_until("it is attached", || {
        let refused = connect_from(Ipv6Addr::LOCALHOST, server.address);
        refused.is_err_and(|error| error.kind() == io::ErrorKind::TimedOut)
    });
    handle.set_bans(&[]).unwrap();
    wait_until("it is gone", || handle.ledger().sum.filters_attached == 0);
    server.still_serves();
    server.finish();
}

#[test]
fn drops_from_before_a_filter_are_not_counted() {
    if !can_filter() {
        return;
    }
    let server = serve(|config| {
        config.backlog = 1;
        config.max_connections = 1;
    });
    let handle = server.engine.handle();
    // One inside, some in the waiting room, and a full queue behind them.
    let mut inside = server.connect();
    assert_eq!(ask(&mut inside, "echo in"), "in");
    let crowd: Vec<_> = (0..12).map(|_| connect_from(address(1), server.address)).collect();
    assert!(crowd.iter().any(Result::is_err), "the queue is full");
    assert!(ban(&server, "127.0.0.99"));
    wait_until("the filter is attached", || handle.ledger().sum.filters_attached == 1);
    assert_eq!(handle.ledger().sum.listener_drops, 0);
    drop((inside, crowd));
    server.finish();
}

#[test]
fn a_start_that_fails_leaves_nobody_listening() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let free = std::net::TcpListener::bind(address_of_its_own()).unwrap().local_addr().unwrap();
    let config = |bans: usize| Config {
        listeners: vec![free.into(), taken.local_addr().unwrap().into()],
        shards: Some(2),
        bans: (0..bans as u32).map(|at| IpAddr::from(Ipv4Addr::from(at << 2)).into()).collect(),
        ..Config::default()
    };
    for bans in [0, 70_000] {
        let error = try_start(config(bans), |_| Scripted::unobserved()).err();
        let error = error.expect("no engine");
        let named = if bans == 0 { "another process" } else { "bans = 70000" };
        assert!(error.to_string().contains(named), "{error}");
        assert!(TcpStream::connect(free).is_err(), "nobody listens");
    }
}
