//! HTTP dates (RFC 9110, 5.6.7).

use std::io::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const SERVER: &[u8] = b"Server: ringwright\r\n";
const NO_SNIFF: &[u8] = b"X-Content-Type-Options: nosniff\r\n";

/// Year 10000 and later cannot be written as an HTTP date.
const LAST_S: i64 = 253_402_300_799;

const WEEKDAYS: [&str; 7] =
    ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

/// Appends seconds since 1970-01-01 UTC as `Sun, 06 Nov 1994 08:49:37 GMT`. `false`, and nothing
/// appended, before 1970 and after 9999.
#[must_use]
pub fn append(seconds: i64, out: &mut Vec<u8>) -> bool {
    if !(0..=LAST_S).contains(&seconds) {
        return false;
    }
    let time = UNIX_EPOCH + Duration::from_secs(seconds.unsigned_abs());
    write!(out, "{}", httpdate::HttpDate::from(time)).is_ok()
}

/// Reads any of the three formats; seconds since 1970-01-01 UTC. The name of the weekday does not
/// have to be that of the date: the date alone says which day is meant.
#[must_use]
pub fn parse(text: &[u8]) -> Option<i64> {
    let text = str::from_utf8(text).ok()?;
    let time = httpdate::parse_http_date(text).ok().or_else(|| with_weekday_corrected(text))?;
    i64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_secs()).ok()
}

/// Tries the other weekdays, because `httpdate` refuses the wrong ones.
fn with_weekday_corrected(text: &str) -> Option<SystemTime> {
    let (name, rest) = text.split_at(text.find([',', ' '])?);
    let is_short = WEEKDAYS.iter().any(|weekday| &weekday[..3] == name);
    if !is_short && !WEEKDAYS.contains(&name) {
        return None;
    }
    WEEKDAYS.iter().find_map(|weekday| {
        let name = if is_short { &weekday[..3] } else { weekday };
        httpdate::parse_http_date(&format!("{name}{rest}")).ok()
    })
}

/// The header lines that every reply carries, `Date` among them: written once a second.
#[derive(Debug, Default)]
pub struct CommonLines {
    lines: Vec<u8>,
    seconds: i64,
    valid_until: Duration,
}

impl CommonLines {
    /// Brings the lines up to date. `now` is the shard's clock, so that the wall clock need not
    /// be asked for every reply.
    pub fn refresh(&mut self, now: Duration) {
        if now < self.valid_until {
            return;
        }
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.seconds = i64::try_from(wall.as_secs()).unwrap_or(LAST_S).min(LAST_S);
        self.valid_until =
            now + Duration::from_nanos(1_000_000_000 - u64::from(wall.subsec_nanos()));
        self.lines.clear();
        self.lines.extend_from_slice(SERVER);
        self.lines.extend_from_slice(b"Date: ");
        let written = append(self.seconds, &mut self.lines);
        debug_assert!(written, "the range was checked");
        self.lines.extend_from_slice(b"\r\n");
        self.lines.extend_from_slice(NO_SNIFF);
    }

    /// The lines, each with its CRLF.
    #[must_use]
    pub fn lines(&self) -> &[u8] {
        &self.lines
    }

    /// The lines without Server or without X-Content-Type-Options, where rules replace them.
    #[must_use]
    pub fn lines_without(&self, server: bool, no_sniff: bool) -> &[u8] {
        let start = if server { SERVER.len() } else { 0 };
        let end = self.lines.len() - if no_sniff { NO_SNIFF.len() } else { 0 };
        &self.lines[start..end]
    }

    /// The second the lines are of, since 1970-01-01 UTC.
    #[must_use]
    pub const fn seconds(&self) -> i64 {
        self.seconds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_in_three_formats() {
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            // 1994-11-06 was a Sunday.
            "Mon, 06 Nov 1994 08:49:37 GMT",
            "Wednesday, 06-Nov-94 08:49:37 GMT",
            "Sat Nov  6 08:49:37 1994",
        ] {
            assert_eq!(parse(text.as_bytes()), Some(784_111_777), "{text}");
        }
        for bad in [
            &b""[..],
            b"yesterday",
            b"\xff",
            b"Sun, 06 Nov 1994 25:49:37 GMT",
            b"Mon, 31 Feb 1994 08:49:37 GMT",
            b"Son, 06 Nov 1994 08:49:37 GMT",
            b"mon, 06 Nov 1994 08:49:37 GMT",
            b"Monday, 06 Nov 1994 08:49:37 GMT",
            b"Mon, 06-Nov-94 08:49:37 GMT",
            b", 06 Nov 1994 08:49:37 GMT",
            b"06 Nov 1994 08:49:37 GMT",
        ] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn unwritable_dates_are_left_out() {
        let mut out = Vec::new();
        assert!(append(784_111_777, &mut out));
        assert_eq!(out, b"Sun, 06 Nov 1994 08:49:37 GMT");
        out.clear();
        assert!(append(LAST_S, &mut out));
        out.clear();
        for seconds in [-1, LAST_S + 1, i64::MAX, i64::MIN] {
            assert!(!append(seconds, &mut out));
        }
        assert!(out.is_empty());
    }

    #[test]
    fn lines_hold_for_less_than_a_second() {
        let mut common = CommonLines::default();
        common.refresh(Duration::ZERO);
        assert!(
            common.valid_until > Duration::ZERO && common.valid_until <= Duration::from_secs(1)
        );
        let before = common.seconds();
        common.refresh(common.valid_until);
        assert!(common.seconds() - before <= 1);
        assert!(common.lines().starts_with(b"Server: ringwright\r\nDate: "));
    }
}
