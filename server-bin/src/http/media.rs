//! Content-Type by file name. A small table: what the web consists of, and what people download.

/// Sorted by extension.
const TYPES: [(&str, &str); 43] = [
    ("avif", "image/avif"),
    ("bin", OTHER),
    ("bmp", "image/bmp"),
    ("bz2", "application/x-bzip2"),
    ("css", "text/css; charset=utf-8"),
    ("csv", "text/csv; charset=utf-8"),
    ("epub", "application/epub+zip"),
    ("flac", "audio/flac"),
    ("gif", "image/gif"),
    ("gz", "application/gzip"),
    ("htm", "text/html; charset=utf-8"),
    ("html", "text/html; charset=utf-8"),
    ("ico", "image/vnd.microsoft.icon"),
    ("ics", "text/calendar; charset=utf-8"),
    ("jpeg", "image/jpeg"),
    ("jpg", "image/jpeg"),
    ("js", "text/javascript; charset=utf-8"),
    ("json", "application/json"),
    ("md", "text/markdown; charset=utf-8"),
    ("mjs", "text/javascript; charset=utf-8"),
    ("mp3", "audio/mpeg"),
    ("mp4", "video/mp4"),
    ("oga", "audio/ogg"),
    ("ogg", "audio/ogg"),
    ("ogv", "video/ogg"),
    ("otf", "font/otf"),
    ("pdf", "application/pdf"),
    ("png", "image/png"),
    ("svg", "image/svg+xml"),
    ("tar", "application/x-tar"),
    ("ttf", "font/ttf"),
    ("txt", "text/plain; charset=utf-8"),
    ("wasm", "application/wasm"),
    ("wav", "audio/wav"),
    ("webm", "video/webm"),
    ("webmanifest", "application/manifest+json"),
    ("webp", "image/webp"),
    ("woff", "font/woff"),
    ("woff2", "font/woff2"),
    ("xhtml", "application/xhtml+xml"),
    ("xml", "text/xml; charset=utf-8"),
    ("zip", "application/zip"),
    ("zst", "application/zstd"),
];

/// What nothing is known about.
const OTHER: &str = "application/octet-stream";

/// The media type of a file of that name.
#[must_use]
pub fn media_type(path: &[u8]) -> &'static str {
    let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    let Some(dot) = memchr::memrchr(b'.', name) else { return OTHER };
    let mut lower = [0; 16];
    let extension = &name[dot + 1..];
    let Some(lower) = lower.get_mut(..extension.len()) else { return OTHER };
    lower.copy_from_slice(extension);
    lower.make_ascii_lowercase();
    match TYPES.binary_search_by(|(known, _)| known.as_bytes().cmp(lower)) {
        Ok(found) => TYPES[found].1,
        Err(_) => OTHER,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted() {
        assert!(TYPES.is_sorted_by(|one, other| one.0 < other.0));
    }

    #[test]
    fn names() {
        for (path, expected) in [
            ("a/index.html", "text/html; charset=utf-8"),
            ("LOGO.PNG", "image/png"),
            ("archive.tar.gz", "application/gzip"),
            ("a.html/b", OTHER),
            ("noextension", OTHER),
            ("ends.with.dot.", OTHER),
            ("x.extensionlongerthananyknown", OTHER),
            ("", OTHER),
        ] {
            assert_eq!(media_type(path.as_bytes()), expected, "{path:?}");
        }
    }
}
