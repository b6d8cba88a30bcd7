//! Replies without a file: a status in words, a redirect, a listing.

use super::exchange::{Asked, Candidate, Progress};
use super::reading::SlowRead;
use super::{Conversation, Files};
use crate::http::head::Method;
use crate::http::reply;
use crate::http::status::Status;
use crate::site::auth;
use crate::site::cors;
use crate::site::listing;
use ringwright::{Connection, SendStatus};
use std::io;

impl Files {
    /// Answers with a status: with the site's page for it, or in words.
    pub(super) fn reply_status(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        asked: Asked<'_>,
        status: Status,
    ) -> Progress {
        if asked.site.spec.errors.contains_key(&status.code()) && status != Status::BadRequest {
            return self.answer_with(state, connection, asked, Candidate::ErrorPage(status));
        }
        self.reply_plain(state, connection, asked, status, None);
        Progress::Answered
    }

    /// Answers with a status in words. `retry_after_s` is for a client that asks too often.
    pub(super) fn reply_plain(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        mut asked: Asked<'_>,
        status: Status,
        retry_after_s: Option<u64>,
    ) {
        if status == Status::BadRequest {
            asked.request.keep_alive = false;
        }
        self.common.refresh(connection.local().now());
        let persistence = state.persistence(&asked.request);
        let is_head = asked.request.method == Method::Head;
        self.write_lines(&asked, asked.path, status, None);
        if let Some(seconds) = retry_after_s {
            reply::number(&mut self.lines, b"Retry-After: ", seconds);
        }
        let body = reply::plain(&mut self.scratch, &self.lines, persistence, status, is_head);
        self.send_head(state, connection);
        self.finish(state, connection, &asked, persistence, status, body);
    }

    /// Asks for user and password.
    pub(super) fn reply_unauthorized(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        asked: Asked<'_>,
        realm: &str,
    ) {
        self.common.refresh(connection.local().now());
        let (persistence, status) = (state.persistence(&asked.request), Status::Unauthorized);
        let is_head = asked.request.method == Method::Head;
        self.write_lines(&asked, asked.path, status, None);
        auth::append_challenge(realm, &mut self.lines);
        let body = reply::plain(&mut self.scratch, &self.lines, persistence, status, is_head);
        self.send_head(state, connection);
        self.finish(state, connection, &asked, persistence, status, body);
    }

    /// Answers with the listing of a directory.
    pub(super) fn reply_listing(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        asked: Asked<'_>,
        page: &Page,
    ) -> Progress {
        self.common.refresh(connection.local().now());
        let (persistence, status) = (state.persistence(&asked.request), Status::Ok);
        self.write_lines(&asked, asked.path, status, None);
        let Self { lines, scratch, .. } = self;
        lines.extend_from_slice(match (page.is_html, page.is_cut) {
            (true, _) => listing::POLICY.as_bytes(),
            (false, true) => listing::CUT_LINE.as_bytes(),
            (false, false) => b"",
        });
        let media_type = if page.is_html { "text/html; charset=utf-8" } else { "application/json" };
        reply::content(scratch, lines, persistence, media_type, page.body.len() as u64);
        self.send_head(state, connection);
        let mut sent = 0;
        if asked.request.method == Method::Get {
            sent = page.body.len() as u64;
            let room = connection.send(&page.body);
            state.full |= room == SendStatus::Full;
            if room == SendStatus::Refused {
                // A head without its body must not be followed by another reply.
                connection.abort();
            }
        }
        self.finish(state, connection, &asked, persistence, status, sent);
        Progress::Answered
    }

    pub(super) fn reply_moved(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        asked: Asked<'_>,
        status: Status,
        location: impl FnOnce(&mut Vec<u8>),
    ) {
        self.common.refresh(connection.local().now());
        let persistence = state.persistence(&asked.request);
        let is_head = asked.request.method == Method::Head;
        self.write_lines(&asked, asked.path, status, None);
        let out = &mut self.scratch;
        let body = reply::moved(out, &self.lines, persistence, status, is_head, location);
        self.send_head(state, connection);
        self.finish(state, connection, &asked, persistence, status, body);
    }

    /// Answers a browser that asks if another origin may read what the site sends.
    pub(super) fn reply_preflight(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        asked: Asked<'_>,
    ) {
        self.common.refresh(connection.local().now());
        let (persistence, status) = (state.persistence(&asked.request), Status::NoContent);
        self.lines.clear();
        self.lines.extend_from_slice(self.common.lines());
        let facts = asked.site.rules.facts(asked.path).ok();
        if let Some(sharing) = facts.and_then(|facts| asked.site.rules.cors(&facts)) {
            sharing.append_preflight_lines(cors::origin(asked.head), &mut self.lines);
        }
        let body = reply::plain(&mut self.scratch, &self.lines, persistence, status, false);
        self.send_head(state, connection);
        self.finish(state, connection, &asked, persistence, status, body);
    }
}

/// The result of a job.
pub(super) enum Worked {
    /// A file was read.
    Read(SlowRead),
    /// A password was checked for this rule.
    Verified { rule: u16, is_right: bool },
    /// A directory was listed.
    Listed(io::Result<Page>),
}

/// A listing.
pub(super) struct Page {
    pub(super) body: Vec<u8>,
    pub(super) is_html: bool,
    /// It is not complete.
    pub(super) is_cut: bool,
}
