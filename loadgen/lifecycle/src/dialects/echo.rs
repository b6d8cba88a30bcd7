//! The echo dialect: the server returns every byte in order, and answers the client's FIN with its
//! own.
//!
//! A phrase is the size of a message in bytes. The bytes are computed from the connection's key, so
//! wrong bytes can be searched for in the data of other connections.

use super::recent::Recent;
use crate::dialect::{Checker, Dialect, Key, Limits, Outgoing, Phrase, Record, Request, Verdict};
use crate::finding::{Finding, Rule};
use crate::oracle;
use crate::stream::Stream;
use std::sync::Arc;

/// Maximum number of bytes that a connection sends.
const SPEECH_BYTES_MAX: u64 = 16 << 20;

/// The echo dialect.
#[derive(Default)]
pub struct EchoDialect {
    recent: Arc<Recent>,
}

impl Dialect for EchoDialect {
    fn name(&self) -> &'static str {
        "echo"
    }

    fn outgoing(&self, key: Key, phrases: &[Phrase]) -> Result<Outgoing, String> {
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
        Ok(Outgoing { bytes, requests })
    }

    fn checker(&self, key: Key, phrases: &[Phrase]) -> Result<Box<dyn Checker>, String> {
        let sizes = sizes(phrases)?;
        self.recent.remember(key, sizes.iter().sum());
        Ok(Box::new(EchoChecker {
            key,
            sizes,
            received: 0,
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

    fn judge(&self, outgoing: &Outgoing, record: &Record, limits: &Limits) -> Verdict {
        debug_assert!(record.actions.sent <= outgoing.bytes.len() as u64);
        if let Some(verdict) = oracle::common(record, limits) {
            return verdict;
        }
        let (sent, received) = (record.actions.sent, record.received);
        let progress = match received {
            0 if sent == 0 => "nothing said",
            0 => "no echo",
            _ if received < sent => "part of the echo",
            _ => "all of the echo",
        };
        let missing = (received < sent)
            .then(|| format!("{} of the {sent} bytes sent had not been echoed", sent - received));
        oracle::judge_ending(progress, missing.as_deref(), record, limits)
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

struct EchoChecker {
    key: Key,
    sizes: Vec<u64>,
    received: u64,
    replies: u64,
    /// Bytes of the incomplete reply.
    rest: u64,
    recent: Arc<Recent>,
}

impl Checker for EchoChecker {
    fn receive(&mut self, bytes: &[u8], sent: u64) -> Result<(), Finding> {
        let stream = Stream::new(self.key.seed, self.key.number);
        if let Some(at) = stream.mismatch(self.received, bytes) {
            let (offset, mut must) = (self.received + at as u64, [0]);
            stream.fill(offset, &mut must);
            let (byte, [must]) = (bytes[at], must);
            let what = format!("byte {offset} is {byte:#04x}, expected {must:#04x}");
            return Err(self.recent.attribute(self.key, &bytes[at..], &what));
        }
        self.received += bytes.len() as u64;
        if self.received > sent {
            let detail =
                format!("{} bytes were received, but only {sent} had been sent", self.received);
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

    fn outgoing(dialect: &EchoDialect, number: u64) -> Vec<u8> {
        dialect.outgoing(key(number), &phrases("64,100")).expect("phrases").bytes
    }

    #[test]
    fn what_comes_back_is_counted_by_messages() {
        let dialect = EchoDialect::default();
        let bytes = outgoing(&dialect, 1);
        let mut checker = dialect.checker(key(1), &phrases("64,100")).expect("an ear");
        checker.receive(&bytes[..63], 164).expect("right");
        assert_eq!(checker.replies(), 0);
        checker.receive(&bytes[63..], 164).expect("right");
        assert_eq!(checker.replies(), 2);
        let unasked = checker.receive(&[], 100).expect_err("more than was said");
        assert_eq!(unasked.rule, Rule::Unasked);
    }

    #[test]
    fn a_foreign_byte_is_attributed_and_any_other_is_wrong() {
        let dialect = EchoDialect::default();
        let of = |number| dialect.checker(key(number), &phrases("64,100")).expect("an ear");
        let (mut checker, _other) = (of(1), of(2));
        let (own, other) = (outgoing(&dialect, 1), outgoing(&dialect, 2));
        checker.receive(&own[..10], 164).expect("right");
        let finding = checker.receive(&other[40..90], 164).expect_err("another's");
        assert_eq!(finding.rule, Rule::ForeignBytes);
        assert!(finding.detail.contains("byte 10 is"), "{finding:?}");
        assert!(finding.detail.contains("offset 40 of connection 2"), "{finding:?}");

        let finding = of(1).receive(&own[50..], 164).expect_err("another place's");
        assert_eq!(finding.rule, Rule::ForeignBytes);
        assert!(finding.detail.contains("offset 50 of this connection"), "{finding:?}");

        for wrong in [&[!own[0]; 40][..], &[!own[0]]] {
            let finding = of(1).receive(wrong, 164).expect_err("nobody's");
            assert_eq!(finding.rule, Rule::WrongBytes);
        }
    }

    #[test]
    fn a_connection_before_it_of_the_same_script_is_foreign() {
        let dialect = EchoDialect::default();
        let (first, second) = (key(5), key(5).of_connect(1));
        dialect.checker(first, &phrases("64")).expect("an ear");
        let stale = dialect.outgoing(first, &phrases("64")).expect("phrases").bytes;
        let mut checker = dialect.checker(second, &phrases("64")).expect("an ear");
        let finding = checker.receive(&stale, 64).expect_err("stale");
        assert!(finding.detail.ends_with("offset 0 of connection 5"), "{finding:?}");
        assert_eq!(second.to_string(), "connection 5 (connect 2)");
    }

    #[test]
    fn every_byte_said_is_owed() {
        let dialect = EchoDialect::default();
        let outgoing = dialect.outgoing(key(1), &phrases("64")).expect("phrases");
        let judge = |sent, received, ending| {
            dialect.judge(&outgoing, &seen(sent, received, ending), &LIMITS)
        };
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
            let error = dialect.outgoing(key(1), &phrases(text)).expect_err(text);
            assert!(error.contains("number of bytes"), "{text}: {error}");
        }
        let mut state = 1_u64;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % below
        };
        for _ in 0..1_000 {
            let drawn = dialect.draw(false, &mut random);
            assert!(!dialect.outgoing(key(1), &drawn).expect("phrases").requests.is_empty());
        }
    }
}
