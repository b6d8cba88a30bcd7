//! Every way in which a connection ends: which callbacks come, and in which order.

use super::actor::{Actor, FILE_KEY, Talk};
use super::book::{Begins, Piece, Role, Shape, Then};
use super::uploads::Published;
use crate::Connection;
use crate::files::{NewFile, OpenFile, PublishOptions};
use std::io;
use std::time::Duration;

/// More than the peers of these stories read at once.
const STUCK_BYTES: usize = 20_000;
/// Time of the application's timer.
const TIMER: Duration = Duration::from_millis(50);
/// Output before a file and behind it.
const HEAD_BYTES: usize = 100;

impl Actor {
    /// The first bytes of such a connection. Returns how many of them are used.
    pub(super) fn begin(
        &mut self,
        talk: &mut Talk,
        connection: &mut Connection<'_>,
        begins: Begins,
        length: usize,
    ) -> usize {
        let Role::Ends(_, then) = talk.part.role else { unreachable!("only these begin") };
        let first = talk.used == 0;
        let used = if begins == Begins::Unused { 0 } else { length };
        talk.used += used as u64;
        if !first {
            return used;
        }
        match begins {
            Begins::Nothing | Begins::AtOnce | Begins::Unused => {}
            Begins::Output => drop(self.say_own(talk, connection, STUCK_BYTES)),
            Begins::Pause => {
                self.pause(talk, connection);
                talk.closes_later = true;
                connection.set_timer(0, Some(TIMER));
            }
            Begins::Timer => connection.set_timer(0, Some(TIMER)),
            Begins::Job | Begins::Hold => {
                let held = begins == Begins::Hold;
                if let Err(why) = self.offload_one(talk, connection, 0, held) {
                    self.fail(talk.id, &format!("a job is refused: {why:?}"));
                }
            }
            Begins::Open => {
                let opened = connection.open_file(&self.directory, b"large");
                talk.opening = opened.is_ok().then_some("large");
            }
            Begins::Download(path, _) | Begins::Padded(path, _) => {
                let opened = connection.open_file(&self.directory, path.as_bytes());
                talk.opening = opened.is_ok().then_some(path);
                return used;
            }
            Begins::Receive(_) | Begins::Publish => {
                talk.upload.creating = connection.create_file(&self.directory).is_ok();
                return used;
            }
        }
        self.go_to_end(talk, connection, then);
        used
    }

    pub(super) fn go_to_end(&self, talk: &mut Talk, connection: &mut Connection<'_>, then: Then) {
        match then {
            Then::Nothing => {}
            Then::Close => self.close(talk, connection),
            Then::Shutdown => self.shut(talk, connection),
            Then::Finish => connection.finish(Duration::ZERO),
            Then::Abort => self.abort(talk, connection),
            Then::Violation => self.violate(talk, connection),
            Then::Panic => self.panic(talk.record),
        }
    }

    /// Queues a file between other output.
    pub(super) fn download(
        &self,
        talk: &mut Talk,
        connection: &mut Connection<'_>,
        begins: Begins,
        then: Then,
        result: io::Result<OpenFile>,
    ) {
        let (Begins::Download(_, bytes) | Begins::Padded(_, bytes)) = begins else { return };
        let file = result.expect("nothing goes wrong while it is opened");
        let key = FILE_KEY + file.status().inode - 1;
        if matches!(begins, Begins::Download(..)) {
            let _ = self.say_own(talk, connection, HEAD_BYTES);
        }
        let mut book = self.book.borrow_mut();
        let record = &mut book.records[talk.record];
        record.said.push(Piece { key, offset: 0, bytes, shape: Shape::File });
        record.files_owed += 1;
        drop(book);
        let _ = match begins {
            Begins::Padded(..) => connection.send_file_padded(file, 0, bytes),
            _ => connection.send_file(file, 0, bytes),
        };
        let _ = self.say_own(talk, connection, HEAD_BYTES);
        self.go_to_end(talk, connection, then);
    }

    /// Receives a file, or gives it a name.
    pub(super) fn upload(
        &self,
        talk: &mut Talk,
        connection: &mut Connection<'_>,
        begins: Begins,
        then: Then,
        result: io::Result<NewFile>,
    ) {
        talk.upload.creating = false;
        let file = result.expect("nothing goes wrong while it is made");
        if let Begins::Receive(bytes) = begins {
            talk.upload.coming = Some(bytes);
            connection.receive_file(file, 0, bytes).expect("the first");
        } else {
            let (name, publish) = (b"name".to_vec(), PublishOptions::default());
            connection.publish_file(file, &name, publish).expect("the first");
            let shard = connection.local().shard();
            let mut book = self.book.borrow_mut();
            talk.upload.publishing = Some(book.published.len());
            let pieces = Vec::new();
            book.published.push(Published { shard, name, pieces, publish, result: None });
        }
        self.go_to_end(talk, connection, then);
    }
}

#[cfg(test)]
mod tests {
    use super::super::book::{Begins, Farewell, Part, Role, Then};
    use super::super::callbacks::Callback;
    use super::super::run_until;
    use super::super::scenarios::{config, end, go_on, part, world_of};
    use super::super::world::World;
    use super::HEAD_BYTES;
    use crate::marks;
    use crate::ring::simulated::{Afterwards, Enter, Faults, NEVER, Plan, Standing};
    use crate::{Config, Reason};
    use std::time::Duration;

    /// Far from what anything else takes here.
    const DEADLINE: Duration = Duration::from_millis(300);
    const MOMENT: Duration = Duration::from_millis(20);

    /// One way in which a connection ends.
    struct Way {
        name: &'static str,
        config: Config,
        plan: Plan,
        part: Part,
        bytes: usize,
        happens: fn(&mut World),
    }

    /// The peer sends a few bytes, then waits for our FIN and answers it.
    fn way(name: &'static str, begins: Begins, then: Then) -> Way {
        let part = part(Role::Ends(begins, then), Farewell::Close);
        let config = Config { workers: 1, ..config() };
        Way { name, config, plan: Plan::plain(), part, bytes: 10, happens: |_| {} }
    }

    impl Way {
        fn config(self, change: fn(&mut Config)) -> Self {
            let mut config = self.config.clone();
            change(&mut config);
            Self { config, ..self }
        }

        /// Its peer reads nothing.
        fn stalls(self) -> Self {
            Self { plan: Plan { stall_us: NEVER, ..self.plan }, ..self }
        }

        /// Its peer sends for seconds.
        fn paced(self) -> Self {
            Self { plan: Plan { send_chunk_max: 10, ..self.plan }, ..self }
        }

        /// Its peer sends its FIN by itself.
        fn fin(self, farewell: Farewell) -> Self {
            let part = Part { farewell, ..self.part };
            Self { plan: Plan { afterwards: Afterwards::Fin, ..self.plan }, part, ..self }
        }

        fn stubborn(self) -> Self {
            Self { part: Part { stubborn: true, ..self.part }, ..self }
        }

        fn bytes(self, bytes: usize) -> Self {
            Self { bytes, ..self }
        }

        fn happens(self, happens: fn(&mut World)) -> Self {
            Self { happens, ..self }
        }

        /// Plays it. Returns its row in the documentation.
        fn row(&self) -> String {
            let mut world = world_of(1, self.config.clone(), 1);
            world.rest(true);
            let peer = world.add_peer(self.plan, self.part, self.bytes);
            {
                let peer = &mut world.ring().peers[peer];
                peer.unread_capacity = 4096;
                (peer.socket.inbound_capacity, peer.socket.outbound_capacity) = (65_536, 4096);
            }
            go_on(&mut world, MOMENT);
            (self.happens)(&mut world);
            world.rest(false);
            let closed = |world: &mut World| {
                world.book.borrow().records.iter().all(|it| it.closed.is_some())
            };
            run_until(&mut world, Duration::from_secs(300), self.name, |world| {
                !world.book.borrow().records.is_empty() && closed(world)
            });
            let (list, reason) = {
                let book = world.book.borrow();
                let record = &book.records[0];
                (record.called.list.clone(), record.closed.expect("it is closed"))
            };
            if world.is_draining() || world.is_over() {
                world.drain(Duration::ZERO);
                run_until(&mut world, Duration::from_secs(60), "the end", |world| world.is_over());
                world.flow_out();
                world.verdict();
            } else {
                end(&mut world);
            }
            let list: Vec<_> = list.iter().map(|it| it.name()).collect();
            format!("| {} | `{}` | `{reason:?}` |", self.name, list.join(" "))
        }
    }

    /// The first connection, which something is about to cut short.
    fn cut(world: &mut World) -> crate::ConnectionId {
        let mut book = world.book.borrow_mut();
        book.records[0].cut = true;
        book.records[0].id
    }

    fn ordinary() -> Vec<Way> {
        use Begins::*;
        use Then::{Close, Finish, Shutdown};
        vec![
            way("the peer's FIN, then `close`", Nothing, Then::Nothing).fin(Farewell::Close),
            way("the peer's FIN, then `shutdown`", Nothing, Then::Nothing)
                .fin(Farewell::ReplyAndShutdown),
            way("the peer's FIN, `finish`, a job", Job, Then::Nothing).fin(Farewell::Finish),
            way("the peer's FIN, `finish`, a hold", Hold, Then::Nothing).fin(Farewell::Finish),
            way("`shutdown`, then the peer's FIN", Nothing, Shutdown),
            way("`shutdown` with full output, peer's FIN", Output, Shutdown),
            way("`close`", Nothing, Close),
            way("`close`, while the peer sends on", Nothing, Close).bytes(50_000),
            way("`close` in `opened`", AtOnce, Close),
            way("`finish`", Nothing, Finish),
            way("`protocol_error`", Nothing, Then::Violation),
            way("`abort`", Nothing, Then::Abort),
            way("a panic", Nothing, Then::Panic),
            way("a panic in `opened`", AtOnce, Then::Panic),
        ]
    }

    fn pending() -> Vec<Way> {
        use Begins::*;
        use Then::Close;
        vec![
            way("`close` before the peer's FIN is reported", Pause, Then::Nothing)
                .fin(Farewell::Close),
            way("`close` while the output is full", Output, Close),
            way("`close` with a timer set", Timer, Close),
            way("`close` with a job in progress", Job, Close),
            way("`close` with a hold in progress", Hold, Close),
            way("`close` with a file being opened", Open, Close),
            way("`close` with a file queued", Download("large", 20_000), Close),
            way("`close` with a file being received", Receive(1_000), Close),
            way("`close` with a file being published", Publish, Close),
            way("`close`, then a drain", Nothing, Close)
                .bytes(100_000)
                .paced()
                .happens(|world| world.drain(Duration::from_secs(5))),
        ]
    }

    fn from_outside() -> Vec<Way> {
        use Begins::*;
        let stays = |name| way(name, Nothing, Then::Nothing);
        vec![
            stays("the peer's reset").happens(|world| world.ring().peer_resets(0)),
            way("the network fails", Output, Then::Nothing)
                .stalls()
                .happens(|world| world.ring().peer_vanishes(0)),
            stays("`idle_timeout`").config(|it| it.idle_timeout = Some(DEADLINE)),
            way("`receive_timeout`", Unused, Then::Nothing)
                .config(|it| it.receive_timeout = Some(DEADLINE)),
            way("`write_timeout`", Output, Then::Nothing)
                .config(|it| it.write_timeout = Some(DEADLINE))
                .stalls(),
            way("`write_timeout` after `close`", Output, Then::Close)
                .config(|it| it.write_timeout = Some(DEADLINE))
                .stalls(),
            way("`transfer_timeout`", Download("large", 100_000), Then::Nothing)
                .config(|it| it.transfer_timeout = Some(DEADLINE))
                .stalls(),
            stays("evicted (`evict_idle`)")
                .config(|it| (it.evict_idle, it.max_connections) = (true, 1))
                .happens(|world| {
                    let plan = Plan { afterwards: Afterwards::Fin, ..Plan::plain() };
                    world.add_peer(plan, part(Role::Echo, Farewell::Close), 1);
                    go_on(world, Duration::from_secs(4));
                }),
            way("slow (`min_rate`)", Output, Then::Nothing)
                .config(|it| (it.evict_idle, it.min_rate, it.max_connections) = (true, 64, 1))
                .stalls()
                .happens(|world| {
                    let plan = Plan { afterwards: Afterwards::Fin, ..Plan::plain() };
                    world.add_peer(plan, part(Role::Echo, Farewell::Close), 1);
                    go_on(world, Duration::from_secs(40));
                }),
            way("a message longer than `message_bytes_max`", Unused, Then::Nothing)
                .config(|it| it.message_bytes_max = 500)
                .bytes(2_000),
            stays("output beyond `output_bytes_max`")
                .config(|it| it.output_bytes_max = 1_000)
                .happens(|world| {
                    let id = cut(world);
                    let blob = world.book.borrow_mut().blob(1_001);
                    world.handle.send(id, blob).expect("there is room");
                }),
            way("a file shorter than announced", Download("large", 50_000), Then::Nothing)
                .happens(|world| world.ring().resize_file(2, 10_000)),
            way("a file that cannot be read", Download("large", 50_000), Then::Nothing).happens(
                |world| world.ring().faults = Faults { file_error: 1000, ..Faults::none() },
            ),
            stays("`kick`").happens(|world| {
                let id = cut(world);
                world.handle.kick(id).expect("there is room");
            }),
            stays("a drain").happens(|world| world.drain(Duration::from_secs(5))),
            stays("a drain that reaches its deadline")
                .stubborn()
                .happens(|world| world.drain(Duration::from_millis(100))),
            stays("`stop`").happens(World::stop),
            stays("the shard fails")
                .happens(|world| world.ring().enter = Enter::Fails(libc::EBADF)),
        ]
    }

    /// The row of a connect that comes to nothing.
    fn failed_connect() -> String {
        let mut world = world_of(1, config(), 1);
        world.ring().faults = Faults { connect_refused: 1000, ..Faults::none() };
        world.add_endpoint();
        let (address, tag) = world.book.borrow_mut().endpoint(0).expect("just added");
        world.handle.connect(0, address, tag).expect("there is room");
        go_on(&mut world, Duration::from_secs(1));
        let book = world.book.clone();
        assert_eq!((book.borrow().connects_failed, book.borrow().records.len()), (1, 0));
        end(&mut world);
        "| a connect that fails | `connect_failed` | |".to_owned()
    }

    #[test]
    fn the_callbacks_of_every_end_are_those_in_the_documentation() {
        crate::simulation::run::be_quiet();
        let ways = [ordinary(), pending(), from_outside()];
        let mut rows: Vec<String> = ways.iter().flatten().map(Way::row).collect();
        rows.push(failed_connect());
        let document = include_str!("../handler.rs");
        let begin = "/// | end | callbacks | reason |\n/// |---|---|---|\n";
        let table = document.split_once(begin).expect("there is a table").1;
        let table = table.lines().map_while(|line| line.strip_prefix("/// |"));
        let documented: Vec<String> = table.map(|row| format!("|{row}")).collect();
        let expected = rows.join("\n/// ");
        assert!(documented == rows, "handler.rs should have these rows:\n{begin}/// {expected}");
        for reason in Reason::EACH.into_iter().filter(|it| *it != Reason::BrokenPipe) {
            let cell = format!("`{reason:?}` |");
            assert!(rows.iter().any(|row| row.contains(&cell)), "no row for {reason:?}");
        }
    }
    /// Input that came while the output was full was forgotten if the rest of the output and our
    /// FIN left in the same turn.
    #[test]
    fn input_that_waits_for_output_survives_our_fin() {
        for seed in 0..20 {
            let way = way("", Begins::Output, Then::Shutdown);
            let config = Config { output_high_bytes: 200, output_low_bytes: 100, ..way.config };
            let mut world = world_of(seed, config, 1);
            let peer = world.add_peer(Plan { stall_us: 50_000, ..way.plan }, way.part, 10);
            {
                let peer = &mut world.ring().peers[peer];
                peer.unread_capacity = 1_000;
                (peer.socket.inbound_capacity, peer.socket.outbound_capacity) = (65_536, 1_000);
            }
            let shown = |world: &mut World| world.book.borrow().records.first().map(|it| it.shown);
            run_until(&mut world, MOMENT, "the first bytes", |world| shown(world) > Some(0));
            world.sends((0, peer), 50);
            go_on(&mut world, MOMENT);
            assert!(!world.ring().peers[peer].socket.shut_write, "its output is stuck");
            world.ring().peers[peer].socket.outbound_capacity = 65_536;
            let fin = |world: &mut World| world.ring().peers[peer].got_fin;
            run_until(&mut world, Duration::from_secs(1), "our FIN", fin);
            go_on(&mut world, MOMENT);
            assert_eq!(shown(&mut world), Some(60), "seed {seed}");
            let writable = world.book.borrow().records[0].called.list.contains(&Callback::Writable);
            assert!(!writable, "writable follows shutdown");
            end(&mut world);
        }
    }

    /// A connection that was closed, and whose FIN a full submission queue delayed, was reported as
    /// idle.
    #[test]
    fn a_closed_connection_is_not_idle() {
        let config = Config { idle_timeout: Some(DEADLINE), ..config() };
        let mut world = world_of(1, config, 1);
        world.add_peer(Plan::plain(), part(Role::Echo, Farewell::Close), 50);
        let opened = |world: &mut World| world.ledger().sum.bytes_received == 50;
        run_until(&mut world, Duration::from_secs(2), "the bytes", opened);
        let late_ms = 2 * DEADLINE.as_millis() as u64;
        world.shard(0).parts().1.now_ms += late_ms;
        assert_eq!(world.shard(0).overdue().len(), 1, "an open connection is idle");
        let core = world.shard(0).parts().1;
        core.close(0, Reason::LocalClose);
        assert!(world.shard(0).overdue().is_empty(), "a closed one is not");
        world.shard(0).parts().1.now_ms -= late_ms;
        world.book.borrow_mut().records[0].closing = true;
        end(&mut world);
    }

    /// A file that cannot be sent to its end, and the way that it takes.
    struct Cut {
        path: &'static str,
        announced: u64,
        config: Config,
        faults: Faults,
        /// Reached on this way only.
        mark: &'static str,
    }

    fn cuts() -> Vec<Cut> {
        // A short reply with its file is one send.
        let config = Config { send_buffer_bytes: 4096, ..config() };
        let sendfile = Config { sendfile_bytes_max: 1 << 20, ..config.clone() };
        let faults = Faults::none();
        let small = Cut { path: "small", announced: 2_000, config, faults, mark: "read in parts" };
        let uncached = Faults { not_cached: 1000, ..faults };
        let large = |config: &Config, mark| {
            let config = config.clone();
            Cut { path: "large", announced: 50_000, config, faults, mark }
        };
        let ring = "a file system that does not tell what is cached";
        vec![
            large(&small.config, "a file is not cached"),
            large(&sendfile, "a cached file was cut off"),
            Cut { faults: uncached, config: small.config.clone(), mark: ring, ..small },
            Cut { faults: uncached, config: small.config.clone(), mark: PIPE, ..small },
            small,
        ]
    }

    const PIPE: &str = "a small file is not cached";

    /// A reader that is slow, of a file that is cut or cannot be read any more once the download
    /// has begun. Returns when the connection has closed, with the reader's number.
    fn read_slowly(world: &mut World, cut: &Cut, role: Role, fails: bool) -> usize {
        world.ring().faults = cut.faults;
        // Otherwise there would be no moment at which a small file fails.
        let small = cut.path == "small";
        if fails && small {
            world.ring().faults.file_error = 1000;
        }
        let plan = Plan { read_chunk_max: 300, pace_us: 2_000, stall_us: 50_000, ..Plan::plain() };
        let number = world.add_peer(plan, part(role, Farewell::Close), 1);
        let peer = &mut world.ring().peers[number];
        peer.unread_capacity = 1024;
        (peer.socket.inbound_capacity, peer.socket.outbound_capacity) = (4096, 4096);
        go_on(world, MOMENT);
        if fails {
            world.ring().faults.file_error = 1000;
        } else if !small {
            world.ring().resize_file(2, 10_000);
        }
        run_until(world, Duration::from_secs(30), "the end", |world| {
            world.book.borrow().records.first().is_some_and(|it| it.closed.is_some())
        });
        number
    }

    /// Returns the bytes of the file that its reader gets.
    fn read_cut_file(cut: &Cut, seed: u64, fails: bool) -> usize {
        let mut world = world_of(seed, cut.config.clone(), 1);
        let role = Role::Ends(Begins::Download(cut.path, cut.announced), Then::Nothing);
        let peer = read_slowly(&mut world, cut, role, fails);
        let reason = world.book.borrow().records[0].closed;
        let expected = if fails { Reason::FileFailed } else { Reason::FileTruncated };
        assert_eq!(reason, Some(expected), "{} of seed {seed}", cut.path);
        assert_eq!((world.ring().closes_undelivered, world.admission.free()), (0, 64));
        let peer = &world.ring().peers[peer];
        assert_eq!((peer.got_fin, peer.standing), (true, Standing::Connected));
        let got = peer.received.len();
        end(&mut world);
        got.checked_sub(HEAD_BYTES).expect("what precedes the file arrives")
    }

    /// A reset destroyed the output before the file, and what could be read of the file.
    #[test]
    fn a_file_that_ends_early_ends_in_our_fin() {
        for cut in cuts() {
            let mut reached = 0;
            for seed in 0..30 {
                marks::record();
                let got = read_cut_file(&cut, seed, false);
                let expected = if cut.path == "small" { 700 } else { 10_000 };
                assert_eq!(got, expected, "{} of seed {seed}", cut.path);
                reached += marks::take().count(cut.mark);
            }
            assert!(reached > 0, "{} never took the way {}", cut.path, cut.mark);
        }
    }

    /// Returns the bytes of the file that its reader gets before the zeros.
    fn read_padded_file(cut: &Cut, seed: u64, fails: bool) -> usize {
        let mut world = world_of(seed, cut.config.clone(), 1);
        let role = Role::Ends(Begins::Padded(cut.path, cut.announced), Then::Close);
        let peer = read_slowly(&mut world, cut, role, fails);
        assert_eq!(world.book.borrow().records[0].closed, Some(Reason::LocalClose));
        let received = world.ring().peers[peer].received.clone();
        let announced = cut.announced as usize;
        assert_eq!(received.len(), announced + HEAD_BYTES, "seed {seed}");
        let zeros = received[..announced].iter().rev().take_while(|byte| **byte == 0).count();
        // The book does not know of zeros.
        {
            let record = &mut world.book.borrow_mut().records[0];
            record.said.remove(0);
            if let Some(traffic) = &mut record.traffic {
                traffic.sent_bytes -= cut.announced;
            }
        }
        world.ring().peers[peer].received.drain(..announced);
        end(&mut world);
        announced - zeros
    }

    #[test]
    fn a_padded_file_that_ends_early_keeps_the_connection() {
        for cut in cuts() {
            for seed in 0..30 {
                let got = read_padded_file(&cut, seed, false);
                let expected = if cut.path == "small" { 700 } else { 10_000 };
                // Noise may end in a zero, too.
                assert!((expected - 2..=expected).contains(&got), "{got}, seed {seed}");
            }
        }
    }

    #[test]
    fn a_padded_file_that_cannot_be_read_keeps_the_connection() {
        for cut in cuts() {
            for seed in 0..30 {
                let got = read_padded_file(&cut, seed, true);
                let possible = if cut.path == "small" { 0..1 } else { 1..20_000 };
                assert!(possible.contains(&got), "{got} bytes of {}, seed {seed}", cut.path);
            }
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_ends_in_our_fin() {
        for cut in cuts() {
            for seed in 0..30 {
                let got = read_cut_file(&cut, seed, true);
                let possible = if cut.path == "small" { 0..1 } else { 1..20_000 };
                assert!(possible.contains(&got), "{got} bytes of {}, seed {seed}", cut.path);
            }
        }
    }
}
