//! One request between its arrival and its reply.

use crate::http::head::{Method, Request};
use crate::http::status::Status;
use crate::http::target;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Exchanges kept for reuse per shard. More are in use only while many files are being opened.
const SPARES_MAX: usize = 256;

/// A request that is being answered.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    pub(super) request: Request,
    pub(super) head: &'a [u8],
    /// What to open.
    pub(super) path: &'a [u8],
    pub(super) begun: Duration,
}

/// One request that cannot be answered at once, on its way to its reply. Boxes go round: an
/// established connection allocates none.
#[derive(Debug)]
pub struct Exchange {
    pub(super) request: Request,
    pub(super) head: Vec<u8>,
    pub(super) path: Vec<u8>,
    pub(super) begun: Duration,
    /// Before the file is opened; the epoch before that.
    pub(super) opening_since: SystemTime,
}

impl Exchange {
    pub(super) fn asked(&self) -> Asked<'_> {
        let Self { request, head, path, begun, .. } = self;
        Asked { request: *request, head, path, begun: *begun }
    }
}

/// Exchanges to be used again.
#[derive(Debug, Default)]
pub struct Spares {
    #[expect(clippy::vec_box, reason = "it is the boxes that are used again")]
    boxes: Vec<Box<Exchange>>,
}

impl Spares {
    /// An exchange for this request.
    pub(super) fn take(&mut self, asked: Asked<'_>) -> Box<Exchange> {
        let Asked { request, head, path, begun } = asked;
        let mut exchange = self.boxes.pop().unwrap_or_else(|| {
            let (head, path) = (Vec::new(), Vec::new());
            Box::new(Exchange { request, head, path, begun, opening_since: UNIX_EPOCH })
        });
        exchange.request = request;
        exchange.begun = begun;
        exchange.opening_since = UNIX_EPOCH;
        exchange.head.clear();
        exchange.head.extend_from_slice(head);
        exchange.path.clear();
        exchange.path.extend_from_slice(path);
        exchange
    }

    pub(super) fn give_back(&mut self, exchange: Box<Exchange>) {
        if self.boxes.len() < SPARES_MAX {
            self.boxes.push(exchange);
        }
    }
}

/// The status of a reply that the head alone decides. Otherwise `path` is what to open. 301: the
/// target has raw UTF-8, and another one is meant.
pub(super) fn decide(request: &Request, head: &[u8], path: &mut Vec<u8>) -> Option<Status> {
    let target = request.target(head);
    match request.method {
        Method::Put | Method::Delete | Method::Post | Method::Refused => {
            Some(Status::MethodNotAllowed)
        }
        Method::Unknown => Some(Status::NotImplemented),
        Method::Get | Method::Head | Method::Options if request.expects_more => {
            Some(Status::ExpectationFailed)
        }
        Method::Options if target == b"*" => Some(Status::NoContent),
        Method::Options => target::resolve(target, path).err().or(Some(Status::NoContent)),
        Method::Get | Method::Head => match target::resolve(target, path) {
            Err(status) => Some(status),
            Ok(()) if target.is_ascii() => None,
            Ok(()) => Some(Status::MovedPermanently),
        },
    }
}
