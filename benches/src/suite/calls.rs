//! System calls of a server per request, counted by strace(1).

use std::fs;
use std::io;
use std::process::Command;
use std::thread;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Plan;
use crate::compare::{
    Generator, Process, Protocol, Request, Scratch, Setting, Subject, Work, load, locate,
};

/// A slow run: every call stops twice.
const LENGTH: Duration = Duration::from_secs(2);
const ATTACH: Duration = Duration::from_millis(500);
const CONNECTIONS: u32 = 64;
/// Number of system calls that are named, the most frequent first.
const NAMED: usize = 4;

/// One server's.
#[derive(Deserialize, JsonSchema, Serialize)]
pub struct Calls {
    /// Server and protocol.
    pub name: String,
    /// Answered while it was counted.
    pub requests: u64,
    /// System calls by all threads of the server.
    pub calls_per_request: f64,
    /// The most frequent ones, with their number per request.
    pub most: Vec<(String, f64)>,
    /// Completions of the ring, by the server's own ledger; null: it tells of none.
    pub completions_per_request: Option<f64>,
}

/// Counts for each, one after the other.
pub fn run(plan: &Plan, scratch: &Scratch) -> io::Result<Vec<Calls>> {
    use Subject::{Compio, Glommio, Hyper, Limit, Monoio, Nginx, Ringwrightd, Tokio};
    let echo = [Ringwrightd, Limit, Tokio, Monoio, Compio, Glommio].map(|it| (it, Protocol::Echo));
    let http = [Ringwrightd, Hyper, Nginx].map(|it| (it, Protocol::Http));
    let strace = locate("strace", &plan.place.programs)?;
    let measure = |(subject, protocol): (Subject, Protocol)| {
        let size_bytes = if protocol == Protocol::Echo { 64 } else { 1024 };
        let folder = scratch.path().join(format!("calls-{subject}-{protocol}"));
        let setting = Setting {
            protocol,
            size_bytes,
            programs: plan.place.programs.clone(),
            cpu: Some(plan.place.server_cpu),
            shards: 1,
            ring: plan.place.ring,
            folder: folder.clone(),
        };
        setting.prepare(0)?;
        let server = setting.start(subject)?;
        let table = folder.join("strace.txt");
        let mut command = Command::new(&strace);
        command.args(["-qq", "-f", "-c", "-U", "calls,name", "-o"]).arg(&table);
        for process in server.processes() {
            command.args(["-p", &process.to_string()]);
        }
        let mut tracer = Process::start(command, Some(plan.place.load_cpu))?;
        thread::sleep(ATTACH);
        let request = Request {
            server: &server,
            work: Work::plain(protocol, size_bytes),
            connections: CONNECTIONS,
            duration: plan.shortened(LENGTH),
        };
        let requests = load(&plan.place, scratch, Generator::Bare, &request)?.loaded.replies;
        // It writes its table when it is told to end.
        tracer.end()?;
        let text = fs::read_to_string(&table)?;
        let calls = parse(&text)
            .ok_or_else(|| io::Error::other(format!("strace said something unknown:\n{text}")))?;
        let per = |count: u64| count as f64 / requests as f64;
        let errors = server.errors().to_owned();
        drop(server);
        let completions = completions(&fs::read_to_string(errors)?);
        let result = Calls {
            name: format!("{subject} {protocol}"),
            requests,
            calls_per_request: per(calls.iter().map(|(_, count)| count).sum()),
            most: calls
                .iter()
                .take(NAMED)
                .map(|(name, count)| (name.clone(), per(*count)))
                .collect(),
            completions_per_request: completions.map(per),
        };
        eprintln!(
            "calls: {}: {:.2} system calls per request",
            result.name, result.calls_per_request
        );
        Ok(result)
    };
    echo.into_iter().chain(http).map(measure).collect()
}

/// Reads the completions from the ledger that `ringwrightd` prints at its end.
fn completions(errors: &str) -> Option<u64> {
    let ledger = errors.lines().find_map(|line| line.strip_prefix("ledger "))?;
    let ledger: serde_json::Value = serde_json::from_str(ledger).ok()?;
    ledger["ring"]["completed"].as_u64()
}

/// Lines of `calls name` between two rules; the most frequent first.
fn parse(text: &str) -> Option<Vec<(String, u64)>> {
    let mut calls = Vec::new();
    for line in text.lines().skip_while(|line| !line.starts_with('-')).skip(1) {
        if line.starts_with('-') {
            calls.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
            return Some(calls);
        }
        let (count, name) = line.trim().split_once(' ')?;
        calls.push((name.trim().to_owned(), count.parse().ok()?));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{completions, parse};

    #[test]
    fn the_table_is_read() {
        let text = "    calls syscall\n--------- ------------------\n        2 read\n\
                    \x20      10 io_uring_enter\n--------- ------------------\n       12 total\n";
        let calls = parse(text).unwrap();
        assert_eq!(calls, [("io_uring_enter".to_owned(), 10), ("read".to_owned(), 2)]);
        assert!(parse("nothing").is_none());
    }

    #[test]
    fn the_ledger_is_read() {
        let errors = "a notice\nledger {\"ring\":{\"enters\":3,\"completed\":7}}\n";
        assert_eq!(completions(errors), Some(7));
        assert_eq!(completions("nothing"), None);
    }
}
