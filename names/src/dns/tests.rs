//! Name servers on loopback addresses that answer as told.

use super::*;
use simple_dns::rdata::{A, AAAA, CNAME, RData};
use simple_dns::{CLASS, Name, Packet, PacketFlag, QTYPE, RCODE, ResourceRecord, TYPE};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread;

/// The maximum of a test that does not wait for it: a busy machine takes seconds.
const LONG: Duration = Duration::from_secs(60);
/// The patience of a test that does wait.
const SHORT: Duration = Duration::from_millis(200);

/// The reaction of a name server to a question.
#[derive(Clone, Copy)]
enum Reply {
    V4([u8; 4]),
    V6(u16),
    Nothing,
    Code(RCODE),
    /// The rest comes over TCP.
    Truncated,
    /// For another question first, then the right one.
    AfterAnother([u8; 4]),
    Silence,
}

struct Fake {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    fn start(reply: impl Fn(&str, TYPE) -> Reply + Send + 'static) -> Self {
        let (socket, tcp) = both_sockets();
        let address = socket.local_addr().expect("its address");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let names = asked.clone();
        // It ends with the test program.
        thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let query = Packet::parse(&buffer[..length]).expect("a question");
                let (name, kind) = asked_for(&query);
                names.lock().expect("no panic").push(name.clone());
                for message in messages(&query, reply(&name, kind)) {
                    socket.send_to(&message, from).expect("loopback takes it");
                }
            }
        });
        thread::spawn(move || {
            for stream in tcp.incoming() {
                let mut stream = stream.expect("a client");
                let mut length = [0; 2];
                stream.read_exact(&mut length).expect("a length");
                let mut query = vec![0; u16::from_be_bytes(length).into()];
                stream.read_exact(&mut query).expect("a question");
                let query = Packet::parse(&query).expect("a question");
                let reply = match asked_for(&query).1 {
                    TYPE::A => Reply::V4([192, 0, 2, 99]),
                    _ => Reply::Nothing,
                };
                let reply = &messages(&query, reply)[0];
                let length = (reply.len() as u16).to_be_bytes();
                stream.write_all(&[&length, &reply[..]].concat()).expect("a client that reads");
            }
        });
        Self { address, asked }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no panic").clone()
    }
}

/// Sockets of UDP and TCP with the same port.
fn both_sockets() -> (UdpSocket, TcpListener) {
    loop {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let address = socket.local_addr().expect("its address");
        // Somebody else may have the same port of TCP.
        if let Ok(tcp) = TcpListener::bind(address) {
            return (socket, tcp);
        }
    }
}

fn asked_for(query: &Packet<'_>) -> (String, TYPE) {
    let question = &query.questions[0];
    let QTYPE::TYPE(kind) = question.qtype else { panic!("{question:?}") };
    (question.qname.to_string(), kind)
}

fn messages(query: &Packet<'_>, reply: Reply) -> Vec<Vec<u8>> {
    let mut packet = Packet::new_reply(query.id());
    packet.questions.clone_from(&query.questions);
    let name = query.questions[0].qname.clone();
    let record = |data| ResourceRecord::new(name.clone(), CLASS::IN, 60, data);
    let v4 = |ip| RData::A(A::from(Ipv4Addr::from(ip)));
    match reply {
        Reply::V4(ip) => {
            let alias = Name::new_unchecked("alias.test");
            packet.answers.push(record(RData::CNAME(CNAME(alias.clone()))));
            packet.answers.push(ResourceRecord::new(alias, CLASS::IN, 60, v4(ip)));
        }
        Reply::V6(last) => {
            let ip = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last);
            packet.answers.push(record(RData::AAAA(AAAA { address: ip.into() })));
        }
        Reply::Nothing => {}
        Reply::Code(code) => *packet.rcode_mut() = code,
        Reply::Truncated => packet.set_flags(PacketFlag::TRUNCATION),
        Reply::AfterAnother(ip) => {
            let mut other = packet.clone();
            *other.rcode_mut() = RCODE::NameError;
            other.set_id(query.id().wrapping_add(1));
            packet.answers.push(record(v4(ip)));
            let mut own = query.clone();
            own.set_id(query.id());
            return [other, own, packet].map(|it| it.build_bytes_vec().expect("small")).to_vec();
        }
        Reply::Silence => return Vec::new(),
    }
    vec![packet.build_bytes_vec().expect("it is small")]
}

fn servers(of: &[SocketAddr], patience: Duration) -> Servers {
    let mut servers = Servers::new(b"options ndots:2\nsearch a.test b.test", patience);
    servers.servers = of.to_vec();
    servers.attempt_timeout = patience;
    servers
}

fn found(servers: &Servers, name: &str) -> Vec<String> {
    let found = servers.addresses(name).unwrap_or_else(|error| panic!("{name}: {error}"));
    found.iter().map(IpAddr::to_string).collect()
}

#[test]
fn both_kinds_of_addresses_are_found_through_an_alias() {
    let fake = Fake::start(|_, kind| match kind {
        TYPE::A => Reply::V4([192, 0, 2, 1]),
        _ => Reply::V6(1),
    });
    let servers = servers(&[fake.address], LONG);
    assert_eq!(found(&servers, "host.example.test"), ["192.0.2.1", "2001:db8::1"]);
    assert_eq!(fake.asked(), ["host.example.test"; 2]);
}

#[test]
fn the_search_list_is_tried_in_its_order() {
    let fake = Fake::start(|name, kind| match (name, kind) {
        ("short.b.test", TYPE::A) => Reply::V4([192, 0, 2, 2]),
        ("short.b.test", _) => Reply::Nothing,
        ("broken.a.test", _) => Reply::Code(RCODE::ServerFailure),
        ("broken", TYPE::A) => Reply::V4([192, 0, 2, 3]),
        ("broken", _) => Reply::Nothing,
        ("lost.a.test", _) => Reply::Code(RCODE::ServerFailure),
        _ => Reply::Code(RCODE::NameError),
    });
    let servers = servers(&[fake.address], LONG);
    assert_eq!(found(&servers, "short"), ["192.0.2.2"]);
    assert_eq!(fake.asked(), ["short.a.test", "short.b.test", "short.b.test"]);
    assert_eq!(found(&servers, "broken"), ["192.0.2.3"]);
    let lost = servers.addresses("lost");
    assert!(matches!(lost, Err(Error::NoAnswer { .. })), "more than an unknown name: {lost:?}");
    assert_eq!(servers.candidates("a.b.c"), ["a.b.c", "a.b.c.a.test", "a.b.c.b.test"]);
    assert_eq!(servers.candidates("short."), ["short"]);
}

#[test]
fn an_unknown_name_and_one_without_addresses_are_told_apart() {
    let fake = Fake::start(|name, _| match name {
        "empty" => Reply::Nothing,
        _ => Reply::Code(RCODE::NameError),
    });
    let (server, servers) = (fake.address, servers(&[fake.address], LONG));
    assert_eq!(servers.addresses("unknown"), Err(Error::Unknown { server }));
    assert_eq!(servers.addresses("empty"), Err(Error::NoAddress { server }));
    for name in ["a..b".to_owned(), "x".repeat(64)] {
        assert_eq!(servers.addresses(&name), Err(Error::Invalid), "{name}");
    }
}

#[test]
fn the_next_server_is_asked_if_one_fails() {
    let broken = Fake::start(|_, _| Reply::Code(RCODE::ServerFailure));
    let good = Fake::start(|_, kind| match kind {
        TYPE::A => Reply::V4([192, 0, 2, 4]),
        _ => Reply::Nothing,
    });
    // tcpmux (RFC 1078) has no UDP.
    let closed = "127.0.0.1:1".parse().expect("an address");
    let all = servers(&[closed, broken.address, good.address], LONG);
    assert_eq!(found(&all, "host.example."), ["192.0.2.4"]);
    let Err(Error::NoAnswer { failures, .. }) =
        servers(&[closed, broken.address], LONG).addresses("host.example.")
    else {
        panic!("nobody answers");
    };
    assert_eq!(failures[0].0, closed);
    assert!(failures[0].1.contains("refused"), "{failures:?}");
    assert_eq!(failures[1], (broken.address, "it failed (SERVFAIL)".into()));
}

#[test]
fn a_silent_server_costs_the_patience_at_most_once() {
    let fake = Fake::start(|_, _| Reply::Silence);
    let begun = Instant::now();
    let result = servers(&[fake.address], SHORT).addresses("short");
    assert!(begun.elapsed() >= SHORT, "every try gets its share");
    let Err(Error::NoAnswer { failures, .. }) = result else { panic!("{result:?}") };
    assert_eq!(failures, [(fake.address, "no reply".to_owned())]);
    // Its questions arrive in their order.
    while !fake.asked().iter().any(|name| name == "last") {
        let _ = servers(&[fake.address], SHORT).addresses("last.");
    }
    let asked = fake.asked();
    assert!(asked.iter().all(|name| ["short.a.test", "last"].contains(&&**name)), "{asked:?}");
}

#[test]
fn a_server_that_knows_no_ipv6_does_not_hide_ipv4() {
    let fake = Fake::start(|_, kind| match kind {
        TYPE::A => Reply::V4([192, 0, 2, 5]),
        _ => Reply::Code(RCODE::NotImplemented),
    });
    assert_eq!(found(&servers(&[fake.address], LONG), "host."), ["192.0.2.5"]);
}

#[test]
fn a_long_answer_comes_over_tcp() {
    let fake = Fake::start(|_, _| Reply::Truncated);
    assert_eq!(found(&servers(&[fake.address], LONG), "host."), ["192.0.2.99"]);
    let fake = Fake::start(|_, _| panic!("it is asked over TCP"));
    let mut over_tcp = servers(&[fake.address], LONG);
    over_tcp.over_tcp = true;
    assert_eq!(found(&over_tcp, "host."), ["192.0.2.99"]);
}

#[test]
fn replies_to_other_questions_are_ignored() {
    let fake = Fake::start(|_, kind| match kind {
        TYPE::A => Reply::AfterAnother([192, 0, 2, 6]),
        _ => Reply::Nothing,
    });
    assert_eq!(found(&servers(&[fake.address], LONG), "host."), ["192.0.2.6"]);
}

#[test]
fn resolv_conf_is_read_as_the_c_library_does() {
    let file =
        b"; comment\nnameserver 192.0.2.1\nnameserver wrong\nnonsense\nnameserver fe80::1%1\n\
                 search x.test\noptions ndots:3 attempts:9 timeout:2 use-vc unheard-of\n\
                 nameserver 192.0.2.3\nnameserver 192.0.2.4";
    let servers = Servers::new(file, LONG);
    let addresses: Vec<String> = servers.servers.iter().map(SocketAddr::to_string).collect();
    assert_eq!(addresses, ["192.0.2.1:53", "[fe80::1%1]:53", "192.0.2.3:53"]);
    assert_eq!((servers.ndots, servers.attempts, servers.over_tcp), (3, ATTEMPTS_MAX, true));
    assert_eq!(servers.attempt_timeout, Duration::from_secs(2));
    assert_eq!(servers.search, ["x.test"]);
    let default = Servers::new(b"", LONG);
    let addresses: Vec<String> = default.servers.iter().map(SocketAddr::to_string).collect();
    assert_eq!(addresses, ["127.0.0.1:53", "[::1]:53"], "the default without a file");
    assert_eq!((default.ndots, default.attempts), (1, 2));
}
