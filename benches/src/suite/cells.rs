//! The measurements: one cell for each kind of work and number of connections.

use crate::compare::{Generator, Protocol, Subject, Work};

/// The figure whose ratios a cell compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    /// Replies per second of a saturated server.
    RepliesPerSecond,
    /// Microseconds of the server's CPU per reply.
    CpuPerReply,
    /// Replies per second of the server's CPU.
    RepliesPerCpuSecond,
    /// Bytes per second of the server's CPU.
    BytesPerCpuSecond,
}

impl Figure {
    /// Returns the heading.
    pub fn heading(self) -> &'static str {
        match self {
            Self::RepliesPerSecond => "replies/s",
            Self::CpuPerReply => "CPU per reply",
            Self::RepliesPerCpuSecond => "replies per CPU-second",
            Self::BytesPerCpuSecond => "bytes per CPU-second",
        }
    }

    /// Returns true if a larger figure is better.
    pub fn more_is_better(self) -> bool {
        self != Self::CpuPerReply
    }
}

/// A server of a comparison.
#[derive(Clone, Copy)]
pub struct Contestant {
    pub subject: Subject,
    /// Shards of `ringwrightd`.
    pub shards: u32,
}

/// Requests per second, on schedule.
#[derive(Clone, Copy)]
pub enum Rate {
    /// About half of saturation.
    Half,
    /// This number.
    Fixed(u32),
}

/// One comparison of some servers.
pub struct Cell {
    /// The name on the command line.
    pub id: String,
    /// The part of the results it is in.
    pub part: &'static Part,
    pub contestants: Vec<Contestant>,
    pub work: Work,
    /// In an open loop; none: closed.
    pub rate: Option<Rate>,
    pub connections: u32,
    pub generator: Generator,
    pub figure: Figure,
    /// Servers on any CPU, not on one.
    pub unpinned: bool,
}

/// A section of the results, with its description.
pub struct Part {
    pub name: &'static str,
    pub title: &'static str,
    pub about: &'static str,
}

pub static ECHO: Part = Part {
    name: "echo",
    title: "Echo, saturated",
    about: "Messages come back; closed loop of the bare client (`ringwright-limit load`), which \
            is cheaper than any server here.",
};
pub static HTTP: Part = Part {
    name: "http",
    title: "GET of 1 KiB, saturated",
    about: "One file over kept connections; closed loop of the bare client. hyper answers from \
            memory, the bare ring sends a fixed reply and reads no file (a bound, not a peer); \
            nginx has sendfile, open_file_cache and no log.",
};
pub static PIPELINED: Part = Part {
    name: "pipelined",
    title: "GET of 1 KiB, 16 at a time",
    about: "Sixteen requests in one segment, the next when all are answered. hyper flushes each \
            reply by itself; hyper-flush is the same with `pipeline_flush`, which hyper calls \
            experimental and leaves off.",
};
pub static HALF: Part = Part {
    name: "half",
    title: "At half load, open loop",
    about: "`ringload --rate`: the same fixed rate for all, half of ringwrightd's saturated \
            rate, but at most 0.8 of that of the slowest server. Latency counts from the \
            scheduled time of a request.",
};
pub static CONNECTIONS: Part = Part {
    name: "connections",
    title: "A connection for each request",
    about: "Connect, GET of 1 KiB, close by the client; 64 at a time, `ringload \
            --requests-per-connection 1`.",
};
pub static FILES: Part = Part {
    name: "files",
    title: "Files from the page cache",
    about: "Bytes received (replies that the end of a run cut off included) per second of the \
            server's CPU; `ringload`, which compares every byte and is the bottleneck from 64 \
            KiB on.",
};
pub static GROWTH: Part = Part {
    name: "growth",
    title: "Growth with connections",
    about: "Echo of 64 bytes, saturated, the bare client; CPU of the server while all \
            connections are open. The growth of the bare ring is that of the kernel and of the \
            caches.",
};
pub static DISTINCT: Part = Part {
    name: "distinct",
    title: "Growth with distinct files",
    about: "Files of 1 KiB requested in turn, so that a server that keeps fewer files open than \
            there are finds none of them; 64 connections, the bare client.",
};
pub static SHARDS: Part = Part {
    name: "shards",
    title: "One shard and two",
    about: "GET of 1 KiB at the same rate; neither pinned by the bench, load on one of the two \
            CPUs.",
};

pub static WITNESS: Part = Part {
    name: "witness",
    title: "Other load generators",
    about: "GET of 1 KiB over 64 kept connections: by oha at a fixed rate, by `ringload` at the \
            same rate, and by wrk, which has no rate, in a closed loop. It shows if the ratios \
            depend on the generator.",
};

/// All parts, in order.
pub static PARTS: [&Part; 10] =
    [&ECHO, &HTTP, &PIPELINED, &HALF, &WITNESS, &CONNECTIONS, &FILES, &GROWTH, &DISTINCT, &SHARDS];

/// Numbers of connections of the part on growth.
pub const GROWTH_CONNECTIONS: [u32; 4] = [64, 512, 4096, 16_000];

/// A rate that every generator can keep.
const WITNESS_RATE: u32 = 20_000;

const ECHO_PEERS: [Subject; 6] = [
    Subject::Ringwrightd,
    Subject::Limit,
    Subject::Tokio,
    Subject::Monoio,
    Subject::Compio,
    Subject::Glommio,
];
const HTTP_PEERS: [Subject; 4] =
    [Subject::Ringwrightd, Subject::Limit, Subject::Hyper, Subject::Nginx];
const SERVERS: [Subject; 3] = [Subject::Ringwrightd, Subject::Hyper, Subject::Nginx];
const PIPELINED_SERVERS: [Subject; 4] =
    [Subject::Ringwrightd, Subject::Hyper, Subject::HyperFlush, Subject::Nginx];
const FILE_SERVERS: [Subject; 2] = [Subject::Ringwrightd, Subject::Nginx];
const LIMIT: [Subject; 2] = [Subject::Ringwrightd, Subject::Limit];

/// Returns all cells. The first contestant of each is `ringwrightd`.
pub fn all() -> Vec<Cell> {
    let mut cells = Vec::new();
    for (size, connections) in [(64, 64), (64, 512), (64, 4096), (4096, 64), (65_536, 64)] {
        let id = format!("echo-{}-{connections}", bytes(size));
        cells.push(Cell::new(id, &ECHO, &ECHO_PEERS, Protocol::Echo, size, connections));
    }
    for connections in [64, 512, 4096] {
        let id = format!("http-{connections}");
        cells.push(Cell::new(id, &HTTP, &HTTP_PEERS, Protocol::Http, 1024, connections));
    }
    let mut pipelined =
        Cell::new("pipelined-16".into(), &PIPELINED, &PIPELINED_SERVERS, Protocol::Http, 1024, 64);
    pipelined.work.pipeline = 16;
    pipelined.figure = Figure::RepliesPerCpuSecond;
    cells.push(pipelined);
    for (id, peers, protocol, size) in [
        ("half-echo", &ECHO_PEERS[..], Protocol::Echo, 64),
        ("half-http", &HTTP_PEERS, Protocol::Http, 1024),
    ] {
        let mut cell = Cell::new(id.into(), &HALF, peers, protocol, size, 64);
        cell.rate = Some(Rate::Half);
        cell.generator = Generator::Ringload;
        cell.figure = Figure::CpuPerReply;
        cells.push(cell);
    }
    cells.extend(witnesses());
    let mut connections =
        Cell::new("connections".into(), &CONNECTIONS, &SERVERS, Protocol::Http, 1024, 64);
    connections.work.reconnects = true;
    connections.generator = Generator::Ringload;
    connections.figure = Figure::RepliesPerCpuSecond;
    cells.push(connections);
    for (size, connections) in [(1 << 10, 64), (64 << 10, 16), (1 << 20, 16), (100 << 20, 4)] {
        let id = format!("files-{}", bytes(size));
        let mut cell = Cell::new(id, &FILES, &FILE_SERVERS, Protocol::Http, size, connections);
        cell.generator = Generator::Ringload;
        cell.figure = Figure::BytesPerCpuSecond;
        cells.push(cell);
    }
    for connections in GROWTH_CONNECTIONS {
        let id = format!("growth-{connections}");
        let mut cell = Cell::new(id, &GROWTH, &LIMIT, Protocol::Echo, 64, connections);
        cell.figure = Figure::CpuPerReply;
        cells.push(cell);
    }
    for files in [10, 1000, 100_000] {
        let id = format!("distinct-{files}");
        let mut cell = Cell::new(id, &DISTINCT, &FILE_SERVERS, Protocol::Http, 1024, 64);
        cell.work.files = Some(files);
        cell.figure = Figure::CpuPerReply;
        cells.push(cell);
    }
    let mut shards = Cell::new("shards".into(), &SHARDS, &[], Protocol::Http, 1024, 64);
    shards.contestants =
        [2, 1].map(|shards| Contestant { subject: Subject::Ringwrightd, shards }).to_vec();
    shards.unpinned = true;
    shards.rate = Some(Rate::Half);
    shards.generator = Generator::Ringload;
    shards.figure = Figure::CpuPerReply;
    cells.push(shards);
    cells
}

/// Returns the cells that other load generators measure.
fn witnesses() -> impl Iterator<Item = Cell> {
    let fixed = Some(Rate::Fixed(WITNESS_RATE));
    let generators =
        [(Generator::Oha, fixed), (Generator::Ringload, fixed), (Generator::Wrk, None)];
    generators.into_iter().map(|(generator, rate)| {
        let id = format!("witness-{}", generator.name());
        let cell = Cell::new(id, &WITNESS, &SERVERS, Protocol::Http, 1024, 64);
        Cell { generator, rate, figure: Figure::CpuPerReply, ..cell }
    })
}

impl Cell {
    /// Creates a saturated cell with one request at a time on kept connections.
    fn new(
        id: String,
        part: &'static Part,
        subjects: &[Subject],
        protocol: Protocol,
        size_bytes: u32,
        connections: u32,
    ) -> Self {
        let contestants = subjects.iter().map(|&subject| Contestant { subject, shards: 1 });
        Self {
            id,
            part,
            contestants: contestants.collect(),
            work: Work::plain(protocol, size_bytes),
            rate: None,
            connections,
            generator: Generator::Bare,
            figure: Figure::RepliesPerSecond,
            unpinned: false,
        }
    }
}

impl Contestant {
    /// Returns the name among the contestants of the cell.
    pub fn name(&self, cell: &Cell) -> String {
        let same = |other: &Contestant| other.subject == self.subject;
        if cell.contestants.iter().filter(|other| same(other)).count() > 1 {
            return format!("{} with {} shards", self.subject, self.shards);
        }
        self.subject.to_string()
    }
}

/// `64B`, `4KiB`.
pub fn bytes(count: u32) -> String {
    match count {
        0..1024 => format!("{count}B"),
        1024..0x10_0000 => format!("{}KiB", count >> 10),
        _ => format!("{}MiB", count >> 20),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_part_has_cells_and_no_two_have_the_same_name() {
        let cells = all();
        let ids: HashSet<_> = cells.iter().map(|cell| &cell.id).collect();
        assert_eq!(ids.len(), cells.len());
        for part in PARTS {
            assert!(cells.iter().any(|cell| cell.part.name == part.name), "{}", part.name);
        }
        for cell in &cells {
            assert_eq!(cell.contestants[0].subject, Subject::Ringwrightd, "{}", cell.id);
            for contestant in &cell.contestants {
                assert!(contestant.subject.speaks(cell.work.protocol), "{}", cell.id);
            }
        }
    }
}
