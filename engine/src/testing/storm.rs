//! Many seeds of a handler: clients, faults and times are drawn, and a failure is reduced.

use super::script::{Choices, Event, Played, draw, shrink};
use super::{Bench, ClientEnd, Faults, Place};
use crate::config::Config;
use crate::handler::Handler;
use crate::marks::{self, Reached};
use crate::panics::message_of;
use crate::ring::simulated::Rng;
use std::cell::RefCell;
use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::time::Duration;

/// The time of a storm after the faults have stopped: all that was put off is done by then.
const CALM: Duration = Duration::from_secs(5);
/// Runs that reducing a seed may take.
const SHRINK_RUNS_MAX: u32 = 2_000;

thread_local! {
    /// The panics of a run that is not heard: they are not printed. The engine catches those of
    /// callbacks, so their messages would be lost.
    static UNHEARD: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// A client at the end of a storm, before the shards drain.
#[derive(Clone, Debug)]
pub struct StormClient {
    sent: Vec<u8>,
    received: Vec<u8>,
    end: ClientEnd,
    disturbed: bool,
    faults: Vec<&'static str>,
}

impl StormClient {
    /// The bytes that left the client.
    #[must_use]
    pub fn sent(&self) -> &[u8] {
        &self.sent
    }

    /// The bytes that the client has read.
    #[must_use]
    pub fn received(&self) -> &[u8] {
        &self.received
    }

    /// The state of its connection.
    #[must_use]
    pub fn end(&self) -> ClientEnd {
        self.end
    }

    /// Returns whether the client closed, reset or vanished before it had read to the end, or could
    /// not send everything. It may then lack a part of the reply.
    #[must_use]
    pub fn was_disturbed(&self) -> bool {
        self.disturbed
    }

    /// Returns whether the run had this fault at any time, by its name in [`Faults`]. With
    /// `truncate` or `file_error`, for example, another reply is right.
    #[must_use]
    pub fn had_fault(&self, name: &str) -> bool {
        self.faults.contains(&name)
    }
}

type NewHandler<'a, H> = Box<dyn Fn(&Place) -> H + 'a>;
type Prepare<'a, H> = Box<dyn Fn(&mut Bench<H>) + 'a>;
type Judge<'a> = Box<dyn Fn(&StormClient) + 'a>;

/// Many runs of a handler, each drawn from a seed.
///
/// A run has up to six clients. Each sends one of the [texts](Self::sends) in pieces, at its own
/// pace, and then waits, sends FIN, closes, resets or vanishes; a reset may come earlier. Faults of
/// the kernel are drawn as well ([`Faults`]). Then the faults stop, 5 s pass, each client is
/// [judged](Self::judge), and the shards drain ([`Bench::finish`]).
pub struct Storm<'a, H: Handler> {
    config: Config,
    new_handler: NewHandler<'a, H>,
    prepare: Option<Prepare<'a, H>>,
    texts: Vec<Vec<u8>>,
    judge: Option<Judge<'a>>,
}

impl<H: Handler> fmt::Debug for Storm<'_, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Storm").finish_non_exhaustive()
    }
}

impl<'a, H: Handler> Storm<'a, H> {
    /// A storm of handlers that `new_handler` makes, one for each shard of each run.
    pub fn new(config: Config, new_handler: impl Fn(&Place) -> H + 'a) -> Self {
        let new_handler = Box::new(new_handler);
        Self { config, new_handler, prepare: None, texts: Vec::new(), judge: None }
    }

    /// Prepares each run before its first client, with [`Bench::add_file`] for example.
    #[must_use]
    pub fn prepare(mut self, prepare: impl Fn(&mut Bench<H>) + 'a) -> Self {
        self.prepare = Some(Box::new(prepare));
        self
    }

    /// A text that clients send. Without any, they send nothing.
    #[must_use]
    pub fn sends(mut self, text: impl Into<Vec<u8>>) -> Self {
        self.texts.push(text.into());
        self
    }

    /// Sets the judge. It is called for each client at the end, and panics if something is wrong.
    #[must_use]
    pub fn judge(mut self, judge: impl Fn(&StormClient) + 'a) -> Self {
        self.judge = Some(Box::new(judge));
        self
    }

    /// Runs these seeds. Returns how often the engine reached the places in its code that few runs
    /// reach.
    ///
    /// # Panics
    /// If a seed fails: an invariant of the engine does not hold, a callback or the judge panicked.
    /// The message has the seed, what failed, and the events that are necessary for it.
    pub fn run(&self, seeds: Range<u64>) -> Reached {
        marks::record();
        for seed in seeds {
            let mut rng = Rng::new(seed);
            let choices = Choices {
                texts: &self.texts,
                shards: self.config.shards.unwrap_or(1),
                listeners: self.config.listeners.len().max(1),
            };
            let events = draw(&mut rng, &choices);
            let Err(message) = self.quietly(seed, &events) else { continue };
            let (before, mut runs) = (events.len(), 0);
            let fails = |fewer: &[Event]| {
                runs += 1;
                runs <= SHRINK_RUNS_MAX
                    && self
                        .quietly(seed, fewer)
                        .is_err_and(|fewer| place(&fewer) == place(&message))
            };
            let events = shrink(events, fails);
            let message = self.quietly(seed, &events).err().unwrap_or_else(|| message.clone());
            let lines: String = events.iter().map(|event| format!("  {event}\n")).collect();
            panic!(
                "seed {seed} fails: {message}\n{} of its {before} events are necessary:\n{lines}\
                 To run it again: run({seed}..{})",
                events.len(),
                seed + 1,
            );
        }
        marks::take()
    }

    /// Plays the events. `Err`: the message of the panic, which was not printed.
    fn quietly(&self, seed: u64, events: &[Event]) -> Result<(), String> {
        silence_panics();
        UNHEARD.set(Some(Vec::new()));
        let played = self.play(seed, events);
        let unheard = UNHEARD.take().unwrap_or_default();
        played.map_err(|message| match unheard.first() {
            Some(first) => first.clone(),
            None => message,
        })
    }

    fn play(&self, seed: u64, events: &[Event]) -> Result<(), String> {
        let make = || Bench::with_seed(seed, self.config.clone(), &self.new_handler);
        let bench = catch_unwind(AssertUnwindSafe(make)).map_err(message_of)?;
        // A failed run leaves things behind whose drop could panic as well.
        let mut bench = ManuallyDrop::new(bench);
        let course = AssertUnwindSafe(|| {
            if let Some(prepare) = &self.prepare {
                prepare(&mut bench);
            }
            let (mut played, mut faults) = (Played::default(), Faults::none());
            for event in events {
                played.play(&mut bench, &mut faults, event, &self.texts);
            }
            bench.stop_faults();
            bench.advance(CALM);
            let faults = events.iter().filter_map(|event| match event {
                Event::Fault { name, .. } => Some(*name),
                _ => None,
            });
            self.judge_all(&mut bench, &played, &faults.collect::<Vec<_>>());
            bench.end();
        });
        catch_unwind(course).map_err(message_of)?;
        drop(ManuallyDrop::into_inner(bench));
        Ok(())
    }

    fn judge_all(&self, bench: &mut Bench<H>, played: &Played, faults: &[&'static str]) {
        let Some(judge) = &self.judge else { return };
        for played in played.clients.iter().flatten() {
            let sent = bench.sent(played.client);
            let end = bench.client_end(played.client);
            let all = sent == played.bytes.len();
            judge(&StormClient {
                sent: played.bytes[..sent].to_vec(),
                received: bench.received(played.client).to_vec(),
                end,
                disturbed: played.left || !all || end == ClientEnd::Left,
                faults: faults.to_vec(),
            });
        }
    }
}

/// The first line of a message, which says where the panic happened: another panic is another
/// failure.
fn place(message: &str) -> &str {
    message.lines().next().unwrap_or_default()
}

/// Keeps the messages of panics on a thread that asks for it, and does not print them.
fn silence_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let unheard = UNHEARD.with_borrow_mut(|unheard| {
                unheard.as_mut().map(|unheard| unheard.push(panic.to_string()))
            });
            if unheard.is_none() {
                loud(panic);
            }
        }));
    });
}
