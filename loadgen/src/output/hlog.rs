//! HdrHistogram logs, version 1.3, which `HistogramLogAnalyzer`, `hdr-plot` and others read.
//!
//! A log has one line per interval and tag (`latency`, `service`, `connect`, …). Histograms count
//! nanoseconds, and the third column is the maximum in milliseconds.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::serialization::V2Serializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
use ringload_lifecycle::delivery::Delivery;
use std::io::{self, Write};
use std::time::{Duration, SystemTime};

/// Nanoseconds per millisecond.
const MAX_DIVISOR: f64 = 1e6;
/// The names of the columns in the format.
const LEGEND: &str = "\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\
                      \"Interval_Compressed_Histogram\"";

/// Writes the log of a run.
///
/// # Errors
/// errno of writing.
pub fn write(file: &mut impl Write, delivery: &Delivery) -> io::Result<()> {
    let report = &delivery.report;
    let started_s = report["environment"]["started_at_s"].as_u64().unwrap_or_default();
    let mut builder = IntervalLogWriterBuilder::new();
    builder
        .add_comment("[Histogram log format version 1.3]")
        .add_comment(&format!("[ringload {}: nanoseconds]", env!("CARGO_PKG_VERSION")))
        .add_comment(&format!("[plan: {}]", report["plan"]))
        .with_start_time(SystemTime::UNIX_EPOCH + Duration::from_secs(started_s))
        .with_max_value_divisor(MAX_DIVISOR);
    if delivery.timeline.is_cut() {
        builder.add_comment("[the log is full; the end of the run is missing]");
    }
    // The writer is needed only for the heading; the histograms are already encoded.
    builder.begin_log_with(file, &mut V2Serializer::new())?;
    writeln!(file, "{LEGEND}")?;
    for stretch in delivery.timeline.stretches() {
        // A tag that is invalid in the format would make the log unreadable.
        let tag = Tag::new(stretch.tag).map_or("times", |tag| tag.as_str());
        writeln!(
            file,
            "Tag={tag},{:.3},{:.3},{:.3},{}",
            stretch.start.as_secs_f64(),
            stretch.length.as_secs_f64(),
            stretch.max_ns as f64 / MAX_DIVISOR,
            STANDARD.encode(&stretch.histogram)
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::reading;
    use crate::stats::Stats;
    use hdrhistogram::Histogram;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
    use ringload_lifecycle::timeline::Timeline;
    use serde_json::json;

    #[test]
    fn the_log_is_read_back_and_adds_up_to_the_whole() {
        let mut whole = Stats::new().service_ns;
        let mut timeline = Timeline::default();
        for second in 0..5_u64 {
            let mut part = Stats::new().service_ns;
            (1..2_000).for_each(|n| part.saturating_record(1_000 * n * (second + 1)));
            whole.add(&part).expect("the same bounds");
            let start = Duration::from_secs(second);
            timeline.keep("service", start, Duration::from_secs(1), &part);
        }
        let report = json!({
            "environment": { "started_at_s": 1_700_000_000 }, "plan": { "target": "a\nb" },
        });
        let delivery = Delivery { timeline, ..Delivery::new(&report, String::new(), 0) };
        let mut log = Vec::new();
        write(&mut log, &delivery).expect("a Vec takes everything");

        let (mut sum, mut starts) = (Stats::new().service_ns, Vec::new());
        for entry in IntervalLogIterator::new(&log) {
            match entry.expect("the log is one") {
                LogEntry::StartTime(start) => assert_eq!(start.as_secs(), 1_700_000_000),
                LogEntry::BaseTime(_) => panic!("there is none"),
                LogEntry::Interval(interval) => {
                    assert_eq!(interval.tag().map(|tag| tag.as_str()), Some("service"));
                    assert_eq!(interval.duration(), Duration::from_secs(1));
                    starts.push(interval.start_timestamp().as_secs());
                    let part: Histogram<u64> =
                        reading::decode(interval.encoded_histogram()).expect("a histogram");
                    assert!((interval.max() - part.max() as f64 / 1e6).abs() < 0.001);
                    sum.add(part).expect("the same bounds");
                }
            }
        }
        assert_eq!((sum, starts), (whole, vec![0, 1, 2, 3, 4]));
        let text = String::from_utf8(log).expect("it is text");
        assert!(text.starts_with("#[Histogram log format version 1.3]\n"), "{text}");
        assert!(text.contains(r#"#[plan: {"target":"a\nb"}]"#), "{text}");
    }
}
