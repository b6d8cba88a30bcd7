//! The scenarios: a shard of its own for each, driven turn by turn.

use crate::admission::Admission;
use crate::config::{Config, Probe};
use crate::connection::Connection;
use crate::framing::Framing;
use crate::handler::{Handler, Origin};
use crate::ledger::Published;
use crate::listener::Registry;
use crate::mailbox::{Command, Mailbox, Opened};
use crate::memory::Arena;
use crate::remote::Remote;
use crate::ring::{Outside, RingInUse};
use crate::scripted::{LISTENER, PAYLOAD_BYTES, Script, ScriptedRing};
use crate::shard::{Parts, Shard};
use crate::workers::Pool;
use std::cell::Cell;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::sync::Arc;

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

    /// What comes is a packet, and so is what is sent.
    const fn packets(self) -> Self {
        Self { packets: true, ..self }
    }

    const fn bounded(self) -> Self {
        Self { bounded: true, ..self }
    }

    /// What is to be measured.
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
    let config = Config { shards: Some(1), probe: Probe::Receive, ..Config::default() };
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
    let arena = Arena::new(config.setup().arena_bytes).map_err(|error| error.to_string())?;
    fill(&arena, config);
    let (permits, waiting_max) = (config.max_connections, config.waiting_max());
    let admission = Arc::new(Admission::new(permits, 0, 1, None, waiting_max));
    let mailbox = Mailbox::new(config.mailbox_commands_max);
    let (sending, mailbox) = mailbox.map_err(|error| error.to_string())?;
    admission.set_wakers(vec![sending.waker().clone()]);
    let published = Arc::<Published>::default();
    let wakers = vec![sending.waker().clone()];
    let (pool, mut ports) = Pool::new(config.jobs_queued_max, wakers, false);
    let mut registry = Registry::new(config);
    let address = (Ipv4Addr::LOCALHOST, 1).into();
    let settings = registry.settings(None).map_err(|error| error.to_string())?;
    let listening = registry.reserve(address, settings.clone()).ok_or("no number is free")?;
    let remote = Remote::new(
        vec![sending],
        vec![published.clone()],
        admission.clone(),
        pool,
        RingInUse::default(),
        registry,
    );
    let opened = vec![Opened::new(listening, settings, LISTENER, Outside::KERNEL)];
    remote.to(0, Command::Listen(opened)).map_err(|busy| busy.to_string())?;
    let sent_bytes = Rc::new(Cell::new(0));
    let mut shard = Shard::new(Parts {
        number: 0,
        config,
        ring: ScriptedRing::new(script, sent_bytes.clone()),
        arena: &arena,
        handler,
        mailbox,
        published: published.clone(),
        admission,
        remote,
        jobs: ports.remove(0),
    });
    assert!(shard.start().is_ok(), "`started` does not panic");
    while sent_bytes.get() < operations * PAYLOAD_BYTES as u64 {
        shard.turn().map_err(|errno| format!("{errno:?}"))?;
    }
    let ledger = published.read();
    if ledger.handler_panics + ledger.starved + ledger.stale_completions + ledger.heap_chunks > 0 {
        return Err(format!("the script did not play as it should: {ledger:?}"));
    }
    // What is open is open in the script only.
    std::process::exit(0);
}

/// Every receive buffer holds a packet: its length, and what is sent back.
fn fill(arena: &Arena, config: &Config) {
    let mut packet = [7; PAYLOAD_BYTES];
    let length = (PAYLOAD_BYTES - Framing::HEADER_BYTES) as u32;
    packet[..Framing::HEADER_BYTES].copy_from_slice(&length.to_be_bytes());
    for buffer in 0..usize::from(config.receive_buffers) {
        let offset = buffer * config.receive_buffer_bytes as usize;
        // SAFETY: the receive buffers lie at the start of the arena, which nobody else uses yet,
        // and each is longer than a packet.
        unsafe {
            let target = arena.address().add(offset);
            std::ptr::copy_nonoverlapping(packet.as_ptr(), target, packet.len());
        }
    }
}
