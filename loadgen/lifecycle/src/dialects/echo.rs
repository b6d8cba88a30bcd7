//! The echo dialect: the server returns every byte in order, and answers the client's FIN with its
//! own.
//!
//! A phrase is the size of a message in bytes. The bytes are computed from the connection's key, so
//! wrong bytes can be searched for in the data of other connections.

use crate::dialect::{Dialect, Ear, Key, Limits, Phrase, Request, Sight, Speech, Verdict};
use crate::finding::{Finding, Rule};
use crate::oracle;
use crate::stream::Stream;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// Maximum number of bytes that a connection sends.
const SPEECH_BYTES_MAX: u64 = 16 << 20;
/// Number of recent connections that are searched for wrong bytes.
const RECENT_MAX: usize = 4_096;
/// Maximum number of bytes searched for one wrong byte: a few milliseconds.
const SEARCH_BYTES_MAX: u64 = 4 << 20;
/// Minimum number of bytes for an attribution; a shorter match may be chance.
const NEEDLE_BYTES: usize = 8;

/// The echo dialect.
#[derive(Default)]
pub struct EchoDialect {
    recent: Arc<Mutex<VecDeque<(Key, u64)>>>,
}

impl Dialect for EchoDialect {
    fn name(&self) -> &'static str {
        "echo"
    }

    fn speech(&self, key: Key, phrases: &[Phrase]) -> Result<Speech, String> {
        let mut requests = Vec::with_capacity(phrases.len());
        let mut end = 0;
        for size in sizes(phrases)? {
            let start = end;
            end += size;
            requests.push(Request {
                start,
                head_end: start,
                end,
                reply_bytes_min: size,
                is_file: false,
                is_proper: true,
            });
        }
        let mut bytes = vec![0; end as usize];
        Stream::new(key.seed, key.number).fill(0, &mut bytes);
        Ok(Speech { bytes, requests })
    }

    fn ear(&self, key: Key, phrases: &[Phrase]) -> Result<Box<dyn Ear>, String> {
        let sizes = sizes(phrases)?;
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() == RECENT_MAX {
            recent.pop_front();
        }
        recent.push_back((key, sizes.iter().sum()));
        Ok(Box::new(EchoEar {
            key,
            sizes,
            heard: 0,
            replies: 0,
            rest: 0,
            recent: self.recent.clone(),
        }))
    }

    fn draw(&self, _in_file: bool, random: &mut dyn FnMut(u64) -> u64) -> Vec<Phrase> {
        let count = 1 + random(4);
        let size = |random: &mut dyn FnMut(u64) -> u64| match random(8) {
            0 => 1 + random(256 << 10),
            1..=3 => 1 + random(8 << 10),
            _ => 1 + random(200),
        };
        (0..count).map(|_| size(random).to_string()).collect()
    }

    fn judge(&self, speech: &Speech, sight: &Sight, limits: &Limits) -> Verdict {
        debug_assert!(sight.deeds.said <= speech.bytes.len() as u64);
        if let Some(verdict) = oracle::common(sight, limits) {
            return verdict;
        }
        let (said, heard) = (sight.deeds.said, sight.heard);
        let progress = match heard {
            0 if said == 0 => "nothing said",
            0 => "no echo",
            _ if heard < said => "part of the echo",
            _ => "all of the echo",
        };
        let owed = (heard < said)
            .then(|| format!("{} of the {said} bytes sent had not been echoed", said - heard));
        oracle::settle(progress, owed.as_deref(), sight, limits)
    }
}

fn sizes(phrases: &[Phrase]) -> Result<Vec<u64>, String> {
    let mut total = 0_u64;
    let mut size = |phrase: &Phrase| {
        let size = phrase.parse::<u64>().ok().filter(|size| (1..=SPEECH_BYTES_MAX).contains(size));
        total += size.unwrap_or_default();
        size.filter(|_| total <= SPEECH_BYTES_MAX).ok_or_else(|| {
            format!(
                "say={phrase}: expected a number of bytes for each echo, in total at most \
                 {SPEECH_BYTES_MAX}"
            )
        })
    };
    phrases.iter().map(&mut size).collect()
}

struct EchoEar {
    key: Key,
    sizes: Vec<u64>,
    heard: u64,
    replies: u64,
    /// Bytes of the incomplete reply.
    rest: u64,
    recent: Arc<Mutex<VecDeque<(Key, u64)>>>,
}

impl Ear for EchoEar {
    fn hear(&mut self, bytes: &[u8], said: u64) -> Result<(), Finding> {
        let stream = Stream::new(self.key.seed, self.key.number);
        if let Some(at) = stream.mismatch(self.heard, bytes) {
            return Err(self.attribute(self.heard + at as u64, &bytes[at..]));
        }
        self.heard += bytes.len() as u64;
        if self.heard > said {
            let detail =
                format!("{} bytes were received, but only {said} had been sent", self.heard);
            return Err(Finding::new(Rule::Unasked, detail));
        }
        self.rest += bytes.len() as u64;
        while let Some(size) = self.sizes.get(self.replies as usize)
            && self.rest >= *size
        {
            self.rest -= size;
            self.replies += 1;
        }
        Ok(())
    }

    fn fin(&mut self) -> Result<(), Finding> {
        Ok(())
    }

    fn replies(&self) -> u64 {
        self.replies
    }

    fn is_last(&self) -> bool {
        false
    }
}

impl EchoEar {
    /// Attributes the wrong bytes received at `offset`.
    #[cold]
    fn attribute(&self, offset: u64, bytes: &[u8]) -> Finding {
        let must = {
            let mut must = vec![0; bytes.len().min(NEEDLE_BYTES)];
            Stream::new(self.key.seed, self.key.number).fill(offset, &mut must);
            must
        };
        let came = &bytes[..must.len()];
        let what = format!("byte {offset} is {:#04x}, expected {:#04x}", came[0], must[0]);
        if let Some(needle) = bytes.first_chunk::<NEEDLE_BYTES>()
            && let Some((key, at)) = self.search(*needle)
        {
            let whose = match key == self.key {
                true => "this connection".into(),
                false => key.to_string(),
            };
            let detail = format!("{what}: these bytes belong to offset {at} of {whose}");
            return Finding::new(Rule::ForeignBytes, detail);
        }
        Finding::new(Rule::WrongBytes, format!("{what}; no recent connection sent these bytes"))
    }

    /// Searches the bytes in this connection's own data, then in that of the most recent
    /// connections.
    fn search(&self, needle: [u8; NEEDLE_BYTES]) -> Option<(Key, u64)> {
        let recent: Vec<(Key, u64)> = self
            .recent
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .rev()
            .copied()
            .collect();
        let own = (self.key, self.sizes.iter().sum());
        let others = recent.into_iter().filter(|(key, _)| *key != self.key);
        let (mut left, mut said) = (SEARCH_BYTES_MAX, Vec::new());
        for (key, bytes) in std::iter::once(own).chain(others) {
            left = left.checked_sub(bytes)?;
            said.resize(bytes as usize, 0);
            Stream::new(key.seed, key.number).fill(0, &mut said);
            if let Some(at) = position(&said, needle) {
                return Some((key, at as u64));
            }
        }
        None
    }
}

/// Returns the first position of the needle. Shifts a word along, because comparing slices at each
/// byte is slow.
fn position(bytes: &[u8], needle: [u8; NEEDLE_BYTES]) -> Option<usize> {
    let needle = u64::from_be_bytes(needle);
    let mut word = 0;
    for (at, byte) in bytes.iter().enumerate() {
        word = (word << 8) | u64::from(*byte);
        if word == needle && at + 1 >= NEEDLE_BYTES {
            return Some(at + 1 - NEEDLE_BYTES);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::Ending;
    use crate::oracle::tests::{LIMITS, seen};

    fn key(number: u64) -> Key {
        Key { seed: 7, number }
    }

    fn phrases(text: &str) -> Vec<Phrase> {
        text.split(',').map(Into::into).collect()
    }

    fn speech(dialect: &EchoDialect, number: u64) -> Vec<u8> {
        dialect.speech(key(number), &phrases("64,100")).expect("phrases").bytes
    }

    #[test]
    fn what_comes_back_is_counted_by_messages() {
        let dialect = EchoDialect::default();
        let bytes = speech(&dialect, 1);
        let mut ear = dialect.ear(key(1), &phrases("64,100")).expect("an ear");
        ear.hear(&bytes[..63], 164).expect("right");
        assert_eq!(ear.replies(), 0);
        ear.hear(&bytes[63..], 164).expect("right");
        assert_eq!(ear.replies(), 2);
        let unasked = ear.hear(&[], 100).expect_err("more than was said");
        assert_eq!(unasked.rule, Rule::Unasked);
    }

    #[test]
    fn a_foreign_byte_is_attributed_and_any_other_is_wrong() {
        let dialect = EchoDialect::default();
        let of = |number| dialect.ear(key(number), &phrases("64,100")).expect("an ear");
        let (mut ear, _other) = (of(1), of(2));
        let (own, other) = (speech(&dialect, 1), speech(&dialect, 2));
        ear.hear(&own[..10], 164).expect("right");
        let finding = ear.hear(&other[40..90], 164).expect_err("another's");
        assert_eq!(finding.rule, Rule::ForeignBytes);
        assert!(finding.detail.contains("byte 10 is"), "{finding:?}");
        assert!(finding.detail.contains("offset 40 of connection 2"), "{finding:?}");

        let finding = of(1).hear(&own[50..], 164).expect_err("another place's");
        assert_eq!(finding.rule, Rule::ForeignBytes);
        assert!(finding.detail.contains("offset 50 of this connection"), "{finding:?}");

        for wrong in [&[!own[0]; 40][..], &[!own[0]]] {
            let finding = of(1).hear(wrong, 164).expect_err("nobody's");
            assert_eq!(finding.rule, Rule::WrongBytes);
        }
    }

    #[test]
    fn a_connection_before_it_of_the_same_script_is_foreign() {
        let dialect = EchoDialect::default();
        let (first, second) = (key(5), key(5).of_connect(1));
        dialect.ear(first, &phrases("64")).expect("an ear");
        let stale = dialect.speech(first, &phrases("64")).expect("phrases").bytes;
        let mut ear = dialect.ear(second, &phrases("64")).expect("an ear");
        let finding = ear.hear(&stale, 64).expect_err("stale");
        assert!(finding.detail.ends_with("offset 0 of connection 5"), "{finding:?}");
        assert_eq!(second.to_string(), "connection 5 (connect 2)");
    }

    #[test]
    fn every_byte_said_is_owed() {
        let dialect = EchoDialect::default();
        let speech = dialect.speech(key(1), &phrases("64")).expect("phrases");
        let judge =
            |said, heard, ending| dialect.judge(&speech, &seen(said, heard, ending), &LIMITS);
        assert_eq!(judge(64, 64, Ending::Fin), oracle::fine("all of the echo, fin"));
        assert_eq!(judge(10, 10, Ending::Fin), oracle::fine("all of the echo, fin"));
        assert_eq!(judge(64, 0, Ending::Ours), oracle::fine("no echo, we left"));
        let lost = judge(64, 10, Ending::Fin);
        assert_eq!(lost.outcome, "part of the echo, fin");
        let finding = lost.finding.expect("lost");
        assert_eq!(finding.rule, Rule::LostReply);
        assert!(finding.detail.contains("54 of the 64 bytes"), "{finding:?}");
    }

    #[test]
    fn phrases_are_sizes() {
        let dialect = EchoDialect::default();
        for text in ["x", "0", "-1", "99999999", "16777216,1"] {
            let error = dialect.speech(key(1), &phrases(text)).expect_err(text);
            assert!(error.contains("number of bytes"), "{text}: {error}");
        }
        let mut state = 1_u64;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % below
        };
        for _ in 0..1_000 {
            let drawn = dialect.draw(false, &mut random);
            assert!(!dialect.speech(key(1), &drawn).expect("phrases").requests.is_empty());
        }
    }
}
