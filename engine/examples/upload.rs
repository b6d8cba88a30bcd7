//! Receives files: `cargo run --release --example upload [ADDRESS [FOLDER]]`.
//!
//! A client sends a line `NAME LENGTH`, then LENGTH bytes, and gets `ok` or `error TEXT` in a line.
//! For example: `(echo "a.txt 6"; echo hello) | nc -q1 127.0.0.1 7004`. The bytes go from the
//! socket to the disk by splice(2). The file appears under its name when it is complete, or never.

use ringwright::files::{Directory, NewFile, PublishOptions, ReceiveFileError};
use ringwright::{Config, Connection, Engine, Error, Handler, Listener, Origin};
use std::fmt;
use std::io;
use std::path::Path;

struct Uploads {
    folder: Directory,
}

/// The file that a client is sending.
struct Upload {
    name: Vec<u8>,
    bytes: u64,
}

impl Uploads {
    fn refuse(connection: &mut Connection<'_>, why: impl fmt::Display) {
        let _ = connection.send(format!("error {why}\n").as_bytes());
        // The bytes of the file may follow, and nobody wants them.
        connection.protocol_error();
    }
}

/// The name and the length of a line without its end.
fn parse(line: &[u8]) -> Option<Upload> {
    let space = line.iter().rposition(|byte| *byte == b' ')?;
    let bytes = std::str::from_utf8(&line[space + 1..]).ok()?.trim_end().parse().ok()?;
    Some(Upload { name: line[..space].to_vec(), bytes })
}

impl Handler for Uploads {
    type State = Option<Upload>;

    fn opened(&mut self, _: &mut Connection<'_>, _: Origin) -> Option<Upload> {
        None
    }

    fn received(
        &mut self,
        upload: &mut Option<Upload>,
        connection: &mut Connection<'_>,
        bytes: &[u8],
    ) -> usize {
        // One file at a time: bytes that come early stay with the engine.
        let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else { return 0 };
        if upload.is_some() {
            return 0;
        }
        match parse(&bytes[..end]) {
            Some(line) => {
                *upload = Some(line);
                connection.create_file(&self.folder).expect("no other file is being created");
                connection.pause(); // until the file is there
            }
            None => Self::refuse(connection, "expected: NAME LENGTH"),
        }
        end + 1
    }

    fn file_created(
        &mut self,
        upload: &mut Option<Upload>,
        connection: &mut Connection<'_>,
        result: io::Result<NewFile>,
    ) {
        let bytes = upload.as_ref().map_or(0, |upload| upload.bytes);
        match result {
            Ok(file) => {
                if let Err(refused) = connection.receive_file(file, 0, bytes) {
                    Self::refuse(connection, refused);
                }
            }
            Err(error) => Self::refuse(connection, error),
        }
    }

    fn file_received(
        &mut self,
        upload: &mut Option<Upload>,
        connection: &mut Connection<'_>,
        result: Result<NewFile, ReceiveFileError>,
    ) {
        let name = upload.as_ref().map_or(&b""[..], |upload| &upload.name);
        match result {
            Ok(file) => {
                let options = PublishOptions { replace: true, ..PublishOptions::default() };
                if let Err(refused) = connection.publish_file(file, name, options) {
                    Self::refuse(connection, refused);
                }
            }
            Err(failed) => Self::refuse(connection, failed.error),
        }
    }

    fn file_published(
        &mut self,
        upload: &mut Option<Upload>,
        connection: &mut Connection<'_>,
        result: io::Result<()>,
    ) {
        *upload = None;
        match result {
            Ok(()) => {
                let _ = connection.send(b"ok\n");
                connection.resume();
            }
            Err(error) => Self::refuse(connection, error),
        }
    }
}

fn start(listener: Listener, folder: &Path) -> Result<Engine, Box<dyn std::error::Error>> {
    let folder = Directory::open_to_create(folder)?;
    let config = Config { listeners: vec![listener], ..Config::default() };
    let engine: Result<Engine, Error> =
        Engine::start(config, move |_shard| Uploads { folder: folder.clone() });
    Ok(engine?)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:7004".into());
    let folder = arguments.next().unwrap_or_else(|| ".".into());
    let engine = start(address.parse()?, Path::new(&folder))?;
    println!("receiving on {}", engine.addresses()[0]);
    engine.join()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpStream};
    use std::time::Duration;

    #[test]
    fn files_of_all_sizes_arrive_and_a_cut_one_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let engine = start("127.0.0.1:0".parse().unwrap(), folder.path()).unwrap();
        let send = |bytes: &[u8]| {
            let mut client = TcpStream::connect(engine.addresses()[0]).unwrap();
            client.write_all(bytes).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            let mut reply = String::new();
            client.read_to_string(&mut reply).unwrap();
            reply
        };
        let long = vec![7; 1_000_000];
        let all = [b"a 5\nhello", &b"empty 0\n"[..], b"long 1000000\n", &long[..]].concat();
        assert_eq!(send(&all), "ok\nok\nok\n");
        let of = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
        assert!(of("a") == b"hello" && of("empty").is_empty() && of("long") == long);
        assert!(send(b"cut 10\nhello").starts_with("error "));
        assert!(send(b"what?\n").starts_with("error expected"));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3);
        engine.handle().drain(Duration::from_secs(5));
        engine.join().unwrap();
    }
}
