//! What a seed is made of. Each draws which features it has at all, so that what is rare
//! elsewhere is common in some, and combinations that others hide get far (swarm testing).

use super::book::{Farewell, Part, Role};
use crate::ListenerSettings;
use crate::config::{AtCapacity, Balance, Config, IdleOperation};
use crate::ring::simulated::{Afterwards, Faults, NEVER, Plan, Rng};
use std::time::Duration;

/// Roles there are, by number; see [`Swarm::draw_part`].
const ROLES: u64 = 21;
/// The role that answers with files.
const FILES: u64 = 3;
/// The role that has jobs on workers.
const OFFLOADER: u64 = 15;
/// The roles that connect out.
const KEEPER: u64 = 16;
const CONNECTOR: u64 = 19;
/// The role that forwards what comes.
const FORWARDER: u64 = 20;
/// The role that lets files come and names them.
const UPLOADS: u64 = 17;
/// Things a world does, by number; see `World::act`.
pub const ACTIONS: u64 = 38;

/// The features of a seed.
#[derive(Debug)]
pub struct Swarm {
    roles: u64,
    actions: u64,
    farewells: Vec<Farewell>,
    stubborn: bool,
    /// No peer resets of its own accord, vanishes, stalls, is slow, is reset before its accept.
    no_resets: bool,
    no_vanishing: bool,
    no_stalls: bool,
    no_trickle: bool,
    no_stillborn: bool,
    afterwards: Option<Afterwards>,
    /// All peers come at once, not over a second.
    at_once: bool,
    /// Everybody comes to the first shard.
    steered: bool,
    /// Nearly everybody plays this role.
    choir: Option<u64>,
    /// What is done is done many times at once.
    pub bursts: bool,
    /// Drains and stops, at any moment and again and again.
    pub drains: bool,
    /// Addresses are banned and let in again.
    pub bans: bool,
}

impl Swarm {
    /// Half of everything.
    pub fn draw(rng: &mut Rng) -> Self {
        let mut half = || rng.below(2) == 0;
        let (no_resets, no_vanishing, no_stalls, no_trickle, no_stillborn) =
            (half(), half(), half(), half(), half());
        let all = [
            Farewell::Close,
            Farewell::ReplyAndClose,
            Farewell::ReplyAndShutdown,
            Farewell::CloseLater,
        ];
        let mut farewells: Vec<Farewell> = all.into_iter().filter(|_| half()).collect();
        if farewells.is_empty() {
            farewells.push(all[rng.below(4) as usize]);
        }
        let afterwards = [Afterwards::Wait, Afterwards::Fin, Afterwards::Close];
        Self {
            // A few roles, or many.
            roles: rng.bits() | if rng.below(2) == 0 { rng.bits() } else { 0 },
            actions: rng.bits() | rng.bits(),
            farewells,
            stubborn: rng.below(2) == 0,
            no_resets,
            no_vanishing,
            no_stalls,
            no_trickle,
            no_stillborn,
            afterwards: (rng.below(4) == 0).then(|| rng.pick(&afterwards)),
            at_once: rng.below(4) == 0,
            steered: rng.below(4) == 0,
            // Often of files: only many of them at a time wait for a pipe.
            choir: (rng.below(6) == 0).then(|| draw_choir(rng)),
            bursts: rng.below(8) == 0,
            drains: rng.below(6) == 0,
            bans: rng.below(4) == 0,
        }
    }

    /// A number below `count` whose bit is set; any, if none is.
    fn pick(rng: &mut Rng, bits: u64, count: u64) -> u64 {
        let mut number = rng.below(count);
        for _ in 0..count {
            if bits >> number & 1 == 1 {
                break;
            }
            number = (number + 1) % count;
        }
        number
    }

    /// What the world does next.
    pub fn draw_action(&self, rng: &mut Rng) -> u64 {
        let action = rng.below(ACTIONS);
        // The first bring clients and their bytes, without which nothing happens.
        if action < 10 || self.actions >> action & 1 == 1 { action } else { 0 }
    }

    /// Which of so many shards somebody comes to.
    pub fn draw_shard(&self, rng: &mut Rng, shards: usize) -> usize {
        if self.steered && rng.below(16) > 0 { 0 } else { rng.below(shards as u64) as usize }
    }

    pub fn draw_plan(&self, rng: &mut Rng) -> Plan {
        let mut plan = Plan::draw(rng);
        if self.no_resets {
            plan.reset_us = NEVER;
        }
        if self.no_vanishing {
            plan.vanish_us = NEVER;
        }
        if self.no_stalls {
            plan.stall_us = 0;
        }
        if self.no_trickle {
            (plan.send_chunk_max, plan.read_chunk_max) = (usize::MAX, usize::MAX);
        }
        plan.stillborn &= !self.no_stillborn;
        plan.afterwards = self.afterwards.unwrap_or(plan.afterwards);
        plan.start_after_us = if self.at_once { 0 } else { rng.pick(&[0, 0, 1000, 50_000]) };
        plan
    }

    pub fn draw_part(&self, rng: &mut Rng, slow: bool) -> Part {
        let long = if slow { 300 } else { rng.pick(&[2_000, 30_000, 30_000, 300_000]) };
        let after = rng.pick(&[1, 100, 3_000]);
        let choir = self.choir.filter(|_| rng.below(8) > 0);
        let number = choir.unwrap_or_else(|| Self::pick(rng, self.roles, ROLES));
        let role = match number {
            // Echoes instead.
            _ if is_taken_out(number) => Role::Echo,
            0 => Role::Echo,
            1 => Role::Pausing,
            2 => Role::Whole(rng.pick(&[2, 60, 700, 5_000])),
            FILES => Role::Files,
            4 => Role::CloseAfter(after),
            5 => Role::ShutdownAfter(after),
            6 => Role::AbortAfter(after),
            7 => Role::PanicAfter(after),
            8 => Role::PanicsAtEnds,
            9 => Role::Meddler,
            10 => Role::Greeter(rng.below(long)),
            11 => Role::Lecturer(rng.below(long)),
            12 => Role::Deaf,
            13 => Role::ProtocolAfter(after),
            14 => Role::FinishAfter(after),
            OFFLOADER => Role::Offloader,
            KEEPER => Role::Keeper,
            UPLOADS => Role::Uploads,
            18 => Role::Metered(rng.below(30_000)),
            CONNECTOR => Role::Connector,
            _ => Role::Forwarder,
        };
        Part {
            role,
            farewell: rng.pick(&self.farewells),
            reply_bytes_max: if slow { 300 } else { rng.pick(&[100, 2_000, 60_000]) },
            reads_on: rng.below(8) == 0,
            stubborn: self.stubborn && rng.below(3) == 0,
        }
    }
}

/// Returns whether a role needs a family that this build does without (`shard/families.rs`).
fn is_taken_out(role: u64) -> bool {
    match role {
        FILES => cfg!(ringwright_without = "files_out"),
        OFFLOADER => cfg!(ringwright_without = "jobs"),
        UPLOADS => cfg!(any(ringwright_without = "files_in", ringwright_without = "naming")),
        FORWARDER => {
            cfg!(any(ringwright_without = "files_in", ringwright_without = "files_out"))
        }
        KEEPER | CONNECTOR => cfg!(ringwright_without = "connects"),
        _ => false,
    }
}

/// The role of nearly everybody.
fn draw_choir(rng: &mut Rng) -> u64 {
    let any = rng.below(ROLES);
    rng.pick(&[FILES, FORWARDER, any, any])
}

/// Whether a peer of that plan takes so long over every byte that it is given few.
pub fn is_slow(plan: &Plan) -> bool {
    plan.send_chunk_max < 100 || plan.read_chunk_max < 300
}

/// How many shards.
pub fn draw_shards(rng: &mut Rng) -> usize {
    rng.pick(&[1, 1, 1, 1, 1, 2, 2, 2, 3, 4])
}

/// The faults of a seed's shards: none, the same for all, or each its own.
pub fn draw_faults(rng: &mut Rng, shards: usize) -> Vec<Faults> {
    if rng.below(8) == 0 {
        return vec![Faults::none(); shards];
    }
    let same = rng.below(2) == 0;
    let first = Faults::draw(rng);
    let others = (1..shards).map(|_| if same { first } else { Faults::draw(rng) });
    std::iter::once(first).chain(others.collect::<Vec<_>>()).collect()
}

/// Settings of a listener, or those of the configuration.
pub fn draw_settings(rng: &mut Rng) -> Option<ListenerSettings> {
    if rng.below(2) == 0 {
        return None;
    }
    let optional = |rng: &mut Rng, from: &[u64]| {
        (rng.below(2) == 0).then(|| Duration::from_millis(rng.pick(from)))
    };
    let output_high_bytes = rng.pick(&[200, 4_000, 60_000]);
    Some(ListenerSettings {
        tcp_keepalive: rng.pick(&[None, Some(Duration::from_secs(60))]),
        tcp_user_timeout: rng.pick(&[None, Some(Duration::from_secs(60))]),
        output_high_bytes,
        output_low_bytes: rng.pick(&[1, 50, output_high_bytes]).min(output_high_bytes),
        output_bytes_max: rng.pick(&[60_000, 16 << 20, 16 << 20]),
        idle_timeout: optional(rng, &[30, 1_000, 75_000]),
        receive_timeout: optional(rng, &[30, 1_000, 30_000]),
        write_timeout: optional(rng, &[30, 1_000, 30_000]),
        transfer_timeout: optional(rng, &[30, 1_000, 60_000]),
        min_rate: rng.pick(&[0, 1, 64, 100_000]),
        evict_idle: rng.below(2) == 0,
        count_traffic: rng.below(4) > 0,
        message_bytes_max: rng.pick(&[100, 10_000, 1 << 20]),
        connections_max: rng.pick(&[None, None, None, Some(1), Some(3)]),
        exempt: Vec::new(),
    })
}

/// Each limit is drawn from what is tight, what is ordinary, and what is never reached.
pub fn draw_config(rng: &mut Rng) -> Config {
    let ms = Duration::from_millis;
    let optional = |rng: &mut Rng, from: &[u64]| {
        if rng.below(2) == 0 { None } else { Some(ms(rng.pick(from))) }
    };
    let output_high_bytes = rng.pick(&[200, 4_000, 60_000]);
    let max_connections = rng.pick(&[1, 2, 3, 5, 8, 64, 64]);
    let most_reserved = rng.pick(&[0, 0, 0, 1, 3]).min(max_connections - 1);
    Config {
        max_connections,
        outgoing_reserved: rng.below(most_reserved as u64 + 1) as usize,
        max_per_address: rng.pick(&[None, None, None, Some(1), Some(2), Some(5)]),
        at_capacity: rng.pick(&[AtCapacity::Wait, AtCapacity::Wait, AtCapacity::Reject]),
        backlog: 16,
        receive_buffers: rng.pick(&[1, 2, 4, 16, 64]),
        receive_buffer_bytes: rng.pick(&[64, 256, 4096]),
        send_buffers: rng.pick(&[1, 2, 8, 64]),
        send_buffer_bytes: rng.pick(&[64, 512, 8192]),
        pipes: rng.pick(&[1, 1, 1, 1, 2, 8]),
        pipe_bytes: rng.pick(&[4096, 65536]),
        sendfile_bytes_max: rng.pick(&[0, 20, 20, 20, 4_000]),
        splice_from_bytes: rng.pick(&[0, 0, 0, 500, 1 << 20]),
        open_files: rng.pick(&[0, 1, 2, 100, 100]),
        open_files_valid: ms(rng.pick(&[5, 200, 1_000])),
        io_workers_max: rng.pick(&[1, 2, 4]),
        submission_entries: rng.pick(&[4, 64, 1024]),
        message_bytes_max: rng.pick(&[100, 10_000, 1 << 20]),
        output_high_bytes,
        output_low_bytes: rng.up_to(output_high_bytes),
        output_bytes_max: rng.pick(&[60_000, 16 << 20, 16 << 20]),
        memory_budget_bytes: rng.pick(&[None, None, Some(1), Some(2_000), Some(50_000)]),
        idle_operation: rng.pick(&[IdleOperation::Receive, IdleOperation::Poll]),
        park_after: ms(rng.pick(&[3, 40, 5_000])),
        streaming_connections_max: rng.pick(&[0, 2, 1_000, 1_000]),
        idle_timeout: optional(rng, &[30, 1_000, 75_000]),
        receive_timeout: optional(rng, &[30, 1_000, 30_000]),
        write_timeout: optional(rng, &[30, 1_000, 30_000]),
        transfer_timeout: optional(rng, &[30, 1_000, 60_000]),
        connect_timeout: ms(rng.pick(&[3, 10, 1_000, 10_000])),
        linger_timeout: ms(rng.pick(&[10, 1_000, 5_000])),
        linger_total: ms(rng.pick(&[30, 2_000, 30_000])),
        accept_backoff: ms(10),
        mailbox_commands_max: rng.pick(&[16, 64, 64]),
        reconnects_max: rng.pick(&[1, 2, 1_000, 1_000]),
        workers: rng.pick(&[0, 1, 1, 3]),
        jobs_queued_max: rng.pick(&[1, 3, 1_000]),
        jobs_per_connection_max: rng.pick(&[1, 2, 16]),
        jobs_per_shard_max: rng.pick(&[1, 3, 1_000]),
        evict_idle: rng.below(3) == 0,
        min_rate: rng.pick(&[0, 1, 64, 100_000]),
        balance: Balance::Off,
        ..Config::default()
    }
}
