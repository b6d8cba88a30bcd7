//! The system calls that a shard makes directly, beside its ring.

use super::calls::TcpOptions;
use super::{
    Delivery, Descriptor, Errno, FileStatus, Instruction, Outside, Pipe, Shutdown, Traffic, calls,
    direct,
};
use crate::address::SocketPath;
use std::net::SocketAddr;

/// The system calls that a shard makes directly. The bodies make their call of the kernel; a
/// simulated ring replaces every one of them.
///
/// Invariant: no call blocks. Descriptors are non-blocking.
pub trait Calls {
    /// The calls on descriptors of this ring that a thread makes without the ring.
    fn outside(&self) -> Outside {
        Outside::KERNEL
    }

    /// A socket that no operation uses goes to the ring of another shard. Returns what that ring
    /// [takes in](Self::take_in).
    fn hand_out(&mut self, socket: Descriptor) -> Descriptor {
        socket
    }

    /// A socket comes from the ring of another shard. Returns its descriptor here.
    fn take_in(&mut self, socket: Descriptor) -> Descriptor {
        socket
    }

    /// shutdown(2) of a connected socket.
    ///
    /// # Errors
    /// ENOTCONN after a reset is normal.
    fn shutdown(&mut self, socket: Descriptor, how: Shutdown) -> Result<(), Errno> {
        direct::shutdown(socket, how)
    }

    /// connect(2) to `AF_UNSPEC`: sends RST at once, leaves no TIME_WAIT and ends armed operations.
    /// A Unix socket has no RST: shutdown(2) of both halves ends its operations, and the peer reads
    /// what has left, and then the end.
    ///
    /// # Errors
    /// As connect(2).
    fn abort(&mut self, socket: Descriptor) -> Result<(), Errno> {
        direct::abort(socket)
    }

    /// getpeername(2).
    ///
    /// # Errors
    /// ENOTCONN if the client reset before it was accepted.
    fn peer_address(&mut self, socket: Descriptor) -> Result<SocketAddr, Errno> {
        direct::peer_address(socket)
    }

    /// Returns how many bytes the peer has acknowledged, has not acknowledged, and has sent.
    ///
    /// # Errors
    /// As getsockopt(2) and ioctl(2).
    fn delivery(&mut self, socket: Descriptor) -> Result<Delivery, Errno> {
        direct::delivery(socket)
    }

    /// The bytes of a socket in both directions: `TCP_INFO`. The kernel counts a FIN of the peer as
    /// a byte. `fin_seen` says whether it has come, where the state of the socket does not.
    ///
    /// # Errors
    /// As getsockopt(2). EOPNOTSUPP: a Unix socket.
    fn traffic(&mut self, socket: Descriptor, fin_seen: bool) -> Result<Traffic, Errno> {
        direct::traffic(socket, fin_seen)
    }

    /// recv(2) of at most `bytes_max` bytes that are thrown away (`MSG_TRUNC`, tcp(7)). Returns 0
    /// at the end of the stream.
    ///
    /// # Errors
    /// EAGAIN: nothing is there to read. Others as recv(2).
    fn discard(&mut self, socket: Descriptor, bytes_max: u32) -> Result<u32, Errno> {
        direct::discard(socket, bytes_max)
    }

    /// recv(2) without waiting. Returns 0 at the end of the stream.
    ///
    /// # Errors
    /// EAGAIN: nothing is there to read. Others as recv(2).
    fn receive_now(&mut self, socket: Descriptor, bytes: &mut [u8]) -> Result<u32, Errno> {
        direct::receive(socket, bytes)
    }

    /// read(2) of a pipe that holds bytes, without waiting.
    ///
    /// # Errors
    /// As read(2).
    fn read_pipe(&mut self, pipe: Descriptor, bytes: &mut [u8]) -> Result<u32, Errno> {
        direct::read_pipe(pipe, bytes)
    }

    /// Returns whether a connected TCP socket was reset: `tcpi_state` of `TCP_INFO` is `TCP_CLOSE`.
    /// Hazard: a send that was cut short consumes the error of the reset, and a receive then
    /// returns 0.
    fn is_reset(&mut self, socket: Descriptor) -> bool {
        direct::is_reset(socket)
    }

    /// sendmsg(2) without waiting. The bytes stay valid during the call. `more` adds `MSG_MORE`.
    /// The kernel may take fewer bytes.
    ///
    /// # Errors
    /// EAGAIN: the socket has no room. ENOBUFS, ENOMEM, EPIPE, ECONNRESET.
    fn send_now(
        &mut self,
        socket: Descriptor,
        pieces: &[libc::iovec],
        more: bool,
    ) -> Result<u32, Errno> {
        direct::send(socket, pieces, more)
    }

    /// Non-blocking splice(2) from a pipe to a socket. `more` adds `SPLICE_F_MORE`.
    ///
    /// # Errors
    /// EAGAIN: the socket has no room (the pipe is known to hold bytes). EPIPE, ECONNRESET.
    fn splice_to_socket(
        &mut self,
        pipe: Descriptor,
        socket: Descriptor,
        length: u32,
        more: bool,
    ) -> Result<u32, Errno> {
        direct::splice_to_socket(pipe, socket, length, more)
    }

    /// preadv2(2) with `RWF_NOWAIT` into the arena: reads from the page cache only. 0 is the end of
    /// the file.
    ///
    /// # Errors
    /// EAGAIN: the range is not cached. EOPNOTSUPP: the file system does not support the flag.
    fn read_cached(
        &mut self,
        file: Descriptor,
        address: *mut u8,
        length: u32,
        offset: u64,
    ) -> Result<u32, Errno> {
        direct::read_cached(file, address, length, offset)
    }

    /// Returns whether a whole range of a regular file is in the page cache, so that reading it
    /// does not wait for a disk. `length` is not 0.
    fn is_cached(&mut self, file: Descriptor, offset: u64, length: u32) -> bool {
        direct::is_cached(file, offset, length)
    }

    /// sendfile(2) of a range that is cached. 0 means that the file ends before the range.
    ///
    /// # Errors
    /// EAGAIN: the socket has no room. EPIPE, ECONNRESET, and those of read(2).
    fn send_file(
        &mut self,
        file: Descriptor,
        offset: u64,
        length: u32,
        socket: Descriptor,
    ) -> Result<u32, Errno> {
        direct::send_file(file, offset, length, socket)
    }

    /// Non-blocking splice(2) from a socket to an empty pipe. 0 is the peer's FIN.
    ///
    /// # Errors
    /// EAGAIN: nothing has arrived. ECONNRESET.
    fn splice_from_socket(
        &mut self,
        socket: Descriptor,
        pipe: Descriptor,
        length: u32,
    ) -> Result<u32, Errno> {
        direct::splice_from_socket(socket, pipe, length)
    }

    /// A new non-blocking TCP socket for connecting to `to`, with `TCP_NODELAY`. It is bound to
    /// `source`. `keepalive_s` sets `SO_KEEPALIVE` with `TCP_KEEPIDLE` in seconds.
    ///
    /// # Errors
    /// EMFILE, ENFILE, ENOBUFS, ENOMEM. EAFNOSUPPORT: the host has no IPv6, or the addresses are of
    /// different families. EADDRNOTAVAIL, EADDRINUSE and EACCES of bind(2).
    fn socket(
        &mut self,
        to: &SocketAddr,
        source: Option<SocketAddr>,
        keepalive_s: Option<u32>,
    ) -> Result<Descriptor, Errno> {
        direct::socket(to, source, keepalive_s)
    }

    /// A new non-blocking Unix stream socket that is connected. connect(2) of such a socket never
    /// waits for the other side.
    ///
    /// # Errors
    /// As `socket` and connect(2): ECONNREFUSED, ENOENT, EACCES. EAGAIN: the backlog is full.
    /// EINVAL: no path or too long a one.
    fn connect_unix(&mut self, path: &SocketPath) -> Result<Descriptor, Errno> {
        calls::connect_unix(path)
    }

    /// Sets `TCP_USER_TIMEOUT` of a connected socket, ms.
    ///
    /// # Errors
    /// None is known for a TCP socket.
    fn set_user_timeout(&mut self, socket: Descriptor, ms: u32) -> Result<(), Errno> {
        calls::set_user_timeout(socket, ms)
    }

    /// Sets the options of a TCP socket, which connections inherit from a listener.
    ///
    /// # Errors
    /// As setsockopt(2).
    fn set_tcp_options(&mut self, socket: Descriptor, options: TcpOptions) -> Result<(), Errno> {
        options.set(socket)
    }

    /// A new pipe. The kernel may grant less than `capacity_bytes`.
    ///
    /// # Errors
    /// EMFILE, ENFILE.
    fn pipe(&mut self, capacity_bytes: u32) -> Result<Pipe, Errno> {
        direct::pipe(capacity_bytes)
    }

    /// accept4(2) without waiting, to empty a backlog.
    ///
    /// # Errors
    /// EAGAIN: the backlog is empty.
    fn accept_now(&mut self, listener: Descriptor) -> Result<Descriptor, Errno> {
        direct::accept_now(listener)
    }

    /// The number of received bytes that were not read yet (`FIONREAD`).
    ///
    /// # Errors
    /// As ioctl(2).
    fn unread_bytes(&mut self, socket: Descriptor) -> Result<u32, Errno> {
        direct::unread_bytes(socket)
    }

    /// Attaches a classic BPF filter to a socket in place of the present one. An empty program
    /// detaches it. An accepted socket inherits the filter of its listener.
    ///
    /// # Errors
    /// ENOMEM: the program is too long for `net.core.optmem_max`.
    fn set_filter(&mut self, socket: Descriptor, program: &[Instruction]) -> Result<(), Errno> {
        direct::set_filter(socket, program)
    }

    /// The number of clients in a listener's accept queue.
    ///
    /// # Errors
    /// As getsockopt(2).
    fn unaccepted(&mut self, listener: Descriptor) -> Result<u32, Errno> {
        direct::unaccepted(listener)
    }

    /// The number of packets that a listener has dropped, because of its filter or a full queue,
    /// modulo 2^32.
    ///
    /// # Errors
    /// As getsockopt(2).
    fn drops(&mut self, listener: Descriptor) -> Result<u32, Errno> {
        direct::drops(listener)
    }

    /// close(2) of a descriptor that no operation uses.
    fn close_now(&mut self, descriptor: Descriptor) {
        (self.outside().close)(descriptor);
    }

    /// statx(2) of an open file, without asking a file server.
    ///
    /// # Errors
    /// As statx(2).
    fn file_status(&mut self, file: Descriptor) -> Result<FileStatus, Errno> {
        calls::file_status(file)
    }

    /// Empties the event descriptor that other threads write to.
    fn clear_wake(&mut self, wake: Descriptor) {
        direct::clear_wake(wake);
    }
}
