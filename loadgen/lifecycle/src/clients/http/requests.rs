//! The requests of a run: one, or several that are drawn by their weights.

use crate::http::Url;
use crate::random::{Random, scramble};
use std::sync::Arc;

/// The requests of a run.
#[derive(Clone, Debug)]
pub struct Requests {
    all: Arc<[Request]>,
    /// Sums of the weights of the requests up to each one.
    sums: Arc<[u64]>,
}

/// One request.
#[derive(Debug)]
pub struct Request {
    /// Method and path, for messages.
    pub name: String,
    /// Head and body.
    pub bytes: Vec<u8>,
    /// Its response has no body.
    pub is_head: bool,
    /// To execute it twice has the effect of executing it once (RFC 9110 section 9.2.2).
    pub is_idempotent: bool,
    weight: u64,
}

impl Request {
    /// Creates a request. A `Host` in `fields` replaces that of the URL. The length of the body is
    /// announced if there is one, or if the method expects one (RFC 9110 section 8.6).
    #[must_use]
    pub fn new(
        method: &str,
        url: &Url,
        fields: &[(String, String)],
        body: Option<&[u8]>,
        weight: u64,
    ) -> Self {
        let mut text = format!("{method} {} HTTP/1.1\r\n", url.path);
        if !fields.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            text += &format!("Host: {}\r\n", url.host);
        }
        for (name, value) in fields {
            text += &format!("{name}: {value}\r\n");
        }
        if body.is_some() || ["POST", "PUT", "PATCH"].contains(&method) {
            text += &format!("Content-Length: {}\r\n", body.unwrap_or_default().len());
        }
        text += "\r\n";
        let idempotent = ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"];
        Self {
            name: format!("{method} {}", url.path),
            bytes: [text.as_bytes(), body.unwrap_or_default()].concat(),
            is_head: method == "HEAD",
            is_idempotent: idempotent.contains(&method),
            weight,
        }
    }
}

impl Requests {
    /// Creates the requests of a run.
    ///
    /// # Panics
    /// There are none, or all weights are 0.
    #[must_use]
    pub fn new(all: Vec<Request>) -> Self {
        let sums = all.iter().scan(0, |sum, request| {
            *sum += request.weight;
            Some(*sum)
        });
        let sums: Arc<[u64]> = sums.collect();
        assert!(sums.last().is_some_and(|sum| *sum > 0), "a request that is drawn");
        Self { all: all.into(), sums }
    }

    /// All requests.
    #[must_use]
    pub fn all(&self) -> &[Request] {
        &self.all
    }

    /// Returns the size of the largest request, in bytes.
    #[must_use]
    pub fn bytes_max(&self) -> usize {
        self.all.iter().map(|request| request.bytes.len()).max().unwrap_or_default()
    }

    /// Returns the place of the request for a random number.
    fn place(&self, random: u64) -> usize {
        let sum = u128::from(self.sums[self.sums.len() - 1]);
        // Scales the number to 0..sum.
        let drawn = ((u128::from(random) * sum) >> u64::BITS) as u64;
        self.sums.partition_point(|sum| *sum <= drawn)
    }
}

/// Draws requests by their weights.
#[derive(Clone, Debug)]
pub struct Draw {
    requests: Requests,
    random: Random,
}

impl Draw {
    /// Creates the draw of a shard.
    #[must_use]
    pub const fn new(requests: Requests, seed: u64, shard: u64) -> Self {
        // A schedule draws from the seed itself; its gaps must not depend on the requests.
        Self { requests, random: Random::new(scramble(seed), shard) }
    }

    /// Returns the place of the next request.
    pub fn next(&mut self) -> usize {
        self.requests.place(self.random.next())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, fields: &[(&str, &str)], body: Option<&str>) -> Request {
        let url = "http://localhost/a?b".parse().expect("a URL");
        let fields: Vec<_> =
            fields.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        Request::new(method, &url, &fields, body.map(str::as_bytes), 1)
    }

    #[test]
    fn a_host_given_takes_the_place_of_the_urls() {
        let bytes = request("GET", &[("host", "example.org")], None).bytes;
        assert_eq!(bytes, b"GET /a?b HTTP/1.1\r\nhost: example.org\r\n\r\n");
    }

    #[test]
    fn a_body_is_announced_and_follows() {
        let text = |request: Request| String::from_utf8(request.bytes).expect("text");
        assert_eq!(
            text(request("POST", &[("X", "y")], Some("hello"))),
            "POST /a?b HTTP/1.1\r\nHost: localhost\r\nX: y\r\nContent-Length: 5\r\n\r\nhello"
        );
        for (method, body, is_announced) in [
            ("GET", None, false),
            ("DELETE", None, false),
            ("POST", None, true),
            ("PUT", None, true),
            ("GET", Some(""), true),
        ] {
            let text = text(request(method, &[], body));
            assert_eq!(text.contains("Content-Length: 0\r\n"), is_announced, "{text}");
        }
        assert!(request("HEAD", &[], None).is_head && !request("GET", &[], None).is_head);
        let repeats = ["GET", "HEAD", "PUT", "DELETE", "POST", "PATCH", "get"]
            .map(|method| request(method, &[], None).is_idempotent);
        assert_eq!(repeats, [true, true, true, true, false, false, false]);
    }

    #[test]
    fn requests_are_drawn_by_their_weights() {
        let weights = [2, 0, 5, 1];
        let all = weights.map(|weight| Request { weight, ..request("GET", &[], None) });
        let requests = Requests::new(all.into());
        let sum: u64 = weights.iter().sum();
        // Every part of the numbers belongs to one request.
        let mut counts = [0; 4];
        let parts = 8_000;
        for part in 0..parts {
            counts[requests.place(u64::MAX / parts * part + u64::MAX / parts / 2)] += 1;
        }
        assert!((0..4).all(|at| weights[at] * 1_000 == counts[at]), "{sum} {counts:?}");
        assert_eq!(requests.place(u64::MAX), 3);
        let draws = |seed, shard| {
            let mut draw = Draw::new(requests.clone(), seed, shard);
            (0..50).map(|_| draw.next()).collect::<Vec<_>>()
        };
        assert_eq!(draws(7, 1), draws(7, 1));
        assert_ne!(draws(7, 1), draws(7, 0));
        assert_ne!(draws(7, 1), draws(8, 1));
    }
}
