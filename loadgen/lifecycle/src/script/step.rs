//! The steps of a connection.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

/// The options of a connect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connect {
    /// `rcvbuf=N`: SO_RCVBUF, bytes (the kernel doubles it and has a least of its own). The window
    /// is small from the SYN on, to the end of the first `flood`, the first `recv`, or a `send`
    /// that can only go on by reading.
    pub rcvbuf: Option<u32>,
    /// `from=ADDR`: from this address.
    pub from: Option<IpAddr>,
    /// `again`: from the address and port of the previous connection.
    pub again: bool,
    /// `nowait`: the next step is taken at once, before the handshake is known to be done.
    pub nowait: bool,
}

/// The amount to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Send {
    /// The rest of the requests.
    All,
    /// This number of bytes, or the rest.
    Bytes(u64),
}

/// The condition that ends a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recv {
    /// This number of bytes in addition to those of earlier `recv=N`.
    Bytes(u64),
    /// One whole reply more than the `recv=reply` before it asked for.
    Reply,
    /// The server's FIN or RST.
    End,
}

crate::named! {
    /// The ending of the connections of a crowd.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Kind {
        /// Shut down for writing, then closed.
        Fin = "fin",
        /// Reset.
        Rst = "rst",
        /// Closed.
        Close = "close",
    }
}

/// One step. A wait for the server ends with the run's patience.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// `connect[:OPTION,…]`: opens a connection; the requests begin anew.
    Connect(Connect),
    /// `send=N|all`: sends this part of the requests. Reads only when the kernel takes no more.
    Send(Send),
    /// `dribble=N@T`: sends N bytes, one every T. Reads nothing meanwhile.
    Dribble {
        /// N.
        bytes: u64,
        /// T.
        every: Duration,
    },
    /// `flood=T`: sends as much as the kernel takes for T, and reads nothing.
    Flood(Duration),
    /// `recv=N|reply|end`: reads.
    Recv(Recv),
    /// `wait=T`: sends and reads nothing: a stalled reader.
    Wait(Duration),
    /// `fin`: sends the FIN (SHUT_WR).
    Fin,
    /// `rst`: closes with a reset (SO_LINGER 0).
    Rst,
    /// `close`: closes; with bytes unread the kernel resets.
    Close,
    /// `vanish=T`: received packets are dropped from now on, so that not even an ACK is sent
    /// (SO_ATTACH_FILTER). After T the socket is closed, without a packet where that is allowed
    /// (TCP_REPAIR, CAP_NET_ADMIN), otherwise with a reset.
    Vanish(Duration),
    /// `crowd=N:fin|rst|close`: N further connections at the same time, which end at once.
    Crowd(u64, Kind),
}

impl fmt::Display for Step {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(connect) => write!(out, "{connect}"),
            Self::Send(Send::All) => write!(out, "send=all"),
            Self::Send(Send::Bytes(bytes)) => write!(out, "send={bytes}"),
            Self::Dribble { bytes, every } => write!(out, "dribble={bytes}@{}", Exact(*every)),
            Self::Flood(time) => write!(out, "flood={}", Exact(*time)),
            Self::Recv(Recv::Bytes(bytes)) => write!(out, "recv={bytes}"),
            Self::Recv(Recv::Reply) => write!(out, "recv=reply"),
            Self::Recv(Recv::End) => write!(out, "recv=end"),
            Self::Wait(time) => write!(out, "wait={}", Exact(*time)),
            Self::Fin => write!(out, "fin"),
            Self::Rst => write!(out, "rst"),
            Self::Close => write!(out, "close"),
            Self::Vanish(time) => write!(out, "vanish={}", Exact(*time)),
            Self::Crowd(count, kind) => write!(out, "crowd={count}:{}", kind.name()),
        }
    }
}

impl fmt::Display for Connect {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options = [
            self.rcvbuf.map(|bytes| format!("rcvbuf={bytes}")),
            self.from.map(|from| format!("from={from}")),
            self.again.then(|| "again".into()),
            self.nowait.then(|| "nowait".into()),
        ];
        let options: Vec<String> = options.into_iter().flatten().collect();
        match &options[..] {
            [] => write!(out, "connect"),
            options => write!(out, "connect:{}", options.join(",")),
        }
    }
}

/// Shows a time in the largest unit of which it is a multiple.
pub struct Exact(pub Duration);

impl fmt::Display for Exact {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ns = self.0.as_nanos();
        for (unit, name) in [(1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "us")] {
            if ns.is_multiple_of(unit) {
                return write!(out, "{}{name}", ns / unit);
            }
        }
        write!(out, "{ns}ns")
    }
}
