//! The part of the driver that handles one connection: requests, replies and its end.

use super::Driver;
use crate::load::flow::{Asked, Flow};
use crate::report::Pacing;
use ringload_lifecycle::clients::{Answer, Protocol, Step};
use ringload_lifecycle::fault::{ErrorKind, Fault};
use ringwright::{Connection, Reason};
use std::time::Duration;

impl<P: Protocol> Driver<P> {
    /// Returns true if the connection may send another request.
    #[inline]
    pub fn has_room(&self, flow: &Flow<P::State>) -> bool {
        flow.in_flight.len() < self.window(flow) && flow.sent < flow.quota
    }

    /// Returns the number of requests that may be in flight. A client must not pipeline behind a
    /// repeated request right after the connect (RFC 9112 section 9.3.2).
    #[inline]
    const fn window(&self, flow: &Flow<P::State>) -> usize {
        if flow.is_careful { 1 } else { self.task.pipeline }
    }

    /// Sends the oldest request to repeat, if there is one and the connection is a new one. One
    /// that has had replies to repeated requests only takes those for which no other connection is
    /// to be opened: the server may end it, too.
    #[inline]
    pub fn repeat(
        &mut self,
        flow: &mut Flow<P::State>,
        connection: &mut Connection<'_>,
        now_ns: u64,
    ) {
        if !self.repeats.is_empty() {
            self.send_repeat(flow, connection, now_ns);
        }
    }

    #[cold]
    fn send_repeat(
        &mut self,
        flow: &mut Flow<P::State>,
        connection: &mut Connection<'_>,
        now_ns: u64,
    ) {
        let is_new = flow.sent == flow.repeats && flow.in_flight.is_empty() && !flow.ending;
        let is_for_it = flow.sent == 0 || self.repeats.len() > self.repeats_reserved;
        if !is_new || !is_for_it || flow.sent == flow.quota || self.is_stopped() {
            return;
        }
        let Some(asked) = self.repeats.pop_front() else { return };
        if flow.sent == 0 {
            self.repeats_reserved = self.repeats_reserved.saturating_sub(1);
        }
        let sent_ns = now_ns.max(asked.begun_ns + 1);
        flow.in_flight.push_back(Asked { sent_ns, ..asked });
        flow.is_careful = true;
        flow.repeats += 1;
        self.stats.repeated += 1;
        self.request(flow, connection, 1);
    }

    /// Sends one request that was due at `due_ns`. `lag_ns` is the part of the delay that ringload
    /// itself caused.
    pub fn send(
        &mut self,
        flow: &mut Flow<P::State>,
        connection: &mut Connection<'_>,
        due_ns: u64,
        lag_ns: u64,
        now_ns: u64,
    ) {
        self.stats.lag_ns.saturating_record(lag_ns);
        flow.in_flight.push_back(Asked::new(due_ns, now_ns));
        self.request(flow, connection, 1);
    }

    /// Without a schedule of requests: sends as many requests as may be in flight. Closes the
    /// connection if there is nothing to send or to wait for.
    #[inline]
    pub fn ask(&mut self, flow: &mut Flow<P::State>, connection: &mut Connection<'_>, now_ns: u64) {
        if flow.ending || (flow.is_thinking && !self.is_stopped()) {
            return;
        }
        self.repeat(flow, connection, now_ns);
        let room = (self.window(flow) - flow.in_flight.len()) as u64;
        let wanted = room.min(flow.quota - flow.sent);
        let count = match self.pacing() {
            // A connection on schedule finishes its requests after the end of the run.
            Pacing::Connections if self.is_interrupted() => 0,
            Pacing::Connections => wanted,
            _ if self.is_stopped() => 0,
            _ => wanted.min(self.task.requests.unwrap_or(u64::MAX)),
        };
        if count > 0 {
            if self.pacing() == Pacing::Closed {
                self.task.requests = self.task.requests.map(|left| left - count);
            }
            let asked = Asked::new(now_ns, now_ns);
            flow.in_flight.extend(std::iter::repeat_n(asked, count as usize));
            self.request(flow, connection, count);
        } else if flow.in_flight.is_empty() {
            flow.ending = true;
            connection.close();
        }
    }

    #[inline]
    fn request(&mut self, flow: &mut Flow<P::State>, connection: &mut Connection<'_>, count: u64) {
        flow.sent += count;
        self.stats.requests += count;
        self.stats.bytes_sent += self.protocol.request(&mut flow.state, count as usize, |bytes| {
            // Cannot fail: the bytes in flight stay below the high-water mark.
            let _ = connection.send(bytes);
        });
    }

    /// Sends the header of a new connection, if it has one.
    pub fn send_header(&mut self, number: u64, connection: &mut Connection<'_>) {
        if let Some(header) = self.task.route.header(self.task.to, (self.task.seed, number)) {
            self.stats.bytes_sent += header.len() as u64;
            // Cannot fail: it is the first that is sent.
            let _ = connection.send(&header);
        }
    }

    /// Records the arrival of the first bytes on a connection.
    #[cold]
    pub fn first_bytes(&mut self, flow: &mut Flow<P::State>, now_ns: u64) {
        flow.has_received = true;
        if self.pacing() == Pacing::Connections {
            self.stats.first_byte_ns.saturating_record(now_ns - flow.intended_ns);
        }
    }

    /// Passes received bytes to the protocol.
    #[inline]
    pub fn receive(&mut self, flow: &mut Flow<P::State>, bytes: &[u8]) -> Result<Step, Fault> {
        let step = self.protocol.receive(&mut flow.state, bytes)?;
        self.stats.bytes_received += step.used as u64;
        Ok(step)
    }

    /// Counts a complete reply to one of the requests in flight.
    #[inline]
    pub fn count(
        &mut self,
        flow: &mut Flow<P::State>,
        connection: &mut Connection<'_>,
        answer: Answer,
        now_ns: u64,
    ) {
        let now = Asked::new(now_ns, now_ns);
        let asked = flow.in_flight.remove(answer.place).unwrap_or(now);
        flow.is_careful = false;
        self.stats.replies += 1;
        self.stats.last_reply_ns = now_ns;
        self.stats.service_ns.saturating_record(now_ns - asked.begun_ns);
        match self.pacing() {
            Pacing::Closed => {}
            Pacing::Requests => {
                self.stats.latency_ns.saturating_record(now_ns - asked.intended_ns);
            }
            Pacing::Connections if flow.sent == flow.quota && flow.in_flight.is_empty() => {
                flow.is_done = true;
                self.stats.sessions += 1;
                self.stats.session_ns.saturating_record(now_ns - flow.intended_ns);
            }
            Pacing::Connections => {}
        }
        if let Some(status) = answer.status {
            self.stats.count_status(status, 1);
        }
        if let Some(fault) = answer.fault {
            self.stats.errors.count(fault);
        }
        if answer.last {
            self.withdraw(flow);
            flow.ending = true;
            connection.close();
        } else if let Some(think) = self.task.think {
            self.think(flow, connection, think);
        }
    }

    /// Starts the wait before the next request, if there is one.
    fn think(&self, flow: &mut Flow<P::State>, connection: &mut Connection<'_>, think: Duration) {
        if self.task.requests != Some(0) && flow.sent < flow.quota {
            flow.is_thinking = true;
            connection.set_timer(0, Some(think));
        }
    }

    /// Withdraws the requests pipelined behind the last reply, to send them on another connection:
    /// the server has not processed them (RFC 9112 section 9.6).
    fn withdraw(&mut self, flow: &mut Flow<P::State>) {
        let withdrawn = flow.in_flight.len() as u64;
        self.stats.withdrawn += withdrawn;
        match self.pacing() {
            Pacing::Closed => {
                self.task.requests = self.task.requests.map(|left| left + withdrawn);
            }
            Pacing::Requests => {
                self.again.extend(flow.in_flight.iter().map(|asked| asked.intended_ns));
            }
            // The requests of a connection on schedule do not move to another connection.
            Pacing::Connections => {}
        }
        flow.in_flight.clear();
        self.protocol.take_back(&mut flow.state);
    }

    /// Repeats the requests in flight on a new connection, if the server has ended a kept
    /// connection before any byte of their replies: it may have closed the idle connection before
    /// they arrived (RFC 9110 section 9.2.2, RFC 9112 section 9.3.1). Returns false if they are
    /// lost instead. A repeated request is not repeated again.
    pub fn repeat_later(&mut self, flow: &mut Flow<P::State>, now_ns: u64) -> bool {
        let is_kept = flow.sent > flow.in_flight.len() as u64;
        let may = is_kept
            && !flow.in_flight.is_empty()
            && !flow.in_flight.iter().any(Asked::is_repeat)
            // The requests of a connection on schedule do not move to another connection.
            && self.pacing() != Pacing::Connections
            && self.protocol.may_repeat(&flow.state);
        if may && self.is_stopped() {
            // No connection is opened any more.
            self.stats.unfinished += flow.in_flight.len() as u64;
            self.note_waits(flow, now_ns);
            flow.in_flight.clear();
        } else if may {
            self.repeats.extend(flow.in_flight.drain(..));
            self.protocol.take_back(&mut flow.state);
            self.repeats_reserved += 1;
        }
        may
    }

    /// Returns true if a part of a reply has arrived.
    fn has_begun(&self, flow: &Flow<P::State>) -> bool {
        flow.partial || !self.protocol.is_between_replies(&flow.state)
    }

    /// Counts the requests in flight as lost.
    fn lose(&mut self, flow: &mut Flow<P::State>, now_ns: u64) {
        self.stats.lost += flow.in_flight.len() as u64;
        self.note_waits(flow, now_ns);
        flow.in_flight.clear();
    }

    /// Records the time that the requests in flight have waited so far.
    fn note_waits(&mut self, flow: &Flow<P::State>, now_ns: u64) {
        if self.pacing() == Pacing::Requests {
            for asked in &flow.in_flight {
                self.stats.latency_ns.saturating_record(now_ns - asked.intended_ns);
            }
        }
    }

    /// Counts an error and aborts the connection.
    #[cold]
    pub fn fail(
        &mut self,
        flow: &mut Flow<P::State>,
        connection: &mut Connection<'_>,
        fault: Fault,
    ) {
        self.stats.errors.count(fault);
        self.lose(flow, self.now_ns());
        flow.ending = true;
        flow.retry_later = true;
        connection.abort();
    }

    /// Counts bytes that no request asked for as an error.
    #[cold]
    pub fn refuse_unasked(
        &mut self,
        flow: &mut Flow<P::State>,
        connection: &mut Connection<'_>,
        bytes: usize,
    ) {
        let detail =
            format_args!("connection {}: received {bytes} bytes without a request", flow.number);
        let fault = Fault::new(ErrorKind::Protocol, detail);
        self.fail(flow, connection, fault);
    }

    /// Closes a connection that the server has announced to end while it was idle.
    #[cold]
    pub fn leave_idle(&mut self, flow: &mut Flow<P::State>, connection: &mut Connection<'_>) {
        self.stats.closed_idle += 1;
        flow.ending = true;
        connection.close();
    }

    /// Handles the peer's FIN on a connection that ringload has not closed.
    pub fn ended_by_peer(
        &mut self,
        flow: &mut Flow<P::State>,
        connection: &mut Connection<'_>,
        now_ns: u64,
    ) {
        let has_begun = self.has_begun(flow);
        if !has_begun && self.repeat_later(flow, now_ns) {
            flow.ending = true;
            return connection.close();
        }
        let pending = flow.in_flight.len() as u64;
        if !has_begun && pending > 0 {
            self.stats.unanswered_at_close += pending;
        }
        if !has_begun && (pending == 0 || self.task.drain_ok) {
            self.stats.closed_idle += u64::from(pending == 0);
            return self.let_go(flow, connection, now_ns);
        }
        match self.protocol.end(&mut flow.state) {
            Ok(answer) => self.count(flow, connection, answer, now_ns),
            Err(_) if self.task.expect_disconnects => {
                self.stats.disconnects += 1;
                self.let_go(flow, connection, now_ns);
            }
            Err(fault) => self.fail(flow, connection, fault),
        }
    }

    /// Closes a connection that the server was allowed to end.
    fn let_go(&mut self, flow: &mut Flow<P::State>, connection: &mut Connection<'_>, now_ns: u64) {
        self.lose(flow, now_ns);
        flow.ending = true;
        // A server that closes without ever answering would cause a tight loop.
        flow.retry_later = !flow.has_received;
        connection.close();
    }

    /// Handles the timer of a connection.
    pub fn check_timeout(&mut self, flow: &mut Flow<P::State>, connection: &mut Connection<'_>) {
        let Some(oldest) = flow.in_flight.front() else {
            // A request that is sent in the meantime is checked when this timer expires.
            return connection.set_timer(0, Some(self.task.timeout));
        };
        let waited = Duration::from_nanos(self.now_ns() - oldest.sent_ns);
        // The timer is set for the remaining time. A timer per request would dominate its cost.
        match self.task.timeout.checked_sub(waited) {
            Some(left) if !left.is_zero() => connection.set_timer(0, Some(left)),
            _ => {
                let fault = Fault::new(
                    ErrorKind::Timeout,
                    format_args!("connection {}: no reply for {waited:.1?}", flow.number),
                );
                self.fail(flow, connection, fault);
            }
        }
    }

    /// Handles the end of a connection.
    pub fn closed(&mut self, mut flow: Flow<P::State>, reason: Reason, now_ns: u64) {
        self.open -= 1;
        if !flow.ending {
            flow.retry_later = self.judge(&mut flow, reason, now_ns);
        }
        match self.pacing() {
            Pacing::Connections if !flow.is_done => {
                self.stats.session_ns.saturating_record(now_ns - flow.intended_ns);
            }
            Pacing::Connections => {}
            _ => self.to_retry += usize::from(flow.retry_later),
        }
    }

    /// Classifies the end of a connection that ringload has not closed. Returns true if it must not
    /// be replaced at once.
    #[cold]
    fn judge(&mut self, flow: &mut Flow<P::State>, reason: Reason, now_ns: u64) -> bool {
        let kind = match reason {
            Reason::Drained | Reason::Stopped if self.is_interrupted() => {
                self.stats.unfinished += flow.in_flight.len() as u64;
                self.note_waits(flow, now_ns);
                return true;
            }
            Reason::Drained | Reason::Stopped => ErrorKind::Timeout,
            Reason::PeerReset | Reason::BrokenPipe => ErrorKind::Reset,
            Reason::PeerFin => ErrorKind::Eof,
            _ => ErrorKind::Other,
        };
        let by_server = matches!(kind, ErrorKind::Reset | ErrorKind::Eof);
        if by_server && !self.has_begun(flow) && self.repeat_later(flow, now_ns) {
            return false;
        }
        if by_server && self.task.expect_disconnects {
            self.stats.disconnects += 1;
            self.lose(flow, now_ns);
            return !flow.has_received;
        }
        self.stats.errors.count(Fault::new(
            kind,
            format_args!(
                "connection {}: ended ({}) with {} of {} requests unanswered",
                flow.number,
                reason.name(),
                flow.in_flight.len(),
                flow.sent
            ),
        ));
        self.lose(flow, now_ns);
        true
    }
}
