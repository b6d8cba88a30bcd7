use super::super::wire::Code;
use super::*;
use proptest::collection::btree_set;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, symlink};
use std::thread;
use std::time::Duration;

/// The files of a page, and whether there are more.
fn files(fields: &[u8]) -> (Vec<(Vec<u8>, u64)>, bool) {
    let (mut files, mut rest) = (Vec::new(), &fields[1..]);
    while let Some((size, behind)) = rest.split_first_chunk() {
        let (length, behind) = behind.split_first().unwrap();
        let (name, behind) = behind.split_at(usize::from(*length));
        files.push((name.to_vec(), u64::from_be_bytes(*size)));
        rest = behind;
    }
    assert!(rest.is_empty());
    (files, fields[0] == 1)
}

fn names(fields: &[u8]) -> Vec<Vec<u8>> {
    files(fields).0.into_iter().map(|(name, _)| name).collect()
}

#[test]
fn only_regular_files_that_are_not_hidden_are_there() {
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::open(dir.path()).unwrap();
    folder.create_unnamed().unwrap();
    assert_eq!(folder.list(b"", || true).unwrap(), [0], "an empty directory");
    let at = |name: &str| dir.path().join(name);
    fs::write(at("b"), "12").unwrap();
    fs::write(at("a"), "").unwrap();
    fs::write(at("é"), "123").unwrap();
    fs::write(at(".hidden"), "1").unwrap();
    fs::create_dir(at("dir")).unwrap();
    fs::write(at("dir/c"), "1").unwrap();
    symlink(at("b"), at("link")).unwrap();
    let fifo = std::ffi::CString::new(at("fifo").to_str().unwrap()).unwrap();
    // SAFETY: the path is a C string that outlives the call.
    assert_eq!(unsafe { libc::mkfifo(fifo.as_ptr(), 0o600) }, 0);
    let expected = [(b"a".to_vec(), 0), (b"b".to_vec(), 2), ("é".as_bytes().to_vec(), 3)].to_vec();
    assert_eq!(files(&folder.list(b"", || true).unwrap()), (expected, false));
    assert_eq!(names(&folder.list(b"a", || true).unwrap()), [&b"b"[..], "é".as_bytes()]);
    assert_eq!(folder.list("é".as_bytes(), || true).unwrap(), [0]);

    let mut text = String::new();
    folder.open_file(b"b").unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "12");
    // It waits for a reader (fifo(7)).
    let path = at("fifo");
    let writer = thread::spawn(move || File::options().write(true).open(path));
    for _ in 0..50 {
        for name in [&b"link"[..], b"dir", b"fifo", b"nothing"] {
            let refusal = folder.open_file(name).unwrap_err();
            assert_eq!(refusal.code, Code::NoSuchFile, "{name:?}");
        }
        thread::sleep(Duration::from_millis(1));
        assert!(!writer.is_finished(), "the writer found a reader");
    }
    drop(File::options().read(true).write(true).open(at("fifo")).unwrap());
    drop(writer.join().unwrap());
}

#[test]
fn only_what_a_killed_server_has_left_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::open(dir.path()).unwrap();
    let at = |name: &str| dir.path().join(name);
    let own_name = |name: &str| {
        fs::write(at(name), "1").unwrap();
        let inode = fs::metadata(at(name)).unwrap().ino();
        (format!(".ringwright-{inode:x}"), inode)
    };
    let (left, _) = own_name("1");
    fs::rename(at("1"), at(&left)).unwrap();
    let mut others = vec![".hidden".to_owned(), ".ringwright-".into(), ".ringwright-1g".into()];
    for name in &others {
        fs::write(at(name), "1").unwrap();
    }
    // Another one's number, zeros in front, something behind, two names, no file.
    let (_, inode) = own_name("plain");
    others.extend(["plain".to_owned(), format!(".ringwright-{:x}", inode + (1 << 60))]);
    fs::write(at(&others[4]), "1").unwrap();
    for rename in [|hex: String| format!(".ringwright-0{hex}"), |hex| format!(".ringwright-{hex}-")]
    {
        let (_, inode) = own_name("2");
        others.push(rename(format!("{inode:x}")));
        fs::rename(at("2"), at(others.last().unwrap())).unwrap();
    }
    let (twice, _) = own_name("twice");
    fs::hard_link(at("twice"), at(&twice)).unwrap();
    fs::create_dir(at("dir")).unwrap();
    let directory = format!(".ringwright-{:x}", fs::metadata(at("dir")).unwrap().ino());
    fs::rename(at("dir"), at(&directory)).unwrap();
    symlink("plain", at("link")).unwrap();
    let link = format!(".ringwright-{:x}", fs::symlink_metadata(at("link")).unwrap().ino());
    fs::rename(at("link"), at(&link)).unwrap();
    others.extend(["twice".to_owned(), twice, directory, link]);

    let names = || -> BTreeSet<String> {
        let entries = fs::read_dir(dir.path()).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    let before = names();
    let now = SystemTime::now();
    assert_eq!(folder.remove_left_over(now).unwrap(), 0, "it may be somebody's who is at it");
    assert_eq!(folder.remove_left_over(UNIX_EPOCH).unwrap(), 0, "the clock is wrong");
    assert_eq!(names(), before);
    assert_eq!(folder.remove_left_over(now + Duration::from_secs(62)).unwrap(), 1);
    assert_eq!(names(), others.into_iter().collect());
    assert!(before.contains(&left));
}

#[test]
fn a_large_directory_comes_in_pages_in_the_order_of_its_names() {
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::open(dir.path()).unwrap();
    let expected: Vec<Vec<u8>> =
        (0..3_000).map(|number| format!("{number:05}-{}", "x".repeat(60)).into_bytes()).collect();
    for name in &expected {
        fs::write(dir.path().join(std::str::from_utf8(name).unwrap()), "").unwrap();
    }
    let (mut found, mut pages) = (Vec::<Vec<u8>>::new(), 0);
    loop {
        let after = found.last().cloned().unwrap_or_default();
        let fields = folder.list(&after, || true).unwrap();
        assert!(fields.len() <= 1 + PAGE_BYTES_MAX);
        let more = fields[0] == 1;
        found.extend(names(&fields));
        pages += 1;
        if !more {
            break;
        }
        assert!(fields.len() + 75 > 1 + PAGE_BYTES_MAX, "another one would have fitted");
    }
    assert_eq!(pages, 4);
    assert_eq!(found, expected);
}

proptest! {
    /// Whatever names there are in whatever order: page by page every one comes once, in order.
    #[test]
    fn pages_lose_nothing(
        names in btree_set("[a-c]{1,3}|[a-z]{200,255}", 0..400),
        order in any::<u64>(),
    ) {
        let names: BTreeSet<Vec<u8>> = names.into_iter().map(String::into_bytes).collect();
        let mut seen: Vec<&Vec<u8>> = names.iter().collect();
        seen.sort_by_key(|name| {
            name.iter().fold(order, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
        });
        let mut found: Vec<Vec<u8>> = Vec::new();
        loop {
            let after = found.last().cloned().unwrap_or_default();
            let mut page = Page::new(&after);
            for name in &seen {
                if page.has_room_for(name) {
                    page.add(name, 1);
                }
            }
            let fields = page.fields();
            prop_assert!(fields.len() <= 1 + PAGE_BYTES_MAX);
            let (files, more) = files(&fields);
            prop_assert!(!more || !files.is_empty(), "a page brings something");
            found.extend(files.into_iter().map(|(name, _)| name));
            if !more {
                break;
            }
        }
        prop_assert_eq!(found, names.into_iter().collect::<Vec<_>>());
    }
}
