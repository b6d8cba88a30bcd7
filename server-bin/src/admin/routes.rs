//! The routes of the admin listener, and which requests it refuses.

use super::asking::{Manner, Question};
use super::guard;
use super::response::Response;
use crate::http::head::{Method, Request};
use crate::http::status::Status;
use crate::http::{fields, target};
use crate::options::WORKERS_MAX;
use ringwright::{ConnectionId, ParsePrefixError, Prefix};

/// Maximum number of connections on a page.
pub const PAGE_MAX: usize = 1000;

/// A resource of the admin listener.
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
    /// A question that only the shards can answer.
    Ask(Question),
}

/// The clients that are let in, and to what.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Host names that are answered beside addresses and localhost.
    pub names: Vec<String>,
    /// The token that is asked for what changes something.
    pub token: Option<Vec<u8>>,
}

/// Finds the route of a request from its head. A listener that is `read_only` serves probes and
/// scrapes.
///
/// # Errors
/// The reply to a request that is refused.
pub fn route(
    request: &Request,
    head: &[u8],
    access: &Access,
    read_only: bool,
) -> Result<Route, Response> {
    if request.expects_more {
        return Err(Response::text(
            Status::ExpectationFailed,
            "the only expectation supported is 100-continue",
        ));
    }
    if request.method == Method::Unknown {
        return Err(Response::text(
            Status::NotImplemented,
            "unknown method; this server supports GET, HEAD, PUT, POST and DELETE",
        ));
    }
    let target = Target::split(request.target(head))?;
    let route = find(request.method, target.path, target.query)?;
    // These contain only totals, nothing about a client. Monitoring fetches them by any host name.
    let is_probe = matches!(route, Route::Metrics | Route::Live | Route::Ready);
    let changes = !matches!(request.method, Method::Get | Method::Head);
    if read_only && (changes || !is_probe) {
        return Err(Response::text(
            Status::Forbidden,
            "this listener answers only GET of /metrics, /livez and /readyz",
        ));
    }
    let is_public = matches!(route, Route::Metrics | Route::Live | Route::Ready | Route::Ledger);
    if !is_public && !guard::is_addressed_directly(head, target.authority, &access.names) {
        return Err(Response::text(
            Status::Misdirected,
            "use an IP address or localhost as the host name: a web page could make another name \
             point to this server (DNS rebinding)",
        ));
    }
    if changes && !guard::is_of_this_site(head) {
        return Err(Response::text(
            Status::Forbidden,
            "requests from a web page of another site are refused (see the Origin and \
             Sec-Fetch-Site header fields)",
        ));
    }
    let token = access.token.as_ref().filter(|_| changes);
    if token.is_some_and(|token| !guard::has_token(head, token)) {
        return Err(Response {
            lines: "WWW-Authenticate: Bearer\r\n".into(),
            ..Response::text(
                Status::Unauthorized,
                "this needs the header Authorization: Bearer TOKEN",
            )
        });
    }
    Ok(route)
}

/// A request target in origin form or absolute form (RFC 9112, 3.2).
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
                let bad = || Response::bad("the request target must be a path or an http:// URL");
                let (scheme, rest) = target.split_at_checked(7).ok_or_else(bad)?;
                let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?'));
                let (authority, rest) = rest.split_at(end.unwrap_or(rest.len()));
                let is_http = scheme.eq_ignore_ascii_case(b"http://");
                if !is_http || !fields::is_authority(authority) {
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
        b"/connections" if method == Method::Delete => {
            return Ok(Route::Ask(Question::EndAll(manner_of(query)?)));
        }
        b"/connections" => return Err(Response::not_allowed("GET, HEAD, DELETE")),
        b"/addresses" if reads => {
            let limit = page_query(query, false)?.limit;
            Some(Route::Ask(Question::Addresses { limit }))
        }
        b"/bans" if reads => Some(Route::Ask(Question::Bans)),
        b"/addresses" | b"/bans" => return Err(Response::not_allowed("GET, HEAD")),
        b"/drain" if method == Method::Post => return Ok(Route::Ask(Question::Drain)),
        b"/reload" if method == Method::Post => return Ok(Route::Ask(Question::Reload)),
        b"/drain" | b"/reload" => return Err(Response::not_allowed("POST")),
        _ => None,
    };
    if let Some(route) = fixed {
        return if reads { Ok(route) } else { Err(Response::not_allowed("GET, HEAD")) };
    }
    if let Some(id) = path.strip_prefix(b"/connections/") {
        let id = connection_id(id)
            .ok_or_else(|| Response::bad("a connection id is a number from 0 to 2^64 - 1"));
        return Ok(Route::Ask(match method {
            Method::Get | Method::Head => Question::Find(id?),
            Method::Delete => Question::End(id?, manner_of(query)?),
            _ => return Err(Response::not_allowed("GET, HEAD, DELETE")),
        }));
    }
    if let Some(workers) = path.strip_prefix(b"/workers/") {
        if method != Method::Put {
            return Err(Response::not_allowed("PUT"));
        }
        let workers = fields::decimal(workers)
            .and_then(|workers| usize::try_from(workers).ok())
            .filter(|workers| *workers <= WORKERS_MAX)
            .ok_or_else(|| {
                Response::bad(&format!("expected a number of workers from 0 to {WORKERS_MAX}"))
            })?;
        return Ok(Route::Ask(Question::Workers(workers)));
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
        "there is no such path; this listener has / /metrics /livez /readyz /ledger /connections \
         /connections/ID /addresses /bans /bans/PREFIX /workers/N /drain",
    ))
}

/// A page of a list.
struct Page {
    after: Option<ConnectionId>,
    limit: usize,
}

fn page_of(query: &[u8]) -> Result<Question, Response> {
    let Page { after, limit } = page_query(query, true)?;
    Ok(Question::List { after, limit })
}

/// Parses the query of a list: `limit=100&after=ID`. Both parameters are optional. A list that is
/// always shown from its beginning does not have `after`.
fn page_query(query: &[u8], has_after: bool) -> Result<Page, Response> {
    let (mut after, mut limit) = (None, PAGE_MAX);
    for parameter in query.split(|&byte| byte == b'&').filter(|parameter| !parameter.is_empty()) {
        let equals = memchr::memchr(b'=', parameter).unwrap_or(parameter.len());
        let (name, value) = (&parameter[..equals], parameter.get(equals + 1..).unwrap_or_default());
        match name {
            b"limit" => {
                limit = fields::decimal(value)
                    .and_then(|limit| usize::try_from(limit).ok())
                    .filter(|limit| (1..=PAGE_MAX).contains(limit))
                    .ok_or_else(|| {
                        Response::bad(&format!("limit must be a number from 1 to {PAGE_MAX}"))
                    })?;
            }
            b"after" if has_after => {
                let id = connection_id(value);
                after = Some(id.ok_or_else(|| Response::bad("after must be a connection id"))?);
            }
            _ if has_after => {
                return Err(Response::bad("unknown parameter; this path has limit and after"));
            }
            _ => return Err(Response::bad("unknown parameter; this path has limit")),
        }
    }
    Ok(Page { after, limit })
}

/// Parses the query of a DELETE.
fn manner_of(query: &[u8]) -> Result<Manner, Response> {
    match query {
        b"" => Ok(Manner::Reset),
        b"graceful" => Ok(Manner::Graceful),
        _ => Err(Response::bad("the only parameter of DELETE is graceful, without a value")),
    }
}

fn connection_id(text: &[u8]) -> Option<ConnectionId> {
    let number = str::from_utf8(text).ok()?.parse().ok()?;
    // `parse` would also accept a leading plus sign.
    text.first().is_some_and(u8::is_ascii_digit).then(|| ConnectionId::from_number(number))
}

/// Parses the part after `/bans/`. The slash of the prefix may be percent-encoded.
fn prefix_of(text: &[u8]) -> Result<Prefix, Response> {
    let mut decoded = Vec::with_capacity(text.len());
    target::percent_decode(text, &mut decoded).map_err(|status| {
        Response::text(status, "a percent sign needs two hexadecimal digits after it")
    })?;
    let decoded = String::from_utf8_lossy(&decoded);
    decoded.parse().map_err(|error: ParsePrefixError| Response::bad(&error.to_string()))
}
