//! The scenarios: a shard of its own for each, driven turn by turn.

use crate::scripted::{LISTENER, PAYLOAD_BYTES, Script, ScriptedRing};
use ringwright::internals::BareShard;
use ringwright::packets::Framing;
use ringwright::{Config, Connection, Handler, IdleOperation, Origin};
use std::cell::Cell;
use std::rc::Rc;

/// Instructions that an echo may cost.
const INSTRUCTIONS_MAX: f64 = 1_500.0;

/// One of the things that are counted.
pub struct Scenario {
    name: &'static str,
    script: Script,
    packets: bool,
    bounded: bool,
}

/// All of them. An operation is always a reply of 64 bytes.
pub const SCENARIOS: [Scenario; 4] = [
    Scenario::new("echo 32 at a time", Script::Together(32)).bounded(),
    Scenario::new("packets 32 at a time", Script::Together(32)).packets().bounded(),
    Scenario::new("echo 1 at a time", Script::Together(1)).bounded(),
    Scenario::new("echo after parking", Script::Parking),
];

impl Scenario {
    const fn new(name: &'static str, script: Script) -> Self {
        Self { name, script, packets: false, bounded: false }
    }

    /// Received and sent messages are packets.
    const fn packets(self) -> Self {
        Self { packets: true, ..self }
    }

    const fn bounded(self) -> Self {
        Self { bounded: true, ..self }
    }

    /// Returns the name and the bound.
    pub fn figure(&self) -> ringwright_instructions::Scenario<'_> {
        let instructions_max = self.bounded.then_some(INSTRUCTIONS_MAX);
        ringwright_instructions::Scenario { name: self.name, instructions_max }
    }
}

struct Echo;

impl Handler for Echo {
    type State = ();
    fn opened(&mut self, _: &mut Connection<'_>, _: Origin) {}
    fn received(&mut self, _: &mut (), connection: &mut Connection<'_>, bytes: &[u8]) -> usize {
        let _ = connection.send(bytes);
        bytes.len()
    }
}

struct EchoPackets(Framing);

impl Handler for EchoPackets {
    type State = ();
    fn opened(&mut self, _: &mut Connection<'_>, _: Origin) {}
    fn received(&mut self, _: &mut (), connection: &mut Connection<'_>, bytes: &[u8]) -> usize {
        let mut packets = self.0.packets(bytes);
        for packet in &mut packets {
            let body = packet.expect("the script's packets are short");
            let _ = self.0.send(connection, &[body]);
        }
        packets.finish(connection)
    }
}

/// Plays a scenario until so many operations are done.
///
/// # Errors
/// There is no such scenario, or no memory or descriptor for it.
pub fn play(name: &str, operations: u64) -> Result<(), String> {
    let found = SCENARIOS.iter().find(|scenario| scenario.name == name);
    let scenario = found.ok_or_else(|| format!("there is no scenario {name:?}"))?;
    // The ring plays the receive, not the poll: both lead to the same.
    let config =
        Config { shards: Some(1), idle_operation: IdleOperation::Receive, ..Config::default() };
    if scenario.packets {
        let framing = Framing::new(32 << 10, &config).map_err(|error| error.to_string())?;
        drive(scenario.script, &config, EchoPackets(framing), operations)
    } else {
        drive(scenario.script, &config, Echo, operations)
    }
}

#[inline(never)]
fn drive<H: Handler>(
    script: Script,
    config: &Config,
    handler: H,
    operations: u64,
) -> Result<(), String> {
    let sent_bytes = Rc::new(Cell::new(0));
    let ring = ScriptedRing::new(script, sent_bytes.clone());
    let mut shard = BareShard::new(config, ring, LISTENER, handler, &packet())
        .map_err(|error| error.to_string())?;
    while sent_bytes.get() < operations * PAYLOAD_BYTES as u64 {
        shard.turn().map_err(|errno| format!("{errno:?}"))?;
    }
    let ledger = shard.ledger();
    if ledger.handler_panics + ledger.starved + ledger.stale_completions + ledger.heap_chunks > 0 {
        return Err(format!("the script did not play as it should: {ledger:?}"));
    }
    // Connections are open in the script only.
    std::process::exit(0);
}

/// A packet: its length, and the bytes that are sent back. Every receive buffer holds one.
fn packet() -> [u8; PAYLOAD_BYTES] {
    let mut packet = [7; PAYLOAD_BYTES];
    let length = (PAYLOAD_BYTES - Framing::HEADER_BYTES) as u32;
    packet[..Framing::HEADER_BYTES].copy_from_slice(&length.to_be_bytes());
    packet
}
