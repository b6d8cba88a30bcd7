//! The work of a herd.

use super::sources::Sources;
use crate::route::Route;
use crate::units::Rate;
use std::net::SocketAddr;
use std::time::Duration;

/// The work to do.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)] // The options of the command line.
pub struct Order {
    pub to: SocketAddr,
    pub sources: Sources,
    pub route: Route,
    pub seed: u64,
    pub connections: u64,
    pub hold: Duration,
    pub probe_every: Duration,
    pub conn_rate: Option<Rate>,
    pub timeout: Duration,
    pub drain_ok: bool,
}
