//! Checks the replies on one connection: their order, and every byte of their bodies.

use super::asked::{Asked, Bad};
use super::heads::Head;
use super::{Known, Strictness};
use crate::dialect::{Checker, Request};
use crate::dialects::learnt::Follower;
use crate::finding::{Finding, Rule};
use crate::http::reading::{Event, Reading};
use std::sync::Arc;

/// Maximum number of interim replies to one request.
const INTERIM_MAX: u32 = 8;

/// Checks the replies on one connection.
pub struct HttpChecker {
    known: Arc<Known>,
    /// The requests and their places in the sent bytes.
    asked: Vec<(Asked, Request)>,
    /// Index of the request that is answered next.
    next: usize,
    reading: Reading,
    /// Received bytes that the parser waits to see completed.
    unread: Vec<u8>,
    received: u64,
    interim: u32,
    body: Body,
    close: bool,
    replies: u64,
    last: bool,
    /// The last reply refuses a HEAD. It may have a body if the server gave up before it knew the
    /// method.
    may_have_body: bool,
}

/// The expected body of a reply.
enum Body {
    /// Any text, in a refusal.
    Any,
    /// A file up to byte `end`.
    File { follower: Follower, end: u64, misfit: Option<String> },
}

impl HttpChecker {
    /// Creates a checker for the requests `asked`.
    pub fn new(known: Arc<Known>, asked: Vec<(Asked, Request)>) -> Self {
        Self {
            known,
            asked,
            next: 0,
            reading: Reading::new(),
            unread: Vec::new(),
            received: 0,
            interim: 0,
            body: Body::Any,
            close: false,
            replies: 0,
            last: false,
            may_have_body: false,
        }
    }

    fn is_own(&self) -> bool {
        self.known.strictness == Strictness::Own
    }

    fn begin(&mut self, head: Head, to_head: bool, sent: u64) -> Result<(), Finding> {
        if head.status < 200 {
            self.interim += 1;
            return match head.status {
                100 | 102 | 103 if !self.is_own() && self.interim <= INTERIM_MAX => Ok(()),
                status => {
                    Err(self
                        .finding(Rule::Protocol, &format!("unexpected interim status {status}")))
                }
            };
        }
        self.interim = 0;
        self.close = head.close;
        self.may_have_body = to_head && head.status >= 400;
        self.body = Body::Any;
        // A server may end the wait for a request with a 408 (RFC 9110, 15.5.9), and may explain
        // the end of a connection with any other refusal.
        let is_farewell = (400..500).contains(&head.status) && head.close && !self.is_own();
        let Some((asked, Request { start, head_end, end, .. })) =
            self.asked.get(self.next).cloned()
        else {
            let detail =
                format!("a reply with status {}, but all requests had been answered", head.status);
            return if is_farewell { Ok(()) } else { Err(self.finding(Rule::Unasked, &detail)) };
        };
        let is_early = sent < end;
        if sent <= start {
            let detail = format!("status {} before any byte of the request was sent", head.status);
            return if is_farewell { Ok(()) } else { Err(self.finding(Rule::Unasked, &detail)) };
        }
        match asked {
            Asked::Bad(bad) => self.begin_bad(bad, head),
            // HTTP does not require a server to wait for the body of a GET.
            _ if head.status < 400 && (sent < head_end || (is_early && self.is_own())) => {
                Err(self.finding(Rule::Unasked, "a reply before the request was sent"))
            }
            _ => self.begin_file(asked, head, is_early),
        }
    }

    /// Checks the reply to a malformed request: usually a 400 and the end (RFC 9112, 2.2, 3.2, 5.1,
    /// 6.1 and 6.3).
    fn begin_bad(&self, bad: Bad, head: Head) -> Result<(), Finding> {
        let refused = (400..600).contains(&head.status);
        let fine = if self.is_own() {
            refused && head.close
        } else {
            match bad {
                // A recipient may accept these.
                Bad::BareLf | Bad::LengthAndChunks | Bad::LongHead => true,
                Bad::NoHost | Bad::TwoLengths | Bad::SpaceInName | Bad::Tls => refused,
            }
        };
        if fine {
            return Ok(());
        }
        let close = if head.close { "" } else { ", and the connection stays open" };
        Err(self.finding(Rule::Protocol, &format!("answered with status {}{close}", head.status)))
    }

    fn begin_file(&mut self, asked: Asked, head: Head, is_early: bool) -> Result<(), Finding> {
        let Some(at) = asked.file() else { return Ok(()) };
        let file = &self.known.files.0[at];
        let length = file.length;
        let part = asked.part(length);
        if file.varies && matches!(head.status, 200 | 206 | 416) {
            return Ok(());
        }
        let (first, last) = match head.status {
            200 => (0, length),
            206 => match (part, head.range) {
                (Some((first, last)), Some(range)) if range == (first, last, length) => {
                    (first, last + 1)
                }
                (_, range) => {
                    let says = range.map_or_else(
                        || "none".into(),
                        |(first, last, size)| format!("{first}-{last}/{size}"),
                    );
                    let detail = format!("status 206 with a wrong Content-Range: {says}");
                    return Err(self.finding(Rule::Protocol, &detail));
                }
            },
            416 if matches!(asked, Asked::Range { .. }) && part.is_none() => return Ok(()),
            status => return self.begin_refusal(asked, status, head.close, is_early),
        };
        if self.is_own() && head.status == 200 && matches!(asked, Asked::Range { .. }) {
            return Err(self.finding(Rule::BadStatus, "status 200 for a range request"));
        }
        let announced = head.length.filter(|announced| *announced != last - first);
        let misfit = announced.map(|announced| {
            format!("Content-Length announces {announced} bytes, expected {}", last - first)
        });
        if matches!(asked, Asked::Head { .. }) {
            return match misfit {
                Some(misfit) => Err(self.finding(Rule::WrongBytes, &misfit)),
                None => Ok(()),
            };
        }
        self.body = Body::File { follower: Follower::new(at, first), end: last, misfit };
        Ok(())
    }

    /// Checks the refusal of a request that succeeded before the run.
    fn begin_refusal(
        &self,
        asked: Asked,
        status: u16,
        close: bool,
        is_early: bool,
    ) -> Result<(), Finding> {
        let allowed = match status {
            // The rest of the request may have been in flight when the server timed out.
            408 => close,
            // An early refusal concerns the incomplete request.
            400..600 if is_early && !self.is_own() => true,
            // A server may refuse a GET with a body (RFC 9110, 9.3.1).
            400 | 411 | 413 if matches!(asked, Asked::Body { .. }) => !self.is_own(),
            // The server is overloaded.
            429 | 503 => !self.is_own(),
            _ => false,
        };
        match allowed {
            true => Ok(()),
            false => Err(self.finding(Rule::BadStatus, &format!("status {status}"))),
        }
    }

    fn body(&mut self, bytes: &[u8]) -> Result<(), Finding> {
        match &mut self.body {
            Body::Any => Ok(()),
            Body::File { follower, .. } => follower.follow(&self.known.files, bytes),
        }
    }

    fn end(&mut self) -> Result<(), Finding> {
        if let Body::File { follower, end, misfit } = std::mem::replace(&mut self.body, Body::Any) {
            follower.finish(&self.known.files).map_err(|it| self.within(&it))?;
            if let Some(misfit) = misfit {
                return Err(self.finding(Rule::WrongBytes, &misfit));
            }
            if follower.offset() != end {
                let detail = format!("the body ends at byte {} of {end}", follower.offset());
                return Err(self.finding(Rule::CutReply, &detail));
            }
        }
        self.next += 1;
        self.replies += 1;
        self.last = self.close;
        Ok(())
    }

    /// Reads all events. Returns the number of consumed bytes.
    fn read(&mut self, bytes: &[u8], sent: u64) -> Result<usize, Finding> {
        let mut rest = bytes;
        loop {
            if self.last && !rest.is_empty() {
                if self.may_have_body {
                    return Ok(bytes.len());
                }
                let detail = "data after a reply with Connection: close";
                return Err(Finding::new(Rule::Unasked, detail));
            }
            let asked = self.asked.get(self.next).map(|(asked, _)| *asked);
            let to_head = matches!(asked, Some(Asked::Head { .. }));
            match self.reading.advance(&mut rest, to_head, None) {
                Ok(Event::More) => return Ok(bytes.len() - rest.len()),
                Ok(Event::Head(head, section)) => {
                    self.begin(Head::new(head, section), to_head, sent)?;
                }
                Ok(Event::Body(part)) => self.body(part).map_err(|it| self.within(&it))?,
                Ok(Event::End) => self.end()?,
                Err(wrong) => return Err(self.finding(Rule::Protocol, wrong.0)),
            }
        }
    }

    /// Adds the reply to a finding in its body.
    fn within(&self, finding: &Finding) -> Finding {
        self.finding(finding.rule, &finding.detail)
    }

    fn finding(&self, rule: Rule, detail: &str) -> Finding {
        let shown = match self.asked.get(self.next) {
            Some((asked, ..)) => {
                format!("reply {} ({})", self.next + 1, asked.show(&self.known.files))
            }
            None => "after the last reply".into(),
        };
        Finding::new(rule, format_args!("{shown}: {detail}"))
    }
}

impl Checker for HttpChecker {
    fn receive(&mut self, bytes: &[u8], sent: u64) -> Result<(), Finding> {
        self.received += bytes.len() as u64;
        if self.unread.is_empty() {
            let used = self.read(bytes, sent)?;
            self.unread.extend_from_slice(&bytes[used..]);
            return Ok(());
        }
        let mut unread = std::mem::take(&mut self.unread);
        unread.extend_from_slice(bytes);
        let used = self.read(&unread, sent)?;
        unread.drain(..used);
        self.unread = unread;
        Ok(())
    }

    fn fin(&mut self) -> Result<(), Finding> {
        match self.reading.fin(!self.unread.is_empty()) {
            Some(false) => Ok(()),
            Some(true) => self.end(),
            None => {
                let so_far = match &self.body {
                    Body::File { follower, end, .. } => {
                        // Wrong bytes are more significant than the early end.
                        follower.finish(&self.known.files).map_err(|it| self.within(&it))?;
                        format!("the FIN came at byte {} of {end}", follower.offset())
                    }
                    Body::Any => format!("the FIN came after {} bytes in all", self.received),
                };
                Err(self.finding(Rule::CutReply, &so_far))
            }
        }
    }

    fn replies(&self) -> u64 {
        self.replies
    }

    fn is_last(&self) -> bool {
        self.last
    }
}
