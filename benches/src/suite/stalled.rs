//! Threads of a server, and how a fresh client fares, while many do not read what they asked for.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Plan, idle};
use crate::compare::{PAYLOAD, Protocol, Scratch, Setting, Subject};
use crate::machine;

const STALLED: usize = 500;
const STALLED_QUICK: usize = 20;
/// More than both sockets' buffers hold.
const FILE_BYTES: u32 = 64 << 20;
const SETTLE: Duration = Duration::from_secs(1);
const WAIT_MAX: Duration = Duration::from_secs(10);
const TRIES: usize = 20;

/// One server's.
#[derive(Deserialize, JsonSchema, Serialize)]
pub struct Stalled {
    /// The server.
    pub name: String,
    /// Clients that read nothing.
    pub stalled: usize,
    /// Threads of the server before they came.
    pub threads_before: usize,
    /// Threads with them.
    pub threads: usize,
    /// Median time for a fresh client from connect to the first byte, microseconds.
    pub first_byte_us: f64,
    /// CPU time of the server per second while nobody reads.
    pub busy: f64,
}

/// Measures each, one after the other.
pub fn run(plan: &Plan, scratch: &Scratch) -> io::Result<Vec<Stalled>> {
    let stalled = if plan.quick { STALLED_QUICK } else { STALLED };
    machine::need_descriptors(stalled as u64 + 100)?;
    let measure = |subject: Subject| {
        let setting = Setting {
            protocol: Protocol::Http,
            size_bytes: FILE_BYTES,
            programs: plan.place.programs.clone(),
            cpu: Some(plan.place.server_cpu),
            shards: 1,
            ring: plan.place.ring,
            folder: scratch.path().join(format!("stalled-{subject}")),
        };
        setting.prepare(0)?;
        let server = setting.start(subject)?;
        let threads_before = idle::threads(&server)?;
        let ask = || {
            let mut client = TcpStream::connect_timeout(&server.address, WAIT_MAX)?;
            client.set_read_timeout(Some(WAIT_MAX))?;
            client
                .write_all(format!("GET /{PAYLOAD} HTTP/1.1\r\nHost: bench\r\n\r\n").as_bytes())?;
            Ok(client)
        };
        let clients: Vec<TcpStream> = (0..stalled).map(|_| ask()).collect::<io::Result<_>>()?;
        let settle = plan.shortened(SETTLE);
        thread::sleep(settle);
        let cpu_before = server.cpu_time()?;
        thread::sleep(settle);
        let busy = (server.cpu_time()? - cpu_before).as_secs_f64() / settle.as_secs_f64();
        let mut times = Vec::new();
        for _ in 0..TRIES {
            let start = Instant::now();
            ask()?.read_exact(&mut [0])?;
            times.push(start.elapsed().as_secs_f64() * 1e6);
        }
        times.sort_by(f64::total_cmp);
        let threads = idle::threads(&server)?;
        drop(clients);
        let result = Stalled {
            name: subject.to_string(),
            stalled,
            threads_before,
            threads,
            first_byte_us: times[TRIES / 2],
            busy,
        };
        eprintln!(
            "stalled: {}: {} threads with {stalled} that do not read, a fresh client has its first \
             byte in {:.0} µs",
            result.name, result.threads, result.first_byte_us
        );
        Ok(result)
    };
    [Subject::Ringwrightd, Subject::Nginx].into_iter().map(measure).collect()
}
