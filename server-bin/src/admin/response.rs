//! What is answered, before it is written as HTTP.

use crate::http::status::Status;
use std::borrow::Cow;

const TEXT: &str = "text/plain; charset=utf-8";

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status.
    pub status: Status,
    /// What the body is; `None`: there is none (204).
    pub media_type: Option<&'static str>,
    /// More header lines, each with its CRLF.
    pub lines: Cow<'static, str>,
    /// The body.
    pub body: Cow<'static, [u8]>,
}

impl Response {
    /// A body of that type.
    pub fn of(media_type: &'static str, body: impl Into<Cow<'static, [u8]>>) -> Self {
        Self {
            status: Status::Ok,
            media_type: Some(media_type),
            lines: Cow::Borrowed(""),
            body: body.into(),
        }
    }

    /// JSON.
    pub fn json(body: String) -> Self {
        Self::of("application/json", body.into_bytes())
    }

    /// A line for people.
    pub fn text(status: Status, text: &str) -> Self {
        Self { status, ..Self::of(TEXT, format!("{text}\n").into_bytes()) }
    }

    /// Done.
    pub fn nothing() -> Self {
        Self { status: Status::NoContent, media_type: None, ..Self::of(TEXT, &b""[..]) }
    }

    /// 400, and what is wrong.
    pub fn bad(what: &str) -> Self {
        Self::text(Status::BadRequest, what)
    }

    /// 405, and what is allowed.
    pub fn not_allowed(allow: &str) -> Self {
        Self {
            lines: format!("Allow: {allow}\r\n").into(),
            ..Self::text(Status::MethodNotAllowed, &format!("allowed here: {allow}"))
        }
    }

    /// 503: nobody knows now.
    pub fn unavailable(why: &str) -> Self {
        Self { lines: Cow::Borrowed("Retry-After: 1\r\n"), ..Self::text(Status::Unavailable, why) }
    }
}
