//! The application of a simulation: every connection plays the part its peer's address was given.

use super::actor::{Actor, LINKED_PATHS, Talk};
use super::book::{Begins, Farewell, Role, key_of};
use super::callbacks::{Callback, Told};
use super::uploads::Upload;
use super::whims::Whims;
use crate::files::{NewFile, OpenFile, ReceiveFileError};
use crate::ring::simulated::{Rng, is_stretch, unix_peer};
use crate::workers::JobDone;
use crate::{
    BoxError, Connection, ConnectionId, Deadline, Forwarded, Handler, Local, Message, Origin, Peer,
    Reason, SentMarker,
};
use std::io;
use std::time::Duration;

impl Handler for Actor {
    type State = Talk;

    fn started(&mut self, shard: &mut Local<'_>) -> Result<(), BoxError> {
        self.book.borrow_mut().note_life(shard.shard(), Told::Started);
        if self.habits.ticks {
            shard.tick_after(Duration::from_millis(50));
        }
        self.employ(shard);
        Ok(())
    }

    fn drain_begun(&mut self, shard: &mut Local<'_>) {
        let number = shard.shard();
        let mut book = self.book.borrow_mut();
        book.note_life(number, Told::DrainBegun);
        let handed = self.transit.waiting(number);
        if handed > 0 {
            book.failures
                .push(format!("shard {number} drains and has not let in {handed} clients"));
        }
        drop(book);
        if self.habits.leaves {
            self.meddle(shard);
        }
        self.employ(shard);
    }

    fn ended(&mut self, shard: &mut Local<'_>) {
        let mut book = self.book.borrow_mut();
        book.note_life(shard.shard(), Told::Ended);
        let open = shard.connections();
        if open > 0 && book.failing != Some(shard.shard()) {
            book.failures.push(format!("shard {} ends with {open} connections", shard.shard()));
        }
        drop(book);
        self.employ(shard);
    }

    fn tick(&mut self, shard: &mut Local<'_>) {
        self.book.borrow_mut().note_callback(shard.shard(), false);
        shard.tick_after(Duration::from_micros(1 + self.rng.below(500_000)));
        self.meddle(shard);
        self.employ(shard);
    }

    fn shard_job_done(&mut self, shard: &mut Local<'_>, job: JobDone) {
        self.book.borrow_mut().note_callback(shard.shard(), false);
        self.hear_of_shard_job(shard, job);
    }

    fn sent(&mut self, shard: &mut Local<'_>, sent: &[SentMarker]) {
        self.book.borrow_mut().note_callback(shard.shard(), false);
        sent.iter().for_each(|sent| self.book.borrow_mut().note_sent(sent));
    }

    fn opened(&mut self, connection: &mut Connection<'_>, origin: Origin) -> Talk {
        let (id, shown_peer) = (connection.id(), connection.peer());
        let unix = || unix_peer(connection.descriptor());
        let peer = shown_peer.address().unwrap_or_else(|| unix().0);
        let mut book = self.book.borrow_mut();
        book.note_callback(id.shard(), false);
        let record = book.open(id, (peer, shown_peer), origin);
        if let Origin::Connected(tag) = origin {
            if shown_peer == Peer::Unix {
                // The connection may end in this turn.
                book.records[record].peer = unix().1;
            }
            book.connected(tag, id, connection.local().now());
        }
        let part = book.records[record].part;
        drop(book);
        let mut talk = Talk {
            id,
            record,
            part,
            rng: Rng::new(self.rng.bits()),
            key: key_of(peer),
            used: 0,
            said: 0,
            needed: 0,
            opening: None,
            requests: 0,
            closes_later: false,
            panics_at_end: false,
            paused: false,
            resumed: false,
            jobs_made: 0,
            jobs: Vec::new(),
            finishes: false,
            upload: Upload::default(),
            whims: Whims::default(),
            forwarding: None,
            quiet_until: Duration::ZERO,
        };
        if part.reads_on {
            connection.receive_while_full(true);
        }
        if self.habits.leaves && talk.rng.below(16) == 0 {
            self.leave_closure(&mut connection.local());
        }
        if self.habits.joins && talk.rng.below(8) == 0 {
            self.choose_settings(&mut talk, connection);
        }
        if self.habits.joins && talk.rng.below(4) == 0 {
            self.change_groups(&mut talk, connection);
        }
        match part.role {
            Role::Whole(bytes) => {
                talk.needed = bytes;
                connection.need(bytes);
            }
            Role::PanicsAtEnds if talk.rng.below(2) == 0 => self.panic(record),
            Role::PanicsAtEnds => talk.panics_at_end = true,
            Role::Metered(_) => self.meter(&mut talk, connection),
            Role::Ends(Begins::AtOnce, then) => self.go_to_end(&mut talk, connection, then),
            _ => self.lecture(&mut talk, connection),
        }
        talk
    }

    fn received(
        &mut self,
        talk: &mut Talk,
        connection: &mut Connection<'_>,
        bytes: &[u8],
    ) -> usize {
        self.note(talk, connection, Callback::Received);
        if !is_stretch(talk.key, talk.used, bytes) {
            self.fail(talk.id, "bytes are not what the peer sent");
        }
        let length = bytes.len();
        let mut book = self.book.borrow_mut();
        let record = &mut book.records[talk.record];
        let seen = talk.used + bytes.len() as u64;
        let fin = record.fin_shown && seen > record.shown;
        let (closing, lost) = (record.closing, seen < record.shown);
        record.shown = seen;
        drop(book);
        let paused = talk.paused || talk.whims.reasons != 0;
        let paused = paused || talk.forwarding.is_some();
        if closing || fin || lost || paused || bytes.len() < talk.needed {
            let needed = talk.needed;
            let what = format!(
                "is shown {length} bytes: closing {closing}, FIN {fin}, lost {lost}, \
                 paused {paused}, needs {needed}"
            );
            self.fail(talk.id, &what);
        }
        (talk.needed, talk.resumed) = (0, false);
        self.follow_whim(talk, connection);
        if self.habits.joins && talk.rng.below(16) == 0 {
            self.change_groups(talk, connection);
        }
        match talk.part.role {
            Role::Deaf => return 0,
            Role::Ends(begins, _) => return self.begin(talk, connection, begins, length),
            Role::Echo => {
                let part = if talk.rng.below(4) == 0 { talk.rng.up_to(length) } else { length };
                self.echo(talk, connection, part);
                if part < length {
                    self.resume(talk, connection);
                }
                return part;
            }
            Role::Pausing => {
                let part = talk.rng.pick(&[0, length, length, length]);
                self.echo(talk, connection, part);
                if part < length || talk.rng.below(4) == 0 {
                    self.pause(talk, connection);
                    connection.set_timer(0, Some(Duration::from_millis(1 + talk.rng.below(8))));
                }
                return part;
            }
            Role::Whole(each) => {
                let part = length / each * each;
                self.echo(talk, connection, part);
                talk.needed = each;
                connection.need(each);
                return part;
            }
            Role::Files => {
                talk.used += length as u64;
                talk.requests = (talk.requests + 1).min(3);
                self.request_file(talk, connection);
                return length;
            }
            Role::Forwarder => return self.forward(talk, connection, length),
            Role::Uploads | Role::Upload(_) => return self.take_file(talk, connection, length),
            Role::Pending(time) => {
                talk.used += length as u64;
                self.pause(talk, connection);
                connection.set_timer(0, Some(time));
                return length;
            }
            Role::Offloader => {
                let part = self.offload(talk, connection, length);
                if talk.rng.below(8) == 0 {
                    self.pause(talk, connection);
                    connection.set_timer(0, Some(Duration::from_millis(1 + talk.rng.below(8))));
                }
                return part;
            }
            Role::Meddler if talk.rng.below(4) == 0 => self.meddle(&mut connection.local()),
            Role::Connector => {
                self.connect_out(&mut connection.local());
                if talk.rng.below(4) == 0 {
                    self.cancel_some_connect(&mut connection.local());
                }
            }
            Role::Keeper => self.keep_or_stop(&mut connection.local()),
            _ => {}
        }
        self.echo(talk, connection, length);
        match talk.part.role {
            Role::CloseAfter(after) if talk.used >= after => self.close(talk, connection),
            Role::ShutdownAfter(after) if talk.used >= after => {
                self.shut(talk, connection);
                if talk.rng.below(2) == 0 {
                    self.pause(talk, connection);
                    connection.set_timer(0, Some(Duration::from_millis(1 + talk.rng.below(8))));
                }
            }
            Role::AbortAfter(after) if talk.used >= after => {
                self.abort(talk, connection);
            }
            Role::ProtocolAfter(after) if talk.used >= after => {
                self.violate(talk, connection);
            }
            Role::FinishAfter(after) if talk.used >= after => {
                let quiet = Duration::from_millis(talk.rng.pick(&[0, 5, 200]));
                talk.quiet_until = connection.local().now() + quiet;
                connection.finish(quiet);
            }
            Role::PanicAfter(after) if talk.used >= after => self.panic(talk.record),
            _ => {}
        }
        length
    }

    fn half_closed(&mut self, talk: &mut Talk, connection: &mut Connection<'_>) {
        self.note(talk, connection, Callback::HalfClosed);
        let mut book = self.book.borrow_mut();
        let unread = book.records[talk.record].shown > talk.used;
        let paused = talk.paused || talk.whims.reasons != 0;
        let elsewhere = talk.upload.coming.is_some() || talk.forwarding.is_some();
        if paused || (talk.resumed && unread) || elsewhere {
            let (resumed, coming) = (talk.resumed, talk.upload.coming);
            book.failures.push(format!(
                "{:?}: half_closed before the bytes it waits for: paused {paused}, resumed \
                 {resumed}, {coming:?} bytes of a file to come",
                talk.id
            ));
        }
        book.records[talk.record].fin_shown = true;
        drop(book);
        let reply = talk.rng.up_to(talk.part.reply_bytes_max.max(1));
        let waits = !talk.jobs.is_empty() && talk.rng.below(4) > 0;
        if waits || talk.part.farewell == Farewell::Finish {
            talk.finishes = true;
            return connection.finish(Duration::ZERO);
        }
        match talk.part.farewell {
            Farewell::Close => self.close(talk, connection),
            Farewell::ReplyAndClose => {
                let _ = self.say_own(talk, connection, reply);
                self.close(talk, connection);
            }
            Farewell::ReplyAndShutdown => {
                let _ = self.say_own(talk, connection, reply);
                self.shut(talk, connection);
            }
            Farewell::CloseLater => {
                talk.closes_later = true;
                connection.set_timer(0, Some(Duration::from_millis(1 + talk.rng.below(40))));
            }
            Farewell::Finish => unreachable!("seen to before"),
        }
    }

    fn writable(&mut self, talk: &mut Talk, connection: &mut Connection<'_>) {
        self.note(talk, connection, Callback::Writable);
        self.follow_whim(talk, connection);
        self.lecture(talk, connection);
        self.meter(talk, connection);
    }

    fn file_opened(
        &mut self,
        talk: &mut Talk,
        connection: &mut Connection<'_>,
        result: io::Result<OpenFile>,
    ) {
        self.note(talk, connection, Callback::FileOpened);
        let path = talk.opening.take();
        if path.is_none() {
            self.fail(talk.id, "file_opened without open_file");
        }
        let is_linked = path.is_some_and(|path| LINKED_PATHS.contains(&path));
        let again = |error: &io::Error| error.raw_os_error() == Some(libc::EAGAIN);
        if result.as_ref().map_or_else(again, |file| file.crossed_link() != is_linked) {
            self.fail(talk.id, &format!("{path:?} was opened: {result:?}"));
        }
        self.resume(talk, connection);
        if let Role::Ends(begins, then) = talk.part.role {
            return self.download(talk, connection, begins, then, result);
        }
        match result {
            Ok(file) if talk.rng.below(10) > 0 => self.answer_with(talk, connection, file),
            // Dropped, or not opened.
            _ => drop(self.say_own(talk, connection, 1)),
        }
        self.request_file(talk, connection);
    }

    fn file_created(
        &mut self,
        talk: &mut Talk,
        connection: &mut Connection<'_>,
        result: io::Result<NewFile>,
    ) {
        self.note(talk, connection, Callback::FileCreated);
        if let Role::Ends(begins, then) = talk.part.role {
            return self.upload(talk, connection, begins, then, result);
        }
        self.hear_of_new_file(talk, connection, result);
    }

    fn file_received(
        &mut self,
        talk: &mut Talk,
        connection: &mut Connection<'_>,
        result: Result<NewFile, ReceiveFileError>,
    ) {
        self.note(talk, connection, Callback::FileReceived);
        self.hear_of_file(talk, connection, result);
    }

    fn forwarded(
        &mut self,
        talk: &mut Talk,
        connection: &mut Connection<'_>,
        forwarded: Forwarded,
    ) {
        self.note(talk, connection, Callback::Forwarded);
        self.hear_of_range(talk, &forwarded);
        self.follow_whim(talk, connection);
    }

    fn file_published(
        &mut self,
        talk: &mut Talk,
        connection: &mut Connection<'_>,
        result: io::Result<()>,
    ) {
        self.note(talk, connection, Callback::FilePublished);
        self.hear_of_name(talk, result);
    }

    fn file_sent(&mut self, talk: &mut Talk, connection: &mut Connection<'_>) {
        self.note(talk, connection, Callback::FileSent);
        self.book.borrow_mut().records[talk.record].files_owed -= 1;
        if talk.rng.below(4) == 0 && !matches!(talk.part.role, Role::Ends(..)) {
            let _ = self.say_own(talk, connection, 1);
        }
    }

    fn job_done(&mut self, talk: &mut Talk, connection: &mut Connection<'_>, job: JobDone) {
        self.note(talk, connection, Callback::JobDone);
        self.follow_whim(talk, connection);
        self.hear_of_job(talk, connection, job);
    }

    fn message(&mut self, shard: &mut Local<'_>, message: Message) {
        self.book.borrow_mut().note_callback(shard.shard(), false);
        self.hear_message(shard, message);
    }

    fn message_to(&mut self, talk: &mut Talk, connection: &mut Connection<'_>, message: Message) {
        self.note(talk, connection, Callback::MessageTo);
        self.follow_whim(talk, connection);
        self.hear_message_to(talk, connection, message);
    }

    fn mailbox_room(&mut self, shard: &mut Local<'_>) {
        self.book.borrow_mut().note_callback(shard.shard(), false);
        self.hear_of_room(shard);
    }

    fn timer(&mut self, talk: &mut Talk, connection: &mut Connection<'_>, timer: u8) {
        self.note(talk, connection, Callback::Timer);
        if self.habits.leaves && talk.rng.below(8) == 0 {
            self.leave_closure(&mut connection.local());
        }
        let is_whim = self.hear_of_timer(talk, connection, timer);
        self.follow_whim(talk, connection);
        if is_whim {
            return;
        }
        if talk.closes_later {
            self.close(talk, connection);
        } else {
            self.resume(talk, connection);
        }
    }

    fn expired(&mut self, talk: &mut Talk, connection: &mut Connection<'_>, deadline: Deadline) {
        self.note(talk, connection, Callback::Expired(deadline));
        let left = self.book.borrow().records[talk.record].shown - talk.used;
        let unused = connection.unused().len() as u64;
        if deadline == Deadline::Receive && (unused == 0 || unused < left) {
            self.fail(talk.id, &format!("{unused} unused bytes, but {left} were left"));
        }
        if talk.rng.below(2) == 0 {
            let _ = self.say_own(talk, connection, 20);
        }
    }

    fn draining(&mut self, talk: &mut Talk, connection: &mut Connection<'_>) {
        self.note(talk, connection, Callback::Draining);
        let drains = connection.local().core.draining;
        self.book.borrow_mut().note_callback(talk.id.shard(), drains);
        match talk.rng.below(4) {
            _ if talk.part.stubborn => {}
            _ if matches!(talk.part.role, Role::Ends(..)) => connection.finish(Duration::ZERO),
            0 => {
                let _ = self.say_own(talk, connection, 5);
                self.close(talk, connection);
            }
            _ => connection.finish(Duration::from_millis(talk.rng.pick(&[0, 0, 5, 200]))),
        }
    }

    fn closed(
        &mut self,
        talk: Option<Talk>,
        shard: &mut Local<'_>,
        id: ConnectionId,
        reason: Reason,
    ) {
        self.book.borrow_mut().note_callback(id.shard(), false);
        self.hear_of_end(shard, id, reason);
        // Its own permit and slot are still taken.
        let permits = shard.engine().ledger().permits;
        let held = permits.total - permits.free;
        let mut book = self.book.borrow_mut();
        let (number, slots) = (shard.shard(), shard.connections());
        book.slots[number] = slots;
        let all = book.slots.iter().sum::<usize>() + self.transit.on_their_way();
        if held != all as u64 && book.failing != Some(number) {
            book.failures.push(format!("{id:?}: {held} permits held in `closed`, {all} slots"));
        }
        book.callbacks += 1;
        let wrong = book.record(id).expect("it was opened").note_call(Callback::Closed);
        book.failures.extend(wrong);
        let record = book.record(id).expect("it was opened");
        let closing = record.closing;
        record.closed = Some(reason);
        match shard.ended() {
            Some(ended) if (ended.peer, ended.origin) == (record.shown_peer, record.origin) => {
                record.traffic = ended.traffic;
            }
            other => book.failures.push(format!("{id:?}: closed describes {other:?}")),
        }
        let record = book.record(id).expect("it was opened");
        let at_once = matches!(record.part.role, Role::Ends(Begins::AtOnce, _));
        let opening = (record.part.role == Role::PanicsAtEnds || at_once) && record.panicked;
        if talk.as_ref().map_or(!opening, |talk| talk.id != id) {
            book.failures.push(format!("{id:?}: closed with another state"));
        }
        if let (Some(talk), Some(ended)) = (&talk, shard.ended())
            && talk.whims.user_data != ended.user_data
        {
            book.failures.push(format!("{id:?}: closed with user data {}", ended.user_data));
        }
        if let Some(talk) = &talk {
            let finished = matches!(talk.part.role, Role::FinishAfter(_)) && !closing;
            if finished && reason == Reason::LocalClose && shard.now() < talk.quiet_until {
                book.failures.push(format!("{id:?}: ends before it was quiet for long enough"));
            }
            // A drain may have closed it all the same.
            let waits = talk.finishes && !closing && reason == Reason::PeerFin;
            if waits && !talk.jobs.is_empty() {
                let left = &talk.jobs;
                book.failures.push(format!("{id:?}: finished with jobs under way {left:x?}"));
            }
        }
        drop(book);
        if self.rng.below(16) == 0 {
            self.connect_out(shard);
        }
        self.employ(shard);
        if self.habits.leaves && self.rng.below(4) == 0 {
            self.leave_closure(shard);
        }
        if let Some(talk) = talk.filter(|talk| talk.panics_at_end) {
            self.panic(talk.record);
        }
    }

    fn connect_failed(&mut self, shard: &mut Local<'_>, tag: u64, error: io::Error) {
        let mut book = self.book.borrow_mut();
        book.note_callback(shard.shard(), false);
        book.connects_failed += 1;
        drop(book);
        self.hear_of_failure(shard, tag, &error);
        let again = self.book.borrow().connects_again;
        if again > 0 && self.rng.below(again) == 0 {
            self.connect_out(shard);
        }
        self.employ(shard);
    }
}
