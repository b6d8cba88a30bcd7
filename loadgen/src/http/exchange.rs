//! GET requests for one URL; every reply must have the body of the first one.

use super::Url;
use super::fingerprint::Fingerprint;
use super::reply::{Last, Parser, Reply};
use crate::protocol::{Answer, ErrorKind, Fault, Protocol, Step};
use std::sync::{Arc, OnceLock};

/// The HTTP protocol of one shard.
pub struct Http {
    /// The request, repeated up to the maximum number in flight.
    requests: Arc<[u8]>,
    request_bytes: usize,
    last: Last,
    /// The body of the first good reply of the run, shared by all shards.
    learnt: Arc<OnceLock<Fingerprint>>,
}

impl Http {
    /// Creates the protocol for `url` with up to `pipeline` requests at once.
    #[must_use]
    pub fn new(
        url: &Url,
        fields: &[(String, String)],
        pipeline: usize,
        learnt: Arc<OnceLock<Fingerprint>>,
    ) -> Self {
        let request = request(url, fields);
        Self {
            requests: request.repeat(pipeline).into(),
            request_bytes: request.len(),
            last: Last::default(),
            learnt,
        }
    }

    fn judge(&self, reply: Reply) -> Answer {
        let fault = if reply.status >= 400 {
            Some(Fault::new(ErrorKind::BadStatus, format_args!("status {}", reply.status)))
        } else {
            let must = *self.learnt.get_or_init(|| reply.body);
            (reply.body != must).then(|| differs(reply.body, must))
        };
        Answer { place: 0, status: Some(reply.status), fault, last: reply.close }
    }
}

impl Protocol for Http {
    type State = Parser;

    const MAY_SAY_GOODBYE: bool = true;

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

#[cold]
fn differs(body: Fingerprint, must: Fingerprint) -> Fault {
    let detail = if body.length == must.length {
        format!("the body differs from the first reply's; both have {} bytes", body.length)
    } else {
        format!("the body has {} bytes, but the first reply's has {}", body.length, must.length)
    };
    Fault::new(ErrorKind::WrongBytes, detail)
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

    fn http(pipeline: usize, learnt: &Arc<OnceLock<Fingerprint>>) -> Http {
        let url: Url = "http://localhost:81/a".parse().expect("a URL");
        Http::new(&url, &[("X".into(), "y".into())], pipeline, learnt.clone())
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
    fn every_body_must_be_the_first_ones_on_every_shard() {
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
            let fault = answer(&mut other, wrong).fault.expect("not the body");
            assert_eq!(fault.kind, ErrorKind::WrongBytes);
        }
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
}
