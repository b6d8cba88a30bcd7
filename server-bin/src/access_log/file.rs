//! The file of an access log, which may be renamed or removed while it is written.

use crate::serve::say;
use std::fs::{File, OpenOptions, metadata};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A file that is appended to.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    file: File,
    /// Device and inode of the open file.
    identity: (u64, u64),
    /// A failure was reported since the last success.
    reported: bool,
}

impl LogFile {
    /// Opens the file at `path`, or creates it.
    ///
    /// # Errors
    /// Those of open(2) and fstat(2).
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let status = file.metadata()?;
        let identity = (status.dev(), status.ino());
        Ok(Self { path: path.to_owned(), file, identity, reported: false })
    }

    /// Opens the file at the path again if it is another one or gone. Reports a failure once; the
    /// lines then go on into the old file.
    pub fn follow(&mut self) {
        let there = metadata(&self.path).map(|status| (status.dev(), status.ino()));
        if there.is_ok_and(|identity| identity == self.identity) {
            return;
        }
        match Self::open(&self.path) {
            Ok(file) => *self = file,
            Err(error) if !self.reported => {
                self.reported = true;
                say(&format!(
                    "--access-log {}: cannot open the file again: {error}; lines go on into the \
                     old file until this user may create it",
                    self.path.display()
                ));
            }
            Err(_) => {}
        }
    }
}

impl Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_file_that_is_renamed_or_removed_is_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let (path, old) = (folder.path().join("log"), folder.path().join("log.1"));
        let mut file = LogFile::open(&path).unwrap();
        let mut write = |line: &str| {
            file.follow();
            file.write_all(line.as_bytes()).unwrap();
        };
        write("one\n");
        write("two\n");
        fs::rename(&path, &old).unwrap();
        write("three\n");
        assert_eq!(fs::read_to_string(&old).unwrap(), "one\ntwo\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "three\n");
        fs::remove_file(&path).unwrap();
        write("four\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "four\n");
    }

    #[test]
    fn without_a_new_file_lines_go_on_into_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("inside");
        fs::create_dir(&inside).unwrap();
        let path = inside.join("log");
        let mut file = LogFile::open(&path).unwrap();
        let moved = folder.path().join("moved");
        fs::rename(&inside, &moved).unwrap();
        for line in ["one\n", "two\n"] {
            file.follow();
            file.write_all(line.as_bytes()).unwrap();
        }
        assert_eq!(fs::read_to_string(moved.join("log")).unwrap(), "one\ntwo\n");
        fs::create_dir(&inside).unwrap();
        file.follow();
        assert!(path.exists() && !file.reported);
    }
}
