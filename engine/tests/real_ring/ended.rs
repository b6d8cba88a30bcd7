//! The description of a connection that has ended.

use crate::common::{PATIENCE, start};
use ringwright::{
    Config, Connection, ConnectionId, EndedConnection, Errno, Error, Handler, ListenerSettings,
    Local, Origin, Reason, Traffic,
};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

/// Sends each byte back twice. `R` resets, `C` closes, `S` shortens the idle timeout to 100 ms.
struct Twice(Sender<(EndedConnection, Reason)>);

impl Handler for Twice {
    type State = ();

    fn opened(&mut self, connection: &mut Connection<'_>, _: Origin) {
        assert_eq!(connection.local().ended(), None, "nothing has ended");
    }

    fn received(&mut self, (): &mut (), connection: &mut Connection<'_>, bytes: &[u8]) -> usize {
        let _ = connection.send(bytes);
        let _ = connection.send(bytes);
        match bytes.last() {
            Some(b'R') => connection.abort(),
            Some(b'C') => connection.close(),
            Some(b'S') => {
                let idle_timeout = Some(Duration::from_millis(100));
                let own = ListenerSettings::of(&Config { idle_timeout, ..config(false) });
                connection.set_settings(&own).unwrap();
                let wrong = ListenerSettings { message_bytes_max: 0, ..own };
                let refused = connection.set_settings(&wrong);
                assert!(matches!(refused, Err(Error::Config { .. })), "{refused:?}");
            }
            _ => {}
        }
        bytes.len()
    }

    fn closed(&mut self, _: Option<()>, shard: &mut Local<'_>, _: ConnectionId, reason: Reason) {
        let _ = self.0.send((shard.ended().expect("inside closed"), reason));
    }
}

fn config(count_traffic: bool) -> Config {
    Config {
        listeners: vec!["127.0.0.1:0".parse().unwrap()],
        shards: Some(1),
        pin: false,
        count_traffic,
        ..Config::default()
    }
}

#[test]
fn an_ended_connection_is_described_with_its_bytes() {
    let (sender, ended) = channel();
    let engine = start(config(true), move |_| Twice(sender.clone()));
    let address = engine.addresses()[0];
    for (last, reason, sent_bytes) in [
        (b'x', Reason::PeerFin, Some(2_002)),
        (b'C', Reason::LocalClose, Some(2_002)),
        // A reset destroys output that has not left.
        (b'R', Reason::Aborted, None),
    ] {
        let mut client = TcpStream::connect(address).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.write_all(&[b'x'; 1_000]).unwrap();
        client.read_exact(&mut [0; 2_000]).unwrap();
        client.write_all(&[last]).unwrap();
        if last == b'x' {
            client.read_exact(&mut [0; 2]).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
        }
        let _ = client.read_to_end(&mut Vec::new());
        let peer = client.local_addr().unwrap();
        drop(client);
        let (found, found_reason) = ended.recv_timeout(PATIENCE).unwrap();
        assert_eq!((found.peer, found.origin), (peer.into(), Origin::Listener(0)));
        assert!(found.lifetime < PATIENCE && found_reason == reason, "{found:?} {found_reason:?}");
        let Traffic { received_bytes, sent_bytes: sent } = found.traffic.expect("counted");
        assert_eq!(received_bytes, 1_001, "{reason:?}");
        assert!(sent_bytes.map_or((2_000..=2_002).contains(&sent), |it| it == sent), "{sent}");
    }
    engine.handle().drain(Duration::ZERO);
    assert!(engine.join().unwrap().balanced());
}

#[test]
fn bytes_are_not_counted_unless_that_is_wanted() {
    let (sender, ended) = channel();
    let engine = start(config(false), move |_| Twice(sender.clone()));
    drop(TcpStream::connect(engine.addresses()[0]).unwrap());
    assert_eq!(ended.recv_timeout(PATIENCE).unwrap().0.traffic, None);
    engine.handle().drain(Duration::ZERO);
    assert!(engine.join().unwrap().balanced());
}

/// The errno of a reset, and the other ends that have none.
#[test]
fn the_error_of_a_reset_is_told() {
    let (sender, ended) = channel();
    let engine = start(config(false), move |_| Twice(sender.clone()));
    for resets in [true, false] {
        let mut client = TcpStream::connect(engine.addresses()[0]).unwrap();
        client.write_all(b"x").unwrap();
        client.read_exact(&mut [0; 2]).unwrap();
        if resets {
            socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
        }
        drop(client);
        let (ended, reason) = ended.recv_timeout(PATIENCE).unwrap();
        let expected = if resets { Reason::PeerReset } else { Reason::PeerFin };
        assert_eq!(reason, expected);
        assert!(resets || ended.error.is_none(), "{ended:?}");
        // A hang-up that a poll reports comes without an errno.
        assert!(matches!(ended.error, None | Some(Errno(libc::ECONNRESET))), "{ended:?}");
    }
    engine.handle().drain(Duration::from_secs(5));
    engine.join().unwrap();
}

#[test]
fn a_connection_has_deadlines_of_its_own() {
    let (sender, ended) = channel();
    let idle_timeout = Some(Duration::from_secs(3_600));
    let config = Config { idle_timeout, ..config(false) };
    let engine = start(config, move |_| Twice(sender.clone()));
    let connect = || TcpStream::connect(engine.addresses()[0]).unwrap();
    let (mut patient, mut short) = (connect(), connect());
    for client in [&mut patient, &mut short] {
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.write_all(b"x").unwrap();
        client.read_exact(&mut [0; 2]).unwrap();
    }
    let id = engine.handle().list(None, 2).unwrap()[1].id;
    let (sender, addresses) = channel();
    let ours = short.peer_addr().unwrap();
    engine
        .handle()
        .run_on_connection(id, move |connection| {
            let fd = connection.as_fd().try_clone_to_owned().unwrap();
            let address = std::net::TcpStream::from(fd).local_addr().unwrap();
            sender.send((connection.local_address(), address)).unwrap();
        })
        .unwrap();
    assert_eq!(addresses.recv_timeout(PATIENCE).unwrap(), (Some(ours), ours));
    short.write_all(b"S").unwrap();
    let mut rest = Vec::new();
    short.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"SS");
    let (_, reason) = ended.recv_timeout(PATIENCE).unwrap();
    assert_eq!(reason, Reason::IdleTimeout);
    patient.write_all(b"y").unwrap();
    patient.read_exact(&mut [0; 2]).unwrap();
    engine.handle().drain(Duration::from_secs(5));
    drop(patient);
    assert!(engine.join().unwrap().balanced());
}
