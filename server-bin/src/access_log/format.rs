//! The formats of a line in the access log.

use crate::http::fields;
use crate::http::head::Request;
use crate::http::reply::decimal;
use ringwright::{Peer, Reason, Traffic};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

/// Maximum length in bytes of each client text in a line. Longer texts are cut.
const TEXT_BYTES_MAX: usize = 2048;

/// The format of the lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// The "combined" format of Apache and nginx, which many tools read.
    #[default]
    Combined,
    /// One JSON object per line, with more fields than the combined format.
    Json,
}

/// A reply to be logged.
#[derive(Debug)]
pub struct Entry<'a> {
    /// Time of the reply in seconds since 1970-01-01 UTC.
    pub seconds: i64,
    /// The client. The port is 0 if a proxy named the client of this request.
    pub client: &'a Client,
    /// The address at the other end of the connection, if that is not the client.
    pub socket: Option<Peer>,
    /// The first name of the site. Empty if it has none, or if no site was found.
    pub site: &'a str,
    /// The number of the connection.
    pub connection: u64,
    /// Number of the request on its connection, from 1.
    pub request: u64,
    /// The texts of its head.
    pub texts: Texts<'a>,
    /// The status code.
    pub status: u16,
}

/// The address of a client. A connection keeps it for all its lines.
#[derive(Clone, Copy, Debug)]
pub enum Client {
    /// An IPv4 address: its text, with the port from `address_bytes` on.
    V4 {
        /// The text and zeros.
        text: [u8; V4_BYTES_MAX],
        /// The bytes of the address.
        address_bytes: u8,
        /// The bytes of the whole text.
        bytes: u8,
    },
    /// Another one.
    Other(Peer),
}

const V4_BYTES_MAX: usize = "255.255.255.255:65535".len();

impl Client {
    /// The client with this address.
    #[must_use]
    pub fn of(peer: Peer) -> Self {
        let Peer::Ip(SocketAddr::V4(address)) = peer else { return Self::Other(peer) };
        let (mut text, mut bytes) = ([0; V4_BYTES_MAX], 0);
        let mut append = |part: String| {
            text[bytes..bytes + part.len()].copy_from_slice(part.as_bytes());
            bytes += part.len();
            bytes as u8
        };
        let address_bytes = append(address.ip().to_string());
        let bytes = append(format!(":{}", address.port()));
        Self::V4 { text, address_bytes, bytes }
    }

    /// Appends the address, or `unix:`.
    fn append_address(&self, out: &mut Vec<u8>) {
        match self {
            Self::V4 { text, address_bytes, .. } => {
                out.extend_from_slice(&text[..usize::from(*address_bytes)]);
            }
            Self::Other(peer) => out.extend_from_slice(without_port(*peer).as_bytes()),
        }
    }

    /// Appends the address with its port.
    fn append(&self, out: &mut Vec<u8>) {
        match self {
            Self::V4 { text, bytes, .. } => out.extend_from_slice(&text[..usize::from(*bytes)]),
            Self::Other(peer) => out.extend_from_slice(peer.to_string().as_bytes()),
        }
    }
}

/// The texts of a request's head that a line repeats.
#[derive(Clone, Copy, Debug)]
pub struct Texts<'a> {
    /// The request line without its end.
    pub line: &'a [u8],
    /// The values of fields that are there once.
    pub host: Option<&'a [u8]>,
    /// See `host`.
    pub referer: Option<&'a [u8]>,
    /// See `host`.
    pub user_agent: Option<&'a [u8]>,
}

impl<'a> Texts<'a> {
    /// The texts of a request.
    #[must_use]
    pub fn of(request: &Request, head: &'a [u8]) -> Self {
        let (line, host) = (request.line(head), request.host_field(head));
        Self { line, host, referer: request.referer(head), user_agent: request.user_agent(head) }
    }

    /// The texts of a head that is refused, as far as it was read.
    #[must_use]
    pub fn of_part(head: &'a [u8]) -> Self {
        let [host, referer, user_agent] = fields::singles(head, ["host", "referer", "user-agent"]);
        Self { line: request_line(head), host, referer, user_agent }
    }
}

/// The end of a reply that is logged.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// Bytes of the body that have left.
    pub bytes: u64,
    /// Time from the last byte of the head until then. 0 if the head has no end.
    pub duration: Duration,
    /// How the reply ended.
    pub end: End,
}

/// How a reply ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All of it has left.
    Complete,
    /// The client has reset the connection, or has vanished.
    ClientGone,
    /// A time limit or the minimum rate ended the connection.
    Timeout,
    /// The drain reached its deadline.
    Drained,
    /// Something else ended the connection: a kick, a file that could not be read to its end.
    Aborted,
    /// Unknown: too many replies were pending, and the line was written when this one was queued.
    Queued,
}

impl End {
    /// Tells the end by the reason for which the connection ended. `None`: all of it has left.
    #[must_use]
    pub const fn of(reason: Option<Reason>) -> Self {
        let Some(reason) = reason else { return Self::Complete };
        match reason {
            Reason::PeerFin | Reason::PeerReset | Reason::BrokenPipe | Reason::NetworkError => {
                Self::ClientGone
            }
            Reason::IdleTimeout
            | Reason::Evicted
            | Reason::TooSlow
            | Reason::ReceiveTimeout
            | Reason::WriteTimeout
            | Reason::TransferTimeout => Self::Timeout,
            Reason::Drained | Reason::Stopped => Self::Drained,
            _ => Self::Aborted,
        }
    }

    /// The word in the log.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::ClientGone => "client_gone",
            Self::Timeout => "timeout",
            Self::Drained => "drained",
            Self::Aborted => "aborted",
            Self::Queued => "queued",
        }
    }
}

/// A connection to be logged at its end.
#[derive(Debug)]
pub struct Ending {
    /// Time of the end in seconds since 1970-01-01 UTC.
    pub seconds: i64,
    /// The client's address.
    pub peer: Peer,
    /// The number of the connection.
    pub connection: u64,
    /// The protocol, as in the URL of the listener.
    pub protocol: &'static str,
    /// The name of the reason for the end.
    pub reason: &'static str,
    /// The bytes of both directions.
    pub traffic: Traffic,
    /// Time from the accept to the end.
    pub duration: Duration,
}

/// Formats lines. Caches the text of the current second.
#[derive(Debug)]
pub struct Formatter {
    format: Format,
    seconds: i64,
    time: Vec<u8>,
    /// The part of a combined line between the client and the request line.
    after_client: Vec<u8>,
}

impl Formatter {
    /// Creates a formatter for `format`.
    #[must_use]
    pub fn new(format: Format) -> Self {
        Self { format, seconds: i64::MIN, time: Vec::new(), after_client: Vec::new() }
    }

    /// Appends a line as far as it is known. Returns the place of the outcome. In the combined
    /// format, the line is whole if all of these bytes leave.
    pub fn begin(&mut self, entry: &Entry<'_>, bytes: u64, out: &mut Vec<u8>) -> Range<usize> {
        self.note_time(entry.seconds);
        let place = match self.format {
            Format::Combined => self.combined(entry, bytes, out),
            Format::Json => self.json(entry, out),
        };
        out.push(b'\n');
        place
    }

    /// Returns whether [`begin`](Self::begin) writes the whole line of a reply that leaves whole.
    pub fn is_whole(&self) -> bool {
        self.format == Format::Combined
    }

    /// Appends a line of which [`begin`](Self::begin) has written `text`.
    pub fn append(&self, text: &[u8], place: Range<usize>, outcome: &Outcome, out: &mut Vec<u8>) {
        let (before, behind) = (&text[..place.start], &text[place.end..]);
        let Outcome { bytes, duration, end } = *outcome;
        out.extend_from_slice(before);
        decimal(out, bytes);
        if self.format == Format::Json {
            out.extend_from_slice(b",\"duration_ms\":");
            decimal(out, duration.as_millis() as u64);
            out.extend_from_slice(b",\"end\":\"");
            out.extend_from_slice(end.name().as_bytes());
            out.push(b'"');
        }
        out.extend_from_slice(behind);
    }

    /// Appends the line of a connection. None of its texts comes from the client.
    pub fn append_end(&mut self, ending: &Ending, out: &mut Vec<u8>) {
        self.note_time(ending.seconds);
        let Ending { peer, connection, protocol, reason, traffic, duration, .. } = ending;
        let Traffic { received_bytes, sent_bytes } = traffic;
        let time = String::from_utf8_lossy(&self.time);
        let line = match self.format {
            Format::Combined => format!(
                "{} - - [{time}] \"{protocol}\" {reason} {received_bytes} {sent_bytes} {:.3}\n",
                without_port(*peer),
                duration.as_secs_f64()
            ),
            Format::Json => format!(
                "{{\"time\":\"{time}\",\"peer\":\"{peer}\",\"connection\":{connection},\
                 \"protocol\":\"{protocol}\",\"reason\":\"{reason}\",\
                 \"received_bytes\":{received_bytes},\"sent_bytes\":{sent_bytes},\
                 \"duration_ms\":{}}}\n",
                duration.as_millis()
            ),
        };
        out.extend_from_slice(line.as_bytes());
    }

    fn note_time(&mut self, seconds: i64) {
        if self.seconds != seconds {
            self.seconds = seconds;
            self.time = match self.format {
                Format::Combined => combined_time(seconds),
                Format::Json => json_time(seconds),
            }
            .into_bytes();
            self.after_client = [b" - - [", &self.time[..], b"] \""].concat();
        }
    }

    fn combined(&self, entry: &Entry<'_>, bytes: u64, out: &mut Vec<u8>) -> Range<usize> {
        let Texts { line, referer, user_agent, .. } = entry.texts;
        entry.client.append_address(out);
        out.extend_from_slice(&self.after_client);
        escape(Some(line), Format::Combined, out);
        out.extend_from_slice(b"\" ");
        append_status(entry.status, out);
        out.push(b' ');
        let start = out.len();
        decimal(out, bytes);
        let place = start..out.len();
        out.extend_from_slice(b" \"");
        escape(referer, Format::Combined, out);
        out.extend_from_slice(b"\" \"");
        escape(user_agent, Format::Combined, out);
        out.push(b'"');
        place
    }

    fn json(&self, entry: &Entry<'_>, out: &mut Vec<u8>) -> Range<usize> {
        let numbers = [
            (&b"\",\"connection\":"[..], entry.connection),
            (b",\"request\":", entry.request),
            (b",\"status\":", u64::from(entry.status)),
        ];
        out.extend_from_slice(b"{\"time\":\"");
        out.extend_from_slice(&self.time);
        out.extend_from_slice(b"\",\"peer\":\"");
        entry.client.append(out);
        for (name, value) in numbers {
            out.extend_from_slice(name);
            decimal(out, value);
        }
        out.extend_from_slice(b",\"bytes\":");
        let length = out.len();
        let Texts { line, host, referer, user_agent } = entry.texts;
        let texts = [
            (&b",\"line\":"[..], Some(line)),
            (b",\"host\":", host),
            (b",\"referer\":", referer),
            (b",\"user_agent\":", user_agent),
        ];
        for (name, value) in texts {
            let Some(value) = value else { continue };
            out.extend_from_slice(name);
            out.push(b'"');
            escape(Some(value), Format::Json, out);
            out.push(b'"');
        }
        // Both are known from the other fields where there is neither a proxy nor a name.
        if let Some(socket) = entry.socket {
            out.extend_from_slice(b",\"socket\":\"");
            out.extend_from_slice(socket.to_string().as_bytes());
            out.push(b'"');
        }
        if !entry.site.is_empty() {
            out.extend_from_slice(b",\"site\":\"");
            escape(Some(entry.site.as_bytes()), Format::Json, out);
            out.push(b'"');
        }
        out.push(b'}');
        length..length
    }
}

/// The address of a client, or `unix:`.
fn without_port(peer: Peer) -> String {
    peer.ip().map_or_else(|| peer.to_string(), |ip| ip.to_string())
}

/// Appends the three digits of a status.
fn append_status(status: u16, out: &mut Vec<u8>) {
    let digit = |divisor| b'0' + (status / divisor % 10) as u8;
    out.extend_from_slice(&[digit(100), digit(10), digit(1)]);
}

/// Returns the request line without its end, as far as it was read. Empty if it does not begin with
/// a method.
fn request_line(head: &[u8]) -> &[u8] {
    let line = head.split(|&byte| byte == b'\n').next().unwrap_or_default();
    match line.first() {
        Some(&first) if fields::is_token_byte(first) => line.strip_suffix(b"\r").unwrap_or(line),
        _ => &[],
    }
}

/// Appends a client's text escaped, so that it can end neither the line nor the quotes.
///
/// Valid UTF-8 stays as it is. Control characters become `\xHH` in the combined format, byte by
/// byte, and `\uHHHH` in JSON. Bytes that are no UTF-8 become `\xHH` in both, so that the text of a
/// JSON string differs from that of the character U+00HH.
fn escape(text: Option<&[u8]>, format: Format, out: &mut Vec<u8>) {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return out.push(b'-') };
    if is_plain(text) {
        return out.extend_from_slice(cut(text));
    }
    for chunk in cut(text).utf8_chunks() {
        let valid = chunk.valid();
        let mut plain = 0;
        for (at, character) in valid.char_indices().filter(|(_, it)| must_be_escaped(*it)) {
            let next = at + character.len_utf8();
            out.extend_from_slice(&valid.as_bytes()[plain..at]);
            match format {
                _ if matches!(character, '"' | '\\') => out.extend([b'\\', character as u8]),
                Format::Combined => {
                    valid.as_bytes()[at..next].iter().for_each(|byte| hex(b"\\x", *byte, out));
                }
                // All of them lie in the Basic Multilingual Plane.
                Format::Json => out.extend(format!("\\u{:04x}", u32::from(character)).bytes()),
            }
            plain = next;
        }
        out.extend_from_slice(&valid.as_bytes()[plain..]);
        let introduction: &[u8] = if format == Format::Json { b"\\\\x" } else { b"\\x" };
        chunk.invalid().iter().for_each(|byte| hex(introduction, *byte, out));
    }
}

/// Returns whether nothing has to be escaped, as in almost every text. It looks at 16 bytes at a
/// time.
fn is_plain(text: &[u8]) -> bool {
    let special = |byte: u8| !(0x20..0x7f).contains(&byte) | (byte == b'"') | (byte == b'\\');
    let mut found = [false; 16];
    let mut look_at = |chunk: &[u8; 16]| {
        found.iter_mut().zip(chunk).for_each(|(found, byte)| *found |= special(*byte));
    };
    let (chunks, rest) = text.as_chunks();
    chunks.iter().for_each(&mut look_at);
    match text.last_chunk() {
        _ if rest.is_empty() => {}
        // Some of these bytes were looked at before.
        Some(last) => look_at(last),
        None => {
            let mut padded = [b' '; 16];
            padded[..rest.len()].copy_from_slice(rest);
            look_at(&padded);
        }
    }
    !found.contains(&true)
}

/// Cuts a long text, not inside a character.
fn cut(text: &[u8]) -> &[u8] {
    if text.len() <= TEXT_BYTES_MAX {
        return text;
    }
    let continues = |end: &usize| text[*end] & 0xc0 == 0x80;
    let mut ends = (TEXT_BYTES_MAX - 3..=TEXT_BYTES_MAX).rev();
    &text[..ends.find(|end| !continues(end)).unwrap_or(TEXT_BYTES_MAX)]
}

/// Quotes, the escape character, control characters, and the line and paragraph separators of
/// Unicode, at which some readers of logs split lines.
fn must_be_escaped(character: char) -> bool {
    matches!(character, '"' | '\\' | '\u{2028}' | '\u{2029}') || character.is_control()
}

fn hex(introduction: &[u8], byte: u8, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.extend_from_slice(introduction);
    out.extend([DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
}

/// Formats a time as `06/Nov/1994:08:49:37 +0000`.
fn combined_time(seconds: i64) -> String {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (year, month, day) = civil(seconds.div_euclid(86_400));
    let (hour, minute, second) = of_day(seconds);
    let month = MONTHS[month as usize - 1];
    format!("{day:02}/{month}/{year:04}:{hour:02}:{minute:02}:{second:02} +0000")
}

/// Formats a time as `1994-11-06T08:49:37Z`.
pub(crate) fn json_time(seconds: i64) -> String {
    let (year, month, day) = civil(seconds.div_euclid(86_400));
    let (hour, minute, second) = of_day(seconds);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

const fn of_day(seconds: i64) -> (i64, i64, i64) {
    let second = seconds.rem_euclid(86_400);
    (second / 3600, second / 60 % 60, second % 60)
}

/// Converts days since 1970-01-01 to year, month and day of the Gregorian calendar. Internally,
/// years begin in March, so that a leap day is the last day of its year. The pattern of leap years
/// repeats every 400 years.
const fn civil(days_since_1970: i64) -> (i64, i64, i64) {
    let days = days_since_1970 + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + (month <= 2) as i64, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn line(format: Format, head: &[u8]) -> String {
        line_of(format, head, "[::1]:5", "")
    }

    fn line_of(format: Format, head: &[u8], socket: &str, site: &str) -> String {
        let peer = Peer::Ip("[::1]:5".parse().unwrap());
        let socket = socket.parse().map_or(Peer::Unix, Peer::Ip);
        let entry = Entry {
            seconds: 784_111_777,
            client: &Client::of(peer),
            socket: (socket != peer).then_some(socket),
            site,
            connection: 12,
            request: 3,
            texts: Texts::of_part(head),
            status: 404,
        };
        let (duration, end) = (Duration::from_millis(7), End::Complete);
        let (mut text, mut line) = (Vec::new(), Vec::new());
        let mut formatter = Formatter::new(format);
        let place = formatter.begin(&entry, 14, &mut text);
        let outcome = Outcome { bytes: 14, duration, end };
        formatter.append(&text, place.clone(), &outcome, &mut line);
        if format == Format::Combined {
            assert_eq!(text, line);
            line.clear();
            let outcome = Outcome { bytes: 9, duration, end };
            formatter.append(&text, place, &outcome, &mut line);
            let at = text.len() - line.len();
            assert_eq!((at, &line[line.len() - 9..]), (1, &text[text.len() - 9..]));
            return String::from_utf8(text).unwrap();
        }
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn lines() {
        let head = b"GET /a\"b HTTP/1.1\r\nHost: x\r\nUser-Agent: c\xe9\\d\r\n\r\n";
        assert_eq!(
            line(Format::Combined, head),
            "::1 - - [06/Nov/1994:08:49:37 +0000] \"GET /a\\\"b HTTP/1.1\" 404 14 \"-\" \
             \"c\\xe9\\\\d\"\n"
        );
        assert_eq!(
            line(Format::Json, head),
            "{\"time\":\"1994-11-06T08:49:37Z\",\"peer\":\"[::1]:5\",\"connection\":12,\
             \"request\":3,\"status\":404,\"bytes\":14,\"duration_ms\":7,\"end\":\"complete\",\
             \"line\":\"GET /a\\\"b HTTP/1.1\",\"host\":\"x\",\"user_agent\":\"c\\\\xe9\\\\d\"}\n"
        );
        assert!(line(Format::Combined, b"").contains("] \"-\" 404"));
    }

    #[test]
    fn clients_of_each_family() {
        for (peer, address, whole) in [
            ("192.0.2.1:7", "192.0.2.1", "192.0.2.1:7"),
            ("255.255.255.255:65535", "255.255.255.255", "255.255.255.255:65535"),
            ("[2001:db8::1]:80", "2001:db8::1", "[2001:db8::1]:80"),
            ("unix", "unix:", "unix:"),
        ] {
            let client = Client::of(peer.parse().map_or(Peer::Unix, Peer::Ip));
            let (mut combined, mut json) = (Vec::new(), Vec::new());
            client.append_address(&mut combined);
            client.append(&mut json);
            assert_eq!((combined, json), (address.into(), whole.into()));
        }
    }

    #[test]
    fn a_request_has_the_texts_of_its_head() {
        let head = b"HEAD /a?b HTTP/1.0\r\nUser-Agent: c \r\nHost: x:80\r\nReferer:\r\n\r\n";
        let whole = Texts::of(&crate::http::head::parse(head).unwrap(), head);
        let part = Texts::of_part(head);
        let texts = |it: Texts<'static>| (it.line, it.host, it.referer, it.user_agent);
        assert_eq!(texts(whole), texts(part));
        assert_eq!(whole.line, b"HEAD /a?b HTTP/1.0");
    }

    #[test]
    fn a_json_line_names_the_proxy_and_the_site() {
        let line = line_of(Format::Json, b"GET / HTTP/1.1\r\n\r\n", "192.0.2.1:7", "example.org");
        assert!(
            line.ends_with(",\"socket\":\"192.0.2.1:7\",\"site\":\"example.org\"}\n"),
            "{line}"
        );
        assert!(line.contains(",\"peer\":\"[::1]:5\","), "{line}");
    }

    #[test]
    fn lines_of_connections() {
        let ending = Ending {
            seconds: 784_111_777,
            peer: Peer::Ip("[::1]:5".parse().unwrap()),
            connection: 12,
            protocol: "echo",
            reason: "peer_fin",
            traffic: Traffic { received_bytes: 10, sent_bytes: 20 },
            duration: Duration::from_millis(1_007),
        };
        let line = |format| {
            let mut out = Vec::new();
            Formatter::new(format).append_end(&ending, &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            line(Format::Combined),
            "::1 - - [06/Nov/1994:08:49:37 +0000] \"echo\" peer_fin 10 20 1.007\n"
        );
        assert_eq!(
            line(Format::Json),
            "{\"time\":\"1994-11-06T08:49:37Z\",\"peer\":\"[::1]:5\",\"connection\":12,\
             \"protocol\":\"echo\",\"reason\":\"peer_fin\",\"received_bytes\":10,\
             \"sent_bytes\":20,\"duration_ms\":1007}\n"
        );
    }

    #[test]
    fn a_line_that_was_read_in_part() {
        for (head, logged) in [
            (&b""[..], "-"),
            (b"GET", "GET"),
            (b"GET /a", "GET /a"),
            (b"GET /a HTTP/1.1\nHost: x", "GET /a HTTP/1.1"),
            (b"GET /\ra HTTP/1.1\r\n", "GET /\\x0da HTTP/1.1"),
            (b"\x16\x03\x01 GET /", "-"),
            (b"\r", "-"),
            (b" GET /", "-"),
        ] {
            let line = line(Format::Combined, head);
            assert!(line.contains(&format!("] \"{logged}\" 404 ")), "{line}");
        }
    }

    #[test]
    fn utf_8_stays_and_nothing_else_ends_a_line() {
        // Each text of a client, in the combined format and in JSON.
        let cases: [(&[u8], &str, &str); 9] = [
            ("Zürich 東京 👩‍🚀".as_bytes(), "Zürich 東京 👩‍🚀", "Zürich 東京 👩‍🚀"),
            (b"a\"b\\", "a\\\"b\\\\", "a\\\"b\\\\"),
            (b"a\x01\x7f", "a\\x01\\x7f", "a\\u0001\\u007f"),
            (b"a\tb\x1b[2J", "a\\x09b\\x1b[2J", "a\\u0009b\\u001b[2J"),
            // C1 controls: U+0085 ends a line, U+009B begins a control sequence.
            ("\u{85}\u{9b}".as_bytes(), "\\xc2\\x85\\xc2\\x9b", "\\u0085\\u009b"),
            ("\u{2028}x".as_bytes(), "\\xe2\\x80\\xa8x", "\\u2028x"),
            (b"\xff\xc3", "\\xff\\xc3", "\\\\xff\\\\xc3"),
            // An overlong slash, and a surrogate.
            (b"\xc0\xaf", "\\xc0\\xaf", "\\\\xc0\\\\xaf"),
            (b"\xed\xa0\x80", "\\xed\\xa0\\x80", "\\\\xed\\\\xa0\\\\x80"),
        ];
        for (text, combined, json) in cases {
            let fields = [b"\r\nHost: x\r\nReferer: ", text, b"\r\nUser-Agent: ", text].concat();
            let head = [b"GET /", text, b" HTTP/1.1", &fields, b"\r\n\r\n"].concat();
            let expected =
                format!("\"GET /{combined} HTTP/1.1\" 404 14 \"{combined}\" \"{combined}\"\n");
            let found = line(Format::Combined, &head);
            assert!(found.ends_with(&expected), "{found:?} and not {expected:?}");
            let expected = format!(
                "\"line\":\"GET /{json} HTTP/1.1\",\"host\":\"x\",\"referer\":\"{json}\",\
                 \"user_agent\":\"{json}\"}}\n"
            );
            let found = line(Format::Json, &head);
            assert!(found.ends_with(&expected), "{found:?} and not {expected:?}");
        }
    }

    #[test]
    fn a_byte_that_must_be_escaped_is_found_wherever_it_is() {
        for length in 1..=50 {
            let text = vec![b'a'; length];
            assert!(is_plain(&text));
            for at in 0..length {
                for bad in [b'"', b'\\', 0x1f, 0x7f, 0x80, 0xff, 0] {
                    let mut text = text.clone();
                    text[at] = bad;
                    assert!(!is_plain(&text), "{bad} at {at} of {length}");
                }
            }
        }
        assert!((0x20..0x7f).all(|byte| is_plain(&[byte]) != matches!(byte, b'"' | b'\\')));
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        for begin in ["", "a", "aa"] {
            let head = format!("GET /{begin}{} HTTP/1.1\r\n\r\n", "東".repeat(2_000));
            let line = line(Format::Combined, head.as_bytes());
            assert!(line.len() < TEXT_BYTES_MAX + 100);
            assert!(!line.contains("\\x"), "{line}");
        }
        let bytes = [b"GET /", &[0x80; 9_000][..]].concat();
        assert!(line(Format::Combined, &bytes).len() < 4 * TEXT_BYTES_MAX + 100);
    }

    /// A client's text: any bytes, or any characters.
    fn text() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..80),
            proptest::collection::vec(any::<char>(), 0..40)
                .prop_map(|text| String::from_iter(text).into_bytes()),
        ]
    }

    proptest! {
        #[test]
        fn no_client_can_forge_a_line(text in text()) {
            let head = [b"GET /", &text[..], b"\r\nUser-Agent: ", &text].concat();
            for format in [Format::Combined, Format::Json] {
                let line = line(format, &head);
                let line = line.strip_suffix('\n').unwrap();
                let forges = |it: char| it.is_control() || "\u{2028}\u{2029}".contains(it);
                prop_assert!(!line.contains(forges), "{line:?}");
                if format == Format::Json {
                    let parsed: serde_json::Value = serde_json::from_str(line).unwrap();
                    prop_assert_eq!(&parsed["status"], 404);
                } else {
                    // The quotes that are not escaped are those of the format.
                    let escaped = line.replace("\\\\", "").replace("\\\"", "");
                    prop_assert_eq!(escaped.matches('"').count(), 6);
                }
            }
        }

        #[test]
        fn the_calendar_agrees_with_the_dates_of_http(seconds in 0i64..253_402_300_800) {
            let mut date = Vec::new();
            prop_assert!(crate::http::date::append(seconds, &mut date));
            let date = String::from_utf8(date).unwrap();
            // Sun, 06 Nov 1994 08:49:37 GMT
            let words: Vec<&str> = date.split(' ').collect();
            let expected = format!("{}/{}/{}:{} +0000", words[1], words[2], words[3], words[4]);
            prop_assert_eq!(combined_time(seconds), expected);
        }
    }
}
