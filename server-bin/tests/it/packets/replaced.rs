//! The served directory is replaced or lost: its path decides.

use super::client::*;
use super::{Served, same, until};
use crate::common::pattern;
use sha2::{Digest as _, Sha256};
use std::fs;
use std::path::PathBuf;
use tempfile::TempDir;

/// A directory whose sibling takes its place. Both are beneath one that the test holds.
struct Place {
    _top: TempDir,
    path: PathBuf,
    before: PathBuf,
    served: Served,
}

impl Place {
    fn start() -> Self {
        Self::start_with(&[])
    }

    fn start_with(arguments: &[&str]) -> Self {
        let top = tempfile::tempdir().unwrap();
        let dir = tempfile::Builder::new().prefix("served").tempdir_in(top.path()).unwrap();
        let (path, before) = (dir.path().to_owned(), top.path().join("before"));
        fs::write(path.join("file"), "old").unwrap();
        Self { _top: top, path, before, served: Served::start_in(dir, arguments) }
    }

    /// Another directory takes the place, and the server has noticed it.
    #[track_caller]
    fn replace(&self) {
        let next = self.before.with_extension("next");
        fs::create_dir(&next).unwrap();
        fs::write(next.join("file"), "new").unwrap();
        fs::rename(&self.path, &self.before).unwrap();
        fs::rename(&next, &self.path).unwrap();
        let mut client = self.served.client();
        until(|| same(client.download(1, "file"), b"new".to_vec()));
    }

    /// The directory is gone, and the server has noticed it.
    #[track_caller]
    fn remove(&self) {
        fs::rename(&self.path, &self.before).unwrap();
        let mut client = self.served.client();
        until(|| {
            client.send(LIST, 1, b"");
            same(client.answer().says(), (ERROR, 1, FAILED))
        });
    }
}

#[test]
fn every_request_goes_to_the_new_directory() {
    let place = Place::start();
    let mut client = place.served.client();
    client.upload(1, "first", b"1", 1);
    place.replace();
    client.upload(1, "second", b"2", 1);
    assert_eq!(client.download(2, "second"), b"2");
    let size = |bytes: u64| bytes.to_be_bytes().to_vec();
    let listed = [&[0][..], &size(3), b"\x04file", &size(1), b"\x06second"].concat();
    assert_eq!(client.ask(LIST, 3, b"", LISTED), listed);
    assert_eq!(client.ask(DIGEST_FILE, 4, b"file", DIGESTED), Sha256::digest("new")[..]);
    client.send(GET, 5, b"first");
    client.error(5, NO_SUCH_FILE);
    drop(client);
    assert_eq!(super::names_in(&place.before), ["file", "first"]);
    place.served.stop(&["file", "second"]);
}

/// A file that is stored in the old one could not be got: the client is told to put it again.
#[test]
fn an_upload_in_progress_ends_and_leaves_nothing() {
    let place = Place::start();
    let mut between = place.served.client();
    between.write(&[put(1, "up", 3), data(1, b"1")].concat());
    between.expect(ACCEPTED, 1);
    between.echoes();
    let mut last = place.served.client();
    last.write(&put(2, "last", 2));
    last.expect(ACCEPTED, 2);
    place.replace();
    between.write(&data(1, b"2"));
    assert!(between.error(1, FAILED).contains("replaced"));
    // The server reads and discards the chunk that is on its way.
    between.write(&data(1, b"3"));
    between.echoes();
    last.write(&data(2, b"12"));
    assert!(last.error(2, FAILED).contains("replaced"));
    between.upload(3, "up", b"123", 2);
    drop((between, last));
    assert_eq!(super::names_in(&place.before), ["file"]);
    place.served.stop(&["file", "up"]);
}

/// The file of a waiting upload could get a name only in the old directory.
#[test]
fn an_upload_is_resumed_only_in_its_directory() {
    let place = Place::start_with(&["--resume-timeout", "3s"]);
    let mut client = place.served.client();
    client.write(&[put_resumable(1, "up", 3, 7), data(1, b"1")].concat());
    assert_eq!(client.resumed(1), 0);
    client.echoes();
    client.half_close();
    client.error(1, FAILED);
    client.is_at_its_end();
    place.replace();
    let mut client = place.served.client();
    client.write(&[put_resumable(2, "up", 3, 7), data(2, b"123")].concat());
    assert_eq!(client.resumed(2), 0);
    client.expect(STORED, 2);
    assert_eq!(client.download(3, "up"), b"123");
    drop(client);
    assert_eq!(super::names_in(&place.before), ["file"]);
    place.served.stop(&["file", "up"]);
}

#[test]
fn a_download_in_progress_is_of_the_file_that_was_offered() {
    let place = Place::start();
    let bytes = pattern(3 << 20);
    place.served.write("large", &bytes);
    let mut client = place.served.client();
    client.get(1, "large");
    place.replace();
    client.write(&take(1, 0, bytes.len() as u64));
    assert!(client.taken(1) == bytes);
    drop(client);
    place.served.stop(&["file"]);
}

#[test]
fn a_missing_directory_is_an_error_until_it_is_there_again() {
    let place = Place::start();
    let mut client = place.served.client();
    client.write(&[put(1, "up", 2), data(1, b"1")].concat());
    client.expect(ACCEPTED, 1);
    client.echoes();
    place.remove();
    for (kind, fields) in [(GET, &b"file"[..]), (DIGEST_FILE, b"file"), (LIST, b"")] {
        client.send(kind, 2, fields);
        assert!(client.error(2, FAILED).contains("directory cannot be opened"));
    }
    let mut other = place.served.client();
    other.write(&put(3, "other", 1));
    other.error(3, FAILED);
    other.echoes();
    // It is the same directory as before, so the upload goes on.
    fs::rename(&place.before, &place.path).unwrap();
    until(|| {
        other.send(LIST, 4, b"");
        same(other.answer().kind, LISTED)
    });
    client.write(&data(1, b"2"));
    client.expect(STORED, 1);
    assert_eq!(client.download(5, "up"), b"12");
    drop((client, other));
    place.served.stop(&["file", "up"]);
}
