//! Lists of requests: one `WEIGHT METHOD URL [BODY]` per line.

use ringload_lifecycle::http::{Url, head};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Maximum number of requests in a list.
pub const ENTRIES_MAX: usize = 10_000;
/// Maximum size of a list, in bytes.
const LIST_BYTES_MAX: usize = 16 << 20;
/// Maximum size of a body, in bytes.
pub const BODY_BYTES_MAX: usize = 64 << 20;
/// Maximum weight, so that the sum of all fits in 64 bits.
const WEIGHT_MAX: u64 = 1 << 32;

/// A line of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Share of the requests, relative to the other lines.
    pub weight: u64,
    /// The method.
    pub method: String,
    /// The URL, or its path.
    pub target: String,
    /// The body, if one is given.
    pub body: Option<Vec<u8>>,
}

impl Entry {
    /// Returns the URL of a request to the server of `base`.
    ///
    /// # Errors
    /// The target is not a URL, or is one of another server.
    pub fn url(&self, base: &Url) -> Result<Url, String> {
        if self.target.starts_with('/') {
            return format!("http://{}{}", base.host, self.target).parse();
        }
        let url: Url = self.target.parse()?;
        match url.address.eq_ignore_ascii_case(&base.address) {
            true => Ok(url),
            false => Err(format!("{url} is not on {}, the server of URL", base.address)),
        }
    }
}

/// Reads a list. Empty lines and lines that begin with `#` are skipped. A body is the rest of its
/// line, or the content of FILE if it is `@FILE`, relative to the folder of the list.
///
/// # Errors
/// Names the line and the mistake.
pub fn read(path: &str) -> Result<Vec<Entry>, String> {
    let bytes = read_file(Path::new(path), LIST_BYTES_MAX)?;
    let text = String::from_utf8(bytes).map_err(|_| "the list is not UTF-8".to_string())?;
    let folder = Path::new(path).parent().unwrap_or(Path::new(""));
    let lines = (1..).zip(text.lines().map(str::trim));
    let mut entries = Vec::new();
    for (number, line) in lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
        if entries.len() == ENTRIES_MAX {
            return Err(format!("the list has more than {ENTRIES_MAX} requests"));
        }
        let entry = entry(line, folder).map_err(|wrong| format!("line {number}: {wrong}"))?;
        entries.push(entry);
    }
    match entries.iter().any(|entry| entry.weight > 0) {
        true => Ok(entries),
        false => Err("the list has no request with a weight above 0".into()),
    }
}

fn entry(line: &str, folder: &Path) -> Result<Entry, String> {
    let mut rest = line;
    let mut word = || {
        let (word, behind) = rest.split_at(rest.find([' ', '\t']).unwrap_or(rest.len()));
        rest = behind.trim_start();
        word
    };
    let (weight, method, target) = (word(), word(), word());
    let weight = weight.parse().ok().filter(|weight| *weight <= WEIGHT_MAX).ok_or_else(|| {
        format!(
            "{weight:?} is not a weight from 0 to {WEIGHT_MAX}; expected WEIGHT METHOD URL BODY"
        )
    })?;
    if target.is_empty() {
        return Err("expected WEIGHT METHOD URL BODY, with spaces between them".into());
    }
    let body = match rest {
        "" => None,
        _ => Some(body(rest, folder)?),
    };
    Ok(Entry { weight, method: self::method(method)?, target: target.into(), body })
}

/// Reads a method.
///
/// # Errors
/// It is not a token, or it is CONNECT, whose response begins a tunnel.
pub fn method(text: &str) -> Result<String, String> {
    match text {
        "CONNECT" => Err("CONNECT is not supported".into()),
        "" => Err("a method is a name such as GET".into()),
        _ if text.bytes().all(head::is_token) => Ok(text.into()),
        _ => Err("a method consists of letters, digits and !#$%&'*+-.^_`|~".into()),
    }
}

/// Reads a body: text, or `@FILE`.
///
/// # Errors
/// The file cannot be read, or is too large.
pub fn body(text: &str, folder: &Path) -> Result<Vec<u8>, String> {
    match text.strip_prefix('@') {
        Some(path) => read_file(&folder.join(path), BODY_BYTES_MAX),
        None => Ok(text.into()),
    }
}

fn read_file(path: &Path, bytes_max: usize) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(bytes_max as u64 + 1).read_to_end(&mut bytes))
        .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    match bytes.len() > bytes_max {
        true => Err(format!("{} has more than {bytes_max} bytes", path.display())),
        false => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_line_is_a_request() {
        let folder = tempfile::tempdir().expect("a folder");
        let list = folder.path().join("list");
        fs::write(folder.path().join("body.bin"), b"\0\xff").expect("a file");
        let text = "# weight method URL body\n\n10 GET /a?b\n  1\tPOST\thttp://h:81/c\t{\"d\": 1} \
                    \n\
                    0 PUT / @body.bin\n";
        fs::write(&list, text).expect("a file");
        let entry = |weight, method: &str, target: &str, body: Option<&[u8]>| Entry {
            weight,
            method: method.into(),
            target: target.into(),
            body: body.map(<[u8]>::to_vec),
        };
        let expected = [
            entry(10, "GET", "/a?b", None),
            entry(1, "POST", "http://h:81/c", Some(b"{\"d\": 1}")),
            entry(0, "PUT", "/", Some(b"\0\xff")),
        ];
        let entries = read(list.to_str().expect("UTF-8")).expect("a list");
        assert_eq!(entries, expected);
        let base = "http://h:81/base".parse().expect("a URL");
        let urls: Vec<_> =
            entries.iter().map(|entry| entry.url(&base).expect("a URL").to_string()).collect();
        assert_eq!(urls, ["http://h:81/a?b", "http://h:81/c", "http://h:81/"]);
        let other = "http://h:82/".parse().expect("a URL");
        assert!(entries[0].url(&other).is_ok());
        let error = entries[1].url(&other).expect_err("another server");
        assert!(error.contains("is not on h:82"), "{error}");
    }

    #[test]
    fn a_wrong_line_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let list = folder.path().join("list");
        for (text, says) in [
            ("", "no request with a weight"),
            ("0 GET /", "no request with a weight"),
            ("1 GET /\nGET /", "line 2: \"GET\" is not a weight"),
            ("4294967297 GET /", "is not a weight"),
            ("-1 GET /", "is not a weight"),
            ("1 GET", "expected WEIGHT METHOD URL"),
            ("1", "expected WEIGHT METHOD URL"),
            ("1 CONNECT /", "CONNECT is not supported"),
            ("1 G(T /", "a method consists of"),
            ("1 GET / @missing", "missing: No such file"),
            (&"1 GET /\n".repeat(ENTRIES_MAX + 1), "more than 10000 requests"),
        ] {
            fs::write(&list, text).expect("a file");
            let error = read(list.to_str().expect("UTF-8")).expect_err(text);
            assert!(error.contains(says), "{text}: {error}");
        }
        assert!(read("/missing").expect_err("no file").contains("cannot read /missing"));
    }
}
