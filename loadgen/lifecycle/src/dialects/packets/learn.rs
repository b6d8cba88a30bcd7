//! Learns the files of a server with well-behaved requests before the run.

use crate::dialects::Hints;
use crate::dialects::learnt::{File, Files, KEPT_BYTES_MAX, LARGE_BYTES_MIN, Recorder};
use crate::packets::{self, Answer, Packet, Request, ServerError, code};
use crate::stream::Stream;
use std::io::{self, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

/// Maximum number of files.
const FILES_MAX: usize = 64;

/// The facts learnt about a server.
pub struct Learnt {
    /// The files.
    pub files: Files,
    /// The server has workers, so it supports digests and lists.
    pub has_workers: bool,
    /// The server accepts no uploads.
    pub is_read_only: bool,
}

/// Learns the files of the server.
///
/// # Errors
/// The server does not answer, or PACKETS.md does not allow an answer.
pub fn from(address: SocketAddr, hints: &Hints) -> Result<Learnt, String> {
    let timeout = hints.timeout;
    let failed = |error: io::Error| format!("{address} did not answer: {error}");
    let stream = hints.open(address).map_err(failed)?;
    stream.set_read_timeout(Some(timeout)).map_err(failed)?;
    stream.set_write_timeout(Some(timeout)).map_err(failed)?;
    let mut client = Client { stream: BufReader::new(stream), id: 0 };
    let mut learnt = Learnt { files: Files::default(), has_workers: true, is_read_only: false };
    let mut names = client.list().map_err(|why| format!("{address}: {why}"))?;
    learnt.has_workers = names.is_some();
    if names.as_ref().is_none_or(|names| !names.iter().any(|(size, _)| *size >= LARGE_BYTES_MIN)) {
        for (name, size) in [("ringload-1KiB", 1 << 10), ("ringload-1MiB", 1 << 20)] {
            learnt.is_read_only |= !client.put(name, size)?;
            if !learnt.is_read_only {
                names.get_or_insert_default().push((size as u64, name.into()));
            }
        }
    } else {
        learnt.is_read_only = !client.put("ringload-1KiB", 1 << 10)?;
    }
    let mut names = names.unwrap_or_default();
    names.sort_unstable();
    names.dedup();
    // Keep the largest file and the smallest ones.
    if names.len() > FILES_MAX {
        names.drain(FILES_MAX - 1..names.len() - 1);
    }
    for (_, name) in names {
        let kept: usize = learnt.files.0.iter().map(File::kept_bytes).sum();
        let file =
            client.get(&name, KEPT_BYTES_MAX - kept).map_err(|why| format!("{name}: {why}"))?;
        learnt.files.0.push(file);
    }
    Ok(learnt)
}

struct Client {
    stream: BufReader<TcpStream>,
    id: u32,
}

impl Client {
    /// Returns size and name of the files that a script can name, or `None` without lists.
    fn list(&mut self) -> Result<Option<Vec<(u64, String)>>, String> {
        let (mut names, mut after) = (Vec::new(), Vec::new());
        loop {
            let body = self.ask(Request::LIST, &[&after])?;
            let fields = match answer(&body)? {
                Answer::Listed(fields) => fields,
                Answer::Error(ServerError { code: code::NO_WORKERS, .. }) => return Ok(None),
                other => return Err(unexpected("LIST", other)),
            };
            let (more, mut entries) = fields.split_first().ok_or("LISTED is empty")?;
            while !entries.is_empty() {
                let (size, name) = packets::next_listed(&mut entries)?;
                after = name.to_vec();
                let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
                // Skips uploads of earlier runs.
                let is_ours = name.starts_with(b"ringload-") && name.len() > 20;
                if name.iter().all(is_plain) && !is_ours {
                    names.push((size, String::from_utf8_lossy(name).into_owned()));
                }
            }
            if *more == 0 {
                return Ok(Some(names));
            }
        }
    }

    /// Uploads a file with constant content. Returns false if the server accepts no uploads.
    fn put(&mut self, name: &str, size: usize) -> Result<bool, String> {
        let fields = [&[0][..], &(size as u64).to_be_bytes(), name.as_bytes()];
        let body = self.ask(Request::PUT, &fields)?;
        match answer(&body)? {
            Answer::Accepted => {}
            Answer::Error(ServerError { code: code::EXISTS, .. }) => return Ok(true),
            Answer::Error(ServerError { code: code::READ_ONLY, .. }) => return Ok(false),
            other => return Err(unexpected("PUT", other)),
        }
        let mut content = vec![0; size];
        Stream::new(0, size as u64).fill(0, &mut content);
        let mut packet = Vec::new();
        Request::DATA.append(&mut packet, self.id, &[&(size as u32).to_be_bytes()]);
        self.send(&[packet, content].concat())?;
        let body = self.next()?;
        match answer(&body)? {
            Answer::Stored => Ok(true),
            other => Err(unexpected("DATA", other)),
        }
    }

    fn get(&mut self, name: &str, kept_bytes_max: usize) -> Result<File, String> {
        let body = self.ask(Request::GET, &[name.as_bytes()])?;
        let size = match answer(&body)? {
            Answer::Offer { size_bytes } => size_bytes,
            other => return Err(unexpected("GET", other)),
        };
        let mut packet = Vec::new();
        let range = [&0_u64.to_be_bytes()[..], &size.to_be_bytes()];
        Request::TAKE.append(&mut packet, self.id, &range);
        self.send(&packet)?;
        let mut recorder = Recorder::new(name, kept_bytes_max);
        loop {
            let body = self.next()?;
            match answer(&body)? {
                Answer::Data { count_bytes }
                    if count_bytes <= packets::CHUNK_RECEIVED_BYTES_MAX =>
                {
                    let mut chunk = vec![0; count_bytes as usize];
                    self.read(&mut chunk)?;
                    recorder.take(&chunk)?;
                }
                Answer::Sent => break,
                other => return Err(unexpected("TAKE", other)),
            }
        }
        let file = recorder.finish();
        match file.length == size {
            true => Ok(file),
            false => {
                Err(format!("OFFER announced {size} bytes, but {} were received", file.length))
            }
        }
    }

    /// Sends a request and waits for its answer.
    fn ask(&mut self, kind: Request, fields: &[&[u8]]) -> Result<Vec<u8>, String> {
        self.id += 1;
        let mut packet = Vec::new();
        kind.append(&mut packet, self.id, fields);
        self.send(&packet)?;
        self.next()
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.stream.get_mut().write_all(bytes).map_err(|error| format!("cannot send: {error}"))
    }

    /// Returns the next body that is not a MESSAGE.
    fn next(&mut self) -> Result<Vec<u8>, String> {
        loop {
            let mut length = [0; packets::LENGTH_BYTES];
            self.read(&mut length)?;
            let length = u32::from_be_bytes(length);
            if length as usize > packets::BODY_BYTES_MAX {
                return Err(format!(
                    "the server does not speak the packet protocol: a packet has {length} bytes"
                ));
            }
            let mut body = vec![0; length as usize];
            self.read(&mut body)?;
            if answer(&body)? != Answer::Message {
                return Ok(body);
            }
        }
    }

    fn read(&mut self, bytes: &mut [u8]) -> Result<(), String> {
        self.stream.read_exact(bytes).map_err(|error| format!("no complete answer: {error}"))
    }
}

fn answer(body: &[u8]) -> Result<Answer<'_>, String> {
    Packet::parse(body).map(|packet| packet.answer)
}

fn unexpected(request: &str, answer: Answer<'_>) -> String {
    match answer {
        Answer::Error(error) => format!("the server answers {request} with {error}"),
        other => format!("the server answers {request} with {}", other.name()),
    }
}
