//! The output of an access log: lines that stay whole, and a file that may be renamed or removed
//! while it is written.

use crate::messages;
use std::fs::{File, OpenOptions, metadata};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// An output of lines.
#[derive(Debug)]
pub struct Lines<W> {
    output: W,
    /// An error has cut off the last line. The next line must not continue it.
    torn: bool,
}

impl<W: Write> Lines<W> {
    /// Writes lines to `output`.
    pub fn new(output: W) -> Self {
        Self { output, torn: false }
    }

    /// Writes whole lines.
    ///
    /// # Errors
    /// The number of lines that were not written to their end, and the error.
    pub fn write(&mut self, lines: &[u8]) -> Result<(), (u64, io::Error)> {
        let mut written = 0;
        let result = self.mend().and_then(|()| {
            while written < lines.len() {
                match self.output.write(&lines[written..]) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(bytes) => written += bytes,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        });
        let (whole, lost) = lines.split_at(written);
        self.torn |= whole.last().is_some_and(|byte| *byte != b'\n');
        let lost = lost.iter().filter(|byte| **byte == b'\n').count() as u64;
        result.map_err(|error| (lost, error))
    }

    /// Ends a line that was cut off.
    fn mend(&mut self) -> io::Result<()> {
        if self.torn {
            self.output.write_all(b"\n")?;
            self.torn = false;
        }
        Ok(())
    }
}

/// A file that is appended to.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    /// The option that names the file.
    option: &'static str,
    lines: Lines<File>,
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
    pub fn open(path: &Path, option: &'static str) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let status = file.metadata()?;
        let identity = (status.dev(), status.ino());
        let lines = Lines::new(file);
        Ok(Self { path: path.to_owned(), option, lines, identity, reported: false })
    }

    /// Opens the file at the path again if it is another one or gone. Reports a failure once; the
    /// lines then go on into the old file.
    pub fn follow(&mut self) {
        let there = metadata(&self.path).map(|status| (status.dev(), status.ino()));
        if there.is_ok_and(|identity| identity == self.identity) {
            return;
        }
        match Self::open(&self.path, self.option) {
            Ok(file) => *self = file,
            Err(error) if !self.reported => {
                self.reported = true;
                messages::error(&format!(
                    "{} {}: cannot open the file again: {error}; lines go on into the \
                     old file until this user may create it",
                    self.option,
                    self.path.display()
                ));
            }
            Err(_) => {}
        }
    }

    /// Writes whole lines to the file at the path.
    ///
    /// # Errors
    /// The number of lines that were not written to their end, and the error.
    pub fn write(&mut self, lines: &[u8]) -> Result<(), (u64, io::Error)> {
        // Once per call, so that no line is cut in two by a rotation.
        self.follow();
        self.lines.write(lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A disk with room for some bytes.
    struct Disk {
        text: String,
        room: usize,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(self.room);
            if taken == 0 {
                return Err(io::Error::from_raw_os_error(libc::ENOSPC));
            }
            self.text.push_str(str::from_utf8(&bytes[..taken]).unwrap());
            self.room -= taken;
            Ok(taken)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_costs_lines_and_no_other_line_goes_on_where_one_was_cut_off() {
        let mut lines = Lines::new(Disk { text: String::new(), room: 7 });
        let mut write = |text: &str, room: usize| {
            lines.output.room += room;
            let lost = lines.write(text.as_bytes()).map_err(|(lost, error)| {
                assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
                lost
            });
            (lost, lines.output.text.clone())
        };
        assert_eq!(write("one\ntwo\nthree\n", 0), (Err(2), "one\ntwo".into()));
        assert_eq!(write("four\n", 0), (Err(1), "one\ntwo".into()));
        assert_eq!(write("five\nsix\n", 6), (Err(1), "one\ntwo\nfive\n".into()));
        assert_eq!(write("seven\n", 99), (Ok(()), "one\ntwo\nfive\nseven\n".into()));
    }

    #[test]
    fn a_file_that_is_renamed_or_removed_is_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let (path, old) = (folder.path().join("log"), folder.path().join("log.1"));
        let mut file = LogFile::open(&path, "--access-log").unwrap();
        let mut write = |line: &str| {
            file.write(line.as_bytes()).unwrap();
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
        let mut file = LogFile::open(&path, "--access-log").unwrap();
        let moved = folder.path().join("moved");
        fs::rename(&inside, &moved).unwrap();
        for line in ["one\n", "two\n"] {
            file.write(line.as_bytes()).unwrap();
        }
        assert_eq!(fs::read_to_string(moved.join("log")).unwrap(), "one\ntwo\n");
        fs::create_dir(&inside).unwrap();
        file.follow();
        assert!(path.exists() && !file.reported);
    }
}
