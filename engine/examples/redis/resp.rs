//! The Redis protocol, version 2: <https://redis.io/docs/latest/develop/reference/protocol-spec/>.

use std::ops::Range;

/// The longest value, in bytes.
pub const BULK_BYTES_MAX: usize = 64 << 20;
/// The replies of one client, in bytes. A client whose commands ask for more at a time is reset.
pub const REPLIES_BYTES_MAX: usize = 256 << 20;
/// The limits of Redis, in bytes and arguments.
const INLINE_BYTES_MAX: usize = 64 << 10;
const ARGUMENTS_MAX: usize = 1 << 20;

/// The result of looking for a command at the beginning of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed {
    /// A command of so many bytes. Its arguments are in the vector given to [`parse`].
    Command(usize),
    /// The command is incomplete. It has at least so many bytes.
    Incomplete(usize),
    /// The bytes are no command. The text is for the client, which must be disconnected.
    Wrong(&'static str),
}

/// Finds the next command: an array of bulk strings, or a line of words.
pub fn parse(bytes: &[u8], arguments: &mut Vec<Range<usize>>) -> Parsed {
    arguments.clear();
    if bytes.first() != Some(&b'*') {
        return parse_line(bytes, arguments);
    }
    let (count, mut at) = match length_at(bytes, 1) {
        Length::Is(count, at) => (count, at),
        Length::Incomplete => return Parsed::Incomplete(bytes.len() + 1),
        Length::Wrong => return Parsed::Wrong("Protocol error: invalid multibulk length"),
    };
    if count > ARGUMENTS_MAX {
        return Parsed::Wrong("Protocol error: invalid multibulk length");
    }
    for left in (0..count).rev() {
        match bytes.get(at) {
            Some(b'$') => {}
            Some(_) => return Parsed::Wrong("Protocol error: expected '$'"),
            None => return Parsed::Incomplete(at + 6 * (left + 1)),
        }
        let (length, start) = match length_at(bytes, at + 1) {
            Length::Is(length, start) if length <= BULK_BYTES_MAX => (length, start),
            Length::Incomplete => return Parsed::Incomplete(bytes.len() + 1),
            _ => return Parsed::Wrong("Protocol error: invalid bulk length"),
        };
        let end = start + length;
        if bytes.len() < end + 2 {
            return Parsed::Incomplete(end + 2 + 6 * left);
        }
        arguments.push(start..end);
        at = end + 2;
    }
    Parsed::Command(at)
}

fn parse_line(bytes: &[u8], arguments: &mut Vec<Range<usize>>) -> Parsed {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
        return if bytes.len() > INLINE_BYTES_MAX {
            Parsed::Wrong("Protocol error: too big inline request")
        } else {
            Parsed::Incomplete(bytes.len() + 1)
        };
    };
    let mut at = 0;
    for word in bytes[..end].split(u8::is_ascii_whitespace) {
        if !word.is_empty() {
            arguments.push(at..at + word.len());
        }
        at += word.len() + 1;
    }
    Parsed::Command(end + 1)
}

enum Length {
    /// The number, and the place behind its line.
    Is(usize, usize),
    Incomplete,
    Wrong,
}

fn length_at(bytes: &[u8], from: usize) -> Length {
    let mut length = 0_usize;
    for (at, byte) in bytes.iter().enumerate().skip(from) {
        match byte {
            b'0'..=b'9' if at < from + 10 => length = length * 10 + usize::from(byte - b'0'),
            b'\r' if at > from => {
                return if at + 1 < bytes.len() {
                    Length::Is(length, at + 2)
                } else {
                    Length::Incomplete
                };
            }
            _ => return Length::Wrong,
        }
    }
    Length::Incomplete
}

/// Replies on their way to the output queue.
#[derive(Default)]
pub struct Replies(pub Vec<u8>);

impl Replies {
    /// Returns whether there are more replies than a client may have.
    pub fn are_too_long(&self) -> bool {
        self.0.len() > REPLIES_BYTES_MAX
    }

    pub fn simple(&mut self, text: &str) {
        self.0.push(b'+');
        self.line(text.as_bytes());
    }

    pub fn error(&mut self, text: &str) {
        self.0.push(b'-');
        self.line(text.as_bytes());
    }

    pub fn integer(&mut self, value: i64) {
        self.number(b':', value);
    }

    pub fn array(&mut self, length: usize) {
        self.number(b'*', length as i64);
    }

    pub fn null(&mut self) {
        self.0.extend_from_slice(b"$-1\r\n");
    }

    pub fn bulk(&mut self, bytes: &[u8]) {
        self.head_of_bulk(bytes.len());
        self.line(bytes);
    }

    pub fn bulk_or_null(&mut self, bytes: Option<&[u8]>) {
        match bytes {
            Some(bytes) => self.bulk(bytes),
            None => self.null(),
        }
    }

    /// The line in front of a bulk string.
    pub fn head_of_bulk(&mut self, length: usize) {
        self.number(b'$', length as i64);
    }

    fn number(&mut self, kind: u8, value: i64) {
        // The longest has 20 digits and a sign.
        let (mut digits, mut at) = ([0; 20], 20);
        let mut left = value.unsigned_abs();
        loop {
            at -= 1;
            digits[at] = b'0' + (left % 10) as u8;
            left /= 10;
            if left == 0 {
                break;
            }
        }
        self.0.push(kind);
        if value < 0 {
            self.0.push(b'-');
        }
        self.line(&digits[at..]);
    }

    fn line(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
        self.0.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_found_whole_and_every_part_of_it_is_incomplete() {
        for command in [&b"*2\r\n$3\r\nGET\r\n$5\r\na\r\nbc\r\n"[..], b"*0\r\n", b" PING  x\r\n"] {
            let mut arguments = Vec::new();
            assert_eq!(parse(command, &mut arguments), Parsed::Command(command.len()));
            for length in 0..command.len() {
                let parsed = parse(&command[..length], &mut Vec::new());
                let Parsed::Incomplete(least) = parsed else { panic!("{length}: {parsed:?}") };
                assert!((length + 1..=command.len()).contains(&least), "{length}: {least}");
            }
        }
        let mut arguments = Vec::new();
        parse(b"*2\r\n$3\r\nGET\r\n$5\r\na\r\nbc\r\n", &mut arguments);
        assert_eq!(arguments, [8..11, 17..22]);
        parse(b" PING  x\r\n", &mut arguments);
        assert_eq!(arguments, [1..5, 7..8]);
    }

    #[test]
    fn wrong_lengths_are_refused() {
        for wrong in
            ["*x\r\n", "*-1\r\n", "*1\r\n:1\r\n", "*1\r\n$-1\r\n", "*1\r\n$99999999999\r\n"]
        {
            assert!(
                matches!(parse(wrong.as_bytes(), &mut Vec::new()), Parsed::Wrong(_)),
                "{wrong}"
            );
        }
        assert!(matches!(parse(&[b'x'; 70_000], &mut Vec::new()), Parsed::Wrong(_)));
    }

    #[test]
    fn numbers_are_written_in_decimal() {
        let mut replies = Replies::default();
        [0, -1, 120, i64::MIN, i64::MAX].into_iter().for_each(|value| replies.integer(value));
        let expected = format!(":0\r\n:-1\r\n:120\r\n:{}\r\n:{}\r\n", i64::MIN, i64::MAX);
        assert_eq!(replies.0, expected.as_bytes());
    }
}
