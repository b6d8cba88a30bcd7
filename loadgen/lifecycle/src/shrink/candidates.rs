//! Scripts that are a little shorter than another.

use crate::dialect::Phrase;
use crate::script::{Connect, Recv, Script, Send, Step};
use std::time::Duration;

/// Times are not halved below this: shorter ones only make a script that fails by chance.
const TIME_MIN: Duration = Duration::from_millis(1);

/// The largest savings first. Some make no sense; [`Script::check`] tells.
pub(super) fn of(script: &Script) -> Vec<Script> {
    let with_steps = |steps| Script { steps, ..script.clone() };
    let with_say = |say| Script { say, ..script.clone() };
    let (steps, say) = (&script.steps, &script.say);
    let mut candidates = Vec::new();
    // Without what was before a reconnect, and without that.
    for at in 1..steps.len() {
        if let Step::Connect(connect) = steps[at] {
            let fresh = Step::Connect(Connect { again: false, ..connect });
            candidates.push(with_steps([&[fresh], &steps[at + 1..]].concat()));
            candidates.push(with_steps(steps[..at].to_vec()));
        }
    }
    for at in 0..say.len() {
        candidates.push(with_say([&say[..at], &say[at + 1..]].concat()));
    }
    // To leave before the end is seen would only make it a matter of luck whether it is.
    let is_needed = |at: &usize| steps[*at] == Step::Recv(Recv::End);
    for at in (0..steps.len()).rev().filter(|at| !is_needed(at)) {
        candidates.push(with_steps([&steps[..at], &steps[at + 1..]].concat()));
    }
    for at in 0..say.len() {
        if let Some(half) = half_phrase(&say[at]) {
            let mut say = say.clone();
            say[at] = half;
            candidates.push(with_say(say));
        }
    }
    for at in 0..steps.len() {
        for half in smaller_steps(steps[at]) {
            let mut steps = steps.clone();
            steps[at] = half;
            candidates.push(with_steps(steps));
        }
    }
    candidates
}

/// With the last number in it halved: sizes are written like that.
fn half_phrase(phrase: &Phrase) -> Option<Phrase> {
    let end = phrase.rfind(|c: char| c.is_ascii_digit())? + 1;
    let start = phrase[..end].rfind(|c: char| !c.is_ascii_digit()).map_or(0, |at| at + 1);
    let half = half(phrase[start..end].parse().ok()?)?;
    Some(format!("{}{half}{}", &phrase[..start], &phrase[end..]))
}

fn half(number: u64) -> Option<u64> {
    (number > 1).then_some(number / 2)
}

fn half_time(time: Duration) -> Option<Duration> {
    (time >= 2 * TIME_MIN).then(|| Duration::from_millis(time.as_millis() as u64 / 2))
}

fn smaller_steps(step: Step) -> Vec<Step> {
    let one = |step: Option<Step>| step.into_iter().collect();
    match step {
        Step::Connect(connect) => {
            let plain = [
                Connect { rcvbuf: None, ..connect },
                Connect { nowait: false, ..connect },
                Connect { again: false, ..connect },
            ];
            plain.into_iter().filter(|it| *it != connect).map(Step::Connect).collect()
        }
        Step::Send(Send::Bytes(bytes)) => one(half(bytes).map(|it| Step::Send(Send::Bytes(it)))),
        Step::Recv(Recv::Bytes(bytes)) => one(half(bytes).map(|it| Step::Recv(Recv::Bytes(it)))),
        Step::Dribble { bytes, every } => {
            one(half(bytes).map(|bytes| Step::Dribble { bytes, every }))
        }
        Step::Flood(time) => one(half_time(time).map(Step::Flood)),
        Step::Wait(time) => one(half_time(time).map(Step::Wait)),
        Step::Vanish(time) => one(half_time(time).map(Step::Vanish)),
        Step::Crowd(count, kind) => one(half(count).map(|count| Step::Crowd(count, kind))),
        Step::Send(Send::All)
        | Step::Recv(Recv::Reply | Recv::End)
        | Step::Fin
        | Step::Rst
        | Step::Close => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::tests::script;
    use proptest::prelude::*;

    /// Goes down with each step towards a candidate, so that shrinking ends.
    fn weight(script: &Script) -> u64 {
        let digits = |text: &str| {
            text.split(|c: char| !c.is_ascii_digit())
                .filter_map(|it| it.parse::<u64>().ok())
                .fold(0, u64::saturating_add)
        };
        let text: u64 = script.say.iter().map(|phrase| 1_000 + digits(phrase)).sum();
        let step = |step: &Step| match *step {
            Step::Connect(it) => {
                100 + u64::from(it.rcvbuf.is_some()) + u64::from(it.nowait) + u64::from(it.again)
            }
            Step::Send(Send::Bytes(it)) | Step::Recv(Recv::Bytes(it)) => 100 + it,
            Step::Dribble { bytes, .. } => 100 + bytes,
            Step::Flood(it) | Step::Wait(it) | Step::Vanish(it) => 100 + it.as_micros() as u64,
            Step::Crowd(count, _) => 100 + count,
            _ => 100,
        };
        text + script.steps.iter().map(step).sum::<u64>()
    }

    proptest! {
        #[test]
        fn every_candidate_is_smaller(script in script()) {
            for candidate in of(&script) {
                prop_assert!(weight(&candidate) < weight(&script), "{} {}", script, candidate);
                prop_assert_eq!(candidate.key, script.key);
            }
        }
    }

    #[test]
    fn the_last_number_of_a_phrase_is_halved() {
        assert_eq!(half_phrase(&"64".into()), Some("32".into()));
        assert_eq!(half_phrase(&"put:9:100x".into()), Some("put:9:50x".into()));
        assert_eq!(half_phrase(&"get:/a1".into()), None);
        assert_eq!(half_phrase(&"get:/".into()), None);
    }
}
