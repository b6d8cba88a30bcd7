//! Files that were found across symbolic links, which `symlinks = "beneath"` follows.
//!
//! The kernel keeps a path with links beneath its directory (openat2(2), `RESOLVE_BENEATH`). A link
//! must not lead to a hidden file or around a rule either, so the real path of the open file is
//! looked at: it passes no name that begins with a dot, and the rules admit the client to it as
//! well. Hazard: a path that is looked at before the open may lead elsewhere at the open.

use super::Files;
use super::exchange::{Asked, Candidate};
use super::note::Note;
use crate::http::target;
use crate::served::Missing;
use crate::site::rules::Facts;
use ringwright::files::{Directory, FileKind, FileStatus, OpenFile};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use std::fs::File;

/// Repetitions of an open that a rename has disturbed.
const DISTURBED_MAX: u32 = 16;

/// The file is not served: it is hidden, or nobody knows its path.
pub(super) struct Hidden;

impl Files {
    /// The rules for the real path of a file. `None`: it was not found across a link, or the site
    /// has no rules.
    pub(super) fn target(
        asked: &Asked<'_>,
        candidate: &Candidate,
        file: &OpenFile,
    ) -> Result<Option<Facts>, Hidden> {
        if !file.crossed_link() {
            return Ok(None);
        }
        if let Some(note) = Note::of(file) {
            return Ok(note.target);
        }
        let directory = directory(asked, candidate).map_err(|_| Hidden)?;
        let path = real_path(file, &directory)?;
        if !asked.site.has_rules {
            return Ok(None);
        }
        asked.site.rules.facts(&path).map(Some).map_err(|_| Hidden)
    }
}

/// The directory beneath which a candidate is opened.
pub(super) fn directory(asked: &Asked<'_>, candidate: &Candidate) -> Result<Directory, Missing> {
    match candidate {
        Candidate::Requested(_) | Candidate::Variant(..) | Candidate::Listing => {
            asked.directory.cloned()
        }
        Candidate::Shell | Candidate::ErrorPage(_) => {
            asked.site.root.current().map(|(directory, _)| directory)
        }
    }
}

/// The path of an open file beneath a directory. That of a directory ends with a slash.
fn real_path(file: &OpenFile, directory: &Directory) -> Result<Vec<u8>, Hidden> {
    let mut path = file.path_beneath(directory).map_err(|_| Hidden)?;
    if target::is_hidden(&path) {
        return Err(Hidden);
    }
    if file.status().kind == FileKind::Directory && !path.is_empty() {
        path.push(b'/');
    }
    Ok(path)
}

/// The status of the file that a link in a listing leads to, if it is served. May wait for a disk.
pub(super) fn status(directory: &Directory, path: &[u8]) -> Option<FileStatus> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let open = || openat2(directory, path, flags, Mode::empty(), resolve);
    let mut opened = open();
    for _ in 0..DISTURBED_MAX {
        // A link with `..` was followed while something was renamed.
        if matches!(opened, Err(Errno::AGAIN)) {
            opened = open();
        }
    }
    let file = OpenFile::from_file(File::from(opened.ok()?)).ok()?;
    real_path(&file, directory).ok()?;
    Some(file.status())
}
