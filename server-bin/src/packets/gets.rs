//! Downloads. A file is offered and then sent in chunks, so that either side can stop between two
//! chunks and keep the connection.

use super::Packets;
use super::conversation::Conversation;
use super::wire::{Answer, CHUNK_OUT_BYTES_MAX, Code, Refusal};
use ringwright::{Connection, FileKind, OpenFile};
use std::io;
use std::time::Duration;

/// A download.
#[derive(Debug)]
pub(super) enum Get {
    /// The file is being opened.
    Opening { id: u32 },
    /// The client knows the size and may take the file until `until`.
    Offered { id: u32, file: OpenFile, until: Duration },
    /// A chunk is being sent; `left` bytes follow it.
    Sending { id: u32, file: OpenFile, offset: u64, left: u64 },
    /// The last chunk is being sent; `last` follows it.
    Ending { id: u32, last: Result<Answer, Refusal> },
}

impl Get {
    pub(super) fn id(&self) -> u32 {
        match self {
            Self::Opening { id }
            | Self::Offered { id, .. }
            | Self::Sending { id, .. }
            | Self::Ending { id, .. } => *id,
        }
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        if let Self::Offered { until, .. } = self { Some(*until) } else { None }
    }
}

impl Packets {
    pub(super) fn get(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        id: u32,
        name: &[u8],
    ) {
        if state.get.is_some() {
            let busy = Refusal::new(Code::Busy, "this connection has a GET in progress");
            return self.refuse(state, connection, id, &busy);
        }
        match self.root.current() {
            Ok((root, _)) => {
                // Refused only on a connection that is ending: one open at a time is asked for.
                let _ = connection.open_file(&root.directory, name);
                state.get = Some(Box::new(Get::Opening { id }));
            }
            Err(missing) => {
                self.refuse(state, connection, id, &Refusal::folder_missing(missing));
            }
        }
    }

    pub(super) fn offer(
        &self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        opened: io::Result<OpenFile>,
    ) {
        let Some(Get::Opening { id }) = state.get.take().map(|get| *get) else {
            unreachable!("only a GET or a PUT opens a file");
        };
        let file = match opened {
            Ok(file) if file.status().kind == FileKind::Regular => file,
            Ok(_) => return self.refuse(state, connection, id, &Refusal::no_such_file()),
            Err(error) => {
                return self.refuse(state, connection, id, &Refusal::of_reading(&error));
            }
        };
        let modified_s = u64::try_from(file.status().modified_s).unwrap_or(0);
        let fields = [file.status().bytes.to_be_bytes(), modified_s.to_be_bytes()].concat();
        self.answer(state, connection, Answer::Offer, id, &fields);
        let until = self.offer_ends(connection);
        state.get = Some(Box::new(Get::Offered { id, file, until }));
    }

    pub(super) fn take(
        &self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        id: u32,
        offset: u64,
        length: u64,
    ) {
        match state.get.take_if(|get| get.id() == id).map(|get| *get) {
            Some(Get::Offered { file, .. }) => {
                let size = file.status().bytes;
                if offset.checked_add(length).is_none_or(|end| end > size) {
                    let why = format!("offset {offset} + length {length} exceeds the size {size}");
                    let refusal = Refusal::new(Code::BadRange, why);
                    return self.refuse(state, connection, id, &refusal);
                }
                if length == 0 {
                    return self.answer(state, connection, Answer::Sent, id, &[]);
                }
                self.send_chunk(state, connection, id, file, offset, length);
            }
            Some(_) => {
                // After a second TAKE the client could not tell which range follows.
                let last = Err(Refusal::new(Code::NoTransfer, "this offer was taken before"));
                state.get = Some(Box::new(Get::Ending { id, last }));
            }
            None => self.refuse(state, connection, id, &no_transfer()),
        }
    }

    fn send_chunk(
        &self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        id: u32,
        file: OpenFile,
        offset: u64,
        left: u64,
    ) {
        let count = left.min(CHUNK_OUT_BYTES_MAX);
        self.answer(state, connection, Answer::Data, id, &(count as u32).to_be_bytes());
        let room = if count == left {
            let last = Ok(Answer::Sent);
            state.get = Some(Box::new(Get::Ending { id, last }));
            connection.send_file(file, offset, count)
        } else {
            let room = connection.send_file(file.clone(), offset, count);
            let (offset, left) = (offset + count, left - count);
            state.get = Some(Box::new(Get::Sending { id, file, offset, left }));
            room
        };
        state.note(room);
    }

    /// A chunk was sent: sends the next chunk or the final answer.
    pub(super) fn chunk_sent(&self, state: &mut Conversation, connection: &mut Connection<'_>) {
        match state.get.take().map(|get| *get) {
            Some(Get::Sending { id, file, offset, left }) => {
                self.send_chunk(state, connection, id, file, offset, left);
            }
            Some(Get::Ending { id, last: Ok(answer) }) => {
                self.answer(state, connection, answer, id, &[]);
            }
            Some(Get::Ending { id, last: Err(refusal) }) => {
                self.refuse(state, connection, id, &refusal);
            }
            Some(Get::Opening { .. } | Get::Offered { .. }) | None => {
                unreachable!("only a taken file has chunks")
            }
        }
    }

    /// The client aborts a transfer.
    pub(super) fn abort(&self, state: &mut Conversation, connection: &mut Connection<'_>, id: u32) {
        let put = state.put.take_if(|put| put.id == id).is_some();
        match state.get.take_if(|get| get.id() == id).map(|get| *get) {
            Some(Get::Sending { .. } | Get::Ending { .. }) => {
                let last = Ok(Answer::Aborted);
                state.get = Some(Box::new(Get::Ending { id, last }));
            }
            Some(Get::Offered { .. }) => {
                self.answer(state, connection, Answer::Aborted, id, &[]);
            }
            Some(Get::Opening { .. }) => unreachable!("no packet is read while a file is opened"),
            None if put => self.answer(state, connection, Answer::Aborted, id, &[]),
            None => self.refuse(state, connection, id, &no_transfer()),
        }
    }
}

fn no_transfer() -> Refusal {
    Refusal::new(Code::NoTransfer, "no transfer in progress has this id")
}
