//! GET requests for one URL; all replies with a status must have the same body.

use super::bodies::{Bodies, Deviant};
use super::fingerprint::Fingerprint;
use super::reply::{Last, Parser, Reply};
use super::{Statuses, Url};
use crate::protocol::{Answer, ErrorKind, Fault, Protocol, Step};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The HTTP protocol of one shard.
pub struct Http {
    /// The request, repeated up to the maximum number in flight.
    requests: Arc<[u8]>,
    request_bytes: usize,
    last: Last,
    learnt: Arc<Learnt>,
    /// The expected bodies, by status, as far as this shard knows them.
    expected: Vec<(u16, Fingerprint)>,
    /// Replies with another body.
    deviating: u64,
    rules: Rules,
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
#[derive(Debug, Default)]
pub struct Learnt {
    bodies: Mutex<Bodies>,
    deviating: AtomicU64,
}

impl Learnt {
    /// Ends the run. Returns the number of replies with another body than the expected one, and an
    /// error for each of them that no shard has reported.
    #[must_use]
    pub fn finish(&self) -> (u64, Vec<Fault>) {
        let mut bodies = self.bodies.lock().unwrap_or_else(PoisonError::into_inner);
        bodies.finish();
        let late = bodies.late();
        let deviating = self.deviating.load(Ordering::Relaxed) + late.len() as u64;
        (deviating, late.iter().map(fault).collect())
    }
}

impl Http {
    /// Creates the protocol for `url` with up to `pipeline` requests at once.
    #[must_use]
    pub fn new(
        url: &Url,
        fields: &[(String, String)],
        pipeline: usize,
        learnt: Arc<Learnt>,
        rules: Rules,
    ) -> Self {
        let request = request(url, fields);
        Self {
            requests: request.repeat(pipeline).into(),
            request_bytes: request.len(),
            last: Last::default(),
            learnt,
            expected: Vec::new(),
            deviating: 0,
            rules,
        }
    }

    fn judge(&mut self, reply: Reply) -> Answer {
        let fault = if self.rules.allow(reply.status) {
            match self.expected(reply) {
                Some(expected) if expected != reply.body => self.differs(reply, expected),
                _ => None,
            }
        } else {
            Some(Fault::new(ErrorKind::BadStatus, format_args!("status {}", reply.status)))
        };
        Answer { place: 0, status: Some(reply.status), fault, last: reply.close }
    }

    /// Returns the expected body, or `None` if it is not known yet.
    fn expected(&mut self, reply: Reply) -> Option<Fingerprint> {
        let known = self.expected.iter().find(|(status, _)| *status == reply.status);
        if let Some((_, expected)) = known {
            return Some(*expected);
        }
        let mut bodies = self.learnt.bodies.lock().unwrap_or_else(PoisonError::into_inner);
        let expected = bodies.take(reply.status, reply.body, 0)?;
        self.expected.push((reply.status, expected));
        Some(expected)
    }

    #[cold]
    fn differs(&mut self, reply: Reply, expected: Fingerprint) -> Option<Fault> {
        self.deviating += 1;
        (!self.rules.vary_ok).then(|| fault(&Deviant::new(reply.status, reply.body, expected, 0)))
    }
}

impl Drop for Http {
    fn drop(&mut self) {
        self.learnt.deviating.fetch_add(self.deviating, Ordering::Relaxed);
    }
}

fn fault(deviant: &Deviant) -> Fault {
    Fault::new(ErrorKind::WrongBytes, deviant.text())
}

impl Protocol for Http {
    type State = Parser;

    const MAY_SAY_GOODBYE: bool = true;

    /// RFC 9110 section 9.2.2.
    const IS_IDEMPOTENT: bool = true;

    /// Servers and proxies end an idle connection with 408 (RFC 9110 section 15.5.9).
    fn is_goodbye(answer: &Answer) -> bool {
        answer.status == Some(408) && answer.last
    }

    fn open(&self, _number: u64) -> Parser {
        Parser::new()
    }

    fn is_between_replies(&self, state: &Parser) -> bool {
        state.is_between_replies()
    }

    fn request(&mut self, _state: &mut Parser, count: usize, mut send: impl FnMut(&[u8])) -> u64 {
        let bytes = &self.requests[..self.request_bytes * count];
        send(bytes);
        bytes.len() as u64
    }

    fn receive(&mut self, state: &mut Parser, bytes: &[u8]) -> Result<Step, Fault> {
        let step = state
            .advance(bytes, &mut self.last)
            .map_err(|wrong| Fault::new(ErrorKind::Protocol, wrong))?;
        Ok(Step { used: step.used, need: 0, answer: step.reply.map(|reply| self.judge(reply)) })
    }

    fn end(&mut self, state: &mut Parser) -> Result<Answer, Fault> {
        let when = if state.is_between_replies() { "before" } else { "in the middle of" };
        state.end().map(|reply| self.judge(reply)).ok_or_else(|| {
            let detail = format_args!("the server closed the connection (FIN) {when} a reply");
            Fault::new(ErrorKind::Eof, detail)
        })
    }
}

/// Returns the bytes of one request. A `Host` in `fields` replaces that of the URL.
fn request(url: &Url, fields: &[(String, String)]) -> Vec<u8> {
    let mut text = format!("GET {} HTTP/1.1\r\n", url.path);
    if !fields.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        text += &format!("Host: {}\r\n", url.host);
    }
    for (name, value) in fields {
        text += &format!("{name}: {value}\r\n");
    }
    text += "\r\n";
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn http(pipeline: usize, learnt: &Arc<Learnt>) -> Http {
        let url: Url = "http://localhost:81/a".parse().expect("a URL");
        Http::new(&url, &[("X".into(), "y".into())], pipeline, learnt.clone(), Rules::default())
    }

    fn answer(http: &mut Http, bytes: &[u8]) -> Answer {
        let step = http.receive(&mut Parser::new(), bytes).expect("a reply");
        assert_eq!(step.used, bytes.len());
        step.answer.expect("a whole reply")
    }

    #[test]
    fn requests_are_sent_as_often_as_asked() {
        let mut http = http(3, &Arc::default());
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
    fn a_host_given_takes_the_place_of_the_urls() {
        let url: Url = "http://localhost/".parse().expect("a URL");
        let bytes = request(&url, &[("host".into(), "example.org".into())]);
        assert_eq!(bytes, b"GET / HTTP/1.1\r\nhost: example.org\r\n\r\n");
    }

    #[test]
    fn every_body_must_be_the_expected_one_on_every_shard() {
        let learnt = Arc::default();
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
        let learnt = Arc::default();
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
        let learnt = Arc::default();
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
        let mut http = http(1, &Arc::default());
        let bad = b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbusy";
        let seen = answer(&mut http, bad);
        assert_eq!(seen.fault.map(|fault| fault.kind), Some(ErrorKind::BadStatus));
        assert!(seen.last);
        let good = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        assert_eq!(answer(&mut http, good).fault, None);
    }

    #[test]
    fn only_expected_statuses_are_no_errors() {
        let learnt = Arc::default();
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
