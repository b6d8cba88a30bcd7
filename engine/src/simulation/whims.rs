//! Handlers of the simulation do this with a connection now and then: they set several timers,
//! pause for several reasons, set a number of their own, and give up files.

use super::actor::{Actor, Talk};
use super::book::{Record, Role, Shape};
use crate::Connection;
use std::collections::BTreeMap;
use std::time::Duration;

/// Reasons for a pause beside the one of `pause`, each with a timer of the same number that ends
/// it.
const REASONS: [u8; 3] = [1, 2, 31];
/// The least number of a timer that ends no pause.
const TIMERS: u8 = 40;

/// The timers, pauses and number that a handler has given a connection.
#[derive(Default)]
pub struct Whims {
    /// The time before which each timer must not fire.
    timers: BTreeMap<u8, Duration>,
    /// The reasons for which it is paused, but for the first.
    pub reasons: u32,
    pub user_data: u64,
}

impl Actor {
    /// Does something, now and then.
    pub(super) fn follow_whim(&self, talk: &mut Talk, connection: &mut Connection<'_>) {
        if !self.habits.whims || matches!(talk.part.role, Role::Ends(..)) {
            return;
        }
        let paused = u32::from(talk.paused) | talk.whims.reasons;
        let of_jobs = !talk.jobs.is_empty();
        let wrong = connection.pauses() != paused && !of_jobs;
        if wrong || connection.user_data() != talk.whims.user_data {
            self.fail(talk.id, &format!("pauses {:b}, not {paused:b}", connection.pauses()));
        }
        match talk.rng.below(24) {
            0..=2 => {
                let timer = TIMERS + talk.rng.below(5) as u8;
                set_timer(talk, connection, timer);
            }
            3 => {
                let timer = TIMERS + talk.rng.below(5) as u8;
                talk.whims.timers.remove(&timer);
                connection.set_timer(timer, None);
            }
            4 | 5 => {
                let reason = talk.rng.pick(&REASONS);
                talk.whims.reasons |= 1 << reason;
                talk.resumed = false;
                connection.pause_for(1 << reason);
                set_timer(talk, connection, reason);
            }
            6 => {
                talk.whims.user_data = talk.rng.below(3);
                connection.set_user_data(talk.whims.user_data);
            }
            7..=9 => {
                let missing_bytes = connection.cancel_files();
                self.book.borrow_mut().records[talk.record].cut_files(missing_bytes);
            }
            10..=12 => {
                let comes = connection.cancel_receive();
                if comes != talk.upload.coming.is_some() && connection.state() == "open" {
                    self.fail(talk.id, &format!("a file is given up: {comes}"));
                }
            }
            13..=15 => {
                let goes_on = connection.cancel_forward();
                if goes_on != talk.forwarding.is_some() && connection.state() == "open" {
                    self.fail(talk.id, &format!("a range is given up: {goes_on}"));
                }
            }
            _ => {}
        }
    }

    /// Hears of a timer. Returns whether it is one of these.
    pub(super) fn hear_of_timer(
        &self,
        talk: &mut Talk,
        connection: &mut Connection<'_>,
        timer: u8,
    ) -> bool {
        if timer == 0 {
            return false;
        }
        let now = connection.local().now();
        match talk.whims.timers.remove(&timer) {
            Some(at) if at <= now => {}
            at => self.fail(talk.id, &format!("timer {timer} at {now:?}, but it was for {at:?}")),
        }
        if REASONS.contains(&timer) {
            talk.whims.reasons &= !(1 << timer);
            connection.resume_for(1 << timer);
            // Too few bytes for `need` are not shown again.
            talk.resumed = !talk.paused && talk.whims.reasons == 0 && talk.needed == 0;
        }
        true
    }
}

fn set_timer(talk: &mut Talk, connection: &mut Connection<'_>, timer: u8) {
    let after = Duration::from_millis(talk.rng.pick(&[0, 1, 4, 5, 30, 2_000]));
    talk.whims.timers.insert(timer, connection.local().now() + after);
    connection.set_timer(timer, Some(after));
}

impl Record {
    /// Files were given up that have so many bytes left. At most one of them had begun: the first.
    fn cut_files(&mut self, missing_bytes: u64) {
        let mut left = missing_bytes;
        let mut end = self.said.iter().map(|piece| piece.bytes).sum::<u64>();
        for piece in self.said.iter_mut().rev() {
            let cut = if piece.shape == Shape::File { left.min(piece.bytes) } else { 0 };
            // A marker lies behind this file or before it, not in it.
            self.markers.iter_mut().filter(|it| it.bytes >= end).for_each(|it| it.bytes -= cut);
            end -= piece.bytes;
            piece.bytes -= cut;
            left -= cut;
        }
        assert_eq!(left, 0, "more bytes are missing than files have");
    }
}
