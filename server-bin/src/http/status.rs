//! The status codes this server answers with.

/// A status code of RFC 9110 (431: RFC 6585).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// 200.
    Ok,
    /// 204: done, and nothing to show for it; the reply to OPTIONS.
    NoContent,
    /// 206: one range of the file.
    PartialContent,
    /// 301: a directory asked for without its final slash, or a target with raw UTF-8.
    MovedPermanently,
    /// 302: a redirect of a rule.
    Found,
    /// 303: a redirect of a rule.
    SeeOther,
    /// 304.
    NotModified,
    /// 307: a redirect of a rule.
    TemporaryRedirect,
    /// 308: a redirect of a rule.
    PermanentRedirect,
    /// 400: not HTTP, or HTTP that could be read in two ways.
    BadRequest,
    /// 400: a line that ends with LF alone.
    BareLineFeed,
    /// 401: user and password are asked for.
    Unauthorized,
    /// 403: the file system says EACCES.
    Forbidden,
    /// 404.
    NotFound,
    /// 405: known, but neither GET nor HEAD.
    MethodNotAllowed,
    /// 408: begun and not finished in time.
    RequestTimeout,
    /// 409: the same is under way already.
    Conflict,
    /// 412.
    PreconditionFailed,
    /// 413: a body beyond [`BODY_BYTES_MAX`](super::BODY_BYTES_MAX).
    ContentTooLarge,
    /// 414: a target beyond [`TARGET_BYTES_MAX`](super::TARGET_BYTES_MAX).
    UriTooLong,
    /// 416.
    RangeNotSatisfiable,
    /// 417: an expectation other than `100-continue`.
    ExpectationFailed,
    /// 421: asked for under a name that is not this server's.
    Misdirected,
    /// 422: a configuration that is wrong.
    Unprocessable,
    /// 429: more requests than a rule allows (RFC 6585).
    TooManyRequests,
    /// 431: a head beyond [`HEAD_BYTES_MAX`](super::HEAD_BYTES_MAX) or
    /// [`FIELDS_MAX`](super::FIELDS_MAX).
    FieldsTooLarge,
    /// 500: the file system failed.
    InternalError,
    /// 501: an unknown method, or a transfer coding other than chunked.
    NotImplemented,
    /// 503: out of descriptors or memory; try again.
    Unavailable,
    /// 505: another major version than HTTP/1.
    VersionNotSupported,
}

impl Status {
    /// All of them, in order.
    pub const ALL: [Self; 30] = [
        Self::Ok,
        Self::NoContent,
        Self::PartialContent,
        Self::MovedPermanently,
        Self::Found,
        Self::SeeOther,
        Self::NotModified,
        Self::TemporaryRedirect,
        Self::PermanentRedirect,
        Self::BadRequest,
        Self::BareLineFeed,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::RequestTimeout,
        Self::Conflict,
        Self::PreconditionFailed,
        Self::ContentTooLarge,
        Self::UriTooLong,
        Self::RangeNotSatisfiable,
        Self::ExpectationFailed,
        Self::Misdirected,
        Self::Unprocessable,
        Self::TooManyRequests,
        Self::FieldsTooLarge,
        Self::InternalError,
        Self::NotImplemented,
        Self::Unavailable,
        Self::VersionNotSupported,
    ];

    /// The status of a redirect that a rule allows.
    #[must_use]
    pub const fn of_redirect(code: u16) -> Self {
        match code {
            301 => Self::MovedPermanently,
            303 => Self::SeeOther,
            307 => Self::TemporaryRedirect,
            308 => Self::PermanentRedirect,
            _ => Self::Found,
        }
    }

    /// The number.
    #[must_use]
    pub const fn code(self) -> u16 {
        let [hundreds, tens, ones, ..] = self.text().as_bytes() else {
            panic!("the text begins with the number")
        };
        let (hundreds, tens, ones) = (*hundreds - b'0', *tens - b'0', *ones - b'0');
        100 * hundreds as u16 + 10 * tens as u16 + ones as u16
    }

    /// The content of a reply that has no other: number and reason phrase, and an explanation if
    /// they say too little.
    #[must_use]
    pub const fn explained(self) -> &'static str {
        match self {
            Self::BareLineFeed => {
                "400 Bad Request: each line must end with CR LF. RFC 9112, 2.2 lets a server \
                 accept LF alone, but this one refuses it: programs that disagree about the end of \
                 a line disagree about the end of a request (request smuggling)."
            }
            _ => self.text(),
        }
    }

    /// Number and reason phrase: `404 Not Found`.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Ok => "200 OK",
            Self::NoContent => "204 No Content",
            Self::PartialContent => "206 Partial Content",
            Self::MovedPermanently => "301 Moved Permanently",
            Self::Found => "302 Found",
            Self::SeeOther => "303 See Other",
            Self::NotModified => "304 Not Modified",
            Self::TemporaryRedirect => "307 Temporary Redirect",
            Self::PermanentRedirect => "308 Permanent Redirect",
            Self::BadRequest | Self::BareLineFeed => "400 Bad Request",
            Self::Unauthorized => "401 Unauthorized",
            Self::Forbidden => "403 Forbidden",
            Self::NotFound => "404 Not Found",
            Self::MethodNotAllowed => "405 Method Not Allowed",
            Self::RequestTimeout => "408 Request Timeout",
            Self::Conflict => "409 Conflict",
            Self::PreconditionFailed => "412 Precondition Failed",
            Self::ContentTooLarge => "413 Content Too Large",
            Self::UriTooLong => "414 URI Too Long",
            Self::RangeNotSatisfiable => "416 Range Not Satisfiable",
            Self::ExpectationFailed => "417 Expectation Failed",
            Self::Misdirected => "421 Misdirected Request",
            Self::Unprocessable => "422 Unprocessable Content",
            Self::TooManyRequests => "429 Too Many Requests",
            Self::FieldsTooLarge => "431 Request Header Fields Too Large",
            Self::InternalError => "500 Internal Server Error",
            Self::NotImplemented => "501 Not Implemented",
            Self::Unavailable => "503 Service Unavailable",
            Self::VersionNotSupported => "505 HTTP Version Not Supported",
        }
    }

    /// The answer to an errno of opening a file beneath the served directory. Errors that would
    /// tell a stranger about the tree are all one "not found".
    #[must_use]
    pub const fn from_open_errno(errno: i32) -> Self {
        match errno {
            libc::EACCES | libc::EPERM => Self::Forbidden,
            libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::EAGAIN => Self::Unavailable,
            libc::EIO | libc::ESTALE | libc::ETIMEDOUT => Self::InternalError,
            _ => Self::NotFound,
        }
    }

    /// The answer while the served folder itself cannot be opened, by errno. A folder that is not
    /// there is expected back: a 404 could stay in a cache (RFC 9110, 15.1).
    #[must_use]
    pub const fn from_folder_errno(errno: i32) -> Self {
        match Self::from_open_errno(errno) {
            Self::NotFound => Self::Unavailable,
            status => status,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_begins_with_the_code() {
        for pair in Status::ALL.windows(2) {
            assert!(pair[0].code() <= pair[1].code(), "ALL is in order");
        }
        assert_eq!((Status::Ok.code(), Status::FieldsTooLarge.code()), (200, 431));
        for status in Status::ALL {
            assert_eq!(status.text().split_once(' ').unwrap().0, status.code().to_string());
            assert!(status.explained().starts_with(status.text()));
        }
    }

    #[test]
    fn errnos_of_open() {
        for (errno, status) in [
            (libc::ENOENT, Status::NotFound),
            (libc::ENOTDIR, Status::NotFound),
            (libc::ELOOP, Status::NotFound),
            (libc::EXDEV, Status::NotFound),
            (libc::ENXIO, Status::NotFound),
            (libc::ENAMETOOLONG, Status::NotFound),
            (libc::EACCES, Status::Forbidden),
            (libc::EMFILE, Status::Unavailable),
            (libc::ENFILE, Status::Unavailable),
            (libc::EIO, Status::InternalError),
        ] {
            assert_eq!(Status::from_open_errno(errno), status, "errno {errno}");
            let of_folder = if status == Status::NotFound { Status::Unavailable } else { status };
            assert_eq!(Status::from_folder_errno(errno), of_folder, "errno {errno}");
        }
    }
}
