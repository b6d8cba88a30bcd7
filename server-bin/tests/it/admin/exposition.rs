//! A strict reader of Prometheus' text format 0.0.4, which shares no code with what writes it.

use std::collections::{BTreeMap, HashMap, HashSet};

/// A family of samples.
#[derive(Debug)]
pub struct Family {
    pub kind: String,
    /// By the sample's name and its labels in order.
    pub samples: BTreeMap<(String, Vec<(String, String)>), f64>,
}

/// Reads a page; panics at anything that is not to the letter.
#[track_caller]
pub fn read(text: &str) -> HashMap<String, Family> {
    assert!(text.ends_with('\n'), "the last line must end as well");
    let mut families: HashMap<String, Family> = HashMap::new();
    let mut current = String::new();
    let mut help = None;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, words) = rest.split_once(' ').unwrap_or_else(|| panic!("{line}"));
            assert!(!words.is_empty() && !words.contains('\\'), "{line}");
            assert_eq!(help.replace(name.to_owned()), None, "HELP without TYPE before {line}");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap_or_else(|| panic!("{line}"));
            assert_eq!(help.take().as_deref(), Some(name), "TYPE without HELP: {line}");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            is_name(name);
            let family = Family { kind: kind.to_owned(), samples: BTreeMap::new() };
            assert!(families.insert(name.to_owned(), family).is_none(), "twice: {line}");
            name.clone_into(&mut current);
        } else {
            assert!(help.is_none(), "HELP without TYPE before {line}");
            let (name, labels, value) = sample(line);
            let family = families.get_mut(&current).unwrap_or_else(|| panic!("of none: {line}"));
            let suffix = name.strip_prefix(&current).unwrap_or_else(|| panic!("astray: {line}"));
            let suffixes: &[&str] = match family.kind.as_str() {
                "histogram" => &["_bucket", "_sum", "_count"],
                _ => &[""],
            };
            assert!(suffixes.contains(&suffix), "{line}");
            assert!(family.kind == "gauge" || value >= 0.0, "{line}");
            assert!(family.samples.insert((name, labels), value).is_none(), "twice: {line}");
        }
    }
    for (name, family) in &families {
        assert!(!family.samples.is_empty(), "{name} has no sample");
        if family.kind == "histogram" {
            check_histogram(name, family);
        }
    }
    families
}

impl Family {
    /// The sum of all samples with that label and value.
    pub fn sum(&self, label: &str, value: &str) -> f64 {
        let has = |labels: &[(String, String)]| labels.contains(&(label.into(), value.into()));
        self.samples.iter().filter(|((_, labels), _)| has(labels)).map(|(_, value)| value).sum()
    }

    /// The sum of all samples.
    pub fn total(&self) -> f64 {
        self.samples.values().sum()
    }
}

type Labels = Vec<(String, String)>;

fn sample(line: &str) -> (String, Labels, f64) {
    let (rest, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
    let value: f64 = value.parse().unwrap_or_else(|error| panic!("{error}: {line}"));
    assert!(value.is_finite(), "{line}");
    let (name, inner) = match rest.split_once('{') {
        Some((name, inner)) => (name, inner.strip_suffix('}').unwrap_or_else(|| panic!("{line}"))),
        None => (rest, ""),
    };
    is_name(name);
    let mut labels = Labels::new();
    for pair in inner.split(',').filter(|_| !inner.is_empty()) {
        let (label, value) = pair.split_once('=').unwrap_or_else(|| panic!("{line}"));
        is_name(label);
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
        let value = value.unwrap_or_else(|| panic!("{line}"));
        assert!(!value.contains(['"', '\\', '{', '}']), "{line}");
        labels.push((label.to_owned(), value.to_owned()));
    }
    let names: HashSet<&String> = labels.iter().map(|(label, _)| label).collect();
    assert_eq!(names.len(), labels.len(), "a label twice: {line}");
    (name.to_owned(), labels, value)
}

#[track_caller]
fn is_name(name: &str) {
    let mut bytes = name.bytes();
    assert!(
        bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_'),
        "{name}"
    );
    assert!(bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'), "{name}");
}

/// Buckets grow with their bounds, the last is unbounded, and it says what `_count` says.
fn check_histogram(name: &str, family: &Family) {
    let mut series: HashMap<Labels, Vec<(f64, f64)>> = HashMap::new();
    for ((sample, labels), value) in &family.samples {
        if *sample == format!("{name}_bucket") {
            let mut rest = labels.clone();
            let at =
                rest.iter().position(|(label, _)| label == "le").expect("a bucket has a bound");
            let (_, bound) = rest.remove(at);
            let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().unwrap() };
            series.entry(rest).or_default().push((bound, *value));
        }
    }
    assert!(!series.is_empty(), "{name} has no buckets");
    for (labels, mut buckets) in series {
        buckets.sort_by(|left, right| left.0.total_cmp(&right.0));
        for pair in buckets.windows(2) {
            assert!(pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1, "{name}: {pair:?}");
        }
        let (bound, most) = *buckets.last().unwrap();
        assert_eq!(bound, f64::INFINITY, "{name}: the last bucket takes everything");
        assert_eq!(family.samples.get(&(format!("{name}_count"), labels.clone())), Some(&most));
        assert!(family.samples.contains_key(&(format!("{name}_sum"), labels)), "{name}");
    }
}

#[test]
fn what_is_wrong_is_refused() {
    let right = "# HELP a_total x\n# TYPE a_total counter\na_total{shard=\"0\"} 1\n";
    assert_eq!(read(right)["a_total"].sum("shard", "0"), 1.0);
    let histogram = "# HELP h x\n# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 2\n\
                     h_sum 3\nh_count 2\n";
    assert_eq!(read(histogram)["h"].samples.len(), 4);
    for wrong in [
        right.trim_end(),
        "a_total 1\n",
        "# TYPE a_total counter\na_total 1\n",
        "# HELP a_total x\na_total 1\n",
        &right.replace("counter", "gauge"),
        &right.replace("a_total{", "b_total{"),
        &format!("{right}a_total{{shard=\"0\"}} 1\n"),
        &format!("{right}{right}"),
        &right.replace("} 1", "} NaN"),
        &right.replace("} 1", "} -1"),
        &right.replace("\"0\"", "0"),
        &right.replace("a_total{shard=\"0\"} 1\n", ""),
        &histogram.replace("h_bucket{le=\"1\"} 1", "h_bucket{le=\"1\"} 3"),
        &histogram.replace("h_count 2", "h_count 3"),
        &histogram.replace("+Inf", "2"),
        &histogram.replace("h_sum 3\n", ""),
    ] {
        let wrong = wrong.to_owned();
        let text = wrong.clone();
        assert!(std::panic::catch_unwind(move || read(&wrong)).is_err(), "{text}");
    }
}
