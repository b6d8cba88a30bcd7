//! Uploads. The bytes go into a file without a name, which gets its name when it is complete.

use super::Packets;
use super::conversation::Conversation;
use super::kept::{Claim, Found, Key};
use super::wire::{Answer, Code, Refusal, Version};
use crate::served::Identity;
use ringwright::Connection;
use ringwright::files::{Directory, FileKind, NewFile, OpenFile, PublishOptions, ReceiveFileError};
use std::io;
use std::time::{Duration, Instant};

/// An upload.
#[derive(Debug)]
pub(super) struct Put {
    pub(super) id: u32,
    size: u64,
    received: u64,
    name: Box<[u8]>,
    replace: bool,
    directory: Directory,
    identity: Identity,
    /// The version of a resumable upload.
    version: Option<Version>,
    /// A resumable upload stays if its connection ends.
    claim: Option<Claim>,
    pub(super) step: Step,
}

/// The fields of a PUT or a PUT_RESUMABLE, which has a version.
pub(super) struct Wanted<'a> {
    pub(super) replace: bool,
    pub(super) size: u64,
    pub(super) version: Option<Version>,
    pub(super) name: &'a [u8],
}

/// The progress of an upload.
#[derive(Debug)]
pub(super) enum Step {
    /// The name is being looked up, to refuse a name that is taken before the bytes arrive.
    Looking,
    /// The file is being created.
    Creating,
    /// The client must send the next chunk until `until`.
    Between { file: NewFile, until: Duration },
    /// A chunk is being received.
    Filling,
    /// All bytes have arrived, and the file is given its name.
    Naming,
}

impl Step {
    /// Returns `true` if no packet may be read in this step.
    pub(super) fn waits(&self) -> bool {
        matches!(self, Self::Looking | Self::Creating | Self::Naming)
    }
}

impl Put {
    pub(super) fn deadline(&self) -> Option<Duration> {
        if let Step::Between { until, .. } = &self.step { Some(*until) } else { None }
    }

    pub(super) fn is_looking(&self) -> bool {
        matches!(self.step, Step::Looking)
    }

    /// Drops an upload that must not be resumed, with its bytes.
    pub(super) fn discard(self) {
        if let Some(claim) = self.claim {
            claim.discard();
        }
    }

    fn key(&self) -> Option<Key> {
        let version = self.version?;
        let (folder, name) = (self.identity, self.name.clone());
        Some(Key { folder, name, size: self.size, version })
    }

    fn note(&self, received: u64, bytes: u64) {
        if let Some(claim) = &self.claim {
            claim.note(received, bytes);
        }
    }
}

impl Packets {
    pub(super) fn put(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        id: u32,
        Wanted { replace, size, version, name }: Wanted<'_>,
    ) {
        let largest = self.rules.upload_bytes_max;
        let refusal = if self.rules.read_only {
            Refusal::new(Code::ReadOnly, "this server is read-only")
        } else if state.put.is_some() {
            Refusal::new(Code::Busy, "this connection has a PUT in progress")
        } else if size > largest {
            let why = format!("a file of {size} bytes is too large: {largest} are allowed");
            Refusal::new(Code::TooLarge, why)
        } else {
            let replace = replace && self.rules.replace;
            match self.root.current() {
                Ok((root, identity)) => {
                    let (directory, name): (_, Box<[u8]>) = (root.directory.clone(), name.into());
                    let (received, claim, step) = (0, None, Step::Looking);
                    // Refused only on a connection that is ending: one open at a time is asked for.
                    let _ = connection.open_file(&directory, &name);
                    let put = Put {
                        id,
                        size,
                        received,
                        name,
                        replace,
                        directory,
                        identity,
                        version,
                        claim,
                        step,
                    };
                    state.put = Some(Box::new(put));
                    return;
                }
                Err(missing) => Refusal::folder_missing(missing),
            }
        };
        self.refuse(state, connection, id, &refusal);
    }

    /// The lookup of the name is done.
    pub(super) fn looked(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        opened: io::Result<OpenFile>,
    ) {
        let put = put_of(state);
        let refusal = match opened {
            Ok(file) if put.replace && file.status().kind == FileKind::Regular => None,
            Ok(_) => Some(Refusal::exists()),
            Err(error) => match error.raw_os_error() {
                Some(libc::ENOENT) => None,
                // These errors mean that something with this name exists.
                Some(libc::EACCES | libc::EPERM | libc::ELOOP | libc::ENXIO | libc::ENODEV) => {
                    Some(Refusal::exists())
                }
                _ => Some(Refusal::of_writing(&error)),
            },
        };
        match refusal {
            None => self.resume(state, connection),
            Some(refusal) => self.give_up(state, connection, &refusal),
        }
    }

    /// Continues an upload that waits to be resumed, or creates a file.
    fn resume(&mut self, state: &mut Conversation, connection: &mut Connection<'_>) {
        let put = put_of(state);
        match put.key().map_or(Found::Nothing, |key| self.kept.resume(&key, Instant::now())) {
            Found::Waiting(claim, file, received) => {
                (put.claim, put.received) = (Some(claim), received);
                self.accept(state, connection, file);
            }
            Found::InUse => self.give_up(state, connection, &in_use()),
            Found::Nothing => {
                // Refused only on a connection that is ending: one open at a time is asked for.
                let _ = connection.create_file(&put.directory);
                put.step = Step::Creating;
            }
        }
    }

    pub(super) fn created(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        created: io::Result<NewFile>,
    ) {
        match created {
            Ok(file) => {
                let put = put_of(state);
                if let Some(key) = put.key() {
                    put.claim = self.kept.begin(key, &file);
                    if put.claim.is_none() {
                        return self.give_up(state, connection, &in_use());
                    }
                    if let Some(next) = self.upkeep() {
                        connection.local().tick_after(next);
                    }
                }
                self.accept(state, connection, file);
            }
            Err(error) => self.fail(state, connection, &error),
        }
    }

    /// Tells the client to send the bytes.
    fn accept(&mut self, state: &mut Conversation, connection: &mut Connection<'_>, file: NewFile) {
        let put = put_of(state);
        let (id, offset) = (put.id, put.received.to_be_bytes());
        match put.version {
            None => self.answer(state, connection, Answer::Accepted, id, &[]),
            Some(_) => self.answer(state, connection, Answer::Resumed, id, &offset),
        }
        self.go_on(state, connection, file);
    }

    /// Receives a chunk of `count` bytes, or skips it if no upload has this id.
    pub(super) fn data(
        &self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        id: u32,
        count: u32,
    ) {
        let length = u64::from(count);
        let Some(put) = state.put.as_mut().filter(|put| put.id == id) else {
            state.skip_bytes = length;
            return;
        };
        if length > put.size - put.received {
            let more =
                Refusal::new(Code::Malformed, "the chunk exceeds the size that PUT announced");
            return self.refuse(state, connection, id, &more);
        }
        let Step::Between { file, .. } = std::mem::replace(&mut put.step, Step::Filling) else {
            unreachable!("no packet is read while a put is busy");
        };
        // Refused only on a connection that is ending: one file at a time is asked for.
        let _ = connection.receive_file(file, put.received, length);
        put.note(put.received, put.received + length);
        put.received += length;
    }

    pub(super) fn filled(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        received: Result<NewFile, ReceiveFileError>,
    ) {
        match received {
            Ok(file) => {
                let put = put_of(state);
                put.note(put.received, put.received);
                self.go_on(state, connection, file);
            }
            Err(ReceiveFileError { error, .. }) if error.kind() == io::ErrorKind::UnexpectedEof => {
                // The client's FIN: the file is complete up to this chunk.
                self.give_up(state, connection, &Refusal::of_writing(&error));
            }
            Err(ReceiveFileError { error, missing_bytes, .. }) => {
                state.skip_bytes = missing_bytes;
                self.fail(state, connection, &error);
            }
        }
    }

    /// Waits for the next chunk, or names the file if all bytes have arrived. Ends the upload if
    /// its directory is not served any more: a file that is stored there could not be got.
    fn go_on(&mut self, state: &mut Conversation, connection: &mut Connection<'_>, file: NewFile) {
        let put = put_of(state);
        if self.root.current().map(|(_, identity)| identity) != Ok(put.identity) {
            return self.give_up(state, connection, &Refusal::folder_replaced());
        }
        if put.received < put.size {
            let until = self.offer_ends(connection);
            put.step = Step::Between { file, until };
            return;
        }
        // Its file may get a name from here on, also if the connection ends. A second name for it
        // would not replace the first: rename(2) ignores two names of one file.
        if let Some(claim) = put.claim.take() {
            claim.discard();
        }
        let publish = PublishOptions { sync: self.rules.sync, replace: put.replace };
        // Refused only on a connection that is ending: one file at a time is asked for.
        let _ = connection.publish_file(file, &put.name, publish);
        put.step = Step::Naming;
    }

    pub(super) fn named(
        &self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        named: io::Result<()>,
    ) {
        match named {
            Ok(()) => {
                let id = put_of(state).id;
                state.put = None;
                self.answer(state, connection, Answer::Stored, id, &[]);
            }
            Err(error) => self.fail(state, connection, &error),
        }
    }

    /// Ends an upload whose file cannot be used any more.
    fn fail(&self, state: &mut Conversation, connection: &mut Connection<'_>, error: &io::Error) {
        let refusal = Refusal::of_writing(error);
        if refusal.code == Code::DiskFull {
            self.kept.clear();
        }
        if let Some(claim) = put_of(state).claim.take() {
            claim.discard();
        }
        self.give_up(state, connection, &refusal);
    }

    /// Ends an upload with an ERROR. Dropping it removes the received bytes, or lets a resumable
    /// upload wait.
    pub(super) fn give_up(
        &self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        why: &Refusal,
    ) {
        let id = put_of(state).id;
        state.put = None;
        self.refuse(state, connection, id, why);
    }
}

fn in_use() -> Refusal {
    let why = "another connection has this upload in progress; try again when it has ended";
    Refusal::new(Code::Busy, why)
}

fn put_of(state: &mut Conversation) -> &mut Put {
    state.put.as_mut().expect("this callback belongs to a put")
}
