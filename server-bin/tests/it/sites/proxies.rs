//! `proxy_protocol_from` and `real_ip`: clients behind proxies.

use crate::common::Client;
use crate::configured::{
    Configured, Port, connect_from, folder, request, rest, text, twice, wait_until,
};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

const FILES: [(&str, &str); 3] =
    [("www/a.txt", "file"), ("www/own.txt", "own"), ("www/six.txt", "six")];

/// 192.0.2.0/24 gets no file; `own.txt` is for the proxy itself, and `six.txt` for 2001:db8::/32.
const RULES: &str = "[[site.rule]]\nmatch = \"a.txt\"\ndeny = [\"192.0.2.0/24\"]\n\
     [[site.rule]]\nmatch = \"own.txt\"\nallow = [\"127.0.0.2\"]\n\
     [[site.rule]]\nmatch = \"six.txt\"\nallow = [\"2001:db8::/32\"]\n";

const PROXY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

fn from_proxy(running: &Configured) -> Client {
    connect_from(PROXY, running.server.address)
}

#[test]
fn the_real_address_is_the_last_one_that_is_not_trusted() {
    let keys = format!("real_ip = {{ from = [\"127.0.0.1\", \"10.0.0.0/8\"] }}\n{RULES}");
    let running = Configured::site(folder(&FILES), &keys);
    for (fields, status) in [
        ("X-Forwarded-For: 192.0.2.7\r\n", 403),
        ("x-forwarded-for: 192.0.2.7:4711\r\n", 403),
        ("X-Forwarded-For: 198.51.100.1, 192.0.2.7\r\n", 403),
        ("X-Forwarded-For: 192.0.2.7, 10.1.1.1\r\n", 403),
        ("X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-For: 10.1.1.1\r\n", 403),
        ("X-Forwarded-For: 198.51.100.1\r\nX-Forwarded-For: 192.0.2.7, 10.1.1.1\r\n", 403),
        // A client has sent the first one.
        ("X-Forwarded-For: 192.0.2.7, 198.51.100.1\r\n", 200),
        ("X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-For: 198.51.100.1\r\n", 200),
        ("X-Forwarded-For: nonsense\r\n", 200),
        ("X-Forwarded-For: 192.0.2.7, nonsense\r\n", 200),
        ("Forwarded: for=192.0.2.7\r\n", 200),
        ("", 200),
    ] {
        assert_eq!(running.get("/a.txt", fields).status, status, "{fields}");
        let reply = twice(&mut from_proxy(&running), "GET", "/a.txt", fields);
        assert_eq!(reply.status, 200, "{fields}: 127.0.0.2 is not trusted");
    }
    running.stop();
}

#[test]
fn forwarded_is_read_instead_if_the_key_says_so() {
    let keys = format!("real_ip = {{ from = [\"127.0.0.1\"], header = \"forwarded\" }}\n{RULES}");
    let running = Configured::site(folder(&FILES), &keys);
    for (fields, status) in [
        ("Forwarded: for=192.0.2.7\r\n", 403),
        ("Forwarded: for=\"192.0.2.7:80\";proto=https\r\n", 403),
        ("Forwarded: for=192.0.2.7, for=198.51.100.1\r\n", 200),
        ("X-Forwarded-For: 192.0.2.7\r\n", 200),
    ] {
        assert_eq!(running.get("/a.txt", fields).status, status, "{fields}");
    }
    let six = "Forwarded: for=\"[2001:db8::7]\"\r\n";
    assert_eq!(running.get("/six.txt", six).status, 200);
    assert_eq!(running.get("/six.txt", "").status, 403);
    running.stop();
}

#[test]
fn without_real_ip_no_field_is_believed() {
    let running = Configured::site(folder(&FILES), RULES);
    let reply = running.get("/a.txt", "X-Forwarded-For: 192.0.2.7\r\nForwarded: for=192.0.2.7\r\n");
    assert_eq!(reply.status, 200);
    running.stop();
}

fn proxied() -> Configured {
    Configured::site(folder(&FILES), &format!("proxy_protocol_from = [\"127.0.0.2\"]\n{RULES}"))
}

/// A header of version 2: the command, the family, and what follows.
fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend([0x20 | command, family]);
    header.extend((rest.len() as u16).to_be_bytes());
    header.extend(rest);
    header
}

/// The addresses of version 2, with a field that is skipped.
fn v4(source: [u8; 4]) -> Vec<u8> {
    let tlv = [0x04, 0, 3, 1, 2, 3];
    [&source[..], &[10, 0, 0, 1], &[0, 5, 0, 80], &tlv].concat()
}

fn v6(source: Ipv4Addr) -> Vec<u8> {
    let [a, b, c, d] = source.octets();
    let six: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d];
    [&six[..], &six, &[0, 5, 0, 80]].concat()
}

fn headers() -> Vec<(Vec<u8>, &'static str, u16)> {
    vec![
        (b"PROXY TCP4 192.0.2.9 10.0.0.1 5 80\r\n".to_vec(), "/a.txt", 403),
        (b"PROXY TCP4 198.51.100.9 10.0.0.1 5 80\r\n".to_vec(), "/a.txt", 200),
        (b"PROXY TCP6 2001:db8::1 2001:db8::2 5 80\r\n".to_vec(), "/six.txt", 200),
        (b"PROXY TCP4 198.51.100.9 10.0.0.1 5 80\r\n".to_vec(), "/own.txt", 403),
        (b"PROXY UNKNOWN\r\n".to_vec(), "/own.txt", 200),
        (v2(1, 0x11, &v4([192, 0, 2, 9])), "/a.txt", 403),
        (v2(1, 0x11, &v4([198, 51, 100, 9])), "/a.txt", 200),
        (v2(1, 0x21, &v6(Ipv4Addr::LOCALHOST)), "/six.txt", 200),
        (v2(1, 0x21, &v6(Ipv4Addr::LOCALHOST)), "/own.txt", 403),
        // LOCAL: a health check of the proxy.
        (v2(0, 0x11, &v4([192, 0, 2, 9])), "/own.txt", 200),
        (v2(0, 0, &[]), "/own.txt", 200),
    ]
}

#[test]
fn the_header_of_a_proxy_names_the_client() {
    let running = proxied();
    for (header, target, status) in headers() {
        let shown = String::from_utf8_lossy(&header).into_owned();
        let mut client = from_proxy(&running);
        client.send(&header);
        let reply = twice(&mut client, "GET", target, "");
        assert_eq!(reply.status, status, "{target} behind {shown:?}");
        // With the request in the same segment.
        let mut client = from_proxy(&running);
        client.send([&header[..], request("GET", target, "").as_bytes()].concat());
        assert_eq!(client.reply(false).status, status, "{target} behind {shown:?}");
    }
    running.stop();
}

#[test]
fn the_header_may_arrive_in_single_bytes() {
    let running = proxied();
    for (header, target, status) in headers() {
        let mut client = from_proxy(&running);
        for byte in &header {
            client.send([*byte]);
        }
        assert_eq!(client.ask(&request("GET", target, "")).status, status, "{target}");
    }
    running.stop();
}

#[test]
fn a_proxy_without_its_header_is_closed() {
    let running = proxied();
    let long = v2(1, 0x11, &[v4([192, 0, 2, 9]), vec![0; 600]].concat());
    for bytes in [
        request("GET", "/a.txt", "").into_bytes(),
        b"PROXY TCP4 300.0.2.9 10.0.0.1 5 80\r\n".to_vec(),
        b"PROXY HTTP\r\n".to_vec(),
        format!("PROXY UNKNOWN {}\r\n", "x".repeat(100)).into_bytes(),
        v2(2, 0x11, &v4([192, 0, 2, 9])),
        long,
    ] {
        let mut client = from_proxy(&running);
        client.send(&bytes);
        assert_eq!(rest(&mut client), b"", "{}", String::from_utf8_lossy(&bytes));
    }
    // Everybody else is a client, to whom the header means nothing.
    let mut client = running.server.client();
    client.send("PROXY TCP4 192.0.2.9 10.0.0.1 5 80\r\n");
    assert_eq!(client.ask(&request("GET", "/a.txt", "")).status, 400);
    assert_eq!(text(&running.get("/a.txt", "")), (200, "file"));
    running.stop();
}

#[test]
fn a_proxy_has_five_seconds_for_its_header() {
    let running = proxied();
    let start = Instant::now();
    let clients = ["", "PROXY TCP4 192.0.2.9 "].map(|bytes| {
        let mut client = from_proxy(&running);
        client.send(bytes);
        client
    });
    for mut client in clients {
        assert_eq!(rest(&mut client), b"");
        assert!(start.elapsed() >= Duration::from_millis(4_900), "{:?}", start.elapsed());
    }
    running.stop();
}

/// A site behind proxies, where the proxies' own addresses and 192.0.2.0/24 are banned.
fn banning(keys: &str) -> Configured {
    let text = format!(
        "[engine]\nshards = 1\nmax_per_ip = 1\nbans = [\"192.0.2.0/24\", \"127.0.0.2\"]\n\
         [admin]\nlisten = \"127.0.0.1:0\"\n\
         [[site]]\nlisten = [\"127.0.0.1:0\"]\nroot = \"www\"\n{keys}\
         [[site]]\nlisten = [\"127.0.0.1:0\"]\nroot = \"www\"\n"
    );
    Configured::start(folder(&FILES), &text, &["http", "http", "admin http"])
}

fn change_bans(running: &Configured, method: &str, prefix: &str) {
    let reply = running.server.admin().request(method, &format!("/bans/{prefix}"));
    assert_eq!(reply.status, 204);
}

#[test]
fn a_trusted_proxy_is_let_in_and_the_client_that_it_names_is_banned() {
    let real_ip = "real_ip = { from = [\"127.0.0.0/8\"] }\n";
    let running = banning(real_ip);
    // More connections than max_per_ip.
    let mut clients = [(); 3].map(|()| from_proxy(&running));
    for (field, status) in [
        ("X-Forwarded-For: 192.0.2.7\r\n", 403),
        ("X-Forwarded-For: 198.51.100.1\r\n", 200),
        ("", 200),
    ] {
        for client in &mut clients {
            assert_eq!(twice(client, "GET", "/a.txt", field).status, status, "{field}");
        }
    }
    let banned = "X-Forwarded-For: 192.0.2.7\r\n";
    for target in ["/nope", "/..%2f", "*"] {
        let status = clients[0].ask(&request("OPTIONS", target, banned)).status;
        assert!(status == 403 || status == 400, "{target}: {status}");
    }
    // A later ban holds for requests on open connections.
    let later = "X-Forwarded-For: 198.51.100.1\r\n";
    change_bans(&running, "PUT", "198.51.100.0/24");
    let mut client = from_proxy(&running);
    wait_until("the ban holds", || client.ask(&request("GET", "/a.txt", later)).status == 403);
    change_bans(&running, "DELETE", "198.51.100.0/24");
    wait_until("the ban is lifted", || client.ask(&request("GET", "/a.txt", later)).status == 200);
    running.stop();
}

/// The admin listener shows both addresses, as the access log does.
#[test]
fn the_admin_listener_shows_the_client_that_the_proxy_protocol_names() {
    let text = "[engine]\nshards = 2\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         [[site]]\nlisten = [\"127.0.0.1:0\"]\nroot = \"www\"\n\
         proxy_protocol_from = [\"127.0.0.2\"]\n\
         [[echo]]\nlisten = [\"127.0.0.1:0\"]\nproxy_protocol_from = [\"127.0.0.2\"]\n";
    let running = Configured::start(folder(&FILES), text, &["http", "echo", "admin http"]);
    let ask = |target: &str| -> Value {
        let reply = running.server.admin().request("GET", target);
        serde_json::from_slice(&reply.body).unwrap()
    };
    let mut clients =
        [0, 1].map(|listener| connect_from(PROXY, running.server.addresses[listener]));
    for client in &mut clients {
        client.send("PROXY TCP4 198.51.100.9 10.0.0.1 5 80\r\n");
    }
    let direct = running.server.client();
    let count =
        |address: &str, connections: u64| json!({"address": address, "connections": connections});
    let mut named = count("198.51.100.9", 2);
    named["sockets"] = json!([count("127.0.0.2", 2)]);
    let expected = json!([named, count("127.0.0.1", 1)]);
    wait_until("the clients are named", || ask("/addresses")["addresses"] == expected);
    let listed = ask("/connections")["connections"].as_array().unwrap().clone();
    assert_eq!(listed.len(), 3);
    for one in &listed {
        if let Some(socket) = one.get("socket") {
            assert!(socket.as_str().unwrap().starts_with("127.0.0.2:"), "{one}");
            assert_eq!(one["peer"], "198.51.100.9:5");
            let path = format!("/connections/{}", one["id"].as_str().unwrap());
            assert_eq!(&ask(&path)["socket"], socket);
        } else {
            assert!(one["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{one}");
        }
    }
    assert_eq!(listed.iter().filter(|one| one.get("socket").is_some()).count(), 2);
    drop((clients, direct));
    wait_until("all have gone", || ask("/addresses")["connections"] == 0);
    running.stop();
}

/// Two sites on one listener, of which one trusts the proxy: for the other it is a banned client.
#[test]
fn a_banned_proxy_of_another_site_is_refused() {
    let port = Port::reserve();
    let listen = format!("listen = [\"{}\"]\nroot = \"www\"\n", port.address());
    let text = format!(
        "[engine]\nbans = [\"127.0.0.2\"]\n\
         [[site]]\n{listen}names = [\"a.example\"]\nreal_ip = {{ from = [\"127.0.0.2\"] }}\n\
         [[site]]\n{listen}names = [\"b.example\"]\n"
    );
    let running = Configured::start(folder(&FILES), &text, &["http"]);
    for (host, status) in [("a.example", 200), ("b.example", 403)] {
        let mut client = from_proxy(&running);
        let field = format!("Host: {host}\r\n");
        assert_eq!(client.ask(&request("GET", "/a.txt", &field)).status, status, "{host}");
    }
    running.stop();
}

#[test]
fn a_client_that_the_proxy_protocol_names_is_banned() {
    let running = banning("proxy_protocol_from = [\"127.0.0.2\"]\n");
    let mut clients = [(); 4].map(|()| from_proxy(&running));
    for (client, (header, status)) in clients.iter_mut().zip([
        ("PROXY TCP4 192.0.2.9 10.0.0.1 5 80\r\n", 403),
        ("PROXY TCP4 198.51.100.9 10.0.0.1 5 80\r\n", 200),
        // Nobody is named: the limit of an address is not the proxy's.
        ("PROXY UNKNOWN\r\n", 200),
        ("PROXY UNKNOWN\r\n", 200),
    ]) {
        client.send(header);
        let reply = twice(client, "GET", "/a.txt", "");
        assert_eq!(reply.status, status, "{header}");
    }
    // A later ban holds for the next request.
    change_bans(&running, "PUT", "198.51.100.9");
    wait_until("the ban holds", || clients[1].ask(&request("GET", "/a.txt", "")).status == 403);
    running.stop();
}

/// The connections of a client over all shards and services count, and end.
#[test]
fn the_client_that_the_proxy_protocol_names_has_the_limit_of_an_address() {
    let any = "listen = [\"127.0.0.1:0\"]\nproxy_protocol_from = [\"127.0.0.0/8\"]\n";
    let text = format!(
        "[engine]\nshards = 2\nmax_per_ip = 2\n[[site]]\nroot = \"www\"\n{any}[[echo]]\n{any}"
    );
    let running = Configured::start(folder(&FILES), &text, &["http", "echo"]);
    let [site, echo] = [running.server.addresses[0], running.server.addresses[1]];
    let connect = |at: SocketAddr, named: &str| {
        let mut client = Client::new(at);
        client.send(format!("PROXY TCP6 {named} 2001:db8::1 5 80\r\n"));
        client
    };
    // The server may have closed the connection before the request is written.
    let is_served = |client: &mut Client| {
        let request = request("GET", "/a.txt", "");
        client.stream.get_mut().write_all(request.as_bytes()).is_ok()
            && client.stream.read_exact(&mut [0; 3]).is_ok()
    };
    // Addresses of one /64.
    let mut first = connect(site, "2001:db8::7");
    let mut second = connect(echo, "2001:db8::8");
    assert!(is_served(&mut first) && is_served(&mut second));
    for at in [site, echo] {
        assert!(!is_served(&mut connect(at, "2001:db8::9")), "a third one");
        assert!(is_served(&mut connect(at, "2001:db8:0:1::9")), "another client");
    }
    drop(second);
    let mut again = None;
    wait_until("the place is free", || {
        let mut client = connect(site, "2001:db8::9");
        let served = is_served(&mut client);
        again = Some(client);
        served
    });
    assert!(!is_served(&mut connect(echo, "2001:db8::9")), "again a third one");
    drop((first, again));
    running.stop();
}

#[test]
fn a_ban_ends_the_connections_of_services_whose_client_a_proxy_has_named() {
    let any = "listen = [\"127.0.0.1:0\"]\nproxy_protocol_from = [\"127.0.0.0/8\"]\n";
    let text = format!(
        "[admin]\nlisten = \"127.0.0.1:0\"\n\
         [[echo]]\n{any}[[packets]]\n{any}root = \"www\"\n"
    );
    let running = Configured::start(folder(&FILES), &text, &["echo", "packets", "admin http"]);
    let connect = |at: usize, header: &str| {
        let mut client = Client::new(running.server.addresses[at]);
        client.send(header);
        client
    };
    let banned = [0, 0, 1, 1].map(|at| connect(at, "PROXY TCP4 198.51.100.9 10.0.0.1 5 80\r\n"));
    let mut others = ["TCP4 198.51.101.9 10.0.0.1 5 80", "UNKNOWN"]
        .map(|it| connect(0, &format!("PROXY {it}\r\n")));
    running.server.ledger_once(|ledger| ledger["connections"]["open"] == 6);
    // The headers have come when the echo has.
    for client in others.iter_mut() {
        client.send("a");
        client.stream.read_exact(&mut [0]).unwrap();
    }
    change_bans(&running, "PUT", "198.51.100.0/24");
    for mut client in banned {
        assert_eq!(rest(&mut client), b"");
    }
    running.server.ledger_once(|ledger| ledger["closed_by"]["kicked"] == 4);
    for client in others.iter_mut() {
        client.send("b");
        client.stream.read_exact(&mut [0]).unwrap();
    }
    drop(others);
    running.stop();
}

/// Over an IPv6 socket the address of an IPv4 proxy is a mapped one.
#[test]
fn a_banned_proxy_that_names_nobody_is_let_in_over_an_ipv6_socket() {
    let keys = "proxy_protocol_from = [\"127.0.0.2\"]\n";
    let text = format!(
        "[engine]\nbans = [\"127.0.0.2\"]\n[[site]]\nlisten = [\"[::]:0\"]\nroot = \"www\"\n{keys}"
    );
    let running = Configured::start(folder(&FILES), &text, &["http"]);
    let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), running.server.address.port());
    let mut client = connect_from(PROXY, address);
    client.send("PROXY UNKNOWN\r\n");
    assert_eq!(client.ask(&request("GET", "/a.txt", "")).status, 200);
    running.stop();
}

#[test]
fn services_end_the_connection_of_a_banned_client() {
    let any = "listen = [\"127.0.0.1:0\"]\nproxy_protocol_from = [\"127.0.0.0/8\"]\n";
    let text = format!("[engine]\nbans = [\"192.0.2.0/24\"]\n[[echo]]\n{any}");
    let running = Configured::start(folder(&FILES), &text, &["echo"]);
    for (named, back) in [("192.0.2.9", &b""[..]), ("198.51.100.9", b"hello")] {
        let mut client = running.server.client();
        client.send(format!("PROXY TCP4 {named} 10.0.0.1 5 80\r\nhello"));
        client.half_close();
        assert_eq!(rest(&mut client), back, "{named}");
    }
    running.stop();
}

#[test]
fn all_services_stand_behind_proxies() {
    let any = "listen = [\"127.0.0.1:0\"]\nproxy_protocol_from = [\"127.0.0.0/8\"]\n";
    let text = format!("[[echo]]\n{any}[[packets]]\n{any}root = \"www\"\n");
    let running = Configured::start(folder(&FILES), &text, &["echo", "packets"]);
    let connect = |at: usize| -> Client {
        let address: SocketAddr = running.server.addresses[at];
        Client::new(address)
    };
    let mut client = connect(0);
    client.send("PROXY UNKNOWN\r\nhello");
    client.half_close();
    assert_eq!(rest(&mut client), b"hello");
    let mut client = connect(0);
    client.send("hello");
    assert_eq!(rest(&mut client), b"", "a proxy that does not say so is closed");
    let mut client = connect(1);
    client.send(b"\0\0\0\x09");
    assert_eq!(rest(&mut client), b"");
    running.stop();
}
