//! The packet dialect: the protocol of PACKETS.md, and violations of it.
//!
//! Phrases: `echo:SIZE`, `digest:SIZE`, `digest-file:NAME`, `broadcast:SIZE`, `list`, `get:NAME`,
//! `get:NAME:OFFSET:LENGTH`, `range:NAME:OFFSET:LENGTH` (GET_RANGE), `put:SIZE` (PUT, DATA, and
//! DIGEST_FILE of the result), `resume:SIZE` (PUT_RESUMABLE and ABORT), `abort` (of nothing),
//! `abort-get:NAME`, `abort-take:NAME`, `abort-put:SIZE`.
//!
//! Hostile phrases: `lie:LENGTH:ACTUAL` (an ECHO with a wrong length), `type:HH:SIZE` (an arbitrary
//! type with SIZE bytes of fields), `data:COUNT` (DATA without a put), `chunk:COUNT` (DATA without
//! its bytes), `over:SIZE` (a put with one byte too many).
//!
//! The expected answers are derived from the sent bytes, parsed as the server must parse them, and
//! not from the phrases. Uploaded files remain on the server, with names that begin with
//! `ringload-`.

mod checker;
mod frames;
mod learn;
mod listing;
mod model;
mod phrase;
mod speaker;

use super::Hints;
use super::ending;
use super::learnt::Files;
use super::recent::Recent;
use crate::dialect::{Checker, Dialect, Key, Limits, Outgoing, Record, Verdict};
use crate::oracle;
use checker::PacketsChecker;
use model::Model;
use phrase::Phrase;
use speaker::Speaker;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

/// Maximum number of phrases drawn for a connection.
const DRAWN_MAX: u64 = 4;
/// The same for tiny packets.
const TINY_MAX: u64 = 22;
/// One in `HOSTILE_EVERY` connections ends with a hostile phrase.
const HOSTILE_EVERY: u64 = 4;
/// One in `TINY_EVERY` connections sends many tiny packets.
const TINY_EVERY: u64 = 6;

/// The packet protocol with one server.
pub struct Packets {
    known: Arc<Known>,
}

/// The facts learnt about the server.
struct Known {
    files: Files,
    has_workers: bool,
    is_read_only: bool,
    nonce: u32,
    recent: Recent,
}

impl Packets {
    /// Downloads the files of the server at `address` and keeps them: at most 64 MiB in total, and
    /// beyond that a fingerprint of every 64 KiB. If the server has no large file and accepts
    /// uploads, uploads `ringload-1KiB` and `ringload-1MiB`.
    ///
    /// # Errors
    /// PACKETS.md does not allow an answer, or no answer comes within `timeout`.
    pub fn learn(address: SocketAddr, hints: &Hints) -> Result<Self, String> {
        let learnt = learn::from(address, hints)?;
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let nonce = since_1970.unwrap_or_default().as_micros() as u32;
        Ok(Self::new(learnt, nonce))
    }

    fn new(learnt: learn::Learnt, nonce: u32) -> Self {
        let learn::Learnt { files, has_workers, is_read_only } = learnt;
        let recent = Recent::default();
        Self { known: Arc::new(Known { files, has_workers, is_read_only, nonce, recent }) }
    }

    fn draw_one(&self, random: &mut dyn FnMut(u64) -> u64) -> String {
        let small = |random: &mut dyn FnMut(u64) -> u64| match random(4) {
            0 => random(60_000),
            _ => random(300),
        };
        let Known { files, has_workers, is_read_only, .. } = &*self.known;
        let kind = random(19);
        let has_files = !files.0.is_empty();
        match kind {
            0 | 1 if *has_workers => format!("digest:{}", small(random)),
            // Rare, because a list reads the whole directory, which uploads make longer.
            2 if *has_workers && random(4) == 0 => "list".into(),
            3 if *has_workers && has_files => {
                format!("digest-file:{}", files.draw(false, random).name)
            }
            4 => "abort".into(),
            5 if random(8) == 0 => format!("broadcast:{}", random(100)),
            6 if has_files => format!("abort-get:{}", files.draw(false, random).name),
            7 if has_files => format!("abort-take:{}", files.draw(true, random).name),
            8 if !is_read_only => format!("abort-put:{}", 2 + small(random)),
            9 if !is_read_only && *has_workers && random(4) == 0 => {
                format!("put:{}", small(random))
            }
            10 if has_files => format!("get:{}", files.draw(false, random).name),
            11 if has_files => {
                let file = files.draw(false, random);
                let offset = random(file.length + 1);
                let length = random(file.length + 1 - offset);
                format!("get:{}:{offset}:{length}", file.name)
            }
            12 => format!("data:{}", 1 + small(random)),
            13 => format!("type:{:02x}:{}", 0x0d + random(0x100 - 0x0d), random(100)),
            14 | 15 if has_files => {
                let file = files.draw(kind == 15, random);
                let offset = random(file.length + 1);
                let length = match random(3) {
                    0 => u64::MAX,
                    _ => random(file.length + 1 - offset),
                };
                format!("range:{}:{offset}:{length}", file.name)
            }
            16 if !is_read_only => format!("resume:{}", 1 + small(random)),
            _ => format!("echo:{}", small(random)),
        }
    }

    /// Draws a hostile phrase, which usually ends the connection.
    fn draw_hostile(&self, random: &mut dyn FnMut(u64) -> u64) -> String {
        let lengths = [0_u32, 1, 4, 5, 6, 100, 65_535, 65_536, 65_537, 0x8000_0000, 0xffff_ffff];
        match random(8) {
            0..=2 => {
                let length = lengths[random(lengths.len() as u64) as usize];
                let actual = match random(3) {
                    0 => random(40),
                    1 => u64::from(length).min(70_000),
                    _ => u64::from(length).min(70_000) + 1 + random(20),
                };
                format!("lie:{length}:{actual}")
            }
            3 => format!("type:07:{}", random(16)),
            4 => format!(
                "type:{}",
                ["08:0", "08:1", "09:0", "09:3", "0a:1", "03:0", "06:0", "0b:31", "0b:32", "0c:0"]
                    [random(10) as usize]
            ),
            5 => format!(
                "chunk:{}",
                [0, 4_194_305, 0x8000_0000, u64::from(u32::MAX)][random(4) as usize]
            ),
            6 if !self.known.is_read_only => format!("over:{}", 1 + random(5_000)),
            _ => format!("chunk:{}", 1 + random(200)),
        }
    }

    fn draw_of_file(&self, random: &mut dyn FnMut(u64) -> u64) -> Option<String> {
        let Known { files, has_workers, is_read_only, .. } = &*self.known;
        let may_put = !is_read_only && *has_workers;
        match random(2) {
            0 if may_put => Some(format!("put:{}", 300_000 + random(300_000))),
            _ if !files.0.is_empty() => Some(format!("get:{}", files.draw(true, random).name)),
            _ => None,
        }
    }

    fn say(&self, key: Key, phrases: &[String]) -> Result<Outgoing, String> {
        let mut speaker = Speaker::new(key, &self.known.files, self.known.nonce);
        for phrase in phrases {
            speaker.say(&Phrase::read(phrase, &self.known.files)?);
        }
        Ok(Outgoing { bytes: speaker.bytes, requests: speaker.requests })
    }
}

impl Dialect for Packets {
    fn name(&self) -> &'static str {
        "packets"
    }

    fn outgoing(&self, key: Key, phrases: &[String]) -> Result<Outgoing, String> {
        self.say(key, phrases)
    }

    fn checker(&self, key: Key, phrases: &[String]) -> Result<Box<dyn Checker>, String> {
        let outgoing = self.say(key, phrases)?;
        Ok(Box::new(PacketsChecker::new(self.known.clone(), key, outgoing.bytes)))
    }

    fn draw(&self, in_file: bool, random: &mut dyn FnMut(u64) -> u64) -> Vec<String> {
        if !in_file && random(TINY_EVERY) == 0 {
            let count = 2 + random(TINY_MAX);
            return (0..count).map(|_| format!("echo:{}", random(4))).collect();
        }
        let count = 1 + random(DRAWN_MAX);
        let mut drawn: Vec<String> = (0..count).map(|_| self.draw_one(random)).collect();
        if in_file && let Some(of_file) = self.draw_of_file(random) {
            // The server may refuse a second concurrent get, so this one must be the first.
            let is_get = |phrase: &String| {
                ["get:", "take:", "range:"].iter().any(|get| phrase.contains(get))
            };
            let most = drawn.iter().position(is_get).map_or(count, |at| at as u64 + 1);
            drawn[random(most) as usize] = of_file;
        }
        if random(HOSTILE_EVERY) == 0 {
            drawn.push(self.draw_hostile(random));
            // Checks how the server parses the bytes that follow.
            drawn.extend((random(2) == 0).then(|| self.draw_one(random)));
        }
        drawn
    }

    fn judge(&self, outgoing: &Outgoing, record: &Record, limits: &Limits) -> Verdict {
        if let Some(verdict) = oracle::common(record, limits) {
            return verdict;
        }
        let due = Model::of(&outgoing.bytes, &self.known.files).due(record.actions.sent);
        let progress = match record.replies {
            _ if record.announced_end => "ended by an error",
            0 if record.received == 0 && due == 0 => "nothing asked",
            0 => "no answer",
            replies if replies < due => "some answers",
            _ => "answered",
        };
        if let Some(verdict) = ending::announced(progress, record, limits) {
            return verdict;
        }
        let missing = due.saturating_sub(record.replies);
        let missing = (missing > 0 && !record.announced_end).then(|| {
            format!(
                "{missing} of {due} answers had not been received ({} bytes were received)",
                record.received
            )
        });
        oracle::judge_ending(progress, missing.as_deref(), record, limits)
    }
}

#[cfg(test)]
mod tests;
