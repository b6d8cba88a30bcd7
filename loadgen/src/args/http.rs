//! The options of `http`.

use super::LoadArgs;
use super::list::{self, Entry};
use clap::Args;
use ringload_lifecycle::clients::http::{Request, Requests, Rules, Statuses};
use ringload_lifecycle::http::{Url, head};
use std::path::Path;
use std::sync::Arc;

/// The options of `http`.
#[derive(Clone, Debug, Args)]
pub struct HttpArgs {
    /// The URL.
    #[arg(
        help = "URL to request: http://HOST[:PORT][/PATH]; all replies with a status must have \
                the same body, which the first two equal replies determine"
    )]
    pub url: Url,
    /// Header field to send with every request; repeatable
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = parse_field)]
    pub fields: Vec<(String, String)>,
    /// Method of the requests. Default: GET, or POST with --body
    #[arg(short = 'X', long, value_name = "METHOD", env = "RINGLOAD_METHOD", hide_env = true,
          value_parser = list::method)]
    pub method: Option<String>,
    /// Body of the requests: TEXT, or the content of FILE with @FILE; at most 64MiB
    #[arg(short, long, value_name = "TEXT|@FILE", env = "RINGLOAD_BODY", hide_env = true,
          value_parser = parse_body)]
    pub body: Option<Body>,
    /// Draw each request from FILE instead of --method and --body, at random by --seed. A line is
    /// WEIGHT METHOD URL BODY, for example '3 POST /form a=b' or '1 PUT /x @FILE'; BODY may be
    /// missing. URL is a path, or a URL of the same server. Replies are compared per line
    #[arg(long, value_name = "FILE", env = "RINGLOAD_URLS", hide_env = true,
          value_parser = parse_list)]
    pub urls: Option<List>,
    /// Accept that the body differs between replies, as that of a page with a time or a token
    /// does; status and framing are still checked. The report counts the differing bodies
    #[arg(long, visible_alias = "bodies-may-vary", env = "RINGLOAD_VARY_OK", hide_env = true,
          value_parser = clap::builder::FalseyValueParser::new())]
    pub vary_ok: bool,
    /// Statuses that are no errors, all others are: 200,304 or 2xx,404. Default: all below 400
    #[arg(long, value_name = "LIST", env = "RINGLOAD_EXPECT_STATUS", hide_env = true)]
    pub expect_status: Option<Statuses>,
    /// The options of the load commands.
    #[command(flatten)]
    pub load: LoadArgs,
}

/// A body, read when the command line is.
#[derive(Clone, Debug)]
pub struct Body(pub Arc<[u8]>);

/// The requests of a file, read when the command line is.
#[derive(Clone, Debug)]
pub struct List(pub Arc<[Entry]>);

impl HttpArgs {
    /// Returns the replies that are no errors.
    #[must_use]
    pub fn rules(&self) -> Rules {
        Rules { vary_ok: self.vary_ok, statuses: self.expect_status.clone() }
    }

    /// Returns the method of the requests without `--urls`.
    #[must_use]
    pub fn method(&self) -> &str {
        let default = if self.body.is_some() { "POST" } else { "GET" };
        self.method.as_deref().unwrap_or(default)
    }

    /// Returns the requests of the run.
    ///
    /// # Errors
    /// A line of `--urls` names another server.
    pub fn requests(&self) -> Result<Requests, String> {
        let Some(List(list)) = &self.urls else {
            let body = self.body.as_ref().map(|Body(bytes)| &bytes[..]);
            return Ok(Requests::new(vec![Request::new(
                self.method(),
                &self.url,
                &self.fields,
                body,
                1,
            )]));
        };
        let request = |entry: &Entry| {
            let url = entry.url(&self.url).map_err(|wrong| format!("--urls: {wrong}"))?;
            let body = entry.body.as_deref();
            Ok(Request::new(&entry.method, &url, &self.fields, body, entry.weight))
        };
        list.iter().map(request).collect::<Result<_, String>>().map(Requests::new)
    }

    pub(super) fn settle(&mut self, from_line: impl Fn(&str) -> bool) -> Result<(), String> {
        match (from_line("urls"), from_line("method") || from_line("body")) {
            (true, true) => return Err("give either --urls, or --method and --body".into()),
            // RINGLOAD_URLS is overridden by the command line.
            (false, true) => self.urls = None,
            _ => {}
        }
        self.load.settle(self.requests()?.bytes_max() as u64, from_line)
    }
}

/// Reads a header field of the form `Name: value`.
fn parse_field(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("expected 'Name: value'")?;
    let value = value.trim();
    if name.is_empty() || !name.bytes().all(head::is_token) {
        return Err("invalid field name; allowed are letters, digits and !#$%&'*+-.^_`|~".into());
    }
    if !value.bytes().all(head::is_text) {
        return Err("control characters are not allowed in the value".into());
    }
    for framing in ["content-length", "transfer-encoding"] {
        if name.eq_ignore_ascii_case(framing) {
            return Err(format!("{name} is not allowed; -b sends a body and announces its length"));
        }
    }
    Ok((name.into(), value.into()))
}

fn parse_body(text: &str) -> Result<Body, String> {
    list::body(text, Path::new("")).map(|bytes| Body(bytes.into()))
}

fn parse_list(path: &str) -> Result<List, String> {
    list::read(path).map(|entries| List(entries.into()))
}

#[cfg(test)]
mod tests {
    use super::super::{Cli, Target};
    use super::*;

    fn read(line: &str) -> HttpArgs {
        match Cli::read(line.split(' ')).expect(line).target {
            Target::Http(http) => http,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_method_follows_the_body_unless_given() {
        for (options, expected) in [
            ("", "GET / HTTP/1.1\r\nHost: h\r\n\r\n"),
            (" -b hi", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi"),
            (" -X PUT -b hi", "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi"),
            (" -X DELETE", "DELETE / HTTP/1.1\r\nHost: h\r\n\r\n"),
        ] {
            let requests = read(&format!("ringload http http://h/{options}")).requests();
            let requests = requests.expect("one request");
            assert_eq!(String::from_utf8_lossy(&requests.all()[0].bytes), expected);
        }
    }

    #[test]
    fn a_list_replaces_the_url() {
        let folder = tempfile::tempdir().expect("a folder");
        let list = folder.path().join("list");
        std::fs::write(&list, "1 GET /a\n2 POST http://h/b c\n").expect("a file");
        let line = format!("ringload http http://h/x -H X:y --urls {}", list.display());
        let requests = read(&line).requests().expect("two requests");
        let names: Vec<_> = requests.all().iter().map(|request| &*request.name).collect();
        assert_eq!(names, ["GET /a", "POST /b"]);
        assert!(requests.all()[1].bytes.ends_with(b"X: y\r\nContent-Length: 1\r\n\r\nc"));
        for (line, says) in [
            (format!("{line} -X PUT"), "either --urls"),
            (line.replace("http://h/x", "http://i/x"), "is not on i:80"),
            ("ringload http http://h/ --urls /missing".into(), "cannot read /missing"),
            ("ringload http http://h/ -b @/missing".into(), "cannot read /missing"),
            ("ringload http http://h/ -X CONNECT".into(), "CONNECT is not supported"),
            ("ringload http http://h/ -H Content-Length:1".into(), "-b sends a body"),
        ] {
            let error = Cli::read(line.split(' ')).expect_err(&line).to_string();
            assert!(error.contains(says), "{line}: {error}");
        }
    }
}
