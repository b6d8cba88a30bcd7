//! The events of a storm: a seed draws the list, and a failure shortens it.

use super::{Bench, Client, Faults};
use crate::handler::Handler;
use crate::ring::simulated::Rng;
use std::fmt;
use std::time::Duration;

/// Clients of a storm, at most.
const CLIENTS_MAX: usize = 6;
/// Pieces of what a client sends, at most.
const PIECES_MAX: usize = 6;
/// Faults that a seed turns on, at most.
const FAULTS_MAX: u64 = 4;

/// One event. Clients are numbered from 0 in the order of their connects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Connect {
        client: usize,
        shard: usize,
        listener: usize,
    },
    /// The next bytes of a text. A script without an earlier piece begins with this one.
    Send {
        client: usize,
        text: usize,
        bytes: usize,
    },
    HalfClose {
        client: usize,
    },
    Close {
        client: usize,
    },
    Reset {
        client: usize,
    },
    Vanish {
        client: usize,
    },
    StopReading {
        client: usize,
    },
    ReadOn {
        client: usize,
        bytes_max: usize,
    },
    SendAtMost {
        client: usize,
        bytes_max: usize,
    },
    Fault {
        name: &'static str,
        per_mille: u16,
    },
    Advance {
        milliseconds: u64,
    },
    Run,
}

/// Everything that a seed may draw from.
pub struct Choices<'a> {
    pub texts: &'a [Vec<u8>],
    pub shards: usize,
    pub listeners: usize,
}

/// Draws the events of a seed: each client's in their order, those of different clients mixed.
pub fn draw(rng: &mut Rng, choices: &Choices<'_>) -> Vec<Event> {
    let mut lists: Vec<Vec<Event>> =
        (0..rng.up_to(CLIENTS_MAX)).map(|client| draw_client(rng, choices, client)).collect();
    let mut events = Vec::new();
    for _ in 0..rng.below(FAULTS_MAX + 1) {
        events.push(draw_fault(rng));
    }
    lists.iter_mut().for_each(|list| list.reverse());
    loop {
        lists.retain(|list| !list.is_empty());
        if lists.is_empty() {
            return events;
        }
        let at = rng.below(lists.len() as u64) as usize;
        let next = lists[at].pop();
        let is_part = matches!(next, Some(Event::Send { .. }));
        events.extend(next);
        if is_part && rng.below(2) == 0 {
            events.push(Event::Run);
        }
        match rng.below(12) {
            0..3 => events.push(Event::Run),
            3..5 => events.push(Event::Advance { milliseconds: rng.pick(&[1, 10, 100, 1_000]) }),
            5 => events.push(draw_fault(rng)),
            _ => {}
        }
    }
}

fn draw_fault(rng: &mut Rng) -> Event {
    let (name, per_mille) = Faults::draw_one(rng);
    Event::Fault { name, per_mille }
}

fn draw_client(rng: &mut Rng, choices: &Choices<'_>, client: usize) -> Vec<Event> {
    let shard = rng.below(choices.shards as u64) as usize;
    let listener = rng.below(choices.listeners as u64) as usize;
    let mut events = vec![Event::Connect { client, shard, listener }];
    let bytes_max = rng.pick(&[1, 7, 300, 5_000, usize::MAX]);
    match rng.below(8) {
        0 => events.push(Event::StopReading { client }),
        1 => events.push(Event::ReadOn { client, bytes_max }),
        2 => events.push(Event::SendAtMost { client, bytes_max }),
        _ => {}
    }
    if !choices.texts.is_empty() {
        let text = rng.below(choices.texts.len() as u64) as usize;
        let length = choices.texts[text].len();
        let mut cuts: Vec<usize> =
            (1..rng.up_to(PIECES_MAX)).map(|_| rng.below(length as u64 + 1) as usize).collect();
        cuts.extend([0, length]);
        cuts.sort_unstable();
        let pieces = cuts.windows(2).filter(|cut| cut[0] < cut[1]);
        events.extend(pieces.map(|cut| Event::Send { client, text, bytes: cut[1] - cut[0] }));
    }
    let end = match rng.below(16) {
        0 | 1 => Some(Event::Reset { client }),
        2 => Some(Event::Vanish { client }),
        3 | 4 => Some(Event::Close { client }),
        5..10 => Some(Event::HalfClose { client }),
        _ => None,
    };
    // A reset in the middle of what it says is as good as one afterwards.
    let early = matches!(end, Some(Event::Reset { .. } | Event::Vanish { .. }));
    let at = if early { rng.up_to(events.len()) } else { events.len() };
    end.into_iter().for_each(|end| events.insert(at, end));
    events
}

/// The clients of a script as far as it was played, by their number in it.
#[derive(Default)]
pub struct Played {
    pub clients: Vec<Option<PlayedClient>>,
}

/// A client of a script.
pub struct PlayedClient {
    pub client: Client,
    /// All that it was given to send.
    pub bytes: Vec<u8>,
    /// It ended its connection before it had its reply.
    pub left: bool,
}

impl Played {
    fn get(&mut self, client: usize) -> Option<&mut PlayedClient> {
        self.clients.get_mut(client)?.as_mut()
    }

    /// Plays one event. Events of a client that never connected do nothing.
    pub fn play<H: Handler>(
        &mut self,
        bench: &mut Bench<H>,
        faults: &mut Faults,
        event: &Event,
        texts: &[Vec<u8>],
    ) {
        match *event {
            Event::Connect { client, shard, listener } => {
                let connected = bench.connect_to(shard, listener);
                self.clients.resize_with(self.clients.len().max(client + 1), || None);
                let played = PlayedClient { client: connected, bytes: Vec::new(), left: false };
                self.clients[client] = Some(played);
            }
            Event::Fault { name, per_mille } => {
                *faults.by_name(name).expect("a name of a fault") = per_mille;
                bench.set_faults(faults);
            }
            Event::Advance { milliseconds } => bench.advance(Duration::from_millis(milliseconds)),
            // With faults it may take long to come to rest.
            Event::Run => bench.advance(Duration::from_millis(5)),
            Event::Send { client, text, bytes } => {
                if let Some(played) = self.get(client) {
                    let next = &texts[text][played.bytes.len()..][..bytes];
                    played.bytes.extend(next);
                    bench.send(played.client, next);
                }
            }
            Event::HalfClose { client }
            | Event::Close { client }
            | Event::Reset { client }
            | Event::Vanish { client }
            | Event::StopReading { client }
            | Event::ReadOn { client, .. }
            | Event::SendAtMost { client, .. } => {
                let Some(played) = self.get(client) else { return };
                let leaves = matches!(
                    event,
                    Event::Close { .. } | Event::Reset { .. } | Event::Vanish { .. }
                );
                played.left |= leaves;
                let client = played.client;
                match *event {
                    Event::HalfClose { .. } => bench.half_close(client),
                    Event::Close { .. } => bench.close(client),
                    Event::Reset { .. } => bench.reset(client),
                    Event::Vanish { .. } => bench.vanish(client),
                    Event::StopReading { .. } => bench.stop_reading(client),
                    Event::ReadOn { bytes_max, .. } => bench.read_on(client, bytes_max),
                    Event::SendAtMost { bytes_max, .. } => bench.send_at_most(client, bytes_max),
                    _ => unreachable!("the events above"),
                }
            }
        }
    }
}

/// Leaves out events while `fails` says that the rest still fails. Returns what cannot be left out.
pub fn shrink(mut events: Vec<Event>, mut fails: impl FnMut(&[Event]) -> bool) -> Vec<Event> {
    let mut size = events.len().div_ceil(2);
    while size > 0 {
        let mut at = 0;
        while at < events.len() {
            let mut fewer = events.clone();
            fewer.drain(at..(at + size).min(events.len()));
            if fails(&fewer) {
                events = fewer;
            } else {
                at += size;
            }
        }
        size /= 2;
    }
    events
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Connect { client, shard, listener } => {
                write!(f, "client {client} connects to listener {listener} of shard {shard}")
            }
            Self::Send { client, text, bytes } => {
                write!(f, "client {client} sends the next {bytes} bytes of text {text}")
            }
            Self::HalfClose { client } => write!(f, "client {client} sends FIN and reads on"),
            Self::Close { client } => write!(f, "client {client} closes"),
            Self::Reset { client } => write!(f, "client {client} resets"),
            Self::Vanish { client } => write!(f, "client {client} vanishes"),
            Self::StopReading { client } => write!(f, "client {client} stops reading"),
            Self::ReadOn { client, bytes_max } => {
                write!(f, "client {client} reads at most {bytes_max} bytes at a time")
            }
            Self::SendAtMost { client, bytes_max } => {
                write!(f, "client {client} sends at most {bytes_max} bytes at a time")
            }
            Self::Fault { name, per_mille } => write!(f, "fault {name}: {per_mille} per mille"),
            Self::Advance { milliseconds } => write!(f, "{milliseconds} ms pass"),
            Self::Run => f.write_str("5 ms pass"),
        }
    }
}
