//! The servers that are compared, and how each is started.

use std::collections::HashMap;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::children::{self, Process};
use crate::bare::CONNECTIONS_MAX;
use crate::machine;

/// The file that is served over HTTP.
pub const PAYLOAD: &str = "payload.bin";

/// Minimum size of the buffer of each connection, for servers that have one.
const BUFFER_BYTES_MIN: u32 = 4096;
/// More descriptors than any server has without connections.
const DESCRIPTORS_OWN_MAX: usize = 100;
const SETTLE_WAIT_MAX: Duration = Duration::from_secs(20);
const READY_WAIT_MAX: Duration = Duration::from_secs(10);
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A protocol.
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

/// The kernel interface of `ringwrightd` and `ringload`. A run fails where it is forbidden: a
/// comparison must not fall back to another one.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize, ValueEnum,
)]
#[value(rename_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum Ring {
    /// io_uring
    #[default]
    IoUring,
    /// epoll
    Epoll,
}

impl Ring {
    /// The name on the command lines, and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::IoUring => "io_uring",
            Self::Epoll => "epoll",
        }
    }
}

/// A server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Subject {
    /// ringwrightd with one shard
    Ringwrightd,
    /// ringwrightd on epoll, whatever --ring is
    RingwrightdEpoll,
    /// ringwright-limit; for http it sends a fixed reply instead of a file
    Limit,
    /// ringwright-peer-tokio; echo only
    Tokio,
    /// ringwright-peer-monoio; echo only
    Monoio,
    /// ringwright-peer-compio; echo only
    Compio,
    /// ringwright-peer-glommio; echo only
    Glommio,
    /// ringwright-peer-hyper with the body in memory; http only
    Hyper,
    /// ringwright-peer-hyper --pipeline-flush, which hyper calls experimental; http only
    HyperFlush,
    /// nginx with one worker; http only
    Nginx,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ringwrightd => "ringwrightd",
            Self::RingwrightdEpoll => "ringwrightd-epoll",
            Self::Limit => "limit",
            Self::Tokio => "tokio",
            Self::Monoio => "monoio",
            Self::Compio => "compio",
            Self::Glommio => "glommio",
            Self::Hyper => "hyper",
            Self::HyperFlush => "hyper-flush",
            Self::Nginx => "nginx",
        })
    }
}

impl Subject {
    /// Returns true if the server supports the protocol.
    pub fn speaks(self, protocol: Protocol) -> bool {
        match self {
            Self::Ringwrightd | Self::RingwrightdEpoll | Self::Limit => true,
            Self::Tokio | Self::Monoio | Self::Compio | Self::Glommio => protocol == Protocol::Echo,
            Self::Hyper | Self::HyperFlush | Self::Nginx => protocol == Protocol::Http,
        }
    }

    /// Returns the program of the server.
    pub fn program(self) -> &'static str {
        match self {
            Self::Ringwrightd | Self::RingwrightdEpoll => "ringwrightd",
            Self::Limit => "ringwright-limit",
            Self::Tokio => "ringwright-peer-tokio",
            Self::Monoio => "ringwright-peer-monoio",
            Self::Compio => "ringwright-peer-compio",
            Self::Glommio => "ringwright-peer-glommio",
            Self::Hyper | Self::HyperFlush => "ringwright-peer-hyper",
            Self::Nginx => "nginx",
        }
    }
}

/// Every program that a plan may name.
pub const PROGRAMS: [&str; 12] = [
    "ringwrightd",
    "ringwright-limit",
    "ringwright-peer-tokio",
    "ringwright-peer-monoio",
    "ringwright-peer-compio",
    "ringwright-peer-glommio",
    "ringwright-peer-hyper",
    "nginx",
    "ringload",
    "wrk",
    "oha",
    "strace",
];

/// Finds a program: as given, else beside this one; those of others where Debian puts them.
pub fn locate(program: &str, programs: &HashMap<String, PathBuf>) -> io::Result<PathBuf> {
    if let Some(path) = programs.get(program) {
        return Ok(path.clone());
    }
    let (path, remedy) = match program {
        "nginx" => ("/usr/sbin/nginx".into(), "install the Debian package nginx-light"),
        "strace" => ("/usr/bin/strace".into(), "install the Debian package strace"),
        "wrk" => ("/usr/bin/wrk".into(), "install the Debian package wrk"),
        "oha" => (cargo_installed("oha")?, "run cargo install oha"),
        _ => {
            let own = std::env::current_exe()?;
            let beside = own.parent().unwrap_or(Path::new("/")).join(program);
            (beside, "build the whole workspace (cargo build --release)")
        }
    };
    if path.is_file() {
        return Ok(path);
    }
    let message = format!(
        "{program} not found at {}; {remedy}, or give --program {program}=PATH",
        path.display()
    );
    Err(io::Error::new(io::ErrorKind::NotFound, message))
}

/// Where `cargo install` puts a program.
fn cargo_installed(program: &str) -> io::Result<PathBuf> {
    let home = match (std::env::var_os("CARGO_HOME"), std::env::var_os("HOME")) {
        (Some(cargo), _) => PathBuf::from(cargo),
        (None, Some(home)) => Path::new(&home).join(".cargo"),
        (None, None) => return Err(io::Error::other("neither CARGO_HOME nor HOME is set")),
    };
    Ok(home.join("bin").join(program))
}

/// A server that is ready.
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    process: Process,
    /// nginx's workers.
    workers: Vec<u32>,
    /// File with its standard error.
    errors: PathBuf,
}

impl Server {
    /// CPU time of all its processes so far.
    pub fn cpu_time(&self) -> io::Result<Duration> {
        self.processes().map(machine::process_cpu_time).sum()
    }

    /// Waits until it has closed what its clients have left, so that the next find room.
    pub fn settle(&self) -> io::Result<()> {
        let start = Instant::now();
        while start.elapsed() < SETTLE_WAIT_MAX {
            let open = |pid| Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count());
            let open: Vec<usize> = self.processes().map(open).collect::<io::Result<_>>()?;
            if open.iter().all(|count| *count < DESCRIPTORS_OWN_MAX) {
                return Ok(());
            }
            thread::sleep(LOOK_EVERY);
        }
        Err(self
            .process
            .failure(&format!("did not close its connections within {SETTLE_WAIT_MAX:?}")))
    }

    /// The file that holds what it says on standard error.
    pub fn errors(&self) -> &Path {
        &self.errors
    }

    /// All of its processes.
    pub fn processes(&self) -> impl Iterator<Item = u32> + '_ {
        std::iter::once(self.process.pid()).chain(self.workers.iter().copied())
    }
}

/// The options that all servers of a comparison share.
pub struct Setting {
    /// The protocol.
    pub protocol: Protocol,
    /// Echo: length of a message. HTTP: length of the body.
    pub size_bytes: u32,
    /// Where programs lie that are not where they are looked for, by name.
    pub programs: HashMap<String, PathBuf>,
    /// The CPU they stay on; none: any.
    pub cpu: Option<usize>,
    /// Shards of `ringwrightd`.
    pub shards: u32,
    /// Kernel interface of `ringwrightd`.
    pub ring: Ring,
    /// For the documents and for what servers leave.
    pub folder: PathBuf,
}

impl Setting {
    /// Writes the file to be served, and `files` more of the same length.
    pub fn prepare(&self, files: u32) -> io::Result<()> {
        let documents = self.documents();
        fs::create_dir_all(&documents)?;
        let body = vec![b'x'; self.size_bytes as usize];
        fs::write(documents.join(PAYLOAD), &body)?;
        for file in 0..files {
            fs::write(documents.join(file.to_string()), &body)?;
        }
        Ok(())
    }

    fn documents(&self) -> PathBuf {
        self.folder.join("documents")
    }

    /// Starts a server on the servers' CPU and waits until it listens.
    pub fn start(&self, subject: Subject) -> io::Result<Server> {
        self.start_with(subject, &[])
    }

    /// The same with `arguments` appended to the command line; nginx takes none.
    pub fn start_with(&self, subject: Subject, arguments: &[&str]) -> io::Result<Server> {
        if subject == Subject::Nginx {
            return self.start_nginx();
        }
        let mut command = Command::new(locate(subject.program(), &self.programs)?);
        let size = self.size_bytes.to_string();
        match (subject, self.protocol) {
            (Subject::Limit, Protocol::Http) => command.args(["http", "--size", &size]),
            (Subject::Limit, Protocol::Echo) => command.arg("echo"),
            (Subject::Ringwrightd | Subject::RingwrightdEpoll, _) => {
                self.ringwrightd(subject, &mut command)
            }
            (Subject::Hyper, _) => command.args(["--size", &size]),
            (Subject::HyperFlush, _) => command.args(["--size", &size, "--pipeline-flush"]),
            (Subject::Tokio | Subject::Monoio | Subject::Compio | Subject::Glommio, _) => {
                // Whole messages at a time, where they are longer than what is usual.
                command.args(["--buffer", &self.size_bytes.max(BUFFER_BYTES_MIN).to_string()])
            }
            (Subject::Nginx, _) => unreachable!("it is started by its configuration"),
        };
        command.args(arguments);
        command.args(["--listen", "127.0.0.1:0"]).stdout(Stdio::piped());
        let errors = self.errors(subject);
        command.stderr(File::create(&errors)?);
        let mut process = Process::start(command, self.cpu)?;
        let line = process.first_line(READY_WAIT_MAX).map_err(|error| {
            let said = fs::read_to_string(&errors).unwrap_or_default();
            io::Error::new(error.kind(), format!("{error}: {}", said.trim()))
        })?;
        let address = line.trim().rsplit("//").next().and_then(|address| address.parse().ok());
        let address = address.ok_or_else(|| {
            process.failure(&format!(
                "said `{}`, expected `listening PROTOCOL://ADDRESS:PORT`; and {}",
                line.trim(),
                fs::read_to_string(&errors).unwrap_or_default()
            ))
        })?;
        Ok(Server { address, process, workers: Vec::new(), errors })
    }

    fn ringwrightd<'a>(&self, subject: Subject, command: &'a mut Command) -> &'a mut Command {
        match self.protocol {
            Protocol::Http => command.arg("http").arg(self.documents()),
            Protocol::Echo => command.arg("echo"),
        };
        let ring = if subject == Subject::RingwrightdEpoll { Ring::Epoll } else { self.ring };
        let (shards, connections) = (self.shards.to_string(), CONNECTIONS_MAX.to_string());
        command.args(["--shards", &shards, "--max-connections", &connections]);
        command.args(["--ring", ring.name()])
    }

    fn errors(&self, subject: Subject) -> PathBuf {
        self.folder.join(format!("{subject}-{}.err", self.shards))
    }

    /// nginx tells neither its port nor when it is ready: it gets a free port, and is asked.
    fn start_nginx(&self) -> io::Result<Server> {
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let folder = &self.folder;
        let configuration = folder.join("nginx.conf");
        fs::write(&configuration, self.nginx_configuration(address))?;
        let mut command = Command::new(locate("nginx", &self.programs)?);
        command.arg("-p").arg(folder).arg("-c").arg(&configuration).args(["-e", "stderr"]);
        let errors = self.errors(Subject::Nginx);
        command.stderr(File::create(&errors)?);
        let process = Process::start(command, self.cpu)?;
        let start = Instant::now();
        loop {
            let workers = children::children_of(process.pid())?;
            let connected = TcpStream::connect_timeout(&address, CONNECT_WAIT_MAX);
            if connected.is_ok() && !workers.is_empty() {
                return Ok(Server { address, process, workers, errors });
            }
            if start.elapsed() > READY_WAIT_MAX {
                return Err(process.failure(&format!(
                    "does not listen on {address} after {READY_WAIT_MAX:?}: {}",
                    fs::read_to_string(&errors).unwrap_or_default()
                )));
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    fn nginx_configuration(&self, address: SocketAddr) -> String {
        let documents = self.documents();
        let documents = documents.display();
        format!(
            "daemon off;
worker_processes 1;
worker_rlimit_nofile 20000;
pid nginx.pid;
events {{ worker_connections 17000; }}
http {{
    access_log off;
    sendfile on;
    open_file_cache max=10000 inactive=60s;
    open_file_cache_valid 60s;
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
