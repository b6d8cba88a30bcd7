//! The memory of an idle connection, in the server and in the kernel.

use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::thread;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Plan;
use crate::compare::{Protocol, Scratch, Server, Setting, Subject};
use crate::machine;

/// Opened first and not counted: what a server has once, whoever comes.
const FIRST: usize = 200;
/// Number of connections.
const CONNECTIONS: usize = 8_000;
const CONNECTIONS_QUICK: usize = 300;
/// The time until the connections are idle for every server. `ringwrightd` parks them after 5 s.
const SETTLE: Duration = Duration::from_secs(6);
const WAIT_MAX: Duration = Duration::from_secs(10);
const DESCRIPTORS_OTHER: u64 = 100;

/// One server's.
#[derive(Deserialize, JsonSchema, Serialize)]
pub struct Idle {
    /// Server and protocol.
    pub name: String,
    /// That were counted.
    pub connections: usize,
    /// Growth of the server's anonymous memory (`RssAnon` of proc_pid_status(5)) per connection.
    pub user_bytes: f64,
    /// Growth of the kernel's slabs (`Slab` of proc_meminfo(5)) per connection. It contains both
    /// ends of the connection, since the client is on the same machine.
    pub kernel_bytes: f64,
    /// Threads of the server.
    pub threads: usize,
}

/// Measures each, one after the other.
pub fn run(plan: &Plan, scratch: &Scratch) -> io::Result<Vec<Idle>> {
    use Subject::{Compio, Glommio, Hyper, Limit, Monoio, Nginx, Ringwrightd, Tokio};
    let subjects = [
        (Ringwrightd, Protocol::Echo),
        (Ringwrightd, Protocol::Http),
        (Limit, Protocol::Echo),
        (Tokio, Protocol::Echo),
        (Monoio, Protocol::Echo),
        (Compio, Protocol::Echo),
        (Glommio, Protocol::Echo),
        (Hyper, Protocol::Http),
        (Nginx, Protocol::Http),
    ];
    let connections = if plan.quick { CONNECTIONS_QUICK } else { CONNECTIONS };
    machine::need_descriptors((FIRST + connections) as u64 + DESCRIPTORS_OTHER)?;
    let measure = |(subject, protocol): (Subject, Protocol)| {
        let setting = Setting {
            protocol,
            size_bytes: 64,
            programs: plan.place.programs.clone(),
            cpu: Some(plan.place.server_cpu),
            shards: 1,
            ring: plan.place.ring,
            folder: scratch.path().join(format!("idle-{subject}-{protocol}")),
        };
        setting.prepare(0)?;
        let name = format!("{subject} {protocol}");
        let settle = plan.shortened(SETTLE);
        let idle = one(&setting.start(subject)?, protocol, connections, settle, name)?;
        eprintln!(
            "idle: {}: {:.0} bytes of its own, {:.0} of the kernel's for both ends",
            idle.name, idle.user_bytes, idle.kernel_bytes
        );
        Ok(idle)
    };
    subjects.into_iter().map(measure).collect()
}

fn one(
    server: &Server,
    protocol: Protocol,
    connections: usize,
    settle: Duration,
    name: String,
) -> io::Result<Idle> {
    let mut clients = Vec::with_capacity(FIRST + connections);
    let mut open = |count| -> io::Result<()> {
        for _ in 0..count {
            clients.push(ask(server, protocol)?);
        }
        thread::sleep(settle);
        Ok(())
    };
    open(FIRST)?;
    let (user, kernel) = (anonymous_bytes(server)?, slab_bytes()?);
    open(connections)?;
    let per = |before: u64, after: u64| (after as f64 - before as f64) / connections as f64;
    Ok(Idle {
        name,
        connections,
        user_bytes: per(user, anonymous_bytes(server)?),
        kernel_bytes: per(kernel, slab_bytes()?),
        threads: threads(server)?,
    })
}

/// A connection that was served once: what is made at the first request is counted.
fn ask(server: &Server, protocol: Protocol) -> io::Result<TcpStream> {
    let mut client = TcpStream::connect_timeout(&server.address, WAIT_MAX)?;
    client.set_read_timeout(Some(WAIT_MAX))?;
    match protocol {
        Protocol::Echo => {
            client.write_all(b"hello")?;
            client.read_exact(&mut [0; 5])?;
        }
        Protocol::Http => {
            client.write_all(b"GET /payload.bin HTTP/1.1\r\nHost: bench\r\n\r\n")?;
            let mut reply = Vec::new();
            let mut chunk = [0; 4096];
            // The body is of one kind of byte, and no head ends in it.
            while !reply.ends_with(&[b'x'; 64]) {
                match client.read(&mut chunk)? {
                    0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
                    count => reply.extend_from_slice(&chunk[..count]),
                }
            }
        }
    }
    Ok(client)
}

fn anonymous_bytes(server: &Server) -> io::Result<u64> {
    let of = |pid| kib(Path::new(&format!("/proc/{pid}/status")), "RssAnon:");
    server.processes().map(of).sum()
}

fn slab_bytes() -> io::Result<u64> {
    kib(Path::new("/proc/meminfo"), "Slab:")
}

/// Threads of all its processes.
pub fn threads(server: &Server) -> io::Result<usize> {
    let of = |pid| Ok(fs::read_dir(format!("/proc/{pid}/task"))?.count());
    server.processes().map(of).sum()
}

/// A line of a file of proc(5), in bytes.
fn kib(path: &Path, name: &str) -> io::Result<u64> {
    let text = fs::read_to_string(path)?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    let missing = || io::Error::other(format!("{}: no line `{name}`", path.display()));
    Ok(number.ok_or_else(missing)? * 1024)
}
