//! The scripts that ran at the same time: one may fail because of another.

use crate::cell::Cell;
use crate::script::Script;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

/// Number of remembered scripts, in addition to running ones.
const RECENT_MAX: usize = 4_096;
/// Maximum number of scripts of a finding, the failing one among them.
const COMPANY_MAX: usize = 32;
/// Scripts that started within this time before it are among them, ended or not.
const BEFORE: u64 = 8;

/// The recent scripts, in the order of their starts.
#[derive(Default)]
pub(super) struct Overlaps {
    recent: VecDeque<Member>,
}

struct Member {
    number: u64,
    cell: Cell,
    script: Arc<Script>,
    began: Instant,
    ended: Option<Instant>,
}

impl Overlaps {
    pub(super) fn begin(&mut self, number: u64, cell: Cell, script: Arc<Script>) {
        // The end of a running script must be recorded. There are at most `-c` of them.
        if self.recent.len() >= RECENT_MAX
            && let Some(over) = self.recent.iter().position(|member| member.ended.is_some())
        {
            self.recent.remove(over);
        }
        self.recent.push_back(Member { number, cell, script, began: Instant::now(), ended: None });
    }

    /// Returns the cell of a script. Running scripts are never forgotten.
    pub(super) fn end(&mut self, number: u64) -> Option<Cell> {
        let member = self.recent.iter_mut().rev().find(|member| member.number == number)?;
        member.ended = Some(Instant::now());
        Some(member.cell)
    }

    /// Returns the scripts that overlapped with it, and those that started just before it, in
    /// order. If there are many, those that ran all the time come first, and then the nearest.
    pub(super) fn of(&self, number: u64) -> Vec<Arc<Script>> {
        let Some(victim) = self.recent.iter().find(|member| member.number == number) else {
            return Vec::new();
        };
        let until = victim.ended.unwrap_or_else(Instant::now);
        let overlaps = |member: &&Member| {
            let is_before =
                (victim.number.saturating_sub(BEFORE)..=number).contains(&member.number);
            let goes_on = member.ended.is_none_or(|ended| ended >= victim.began);
            is_before || (member.began <= until && goes_on)
        };
        let mut company: Vec<&Member> = self.recent.iter().filter(overlaps).collect();
        company.sort_by_key(|member| {
            let is_over = member.ended.is_some_and(|ended| ended < until);
            let distance = member.number.abs_diff(number);
            (distance > 0 && is_over && distance > BEFORE, distance)
        });
        company.truncate(COMPANY_MAX);
        company.sort_by_key(|member| member.number);
        company.into_iter().map(|member| member.script.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cell::{Kind, Point};

    #[test]
    fn whoever_goes_on_is_not_forgotten_however_many_there_are() {
        let cell = Cell { point: Point::Idle, kind: Kind::Rst };
        let mut company = Overlaps::default();
        let script: Arc<Script> = Arc::new("echo://a:1 number=1 connect".parse().expect("one"));
        let many = RECENT_MAX as u64 + 10;
        (0..many).for_each(|number| company.begin(number, cell, script.clone()));
        (0..many).for_each(|number| assert_eq!(company.end(number), Some(cell), "{number}"));
        (many..3 * many).for_each(|number| {
            company.begin(number, cell, script.clone());
            company.end(number);
        });
        assert!(company.recent.len() as u64 <= many);
    }

    #[test]
    fn those_on_their_way_and_those_just_before_are_company() {
        let cell = Cell { point: Point::Idle, kind: Kind::Rst };
        let mut company = Overlaps::default();
        let begin = |company: &mut Overlaps, number: u64| {
            let script = format!("echo://a:1 number={number} connect").parse().expect("a script");
            company.begin(number, cell, Arc::new(script));
        };
        begin(&mut company, 0);
        for number in 1..100 {
            begin(&mut company, number);
            assert_eq!(company.end(number), Some(cell));
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
        begin(&mut company, 100);
        begin(&mut company, 101);
        company.end(100);
        let numbers: Vec<u64> = company.of(100).iter().map(|script| script.key.number).collect();
        // The one that has been there all along, the eight before it, itself, the one that came.
        let must: Vec<u64> = std::iter::once(0).chain(92..102).collect();
        assert_eq!(numbers, must);
        assert_eq!(company.end(5_000), None);
        (200..10_000).for_each(|number| begin(&mut company, number));
        assert_eq!(company.of(9_000).len(), COMPANY_MAX);
    }
}
