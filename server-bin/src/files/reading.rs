//! Regular files that were opened: small ones are read before their reply begins, and a note about
//! the file is kept for the next request.

use super::contents::{self, CONTENT_BYTES_MAX, Content, Kept, SharedContent, Unread};
use super::exchange::{Asked, Candidate, Progress};
use super::lines::{SentFile, is_private, sent, write_coding_lines};
use super::note::{KeptReply, Note};
use super::replies::Worked;
use super::sending::Found;
use super::{Conversation, Files, choice};
use crate::http::reply::{self, Described};
use crate::http::status::Status;
use crate::site::headers::BuiltIn;
use ringwright::Connection;
use ringwright::files::OpenFile;
use ringwright::workers::Job;

impl Files {
    /// Answers with a regular file that has just been opened, or that the engine has kept open.
    /// A small file is read first, by a job if it is not in the page cache.
    pub(super) fn reply_regular(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        asked: Asked<'_>,
        candidate: Candidate,
        file: OpenFile,
        is_settled: bool,
    ) -> Progress {
        self.common.refresh(connection.local().now());
        let about = file.status();
        let kept = Note::of(&file).and_then(|note| note.kept.get());
        if kept.is_none() && about.bytes <= CONTENT_BYTES_MAX as u64 {
            let mut buffer = std::mem::take(&mut self.content);
            let content = contents::read_cached(&file, &mut buffer);
            let progress = if matches!(content, Err(Unread::Waits)) {
                self.read_in_job(state, connection, asked, candidate, file, is_settled)
            } else {
                let read = Read { file: &file, is_settled, content };
                self.reply_read(state, connection, asked, &candidate, read)
            };
            self.content = buffer;
            return progress;
        }
        let note = self.note(&file, &asked, &candidate, is_settled);
        let reply = note.map(|note| self.keep_reply(note, &file, &asked, &candidate));
        let content = kept.map(Kept::content);
        let found = Found { file: &file, about, is_settled, content, reply };
        self.reply_file(state, connection, asked, &candidate, &found)
    }

    /// The note about a file that the engine keeps open: one that is settled.
    pub(super) fn note<'a>(
        &self,
        file: &'a OpenFile,
        asked: &Asked<'_>,
        candidate: &Candidate,
        is_settled: bool,
    ) -> Option<&'a Note> {
        let note = Note::of(file);
        if note.is_some() || !is_settled || !self.shared.keeps_files || file.may_wait() {
            return note;
        }
        // It was asked for before the file was sent, and the file was not hidden.
        let target = Self::target(asked, candidate, file).ok()?;
        // Another connection may have done so.
        let _ = file.note().set(Box::new(Note::new(target)));
        Note::of(file)
    }

    fn read_in_job(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        asked: Asked<'_>,
        candidate: Candidate,
        file: OpenFile,
        is_settled: bool,
    ) -> Progress {
        let place =
            if file.may_wait() { self.shared.slow_readers.take().map(Some) } else { Some(None) };
        if let Some(place) = place {
            let file = file.clone();
            let job = Job::unordered(0, move || {
                let _place = place;
                let content = contents::read_slowly(&file);
                Worked::Read(SlowRead { file, is_settled, content })
            });
            if connection.offload(job).is_ok() {
                return self.spares.wait_for(asked, candidate, None);
            }
        }
        // All readers wait, or too many files wait for them.
        let about = file.status();
        if about.bytes == 0 && file.may_wait() {
            return self.reply_status(state, connection, asked, Status::Unavailable);
        }
        let found = Found { file: &file, about, is_settled, content: None, reply: None };
        self.reply_file(state, connection, asked, &candidate, &found)
    }

    /// Answers with a small file that a job has read.
    pub(super) fn reply_slow_read(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        asked: Asked<'_>,
        candidate: &Candidate,
        read: SlowRead,
    ) -> Progress {
        self.common.refresh(connection.local().now());
        let SlowRead { file, is_settled, content } = read;
        let content = content.as_ref().map(SharedContent::content).map_err(|error| *error);
        let read = Read { file: &file, is_settled, content };
        self.reply_read(state, connection, asked, candidate, read)
    }

    /// Answers with a small file that has been read.
    fn reply_read(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        asked: Asked<'_>,
        candidate: &Candidate,
        read: Read<'_>,
    ) -> Progress {
        let Read { file, is_settled, content } = read;
        let about = file.status();
        match content {
            Ok(content) => {
                // The engine keeps only settled files open, and returns one only while its status
                // is that of the open. The contents were read after the open: they belong to it.
                if let Some(note) = self.note(file, &asked, candidate, is_settled)
                    && let Some(kept) = self.shared.contents.keep(content)
                {
                    let _ = note.kept.set(kept);
                }
                let content = Some(content);
                let found = Found { file, about, is_settled, content, reply: None };
                self.reply_file(state, connection, asked, candidate, &found)
            }
            Err(Unread::TooLong) => match file.status_now() {
                // It has grown since it was opened.
                Ok(about) if about.bytes > CONTENT_BYTES_MAX as u64 => {
                    let (content, reply, is_settled) = (None, None, false);
                    let found = Found { file, about, is_settled, content, reply };
                    self.reply_file(state, connection, asked, candidate, &found)
                }
                // Nobody knows its length.
                _ => self.reply_unread(state, connection, asked, candidate),
            },
            Err(Unread::Waits | Unread::Failed) => {
                self.reply_unread(state, connection, asked, candidate)
            }
        }
    }

    /// The file cannot be read.
    fn reply_unread(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        asked: Asked<'_>,
        candidate: &Candidate,
    ) -> Progress {
        if let Candidate::ErrorPage(status) = candidate {
            self.reply_plain(state, connection, asked, *status, None);
            return Progress::Answered;
        }
        self.reply_status(state, connection, asked, Status::InternalError)
    }

    /// Keeps the part of the reply that is the same for the next request.
    fn keep_reply<'a>(
        &mut self,
        note: &'a Note,
        file: &OpenFile,
        asked: &Asked<'_>,
        candidate: &Candidate,
    ) -> &'a KeptReply {
        note.reply(candidate).get_or_init(|| self.write_reply(note, file, asked, candidate))
    }

    #[cold]
    fn write_reply(
        &mut self,
        note: &Note,
        file: &OpenFile,
        asked: &Asked<'_>,
        candidate: &Candidate,
    ) -> KeptReply {
        let (about, now_s) = (file.status(), self.common.seconds());
        let content = note.kept.get().map(Kept::content);
        let found = Found { file, about, is_settled: true, content, reply: None };
        let mut path = std::mem::take(&mut self.file_path);
        choice::write_path(asked, candidate, &mut path);
        let coding = candidate.coding();
        let mut lines = Vec::new();
        let (mut without, mut is_shared) = (BuiltIn::default(), false);
        if asked.site.has_rules {
            let rules = &asked.site.rules;
            let facts = rules.facts(&path).ok();
            let file = SentFile { coding, is_private: is_private(asked, note.target.as_ref()) };
            let sent = sent(rules, facts.as_ref(), &path, Status::Ok, Some(file));
            without = rules.headers().append_lines(&sent, &mut lines);
            let sharing = facts.as_ref().and_then(|facts| rules.cors(facts));
            if let Some(sharing) = sharing.filter(|_| !without.has(BuiltIn::SHARING)) {
                let for_all = sharing.lines_for_all();
                is_shared = for_all.is_none();
                lines.extend(for_all.unwrap_or_default());
            }
        }
        write_coding_lines(asked, coding, &mut lines);
        let (bytes, validators) = (found.bytes(), &found.validators(now_s));
        let described = Described { path: &path, bytes, validators, without };
        lines.extend(reply::lines_of_whole(&described));
        self.file_path = path;
        KeptReply { lines: lines.into(), without, is_shared }
    }
}

/// A file that was read, or not.
pub struct SlowRead {
    file: OpenFile,
    is_settled: bool,
    content: Result<SharedContent, Unread>,
}

/// A small file and what was read of it.
struct Read<'a> {
    file: &'a OpenFile,
    is_settled: bool,
    content: Result<Content<'a>, Unread>,
}
