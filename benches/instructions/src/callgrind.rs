//! The output of callgrind: instructions by function.

use std::collections::BTreeMap;

/// Instructions that each function spent itself, those it called left out.
pub type Profile = BTreeMap<String, i64>;

/// Reads a profile (callgrind's file format 1, one event, names not compressed).
///
/// # Errors
/// A line is not of that format.
pub fn parse(text: &str) -> Result<Profile, String> {
    let mut profile = Profile::new();
    let mut function = None;
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(name) = line.strip_prefix("fn=") {
            function = Some(plain(name));
        } else if line.starts_with("calls=") {
            // The next line is what the called function spent.
            lines.next();
        } else if line.starts_with(|first: char| first.is_ascii_digit()) {
            let cost = line.split_whitespace().nth(1).and_then(|cost| cost.parse::<i64>().ok());
            match (&function, cost) {
                (Some(name), Some(cost)) => *profile.entry(name.clone()).or_default() += cost,
                _ => return Err(format!("callgrind's output has a line {line:?}")),
            }
        }
    }
    if profile.is_empty() {
        Err("callgrind's output holds no costs".to_owned())
    } else {
        Ok(profile)
    }
}

/// A function's name without the hash of its crate, which another build changes, and without the
/// number of a recursion.
fn plain(name: &str) -> String {
    let name = name.split_once('\'').map_or(name, |(name, _)| name);
    match name.rsplit_once("::h") {
        Some((path, hash)) if hash.len() == 16 && hash.bytes().all(|b| b.is_ascii_hexdigit()) => {
            path.to_owned()
        }
        _ => name.to_owned(),
    }
}

/// Returns the instructions of one operation, by function: those of a run of twice as many
/// operations minus those of a run of as many. Constant costs, such as the start, cancel out.
pub fn per_operation(once: &Profile, twice: &Profile, operations: u64) -> BTreeMap<String, f64> {
    let mut difference = twice.clone();
    for (name, cost) in once {
        *difference.entry(name.clone()).or_default() -= cost;
    }
    let each = |cost: i64| cost as f64 / operations as f64;
    let spent = difference.into_iter().filter(|(_, cost)| *cost != 0);
    spent.map(|(name, cost)| (name, each(cost))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "version: 1\npositions: line\nevents: Ir\n\nfl=a.rs\n\
        fn=a::turn::h0123456789abcdef\n10 5\nfi=b.rs\n3 7\ncfn=b::push\ncalls=2 4\n11 100\n\n\
        fn=b::push\n4 90\n\nfn=a::turn'2\n12 1\n\ntotals: 103\n";

    #[test]
    fn a_function_has_what_it_spent_itself() {
        let expected = [("a::turn", 12), ("a::turn", 1), ("b::push", 90)];
        let mut profile = Profile::new();
        for (name, cost) in expected {
            *profile.entry(name.to_owned()).or_default() += cost;
        }
        assert_eq!(parse(OUTPUT), Ok(profile));
        assert!(parse("version: 1\n").is_err());
        assert!(parse("fn=a\n10 many\n").is_err());
    }

    #[test]
    fn what_both_runs_have_is_left_out() {
        let profile = |costs: &[(&str, i64)]| -> Profile {
            costs.iter().map(|(name, cost)| ((*name).to_owned(), *cost)).collect()
        };
        let once = profile(&[("main", 50), ("turn", 1_000)]);
        let twice = profile(&[("main", 50), ("turn", 1_900), ("rare", 10)]);
        let each = per_operation(&once, &twice, 100);
        assert_eq!(each, [("rare".to_owned(), 0.1), ("turn".to_owned(), 9.0)].into());
    }
}
