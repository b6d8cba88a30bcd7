//! `ringwrightd doctor --seccomp-profile`: the printed profiles, applied by crun and judged by
//! systemd-analyze.

use crate::common::{PATIENCE, Server, command, pattern, tree};
use crate::namespace::{in_mount_namespace, mount};
use crate::packets::client::*;
use ringwright_test_support::{needs_io_uring, needs_program, needs_root};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The capabilities of Docker's default for a container's root that matter here.
const CAPABILITIES: [&str; 4] =
    ["CAP_DAC_OVERRIDE", "CAP_NET_BIND_SERVICE", "CAP_SETGID", "CAP_SETUID"];

fn profile(format: &str) -> String {
    let output = command(&["doctor", "--seccomp-profile", format]).output().unwrap();
    assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()));
    String::from_utf8(output.stdout).unwrap()
}

fn docker_profile() -> Value {
    serde_json::from_str(&profile("docker")).unwrap()
}

pub fn can_use_crun() -> bool {
    needs_root("it starts a container") && needs_program("crun", "crun") && needs_io_uring()
}

/// A container of the built daemon: the machine's network and its /usr, and folders of its own.
struct Container {
    bundle: TempDir,
    tree: TempDir,
    name: String,
}

impl Container {
    fn new(name: &str, seccomp: &Value, arguments: &[&str]) -> Self {
        let (bundle, tree) = (tempfile::tempdir().unwrap(), tree());
        let root = bundle.path().join("root");
        for folder in ["usr", "proc", "dev", "app", "srv", "log"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        for folder in ["lib", "lib64"] {
            symlink(Path::new("usr").join(folder), root.join(folder)).unwrap();
        }
        let log = bundle.path().join("log");
        fs::create_dir(&log).unwrap();
        let any = "127.0.0.1:0";
        let common = ["--listen", any, "--admin", any, "--access-log", "/log/access"];
        let arguments = [&["/app/ringwrightd"], arguments, &common].concat();
        let bind = |to: &str, from: &Path, way: &str| json!({"destination": to, "type": "bind", "source": from, "options": ["rbind", way]});
        let config = json!({
            "ociVersion": "1.0.0",
            "process": {
                "user": {"uid": 0, "gid": 0},
                "args": arguments,
                "env": ["RINGWRIGHTD_SHARDS=2"],
                "cwd": "/",
                "capabilities": {
                    "bounding": CAPABILITIES,
                    "effective": CAPABILITIES,
                    "permitted": CAPABILITIES,
                },
                // As Docker starts containers. The filter is then loaded early, so that it must
                // allow the rest of crun's work.
                "noNewPrivileges": false,
            },
            "root": {"path": "root", "readonly": true},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                bind("/usr", Path::new("/usr"), "ro"),
                bind("/app", Path::new(env!("CARGO_BIN_EXE_ringwrightd")).parent().unwrap(), "ro"),
                bind("/srv", tree.path(), "rw"),
                bind("/log", &log, "rw"),
            ],
            "linux": {
                "namespaces": [{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}],
                "seccomp": seccomp,
            },
        });
        fs::write(bundle.path().join("config.json"), config.to_string()).unwrap();
        Self { bundle, tree, name: format!("ringwright-test-{}-{name}", std::process::id()) }
    }

    fn crun(&self) -> Command {
        let mut crun = Command::new("crun");
        crun.args(["--cgroup-manager=disabled", "--root"]).arg(self.bundle.path().join("state"));
        crun.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        crun
    }

    /// The daemon, once it listens on its ring. crun passes signals on.
    #[track_caller]
    fn start(&self, scheme: &str, ring: &str) -> Server {
        let mut run = self.crun();
        run.args(["run", "--bundle"]).arg(self.bundle.path()).arg(&self.name);
        let server = Server::start_with_admin(&mut run, scheme);
        assert_eq!(server.ledger_once(|_| true)["ring"]["kind"], ring);
        server
    }
}

/// If the test fails, the daemon survives crun.
impl Drop for Container {
    fn drop(&mut self) {
        let _ = self.crun().args(["delete", "--force", &self.name]).output();
    }
}

/// The daemon serves files under this profile, takes and sends packets, and drains, on this ring.
fn works_under(seccomp: &Value, ring: &str) {
    in_mount_namespace(|| {
        // crun refuses to run beside both versions of cgroups, and needs none of them here.
        mount(c"none", Path::new("/sys/fs/cgroup"), c"cgroup2", 0, c"");
        serves_files(seccomp, ring);
        serves_packets(seccomp, ring);
        echoes(seccomp, ring);
    });
}

fn serves_files(seccomp: &Value, ring: &str) {
    let container = Container::new(&format!("http-{ring}"), seccomp, &["http", "/srv"]);
    let server = container.start("http", ring);
    for _ in 0..2 {
        assert_eq!(server.get("/ten.txt", "").body, b"0123456789");
        assert_eq!(server.get("/middle.bin", "").body, pattern(200_000));
        assert_eq!(server.get("/middle.bin", "Range: bytes=5-7\r\n").body, pattern(8)[5..]);
        assert_eq!((server.get("/", "").status, server.get("/none", "").status), (200, 404));
    }
    let log = container.bundle.path().join("log/access");
    until(|| fs::read_to_string(&log).is_ok_and(|text| text.lines().count() == 10));
    fs::remove_file(&log).unwrap();
    server.signal(libc::SIGUSR1);
    until(|| log.exists());
    server.signal(libc::SIGHUP);
    let held = server.client();
    server.ledger_once(|ledger| ledger["connections"]["open"] == 1);
    let metrics = server.admin().request("GET", "/metrics");
    assert!(metrics.body.starts_with(b"#"));
    assert_eq!(server.admin().request("DELETE", "/connections").status, 204);
    drop(held);
    let ended = server.stop().cleanly();
    assert!(ended.stderr.contains("SIGHUP: "), "{}", ended.stderr);
    let on_epoll = ended.stderr.contains("epoll replaces io_uring, which is forbidden");
    assert_eq!(on_epoll, ring == "epoll", "{}", ended.stderr);
}

fn serves_packets(seccomp: &Value, ring: &str) {
    let arguments = ["packets", "/srv", "--replace", "--sync"];
    let container = Container::new(&format!("packets-{ring}"), seccomp, &arguments);
    let server = container.start("packets", ring);
    let mut client = Client::connect(server.address);
    for (id, bytes, chunk) in [(1, 0, 1), (2, 1_000, 100), (3, 3_000_000, 70_000)] {
        let (name, bytes) = (format!("file-{id}"), pattern(bytes));
        client.upload(id, &name, &bytes, chunk);
        assert!(fs::read(container.tree.path().join(&name)).unwrap() == bytes);
        assert!(client.download(id, &name) == bytes);
        assert_eq!(client.ask(DIGEST_FILE, id, name.as_bytes(), DIGESTED).len(), 32);
        // Flag 1 replaces the file.
        let fields = [&[1], &3_u64.to_be_bytes()[..], name.as_bytes()].concat();
        client.write(&[packet(PUT, id, &fields), data(id, b"new")].concat());
        client.expect(ACCEPTED, id);
        client.expect(STORED, id);
        assert_eq!(fs::read(container.tree.path().join(&name)).unwrap(), b"new");
    }
    assert!(client.ask(LIST, 4, b"", LISTED).windows(6).any(|window| window == b"file-3"));
    assert_eq!(client.ask(DIGEST, 5, b"some", DIGESTED).len(), 32);
    // A resumable upload is kept at the end of its connection, and goes on with the next one.
    let upload = pattern(900_000);
    client.write(&[put_resumable(6, "half", 900_000, 1), data(6, &upload[..600_000])].concat());
    assert_eq!(client.resumed(6), 0);
    client.echoes();
    drop(client);
    server.ledger_once(|ledger| ledger["connections"]["open"] == 0);
    let mut client = Client::connect(server.address);
    client.write(&put_resumable(7, "half", 900_000, 1));
    assert_eq!(client.resumed(7), 600_000);
    client.write(&data(7, &upload[600_000..]));
    client.expect(STORED, 7);
    drop(client);
    server.stop().cleanly();
}

fn echoes(seccomp: &Value, ring: &str) {
    let arguments = ["echo", "--disconnect-rate", "50%", "--disconnect-seed", "1"];
    let container = Container::new(&format!("echo-{ring}"), seccomp, &arguments);
    let server = container.start("echo", ring);
    for _ in 0..20 {
        let Ok(mut stream) = TcpStream::connect(server.address) else { continue };
        let mut reply = Vec::new();
        if stream.write_all(&pattern(50_000)).is_ok() && stream.shutdown(Shutdown::Write).is_ok() {
            let _ = stream.read_to_end(&mut reply);
        }
    }
    server.stop().cleanly();
}

#[track_caller]
fn until(mut is_so: impl FnMut() -> bool) {
    let give_up = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < give_up, "it is not so after {PATIENCE:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn under_docker_s_profile_io_uring_serves() {
    if can_use_crun() {
        works_under(&docker_profile(), "io_uring");
    }
}

/// Docker before 23 answers EPERM instead of the profile's `defaultErrnoRet`.
#[test]
fn an_older_docker_may_answer_with_eperm() {
    if can_use_crun() {
        let mut profile = docker_profile();
        profile["defaultErrnoRet"] = libc::EPERM.into();
        works_under(&profile, "io_uring");
    }
}

/// Every call that the profile does not name ends the daemon, so that it needs none of them.
#[test]
fn the_profile_names_every_call_of_the_daemon() {
    if !can_use_crun() {
        return;
    }
    let mut profile = docker_profile();
    profile["defaultAction"] = "SCMP_ACT_KILL_PROCESS".into();
    profile["defaultErrnoRet"].take();
    works_under(&profile, "io_uring");
    without_io_uring(&mut profile);
    let forbidden = json!({
        "names": ["io_uring_enter", "io_uring_register", "io_uring_setup"],
        "action": "SCMP_ACT_ERRNO",
        "errnoRet": libc::EPERM,
    });
    profile["syscalls"].as_array_mut().unwrap().push(forbidden);
    works_under(&profile, "epoll");
}

/// Removes the calls that Docker's own profile lacks.
fn without_io_uring(profile: &mut Value) {
    let groups = profile["syscalls"].as_array_mut().unwrap();
    let before = groups.len();
    groups.retain(|group| group["comment"] != "io_uring");
    assert_eq!(groups.len(), before - 1);
}

#[test]
fn under_docker_s_profile_without_io_uring_epoll_serves() {
    if can_use_crun() {
        let mut profile = docker_profile();
        without_io_uring(&mut profile);
        works_under(&profile, "epoll");
    }
}

/// The names of a set of systemd's, and of the sets in it.
fn expand(set: &str, names: &mut BTreeSet<String>) {
    let output = Command::new("systemd-analyze").args(["syscall-filter", set]).output().unwrap();
    assert!(output.status.success(), "{set}: {}", String::from_utf8_lossy(&output.stderr));
    for line in String::from_utf8(output.stdout).unwrap().lines().skip(1) {
        match line.trim() {
            line if line.starts_with('#') || line.is_empty() => {}
            line if line.starts_with('@') => expand(line, names),
            line => drop(names.insert(line.to_owned())),
        }
    }
}

/// The calls that a unit or a drop-in allows, as systemd would: with its sets expanded.
pub fn systemd_allows(unit: &str) -> BTreeSet<String> {
    // Always allowed (systemd.exec(5), SystemCallFilter=).
    let mut names = BTreeSet::new();
    expand("@default", &mut names);
    for line in unit.lines().filter_map(|line| line.strip_prefix("SystemCallFilter=")) {
        let mut listed = BTreeSet::new();
        for name in line.trim_start_matches('~').split_whitespace() {
            match name.strip_prefix('@') {
                Some(_) => expand(name, &mut listed),
                None => drop(listed.insert(name.to_owned())),
            }
        }
        match line.strip_prefix('~') {
            Some(_) => names.retain(|name| !listed.contains(name)),
            None => names.extend(listed),
        }
    }
    names
}

#[test]
fn under_systemd_s_profile_io_uring_serves() {
    if can_use_crun() && needs_program("systemd-analyze", "systemd") {
        works_with(systemd_allows(&profile("systemd")));
    }
}

/// The daemon works with these calls alone, and without those of io_uring on epoll.
pub fn works_with(names: BTreeSet<String>) {
    let of = |names: &BTreeSet<String>| {
        json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "syscalls": [{"names": names, "action": "SCMP_ACT_ALLOW"}],
        })
    };
    works_under(&of(&names), "io_uring");
    let others = names.into_iter().filter(|name| !name.starts_with("io_uring_")).collect();
    works_under(&of(&others), "epoll");
}

#[test]
fn systemd_accepts_the_drop_in() {
    if !needs_program("systemd-analyze", "systemd") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let unit = folder.path().join("ringwrightd.service");
    let drop_ins = folder.path().join("ringwrightd.service.d");
    fs::create_dir(&drop_ins).unwrap();
    fs::write(drop_ins.join("io_uring.conf"), profile("systemd")).unwrap();
    let program = env!("CARGO_BIN_EXE_ringwrightd");
    // Units with no filter, with one that allows calls, and with one that forbids them.
    for filter in ["", "SystemCallFilter=@basic-io @network-io\n", "SystemCallFilter=~@aio\n"] {
        let text = format!("[Service]\nExecStart={program} http /srv\n{filter}");
        fs::write(&unit, text).unwrap();
        let verified = analyze(&["verify", "--man=no"], &unit);
        assert_eq!(verified, "", "{filter}");
        let judged = analyze(&["security", "--offline=true", "--no-pager"], &unit);
        assert!(judged.contains("SystemCallFilter="), "{judged}");
    }
}

/// Returns what `systemd-analyze` says about a unit and its drop-ins.
pub fn analyze(arguments: &[&str], unit: &Path) -> String {
    let output = Command::new("systemd-analyze").args(arguments).arg(unit).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8(said).unwrap();
    assert!(output.status.success(), "{said}");
    said
}
