//! Listeners that come and go while the engine runs.

use crate::common::{
    Scripted, address_of_its_own, ask, read_line, serve, start, try_start, wait_until,
};
use ringwright::{
    Address, Config, Engine, EngineHandle, Error, Ledger, Listener, ListenerInfo, ListenerSettings,
    ListenerState, Reason,
};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

fn two_shards(listeners: &[&str]) -> Engine {
    let listeners = listeners.iter().map(|it| it.parse().unwrap()).collect();
    let config = Config { listeners, shards: Some(2), pin: false, ..Config::default() };
    start(config, |_| Scripted::unobserved())
}

fn connect(address: SocketAddr) -> TcpStream {
    let client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client
}

fn ip(info: &ListenerInfo) -> SocketAddr {
    info.address.ip().expect("a TCP listener")
}

fn finish(engine: Engine) -> Ledger {
    engine.handle().drain(PATIENCE);
    let ledger = engine.join().unwrap();
    assert!(ledger.balanced(), "{}", ledger.to_json());
    assert_eq!((ledger.sum.listeners, ledger.sum.descriptors), (0, 0));
    ledger
}

fn is_gone(handle: &EngineHandle, number: u16) -> bool {
    handle.listeners().iter().all(|info| info.number != number)
}

/// Asks again and again on new connections, until nobody listens there any more.
fn ask_until_refused(address: SocketAddr, served: &AtomicU64) {
    loop {
        let mut client = match TcpStream::connect(address) {
            Ok(client) => client,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
                return;
            }
        };
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        // An end before the first byte left is no answer, but no reset either.
        let Ok(()) = client.write_all(b"echo in\n") else { continue };
        let mut line = [0; 3];
        match client.read_exact(&mut line) {
            Ok(()) => {
                assert_eq!(&line, b"in\n");
                served.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::UnexpectedEof),
        }
    }
}

#[test]
fn a_listener_that_is_removed_under_load_resets_nobody() {
    for round in 0..4 {
        let engine = two_shards(&["127.0.0.1:0"]);
        let handle = engine.handle();
        let mut other = connect(engine.addresses()[0]);
        assert_eq!(ask(&mut other, "echo a"), "a");
        let added = handle.add_listener(&address_of_its_own().into()).unwrap();
        assert_eq!((added.number, added.state), (1, ListenerState::Open));
        let address = ip(&added);
        assert_eq!(engine.addresses()[1], address);
        let served = Arc::new(AtomicU64::new(0));
        let clients: Vec<_> = (0..8)
            .map(|_| {
                let served = served.clone();
                thread::spawn(move || ask_until_refused(address, &served))
            })
            .collect();
        wait_until("somebody is served", || served.load(Ordering::Relaxed) > 0);
        thread::sleep(Duration::from_millis(3 * round));
        handle.remove_listener(added.number, PATIENCE).unwrap();
        clients.into_iter().for_each(|client| client.join().unwrap());
        wait_until("the last connection has ended", || is_gone(&handle, added.number));
        assert_eq!(engine.addresses().len(), 1);
        assert_eq!(ask(&mut other, "echo b"), "b");
        assert_eq!(finish(engine).sum.handshakes_lost, 0);
    }
}

#[test]
fn connections_of_a_removed_listener_have_until_its_deadline() {
    let engine = two_shards(&[]);
    let handle = engine.handle();
    assert!(engine.addresses().is_empty() && handle.listeners().is_empty());
    let first = handle.add_listener(&"127.0.0.1:0".parse().unwrap()).unwrap();
    let second = handle.add_listener(&"127.0.0.1:0".parse().unwrap()).unwrap();
    assert_eq!((first.number, second.number), (0, 1));
    let mut held = connect(ip(&first));
    // Half a message is waited for only for as long as the peer is not silent.
    assert_eq!(ask(&mut held, "shutdown"), "bye");
    let mut other = connect(ip(&second));
    assert_eq!(ask(&mut other, "echo a"), "a");
    assert_eq!(handle.listeners()[0].connections, 1);
    handle.remove_listener(first.number, Duration::from_millis(200)).unwrap();
    wait_until("it has ended", || is_gone(&handle, first.number));
    assert!(matches!(
        handle.remove_listener(first.number, PATIENCE),
        Err(Error::NoSuchListener { number: 0 })
    ));
    assert_eq!(ask(&mut other, "echo b"), "b");
    // The address and the number are free again, the first after 100 ms at most.
    handle.remove_listener(second.number, PATIENCE).unwrap();
    let again = handle.add_listener(&second.address.clone().into()).unwrap();
    assert_eq!((again.number, ip(&again)), (0, ip(&second)));
    let mut client = connect(ip(&again));
    assert_eq!(ask(&mut client, "echo c"), "c");
    drop((client, other, held));
    finish(engine);
}

#[test]
fn a_paused_listener_leaves_its_clients_in_the_backlog() {
    let server = serve(|_| {});
    let handle = server.engine.handle();
    handle.pause_listener(0).unwrap();
    assert_eq!(handle.listeners()[0].state, ListenerState::Paused);
    wait_until("its accept has ended", || handle.ledger().sum.operations_in_flight == 0);
    let mut client = server.connect();
    client.write_all(b"echo late\n").unwrap();
    // Its shard has had several turns since then.
    for _ in 0..10 {
        assert!(handle.list(None, 10).unwrap().is_empty());
    }
    handle.resume_listener(0).unwrap();
    assert_eq!(read_line(&mut client).unwrap(), "late");
    assert_eq!(handle.listeners()[0].connections, 1);
    assert!(matches!(handle.pause_listener(7), Err(Error::NoSuchListener { number: 7 })));
    drop(client);
    server.finish();
}

#[test]
fn connections_have_the_settings_of_their_listener() {
    let server = serve(|_| {});
    let handle = server.engine.handle();
    let of_engine = &handle.listeners()[0].settings;
    let settings = ListenerSettings {
        idle_timeout: Some(Duration::from_millis(100)),
        connections_max: Some(2),
        ..of_engine.clone()
    };
    let address: Address = "127.0.0.1:0".parse().unwrap();
    let short = Listener { settings: Some(settings.clone()), ..address.into() };
    let short = handle.add_listener(&short).unwrap();
    let mut other = server.connect();
    let mut first = connect(ip(&short));
    // Idle for long enough: the engine ends the connection.
    assert_eq!(first.read(&mut [0]).unwrap(), 0);
    assert_eq!(server.next_end(), Reason::IdleTimeout);
    handle
        .set_listener(short.number, Some(ListenerSettings { idle_timeout: None, ..settings }))
        .unwrap();
    let mut both = [connect(ip(&short)), connect(ip(&short))];
    both.iter_mut().for_each(|client| assert_eq!(ask(client, "echo a"), "a"));
    let mut third = connect(ip(&short));
    assert_eq!(third.read(&mut [0]).unwrap(), 0);
    assert_eq!(handle.listeners()[1].connections, 2);
    assert_eq!(ask(&mut other, "echo b"), "b");
    let wrong =
        ListenerSettings { message_bytes_max: 0, ..ListenerSettings::of(&Config::default()) };
    let refused = handle.set_listener(short.number, Some(wrong)).unwrap_err().to_string();
    assert!(refused.starts_with("message_bytes_max = 0 is not allowed"), "{refused}");
    drop((both, other));
    let ledger = server.finish();
    assert_eq!(ledger.sum.over_listener_limit, 1);
}

#[test]
fn an_add_that_fails_leaves_nothing_behind() {
    let taken = TcpListener::bind(address_of_its_own()).unwrap();
    let address = taken.local_addr().unwrap();
    let engine = two_shards(&["127.0.0.1:0"]);
    let handle = engine.handle();
    wait_until("it listens", || handle.ledger().sum.listeners == 2);
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let _ = descriptors();
    match handle.add_listener(&address.into()) {
        Err(error @ Error::Listen { .. }) => {
            let text = error.to_string();
            assert!(text.contains(&address.to_string()) && text.contains("os error 98"), "{text}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!((handle.listeners().len(), engine.addresses().len()), (1, 1));
    drop(taken);
    let added = handle.add_listener(&address.into()).unwrap();
    assert_eq!((added.number, ip(&added)), (1, address));
    assert_eq!(ask(&mut connect(address), "echo a"), "a");
    wait_until("it is counted", || handle.ledger().sum.listeners == 4);
    handle.drain(PATIENCE);
    match handle.add_listener(&address.into()) {
        Err(error @ Error::Listen { .. }) => assert!(error.to_string().contains("drains")),
        other => panic!("{other:?}"),
    }
    finish(engine);
}

#[test]
fn prepared_listeners_answer_nobody_before_they_accept() {
    let engine = two_shards(&["127.0.0.1:0"]);
    let handle = engine.handle();
    let any = || -> Listener { "127.0.0.1:0".parse().unwrap() };
    let dropped = handle.prepare_listeners(&[any(), any()]).unwrap();
    assert_eq!(dropped.list().iter().map(|it| it.0).collect::<Vec<_>>(), [1, 2]);
    assert!(matches!(handle.remove_listener(1, PATIENCE), Err(Error::NoSuchListener { .. })));
    let left = dropped.list()[0].1.ip().unwrap();
    drop(dropped);
    assert_eq!(TcpStream::connect(left).unwrap_err().kind(), ErrorKind::ConnectionRefused);

    let prepared = handle.prepare_listeners(&[any(), any()]).unwrap();
    let addresses: Vec<_> = prepared.list().iter().map(|it| it.1.ip().unwrap()).collect();
    let mut clients: Vec<_> = addresses.iter().map(|address| connect(*address)).collect();
    for client in &mut clients {
        client.write_all(b"echo a\n").unwrap();
        client.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        client.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    assert_eq!((handle.listeners().len(), handle.ledger().sum.opened), (1, 0));
    let infos = prepared.accept();
    assert_eq!(infos.iter().map(ip).collect::<Vec<_>>(), addresses);
    assert!(infos.iter().all(|info| info.state == ListenerState::Open));
    clients.iter_mut().for_each(|client| assert_eq!(read_line(client).unwrap(), "a"));
    assert_eq!(handle.listeners().len(), 3);
    finish(engine);
}

#[test]
fn an_added_wildcard_takes_ipv6_only_beside_ipv4() {
    // Another test may take the port in between.
    for _ in 0..20 {
        let port = TcpListener::bind("[::]:0").unwrap().local_addr().unwrap().port();
        let wildcard = |ip: &str| format!("{ip}:{port}").parse::<SocketAddr>().unwrap();
        let (v4, v6) = (wildcard("0.0.0.0"), wildcard("[::]"));
        let listeners = vec![v4.into()];
        let config = Config { listeners, shards: Some(2), pin: false, ..Config::default() };
        let Ok(engine) = try_start(config, |_| Scripted::unobserved()) else { continue };
        let handle = engine.handle();
        handle.add_listener(&v6.into()).unwrap();
        for client in ["127.0.0.1", "[::1]"] {
            let mut client = connect(wildcard(client));
            assert_eq!(ask(&mut client, "echo a"), "a");
        }
        // Alone, it takes both, and then IPv4 finds the port in use.
        for info in handle.listeners() {
            handle.remove_listener(info.number, PATIENCE).unwrap();
        }
        let both = handle.add_listener(&v6.into()).unwrap();
        assert_eq!(ask(&mut connect(wildcard("127.0.0.1")), "echo b"), "b");
        match handle.add_listener(&v4.into()) {
            Err(Error::Listen { address, source }) => {
                assert_eq!((address, source.raw_os_error()), (v4.into(), Some(libc::EADDRINUSE)));
            }
            other => panic!("{other:?}"),
        }
        wait_until("the first have ended", || {
            handle.listeners() == [info_of(&handle, both.number)]
        });
        finish(engine);
        return;
    }
    panic!("no start succeeded");
}

fn info_of(handle: &EngineHandle, number: u16) -> ListenerInfo {
    let listeners = handle.listeners();
    listeners.into_iter().find(|info| info.number == number).expect("it is there")
}

/// A shard that failed is not in the way of a removal.
#[test]
fn a_stop_ends_listeners_in_every_stage() {
    for stage in 0..3 {
        let engine = two_shards(&["127.0.0.1:0", "127.0.0.1:0"]);
        let handle = engine.handle();
        let mut client = connect(engine.addresses()[1]);
        assert_eq!(ask(&mut client, "echo a"), "a");
        match stage {
            0 => handle.pause_listener(1).unwrap(),
            1 => handle.remove_listener(1, PATIENCE).unwrap(),
            _ => drop(handle.add_listener(&"127.0.0.1:0".parse().unwrap()).unwrap()),
        }
        handle.stop();
        let ledger = finish(engine);
        let ended = [Reason::Stopped, Reason::Drained].map(|it| ledger.sum.closed_by[it as usize]);
        assert_eq!(ended.iter().sum::<u64>(), 1);
        assert!(handle.listeners().iter().all(|info| info.connections == 0));
    }
}
