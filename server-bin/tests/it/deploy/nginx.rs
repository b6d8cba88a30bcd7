//! The snippet for nginx, in front of two daemons.

use super::rolls::in_network_namespace;
use super::{replaced, shipped};
use crate::common::{Client, PATIENCE, Server, command};
use crate::configured::{folder, request};
use ringwright_test_support::{needs_program, needs_root};
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Instant;
use tempfile::TempDir;

/// A daemon at this address that believes X-Forwarded-For, and denies a file to 192.0.2.0/24.
fn daemon(ip: &str) -> (TempDir, Server) {
    let folder = folder(&[("www/a.txt", "file"), ("files/", "")]);
    let text = fs::read_to_string(shipped("ringwrightd.toml")).unwrap();
    let (site, packets) = text.split_once("[[packets]]").unwrap();
    let proxy = "proxy_protocol_from = [\"10.0.0.0/8\"]";
    let real = "real_ip = { from = [\"10.0.0.0/8\"] }\n\
                [[site.rule]]\nmatch = \"a.txt\"\ndeny = [\"192.0.2.0/24\"]";
    let text = format!("{}[[packets]]{packets}", replaced(site, &[(proxy, real)]));
    let text = replaced(
        &text,
        &[
            ("[::]", ip),
            ("127.0.0.1", ip),
            ("/srv/www", "www"),
            ("/var/lib/ringwrightd", "files"),
            ("drain_delay = \"5s\"", "drain_delay = \"0s\""),
        ],
    );
    let file = folder.path().join("c.toml");
    fs::write(&file, text).unwrap();
    let schemes = ["http", "packets", "admin http", "admin http"];
    let mut daemon = command(&["run", file.to_str().unwrap()]);
    let server = Server::start_listening(&mut daemon, &schemes);
    (folder, server)
}

/// Writes a configuration of nginx that includes the snippet.
fn settings(folder: &Path) -> String {
    let at = folder.to_str().unwrap();
    let mut text = format!("pid {at}/pid;\nerror_log {at}/error.log;\nevents {{}}\nhttp {{\n");
    for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        text += &format!("{kind}_temp_path {at}/{kind};\n");
    }
    text += &format!("access_log off;\ninclude {};\n}}\n", shipped("nginx.conf").display());
    let file = folder.join("nginx.conf");
    fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

/// nginx, ended when dropped.
struct Nginx(String);

impl Nginx {
    fn run(&self, arguments: &[&str]) {
        let done = Command::new("nginx").args(["-c", &self.0]).args(arguments).status().unwrap();
        assert!(done.success(), "nginx {arguments:?}");
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = Command::new("nginx").args(["-c", &self.0, "-s", "stop"]).status();
    }
}

#[test]
fn nginx_names_its_clients_and_goes_on_without_one_daemon() {
    if !needs_root("it makes a network namespace")
        || !needs_program("ip", "iproute2")
        || !needs_program("nginx", "nginx-light")
    {
        return;
    }
    in_network_namespace(|| {
        let (_one, first) = daemon("10.0.0.11");
        let (_two, second) = daemon("10.0.0.12");
        let folder = tempfile::tempdir().unwrap();
        let nginx = Nginx(settings(folder.path()));
        // The parent of its workers goes into the background once it listens.
        nginx.run(&[]);
        let to: SocketAddr = "10.0.0.10:80".parse().unwrap();
        assert!(TcpStream::connect_timeout(&to, PATIENCE).is_ok());
        let mut client = Client::new(to);
        for (fields, status) in [("", 200), ("X-Forwarded-For: 192.0.2.7\r\n", 403)] {
            for _ in 0..4 {
                assert_eq!(client.ask(&request("GET", "/a.txt", fields)).status, status);
            }
        }
        first.signal(libc::SIGTERM);
        let give_up = Instant::now() + PATIENCE;
        for asked in 0.. {
            assert_eq!(client.ask(&request("GET", "/a.txt", "")).status, 200);
            if asked > 20 && TcpStream::connect("10.0.0.11:8080").is_err() {
                break;
            }
            assert!(Instant::now() < give_up, "it still listens");
        }
        first.wait().cleanly();
        drop(nginx);
        second.stop().cleanly();
    });
}
