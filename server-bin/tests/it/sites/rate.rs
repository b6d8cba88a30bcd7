//! `rate` of rules: exact over all shards.

use crate::configured::{Configured, connect_from, folder, request};
use std::net::Ipv4Addr;

const FILES: [(&str, &str); 3] =
    [("www/r/a.txt", "a"), ("www/r/b.txt", "b"), ("www/other.txt", "other")];

/// The statuses of so many requests, each on a connection of its own: both shards take part.
fn statuses(running: &Configured, from: Ipv4Addr, count: usize, target: &str) -> Vec<u16> {
    let ask = |_| {
        let reply = connect_from(from, running.server.address).ask(&request("GET", target, ""));
        if reply.status == 429 {
            let seconds: u64 = reply.field("retry-after").parse().unwrap();
            assert!((1..=3601).contains(&seconds), "{seconds}");
        }
        reply.status
    };
    (0..count).map(ask).collect()
}

#[test]
fn a_burst_passes_and_the_rest_waits() {
    let running = Configured::site(
        folder(&FILES),
        "[[site.rule]]\nmatch = \"/r/**\"\nrate = { per_address = \"1/h\", burst = 20 }\n",
    );
    let (one, two) = (Ipv4Addr::new(127, 0, 0, 2), Ipv4Addr::new(127, 0, 0, 3));
    let expected = [vec![200; 20], vec![429; 20]].concat();
    assert_eq!(statuses(&running, one, 40, "/r/a.txt"), expected);
    // The rule counts, not the path or the file.
    assert_eq!(statuses(&running, one, 3, "/r/b.txt"), [429; 3]);
    assert_eq!(statuses(&running, one, 3, "/r/nope"), [429; 3]);
    // Another address, and other paths, have nothing to do with it.
    assert_eq!(statuses(&running, two, 21, "/r/b.txt"), expected[..21]);
    assert_eq!(statuses(&running, one, 30, "/other.txt"), [200; 30]);
    running.stop();
}

#[test]
fn the_short_form_lets_a_second_of_requests_pass_at_once() {
    let running = Configured::site(
        folder(&FILES),
        "[[site.rule]]\nmatch = \"/r/a.txt\"\nrate = \"1/h\"\n\
         [[site.rule]]\nmatch = \"/r/b.txt\"\nrate = \"600/m\"\n",
    );
    let one = Ipv4Addr::new(127, 0, 0, 2);
    assert_eq!(statuses(&running, one, 3, "/r/a.txt"), [200, 429, 429]);
    // Ten a second: ten pass at once, but for the difference between the clocks of two shards.
    assert_eq!(statuses(&running, one, 9, "/r/b.txt"), [200; 9]);
    running.stop();
}

#[test]
fn the_real_address_is_counted() {
    let running = Configured::site(
        folder(&FILES),
        "real_ip = { from = [\"127.0.0.0/8\"] }\n\
         [[site.rule]]\nmatch = \"**\"\nrate = \"1/h\"\n",
    );
    let mut client = running.server.client();
    let mut status = |address: &str| {
        let fields = format!("X-Forwarded-For: {address}\r\n");
        client.ask(&request("GET", "/other.txt", &fields)).status
    };
    assert_eq!([status("192.0.2.1"), status("192.0.2.1"), status("192.0.2.2")], [200, 429, 200]);
    // A /64 is one client.
    let six = [status("2001:db8::1"), status("2001:db8::2:1"), status("2001:db8:0:1::1")];
    assert_eq!(six, [200, 429, 200]);
    running.stop();
}
