//! Learns the files of a server with well-behaved requests before the run.

use super::heads::Head;
use crate::dialects::Hints;
use crate::dialects::learnt::{File, Files, KEPT_BYTES_MAX, Recorder};
use crate::http::blocking;
use crate::http::reading::Event;
use std::io::{ErrorKind, Write};
use std::net::SocketAddr;

/// Maximum number of paths.
const PATHS_MAX: usize = 64;
/// Maximum number of requests for a path until two replies are equal. One odd reply, such as the
/// first of a server that starts up, does not count.
const TRIES_MAX: usize = 4;

/// Requests all `paths`. Returns the files, and true if the server is `ringwrightd`.
///
/// # Errors
/// Describes the path and the wrong answer.
pub fn files(
    address: SocketAddr,
    host: &str,
    paths: &[String],
    hints: &Hints,
) -> Result<(Files, bool), String> {
    let mut files = Files::default();
    let mut is_ours = true;
    for path in paths {
        if files.position(path).is_some() {
            continue;
        }
        let kept: usize = files.0.iter().map(File::kept_bytes).sum();
        let ask = |_: usize| file(address, host, path, KEPT_BYTES_MAX - kept, hints);
        let (file, ours) = agreed((0..TRIES_MAX).map(ask), hints.vary_ok)
            .map_err(|why| format!("{path}: {why}"))?;
        is_ours &= ours;
        files.0.push(file);
    }
    Ok((files, is_ours))
}

/// Returns the file of the first two equal replies. With `vary_ok`, two good replies suffice.
fn agreed(
    tries: impl Iterator<Item = Result<(File, bool), String>>,
    vary_ok: bool,
) -> Result<(File, bool), String> {
    let mut seen: Vec<(File, bool)> = Vec::new();
    let mut failed = None;
    for one in tries {
        match one {
            Ok((file, ours)) if seen.iter().any(|(other, _)| other.sha256 == file.sha256) => {
                return Ok((file, ours));
            }
            Ok((mut file, ours)) if vary_ok && !seen.is_empty() => {
                file.varies = true;
                return Ok((file, ours));
            }
            Ok(one) => seen.push(one),
            // A second failure is no accident.
            Err(why) if failed.is_some() => return Err(why),
            Err(why) => failed = Some(why),
        }
    }
    Err("the body differs between requests; give a --path with a constant body, or --vary-ok"
        .into())
}

/// Checks the number of paths, and that each can be part of a script.
///
/// # Errors
/// Describes the first invalid path.
pub fn check(paths: &[String]) -> Result<(), String> {
    if !(1..=PATHS_MAX).contains(&paths.len()) {
        return Err(format!("expected 1 to {PATHS_MAX} paths, found {}", paths.len()));
    }
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'\'' | b',' | b'#');
    match paths.iter().find(|path| !path.starts_with('/') || !path.bytes().all(is_plain)) {
        None => Ok(()),
        Some(path) => Err(format!(
            "{path}: a path must begin with /, and white space, commas, ' and # must be \
             percent-encoded"
        )),
    }
}

fn file(
    address: SocketAddr,
    host: &str,
    path: &str,
    kept_bytes_max: usize,
    hints: &Hints,
) -> Result<(File, bool), String> {
    let timeout = hints.timeout;
    // SO_RCVTIMEO returns EAGAIN (socket(7)).
    let failed = |error: std::io::Error| match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            format!("{address} did not answer within {timeout:?}; raise --timeout")
        }
        _ => format!("{address} did not answer: {error}"),
    };
    let mut stream = hints.open(address).map_err(failed)?;
    stream.set_read_timeout(Some(timeout)).map_err(failed)?;
    stream.set_write_timeout(Some(timeout)).map_err(failed)?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(failed)?;
    let mut recorder = Recorder::new(path, kept_bytes_max);
    let mut is_ours = false;
    let received = blocking::receive(&mut stream, |event| match event {
        Event::Head(head, section) if head.status == 200 => {
            is_ours = Head::new(head, section).is_ours;
            Ok(())
        }
        Event::Head(head, _) => {
            Err(format!("the server answers {}; give a --path that exists", head.status))
        }
        Event::Body(part) => recorder.take(part),
        Event::More | Event::End => Ok(()),
    });
    match received {
        Ok(()) => Ok((recorder.finish(), is_ours)),
        Err(blocking::Failure::Stream(error)) => Err(failed(error)),
        Err(blocking::Failure::Response(why)) => Err(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(body: &str) -> Result<(File, bool), String> {
        let mut recorder = Recorder::new("/a", 100);
        recorder.take(body.as_bytes())?;
        Ok((recorder.finish(), false))
    }

    fn of(replies: &[&str], vary_ok: bool) -> Result<(Vec<u8>, bool), String> {
        let replies = replies.iter().map(|body| match body.strip_prefix('!') {
            Some(why) => Err(why.into()),
            None => reply(body),
        });
        let (file, _) = agreed(replies, vary_ok)?;
        Ok((file.bytes().expect("kept").to_vec(), file.varies))
    }

    #[test]
    fn the_first_two_equal_replies_decide() {
        let hello = Ok((b"hello".to_vec(), false));
        assert_eq!(of(&["hello", "hello"], false), hello);
        assert_eq!(of(&["early", "hello", "hello"], false), hello);
        assert_eq!(of(&["hello", "odd", "hello"], false), hello);
        assert_eq!(of(&["!302", "hello", "hello"], false), hello);
        assert_eq!(of(&["!404", "!404"], false), Err("404".into()));
        let error = of(&["a", "b", "c", "d"], false).expect_err("no two are equal");
        assert!(error.contains("--vary-ok"), "{error}");
        assert_eq!(of(&["a", "b"], true), Ok((b"b".to_vec(), true)));
        assert_eq!(of(&["hello", "hello"], true), hello);
    }
}
