//! An echo server with one bug, or none.

use super::reset_on_close;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

/// The bug of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    None,
    /// Has few connections to give, and does not get back those that were reset.
    LeaksOnReset,
    /// All connections share one buffer.
    AnswersWithAnothersBytes,
    /// A FIN that is there before the answer is taken for an abort.
    ResetsOnHalfClose,
    /// Accepts no more after a connection that was gone before it was accepted.
    ForgetsToAccept,
    /// A writing thread waits for its reader, and there is one.
    WaitsForStalledReaders,
}

/// Connections of the one that leaks them: enough for a run that gives them back.
const CONNECTIONS: usize = 10;
/// Small, so that a reader that stalls is noticed.
const SEND_BUFFER_BYTES: usize = 4_096;
const MOMENT: Duration = Duration::from_millis(1);
/// Nobody else has written for so long: the connection is the only one.
const ALONE: Duration = Duration::from_millis(20);

/// A buffer for all connections, and how often it was written to.
#[derive(Default)]
struct Buffer {
    bytes: Vec<u8>,
    writes: u64,
}

/// The state that its connections share.
struct Server {
    bug: Bug,
    free: Mutex<usize>,
    freed: Condvar,
    buffer: Mutex<Buffer>,
    overwritten: Condvar,
    writer: Mutex<()>,
}

/// Starts one; its threads end with the test process.
pub fn broken(bug: Bug) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("its address");
    let server = Arc::new(Server {
        bug,
        free: Mutex::new(CONNECTIONS),
        freed: Condvar::new(),
        buffer: Mutex::new(Buffer::default()),
        overwritten: Condvar::new(),
        writer: Mutex::new(()),
    });
    thread::spawn(move || server.accept(&listener));
    address
}

impl Server {
    fn accept(self: Arc<Self>, listener: &TcpListener) {
        loop {
            if self.bug == Bug::ForgetsToAccept {
                // Busy with something else meanwhile: there is time to go before accept(2).
                thread::sleep(MOMENT);
            }
            if self.bug == Bug::LeaksOnReset {
                let free = self.free.lock().expect("no panic");
                *self.freed.wait_while(free, |free| *free == 0).expect("no panic") -= 1;
            }
            let Ok((stream, _)) = listener.accept() else { return };
            if self.bug == Bug::ForgetsToAccept && stream.peer_addr().is_err() {
                // The listener stays open, and nobody looks at it.
                loop {
                    thread::park();
                }
            }
            let server = self.clone();
            thread::spawn(move || server.serve(stream));
        }
    }

    fn serve(&self, mut stream: TcpStream) {
        let socket = socket2::SockRef::from(&stream);
        socket.set_send_buffer_size(SEND_BUFFER_BYTES).expect("a socket");
        let mut bytes = vec![0; 1 << 14];
        let was_reset = loop {
            let count = match stream.read(&mut bytes) {
                Ok(0) => break false,
                Ok(count) => count,
                Err(_) => break true,
            };
            let echo = self.echo(&mut stream, &bytes[..count]);
            if echo.is_err() {
                break true;
            }
        };
        if self.bug == Bug::LeaksOnReset && !was_reset {
            *self.free.lock().expect("no panic") += 1;
            self.freed.notify_one();
        }
    }

    fn echo(&self, stream: &mut TcpStream, bytes: &[u8]) -> std::io::Result<()> {
        match self.bug {
            Bug::AnswersWithAnothersBytes => {
                let mut shared = self.buffer.lock().expect("no panic");
                let room = shared.bytes.len().max(bytes.len());
                shared.bytes.resize(room, 0);
                shared.bytes[..bytes.len()].copy_from_slice(bytes);
                shared.writes += 1;
                self.overwritten.notify_all();
                // Until another connection has overwritten it, if there is another.
                let mine = shared.writes;
                let (shared, _) = self
                    .overwritten
                    .wait_timeout_while(shared, ALONE, |shared| shared.writes == mine)
                    .expect("no panic");
                let answer = shared.bytes[..bytes.len()].to_vec();
                drop(shared);
                stream.write_all(&answer)
            }
            Bug::ResetsOnHalfClose => {
                thread::sleep(MOMENT);
                if has_ended(stream) {
                    reset_on_close(stream);
                    return Err(std::io::ErrorKind::ConnectionAborted.into());
                }
                stream.write_all(bytes)
            }
            Bug::WaitsForStalledReaders => {
                let _writer = self.writer.lock().expect("no panic");
                stream.write_all(bytes)
            }
            Bug::None | Bug::LeaksOnReset | Bug::ForgetsToAccept => stream.write_all(bytes),
        }
    }
}

/// A FIN is there, and nothing before it.
fn has_ended(stream: &TcpStream) -> bool {
    let mut byte = 0_u8;
    // SAFETY: the descriptor is open, and there is room for the one byte that is peeked at.
    let count = unsafe {
        libc::recv(
            stream.as_raw_fd(),
            (&raw mut byte).cast(),
            1,
            libc::MSG_PEEK | libc::MSG_DONTWAIT,
        )
    };
    count == 0
}
