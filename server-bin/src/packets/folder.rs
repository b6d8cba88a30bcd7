//! The served directory as workers see it: what may take as long as a disk likes.

use super::wire::{BODY_BYTES_MAX, HEAD_BYTES, Refusal};
use crate::served::Identity;
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RawDir, fstat, linkat, openat, statat, unlinkat,
};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Bytes of a directory that are read in one go.
const ENTRIES_BYTES: usize = 32 << 10;
/// How a file is called that is about to replace another one; its inode number follows, in
/// lower-case hexadecimal.
const LEFT_OVER: &str = ".ringwright-";
/// Seconds for which such a file may be somebody's who is at it.
const LEFT_OVER_MIN_S: u64 = 60;
/// Bytes that the files of one answer may take, behind the byte that says whether there are more.
const PAGE_BYTES_MAX: usize = BODY_BYTES_MAX - HEAD_BYTES - 1;
/// Bytes of a file in an answer beside its name: the size, and the length of the name.
const ENTRY_BYTES: usize = 9;

/// An open directory.
#[derive(Debug)]
pub struct Folder {
    directory: OwnedFd,
}

impl Folder {
    /// Opens it.
    ///
    /// # Errors
    /// As open(2): this user needs the right to read it.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(path, flags, Mode::empty())?;
        Ok(Self { directory })
    }

    /// Its device and inode number.
    ///
    /// # Errors
    /// As fstat(2).
    pub fn identity(&self) -> io::Result<Identity> {
        let about = fstat(&self.directory)?;
        Ok(Identity { device: about.st_dev, inode: about.st_ino })
    }

    /// Creates a file without a name in it, and lets it go. Without /proc the file gets a temporary
    /// name, because not every kernel then allows to name it.
    ///
    /// # Errors
    /// As open(2). EOPNOTSUPP, and EISDIR from old kernels: the file system has no `O_TMPFILE`.
    /// ENOENT without /proc: the kernel is older than Linux 6.10.
    pub fn create_unnamed(&self) -> io::Result<()> {
        let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = openat(&self.directory, ".", flags, Mode::RUSR | Mode::WUSR)?;
        if !Path::new("/proc/self/fd").exists() {
            let name = format!("{LEFT_OVER}{:x}", fstat(&file)?.st_ino);
            linkat(&file, "", &self.directory, &name, AtFlags::EMPTY_PATH)?;
            unlinkat(&self.directory, &name, AtFlags::empty())?;
        }
        Ok(())
    }

    /// Removes what a process that was killed in the moment of replacing a file has left: the new
    /// one under the name that the engine gives it for that moment, which is its own inode number.
    /// Another process may be at it right now, so it must be old. How many that were.
    ///
    /// # Errors
    /// As getdents(2), statx(2) and unlink(2).
    pub fn remove_left_over(&self, now: SystemTime) -> io::Result<usize> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat(&self.directory, ".", flags, Mode::empty())?;
        let mut buffer = Vec::with_capacity(ENTRIES_BYTES);
        let mut entries = RawDir::new(&directory, buffer.spare_capacity_mut());
        let now_s = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let mut removed = 0;
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name();
            if !name.to_bytes().starts_with(LEFT_OVER.as_bytes()) {
                continue;
            }
            let status = match statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => continue,
                status => status?,
            };
            let changed_s = u64::try_from(status.st_ctime).unwrap_or(0);
            if name.to_bytes() == format!("{LEFT_OVER}{:x}", status.st_ino).as_bytes()
                && FileType::from_raw_mode(status.st_mode) == FileType::RegularFile
                && status.st_nlink == 1
                && now_s.saturating_sub(changed_s) > LEFT_OVER_MIN_S
            {
                match unlinkat(&directory, name, AtFlags::empty()) {
                    // Another process that starts here was faster.
                    Err(Errno::NOENT) => {}
                    unlinked => {
                        unlinked?;
                        removed += 1;
                    }
                }
            }
        }
        Ok(removed)
    }

    /// Opens a file that is there to be read.
    pub fn open_file(&self, name: &[u8]) -> Result<File, Refusal> {
        self.open_regular(name).map_err(|error| Refusal::of_reading(&error))
    }

    fn open_regular(&self, name: &[u8]) -> io::Result<File> {
        // As the engine opens files: no symbolic link is followed, and the path is looked up before
        // it is opened, because a FIFO that is opened lets its writer go on. A name is one segment,
        // so that openat2(2), which a seccomp filter may forbid, would do no more.
        let name = OsStr::from_bytes(name);
        if name.as_bytes().contains(&b'/') {
            return Err(Errno::XDEV.into());
        }
        let open = |flags: OFlags| {
            let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let file = File::from(openat(&self.directory, name, flags, Mode::empty())?);
            let kind = file.metadata()?.file_type();
            match kind {
                _ if kind.is_file() => Ok(file),
                _ if kind.is_symlink() => Err(Errno::LOOP.into()),
                _ => Err(Errno::NOENT.into()),
            }
        };
        open(OFlags::PATH)?;
        open(OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)
    }

    /// The fields of a LISTED: the first files in byte order whose names come after that one, as
    /// many as fit. A large directory takes time, but no more memory than a small one.
    pub fn list(&self, after: &[u8], is_wanted: impl Fn() -> bool) -> Result<Vec<u8>, Refusal> {
        let mut page = Page::new(after);
        match self.read(&mut page, is_wanted) {
            Ok(()) => Ok(page.fields()),
            Err(errno) => Err(Refusal::of_reading(&errno.into())),
        }
    }

    fn read(&self, page: &mut Page<'_>, is_wanted: impl Fn() -> bool) -> Result<(), Errno> {
        // One of its own: the place in a directory belongs to the open file.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat(&self.directory, ".", flags, Mode::empty())?;
        let mut buffer = Vec::with_capacity(ENTRIES_BYTES);
        let mut entries = RawDir::new(&directory, buffer.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let kind = entry.file_type();
            let may_be_file = matches!(kind, FileType::RegularFile | FileType::Unknown);
            if may_be_file && page.has_room_for(entry.file_name().to_bytes()) {
                // It may be gone by now: then it is not listed.
                let status = statat(&directory, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW);
                if let Ok(status) = status
                    && FileType::from_raw_mode(status.st_mode) == FileType::RegularFile
                {
                    page.add(entry.file_name().to_bytes(), status.st_size as u64);
                }
            }
            if !is_wanted() {
                break;
            }
        }
        Ok(())
    }
}

/// The smallest names seen so far, as many as fit into one answer, with the files' sizes.
struct Page<'a> {
    after: &'a [u8],
    files: BTreeMap<Box<[u8]>, u64>,
    bytes: usize,
    /// The smallest name that had no room: from there on the next page goes.
    next: Option<Box<[u8]>>,
}

impl<'a> Page<'a> {
    fn new(after: &'a [u8]) -> Self {
        Self { after, files: BTreeMap::new(), bytes: 0, next: None }
    }

    fn has_room_for(&self, name: &[u8]) -> bool {
        !name.starts_with(b".")
            && name.len() <= usize::from(u8::MAX)
            && name > self.after
            && self.next.as_deref().is_none_or(|next| name < next)
    }

    fn add(&mut self, name: &[u8], size: u64) {
        if self.files.insert(name.into(), size).is_none() {
            self.bytes += ENTRY_BYTES + name.len();
        }
        while self.bytes > PAGE_BYTES_MAX
            && let Some((name, _)) = self.files.pop_last()
        {
            self.bytes -= ENTRY_BYTES + name.len();
            self.next = Some(name);
        }
    }

    fn fields(&self) -> Vec<u8> {
        let mut fields = Vec::with_capacity(1 + self.bytes);
        fields.push(u8::from(self.next.is_some()));
        for (name, size) in &self.files {
            fields.extend_from_slice(&size.to_be_bytes());
            fields.push(name.len() as u8);
            fields.extend_from_slice(name);
        }
        fields
    }
}

#[cfg(test)]
mod tests;
