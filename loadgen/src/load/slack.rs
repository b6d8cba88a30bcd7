//! The part of a wait that ringload itself causes.

/// The last period in which a connection was free. A request that was due in it and was not sent
/// was delayed by ringload. Behind its end, requests wait for a connection.
///
/// A connection that becomes free while a request is due is used at once. Therefore one period is
/// enough, and a request that was due in it may be sent long after its end.
#[derive(Clone, Copy, Debug)]
pub struct Slack {
    since_ns: u64,
    /// `None` while the period lasts.
    until_ns: Option<u64>,
}

impl Slack {
    /// Creates the state without a free connection.
    pub const fn ended() -> Self {
        Self { since_ns: 0, until_ns: Some(0) }
    }

    /// Begins a period at `now_ns`: a connection is free and no request is due.
    #[inline]
    pub const fn begin(&mut self, now_ns: u64) {
        self.since_ns = now_ns;
        self.until_ns = None;
    }

    /// Ends the period.
    #[inline]
    pub const fn end(&mut self, now_ns: u64) {
        self.until_ns = Some(now_ns);
    }

    /// Returns true during a period.
    #[inline]
    pub const fn lasts(&self) -> bool {
        self.until_ns.is_none()
    }

    /// Returns how long a connection was free for a request that was due at `due_ns` and is sent,
    /// or given up, now.
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
