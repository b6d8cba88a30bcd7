//! The reasons why a name has no address.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

const REMEDY: &str = "add it to /etc/hosts or use an IP address";

/// The reason why there is no address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The text is not `HOST:PORT`.
    Form,
    /// The host can be no name: a part has more than 63 bytes, or all have more than 253.
    Invalid,
    /// A name server answered that the name does not exist.
    Unknown {
        /// The name server.
        server: SocketAddr,
    },
    /// A name server answered that the name has no IP address.
    NoAddress {
        /// The name server.
        server: SocketAddr,
    },
    /// No name server gave an answer.
    NoAnswer {
        /// The name servers and the last failure of each.
        failures: Vec<(SocketAddr, String)>,
        /// The time since the first question.
        elapsed: Duration,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Form => write!(
                f,
                "expected an address and a port, such as 127.0.0.1:8080, [::1]:80 or localhost:0"
            ),
            Self::Invalid => write!(f, "this cannot be the name of a host; use an IP address"),
            Self::Unknown { server } => write!(
                f,
                "it is not in /etc/hosts, and the name server {server} says that it does not \
                 exist; check its spelling, {REMEDY}"
            ),
            Self::NoAddress { server } => write!(
                f,
                "it is not in /etc/hosts, and the name server {server} has no IP address for it; \
                 {REMEDY}"
            ),
            Self::NoAnswer { failures, elapsed } => {
                let time = match elapsed.as_secs() {
                    0 => String::new(),
                    seconds => format!(" within {seconds} s"),
                };
                let each: Vec<String> =
                    failures.iter().map(|(server, why)| format!("{server}: {why}")).collect();
                write!(
                    f,
                    "it is not in /etc/hosts, and no name server answered{time} ({}); \
                     check the lines `nameserver` of /etc/resolv.conf (without any, 127.0.0.1 and \
                     ::1 are asked), {REMEDY}",
                    each.join("; "),
                )
            }
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_has_a_remedy() {
        let server = SocketAddr::from(([192, 0, 2, 53], 53));
        let failures = vec![(server, "no reply".to_owned())];
        for (error, parts) in [
            (Error::Unknown { server }, &["192.0.2.53:53", "does not exist", REMEDY][..]),
            (Error::NoAddress { server }, &["192.0.2.53:53", "no IP address", REMEDY]),
            (
                Error::NoAnswer { failures, elapsed: Duration::from_millis(5_001) },
                &["answered within 5 s (192.0.2.53:53: no reply);", "resolv.conf", REMEDY],
            ),
            (
                Error::NoAnswer { failures: Vec::new(), elapsed: Duration::from_millis(9) },
                &["no name server answered ()"],
            ),
            (Error::Invalid, &["use an IP address"]),
            (Error::Form, &["expected an address and a port"]),
        ] {
            let said = error.to_string();
            assert!(parts.iter().all(|part| said.contains(part)), "{said}");
        }
    }
}
