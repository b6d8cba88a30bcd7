//! Addresses to listen on: in use and becoming free.

use crate::common::{Scripted, address_of_its_own, ask, start};
use ringwright::{Config, Engine, Error};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

fn config(listeners: Vec<SocketAddr>) -> Config {
    Config { listeners, shards: Some(2), pin: false, ..Config::default() }
}

fn end(engine: Engine) {
    engine.remote().drain(Duration::ZERO).unwrap();
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
    match Engine::start(config(vec![free, taken]), |_| Scripted::unobserved()).map(drop) {
        Err(error @ Error::Listen { .. }) => {
            let text = error.to_string();
            assert!(text.contains(&taken.to_string()) && text.contains("for 1 second"), "{text}");
        }
        other => panic!("{other:?}"),
    }
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
}
