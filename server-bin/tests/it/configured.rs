//! A daemon with a configuration file, and a folder of files to serve.

use crate::common::{Client, Ended, PATIENCE, Reply, Server, command};
use ringwrightd_test_support::socket;
use std::fs;
use std::io::{BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A password file with the user `joe`, whose password is `pw`.
pub const USERS: &str = "joe:$6$rounds=1000$saltsalt$nII71HJmawaDYdXrUHYtoWV/pe6ZN/eQzrZXdKjhrcMU0\
    onLRg6A5m38udZu.lA6f53rIQturF4FMx1X99KF/0
";
/// The line with joe's password.
pub const JOE: &str = "Authorization: Basic am9lOnB3\r\n";
/// The line of joe with another password.
pub const NOT_JOE: &str = "Authorization: Basic am9lOm5v\r\n";

/// A port of an address of the loopback network. Until this is dropped, nobody else gets it by
/// asking for a free port.
pub struct Port {
    address: SocketAddr,
    _socket: OwnedFd,
}

impl Port {
    /// A port of 127.0.0.1.
    pub fn reserve() -> Self {
        let (socket, address) = bound(Ipv4Addr::LOCALHOST);
        Self { address, _socket: socket }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// A socket that is bound to any port of this address, and listens on nothing. Another socket with
/// `SO_REUSEADDR` may listen on the address meanwhile (socket(7)).
fn bound(ip: Ipv4Addr) -> (OwnedFd, SocketAddr) {
    // SAFETY: no pointers; the descriptor is new and nobody else's.
    let socket = unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
        assert!(socket >= 0, "{}", std::io::Error::last_os_error());
        TcpStream::from_raw_fd(socket)
    };
    socket::set(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, &1_i32).unwrap();
    let name = socket_address(SocketAddr::new(ip.into(), 0));
    let length = size_of_val(&name) as libc::socklen_t;
    // SAFETY: bind(2) reads an address of that length.
    let result = unsafe { libc::bind(socket.as_raw_fd(), (&raw const name).cast(), length) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    let address = socket.local_addr().unwrap();
    (socket.into(), address)
}

fn socket_address(address: SocketAddr) -> libc::sockaddr_in {
    let SocketAddr::V4(address) = address else { panic!("{address} is not of IPv4") };
    libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(*address.ip()).to_be() },
        sin_zero: [0; 8],
    }
}

/// A connection from this address.
pub fn connect_from(ip: Ipv4Addr, to: SocketAddr) -> Client {
    let (socket, _) = bound(ip);
    let name = socket_address(to);
    let length = size_of_val(&name) as libc::socklen_t;
    // SAFETY: connect(2) reads an address of that length.
    let result = unsafe { libc::connect(socket.as_raw_fd(), (&raw const name).cast(), length) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    Client { stream: BufReader::new(stream) }
}

/// A folder with these files. A path that ends with a slash is a folder.
pub fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in files {
        write(folder.path(), path, text);
    }
    settle();
    folder
}

/// Files that have just changed are not kept open, and have a weak entity tag.
pub fn settle() {
    thread::sleep(Duration::from_millis(25));
}

/// Writes a file and makes its folder.
pub fn write(folder: &Path, path: &str, text: impl AsRef<[u8]>) {
    let path = folder.join(path);
    if path.to_str().unwrap().ends_with('/') {
        return fs::create_dir_all(path).unwrap();
    }
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// A running daemon with a configuration file. Its listeners are announced in the order of the
/// file, the admin listener last.
pub struct Configured {
    pub folder: TempDir,
    pub server: Server,
}

impl Configured {
    /// `ringwrightd run` with this configuration, which lies in the folder with the files. It
    /// announces listeners of these schemes.
    #[track_caller]
    pub fn start(folder: TempDir, text: &str, schemes: &[&str]) -> Self {
        Self::start_with(folder, text, schemes, &[])
    }

    /// The same with more arguments.
    #[track_caller]
    pub fn start_with(folder: TempDir, text: &str, schemes: &[&str], arguments: &[&str]) -> Self {
        let file = folder.path().join("c.toml");
        fs::write(&file, text).unwrap();
        let mut all = vec!["run", file.to_str().unwrap()];
        all.extend_from_slice(arguments);
        let server = Server::start_listening(&mut command(&all), schemes);
        Self { folder, server }
    }

    /// A site on any free port, with these keys.
    #[track_caller]
    pub fn site(folder: TempDir, keys: &str) -> Self {
        let text = format!("[[site]]\nlisten = [\"127.0.0.1:0\"]\nroot = \"www\"\n{keys}");
        Self::start(folder, &text, &["http"])
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// GET of a target.
    #[track_caller]
    pub fn get(&self, target: &str, fields: &str) -> Reply {
        self.ask("GET", target, fields)
    }

    /// A request, twice on one connection: the first reply is that of a file that was just opened,
    /// the second one that of a file that was kept. They are the same.
    #[track_caller]
    pub fn ask(&self, method: &str, target: &str, fields: &str) -> Reply {
        twice(&mut self.server.client(), method, target, fields)
    }

    /// A request, once.
    #[track_caller]
    pub fn ask_once(&self, method: &str, target: &str, fields: &str) -> Reply {
        self.server.client().ask(&request(method, target, fields))
    }

    #[track_caller]
    pub fn stop(self) -> Ended {
        self.server.stop().cleanly()
    }
}

/// The text of a request. Its host is `x` unless the fields name one.
pub fn request(method: &str, target: &str, fields: &str) -> String {
    let host = if fields.contains("Host:") { "" } else { "Host: x\r\n" };
    format!("{method} {target} HTTP/1.1\r\n{host}{fields}\r\n")
}

/// A request twice on a connection; the replies are the same but for their date.
#[track_caller]
pub fn twice(client: &mut Client, method: &str, target: &str, fields: &str) -> Reply {
    let request = request(method, target, fields);
    let [mut first, mut second] = [(); 2].map(|()| client.ask(&request));
    for reply in [&mut first, &mut second] {
        reply.fields.remove("date");
    }
    assert_eq!((first.status, &first.fields), (second.status, &second.fields), "{request}");
    assert_eq!(first.body, second.body, "{request}");
    first
}

/// The status and the body of a reply.
pub fn text(reply: &Reply) -> (u16, &str) {
    (reply.status, std::str::from_utf8(&reply.body).unwrap())
}

/// The value of a field, if there is one.
pub fn field<'a>(reply: &'a Reply, name: &str) -> Option<&'a str> {
    reply.fields.get(name).map(String::as_str)
}

/// Reads until the end of the connection.
pub fn rest(client: &mut Client) -> Vec<u8> {
    let mut rest = Vec::new();
    let _ = client.stream.read_to_end(&mut rest);
    rest
}

/// Waits until something holds.
#[track_caller]
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let give_up = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < give_up, "not in time: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}
