//! The protocols for misbehaving clients.

pub mod echo;
mod ending;
pub mod http;
mod learnt;
pub mod packets;
mod recent;

use super::dialect::Dialect;
use super::script::Target;
use crate::failure::Failure;
use crate::route::Route;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

/// Facts about a server in addition to its target.
#[derive(Clone, Debug)]
pub struct Hints {
    /// `http`: paths to request in addition to that of the target.
    pub paths: Vec<String>,
    /// `http`: the rules for the server; `None` to choose them by its `Server` field.
    pub strictness: Option<http::Strictness>,
    /// Longest wait for an answer while the server's files are learnt.
    pub timeout: Duration,
    /// `http`: the body of a path may differ between replies.
    pub vary_ok: bool,
    /// How connections begin.
    pub route: Route,
}

impl Hints {
    /// Opens a connection to learn from the server at `address`.
    fn open(&self, address: SocketAddr) -> io::Result<TcpStream> {
        self.route.open(address, (0, u64::MAX), self.timeout)
    }
}

/// Returns the dialect of a target at `address`. Learns the server's files with well-behaved
/// requests.
///
/// # Errors
/// The scheme is unknown, the path is invalid, or the server's answers are wrong.
pub fn learn(
    target: &Target,
    address: SocketAddr,
    hints: &Hints,
) -> Result<Arc<dyn Dialect>, String> {
    match &*target.scheme {
        "http" => {
            let paths = paths(target, hints);
            Ok(Arc::new(http::Http::learn(address, &target.address, &paths, hints)?))
        }
        "packets" => Ok(Arc::new(packets::Packets::learn(address, hints)?)),
        _ => dialect(target),
    }
}

/// Returns the paths to request.
fn paths(target: &Target, hints: &Hints) -> Vec<String> {
    let mut paths = hints.paths.clone();
    if !target.path.is_empty() || paths.is_empty() {
        paths.push(if target.path.is_empty() { "/".into() } else { target.path.clone() });
    }
    paths
}

/// Checks scheme and path of a target.
fn check(target: &Target, hints: &Hints) -> Result<(), String> {
    match (&*target.scheme, &*target.path) {
        ("http", _) => http::check(&paths(target, hints)),
        ("echo" | "packets", "" | "/") => Ok(()),
        ("echo" | "packets", path) => {
            Err(format!("{target}: {}:// has no paths; remove {path}", target.scheme))
        }
        (other, _) => {
            Err(format!("{other}:// is not supported; expected echo://, http:// or packets://"))
        }
    }
}

/// As [`learn`], with the error type of a run.
///
/// # Errors
/// No server answers at `address`, or as for [`learn`].
pub fn dialect_at(
    target: &Target,
    address: SocketAddr,
    hints: &Hints,
) -> Result<Arc<dyn Dialect>, Failure> {
    check(target, hints).map_err(Failure::Usage)?;
    learn(target, address, hints).map_err(|what| match hints.open(address) {
        Ok(_) => Failure::Server(what),
        Err(error) => Failure::Unresolved(format!("no server answers at {address}: {error}")),
    })
}

/// Returns the dialect of a target without files to learn.
///
/// # Errors
/// The scheme is not `echo`.
pub fn dialect(target: &Target) -> Result<Arc<dyn Dialect>, String> {
    match &*target.scheme {
        "echo" => Ok(Arc::new(echo::EchoDialect::default())),
        other => Err(format!("{other}:// is not supported; expected echo://")),
    }
}
