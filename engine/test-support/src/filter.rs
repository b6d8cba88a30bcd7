//! Socket filters.

use crate::root::needs_root;
use std::net::TcpListener;
use std::os::fd::AsRawFd;

/// Returns true if a test that needs socket filters can run; see [`needs_root`].
///
/// Newer kernels (commit 5d39580f68e6) attach them to TCP sockets for CAP_NET_ADMIN only.
#[must_use]
#[track_caller]
pub fn can_filter() -> bool {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let all = (libc::BPF_RET | libc::BPF_K) as u16;
    let mut takes_all = libc::sock_filter { code: all, jt: 0, jf: 0, k: u32::MAX };
    let program = libc::sock_fprog { len: 1, filter: &raw mut takes_all };
    let length = size_of_val(&program) as libc::socklen_t;
    // SAFETY: the program and its one statement live during the call.
    let result = unsafe {
        let program = (&raw const program).cast();
        let (level, name) = (libc::SOL_SOCKET, libc::SO_ATTACH_FILTER);
        libc::setsockopt(socket.as_raw_fd(), level, name, program, length)
    };
    result == 0 || needs_root("this kernel lets only root filter TCP")
}
