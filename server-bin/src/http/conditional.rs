//! Validators and preconditions (RFC 9110, 8.8 and 13).

use super::date;
use super::fields::{elements, values};
use ringwright::files::FileStatus;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What tells one version of a file from another.
#[derive(Clone, Copy, Debug)]
pub struct Validators {
    tag: [u8; TAG_BYTES],
    /// Where it lies in there.
    tag_begin: usize,
    tag_end: usize,
    is_strong: bool,
    modified_s: i64,
    changed_s: i64,
    /// The clock of the reply, seconds.
    now_s: i64,
}

/// Longer than a tick of the clock that file systems take their times from. Two changes within one
/// tick look like one.
const SETTLED: Duration = Duration::from_millis(20);
/// Build tools and archives set this time, in seconds, or an earlier one, to files of any content.
const MODIFIED_NEVER_MAX_S: i64 = 1;

/// Stands before a weak tag.
const WEAK: &[u8] = b"W/";
/// Ends a weak tag, instead of a quote.
const NEW: &[u8] = b"-new\"";
/// Two quotes, 24 digits of time, 16 of size, 16 of inode, two hyphens.
const STRONG_TAG_BYTES: usize = 60;
/// A weak tag, which has room for a strong one behind [`WEAK`].
const TAG_BYTES: usize = WEAK.len() + STRONG_TAG_BYTES - 1 + NEW.len();

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
    /// Of a file as it was when opened, at second `now_s` of the wall clock. A file has no strong
    /// tag unless it `is_settled`, see [`is_settled`].
    #[must_use]
    pub fn of(status: &FileStatus, now_s: i64, is_settled: bool) -> Self {
        let (modified_s, changed_s) = (status.modified_s, status.changed_s);
        let strong_end = WEAK.len() + STRONG_TAG_BYTES;
        let (tag_begin, tag_end) =
            if is_settled { (WEAK.len(), strong_end) } else { (0, TAG_BYTES) };
        let (tag, is_strong) = (tag_of(status, is_settled), is_settled);
        Self { tag, tag_begin, tag_end, is_strong, modified_s, changed_s, now_s }
    }

    /// Of contents that were read, all of them, from a file with this status. The tag is their
    /// digest in hexadecimal, so that servers with equal files send equal tags. It is strong even
    /// if the file has just changed, because the contents that are sent have it.
    ///
    /// A file with another length than its status tells has no date either: its status does not
    /// follow its contents (/proc, /sys).
    #[must_use]
    pub fn of_content(status: &FileStatus, now_s: i64, bytes: u64, digest: &[u8; 16]) -> Self {
        let mut tag = [b'"'; TAG_BYTES];
        for (byte, digits) in digest.iter().zip(tag[1..].chunks_exact_mut(2)) {
            hexadecimal(u64::from(*byte), digits);
        }
        let is_dated = bytes == status.bytes;
        let modified_s = if is_dated { status.modified_s } else { MODIFIED_NEVER_MAX_S };
        let (tag_begin, tag_end, is_strong) = (0, 2 + 2 * digest.len(), true);
        let changed_s = status.changed_s;
        Self { tag, tag_begin, tag_end, is_strong, modified_s, changed_s, now_s }
    }

    /// The entity tag, quotes included: the digest of the contents, or time of the last change
    /// (ctime), size and inode, in hexadecimal. Nobody can set the time of the last change, so it
    /// does not come back when older contents or an older time of modification are restored.
    ///
    /// The tag of a file that is not settled is weak, and no precondition matches it: another
    /// version could have the same.
    #[must_use]
    pub fn tag(&self) -> &[u8] {
        &self.tag[self.tag_begin..self.tag_end]
    }

    fn strong_tag(&self) -> Option<&[u8]> {
        self.is_strong.then(|| self.tag())
    }

    /// When the file was modified. `None` for a time in the future, which RFC 9110, 8.8.2.1 forbids
    /// to claim, and for one that says nothing.
    #[must_use]
    pub fn modified_s(&self) -> Option<i64> {
        let is_told = self.modified_s > MODIFIED_NEVER_MAX_S && self.modified_s <= self.now_s;
        is_told.then_some(self.modified_s)
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
            // An older date may be that of other contents, which were restored.
            None => date_of(head, "if-modified-since")
                .is_some_and(|since| self.modified_s() == Some(since)),
        };
        if unchanged { Outcome::NotModified } else { Outcome::Proceed }
    }

    /// Whether a Range may be honoured: If-Range is absent, or names this very version
    /// (RFC 9110, 13.1.5).
    #[must_use]
    pub fn range_holds(&self, head: &[u8]) -> bool {
        values(head, "if-range").all(|value| {
            if value.starts_with(b"\"") || value.starts_with(b"W/") {
                Some(value) == self.strong_tag()
            } else {
                // A date is a strong validator only when the file cannot have changed twice in
                // its second (8.8.2.2), and when the date was not set to an earlier one.
                date::parse(value).is_some_and(|date| {
                    self.modified_s() == Some(date)
                        && self.changed_s == date
                        && self.now_s > date + 1
                })
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
                    Comparison::Strong => Some(tag) == self.strong_tag(),
                    Comparison::Weak => Some(weak.unwrap_or(tag)) == self.strong_tag(),
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

/// Returns whether a file with this status had been left alone for long enough at `since`, which
/// lies before the status was asked for. Then every later change shows in the status.
#[must_use]
pub fn is_settled(status: &FileStatus, since: SystemTime) -> bool {
    let Ok(changed_s) = u64::try_from(status.changed_s) else { return true };
    let changed = UNIX_EPOCH + Duration::new(changed_s, status.changed_ns);
    since.duration_since(changed).is_ok_and(|age| age >= SETTLED)
}

fn tag_of(status: &FileStatus, is_settled: bool) -> [u8; TAG_BYTES] {
    let mut tag = [b'"'; TAG_BYTES];
    let (weak, rest) = tag.split_at_mut(WEAK.len());
    weak.copy_from_slice(WEAK);
    hexadecimal(status.changed_s as u64, &mut rest[1..17]);
    hexadecimal(u64::from(status.changed_ns), &mut rest[17..25]);
    rest[25] = b'-';
    hexadecimal(status.bytes, &mut rest[26..42]);
    rest[42] = b'-';
    hexadecimal(status.inode, &mut rest[43..59]);
    if !is_settled {
        rest[59..].copy_from_slice(NEW);
    }
    tag
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
    use ringwright::files::FileKind;

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
        Validators::of(&file(MODIFIED), MODIFIED + 100, true)
    }

    fn tag_of(status: &FileStatus) -> String {
        let validators = Validators::of(status, MODIFIED + 100, true);
        String::from_utf8(validators.tag().to_vec()).unwrap()
    }

    fn tag() -> String {
        tag_of(&file(MODIFIED))
    }

    fn outcome(fields: &str) -> Outcome {
        validators().evaluate(format!("GET / HTTP/1.1\r\n{fields}\r\n\r\n").as_bytes())
    }

    #[test]
    fn the_tag_tells_versions_apart() {
        assert_eq!(tag(), "\"000000002ebc98a100000005-0000000000001234-000000000000abcd\"");
        for other in [
            FileStatus { changed_ns: 6, ..file(MODIFIED) },
            FileStatus { changed_s: MODIFIED + 1, ..file(MODIFIED) },
            FileStatus { bytes: 1, ..file(MODIFIED) },
            FileStatus { inode: 1, ..file(MODIFIED) },
        ] {
            assert_ne!(tag_of(&other), tag());
        }
        // The time of modification can be set, and alone tells nothing.
        let other = FileStatus { modified_s: 1, modified_ns: 0, ..file(MODIFIED) };
        assert_eq!(tag_of(&other), tag());
    }

    #[test]
    fn a_tag_of_contents_is_their_digest() {
        let digest = *b"\x01\x23\x45\x67\x89\xab\xcd\xef\xfe\xdc\xba\x98\x76\x54\x32\x10";
        let of = |status: FileStatus, bytes| {
            Validators::of_content(&status, MODIFIED + 100, bytes, &digest)
        };
        let tag = "\"0123456789abcdeffedcba9876543210\"";
        let head = |name: &str, value: &str| format!("GET / HTTP/1.1\r\n{name}: {value}\r\n\r\n");
        for status in [file(MODIFIED), FileStatus { inode: 1, ..file(MODIFIED - 5) }] {
            let validators = of(status, status.bytes);
            assert_eq!(validators.tag(), tag.as_bytes());
            assert_eq!(validators.modified_s(), Some(status.modified_s));
            let outcome = validators.evaluate(head("If-None-Match", tag).as_bytes());
            assert_eq!(outcome, Outcome::NotModified);
            assert!(validators.range_holds(head("If-Range", tag).as_bytes()));
        }
        // The status of a file with another length says nothing about its contents.
        let validators = of(file(MODIFIED), 30);
        assert_eq!(validators.modified_s(), None);
        assert!(validators.range_holds(head("If-Range", tag).as_bytes()));
        assert!(!validators.range_holds(head("If-Range", AT).as_bytes()));
        let outcome = validators.evaluate(head("If-Modified-Since", AT).as_bytes());
        assert_eq!(outcome, Outcome::Proceed);
    }

    #[test]
    fn a_file_that_has_just_changed_has_no_strong_tag() {
        let changed = UNIX_EPOCH + Duration::new(MODIFIED as u64, 5);
        for (age, settled) in [(SETTLED, true), (SETTLED - Duration::from_nanos(1), false)] {
            assert_eq!(is_settled(&file(MODIFIED), changed + age), settled, "{age:?}");
        }
        assert!(!is_settled(&file(MODIFIED), changed - Duration::from_secs(9)), "in the future");
        assert!(is_settled(&file(-1), UNIX_EPOCH));
        let fresh = Validators::of(&file(MODIFIED), MODIFIED, false);
        let weak = String::from_utf8(fresh.tag().to_vec()).unwrap();
        assert_eq!(weak, format!("W/{}-new\"", &tag()[..59]));
        let head = format!("GET / HTTP/1.1\r\nIf-None-Match: {weak}\r\nIf-Range: {weak}\r\n\r\n");
        for later in [fresh, validators()] {
            assert_eq!(later.evaluate(head.as_bytes()), Outcome::Proceed);
            assert!(!later.range_holds(head.as_bytes()));
        }
        let tag = tag();
        for (fields, expected) in [
            (format!("If-None-Match: {tag}"), Outcome::Proceed),
            ("If-None-Match: *".into(), Outcome::NotModified),
            (format!("If-Match: {tag}"), Outcome::Failed),
            ("If-Match: *".into(), Outcome::Proceed),
        ] {
            let head = format!("GET / HTTP/1.1\r\n{fields}\r\n\r\n");
            assert_eq!(fresh.evaluate(head.as_bytes()), expected, "{fields}");
        }
        let head = format!("GET / HTTP/1.1\r\nIf-Range: {tag}\r\n\r\n");
        assert!(!fresh.range_holds(head.as_bytes()));
    }

    #[test]
    fn no_modification_in_the_future_and_none_at_the_epoch() {
        let told = |modified_s| Validators::of(&file(modified_s), 100, true).modified_s();
        for modified_s in [2, 99, 100] {
            assert_eq!(told(modified_s), Some(modified_s));
        }
        for modified_s in [-1, 0, 1, 101] {
            assert_eq!(told(modified_s), None);
            if let Ok(seconds) = u64::try_from(modified_s) {
                let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds));
                let validators = Validators::of(&file(modified_s), 100, true);
                for (name, expected) in
                    [("If-Modified-Since", Outcome::Proceed), ("If-Range", Outcome::Proceed)]
                {
                    let head = format!("GET / HTTP/1.1\r\n{name}: {date}\r\n\r\n");
                    assert_eq!(validators.evaluate(head.as_bytes()), expected, "{head}");
                    let holds = validators.range_holds(head.as_bytes());
                    assert_eq!(holds, name != "If-Range", "{head}");
                }
            }
        }
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
            (format!("If-Modified-Since: {AFTER}"), Proceed),
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
        let fresh = Validators::of(&file(MODIFIED), MODIFIED + 1, true);
        let head = format!("GET / HTTP/1.1\r\nIf-Range: {AT}\r\n\r\n");
        assert!(!fresh.range_holds(head.as_bytes()), "it may change within its second");
        let restored = FileStatus { changed_s: MODIFIED + 50, ..file(MODIFIED) };
        let restored = Validators::of(&restored, MODIFIED + 100, true);
        assert!(!restored.range_holds(head.as_bytes()), "its time was set");
    }
}
