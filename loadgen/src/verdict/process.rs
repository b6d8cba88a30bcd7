//! Compares the resources of any server process and its descendants before and after a run
//! (proc(5)).

use super::settle::{self, Settled, Stays};
use ringload_lifecycle::system::Interrupts;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

/// Maximum number of processes that are inspected.
const PROCESSES_MAX: usize = 4_096;
/// Name prefix of the kernel's worker threads for an io_uring (io-wq.c).
const IO_WORKER: &str = "iou-wrk-";
/// Names of the TCP states by number (include/net/tcp_states.h).
const STATES: [&str; 13] = [
    "?",
    "ESTABLISHED",
    "SYN_SENT",
    "SYN_RECV",
    "FIN_WAIT1",
    "FIN_WAIT2",
    "TIME_WAIT",
    "CLOSE",
    "CLOSE_WAIT",
    "LAST_ACK",
    "LISTEN",
    "CLOSING",
    "NEW_SYN_RECV",
];

/// Name of the count of connections.
pub const CONNECTIONS: &str = "descriptors: socket";

/// The resources of a process and its descendants.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Holdings {
    /// Number of processes.
    pub processes: u64,
    /// Number of threads.
    pub threads: u64,
    /// Number of io_uring worker threads, not included in `threads`; the kernel ends them at any
    /// time.
    pub io_workers: u64,
    /// Sum of resident memory; shared pages count in each process.
    pub rss_bytes: u64,
    /// Open descriptors by kind: `file`, `pipe`, `socket`, `eventpoll`, `io_uring`, …
    pub descriptors: BTreeMap<String, u64>,
    /// TCP sockets by state.
    pub sockets: BTreeMap<&'static str, u64>,
    /// Bytes in the receive buffers of their TCP sockets.
    pub unread_bytes: u64,
}

/// The state of a process before a run.
#[derive(Debug)]
pub struct Process {
    pid: u32,
    before: Holdings,
}

impl Process {
    /// Inspects a process.
    ///
    /// # Errors
    /// The process does not exist, or must not be inspected.
    pub fn look(pid: u32) -> Result<Self, String> {
        Ok(Self { pid, before: holdings(pid)? })
    }

    /// Inspects the process until it holds no more than before, or `settle` has passed. Returns the
    /// part of the report, and the leaks.
    ///
    /// # Errors
    /// The process has ended.
    pub fn after(
        &self,
        settle: Duration,
        interrupts: &Interrupts,
    ) -> Result<(Value, Vec<Stays>), String> {
        let Settled { last, stays, took } = settle::wait(settle, interrupts, || {
            let after = holdings(self.pid)?;
            let stays = stays(&self.before, &after);
            Ok((after, stays))
        })?;
        let observed = json!({
            "pid": self.pid,
            "before": self.before,
            "after": last,
            "stays": stays,
            "settled_s": took.as_secs_f64(),
        });
        Ok((observed, stays))
    }
}

/// Lists what has grown since before the run. Ignores memory, because allocators keep it.
fn stays(before: &Holdings, after: &Holdings) -> Vec<Stays> {
    let of = |kinds: &BTreeMap<String, u64>, kind: &str| kinds.get(kind).copied().unwrap_or(0);
    let mut stays: Vec<Stays> = after
        .descriptors
        .iter()
        .filter_map(|(kind, now)| {
            Stays::new(format!("descriptors: {kind}"), of(&before.descriptors, kind), *now)
        })
        .collect();
    let unclosed = |holdings: &Holdings| holdings.sockets.get("CLOSE_WAIT").copied().unwrap_or(0);
    stays.extend(Stays::new("sockets in CLOSE_WAIT", unclosed(before), unclosed(after)));
    stays.extend(Stays::new("threads", before.threads, after.threads));
    stays.extend(Stays::new("processes", before.processes, after.processes));
    stays
}

/// # Errors
/// The process `pid` cannot be inspected. A descendant that has just ended is skipped.
fn holdings(pid: u32) -> Result<Holdings, String> {
    let mut holdings = Holdings::default();
    let (mut waiting, mut seen) = (vec![pid], BTreeSet::new());
    while let Some(next) = waiting.pop().filter(|_| seen.len() < PROCESSES_MAX) {
        if !seen.insert(next) {
            continue;
        }
        match add(next, &mut holdings) {
            Ok(children) => waiting.extend(children),
            Err(error) if next == pid => return Err(refusal(pid, &error)),
            Err(_) => {}
        }
    }
    Ok(holdings)
}

fn refusal(pid: u32, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound if !Path::new("/proc/self").exists() => {
            format!("--pid {pid}: /proc is not mounted; mount it, or leave --pid out")
        }
        io::ErrorKind::NotFound => format!("--pid {pid}: no such process"),
        io::ErrorKind::PermissionDenied => {
            format!("--pid {pid}: {error}; only its own user and root may list its descriptors")
        }
        _ => format!("--pid {pid}: {error}"),
    }
}

/// Adds one process and returns its children.
fn add(pid: u32, to: &mut Holdings) -> io::Result<Vec<u32>> {
    let (mut kinds, mut inodes) = (BTreeMap::<String, u64>::new(), BTreeSet::new());
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        // The descriptor may have been closed since it was listed.
        let Ok(target) = fs::read_link(entry?.path()) else { continue };
        let target = target.to_string_lossy();
        inodes.extend(socket_inode(&target));
        *kinds.entry(kind(&target)).or_default() += 1;
    }
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    // A zombie has neither field.
    let threads = field("Threads:").unwrap_or_default();
    to.rss_bytes += field("VmRSS:").unwrap_or_default() * 1024;
    to.processes += 1;
    for (kind, count) in kinds {
        *to.descriptors.entry(kind).or_default() += count;
    }
    if !inodes.is_empty() {
        for table in ["tcp", "tcp6"] {
            // /proc/net/tcp6 is missing if IPv6 is disabled.
            let table = fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
            add_sockets(&table, &inodes, to);
        }
    }
    let mut children = Vec::new();
    let mut io_workers = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let thread = thread?.path();
        let read = |file| fs::read_to_string(thread.join(file)).unwrap_or_default();
        children
            .extend(read("children").split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        io_workers += u64::from(read("comm").starts_with(IO_WORKER));
    }
    to.threads += threads.saturating_sub(io_workers);
    to.io_workers += io_workers;
    Ok(children)
}

/// Returns the inode of `socket:[4711]`.
fn socket_inode(target: &str) -> Option<u64> {
    target.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// Returns the kind of a descriptor: `socket`, `pipe`, `eventpoll` for `anon_inode:[eventpoll]`,
/// and `file` for a path.
fn kind(target: &str) -> String {
    match target.split_once(':') {
        Some(("anon_inode", name)) => name.trim_matches(['[', ']']).into(),
        Some((kind, inode)) if inode.starts_with('[') => kind.into(),
        _ => "file".into(),
    }
}

/// Adds the sockets with `inodes` from a table (Documentation/networking/proc_net_tcp.rst).
fn add_sockets(table: &str, inodes: &BTreeSet<u64>, to: &mut Holdings) {
    for line in table.lines().skip(1) {
        let fields: Vec<&str> = line.split_whitespace().take(10).collect();
        let [_, _, _, state, queues, _, _, _, _, inode] = fields[..] else { continue };
        if !inode.parse().is_ok_and(|inode: u64| inodes.contains(&inode)) {
            continue;
        }
        let state = usize::from_str_radix(state, 16).ok().and_then(|state| STATES.get(state));
        let state = *state.unwrap_or(&STATES[0]);
        *to.sockets.entry(state).or_default() += 1;
        // For a listener, the value is the number of connections to accept.
        if state != "LISTEN" {
            let unread = queues.split_once(':').and_then(|(_, r)| u64::from_str_radix(r, 16).ok());
            to.unread_bytes += unread.unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_table_of_sockets_is_read() {
        let rest = "00:00000000 00000000  1000        0";
        let table = format!(
            "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  \
             timeout inode\n\
             0: 0100007F:1F90 00000000:0000 0A 00000000:00000003 {rest} 11 1 0\n\
             1: 0100007F:1F90 0100007F:9C40 08 00000000:0000001F {rest} 12 1 0\n\
             2: 0100007F:1F90 0100007F:9C41 01 00000000:00000001 {rest} 99 1 0\n\
             3: 0100007F:1F90 0100007F:9C42 FF 00000000\n"
        );
        let mut holdings = Holdings::default();
        add_sockets(&table, &BTreeSet::from([11, 12]), &mut holdings);
        assert_eq!(holdings.sockets, BTreeMap::from([("LISTEN", 1), ("CLOSE_WAIT", 1)]));
        assert_eq!(holdings.unread_bytes, 31);
    }

    #[test]
    fn kinds_of_descriptors_are_told_apart() {
        for (target, name) in [
            ("socket:[17]", "socket"),
            ("pipe:[3]", "pipe"),
            ("anon_inode:[eventpoll]", "eventpoll"),
            ("anon_inode:[io_uring]", "io_uring"),
            ("anon_inode:inotify", "inotify"),
            ("/var/log/a:b", "file"),
            ("/memfd:x (deleted)", "file"),
        ] {
            assert_eq!(kind(target), name, "{target}");
        }
        assert_eq!((socket_inode("socket:[17]"), socket_inode("pipe:[17]")), (Some(17), None));
    }

    /// Other tests run in this process, so the counts are lower bounds.
    #[test]
    fn sockets_that_the_peer_has_closed_are_seen_with_what_is_unread() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let to = listener.local_addr().expect("bound");
        let held: Vec<TcpStream> = (0..50)
            .map(|_| {
                let mut client = TcpStream::connect(to).expect("it listens");
                client.write_all(b"unread").expect("it is small");
                listener.accept().expect("a client").0
            })
            .collect();
        let holdings = holdings(std::process::id()).expect("this process");
        assert!(holdings.sockets["CLOSE_WAIT"] >= 50, "{holdings:?}");
        assert!(holdings.unread_bytes >= 300 && holdings.rss_bytes > 1 << 20, "{holdings:?}");
        assert!(holdings.descriptors["socket"] >= 51 && holdings.threads >= 1, "{holdings:?}");
        drop(held);
    }

    #[test]
    fn what_stays_is_named_and_memory_is_not() {
        let before = Holdings { threads: 4, processes: 1, ..Holdings::default() };
        let mut after = Holdings { rss_bytes: 1 << 30, ..before.clone() };
        assert_eq!(stays(&before, &after), []);
        after.descriptors.insert("socket".into(), 3);
        after.sockets.insert("CLOSE_WAIT", 2);
        after.threads = 5;
        let text: Vec<String> = stays(&before, &after).iter().map(Stays::text).collect();
        assert_eq!(
            text,
            [
                "descriptors: socket: 3, before the run 0",
                "sockets in CLOSE_WAIT: 2, before the run 0",
                "threads: 5, before the run 4",
            ]
        );
    }

    #[test]
    fn a_process_that_is_not_there_is_named() {
        let error = holdings(u32::MAX).expect_err("numbers end before");
        assert!(error.contains("--pid 4294967295: no such process"), "{error}");
    }
}
