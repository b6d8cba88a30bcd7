//! How much of a wait is nobody's fault but ours.

/// The last stretch of time in which something was free to be used. Whatever was due then and was
/// not sent was held up by ringload; behind its end, by those who have everything in use.
///
/// Nothing becomes free as long as something is due, for it is used at once: so one stretch is
/// enough, and whoever waits from within it may be sent long after it.
#[derive(Clone, Copy, Debug)]
pub struct Slack {
    since_ns: u64,
    /// None: it lasts.
    until_ns: Option<u64>,
}

impl Slack {
    /// Nothing has been free yet.
    pub const fn ended() -> Self {
        Self { since_ns: 0, until_ns: Some(0) }
    }

    /// Something is free since `now_ns`, while nothing is due.
    #[inline]
    pub const fn begin(&mut self, now_ns: u64) {
        self.since_ns = now_ns;
        self.until_ns = None;
    }

    /// Nothing is free any more.
    #[inline]
    pub const fn end(&mut self, now_ns: u64) {
        self.until_ns = Some(now_ns);
    }

    /// Something is free.
    #[inline]
    pub const fn lasts(&self) -> bool {
        self.until_ns.is_none()
    }

    /// Returns how long something was free for what was due at `due_ns` and is sent, or given up,
    /// now.
    #[inline]
    pub fn lag_ns(&self, due_ns: u64, now_ns: u64) -> u64 {
        self.until_ns.unwrap_or(now_ns).min(now_ns).saturating_sub(due_ns.max(self.since_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_time_in_which_something_was_free_is_ours() {
        let mut slack = Slack::ended();
        assert_eq!(slack.lag_ns(0, 90), 0);
        slack.begin(100);
        assert_eq!(slack.lag_ns(150, 170), 20, "it could have been sent");
        assert_eq!(slack.lag_ns(50, 170), 70, "there was nothing free when it was due");
        slack.end(200);
        assert_eq!(slack.lag_ns(150, 900), 50, "held up until 200, then by others");
        assert_eq!(slack.lag_ns(250, 900), 0, "due when nothing was free");
        slack.begin(950);
        assert_eq!(slack.lag_ns(960, 960), 0);
    }
}
