//! A handler that lets files come: some bytes of the stream to itself, then a range into a file,
//! and so on; a file that is whole gets a name.

use super::actor::{Actor, Talk};
use super::book::{Piece, Role, Shape};
use super::lane::Lane;
use super::world::World;
use crate::Connection;
use crate::files::{NewFile, PublishOptions, ReceiveFileError, StartFileError, StartNewFileError};
use crate::ring::simulated::stretch;
use std::collections::BTreeMap;
use std::io;

/// So few that they meet.
const NAMES: [&str; 5] = ["a", "b", "c", "folder", "with/slash"];

/// The file that a connection is at.
#[derive(Default)]
pub struct Upload {
    pub(super) creating: bool,
    file: Option<NewFile>,
    /// What is in it.
    pieces: Vec<Piece>,
    bytes: u64,
    /// How large it is to be.
    whole_bytes: u64,
    /// The range that is on its way, if one is.
    pub coming: Option<u64>,
    pub(super) publishing: Option<usize>,
}

/// A file that was given a name, or was to be.
pub struct Published {
    pub(super) shard: usize,
    pub(super) name: Vec<u8>,
    pub(super) pieces: Vec<Piece>,
    pub(super) publish: PublishOptions,
    /// What was told of it.
    pub(super) result: Option<Result<(), i32>>,
}

impl Published {
    fn content(&self) -> Vec<u8> {
        let bytes = |piece: &Piece| stretch(piece.key, piece.offset, piece.bytes as usize);
        self.pieces.iter().flat_map(bytes).collect()
    }
}

impl Actor {
    /// Uses some of the bytes shown, and lets what follows go into a file.
    pub(super) fn take_file(
        &mut self,
        talk: &mut Talk,
        connection: &mut Connection<'_>,
        length: usize,
    ) -> usize {
        if talk.upload.creating {
            // It is not paused, now and then.
            return 0;
        }
        if let Role::Upload(bytes) = talk.part.role {
            return self.take_one_file(talk, connection, bytes);
        }
        if talk.rng.below(8) == 0 {
            talk.upload.file = None;
        }
        let header = talk.rng.up_to(length.min(20));
        talk.used += header as u64;
        let Some(file) = talk.upload.file.take() else {
            let most = talk.rng.pick(&[0, 1, 300, 5_000]);
            let whole_bytes = talk.rng.below(most + 1);
            let publishing = talk.upload.publishing;
            talk.upload = Upload { creating: true, whole_bytes, publishing, ..Upload::default() };
            let created = connection.create_file(&self.directory);
            self.expect_no_second(talk, connection, created);
            if talk.rng.below(4) > 0 {
                self.pause(talk, connection);
            }
            return header;
        };
        let left = talk.upload.whole_bytes - talk.upload.bytes;
        let bytes = if talk.rng.below(2) == 0 { left } else { talk.rng.below(left + 1) };
        talk.upload.coming = Some(bytes);
        let file = match connection.receive_file(file, u64::MAX / 2, 2) {
            Err(StartNewFileError { file, error: StartFileError::OutOfRange }) => file,
            Err(StartNewFileError { error: StartFileError::Ending, .. }) => return header,
            other => {
                self.fail(talk.id, &format!("a range that no file has: {other:?}"));
                return header;
            }
        };
        if let Err(refused) = connection.receive_file(file, talk.upload.bytes, bytes)
            && refused.error != StartFileError::Ending
        {
            self.fail(talk.id, &format!("a file is not received: {refused}"));
        }
        header
    }

    /// Lets everything that comes go into one file of this size.
    fn take_one_file(
        &mut self,
        talk: &mut Talk,
        connection: &mut Connection<'_>,
        bytes: u64,
    ) -> usize {
        let Some(file) = talk.upload.file.take() else {
            talk.upload = Upload { creating: true, whole_bytes: bytes, ..Upload::default() };
            let created = connection.create_file(&self.directory);
            self.expect_no_second(talk, connection, created);
            self.pause(talk, connection);
            return 0;
        };
        talk.upload.coming = Some(bytes);
        if let Err(refused) = connection.receive_file(file, 0, bytes)
            && refused.error != StartFileError::Ending
        {
            self.fail(talk.id, &format!("a file is not received: {refused}"));
        }
        0
    }

    pub(super) fn hear_of_new_file(
        &mut self,
        talk: &mut Talk,
        connection: &mut Connection<'_>,
        result: io::Result<NewFile>,
    ) {
        if !std::mem::replace(&mut talk.upload.creating, false) {
            self.fail(talk.id, "file_created without create_file");
        }
        talk.upload.file = result.ok();
        self.resume(talk, connection);
    }

    pub(super) fn hear_of_file(
        &mut self,
        talk: &mut Talk,
        connection: &mut Connection<'_>,
        result: Result<NewFile, ReceiveFileError>,
    ) {
        let Some(asked) = talk.upload.coming.take() else {
            return self.fail(talk.id, "file_received without receive_file");
        };
        let missing = result.as_ref().map_or_else(|failed| failed.missing_bytes, |_| 0);
        if missing > asked {
            return self.fail(talk.id, "more is missing of a file than was asked for");
        }
        let piece = Piece { key: talk.key, offset: talk.used, bytes: asked, shape: Shape::Bytes };
        talk.used += asked - missing;
        talk.resumed = true;
        let mut book = self.book.borrow_mut();
        let record = &mut book.records[talk.record];
        let told = record.fin_shown && talk.used > record.shown;
        record.shown = record.shown.max(talk.used);
        drop(book);
        if told {
            self.fail(talk.id, "a file comes behind the FIN");
        }
        let Ok(file) = result else { return };
        talk.upload.pieces.push(piece);
        talk.upload.bytes += asked;
        let empty = talk.upload.pieces.iter().all(|piece| piece.bytes == 0);
        if file.bytes() != talk.upload.bytes && !empty {
            self.fail(talk.id, "a file does not know how long it is");
        }
        if talk.upload.publishing.is_some() {
            match connection.publish_file(file, b"second", PublishOptions::default()) {
                Err(StartNewFileError { file, error: StartFileError::InProgress }) => {
                    talk.upload.file = Some(file);
                }
                Err(StartNewFileError { error: StartFileError::Ending, .. }) => {}
                other => self.fail(talk.id, &format!("a second name at a time: {other:?}")),
            }
            return;
        }
        if talk.upload.bytes < talk.upload.whole_bytes {
            talk.upload.file = Some(file);
            return;
        }
        let publish =
            PublishOptions { sync: talk.rng.below(2) == 0, replace: talk.rng.below(2) == 0 };
        let name = talk.rng.pick(&NAMES).as_bytes();
        let pieces = std::mem::take(&mut talk.upload.pieces);
        let shard = connection.local().shard();
        let mut book = self.book.borrow_mut();
        talk.upload.publishing = Some(book.published.len());
        let name_bytes = name.to_vec();
        book.published.push(Published { shard, name: name_bytes, pieces, publish, result: None });
        drop(book);
        if let Err(refused) = connection.publish_file(file, name, publish)
            && refused.error != StartFileError::Ending
        {
            self.fail(talk.id, &format!("a file gets no name: {refused}"));
        }
    }

    pub(super) fn hear_of_name(&mut self, talk: &mut Talk, result: io::Result<()>) {
        let Some(at) = talk.upload.publishing.take() else {
            return self.fail(talk.id, "file_published without publish_file");
        };
        let result = result.map_err(|error| error.raw_os_error().unwrap_or(0));
        self.book.borrow_mut().published[at].result = Some(result);
    }
}

impl World {
    /// Every name leads to a whole file that was to get it, and who was told so is not lied to.
    pub(super) fn judge_files(&mut self) {
        let book = self.book.clone();
        let book = book.borrow();
        for lane in &mut self.lanes {
            let mut there: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
            let (number, at_rest) = (lane.number, lane.at_rest);
            let made = lane.ring().made.clone();
            for (at, made) in made.iter().enumerate() {
                assert!(made.names.len() <= 1, "a file has the names {:?}", made.names);
                for name in &made.names {
                    let temporary = name.starts_with(b".ringwright-");
                    assert!(!temporary || !at_rest || lane_failed(lane), "{name:?} is left");
                    there.insert(name.clone(), at);
                    let mut all = book.published.iter();
                    let known = temporary
                        || all.any(|published| {
                            let told = published.result.unwrap_or(Ok(()));
                            // A name that is there and may not outlive a crash is an error as well.
                            let may =
                                told.is_ok() || (told == Err(libc::EIO) && published.publish.sync);
                            published.shard == number
                                && published.name == *name
                                && may
                                && published.content() == made.bytes
                        });
                    assert!(
                        known,
                        "shard {number}: {name:?} holds {} bytes of nobody's",
                        made.bytes.len()
                    );
                }
            }
            let mine = book.published.iter().filter(|it| it.shard == number);
            for published in mine.filter(|it| it.result == Some(Ok(()))) {
                let found = there.get(&published.name);
                assert!(found.is_some(), "shard {number}: {:?} has gone", published.name);
                let twice = book.published.iter().filter(|it| {
                    it.shard == number
                        && it.name == published.name
                        && it.result != Some(Err(libc::EEXIST))
                });
                let made = &made[*found.expect("just looked")];
                if twice.count() == 1 {
                    assert_eq!(published.content(), made.bytes, "{:?}", published.name);
                    assert!(!published.publish.sync || made.synced == made.bytes.len());
                }
            }
        }
    }
}

/// What was being named when a shard failed stays as it is.
fn lane_failed(lane: &Lane) -> bool {
    lane.life == super::lane::Life::Failed
}
