//! The exchange of requests and replies; all replies to a request with a status must have the same
//! body.

mod requests;
mod statuses;

pub use requests::{Request, Requests};
pub use statuses::Statuses;

use super::{Answer, Protocol, Step};
use crate::fault::{ErrorKind, Fault};
use crate::http::bodies::{Bodies, Deviant};
use crate::http::fingerprint::Fingerprint;
use crate::http::reply::{Last, Parser, Reply};
use requests::Draw;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The HTTP protocol of one shard.
pub struct Http {
    requests: Requests,
    /// The only request, repeated up to the maximum number in flight.
    only: Option<Arc<[u8]>>,
    draw: Draw,
    /// Requests that were taken back, to be sent before others are drawn.
    again: VecDeque<usize>,
    /// The replies to each request.
    kinds: Vec<Kind>,
    learnt: Arc<Learnt>,
    /// Replies with another body.
    deviating: u64,
    rules: Rules,
}

/// The replies to one request, as far as this shard knows them.
#[derive(Default)]
struct Kind {
    last: Last,
    /// The expected bodies, by status.
    expected: Vec<(u16, Fingerprint)>,
}

/// The state of one connection.
#[derive(Debug, Default)]
pub struct HttpState {
    number: u64,
    parser: Parser,
    /// Places of the requests in flight, oldest first. Empty if the run has one request only.
    asked: VecDeque<usize>,
}

impl HttpState {
    /// Returns the place of the request whose reply comes next.
    fn oldest(&self) -> usize {
        self.asked.front().copied().unwrap_or_default()
    }
}

/// The replies that are no errors.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Bodies may differ.
    pub vary_ok: bool,
    /// The expected statuses; `None` for all below 400.
    pub statuses: Option<Statuses>,
}

impl Rules {
    fn allow(&self, status: u16) -> bool {
        self.statuses.as_ref().map_or(status < 400, |statuses| statuses.contain(status))
    }
}

/// The bodies of a run, shared by all shards.
#[derive(Debug)]
pub struct Learnt {
    /// The bodies of each request.
    bodies: Mutex<Vec<Bodies>>,
    deviating: AtomicU64,
    requests: Requests,
}

impl Learnt {
    /// Creates the state of a run that has not begun.
    #[must_use]
    pub fn new(requests: Requests) -> Self {
        let bodies = requests.all().iter().map(|_| Bodies::default()).collect();
        Self { bodies: Mutex::new(bodies), deviating: AtomicU64::new(0), requests }
    }

    /// Ends the run. Returns the number of replies with another body than the expected one, and an
    /// error for each of them that no shard has reported.
    #[must_use]
    pub fn finish(&self) -> (u64, Vec<Fault>) {
        let faults: Vec<Fault> = self.late(true).into_iter().map(|(_, fault)| fault).collect();
        (self.deviating.load(Ordering::Relaxed) + faults.len() as u64, faults)
    }

    /// As [`Protocol::late`].
    fn late(&self, is_over: bool) -> Vec<(u64, Fault)> {
        let mut bodies = self.bodies.lock().unwrap_or_else(PoisonError::into_inner);
        let mut faults = Vec::new();
        for (place, bodies) in bodies.iter_mut().enumerate() {
            if is_over {
                bodies.finish();
            }
            let late = bodies.late().into_iter();
            faults.extend(late.map(|late| (late.tag, differs(&self.requests, place, &late))));
        }
        faults
    }
}

/// The error of a reply to the request at `place` with another body.
fn differs(requests: &Requests, place: usize, deviant: &Deviant) -> Fault {
    named(requests, place, ErrorKind::WrongBytes, deviant.text())
}

/// An error that names the request if there are several.
fn named(requests: &Requests, place: usize, kind: ErrorKind, text: String) -> Fault {
    match requests.all() {
        [_] => Fault::new(kind, text),
        all => Fault::new(kind, format_args!("{}: {text}", all[place].name)),
    }
}

impl Http {
    /// Creates the protocol of `shard`, with up to `pipeline` requests at once on a connection.
    #[must_use]
    pub fn new(
        (requests, rules): (Requests, Rules),
        pipeline: usize,
        learnt: Arc<Learnt>,
        (seed, shard): (u64, usize),
    ) -> Self {
        let only = match requests.all() {
            [only] => Some(only.bytes.repeat(pipeline).into()),
            _ => None,
        };
        Self {
            draw: Draw::new(requests.clone(), seed, shard as u64),
            only,
            again: VecDeque::new(),
            kinds: requests.all().iter().map(|_| Kind::default()).collect(),
            requests,
            learnt,
            deviating: 0,
            rules,
        }
    }

    fn judge(&mut self, number: u64, place: usize, reply: Reply) -> Answer {
        let fault = if self.rules.allow(reply.status) {
            match self.expected(number, place, reply) {
                Some(expected) if expected != reply.body => self.deviates(place, reply, expected),
                _ => None,
            }
        } else {
            let text = format!("status {}", reply.status);
            Some(named(&self.requests, place, ErrorKind::BadStatus, text))
        };
        Answer { place: 0, status: Some(reply.status), fault, last: reply.close }
    }

    /// Returns the expected body, or `None` if it is not known yet.
    fn expected(&mut self, number: u64, place: usize, reply: Reply) -> Option<Fingerprint> {
        let of = &mut self.kinds[place].expected;
        let known = of.iter().find(|(status, _)| *status == reply.status);
        if let Some((_, expected)) = known {
            return Some(*expected);
        }
        let mut bodies = self.learnt.bodies.lock().unwrap_or_else(PoisonError::into_inner);
        let expected = bodies[place].take(reply.status, reply.body, number)?;
        of.push((reply.status, expected));
        Some(expected)
    }

    #[cold]
    fn deviates(&mut self, place: usize, reply: Reply, expected: Fingerprint) -> Option<Fault> {
        self.deviating += 1;
        let deviant = Deviant::new(reply.status, reply.body, expected, 0);
        (!self.rules.vary_ok).then(|| differs(&self.requests, place, &deviant))
    }
}

impl Drop for Http {
    fn drop(&mut self) {
        self.learnt.deviating.fetch_add(self.deviating, Ordering::Relaxed);
    }
}

impl Protocol for Http {
    type State = HttpState;

    const MAY_SAY_GOODBYE: bool = true;

    /// Servers and proxies end an idle connection with 408 (RFC 9110 section 15.5.9).
    fn is_goodbye(answer: &Answer) -> bool {
        answer.status == Some(408) && answer.last
    }

    fn resume(&self, number: u64, _requests: u64) -> HttpState {
        HttpState { number, ..HttpState::default() }
    }

    fn is_between_replies(&self, state: &HttpState) -> bool {
        state.parser.is_between_replies()
    }

    fn may_repeat(&self, state: &HttpState) -> bool {
        match self.requests.all() {
            [only] => only.is_idempotent,
            all => state.asked.iter().all(|place| all[*place].is_idempotent),
        }
    }

    fn take_back(&mut self, state: &mut HttpState) {
        self.again.append(&mut state.asked);
    }

    fn request(&mut self, state: &mut HttpState, count: usize, mut send: impl FnMut(&[u8])) -> u64 {
        if let Some(only) = &self.only {
            let bytes = &only[..self.requests.all()[0].bytes.len() * count];
            send(bytes);
            return bytes.len() as u64;
        }
        let mut sent = 0;
        for _ in 0..count {
            let place = self.again.pop_front().unwrap_or_else(|| self.draw.next());
            let bytes = &self.requests.all()[place].bytes;
            send(bytes);
            state.asked.push_back(place);
            sent += bytes.len() as u64;
        }
        sent
    }

    fn receive(&mut self, state: &mut HttpState, bytes: &[u8]) -> Result<Step, Fault> {
        let place = state.oldest();
        let is_head = self.requests.all()[place].is_head;
        let step = state
            .parser
            .advance(bytes, is_head, &mut self.kinds[place].last)
            .map_err(|wrong| named(&self.requests, place, ErrorKind::Protocol, wrong.0.into()))?;
        let answer = step.reply.map(|reply| self.judge(state.number, place, reply));
        // A request that meets the end of an idle connection stays in flight, see `take_back`.
        if answer.as_ref().is_some_and(|answer| !Self::is_goodbye(answer)) {
            state.asked.pop_front();
        }
        Ok(Step { used: step.used, need: 0, answer })
    }

    fn end(&mut self, state: &mut HttpState) -> Result<Answer, Fault> {
        let when = if state.parser.is_between_replies() { "before" } else { "in the middle of" };
        let place = state.oldest();
        let reply = state.parser.end();
        reply.map(|reply| self.judge(state.number, place, reply)).ok_or_else(|| {
            let text = format!("the server closed the connection (FIN) {when} a reply");
            named(&self.requests, place, ErrorKind::Eof, text)
        })
    }

    fn late(&mut self, is_over: bool) -> Vec<(u64, Fault)> {
        let late = self.learnt.late(is_over).into_iter();
        late.filter(|_| !self.rules.vary_ok).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The requests of a run: these methods and paths, of equal weight.
    fn requests(of: &[(&str, &str)]) -> Requests {
        let request = |(method, path): &(&str, &str)| {
            let url = format!("http://localhost:81{path}").parse().expect("a URL");
            Request::new(method, &url, &[("X".into(), "y".into())], None, 1)
        };
        Requests::new(of.iter().map(request).collect())
    }

    fn learnt() -> Arc<Learnt> {
        Arc::new(Learnt::new(requests(&[("GET", "/a")])))
    }

    fn http(pipeline: usize, learnt: &Arc<Learnt>) -> Http {
        let requests = (learnt.requests.clone(), Rules::default());
        Http::new(requests, pipeline, learnt.clone(), (7, 0))
    }

    fn answer(http: &mut Http, bytes: &[u8]) -> Answer {
        let step = http.receive(&mut HttpState::default(), bytes).expect("a reply");
        assert_eq!(step.used, bytes.len());
        step.answer.expect("a whole reply")
    }

    #[test]
    fn requests_are_sent_as_often_as_asked() {
        let mut http = http(3, &learnt());
        let mut bytes = Vec::new();
        let mut state = http.open(0);
        let one = "GET /a HTTP/1.1\r\nHost: localhost:81\r\nX: y\r\n\r\n";
        for count in [3, 1] {
            bytes.clear();
            let announced = http.request(&mut state, count, |part| bytes.extend_from_slice(part));
            assert_eq!(bytes, one.repeat(count).as_bytes());
            assert_eq!(announced, bytes.len() as u64);
        }
    }

    #[test]
    fn each_reply_belongs_to_the_oldest_request() {
        let learnt = Learnt::new(requests(&[("GET", "/a"), ("HEAD", "/b"), ("POST", "/c")]));
        let mut http = http(1, &Arc::new(learnt));
        let mut state = http.open(0);
        let mut sent = Vec::new();
        http.request(&mut state, 60, |bytes| {
            sent.push(String::from_utf8_lossy(&bytes[..7]).trim().to_string());
        });
        assert!(["GET /a", "HEAD /b", "POST /c"].iter().all(|one| sent.iter().any(|it| it == one)));
        assert!(!http.may_repeat(&state), "there is a POST");
        for (place, request) in sent.iter().enumerate() {
            let letter = request.as_bytes()[request.len() - 1] as char;
            let head = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n";
            let body = if letter == 'b' { String::new() } else { letter.to_string() };
            let reply = format!("{head}{body}HTTP");
            let step = http.receive(&mut state, reply.as_bytes()).expect("a reply");
            assert_eq!(step.used, reply.len() - 4, "{place}");
            assert_eq!(step.answer.expect("it is whole").fault, None, "{place}");
        }
        assert!(state.asked.is_empty() && http.may_repeat(&state));
        // Another body is an error that names the request.
        http.again.push_back(0);
        http.request(&mut state, 1, |_| ());
        let wrong = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nc";
        let answer = http.receive(&mut state, wrong).expect("a reply").answer.expect("whole");
        let fault = answer.fault.expect("another body");
        assert!(fault.detail.starts_with("GET /a: the body differs"), "{}", fault.detail);
    }

    #[test]
    fn requests_that_are_taken_back_are_sent_first() {
        let learnt = Learnt::new(requests(&[("GET", "/a"), ("GET", "/b")]));
        let mut http = http(1, &Arc::new(learnt));
        let mut state = http.open(0);
        let take = |http: &mut Http, state: &mut HttpState, count| {
            let mut sent = Vec::new();
            http.request(state, count, |bytes| sent.push(bytes[5]));
            sent
        };
        let sent = take(&mut http, &mut state, 20);
        let ok = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        http.receive(&mut state, ok).expect("a reply");
        // It answers none of them.
        let goodbye =
            b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
        http.receive(&mut state, goodbye).expect("a reply");
        http.take_back(&mut state);
        let mut other = http.open(1);
        assert_eq!(take(&mut http, &mut other, 19), sent[1..]);
    }

    #[test]
    fn every_body_must_be_the_expected_one_on_every_shard() {
        let learnt = learnt();
        let (mut one, mut other) = (http(1, &learnt), http(1, &learnt));
        let good = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        let must = Answer { place: 0, status: Some(200), fault: None, last: false };
        assert_eq!(answer(&mut one, good), must);
        assert_eq!(answer(&mut other, good).fault, None);
        let chunked =
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
        assert_eq!(answer(&mut other, chunked).fault, None);
        for wrong in [
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhellp".as_slice(),
            b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhell",
        ] {
            let fault = answer(&mut one, wrong).fault.expect("not the body");
            assert_eq!(fault.kind, ErrorKind::WrongBytes);
        }
        let found = b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(answer(&mut one, found).fault, None);
        drop((one, other));
        assert_eq!(learnt.finish(), (2, Vec::new()));
    }

    #[test]
    fn an_odd_first_reply_is_reported_at_the_end() {
        let learnt = learnt();
        let mut one = http(1, &learnt);
        for body in ["early", "hello", "hello", "hello"] {
            let reply = format!("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{body}");
            assert_eq!(answer(&mut one, reply.as_bytes()).fault, None);
        }
        drop(one);
        let (deviating, faults) = learnt.finish();
        assert_eq!((deviating, faults.len()), (1, 1));
        assert_eq!(faults[0].kind, ErrorKind::WrongBytes);
    }

    #[test]
    fn bodies_that_may_vary_are_counted() {
        let learnt = learnt();
        let mut one = http(1, &learnt);
        one.rules.vary_ok = true;
        for body in ["hello", "hello", "other", "hello", "third"] {
            let reply = format!("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{body}");
            assert_eq!(answer(&mut one, reply.as_bytes()).fault, None);
        }
        drop(one);
        assert_eq!(learnt.finish(), (2, Vec::new()));
    }

    #[test]
    fn a_bad_status_is_counted_and_its_body_not_learnt() {
        let mut http = http(1, &learnt());
        let bad = b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbusy";
        let seen = answer(&mut http, bad);
        assert_eq!(seen.fault.map(|fault| fault.kind), Some(ErrorKind::BadStatus));
        assert!(seen.last);
        let good = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        assert_eq!(answer(&mut http, good).fault, None);
    }

    #[test]
    fn only_expected_statuses_are_no_errors() {
        let learnt = learnt();
        let mut http = http(1, &learnt);
        http.rules.statuses = Some("304,4xx".parse().expect("a list"));
        let reply = |status, body| {
            format!("HTTP/1.1 {status} X\r\nContent-Length: 1\r\n\r\n{body}").into_bytes()
        };
        let kind = |answer: Answer| answer.fault.map(|fault| fault.kind);
        for _ in 0..2 {
            assert_eq!(kind(answer(&mut http, &reply(404, "a"))), None);
            assert_eq!(kind(answer(&mut http, &reply(200, "a"))), Some(ErrorKind::BadStatus));
        }
        // The body of an expected status must be the same each time.
        assert_eq!(kind(answer(&mut http, &reply(404, "b"))), Some(ErrorKind::WrongBytes));
        let not_modified = b"HTTP/1.1 304 Not Modified\r\n\r\n";
        assert_eq!(kind(answer(&mut http, not_modified)), None);
    }
}
