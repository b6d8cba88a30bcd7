//! The live view of the matrix.

use super::tally::{CellTally, Tally};
use crate::args::ChurnArgs;
use crate::cell::{Cell, Kind, Point};
use crate::finding::Rule;
use crate::screen::{self, Matrix, Picture, Screen};
use crate::units::show_count;
use std::collections::BTreeMap;
use std::time::Duration;

/// The live view of a run.
pub(super) struct View<'a> {
    /// The screen.
    pub(super) screen: Screen,
    /// `--quiet`.
    pub(super) is_quiet: bool,
    /// Description of the run.
    pub(super) title: &'a str,
    /// The cells of the run.
    pub(super) cells: &'a [Cell],
    /// Connections per second, one value per second.
    pub(super) rates: Vec<u64>,
}

impl View<'_> {
    /// Updates the view if it is due.
    pub(super) fn show(&mut self, args: &ChurnArgs, elapsed: Duration, tally: &Tally) {
        let Self { screen, title, cells, rates, .. } = self;
        screen.show(|| {
            let done = match args.count {
                Some(count) => tally.scripts as f64 / count as f64,
                None => elapsed.as_secs_f64() / args.duration.as_secs_f64(),
            };
            let findings = tally.findings();
            let figures = [
                ("connections", tally.connections),
                ("scripts", tally.scripts),
                ("findings", tally.findings_total()),
            ];
            Picture {
                title: (*title).into(),
                elapsed,
                done: Some(done),
                figures: figures.map(|(name, count)| (name.into(), show_count(count))).into(),
                curve_name: "connections per second".into(),
                curve: rates.clone(),
                wrong: Rule::ALL
                    .iter()
                    .filter_map(|rule| Some((rule.name().into(), *findings.get(rule)?)))
                    .collect(),
                matrix: Some(matrix(cells, &tally.cells)),
            }
        });
    }
}

/// Returns the matrix of the run, with points as rows and kinds as columns.
fn matrix(walked: &[Cell], tallies: &BTreeMap<Option<Cell>, CellTally>) -> Matrix {
    let points = Point::ALL.into_iter().filter(|it| walked.iter().any(|cell| cell.point == *it));
    let kinds = Kind::ALL.into_iter().filter(|it| walked.iter().any(|cell| cell.kind == *it));
    let kinds: Vec<Kind> = kinds.collect();
    let shown = |point: Point, kind: Kind| {
        let cell = walked.iter().find(|cell| cell.point == point && cell.kind == kind);
        let tally = tallies.get(&cell.copied()).filter(|_| cell.is_some());
        screen::Cell {
            tried: tally.map_or(0, |tally| tally.connections),
            found: tally.map_or(0, |tally| tally.findings.values().sum()),
            is_void: cell.is_none(),
        }
    };
    Matrix {
        columns: kinds.iter().map(|kind| kind.name().into()).collect(),
        rows: points
            .map(|point| {
                (point.name().into(), kinds.iter().map(|kind| shown(point, *kind)).collect())
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_matrix_has_what_is_walked_and_says_what_is_not() {
        let cell = |point, kind| Cell { point, kind };
        let walked = [cell(Point::Idle, Kind::Fin), cell(Point::Asked, Kind::Rst)];
        let mut tallies = BTreeMap::new();
        let mut tally = CellTally { connections: 5, ..CellTally::default() };
        tally.findings.insert(Rule::LostReply, 2);
        tallies.insert(Some(walked[0]), tally);
        // Bystanders have no cell.
        tallies.insert(None, CellTally { connections: 9, ..CellTally::default() });
        let matrix = matrix(&walked, &tallies);
        let void = screen::Cell { is_void: true, ..screen::Cell::default() };
        let found = screen::Cell { tried: 5, found: 2, is_void: false };
        assert_eq!(matrix.columns, ["fin", "rst"]);
        assert_eq!(
            matrix.rows,
            [
                ("asked".to_string(), vec![void, screen::Cell::default()]),
                ("idle".to_string(), vec![found, void]),
            ]
        );
    }
}
