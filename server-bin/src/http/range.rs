//! Range requests (RFC 9110, 14).

use super::fields::{decimal, elements};
use super::reply;
use std::hash::{BuildHasher as _, RandomState};

/// Ranges of a request at most, whatever the configuration allows.
pub const RANGES_MAX: u16 = 64;

/// Overlaps in the ranges of a request at most. RFC 9110, 14.2 takes more for an attack.
const OVERLAPS_MAX: u32 = 2;
/// The bytes that a part costs beside its content, about. Ranges with a smaller gap become one.
const PART_BYTES: u64 = 150;

/// The part of a file of a certain size that a Range selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selected {
    /// No range, one that is not understood, or several: the whole file. RFC 9110, 14.2 leaves
    /// that to the server, and several ranges are mostly an attack.
    Whole,
    /// From the first byte to the last one, both included.
    Part {
        /// Offset of the first byte.
        first: u64,
        /// Offset of the last byte.
        last: u64,
    },
    /// 416: nothing of the file.
    Nothing,
}

/// Reads the value of a Range field.
#[must_use]
pub fn select(value: &[u8], file_bytes: u64) -> Selected {
    // A client that always sends a Range must be able to get an empty file. RFC 9110, 14.1.2 calls
    // a suffix of it satisfiable, and 14.2 allows to ignore every other range.
    if file_bytes == 0 {
        return Selected::Whole;
    }
    parse(value, file_bytes).unwrap_or(Selected::Whole)
}

/// The result of several ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SelectedParts {
    /// The reply is that to one range or to none.
    One(Selected),
    /// The reply is a [`Multipart`] with the parts of the list.
    Several,
}

/// Reads the value of a Range field with at most `ranges_max` ranges. `parts` is emptied first; it
/// gets the first and the last byte of each part, in the order of the request.
///
/// Ranges that overlap or nearly touch become one part (RFC 9110, 15.3.7.2). The whole file is
/// selected instead of more ranges than the limit, of more than two overlaps, and of parts that
/// take no fewer bytes than the file (17.15).
#[must_use]
pub fn select_several(
    value: &[u8],
    file_bytes: u64,
    ranges_max: u16,
    parts: &mut Vec<(u64, u64)>,
) -> SelectedParts {
    parts.clear();
    let is_list = memchr::memchr(b',', value).is_some();
    if !is_list || ranges_max < 2 || file_bytes == 0 {
        return SelectedParts::One(select(value, file_bytes));
    }
    let ranges_max = usize::from(ranges_max.min(RANGES_MAX));
    if parse_list(value, file_bytes, ranges_max, parts).is_none() {
        parts.clear();
        return SelectedParts::One(Selected::Whole);
    }
    coalesce(parts);
    let bytes = |(first, last): &(u64, u64)| last - first + 1 + PART_BYTES;
    match parts[..] {
        [] => SelectedParts::One(Selected::Nothing),
        [(first, last)] => SelectedParts::One(Selected::Part { first, last }),
        // Parts are disjoint, so that the sum is not much more than the file.
        _ if parts.iter().map(bytes).fold(0, u64::saturating_add) >= file_bytes => {
            parts.clear();
            SelectedParts::One(Selected::Whole)
        }
        _ => SelectedParts::Several,
    }
}

/// `None`: the whole file. Ranges beyond the end of the file are left out.
fn parse_list(
    value: &[u8],
    file_bytes: u64,
    ranges_max: usize,
    parts: &mut Vec<(u64, u64)>,
) -> Option<()> {
    let mut overlaps = 0;
    for (at, element) in elements(set_of(value)?).enumerate() {
        if at == ranges_max {
            return None;
        }
        if let Selected::Part { first, last } = parse_element(element, file_bytes)? {
            let overlapping = parts.iter().filter(|part| first <= part.1 && part.0 <= last);
            overlaps += overlapping.count() as u32;
            if overlaps > OVERLAPS_MAX {
                return None;
            }
            parts.push((first, last));
        }
    }
    Some(())
}

/// Joins parts whose gap is smaller than the head of a part.
fn coalesce(parts: &mut Vec<(u64, u64)>) {
    let mut at = 0;
    while at < parts.len() {
        let before = parts.len();
        let mut next = at + 1;
        while next < parts.len() {
            let (part, other) = (parts[at], parts[next]);
            let gap_begin = part.1.min(other.1);
            let gap_end = part.0.max(other.0);
            if gap_end.saturating_sub(gap_begin) <= PART_BYTES {
                parts[at] = (part.0.min(other.0), part.1.max(other.1));
                parts.remove(next);
            } else {
                next += 1;
            }
        }
        // A part that has grown may have come near another one.
        if parts.len() == before {
            at += 1;
        }
    }
}

fn parse(value: &[u8], file_bytes: u64) -> Option<Selected> {
    parse_element(set_of(value)?, file_bytes)
}

/// The list of ranges, if their unit is the byte.
fn set_of(value: &[u8]) -> Option<&[u8]> {
    const UNIT: &[u8] = b"bytes=";
    let (unit, set) = value.split_at_checked(UNIT.len())?;
    unit.eq_ignore_ascii_case(UNIT).then(|| set.trim_ascii())
}

fn parse_element(element: &[u8], file_bytes: u64) -> Option<Selected> {
    let hyphen = memchr::memchr(b'-', element)?;
    let (first, last) = (&element[..hyphen], &element[hyphen + 1..]);
    if first.is_empty() {
        let suffix = decimal(last)?.min(file_bytes);
        return Some(match suffix {
            0 => Selected::Nothing,
            _ => Selected::Part { first: file_bytes - suffix, last: file_bytes - 1 },
        });
    }
    let first = decimal(first)?;
    let last = if last.is_empty() { u64::MAX } else { decimal(last)? };
    if last < first {
        return None;
    }
    if first >= file_bytes {
        return Some(Selected::Nothing);
    }
    Some(Selected::Part { first, last: last.min(file_bytes - 1) })
}

/// A content of type `multipart/byteranges` (RFC 9110, 14.6): for each part its head, then its
/// bytes of the file; at last the end.
#[derive(Clone, Copy, Debug)]
pub struct Multipart<'a> {
    /// The text between parts.
    pub boundary: &'a Boundary,
    /// The Content-Type of the file.
    pub media_type: &'a [u8],
    /// The length of the file.
    pub file_bytes: u64,
}

impl Multipart<'_> {
    /// Appends the line of the reply's head that replaces the Content-Type of the file.
    pub fn append_type_line(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"Content-Type: multipart/byteranges; boundary=");
        out.extend_from_slice(&self.boundary.0);
        out.extend_from_slice(b"\r\n");
    }

    /// Appends the head of a part.
    pub fn append_part_head(&self, is_first: bool, part: (u64, u64), out: &mut Vec<u8>) {
        out.extend_from_slice(if is_first { b"--" } else { b"\r\n--" });
        out.extend_from_slice(&self.boundary.0);
        out.extend_from_slice(b"\r\nContent-Type: ");
        out.extend_from_slice(self.media_type);
        out.extend_from_slice(b"\r\nContent-Range: bytes ");
        reply::decimal(out, part.0);
        out.push(b'-');
        reply::decimal(out, part.1);
        out.push(b'/');
        reply::decimal(out, self.file_bytes);
        out.extend_from_slice(b"\r\n\r\n");
    }

    /// Appends the text behind the last part.
    pub fn append_end(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"\r\n--");
        out.extend_from_slice(&self.boundary.0);
        out.extend_from_slice(b"--\r\n");
    }

    /// The length of the whole content, in bytes.
    #[must_use]
    pub fn length(&self, parts: &[(u64, u64)]) -> u64 {
        // The line ends around the boundary, names of fields, two characters of the range, and
        // the empty line.
        const FIXED_BYTES: usize =
            b"\r\n--\r\nContent-Type: \r\nContent-Range: bytes -/\r\n\r\n".len();
        let fixed = FIXED_BYTES + BOUNDARY_BYTES + self.media_type.len();
        let heads_and_contents = parts.iter().map(|&(first, last)| {
            let numbers = digits(first) + digits(last) + digits(self.file_bytes);
            fixed as u64 + numbers + (last - first + 1)
        });
        // The first part has no line end before it, and the end has one more hyphen pair.
        let end = (b"\r\n----\r\n".len() + BOUNDARY_BYTES - b"\r\n".len()) as u64;
        heads_and_contents.sum::<u64>() + end
    }
}

const BOUNDARY_BYTES: usize = 32;

/// A text that the file does not contain, except by a chance of 2⁻¹²⁸.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boundary([u8; BOUNDARY_BYTES]);

/// Makes boundaries. Nobody can guess one and write it into a file before.
#[derive(Debug, Default)]
pub struct Boundaries {
    keys: RandomState,
    made: u64,
}

impl Boundaries {
    /// Makes the boundary of one reply.
    pub fn make(&mut self) -> Boundary {
        self.made += 1;
        let mut text = [0; BOUNDARY_BYTES];
        for (half, digits) in text.chunks_exact_mut(16).enumerate() {
            let mut hash = self.keys.hash_one((half, self.made));
            for digit in digits {
                *digit = b"0123456789abcdef"[(hash & 15) as usize];
                hash >>= 4;
            }
        }
        Boundary(text)
    }
}

/// The number of decimal digits.
fn digits(value: u64) -> u64 {
    u64::from(value.checked_ilog10().unwrap_or(0)) + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_of_ten_bytes() {
        let part = |first, last| Selected::Part { first, last };
        for (value, selected) in [
            ("bytes=0-0", part(0, 0)),
            ("bytes=0-", part(0, 9)),
            ("Bytes= 2-5 ", part(2, 5)),
            ("bytes=9-9", part(9, 9)),
            ("bytes=5-100", part(5, 9)),
            ("bytes=5-99999999999999999999999", part(5, 9)),
            ("bytes=-1", part(9, 9)),
            ("bytes=-10", part(0, 9)),
            ("bytes=-11", part(0, 9)),
            ("bytes=-0", Selected::Nothing),
            ("bytes=10-", Selected::Nothing),
            ("bytes=10-20", Selected::Nothing),
            ("bytes=99999999999999999999999-", Selected::Nothing),
            ("bytes=5-4", Selected::Whole),
            ("bytes=0-1,3-4", Selected::Whole),
            ("bytes=-", Selected::Whole),
            ("bytes=", Selected::Whole),
            ("bytes=a-b", Selected::Whole),
            ("bytes=+1-2", Selected::Whole),
            ("bytes=1 - 2", Selected::Whole),
            ("bytes 0-1", Selected::Whole),
            ("lines=0-1", Selected::Whole),
            ("", Selected::Whole),
        ] {
            assert_eq!(select(value.as_bytes(), 10), selected, "{value:?}");
        }
    }

    #[test]
    fn every_range_of_an_empty_file_is_the_whole_file() {
        for value in ["bytes=0-", "bytes=0-0", "bytes=-5", "bytes=-0", "bytes=7-9", "bytes=a"] {
            assert_eq!(select(value.as_bytes(), 0), Selected::Whole, "{value:?}");
        }
    }

    proptest! {
        #[test]
        fn a_part_lies_within_the_file(
            value in "bytes=[0-9]{0,20}-[0-9]{0,20}|.{0,12}",
            bytes: u64,
        ) {
            if let Selected::Part { first, last } = select(value.as_bytes(), bytes) {
                prop_assert!(first <= last && last < bytes);
            }
        }
    }
    fn several(value: &str, file_bytes: u64) -> (SelectedParts, Vec<(u64, u64)>) {
        let mut parts = vec![(7, 7)];
        (select_several(value.as_bytes(), file_bytes, 4, &mut parts), parts)
    }

    #[test]
    fn several_ranges_are_parts_in_their_order() {
        let bytes = 10_000;
        for (value, expected) in [
            ("bytes=0-9,1000-1009", &[(0, 9), (1000, 1009)][..]),
            ("bytes=1000-1009, 0-9", &[(1000, 1009), (0, 9)]),
            ("Bytes= 0-9 ,\t,-10, 5000-5000", &[(0, 9), (9990, 9999), (5000, 5000)]),
            ("bytes=0-9,10000-,1000-1009", &[(0, 9), (1000, 1009)]),
            ("bytes=0-9,-0,9000-99999999999999999999", &[(0, 9), (9000, 9999)]),
            // Overlapping ones, and those with a small gap, become one.
            ("bytes=0-9,1000-1009,5-20", &[(0, 20), (1000, 1009)]),
            ("bytes=0-9,1000-1009,100-109", &[(0, 109), (1000, 1009)]),
            ("bytes=2000-2009,0-9,1000-1009,140-1000", &[(2000, 2009), (0, 1009)]),
        ] {
            let found = several(value, bytes);
            assert_eq!(found, (SelectedParts::Several, expected.to_vec()), "{value}");
        }
    }

    #[test]
    fn several_ranges_that_are_one_reply() {
        let one = |selected| (SelectedParts::One(selected), Vec::new());
        for value in [
            // More than the limit of four, more than two overlaps.
            "bytes=0-0,1000-1000,2000-2000,3000-3000,4000-4000",
            "bytes=0-0,,1000-1000,2000-2000,3000-3000,90000-",
            "bytes=0-9,0-9,0-9",
            "bytes=0-,0-,0-,0-",
            "bytes=0-10,5-15,10-20",
            // As long as the file.
            "bytes=0-4999,5200-9999",
            // Not understood.
            "bytes=0-9,a-b",
            "bytes=0-9,9-5",
            "bytes=0-9;1000-1009",
            "bytes=0-9,1000",
            "lines=0-9,1000-1009",
            "bytes 0-9,1000-1009",
        ] {
            assert_eq!(several(value, 10_000), one(Selected::Whole), "{value}");
        }
        assert_eq!(several("bytes=20000-,-0", 10_000), one(Selected::Nothing));
        assert_eq!(several("bytes=,", 10_000), one(Selected::Nothing));
        let part = SelectedParts::One(Selected::Part { first: 5, last: 9 });
        assert_eq!(several("bytes=5-9,20000-", 10_000).0, part);
        assert_eq!(several("bytes=5-7,8-9", 10_000).0, part);
        assert_eq!(several("bytes=0-0,5-5", 0), one(Selected::Whole));
        let mut parts = Vec::new();
        for ranges_max in [0, 1] {
            let selected = select_several(b"bytes=0-9,1000-1009", 10_000, ranges_max, &mut parts);
            assert_eq!(selected, SelectedParts::One(Selected::Whole));
        }
    }

    #[test]
    fn the_configuration_cannot_allow_more_than_the_limit() {
        let list = |count: u64| {
            let ranges: Vec<_> =
                (0..count).map(|at| format!("{}-{}", at * 1000, at * 1000)).collect();
            format!("bytes={}", ranges.join(","))
        };
        let mut parts = Vec::new();
        let mut select =
            |count| select_several(list(count).as_bytes(), 1 << 40, u16::MAX, &mut parts);
        assert_eq!(select(u64::from(RANGES_MAX)), SelectedParts::Several);
        assert_eq!(select(u64::from(RANGES_MAX) + 1), SelectedParts::One(Selected::Whole));
    }

    #[test]
    fn a_multipart_content() {
        let boundary = Boundary(*b"0123456789abcdef0123456789abcdef");
        let multipart =
            Multipart { boundary: &boundary, media_type: b"text/plain", file_bytes: 1234 };
        let mut out = Vec::new();
        multipart.append_type_line(&mut out);
        assert_eq!(
            String::from_utf8_lossy(&out),
            "Content-Type: multipart/byteranges; boundary=0123456789abcdef0123456789abcdef\r\n"
        );
        out.clear();
        multipart.append_part_head(true, (0, 2), &mut out);
        out.extend_from_slice(b"abc");
        multipart.append_part_head(false, (1000, 1001), &mut out);
        out.extend_from_slice(b"de");
        multipart.append_end(&mut out);
        let expected = "--0123456789abcdef0123456789abcdef\r\nContent-Type: text/plain\r\n\
             Content-Range: bytes 0-2/1234\r\n\r\nabc\r\n--0123456789abcdef0123456789abcdef\r\n\
             Content-Type: text/plain\r\nContent-Range: bytes 1000-1001/1234\r\n\r\nde\r\n\
             --0123456789abcdef0123456789abcdef--\r\n";
        assert_eq!(String::from_utf8_lossy(&out), expected);
    }

    #[test]
    fn boundaries_differ() {
        let (mut one, mut other) = (Boundaries::default(), Boundaries::default());
        let made = [one.make(), one.make(), other.make(), other.make()];
        for (at, boundary) in made.iter().enumerate() {
            assert!(boundary.0.iter().all(u8::is_ascii_hexdigit));
            assert!(!made[at + 1..].contains(boundary));
        }
    }

    proptest! {
        #[test]
        fn parts_hold_what_was_asked_for(
            ranges in proptest::collection::vec((0u64..3000, 0u64..400), 2..8),
            bytes in 0u64..4000,
        ) {
            let text: Vec<_> =
                ranges.iter().map(|(first, more)| format!("{first}-{}", first + more)).collect();
            let mut parts = Vec::new();
            let value = format!("bytes={}", text.join(","));
            let selected = select_several(value.as_bytes(), bytes, 8, &mut parts);
            if selected == SelectedParts::Several {
                prop_assert!(parts.len() > 1);
                for (at, &(first, last)) in parts.iter().enumerate() {
                    prop_assert!(first <= last && last < bytes);
                    let overlaps = |other: &&(u64, u64)| first <= other.1 && other.0 <= last;
                    prop_assert_eq!(parts[at + 1..].iter().find(overlaps), None);
                }
                for (first, more) in ranges {
                    let last = (first + more).min(bytes - 1);
                    let holds = |part: &(u64, u64)| part.0 <= first && last <= part.1;
                    prop_assert!(first >= bytes || parts.iter().any(holds));
                }
            }
        }

        #[test]
        fn the_length_is_known_before(
            parts in proptest::collection::vec((0u64..1 << 40, 0u64..2000), 1..8),
            media_type in "[a-z]{1,9}/[a-z]{1,9}",
            file_bytes in 0u64..1 << 40,
        ) {
            let boundary = Boundaries::default().make();
            let media_type = media_type.as_bytes();
            let multipart = Multipart { boundary: &boundary, media_type, file_bytes };
            let parts: Vec<_> =
                parts.into_iter().map(|(first, more)| (first, first + more)).collect();
            let mut out = Vec::new();
            for (at, &part) in parts.iter().enumerate() {
                multipart.append_part_head(at == 0, part, &mut out);
                out.resize(out.len() + (part.1 - part.0 + 1) as usize, 0);
            }
            multipart.append_end(&mut out);
            prop_assert_eq!(out.len() as u64, multipart.length(&parts));
        }
    }
}
