//! The HTTP/1.1 dialect: requests for files whose bodies were learnt before.
//!
//! Phrases: `get:PATH`, `head:PATH`, `range:PATH:FIRST-LAST`, `body:PATH:SIZE` (a GET with a body),
//! and `bad:NAME`, a malformed request: `bare-lf`, `no-host`, `two-lengths`, `length-and-chunks`,
//! `space-in-name`, `long-head`, `tls`.
//!
//! [`Strictness::Foreign`] requires only the rules of RFC 9112: replies are well formed, in order,
//! have the right bodies, and are complete unless the client broke a rule. A server may close a
//! connection between two replies and leave the pipelined requests behind the last reply unanswered
//! (9.3.2, 9.5). It may also leave requests unanswered whose client has sent its FIN. It must
//! answer a request on a new connection, and it must not reset instead of replying (9.6).
//! [`Strictness::Own`] requires in addition the guarantees of `ringwrightd`.

mod asked;
mod checker;
mod heads;
mod judge;
mod learn;

pub use learn::check;

use super::Hints;
use super::learnt::Files;
use crate::dialect::{Checker, Dialect, Key, Limits, Outgoing, Phrase, Record, Verdict};
use crate::stream::Stream;
use asked::{Asked, Bad};
use checker::HttpChecker;
use std::net::SocketAddr;
use std::sync::Arc;

/// Maximum number of requests drawn for a connection.
const DRAWN_MAX: u64 = 4;
/// One in `BAD_EVERY` last requests of a connection is malformed.
const BAD_EVERY: u64 = 12;
/// Maximum size of the body of a drawn request.
const DRAWN_BODY_BYTES_MAX: u64 = 20_000;

crate::named! {
    /// The rules for an HTTP server.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
    pub enum Strictness {
        /// Guarantees of ringwrightd: it answers every complete request, also after the client's
        /// FIN, refuses malformed ones and then closes, and never resets
        Own = "own",
        /// Rules of RFC 9112 only
        Foreign = "foreign",
    }
}

/// Returns the paths that `phrases` request, without duplicates.
#[must_use]
pub fn paths(phrases: &[Phrase]) -> Vec<String> {
    let mut paths: Vec<String> = Vec::new();
    for phrase in phrases {
        let path = match phrase.split_once(':') {
            Some(("get" | "head", path)) => path,
            Some(("range" | "body", rest)) => rest.rsplit_once(':').map_or(rest, |(path, _)| path),
            _ => continue,
        };
        if !paths.iter().any(|before| before == path) {
            paths.push(path.into());
        }
    }
    paths
}

/// HTTP as spoken to one server.
pub struct Http {
    known: Arc<Known>,
}

/// The facts learnt about the server.
struct Known {
    /// For the `Host` field.
    host: String,
    files: Files,
    strictness: Strictness,
}

impl Http {
    /// Requests all `paths` from the server at `address`, until two replies with status 200 are
    /// equal, and keeps the bodies: at most 64 MiB in total, and beyond that a fingerprint of every
    /// 64 KiB. If `hints` have no strictness, a server that sends `Server: ringwright` gets
    /// [`Strictness::Own`], any other [`Strictness::Foreign`].
    ///
    /// # Errors
    /// A path is invalid, no two of a few replies are a 200 with the same body, or no reply comes
    /// within the timeout.
    pub fn learn(
        address: SocketAddr,
        host: &str,
        paths: &[String],
        hints: &Hints,
    ) -> Result<Self, String> {
        let (files, is_ours) = learn::files(address, host, paths, hints)?;
        let of_server = if is_ours { Strictness::Own } else { Strictness::Foreign };
        let strictness = hints.strictness.unwrap_or(of_server);
        Ok(Self { known: Arc::new(Known { host: host.into(), files, strictness }) })
    }

    /// Returns the rules for the server.
    #[must_use]
    pub fn strictness(&self) -> Strictness {
        self.known.strictness
    }

    fn read(&self, phrases: &[Phrase]) -> Result<Vec<Asked>, String> {
        phrases.iter().map(|phrase| Asked::read(phrase, &self.known.files)).collect()
    }

    fn draw_one(&self, is_last: bool, random: &mut dyn FnMut(u64) -> u64) -> Asked {
        let files = &self.known.files;
        if is_last && random(BAD_EVERY) == 0 {
            return Asked::Bad(Bad::ALL[random(Bad::ALL.len() as u64) as usize]);
        }
        let drawn = files.draw(false, random);
        let file = files.position(&drawn.name).unwrap_or_default();
        match random(8) {
            0 => Asked::Head { file },
            1 => Asked::Body { file, size: 1 + random(DRAWN_BODY_BYTES_MAX) },
            2 | 3 if drawn.length > 0 && !drawn.varies => {
                let from = random(drawn.length);
                Asked::Range { file, from, to: from + random(drawn.length - from) }
            }
            _ => Asked::Get { file },
        }
    }
}

impl Dialect for Http {
    fn name(&self) -> &'static str {
        "http"
    }

    fn outgoing(&self, key: Key, phrases: &[Phrase]) -> Result<Outgoing, String> {
        let Known { host, files, .. } = &*self.known;
        let stream = Stream::new(key.seed, key.number);
        let mut outgoing = Outgoing::default();
        for asked in self.read(phrases)? {
            outgoing.requests.push(asked.say(files, host, stream, &mut outgoing.bytes));
        }
        Ok(outgoing)
    }

    fn checker(&self, key: Key, phrases: &[Phrase]) -> Result<Box<dyn Checker>, String> {
        let outgoing = self.outgoing(key, phrases)?;
        let asked = self.read(phrases)?.into_iter().zip(outgoing.requests).collect();
        Ok(Box::new(HttpChecker::new(self.known.clone(), asked)))
    }

    fn draw(&self, in_file: bool, random: &mut dyn FnMut(u64) -> u64) -> Vec<Phrase> {
        let files = &self.known.files;
        let count = 1 + random(DRAWN_MAX);
        let file_at = if in_file { random(count) } else { count };
        let mut draw = |at| {
            if at == file_at {
                return format!("get:{}", files.draw(true, random).name);
            }
            self.draw_one(at + 1 == count, random).show(files)
        };
        (0..count).map(&mut draw).collect()
    }

    fn judge(&self, outgoing: &Outgoing, record: &Record, limits: &Limits) -> Verdict {
        judge::judge(self.known.strictness, outgoing, record, limits)
    }
}

#[cfg(test)]
mod tests;
