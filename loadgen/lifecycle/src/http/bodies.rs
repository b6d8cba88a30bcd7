//! The expected body of one URL, learnt from the replies.

use super::fingerprint::Fingerprint;

/// Maximum number of different bodies for which a status waits for two equal ones. Beyond it the
/// first one is expected: no body repeats.
const CANDIDATES_MAX: usize = 64;

/// The bodies of one URL. Each status has its own, because a redirection has another body than the
/// page. The first two equal replies with a status decide, so that one odd reply, such as the first
/// of a server that starts up, does not make all others wrong.
#[derive(Debug, Default)]
pub struct Bodies {
    statuses: Vec<Status>,
    /// Differing replies that were seen before the expected body was known.
    late: Vec<Deviant>,
}

#[derive(Debug)]
struct Status {
    status: u16,
    expected: Option<Fingerprint>,
    /// Different bodies, each seen once, with their tags; empty once a body is expected.
    candidates: Vec<(Fingerprint, u64)>,
}

/// A reply whose body is not the expected one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deviant {
    /// The tag of the reply.
    pub tag: u64,
    status: u16,
    body: Fingerprint,
    expected: Fingerprint,
}

impl Deviant {
    /// Creates the description of a reply with `body`.
    #[must_use]
    pub const fn new(status: u16, body: Fingerprint, expected: Fingerprint, tag: u64) -> Self {
        Self { tag, status, body, expected }
    }

    /// Describes the difference.
    #[must_use]
    pub fn text(&self) -> String {
        let Self { status, body, expected, .. } = self;
        match body.length == expected.length {
            true => format!(
                "the body differs from that of other replies with status {status}; both have {} \
                 bytes",
                body.length
            ),
            false => format!(
                "the body has {} bytes, but that of other replies with status {status} has {}",
                body.length, expected.length
            ),
        }
    }
}

impl Bodies {
    /// Takes the body of a reply. Returns the expected body, or `None` if it is not known yet.
    /// `tag` names the reply if it turns out to be a [`Deviant`] later.
    pub fn take(&mut self, status: u16, body: Fingerprint, tag: u64) -> Option<Fingerprint> {
        let at = self.statuses.iter().position(|seen| seen.status == status);
        let at = at.unwrap_or_else(|| {
            self.statuses.push(Status { status, expected: None, candidates: Vec::new() });
            self.statuses.len() - 1
        });
        let of = &mut self.statuses[at];
        if of.expected.is_some() {
            return of.expected;
        }
        if of.candidates.iter().any(|(seen, _)| *seen == body) {
            self.decide(at, body);
            return Some(body);
        }
        of.candidates.push((body, tag));
        if of.candidates.len() == CANDIDATES_MAX {
            let (first, _) = of.candidates[0];
            self.decide(at, first);
        }
        None
    }

    /// Takes the differing replies for which [`take`](Self::take) returned `None`.
    pub fn late(&mut self) -> Vec<Deviant> {
        std::mem::take(&mut self.late)
    }

    /// Ends the learning: where no two replies were equal, all but the first differ. They are among
    /// the [`late`](Self::late) ones.
    pub fn finish(&mut self) {
        for at in 0..self.statuses.len() {
            if let Some((first, _)) = self.statuses[at].candidates.first() {
                self.decide(at, *first);
            }
        }
    }

    fn decide(&mut self, at: usize, expected: Fingerprint) {
        let of = &mut self.statuses[at];
        of.expected = Some(expected);
        let others = of.candidates.drain(..).filter(|(body, _)| *body != expected);
        let status = of.status;
        self.late.extend(others.map(|(body, tag)| Deviant::new(status, body, expected, tag)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(hash: u64) -> Fingerprint {
        Fingerprint { length: 5, hash }
    }

    fn tags(bodies: &mut Bodies) -> Vec<u64> {
        bodies.late().iter().map(|deviant| deviant.tag).collect()
    }

    #[test]
    fn one_odd_reply_is_one_odd_reply_wherever_it_comes() {
        for odd in 0..4 {
            let mut bodies = Bodies::default();
            let mut differing = 0;
            for tag in 0..4 {
                let body = body(u64::from(tag == odd));
                let expected = bodies.take(200, body, tag);
                differing += usize::from(expected.is_some_and(|expected| expected != body));
            }
            bodies.finish();
            assert_eq!(differing + bodies.late().len(), 1, "{odd}");
        }
    }

    #[test]
    fn each_status_has_a_body_of_its_own() {
        let mut bodies = Bodies::default();
        assert_eq!(bodies.take(302, body(1), 0), None);
        assert_eq!(bodies.take(200, body(2), 1), None);
        assert_eq!(bodies.take(200, body(2), 2), Some(body(2)));
        assert_eq!(bodies.take(200, body(3), 3), Some(body(2)));
        bodies.finish();
        assert_eq!(tags(&mut bodies), [0; 0]);
    }

    #[test]
    fn where_no_two_are_equal_all_but_the_first_differ() {
        let mut bodies = Bodies::default();
        assert!((0..10).all(|tag| bodies.take(200, body(tag), tag).is_none()));
        bodies.finish();
        assert_eq!(tags(&mut bodies), (1..10).collect::<Vec<_>>());
        // Their number is bounded.
        let mut bodies = Bodies::default();
        let known = (0..200).filter(|tag| bodies.take(200, body(*tag), *tag).is_some()).count();
        assert_eq!(known, 200 - CANDIDATES_MAX);
        assert_eq!(tags(&mut bodies).len(), CANDIDATES_MAX - 1);
        assert!(bodies.statuses[0].candidates.is_empty());
    }

    #[test]
    fn a_difference_is_described() {
        let shown = |length| Deviant::new(200, Fingerprint { length, hash: 1 }, body(2), 0).text();
        assert!(shown(5).ends_with("status 200; both have 5 bytes"), "{}", shown(5));
        assert!(shown(7).contains("has 7 bytes, but"), "{}", shown(7));
    }
}
