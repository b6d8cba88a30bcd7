//! `ringload idle`: holds many idle connections and checks that each one still answers.
//!
//! A herd runs on plain sockets and one thread, not on the engine. A [`keeper::Keeper`] opens the
//! connections from the addresses of [`sources`]. Each [`member::Member`] sends the requests of a
//! [`Protocol`] at the times that [`clock`] computes, and a [`talk`] checks the answers. [`tally`]
//! counts, and [`loss`] describes how connections were lost.

pub mod clock;
pub mod keeper;
mod live;
pub mod loss;
pub mod member;
pub mod order;
pub mod report;
pub mod sources;
pub mod summary;
pub mod talk;
pub mod tally;

use crate::args::{HerdProtocol, IdleArgs, RunArgs};
use crate::clients::Protocol;
use crate::clients::echo::Echo;
use crate::clients::http::{Http, Learnt, Request, Requests, Rules};
use crate::clients::packets::Packets;
use crate::delivery::Delivery;
use crate::failure::Failure;
use crate::http::Url;
use crate::random::seed_of_the_clock;
use crate::report::Environment;
use crate::screen::Screen;
use crate::system::{self, Interrupts};
use keeper::{Keeper, Kept};
use order::Order;
use report::{HerdPlan, HerdReport};
use sources::Sources;
use std::io;
use std::sync::Arc;
use tally::HerdInterval;

/// Size of a probe of echo and packets.
const PROBE_BYTES: usize = 32;
/// Descriptors in addition to those of connections: epoll, standard streams, the report.
const DESCRIPTORS_BESIDE: u64 = 16;

/// Runs `ringload idle` and makes the report.
///
/// # Errors
/// The run could not start, or epoll failed.
pub fn perform(
    idle: &IdleArgs,
    run_args: RunArgs,
    interrupts: &Interrupts,
) -> Result<Delivery, Failure> {
    let report = run(idle, run_args, interrupts)?;
    Ok(Delivery::new(&report, summary::summary(&report), report.exit_status))
}

fn run(idle: &IdleArgs, run_args: RunArgs, interrupts: &Interrupts) -> Result<HerdReport, Failure> {
    let (address, url) = idle.place().map_err(Failure::Usage)?;
    system::allow_descriptors(idle.connections + DESCRIPTORS_BESIDE).map_err(Failure::Usage)?;
    let to = idle.route.address_of(&address).map_err(Failure::Unresolved)?;
    let route = idle.route.route();
    route.check(to).map_err(Failure::Usage)?;
    let seed = run_args.seed.unwrap_or_else(seed_of_the_clock);
    let sources = match route.source((seed, 0)) {
        Some(_) => Sources::Clients(route, seed),
        None => {
            Sources::plan(to, idle.connections, sources::local_ports()).map_err(Failure::Usage)?
        }
    };
    let order = Order {
        to,
        sources,
        route,
        seed,
        connections: idle.connections,
        hold: idle.hold,
        probe_every: idle.probe_every,
        conn_rate: idle.conn_rate,
        timeout: idle.timeout,
        drain_ok: idle.drain_ok,
    };
    let plan = HerdPlan::new(idle, &order);
    let environment = Environment::of_this_process(Some(seed));
    let opening = summary::opening(&plan, seed);
    let mut screen = Screen::open(&opening, run_args.quiet);
    let mut seconds = Vec::new();
    let cpu_before = system::cpu_time();
    let line = |interval: &HerdInterval| {
        seconds.push(*interval);
        screen.line(&summary::heading(), summary::line(interval));
        screen.show(|| live::herd(&opening, &seconds));
    };
    let kept = match (idle.protocol, &url) {
        (HerdProtocol::Http, Some(url)) => keep(order, http(url, idle.vary_ok), interrupts, line),
        (HerdProtocol::Packets, _) => {
            keep(order, Packets::new(seed, PROBE_BYTES, 0, Arc::default()), interrupts, line)
        }
        (HerdProtocol::Echo | HerdProtocol::Http, _) => {
            let echo = Echo::new(seed, PROBE_BYTES as u64, Arc::default());
            keep(order, echo, interrupts, line)
        }
    };
    let kept = kept.map_err(Failure::System)?;
    let cpu = system::cpu_time().since(cpu_before);
    screen.close();
    Ok(HerdReport::new(plan, environment, &kept, cpu))
}

fn keep(
    order: Order,
    protocol: impl Protocol,
    interrupts: &Interrupts,
    line: impl FnMut(&HerdInterval),
) -> io::Result<Kept> {
    Keeper::new(order, protocol)?.keep(interrupts, line)
}

/// Creates the HTTP protocol for `url`. With `vary_ok`, bodies are not compared.
fn http(url: &Url, vary_ok: bool) -> Http {
    let requests = Requests::new(vec![Request::new("GET", url, &[], None, 1)]);
    let learnt = Arc::new(Learnt::new(requests.clone()));
    let rules = Rules { vary_ok, statuses: None };
    Http::new((requests, rules), 1, learnt, (0, 0))
}
