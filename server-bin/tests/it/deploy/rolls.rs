//! Rolls four daemons behind Debian's HAProxy with the shipped configuration: no request is lost.
//!
//! The addresses of the configuration are those of the loopback device of a network namespace.

use super::{replaced, shipped};
use crate::common::{Client, PATIENCE, Server, command, pattern};
use crate::configured::{connect_from, request, wait_until, write};
use crate::namespace::{in_mount_namespace, mount};
use crate::packets::client::{ACCEPTED, Client as Packets, STORED, data, put};
use ringwright_test_support::{leave_out, needs_program, needs_root};
use ringwrightd_test_support::scale::is_full;
use serde_json::Value;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

const DAEMONS: [&str; 4] = ["one", "two", "three", "four"];
const BALANCER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 10));
const HTTP: SocketAddr = SocketAddr::new(BALANCER, 80);
const PACKETS: SocketAddr = SocketAddr::new(BALANCER, 7100);
/// More than all buffers between a daemon and its client.
const LARGE_BYTES: usize = 32 << 20;
const UPLOAD_BYTES: usize = 200_000;
/// The counters of HAProxy that show a lost or a repeated request.
const COUNTERS: [&str; 6] = ["econ", "eresp", "wretr", "wredis", "hrsp_5xx", "srv_abrt"];

fn rounds() -> usize {
    if is_full() { 100 } else { 3 }
}

/// The load generator beside the daemon. `cargo test --workspace` builds it.
fn ringload() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_ringwrightd")).with_file_name("ringload")
}

#[must_use]
#[track_caller]
fn can_roll() -> bool {
    if !ringload().is_file() {
        leave_out("ringload (cargo build -p ringload)");
        return false;
    }
    needs_root("it makes a network namespace")
        && needs_program("haproxy", "haproxy")
        && needs_program("ip", "iproute2")
}

/// Runs `act` where the whole network 10.0.0.0/8 is the loopback device, and /run is empty.
pub fn in_network_namespace(act: impl FnOnce() + Send) {
    in_mount_namespace(|| {
        // SAFETY: no memory is involved. Only this thread and its children are moved.
        let left = unsafe { libc::unshare(libc::CLONE_NEWNET) };
        assert_eq!(left, 0, "{}", io::Error::last_os_error());
        for arguments in ["link set lo up", "address add 10.0.0.1/8 dev lo"] {
            let done = Command::new("ip").args(arguments.split(' ')).status().unwrap();
            assert!(done.success(), "ip {arguments}");
        }
        mount(c"none", Path::new("/run"), c"tmpfs", 0, c"");
        fs::create_dir("/run/haproxy").unwrap();
        act();
    });
}

/// A process that is killed at the end of the test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// HAProxy, with what it logs.
struct Balancer {
    _process: Killed,
    log: PathBuf,
}

impl Balancer {
    fn start(folder: &Path) -> Self {
        let log = folder.join("haproxy.log");
        let mut haproxy = Command::new("haproxy");
        haproxy.arg("-db").arg("-f").arg(shipped("haproxy.cfg")).stdin(Stdio::null());
        let file = File::create(&log).unwrap();
        haproxy.stdout(file.try_clone().unwrap()).stderr(file);
        Self { _process: Killed(haproxy.spawn().unwrap()), log }
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// The rows of `show stat`, each by the names of its columns.
    fn statistics(&self) -> Option<Vec<HashMap<String, String>>> {
        let mut stream = UnixStream::connect("/run/haproxy/admin.sock").ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"show stat\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let mut lines = text.trim_end().lines();
        let names: Vec<&str> = lines.next()?.trim_start_matches("# ").split(',').collect();
        let rows = lines.map(|line| {
            let values = line.split(',').map(str::to_owned);
            names.iter().map(|name| (*name).to_owned()).zip(values).collect()
        });
        Some(rows.collect())
    }

    /// Returns true if this server has the status in each service. The status `UP 1/2` says that a
    /// health check has failed once.
    fn says(&self, server: &str, status: &str) -> bool {
        let rows = self.statistics().unwrap_or_default();
        let mut rows = rows.iter().filter(|row| row["svname"] == server).peekable();
        rows.peek().is_some() && rows.all(|row| row["status"] == status)
    }

    #[track_caller]
    fn wait_for(&self, server: &str, status: &str) {
        wait_until(&format!("HAProxy finds {server} {status}"), || self.says(server, status));
    }

    #[track_caller]
    fn lost_nothing(&self) {
        for row in self.statistics().unwrap() {
            for counter in COUNTERS {
                let count = &row[counter];
                let log = self.log();
                assert!(count.is_empty() || count == "0", "{counter} {count} in {row:?}\n{log}");
            }
        }
    }
}

/// One of the daemons.
struct Daemon {
    name: &'static str,
    ip: Ipv4Addr,
    folder: TempDir,
    /// Absent in the middle of a roll.
    server: Option<Server>,
    /// The number of times that its file was changed.
    changes: usize,
    /// The number of the last upload to it.
    uploads: usize,
}

impl Daemon {
    fn start(number: usize, large: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "www/page.txt", "the same on all of them\n");
        fs::hard_link(large, folder.path().join("www/large.bin")).unwrap();
        write(folder.path(), "files/", "");
        let (name, ip) = (DAEMONS[number], Ipv4Addr::new(10, 0, 0, 11 + number as u8));
        let mut daemon = Self { name, ip, folder, server: None, changes: 0, uploads: 0 };
        daemon.configure();
        daemon.run();
        daemon
    }

    /// Writes the shipped configuration with the addresses and the folders of this daemon.
    fn configure(&self) {
        let text = fs::read_to_string(shipped("ringwrightd.toml")).unwrap();
        let own = self.ip.to_string();
        let text = replaced(
            &text,
            &[
                ("[::]", &own),
                ("127.0.0.1", &own),
                ("/srv/www", "www"),
                ("/var/lib/ringwrightd", "files"),
                ("drain_delay = \"5s\"", "drain_delay = \"2s\""),
            ],
        );
        let fields = format!("X-Daemon = \"{}\", X-Changes = \"{}\"", self.name, self.changes);
        let rule = format!("[[site.rule]]\nmatch = \"**\"\nheaders = {{ {fields} }}\n\n");
        let text = replaced(&text, &[("[[packets]]", &format!("{rule}[[packets]]"))]);
        fs::write(self.folder.path().join("c.toml"), text).unwrap();
    }

    #[track_caller]
    fn run(&mut self) {
        let file = self.folder.path().join("c.toml");
        let mut daemon = command(&["run", file.to_str().unwrap()]);
        let schemes = ["http", "packets", "admin http", "admin http"];
        self.server = Some(Server::start_listening(&mut daemon, &schemes));
    }

    fn signal(&self, signal: i32) {
        self.server.as_ref().unwrap().signal(signal);
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::new(self.ip.into(), 8080)
    }

    fn is_accepting(&self) -> bool {
        TcpStream::connect_timeout(&self.address(), Duration::from_millis(200)).is_ok()
    }

    /// SIGTERM, and a new daemon in its place.
    #[track_caller]
    fn roll(&mut self, balancer: &Balancer) {
        let transfers = Transfers::begin(self);
        self.signal(libc::SIGTERM);
        balancer.wait_for(self.name, "DOWN");
        assert!(self.is_accepting(), "HAProxy noticed the drain only after `drain_delay`");
        wait_until("the end of `drain_delay`", || !self.is_accepting());
        transfers.finish(self);
        let ended = self.server.take().unwrap().wait().cleanly();
        assert!(ended.stderr.contains("\"stopped\":0"), "{}", ended.stderr);
        self.run();
        balancer.wait_for(self.name, "UP");
    }

    /// A changed file, and SIGHUP.
    #[track_caller]
    fn reload(&mut self) {
        let transfers = Transfers::begin(self);
        self.changes += 1;
        self.configure();
        self.signal(libc::SIGHUP);
        let changes = self.changes.to_string();
        // The proxy protocol is for 10.0.0.0/8 only.
        let get = || {
            let reply = connect_from(Ipv4Addr::LOCALHOST, self.address()).ask(&request(
                "GET",
                "/page.txt",
                "Connection: close\r\n",
            ));
            reply.field("x-changes") == changes
        };
        wait_until("the reload", get);
        transfers.finish(self);
    }
}

/// A download from one daemon and an upload to each, in their middle.
struct Transfers {
    download: Client,
    downloaded: Vec<u8>,
    uploads: Vec<Packets>,
    /// The file that each daemon stores.
    name: String,
}

impl Transfers {
    #[track_caller]
    fn begin(daemon: &mut Daemon) -> Self {
        daemon.uploads += 1;
        let (download, length) = (0..200)
            .map(|_| {
                let mut client = Client::new(HTTP);
                client.send(request("GET", "/large.bin", ""));
                (client.head(), client)
            })
            .find(|(head, _)| head.field("x-daemon") == daemon.name)
            .map(|(head, client)| (client, head.field("content-length").to_owned()))
            .expect("HAProxy sends requests to all of them");
        assert_eq!(length, LARGE_BYTES.to_string());
        let name = format!("{}-{}", daemon.name, daemon.uploads);
        let mut transfers = Self { download, downloaded: vec![0; 1000], uploads: Vec::new(), name };
        transfers.download.stream.read_exact(&mut transfers.downloaded).unwrap();
        for _ in DAEMONS {
            let mut client = Packets::connect(PACKETS);
            client.write(&put(1, &transfers.name, UPLOAD_BYTES as u64));
            client.expect(ACCEPTED, 1);
            client.write(&data(1, &pattern(UPLOAD_BYTES)[..UPLOAD_BYTES / 2]));
            transfers.uploads.push(client);
        }
        transfers
    }

    #[track_caller]
    fn finish(mut self, daemon: &Daemon) {
        let mut rest = vec![0; LARGE_BYTES - self.downloaded.len()];
        self.download.stream.read_exact(&mut rest).unwrap();
        self.downloaded.append(&mut rest);
        assert!(self.downloaded == pattern(LARGE_BYTES), "other bytes");
        for upload in &mut self.uploads {
            upload.write(&data(1, &pattern(UPLOAD_BYTES)[UPLOAD_BYTES / 2..]));
            upload.expect(STORED, 1);
        }
        let stored = daemon.folder.path().join("files").join(self.name);
        assert!(fs::read(&stored).unwrap() == pattern(UPLOAD_BYTES));
    }
}

/// An open-loop load through HAProxy.
struct Load {
    process: Killed,
    report: PathBuf,
}

impl Load {
    fn start(folder: &Path, name: &str, arguments: &str) -> Self {
        let report = folder.join(name);
        let mut load = Command::new(ringload());
        load.args(["http", "http://10.0.0.10/page.txt", "--quiet", "-d", "12h", "--json"]);
        load.arg(&report).args(arguments.split(' ')).stdin(Stdio::null()).stdout(Stdio::null());
        Self { process: Killed(load.spawn().unwrap()), report }
    }

    /// Ends the load. All requests have been answered, however late.
    #[track_caller]
    fn lost_nothing(mut self, balancer: &Balancer) {
        // SAFETY: no memory is involved, and the child has not been waited for.
        unsafe { libc::kill(self.process.0.id() as i32, libc::SIGINT) };
        self.process.0.wait().unwrap();
        let report: Value = serde_json::from_slice(&fs::read(&self.report).unwrap()).unwrap();
        let count = |name: &str| report[name].as_u64().unwrap_or_else(|| panic!("{name}"));
        assert!(count("replies") > 0);
        for name in ["errors_total", "closed_idle", "refused", "disconnects", "lost"] {
            let (errors, first) = (&report["errors"], &report["first_errors"]);
            let log = balancer.log();
            assert_eq!(count(name), 0, "{name}: {errors} {first} {:?}\n{log}", self.report);
        }
    }
}

#[test]
fn rolls_behind_haproxy_lose_nothing() {
    if can_roll() {
        in_network_namespace(roll_all);
    }
}

fn roll_all() {
    let folder = tempfile::tempdir().unwrap();
    let large = folder.path().join("large.bin");
    fs::write(&large, pattern(LARGE_BYTES)).unwrap();
    let mut daemons: Vec<Daemon> = (0..4).map(|number| Daemon::start(number, &large)).collect();
    let balancer = Balancer::start(folder.path());
    for name in DAEMONS {
        balancer.wait_for(name, "UP");
    }
    let kept = Load::start(folder.path(), "kept.json", "-c 16 -R 300");
    let fresh = Load::start(folder.path(), "fresh.json", "-c 16 --conn-rate 50");
    for _ in 0..rounds() {
        daemons.iter_mut().for_each(|daemon| daemon.roll(&balancer));
        balancer.lost_nothing();
        daemons.iter_mut().for_each(Daemon::reload);
        balancer.lost_nothing();
    }
    kept.lost_nothing(&balancer);
    fresh.lost_nothing(&balancer);
    daemons.iter().for_each(|daemon| daemon.signal(libc::SIGTERM));
    for daemon in daemons {
        daemon.server.unwrap().wait().cleanly();
    }
}
