//! The fault matrix: points of a connection's life, and kinds of faults.

use std::fmt;
use std::str::FromStr;

crate::named! {
    /// The point at which a fault happens: a row of the matrix.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub enum Point {
        /// During the connect, probably before the server's accept(2).
        BeforeAccept = "before_accept",
        /// After the handshake, before the first byte.
        Connected = "connected",
        /// Inside a header.
        InHeader = "in_header",
        /// Between a header and its body.
        Boundary = "boundary",
        /// Inside a body.
        InBody = "in_body",
        /// After a complete request, before the first byte of the reply is read.
        Asked = "asked",
        /// Inside a reply.
        InReply = "in_reply",
        /// Between two replies to pipelined requests.
        BetweenReplies = "between_replies",
        /// Inside a file transfer, in either direction.
        InFile = "in_file",
        /// After a complete exchange, with nothing in flight.
        Idle = "idle",
        /// At the moment of the server's own timeout.
        Deadline = "deadline",
        /// While many other connections open and close.
        Capacity = "capacity",
    }
}

crate::named! {
    /// The kind of a fault: a column of the matrix.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub enum Kind {
        /// No fault: continue normally.
        None = "none",
        /// Send a FIN and leave.
        Fin = "fin",
        /// Send a FIN and read the rest.
        HalfClose = "half_close",
        /// Reset the connection.
        Rst = "rst",
        /// Close with unread data, so that the kernel resets.
        CloseUnread = "close_unread",
        /// Send everything, stop reading behind a tiny window, then read the rest.
        StopReading = "stop_reading",
        /// Send one byte at a time.
        Dribble = "dribble",
        /// Send nothing more, not even an ACK.
        Vanish = "vanish",
        /// Reset, and connect again at once from the same port.
        Reconnect = "reconnect",
    }
}

/// A cell of the matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cell {
    /// The row.
    pub point: Point,
    /// The column.
    pub kind: Kind,
}

impl fmt::Display for Cell {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.point.name(), self.kind.name())
    }
}

impl Cell {
    /// Returns every cell that makes sense in any protocol.
    pub fn all() -> impl Iterator<Item = Self> {
        let cells = |point| Kind::ALL.into_iter().map(move |kind| Self { point, kind });
        Point::ALL.into_iter().flat_map(cells).filter(|cell| cell.makes_sense())
    }

    const fn makes_sense(self) -> bool {
        use {Kind as K, Point as P};
        match (self.point, self.kind) {
            (P::Capacity, kind) => matches!(kind, K::Fin | K::Rst),
            (P::Deadline, kind) => matches!(kind, K::None | K::Fin | K::HalfClose | K::Rst),
            // There must be data that stays unread.
            (point, K::CloseUnread) => {
                matches!(point, P::Asked | P::InReply | P::BetweenReplies | P::InFile)
            }
            (point, K::StopReading) => {
                matches!(
                    point,
                    P::Connected | P::Asked | P::InReply | P::BetweenReplies | P::InFile
                )
            }
            // A request must have started, or be about to start.
            (point, K::Dribble) => {
                matches!(point, P::Connected | P::InHeader | P::Boundary | P::InBody | P::Idle)
            }
            (_, K::None | K::Fin | K::HalfClose | K::Rst | K::Vanish | K::Reconnect) => true,
        }
    }
}

/// The cells of a run: `all`, or a comma-separated list of points, kinds and cells. A `-` in front
/// of a name excludes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults(Vec<Cell>);

impl Faults {
    /// Returns the cells, row by row.
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
        // A list of exclusions only refers to all cells.
        if with.is_empty() {
            cells.extend(Cell::all());
        }
        for name in without {
            let out = named(&name[1..])?;
            cells.retain(|cell| !out.contains(cell));
        }
        cells.sort_unstable();
        cells.dedup();
        if cells.is_empty() { Err("every fault is excluded".into()) } else { Ok(Self(cells)) }
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
            "unknown fault {name:?}; expected all, a point ({}), a kind ({}), or an existing \
             combination POINT/KIND",
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
