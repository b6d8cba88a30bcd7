//! The choice of the file that answers a request, by the rules of its site.

use super::exchange::{Asked, Candidate, Exchange, Original, Progress};
use super::note::Note;
use super::replies::{Page, Worked};
use super::{Conversation, Files, host, links};
use crate::http::conditional::is_settled;
use crate::http::fields;
use crate::http::forwarded::{self, Field};
use crate::http::head::Method;
use crate::http::status::Status;
use crate::http::target;
use crate::site::auth::Credentials;
use crate::site::cors;
use crate::site::listing::Listed;
use crate::site::redirect;
use crate::site::rules::{Facts, NoPath};
use crate::site::spec::{Auth, Listing, RealIp, RealIpHeader, Symlinks};
use crate::site::variants::{self, Accepted, Coding};
use ringwright::Connection;
use ringwright::files::{FileKind, OpenFile};
use ringwright::workers::Job;
use std::io;
use std::net::IpAddr;
use std::sync::OnceLock;

impl Files {
    /// Answers a request whose head alone decides.
    pub(super) fn answer_decided(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        asked: Asked<'_>,
        status: Status,
    ) -> Progress {
        match status {
            Status::MovedPermanently => {
                let target = asked.request.target(asked.head);
                self.reply_moved(state, connection, asked, status, |out| {
                    target::encode(target, out);
                });
                Progress::Answered
            }
            Status::NoContent
                if asked.site.has_rules && cors::is_preflight(asked.request.method, asked.head) =>
            {
                self.reply_preflight(state, connection, asked);
                Progress::Answered
            }
            _ => self.reply_status(state, connection, asked, status),
        }
    }

    /// Answers a GET or HEAD of a path.
    pub(super) fn answer_path(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        asked: Asked<'_>,
    ) -> Progress {
        if asked.site.spec.health.as_ref().is_some_and(|health| health.as_bytes() == asked.path) {
            let status =
                if self.shared.leaving.is_near() { Status::Unavailable } else { Status::Ok };
            self.reply_plain(state, connection, asked, status, None);
            return Progress::Answered;
        }
        let kept = self.kept(connection, &asked);
        if !asked.site.has_rules {
            return self.answer_requested(state, connection, asked, kept);
        }
        let facts = match facts(&asked, kept.as_ref()) {
            Ok(facts) => facts,
            Err(status) => return self.reply_status(state, connection, asked, status),
        };
        if facts.decide_nothing() {
            return self.answer_requested(state, connection, asked, kept);
        }
        if let Some(progress) = self.decide(state, connection, asked, &facts) {
            return progress;
        }
        let alias;
        let mut asked = asked;
        if let Some((rule, _)) = asked.site.rules.root(&facts) {
            alias = self.alias(asked.site.id, rule);
            asked.directory = alias.as_ref().map_err(|missing| *missing);
        }
        self.answer_requested(state, connection, asked, kept)
    }

    /// The file that was asked for, or the first index file of the directory, if it is open. `None`
    /// if a rule may replace the site's directory.
    fn kept(&mut self, connection: &mut Connection<'_>, asked: &Asked<'_>) -> Option<OpenFile> {
        let directory = asked.directory.ok().filter(|_| asked.site.roots.is_empty())?;
        if !asked.is_directory() {
            return connection.cached_file(directory, asked.path);
        }
        self.write_path(asked, &Candidate::Requested(0));
        connection.cached_file(directory, &self.file_path)
    }

    /// Answers with the file that was asked for. It may be open.
    fn answer_requested(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        asked: Asked<'_>,
        kept: Option<OpenFile>,
    ) -> Progress {
        let candidate = Candidate::Requested(0);
        match (kept, asked.directory) {
            // The engine keeps only settled files.
            (Some(file), _) => self.answer_opened(state, connection, asked, candidate, file, true),
            // It was looked for.
            (None, Ok(directory)) if asked.site.roots.is_empty() => {
                self.spares.wait_for(asked, candidate, Some(directory.clone()))
            }
            (None, _) => self.answer_with(state, connection, asked, candidate),
        }
    }

    /// Answers instead of a file, if a rule says so.
    fn decide(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        asked: Asked<'_>,
        facts: &Facts,
    ) -> Option<Progress> {
        let rules = &asked.site.rules;
        let address = self.address(state, connection, &asked);
        if !rules.admits(facts, address) {
            return Some(self.reply_status(state, connection, asked, Status::Forbidden));
        }
        if let Some(auth) = rules.auth(facts) {
            let candidate = Candidate::Requested(0);
            let progress = self.ask_for_user(state, connection, asked, candidate, auth);
            if progress.is_some() {
                return progress;
            }
        }
        if let Some((rule, limit)) = rules.rate(facts) {
            let key = asked.site.id << 16 | u32::from(rule);
            let now = connection.local().now();
            if let Err(seconds) = self.shared.rates.take(key, limit, address, now) {
                let status = Status::TooManyRequests;
                self.reply_plain(state, connection, asked, status, Some(seconds));
                return Some(Progress::Answered);
            }
        }
        let redirect = rules.redirect(facts).filter(|target| !target.spares(asked.path))?;
        let names = self.sites_of(state.listener).0.clone();
        let name = names.find(host(&asked.request, asked.head)).name;
        let query = redirect::query(asked.request.target(asked.head));
        let source = rules.source(asked.path, query, name);
        let status = Status::of_redirect(redirect.status());
        self.reply_moved(state, connection, asked, status, |out| {
            redirect.append_location(&source, out);
        });
        Some(Progress::Answered)
    }

    /// Answers instead of the candidate unless the request has a user and a password of the rule's
    /// file.
    fn ask_for_user(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        asked: Asked<'_>,
        candidate: Candidate,
        (rule, auth): (u16, &Auth),
    ) -> Option<Progress> {
        match self.authenticate(connection, &asked, rule) {
            Authenticated::Yes => None,
            Authenticated::No => {
                self.reply_unauthorized(state, connection, asked, &auth.realm);
                Some(Progress::Answered)
            }
            Authenticated::Checking => Some(self.spares.wait_for(asked, candidate, None)),
            Authenticated::Busy => {
                Some(self.reply_status(state, connection, asked, Status::Unavailable))
            }
        }
    }

    /// Returns whether the request has a user and a password of the rule's file.
    fn authenticate(
        &self,
        connection: &mut Connection<'_>,
        asked: &Asked<'_>,
        rule: u16,
    ) -> Authenticated {
        let mut passwords = asked.site.passwords.iter();
        let passwords = passwords.find(|(index, _)| *index == rule);
        let (Some((_, passwords)), Some(credentials)) = (passwords, Credentials::of(asked.head))
        else {
            return Authenticated::No;
        };
        if passwords.is_remembered(&credentials) {
            return Authenticated::Yes;
        }
        let passwords = passwords.clone();
        let Some(place) = self.shared.checks.take() else { return Authenticated::Busy };
        let job = Job::unordered(0, move || {
            let _place = place;
            Worked::Verified { rule, is_right: passwords.verify(&credentials) }
        });
        match connection.offload(job) {
            Ok(()) => Authenticated::Checking,
            Err(_) => Authenticated::Busy,
        }
    }

    /// A password has been checked.
    pub(super) fn continue_verified(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        asked: Asked<'_>,
        rule: u16,
        is_right: bool,
    ) -> Progress {
        if is_right {
            // It is remembered now.
            return self.answer_path(state, connection, asked);
        }
        let auth = asked.site.spec.rules.get(usize::from(rule)).and_then(|rule| rule.auth.as_ref());
        let realm = auth.map_or("", |auth| &auth.realm);
        self.reply_unauthorized(state, connection, asked, realm);
        Progress::Answered
    }

    /// The address that made the request. `None`: a client of a Unix socket.
    pub(super) fn address(
        &self,
        state: &Conversation,
        connection: &Connection<'_>,
        asked: &Asked<'_>,
    ) -> Option<IpAddr> {
        let socket = state.peer_of(connection).ip();
        match &asked.site.spec.real_ip {
            Some(RealIp { from, header }) => {
                let field = match header {
                    RealIpHeader::XForwardedFor => Field::XForwardedFor,
                    RealIpHeader::Forwarded => Field::Forwarded,
                };
                forwarded::real_address(asked.head, socket, from, field)
            }
            None => socket,
        }
    }

    /// The listing of the directory that was asked for.
    fn listing(&self, asked: &Asked<'_>) -> Listing {
        if !asked.is_directory() {
            return Listing::Off;
        }
        let rules = &asked.site.rules;
        let facts = if asked.site.has_rules { rules.facts(asked.path).ok() } else { None };
        facts.and_then(|facts| rules.listing(&facts)).unwrap_or(asked.site.spec.listing)
    }

    /// Has a worker list a directory.
    fn list(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        asked: Asked<'_>,
        directory: OpenFile,
    ) -> Progress {
        let (form, path) = (self.listing(&asked), asked.path.to_vec());
        let above = asked.directory.ok().cloned();
        let above = above.filter(|_| asked.site.spec.symlinks == Symlinks::Beneath);
        let job = Job::unordered(0, move || {
            let listed = Listed::read(&directory, |name| {
                let link = [&path[..], name].concat();
                links::status(above.as_ref()?, &link)
            });
            Worked::Listed(listed.map(|listed| match form {
                Listing::Json => {
                    Page { body: listed.json(), is_html: false, is_cut: listed.is_cut }
                }
                _ => Page { body: listed.page(&path), is_html: true, is_cut: listed.is_cut },
            }))
        });
        match connection.offload(job) {
            Ok(()) => self.spares.wait_for(asked, Candidate::Listing, None),
            Err(_) => self.reply_status(state, connection, asked, Status::Unavailable),
        }
    }

    /// Answers with a file that is open, or has it opened.
    pub(super) fn answer_with(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        asked: Asked<'_>,
        candidate: Candidate,
    ) -> Progress {
        let directory = match links::directory(&asked, &candidate) {
            Ok(directory) => directory,
            Err(missing) => {
                let status = Status::from_folder_errno(missing.0);
                self.reply_plain(state, connection, asked, status, None);
                return Progress::Answered;
            }
        };
        let file = if asked.path_is(&candidate) {
            connection.cached_file(&directory, asked.path)
        } else {
            self.write_path(&asked, &candidate);
            connection.cached_file(&directory, &self.file_path)
        };
        let Some(file) = file else {
            return self.spares.wait_for(asked, candidate, Some(directory));
        };
        if let Candidate::Variant(original, coding) = &candidate
            && let Some(note) = Note::of(&original.file)
        {
            note.variants.set_place(*coding, file.place());
        }
        // The engine keeps only settled files.
        self.answer_opened(state, connection, asked, candidate, file, true)
    }

    /// Writes the path of a candidate.
    pub(super) fn write_path(&mut self, asked: &Asked<'_>, candidate: &Candidate) {
        let path = &mut self.file_path;
        write_path(asked, candidate, path);
        if let Candidate::Variant(_, coding) = candidate {
            path.extend_from_slice(coding.suffix());
        }
    }

    /// The open of a candidate has ended.
    pub(super) fn continue_with(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        exchange: &Exchange,
        result: io::Result<OpenFile>,
    ) -> Progress {
        let (asked, candidate) = (exchange.asked(), exchange.candidate.clone());
        if let Ok(file) = &result
            && file.crossed_link()
            && file.status().kind != FileKind::Regular
            && let Some(progress) = self.refuse(state, connection, asked, &candidate, file)
        {
            return progress;
        }
        match result {
            Ok(file) if file.status().kind == FileKind::Regular => {
                let is_settled = is_settled(&file.status(), exchange.opening_since);
                self.answer_opened(state, connection, asked, candidate, file, is_settled)
            }
            Ok(file) if matches!(candidate, Candidate::Requested(_)) && !asked.is_directory() => {
                if file.status().kind != FileKind::Directory {
                    return self.answer_without(state, connection, asked, candidate, libc::ENOENT);
                }
                let (path, target) = (asked.path, asked.request.target(asked.head));
                let status = Status::MovedPermanently;
                self.reply_moved(state, connection, asked, status, |out| {
                    target::redirect(path, target, out);
                });
                Progress::Answered
            }
            Ok(file)
                if matches!(candidate, Candidate::Listing)
                    && file.status().kind == FileKind::Directory =>
            {
                self.list(state, connection, asked, file)
            }
            Ok(_) => self.answer_without(state, connection, asked, candidate, libc::ENOENT),
            Err(error) => {
                let errno = error.raw_os_error().unwrap_or(libc::EIO);
                self.answer_without(state, connection, asked, candidate, errno)
            }
        }
    }

    /// A candidate cannot be opened.
    fn answer_without(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        asked: Asked<'_>,
        candidate: Candidate,
        errno: i32,
    ) -> Progress {
        let status = Status::from_open_errno(errno);
        match candidate {
            Candidate::Requested(index) if status == Status::NotFound => {
                if asked.is_directory() && index + 1 < asked.site.spec.index.len() {
                    let next = Candidate::Requested(index + 1);
                    return self.answer_with(state, connection, asked, next);
                }
                if self.listing(&asked) != Listing::Off {
                    return self.answer_with(state, connection, asked, Candidate::Listing);
                }
                if asked.site.spec.spa.is_some() && accepts_shell(&asked) {
                    return self.answer_with(state, connection, asked, Candidate::Shell);
                }
                self.reply_status(state, connection, asked, status)
            }
            Candidate::Requested(_) | Candidate::Shell | Candidate::Listing => {
                self.reply_status(state, connection, asked, status)
            }
            Candidate::Variant(original, coding) => {
                if let Some(note) = Note::of(&original.file) {
                    note.variants.set_missing(coding, connection.local().now());
                }
                self.answer_variant(state, connection, asked, original, Some(coding))
            }
            Candidate::ErrorPage(status) => {
                self.reply_plain(state, connection, asked, status, None);
                Progress::Answered
            }
        }
    }

    /// Answers with a file, or a variant of it.
    fn answer_opened(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        asked: Asked<'_>,
        candidate: Candidate,
        file: OpenFile,
        is_settled: bool,
    ) -> Progress {
        if (asked.site.has_rules || file.crossed_link())
            && let Some(progress) = self.refuse(state, connection, asked, &candidate, &file)
        {
            return progress;
        }
        match candidate {
            Candidate::Requested(index) if asked.site.spec.precompressed => {
                let original = Original { file, index, is_settled };
                self.answer_variant(state, connection, asked, original, None)
            }
            Candidate::Variant(original, coding)
                if !variants::is_current(&original.file.status(), &file.status()) =>
            {
                self.answer_variant(state, connection, asked, original, Some(coding))
            }
            _ => self.reply_regular(state, connection, asked, candidate, file, is_settled),
        }
    }

    /// Answers instead of a file that was found, if the rules do not admit the client to it or if
    /// a link has led to a hidden one.
    fn refuse(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        asked: Asked<'_>,
        candidate: &Candidate,
        file: &OpenFile,
    ) -> Option<Progress> {
        if !file.crossed_link() && decide_nothing_more(&asked, candidate, file) {
            return None;
        }
        let Ok(target) = Self::target(&asked, candidate, file) else {
            let candidate = candidate.clone();
            return Some(self.answer_without(state, connection, asked, candidate, libc::ELOOP));
        };
        let admitted = self.admit_file(state, connection, &asked, candidate, file, target);
        if let (Candidate::ErrorPage(status), Admitted::No | Admitted::With(..)) =
            (candidate, &admitted)
        {
            self.reply_plain(state, connection, asked, *status, None);
            return Some(Progress::Answered);
        }
        match admitted {
            Admitted::Yes => None,
            Admitted::No => Some(self.reply_status(state, connection, asked, Status::Forbidden)),
            Admitted::With(rule, auth) => {
                self.ask_for_user(state, connection, asked, candidate.clone(), (rule, auth))
            }
        }
    }

    /// The rules are asked again for the path of the file that will be sent, and for the path that
    /// a link has led to.
    fn admit_file<'a>(
        &self,
        state: &Conversation,
        connection: &Connection<'_>,
        asked: &Asked<'a>,
        candidate: &Candidate,
        file: &OpenFile,
        target: Option<Facts>,
    ) -> Admitted<'a> {
        let rules = &asked.site.rules;
        let mut all = [target, None];
        if asked.site.has_rules
            && !asked.path_is(candidate)
            && !matches!(candidate, Candidate::Listing)
        {
            let facts = facts_of_file(asked, candidate, file);
            if facts.is_none() {
                return Admitted::No;
            }
            all[1] = facts;
        }
        for facts in all.iter().flatten().filter(|facts| !facts.decide_nothing()) {
            if !rules.admits(facts, self.address(state, connection, asked)) {
                return Admitted::No;
            }
            match rules.auth(facts) {
                Some((rule, auth)) if !is_remembered(asked, rule) => {
                    return Admitted::With(rule, auth);
                }
                _ => {}
            }
        }
        Admitted::Yes
    }

    /// Answers with the first variant of a file that the client accepts, behind `after` in its
    /// order, or else with the file.
    fn answer_variant(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        asked: Asked<'_>,
        original: Original,
        after: Option<Coding>,
    ) -> Progress {
        let accepted = Accepted::of(asked.request.accept_encoding(asked.head));
        let mut codings = accepted.iter();
        if let Some(after) = after {
            codings.find(|coding| *coding == after);
        }
        let now = connection.local().now();
        let Original { file, index, is_settled } = &original;
        let note = self.note(file, &asked, &Candidate::Requested(*index), *is_settled);
        let is_missing =
            |coding: &Coding| note.is_some_and(|note| note.variants.is_missing(*coding, now));
        if let Some(coding) = codings.find(|coding| !is_missing(coding)) {
            let place = note.and_then(|note| note.variants.place(coding));
            let kept = place.and_then(|place| connection.cached_file_at(place));
            let candidate = Candidate::Variant(original, coding);
            return match kept {
                Some(file) => self.answer_opened(state, connection, asked, candidate, file, true),
                None => self.answer_with(state, connection, asked, candidate),
            };
        }
        let Original { file, index, is_settled } = original;
        let candidate = Candidate::Requested(index);
        self.reply_regular(state, connection, asked, candidate, file, is_settled)
    }
}

/// The rules that decide about the path of a request. `kept` is the open file that it leads to.
fn facts(asked: &Asked<'_>, kept: Option<&OpenFile>) -> Result<Facts, Status> {
    let kept = kept.and_then(Note::of).map(|note| note.facts(asked.is_directory()));
    facts_of(asked, asked.path, kept).map_err(|_| Status::NotFound)
}

/// The rules that decide about the path of a file: about that of the original for a variant.
/// Nothing is served without them.
fn facts_of_file(asked: &Asked<'_>, candidate: &Candidate, file: &OpenFile) -> Option<Facts> {
    let file = if let Candidate::Variant(original, _) = candidate { &original.file } else { file };
    let kept = Note::of(file).map(|note| note.facts(false));
    if let Some(facts) = kept.and_then(OnceLock::get) {
        return Some(*facts);
    }
    let mut path = Vec::new();
    write_path(asked, candidate, &mut path);
    facts_of(asked, &path, kept).ok()
}

/// Returns whether the rules for the path of a file decide nothing that was not decided for the
/// path of the request.
fn decide_nothing_more(asked: &Asked<'_>, candidate: &Candidate, file: &OpenFile) -> bool {
    let decide_nothing =
        || facts_of_file(asked, candidate, file).is_some_and(|facts| facts.decide_nothing());
    asked.path_is(candidate) || !asked.site.has_rules || decide_nothing()
}

/// The rules that decide about a path. They are kept with the file that it leads to.
fn facts_of(
    asked: &Asked<'_>,
    path: &[u8],
    kept: Option<&OnceLock<Facts>>,
) -> Result<Facts, NoPath> {
    if let Some(facts) = kept.and_then(OnceLock::get) {
        return Ok(*facts);
    }
    let facts = asked.site.rules.facts(path)?;
    if let Some(kept) = kept {
        let _ = kept.set(facts);
    }
    Ok(facts)
}

/// The result of a look at user and password.
enum Authenticated {
    Yes,
    No,
    /// A worker checks the password.
    Checking,
    /// Too many passwords wait to be checked.
    Busy,
}

/// The answer of the rules for the file that will be sent.
enum Admitted<'a> {
    Yes,
    No,
    /// With a user of this rule, of which none is remembered.
    With(u16, &'a Auth),
}

/// The user and the password of the request were right before.
fn is_remembered(asked: &Asked<'_>, rule: u16) -> bool {
    let mut passwords = asked.site.passwords.iter();
    let passwords = passwords.find(|(index, _)| *index == rule);
    let known = passwords.zip(Credentials::of(asked.head));
    known.is_some_and(|((_, passwords), pair)| passwords.is_remembered(&pair))
}

impl Asked<'_> {
    /// The path that was asked for is that of a directory.
    pub(super) fn is_directory(&self) -> bool {
        self.path.is_empty() || self.path.ends_with(b"/")
    }

    /// The candidate has the path that was asked for.
    pub(super) fn path_is(&self, candidate: &Candidate) -> bool {
        matches!(candidate, Candidate::Requested(_)) && !self.is_directory()
    }
}

/// Writes the path of a candidate, that of its original for a variant.
pub(super) fn write_path(asked: &Asked<'_>, candidate: &Candidate, path: &mut Vec<u8>) {
    let spec = &asked.site.spec;
    path.clear();
    match candidate {
        Candidate::Requested(index) | Candidate::Variant(Original { index, .. }, _) => {
            path.extend_from_slice(asked.path);
            if asked.is_directory() {
                path.extend_from_slice(spec.index.get(*index).map_or(b"", |name| name.as_bytes()));
            }
        }
        Candidate::Listing if asked.path.is_empty() => path.push(b'.'),
        Candidate::Listing => path.extend_from_slice(&asked.path[..asked.path.len() - 1]),
        Candidate::Shell => path.extend_from_slice(spec.spa.as_deref().unwrap_or("").as_bytes()),
        Candidate::ErrorPage(status) => {
            let page = spec.errors.get(&status.code());
            path.extend_from_slice(page.map_or(b"", |page| page.as_bytes()));
        }
    }
}

/// The request is a navigation, which the page of `spa` answers.
fn accepts_shell(asked: &Asked<'_>) -> bool {
    if !matches!(asked.request.method, Method::Get | Method::Head) {
        return false;
    }
    let mut names_html = false;
    let mut names_any = true;
    for value in fields::values(asked.head, "accept") {
        for element in fields::elements(value) {
            let media = element.split(|&byte| byte == b';').next().unwrap_or_default();
            let media = media.trim_ascii();
            names_html |= media.eq_ignore_ascii_case(b"text/html");
            names_any &= media == b"*/*";
        }
    }
    let last = asked.path.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    names_html || (names_any && !last.contains(&b'.'))
}
