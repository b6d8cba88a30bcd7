//! A request's head: where it ends, and what it says.

use super::body::Framing;
use super::fields::{decimal, elements, is_host, is_token_byte, values};
use super::status::Status;
use super::{BODY_BYTES_MAX, FIELDS_MAX, HEAD_BYTES_MAX, REQUEST_LINE_BYTES_MAX, TARGET_BYTES_MAX};
use std::mem::MaybeUninit;

/// Bytes of a version, with the space before it.
const VERSION_BYTES: usize = " HTTP/1.1".len();
/// Bytes of the longest method that is known.
const METHOD_BYTES_MAX: usize = "OPTIONS".len();

/// What a request's head says, as far as this server cares. Names and values stay where they are,
/// in the head's own bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// What is asked for.
    pub method: Method,
    /// HTTP/1.1, or a later HTTP/1, rather than HTTP/1.0.
    pub is_http_1_1: bool,
    /// Where the target lies in the head.
    target: (u16, u16),
    /// Where the value of Host lies in the head; empty without one.
    host: (u16, u16),
    /// The connection outlives the reply, as far as the client is concerned.
    pub keep_alive: bool,
    /// `Expect: 100-continue`.
    pub expects_continue: bool,
    /// An expectation nobody here can meet.
    pub expects_more: bool,
    /// What follows the head.
    pub framing: Framing,
    /// A precondition is there: If-Match, If-None-Match, If-Modified-Since, If-Unmodified-Since.
    pub is_conditional: bool,
    /// A Range is there.
    pub has_range: bool,
    accept_encoding: Place,
    referer: Place,
    user_agent: Place,
}

/// Where the value of a field lies in a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Nowhere,
    Once(u16, u16),
    /// The field is there more than once.
    Several,
}

impl Place {
    /// Notes a value of the field, which is a part of the head.
    fn note(&mut self, head: &[u8], value: &[u8]) {
        let start = (value.as_ptr().addr() - head.as_ptr().addr()) as u16;
        *self = match self {
            Self::Nowhere => Self::Once(start, start + value.len() as u16),
            _ => Self::Several,
        };
    }

    fn value(self, head: &[u8]) -> Option<&[u8]> {
        let Self::Once(start, end) = self else { return None };
        Some(&head[usize::from(start)..usize::from(end)])
    }
}

/// A request method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// GET.
    Get,
    /// HEAD.
    Head,
    /// OPTIONS. Its target may be `*`.
    Options,
    /// PUT.
    Put,
    /// DELETE.
    Delete,
    /// POST.
    Post,
    /// Known, and of no use here: CONNECT, TRACE, PATCH.
    Refused,
    /// Anything else.
    Unknown,
}

impl Request {
    /// The target, in the head this request was parsed from.
    #[must_use]
    pub fn target<'a>(&self, head: &'a [u8]) -> &'a [u8] {
        &head[usize::from(self.target.0)..usize::from(self.target.1)]
    }

    /// The value of Host, in the head this request was parsed from; empty without one.
    #[must_use]
    pub fn host<'a>(&self, head: &'a [u8]) -> &'a [u8] {
        &head[usize::from(self.host.0)..usize::from(self.host.1)]
    }

    /// The request line without its end.
    #[must_use]
    pub fn line<'a>(&self, head: &'a [u8]) -> &'a [u8] {
        &head[..usize::from(self.target.1) + VERSION_BYTES]
    }

    /// The value of Host; `None` without one.
    #[must_use]
    pub fn host_field<'a>(&self, head: &'a [u8]) -> Option<&'a [u8]> {
        (self.host.0 > 0).then(|| self.host(head))
    }

    /// The values of all Accept-Encoding fields.
    pub fn accept_encoding<'a>(&self, head: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        let is_listed = self.accept_encoding == Place::Several;
        let listed = is_listed.then(|| values(head, "accept-encoding"));
        self.accept_encoding.value(head).into_iter().chain(listed.into_iter().flatten())
    }

    /// The value of Referer; `None` without one and if there are several.
    #[must_use]
    pub fn referer<'a>(&self, head: &'a [u8]) -> Option<&'a [u8]> {
        self.referer.value(head)
    }

    /// The value of User-Agent; `None` without one and if there are several.
    #[must_use]
    pub fn user_agent<'a>(&self, head: &'a [u8]) -> Option<&'a [u8]> {
        self.user_agent.value(head)
    }
}

/// How far the search for the end of a head has come. Bytes are looked at once, however they
/// trickle in.
#[derive(Clone, Copy, Debug, Default)]
pub struct Search {
    line_start: u16,
    searched: u16,
}

impl Search {
    /// Looks on in `bytes`, which begin with the request line and are those of the last call and
    /// more. The length of the head, empty line included; `None`: not all there.
    ///
    /// # Errors
    /// 400 for a line that does not end in CRLF (RFC 9112, 2.2 would tolerate a bare LF; a
    /// request that two parsers may split differently is worth no tolerance), 414, 431, and 501 for
    /// a method that is too long.
    pub fn end(&mut self, bytes: &[u8]) -> Result<Option<usize>, Status> {
        match bytes.first() {
            Some(b'\n') => return Err(Status::BareLineFeed),
            Some(&first) if !is_token_byte(first) => return Err(Status::BadRequest),
            _ => {}
        }
        loop {
            // The window does not depend on how much has come, nor may the answer.
            let window = if self.line_start == 0 { REQUEST_LINE_BYTES_MAX } else { HEAD_BYTES_MAX };
            let seen = &bytes[..bytes.len().min(window)];
            let searched = usize::from(self.searched);
            let Some(at) = memchr::memchr(b'\n', &seen[searched..]) else {
                self.searched = seen.len() as u16;
                return match () {
                    () if seen.len() < window => Ok(None),
                    () if self.line_start == 0 => Err(line_too_long(seen)),
                    () => Err(Status::FieldsTooLarge),
                };
            };
            let line_feed = searched + at;
            if bytes[line_feed - 1] != b'\r' {
                return Err(Status::BareLineFeed);
            }
            if line_feed - 1 == usize::from(self.line_start) {
                return Ok(Some(line_feed + 1));
            }
            self.line_start = line_feed as u16 + 1;
            self.searched = self.line_start;
        }
    }
}

/// Returns the head of a request that may be incomplete or wrong: `bytes` up to an empty line.
#[must_use]
pub fn as_far_as_read(bytes: &[u8]) -> &[u8] {
    let seen = &bytes[..bytes.len().min(HEAD_BYTES_MAX)];
    let lines = seen.split_inclusive(|&byte| byte == b'\n');
    let length = lines.take_while(|line| !matches!(*line, b"\n" | b"\r\n")).map(<[u8]>::len).sum();
    &seen[..length]
}

/// The answer to a request line that is too long, by its method (RFC 9112, 3).
fn line_too_long(line: &[u8]) -> Status {
    match line.iter().position(|&byte| !is_token_byte(byte)) {
        Some(end) if line[end] != b' ' => Status::BadRequest,
        Some(end) if end <= METHOD_BYTES_MAX => Status::UriTooLong,
        _ => Status::NotImplemented,
    }
}

/// Reads a whole head, as [`Search::end`] has found it.
///
/// # Errors
/// 400, 413, 414, 431, 501, 505: the connection must be closed after the reply, because where
/// the next request begins is not known for certain.
pub fn parse(head: &[u8]) -> Result<Request, Status> {
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut parsed = httparse::Request::new(&mut []);
    match parsed.parse_with_uninit_headers(head, &mut fields) {
        Ok(httparse::Status::Complete(length)) if length == head.len() => {}
        Ok(_) => return Err(Status::BadRequest),
        Err(httparse::Error::TooManyHeaders) => return Err(Status::FieldsTooLarge),
        Err(httparse::Error::Version) => return parse_newer(head),
        Err(_) => return Err(Status::BadRequest),
    }
    let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version)
    else {
        return Err(Status::BadRequest);
    };
    let start = target.as_ptr().addr() - head.as_ptr().addr();
    if target.len() > TARGET_BYTES_MAX {
        return Err(Status::UriTooLong);
    }
    let mut request = Request {
        method: method_named(method.as_bytes()),
        is_http_1_1: version == 1,
        target: (start as u16, (start + target.len()) as u16),
        host: (0, 0),
        keep_alive: version == 1,
        expects_continue: false,
        expects_more: false,
        framing: Framing::None,
        is_conditional: false,
        has_range: false,
        accept_encoding: Place::Nowhere,
        referer: Place::Nowhere,
        user_agent: Place::Nowhere,
    };
    let mut seen = Seen::default();
    for field in parsed.headers.iter() {
        seen.field(&mut request, head, field.name.as_bytes(), field.value)?;
    }
    seen.finish(&mut request)?;
    Ok(request)
}

fn method_named(name: &[u8]) -> Method {
    match name {
        b"GET" => Method::Get,
        b"HEAD" => Method::Head,
        b"OPTIONS" => Method::Options,
        b"PUT" => Method::Put,
        b"DELETE" => Method::Delete,
        b"POST" => Method::Post,
        b"CONNECT" | b"TRACE" | b"PATCH" => Method::Refused,
        _ => Method::Unknown,
    }
}

/// Reads a head whose version is neither HTTP/1.0 nor HTTP/1.1. A higher minor version is read as
/// HTTP/1.1 (RFC 9110, 2.5). 505 for another version, 400 for anything else.
fn parse_newer(head: &[u8]) -> Result<Request, Status> {
    let line = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|&byte| byte == b' ');
    match [words.next(), words.next(), words.next(), words.next()] {
        [Some(_), Some(_), Some([b'H', b'T', b'T', b'P', b'/', major, b'.', minor]), None]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            if *major != b'1' {
                return Err(Status::VersionNotSupported);
            }
            let mut known = head.to_vec();
            known[line.len() - 1] = b'1';
            parse(&known)
        }
        _ => Err(Status::BadRequest),
    }
}

/// What must be known of all fields together.
#[derive(Default)]
struct Seen {
    hosts: u32,
    lengths: u32,
    /// Transfer-Encoding fields.
    codings: u32,
    /// There is one of them, and it says `chunked` and nothing else.
    is_chunked: bool,
    /// A coding other than chunked is listed.
    has_other_coding: bool,
    /// The number of times that chunked is listed.
    chunked: u32,
    /// The last coding listed so far is chunked.
    ends_chunked: bool,
    length: u64,
    close: bool,
    keep_alive: bool,
}

impl Seen {
    fn field(
        &mut self,
        request: &mut Request,
        head: &[u8],
        name: &[u8],
        value: &[u8],
    ) -> Result<(), Status> {
        match name.len() {
            4 if is(name, b"host") => {
                self.hosts += 1;
                if !is_host(value) {
                    return Err(Status::BadRequest);
                }
                let start = value.as_ptr().addr() - head.as_ptr().addr();
                request.host = (start as u16, (start + value.len()) as u16);
            }
            5 if is(name, b"range") => request.has_range = true,
            6 if is(name, b"expect") => {
                if value.eq_ignore_ascii_case(b"100-continue") {
                    request.expects_continue = true;
                } else {
                    request.expects_more = true;
                }
            }
            7 if is(name, b"referer") => request.referer.note(head, value),
            8 if is(name, b"if-match") => request.is_conditional = true,
            10 if is(name, b"connection") => {
                for option in elements(value) {
                    self.close |= option.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            10 if is(name, b"user-agent") => request.user_agent.note(head, value),
            13 if is(name, b"if-none-match") => request.is_conditional = true,
            14 if is(name, b"content-length") => {
                // Even the same value twice: RFC 9112, 6.3 allows to refuse it.
                self.lengths += 1;
                self.length = decimal(value).ok_or(Status::BadRequest)?;
            }
            15 if is(name, b"accept-encoding") => request.accept_encoding.note(head, value),
            17 if is(name, b"if-modified-since") => request.is_conditional = true,
            17 if is(name, b"transfer-encoding") => {
                self.codings += 1;
                self.is_chunked = self.codings == 1 && value.eq_ignore_ascii_case(b"chunked");
                for coding in elements(value) {
                    // Chunked has no parameters (RFC 9112, 7.1).
                    self.ends_chunked = coding.eq_ignore_ascii_case(b"chunked");
                    self.chunked += u32::from(self.ends_chunked);
                    self.has_other_coding |= !self.ends_chunked;
                }
            }
            19 if is(name, b"if-unmodified-since") => request.is_conditional = true,
            _ => {}
        }
        Ok(())
    }

    /// RFC 9112, 3.2 (Host), 6.1 and 6.3 (framing), 9.3 (persistence).
    fn finish(self, request: &mut Request) -> Result<(), Status> {
        let hosts_right = if request.is_http_1_1 { self.hosts == 1 } else { self.hosts <= 1 };
        let lengths_right = self.lengths <= u32::from(self.codings == 0);
        if !hosts_right || !lengths_right {
            return Err(Status::BadRequest);
        }
        if self.codings > 0 {
            // The end of the body is unknown unless chunked is the last coding, and applied once.
            if !request.is_http_1_1 || !self.ends_chunked || self.chunked > 1 {
                return Err(Status::BadRequest);
            }
            if self.has_other_coding {
                return Err(Status::NotImplemented);
            }
            if !self.is_chunked {
                return Err(Status::BadRequest);
            }
        }
        if self.length > BODY_BYTES_MAX {
            return Err(Status::ContentTooLarge);
        }
        request.framing = match self.length {
            _ if self.codings == 1 => Framing::Chunked,
            0 => Framing::None,
            bytes => Framing::Length(bytes),
        };
        request.keep_alive = !self.close && (request.is_http_1_1 || self.keep_alive);
        // RFC 9110, 10.1.1: an HTTP/1.0 client cannot mean it.
        request.expects_continue &= request.is_http_1_1;
        request.expects_more &= request.is_http_1_1;
        Ok(())
    }
}

/// Returns whether the name of a field, which is a token, is this one in any case. The bit that is
/// set makes no other byte of a token a letter or a hyphen.
fn is<const N: usize>(name: &[u8], lower: &[u8; N]) -> bool {
    let name: Option<&[u8; N]> = name.try_into().ok();
    name.is_some_and(|name| {
        let pairs = name.iter().zip(lower);
        pairs.fold(0, |all, (byte, lower)| all | ((byte | 0x20) ^ lower)) == 0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(fields: &str) -> Result<Request, Status> {
        parse(format!("GET / HTTP/1.1\r\nHost: x\r\n{fields}\r\n").as_bytes())
    }

    #[test]
    fn plain_request() {
        let head = b"GET /a?b HTTP/1.1\r\nHost: localhost:8080\r\nAccept: */*\r\n\r\n";
        let request = parse(head).unwrap();
        assert_eq!(request.target(head), b"/a?b");
        assert_eq!(request.method, Method::Get);
        assert!(request.keep_alive && request.is_http_1_1);
        assert_eq!(request.framing, Framing::None);
        assert!(!request.is_conditional && !request.has_range && !request.expects_continue);
    }

    #[test]
    fn fields_that_are_read_later_are_those_of_the_head() {
        let named = |of: fn(&str) -> String| ["accept-encoding", "referer", "user-agent"].map(of);
        for names in [
            named(str::to_owned),
            named(str::to_uppercase),
            ["Accept-Encoding", "Referer", "User-Agent"].map(String::from),
            ["accept_encoding", "refererx", "user_agent"].map(String::from),
        ] {
            for text in [
                "0: a\r\n1: b\r\n2: c\r\n",
                "2:\r\n0: \t \r\n1: a, b \t\r\n",
                "1: b\r\n0: a\r\n1: c\r\n0: d\r\n0: e\r\nHost: x\r\n",
                "Host: x:80\r\n2: b\r\n2: b\r\n",
            ] {
                let text = (0..3).fold(text.to_owned(), |text, at| {
                    text.replace(&format!("{at}:"), &format!("{}:", names[at]))
                });
                let head = format!("GET /a?b HTTP/1.0\r\n{text}\r\n").into_bytes();
                let Ok(request) = parse(&head) else { continue };
                let single = |name| super::super::fields::single(&head, name);
                assert_eq!(request.line(&head), b"GET /a?b HTTP/1.0");
                assert_eq!(request.host_field(&head), single("host"), "{text}");
                assert_eq!(request.referer(&head), single("referer"), "{text}");
                assert_eq!(request.user_agent(&head), single("user-agent"), "{text}");
                let all: Vec<_> = request.accept_encoding(&head).collect();
                assert_eq!(all, values(&head, "accept-encoding").collect::<Vec<_>>(), "{text}");
            }
        }
        let head = b"GET / HTTP/1.0\r\nHost:\r\nReferer:\r\n\r\n";
        let request = parse(head).unwrap();
        assert_eq!(
            (request.host_field(head), request.referer(head)),
            (Some(&[][..]), Some(&[][..]))
        );
    }

    #[test]
    fn refused_heads() {
        use Status::{BadRequest, VersionNotSupported};
        for (head, status) in [
            ("GET / HTTP/1.1\r\n\r\n", BadRequest),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", BadRequest),
            ("GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", BadRequest),
            ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", BadRequest),
            ("GET / HTTP/1.1\r\nHost: a:b:c\r\n\r\n", BadRequest),
            ("GET / HTTP/1.0\r\nHost: [::1\r\n\r\n", BadRequest),
            ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", BadRequest),
            ("GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n", BadRequest),
            ("GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", BadRequest),
            ("GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", BadRequest),
            ("GET / HTTP/1.1\r\nHost: a\r\nNo colon\r\n\r\n", BadRequest),
            ("GET / HTTP/1.1\r\nHost: a\r\n: empty\r\n\r\n", BadRequest),
            ("GET /\r\n\r\n", BadRequest),
            ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", BadRequest),
            ("GET /  HTTP/1.1\r\nHost: a\r\n\r\n", BadRequest),
            ("GET / HTTP/1.1 \r\nHost: a\r\n\r\n", BadRequest),
            ("GET / http/1.1\r\nHost: a\r\n\r\n", BadRequest),
            ("GET / HTTP/11\r\nHost: a\r\n\r\n", BadRequest),
            ("G@T / HTTP/1.1\r\nHost: a\r\n\r\n", BadRequest),
            ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", VersionNotSupported),
            ("GET / HTTP/1.2\r\n\r\n", BadRequest),
            ("GET / HTTP/1.10\r\nHost: a\r\n\r\n", BadRequest),
            ("GET / HTTP/1.x\r\nHost: a\r\n\r\n", BadRequest),
            ("GET / HTTP/3.1\r\nHost: a\r\n\r\n", VersionNotSupported),
            ("GET / HTTP/0.9\r\n\r\n", VersionNotSupported),
            ("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", BadRequest),
            ("GET / HTTP/1.0\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", BadRequest),
        ] {
            assert_eq!(parse(head.as_bytes()).unwrap_err(), status, "{head:?}");
        }
    }

    #[test]
    fn later_minor_versions_are_read_as_http_1_1() {
        for minor in 2..=9 {
            let head = |minor| {
                format!("HEAD /a?b HTTP/1.{minor}\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
            };
            assert_eq!(parse(head(minor).as_bytes()), parse(head(1).as_bytes()), "{minor}");
            assert!(parse(head(minor).as_bytes()).unwrap().is_http_1_1);
        }
    }

    #[test]
    fn framing() {
        use Status::{BadRequest, ContentTooLarge, NotImplemented};
        for (text, expected) in [
            ("", Ok(Framing::None)),
            ("Content-Length: 0\r\n", Ok(Framing::None)),
            ("Content-Length: 5\r\n", Ok(Framing::Length(5))),
            ("content-length:  5  \r\n", Ok(Framing::Length(5))),
            ("Transfer-Encoding: chunked\r\n", Ok(Framing::Chunked)),
            ("transfer-encoding: Chunked\r\n", Ok(Framing::Chunked)),
            ("Content-Length: 5\r\nContent-Length: 5\r\n", Err(BadRequest)),
            ("Content-Length: 5\r\nContent-Length: 6\r\n", Err(BadRequest)),
            ("Content-Length: 5, 5\r\n", Err(BadRequest)),
            ("Content-Length: +5\r\n", Err(BadRequest)),
            ("Content-Length: -5\r\n", Err(BadRequest)),
            ("Content-Length: 0x5\r\n", Err(BadRequest)),
            ("Content-Length: 5 5\r\n", Err(BadRequest)),
            ("Content-Length:\r\n", Err(BadRequest)),
            ("Content-Length: 1048577\r\n", Err(ContentTooLarge)),
            ("Content-Length: 99999999999999999999999999\r\n", Err(ContentTooLarge)),
            ("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", Err(BadRequest)),
            ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", Err(BadRequest)),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", Err(BadRequest)),
            ("Transfer-Encoding: chunked, chunked\r\n", Err(BadRequest)),
            ("Transfer-Encoding:\r\n", Err(BadRequest)),
            ("Transfer-Encoding: gzip, chunked\r\n", Err(NotImplemented)),
            ("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", Err(NotImplemented)),
            ("Transfer-Encoding: a;b=c , Chunked\r\n", Err(NotImplemented)),
            ("Transfer-Encoding: gzip\r\n", Err(BadRequest)),
            ("Transfer-Encoding: gzip, deflate\r\n", Err(BadRequest)),
            ("Transfer-Encoding: chunked, gzip\r\n", Err(BadRequest)),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n", Err(BadRequest)),
            ("Transfer-Encoding: chunked, gzip, chunked\r\n", Err(BadRequest)),
            ("Transfer-Encoding: gzip, chunked\r\nContent-Length: 5\r\n", Err(BadRequest)),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding:\r\n", Err(BadRequest)),
            ("Transfer-Encoding: chunked,\r\n", Err(BadRequest)),
            ("Transfer-Encoding: chunked;a=b\r\n", Err(BadRequest)),
            ("Transfer-Encoding: \"chunked\"\r\n", Err(BadRequest)),
            ("Transfer-Encoding: xchunked\r\n", Err(BadRequest)),
            ("Transfer-Encoding: identity\r\n", Err(BadRequest)),
            ("Transfer-Encoding: \x0bchunked\r\n", Err(BadRequest)),
            ("Transfer_Encoding: chunked\r\n", Ok(Framing::None)),
        ] {
            assert_eq!(fields(text).map(|request| request.framing), expected, "{text:?}");
        }
    }

    #[test]
    fn heads_end_where_they_were_read_to() {
        for (bytes, head) in [
            ("", ""),
            ("GE", "GE"),
            ("GET / HTTP/1.1\r\nA: b", "GET / HTTP/1.1\r\nA: b"),
            ("GET /\r\nA: b\r\n\r\nC: d\r\n", "GET /\r\nA: b\r\n"),
            ("GET /\nA: b\n\nC: d\n", "GET /\nA: b\n"),
            ("\nGET /", ""),
        ] {
            assert_eq!(as_far_as_read(bytes.as_bytes()), head.as_bytes(), "{bytes:?}");
        }
        assert_eq!(as_far_as_read(&[b'a'; HEAD_BYTES_MAX + 1]).len(), HEAD_BYTES_MAX);
    }

    #[test]
    fn persistence() {
        for (line, connection, kept) in [
            ("HTTP/1.1", "", true),
            ("HTTP/1.1", "Connection: close\r\n", false),
            ("HTTP/1.1", "Connection: keep-alive, Close\r\n", false),
            ("HTTP/1.1", "Connection: closed\r\n", true),
            ("HTTP/1.0", "", false),
            ("HTTP/1.0", "Connection: Keep-Alive\r\n", true),
            ("HTTP/1.0", "Connection: keep-alive\r\nConnection: close\r\n", false),
        ] {
            let head = format!("GET / {line}\r\nHost: x\r\n{connection}\r\n");
            assert_eq!(parse(head.as_bytes()).unwrap().keep_alive, kept, "{head:?}");
        }
    }

    #[test]
    fn methods_and_expectations() {
        for (name, method) in [
            ("GET", Method::Get),
            ("HEAD", Method::Head),
            ("OPTIONS", Method::Options),
            ("PUT", Method::Put),
            ("DELETE", Method::Delete),
            ("POST", Method::Post),
            ("PATCH", Method::Refused),
            ("get", Method::Unknown),
            ("BREW", Method::Unknown),
        ] {
            let head = format!("{name} / HTTP/1.1\r\nHost: x\r\n\r\n");
            assert_eq!(parse(head.as_bytes()).unwrap().method, method);
        }
        assert!(fields("Expect: 100-Continue\r\n").unwrap().expects_continue);
        assert!(fields("Expect: a miracle\r\n").unwrap().expects_more);
    }

    #[test]
    fn limits() {
        let long = |bytes| format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(bytes - 1));
        assert!(parse(long(TARGET_BYTES_MAX).as_bytes()).is_ok());
        assert_eq!(parse(long(TARGET_BYTES_MAX + 1).as_bytes()), Err(Status::UriTooLong));
        assert!(fields(&"a: b\r\n".repeat(FIELDS_MAX - 1)).is_ok());
        assert_eq!(fields(&"a: b\r\n".repeat(FIELDS_MAX)), Err(Status::FieldsTooLarge));
    }

    #[test]
    fn ends_are_found_and_bare_line_feeds_refused() {
        let end = |bytes: &[u8]| Search::default().end(bytes);
        assert_eq!(end(b"GET / HTTP/1.1\r\nA: b\r\n\r\nrest"), Ok(Some(24)));
        assert_eq!(end(b"GET / HTTP/1.1\r\nA: b\r\n\r"), Ok(None));
        for bad in [
            &b"GET / HTTP/1.1\n"[..],
            b"GET / HTTP/1.1\r\nA: b\n",
            b"GET / HTTP/1.1\r\nA: b\r\n\n",
            b"GET / HTTP/1.1\r\n\nA: b",
            b"\n",
        ] {
            assert_eq!(end(bad), Err(Status::BareLineFeed), "{bad:?}");
        }
        assert_eq!(end(b"\x16\x03\x01"), Err(Status::BadRequest));
        for (start, status) in [
            ("", Status::NotImplemented),
            ("OPTIONSX ", Status::NotImplemented),
            ("OPTIONS ", Status::UriTooLong),
            ("GET /", Status::UriTooLong),
            ("GET/", Status::BadRequest),
        ] {
            let line = format!("{start}{}", "a".repeat(HEAD_BYTES_MAX));
            assert_eq!(end(line.as_bytes()), Err(status), "{start:?}");
        }
        let mut fields = b"GET / HTTP/1.1\r\n".to_vec();
        fields.resize(HEAD_BYTES_MAX - 1, b'a');
        assert_eq!(end(&fields), Ok(None));
        fields.push(b'a');
        assert_eq!(end(&fields), Err(Status::FieldsTooLarge));
    }
}
