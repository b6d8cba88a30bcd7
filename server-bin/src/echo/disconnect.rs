//! An echo that leaves its clients at random, so that they can be tested: `--disconnect-rate`.

use super::ending::{Ending, Endings};
use super::fate::{Fate, Probability};
use crate::access_log::ConnectionLog;
use ringwright::{BoxError, Connection, ConnectionId, Handler, Local, Origin, Reason, SendStatus};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

/// How long what comes is read after our FIN, milliseconds.
const READS_ON_MS: RangeInclusive<u64> = 100..=1_000;
/// How long a stall lasts, milliseconds.
const STALL_MS: RangeInclusive<u64> = 100..=1_000;
/// How long a part of an echo has to leave before the RST follows it, milliseconds. An RST at once
/// would overtake it.
const PART_LEAVES_MS: RangeInclusive<u64> = 2..=20;

/// What is drawn with.
#[derive(Clone, Debug)]
pub struct Rules {
    /// How likely the accept, and every receive, is the last of its connection.
    pub probability: Probability,
    /// The same again with the same seed.
    pub seed: u64,
    /// Where endings are counted.
    pub endings: Arc<Endings>,
}

/// Sends back what it receives, until a connection's time has come.
pub struct Disconnecting {
    rules: Rules,
    shard: usize,
    /// Connections opened so far.
    opened: u64,
    log: ConnectionLog,
}

/// What becomes of one connection.
pub struct Life {
    fate: Fate,
    /// How it ends, as soon as that has begun.
    ending: Option<Ending>,
}

impl Disconnecting {
    /// The handler of a shard.
    #[must_use]
    pub fn new(rules: Rules, shard: usize, log: ConnectionLog) -> Self {
        Self { rules, shard, opened: 0, log }
    }

    /// Begins to end it, in answer to these bytes.
    fn end(&self, life: &mut Life, connection: &mut Connection<'_>, ending: Ending, bytes: &[u8]) {
        life.ending = Some(ending);
        self.rules.endings.count(ending);
        match ending {
            Ending::CloseAtOnce => connection.close(),
            Ending::ResetAtOnce | Ending::Reset => connection.abort(),
            Ending::Close => {
                let _ = connection.send(bytes);
                connection.close();
            }
            Ending::HalfClose => {
                connection.shutdown();
                connection.set_timer(0, Some(life.fate.milliseconds(READS_ON_MS)));
            }
            Ending::CutClose => {
                let _ = connection.send(&bytes[..life.fate.part_of(bytes.len())]);
                connection.close();
            }
            Ending::CutReset => {
                let _ = connection.send(&bytes[..life.fate.part_of(bytes.len())]);
                connection.pause();
                connection.set_timer(0, Some(life.fate.milliseconds(PART_LEAVES_MS)));
            }
            Ending::Stall => {
                connection.pause();
                connection.set_timer(0, Some(life.fate.milliseconds(STALL_MS)));
            }
        }
    }
}

impl Handler for Disconnecting {
    type State = Life;

    fn opened(&mut self, connection: &mut Connection<'_>, _: Origin) -> Life {
        let Rules { seed, probability, .. } = self.rules;
        let fate = Fate::new(seed, self.shard, self.opened, probability);
        self.opened += 1;
        let mut life = Life { fate, ending: None };
        if let Some(ending) = life.fate.ends(&Ending::AT_ONCE) {
            self.end(&mut life, connection, ending, &[]);
        }
        life
    }

    fn received(
        &mut self,
        life: &mut Life,
        connection: &mut Connection<'_>,
        bytes: &[u8],
    ) -> usize {
        match life.ending {
            // It reads on after its FIN, and says nothing to it.
            Some(_) => {}
            None => match life.fate.ends(&Ending::LATER) {
                Some(ending) => self.end(life, connection, ending, bytes),
                None if connection.send(bytes) == SendStatus::Refused => connection.abort(),
                None => {}
            },
        }
        bytes.len()
    }

    fn timer(&mut self, _: &mut Life, connection: &mut Connection<'_>, _: u8) {
        connection.abort();
    }

    fn draining(&mut self, life: &mut Life, connection: &mut Connection<'_>) {
        match life.ending {
            // The drain need not wait for it.
            Some(_) => connection.close(),
            None => connection.finish(Duration::ZERO),
        }
    }

    fn closed(&mut self, _: Option<Life>, shard: &mut Local<'_>, id: ConnectionId, reason: Reason) {
        self.log.closed(shard, id, reason);
    }

    fn started(&mut self, shard: &mut Local<'_>) -> Result<(), BoxError> {
        self.log.started(shard);
        Ok(())
    }

    fn tick(&mut self, shard: &mut Local<'_>) {
        self.log.tick(shard);
    }
}
