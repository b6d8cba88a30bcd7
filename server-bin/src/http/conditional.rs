//! Validators and preconditions (RFC 9110, 8.8 and 13).

use super::date;
use super::fields::{elements, values};
use ringwright::FileStatus;

/// What tells one version of a file from another.
#[derive(Clone, Copy, Debug)]
pub struct Validators {
    tag: [u8; TAG_BYTES],
    modified_s: i64,
    /// The clock of the reply, seconds.
    now_s: i64,
}

/// Two quotes, 24 digits of time, 16 of size, 16 of inode, two hyphens.
const TAG_BYTES: usize = 60;

/// What the preconditions of a GET or HEAD come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Answer as if there were none.
    Proceed,
    /// 304.
    NotModified,
    /// 412.
    Failed,
}

impl Validators {
    /// Of a file as it was when opened, at second `now_s` of the wall clock.
    #[must_use]
    pub fn of(status: &FileStatus, now_s: i64) -> Self {
        let mut tag = [b'"'; TAG_BYTES];
        hexadecimal(status.modified_s as u64, &mut tag[1..17]);
        hexadecimal(u64::from(status.modified_ns), &mut tag[17..25]);
        tag[25] = b'-';
        hexadecimal(status.bytes, &mut tag[26..42]);
        tag[42] = b'-';
        hexadecimal(status.inode, &mut tag[43..59]);
        Self { tag, modified_s: status.modified_s, now_s }
    }

    /// The strong entity tag, quotes included: time of modification, size and inode in
    /// hexadecimal.
    #[must_use]
    pub fn tag(&self) -> &[u8] {
        &self.tag
    }

    /// When the file was modified; `None` for a time in the future, which RFC 9110, 8.8.2.1
    /// forbids to claim.
    #[must_use]
    pub fn modified_s(&self) -> Option<i64> {
        (self.modified_s <= self.now_s).then_some(self.modified_s)
    }

    /// Evaluates the preconditions of a head, in the order of RFC 9110, 13.2.2.
    #[must_use]
    pub fn evaluate(&self, head: &[u8]) -> Outcome {
        match self.any_tag(head, "if-match", Comparison::Strong) {
            Some(false) => return Outcome::Failed,
            Some(true) => {}
            None => {
                if date_of(head, "if-unmodified-since").is_some_and(|since| self.modified_s > since)
                {
                    return Outcome::Failed;
                }
            }
        }
        let unchanged = match self.any_tag(head, "if-none-match", Comparison::Weak) {
            Some(matched) => matched,
            None => {
                date_of(head, "if-modified-since").is_some_and(|since| self.modified_s <= since)
            }
        };
        if unchanged { Outcome::NotModified } else { Outcome::Proceed }
    }

    /// Whether a Range may be honoured: If-Range is absent, or names this very version
    /// (RFC 9110, 13.1.5).
    #[must_use]
    pub fn range_holds(&self, head: &[u8]) -> bool {
        values(head, "if-range").all(|value| {
            if value.starts_with(b"\"") || value.starts_with(b"W/") {
                value == self.tag()
            } else {
                // A date is a strong validator only when the file cannot have changed twice in
                // its second (8.8.2.2).
                date::parse(value)
                    .is_some_and(|date| date == self.modified_s && self.now_s > date + 1)
            }
        })
    }

    /// Whether one of the tags listed is this one; `None`: no such field.
    fn any_tag(&self, head: &[u8], name: &str, comparison: Comparison) -> Option<bool> {
        let mut listed = None;
        for value in values(head, name) {
            let found = elements(value).any(|tag| {
                let weak = tag.strip_prefix(b"W/");
                match comparison {
                    _ if tag == b"*" => true,
                    Comparison::Strong => tag == self.tag(),
                    Comparison::Weak => weak.unwrap_or(tag) == self.tag(),
                }
            });
            listed = Some(listed.unwrap_or(false) || found);
        }
        listed
    }
}

/// RFC 9110, 8.8.3.2.
#[derive(Clone, Copy)]
enum Comparison {
    Strong,
    Weak,
}

fn date_of(head: &[u8], name: &str) -> Option<i64> {
    super::fields::single(head, name).and_then(date::parse)
}

fn hexadecimal(mut value: u64, digits: &mut [u8]) {
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(value & 15) as usize];
        value >>= 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringwright::FileKind;

    const MODIFIED: i64 = 784_111_777;
    const AT: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const AFTER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    fn file(modified_s: i64) -> FileStatus {
        let kind = FileKind::Regular;
        FileStatus {
            bytes: 0x1234,
            modified_s,
            modified_ns: 5,
            changed_s: modified_s,
            changed_ns: 5,
            links: 1,
            device: 1,
            inode: 0xabcd,
            kind,
        }
    }

    fn validators() -> Validators {
        Validators::of(&file(MODIFIED), MODIFIED + 100)
    }

    fn tag() -> String {
        String::from_utf8(validators().tag().to_vec()).unwrap()
    }

    fn outcome(fields: &str) -> Outcome {
        validators().evaluate(format!("GET / HTTP/1.1\r\n{fields}\r\n\r\n").as_bytes())
    }

    #[test]
    fn the_tag_tells_versions_apart() {
        assert_eq!(tag(), "\"000000002ebc98a100000005-0000000000001234-000000000000abcd\"");
        let other = FileStatus { modified_ns: 6, ..file(MODIFIED) };
        assert_ne!(Validators::of(&other, 0).tag(), validators().tag());
        let other = FileStatus { inode: 1, ..file(MODIFIED) };
        assert_ne!(Validators::of(&other, 0).tag(), validators().tag());
    }

    #[test]
    fn no_modification_in_the_future() {
        assert_eq!(Validators::of(&file(100), 100).modified_s(), Some(100));
        assert_eq!(Validators::of(&file(101), 100).modified_s(), None);
    }

    #[test]
    fn preconditions() {
        use Outcome::*;
        let tag = tag();
        for (fields, expected) in [
            (format!("If-None-Match: {tag}"), NotModified),
            (format!("If-None-Match: W/{tag}"), NotModified),
            (format!("If-None-Match: \"a\", {tag}"), NotModified),
            (format!("If-None-Match: \"a\"\r\nIf-None-Match: {tag}"), NotModified),
            ("If-None-Match: *".into(), NotModified),
            ("If-None-Match: \"a\"".into(), Proceed),
            (format!("If-None-Match: {}", tag.trim_matches('"')), Proceed),
            // The tag decides, whatever the date says.
            (format!("If-None-Match: \"a\"\r\nIf-Modified-Since: {AFTER}"), Proceed),
            (format!("If-Modified-Since: {BEFORE}"), Proceed),
            (format!("If-Modified-Since: {AT}"), NotModified),
            (format!("If-Modified-Since: {AFTER}"), NotModified),
            ("If-Modified-Since: soon".into(), Proceed),
            (format!("If-Match: {tag}"), Proceed),
            ("If-Match: *".into(), Proceed),
            (format!("If-Match: W/{tag}"), Failed),
            ("If-Match: \"a\"".into(), Failed),
            (format!("If-Match: {tag}\r\nIf-Unmodified-Since: {BEFORE}"), Proceed),
            (format!("If-Match: {tag}\r\nIf-None-Match: {tag}"), NotModified),
            (format!("If-Unmodified-Since: {BEFORE}"), Failed),
            (format!("If-Unmodified-Since: {AT}"), Proceed),
            ("If-Unmodified-Since: soon".into(), Proceed),
        ] {
            assert_eq!(outcome(&fields), expected, "{fields}");
        }
    }

    #[test]
    fn if_range() {
        let tag = tag();
        for (fields, holds) in [
            (String::new(), true),
            (format!("If-Range: {tag}"), true),
            (format!("If-Range: W/{tag}"), false),
            ("If-Range: \"a\"".into(), false),
            (format!("If-Range: {AT}"), true),
            (format!("If-Range: {AFTER}"), false),
            (format!("If-Range: {BEFORE}"), false),
            ("If-Range: soon".into(), false),
            (format!("If-Range: {tag}\r\nIf-Range: \"a\""), false),
        ] {
            let head = format!("GET / HTTP/1.1\r\n{fields}\r\n\r\n");
            assert_eq!(validators().range_holds(head.as_bytes()), holds, "{fields}");
        }
        let fresh = Validators::of(&file(MODIFIED), MODIFIED + 1);
        let head = format!("GET / HTTP/1.1\r\nIf-Range: {AT}\r\n\r\n");
        assert!(!fresh.range_holds(head.as_bytes()), "it may change within its second");
    }
}
