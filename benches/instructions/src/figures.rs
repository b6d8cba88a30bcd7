//! Figures that are written down, and what they allow.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// How far a figure may be from the one written down, on the same toolchain.
const TOLERANCE: f64 = 0.02;

/// The counts, and the compiler that they belong to.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Figures {
    /// The compiler: another one gives other figures.
    pub rustc: String,
    pub valgrind: String,
    pub architecture: String,
    /// Instructions of an operation, by scenario.
    pub instructions: BTreeMap<String, f64>,
}

impl Figures {
    /// # Errors
    /// The file cannot be read, or is none of these.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = fs::read_to_string(path)
            .map_err(|error| format!("{}: {error}; --figures names another", path.display()))?;
        serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), String> {
        let mut text = serde_json::to_string_pretty(self).map_err(|error| error.to_string())?;
        text.push('\n');
        fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Returns true if both were counted with the same compiler and architecture.
    pub fn is_comparable(&self, other: &Self) -> bool {
        (&self.rustc, &self.architecture) == (&other.rustc, &other.architecture)
    }

    /// Returns the differences from the `committed` figures, and the scenarios above their
    /// `bounds`, which hold for each compiler.
    pub fn faults(&self, committed: &Self, bounds: &BTreeMap<&str, f64>) -> Vec<String> {
        let mut faults = Vec::new();
        for (scenario, now) in &self.instructions {
            if let Some(bound) = bounds.get(scenario.as_str())
                && now > bound
            {
                faults.push(format!("{scenario}: {now:.1} instructions, the bound is {bound}"));
            }
            if !self.is_comparable(committed) {
                continue;
            }
            let Some(before) = committed.instructions.get(scenario) else {
                faults.push(format!("{scenario}: no figure is written down"));
                continue;
            };
            let change = now / before - 1.0;
            if change.abs() > TOLERANCE {
                let percent = 100.0 * change;
                faults.push(format!(
                    "{scenario}: {now:.1} instructions, {percent:+.1} % of {before:.1}"
                ));
            }
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(rustc: &str, echo: f64) -> Figures {
        Figures {
            rustc: rustc.to_owned(),
            valgrind: "valgrind-3.19.0".to_owned(),
            architecture: "x86_64".to_owned(),
            instructions: [("echo".to_owned(), echo)].into(),
        }
    }

    fn bounds() -> BTreeMap<&'static str, f64> {
        [("echo", 1_500.0)].into()
    }

    #[test]
    fn two_percent_are_allowed_either_way_and_no_more() {
        let committed = figures("rustc 1.95.0", 1_000.0);
        for (now, faults) in [(1_019.0, 0), (981.0, 0), (1_021.0, 1), (979.0, 1), (1_501.0, 2)] {
            let found = figures("rustc 1.95.0", now).faults(&committed, &bounds());
            assert_eq!(found.len(), faults, "{now}: {found:?}");
        }
        let mut none = committed.clone();
        none.instructions.clear();
        assert_eq!(committed.faults(&none, &bounds()).len(), 1);
    }

    #[test]
    fn another_compiler_is_held_to_the_bound_alone() {
        let committed = figures("rustc 1.95.0", 1_000.0);
        assert_eq!(
            figures("rustc 1.96.0", 1_400.0).faults(&committed, &bounds()),
            Vec::<String>::new()
        );
        assert_eq!(figures("rustc 1.96.0", 1_501.0).faults(&committed, &bounds()).len(), 1);
    }
}
