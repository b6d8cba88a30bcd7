//! The fault matrix: where in a connection's life what is done to the server.

use std::fmt;
use std::str::FromStr;

/// Where in its life a connection misbehaves: the rows of the matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Point {
    /// In the instant of the connect: probably before the server's accept(2).
    BeforeAccept,
    /// After the handshake, before the first byte.
    Connected,
    /// Inside a header.
    InHeader,
    /// Between a header and its body.
    Boundary,
    /// Inside a body.
    InBody,
    /// A whole request was said, nothing of the reply was read.
    Asked,
    /// Inside a reply.
    InReply,
    /// Between two replies to requests that were said at once.
    BetweenReplies,
    /// Inside a file, to the server or from it.
    InFile,
    /// After a good exchange, with nothing on its way.
    Idle,
    /// In the instant of the server's own deadline.
    Deadline,
    /// A crowd comes and goes at the same instant.
    Capacity,
}

impl Point {
    /// Every point, in the order of a connection's life.
    pub const ALL: [Self; 12] = [
        Self::BeforeAccept,
        Self::Connected,
        Self::InHeader,
        Self::Boundary,
        Self::InBody,
        Self::Asked,
        Self::InReply,
        Self::BetweenReplies,
        Self::InFile,
        Self::Idle,
        Self::Deadline,
        Self::Capacity,
    ];

    /// The name on the command line and in output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::BeforeAccept => "before_accept",
            Self::Connected => "connected",
            Self::InHeader => "in_header",
            Self::Boundary => "boundary",
            Self::InBody => "in_body",
            Self::Asked => "asked",
            Self::InReply => "in_reply",
            Self::BetweenReplies => "between_replies",
            Self::InFile => "in_file",
            Self::Idle => "idle",
            Self::Deadline => "deadline",
            Self::Capacity => "capacity",
        }
    }
}

/// What the connection does there: the columns of the matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Nothing: it goes on and behaves well.
    None,
    /// Ends with a FIN and leaves.
    Fin,
    /// Ends with a FIN and reads what is owed.
    HalfClose,
    /// Resets.
    Rst,
    /// Closes with bytes unread: the kernel resets.
    CloseUnread,
    /// Says all, reads nothing for a while through a tiny window, then all.
    StopReading,
    /// Says one byte at a time.
    Dribble,
    /// Vanishes without a packet.
    Vanish,
    /// Resets, and is back at once from the same port.
    Reconnect,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 9] = [
        Self::None,
        Self::Fin,
        Self::HalfClose,
        Self::Rst,
        Self::CloseUnread,
        Self::StopReading,
        Self::Dribble,
        Self::Vanish,
        Self::Reconnect,
    ];

    /// The name on the command line and in output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Fin => "fin",
            Self::HalfClose => "half_close",
            Self::Rst => "rst",
            Self::CloseUnread => "close_unread",
            Self::StopReading => "stop_reading",
            Self::Dribble => "dribble",
            Self::Vanish => "vanish",
            Self::Reconnect => "reconnect",
        }
    }
}

/// A cell of the matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cell {
    /// Its row.
    pub point: Point,
    /// Its column.
    pub kind: Kind,
}

impl fmt::Display for Cell {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.point.name(), self.kind.name())
    }
}

impl Cell {
    /// Every cell that makes sense, whatever the protocol.
    pub fn all() -> impl Iterator<Item = Self> {
        let cells = |point| Kind::ALL.into_iter().map(move |kind| Self { point, kind });
        Point::ALL.into_iter().flat_map(cells).filter(|cell| cell.makes_sense())
    }

    const fn makes_sense(self) -> bool {
        use {Kind as K, Point as P};
        match (self.point, self.kind) {
            (P::Capacity, kind) => matches!(kind, K::Fin | K::Rst),
            (P::Deadline, kind) => matches!(kind, K::None | K::Fin | K::HalfClose | K::Rst),
            // Something that will stay unread is on its way.
            (point, K::CloseUnread) => {
                matches!(point, P::Asked | P::InReply | P::BetweenReplies | P::InFile)
            }
            (point, K::StopReading) => {
                matches!(
                    point,
                    P::Connected | P::Asked | P::InReply | P::BetweenReplies | P::InFile
                )
            }
            // A request has begun, or is about to.
            (point, K::Dribble) => {
                matches!(point, P::Connected | P::InHeader | P::Boundary | P::InBody | P::Idle)
            }
            (_, K::None | K::Fin | K::HalfClose | K::Rst | K::Vanish | K::Reconnect) => true,
        }
    }
}

/// The cells that a run walks: `all`, or names of points, kinds and cells with commas between them;
/// what is written with a `-` before it is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults(Vec<Cell>);

impl Faults {
    /// The cells, row by row.
    #[must_use]
    pub fn cells(&self) -> &[Cell] {
        &self.0
    }
}

impl FromStr for Faults {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (without, with): (Vec<&str>, Vec<&str>) =
            text.split(',').map(str::trim).partition(|name| name.starts_with('-'));
        let mut cells: Vec<Cell> = Vec::new();
        for name in &with {
            cells.extend(named(name)?);
        }
        // Only what is left out was named: of all.
        if with.is_empty() {
            cells.extend(Cell::all());
        }
        for name in without {
            let out = named(&name[1..])?;
            cells.retain(|cell| !out.contains(cell));
        }
        cells.sort_unstable();
        cells.dedup();
        if cells.is_empty() { Err("nothing is left of the matrix".into()) } else { Ok(Self(cells)) }
    }
}

fn named(name: &str) -> Result<Vec<Cell>, String> {
    let is_meant = |cell: &Cell| {
        let (point, kind) = (cell.point.name(), cell.kind.name());
        name == "all" || name == point || name == kind || name == cell.to_string()
    };
    let cells: Vec<Cell> = Cell::all().filter(is_meant).collect();
    match cells.is_empty() {
        false => Ok(cells),
        true => Err(format!(
            "{name:?} is none of the faults; expected all, a point ({}), a kind ({}), or POINT/KIND \
             where that makes sense",
            Point::ALL.map(Point::name).join(", "),
            Kind::ALL.map(Kind::name).join(", ")
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(text: &str) -> String {
        let faults: Faults = text.parse().expect(text);
        faults.cells().iter().map(Cell::to_string).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn faults_are_named_by_point_kind_or_cell() {
        assert_eq!(cells("all").split(' ').count(), Cell::all().count());
        assert_eq!(cells("capacity"), "capacity/fin capacity/rst");
        assert_eq!(cells("idle/rst,capacity,idle/rst"), "idle/rst capacity/fin capacity/rst");
        assert_eq!(
            cells("close_unread,-in_file,-asked"),
            "in_reply/close_unread between_replies/close_unread"
        );
        assert!(!cells("-vanish").contains("vanish") && cells("-vanish").contains("idle/rst"));
        for text in ["", "fast", "capacity/vanish", "all,", "capacity,-all"] {
            assert!(text.parse::<Faults>().is_err(), "{text}");
        }
        let error = "fast".parse::<Faults>().expect_err("no fault");
        assert!(error.contains("before_accept") && error.contains("half_close"), "{error}");
    }
}
