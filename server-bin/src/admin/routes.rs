//! What is asked for, from a request's head alone.

use super::asking::Question;
use super::guard;
use super::response::Response;
use crate::http::head::{Method, Request};
use crate::http::status::Status;
use crate::http::{fields, target};
use ringwright::{ConnectionId, NoPrefix, Prefix};

/// Connections of a page at most.
pub const PAGE_MAX: usize = 1000;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// `/`
    Page,
    /// `/metrics`
    Metrics,
    /// `/livez`
    Live,
    /// `/readyz`
    Ready,
    /// `/ledger`
    Ledger,
    /// What only the shards know.
    Ask(Question),
}

/// What a request asks for.
///
/// # Errors
/// The answer to one that cannot be met.
pub fn route(request: &Request, head: &[u8]) -> Result<Route, Response> {
    if request.expects_more {
        return Err(Response::text(Status::ExpectationFailed, "only 100-continue can be expected"));
    }
    if request.method == Method::Unknown {
        return Err(Response::text(Status::NotImplemented, "no such method is known"));
    }
    let target = Target::split(request.target(head))?;
    let route = find(request.method, target.path, target.query)?;
    // Sums tell a stranger nothing about anybody, and are fetched under all kinds of names.
    let is_public = matches!(route, Route::Metrics | Route::Live | Route::Ready | Route::Ledger);
    if !is_public && !guard::is_addressed_directly(head, target.authority) {
        return Err(Response::text(
            Status::Misdirected,
            "use an IP address or localhost: other names could be made to stand for this server \
             by a web page (DNS rebinding)",
        ));
    }
    let changes = !matches!(request.method, Method::Get | Method::Head);
    if changes && !guard::is_of_this_site(head) {
        return Err(Response::text(
            Status::Forbidden,
            "a web page of another site may not do this (Origin, Sec-Fetch-Site)",
        ));
    }
    Ok(route)
}

/// A target in origin form or absolute form (RFC 9112, 3.2).
struct Target<'a> {
    authority: Option<&'a [u8]>,
    path: &'a [u8],
    query: &'a [u8],
}

impl<'a> Target<'a> {
    fn split(target: &'a [u8]) -> Result<Self, Response> {
        let (authority, rest) = match target {
            [b'/', ..] => (None, target),
            _ => {
                let bad = || Response::bad("the target is neither a path nor an http:// URL");
                let (scheme, rest) = target.split_at_checked(7).ok_or_else(bad)?;
                let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?'));
                let (authority, rest) = rest.split_at(end.unwrap_or(rest.len()));
                if !scheme.eq_ignore_ascii_case(b"http://") || !fields::is_host(authority) {
                    return Err(bad());
                }
                (Some(authority), rest)
            }
        };
        let end = memchr::memchr(b'?', rest).unwrap_or(rest.len());
        let (path, query) = rest.split_at(end);
        let path = if path.is_empty() { b"/" } else { path };
        Ok(Self { authority, path, query: query.get(1..).unwrap_or_default() })
    }
}

fn find(method: Method, path: &[u8], query: &[u8]) -> Result<Route, Response> {
    let reads = matches!(method, Method::Get | Method::Head);
    let fixed = match path {
        b"/" => Some(Route::Page),
        b"/metrics" => Some(Route::Metrics),
        b"/livez" => Some(Route::Live),
        b"/readyz" => Some(Route::Ready),
        b"/ledger" => Some(Route::Ledger),
        b"/connections" if reads => Some(Route::Ask(page_of(query)?)),
        b"/bans" if reads => Some(Route::Ask(Question::Bans)),
        b"/connections" | b"/bans" => return Err(Response::not_allowed("GET, HEAD")),
        _ => None,
    };
    if let Some(route) = fixed {
        return if reads { Ok(route) } else { Err(Response::not_allowed("GET, HEAD")) };
    }
    if let Some(id) = path.strip_prefix(b"/connections/") {
        let question: fn(ConnectionId) -> Question = match method {
            Method::Get | Method::Head => Question::Find,
            Method::Delete => Question::Kick,
            _ => return Err(Response::not_allowed("GET, HEAD, DELETE")),
        };
        let id = connection_id(id)
            .ok_or_else(|| Response::bad("the id of a connection is a number up to 2^64"))?;
        return Ok(Route::Ask(question(id)));
    }
    if let Some(prefix) = path.strip_prefix(b"/bans/") {
        let question: fn(Prefix) -> Question = match method {
            Method::Get | Method::Head => Question::FindBan,
            Method::Put => Question::Ban,
            Method::Delete => Question::Unban,
            _ => return Err(Response::not_allowed("GET, HEAD, PUT, DELETE")),
        };
        return Ok(Route::Ask(question(prefix_of(prefix)?)));
    }
    Err(Response::text(
        Status::NotFound,
        "here are / /metrics /livez /readyz /ledger /connections /connections/ID /bans \
         /bans/PREFIX",
    ))
}

/// `limit=100&after=ID`, both of them optional.
fn page_of(query: &[u8]) -> Result<Question, Response> {
    let (mut after, mut limit) = (None, PAGE_MAX);
    for parameter in query.split(|&byte| byte == b'&').filter(|parameter| !parameter.is_empty()) {
        let equals = memchr::memchr(b'=', parameter).unwrap_or(parameter.len());
        let (name, value) = (&parameter[..equals], parameter.get(equals + 1..).unwrap_or_default());
        match name {
            b"limit" => {
                limit = fields::decimal(value)
                    .and_then(|limit| usize::try_from(limit).ok())
                    .filter(|limit| (1..=PAGE_MAX).contains(limit))
                    .ok_or_else(|| Response::bad("limit: 1 to 1000"))?;
            }
            b"after" => {
                let id = connection_id(value);
                after = Some(id.ok_or_else(|| Response::bad("after: the id of a connection"))?);
            }
            _ => return Err(Response::bad("parameters are limit and after")),
        }
    }
    Ok(Question::List { after, limit })
}

fn connection_id(text: &[u8]) -> Option<ConnectionId> {
    let number = str::from_utf8(text).ok()?.parse().ok()?;
    // What `parse` allows and nobody prints.
    text.first().is_some_and(u8::is_ascii_digit).then(|| ConnectionId::from_number(number))
}

/// What follows `/bans/`, the slash of a prefix encoded or not.
fn prefix_of(text: &[u8]) -> Result<Prefix, Response> {
    let mut decoded = Vec::with_capacity(text.len());
    target::percent_decode(text, &mut decoded)
        .map_err(|status| Response::text(status, "a percent sign without two digits"))?;
    let decoded = String::from_utf8_lossy(&decoded);
    decoded.parse().map_err(|error: NoPrefix| Response::bad(&error.to_string()))
}
