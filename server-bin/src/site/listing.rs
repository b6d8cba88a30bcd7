//! Listings of directories, as a page or as JSON.
//!
//! The page loads nothing else. Its style and its script are allowed by [`POLICY`]; under a
//! stricter policy it is a plain table, which works as well.

use crate::access_log::json_time;
use crate::http::date;
use crate::http::reply::decimal;
use crate::http::target::push_encoded;
use ringwright::files::{FileKind, FileStatus};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, openat, statat};
use std::io;
use std::os::fd::AsFd;

/// Entries of a listing at most.
pub const ENTRIES_MAX: usize = 5000;
/// Bytes of all names of a listing at most.
const NAME_BYTES_MAX: usize = 512 << 10;
/// Bytes of a directory that are read in one go.
const READ_BYTES: usize = 32 << 10;

/// The line that allows the page its own style and script, and nothing else.
pub const POLICY: &str = "Content-Security-Policy: default-src 'none'; \
    style-src 'sha256-2Xi5MZEiEZbFZAXsiPuT1zB0IfKnKzK585XlgV4MPEg='; \
    script-src 'sha256-2uv4k4pDi6FbciIFtZnVoqTvgKchtHuj0Qnvk/sZ8aE='; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'self'\r\n";
/// The line of a JSON listing that is not complete.
pub const CUT_LINE: &str = "X-Listing-Truncated: true\r\n";

const STYLE: &str = include_str!("listing/style.css");
const SCRIPT: &str = include_str!("listing/sort.js");

/// The contents of a directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// Directories, then files, each by name.
    pub entries: Vec<Entry>,
    /// The directory has more entries than the limit.
    pub is_cut: bool,
}

/// A file or a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name: any bytes but slash, backslash and NUL. It does not begin with a dot.
    pub name: Box<[u8]>,
    /// It is a directory.
    pub is_directory: bool,
    /// The length of a file.
    pub bytes: u64,
    /// The time of the last change of contents, in seconds since 1970-01-01 UTC.
    pub modified_s: i64,
}

impl Listed {
    /// Reads a directory. This may wait for a disk.
    ///
    /// Hidden files, names with a backslash and all that is neither file nor directory are left
    /// out, because requests for them are refused. `link` is called for each symbolic link and
    /// answers with the status of its target, or with `None` if it is not served.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn read(
        directory: impl AsFd,
        mut link: impl FnMut(&[u8]) -> Option<FileStatus>,
    ) -> io::Result<Self> {
        // The place in a directory belongs to the open file.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat(&directory, ".", flags, Mode::empty())?;
        let mut buffer = Vec::with_capacity(READ_BYTES);
        let mut raw = RawDir::new(&directory, buffer.spare_capacity_mut());
        let (mut listed, mut name_bytes) = (Self::default(), 0);
        while let Some(found) = raw.next() {
            let found = found?;
            let name = found.file_name().to_bytes();
            if name.starts_with(b".") || name.contains(&b'\\') {
                continue;
            }
            // The entry may be gone by now. It is then not listed.
            let Ok(status) = statat(&directory, found.file_name(), AtFlags::SYMLINK_NOFOLLOW)
            else {
                continue;
            };
            let (is_directory, bytes, modified_s) = match FileType::from_raw_mode(status.st_mode) {
                FileType::Directory => (true, 0, status.st_mtime),
                FileType::RegularFile => (false, status.st_size as u64, status.st_mtime),
                FileType::Symlink => match link(name) {
                    Some(target) if target.kind == FileKind::Directory => {
                        (true, 0, target.modified_s)
                    }
                    Some(target) if target.kind == FileKind::Regular => {
                        (false, target.bytes, target.modified_s)
                    }
                    _ => continue,
                },
                _ => continue,
            };
            name_bytes += name.len();
            if listed.entries.len() == ENTRIES_MAX || name_bytes > NAME_BYTES_MAX {
                listed.is_cut = true;
                break;
            }
            listed.entries.push(Entry { name: name.into(), is_directory, bytes, modified_s });
        }
        listed.entries.sort_unstable_by(|one, other| one.key().cmp(&other.key()));
        Ok(listed)
    }

    /// The page. `path` is that of the directory: decoded, without its first slash, with a slash
    /// at its end unless it is the root.
    #[must_use]
    pub fn page(&self, path: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(4096 + 256 * self.entries.len());
        out.extend_from_slice(
            b"<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
              <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>/",
        );
        escape(path, &mut out);
        out.extend_from_slice(b"</title>\n<style>");
        out.extend_from_slice(STYLE.as_bytes());
        out.extend_from_slice(b"</style>\n</head>\n<body>\n<main>\n<h1>");
        breadcrumbs(path, &mut out);
        out.extend_from_slice(
            b"</h1>\n<table>\n<thead><tr><th scope=\"col\" aria-sort=\"ascending\">Name</th>\
              <th scope=\"col\">Size</th><th scope=\"col\">Modified (UTC)</th></tr></thead>\n",
        );
        if !path.is_empty() {
            out.extend_from_slice(
                b"<tbody><tr><td><a href=\"../\">../</a></td><td></td><td></td></tr></tbody>\n",
            );
        }
        out.extend_from_slice(b"<tbody>\n");
        for entry in &self.entries {
            entry.append_row(&mut out);
        }
        out.extend_from_slice(b"</tbody>\n</table>\n<p>");
        decimal(&mut out, self.entries.len() as u64);
        out.extend_from_slice(match (self.is_cut, self.entries.len()) {
            (true, _) => b" entries are shown. The directory has more.",
            (false, 1) => &b" entry"[..],
            (false, _) => b" entries",
        });
        out.extend_from_slice(b"</p>\n</main>\n<script>");
        out.extend_from_slice(SCRIPT.as_bytes());
        out.extend_from_slice(b"</script>\n</body>\n</html>\n");
        out
    }

    /// The listing as a JSON array of objects with `name`, `type` (`directory` or `file`), `mtime`
    /// (an HTTP date) and, for a file, `size` in bytes, as nginx writes them; and `href`, which
    /// leads to the entry also if its name is not UTF-8.
    #[must_use]
    pub fn json(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(2 + 160 * self.entries.len());
        out.push(b'[');
        for (at, entry) in self.entries.iter().enumerate() {
            out.extend_from_slice(if at == 0 { b"\n" } else { b",\n" });
            entry.append_object(&mut out);
        }
        out.extend_from_slice(b"\n]\n");
        out
    }
}

impl Entry {
    /// Directories come first. The case of a name matters only between equal ones.
    fn key(&self) -> (bool, Vec<u8>, &[u8]) {
        (!self.is_directory, self.name.to_ascii_lowercase(), &self.name)
    }

    fn append_row(&self, out: &mut Vec<u8>) {
        let slash = if self.is_directory { "/" } else { "" };
        out.extend_from_slice(b"<tr><td><a href=\"");
        self.append_href(out);
        out.extend_from_slice(b"\"><bdi>");
        escape(&self.name, out);
        out.extend_from_slice(format!("{slash}</bdi></a></td><td data-key=\"").as_bytes());
        let size = if self.is_directory { "-1\">".into() } else { size_cell(self.bytes) };
        out.extend_from_slice(size.as_bytes());
        let time = json_time(self.modified_s);
        let shown = time[..time.len() - 4].replace('T', " ");
        let modified_s = self.modified_s;
        out.extend_from_slice(
            format!(
                "</td><td data-key=\"{modified_s}\"><time datetime=\"{time}\">{shown}</time></td>\
                 </tr>\n"
            )
            .as_bytes(),
        );
    }

    fn append_object(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"name\":\"");
        escape_json(&self.name, out);
        out.extend_from_slice(b"\",\"type\":\"");
        out.extend_from_slice(if self.is_directory { b"directory" } else { b"file" });
        let start = out.len();
        out.extend_from_slice(b"\",\"mtime\":\"");
        if !date::append(self.modified_s, out) {
            out.truncate(start);
        }
        if !self.is_directory {
            out.extend_from_slice(b"\",\"size\":");
            decimal(out, self.bytes);
            out.extend_from_slice(b",\"href\":\"");
        } else {
            out.extend_from_slice(b"\",\"href\":\"");
        }
        self.append_href(out);
        out.extend_from_slice(b"\"}");
    }

    /// Appends a relative link. No name can begin a scheme, because colons are encoded.
    fn append_href(&self, out: &mut Vec<u8>) {
        for &byte in &self.name {
            if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
                out.push(byte);
            } else {
                push_encoded(byte, out);
            }
        }
        if self.is_directory {
            out.push(b'/');
        }
    }
}

/// Appends the path, each directory of it as a link.
fn breadcrumbs(path: &[u8], out: &mut Vec<u8>) {
    let segments: Vec<_> =
        path.split(|&byte| byte == b'/').filter(|name| !name.is_empty()).collect();
    let mut link = |depth: usize, name: &[u8]| {
        out.extend_from_slice(b"<a href=\"");
        out.extend_from_slice(
            if depth == 0 { "./".into() } else { "../".repeat(depth) }.as_bytes(),
        );
        out.extend_from_slice(b"\"><bdi>");
        escape(name, out);
        out.extend_from_slice(b"/</bdi></a>");
    };
    link(segments.len(), b"");
    for (at, name) in segments.iter().enumerate() {
        link(segments.len() - 1 - at, name);
    }
}

/// The number of bytes as a key and in words.
fn size_cell(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let (mut scaled, mut unit) = (bytes as f64, "B");
    for larger in UNITS {
        if scaled < 1023.95 {
            break;
        }
        (scaled, unit) = (scaled / 1024.0, larger);
    }
    let digits = usize::from(unit != "B");
    format!("{bytes}\" title=\"{bytes} bytes\">{scaled:.digits$}\u{a0}{unit}")
}

/// A character that would change how the text around it is shown.
fn is_control(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2028}' | '\u{2029}' | '\u{2066}'..='\u{2069}')
}

/// Appends text for HTML. Bytes that are not UTF-8 and control characters become `U+FFFD`.
fn escape(text: &[u8], out: &mut Vec<u8>) {
    for character in String::from_utf8_lossy(text).chars() {
        match character {
            '&' => out.extend_from_slice(b"&amp;"),
            '<' => out.extend_from_slice(b"&lt;"),
            '>' => out.extend_from_slice(b"&gt;"),
            '"' => out.extend_from_slice(b"&quot;"),
            '\'' => out.extend_from_slice(b"&#39;"),
            _ => {
                let shown = if is_control(character) { '\u{fffd}' } else { character };
                out.extend_from_slice(shown.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
    }
}

/// Appends text for a JSON string. Bytes that are not UTF-8 become `U+FFFD`.
fn escape_json(text: &[u8], out: &mut Vec<u8>) {
    for character in String::from_utf8_lossy(text).chars() {
        match character {
            '"' | '\\' => out.extend([b'\\', character as u8]),
            _ if is_control(character) => {
                out.extend_from_slice(format!("\\u{:04x}", u32::from(character)).as_bytes());
            }
            _ => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sha2::{Digest as _, Sha256};
    use std::ffi::OsStr;
    use std::fs::{self, File};
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::fs::symlink;

    fn entry(name: &[u8], bytes: u64) -> Entry {
        Entry { name: name.into(), is_directory: false, bytes, modified_s: 784_111_777 }
    }

    fn folder(name: &[u8]) -> Entry {
        Entry { is_directory: true, ..entry(name, 0) }
    }

    fn page(entries: Vec<Entry>, path: &[u8]) -> String {
        String::from_utf8(Listed { entries, is_cut: false }.page(path)).unwrap()
    }

    fn names(listed: &Listed) -> Vec<String> {
        let name = |entry: &Entry| {
            let slash = if entry.is_directory { "/" } else { "" };
            format!("{}{slash}", String::from_utf8_lossy(&entry.name))
        };
        listed.entries.iter().map(name).collect()
    }

    #[test]
    fn a_directory_is_read() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &[u8]| root.path().join(OsStr::from_bytes(name));
        for name in [&b"b.txt"[..], b"A.txt", b"a.txt", b".hidden", b"back\\slash", b"\xff"] {
            fs::write(path(name), b"12345").unwrap();
        }
        for name in [&b"z"[..], b".git"] {
            fs::create_dir(path(name)).unwrap();
        }
        rustix::fs::mkfifoat(rustix::fs::CWD, path(b"fifo"), Mode::RUSR).unwrap();
        symlink("a.txt", path(b"link")).unwrap();
        let directory = File::open(root.path()).unwrap();
        let listed = Listed::read(&directory, |_| None).unwrap();
        assert_eq!(names(&listed), ["z/", "A.txt", "a.txt", "b.txt", "\u{fffd}"]);
        assert_eq!((listed.entries[1].bytes, listed.is_cut), (5, false));
        assert!(listed.entries[1].modified_s > 1_600_000_000);
        let kind = FileKind::Regular;
        let target = FileStatus { bytes: 99, kind, ..status() };
        let listed = Listed::read(&directory, |name| (name == b"link").then_some(target)).unwrap();
        assert_eq!(listed.entries[4], Entry { modified_s: 7, ..entry(b"link", 99) });
        assert_eq!(names(&Listed::read(&directory, |_| None).unwrap()).len(), 5, "read twice");
    }

    fn status() -> FileStatus {
        FileStatus {
            bytes: 0,
            modified_s: 7,
            modified_ns: 0,
            changed_s: 7,
            changed_ns: 0,
            links: 1,
            device: 1,
            inode: 1,
            kind: FileKind::Other,
        }
    }

    #[test]
    fn a_large_directory_is_cut() {
        let root = tempfile::tempdir().unwrap();
        for n in 0..=ENTRIES_MAX {
            File::create(root.path().join(n.to_string())).unwrap();
        }
        let listed = Listed::read(File::open(root.path()).unwrap(), |_| None).unwrap();
        assert_eq!((listed.entries.len(), listed.is_cut), (ENTRIES_MAX, true));
        let page = String::from_utf8(listed.page(b"")).unwrap();
        assert!(page.contains("<p>5000 entries are shown. The directory has more.</p>"));
        fs::remove_file(root.path().join("0")).unwrap();
        let listed = Listed::read(File::open(root.path()).unwrap(), |_| None).unwrap();
        assert_eq!((listed.entries.len(), listed.is_cut), (ENTRIES_MAX, false));
    }

    #[test]
    fn long_names_are_limited_together() {
        let root = tempfile::tempdir().unwrap();
        for n in 0..2100 {
            File::create(root.path().join(format!("{n:0250}"))).unwrap();
        }
        let listed = Listed::read(File::open(root.path()).unwrap(), |_| None).unwrap();
        assert_eq!((listed.entries.len(), listed.is_cut), (NAME_BYTES_MAX / 250, true));
    }

    #[test]
    fn the_policy_names_the_style_and_the_script() {
        for (directive, text) in [("style-src", STYLE), ("script-src", SCRIPT)] {
            let hash = base64(&Sha256::digest(text));
            let expected = format!("{directive} 'sha256-{hash}';");
            assert!(POLICY.contains(&expected), "{expected}");
        }
        assert!(POLICY.ends_with("\r\n") && POLICY.matches('\n').count() == 1);
        let page = page(vec![folder(b"a"), entry(b"b", 1)], b"x/");
        assert_eq!(page.matches("<style>").count() + page.matches("<script>").count(), 2);
        for forbidden in [" style=", " onclick=", " src=", "http:", "https:", "<link", "@import"] {
            assert!(!page.contains(forbidden), "{forbidden}");
        }
    }

    /// RFC 4648, 4.
    fn base64(bytes: &[u8]) -> String {
        const DIGITS: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut text = String::new();
        for group in bytes.chunks(3) {
            let byte = |at: usize| u32::from(*group.get(at).unwrap_or(&0));
            let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
            for at in 0..4 {
                let digit = DIGITS[(bits >> (18 - 6 * at) & 63) as usize];
                text.push(if at <= group.len() { digit.into() } else { '=' });
            }
        }
        text
    }

    #[test]
    fn a_page() {
        let text = page(vec![folder(b"pictures"), entry(b"a b.txt", 1536)], b"x/y/");
        let row = "<tr><td><a href=\"a%20b.txt\"><bdi>a b.txt</bdi></a></td>\
                   <td data-key=\"1536\" title=\"1536 bytes\">1.5\u{a0}KiB</td>\
                   <td data-key=\"784111777\"><time datetime=\"1994-11-06T08:49:37Z\">\
                   1994-11-06 08:49</time></td></tr>";
        assert!(text.contains(row), "{text}");
        assert!(text.contains("<a href=\"pictures/\"><bdi>pictures/</bdi></a>"));
        assert!(text.contains("<title>/x/y/</title>"));
        let crumbs = "<a href=\"../../\"><bdi>/</bdi></a><a href=\"../\"><bdi>x/</bdi></a>\
                      <a href=\"./\"><bdi>y/</bdi></a>";
        assert!(text.contains(crumbs), "{text}");
        assert!(text.contains("<a href=\"../\">../</a>") && text.contains("<p>2 entries</p>"));
        let root = page(Vec::new(), b"");
        assert!(!root.contains("../") && root.contains("<a href=\"./\"><bdi>/</bdi></a>"));
        assert!(root.contains("<p>0 entries</p>"));
        assert!(page(vec![entry(b"a", 1)], b"").contains("<p>1 entry</p>"));
    }

    #[test]
    fn sizes() {
        for (bytes, shown) in [
            (0, "0\u{a0}B"),
            (1023, "1023\u{a0}B"),
            (1024, "1.0\u{a0}KiB"),
            (1_048_524, "1023.9\u{a0}KiB"),
            (1_048_575, "1.0\u{a0}MiB"),
            (5 << 30, "5.0\u{a0}GiB"),
            (u64::MAX, "16.0\u{a0}EiB"),
        ] {
            assert_eq!(size_cell(bytes), format!("{bytes}\" title=\"{bytes} bytes\">{shown}"));
        }
    }

    #[test]
    fn names_cannot_change_the_page() {
        let marks = |text: &str| ['<', '>', '"', '\''].map(|mark| text.matches(mark).count());
        for name in [
            &b"<script>alert(1)<x>"[..],
            b"\"onmouseover=\"alert(1)",
            b"' x='y",
            b"javascript:alert(1)",
            b"a&lt;b",
            b"?a#b%41",
            b"\xff\xfe",
            b"a\x1b[31m\n\t",
            "\u{202e}gpj.exe\u{2066}".as_bytes(),
        ] {
            let path = [name, b"/"].concat();
            for (entry, harmless) in
                [(entry(name, 1), entry(b"x", 1)), (folder(name), folder(b"x"))]
            {
                let text = page(vec![entry], &path);
                assert_eq!(marks(&text), marks(&page(vec![harmless], b"x/")), "{text}");
                assert!(!text.contains("&lt;b<"), "the escape character is escaped");
                let hrefs =
                    text.split("href=\"").skip(1).map(|rest| rest.split_once('"').unwrap().0);
                for href in hrefs {
                    let is_plain =
                        |byte: u8| byte.is_ascii_alphanumeric() || b"%-._~/".contains(&byte);
                    assert!(href.bytes().all(is_plain), "{href}");
                }
                assert!(!text.chars().any(|c| c != '\n' && is_control(c)));
            }
        }
    }

    #[test]
    fn json_of_a_directory() {
        let mut entries =
            vec![folder(b"d"), entry(b"a\"b\n", 5), entry(b"\xff", u64::MAX), entry(b"old", 1)];
        entries[3].modified_s = -1;
        let text = Listed { entries, is_cut: false }.json();
        let found: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let mtime = "Sun, 06 Nov 1994 08:49:37 GMT";
        let expected = serde_json::json!([
            { "name": "d", "type": "directory", "mtime": mtime, "href": "d/" },
            { "name": "a\"b\n", "type": "file", "mtime": mtime, "size": 5, "href": "a%22b%0A" },
            { "name": "\u{fffd}", "type": "file", "mtime": mtime, "size": u64::MAX, "href": "%FF" },
            { "name": "old", "type": "file", "size": 1, "href": "old" },
        ]);
        assert_eq!(found, expected);
        let empty: serde_json::Value = serde_json::from_slice(&Listed::default().json()).unwrap();
        assert_eq!(empty, serde_json::json!([]));
    }

    proptest! {
        #[test]
        fn any_name_is_json_and_is_found_by_its_link(
            name in proptest::collection::vec(1u8.., 1..20),
        ) {
            let slash = |byte: &u8| matches!(byte, b'/' | b'\\');
            prop_assume!(!name.iter().any(slash) && name[0] != b'.');
            let text = Listed { entries: vec![entry(&name, 1)], is_cut: false }.json();
            let found: serde_json::Value = serde_json::from_slice(&text).unwrap();
            let target = format!("/x/{}", found[0]["href"].as_str().unwrap());
            let mut path = Vec::new();
            crate::http::target::resolve(target.as_bytes(), &mut path).unwrap();
            prop_assert_eq!(path, [b"x/", &name[..]].concat());
        }
    }
}
