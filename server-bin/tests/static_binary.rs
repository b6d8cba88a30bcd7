//! The programs of `tools/static`, in a folder that has nothing else: no shared library, no /proc,
//! no /sys, no /dev, no /etc.

use ringwright_test_support::{leave_out, needs_io_uring};
use ringwrightd_test_support::server::{Server, without_settings};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;
use tempfile::TempDir;

/// The paths of `ringwrightd` and `ringload`.
static PROGRAMS: LazyLock<Vec<PathBuf>> = LazyLock::new(|| {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tools/static");
    let output = Command::new(script).args(["--profile", "dev"]).output().expect("bash");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let paths = String::from_utf8(output.stdout).expect("text");
    paths.lines().map(PathBuf::from).collect()
});

/// Returns true if programs can be linked statically.
#[track_caller]
fn needs_static_libc() -> bool {
    let output = Command::new("cc").arg("-print-file-name=libc.a").output();
    let is_there = output.is_ok_and(|output| output.stdout.starts_with(b"/"));
    if !is_there {
        leave_out("libc.a (Debian package libc6-dev)");
    }
    is_there
}

/// The arguments of unshare(1) with which this user may call chroot(2): of a user namespace, or
/// none for root. `None`: neither is allowed.
static NAMESPACE: LazyLock<Option<&[&str]>> = LazyLock::new(|| {
    [&["--user", "--map-root-user"][..], &[]].into_iter().find(|namespace| {
        let tried = Command::new("unshare").args(*namespace).args(["--root", "/", "true"]).output();
        tried.is_ok_and(|output| output.status.success())
    })
});

#[track_caller]
fn needs_chroot() -> bool {
    if NAMESPACE.is_none() {
        leave_out("chroot (unshare --user --map-root-user, or root)");
    }
    NAMESPACE.is_some()
}

/// A folder with both programs and a file to serve. It becomes the root directory.
struct Root(TempDir);

impl Root {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        for program in &*PROGRAMS {
            fs::copy(program, root.path().join(program.file_name().unwrap())).unwrap();
        }
        fs::create_dir(root.path().join("srv")).unwrap();
        fs::write(root.path().join("srv/ten.txt"), "0123456789").unwrap();
        Self(root)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = without_settings("unshare");
        command.args(NAMESPACE.expect("chroot is allowed"));
        command.arg("--root").arg(self.0.path()).args(arguments);
        command
    }

    /// Uploads a file from this folder, and returns whether it succeeded.
    fn uploads(&self, server: &Server, file: &str) -> bool {
        let address = server.address.to_string();
        let output = self.command(&["/ringload", "packets", &address, "put", file]).output();
        output.unwrap().status.success()
    }

    /// A short load of the server at `HOST:PORT`.
    fn load(&self, address: &str, ring: &str) -> Output {
        let url = format!("http://{address}/ten.txt");
        let arguments = ["/ringload", "http", &url, "-c", "2", "-n", "20", "--ring", ring];
        self.command(&arguments).output().unwrap()
    }

    #[track_caller]
    fn loads(&self, address: &str, ring: &str) {
        let output = self.load(address, ring);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{address}: {stderr}");
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert!(stdout.contains("200: 20"), "{address}: {stdout}");
    }

    /// A name without an address is an error that names it, the server that was asked, and a
    /// remedy.
    #[track_caller]
    fn does_not_find(&self, name: &str, server: &str) {
        let output = self.load(&format!("{name}:80"), "auto");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{stderr}");
        for part in [name, server, "add it to /etc/hosts or use an IP address"] {
            assert!(stderr.contains(part), "{part} in {stderr}");
        }
    }
}

fn word(bytes: &[u8], at: usize) -> usize {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize
}

/// The interpreter and the number of shared libraries that a program asks for (elf(5)).
fn dynamic_parts(program: &Path) -> (bool, usize) {
    const PT_DYNAMIC: usize = 2;
    const PT_INTERP: usize = 3;
    const DT_NEEDED: usize = 1;
    let bytes = fs::read(program).unwrap();
    assert_eq!(bytes[..6], *b"\x7fELF\x02\x01", "64 bits, little endian");
    let (first, count) = (word(&bytes, 32), bytes[56]);
    let headers = (0..usize::from(count)).map(|number| first + 56 * number);
    let of_type =
        |wanted| headers.clone().find(|header| word(&bytes, *header) & 0xffff_ffff == wanted);
    let libraries = of_type(PT_DYNAMIC).map_or(0, |header| {
        let (offset, length) = (word(&bytes, header + 8), word(&bytes, header + 32));
        let entries = bytes[offset..offset + length].chunks_exact(16);
        entries.filter(|entry| word(entry, 0) == DT_NEEDED).count()
    });
    (of_type(PT_INTERP).is_some(), libraries)
}

/// The resolver of the C library loads shared libraries when it is called, nsswitch.conf(5).
fn has_getaddrinfo(program: &Path) -> bool {
    let bytes = fs::read(program).unwrap();
    // A symbol: its name and a byte 0 follow those of another one.
    memchr::memmem::find(&bytes, b"\0getaddrinfo\0").is_some()
}

#[test]
fn no_shared_library_is_needed() {
    if !needs_static_libc() {
        return;
    }
    let ordinary = dynamic_parts(env!("CARGO_BIN_EXE_ringwrightd").as_ref());
    assert!(ordinary.0 && ordinary.1 > 0, "an ordinary build has both");
    assert_eq!(PROGRAMS.len(), 2, "{PROGRAMS:?}");
    for program in &*PROGRAMS {
        assert_eq!(dynamic_parts(program), (false, 0), "{program:?}");
        assert!(!has_getaddrinfo(program), "{program:?}");
    }
}

#[track_caller]
fn serves_from_an_empty_folder(ring: &str) {
    let root = Root::new();
    let arguments = ["/ringwrightd", "http", "/srv", "--listen", "localhost:0", "--ring", ring];
    let server = Server::start(&mut root.command(&arguments), "http");
    assert!(server.address.ip().is_loopback(), "{}", server.address);
    assert_eq!(server.get("/ten.txt", "").body, b"0123456789");
    let port = server.address.port();
    for address in [server.address.to_string(), format!("localhost:{port}")] {
        root.loads(&address, ring);
    }
    root.does_not_find("no-such-host.invalid", "127.0.0.1:53");

    fs::create_dir(root.0.path().join("etc")).unwrap();
    let named = format!("{} served.test\n", server.address.ip());
    fs::write(root.0.path().join("etc/hosts"), named).unwrap();
    fs::write(root.0.path().join("etc/resolv.conf"), "nameserver 127.0.0.2\n").unwrap();
    for host in ["localhost", "served.test"] {
        root.loads(&format!("{host}:{port}"), ring);
    }
    root.does_not_find("no-such-host.invalid", "127.0.0.2:53");
    let ended = server.stop().cleanly();
    assert!(!ended.stderr.contains("panicked at"), "{}", ended.stderr);
}

/// Without /proc only Linux 6.10 gives a file a name later. The server must work, or say at its
/// start that it does not.
#[track_caller]
fn takes_uploads_in_an_empty_folder(ring: &str) {
    let root = Root::new();
    fs::write(root.0.path().join("sent"), "sent").unwrap();
    let listen = "127.0.0.1:0";
    let arguments = ["/ringwrightd", "packets", "/srv", "--listen", listen, "--ring", ring];
    let server = Server::start(&mut root.command(&arguments), "packets");
    let succeeded = root.uploads(&server, "/sent");
    let ended = server.stop().cleanly();
    let is_announced = ended.stderr.contains("uploads to /srv will fail");
    assert_ne!(succeeded, is_announced, "{}", ended.stderr);
    let folder = root.0.path().join("srv");
    let received = fs::read(folder.join("sent")).ok();
    assert_eq!(received, succeeded.then(|| b"sent".to_vec()));
    let names = fs::read_dir(folder).unwrap().count();
    assert_eq!(names, 1 + usize::from(succeeded), "no temporary name is left");
}

#[test]
fn an_empty_folder_is_enough_on_io_uring() {
    if needs_static_libc() && needs_chroot() && needs_io_uring() {
        serves_from_an_empty_folder("io_uring");
        takes_uploads_in_an_empty_folder("io_uring");
    }
}

#[test]
fn an_empty_folder_is_enough_on_epoll() {
    if needs_static_libc() && needs_chroot() {
        serves_from_an_empty_folder("epoll");
        takes_uploads_in_an_empty_folder("epoll");
    }
}
