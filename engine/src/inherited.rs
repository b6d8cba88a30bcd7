//! A listening socket that somebody else has opened.

use crate::address::Address;
use crate::error::Error;
use crate::ring::calls;
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

/// A listening socket that was opened by somebody else, for
/// [`Listener::inherited`](crate::Listener::inherited). It can be listened on once; clones stand
/// for the same socket. It is closed with the listener, or when the last clone is dropped unused.
#[derive(Clone)]
pub struct InheritedSocket {
    number: i32,
    socket: Arc<Mutex<Option<OwnedFd>>>,
}

impl InheritedSocket {
    /// Finds its address.
    pub(crate) fn new(socket: OwnedFd) -> Result<(Self, Address), Error> {
        let number = socket.as_raw_fd();
        let refused = |source| Error::Inherited { descriptor: Some(number), source };
        let address = calls::examine(&socket).map_err(refused)?;
        Ok((Self { number, socket: Arc::new(Mutex::new(Some(socket))) }, address))
    }

    /// A stand-in for a socket of a simulated kernel.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn untried(socket: OwnedFd) -> Self {
        Self { number: socket.as_raw_fd(), socket: Arc::new(Mutex::new(Some(socket))) }
    }

    /// The socket, once.
    pub(crate) fn take(&self) -> io::Result<OwnedFd> {
        let mut socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        let used = "the inherited socket has been listened on already";
        socket.take().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, used))
    }

    /// The number that the descriptor had when it was inherited.
    #[must_use]
    pub fn number(&self) -> i32 {
        self.number
    }
}

impl PartialEq for InheritedSocket {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.socket, &other.socket)
    }
}

impl Eq for InheritedSocket {}

impl fmt::Debug for InheritedSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InheritedSocket").field("number", &self.number).finish_non_exhaustive()
    }
}
