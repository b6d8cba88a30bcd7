//! One question to one name server (RFC 1035).

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, TYPE};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

/// The longest message over UDP (RFC 1035 section 4.2.1). A longer one is truncated.
const DATAGRAM_BYTES_MAX: usize = 512;

/// The records to ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    V4,
    V6,
}

/// The reason why there is no list of addresses.
#[derive(Debug)]
pub enum Failure {
    /// The name cannot be put into a question.
    Invalid,
    /// The name does not exist (NXDOMAIN).
    Unknown,
    /// There is no usable answer.
    NoAnswer(String),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::NoAnswer(match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => "no reply".into(),
            _ => error.to_string(),
        })
    }
}

/// Returns the addresses that the server has for the name; none if the name has no such record.
pub fn ask(
    server: SocketAddr,
    name: &str,
    kind: Kind,
    timeout: Duration,
    over_tcp: bool,
) -> Result<Vec<IpAddr>, Failure> {
    let deadline = Instant::now() + timeout;
    // Not guessable, so that nobody else can answer (RFC 5452 section 4.3). The port, which the
    // kernel draws, is not guessable either.
    let id = RandomState::new().hash_one(0) as u16;
    let question = question(name, kind)?;
    let mut query = Packet::new_query(id);
    query.set_flags(PacketFlag::RECURSION_DESIRED);
    query.questions.push(question.clone());
    let query = query.build_bytes_vec().map_err(|_| Failure::Invalid)?;
    if !over_tcp {
        let reply = over_udp(server, &query, |reply| answers(reply, id, &question), deadline)?;
        let reply = Packet::parse(&reply).map_err(|error| unreadable(&error))?;
        if !reply.has_flags(PacketFlag::TRUNCATION) {
            return addresses(&reply);
        }
    }
    let reply = exchange_over_tcp(server, &query, deadline)?;
    if !answers(&reply, id, &question) {
        return Err(Failure::NoAnswer("the reply is for another question".into()));
    }
    addresses(&Packet::parse(&reply).map_err(|error| unreadable(&error))?)
}

fn question(name: &str, kind: Kind) -> Result<Question<'_>, Failure> {
    if name.split('.').any(str::is_empty) {
        return Err(Failure::Invalid);
    }
    let name = Name::new(name).map_err(|_| Failure::Invalid)?;
    let kind = match kind {
        Kind::V4 => TYPE::A,
        Kind::V6 => TYPE::AAAA,
    };
    Ok(Question::new(name, QTYPE::TYPE(kind), QCLASS::CLASS(CLASS::IN), false))
}

fn unreadable(error: &simple_dns::SimpleDnsError) -> Failure {
    Failure::NoAnswer(format!("the reply is damaged ({error})"))
}

/// Returns whether a message answers this question. Anything else is somebody else's, or late.
fn answers(message: &[u8], id: u16, question: &Question<'_>) -> bool {
    Packet::parse(message).is_ok_and(|reply| {
        let asked = reply.questions.first().filter(|_| reply.questions.len() == 1);
        reply.id() == id
            && reply.has_flags(PacketFlag::RESPONSE)
            && asked
                .is_some_and(|asked| asked.qname == question.qname && asked.qtype == question.qtype)
    })
}

fn addresses(reply: &Packet<'_>) -> Result<Vec<IpAddr>, Failure> {
    match reply.rcode() {
        RCODE::NoError => {}
        RCODE::NameError => return Err(Failure::Unknown),
        RCODE::ServerFailure => return Err(Failure::NoAnswer("it failed (SERVFAIL)".into())),
        RCODE::Refused => return Err(Failure::NoAnswer("it refused (REFUSED)".into())),
        code => return Err(Failure::NoAnswer(format!("it failed ({code:?})"))),
    }
    // A name server that resolves recursively puts the records of aliases (CNAME) there, too.
    let records = reply.answers.iter().filter_map(|record| match &record.rdata {
        RData::A(a) => Some(IpAddr::from(Ipv4Addr::from(a.address))),
        RData::AAAA(aaaa) => Some(IpAddr::from(Ipv6Addr::from(aaaa.address))),
        _ => None,
    });
    Ok(records.collect())
}

/// A UDP socket of the family of `to`.
pub fn local_socket(to: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    UdpSocket::bind((any, 0))
}

/// The first datagram that is the reply.
fn over_udp(
    server: SocketAddr,
    query: &[u8],
    is_reply: impl Fn(&[u8]) -> bool,
    deadline: Instant,
) -> io::Result<Vec<u8>> {
    let socket = local_socket(server)?;
    // Datagrams of others do not reach a connected socket, and ICMP errors do.
    socket.connect(server)?;
    socket.send(query)?;
    let mut buffer = [0; DATAGRAM_BYTES_MAX];
    loop {
        socket.set_read_timeout(Some(left(deadline)?))?;
        let length = match socket.recv(&mut buffer) {
            Err(error) if is_early(&error) => continue,
            received => received?,
        };
        if is_reply(&buffer[..length]) {
            return Ok(buffer[..length].to_vec());
        }
    }
}

/// Two bytes with the length come before each message (RFC 1035 section 4.2.2).
fn exchange_over_tcp(server: SocketAddr, query: &[u8], deadline: Instant) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&server, left(deadline)?)?;
    stream.set_write_timeout(Some(left(deadline)?))?;
    let length = u16::try_from(query.len()).expect("a name is short");
    stream.write_all(&[&length.to_be_bytes(), query].concat())?;
    let mut length = [0; 2];
    read_all(&mut stream, &mut length, deadline)?;
    let mut reply = vec![0; u16::from_be_bytes(length).into()];
    read_all(&mut stream, &mut reply, deadline)?;
    Ok(reply)
}

fn read_all(stream: &mut TcpStream, buffer: &mut [u8], deadline: Instant) -> io::Result<()> {
    let mut filled = 0;
    while filled < buffer.len() {
        stream.set_read_timeout(Some(left(deadline)?))?;
        match stream.read(&mut buffer[filled..]) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(bytes) => filled += bytes,
            Err(error) if is_early(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The kernel counts timeouts in ticks, so that one may end before the deadline.
fn is_early(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock)
}

/// The time that is left, which is never 0: a timeout of 0 would mean none.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
}
