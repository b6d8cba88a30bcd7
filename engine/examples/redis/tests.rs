//! The server with plain sockets, and with the clients of Redis itself.

use super::{Options, start};
use ringwright::Engine;
use ringwright_test_support::leave_out;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

struct Server(Engine);

impl Server {
    fn start(shards: usize) -> Self {
        let listeners = vec!["127.0.0.1:0".parse().unwrap()];
        Self(start(Options { listeners, shards: Some(shards) }).unwrap())
    }

    fn connect(&self) -> TcpStream {
        let client = TcpStream::connect(self.0.addresses()[0]).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client
    }

    fn port(&self) -> String {
        self.0.addresses()[0].port().to_string()
    }

    fn finish(self) {
        self.0.handle().drain(Duration::from_secs(5));
        let ledger = self.0.join().unwrap();
        assert!(ledger.balanced(), "{ledger:?}");
        assert_eq!(ledger.sum.handler_panics, 0);
    }
}

#[track_caller]
fn expect(client: &mut TcpStream, reply: &str) {
    let mut got = vec![0; reply.len()];
    client.read_exact(&mut got).unwrap();
    assert_eq!(String::from_utf8_lossy(&got), reply);
}

#[track_caller]
fn ask(client: &mut TcpStream, command: &str, reply: &str) {
    client.write_all(command.as_bytes()).unwrap();
    client.write_all(b"\r\n").unwrap();
    expect(client, reply);
}

#[test]
fn each_command_answers_as_redis_does() {
    let server = Server::start(2);
    let mut client = server.connect();
    let replies = [
        ("GET a", "$-1\r\n"),
        ("SET a 12", "+OK\r\n"),
        ("INCR a", ":13\r\n"),
        ("DECRBY a 20", ":-7\r\n"),
        ("INCRBY a 9223372036854775807", ":9223372036854775800\r\n"),
        ("INCRBY a 8", "-ERR value is not an integer or out of range\r\n"),
        ("APPEND a xyz", ":22\r\n"),
        ("GET a", "$22\r\n9223372036854775800xyz\r\n"),
        ("INCR a", "-ERR value is not an integer or out of range\r\n"),
        ("SET a b NX", "$-1\r\n"),
        ("SET a b XX GET", "$22\r\n9223372036854775800xyz\r\n"),
        ("SET a b EX 0", "-ERR invalid expire time in 'set' command\r\n"),
        ("SET a b EX 10 PX 10", "-ERR syntax error\r\n"),
        ("SET a b EX 100", "+OK\r\n"),
        ("SET a c KEEPTTL", "+OK\r\n"),
        ("PERSIST a", ":1\r\n"),
        ("PERSIST a", ":0\r\n"),
        ("TTL a", ":-1\r\n"),
        ("EXPIRE a -1", ":1\r\n"),
        ("TTL a", ":-2\r\n"),
        ("DBSIZE", ":0\r\n"),
        ("MSET x 1 y 2 z 3", "+OK\r\n"),
        ("MGET x n y", "*3\r\n$1\r\n1\r\n$-1\r\n$1\r\n2\r\n"),
        ("EXISTS x x n", ":2\r\n"),
        ("DEL x n", ":1\r\n"),
        ("KEYS y*", "*1\r\n$1\r\ny\r\n"),
        ("TYPE y", "+string\r\n"),
        ("GETDEL y", "$1\r\n2\r\n"),
        ("GET", "-ERR wrong number of arguments for 'get' command\r\n"),
        ("NONSENSE 1", "-ERR unknown command 'NONSENSE'\r\n"),
        ("MULTI", "+OK\r\n"),
        ("SET m 1", "+QUEUED\r\n"),
        ("INCR m", "+QUEUED\r\n"),
        ("EXEC", "*2\r\n+OK\r\n:2\r\n"),
        ("MULTI", "+OK\r\n"),
        ("PUBLISH a b", "-ERR the command is not allowed inside a transaction\r\n"),
        ("EXEC", "-EXECABORT Transaction discarded because of previous errors.\r\n"),
        ("EXEC", "-ERR EXEC without MULTI\r\n"),
        ("SET short 1 PX 30", "+OK\r\n"),
        ("PING", "+PONG\r\n"),
        ("FLUSHALL", "+OK\r\n"),
    ];
    for (command, reply) in replies {
        ask(&mut client, command, reply);
    }
    ask(&mut client, "SET long 1 EX 1000000", "+OK\r\n");
    client.write_all(b"TTL long\r\n").unwrap();
    let mut left = [0; 9];
    client.read_exact(&mut left).unwrap();
    assert!(left.starts_with(b":9999") || left.starts_with(b":1000000"), "{left:?}");
    if left[1] == b'1' {
        expect(&mut client, "\n");
    }
    ask(&mut client, "SET short 1 PX 20", "+OK\r\n");
    std::thread::sleep(Duration::from_millis(30));
    ask(&mut client, "GET short", "$-1\r\n");
    client.write_all(b"*1\r\n$x\r\n").unwrap();
    expect(&mut client, "-ERR Protocol error: invalid bulk length\r\n");
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
    server.finish();
}

/// Clients write long pipelines before they read.
#[test]
fn a_pipeline_is_answered_however_long_it_is_before_anything_is_read() {
    const COMMANDS: usize = 600_000;
    let server = Server::start(1);
    let mut client = server.connect();
    let command = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n";
    for _ in 0..COMMANDS / 1_000 {
        client.write_all(&command.repeat(1_000)).unwrap();
    }
    let mut replies = vec![0; COMMANDS * 5];
    client.read_exact(&mut replies).unwrap();
    assert!(replies.chunks(5).all(|reply| reply == b"+OK\r\n"));
    server.finish();
}

#[test]
fn a_long_value_arrives_whole() {
    let server = Server::start(1);
    let mut client = server.connect();
    let value = vec![b'v'; 50 << 20];
    client
        .write_all(format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${}\r\n", value.len()).as_bytes())
        .unwrap();
    client.write_all(&value).unwrap();
    client.write_all(b"\r\n").unwrap();
    expect(&mut client, "+OK\r\n");
    client.write_all(b"GET k\r\n").unwrap();
    expect(&mut client, &format!("${}\r\n", value.len()));
    let mut got = vec![0; value.len()];
    client.read_exact(&mut got).unwrap();
    assert!(got == value);
    expect(&mut client, "\r\n");
    server.finish();
}

/// One command must not take the memory of the whole machine.
#[test]
fn a_client_that_asks_for_too_much_at_a_time_is_reset() {
    let server = Server::start(1);
    let mut client = server.connect();
    let value = "v".repeat(50 << 20);
    write!(client, "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${}\r\n{value}\r\n", value.len()).unwrap();
    expect(&mut client, "+OK\r\n");
    write!(client, "*3\r\n$6\r\nAPPEND\r\n$1\r\nk\r\n${}\r\n{value}\r\n", value.len()).unwrap();
    expect(&mut client, "-ERR string exceeds maximum allowed size\r\n");
    let gets = format!("MULTI\r\n{}EXEC\r\n", "GET k\r\n".repeat(1_000));
    for commands in [format!("MGET {}\r\n", "k ".repeat(1_000)), gets] {
        let mut client = server.connect();
        client.write_all(commands.as_bytes()).unwrap();
        let mut replies = Vec::new();
        let end = client.read_to_end(&mut replies);
        assert!(end.is_err() && replies.len() < 100_000, "{end:?} after {} bytes", replies.len());
    }
    ask(&mut client, "STRLEN k", &format!(":{}\r\n", value.len()));
    drop(client);
    server.finish();
}

#[test]
fn subscribers_on_all_shards_get_every_message() {
    const SUBSCRIBERS: usize = 200;
    const MESSAGES: usize = 200;
    let server = Server::start(2);
    let mut subscribers: Vec<TcpStream> = (0..SUBSCRIBERS).map(|_| server.connect()).collect();
    for client in &mut subscribers {
        ask(client, "SUBSCRIBE news", "*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n");
    }
    let mut publisher = server.connect();
    ask(&mut publisher, "PUBSUB NUMSUB news", "*2\r\n$4\r\nnews\r\n:200\r\n");
    ask(&mut publisher, "PUBLISH nobody x", ":0\r\n");
    // Far more than the queues of the shards hold.
    publisher.write_all(&b"PUBLISH news 12345\r\n".repeat(MESSAGES)).unwrap();
    let message = "*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$5\r\n12345\r\n";
    for client in &mut subscribers {
        expect(client, &message.repeat(MESSAGES));
    }
    expect(&mut publisher, &":200\r\n".repeat(MESSAGES));
    ask(
        &mut subscribers[0],
        "GET a",
        "-ERR Can't execute 'get': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / \
         RESET are allowed in this context\r\n",
    );
    ask(&mut subscribers[0], "UNSUBSCRIBE", "*3\r\n$11\r\nunsubscribe\r\n$4\r\nnews\r\n:0\r\n");
    ask(&mut subscribers[0], "GET a", "$-1\r\n");
    drop(subscribers);
    let mut publisher = BufReader::new(publisher);
    let all_gone = || {
        publisher.get_mut().write_all(b"PUBSUB NUMSUB news\r\n").unwrap();
        let mut lines = String::new();
        for _ in 0..4 {
            publisher.read_line(&mut lines).unwrap();
        }
        lines.ends_with(":0\r\n")
    };
    wait_until(all_gone);
    server.finish();
}

/// A client beyond the limit of groups is refused, and leaves no channel behind.
#[test]
fn a_client_subscribes_to_so_many_channels_and_no_more() {
    const CHANNELS_MAX: usize = 4_096;
    let server = Server::start(1);
    let mut client = BufReader::new(server.connect());
    let names: Vec<String> = (0..=CHANNELS_MAX).map(|number| format!("c{number}")).collect();
    writeln!(client.get_mut(), "SUBSCRIBE {}", names.join(" ")).unwrap();
    // Six lines for each channel.
    let mut line = String::new();
    for _ in 0..6 * CHANNELS_MAX + 1 {
        line.clear();
        client.read_line(&mut line).unwrap();
    }
    assert!(line.starts_with("-ERR the connection is a member of 4,096 groups"), "{line}");
    ask(&mut server.connect(), "PUBSUB NUMSUB c4095", "*2\r\n$5\r\nc4095\r\n:1\r\n");
    ask(&mut server.connect(), "PUBSUB NUMSUB c4096", "*2\r\n$5\r\nc4096\r\n:0\r\n");
    let mut other = BufReader::new(server.connect());
    other.get_mut().write_all(b"PUBSUB CHANNELS\r\n").unwrap();
    line.clear();
    other.read_line(&mut line).unwrap();
    assert_eq!(line, "*4096\r\n");
    server.finish();
}

fn wait_until(mut done: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !done() {
        assert!(begun.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Runs a client of Redis. `None` if it is not installed.
fn client(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    let (out, error) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{program} {arguments:?}: {out}{error}");
    Some(out)
}

#[test]
fn redis_cli_and_redis_benchmark_work() {
    let server = Server::start(2);
    let port = server.port();
    let cli = |words: &[&str]| client("redis-cli", &[&["-p", &port], words].concat());
    let Some(answer) = cli(&["SET", "a", "1 2"]) else { return leave_out("redis-cli") };
    assert_eq!(answer, "OK\n");
    assert_eq!(cli(&["GET", "a"]).unwrap(), "1 2\n");
    assert_eq!(cli(&["INCR", "b"]).unwrap(), "1\n");
    assert_eq!(cli(&["CLIENT", "LIST"]).unwrap().lines().count(), 1);
    let arguments = ["-p", &port, "-t", "set,get,incr,mset,ping", "-n", "20000", "-P", "16", "-q"];
    let Some(answer) = client("redis-benchmark", &arguments) else {
        return leave_out("redis-benchmark");
    };
    assert_eq!(answer.matches("requests per second").count(), 6, "{answer}");
    server.finish();
}

/// Debian's package python3-redis is for Debian's Python.
const PYTHON: &str = "/usr/bin/python3";
const SCRIPT: &str = r#"
import redis, sys, threading
r = redis.Redis(port=int(sys.argv[1]))
assert r.set("a", "x" * 100000) and r.get("a") == b"x" * 100000
assert r.set("t", 1, px=50000) and 0 < r.ttl("t") <= 50
for transaction in (False, True):
    p = r.pipeline(transaction=transaction)
    for n in range(10000):
        p.set(f"k{n}", n).get(f"k{n}")
    assert p.execute() == sum(([True, b"%d" % n] for n in range(10000)), [])
assert r.mget("k1", "none", "k2") == [b"1", None, b"2"]
assert len(r.client_list()) >= 1
s = r.pubsub(); s.subscribe("c1", "c2")
assert [s.get_message(timeout=60)["type"] for _ in range(2)] == ["subscribe"] * 2
assert r.publish("c2", "hello") == 1
m = s.get_message(timeout=60); assert (m["channel"], m["data"]) == (b"c2", b"hello"), m
def count():
    c = redis.Redis(port=int(sys.argv[1]))
    for _ in range(500): c.incr("n")
threads = [threading.Thread(target=count) for _ in range(8)]
[t.start() for t in threads]; [t.join() for t in threads]
assert r.get("n") == b"4000", r.get("n")
try: r.execute_command("NONSENSE"); assert False
except redis.ResponseError as e: assert "unknown command" in str(e)
print("passed")
"#;

#[test]
fn redis_py_works() {
    if !Command::new(PYTHON)
        .args(["-c", "import redis"])
        .output()
        .is_ok_and(|it| it.status.success())
    {
        return leave_out("python3-redis");
    }
    let server = Server::start(2);
    let answer = client(PYTHON, &["-c", SCRIPT, &server.port()]);
    assert_eq!(answer.unwrap(), "passed\n");
    server.finish();
}
