//! From a request's bytes to its reply's head nothing is allocated, once the buffers are there.

use ringwright::files::{FileKind, FileStatus};
use ringwrightd::http::conditional::Validators;
use ringwrightd::http::date::CommonLines;
use ringwrightd::http::incoming::{Event, Incoming};
use ringwrightd::http::range::{self, Selected};
use ringwrightd::http::reply::{self, Described, Persistence};
use ringwrightd::http::{fields, target};
use ringwrightd::site::headers::BuiltIn;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: everything is the system allocator's; only a number is counted beside.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promises are passed on as they are.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_request_and_its_reply_allocate_nothing() {
    let requests = b"GET /some/file.html?query HTTP/1.1\r\nHost: localhost:8080\r\n\
        User-Agent: test\r\nIf-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
        If-None-Match: \"x\", W/\"y\"\r\nRange: bytes=5-\r\nConnection: keep-alive\r\n\r\n";
    let kind = FileKind::Regular;
    let (modified_s, modified_ns) = (1_700_000_000, 5);
    let (changed_s, changed_ns) = (modified_s, modified_ns);
    let (bytes, links, device, inode) = (5_000, 1, 1, 9);
    let about = FileStatus {
        bytes,
        modified_s,
        modified_ns,
        changed_s,
        changed_ns,
        links,
        device,
        inode,
        kind,
    };
    let (mut path, mut head_out) = (Vec::with_capacity(256), Vec::with_capacity(1024));
    let mut common = CommonLines::default();
    let mut incoming = Incoming::default();
    common.refresh(Duration::ZERO);
    let before = ALLOCATIONS.get();
    for round in 0..1_000 {
        common.refresh(Duration::from_secs(round));
        let (consumed, event) = incoming.advance(requests);
        let Event::Head { request, length } = event else { panic!("{event:?}") };
        let head = &requests[consumed - length..consumed];
        assert_eq!(target::resolve(request.target(head), &mut path), Ok(()));
        let validators = Validators::of(&about, common.seconds(), true);
        assert_eq!(validators.evaluate(head), ringwrightd::http::conditional::Outcome::Proceed);
        let value = fields::single(head, "range").unwrap();
        let selected = range::select(value, about.bytes);
        assert_eq!(selected, Selected::Part { first: 5, last: 4_999 });
        let described = Described {
            path: &path,
            bytes: about.bytes,
            validators: &validators,
            without: BuiltIn::default(),
        };
        let part = Some((5, 4_999));
        reply::file(&mut head_out, common.lines(), Persistence::Implied, &described, part);
    }
    assert_eq!(ALLOCATIONS.get() - before, 0);
    // The count counts.
    drop(std::hint::black_box(Box::new(1)));
    assert_eq!(ALLOCATIONS.get() - before, 1);
}
