//! The counts of a run.

use crate::bystander::Latencies;
use crate::cell::Cell;
use crate::dialect::Verdict;
use crate::finding::Rule;
use crate::script::Script;
use crate::shrink::Shrunk;
use crate::walk::{Walked, unplayed_text};
use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Maximum number of examples of a rule.
const EXAMPLES_PER_RULE: usize = 4;
/// Maximum number of examples.
const EXAMPLES_MAX: usize = 20;
/// Maximum number of different outcomes of a cell. Usually there are a few.
const OUTCOMES_MAX: usize = 50;

/// The counts of one cell of the matrix.
pub(super) struct CellTally {
    /// Scripts that ran.
    pub(super) scripts: u64,
    /// Scripts among them whose fault was not played.
    pub(super) not_played: u64,
    /// Their connections.
    pub(super) connections: u64,
    /// Outcomes of these connections.
    pub(super) outcomes: BTreeMap<String, u64>,
    /// Findings by rule.
    pub(super) findings: BTreeMap<Rule, u64>,
    /// Time from the client's last action to the server's ending, nanoseconds.
    pub(super) reaction_ns: Histogram<u64>,
}

impl Default for CellTally {
    fn default() -> Self {
        Self {
            scripts: 0,
            not_played: 0,
            connections: 0,
            outcomes: BTreeMap::new(),
            findings: BTreeMap::new(),
            reaction_ns: reactions(),
        }
    }
}

/// One finding, and the scripts that reproduce it.
pub(super) struct Example {
    /// The violated rule.
    pub(super) rule: Rule,
    /// The cell; `None` for a bystander.
    pub(super) cell: Option<Cell>,
    /// The observation, for people.
    pub(super) detail: String,
    /// The script that saw it.
    pub(super) script: Arc<Script>,
    /// The scripts that ran at the same time, with this one, in order.
    pub(super) company: Vec<Arc<Script>>,
    /// The shortened scripts.
    pub(super) shrunk: Option<Shrunk>,
}

/// The counts of a run.
pub(super) struct Tally {
    /// Scripts that ran.
    pub(super) scripts: u64,
    /// Their connections.
    pub(super) connections: u64,
    /// Scripts that were unfinished at the end of the run.
    pub(super) unfinished: u64,
    /// Scripts that did not run for lack of a local resource.
    pub(super) not_walked: u64,
    /// Scripts whose fault was not played, and why the first of them was not.
    pub(super) not_played: (u64, Option<String>),
    /// Connections that ended without a packet.
    pub(super) vanished: u64,
    /// Counts by cell; `None` for bystanders.
    pub(super) cells: BTreeMap<Option<Cell>, CellTally>,
    /// Reaction times of all cells.
    pub(super) reaction_ns: Histogram<u64>,
    /// The first few of each rule, by number.
    pub(super) examples: Vec<Example>,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            scripts: 0,
            connections: 0,
            unfinished: 0,
            not_walked: 0,
            not_played: (0, None),
            vanished: 0,
            cells: BTreeMap::new(),
            reaction_ns: reactions(),
            examples: Vec::new(),
        }
    }
}

impl Tally {
    /// Counts a script that ran at the same time as `company`.
    pub(super) fn take(
        &mut self,
        cell: Option<Cell>,
        walked: &Walked,
        verdicts: &[Verdict],
        company: Vec<Arc<Script>>,
    ) {
        let of = self.cells.entry(cell).or_default();
        self.scripts += 1;
        of.scripts += 1;
        self.not_walked += u64::from(walked.short.is_some());
        self.vanished += walked.vanished;
        if let Some(error) = &walked.unplayed {
            of.not_played += 1;
            self.not_played.0 += 1;
            self.not_played.1.get_or_insert_with(|| unplayed_text(error));
        }
        for (at, (seen, verdict)) in walked.lives.iter().zip(verdicts).enumerate() {
            self.connections += 1;
            of.connections += 1;
            if let Some(reaction) = seen.record.reaction {
                let ns = reaction.as_nanos() as u64;
                of.reaction_ns.saturating_record(ns);
                self.reaction_ns.saturating_record(ns);
            }
            let outcome = match at {
                0 => verdict.outcome.clone(),
                _ => format!("then {}", verdict.outcome),
            };
            if of.outcomes.len() < OUTCOMES_MAX || of.outcomes.contains_key(&outcome) {
                *of.outcomes.entry(outcome).or_default() += 1;
            }
            if let Some(finding) = &verdict.finding {
                *of.findings.entry(finding.rule).or_default() += 1;
            }
        }
        for finding in verdicts.iter().filter_map(|verdict| verdict.finding.as_ref()) {
            self.keep(Example {
                rule: finding.rule,
                cell,
                detail: finding.detail.clone(),
                script: walked.script.clone(),
                company: company.clone(),
                shrunk: None,
            });
        }
    }

    /// Adds the findings of bystanders.
    pub(super) fn add_bystanders(&mut self, latencies: &Latencies) {
        let of = self.cells.entry(None).or_default();
        of.connections += latencies.connections;
        for (rule, count) in &latencies.findings {
            *of.findings.entry(*rule).or_default() += count;
        }
        for (finding, script) in &latencies.examples {
            let script = Arc::new(script.clone());
            self.keep(Example {
                rule: finding.rule,
                cell: None,
                detail: finding.detail.clone(),
                company: vec![script.clone()],
                script,
                shrunk: None,
            });
        }
    }

    /// Returns the number of findings.
    pub(super) fn findings_total(&self) -> u64 {
        self.cells.values().flat_map(|cell| cell.findings.values()).sum()
    }

    /// Returns the number of findings by rule.
    pub(super) fn findings(&self) -> BTreeMap<Rule, u64> {
        let mut all = BTreeMap::new();
        for (rule, count) in self.cells.values().flat_map(|cell| &cell.findings) {
            *all.entry(*rule).or_default() += count;
        }
        all
    }

    /// Keeps those of each rule that began first, because later ones may be consequences.
    fn keep(&mut self, example: Example) {
        let order = |it: &Example| (it.cell.is_none(), it.script.key.number);
        let at = self
            .examples
            .partition_point(|it| (it.rule, order(it)) <= (example.rule, order(&example)));
        let rule = example.rule;
        self.examples.insert(at, example);
        let of_rule: Vec<usize> =
            (0..self.examples.len()).filter(|at| self.examples[*at].rule == rule).collect();
        if of_rule.len() > EXAMPLES_PER_RULE || self.examples.len() > EXAMPLES_MAX {
            // The first example of each rule stays: there are fewer rules than places.
            self.examples.remove(of_rule[of_rule.len() - 1]);
        }
    }
}

fn reactions() -> Histogram<u64> {
    Histogram::new_with_bounds(1_000, 3_600_000_000_000, 2)
        .expect("the bounds are constants that satisfy the crate")
}
