//! The states of a connection, as a table. What the table does not list cannot happen.

use std::fmt;

/// Where a connection is in its life. There is no way back from any state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum State {
    /// Our connect is under way.
    Connecting,
    /// Both sides may send.
    Open,
    /// The peer's FIN was seen; we may still send.
    HalfClosedByPeer,
    /// Our FIN has left; the peer may still send.
    HalfClosedByUs,
    /// `close` was called: queued output leaves first, input is discarded.
    Draining,
    /// Both sides have nothing more to say, or `close` was called. Our FIN has left. The peer has
    /// yet to acknowledge what was sent, or to send its FIN; until then its input is discarded.
    Lingering,
    /// shutdown(2) or abort was called; waiting for the terminal completions.
    Ending,
    /// The descriptor's close is in flight.
    Closing,
}

/// What moves a connection on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The connect came about.
    Connected,
    /// The peer's FIN was read.
    PeerFin,
    /// Everything queued has left and our FIN with it.
    OurFin,
    /// `close` was called.
    Close,
    /// The peer's FIN was read, and the peer has acknowledged everything.
    Delivered,
    /// The end: a failure, an abort, a deadline, or both sides done.
    End,
    /// Nothing is in flight any more.
    Quiet,
}

use Event as E;
use State as S;

/// Every transition there is.
pub const TRANSITIONS: &[(State, Event, State)] = &[
    (S::Connecting, E::Connected, S::Open),
    (S::Connecting, E::End, S::Ending),
    (S::Open, E::PeerFin, S::HalfClosedByPeer),
    (S::Open, E::OurFin, S::HalfClosedByUs),
    (S::Open, E::Close, S::Draining),
    (S::Open, E::End, S::Ending),
    (S::HalfClosedByPeer, E::OurFin, S::Lingering),
    (S::HalfClosedByPeer, E::Close, S::Draining),
    (S::HalfClosedByPeer, E::End, S::Ending),
    (S::HalfClosedByUs, E::PeerFin, S::Lingering),
    (S::HalfClosedByUs, E::Close, S::Lingering),
    (S::HalfClosedByUs, E::End, S::Ending),
    (S::Draining, E::OurFin, S::Lingering),
    (S::Draining, E::End, S::Ending),
    (S::Lingering, E::Delivered, S::Ending),
    (S::Lingering, E::End, S::Ending),
    (S::Ending, E::Quiet, S::Closing),
];

impl State {
    /// The name used where connections are listed.
    pub fn name(self) -> &'static str {
        match self {
            S::Connecting => "connecting",
            S::Open => "open",
            S::HalfClosedByPeer => "half_closed_by_peer",
            S::HalfClosedByUs => "half_closed_by_us",
            S::Draining => "draining",
            S::Lingering => "lingering",
            S::Ending => "ending",
            S::Closing => "closing",
        }
    }

    /// Where `event` leads from here; `None` where it cannot happen.
    #[inline]
    pub fn after(self, event: Event) -> Option<State> {
        TRANSITIONS.iter().find(|(from, on, _)| *from == self && *on == event).map(|(_, _, to)| *to)
    }

    /// Whether the application's callbacks may still be called for input.
    #[inline]
    pub fn receives(self) -> bool {
        matches!(self, S::Open | S::HalfClosedByUs)
    }

    /// Whether input is read only to be thrown away.
    #[inline]
    pub fn discards(self) -> bool {
        matches!(self, S::Draining | S::Lingering)
    }

    /// Whether the application is told of what it has asked for: files, names, jobs.
    #[inline]
    pub fn hears(self) -> bool {
        matches!(self, S::Open | S::HalfClosedByPeer | S::HalfClosedByUs)
    }

    /// Whether output may still be queued.
    #[inline]
    pub fn accepts_output(self) -> bool {
        matches!(self, S::Open | S::HalfClosedByPeer)
    }

    /// Whether output still leaves.
    #[inline]
    pub fn sends(self) -> bool {
        matches!(self, S::Open | S::HalfClosedByPeer | S::Draining)
    }

    /// Whether the end has begun: nothing new is started any more.
    #[inline]
    pub fn is_over(self) -> bool {
        matches!(self, S::Ending | S::Closing)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATES: [State; 8] = [
        S::Connecting,
        S::Open,
        S::HalfClosedByPeer,
        S::HalfClosedByUs,
        S::Draining,
        S::Lingering,
        S::Ending,
        S::Closing,
    ];

    #[test]
    fn one_way_only_and_always_to_the_end() {
        for (from, _, to) in TRANSITIONS {
            assert!((*to as u8) > (*from as u8), "{from} -> {to} goes back");
        }
        for state in STATES {
            assert_eq!(state.after(E::End).is_some(), !state.is_over(), "{state}");
        }
        assert_eq!(S::Closing.after(E::Quiet), None);
        assert_eq!(S::Lingering.after(E::Close), None);
    }

    #[test]
    fn the_picture_in_the_document_is_the_table() {
        let document = include_str!("../../ARCHITECTURE.md");
        for (from, event, to) in TRANSITIONS {
            let row = format!("| {from} | {event:?} | {to} |");
            assert!(document.contains(&row), "ARCHITECTURE.md lacks the row {row}");
        }
        let arrows =
            TRANSITIONS.iter().map(|(from, event, to)| format!("    {from} --> {to}: {event:?}\n"));
        let diagram = format!("```mermaid\nstateDiagram-v2\n{}```\n", arrows.collect::<String>());
        assert!(
            document.contains(&diagram),
            "ARCHITECTURE.md should have this picture:\n{diagram}"
        );
        let rows = document
            .lines()
            .filter(|line| STATES.iter().any(|state| line.starts_with(&format!("| {state} |"))));
        assert_eq!(rows.count(), TRANSITIONS.len(), "ARCHITECTURE.md has rows the table has not");
    }
}
