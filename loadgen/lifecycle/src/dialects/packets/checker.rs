//! Checks the answers on one connection: their order, and every byte.

use super::frames::Frames;
use super::model::{Expected, Model, Source, What};
use super::speaker::whose;
use super::{Known, listing};
use crate::dialect::{Checker, Key};
use crate::dialects::learnt::Follower;
use crate::finding::{Finding, Rule};
use crate::packets::{self, Answer, Packet, ServerError, code};
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::sync::Arc;

/// Checks the answers on one connection.
pub struct PacketsChecker {
    known: Arc<Known>,
    key: Key,
    /// The same connection ran before in this run, so its uploads may exist already.
    is_again: bool,
    /// The bytes to send.
    bytes: Vec<u8>,
    model: Model,
    /// The expected answers that were received.
    done: Vec<bool>,
    /// All expected answers before this index were received.
    first_open: usize,
    /// Ids of the transfers that the server refused or gave up.
    failed: HashSet<u32>,
    frames: Frames,
    /// The downloads in progress, with their indices among the expected answers.
    taking: Vec<(usize, Follower)>,
    /// The index of the download whose chunk is the current one.
    chunk_of: usize,
    /// Remaining bytes of the current chunk.
    chunk_left: u64,
    replies: u64,
    last: bool,
}

impl PacketsChecker {
    /// Creates a checker for a connection that sends `bytes`.
    pub fn new(known: Arc<Known>, key: Key, bytes: Vec<u8>) -> Self {
        let is_again = known.recent.remember(key, bytes.len() as u64);
        let model = Model::of(&bytes, &known.files);
        Self {
            known,
            key,
            is_again,
            done: vec![false; model.expected.len()],
            model,
            bytes,
            first_open: 0,
            failed: HashSet::new(),
            frames: Frames::default(),
            taking: Vec::new(),
            chunk_of: 0,
            chunk_left: 0,
            replies: 0,
            last: false,
        }
    }

    fn answer(&mut self, id: u32, answer: Answer<'_>, sent: u64) -> Result<(), Finding> {
        match answer {
            Answer::Message if id == 0 => return Ok(()),
            Answer::Error(error) => return self.error(id, &error, sent),
            _ => {}
        }
        let Some(at) = self.open(id).find(|at| fits(&self.model.expected[*at].what, &answer))
        else {
            return Err(self.unasked(id, answer.name()));
        };
        let Expected { due, what, .. } = &self.model.expected[at];
        if *due > sent {
            let detail = format!("{} with id {id:#x} before its request was sent", answer.name());
            return Err(Finding::new(Rule::Unasked, detail));
        }
        let name = answer.name();
        match (answer, what) {
            (Answer::Echoed(bytes), What::Echoed(place)) => {
                let must = &self.bytes[place.clone()];
                if bytes != must {
                    return Err(self.differs(place.start, bytes, must));
                }
            }
            (Answer::Digested(sum), what) => self.digested(at, sum, self.digest_of(what, sum))?,
            (Answer::Listed(fields), What::Listed(after)) => {
                listing::check(&self.known.files, fields, after)?;
            }
            (Answer::Offer { size_bytes }, What::Offer { file, .. })
            | (Answer::Range { size_bytes, .. }, What::Range { file, .. }) => {
                self.has_size(name, *file, size_bytes)?;
            }
            (Answer::Resumed { offset }, What::Resumed { .. }) if offset > 0 => {
                let detail = format!("RESUMED from {offset}, but no byte of it was ever sent");
                return Err(Finding::new(Rule::WrongBytes, detail));
            }
            (Answer::Data { count_bytes }, What::Sent { file, offset, length }) => {
                let (file, offset, length) = (*file, *offset, *length);
                return self.data(at, count_bytes, file, offset, length);
            }
            (Answer::Sent, What::Sent { offset, length, .. }) => {
                let (came, length) = (self.taken(at, *offset), *length);
                if came < length {
                    let detail = format!("SENT with id {id:#x} after {came} of {length} bytes");
                    return Err(Finding::new(Rule::CutReply, detail));
                }
                self.taking.retain(|(taking, _)| *taking != at);
            }
            (Answer::Aborted, _) => {
                // ABORTED is the last answer of a transfer.
                let before: Vec<usize> = self.open(id).take_while(|before| *before < at).collect();
                before.into_iter().for_each(|before| self.close(before));
                self.taking.retain(|(taken, _)| self.model.expected[*taken].id != id);
            }
            _ => {}
        }
        self.close(at);
        Ok(())
    }

    /// Makes the finding for an echo that differs from the data at `start`.
    #[cold]
    fn differs(&self, start: usize, bytes: &[u8], must: &[u8]) -> Finding {
        let Some(at) = bytes.iter().zip(must).position(|(byte, must)| byte != must) else {
            let detail = format!("ECHOED has {} bytes, but ECHO had {}", bytes.len(), must.len());
            return Finding::new(Rule::WrongBytes, detail);
        };
        let what = format!(
            "byte {at} of an echo (byte {} of the sent data) is {:#04x}, expected {:#04x}",
            start + at,
            bytes[at],
            must[at]
        );
        self.known.recent.attribute(self.key, &bytes[at..], &what)
    }

    /// Returns the expected digest, or `sum` if any is allowed.
    fn digest_of(&self, what: &What, sum: [u8; 32]) -> [u8; 32] {
        match what {
            What::Digested(place) => Sha256::digest(&self.bytes[place.clone()]).into(),
            What::DigestedFile(Source::File(file)) => self.known.files.0[*file].sha256,
            // After a refusal with EXISTS, the file is from another connection.
            What::DigestedFile(Source::Put(put, _)) if self.failed.contains(put) => sum,
            What::DigestedFile(Source::Put(_, ranges)) => {
                let mut must = Sha256::new();
                ranges.iter().for_each(|range| must.update(&self.bytes[range.clone()]));
                must.finalize().into()
            }
            _ => sum,
        }
    }

    /// Checks a digest and its order; digests arrive in the order of their requests.
    fn digested(&self, at: usize, sum: [u8; 32], must: [u8; 32]) -> Result<(), Finding> {
        let is_digest = |what: &What| matches!(what, What::Digested(_) | What::DigestedFile(_));
        let expected = &self.model.expected;
        if let Some(before) =
            (self.first_open..at).find(|at| !self.done[*at] && is_digest(&expected[*at].what))
        {
            let detail = format!(
                "DIGESTED with id {:#x} arrived before id {:#x}, which was requested earlier",
                expected[at].id, expected[before].id
            );
            return Err(Finding::new(Rule::Protocol, detail));
        }
        if sum == must {
            return Ok(());
        }
        let show = |sum: [u8; 32]| {
            sum.iter().take(8).map(|byte| format!("{byte:02x}")).collect::<String>()
        };
        let detail = format!(
            "DIGESTED with id {:#x} is {}…, expected {}…",
            expected[at].id,
            show(sum),
            show(must)
        );
        Err(Finding::new(Rule::WrongBytes, detail))
    }

    fn data(
        &mut self,
        at: usize,
        count: u64,
        file: usize,
        offset: u64,
        length: u64,
    ) -> Result<(), Finding> {
        if !(1..=packets::CHUNK_RECEIVED_BYTES_MAX).contains(&count) {
            return Err(Finding::new(Rule::Protocol, format_args!("DATA announces {count} bytes")));
        }
        let came = self.taken(at, offset);
        if came + count > length {
            let detail = format!("DATA announces {count} bytes after {came} of {length} bytes");
            return Err(Finding::new(Rule::Unasked, detail));
        }
        if self.taking.iter().all(|(taking, _)| *taking != at) {
            self.taking.push((at, Follower::new(file, offset)));
        }
        self.chunk_of = at;
        self.chunk_left = count;
        Ok(())
    }

    /// Returns the number of bytes received of the download that starts at `offset`.
    fn taken(&self, at: usize, offset: u64) -> u64 {
        let taking = self.taking.iter().find(|(taking, _)| *taking == at);
        taking.map_or(0, |(_, follower)| follower.offset() - offset)
    }

    fn error(&mut self, id: u32, error: &ServerError, sent: u64) -> Result<(), Finding> {
        let code = error.code;
        let exact = self.open(id).find(|at| {
            let expected = &self.model.expected[*at];
            expected.due <= sent
                && matches!(expected.what, What::Refusal { code: must, .. } if must == code)
        });
        if let Some(at) = exact {
            self.last = matches!(self.model.expected[at].what, What::Refusal { is_last: true, .. });
            self.close(at);
            return Ok(());
        }
        // The server timed out on an incomplete packet, whose rest may have been sent meanwhile.
        if (id, code) == (0, code::EXPIRED) && sent > 0 {
            self.last = true;
            return Ok(());
        }
        let Some(at) = self.open(id).next() else {
            // The end of a put or an offer about which no answer is expected.
            return match self.is_given_up(id, code) {
                true => Ok(()),
                false => Err(self.unasked(id, &format!("ERROR {code}"))),
            };
        };
        if self.model.expected[at].due > sent {
            // The request is not sent yet, so the error is about the transfer before it.
            if !self.is_given_up(id, code) {
                return Err(self.refused(at, error));
            }
            // STORED will not follow. After a FIN, the rest is never sent.
            if self.model.expected[at].what == What::Stored && code != code::FAILED {
                self.close(at);
            }
            return Ok(());
        }
        if !self.may_refuse(at, code) {
            return Err(self.refused(at, error));
        }
        self.close_refused(at);
        Ok(())
    }

    /// Returns true if an ERROR with this code may replace an answer.
    fn may_refuse(&self, at: usize, code: u16) -> bool {
        let Expected { id, what, .. } = &self.model.expected[at];
        let has_failed = self.failed.contains(id);
        match what {
            What::Offer { may_be_busy, .. } | What::Range { may_be_busy, .. } => {
                code == code::BUSY && *may_be_busy
            }
            // The same connection may be in progress elsewhere.
            What::Resumed { may_be_busy } => code == code::BUSY && (*may_be_busy || self.is_again),
            What::Accepted { may_be_busy } => {
                (code == code::BUSY && *may_be_busy) || (code == code::EXISTS && self.is_again)
            }
            What::Sent { .. } | What::Refusal { code: code::BAD_RANGE, .. } => {
                code == code::NO_TRANSFER && has_failed
            }
            What::Aborted => code == code::NO_TRANSFER && (has_failed || self.has_ended(at)),
            What::BroadcastSent => code == code::BUSY,
            What::DigestedFile(source) => match code {
                code::BUSY => true,
                code::NO_WORKERS => !self.known.has_workers,
                code::NO_SUCH_FILE => {
                    matches!(source, Source::Put(put, _) if self.failed.contains(put))
                }
                _ => false,
            },
            What::Digested(_) | What::Listed(_) => {
                code == code::NO_WORKERS && !self.known.has_workers
            }
            What::Echoed(_) | What::Stored | What::Refusal { .. } => false,
        }
    }

    /// Closes an answer that an ERROR replaced, and those that do not follow then.
    fn close_refused(&mut self, at: usize) {
        let Expected { id, what, .. } = self.model.expected[at].clone();
        let is_begin = matches!(
            what,
            What::Offer { .. } | What::Range { .. } | What::Accepted { .. } | What::Resumed { .. }
        );
        if is_begin {
            self.failed.insert(id);
            // The server discards the data of a refused put, and sends none of a refused range.
            let is_range = matches!(what, What::Range { .. });
            let missing = self.open(id).find(|at| match &self.model.expected[*at].what {
                What::Stored => true,
                What::Sent { .. } => is_range,
                _ => false,
            });
            missing.into_iter().for_each(|missing| self.close(missing));
        }
        self.close(at);
    }

    /// Checks the size that an OFFER or a RANGE announces.
    fn has_size(&self, name: &str, file: usize, size_bytes: u64) -> Result<(), Finding> {
        let file = &self.known.files.0[file];
        if size_bytes == file.length {
            return Ok(());
        }
        let detail =
            format!("{name} announces {size_bytes} bytes, but {} has {}", file.name, file.length);
        Err(Finding::new(Rule::WrongBytes, detail))
    }

    /// Returns true if the server gives up a transfer because its client is silent or has sent a
    /// FIN.
    fn is_given_up(&mut self, id: u32, code: u16) -> bool {
        let begun = |at: &usize| {
            let expected = &self.model.expected[*at];
            let is_begin = match expected.what {
                What::Accepted { .. } | What::Resumed { .. } => {
                    matches!(code, code::FAILED | code::EXPIRED)
                }
                What::Offer { .. } => code == code::EXPIRED,
                _ => false,
            };
            expected.id == id && self.done[*at] && is_begin
        };
        let is_one = (0..self.done.len()).any(|at| begun(&at)) && !self.failed.contains(&id);
        if is_one {
            self.failed.insert(id);
        }
        is_one
    }

    /// Returns true if the transfer of an ABORT had already ended.
    fn has_ended(&self, abort: usize) -> bool {
        let id = self.model.expected[abort].id;
        self.model.expected[..abort].iter().zip(&self.done).any(|(expected, done)| {
            let is_end = matches!(expected.what, What::Sent { .. } | What::Stored);
            expected.id == id && is_end && *done
        })
    }

    /// Returns the expected answers with `id` that were not received, in order.
    fn open(&self, id: u32) -> impl Iterator<Item = usize> {
        (self.first_open..self.done.len())
            .filter(move |at| !self.done[*at] && self.model.expected[*at].id == id)
    }

    fn close(&mut self, at: usize) {
        self.done[at] = true;
        self.replies += 1;
        while self.done.get(self.first_open) == Some(&true) {
            self.first_open += 1;
        }
    }

    #[cold]
    fn unasked(&self, id: u32, name: &str) -> Finding {
        let theirs = id >> 8;
        if id != 0 && theirs != whose(self.key) {
            let connection = theirs & 0xf_ffff;
            let detail = format!(
                "{name} with id {id:#x} is answer {} of connection {connection} (modulo 2^20)",
                id & 0xff
            );
            return Finding::new(Rule::ForeignBytes, detail);
        }
        let detail = format!("{name} with id {id:#x} answers no pending request");
        Finding::new(Rule::Unasked, detail)
    }

    #[cold]
    fn refused(&self, at: usize, error: &ServerError) -> Finding {
        let Expected { id, what, .. } = &self.model.expected[at];
        let detail = format!(
            "ERROR {} ({}) with id {id:#x} instead of {}",
            error.code,
            error.text,
            expected_name(what)
        );
        Finding::new(Rule::BadStatus, detail)
    }
}

/// Returns the name of an expected answer in PACKETS.md.
fn expected_name(what: &What) -> String {
    match what {
        What::Echoed(_) => "ECHOED".into(),
        What::Digested(_) | What::DigestedFile(_) => "DIGESTED".into(),
        What::BroadcastSent => "BROADCAST_SENT".into(),
        What::Listed(_) => "LISTED".into(),
        What::Offer { .. } => "OFFER".into(),
        What::Range { .. } => "RANGE".into(),
        What::Resumed { .. } => "RESUMED".into(),
        What::Sent { .. } => "SENT".into(),
        What::Accepted { .. } => "ACCEPTED".into(),
        What::Stored => "STORED".into(),
        What::Aborted => "ABORTED".into(),
        What::Refusal { code, .. } => format!("ERROR {code}"),
    }
}

/// Returns true if an answer has the expected kind.
fn fits(what: &What, answer: &Answer<'_>) -> bool {
    matches!(
        (what, answer),
        (What::Echoed(_), Answer::Echoed(_))
            | (What::Digested(_) | What::DigestedFile(_), Answer::Digested(_))
            | (What::BroadcastSent, Answer::BroadcastSent)
            | (What::Listed(_), Answer::Listed(_))
            | (What::Offer { .. }, Answer::Offer { .. })
            | (What::Range { .. }, Answer::Range { .. })
            | (What::Resumed { .. }, Answer::Resumed { .. })
            | (What::Sent { .. }, Answer::Data { .. } | Answer::Sent)
            | (What::Accepted { .. }, Answer::Accepted)
            | (What::Stored, Answer::Stored)
            | (What::Aborted, Answer::Aborted)
    )
}

impl Checker for PacketsChecker {
    fn receive(&mut self, mut bytes: &[u8], sent: u64) -> Result<(), Finding> {
        while !bytes.is_empty() {
            if self.last {
                let detail = "data after an ERROR that ends the connection";
                return Err(Finding::new(Rule::Unasked, detail));
            }
            if self.chunk_left > 0 {
                let (part, rest) = bytes.split_at(self.chunk_left.min(bytes.len() as u64) as usize);
                self.chunk_left -= part.len() as u64;
                bytes = rest;
                let chunk_of = self.chunk_of;
                let taking = self.taking.iter_mut().find(|(taking, _)| *taking == chunk_of);
                if let Some((_, follower)) = taking {
                    follower.follow(&self.known.files, part)?;
                    if self.chunk_left == 0 {
                        follower.finish(&self.known.files)?;
                    }
                }
                continue;
            }
            let Some(body) = self.frames.next(&mut bytes)? else { break };
            let packet = Packet::parse(&body).map_err(|why| Finding::new(Rule::Protocol, why))?;
            self.answer(packet.id, packet.answer, sent)?;
        }
        Ok(())
    }

    fn fin(&mut self) -> Result<(), Finding> {
        if self.frames.begun_bytes() > 0 {
            let begun_bytes = self.frames.begun_bytes();
            let detail = format!("the FIN came after {begun_bytes} bytes of a packet");
            return Err(Finding::new(Rule::CutReply, detail));
        }
        // An error that ends the connection may end a download, but not inside a chunk.
        let is_cut = |(at, _): &&(usize, Follower)| {
            !self.last || (self.chunk_left > 0 && *at == self.chunk_of)
        };
        let Some((at, follower)) = self.taking.iter().find(is_cut) else { return Ok(()) };
        follower.finish(&self.known.files)?;
        let What::Sent { offset, length, .. } = self.model.expected[*at].what else {
            return Ok(());
        };
        let came = follower.offset() - offset;
        let detail =
            format!("the FIN came after {came} of {length} bytes of a file and before SENT");
        Err(Finding::new(Rule::CutReply, detail))
    }

    fn replies(&self) -> u64 {
        self.replies
    }

    fn is_last(&self) -> bool {
        self.last
    }
}
