use super::*;
use std::fs;
use std::os::unix::fs::symlink;
use tempfile::TempDir;

/// The folder is known by its identity alone.
#[derive(Clone, Debug)]
struct Plain(Arc<fs::File>);

impl Folder for Plain {
    fn open(path: &Path) -> io::Result<Self> {
        let file = fs::File::open(path)?;
        if !file.metadata()?.is_dir() {
            return Err(io::Error::from_raw_os_error(libc::ENOTDIR));
        }
        Ok(Self(Arc::new(file)))
    }

    fn identity(&self) -> io::Result<Identity> {
        self.0.metadata().map(|about| Identity { device: about.dev(), inode: about.ino() })
    }
}

/// A folder in which `site` is served, and the view of a shard.
fn site() -> (TempDir, PathBuf, Arc<Served<Plain>>, View<Plain>) {
    let top = tempfile::tempdir().unwrap();
    let path = top.path().join("site");
    fs::create_dir(&path).unwrap();
    let served = Served::open(&path).unwrap();
    let view = served.view();
    (top, path, served, view)
}

fn identity_of(path: &Path) -> Identity {
    let about = fs::metadata(path).unwrap();
    Identity { device: about.dev(), inode: about.ino() }
}

/// A look finds what is at the path, once.
#[track_caller]
fn sees(served: &Served<Plain>, view: &mut View<Plain>, path: &Path) {
    assert!(served.look(), "nothing was noticed");
    assert!(!served.look(), "it was noticed twice");
    assert_eq!(view.current().map(|(_, identity)| identity), Ok(identity_of(path)));
    assert_eq!(view.current().unwrap().0.identity().unwrap(), identity_of(path));
}

#[track_caller]
fn misses(served: &Served<Plain>, view: &mut View<Plain>, errno: i32) {
    assert!(served.look(), "nothing was noticed");
    assert!(!served.look(), "it was noticed twice");
    assert_eq!(view.current().map(|(_, identity)| identity), Err(Missing(errno)));
}

#[test]
fn a_folder_that_stays_is_not_opened_again() {
    let (_top, path, served, mut view) = site();
    let before = Arc::as_ptr(&view.current().unwrap().0.0);
    fs::write(path.join("file"), "").unwrap();
    assert!(!served.look());
    assert_eq!(Arc::as_ptr(&view.current().unwrap().0.0), before);
}

#[test]
fn a_folder_that_was_deleted_and_made_again_is_another_one() {
    let (_top, path, served, mut view) = site();
    for _ in 0..3 {
        fs::remove_dir(&path).unwrap();
        fs::create_dir(&path).unwrap();
        sees(&served, &mut view, &path);
    }
}

#[test]
fn a_missing_folder_is_seen_when_it_is_there_again() {
    let (top, path, served, mut view) = site();
    fs::remove_dir(&path).unwrap();
    misses(&served, &mut view, libc::ENOENT);
    fs::write(&path, "a file of that name").unwrap();
    misses(&served, &mut view, libc::ENOTDIR);
    fs::remove_file(&path).unwrap();
    symlink("site", &path).unwrap();
    misses(&served, &mut view, libc::ELOOP);
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    sees(&served, &mut view, &path);
    // It comes back as it was.
    fs::rename(&path, top.path().join("away")).unwrap();
    misses(&served, &mut view, libc::ENOENT);
    fs::rename(top.path().join("away"), &path).unwrap();
    sees(&served, &mut view, &path);
}

#[test]
fn a_replaced_folder_or_parent_and_a_switched_link_are_seen() {
    let (top, path, served, mut view) = site();
    let at = |name: &str| top.path().join(name);
    fs::create_dir(at("next")).unwrap();
    fs::rename(&path, at("before")).unwrap();
    fs::rename(at("next"), &path).unwrap();
    sees(&served, &mut view, &path);

    fs::create_dir_all(at("parents/1/site")).unwrap();
    fs::create_dir_all(at("parents/2/site")).unwrap();
    symlink("1", at("parents/current")).unwrap();
    let path = at("parents/current/site");
    let served = Served::open(&path).unwrap();
    let mut view = served.view();
    symlink("2", at("parents/next")).unwrap();
    fs::rename(at("parents/next"), at("parents/current")).unwrap();
    sees(&served, &mut view, &path);
    fs::create_dir_all(at("others/current/site")).unwrap();
    fs::rename(at("parents"), at("parents.before")).unwrap();
    fs::rename(at("others"), at("parents")).unwrap();
    sees(&served, &mut view, &path);
}

#[test]
fn the_view_of_a_shard_that_slept_is_the_newest() {
    let (_top, path, served, mut view) = site();
    for _ in 0..3 {
        fs::remove_dir(&path).unwrap();
        assert!(served.look());
        fs::create_dir(&path).unwrap();
        assert!(served.look());
    }
    assert_eq!(view.current().map(|(_, identity)| identity), Ok(identity_of(&path)));
    assert_eq!(served.view().current().map(|(_, identity)| identity), Ok(identity_of(&path)));
}

#[test]
fn a_relative_path_is_one_of_the_folder_at_the_start() {
    let served = Served::<Plain>::open(Path::new("src/..")).unwrap();
    assert!(served.path.is_absolute(), "{}", served.path.display());
    assert_eq!(served.current().unwrap().1, identity_of(Path::new(".")));
}
