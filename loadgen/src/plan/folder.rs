//! Where the parts of a plan leave their reports: a folder that goes with the plan.

use serde_json::Value;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Names tried.
const TRIES_MAX: u32 = 1_000;
/// Bytes of a report read.
const REPORT_BYTES_MAX: u64 = 256 << 20;

/// A folder of our own.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// A new one where temporary files are, for nobody else to read.
    ///
    /// # Errors
    /// errno of `mkdir(2)`.
    pub fn new() -> io::Result<Self> {
        let place = std::env::temp_dir();
        for number in 0..TRIES_MAX {
            let path = place.join(format!("ringload-plan-{}-{number}", std::process::id()));
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => {
                    let place = place.display();
                    let remedy = "set TMPDIR to a folder that this user may write to";
                    return Err(io::Error::new(
                        error.kind(),
                        format!("{place}: {error}; {remedy}"),
                    ));
                }
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// The file of a part.
    #[must_use]
    pub fn file(&self, part: &str) -> PathBuf {
        self.0.join(format!("{part}.json"))
    }

    /// Returns the report of a part; null if there is none.
    #[must_use]
    pub fn report(&self, part: &str) -> Value {
        read(&self.file(part)).unwrap_or_default()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn read(path: &Path) -> Option<Value> {
    let is_one = fs::metadata(path).is_ok_and(|about| about.len() <= REPORT_BYTES_MAX);
    let text = is_one.then(|| fs::read_to_string(path).ok()).flatten()?;
    serde_json::from_str(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_private_and_goes_with_its_reports() {
        use std::os::unix::fs::PermissionsExt;
        let (one, other) = (Folder::new().expect("a folder"), Folder::new().expect("another"));
        assert_ne!(one.0, other.0);
        let mode = fs::metadata(&one.0).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        fs::write(one.file("a"), "{\"kind\": \"load\"}").expect("it is ours");
        fs::write(one.file("b"), "{").expect("it is ours");
        assert_eq!(one.report("a")["kind"], "load");
        assert!(one.report("b").is_null() && one.report("c").is_null());
        let path = one.0.clone();
        drop(one);
        assert!(!path.exists() && other.0.exists());
    }
}
