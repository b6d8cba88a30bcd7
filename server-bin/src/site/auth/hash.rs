//! Hashes of passwords: bcrypt (`$2y$`, `$2b$`, `$2a$`) and SHA-512-crypt (`$6$`).

use base64::Engine as _;
use bcrypt::BASE_64;

/// A cost of bcrypt above this one takes a worker for more than a second.
const COST_MAX: u32 = 14;
const COST_MIN: u32 = 4;
/// Bytes of a password that bcrypt regards.
const BCRYPT_BYTES_MAX: usize = 72;
/// Rounds of SHA-512-crypt above this number take a worker for about a second.
const ROUNDS_MAX: u32 = 1_000_000;
/// Bytes of a salt of SHA-512-crypt at most.
const SALT_BYTES_MAX: usize = 16;
/// Characters of a hash of SHA-512-crypt.
const SHA512_CHARACTERS: usize = 86;

/// The hash of a password, with its salt and its cost.
pub(super) enum Hash {
    Bcrypt { cost: u32, salt: [u8; 16], hash: [u8; 23] },
    Sha512 { rounds: sha_crypt::Params, salt: Box<[u8]>, hash: [u8; SHA512_CHARACTERS] },
}

impl Hash {
    /// Reads the text behind the colon of a password file.
    pub(super) fn parse(text: &[u8]) -> Result<Self, String> {
        let rest =
            |prefixes: &[&[u8]]| prefixes.iter().find_map(|prefix| text.strip_prefix(*prefix));
        if let Some(rest) = rest(&[b"$2y$", b"$2b$", b"$2a$"]) {
            return Self::parse_bcrypt(rest);
        }
        if let Some(rest) = rest(&[b"$6$"]) {
            return Self::parse_sha512(rest);
        }
        let scheme = if rest(&[b"$apr1$", b"$1$"]).is_some() {
            "MD5"
        } else if rest(&[b"{SHA}"]).is_some() {
            "SHA-1 without salt"
        } else if rest(&[b"$5$"]).is_some() {
            "SHA-256-crypt"
        } else if rest(&[b"$y$", b"$7$"]).is_some() {
            "yescrypt"
        } else if rest(&[b"$argon2"]).is_some() {
            "Argon2"
        } else {
            "the hash's scheme"
        };
        Err(format!("{scheme} is not supported: `htpasswd -B` writes bcrypt"))
    }

    fn parse_bcrypt(text: &[u8]) -> Result<Self, String> {
        let [tens @ b'0'..=b'3', ones @ b'0'..=b'9', b'$', encoded @ ..] = text else {
            return Err("the cost of bcrypt is malformed".into());
        };
        let cost = u32::from(10 * (tens - b'0') + (ones - b'0'));
        if !(COST_MIN..=COST_MAX).contains(&cost) {
            let reason = "a check would take more than a second";
            return Err(format!("cost {cost} of bcrypt is not {COST_MIN} to {COST_MAX}: {reason}"));
        }
        let (mut salt, mut hash) = ([0; 16], [0; 23]);
        let is_whole = encoded.len() == 53
            && BASE_64.decode_slice(&encoded[..22], &mut salt) == Ok(salt.len())
            && BASE_64.decode_slice(&encoded[22..], &mut hash) == Ok(hash.len());
        if !is_whole {
            return Err("the hash of bcrypt is malformed: expected 53 characters".into());
        }
        Ok(Self::Bcrypt { cost, salt, hash })
    }

    fn parse_sha512(text: &[u8]) -> Result<Self, String> {
        let (rounds, rest) = match text.strip_prefix(b"rounds=") {
            None => (sha_crypt::Params::RECOMMENDED, text),
            Some(rest) => {
                let end = memchr::memchr(b'$', rest).unwrap_or(rest.len());
                let rounds = crate::http::fields::decimal(&rest[..end])
                    .and_then(|rounds| u32::try_from(rounds).ok())
                    .filter(|rounds| *rounds <= ROUNDS_MAX)
                    .and_then(|rounds| sha_crypt::Params::new(rounds).ok());
                let expected = format!("expected 1000 to {ROUNDS_MAX} rounds of SHA-512-crypt");
                (rounds.ok_or(expected)?, rest.get(end + 1..).unwrap_or_default())
            }
        };
        let malformed = "the hash of SHA-512-crypt is malformed";
        let dollar = memchr::memchr(b'$', rest).ok_or(malformed)?;
        let (salt, hash) = (&rest[..dollar], &rest[dollar + 1..]);
        let is_digit = |byte: &u8| CRYPT_DIGITS.contains(byte);
        let hash: [u8; SHA512_CHARACTERS] = hash.try_into().map_err(|_| malformed)?;
        if salt.len() > SALT_BYTES_MAX || !hash.iter().all(is_digit) {
            return Err(malformed.into());
        }
        Ok(Self::Sha512 { rounds, salt: salt.into(), hash })
    }

    /// Returns whether this is the hash of a password. All of the hash is compared, wherever it
    /// differs.
    pub(super) fn verifies(&self, password: &[u8]) -> bool {
        match self {
            Self::Bcrypt { cost, salt, hash } => {
                // The NUL at the end belongs to the password unless it is too long.
                let mut padded = [0; BCRYPT_BYTES_MAX];
                let length = password.len().min(BCRYPT_BYTES_MAX);
                padded[..length].copy_from_slice(&password[..length]);
                let used = &padded[..(length + 1).min(BCRYPT_BYTES_MAX)];
                is_equal(&bcrypt::bcrypt(*cost, *salt, used)[..hash.len()], hash)
            }
            Self::Sha512 { rounds, salt, hash } => {
                is_equal(&encode_sha512(&sha_crypt::sha512_crypt(password, salt, *rounds)), hash)
            }
        }
    }
}

fn is_equal(one: &[u8], other: &[u8]) -> bool {
    let differences = one.iter().zip(other).fold(0, |sum, (one, other)| sum | (one ^ other));
    one.len() == other.len() && differences == 0
}

const CRYPT_DIGITS: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The characters of a digest, as crypt(5) writes them: groups of three bytes from the three thirds
/// of the digest, whose order rotates, and the last byte.
fn encode_sha512(digest: &[u8; 64]) -> [u8; SHA512_CHARACTERS] {
    let mut text = [0; SHA512_CHARACTERS];
    for (at, characters) in text.chunks_mut(4).enumerate() {
        let byte = |third: usize| u32::from(digest[at + 21 * ((third + at) % 3)]);
        let bits = match at {
            21 => u32::from(digest[63]),
            _ => byte(0) << 16 | byte(1) << 8 | byte(2),
        };
        for (digit, character) in characters.iter_mut().enumerate() {
            *character = CRYPT_DIGITS[(bits >> (6 * digit) & 63) as usize];
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by crypt(3) of libxcrypt 4.4.33.
    const HASHES: [(&str, &str); 8] = [
        ("secret", "$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW"),
        ("secret", "$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW"),
        ("pässwörd", "$2y$05$abcdefghijklmnopqrstuuZVEMa1pjhlynBQ1qXmSvGBJpN9h1w8G"),
        ("", "$2y$04$abcdefghijklmnopqrstuubyCG3zY1GIXMyxfivm.ClDiInHzxjiq"),
        (
            "secret",
            "$6$saltsalt$TVLlQcbpFVof5W3Yz4DTP6gRstiNuHwwTt6GLc1E5n0U0aDehy0S5knV8wiOQSpT0Y77vwPZN\
             .Pq.H91p5hVO1",
        ),
        (
            "secret",
            "$6$rounds=1000$saltsaltsaltsalt$cv7no.30n.S75jcCNBQv6o7WVXQ5AaB1EpIeSKwsNupcnQDQ0Dsuk\
             cAPRNjPumwKIBg2JK5ii9uw5enNnnA4N/",
        ),
        (
            "secret",
            "$6$rounds=1000$$ItXvd09GbF48UthMn1jgF27i.UiFK6lQrMQFgQ..At.nPPv1mKG8frk6rDmddXVUHVAV.\
             2.X7lBqxtKoTwrXx0",
        ),
        (
            "",
            "$6$rounds=1000$ab$ibFMAI/Igw53aVaJxJu4wwQmU0jF8lxiKV6mtjRJmbxKnzQU8fIizULiJeSfGn7H54d\
             bRhqwIBpklchs8nlWi.",
        ),
    ];

    fn reason(text: &str) -> String {
        match Hash::parse(text.as_bytes()) {
            Ok(_) => panic!("{text} is no hash"),
            Err(reason) => reason,
        }
    }

    #[test]
    fn passwords_are_verified() {
        for (password, text) in HASHES {
            let hash = Hash::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{error}"));
            assert!(hash.verifies(password.as_bytes()), "{text}");
            for wrong in [format!("{password}x"), password.to_uppercase() + " "] {
                assert!(!hash.verifies(wrong.as_bytes()), "{wrong} and {text}");
            }
        }
    }

    #[test]
    fn sha_512_regards_all_bytes() {
        let text = "$6$rounds=1000$ab$85pIfO2X1J1tlwMzWEbXspEkH1Vp1aGqH7uStHmENFXC5N7Mjo2KxO7cPuup\
                    E1/G0TdxfN/kRemrgSnwJYwrG1";
        let hash = Hash::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{error}"));
        assert!(hash.verifies(&[b's'; 100]) && !hash.verifies(&[b's'; 99]));
    }

    #[test]
    fn bcrypt_regards_72_bytes() {
        let text = "$2y$04$abcdefghijklmnopqrstuubzadhGtS2zEF.gu0yd0opP6cVzb.e0i";
        let hash = Hash::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{error}"));
        assert!(hash.verifies(&[b'x'; 72]) && hash.verifies(&[b'x'; 80]));
        assert!(!hash.verifies(&[b'x'; 71]));
    }

    #[test]
    fn each_character_of_a_hash_counts() {
        for (text, characters) in [(HASHES[0].1, 31), (HASHES[5].1, SHA512_CHARACTERS)] {
            for at in (text.len() - characters..text.len()).step_by(7) {
                let mut wrong = text.as_bytes().to_vec();
                wrong[at] = if wrong[at] == b'a' { b'b' } else { b'a' };
                if let Ok(hash) = Hash::parse(&wrong) {
                    assert!(!hash.verifies(b"secret"), "{at} of {text}");
                }
            }
        }
    }

    #[test]
    fn other_schemes_and_malformed_hashes_have_a_reason() {
        let bcrypt = &HASHES[0].1[7..];
        let sha512 = &HASHES[4].1["$6$saltsalt$".len()..];
        for (text, expected) in [
            ("$apr1$saltsalt$LrttParrLPdxvgutaSXWJ0", "MD5"),
            ("{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=", "SHA-1"),
            ("$5$saltsalt$x", "SHA-256"),
            ("$y$j9T$x$x", "yescrypt"),
            ("$argon2id$v=19$x", "Argon2"),
            ("secret", "scheme is not supported"),
            ("", "scheme is not supported"),
            ("$2x$04$x", "scheme is not supported"),
            ("$2y$", "cost of bcrypt is malformed"),
            ("$2y$4$x", "cost of bcrypt is malformed"),
            (&format!("$2y$15${bcrypt}"), "4 to 14"),
            (&format!("$2y$03${bcrypt}"), "4 to 14"),
            (&format!("$2y$31${bcrypt}"), "4 to 14"),
            (&format!("$2y$04${bcrypt}x"), "53"),
            (&format!("$2y$04${}", &bcrypt[1..]), "53"),
            (&format!("$2y$04${}:", &bcrypt[..52]), "53"),
            (&format!("$6$rounds=999$a${sha512}"), "1000"),
            (&format!("$6$rounds=1000001$a${sha512}"), "1000"),
            (&format!("$6$rounds=99999999999$a${sha512}"), "1000"),
            (&format!("$6$rounds=$a${sha512}"), "1000"),
            ("$6$rounds=5000", "malformed"),
            ("$6$salt", "malformed"),
            (&format!("$6$saltsaltsaltsalt1${sha512}"), "malformed"),
            (&format!("$6$salt${}", &sha512[1..]), "malformed"),
            (&format!("$6$salt${}!", &sha512[1..]), "malformed"),
        ] {
            let reason = reason(text);
            assert!(reason.contains(expected), "{text}: {reason}");
        }
    }
}
