//! Listeners that come and go under load.

use super::load::{Load, THINK, ask, connect};
use super::{ADMIN, reload};
use crate::common::{Client, PATIENCE, Reply};
use crate::configured::{Configured, Port, folder, request, text, wait_until};
use std::fs;
use std::io::{BufReader, ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

const FILES: [(&str, &str); 2] = [("one/a.txt", "one"), ("two/a.txt", "two")];

fn site(port: &Port, root: &str) -> String {
    format!("[[site]]\nlisten = [\"{}\"]\nroot = \"{root}\"\n", port.address())
}

/// Nobody listens there any more.
#[track_caller]
fn is_gone(address: SocketAddr) {
    wait_until("the listener is gone", || TcpStream::connect(address).is_err());
}

/// A client of a listener that is being removed. It asks until a reply says that it is the last
/// one; the connection then ends with a FIN.
fn ask_to_the_end(address: SocketAddr, is_ready: impl FnOnce()) {
    let mut stream = connect(address);
    let request = request("GET", "/a.txt", "");
    let mut is_ready = Some(is_ready);
    loop {
        let reply = match ask(&mut stream, &request) {
            Ok(reply) => reply,
            // The client was slower than the drain.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return,
            Err(error) => panic!("{error}"),
        };
        assert_eq!(text(&reply), (200, "two"));
        if let Some(is_ready) = is_ready.take() {
            is_ready();
        }
        if reply.fields.get("connection").is_some_and(|value| value == "close") {
            break;
        }
        thread::sleep(THINK);
    }
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
}

#[test]
fn no_request_fails_while_listeners_come_and_go() {
    let (stays, comes) = (Port::reserve(), Port::reserve());
    let one = format!("{ADMIN}{}", site(&stays, "one"));
    let both = format!("{one}{}", site(&comes, "two"));
    let running = Configured::start(folder(&FILES), &one, &["http", "admin http"]);
    let load = Load::default();
    thread::scope(|scope| {
        for _ in 0..2 {
            load.client(scope, stays.address(), "x".into(), |reply| {
                assert_eq!(text(reply), (200, "one"));
                assert!(!reply.fields.contains_key("connection"), "this listener stays");
            });
        }
        for _ in 0..4 {
            reload(&running, &both);
            let (ready, all_ready) = std::sync::mpsc::channel();
            let clients: Vec<_> = (0..4)
                .map(|_| {
                    let (ready, address) = (ready.clone(), comes.address());
                    scope.spawn(move || ask_to_the_end(address, move || ready.send(()).unwrap()))
                })
                .collect();
            for _ in 0..4 {
                all_ready.recv().unwrap();
            }
            let replies = load.replies();
            reload(&running, &one);
            is_gone(comes.address());
            clients.into_iter().for_each(|client| client.join().unwrap());
            wait_until("the others go on", || load.replies() > replies + 4);
        }
        load.end();
    });
    running.server.ledger_once(|ledger| ledger["connections"]["open"] == 0);
    running.stop();
}

/// A client that connects as soon as there is a listener, and asks.
fn ask_at_once(address: SocketAddr) -> Reply {
    let stream = loop {
        match TcpStream::connect(address) {
            Ok(stream) => break stream,
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionRefused),
        }
        thread::sleep(Duration::from_micros(200));
    };
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    ask(&mut BufReader::new(stream), &request("GET", "/a.txt", "")).unwrap()
}

#[test]
fn the_first_clients_of_a_new_listener_have_its_own_site() {
    let (stays, ports) = (Port::reserve(), [Port::reserve(), Port::reserve()]);
    let roots = ["one", "two", "three"];
    let files = folder(&[("one/a.txt", "one"), ("two/a.txt", "two"), ("three/a.txt", "three")]);
    // The listener gets the number of one with another root. Adding the bans takes a while, in
    // which the new listener must not answer.
    let text_of = |round: usize| {
        let bans: Vec<String> = (0..200).map(|ban| format!("\"10.{round}.{ban}.0/24\"")).collect();
        let bans = format!("[engine]\nbans = [{}]\n", bans.join(", "));
        let comes = site(&ports[round % 2], roots[round % 3]);
        format!("{ADMIN}{bans}{}{comes}", site(&stays, "one"))
    };
    let running = Configured::start(files, &text_of(0), &["http", "http", "admin http"]);
    let load = Load::default();
    thread::scope(|scope| {
        let _over = load.guard();
        load.client(scope, stays.address(), "x".into(), |reply| {
            assert_eq!(text(reply), (200, "one"));
        });
        for round in 1..=12 {
            let address = ports[round % 2].address();
            is_gone(address);
            let clients: Vec<_> =
                (0..4).map(|_| scope.spawn(move || ask_at_once(address))).collect();
            reload(&running, &text_of(round));
            for client in clients {
                let reply = client.join().unwrap();
                assert_eq!(text(&reply), (200, roots[round % 3]), "round {round}");
            }
        }
    });
    running.stop();
}

#[test]
fn a_wildcard_of_both_families_comes_beside_one_of_ipv4() {
    let port = Port::reserve().address().port();
    let one = format!("{ADMIN}{}", site(&Port::reserve(), "one"));
    let both =
        format!("{one}[[site]]\nlisten = [\"[::]:{port}\", \"0.0.0.0:{port}\"]\nroot = \"two\"\n");
    let running = Configured::start(folder(&FILES), &one, &["http", "admin http"]);
    reload(&running, &both);
    for address in [format!("127.0.0.1:{port}"), format!("[::1]:{port}")] {
        assert_eq!(text(&ask_at_once(address.parse().unwrap())), (200, "two"));
    }
    running.stop();
}

#[test]
fn a_download_from_a_removed_listener_completes() {
    let (stays, goes) = (Port::reserve(), Port::reserve());
    let files = folder(&FILES);
    let content = crate::common::pattern(16 << 20);
    fs::write(files.path().join("two/big.bin"), &content).unwrap();
    let one = format!("{ADMIN}{}", site(&stays, "one"));
    let both = format!("{one}{}", site(&goes, "two"));
    let running = Configured::start(files, &both, &["http", "http", "admin http"]);
    let mut client = Client::new(goes.address());
    client.send(request("GET", "/big.bin", ""));
    let head = client.head();
    assert_eq!((head.status, head.field("content-length")), (200, "16777216"));
    // An idle connection ends in peace meanwhile.
    let mut idle = Client::new(goes.address());
    assert_eq!(idle.ask(&request("GET", "/a.txt", "")).status, 200);
    reload(&running, &one);
    is_gone(goes.address());
    idle.is_at_its_end();
    let mut body = vec![0; content.len()];
    client.stream.read_exact(&mut body).unwrap();
    assert!(body == content);
    client.is_at_its_end();
    running.stop();
}

#[test]
fn connections_of_a_listener_that_stays_stay() {
    let port = Port::reserve();
    let text_of = |root: &str, more: &str| format!("{ADMIN}{}{more}", site(&port, root));
    let running = Configured::start(folder(&FILES), &text_of("one", ""), &["http", "admin http"]);
    let mut clients: Vec<_> = (0..4).map(|_| running.server.client()).collect();
    let more = format!("{}names = [\"b.example\"]\n", site(&port, "two"));
    // A second site on the same address, the first one with another root, and both as before.
    for (config, root) in [
        (text_of("one", ""), "one"),
        (text_of("one", &more), "one"),
        (text_of("two", &more), "two"),
        (text_of("one", ""), "one"),
    ] {
        reload(&running, &config);
        for client in &mut clients {
            let reply = client.ask(&request("GET", "/a.txt", ""));
            assert_eq!(text(&reply), (200, root));
            assert!(!reply.fields.contains_key("connection"));
        }
    }
    running.stop();
}

#[test]
fn echo_and_packets_come_and_go() {
    let ports = [Port::reserve(), Port::reserve(), Port::reserve()];
    let one = format!("{ADMIN}{}", site(&ports[0], "one"));
    let echo = format!("[[echo]]\nlisten = [\"{}\"]\n", ports[1].address());
    let packets = format!("[[packets]]\nlisten = [\"{}\"]\nroot = \"two\"\n", ports[2].address());
    let running = Configured::start(folder(&FILES), &one, &["http", "admin http"]);
    for _ in 0..2 {
        reload(&running, &format!("{one}{echo}{packets}"));
        let mut client = Client::new(ports[1].address());
        client.send("hello");
        let mut bytes = [0; 5];
        client.stream.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"hello");
        let mut of_packets = Client::new(ports[2].address());
        reload(&running, &one);
        is_gone(ports[1].address());
        is_gone(ports[2].address());
        client.is_at_its_end();
        of_packets.is_at_its_end();
    }
    // Clients may be accepted after the reload that removed their listener.
    let ended = running.stop();
    assert!(ended.stderr.contains("\"handler_panics\":0"), "{}", ended.stderr);
}
