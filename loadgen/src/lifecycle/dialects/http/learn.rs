//! What the files are, learnt by asking for them before the run, well behaved.

use super::reading::{Event, Reading};
use crate::lifecycle::dialects::learnt::{File, Files, KEPT_BYTES_MAX, Recorder};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Most paths of a run.
const PATHS_MAX: usize = 64;

/// All `paths`, and whether the server is ours.
///
/// # Errors
/// In words.
pub fn files(
    address: SocketAddr,
    host: &str,
    paths: &[String],
    timeout: Duration,
) -> Result<(Files, bool), String> {
    let mut files = Files::default();
    let mut is_ours = true;
    for path in paths {
        let says = |why: String| format!("{path}: {why}");
        if files.position(path).is_some() {
            continue;
        }
        let kept: usize = files.0.iter().map(File::kept_bytes).sum();
        let (first, ours) =
            file(address, host, path, KEPT_BYTES_MAX - kept, timeout).map_err(says)?;
        let (second, _) = file(address, host, path, 0, timeout).map_err(says)?;
        if first.sha256 != second.sha256 {
            return Err(says(
                "its body is another one each time; give a path whose body stays".into(),
            ));
        }
        is_ours &= ours;
        files.0.push(first);
    }
    Ok((files, is_ours))
}

/// Paths that can be part of a script, and not too many of them.
///
/// # Errors
/// The first that cannot.
pub fn check(paths: &[String]) -> Result<(), String> {
    if !(1..=PATHS_MAX).contains(&paths.len()) {
        return Err(format!("expected 1 to {PATHS_MAX} paths, not {}", paths.len()));
    }
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'\'' | b',' | b'#');
    match paths.iter().find(|path| !path.starts_with('/') || !path.bytes().all(is_plain)) {
        None => Ok(()),
        Some(path) => Err(format!(
            "{path}: expected a path that begins with /, with white space, commas, ' and # \
             percent-encoded"
        )),
    }
}

fn file(
    address: SocketAddr,
    host: &str,
    path: &str,
    kept_bytes_max: usize,
    timeout: Duration,
) -> Result<(File, bool), String> {
    // SO_RCVTIMEO answers EAGAIN (socket(7)).
    let failed = |error: std::io::Error| match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            format!("{address} does not answer within {timeout:?}")
        }
        _ => format!("{address} does not answer: {error}"),
    };
    let mut stream = TcpStream::connect_timeout(&address, timeout).map_err(failed)?;
    stream.set_read_timeout(Some(timeout)).map_err(failed)?;
    stream.set_write_timeout(Some(timeout)).map_err(failed)?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(failed)?;
    let mut recorder = Recorder::new(path, kept_bytes_max);
    let mut reading = Reading::new();
    let mut is_ours = false;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = match stream.read(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            read => read.map_err(failed)?,
        };
        if count == 0 {
            return match reading.fin() {
                Some(true) => Ok((recorder.finish(), is_ours)),
                _ => Err("the server ended the connection before the reply was whole".into()),
            };
        }
        let mut bytes = &buffer[..count];
        loop {
            match reading.advance(&mut bytes, false).map_err(|wrong| wrong.to_string())? {
                Event::More => break,
                Event::Head(head) if matches!(head.status, 100..200) => {}
                Event::Head(head) if head.status == 200 => is_ours = head.is_ours,
                Event::Head(head) => {
                    let status = head.status;
                    return Err(format!("it is answered with {status}; give a path that is there"));
                }
                Event::Body(part) => recorder.take(part)?,
                Event::End => return Ok((recorder.finish(), is_ours)),
            }
        }
    }
}
