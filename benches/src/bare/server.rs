//! The limit server: echo, or a fixed HTTP reply.

use std::collections::VecDeque;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use io_uring::{cqueue, opcode, types};

use super::buffers::{Buffers, GROUP};
use super::connection::{Chunk, Connection, Replies, Sending};
use super::ring::{self, Queues};
use super::{CONNECTIONS_MAX, Kind, Tag};
use crate::machine;

/// Receive buffers. As few as will do: the ring hands them out in turn, and what goes round in
/// little memory stays in the cache.
const BUFFERS: u16 = 1024;
/// Descriptors that are no connections: standard streams, the ring, the listener.
const DESCRIPTORS_OTHER: usize = 32;

/// The replies of the server.
pub enum Service {
    /// Every received chunk, sent back from the buffer that it came in.
    Echo,
    /// A `200` with this many bytes of body for every request.
    Http {
        /// Length of the body.
        body_bytes: usize,
    },
}

/// Serves until SIGTERM or SIGINT ([`machine::catch_termination`] was called before).
pub fn serve(listener: &TcpListener, service: &Service) -> io::Result<()> {
    let descriptors = (CONNECTIONS_MAX + DESCRIPTORS_OTHER) as u64;
    machine::need_descriptors(descriptors + 1)?;
    let mut ring = ring::create()?;
    let queues = Queues::new(&mut ring)?;
    let buffers = Buffers::register(queues.submitter(), BUFFERS)?;
    let replies = match service {
        Service::Echo => None,
        Service::Http { body_bytes } => Some(Replies::new(*body_bytes)),
    };
    let mut connections = Vec::new();
    connections.resize_with(descriptors as usize, || None);
    let starved = VecDeque::new();
    let mut server = Server {
        listener: listener.as_raw_fd(),
        queues,
        buffers,
        replies,
        connections,
        starved,
        accepting: false,
        batch: Batch::default(),
    };
    while !machine::terminated() {
        server.turn()?;
    }
    Ok(())
}

struct Server<'a> {
    listener: i32,
    queues: Queues<'a>,
    buffers: Buffers,
    /// None: echo.
    replies: Option<Replies>,
    /// By descriptor: nothing of a connection is in flight any more when it is closed, so no
    /// completion can meet the next one with the same number.
    connections: Vec<Option<Connection>>,
    /// Descriptors whose receive ended for want of a buffer, the longest-waiting first.
    starved: VecDeque<u32>,
    accepting: bool,
    batch: Batch,
}

/// The counts of one batch of completions.
#[derive(Default)]
struct Batch {
    received: usize,
    sends: usize,
}

impl Server<'_> {
    fn turn(&mut self) -> io::Result<()> {
        if !self.accepting {
            self.arm_accept()?;
        }
        let batch = std::mem::take(&mut self.batch);
        self.queues.submit_and_wait(batch.received, batch.sends)?;
        while let Some(completion) = self.queues.next() {
            let tag = Tag::decode(completion.user_data());
            match tag.kind {
                Kind::Accept => self.accepted(&completion)?,
                Kind::Receive => self.received(tag.index, &completion)?,
                Kind::Send => self.sent(tag.index, completion.result())?,
            }
        }
        // No more at a time than there are buffers for, or they would fail again at once.
        for _ in 0..self.buffers.free() {
            let Some(index) = self.starved.pop_front() else { break };
            self.arm_receive(index)?;
        }
        Ok(())
    }

    fn arm_accept(&mut self) -> io::Result<()> {
        let tag = Tag { kind: Kind::Accept, index: 0 };
        let accept = opcode::AcceptMulti::new(types::Fd(self.listener)).flags(libc::SOCK_CLOEXEC);
        // SAFETY: the operation points to nothing.
        unsafe { self.queues.push(&accept.build().user_data(tag.encode()))? };
        self.accepting = true;
        Ok(())
    }

    fn accepted(&mut self, completion: &cqueue::Entry) -> io::Result<()> {
        self.accepting = cqueue::more(completion.flags());
        match completion.result() {
            0.. => {}
            gone if gone == -libc::ECONNABORTED => return Ok(()),
            error => return Err(failed("accept", error)),
        }
        // SAFETY: the kernel has just opened this descriptor for us, and nobody else knows it.
        let socket = unsafe { OwnedFd::from_raw_fd(completion.result()) };
        let index = completion.result() as u32;
        // Beyond the limit: dropped, which closes it.
        let Some(slot) = self.connections.get_mut(index as usize) else { return Ok(()) };
        assert!(slot.is_none(), "descriptor {index} was opened twice");
        *slot = Some(Connection::new(socket));
        self.arm_receive(index)
    }

    fn arm_receive(&mut self, index: u32) -> io::Result<()> {
        let tag = Tag { kind: Kind::Receive, index };
        let receive = opcode::RecvMulti::new(types::Fd(index as i32), GROUP).build();
        connection(&mut self.connections, index).receiving = true;
        // SAFETY: its memory comes from the registered buffers, which are never freed.
        unsafe { self.queues.push(&receive.user_data(tag.encode())) }
    }

    fn received(&mut self, index: u32, completion: &cqueue::Entry) -> io::Result<()> {
        let result = completion.result();
        let connection = connection(&mut self.connections, index);
        connection.receiving = cqueue::more(completion.flags());
        if let Some(buffer) = cqueue::buffer_select(completion.flags()) {
            self.buffers.take(buffer);
            self.batch.received += 1;
            let wanted = result > 0 && !connection.ended;
            if wanted && self.replies.is_none() {
                connection.chunks.push_back(Chunk { buffer, length: result as u32 });
            } else {
                if wanted {
                    connection.requests.feed(self.buffers.bytes(buffer, result as usize));
                }
                self.buffers.give(buffer);
            }
        }
        match result {
            1.. if !self.connection(index).receiving => self.arm_receive(index)?,
            1.. => {}
            // The data, or the end, is still there. It counts as receiving while it waits in line.
            error if error == -libc::ENOBUFS => {
                self.connection(index).receiving = true;
                self.starved.push_back(index);
            }
            _ => self.connection(index).ended = true,
        }
        self.advance(index)
    }

    fn sent(&mut self, index: u32, result: i32) -> io::Result<()> {
        let connection = connection(&mut self.connections, index);
        let sending = connection.sending.take().expect("one send was in flight");
        // MSG_WAITALL: the kernel itself goes on after a short send, so short means failed.
        if result != sending.length as i32 {
            self.fail(index);
        }
        if let Some(buffer) = sending.buffer {
            self.buffers.give(buffer);
        }
        self.advance(index)
    }

    /// Sends what is next, or closes.
    fn advance(&mut self, index: u32) -> io::Result<()> {
        let connection = connection(&mut self.connections, index);
        if connection.sending.is_some() {
            return Ok(());
        }
        if let Some(Chunk { buffer, length }) = connection.chunks.pop_front() {
            connection.sending = Some(Sending { length, buffer: Some(buffer) });
            return self.send(index, self.buffers.address(buffer), length);
        }
        if let (Some(replies), 1..) = (&self.replies, connection.requests.owed) {
            let (bytes, count) = replies.answer(connection.requests.owed);
            connection.requests.owed -= count;
            connection.sending = Some(Sending { length: bytes.len() as u32, buffer: None });
            return self.send(index, bytes.as_ptr(), bytes.len() as u32);
        }
        if connection.is_over() {
            self.connections[index as usize] = None;
        }
        Ok(())
    }

    fn send(&mut self, index: u32, bytes: *const u8, length: u32) -> io::Result<()> {
        self.batch.sends += 1;
        let tag = Tag { kind: Kind::Send, index };
        let send = opcode::Send::new(types::Fd(index as i32), bytes, length)
            .flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL);
        // SAFETY: the bytes lie in the prepared replies, which are never freed, or in a buffer that
        // is given back only when this send has completed.
        unsafe { self.queues.push(&send.build().user_data(tag.encode())) }
    }

    /// Gives up on a connection that cannot be sent to.
    fn fail(&mut self, index: u32) {
        let connection = connection(&mut self.connections, index);
        connection.ended = true;
        connection.requests.owed = 0;
        let chunks = std::mem::take(&mut connection.chunks);
        // SAFETY: the descriptor is open. Its result does not matter: ENOTCONN after a reset, and
        // an armed receive ends either way.
        unsafe { libc::shutdown(connection.socket.as_raw_fd(), libc::SHUT_RDWR) };
        for chunk in chunks {
            self.buffers.give(chunk.buffer);
        }
    }

    fn connection(&mut self, index: u32) -> &mut Connection {
        connection(&mut self.connections, index)
    }
}

fn failed(operation: &str, result: i32) -> io::Error {
    let error = io::Error::from_raw_os_error(-result);
    io::Error::new(error.kind(), format!("{operation}: {error}"))
}

/// The connection that a completion belongs to: open, because it is closed only when nothing of it
/// is in flight.
fn connection(connections: &mut [Option<Connection>], index: u32) -> &mut Connection {
    connections[index as usize].as_mut().expect("a connection stays while something is in flight")
}
