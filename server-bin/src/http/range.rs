//! Range requests (RFC 9110, 14).

use super::fields::decimal;

/// What a Range comes to, for a file of a certain size.
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

fn parse(value: &[u8], file_bytes: u64) -> Option<Selected> {
    const UNIT: &[u8] = b"bytes=";
    let (unit, set) = value.split_at_checked(UNIT.len())?;
    if !unit.eq_ignore_ascii_case(UNIT) {
        return None;
    }
    let set = set.trim_ascii();
    let hyphen = memchr::memchr(b'-', set)?;
    let (first, last) = (&set[..hyphen], &set[hyphen + 1..]);
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
        fn a_part_lies_within_the_file(value in "bytes=[0-9]{0,20}-[0-9]{0,20}|.{0,12}", bytes: u64) {
            if let Selected::Part { first, last } = select(value.as_bytes(), bytes) {
                prop_assert!(first <= last && last < bytes);
            }
        }
    }
}
