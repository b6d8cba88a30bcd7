//! The steps of operations whose descriptor is ready.

use super::super::{Calls, Errno, F_BUFFER, F_MORE, F_SOCK_NONEMPTY, Token, direct};
use super::table::{READABLE, Wait};
use super::{EpollRing, RECEIVES_MAX, calls};

/// The state of an operation after a step.
enum Step {
    /// It waits for its descriptor.
    Waits,
    /// It has posted its last completion.
    Ended,
    /// It can go on, after others.
    GoesOn,
}

impl EpollRing {
    /// Lets the operations of each ready descriptor take a step, in turn.
    pub(super) fn serve(&mut self) {
        for _ in 0..self.ready.len() {
            if self.is_crowded() {
                return;
            }
            let Some(entry) = self.ready.pop_front() else { return };
            if self.table.has(entry) {
                self.table[entry].queued = false;
                self.serve_one(entry);
            }
        }
    }

    /// Returns whether the caller has enough to take.
    fn is_crowded(&self) -> bool {
        self.completions.len() >= self.completions_max
    }

    fn serve_one(&mut self, entry: u32) {
        let mut next = self.table.first(entry);
        while let Some(number) = next {
            next = self.table.next(number);
            match self.step(entry, number) {
                Step::Waits => {}
                Step::Ended => drop(self.table.remove(number)),
                Step::GoesOn => self.enqueue(entry),
            }
        }
    }

    fn step(&mut self, entry: u32, number: u32) -> Step {
        let readable = self.table[entry].seen & READABLE != 0;
        let (descriptor, blocked) = (self.table[entry].descriptor, self.table[entry].blocked);
        let (token, wait) = self.table.operation(number);
        match wait {
            // Events and `push` end polls.
            Wait::Poll { .. } => Step::Waits,
            Wait::Accept { multishot } if readable => {
                let multishot = *multishot;
                self.accept(entry, token, multishot)
            }
            Wait::Receive { multishot } if readable => {
                let multishot = *multishot;
                self.receive(entry, token, multishot)
            }
            Wait::Probe if readable => self.probe(entry, token),
            Wait::Send(send) if !blocked => match send.go_on(descriptor) {
                Some(result) => self.end(token, result),
                None => {
                    self.table[entry].blocked = true;
                    Step::Waits
                }
            },
            Wait::Connect => self.finish_connect(entry, token),
            Wait::Accept { .. } | Wait::Receive { .. } | Wait::Probe | Wait::Send(_) => Step::Waits,
        }
    }

    fn end(&mut self, token: Token, result: i32) -> Step {
        self.complete(token, result, 0);
        Step::Ended
    }

    fn accept(&mut self, entry: u32, token: Token, multishot: bool) -> Step {
        let listener = self.table[entry].descriptor;
        for _ in 0..RECEIVES_MAX {
            match direct::accept_now(listener) {
                Ok(socket) if !multishot => return self.end(token, socket.0),
                Ok(socket) => self.complete(token, socket.0, F_MORE),
                Err(Errno(libc::EAGAIN)) => {
                    self.found_nothing(entry);
                    return Step::Waits;
                }
                Err(errno) => return self.end(token, -errno.0),
            }
            if self.is_crowded() {
                break;
            }
        }
        Step::GoesOn
    }

    fn receive(&mut self, entry: u32, token: Token, multishot: bool) -> Step {
        let socket = self.table[entry].descriptor;
        for _ in 0..RECEIVES_MAX {
            if self.table[entry].seen & READABLE == 0 {
                return Step::Waits;
            }
            // Without a buffer, even the end is not seen.
            let Some(buffer) = self.buffers.pop() else {
                return self.end(token, -libc::ENOBUFS);
            };
            let offset = usize::from(buffer) * self.buffer_bytes as usize;
            let address = self.arena_address.wrapping_add(offset);
            let received = calls::receive(socket, address, self.buffer_bytes);
            let count = match received {
                Ok(count @ 1..) => count,
                Ok(0) => {
                    self.buffers.push(buffer);
                    return self.end(token, 0);
                }
                Err(errno) => {
                    self.buffers.push(buffer);
                    if errno.0 != libc::EAGAIN {
                        return self.end(token, -errno.0);
                    }
                    self.found_nothing(entry);
                    return Step::Waits;
                }
            };
            let full = count == self.buffer_bytes;
            if !full {
                self.table[entry].note_short_read();
            }
            let flags = F_BUFFER | u32::from(buffer) << 16;
            if !multishot {
                let more = if self.holds_more(entry, full) { F_SOCK_NONEMPTY } else { 0 };
                self.complete(token, count.cast_signed(), flags | more);
                return Step::Ended;
            }
            self.complete(token, count.cast_signed(), flags | F_MORE);
            if self.is_crowded() {
                break;
            }
        }
        Step::GoesOn
    }

    /// Returns whether a socket holds bytes or a FIN after a receive.
    fn holds_more(&mut self, entry: u32, full: bool) -> bool {
        let found = &self.table[entry];
        let ended = found.seen & (libc::EPOLLRDHUP | libc::EPOLLHUP) as u32 != 0;
        // Only then more than the buffer could hold may have been there.
        let look = full || found.seen & libc::EPOLLPRI as u32 != 0;
        ended || (look && direct::unread_bytes(found.descriptor).is_ok_and(|bytes| bytes > 0))
    }

    fn probe(&mut self, entry: u32, token: Token) -> Step {
        match calls::peek(self.table[entry].descriptor) {
            Ok(_) => {
                self.complete(token, 0, F_SOCK_NONEMPTY);
                Step::Ended
            }
            Err(Errno(libc::EAGAIN)) => {
                self.found_nothing(entry);
                Step::Waits
            }
            Err(errno) => self.end(token, -errno.0),
        }
    }

    fn finish_connect(&mut self, entry: u32, token: Token) -> Step {
        let socket = self.table[entry].descriptor;
        if self.table.look(entry) & (libc::EPOLLOUT | libc::EPOLLHUP | libc::EPOLLERR) as u32 == 0 {
            return Step::Waits;
        }
        let result = match calls::take_error(socket) {
            0 if self.peer_address(socket).is_ok() => 0,
            // Somebody else has taken the error.
            0 => -libc::ECONNABORTED,
            errno => -errno,
        };
        self.end(token, result)
    }

    /// A read found nothing: the next event tells of more.
    fn found_nothing(&mut self, entry: u32) {
        let found = &mut self.table[entry];
        found.seen &= !(libc::EPOLLIN as u32);
        if found.seen & READABLE != 0 {
            // A read does not wait after one of these, unless a call has taken the error.
            self.table.look(entry);
        }
    }
}
