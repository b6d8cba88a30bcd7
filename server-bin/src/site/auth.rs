//! Basic authentication (RFC 7617) with password files as htpasswd(1) writes them.
//!
//! A check takes milliseconds on purpose and belongs on a worker. Pairs of user and password that
//! passed are remembered by a keyed hash, so that the next request of the client waits for nothing.
//! A user who is unknown is checked against the hash of another one and takes as long.

mod hash;

use crate::http::fields::single;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hash::Hash;
use sha2::{Digest as _, Sha256};
use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::fs::File;
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::{PoisonError, RwLock};

/// Bytes of a password file at most.
pub const FILE_BYTES_MAX: u64 = 1 << 20;
/// Users of a password file at most.
pub const USERS_MAX: usize = 10_000;
/// Bytes of user, colon and password at most. More are refused.
pub const CREDENTIALS_BYTES_MAX: usize = 512;
/// Pairs that are remembered for a file at most. Users of bcrypt with a long password have more
/// than one, because its end is ignored.
const REMEMBERED_MAX: usize = USERS_MAX;

/// The users of a password file.
pub struct Passwords {
    users: HashMap<Box<[u8]>, usize>,
    hashes: Vec<Hash>,
    /// Chooses the hash that an unknown user is checked against, the same one each time.
    decoys: RandomState,
    /// The key of remembered pairs.
    key: [u8; 32],
    remembered: RwLock<Remembered>,
}

impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passwords").field("users", &self.users.len()).finish_non_exhaustive()
    }
}

/// A mistake in a password file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The line, from 1; 0 for the whole file.
    pub line: usize,
    /// The reason. It contains neither user nor hash.
    pub reason: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.reason),
            line => write!(f, "line {line}: {}", self.reason),
        }
    }
}

impl Passwords {
    /// Reads a password file.
    ///
    /// # Errors
    /// The file cannot be read, or all its mistakes.
    pub fn load(path: &Path) -> Result<Self, Vec<Mistake>> {
        let mut text = Vec::new();
        let whole = |reason| vec![Mistake { line: 0, reason }];
        let read = |text: &mut Vec<u8>| -> io::Result<usize> {
            File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(text)
        };
        read(&mut text).map_err(|error| whole(error.to_string()))?;
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(whole(format!("the file is larger than {FILE_BYTES_MAX} bytes")));
        }
        Self::parse(&text)
    }

    /// Reads the text of a password file: lines of user, colon and hash. Empty lines and those that
    /// begin with `#` are ignored.
    ///
    /// # Errors
    /// All mistakes. A scheme other than bcrypt and SHA-512-crypt is one.
    pub fn parse(text: &[u8]) -> Result<Self, Vec<Mistake>> {
        let (mut users, mut hashes) = (HashMap::new(), Vec::new());
        let mut mistakes = Vec::new();
        for (line, text) in (1..).zip(text.split(|&byte| byte == b'\n')) {
            let text = text.strip_suffix(b"\r").unwrap_or(text);
            if text.is_empty() || text.starts_with(b"#") {
                continue;
            }
            let mut mistake = |reason: String| mistakes.push(Mistake { line, reason });
            match user_of(text) {
                Err(reason) => mistake(reason),
                Ok(_) if hashes.len() == USERS_MAX => {
                    mistake(format!("the file has more than {USERS_MAX} users"));
                    break;
                }
                Ok((user, hash)) => {
                    if users.insert(user.into(), hashes.len()).is_some() {
                        mistake("the user has an earlier line, too".into());
                    }
                    hashes.push(hash);
                }
            }
        }
        if hashes.is_empty() && mistakes.is_empty() {
            mistakes.push(Mistake { line: 0, reason: "the file has no user".into() });
        }
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        let mut key = [0; 32];
        let random = RandomState::new();
        for (at, bytes) in key.chunks_exact_mut(8).enumerate() {
            bytes.copy_from_slice(&random.hash_one(at).to_ne_bytes());
        }
        let (decoys, remembered) = (RandomState::new(), RwLock::default());
        Ok(Self { users, hashes, decoys, key, remembered })
    }

    /// Returns whether this pair has passed before. This does not wait for a check.
    #[must_use]
    pub fn is_remembered(&self, credentials: &Credentials) -> bool {
        let digest = self.digest(credentials);
        let remembered = self.remembered.read().unwrap_or_else(PoisonError::into_inner);
        remembered.digests.contains(&digest)
    }

    /// Checks a password, and remembers the pair if it is right. This takes milliseconds: it is
    /// called on a worker.
    #[must_use]
    pub fn verify(&self, credentials: &Credentials) -> bool {
        let (hash, is_known) = self.hash_of(credentials.user());
        let is_right = hash.verifies(credentials.password()) && is_known;
        if is_right {
            let digest = self.digest(credentials);
            self.remembered.write().unwrap_or_else(PoisonError::into_inner).insert(digest);
        }
        is_right
    }

    /// The hash of a user, or that of another one if the user is unknown.
    fn hash_of(&self, user: &[u8]) -> (&Hash, bool) {
        let decoy = self.decoys.hash_one(user) as usize % self.hashes.len();
        let found = self.users.get(user);
        (&self.hashes[*found.unwrap_or(&decoy)], found.is_some())
    }

    fn digest(&self, credentials: &Credentials) -> PairDigest {
        let digest =
            Sha256::new().chain_update(self.key).chain_update(&credentials.pair).finalize();
        let mut short = PairDigest::default();
        short.copy_from_slice(&digest[..size_of::<PairDigest>()]);
        short
    }
}

/// The keyed hash of a pair.
type PairDigest = [u8; 16];

/// The pairs that passed.
#[derive(Default)]
struct Remembered {
    digests: HashSet<PairDigest>,
    /// The oldest first.
    order: VecDeque<PairDigest>,
}

impl Remembered {
    fn insert(&mut self, digest: PairDigest) {
        if !self.digests.insert(digest) {
            return;
        }
        if self.order.len() == REMEMBERED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.digests.remove(&oldest);
        }
        self.order.push_back(digest);
    }
}

/// User and password of a request.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// User, colon, password.
    pair: Box<[u8]>,
    colon: usize,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}

impl Credentials {
    /// Reads Authorization. `None` if it is missing, twice there, of another scheme or malformed,
    /// or if it contains control characters, which RFC 7617, 2 forbids.
    #[must_use]
    pub fn of(head: &[u8]) -> Option<Self> {
        let value = single(head, "authorization")?;
        let (scheme, token) = value.split_at_checked(b"Basic ".len())?;
        if !scheme.eq_ignore_ascii_case(b"Basic ") {
            return None;
        }
        let mut pair = [0; CREDENTIALS_BYTES_MAX];
        let length = STANDARD.decode_slice(token.trim_ascii(), &mut pair).ok()?;
        let pair = &pair[..length];
        let colon = memchr::memchr(b':', pair)?;
        (!pair.iter().any(u8::is_ascii_control)).then(|| Self { pair: pair.into(), colon })
    }

    /// The name of the user.
    #[must_use]
    pub fn user(&self) -> &[u8] {
        &self.pair[..self.colon]
    }

    fn password(&self) -> &[u8] {
        &self.pair[self.colon + 1..]
    }
}

/// Appends the line of a 401 that asks for user and password. A realm contains neither quotes nor
/// backslashes, as [`Rules::new`](super::rules::Rules::new) has checked.
pub fn append_challenge(realm: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"WWW-Authenticate: Basic realm=\"");
    out.extend_from_slice(realm.as_bytes());
    out.extend_from_slice(b"\", charset=\"UTF-8\"\r\n");
}

fn user_of(line: &[u8]) -> Result<(&[u8], Hash), String> {
    let colon = memchr::memchr(b':', line).ok_or("expected user, colon and hash")?;
    let (user, hash) = (&line[..colon], &line[colon + 1..]);
    if user.is_empty() || user.len() > CREDENTIALS_BYTES_MAX / 2 {
        return Err(format!("a user has 1 to {} bytes", CREDENTIALS_BYTES_MAX / 2));
    }
    if user.iter().any(u8::is_ascii_control) {
        return Err("the user contains a control character".into());
    }
    Ok((user, Hash::parse(hash)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The hash of `secret`.
    const SECRET: &str = "$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW";
    /// The hash of the empty password.
    const EMPTY: &str = "$2y$04$abcdefghijklmnopqrstuubyCG3zY1GIXMyxfivm.ClDiInHzxjiq";

    fn credentials(pair: &[u8]) -> Option<Credentials> {
        let head = format!("GET / HTTP/1.1\r\nAuthorization: Basic {}\r\n\r\n", base64(pair));
        Credentials::of(head.as_bytes())
    }

    fn base64(text: &[u8]) -> String {
        let mut out = vec![0; 4 * text.len().div_ceil(3)];
        let length = STANDARD.encode_slice(text, &mut out).unwrap();
        String::from_utf8(out[..length].to_vec()).unwrap()
    }

    fn pair(pair: &str) -> Credentials {
        credentials(pair.as_bytes()).unwrap()
    }

    #[test]
    fn right_pairs_pass_and_are_remembered() {
        let text = format!("# users\n\nann:{SECRET}\r\nbob:{EMPTY}\n");
        let passwords = Passwords::parse(text.as_bytes()).unwrap();
        for (user, is_right) in [
            ("ann:secret", true),
            ("ann:Secret", false),
            ("ann:", false),
            ("bob:", true),
            ("bob:secret", false),
            ("Ann:secret", false),
            ("carl:secret", false),
            (":secret", false),
        ] {
            let pair = pair(user);
            assert!(!passwords.is_remembered(&pair), "{user} has not been checked");
            assert_eq!(passwords.verify(&pair), is_right, "{user}");
            assert_eq!(passwords.is_remembered(&pair), is_right, "{user}");
        }
        let again = Passwords::parse(text.as_bytes()).unwrap();
        assert!(!again.is_remembered(&pair("ann:secret")), "each reading has a key of its own");
        let digest = |passwords: &Passwords| passwords.digest(&pair("ann:secret"));
        assert_ne!(digest(&passwords), digest(&again));
        assert!(!format!("{passwords:?}{:?}", pair("ann:secret")).contains("secret"));
    }

    #[test]
    fn unknown_users_are_checked_and_refused() {
        let text = format!("ann:{SECRET}\nbob:{EMPTY}\n");
        let passwords = Passwords::parse(text.as_bytes()).unwrap();
        let mut decoys = HashSet::new();
        for user in 0..64 {
            let name = format!("user{user}");
            let (hash, is_known) = passwords.hash_of(name.as_bytes());
            assert!(!is_known);
            assert!(std::ptr::eq(hash, passwords.hash_of(name.as_bytes()).0), "always the same");
            decoys.insert(std::ptr::from_ref(hash));
            if hash.verifies(b"secret") {
                assert!(!passwords.verify(&pair(&format!("{name}:secret"))), "not their password");
            }
        }
        assert_eq!(decoys.len(), 2, "both hashes are used");
    }

    #[test]
    fn authorization_is_read() {
        let basic = |value: &str| {
            let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{value}\r\n");
            Credentials::of(head.as_bytes())
        };
        let token = base64(b"ann:se:cret");
        for value in [
            format!("Authorization: Basic {token}\r\n"),
            format!("authorization:basic   {token} \r\n"),
        ] {
            let found = basic(&value).unwrap();
            assert_eq!((found.user(), found.password()), (&b"ann"[..], &b"se:cret"[..]));
        }
        for value in [
            String::new(),
            format!("Authorization: Basic {token}\r\n").repeat(2),
            format!("Authorization: Bearer {token}\r\n"),
            format!("Authorization: Basic{token}\r\n"),
            "Authorization: Basic\r\n".into(),
            "Authorization: Basic \u{e9}\r\n".into(),
            "Authorization: Basic YTpi=\r\n".into(),
            format!("Authorization: Basic {token} {token}\r\n"),
            "Authorization: B\r\n".into(),
        ] {
            assert_eq!(basic(&value), None, "{value}");
        }
        for pair in [&b"ann"[..], b"", b"ann:a\0", b"an\nn:a", b"ann:\x7f"] {
            assert_eq!(credentials(pair), None, "{pair:?}");
        }
        assert!(credentials(b"ann:\xff\xc3\xa4").is_some(), "not all clients use UTF-8");
        let long = [b"a:".to_vec(), vec![b'x'; CREDENTIALS_BYTES_MAX - 2]].concat();
        assert!(credentials(&long).is_some());
        assert_eq!(credentials(&[&long[..], b"x"].concat()), None);
    }

    #[test]
    fn mistakes_name_their_line_and_no_secret() {
        let good = format!("ann:{SECRET}\n");
        for (text, line, reason) in [
            (String::new(), 0, "no user"),
            ("# nobody\n\n".into(), 0, "no user"),
            (format!("{good}bob\n"), 2, "colon"),
            (format!("{good}:{SECRET}\n"), 2, "1 to 256"),
            (format!("{good}{}:{SECRET}\n", "x".repeat(257)), 2, "1 to 256"),
            (format!("{good}\nb\tob:{SECRET}\n"), 3, "control"),
            (format!("{good}ann:{EMPTY}\n"), 2, "earlier line"),
            (format!("{good}bob:$apr1$pepper$sesame\n"), 2, "htpasswd -B"),
            (format!("{good}bob:sesame\n"), 2, "htpasswd -B"),
            (format!("{good}bob:{SECRET} \n"), 2, "malformed"),
        ] {
            let mistakes = Passwords::parse(text.as_bytes()).unwrap_err();
            let [mistake] = &mistakes[..] else { panic!("{mistakes:?}") };
            assert_eq!(mistake.line, line, "{text}");
            assert!(mistake.reason.contains(reason), "{text}: {mistake}");
            assert!(!mistake.to_string().contains("sesame"), "{mistake}");
        }
        let both = Passwords::parse(b"a\nb:c\n").unwrap_err();
        assert_eq!(both.iter().map(|mistake| mistake.line).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(both[0].to_string(), "line 1: expected user, colon and hash");
    }

    #[test]
    fn files_are_limited() {
        let line = |user: usize| format!("{user}:{SECRET}\n");
        let mut text: String = (0..USERS_MAX).map(line).collect();
        assert!(Passwords::parse(text.as_bytes()).is_ok());
        text += &line(USERS_MAX);
        let mistakes = Passwords::parse(text.as_bytes()).unwrap_err();
        assert_eq!(mistakes.len(), 1);
        assert!(mistakes[0].line == USERS_MAX + 1 && mistakes[0].reason.contains("10000"));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        assert!(Passwords::load(&path).unwrap_err()[0].reason.contains("No such file"));
        let comment = "#".repeat(FILE_BYTES_MAX as usize - line(1).len() - 1);
        std::fs::write(&path, format!("{comment}\n{}", line(1))).unwrap();
        assert!(Passwords::load(&path).unwrap().verify(&pair("1:secret")));
        std::fs::write(&path, format!("{comment}#\n{}", line(1))).unwrap();
        assert!(Passwords::load(&path).unwrap_err()[0].reason.contains("larger"));
    }

    #[test]
    fn the_oldest_remembered_pair_leaves() {
        let mut remembered = Remembered::default();
        let digest = |n: usize| {
            let mut digest = PairDigest::default();
            digest[..8].copy_from_slice(&n.to_le_bytes());
            digest
        };
        for n in 0..=REMEMBERED_MAX {
            remembered.insert(digest(n));
            remembered.insert(digest(n));
        }
        assert_eq!(
            (remembered.digests.len(), remembered.order.len()),
            (REMEMBERED_MAX, REMEMBERED_MAX)
        );
        assert!(!remembered.digests.contains(&digest(0)));
        assert!(remembered.digests.contains(&digest(1)));
    }

    #[test]
    fn the_challenge() {
        let mut out = Vec::new();
        append_challenge("Team only", &mut out);
        let expected = "WWW-Authenticate: Basic realm=\"Team only\", charset=\"UTF-8\"\r\n";
        assert_eq!(out, expected.as_bytes());
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(
            value in proptest::collection::vec(any::<u8>(), 0..80),
            text in proptest::collection::vec(any::<u8>(), 0..80),
        ) {
            let head = [b"GET / HTTP/1.1\r\nAuthorization: Basic ", &value[..], b"\r\n"].concat();
            let _ = Credentials::of(&head);
            let _ = Passwords::parse(&text);
            let _ = Passwords::parse(&[b"a:$2y$04$", &text[..]].concat());
            let _ = Passwords::parse(&[b"a:$6$", &text[..]].concat());
        }
    }
}
