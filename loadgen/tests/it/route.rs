//! Where connections go to, and from which addresses they come.

use crate::support::{Ended, echo, http, ok, run_echo, run_http, server, start};
use std::collections::HashSet;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

/// The headers that a server has received, in any order.
type Headers = Arc<Mutex<Vec<Result<String, Vec<u8>>>>>;

/// A server that expects a header of the PROXY protocol, and then does what `serve` does.
fn behind_proxy(serve: impl Fn(TcpStream) + Clone + Send + 'static) -> (SocketAddr, Headers) {
    let headers = Headers::default();
    let address = server({
        let headers = headers.clone();
        move |mut stream| {
            let (header, is_right) = match header(&mut stream) {
                Ok(header) => (Ok(header), true),
                Err(bytes) => (Err(bytes), false),
            };
            headers.lock().unwrap_or_else(PoisonError::into_inner).push(header);
            if is_right {
                serve(stream);
            }
        }
    });
    (address, headers)
}

/// Reads a header and returns it in the form of version 1, without the line's end. The error is
/// what was received instead; nothing if the client left at once.
fn header(stream: &mut TcpStream) -> Result<String, Vec<u8>> {
    let mut bytes = [0; 107];
    // The header came in one segment. A reset behind it may take it away while it is read.
    let count = stream.peek(&mut bytes).unwrap_or_default();
    let bytes = &bytes[..count];
    let is_binary = bytes.starts_with(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c") && count >= 28;
    let (header, length) = match bytes.windows(2).position(|end| end == b"\r\n") {
        Some(end) if bytes.starts_with(b"PROXY ") => {
            (String::from_utf8_lossy(&bytes[..end]).into_owned(), end + 2)
        }
        Some(0) if is_binary => {
            let ip = |at: usize| Ipv4Addr::from([0, 1, 2, 3].map(|place| bytes[at + place]));
            let port = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
            (format!("PROXY TCP4 {} {} {} {}", ip(16), ip(20), port(24), port(26)), 28)
        }
        _ => return Err(bytes.to_vec()),
    };
    let _ = stream.read_exact(&mut vec![0; length]);
    Ok(header)
}

/// The clients of `headers`, all of which are right and name `to`.
fn clients(headers: &Headers, to: SocketAddr) -> Vec<Ipv4Addr> {
    let headers = headers.lock().unwrap_or_else(PoisonError::into_inner);
    let client = |header: &Result<String, Vec<u8>>| {
        let line = header.as_ref().unwrap_or_else(|bytes| {
            panic!("no header: {:?}", String::from_utf8_lossy(bytes));
        });
        let fields: Vec<_> = line.split(' ').collect();
        assert_eq!(fields[..2], ["PROXY", "TCP4"], "{line}");
        assert_eq!((fields[3], fields[5]), (&*to.ip().to_string(), &*to.port().to_string()));
        assert!(fields[4].parse::<u16>().is_ok_and(|port| port >= 1_024), "{line}");
        fields[2].parse().expect("an address")
    };
    headers.iter().map(client).collect()
}

fn all_begin_with(clients: &[Ipv4Addr], start: &[u8]) {
    assert!(clients.iter().all(|client| client.octets().starts_with(start)), "{clients:?}");
    let different: HashSet<_> = clients.iter().collect();
    assert!(clients.len() < 2 || different.len() > 1, "{clients:?}");
}

/// The plan of a report names the options.
fn planned(ended: &Ended, version: &str, prefix: &str) {
    let plan = &ended.report["plan"];
    assert_eq!((&plan["proxy_protocol"], &plan["clients"]), (&version.into(), &prefix.into()));
}

#[test]
fn load_begins_each_connection_with_a_header() {
    for version in ["v1", "v2"] {
        let options = format!("--proxy-protocol {version} --clients 10.7.0.0/16");
        let (address, headers) = behind_proxy(|stream| echo(stream, |_, _| true));
        let ended = run_echo(address, &format!("-n 200 -c 8 -t 2 --seed 7 {options}"));
        ended.passed();
        planned(&ended, version, "10.7.0.0/16");
        let seen = clients(&headers, address);
        assert_eq!(seen.len() as u64, ended.count("connections_opened"), "{ended}");
        all_begin_with(&seen, &[10, 7]);

        let (address, headers) = behind_proxy(|stream| http(stream, |_, _| Some(ok(b"hello"))));
        let line = "-n 100 -c 4 --requests-per-connection 5 --pipeline 2";
        run_http(address, &format!("{line} {options}")).passed();
        let seen = clients(&headers, address);
        assert!(seen.len() >= 20);
        all_begin_with(&seen, &[10, 7]);
    }
    // Without the option, the server sees a request instead.
    let (address, headers) = behind_proxy(|stream| echo(stream, |_, _| true));
    assert_eq!(run_echo(address, "-n 5 -c 1 --size 200").status, 1);
    assert!(headers.lock().expect("no panic").iter().all(Result::is_err));
}

/// The addresses follow from the seed, and are those for benchmarks unless given.
#[test]
fn the_seed_decides_which_clients_come() {
    let run = |seed| {
        let (address, headers) = behind_proxy(|stream| echo(stream, |_, _| true));
        let options = format!("-n 40 -c 1 --requests-per-connection 10 --proxy-protocol v1 {seed}");
        run_echo(address, &options).passed();
        let mut seen = clients(&headers, address);
        seen.sort_unstable();
        seen
    };
    let seen = run("--seed 7");
    assert!(seen.iter().all(|ip| matches!(ip.octets(), [198, 18 | 19, ..])), "{seen:?}");
    assert_eq!(run("--seed 7"), seen);
    assert_ne!(run("--seed 8"), seen);
}

#[test]
fn idle_connections_begin_with_a_header_at_once() {
    let (address, headers) = behind_proxy(|stream| echo(stream, |_, _| true));
    let options = "-c 20 --hold 100ms --probe-every 50ms --proxy-protocol v2 --clients 10.7.0.0/16";
    let ended = start("idle", &address.to_string(), options).end();
    assert_eq!(ended.status, 0, "{ended}");
    planned(&ended, "v2", "10.7.0.0/16");
    let seen = clients(&headers, address);
    assert_eq!(seen.len(), 20);
    all_begin_with(&seen, &[10, 7]);
}

/// The addresses of the peers of an echo server.
fn peers() -> (SocketAddr, Arc<Mutex<Vec<Ipv4Addr>>>) {
    let peers = Arc::new(Mutex::new(Vec::new()));
    let address = server({
        let peers = peers.clone();
        move |stream| {
            // It may have ended already.
            if let Ok(IpAddr::V4(peer)) = stream.peer_addr().map(|peer| peer.ip()) {
                peers.lock().expect("no panic").push(peer);
            }
            echo(stream, |_, _| true);
        }
    });
    (address, peers)
}

#[test]
fn clients_are_source_addresses_without_a_header() {
    let (address, peers_of_idle) = peers();
    let options = "-c 20 --hold 100ms --probe-every 50ms --clients 127.77.0.0/16";
    let ended = start("idle", &address.to_string(), options).end();
    assert_eq!(ended.status, 0, "{ended}");
    all_begin_with(&peers_of_idle.lock().expect("no panic"), &[127, 77]);
    assert_eq!(ended.report["plan"]["source_addresses"], 20, "{ended}");

    let (address, peers_of_churn) = peers();
    let options = "-n 100 -c 8 --seed 7 --faults all,-vanish --clients 127.78.0.0/16";
    let ended = start("churn", &address.to_string(), options).end();
    assert_eq!(ended.status, 0, "{ended}");
    let seen = peers_of_churn.lock().expect("no panic");
    assert!(seen.len() > 50, "{seen:?}");
    all_begin_with(&seen, &[127, 78]);

    for (command, clients, says) in [
        ("idle", "192.0.2.0/24", "cannot use 192.0.2."),
        ("idle", "2001:db8::/32", "different families"),
        ("churn", "192.0.2.0/24", "cannot use 192.0.2."),
        ("echo", "127.77.0.0/16", "--clients needs --proxy-protocol"),
    ] {
        let ended = start(command, &address.to_string(), &format!("--clients {clients}")).end();
        assert!(ended.status == 2 && ended.stderr.contains(says), "{ended}");
    }
}

#[test]
fn faults_are_committed_behind_the_header() {
    for version in ["v1", "v2"] {
        let (address, headers) = behind_proxy(|stream| echo(stream, |_, _| true));
        let options = format!(
            "-n 150 -c 8 --bystanders 2 --seed 7 --faults all,-vanish --proxy-protocol {version} \
             --clients 10.7.0.0/16"
        );
        let ended = start("churn", &address.to_string(), &options).end();
        assert_eq!(ended.status, 0, "{ended}");
        planned(&ended, version, "10.7.0.0/16");
        let mut seen = headers.lock().expect("no panic").clone();
        // Connections that leave at once have none.
        seen.retain(|header| header.as_ref().err().is_none_or(|bytes| !bytes.is_empty()));
        let seen = clients(&Arc::new(Mutex::new(seen)), address);
        assert!(seen.len() > 100, "{seen:?}");
        all_begin_with(&seen, &[10, 7]);
    }
    let (address, headers) = behind_proxy(|stream| echo(stream, |_, _| true));
    let script = format!("echo://{address} seed=7 number=1 say=64 connect send=all recv=reply fin");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("script");
    std::fs::write(&file, script).expect("a file");
    let file = file.to_str().expect("UTF-8");
    let ended = start("replay", file, "--proxy-protocol v1 --clients 10.7.0.1").end();
    assert_eq!(ended.status, 0, "{ended}");
    assert_eq!(clients(&headers, address).last(), Some(&Ipv4Addr::new(10, 7, 0, 1)));
}

#[test]
fn a_name_is_looked_up_on_the_command_line() {
    let heads = Arc::new(Mutex::new(Vec::new()));
    let address = server({
        let heads = heads.clone();
        move |stream| {
            http(stream, |head, _| {
                heads.lock().expect("no panic").push(head.to_string());
                Some(ok(b"hello"))
            });
        }
    });
    let port = address.port();
    let options = format!("-n 5 -c 1 --resolve name.invalid:{port}:127.0.0.1");
    let url = format!("http://name.invalid:{port}/");
    let ended = start("http", &url, &options).end();
    ended.passed();
    assert_eq!(ended.report["plan"]["address"], address.to_string(), "{ended}");
    let host = format!("Host: name.invalid:{port}\r\n");
    assert!(heads.lock().expect("no panic").iter().all(|head| head.contains(&host)));
    let options =
        format!("--protocol http --hold 10ms --resolve name.invalid:{port}:127.0.0.1 -c 2");
    assert_eq!(start("idle", &url, &options).end().status, 0);
    let options =
        format!("-n 5 --bystanders 0 --faults none --resolve name.invalid:{port}:127.0.0.1");
    let ended = start("churn", &url, &options).end();
    assert_eq!(ended.report["plan"]["address"], address.to_string(), "{ended}");
    assert_eq!(start("http", &url, "-n 5").end().status, 3);
}
