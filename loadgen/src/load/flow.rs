//! The connections of a shard, and those among them with room for a request.

use super::slack::Slack;
use ringwright::ConnectionId;
use std::collections::VecDeque;

/// One request in flight. Times are nanoseconds since the start of the run.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// Scheduled time; in a closed loop, the time of sending.
    pub intended_ns: u64,
    /// Time of the first sending.
    pub begun_ns: u64,
    /// Time of sending on this connection.
    pub sent_ns: u64,
}

impl Asked {
    /// Creates a request that is sent now.
    #[must_use]
    pub const fn new(intended_ns: u64, now_ns: u64) -> Self {
        Self { intended_ns, begun_ns: now_ns, sent_ns: now_ns }
    }

    /// Returns true if the request was sent on another connection before.
    #[must_use]
    pub const fn is_repeat(&self) -> bool {
        self.sent_ns > self.begun_ns
    }
}

/// One connection.
pub struct Flow<S> {
    /// The state of the protocol.
    pub state: S,
    /// Number in the run.
    pub number: u64,
    /// Id in the engine.
    pub id: ConnectionId,
    /// Requests without a reply, oldest first.
    pub in_flight: VecDeque<Asked>,
    /// Requests sent.
    pub sent: u64,
    /// Requests among them that were sent on another connection before.
    pub repeats: u64,
    /// The last request sent is a repeated one without a reply: none may be pipelined behind it.
    pub is_careful: bool,
    /// Number of requests after which the connection is closed.
    pub quota: u64,
    /// Scheduled time of the connect, with a schedule of connections.
    pub intended_ns: u64,
    /// Bytes were received.
    pub has_received: bool,
    /// The last received bytes are the beginning of a reply.
    pub partial: bool,
    /// The connection is among [`Flows::free`].
    pub is_free: bool,
    /// All replies of a connection on schedule have arrived.
    pub is_done: bool,
    /// Ringload has ended the connection and ignores further bytes.
    pub ending: bool,
    /// The timer ends the wait before the next request.
    pub is_thinking: bool,
    /// The connection must not be replaced at once, to avoid a tight loop.
    pub retry_later: bool,
}

/// All connections of a shard, and those that wait for a request.
pub struct Flows<S> {
    flows: Vec<Option<Flow<S>>>,
    vacant: Vec<u32>,
    /// Connections with room for a request. The one that became free first is in front.
    free: VecDeque<u32>,
    /// The period in which there is one.
    pub slack: Slack,
}

impl<S> Flows<S> {
    /// Creates the state without connections.
    pub const fn new() -> Self {
        let slack = Slack::ended();
        Self { flows: Vec::new(), vacant: Vec::new(), free: VecDeque::new(), slack }
    }

    /// Adds a connection. Returns its index.
    pub fn insert(&mut self, flow: Flow<S>) -> u32 {
        assert!(!flow.is_free, "nobody has seen it yet");
        match self.vacant.pop() {
            Some(index) => {
                self.flows[index as usize] = Some(flow);
                index
            }
            None => {
                self.flows.push(Some(flow));
                (self.flows.len() - 1) as u32
            }
        }
    }

    /// Returns the connection at an index.
    #[inline]
    pub fn get_mut(&mut self, index: u32) -> &mut Flow<S> {
        self.flows[index as usize].as_mut().expect("a number of one that is here")
    }

    /// Removes a connection that has ended.
    pub fn remove(&mut self, index: u32, now_ns: u64) -> Flow<S> {
        let flow = self.flows[index as usize].take().expect("a number of one that is here");
        if flow.is_free {
            // Rare: the server ends a free connection, or the run ends.
            self.free.retain(|free| *free != index);
            self.note(now_ns);
        }
        self.vacant.push(index);
        flow
    }

    /// Adds a connection to the free ones while no request is due. Returns true if it is the only
    /// one.
    #[inline]
    pub fn set_free(&mut self, index: u32, now_ns: u64) -> bool {
        if std::mem::replace(&mut self.get_mut(index).is_free, true) {
            return false;
        }
        self.free.push_back(index);
        let is_only = self.free.len() == 1;
        if is_only {
            self.slack.begin(now_ns);
        }
        is_only
    }

    /// Takes the connection that has been free longest.
    #[inline]
    pub fn take_free(&mut self, now_ns: u64) -> Option<u32> {
        let index = self.free.pop_front()?;
        self.get_mut(index).is_free = false;
        self.note(now_ns);
        Some(index)
    }

    /// Moves a connection with room for another request behind the others.
    #[inline]
    pub fn put_back(&mut self, index: u32, slack: Slack) {
        self.get_mut(index).is_free = true;
        self.free.push_back(index);
        // The connection was free all the time.
        self.slack = slack;
    }

    #[inline]
    fn note(&mut self, now_ns: u64) {
        if self.free.is_empty() {
            self.slack.end(now_ns);
        }
    }

    /// Returns true if one has room.
    #[inline]
    pub fn has_free(&self) -> bool {
        !self.free.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(number: u64) -> Flow<()> {
        Flow {
            state: (),
            number,
            id: ConnectionId::from_number(number),
            in_flight: VecDeque::new(),
            sent: 0,
            repeats: 0,
            is_careful: false,
            quota: u64::MAX,
            intended_ns: 0,
            has_received: false,
            partial: false,
            is_free: false,
            is_done: false,
            ending: false,
            is_thinking: false,
            retry_later: false,
        }
    }

    #[test]
    fn whoever_has_been_free_longest_is_taken_first() {
        let mut flows = Flows::new();
        let [one, two, three] = [1, 2, 3].map(|number| flows.insert(flow(number)));
        assert!(!flows.has_free() && flows.take_free(10).is_none());
        assert!(flows.set_free(two, 20), "the only one");
        assert!(!flows.set_free(one, 30) && !flows.set_free(two, 40), "not the only one, or known");
        assert_eq!((flows.take_free(50), flows.get_mut(two).is_free), (Some(two), false));
        flows.put_back(two, flows.slack);
        assert_eq!(flows.slack.lag_ns(0, 60), 40, "one has been free since 20");
        assert_eq!((flows.take_free(60), flows.take_free(70)), (Some(one), Some(two)));
        assert_eq!(flows.slack.lag_ns(0, 90), 50, "none has been since 70");
        assert!(flows.set_free(three, 100));
    }

    #[test]
    fn one_that_has_ended_is_not_free_and_its_place_is() {
        let mut flows = Flows::new();
        let [one, two] = [1, 2].map(|number| flows.insert(flow(number)));
        flows.set_free(one, 10);
        flows.set_free(two, 20);
        assert_eq!(flows.remove(one, 30).number, 1);
        assert_eq!(flows.insert(flow(3)), one);
        assert_eq!((flows.take_free(40), flows.take_free(50)), (Some(two), None));
        flows.set_free(one, 60);
        flows.remove(one, 70);
        assert!(!flows.has_free() && flows.slack.lag_ns(0, 90) == 10);
    }
}
