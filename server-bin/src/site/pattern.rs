//! Glob patterns of paths: `match` of a rule.
//!
//! A path is what [`resolve`](crate::http::target::resolve) leaves of a target: decoded once,
//! without the first slash, empty segments and dot segments. The path of a directory ends with a
//! slash; that of the root is empty. Patterns are compared byte by byte, in this case.

/// Bytes of a pattern at most.
pub const PATTERN_BYTES_MAX: usize = 255;

/// A pattern, checked and prepared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    shape: Shape,
}

/// Patterns without wildcards in odd places are compared without a search.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Shape {
    /// `**`, `/**`, `*`: every path.
    All,
    /// `robots.txt`: the last segment.
    Name(Box<[u8]>),
    /// `*.js`: the end of the last segment.
    NameEnd(Box<[u8]>),
    /// Other patterns of the last segment.
    NameGlob(Glob),
    /// `/a/b`: one path.
    Path(Box<[u8]>),
    /// `/a/**`: `a`, `a/` and all paths below.
    Below(Box<[u8]>),
    /// Other patterns of whole paths.
    PathGlob(Glob),
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// The reason why the text is no pattern, or matches nothing.
    pub fn new(text: &str) -> Result<Self, &'static str> {
        check(text)?;
        let shape = match text.strip_prefix('/') {
            Some(path) => {
                // `/**/**/` means what `/**/` means.
                let mut segments: Vec<_> = path.split('/').collect();
                segments.dedup_by(|next, segment| *next == "**" && *segment == "**");
                Self::of_path(segments.join("/").as_bytes())
            }
            None => Self::of_name(text.as_bytes()),
        };
        Ok(Self { shape })
    }

    fn of_name(text: &[u8]) -> Shape {
        let wildcards = text.iter().filter(|byte| is_wildcard(byte)).count();
        match text {
            [b'*' | b'?', ..] if text.iter().all(|&byte| byte == b'*') => Shape::All,
            _ if wildcards == 0 => Shape::Name(text.into()),
            [b'*', end @ ..] if wildcards == 1 => Shape::NameEnd(end.into()),
            _ => Shape::NameGlob(Glob::new(text)),
        }
    }

    fn of_path(path: &[u8]) -> Shape {
        if path == b"**" {
            return Shape::All;
        }
        if !path.iter().any(is_wildcard) {
            return Shape::Path(path.into());
        }
        match path.strip_suffix(b"/**") {
            Some(folder) if !folder.iter().any(is_wildcard) => Shape::Below(folder.into()),
            _ => Shape::PathGlob(Glob::new(path)),
        }
    }

    /// Returns whether the pattern matches a path. The time is bounded by the length of the path
    /// times that of the pattern.
    #[must_use]
    pub fn matches(&self, subject: &Subject<'_>) -> bool {
        let Subject { path, name } = *subject;
        match &self.shape {
            Shape::All => true,
            Shape::Name(one) => name == &one[..],
            // Most patterns differ in this byte. To compare it is cheaper than a call.
            Shape::NameEnd(end) => name.last() == end.last() && name.ends_with(end),
            Shape::NameGlob(glob) => glob.matches(name),
            Shape::Path(one) => path == &one[..],
            Shape::Below(folder) => {
                path.first() == folder.first()
                    && path
                        .strip_prefix(&folder[..])
                        .is_some_and(|below| matches!(below, [] | [b'/', ..]))
            }
            Shape::PathGlob(glob) => glob.matches(path),
        }
    }
}

/// A path that is compared with many patterns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject<'a> {
    path: &'a [u8],
    /// The last segment. For a directory, it is the directory's name.
    name: &'a [u8],
}

impl<'a> Subject<'a> {
    /// A path: decoded, without its first slash.
    #[must_use]
    pub fn new(path: &'a [u8]) -> Self {
        let named = path.strip_suffix(b"/").unwrap_or(path);
        let name = memchr::memrchr(b'/', named).map_or(named, |slash| &named[slash + 1..]);
        Self { path, name }
    }
}

const fn is_wildcard(byte: &u8) -> bool {
    matches!(byte, b'*' | b'?')
}

fn check(text: &str) -> Result<(), &'static str> {
    if text.is_empty() {
        return Err("it is empty; `/**` matches every path");
    }
    if text.len() > PATTERN_BYTES_MAX {
        return Err("it is longer than 255 bytes");
    }
    if text.contains('/') && !text.starts_with('/') {
        return Err("a pattern with a slash is compared with whole paths and must begin with one");
    }
    if text.contains("***") {
        return Err("`***` has no meaning; `**` crosses segments");
    }
    if text.contains("//") {
        return Err("it matches nothing: paths are compared without empty segments");
    }
    if text.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err("it matches nothing: paths are compared without dot segments");
    }
    if text.contains('\\') {
        return Err("it matches nothing: paths with a backslash are not served");
    }
    if text.bytes().any(|byte| byte.is_ascii_control()) {
        return Err("it contains a control character; `?` matches one");
    }
    if text.contains(['{', '[']) {
        return Err("`{` and `[` begin no alternatives here; `?` matches such a character");
    }
    let is_encoded =
        |three: &[u8]| three[0] == b'%' && three[1..].iter().all(u8::is_ascii_hexdigit);
    if text.as_bytes().windows(3).any(is_encoded) {
        return Err("paths are compared after decoding: write the character instead of `%` and \
                    two digits, or `?` for `%`");
    }
    Ok(())
}

/// A pattern as a nondeterministic automaton: a state is the number of steps that are done.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Glob {
    /// The bytes before the first wildcard, which every match begins with.
    prefix: Box<[u8]>,
    steps: Box<[Step]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Byte(u8),
    /// `?`: one byte, not a slash.
    One,
    /// `*`: bytes without a slash, or none.
    Star,
    /// `**`: bytes, or none.
    Cross,
    /// The next step, or the one behind the next two. `/**/` is also one slash, and `/**` at the
    /// end is also nothing.
    SkipTwo,
}

/// One bit for each state.
type States = [u64; STATE_WORDS];

const STATE_WORDS: usize = 8;

// A byte of a pattern becomes at most one step, except `/**`, which becomes three.
const _: () = assert!(PATTERN_BYTES_MAX < 64 * STATE_WORDS);

impl Glob {
    fn new(text: &[u8]) -> Self {
        let prefix_end = text.iter().position(is_wildcard).unwrap_or(text.len());
        let (mut prefix, mut rest) = text.split_at(prefix_end);
        if prefix.ends_with(b"/") && (rest.starts_with(b"**/") || rest == b"**") {
            // The steps below see the slash.
            prefix = &prefix[..prefix.len() - 1];
            rest = &text[prefix.len()..];
        }
        let mut steps = Vec::new();
        if let (b"", Some(after)) = (prefix, rest.strip_prefix(b"**/")) {
            steps.extend([Step::SkipTwo, Step::Cross, Step::Byte(b'/')]);
            rest = after;
        }
        while let Some((&first, after)) = rest.split_first() {
            rest = after;
            match first {
                b'/' if after == b"**" => {
                    steps.extend([Step::SkipTwo, Step::Byte(b'/'), Step::Cross]);
                    rest = &[];
                }
                b'/' if after.starts_with(b"**/") => {
                    steps.extend([Step::Byte(b'/'), Step::SkipTwo, Step::Cross, Step::Byte(b'/')]);
                    rest = &after[3..];
                }
                b'*' if after.starts_with(b"*") => {
                    steps.push(Step::Cross);
                    rest = &after[1..];
                }
                b'*' => steps.push(Step::Star),
                b'?' => steps.push(Step::One),
                byte => steps.push(Step::Byte(byte)),
            }
        }
        debug_assert!(steps.len() < 64 * STATE_WORDS);
        Self { prefix: prefix.into(), steps: steps.into() }
    }

    fn matches(&self, text: &[u8]) -> bool {
        let Some(text) = text.strip_prefix(&self.prefix[..]) else { return false };
        let mut states = States::default();
        self.enter(0, &mut states);
        for &byte in text {
            let mut next = States::default();
            for state in each(&states) {
                match self.steps.get(state) {
                    Some(Step::Byte(expected)) if *expected == byte => {
                        self.enter(state + 1, &mut next);
                    }
                    Some(Step::One) if byte != b'/' => self.enter(state + 1, &mut next),
                    Some(Step::Star) if byte != b'/' => self.enter(state, &mut next),
                    Some(Step::Cross) => self.enter(state, &mut next),
                    _ => {}
                }
            }
            if next == States::default() {
                return false;
            }
            states = next;
        }
        has(&states, self.steps.len())
    }

    /// Adds a state and those that it leads to without a byte.
    fn enter(&self, mut state: usize, states: &mut States) {
        while !has(states, state) {
            states[state / 64] |= 1 << (state % 64);
            match self.steps.get(state) {
                Some(Step::SkipTwo) => self.enter(state + 3, states),
                Some(Step::Star | Step::Cross) => {}
                _ => return,
            }
            state += 1;
        }
    }
}

fn has(states: &States, state: usize) -> bool {
    states[state / 64] & 1 << (state % 64) != 0
}

fn each(states: &States) -> impl Iterator<Item = usize> {
    states.iter().enumerate().flat_map(|(at, &word)| {
        let mut bits = word;
        std::iter::from_fn(move || {
            let bit = (bits != 0).then(|| bits.trailing_zeros() as usize)?;
            bits &= bits - 1;
            Some(64 * at + bit)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::new(text).unwrap_or_else(|reason| panic!("{text:?}: {reason}"))
    }

    #[test]
    fn matches() {
        for (text, matching, others) in [
            (
                "*.js",
                &["a.js", "x/y/a.js", ".js", "a.js/"][..],
                &["a.jsx", "a.js/b", "ajs", ""][..],
            ),
            ("robots.txt", &["robots.txt", "a/robots.txt"], &["xrobots.txt", "robots.txt/a"]),
            ("a?c", &["abc", "x/a?c"], &["ac", "abbc", "a/c"]),
            ("a*b*c", &["abc", "aXbYc", "x/abbc"], &["ab", "a/bc", "abcd"]),
            ("*", &["", "a", "a/b/"], &[]),
            ("**", &["", "a", "a/b/"], &[]),
            ("/**", &["", "a", "a/b/"], &[]),
            ("/", &[""], &["a", "index.html"]),
            ("/a/b", &["a/b"], &["a/b/", "x/a/b", "a/b/c", "b"]),
            ("/a/", &["a/"], &["a", "a/b"]),
            ("/x/**", &["x", "x/", "x/a", "x/a/b/"], &["xa", "y/x/a", "", "X/a"]),
            ("/*", &["", "a", "a.b"], &["a/", "a/b"]),
            ("/x/*", &["x/", "x/a"], &["x", "x/a/", "x/a/b"]),
            ("/x/*.js", &["x/a.js", "x/.js"], &["x/y/a.js", "x/a.css"]),
            ("/x/**.js", &["x/a.js", "x/y/a.js"], &["a.js", "x/a.css", "x.js"]),
            ("/x/**/y", &["x/y", "x/a/y", "x/a/b/y"], &["xy", "x/ay", "x/a/yb", "x/y/"]),
            ("/**/y", &["y", "a/y", "a/b/y"], &["ay", "a/by"]),
            ("/**/x/**", &["x", "x/", "a/x", "a/b/x/c"], &["ax/c", "a/xb"]),
            ("/a/**/**/b", &["a/b", "a/x/b"], &["ab"]),
            ("/a/**/**", &["a", "a/", "a/b"], &["ab"]),
            ("/a*/**", &["a", "abc", "abc/", "abc/d/e"], &["b/a", ""]),
            ("/a*/b?/**", &["a/bc", "ax/bc/d"], &["a/b", "a/b/c", "a/x/bc"]),
            ("/a**b", &["ab", "a/b", "a/x/yb"], &["a/", "b"]),
            ("/u/?/z", &["u/a/z"], &["u//z", "u/ab/z", "u/a/b/z"]),
            ("é*", &["é", "x/éa"], &["e"]),
        ] {
            let pattern = pattern(text);
            for path in matching {
                assert!(pattern.matches(&Subject::new(path.as_bytes())), "{text} and {path:?}");
            }
            for path in others {
                assert!(!pattern.matches(&Subject::new(path.as_bytes())), "{text} and {path:?}");
            }
        }
    }

    #[test]
    fn any_bytes_are_compared() {
        assert!(pattern("a?b").matches(&Subject::new(b"a\xffb")));
        assert!(pattern("/a/*").matches(&Subject::new(b"a/\xff\x01")));
    }

    #[test]
    fn wrong_patterns_have_a_reason() {
        for (text, reason) in [
            ("", "empty"),
            ("a/b", "begin with one"),
            ("a/", "begin with one"),
            ("/a//b", "empty segments"),
            ("/a/../b", "dot segments"),
            ("/./a", "dot segments"),
            ("..", "dot segments"),
            ("/a\\b", "backslash"),
            ("a\nb", "control"),
            ("a\0b", "control"),
            ("***", "`**`"),
            ("*.{js,css}", "alternatives"),
            ("[ab]", "alternatives"),
            ("/a%20b", "decoding"),
            (&"a".repeat(256), "255"),
        ] {
            let error = Pattern::new(text).unwrap_err();
            assert!(error.contains(reason), "{text:?}: {error}");
        }
        assert!(Pattern::new("100%").is_ok());
        assert!(Pattern::new(&"a".repeat(255)).is_ok());
    }

    #[test]
    fn usual_patterns_are_compared_without_a_search() {
        let is_search =
            |text| matches!(pattern(text).shape, Shape::NameGlob(_) | Shape::PathGlob(_));
        for text in ["*.js", "robots.txt", "/a/b", "/a/**", "/**", "*", "/"] {
            assert!(!is_search(text), "{text}");
        }
        assert!(is_search("a*b") && is_search("/a/*"));
    }

    /// By backtracking, this test would never end.
    #[test]
    fn time_is_bounded() {
        let stars = "*a".repeat(127);
        let crossing = format!("/{}b", "**a".repeat(84));
        let path = Subject::new(&[b'a'; 8 << 10]);
        assert!(!pattern(&format!("{stars}b")).matches(&path));
        assert!(!pattern(&crossing).matches(&path));
    }

    /// The definition, by backtracking.
    fn is_match(steps: &[u8], text: &[u8]) -> bool {
        let rest = |at: usize, steps: &[u8]| is_match(steps, &text[at..]);
        match steps {
            [] => text.is_empty(),
            b"/**" if text.is_empty() => true,
            [b'/', b'*', b'*', b'/', after @ ..]
                if text.starts_with(b"/") && is_match(&[b"/", after].concat(), text) =>
            {
                true
            }
            [b'*', b'*', after @ ..] => (0..=text.len()).any(|at| rest(at, after)),
            [b'*', after @ ..] => (0..=text.len())
                .take_while(|&at| !text[..at].contains(&b'/'))
                .any(|at| rest(at, after)),
            [b'?', after @ ..] => text.first().is_some_and(|&byte| byte != b'/') && rest(1, after),
            [byte, after @ ..] => text.first() == Some(byte) && rest(1, after),
        }
    }

    proptest! {
        #[test]
        fn paths_match_as_defined(
            text in "(/(a|b|ab|\\*|\\?|\\*\\*|a\\*|\\*b|\\*\\*b|a\\*\\*)){1,5}",
            path in "([ab]{1,2}/){0,4}[ab]{0,2}",
        ) {
            let mut segments: Vec<_> = text.split('/').collect();
            segments.dedup_by(|next, segment| *next == "**" && *segment == "**");
            let text = segments.join("/");
            let found = pattern(&text).matches(&Subject::new(path.as_bytes()));
            let expected = is_match(text.as_bytes(), format!("/{path}").as_bytes())
                || text == "/**";
            prop_assert_eq!(found, expected);
        }
    }
}
