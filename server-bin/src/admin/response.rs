//! Replies of the admin listener, before they are written as HTTP.

use crate::http::status::Status;
use std::borrow::Cow;

const TEXT: &str = "text/plain; charset=utf-8";

/// A reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status.
    pub status: Status,
    /// The media type of the body. `None` if there is no body (204).
    pub media_type: Option<&'static str>,
    /// Additional header lines, each with its CRLF.
    pub lines: Cow<'static, str>,
    /// The body.
    pub body: Cow<'static, [u8]>,
}

impl Response {
    /// 200 with a body of this type.
    pub fn of(media_type: &'static str, body: impl Into<Cow<'static, [u8]>>) -> Self {
        Self {
            status: Status::Ok,
            media_type: Some(media_type),
            lines: Cow::Borrowed(""),
            body: body.into(),
        }
    }

    /// 200 with a JSON body.
    pub fn json(body: String) -> Self {
        Self::of("application/json", body.into_bytes())
    }

    /// A reply with one line of text.
    pub fn text(status: Status, text: &str) -> Self {
        Self { status, ..Self::of(TEXT, format!("{text}\n").into_bytes()) }
    }

    /// 204.
    pub fn nothing() -> Self {
        Self { status: Status::NoContent, media_type: None, ..Self::of(TEXT, &b""[..]) }
    }

    /// 400 with an explanation.
    pub fn bad(why: &str) -> Self {
        Self::text(Status::BadRequest, why)
    }

    /// 405 with the allowed methods.
    pub fn not_allowed(allow: &str) -> Self {
        Self {
            lines: format!("Allow: {allow}\r\n").into(),
            ..Self::text(Status::MethodNotAllowed, &format!("this path allows the methods {allow}"))
        }
    }

    /// 503 with an explanation.
    pub fn unavailable(why: &str) -> Self {
        Self { lines: Cow::Borrowed("Retry-After: 1\r\n"), ..Self::text(Status::Unavailable, why) }
    }
}
