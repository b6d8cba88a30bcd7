//! Runs of put and get in a folder of their own.

use super::packets::{Files, Request, packets};
use super::{Ended, Running, server, start};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// A server of `files` whose answers pass through what `twist` makes for each connection.
pub fn serve<T>(files: &Files, twist: impl Fn() -> T + Clone + Send + 'static) -> SocketAddr
where
    T: FnMut(&Request, Vec<u8>) -> Option<Vec<u8>>,
{
    let files = files.clone();
    server(move |stream| packets(stream, &files, twist()))
}

/// A server that does what it must.
pub fn good(files: &Files) -> SocketAddr {
    serve(files, || |_: &Request, answer| Some(answer))
}

/// A server that changes the answers to one kind of request.
pub fn change(
    files: &Files,
    kind: u8,
    how: impl Fn(&Request, Vec<u8>) -> Option<Vec<u8>> + Clone + Send + 'static,
) -> SocketAddr {
    serve(files, move || {
        let how = how.clone();
        move |request: &Request, answer| {
            if request.kind == kind { how(request, answer) } else { Some(answer) }
        }
    })
}

/// Bytes that are not the same anywhere.
pub fn noise(count: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    (0..count).map(|_| next()).collect()
}

/// A folder for the files of a test.
pub struct Folder(tempfile::TempDir);

impl Folder {
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    /// The path of a file in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes one.
    pub fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, bytes).expect("a file");
        path
    }

    /// Returns the names of all files in the folder.
    pub fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.0.path()).expect("our own folder");
        let name = |entry: std::io::Result<std::fs::DirEntry>| entry.expect("an entry").file_name();
        let mut names: Vec<_> =
            entries.map(|entry| name(entry).into_string().expect("UTF-8")).collect();
        names.sort();
        names
    }
}

/// Starts `put FILE` with these options.
pub fn start_put(address: SocketAddr, file: &Path, options: &str) -> Running {
    start("packets", &address.to_string(), &format!("put {} {options}", file.display()))
}

pub fn put(address: SocketAddr, file: &Path, options: &str) -> Ended {
    start_put(address, file, options).end()
}

/// Starts `get there --out OUT` with these options.
pub fn start_get(address: SocketAddr, out: &Path, options: &str) -> Running {
    start("packets", &address.to_string(), &format!("get there --out {} {options}", out.display()))
}

pub fn get(address: SocketAddr, out: &Path, options: &str) -> Ended {
    start_get(address, out, options).end()
}

/// Asserts that it went well, and that its digest is that of `bytes`.
pub fn moved(ended: &Ended, bytes: &[u8]) {
    use sha2::{Digest, Sha256};
    assert_eq!(ended.status, 0, "{ended}");
    let digest: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(ended.report["sha256"], digest, "{ended}");
    assert_eq!(ended.report["size_bytes"], bytes.len(), "{ended}");
    assert_eq!(ended.report["transferred_bytes"], bytes.len(), "{ended}");
    assert_eq!(ended.report["kind"], "transfer", "{ended}");
    assert!(ended.report["error"].is_null(), "{ended}");
    assert!(ended.stdout.contains(&digest), "{ended}");
}

/// Asserts that it went wrong in that way, with these words.
pub fn failed(ended: &Ended, kind: &str, says: &str) {
    assert_eq!((ended.status, &ended.report["outcome"]), (1, &"failed".into()), "{ended}");
    assert_eq!(ended.report["error"]["kind"], kind, "{ended}");
    let detail = ended.report["error"]["detail"].as_str().unwrap_or_default();
    assert!(detail.contains(says), "{says:?} is not in {detail:?}\n{ended}");
    assert!(ended.stdout.contains(detail) && ended.stdout.contains("FAILED"), "{ended}");
}
