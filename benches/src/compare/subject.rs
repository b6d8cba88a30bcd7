//! The servers that are compared, and how each is started.

use std::fmt;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use clap::ValueEnum;

use super::Common;
use super::children::{self, Process, Scratch};
use crate::machine;

/// The file that is served over HTTP.
pub const PAYLOAD: &str = "payload.bin";

const READY_WAIT_MAX: Duration = Duration::from_secs(10);
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Every byte back.
    Echo,
    /// One file over HTTP/1.1, connections kept.
    Http,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Echo => "echo",
            Self::Http => "http",
        })
    }
}

/// A server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Subject {
    /// `ringwrightd`, one shard.
    Ringwrightd,
    /// `ringwright-limit`, the bare ring. Over HTTP it sends a fixed reply and reads no file.
    Limit,
    /// `ringwright-peer-tokio`. Echo only.
    Tokio,
    /// nginx, one worker. HTTP only.
    Nginx,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ringwrightd => "ringwrightd",
            Self::Limit => "limit",
            Self::Tokio => "tokio",
            Self::Nginx => "nginx",
        })
    }
}

impl Subject {
    /// Whether it can be asked in this protocol.
    pub fn speaks(self, protocol: Protocol) -> bool {
        match self {
            Self::Ringwrightd | Self::Limit => true,
            Self::Tokio => protocol == Protocol::Echo,
            Self::Nginx => protocol == Protocol::Http,
        }
    }

    /// What it is started from.
    pub fn program(self) -> &'static str {
        match self {
            Self::Ringwrightd => "ringwrightd",
            Self::Limit => "ringwright-limit",
            Self::Tokio => "ringwright-peer-tokio",
            Self::Nginx => "nginx",
        }
    }
}

/// Every program that a plan may name.
pub const PROGRAMS: [&str; 6] =
    ["ringwrightd", "ringwright-limit", "ringwright-peer-tokio", "nginx", "ringload", "wrk"];

/// Finds a program: as given, else beside this one; those of others where Debian puts them.
pub fn locate(program: &str, common: &Common) -> io::Result<PathBuf> {
    if let Some(path) = common.programs.get(program) {
        return Ok(path.clone());
    }
    let (path, remedy) = match program {
        "nginx" => ("/usr/sbin/nginx".into(), "install the Debian package nginx-light, or name it"),
        "wrk" => ("/usr/bin/wrk".into(), "install the Debian package wrk, or name it"),
        _ => {
            let own = std::env::current_exe()?;
            let beside = own.parent().unwrap_or(Path::new("/")).join(program);
            (beside, "build the whole workspace (cargo build --release), or name it")
        }
    };
    if path.is_file() {
        return Ok(path);
    }
    let message =
        format!("{program}: not at {}: {remedy}: --program {program}=PATH", path.display());
    Err(io::Error::new(io::ErrorKind::NotFound, message))
}

/// A server that is ready.
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    process: Process,
    /// nginx's workers.
    workers: Vec<u32>,
}

impl Server {
    /// CPU time of all its processes so far.
    pub fn cpu_time(&self) -> io::Result<Duration> {
        let mut sum = machine::process_cpu_time(self.process.pid())?;
        for &worker in &self.workers {
            sum += machine::process_cpu_time(worker)?;
        }
        Ok(sum)
    }
}

/// What the servers of a plan have in common.
pub struct Setting<'a> {
    common: &'a Common,
    scratch: &'a Scratch,
    documents: PathBuf,
}

impl<'a> Setting<'a> {
    /// Checks that all programs are there, and writes the file to be served.
    pub fn prepare(
        common: &'a Common,
        scratch: &'a Scratch,
        programs: &[&str],
    ) -> io::Result<Self> {
        for program in programs {
            locate(program, common)?;
        }
        let documents = scratch.path().join("documents");
        fs::create_dir(&documents)?;
        fs::write(documents.join(PAYLOAD), vec![b'x'; common.size_bytes as usize])?;
        Ok(Self { common, scratch, documents })
    }

    /// Starts a server on the servers' CPU and waits until it listens.
    pub fn start(&self, subject: Subject) -> io::Result<Server> {
        if subject == Subject::Nginx {
            return self.start_nginx();
        }
        let mut command = Command::new(locate(subject.program(), self.common)?);
        match (subject, self.common.protocol) {
            (Subject::Limit, Protocol::Http) => {
                command.args(["http", "--size", &self.common.size_bytes.to_string()])
            }
            (Subject::Limit, Protocol::Echo) => command.arg("echo"),
            (Subject::Ringwrightd, Protocol::Http) => {
                command.arg("http").arg(&self.documents).args(["--shards", "1"])
            }
            (Subject::Ringwrightd, Protocol::Echo) => command.args(["echo", "--shards", "1"]),
            _ => &mut command,
        };
        command.args(["--listen", "127.0.0.1:0"]).stdout(Stdio::piped());
        let mut process = Process::start(command, self.common.server_cpu)?;
        let line = process.first_line(READY_WAIT_MAX)?;
        let address = line.trim().rsplit("//").next().and_then(|address| address.parse().ok());
        let address = address.ok_or_else(|| {
            process.failure(&format!(
                "said `{}`, expected `listening PROTOCOL://ADDRESS:PORT`",
                line.trim()
            ))
        })?;
        Ok(Server { address, process, workers: Vec::new() })
    }

    /// nginx tells neither its port nor when it is ready: it gets a free port, and is asked.
    fn start_nginx(&self) -> io::Result<Server> {
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let folder = self.scratch.path();
        let configuration = folder.join("nginx.conf");
        fs::write(&configuration, self.nginx_configuration(address))?;
        let mut command = Command::new(locate("nginx", self.common)?);
        command.arg("-p").arg(folder).arg("-c").arg(&configuration).args(["-e", "stderr"]);
        let process = Process::start(command, self.common.server_cpu)?;
        let start = Instant::now();
        loop {
            let workers = children::children_of(process.pid())?;
            let connected = TcpStream::connect_timeout(&address, CONNECT_WAIT_MAX);
            if connected.is_ok() && !workers.is_empty() {
                return Ok(Server { address, process, workers });
            }
            if start.elapsed() > READY_WAIT_MAX {
                return Err(process
                    .failure(&format!("does not listen on {address} after {READY_WAIT_MAX:?}")));
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    fn nginx_configuration(&self, address: SocketAddr) -> String {
        let documents = self.documents.display();
        // A bit mask, the lowest CPU last.
        let cpu_mask = format!("1{}", "0".repeat(self.common.server_cpu));
        format!(
            "daemon off;
worker_processes 1;
worker_cpu_affinity {cpu_mask};
worker_rlimit_nofile 20000;
pid nginx.pid;
events {{ worker_connections 18000; }}
http {{
    access_log off;
    sendfile on;
    open_file_cache off;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    server {{
        listen {address} backlog=4096;
        root \"{documents}\";
    }}
}}
"
        )
    }
}
