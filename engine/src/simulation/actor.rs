//! What the handler of a simulation does again and again: it says something and writes down that
//! it is owed, answers with files, meddles with others.

use super::book::{Book, Mark, Part, Piece, Role, Shape};
use super::callbacks::Callback;
use super::draw::draw_settings;
use super::elsewhere::Elsewhere;
use crate::files::{Directory, OpenFile, StartFileError};
use crate::ring::simulated::{Rng, stretch};
use crate::shard::Handed;
use crate::transit::Transit;
use crate::{Connection, ConnectionId, Error, Local, SendStatus};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Names under which files can be opened, and the keys of their bytes.
pub const PATHS: [&str; 6] = ["small", "middling", "large", "huge", "empty", "folder"];
/// The key of the first of them; the others follow.
pub const FILE_KEY: u64 = 1 << 40;
/// What no file is found under.
/// Those across a symbolic link.
pub const LINKED_PATHS: [&str; 2] = ["small", "middling"];
const WRONG_PATHS: [&str; 3] = ["missing", "secret", "with\0nul"];

/// Panics on purpose carry this, and are not printed.
pub struct OnPurpose;

impl Drop for OnPurpose {
    /// Panics as well: no thread of the engine may end when it drops a payload.
    fn drop(&mut self) {
        std::panic::panic_any(Self)
    }
}

/// The things that handlers do unasked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Habits {
    /// Now and then they kick and send.
    pub ticks: bool,
    /// They ask for jobs and holds without a connection.
    pub employs: bool,
    /// Their connections join groups and leave them, and choose settings of their own.
    pub joins: bool,
    /// They set timers, pause for several reasons and give files up.
    pub whims: bool,
    /// They leave closures for connections, and meddle when a drain begins.
    pub leaves: bool,
}

/// Handler of a simulated shard.
pub struct Actor {
    pub book: Rc<RefCell<Book>>,
    pub elsewhere: Rc<RefCell<Elsewhere>>,
    pub transit: Arc<Transit<Handed>>,
    pub directory: Directory,
    pub rng: Rng,
    pub habits: Habits,
    /// Files that stay open are looked up anew after so long.
    pub valid_us: u64,
}

/// The size of a piece, and the level below which the next one follows.
const METERED_BYTES: u64 = 50;

/// A connection's state.
pub struct Talk {
    pub(super) id: ConnectionId,
    pub(super) record: usize,
    pub(super) part: Part,
    pub(super) rng: Rng,
    /// The stream that the peer sends, and how far we have used it.
    pub(super) key: u64,
    pub(super) used: u64,
    /// How much of our own stream was said.
    pub(super) said: u64,
    pub(super) needed: usize,
    /// The path that is being opened.
    pub(super) opening: Option<&'static str>,
    pub(super) requests: u32,
    pub(super) closes_later: bool,
    pub(super) panics_at_end: bool,
    /// Asked not to be shown anything, or to be shown again what is left.
    pub(super) paused: bool,
    pub(super) resumed: bool,
    /// Jobs offloaded, and those that it was not told of, in this order.
    pub(super) jobs_made: u64,
    pub(super) jobs: Vec<u64>,
    /// At the peer's FIN it waits for its jobs.
    pub(super) finishes: bool,
    /// The file that it lets come.
    pub(super) upload: super::uploads::Upload,
    pub(super) whims: super::whims::Whims,
    pub(super) forwarding: Option<super::forwards::Forwarding>,
    /// Asked to end when nothing has come for a while: not before then.
    pub(super) quiet_until: Duration,
}

impl Actor {
    /// Gives a connection settings of its own.
    pub(super) fn choose_settings(&self, talk: &mut Talk, connection: &mut Connection<'_>) {
        if let Some(settings) = draw_settings(&mut talk.rng) {
            let set = connection.set_settings(&settings);
            if !matches!(set, Ok(()) | Err(Error::TooManySettings)) {
                self.fail(talk.id, &format!("settings are refused: {set:?}"));
            }
        }
    }

    pub(super) fn fail(&self, id: ConnectionId, what: &str) {
        self.book.borrow_mut().failures.push(format!("{id:?}: {what}"));
    }

    /// Every callback: is it this connection's, and may it come now?
    pub(super) fn note(&self, talk: &Talk, connection: &Connection<'_>, callback: Callback) {
        let mut book = self.book.borrow_mut();
        book.callbacks += 1;
        book.note_callback(talk.id.shard(), false);
        book.note_call(talk.record, callback);
        drop(book);
        if connection.id() != talk.id {
            self.fail(talk.id, "a callback for another connection");
        }
    }

    /// Sends a stretch of a stream and writes down that it is owed.
    pub(super) fn say(
        &self,
        talk: &mut Talk,
        connection: &mut Connection<'_>,
        key: u64,
        offset: u64,
        bytes: usize,
    ) -> SendStatus {
        let content = stretch(key, offset, bytes);
        let before = connection.queued_bytes();
        let room = if talk.rng.below(4) == 0 {
            self.send_somehow(talk, connection, &content)
        } else {
            connection.send(&content)
        };
        let taken = connection.queued_bytes() > before;
        if bytes > 0 && taken == matches!(room, SendStatus::Closed | SendStatus::Refused) {
            self.fail(
                talk.id,
                &format!("{bytes} bytes, taken: {taken}, but the answer is {room:?}"),
            );
        }
        if taken {
            let piece = Piece { key, offset, bytes: bytes as u64, shape: Shape::Bytes };
            self.book.borrow_mut().records[talk.record].said.push(piece);
            self.mark(talk, connection);
        }
        room
    }

    /// Sends bytes as a payload, perhaps behind a part of them that is copied, or in pieces.
    fn send_somehow(
        &self,
        talk: &Talk,
        connection: &mut Connection<'_>,
        content: &[u8],
    ) -> SendStatus {
        let (head, rest) = content.split_at(content.len() / 3);
        if content.len().is_multiple_of(4) {
            return connection.send_vectored([head, &[], rest]);
        }
        let (head, rest) = if content.len() % 4 == 1 { (head, rest) } else { (&[][..], content) };
        let payload = self.book.borrow().payload(rest);
        connection.send_with_head(head, payload).unwrap_or_else(|refused| {
            if refused.payload.as_ref() != rest {
                self.fail(talk.id, "a refused payload comes back changed");
            }
            refused.status
        })
    }

    /// Asks to be told when everything has left, or was acknowledged.
    pub(super) fn mark(&self, talk: &mut Talk, connection: &mut Connection<'_>) {
        let mut book = self.book.borrow_mut();
        let record = &mut book.records[talk.record];
        let bytes = record.said.iter().map(|piece| piece.bytes).sum();
        let of_peer = talk.rng.below(4) == 0;
        record.markers.push(Mark::new(bytes, of_peer));
        let tag = record.markers.len() as u64;
        if of_peer {
            connection.mark_acknowledged(tag);
        } else {
            connection.mark_output(tag);
        }
    }

    /// Something of our own. False: it is not taken any more.
    pub(super) fn say_own(
        &self,
        talk: &mut Talk,
        connection: &mut Connection<'_>,
        bytes: usize,
    ) -> SendStatus {
        let (key, offset) = ((1 << 45) + talk.record as u64, talk.said);
        let room = self.say(talk, connection, key, offset, bytes);
        if room != SendStatus::Refused {
            talk.said += bytes as u64;
        }
        room
    }

    pub(super) fn lecture(&self, talk: &mut Talk, connection: &mut Connection<'_>) {
        let (Role::Greeter(total) | Role::Lecturer(total)) = talk.part.role else { return };
        while talk.said < total {
            let left = (total - talk.said).min(20_000) as usize;
            let mut bytes = talk.rng.up_to(left);
            let mut room = self.say_own(talk, connection, bytes);
            while room == SendStatus::Refused && bytes > 1 {
                bytes /= 2;
                room = self.say_own(talk, connection, bytes);
            }
            // A full queue is written to all the same, now and then, until it takes no byte.
            if room == SendStatus::Refused || (room == SendStatus::Full && talk.rng.below(8) > 0) {
                self.ask_for_notice(talk, connection);
                return;
            }
        }
        if matches!(talk.part.role, Role::Greeter(_)) {
            self.close(talk, connection);
        } else {
            self.shut(talk, connection);
        }
    }

    /// Sends one more piece.
    pub(super) fn meter(&self, talk: &mut Talk, connection: &mut Connection<'_>) {
        let Role::Metered(total) = talk.part.role else { return };
        if talk.said >= total {
            return self.close(talk, connection);
        }
        let bytes = (total - talk.said).min(METERED_BYTES);
        let _ = self.say_own(talk, connection, bytes as usize);
        connection.notify_below(METERED_BYTES as usize);
    }

    /// Now and then asks for `writable` at a level of its own.
    fn ask_for_notice(&self, talk: &mut Talk, connection: &mut Connection<'_>) {
        if talk.rng.below(4) == 0 {
            connection.notify_below(talk.rng.pick(&[0, 1, 100, 1_000, 1_000_000]));
        }
    }

    pub(super) fn pause(&self, talk: &mut Talk, connection: &mut Connection<'_>) {
        (talk.paused, talk.resumed) = (true, false);
        connection.pause();
    }

    pub(super) fn resume(&self, talk: &mut Talk, connection: &mut Connection<'_>) {
        (talk.paused, talk.resumed) = (false, talk.whims.reasons == 0);
        connection.resume();
    }

    pub(super) fn close(&self, talk: &Talk, connection: &mut Connection<'_>) {
        self.book.borrow_mut().records[talk.record].closing = true;
        connection.close();
    }

    pub(super) fn shut(&self, talk: &Talk, connection: &mut Connection<'_>) {
        self.book.borrow_mut().records[talk.record].called.shut = true;
        connection.shutdown();
    }

    pub(super) fn abort(&self, talk: &Talk, connection: &mut Connection<'_>) {
        let mut book = self.book.borrow_mut();
        let record = &mut book.records[talk.record];
        (record.cut, record.called.over) = (true, true);
        drop(book);
        connection.abort();
    }

    pub(super) fn violate(&self, talk: &Talk, connection: &mut Connection<'_>) {
        self.book.borrow_mut().records[talk.record].closing = true;
        connection.protocol_error();
    }

    pub(super) fn panic(&self, record: usize) -> ! {
        let mut book = self.book.borrow_mut();
        book.panics += 1;
        let record = &mut book.records[record];
        (record.panicked, record.cut, record.called.over) = (true, true, true);
        drop(book);
        std::panic::panic_any(OnPurpose)
    }

    pub(super) fn request_file(&mut self, talk: &mut Talk, connection: &mut Connection<'_>) {
        if talk.opening.is_some() || talk.requests == 0 {
            return;
        }
        talk.requests -= 1;
        let wrong = talk.rng.below(8) == 0;
        let path = if wrong { talk.rng.pick(&WRONG_PATHS) } else { talk.rng.pick(&PATHS) };
        if !wrong && talk.rng.below(4) > 0 && self.answer_at_once(talk, connection, path) {
            return self.request_file(talk, connection);
        }
        talk.opening = Some(path);
        let opened = connection.open_file(&self.directory, path.as_bytes());
        self.expect_no_second(talk, connection, opened);
        if talk.rng.below(2) == 0 {
            self.pause(talk, connection);
        }
    }

    /// After an open was asked for: a second one, of either kind, is refused.
    pub(super) fn expect_no_second(
        &self,
        talk: &Talk,
        connection: &mut Connection<'_>,
        first: Result<(), StartFileError>,
    ) {
        let again = connection.open_file(&self.directory, b"small");
        let creates = connection.create_file(&self.directory);
        let expected = first.and(Err(StartFileError::InProgress));
        let right = matches!(first, Ok(()) | Err(StartFileError::Ending));
        if !right || again != expected || creates != expected {
            self.fail(talk.id, &format!("an open: {first:?}, and then {again:?}, {creates:?}"));
        }
    }

    pub(super) fn answer_with(
        &self,
        talk: &mut Talk,
        connection: &mut Connection<'_>,
        file: OpenFile,
    ) {
        let status = file.status();
        let key = FILE_KEY + status.inode - 1;
        let most = talk.part.reply_bytes_max as u64;
        let offset = talk.rng.below(status.bytes + 1);
        let length = (status.bytes - offset).min(talk.rng.below(most + 1));
        // Now and then more than there is.
        let length = length + if talk.rng.below(20) == 0 { talk.rng.below(100) } else { 0 };
        for _ in 0..1 + talk.rng.below(2) {
            let header = talk.rng.up_to(120);
            let room = self.say_own(talk, connection, header);
            if room == SendStatus::Refused {
                return;
            }
            if room == SendStatus::Closed {
                // Not taken, so the file is not either.
                let room = connection.send_file(file, offset, length);
                if room != SendStatus::Closed {
                    self.fail(talk.id, &format!("a file is not taken, but the answer is {room:?}"));
                }
                return;
            }
            let piece = Piece { key, offset, bytes: length, shape: Shape::File };
            let mut book = self.book.borrow_mut();
            book.records[talk.record].said.push(piece);
            book.records[talk.record].files_owed += 1;
            drop(book);
            // Anything but a regular file closes the connection instead.
            if connection.send_file(file.clone(), offset, length) != SendStatus::Closed {
                self.mark(talk, connection);
            }
        }
    }

    pub(super) fn meddle(&mut self, local: &mut Local<'_>) {
        if self.habits.leaves && self.rng.below(4) == 0 {
            return self.leave_closure(local);
        }
        let mut book = self.book.borrow_mut();
        let Some(id) = book.anybody(&mut self.rng) else { return };
        match self.rng.below(4) {
            0 => {
                if local.kick(id)
                    && let Some(record) = book.record(id)
                {
                    (record.cut, record.called.over) = (true, true);
                }
            }
            1 => drop(local.kick(ConnectionId::from_number(self.rng.bits()))),
            how => {
                let bytes = self.rng.up_to(300);
                let blob = book.blob(bytes);
                drop(book);
                if how == 2 {
                    let connection = local.connection(id);
                    connection.map(|mut connection| connection.send(&blob));
                } else {
                    let payload = self.book.borrow().payload(&blob);
                    let _ = local.send_to(id, payload);
                }
            }
        }
    }

    /// Sends the peer's bytes back.
    pub(super) fn echo(&self, talk: &mut Talk, connection: &mut Connection<'_>, bytes: usize) {
        let (key, used) = (talk.key, talk.used);
        talk.used += bytes as u64;
        if bytes > 0 {
            let _ = self.say(talk, connection, key, used, bytes);
        }
    }
}
