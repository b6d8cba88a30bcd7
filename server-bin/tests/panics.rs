//! A panic is a message of the error log. The hook belongs to the process, so that this is a test
//! program of its own.

use ringwrightd::messages;

#[test]
fn a_panic_is_a_line_of_the_error_log() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    messages::open(&path).unwrap();
    let thread = std::thread::Builder::new().name("worker".into());
    let panicked = thread.spawn(|| panic!("two\nlines")).unwrap().join();
    assert!(panicked.is_err());
    messages::finish();
    let said = std::fs::read_to_string(&path).unwrap();
    assert!(said.contains(" error the thread worker panicked at "), "{said}");
    assert!(said.contains("panics.rs:") && said.contains(": two lines. "), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}
