//! Addresses to listen on: in use, becoming free, and of both families.

use crate::common::{Scripted, address_of_its_own, ask, start, try_start};
use ringwright::{Config, Engine, Error, Listener};
use std::net::{SocketAddr, TcpListener, TcpStream};
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
