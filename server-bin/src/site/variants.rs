//! Precompressed variants of files, and Accept-Encoding (RFC 9110, 12.5.3).

use crate::http::fields::elements;
use ringwright::files::FileStatus;

/// Sent with each reply for a file that could have variants, because caches must keep the replies
/// of different clients apart.
pub const VARY_LINE: &[u8] = b"Vary: Accept-Encoding\r\n";

/// A content coding of variants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// Zstandard (RFC 8878).
    Zstd,
    /// Brotli (RFC 7932).
    Brotli,
    /// Gzip (RFC 1952).
    Gzip,
}

impl Coding {
    /// All of them. The first one is preferred among those that a client prefers equally.
    pub const ALL: [Self; 3] = [Self::Zstd, Self::Brotli, Self::Gzip];

    /// The ending of the names of variants, behind the name of the original.
    #[must_use]
    pub const fn suffix(self) -> &'static [u8] {
        match self {
            Self::Zstd => b".zst",
            Self::Brotli => b".br",
            Self::Gzip => b".gz",
        }
    }

    /// The line that a reply with this coding has.
    #[must_use]
    pub const fn line(self) -> &'static [u8] {
        match self {
            Self::Zstd => b"Content-Encoding: zstd\r\n",
            Self::Brotli => b"Content-Encoding: br\r\n",
            Self::Gzip => b"Content-Encoding: gzip\r\n",
        }
    }
}

/// The codings that a client accepts, the preferred one first. Codings that it likes less than an
/// original that it names (`identity`) are left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    order: [Option<Coding>; Coding::ALL.len()],
}

impl Accepted {
    /// Reads the values of all Accept-Encoding fields of a request. Without one, nothing is
    /// accepted: RFC 9110, 12.5.3 would allow every coding, but such a client decodes none.
    /// Elements that are malformed are ignored.
    ///
    /// The original is sent also to a client that refuses it (`identity;q=0`) and accepts none of
    /// the variants: the alternative is an error that helps nobody.
    #[must_use]
    pub fn of<'a>(mut values: impl Iterator<Item = &'a [u8]>) -> Self {
        let (first, second) = (values.next().unwrap_or_default(), values.next());
        if second.is_none()
            && let Some(known) = usual(first)
        {
            return known;
        }
        let mut asked = Weights::default();
        for value in [first].into_iter().chain(second).chain(values) {
            elements(value).for_each(|element| asked.element(element));
        }
        asked.accepted()
    }

    /// The codings, the preferred one first.
    pub fn iter(&self) -> impl Iterator<Item = Coding> {
        self.order.into_iter().flatten()
    }

    /// Returns whether no coding is accepted.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.order[0].is_none()
    }
}

/// The values that browsers send.
fn usual(value: &[u8]) -> Option<Accepted> {
    use Coding::{Brotli, Gzip, Zstd};
    let order = match value {
        b"gzip, deflate, br, zstd" => [Some(Zstd), Some(Brotli), Some(Gzip)],
        b"gzip, deflate, br" => [Some(Brotli), Some(Gzip), None],
        b"gzip, deflate" => [Some(Gzip), None, None],
        _ => return None,
    };
    Some(Accepted { order })
}

/// The weights that are listed, in thousandths.
#[derive(Default)]
struct Weights {
    codings: [Option<u16>; Coding::ALL.len()],
    identity: Option<u16>,
    /// `*`: codings that are not listed.
    others: Option<u16>,
}

impl Weights {
    fn element(&mut self, element: &[u8]) {
        let end = memchr::memchr(b';', element).unwrap_or(element.len());
        let name = element[..end].trim_ascii();
        let Some(weight) = weight(&element[end..]) else { return };
        let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
        let slot = match () {
            () if is(b"zstd") => &mut self.codings[0],
            () if is(b"br") => &mut self.codings[1],
            // RFC 9110, 8.4.1.3.
            () if is(b"gzip") || is(b"x-gzip") => &mut self.codings[2],
            () if is(b"identity") => &mut self.identity,
            () if is(b"*") => &mut self.others,
            () => return,
        };
        *slot = Some(weight);
    }

    fn accepted(&self) -> Accepted {
        let weight_of = |at: usize| self.codings[at].or(self.others).unwrap_or(0);
        let least = self.identity.unwrap_or(0).max(1);
        let mut found = Coding::ALL.map(Some);
        for (at, coding) in found.iter_mut().enumerate() {
            if weight_of(at) < least {
                *coding = None;
            }
        }
        // The sort is stable: our order decides between equal weights.
        let mut order = [0, 1, 2];
        order.sort_by_key(|&at| (found[at].is_none(), std::cmp::Reverse(weight_of(at))));
        Accepted { order: order.map(|at| found[at]) }
    }
}

/// `;q=0.5` in thousandths, 1000 if there is nothing. `None` if it is malformed.
fn weight(parameter: &[u8]) -> Option<u16> {
    let Some(parameter) = parameter.strip_prefix(b";") else { return Some(1000) };
    let [b'q' | b'Q', b'=', whole @ (b'0' | b'1'), rest @ ..] = parameter.trim_ascii() else {
        return None;
    };
    let digits = match rest {
        [] => &[],
        [b'.', digits @ ..] if digits.len() <= 3 => digits,
        _ => return None,
    };
    let mut thousandths = u16::from(whole - b'0');
    for at in 0..3 {
        let digit = digits.get(at).unwrap_or(&b'0');
        if !digit.is_ascii_digit() {
            return None;
        }
        thousandths = 10 * thousandths + u16::from(digit - b'0');
    }
    (thousandths <= 1000).then_some(thousandths)
}

/// The path of the file that a path is the variant of, by its name.
#[must_use]
pub fn original(path: &[u8]) -> Option<&[u8]> {
    let of = |coding: Coding| path.strip_suffix(coding.suffix());
    let original = Coding::ALL.into_iter().find_map(of)?;
    (!matches!(original, [] | [.., b'/'])).then_some(original)
}

/// Returns whether a variant may be sent instead of the original: it is not older.
#[must_use]
pub fn is_current(original: &FileStatus, variant: &FileStatus) -> bool {
    (variant.modified_s, variant.modified_ns) >= (original.modified_s, original.modified_ns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringwright::files::FileKind;

    fn accepted(values: &[&str]) -> String {
        let accepted = Accepted::of(values.iter().map(|value| value.as_bytes()));
        let names: Vec<_> = accepted.iter().map(Coding::suffix).collect();
        assert_eq!(accepted.is_empty(), names.is_empty());
        String::from_utf8(names.concat()).unwrap()
    }

    #[test]
    fn codings_are_ordered_by_weight_and_then_by_ours() {
        for (value, order) in [
            ("", ""),
            ("gzip", ".gz"),
            ("GZIP, Br", ".br.gz"),
            ("x-gzip", ".gz"),
            ("gzip, deflate, br, zstd", ".zst.br.gz"),
            ("gzip, deflate, br", ".br.gz"),
            ("gzip, deflate", ".gz"),
            ("gzip,deflate,br,zstd", ".zst.br.gz"),
            ("gzip;q=1.0, br;q=0.9, zstd;q=0.95", ".gz.zst.br"),
            ("gzip;q=0.5, br;q=0.5", ".br.gz"),
            ("gzip;q=0, br", ".br"),
            ("br;q=0.000", ""),
            ("*", ".zst.br.gz"),
            ("*;q=0", ""),
            ("*;q=0, gzip", ".gz"),
            ("*, zstd;q=0", ".br.gz"),
            ("gzip;q=0.5, *;q=0.6", ".zst.br.gz"),
            ("identity", ""),
            ("identity, gzip", ".gz"),
            ("identity;q=0, gzip;q=0.1", ".gz"),
            ("identity;q=0", ""),
            ("identity, gzip;q=0.5", ""),
            ("identity;q=0.5, gzip;q=0.5, br;q=0.4", ".gz"),
            ("deflate, compress", ""),
            ("gzip ; q=0.5 , br ;Q=0.6", ".br.gz"),
            ("gzip;q=1.001, br;q=2, zstd;q=0.1234", ""),
            ("gzip;level=9, br;q=, zstd;q=a", ""),
            ("gzip;q=1.", ".gz"),
            ("gzip;q=1.000", ".gz"),
            (",, gzip ,", ".gz"),
        ] {
            assert_eq!(accepted(&[value]), order, "{value:?}");
        }
        assert_eq!(accepted(&[]), "", "no field");
        assert_eq!(accepted(&["gzip", "br"]), ".br.gz", "two fields are one list");
        assert_eq!(accepted(&["gzip;q=0.1", "identity;q=0.5"]), "");
        assert_eq!(accepted(&["gzip, deflate, br", "zstd", "br;q=0"]), ".zst.gz");
    }

    #[test]
    fn usual_values_come_to_what_they_say() {
        for value in ["gzip, deflate, br, zstd", "gzip, deflate, br", "gzip, deflate"] {
            let read = Accepted::of([value.to_uppercase().as_bytes()].into_iter());
            assert_eq!(usual(value.as_bytes()), Some(read), "{value}");
        }
    }

    #[test]
    fn names_of_variants() {
        for coding in Coding::ALL {
            let variant = [b"a/b.js", coding.suffix()].concat();
            assert_eq!(original(&variant), Some(&b"a/b.js"[..]));
            assert!(coding.line().starts_with(b"Content-Encoding: "));
        }
        assert_eq!(original(b"a/b.js.gz"), Some(&b"a/b.js"[..]));
        for path in ["a.GZ", "a.gz/b", "a/.gz", ".br", "a.zip", "a", "", "gz"] {
            assert_eq!(original(path.as_bytes()), None, "{path}");
        }
        assert_eq!(original(b"a.tar.gz"), Some(&b"a.tar"[..]));
    }

    #[test]
    fn older_variants_are_not_sent() {
        let file = |modified_s, modified_ns| FileStatus {
            bytes: 1,
            modified_s,
            modified_ns,
            changed_s: 0,
            changed_ns: 0,
            links: 1,
            device: 1,
            inode: 1,
            kind: FileKind::Regular,
        };
        let original = file(100, 500);
        for (variant, is_sent) in
            [((100, 500), true), ((100, 501), true), ((101, 0), true), ((100, 499), false)]
        {
            assert_eq!(is_current(&original, &file(variant.0, variant.1)), is_sent, "{variant:?}");
        }
        assert!(!is_current(&original, &file(99, 999_999_999)));
    }
}
