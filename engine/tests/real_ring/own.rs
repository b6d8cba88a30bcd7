//! Tests of what a handler has on each connection: timers, reasons for a pause and a number; and of
//! files that it gives up.

use crate::common::{PATIENCE, start, wait_until};
use ringwright::files::{Directory, NewFile, OpenFile, ReceiveFileError};
use ringwright::{Config, Connection, ConnectionId, Engine, Handler, Local, Origin, Reason};
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

const FILE_BYTES: u64 = 64 << 20;
/// The byte with which an upload begins.
const UPLOAD: u8 = b'u';

/// An event that the handler reports to the test.
#[derive(Debug)]
enum Told {
    Timer(u8, Duration),
    Bytes(usize),
    FileSent,
    Received(Result<u64, (i32, u64)>),
    Closed(u64),
}

/// Obeys the first byte of what it gets.
struct Own {
    directory: Directory,
    told: Sender<Told>,
}

impl Own {
    fn tell(&self, told: Told) {
        self.told.send(told).unwrap();
    }

    fn obey(&self, connection: &mut Connection<'_>, order: u8) {
        let milliseconds = |milliseconds| Some(Duration::from_millis(milliseconds));
        match order {
            b't' => {
                for (timer, after) in [(9, 60), (200, 20), (0, 40), (7, 20), (8, 90)] {
                    connection.set_timer(timer, milliseconds(after));
                }
                connection.set_timer(8, None);
                connection.set_timer(9, milliseconds(80));
            }
            b'p' => {
                connection.pause_for(1 << 3 | 1 << 31);
                connection.pause();
                connection.resume_for(1 << 3);
                assert_eq!(connection.pauses(), 1 | 1 << 31);
                connection.set_timer(50, milliseconds(20));
                connection.set_timer(51, milliseconds(60));
            }
            b'n' => connection.set_user_data(u64::MAX - 1),
            b'f' => connection.open_file(&self.directory, b"large").unwrap(),
            b'g' => {
                let missing_bytes = connection.cancel_files();
                let _ = connection.send(format!("{missing_bytes:020}").as_bytes());
            }
            UPLOAD => connection.create_file(&self.directory).unwrap(),
            other => panic!("no order: {other}"),
        }
    }
}

impl Handler for Own {
    type State = ();

    fn opened(&mut self, _: &mut Connection<'_>, _: Origin) {}

    fn received(&mut self, _: &mut (), connection: &mut Connection<'_>, bytes: &[u8]) -> usize {
        if bytes[0] == b'.' {
            self.tell(Told::Bytes(bytes.len()));
            return bytes.len();
        }
        self.obey(connection, bytes[0]);
        if bytes[0] == UPLOAD {
            connection.pause();
        }
        1
    }

    fn timer(&mut self, _: &mut (), connection: &mut Connection<'_>, timer: u8) {
        self.tell(Told::Timer(timer, connection.local().now()));
        match timer {
            50 => connection.resume(),
            51 => connection.resume_for(1 << 31),
            60 => assert!(connection.cancel_receive()),
            _ => {}
        }
    }

    fn file_opened(
        &mut self,
        _: &mut (),
        connection: &mut Connection<'_>,
        file: io::Result<OpenFile>,
    ) {
        let file = file.unwrap();
        let _ = connection.send_file(file.clone(), 0, FILE_BYTES);
        let _ = connection.send_file(file, 0, FILE_BYTES);
    }

    fn file_sent(&mut self, _: &mut (), _: &mut Connection<'_>) {
        self.tell(Told::FileSent);
    }

    fn file_created(
        &mut self,
        _: &mut (),
        connection: &mut Connection<'_>,
        file: io::Result<NewFile>,
    ) {
        connection.receive_file(file.unwrap(), 0, 1_000_000).unwrap();
        connection.set_timer(60, Some(Duration::from_millis(50)));
    }

    fn file_received(
        &mut self,
        _: &mut (),
        connection: &mut Connection<'_>,
        result: Result<NewFile, ReceiveFileError>,
    ) {
        let errno = |error: &io::Error| error.raw_os_error().unwrap_or(0);
        let failed = |failed: ReceiveFileError| (errno(&failed.error), failed.missing_bytes);
        self.tell(Told::Received(result.map(|file| file.bytes()).map_err(failed)));
        assert!(!connection.cancel_receive(), "there is none any more");
        connection.resume();
    }

    fn closed(&mut self, _: Option<()>, shard: &mut Local<'_>, _: ConnectionId, _: Reason) {
        self.tell(Told::Closed(shard.ended().unwrap().user_data));
    }
}

struct Served {
    engine: Engine,
    told: Receiver<Told>,
    client: TcpStream,
}

impl Served {
    fn new(root: &Path) -> Self {
        let config = Config {
            listeners: vec!["127.0.0.1:0".parse().unwrap()],
            shards: Some(1),
            pin: false,
            ..Config::default()
        };
        let (sender, told) = channel();
        let directory = Directory::open(root).unwrap();
        let own = move |_| Own { directory: directory.clone(), told: sender.clone() };
        let engine = start(config, own);
        let client = TcpStream::connect(engine.addresses()[0]).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { engine, told, client }
    }

    fn order(&mut self, bytes: &[u8]) {
        self.client.write_all(bytes).unwrap();
    }

    fn next(&self) -> Told {
        self.told.recv_timeout(PATIENCE).unwrap()
    }

    fn end(self) {
        drop(self.client);
        self.engine.handle().drain(Duration::from_secs(5));
        assert!(self.engine.join().unwrap().balanced());
    }
}

#[test]
fn timers_fire_in_the_order_of_their_times_each_once() {
    let root = tempfile::tempdir().unwrap();
    let mut served = Served::new(root.path());
    served.order(b"t");
    let mut fired = Vec::new();
    while fired.len() < 4 {
        let Told::Timer(timer, at) = served.next() else { panic!("a timer") };
        fired.push((timer, at));
    }
    assert!(fired.is_sorted_by_key(|(_, at)| *at), "{fired:?}");
    let numbers: Vec<u8> = fired.iter().map(|(timer, _)| *timer).collect();
    assert!(numbers == [7, 200, 0, 9] || numbers == [200, 7, 0, 9], "{numbers:?}");
    std::thread::sleep(Duration::from_millis(30));
    assert!(served.told.try_recv().is_err(), "timer 8 was cleared");
    served.end();
}

#[test]
fn a_pause_lasts_until_its_last_reason_has_ended() {
    let root = tempfile::tempdir().unwrap();
    let mut served = Served::new(root.path());
    served.order(b"p.....");
    assert!(matches!(served.next(), Told::Timer(50, _)));
    assert!(matches!(served.next(), Told::Timer(51, _)));
    assert!(matches!(served.next(), Told::Bytes(5)));
    served.end();
}

#[test]
fn a_number_of_the_application_is_shown_while_the_connection_lives_and_at_its_end() {
    let root = tempfile::tempdir().unwrap();
    let mut served = Served::new(root.path());
    let handle = served.engine.handle();
    let info = || handle.list(None, 1).unwrap().pop().map(|info| info.user_data);
    wait_until("the connection", || info() == Some(0));
    served.order(b"n");
    wait_until("its number", || info() == Some(u64::MAX - 1));
    served.client.shutdown(Shutdown::Write).unwrap();
    assert!(matches!(served.next(), Told::Closed(data) if data == u64::MAX - 1));
    served.end();
}

#[test]
fn files_that_are_given_up_end_early_and_the_stream_goes_on() {
    let root = tempfile::tempdir().unwrap();
    let large = fs::File::create(root.path().join("large")).unwrap();
    large.set_len(FILE_BYTES).unwrap();
    let mut served = Served::new(root.path());
    served.order(b"f");
    let mut first = vec![0; 1 << 20];
    served.client.read_exact(&mut first).unwrap();
    served.order(b"g");
    assert!(matches!(served.next(), Told::FileSent));
    assert!(matches!(served.next(), Told::FileSent));
    served.client.shutdown(Shutdown::Write).unwrap();
    let mut rest = Vec::new();
    served.client.read_to_end(&mut rest).unwrap();
    let (file, missing) = rest.split_at(rest.len() - 20);
    let missing: u64 = std::str::from_utf8(missing).unwrap().parse().unwrap();
    let sent = (first.len() + file.len()) as u64;
    assert_eq!(sent + missing, 2 * FILE_BYTES, "{sent} bytes came");
    assert!(missing > FILE_BYTES && file.iter().all(|byte| *byte == 0));
    served.end();
}

#[test]
fn a_file_that_is_given_up_while_it_arrives_leaves_the_rest_on_the_stream() {
    let root = tempfile::tempdir().unwrap();
    for before in [0, 1_000, 400_000_u64] {
        let mut served = Served::new(root.path());
        served.order(b"u");
        served.order(&vec![b'.'; before as usize]);
        assert!(matches!(served.next(), Told::Timer(60, _)));
        let Told::Received(Err((errno, missing_bytes))) = served.next() else { panic!("an end") };
        assert_eq!(errno, libc::ECANCELED);
        assert!(missing_bytes <= 1_000_000, "{missing_bytes}");
        served.order(&vec![b'.'; (1_000_000 - before) as usize]);
        let mut came = 0;
        while came < missing_bytes {
            let Told::Bytes(bytes) = served.next() else { panic!("the rest") };
            came += bytes as u64;
        }
        assert_eq!(came, missing_bytes);
        served.end();
    }
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
}
