//! One request between its arrival and its reply.

use crate::generation::Site;
use crate::http::head::{Method, Request};
use crate::http::status::Status;
use crate::http::target;
use crate::served::Missing;
use crate::site::variants::Coding;
use ringwright::files::{Directory, OpenFile};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Exchanges kept for reuse per shard. More are in use only while many files are being opened.
const SPARES_MAX: usize = 256;

/// A request that is being answered.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    pub(super) request: Request,
    pub(super) head: &'a [u8],
    /// The path that was asked for. That of a directory ends with a slash, or is empty.
    pub(super) path: &'a [u8],
    pub(super) begun: Duration,
    pub(super) site: &'a Arc<Site>,
    /// Where `path` begins.
    pub(super) directory: Result<&'a Directory, Missing>,
}

/// A file that may answer a request.
#[derive(Clone)]
pub(super) enum Candidate {
    /// The file that was asked for; of a directory, the index file with this number.
    Requested(usize),
    /// A precompressed variant of a file.
    Variant(Original, Coding),
    /// The directory itself, to be listed.
    Listing,
    /// The page of `spa`.
    Shell,
    /// The error page of a status.
    ErrorPage(Status),
}

impl Candidate {
    /// The coding of a variant.
    pub(super) fn coding(&self) -> Option<Coding> {
        if let Self::Variant(_, coding) = self { Some(*coding) } else { None }
    }
}

/// A file that has variants.
#[derive(Clone)]
pub(super) struct Original {
    pub(super) file: OpenFile,
    /// The number of its index name, for a directory.
    pub(super) index: usize,
    /// It had not changed for a while when it was opened.
    pub(super) is_settled: bool,
}

/// The result of an attempt to answer.
pub(super) enum Progress {
    /// The reply is queued.
    Answered,
    /// A file is to be opened, or a job reads it.
    Waits(Box<Exchange>),
}

/// One request that cannot be answered at once, on its way to its reply. Boxes go round: an
/// established connection allocates none.
pub struct Exchange {
    pub(super) request: Request,
    pub(super) head: Vec<u8>,
    pub(super) path: Vec<u8>,
    pub(super) begun: Duration,
    /// Before the file is opened; the epoch before that.
    pub(super) opening_since: SystemTime,
    /// The file that is being opened or read.
    pub(super) candidate: Candidate,
    /// Where it is to be opened. `None` if a job reads it.
    pub(super) opening: Option<Directory>,
    /// The site, and where `path` begins. `None` in a spare.
    pub(super) place: Option<(Arc<Site>, Result<Directory, Missing>)>,
}

impl Exchange {
    pub(super) fn asked(&self) -> Asked<'_> {
        let Self { request, head, path, begun, place, .. } = self;
        let (site, directory) = place.as_ref().expect("a request has a site");
        let directory = directory.as_ref().map_err(|missing| *missing);
        Asked { request: *request, head, path, begun: *begun, site, directory }
    }
}

/// Exchanges to be used again.
#[derive(Default)]
pub struct Spares {
    #[expect(clippy::vec_box, reason = "it is the boxes that are used again")]
    boxes: Vec<Box<Exchange>>,
}

impl Spares {
    /// An exchange for this request.
    pub(super) fn take(&mut self, asked: Asked<'_>) -> Box<Exchange> {
        let Asked { request, head, path, begun, site, directory } = asked;
        let mut exchange = self.boxes.pop().unwrap_or_else(|| {
            let (head, path, place) = (Vec::new(), Vec::new(), None);
            let (opening_since, candidate, opening) = (UNIX_EPOCH, Candidate::Requested(0), None);
            Box::new(Exchange {
                request,
                head,
                path,
                begun,
                opening_since,
                candidate,
                opening,
                place,
            })
        });
        exchange.request = request;
        exchange.begun = begun;
        exchange.opening_since = UNIX_EPOCH;
        exchange.candidate = Candidate::Requested(0);
        exchange.opening = None;
        exchange.head.clear();
        exchange.head.extend_from_slice(head);
        exchange.path.clear();
        exchange.path.extend_from_slice(path);
        exchange.place = Some((site.clone(), directory.cloned()));
        exchange
    }

    /// Has a request wait for a file: until it is opened in this directory, or until a job has read
    /// it.
    pub(super) fn wait_for(
        &mut self,
        asked: Asked<'_>,
        candidate: Candidate,
        opening: Option<Directory>,
    ) -> Progress {
        let mut exchange = self.take(asked);
        exchange.candidate = candidate;
        exchange.opening = opening;
        Progress::Waits(exchange)
    }

    pub(super) fn give_back(&mut self, mut exchange: Box<Exchange>) {
        if self.boxes.len() < SPARES_MAX {
            // Files, directories and sites are not kept longer than somebody needs them.
            exchange.candidate = Candidate::Requested(0);
            exchange.opening = None;
            exchange.place = None;
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
