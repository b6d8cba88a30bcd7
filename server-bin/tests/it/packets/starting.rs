//! What is said before anything is served.

use super::client::Client;
use crate::common::{Server, command};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

#[test]
fn a_directory_that_cannot_be_opened_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    for path in ["/no/such/folder", file.to_str().unwrap()] {
        let output = command(&["packets", path, "--listen", "127.0.0.1:0"]).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains(path) && stderr.contains("os error"), "{stderr}");
        assert!(output.stdout.is_empty());
    }
}

/// `/proc` takes no files, nor do others of the kernel's own.
#[test]
fn a_directory_that_takes_no_files_is_a_notice() {
    for (arguments, notice) in [(&[][..], true), (&["--read-only"], false)] {
        let all = [&["packets", "/proc/self/net", "--listen", "127.0.0.1:0"], arguments].concat();
        let server = Server::start(&mut command(&all), "packets");
        Client::connect(server.address).echoes();
        let ended = server.stop().cleanly();
        assert_eq!(ended.stderr.contains("O_TMPFILE"), notice, "{}", ended.stderr);
    }
}

#[test]
fn the_environment_counts() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), Permissions::from_mode(0o700)).unwrap();
    let mut daemon = command(&["packets"]);
    daemon
        .env("RINGWRIGHTD_DIR", dir.path())
        .env("RINGWRIGHTD_LISTEN", "127.0.0.1:0")
        .env("RINGWRIGHTD_SHARDS", "1")
        .env("RINGWRIGHTD_UPLOAD_MAX", "2KiB")
        .env("RINGWRIGHTD_REPLACE", "yes")
        .env("RINGWRIGHTD_SYNC", "true")
        .env("RINGWRIGHTD_READ_ONLY", "no")
        .env("RINGWRIGHTD_OFFER_TIMEOUT", "5s")
        .env("RINGWRIGHTD_WORKERS", "0");
    let server = Server::start(&mut daemon, "packets");
    let mut client = Client::connect(server.address);
    client.upload(1, "file", b"123", 3);
    client.write(&super::client::put(2, "large", 2_049));
    client.error(2, super::client::TOO_LARGE);
    client.send(super::client::LIST, 3, b"");
    client.error(3, super::client::NO_WORKERS);
    drop(client);
    server.stop().cleanly();
    assert_eq!(std::fs::read(dir.path().join("file")).unwrap(), b"123");
}
