//! An established echo connection allocates nothing: an allocator that says so.

use ringwright::{Config, Connection, Engine, Handler, Origin};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Aborts when a shard's thread allocates while it must not.
struct Strict;

static FORBIDDEN: AtomicBool = AtomicBool::new(false);

thread_local! {
    static IS_SHARD: Cell<bool> = const { Cell::new(false) };
}

fn check() {
    if FORBIDDEN.load(Ordering::Relaxed) && IS_SHARD.try_with(Cell::get).unwrap_or(false) {
        FORBIDDEN.store(false, Ordering::Relaxed);
        panic!("the shard allocates while an established connection echoes");
    }
}

// SAFETY: every call is handed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Strict {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        check();
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Strict = Strict;

struct Echo;

impl Handler for Echo {
    type State = ();
    fn opened(&mut self, _: &mut Connection<'_>, _: Origin) {
        IS_SHARD.with(|is_shard| is_shard.set(true));
    }
    fn received(&mut self, _: &mut (), connection: &mut Connection<'_>, bytes: &[u8]) -> usize {
        if bytes == b"allocate" {
            drop(std::hint::black_box(vec![0u8; 100]));
        }
        let _ = connection.send(bytes);
        bytes.len()
    }
}

fn echo(client: &mut TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    client.write_all(bytes)?;
    let mut back = vec![0; bytes.len()];
    client.read_exact(&mut back)?;
    assert_eq!(back, bytes);
    Ok(())
}

#[test]
fn an_established_connection_allocates_nothing() {
    let config = Config {
        listeners: vec!["127.0.0.1:0".parse().unwrap()],
        shards: Some(1),
        ..Config::default()
    };
    let engine = Engine::start(config, |_| Echo).unwrap();
    let mut client = TcpStream::connect(engine.addresses()[0]).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let sizes = [1, 64, 4_096, 8_000];
    for size in sizes {
        echo(&mut client, &vec![7; size]).unwrap();
    }
    FORBIDDEN.store(true, Ordering::Relaxed);
    for round in 0..2_000 {
        echo(&mut client, &vec![round as u8; sizes[round % sizes.len()]]).unwrap();
    }
    assert!(FORBIDDEN.load(Ordering::Relaxed), "nothing was allocated");
    // The net catches something: a handler that allocates is caught (and its panic with it).
    assert!(echo(&mut client, b"allocate").is_err());
    assert!(!FORBIDDEN.load(Ordering::Relaxed));
    engine.handle().drain(Duration::from_secs(60));
    assert_eq!(engine.join().unwrap().sum.handler_panics, 1);
}
