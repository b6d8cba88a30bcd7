//! The served folder: whatever its path leads to now.
//!
//! A build deletes and remakes the folder, a release replaces it by rename, or a symbolic link is
//! switched. A thread therefore looks all paths up every `LOOK_INTERVAL` and opens a folder again
//! if another one is there. A request costs a load from memory and no system call. A path across a
//! file server that does not answer holds up the thread and the other paths, but not a shard.

use crate::{messages, quiet};
use std::any::Any;
use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{self, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::Duration;

/// Time between two lookups of the path.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// Device and inode number of a folder. The folder is held open, so that its number is not given
/// to another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The device on which the folder lies.
    pub device: u64,
    /// Its inode number.
    pub inode: u64,
}

/// An open folder, in the form that a mode needs.
pub trait Folder: Clone + Send + Sized + 'static {
    /// Opens the folder of a path.
    ///
    /// # Errors
    /// As open(2).
    fn open(path: &Path) -> io::Result<Self>;

    /// The identity of the open folder.
    ///
    /// # Errors
    /// As statx(2).
    fn identity(&self) -> io::Result<Identity>;
}

/// The reason why there is no folder to serve: the errno of looking it up or opening it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing(pub i32);

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        io::Error::from_raw_os_error(self.0).fmt(f)
    }
}

/// The folder of a path, for all shards.
#[derive(Debug)]
pub struct Served<F> {
    /// Absolute: the working folder is asked for once.
    path: PathBuf,
    open: fn(&Path) -> io::Result<F>,
    /// The number of changes of `current`.
    changes: AtomicU64,
    current: Mutex<Result<(F, Identity), Missing>>,
}

impl<F: Folder> Served<F> {
    /// Opens the folder. A [`Watcher`] keeps it up to date.
    ///
    /// # Errors
    /// As open(2).
    pub fn open(path: &Path) -> io::Result<Arc<Self>> {
        Self::open_with(path, F::open)
    }

    /// Opens the folder in a way of its own, now and later.
    ///
    /// # Errors
    /// As open(2).
    pub fn open_with(path: &Path, open: fn(&Path) -> io::Result<F>) -> io::Result<Arc<Self>> {
        let path = path::absolute(path)?;
        let folder = open(&path)?;
        let identity = folder.identity()?;
        let current = Mutex::new(Ok((folder, identity)));
        Ok(Arc::new(Self { path, open, changes: AtomicU64::new(0), current }))
    }

    /// Serves another folder from now on.
    #[cfg(test)]
    pub(crate) fn replace(&self, folder: F, identity: Identity) {
        *self.current.lock().expect("no test panics with it") = Ok((folder, identity));
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// A shard's view of the folder.
    #[must_use]
    pub fn view(self: &Arc<Self>) -> View<F> {
        let mut view = View { served: self.clone(), changes: 0, current: Err(Missing(0)) };
        view.refresh(self.changes.load(Ordering::Acquire));
        view
    }

    /// The folder as it was opened last.
    ///
    /// # Errors
    /// [`Missing`]: the path leads to no folder that can be opened.
    pub fn current(&self) -> Result<(F, Identity), Missing> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks the path up, and opens the folder that it leads to unless that is the present one.
    /// Returns whether anything has changed. Only one thread calls it.
    fn look(&self) -> bool {
        let known = self.current().map(|(_, identity)| identity);
        let found = std::fs::metadata(&self.path)
            .map(|about| Identity { device: about.dev(), inode: about.ino() });
        if let (Ok(found), Ok(known)) = (&found, known)
            && *found == known
        {
            return false;
        }
        // The path may lead elsewhere by now: the identity is that of the open folder.
        let opened = found.and_then(|_| {
            let folder = (self.open)(&self.path)?;
            let identity = folder.identity()?;
            Ok((folder, identity))
        });
        let opened = opened.map_err(|error| Missing(error.raw_os_error().unwrap_or(libc::EIO)));
        if opened.as_ref().map(|(_, identity)| *identity).map_err(|missing| *missing) == known {
            return false;
        }
        let before = {
            let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *current, opened)
        };
        self.changes.fetch_add(1, Ordering::Release);
        // Closed here and not under the lock: the last close of a deleted folder frees its blocks.
        drop(before);
        true
    }

    fn report(&self) {
        let path = self.path.display();
        match self.current() {
            Ok(_) => messages::info(&format!(
                "the path {path} leads to another folder now, which is served"
            )),
            Err(missing) => messages::error(&format!(
                "cannot serve the folder {path}: {missing}; requests for files are refused until \
                 the folder is there again"
            )),
        }
    }
}

/// A folder that a watcher looks at, whatever its form.
trait Look: Send + Sync {
    fn look_and_report(&self);
}

impl<F: Folder> Look for Served<F> {
    fn look_and_report(&self) {
        if self.look() {
            self.report();
        }
    }
}

/// The thread that looks up the paths of all folders, and frees what is no longer served. It ends
/// when the watcher is dropped.
#[derive(Clone, Default)]
pub struct Watcher {
    watched: Arc<Watched>,
}

#[derive(Default)]
struct Watched {
    folders: Mutex<Vec<Weak<dyn Look>>>,
    /// Values that shards may still hold.
    retired: Mutex<Vec<Arc<dyn Any + Send + Sync>>>,
}

impl Watched {
    /// Frees the values that no shard holds any more.
    fn free_retired(&self) {
        let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        let free: Vec<_> = retired.extract_if(.., |value| Arc::strong_count(value) == 1).collect();
        if !free.is_empty() {
            quiet::free(free);
        }
    }
}

impl Watcher {
    /// Starts the thread.
    ///
    /// # Errors
    /// As the start of a thread.
    pub fn start() -> io::Result<Self> {
        let watcher = Self::default();
        let watched = Arc::downgrade(&watcher.watched);
        let watch = move || {
            loop {
                thread::sleep(LOOK_INTERVAL);
                let Some(watched) = watched.upgrade() else { return };
                watched.free_retired();
                let present = {
                    let mut folders =
                        watched.folders.lock().unwrap_or_else(PoisonError::into_inner);
                    folders.retain(|folder| folder.strong_count() > 0);
                    folders.clone()
                };
                // A path that does not answer must not hold up the end of the program.
                drop(watched);
                for folder in present.iter().filter_map(Weak::upgrade) {
                    folder.look_and_report();
                }
            }
        };
        thread::Builder::new().name("folders".into()).spawn(watch)?;
        Ok(watcher)
    }

    /// Looks up the path of this folder from now on, as long as somebody else has a reference.
    pub fn add<F: Folder>(&self, served: &Arc<Served<F>>) {
        let folder: Weak<dyn Look> = Arc::downgrade(&(served.clone() as Arc<dyn Look>));
        self.watched.folders.lock().unwrap_or_else(PoisonError::into_inner).push(folder);
    }

    /// Holds a value until no shard does: shards must not free what is large. Somebody must have
    /// made sure that no shard gets the value from now on.
    pub fn retire(&self, value: Arc<dyn Any + Send + Sync>) {
        self.watched.retired.lock().unwrap_or_else(PoisonError::into_inner).push(value);
    }
}

/// The folder as one shard uses it.
#[derive(Debug)]
pub struct View<F> {
    served: Arc<Served<F>>,
    /// The number of changes that this view includes.
    changes: u64,
    current: Result<(F, Identity), Missing>,
}

impl<F: Folder> View<F> {
    /// The folder to use for a request that begins now, and its identity.
    ///
    /// # Errors
    /// [`Missing`]: the path leads to no folder that can be opened.
    #[inline]
    pub fn current(&mut self) -> Result<(&F, Identity), Missing> {
        let changes = self.served.changes.load(Ordering::Acquire);
        if changes != self.changes {
            self.refresh(changes);
        }
        match &self.current {
            Ok((folder, identity)) => Ok((folder, *identity)),
            Err(missing) => Err(*missing),
        }
    }

    /// The folder may be newer than `changes`: the next request then gets it once more.
    #[cold]
    fn refresh(&mut self, changes: u64) {
        self.changes = changes;
        self.current = self.served.current();
    }
}

#[cfg(test)]
mod tests;
