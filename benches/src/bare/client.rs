//! The limit client: a closed loop on every connection that checks nothing but byte counts, so
//! that it costs little beside the server it measures.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use io_uring::{cqueue, opcode, squeue, types};
use serde::Serialize;

use super::buffers::{Buffers, GROUP};
use super::ring::{self, Queues};
use super::{CONNECTIONS_MAX, Kind, Tag};
use crate::machine;

const BUFFERS: u16 = 1024;
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(5);
/// For the first answer on every connection; those that have none then are counted.
const WARM_UP_MAX: Duration = Duration::from_secs(5);
const HEAD_BYTES_MAX: usize = 16 * 1024;
const DESCRIPTORS_OTHER: u64 = 32;

/// The requests that all connections repeat.
pub struct Load {
    /// The server.
    pub address: SocketAddr,
    /// Connections, all opened before the clock starts.
    pub connections: usize,
    /// Duration of the run.
    pub duration: Duration,
    /// The requests, sent in turn by the next free connection; not empty.
    pub requests: Vec<Vec<u8>>,
    /// Size of a reply.
    pub reply_bytes: usize,
    /// Requests sent at once on a connection; the next go when all of them are answered.
    pub pipeline: usize,
    /// Processes whose CPU time is counted while asking.
    pub servers: Vec<u32>,
}

/// The result. The names are those of a `ringload` report.
#[derive(Clone, Debug, Serialize)]
pub struct LoadReport {
    /// Requests answered in full.
    pub replies: u64,
    /// From when every connection had its first answer to the last completion looked at.
    pub elapsed_s: f64,
    /// Their quotient.
    pub replies_per_s: f64,
    /// CPU time of the client itself meanwhile, per reply.
    pub cpu_us_per_reply: f64,
    /// CPU time of the servers meanwhile, connecting and closing not included.
    pub server_cpu_s: f64,
    /// Connections that got no answer at all.
    pub connections_silent: usize,
}

/// A GET of `path`.
pub fn get(address: SocketAddr, path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").into_bytes()
}

/// Asks once for `path`, to learn how long the whole reply is.
pub fn probe_http(address: SocketAddr, path: &str) -> io::Result<usize> {
    let request = get(address, path);
    let mut stream = TcpStream::connect_timeout(&address, CONNECT_WAIT_MAX)?;
    stream.set_read_timeout(Some(CONNECT_WAIT_MAX))?;
    stream.write_all(&request)?;
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == HEAD_BYTES_MAX {
            return Err(wrong(format!(
                "{address}{path}: the head of the reply is longer than {HEAD_BYTES_MAX} bytes"
            )));
        }
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let body_bytes =
        content_length(&head).map_err(|what| wrong(format!("{address}{path}: {what}")))?;
    Ok(head.len() + body_bytes)
}

fn content_length(head: &[u8]) -> Result<usize, String> {
    let text = String::from_utf8_lossy(head);
    let mut lines = text.lines();
    let status = lines.next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        return Err(format!("expected status 200, received `{status}`"));
    }
    lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse().ok())
        .ok_or_else(|| format!("the reply `{status}` has no valid Content-Length"))
}

/// Opens the connections and asks on all of them until the time is over.
pub fn run(load: &Load) -> io::Result<LoadReport> {
    assert!(load.connections > 0 && load.connections <= CONNECTIONS_MAX);
    machine::need_descriptors(load.connections as u64 + DESCRIPTORS_OTHER)?;
    let connections = connect(load)?;
    let mut ring = ring::create()?;
    let queues = Queues::new(&mut ring)?;
    let buffers = Buffers::register(queues.submitter(), BUFFERS)?;
    let requests = load.requests.iter().map(|request| &*request.repeat(load.pipeline).leak());
    let mut client = Client {
        queues,
        buffers,
        connections,
        requests: requests.collect(),
        next_request: 0,
        reply_bytes: load.reply_bytes * load.pipeline,
        answered: 0,
        silent: load.connections,
    };
    for index in 0..client.connections.len() as u32 {
        client.arm_receive(index)?;
    }
    let servers_cpu = || -> io::Result<Duration> {
        load.servers.iter().map(|&server| machine::process_cpu_time(server)).sum()
    };
    let begun = Instant::now();
    for index in 0..client.connections.len() as u32 {
        client.ask(index)?;
    }
    // Not before everybody has been served once is it as it will be.
    while client.silent > 0 && begun.elapsed() < WARM_UP_MAX && !machine::terminated() {
        client.turn()?;
    }
    let answers_before = client.answers();
    let (server_cpu_before, cpu_before) = (servers_cpu()?, machine::own_cpu_time()?);
    let start = Instant::now();
    while start.elapsed() < load.duration && !machine::terminated() {
        client.turn()?;
    }
    let (elapsed, cpu) = (start.elapsed(), machine::own_cpu_time()? - cpu_before);
    let server_cpu = servers_cpu()? - server_cpu_before;
    let replies = (client.answers() - answers_before) * load.pipeline as u64;
    Ok(LoadReport {
        replies,
        elapsed_s: elapsed.as_secs_f64(),
        replies_per_s: replies as f64 / elapsed.as_secs_f64(),
        cpu_us_per_reply: cpu.as_secs_f64() * 1e6 / replies.max(1) as f64,
        server_cpu_s: server_cpu.as_secs_f64(),
        connections_silent: client.silent,
    })
}

fn connect(load: &Load) -> io::Result<Vec<Asker>> {
    let mut connections = Vec::with_capacity(load.connections);
    for number in 0..load.connections {
        let stream =
            TcpStream::connect_timeout(&load.address, CONNECT_WAIT_MAX).map_err(|error| {
                let (address, all) = (load.address, load.connections);
                io::Error::new(
                    error.kind(),
                    format!("connection {} of {all} to {address}: {error}", number + 1),
                )
            })?;
        stream.set_nodelay(true)?;
        connections.push(Asker { stream, missing_bytes: 0, answers: 0 });
    }
    Ok(connections)
}

/// One connection of the client.
struct Asker {
    stream: TcpStream,
    /// Missing bytes of the reply to the request in flight.
    missing_bytes: usize,
    answers: u64,
}

struct Client<'a> {
    queues: Queues<'a>,
    buffers: Buffers,
    connections: Vec<Asker>,
    /// Each repeated as often as it is pipelined.
    requests: Vec<&'static [u8]>,
    next_request: usize,
    reply_bytes: usize,
    /// Receive completions in the last batch.
    answered: usize,
    /// Connections without an answer so far.
    silent: usize,
}

impl Client<'_> {
    fn turn(&mut self) -> io::Result<()> {
        // Sends that succeed post no completion, so none of them completes the wait at once.
        self.queues.submit_and_wait(std::mem::take(&mut self.answered), 0)?;
        while let Some(completion) = self.queues.next() {
            let tag = Tag::decode(completion.user_data());
            match tag.kind {
                Kind::Receive => self.received(tag.index, &completion)?,
                Kind::Send => return Err(self.broken(tag.index, "send", completion.result())),
                Kind::Accept => unreachable!("a client accepts nothing"),
            }
        }
        Ok(())
    }

    fn received(&mut self, index: u32, completion: &cqueue::Entry) -> io::Result<()> {
        let result = completion.result();
        if let Some(buffer) = cqueue::buffer_select(completion.flags()) {
            self.buffers.take(buffer);
            self.buffers.give(buffer);
        }
        // All buffers are back when the batch is done, so a starved receive is just armed again.
        if result <= 0 && result != -libc::ENOBUFS {
            return Err(self.broken(index, "receive", result));
        }
        let connection = &mut self.connections[index as usize];
        let answered = if result > 0 {
            let left = connection.missing_bytes.checked_sub(result as usize);
            connection.missing_bytes = left.ok_or_else(|| {
                wrong(format!(
                    "connection {index} got more than the {} bytes of a reply",
                    self.reply_bytes
                ))
            })?;
            connection.missing_bytes == 0
        } else {
            false
        };
        if !cqueue::more(completion.flags()) {
            self.arm_receive(index)?;
        }
        if answered {
            let connection = &mut self.connections[index as usize];
            self.silent -= usize::from(connection.answers == 0);
            connection.answers += 1;
            self.answered += 1;
            self.ask(index)?;
        }
        Ok(())
    }

    /// On all connections.
    fn answers(&self) -> u64 {
        self.connections.iter().map(|connection| connection.answers).sum()
    }

    fn arm_receive(&mut self, index: u32) -> io::Result<()> {
        let receive = opcode::RecvMulti::new(self.socket(index), GROUP).build();
        let tag = Tag { kind: Kind::Receive, index };
        // SAFETY: its memory comes from the registered buffers, which are never freed.
        unsafe { self.queues.push(&receive.user_data(tag.encode())) }
    }

    fn ask(&mut self, index: u32) -> io::Result<()> {
        self.connections[index as usize].missing_bytes = self.reply_bytes;
        let socket = self.socket(index);
        let request = self.requests[self.next_request];
        self.next_request += 1;
        if self.next_request == self.requests.len() {
            self.next_request = 0;
        }
        let send = opcode::Send::new(socket, request.as_ptr(), request.len() as u32)
            .flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS);
        let tag = Tag { kind: Kind::Send, index };
        // SAFETY: the requests are never freed.
        unsafe { self.queues.push(&send.user_data(tag.encode())) }
    }

    fn socket(&self, index: u32) -> types::Fd {
        types::Fd(self.connections[index as usize].stream.as_raw_fd())
    }

    fn broken(&self, index: u32, operation: &str, result: i32) -> io::Error {
        let answers = self.connections[index as usize].answers;
        let what = match result {
            0.. => "the server closed the connection".to_owned(),
            error => io::Error::from_raw_os_error(-error).to_string(),
        };
        wrong(format!("connection {index}: {operation} after {answers} replies: {what}"))
    }
}

fn wrong(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    use super::content_length;

    #[test]
    fn content_length_is_found_whatever_its_case() {
        assert_eq!(
            content_length(b"HTTP/1.1 200 OK\r\nServer: x\r\ncontent-length: 12\r\n\r\n"),
            Ok(12)
        );
    }

    #[test]
    fn only_a_200_with_a_length_is_a_target() {
        assert!(content_length(b"HTTP/1.1 404 Not Found\r\nContent-Length: 1\r\n\r\n").is_err());
        assert!(content_length(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").is_err());
    }
}
