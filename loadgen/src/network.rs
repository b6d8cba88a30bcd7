//! Reads what the kernel's TCP counted during a run: retransmits, overflown backlogs, aborted
//! connections.
//!
//! The counters are those of the network namespace: whatever else runs in it is in them too.

use std::collections::BTreeMap;
use std::fs;

/// The counters read, by the names of /proc/net/snmp and /proc/net/netstat and by ours.
const COUNTERS: [(&str, &str); 15] = [
    ("RetransSegs", "retransmitted_segments"),
    ("TCPSynRetrans", "retransmitted_syns"),
    ("TCPTimeouts", "retransmission_timeouts"),
    ("ListenOverflows", "listen_overflows"),
    ("ListenDrops", "listen_drops"),
    ("TCPReqQFullDrop", "syn_queue_drops"),
    ("TCPBacklogDrop", "socket_backlog_drops"),
    ("TCPRcvQDrop", "receive_queue_drops"),
    ("PruneCalled", "receive_buffers_pruned"),
    ("AttemptFails", "attempts_failed"),
    ("OutRsts", "resets_sent"),
    ("EstabResets", "connections_reset"),
    ("TCPAbortOnData", "aborts_with_unread_data"),
    ("TCPAbortOnClose", "aborts_on_close"),
    ("TCPMemoryPressures", "memory_pressures"),
];

/// Counters of TCP in this network namespace, or what they grew by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network(BTreeMap<&'static str, u64>);

impl Network {
    /// Reads the counters. One that the kernel does not have, or does not show, is 0.
    #[must_use]
    pub fn now() -> Self {
        let tables = ["/proc/net/snmp", "/proc/net/netstat"]
            .map(|path| fs::read_to_string(path).unwrap_or_default());
        Self::read(&tables.concat())
    }

    /// Pairs of lines: `Tcp: NAME NAME …` and `Tcp: 1 2 …` (proc_net(5)).
    fn read(text: &str) -> Self {
        let mut counts: BTreeMap<_, _> = COUNTERS.map(|(_, ours)| (ours, 0)).into();
        let lines: Vec<&str> = text.lines().collect();
        for pair in lines.chunks_exact(2) {
            let [names, values] = [pair[0], pair[1]].map(|line| line.split_ascii_whitespace());
            // Udp and Ip have counters of some of the same names.
            if !pair[0].starts_with("Tcp") {
                continue;
            }
            for (name, value) in names.zip(values) {
                if let Some((_, ours)) = COUNTERS.iter().find(|(theirs, _)| *theirs == name) {
                    counts.insert(ours, value.parse().unwrap_or_default());
                }
            }
        }
        Self(counts)
    }

    /// Returns the growth since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let earlier = |name| before.0.get(name).copied().unwrap_or_default();
        Self(self.0.iter().map(|(name, now)| (*name, now.saturating_sub(earlier(*name)))).collect())
    }

    /// All of them, by name.
    #[must_use]
    pub fn counts(&self) -> &BTreeMap<&'static str, u64> {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_by_their_names() {
        let text = "Tcp: RtoMin MaxConn OutRsts RetransSegs\nTcp: 200 -1 7 5\n\
                    Udp: OutRsts\nUdp: 100\n\
                    TcpExt: ListenOverflows ListenDrops\nTcpExt: 3 4\n";
        let seen = Network::read(text);
        assert_eq!((seen.0["resets_sent"], seen.0["retransmitted_segments"]), (7, 5));
        assert_eq!((seen.0["listen_overflows"], seen.0["listen_drops"]), (3, 4));
        assert_eq!((seen.0["retransmitted_syns"], seen.0.len()), (0, COUNTERS.len()));
    }

    #[test]
    fn this_kernel_has_them_all() {
        let tables = ["/proc/net/snmp", "/proc/net/netstat"]
            .map(|path| fs::read_to_string(path).expect("a proc file"));
        for (theirs, _) in COUNTERS {
            let is_there = |table: &String| table.split_whitespace().any(|name| name == theirs);
            assert!(tables.iter().any(is_there), "{theirs}");
        }
    }

    #[test]
    fn what_they_grew_by_is_told() {
        let before = Network::read("Tcp: OutRsts RetransSegs\nTcp: 7 5\n");
        let now = Network::read("Tcp: OutRsts RetransSegs\nTcp: 10 5\n");
        let grown = now.since(&before);
        assert_eq!((grown.0["resets_sent"], grown.0["retransmitted_segments"]), (3, 0));
        assert_eq!(grown.counts().values().sum::<u64>(), 3);
    }
}
