//! Compares the ledger of a `ringwrightd` before and after a run.

use super::fetch::{self, Refusal};
use super::settle::{self, Settled, Stays};
use ringload_lifecycle::http::Url;
use ringload_lifecycle::system::Interrupts;
use serde_json::{Value, json};
use std::time::Duration;

/// Additional operations in flight that are allowed for each connection that was open before the
/// run: it may have been parked then and be receiving now.
const OPERATIONS_PER_CONNECTION: u64 = 2;
/// Both ends of a pipe.
const DESCRIPTORS_PER_PIPE: u64 = 2;
/// Counters that must not grow, in addition to `total` minus `free` of each pair.
const COUNTS: [&str; 8] = [
    "connections.open",
    "connections.waiting",
    "files",
    "jobs.queued",
    "jobs.running",
    "jobs.under_way",
    "ring.stale_completions",
    "handler_panics",
];

/// Counts of errors, which no connection explains.
pub const ERRORS: [&str; 3] = ["ring.stale_completions", "handler_panics", UNBALANCED];
/// Name of the count of connections.
pub const CONNECTIONS: &str = "connections.open";
const UNBALANCED: &str = "unbalanced equations";

/// The ledger before a run.
#[derive(Debug)]
pub struct Ledger {
    url: Url,
    before: Value,
}

impl Ledger {
    /// Reads the ledger from the admin listener at `url`.
    ///
    /// # Errors
    /// No server answers, or the answer is not a ledger.
    pub fn read(url: &Url) -> Result<Self, Refusal> {
        Ok(Self { url: url.clone(), before: read(url)? })
    }

    /// Reads the ledger until it shows no more than before, or `settle` has passed. Returns the
    /// part of the report, and the leaks.
    ///
    /// # Errors
    /// The ledger can no longer be read.
    pub fn after(
        &self,
        settle: Duration,
        interrupts: &Interrupts,
    ) -> Result<(Value, Vec<Stays>), String> {
        let Settled { last, stays, took } = settle::wait(settle, interrupts, || {
            let after = read(&self.url).map_err(|refusal| refusal.text().to_string())?;
            let leaks = leaks(&self.before, &after);
            Ok((after, leaks))
        })?;
        let observed = json!({
            "url": self.url.to_string(),
            "before": self.before,
            "after": last,
            "leaks": stays,
            "settled_s": took.as_secs_f64(),
        });
        Ok((observed, stays))
    }
}

fn read(url: &Url) -> Result<Value, Refusal> {
    // The address of the admin listener alone is enough.
    let path = if url.path == "/" { "/ledger" } else { &url.path };
    let body = fetch::get(url, path)?;
    let ledger: Value = serde_json::from_slice(&body)
        .map_err(|error| Refusal::Wrong(format!("{url}: the reply is not JSON: {error}")))?;
    match ledger["balanced"].is_boolean() && ledger["connections"]["open"].is_u64() {
        true => Ok(ledger),
        false => Err(Refusal::Wrong(format!(
            "{url}: the reply is not the ledger of a ringwrightd; give its --admin address"
        ))),
    }
}

/// Lists what has grown since before the run. The comparison is with the state before the run,
/// because the server may have other clients.
fn leaks(before: &Value, after: &Value) -> Vec<Stays> {
    let count = |ledger: &Value, path: &str| {
        path.split('.').fold(ledger, |value, field| &value[field]).as_u64().unwrap_or_default()
    };
    let used = |pair: &Value| {
        let of = |name: &str| pair[name].as_u64();
        Some(of("total")?.saturating_sub(of("free")?))
    };
    let more = |path: &str| count(after, path).saturating_sub(count(before, path));
    // The file cache keeps files open for the next request.
    let stay_open = more("file_cache.open");
    // Pipes are pooled: the server creates them on first use and keeps them.
    let pooled = DESCRIPTORS_PER_PIPE * more("pipes.made") + stay_open;
    let mut leaks: Vec<Stays> = Vec::new();
    leaks.extend(COUNTS.iter().filter_map(|name| {
        let allowed = if *name == "files" { stay_open } else { 0 };
        Stays::new(*name, count(before, name) + allowed, count(after, name))
    }));
    for (name, pair) in after.as_object().into_iter().flatten() {
        if let Some(used_after) = used(pair) {
            let mut used_before = used(&before[name]).unwrap_or_default();
            if name == "descriptors" {
                used_before += pooled;
            }
            leaks.extend(Stays::new(format!("{name} in use"), used_before, used_after));
        }
    }
    let operations = "operations_in_flight";
    let allowed = OPERATIONS_PER_CONNECTION * count(before, "connections.open");
    if count(after, operations) > count(before, operations) + allowed {
        leaks.extend(Stays::new(operations, count(before, operations), count(after, operations)));
    }
    if after["balanced"] == false {
        leaks.extend(Stays::new(UNBALANCED, 0, 1));
    }
    leaks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(open: u64, operations: u64, balanced: bool) -> Value {
        json!({
            "connections": { "open": open, "opened": 100, "waiting": 0 },
            "slots": { "total": 10 + open, "free": 10 },
            "buffers": { "total": 64, "free": 64 - open },
            "operations_in_flight": operations,
            "handler_panics": 0,
            "balanced": balanced,
        })
    }

    fn names(before: &Value, after: &Value) -> Vec<String> {
        leaks(before, after).iter().map(Stays::text).collect()
    }

    #[test]
    fn a_server_that_is_as_before_leaks_nothing() {
        let grown = json!({
            "connections": { "open": 0, "opened": 900, "waiting": 0 },
            "slots": { "total": 99, "free": 99 },
            "operations_in_flight": 3, "handler_panics": 0, "balanced": true,
        });
        assert_eq!(names(&ledger(0, 3, true), &grown), [""; 0]);
        assert_eq!(names(&ledger(5, 20, true), &ledger(2, 30, true)), [""; 0]);
    }

    #[test]
    fn pipes_that_are_kept_for_the_next_file_are_no_leak_and_other_descriptors_are() {
        let ledger = |made: u64, descriptors: u64| {
            json!({
                "connections": { "open": 0 },
                "pipes": { "total": 32, "free": 32, "made": made },
                "descriptors": { "total": 100, "free": 100 - descriptors },
                "balanced": true,
            })
        };
        assert_eq!(names(&ledger(1, 4), &ledger(3, 8)), [""; 0]);
        assert_eq!(
            names(&ledger(1, 4), &ledger(3, 9)),
            ["descriptors in use: 9, before the run 8"]
        );
    }

    #[test]
    fn files_that_stay_open_for_a_while_are_no_leak_and_others_are() {
        let ledger = |stay_open: u64, files: u64| {
            json!({
                "connections": { "open": 0 },
                "files": files,
                "file_cache": { "open": stay_open, "hits": 0, "misses": 0 },
                "descriptors": { "total": 100, "free": 100 - files },
                "balanced": true,
            })
        };
        assert_eq!(names(&ledger(0, 0), &ledger(3, 3)), [""; 0]);
        assert_eq!(
            names(&ledger(1, 1), &ledger(3, 4)),
            ["files: 4, before the run 3", "descriptors in use: 4, before the run 3"]
        );
    }

    #[test]
    fn what_there_is_more_of_is_named_with_both_counts() {
        assert_eq!(
            names(&ledger(1, 3, true), &ledger(2, 6, false)),
            [
                "connections.open: 2, before the run 1",
                "buffers in use: 2, before the run 1",
                "slots in use: 2, before the run 1",
                "operations_in_flight: 6, before the run 3",
                "unbalanced equations: 1, before the run 0",
            ]
        );
        let mut panicked = ledger(0, 3, true);
        panicked["handler_panics"] = 2.into();
        assert_eq!(names(&ledger(0, 3, true), &panicked), ["handler_panics: 2, before the run 0"]);
    }
}
