//! Payloads of all kinds: their bytes, what they hold, and when their owner is dropped.

use super::*;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes inside of the value itself, which counts its drops and panics in each.
struct Counted([u8; 4], Arc<AtomicUsize>);

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.fetch_add(1, Ordering::SeqCst);
        panic!("on purpose");
    }
}

fn counted() -> (Payload, Arc<AtomicUsize>) {
    let drops = Arc::new(AtomicUsize::new(0));
    (Payload::from_owner(Counted(*b"own!", drops.clone())), drops)
}

#[test]
fn every_kind_has_its_bytes_and_what_it_holds() {
    let mut long = Vec::with_capacity(100);
    long.extend_from_slice(b"vec");
    let shared: Arc<[u8]> = b"0123456789".as_slice().into();
    let other = shared.clone();
    let kinds: [(Payload, &[u8], usize); 9] = [
        (long.into(), b"vec", 100),
        (String::from("text").into(), b"text", 4),
        (b"box".to_vec().into_boxed_slice().into(), b"box", 3),
        (Payload::range(shared.clone(), 3..=4), b"34", 2),
        (Payload::range(shared.clone(), 7..), b"789", 2),
        (shared.into(), b"0123456789", 2),
        (b"static".into(), b"static", 0),
        ("str".into(), b"str", 0),
        (counted().0, b"own!", 4),
    ];
    for (payload, bytes, held_bytes) in &kinds {
        assert_eq!((payload.as_ref(), payload.len()), (*bytes, bytes.len()));
        assert_eq!(payload.held_bytes(), *held_bytes, "{bytes:?}");
    }
    for (mut payload, bytes, _) in kinds {
        payload.advance(2);
        assert_eq!(payload.as_ref(), &bytes[2..]);
        payload.advance(bytes.len() - 2);
        assert!(payload.is_empty());
    }
    assert_eq!(Arc::strong_count(&other), 1);
}

#[test]
fn an_owner_is_dropped_once_and_its_panic_goes_no_further() {
    let (payload, drops) = counted();
    let moved = Some(payload);
    assert_eq!(drops.load(Ordering::SeqCst), 0);
    drop(moved);
    assert_eq!(drops.load(Ordering::SeqCst), 1);
}

#[test]
fn a_range_outside_of_its_bytes_panics() {
    let panics = |from: usize, to: usize| {
        std::panic::catch_unwind(|| Payload::range(Arc::from([1, 2, 3]), from..to)).is_err()
    };
    assert!(panics(0, 4) && panics(2, 1) && panics(4, 4));
    assert!(!panics(3, 3) && !panics(0, 3));
}

#[cfg(feature = "bytes")]
#[test]
fn bytes_are_not_copied() {
    let bytes = bytes::Bytes::from(vec![7; 5_000]);
    let address = bytes.as_ptr();
    let payload = Payload::from(bytes.slice(1_000..));
    assert_eq!((payload.as_ref().as_ptr(), payload.len()), (address.wrapping_add(1_000), 4_000));
}
