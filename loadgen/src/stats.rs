//! The counts. Each shard has a value and moves it from time to time into one that all share.

use hdrhistogram::Histogram;
use ringload_lifecycle::fault::{ErrorKind, Fault};
use ringload_lifecycle::report::histogram;

/// Counts and times of a part of a run.
pub struct Stats {
    /// Requests whose bytes were handed to the engine.
    pub requests: u64,
    /// Pipelined requests among them that the peer announced not to answer; they are sent again.
    pub withdrawn: u64,
    /// Requests that were sent a second time, because the server ended a kept connection before any
    /// byte of the reply.
    pub repeated: u64,
    /// Connections that the server ended with replies missing, where that was expected.
    pub disconnects: u64,
    /// Complete replies, correct or not.
    pub replies: u64,
    /// Bytes handed to the engine.
    pub bytes_sent: u64,
    /// Bytes received and checked.
    pub bytes_received: u64,
    /// Connections opened.
    pub opened: u64,
    /// Requests without a reply at the end of the run, which are no errors.
    pub unfinished: u64,
    /// Requests whose connection ended before their reply.
    pub lost: u64,
    /// Requests among them without any byte of a reply when the peer closed the connection cleanly.
    pub unanswered_at_close: u64,
    /// Connections that the peer closed cleanly with no request in flight.
    pub closed_idle: u64,
    /// Connects refused where that was allowed.
    pub refused: u64,
    /// HTTP: replies whose body is not the expected one; known at the end of the run.
    pub deviating_bodies: u64,
    /// Open loop: requests, or connections, whose intended time came within the run.
    pub intended: u64,
    /// Requests and connects among them that were never made.
    pub unsent: u64,
    /// Connections on schedule that received all their replies.
    pub sessions: u64,
    /// Time of the last reply, nanoseconds since the start of the run.
    pub last_reply_ns: u64,
    /// Time from the sending of a request to the last byte of its reply, nanoseconds.
    pub service_ns: Histogram<u64>,
    /// Open loop: from a request's intended time to the last byte of its reply, nanoseconds; of one
    /// that got none, to when that was clear.
    pub latency_ns: Histogram<u64>,
    /// From a connect to its success, nanoseconds; of connections on schedule, from the intended
    /// time.
    pub connect_ns: Histogram<u64>,
    /// Connections on schedule: from the intended time to the first byte received, nanoseconds.
    pub first_byte_ns: Histogram<u64>,
    /// Connections on schedule: from the intended time to the last byte of the last reply,
    /// nanoseconds; of one that did not come to that, to its end.
    pub session_ns: Histogram<u64>,
    /// Open loop: delay of a request, or of a connect, that ringload itself caused, nanoseconds.
    pub lag_ns: Histogram<u64>,
    /// Replies by status, in the order of their first appearance.
    pub statuses: Vec<(u16, u64)>,
    /// The errors.
    pub errors: Errors,
}

impl Stats {
    /// Creates empty counts.
    #[must_use]
    pub fn new() -> Self {
        Self {
            requests: 0,
            withdrawn: 0,
            repeated: 0,
            disconnects: 0,
            replies: 0,
            bytes_sent: 0,
            bytes_received: 0,
            opened: 0,
            unfinished: 0,
            lost: 0,
            unanswered_at_close: 0,
            closed_idle: 0,
            refused: 0,
            deviating_bodies: 0,
            intended: 0,
            unsent: 0,
            sessions: 0,
            last_reply_ns: 0,
            service_ns: histogram(),
            latency_ns: histogram(),
            connect_ns: histogram(),
            first_byte_ns: histogram(),
            session_ns: histogram(),
            lag_ns: histogram(),
            statuses: Vec::new(),
            errors: Errors::default(),
        }
    }

    /// Counts a reply's status.
    #[inline]
    pub fn count_status(&mut self, status: u16, by: u64) {
        match self.statuses.iter_mut().find(|(seen, _)| *seen == status) {
            Some((_, count)) => *count += by,
            None => self.statuses.push((status, by)),
        }
    }

    /// Returns each histogram with its name in the report.
    #[must_use]
    pub fn histograms(&self) -> [(&'static str, &Histogram<u64>); 6] {
        [
            ("service_ns", &self.service_ns),
            ("latency_ns", &self.latency_ns),
            ("connect_ns", &self.connect_ns),
            ("first_byte_ns", &self.first_byte_ns),
            ("session_ns", &self.session_ns),
            ("lag_ns", &self.lag_ns),
        ]
    }

    fn histograms_mut(&mut self) -> [&mut Histogram<u64>; 6] {
        [
            &mut self.service_ns,
            &mut self.latency_ns,
            &mut self.connect_ns,
            &mut self.first_byte_ns,
            &mut self.session_ns,
            &mut self.lag_ns,
        ]
    }

    /// Moves everything from `other` into this one and leaves it empty.
    pub fn absorb(&mut self, other: &mut Self) {
        for (into, from) in [
            (&mut self.requests, &mut other.requests),
            (&mut self.withdrawn, &mut other.withdrawn),
            (&mut self.repeated, &mut other.repeated),
            (&mut self.disconnects, &mut other.disconnects),
            (&mut self.replies, &mut other.replies),
            (&mut self.bytes_sent, &mut other.bytes_sent),
            (&mut self.bytes_received, &mut other.bytes_received),
            (&mut self.opened, &mut other.opened),
            (&mut self.unfinished, &mut other.unfinished),
            (&mut self.lost, &mut other.lost),
            (&mut self.unanswered_at_close, &mut other.unanswered_at_close),
            (&mut self.closed_idle, &mut other.closed_idle),
            (&mut self.refused, &mut other.refused),
            (&mut self.deviating_bodies, &mut other.deviating_bodies),
            (&mut self.intended, &mut other.intended),
            (&mut self.unsent, &mut other.unsent),
            (&mut self.sessions, &mut other.sessions),
        ] {
            *into += std::mem::take(from);
        }
        self.last_reply_ns = self.last_reply_ns.max(other.last_reply_ns);
        for (into, from) in self.histograms_mut().into_iter().zip(other.histograms_mut()) {
            if !from.is_empty() {
                into.add(&*from).expect("all histograms have the same bounds");
                from.reset();
            }
        }
        for (status, count) in other.statuses.drain(..) {
            self.count_status(status, count);
        }
        self.errors.absorb(&mut other.errors);
    }
}

impl Default for Stats {
    fn default() -> Self {
        Self::new()
    }
}

/// Errors by kind, with the first message of each.
#[derive(Debug, Default)]
pub struct Errors {
    counts: [u64; ErrorKind::ALL.len()],
    first: [Option<String>; ErrorKind::ALL.len()],
}

impl Errors {
    /// Counts an error.
    #[cold]
    pub fn count(&mut self, fault: Fault) {
        let at = fault.kind as usize;
        self.counts[at] += 1;
        self.first[at].get_or_insert(fault.detail);
    }

    /// Returns the number of errors of a kind.
    #[must_use]
    pub fn of(&self, kind: ErrorKind) -> u64 {
        self.counts[kind as usize]
    }

    /// Returns the first message of a kind.
    #[must_use]
    pub fn first(&self, kind: ErrorKind) -> Option<&str> {
        self.first[kind as usize].as_deref()
    }

    /// Returns the number of errors.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    fn absorb(&mut self, other: &mut Self) {
        for (into, from) in self.counts.iter_mut().zip(&mut other.counts) {
            *into += std::mem::take(from);
        }
        for (into, from) in self.first.iter_mut().zip(&mut other.first) {
            if let Some(detail) = from.take() {
                into.get_or_insert(detail);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_numbered_in_order_and_named_apart() {
        let mut names = std::collections::HashSet::new();
        for (at, kind) in ErrorKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, at);
            assert!(names.insert(kind.name()));
        }
    }

    #[test]
    fn absorbing_moves_everything_and_keeps_the_first_words() {
        let mut all = Stats::new();
        for round in 1..=2 {
            let mut part = Stats::new();
            part.requests = 10 * round;
            (part.withdrawn, part.replies) = (1, 9);
            part.last_reply_ns = 100 * (3 - round);
            part.service_ns.saturating_record(1_000 * round);
            part.connect_ns.saturating_record(5);
            part.histograms_mut().into_iter().for_each(|times| times.saturating_record(1_000));
            (part.intended, part.unsent, part.lost) = (12, 2, 3);
            (part.closed_idle, part.refused, part.sessions) = (4, 5, 6);
            part.count_status(200, 8);
            part.count_status(404, 1);
            part.errors.count(Fault::new(ErrorKind::Reset, format_args!("round {round}")));
            all.absorb(&mut part);
            assert_eq!((part.requests, part.replies, part.service_ns.len()), (0, 0, 0));
            assert_eq!((part.errors.total(), part.statuses.len()), (0, 0));
        }
        assert_eq!((all.requests, all.withdrawn, all.replies), (30, 2, 18));
        assert_eq!(all.last_reply_ns, 200);
        assert_eq!((all.intended, all.unsent, all.lost), (24, 4, 6));
        assert_eq!((all.closed_idle, all.refused, all.sessions), (8, 10, 12));
        assert_eq!(all.histograms().map(|(_, times)| times.len()), [4, 2, 4, 2, 2, 2]);
        assert_eq!(all.statuses, [(200, 16), (404, 2)]);
        assert_eq!(all.errors.of(ErrorKind::Reset), 2);
        assert_eq!(all.errors.first(ErrorKind::Reset), Some("round 1"));
        assert_eq!(all.errors.total(), 2);
    }
}
