//! The admin listener, while a shard of the engine that it watches hangs in a callback.

use crate::common::{Client, PATIENCE, takes_less_than};
use ringwright::{Config, Connection, Engine, Handler, Origin, RingChoice};
use ringwrightd::admin::{Admin, AdminPlan, Condition, DrainTimes, Watched, WatchedEngine};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// Hangs when something is received, until it is told to go on.
struct Hanging {
    hangs: SyncSender<()>,
    goes_on: Receiver<()>,
}

impl Handler for Hanging {
    type State = ();

    fn opened(&mut self, _: &mut Connection<'_>, _: Origin) {}

    fn received(&mut self, (): &mut (), connection: &mut Connection<'_>, bytes: &[u8]) -> usize {
        self.hangs.send(()).unwrap();
        let _ = self.goes_on.recv_timeout(PATIENCE);
        let _ = connection.send(bytes);
        bytes.len()
    }
}

#[test]
fn what_needs_no_shard_is_answered_at_once_and_the_rest_before_long() {
    let watched = Arc::new(Watched::default());
    let any = "127.0.0.1:0".parse().unwrap();
    let plan = AdminPlan { listen: vec![any], ..AdminPlan::default() };
    let admin = Admin::start(&plan, RingChoice::Auto, &watched).unwrap();
    let visitor = || Client::new(admin.addresses()[0].ip().unwrap());
    for (target, status) in [
        ("/livez", 200),
        ("/metrics", 200),
        ("/readyz", 503),
        ("/ledger", 503),
        ("/connections", 503),
    ] {
        assert_eq!(visitor().request("GET", target).status, status, "{target}, nothing is watched");
    }

    let (hangs, hanging) = sync_channel(1);
    let (go_on, goes_on) = sync_channel(1);
    let of_handler = std::sync::Mutex::new(Some(Hanging { hangs, goes_on }));
    let config = Config {
        listeners: vec!["127.0.0.1:0".parse().unwrap()],
        shards: Some(1),
        pin: false,
        ..Config::default()
    };
    let engine = Engine::start(config, move |_| {
        of_handler.lock().unwrap().take().expect("there is one shard")
    })
    .unwrap();
    watched.serves(WatchedEngine {
        handle: engine.handle(),
        listeners: vec!["test://here".into()].into(),
    });
    watched.set_drain(DrainTimes { delay: Duration::ZERO, timeout: Duration::from_secs(1) });
    let mut client = Client::new(engine.addresses()[0]);
    client.send("x");
    hanging.recv_timeout(PATIENCE).unwrap();

    // Some wait for what only the shard knows; nobody else waits for them.
    let mut waiting: Vec<Client> = (0..8).map(|_| visitor()).collect();
    for one in &mut waiting {
        one.send("GET /connections HTTP/1.1\r\nHost: localhost\r\n\r\n");
    }
    let mut other = visitor();
    takes_less_than(Duration::from_millis(500), || {
        for target in ["/livez", "/readyz", "/ledger", "/metrics"] {
            assert_eq!(other.request("GET", target).status, 200, "{target}");
        }
    });
    for mut one in waiting {
        let reply = one.reply(false);
        assert_eq!(reply.status, 503, "{reply:?}");
        let text = String::from_utf8_lossy(&reply.body).into_owned();
        assert!(text.contains("did not answer in time"), "{text}");
    }

    go_on.send(()).unwrap();
    let give_up = Instant::now() + PATIENCE;
    while other.request("GET", "/connections").status != 200 {
        assert!(Instant::now() < give_up, "it answers no more");
    }
    watched.moves_on(Condition::Failed);
    let reply = other.request("GET", "/readyz");
    assert_eq!((reply.status, &reply.body[..]), (503, &b"a shard has failed\n"[..]));
    drop((client, other));
    engine.handle().drain(Duration::ZERO);
    assert!(engine.join().unwrap().balanced());
    admin.end().unwrap();
}
