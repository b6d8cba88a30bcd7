//! System calls about listeners: socket filters and what the kernel knows of their queues.

use super::super::{Descriptor, Errno, Instruction};
use super::answer;
use std::ptr;

/// setsockopt(2) `SO_ATTACH_FILTER`, or `SO_DETACH_FILTER` for an empty program.
pub(in crate::ring) fn set_filter(
    socket: Descriptor,
    program: &[Instruction],
) -> Result<(), Errno> {
    if program.is_empty() {
        return match set(socket, libc::SO_DETACH_FILTER, ptr::null(), size_of::<libc::c_int>()) {
            // There was none.
            Err(Errno(libc::ENOENT)) => Ok(()),
            result => result,
        };
    }
    const {
        assert!(size_of::<Instruction>() == size_of::<libc::sock_filter>());
        assert!(align_of::<Instruction>() == align_of::<libc::sock_filter>());
    }
    let program = libc::sock_fprog {
        len: program.len() as libc::c_ushort,
        filter: program.as_ptr().cast::<libc::sock_filter>().cast_mut(),
    };
    let length = size_of::<libc::sock_fprog>();
    set(socket, libc::SO_ATTACH_FILTER, (&raw const program).cast(), length)
}

fn set(
    socket: Descriptor,
    option: libc::c_int,
    value: *const libc::c_void,
    length: usize,
) -> Result<(), Errno> {
    let zero: libc::c_int = 0;
    let value = if value.is_null() { (&raw const zero).cast() } else { value };
    // SAFETY: the value has the length given, and what it points to lives during the call.
    let result = unsafe {
        libc::setsockopt(socket.0, libc::SOL_SOCKET, option, value, length as libc::socklen_t)
    };
    answer(result).map(drop)
}

/// `tcpi_unacked` of `TCP_INFO`, which of a listener is the length of its accept queue.
pub(in crate::ring) fn unaccepted(listener: Descriptor) -> Result<u32, Errno> {
    /// Where it lies in struct tcp_info of <linux/tcp.h>, in words of 4 bytes.
    const UNACKED: usize = 24 / 4;
    get::<{ UNACKED + 1 }>(listener, libc::IPPROTO_TCP, libc::TCP_INFO).map(|info| info[UNACKED])
}

/// `SK_MEMINFO_DROPS` of `SO_MEMINFO` (linux/sock_diag.h): packets that the socket dropped.
pub(in crate::ring) fn drops(socket: Descriptor) -> Result<u32, Errno> {
    const DROPS: usize = 8;
    get::<{ DROPS + 1 }>(socket, libc::SOL_SOCKET, libc::SO_MEMINFO).map(|info| info[DROPS])
}

fn get<const WORDS: usize>(
    socket: Descriptor,
    level: libc::c_int,
    option: libc::c_int,
) -> Result<[u32; WORDS], Errno> {
    let mut words = [0u32; WORDS];
    let mut length = size_of_val(&words) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes.
    answer(unsafe {
        libc::getsockopt(socket.0, level, option, words.as_mut_ptr().cast(), &raw mut length)
    })?;
    Ok(words)
}

/// ioctl(2) `FIONREAD`: bytes received and not read.
pub(in crate::ring) fn unread_bytes(socket: Descriptor) -> Result<u32, Errno> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the kernel writes one int.
    answer(unsafe { libc::ioctl(socket.0, libc::FIONREAD, &raw mut bytes) })?;
    Ok(bytes as u32)
}
