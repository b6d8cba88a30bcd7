//! The options of `search`.

use super::HttpArgs;
use crate::condition::Expression;
use clap::{Arg, Args};
use ringload_lifecycle::args::DURATION_MAX;
use ringload_lifecycle::units::{Rate, parse_duration};
use std::time::Duration;

/// Shortest `--max-time`.
const TIME_MIN: Duration = Duration::from_secs(5);
/// Options of `http` that the search sets itself.
const NOT_FOR_SEARCH: [&str; 7] =
    ["rate", "conn_rate", "stages", "count", "duration", "think", "hlog"];

/// The options of `search`.
#[derive(Clone, Debug, Args)]
pub struct SearchArgs {
    /// Objective that a rate must meet, for example 'p99<5ms' or 'errors==0'; repeatable. The
    /// figures are those of --fail-if
    #[arg(long, value_name = "EXPRESSION", required = true)]
    pub slo: Vec<Expression>,
    /// Longest duration of the search, from 5s to 24h. Each probe takes a twentieth of it
    #[arg(long, value_name = "TIME", default_value = "90s", env = "RINGLOAD_MAX_TIME",
          hide_env = true, value_parser = parse_duration)]
    pub max_time: Duration,
    /// The options of `http`.
    #[command(flatten)]
    pub http: HttpArgs,
}

/// Hides the options that the search sets itself.
pub(super) fn hide(option: Arg) -> Arg {
    let is_set = NOT_FOR_SEARCH.contains(&option.get_id().as_str());
    option.hide(is_set)
}

impl SearchArgs {
    pub(super) fn settle(&mut self, from_line: impl Fn(&str) -> bool) -> Result<(), String> {
        if let Some(option) = NOT_FOR_SEARCH.into_iter().find(|name| from_line(name)) {
            let option = option.replace('_', "-");
            return Err(format!(
                "--{option} does not apply to search, which sets it for each probe"
            ));
        }
        if !(TIME_MIN..=DURATION_MAX).contains(&self.max_time) {
            return Err("--max-time must be from 5s to 24h".into());
        }
        // Those from the environment are for other commands. Each probe has a rate.
        let load = &mut self.http.load;
        (load.requests, load.conn_rate, load.stages) = (None, None, None);
        load.common.hlog = None;
        load.rate = Some(Rate::from(1).into());
        load.duration = self.max_time;
        self.http.settle(from_line)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Cli, Target};

    #[test]
    fn a_search_has_objectives_and_sets_the_rate_itself() {
        let line = "ringload search http://h/ --slo p99<5ms --slo errors==0 --arrivals poisson";
        let Target::Search(search) = Cli::read(line.split(' ')).expect(line).target else {
            panic!("{line}")
        };
        assert_eq!((search.slo.len(), search.max_time.as_secs()), (2, 90));
        for (options, says) in [
            ("", "--slo <EXPRESSION>"),
            ("--slo p99", "expected FIGURE COMPARISON VALUE"),
            ("--slo p99<5ms -R 5", "--rate does not apply to search"),
            ("--slo p99<5ms --conn-rate 5", "--conn-rate does not apply"),
            ("--slo p99<5ms -d 5s", "--duration does not apply"),
            ("--slo p99<5ms -n 5", "--count does not apply"),
            ("--slo p99<5ms --think 5s", "--think does not apply"),
            ("--slo p99<5ms --max-time 4s", "from 5s to 24h"),
            ("--slo p99<5ms -c 1 -t 2", "--threads 2"),
        ] {
            let line = format!("ringload search http://h/ {options}");
            let error = Cli::read(line.trim().split(' ')).expect_err(&line).to_string();
            assert!(error.contains(says), "{line}: {error}");
        }
    }
}
