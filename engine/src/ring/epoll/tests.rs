//! Facts of the ring on epoll that io_uring need not share.
