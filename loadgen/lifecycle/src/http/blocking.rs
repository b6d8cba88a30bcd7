//! One response from a blocking stream.

use super::reading::{Event, Reading};
use std::io::{self, ErrorKind, Read};

/// Size of the read buffer.
const READ_BYTES: usize = 64 << 10;

/// The reason why a response could not be read.
#[derive(Debug)]
pub enum Failure {
    /// The stream failed.
    Stream(io::Error),
    /// The response is wrong, or `each` refused it.
    Response(String),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Stream(error)
    }
}

/// Reads the final response to a GET and calls `each` with its head and the parts of its body.
///
/// # Errors
/// The stream failed, the response violates RFC 9112, or `each` failed.
pub fn receive(
    stream: &mut impl Read,
    mut each: impl FnMut(Event<'_>) -> Result<(), String>,
) -> Result<(), Failure> {
    let (mut reading, mut unread) = (Reading::new(), Vec::new());
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let count = match stream.read(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            read => read?,
        };
        if count == 0 {
            return match reading.fin(!unread.is_empty()) {
                Some(true) => Ok(()),
                _ => {
                    let why = "the server closed the connection before the reply was complete";
                    Err(Failure::Response(why.into()))
                }
            };
        }
        unread.extend_from_slice(&buffer[..count]);
        let mut bytes = &unread[..];
        loop {
            let event = reading.advance(&mut bytes, false, None);
            match event.map_err(|wrong| Failure::Response(wrong.to_string()))? {
                Event::More => break,
                Event::End => return Ok(()),
                Event::Head(head, _) if head.is_interim() => {}
                event => each(event).map_err(Failure::Response)?,
            }
        }
        let used = unread.len() - bytes.len();
        unread.drain(..used);
    }
}
