//! Clients that ask all the time and check every reply.

use crate::common::{PATIENCE, Reply};
use crate::configured::request;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::Duration;

/// The pause of a client between two requests. Without it the clients would take the CPU time that
/// the server needs for the reloads.
pub const THINK: Duration = Duration::from_millis(1);

/// The clients of a test, and when they end.
#[derive(Default)]
pub struct Load {
    is_over: AtomicBool,
    replies: AtomicU64,
}

impl Load {
    /// The number of replies so far.
    pub fn replies(&self) -> u64 {
        self.replies.load(Ordering::Relaxed)
    }

    pub fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    /// Ends the load when it is dropped, also by a panic: a scope waits for its clients.
    pub fn guard(&self) -> Guard<'_> {
        Guard(self)
    }

    /// A client on a connection that it keeps. It asks this host for `/a.txt` until the load is
    /// over, and `check` looks at each reply.
    pub fn client<'a>(
        &'a self,
        scope: &'a Scope<'a, '_>,
        address: SocketAddr,
        host: String,
        mut check: impl FnMut(&Reply) + Send + 'a,
    ) -> ScopedJoinHandle<'a, ()> {
        scope.spawn(move || {
            let request = request("GET", "/a.txt", &format!("Host: {host}\r\n"));
            let mut kept: Option<BufReader<TcpStream>> = None;
            while !self.is_over.load(Ordering::Relaxed) {
                let is_new = kept.is_none();
                let mut stream = kept.take().unwrap_or_else(|| connect(address));
                let reply = match ask(&mut stream, &request) {
                    Ok(reply) => reply,
                    // The server has ended a connection between two requests, with a FIN.
                    Err(error) if !is_new && error.kind() == io::ErrorKind::UnexpectedEof => {
                        continue;
                    }
                    Err(error) => panic!("{host} of {address}: {error}"),
                };
                self.replies.fetch_add(1, Ordering::Relaxed);
                check(&reply);
                thread::sleep(THINK);
                if reply.fields.get("connection").is_none_or(|value| value != "close") {
                    kept = Some(stream);
                }
            }
        })
    }
}

pub struct Guard<'a>(&'a Load);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

pub fn connect(address: SocketAddr) -> BufReader<TcpStream> {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    BufReader::new(stream)
}

/// A request and its reply. `UnexpectedEof`: the connection has ended before a byte of it.
pub fn ask(stream: &mut BufReader<TcpStream>, request: &str) -> io::Result<Reply> {
    stream.get_mut().write_all(request.as_bytes())?;
    if stream.fill_buf()?.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let cut = || io::Error::other("the reply is cut off");
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let status = line.get(9..12).and_then(|status| status.parse().ok()).ok_or_else(cut)?;
    let mut fields = std::collections::HashMap::new();
    loop {
        line.clear();
        stream.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        fields.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let length = fields.get("content-length").and_then(|length| length.parse().ok());
    let mut body = vec![0; length.ok_or_else(cut)?];
    stream.read_exact(&mut body).map_err(|_| cut())?;
    Ok(Reply { status, fields, body })
}
