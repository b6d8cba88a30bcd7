//! The samples of the shards: each counter of the engine's ledger, with one sample per shard.

use super::exposition::{Exposition, Kind};
use ringwright::{CounterValue, Histogram, Reason, ShardLedger};
use std::fmt::Display;

/// Appends all counters of the shards, in the order of the engine's table.
pub fn about_shards(page: &mut Exposition, shards: &[ShardLedger]) {
    for counter in ShardLedger::counters() {
        let kind = match counter.value {
            CounterValue::Total(_) | CounterValue::ByReason(_) => Kind::Counter,
            CounterValue::Now(_) => Kind::Gauge,
            CounterValue::Distribution { .. } => Kind::Histogram,
        };
        page.family(kind, counter.name, counter.help);
        for (number, shard) in shards.iter().enumerate() {
            append(page, counter.name, &counter.value, number, shard);
        }
    }
}

fn append(
    page: &mut Exposition,
    name: &str,
    value: &CounterValue,
    number: usize,
    shard: &ShardLedger,
) {
    match *value {
        CounterValue::Total(read) | CounterValue::Now(read) => {
            page.sample(name, &[("shard", &number)], read(shard));
        }
        CounterValue::ByReason(read) => {
            for reason in Reason::ALL {
                let labels: [(&str, &dyn Display); 2] =
                    [("shard", &number), ("reason", &reason.name())];
                page.sample(name, &labels, read(shard, *reason));
            }
        }
        CounterValue::Distribution { read, per_unit } => {
            append_histogram(page, name, per_unit, number, read(shard));
        }
    }
}

/// Appends a histogram. Prometheus buckets are cumulative.
fn append_histogram(
    page: &mut Exposition,
    name: &str,
    per_unit: f64,
    shard: usize,
    counted: &Histogram,
) {
    let mut so_far = 0;
    for (at, count) in counted.counts.iter().enumerate() {
        so_far += count;
        let bound: &dyn Display = match Histogram::upper_bound(at) {
            Some(bound) => &(bound as f64 / per_unit),
            None => &"+Inf",
        };
        page.sample(&format!("{name}_bucket"), &[("shard", &shard), ("le", bound)], so_far);
    }
    let sum = counted.sum as f64 / per_unit;
    page.sample(&format!("{name}_sum"), &[("shard", &shard)], sum);
    page.sample(&format!("{name}_count"), &[("shard", &shard)], so_far);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_of_a_shard_is_published() {
        let mut shards = [ShardLedger::default(); 2];
        shards[0].slots.free = 5;
        shards[1].opened = 7;
        shards[1].closed_by[Reason::Kicked as usize] = 3;
        shards[1].lifetime_ms = Histogram { sum: 2_500, ..Histogram::default() };
        shards[1].lifetime_ms.counts[2] = 1;
        let mut page = Exposition::default();
        about_shards(&mut page, &shards);
        let text = page.into_text();
        for counter in ShardLedger::counters() {
            let head = format!("# HELP {0} {1}\n# TYPE {0} ", counter.name, counter.help);
            assert!(text.contains(&head), "{head} in {text}");
            for shard in 0..shards.len() {
                let sample = ["", "_sum"].iter().any(|end| {
                    text.contains(&format!("\n{}{end}{{shard=\"{shard}\"", counter.name))
                });
                assert!(sample, "{} of shard {shard} in {text}", counter.name);
            }
        }
        for line in [
            "ringwright_connections_opened_total{shard=\"1\"} 7",
            "ringwright_connections_open{shard=\"1\"} 7",
            "# TYPE ringwright_slots_free gauge\nringwright_slots_free{shard=\"0\"} 5",
            "ringwright_connections_closed_total{shard=\"1\",reason=\"kicked\"} 3",
            "ringwright_connection_lifetime_seconds_bucket{shard=\"1\",le=\"0.001\"} 0",
            "ringwright_connection_lifetime_seconds_bucket{shard=\"1\",le=\"0.003\"} 1",
            "ringwright_connection_lifetime_seconds_sum{shard=\"1\"} 2.5",
        ] {
            assert!(text.contains(&format!("{line}\n")), "{line} in {text}");
        }
    }
}
