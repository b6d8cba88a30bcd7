//! The protocols, as spoken by clients that misbehave.

pub mod echo;
mod ending;
pub mod http;
mod learnt;
pub mod packets;

use super::dialect::Dialect;
use super::script::Target;
use crate::run::Failure;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

/// What a dialect is told of a server beyond its target.
#[derive(Clone, Debug)]
pub struct Hints {
    /// `http`: what is asked for beside the path of the target.
    pub paths: Vec<String>,
    /// `http`: what the server is held to; `None`: by who it says that it is.
    pub strictness: Option<http::Strictness>,
    /// The longest wait for an answer while its files are learnt.
    pub timeout: Duration,
}

/// The dialect of a target that is at `address`, if it can be reached. What its files are is learnt from it, by clients
/// that behave.
///
/// # Errors
/// Nobody speaks its scheme, its path means nothing, or the server answers what it must not.
pub fn learn(
    target: &Target,
    address: SocketAddr,
    hints: &Hints,
) -> Result<Arc<dyn Dialect>, String> {
    match &*target.scheme {
        "http" => {
            let (host, strictness) = (&target.address, hints.strictness);
            let paths = paths(target, hints);
            Ok(Arc::new(http::Http::learn(address, host, &paths, strictness, hints.timeout)?))
        }
        "packets" => Ok(Arc::new(packets::Packets::learn(address, hints.timeout)?)),
        _ => dialect(target),
    }
}

/// What is asked for.
fn paths(target: &Target, hints: &Hints) -> Vec<String> {
    let mut paths = hints.paths.clone();
    if !target.path.is_empty() || paths.is_empty() {
        paths.push(if target.path.is_empty() { "/".into() } else { target.path.clone() });
    }
    paths
}

/// Whether it is a target at all.
fn check(target: &Target, hints: &Hints) -> Result<(), String> {
    match (&*target.scheme, &*target.path) {
        ("http", _) => http::check(&paths(target, hints)),
        ("echo" | "packets", "" | "/") => Ok(()),
        ("echo" | "packets", path) => Err(format!("{path}: {}:// has no paths", target.scheme)),
        (other, _) => {
            Err(format!("{other}:// is not spoken here; echo://, http:// and packets:// are"))
        }
    }
}

/// As [`learn`], with the failure of a whole run.
///
/// # Errors
/// Nothing answers at `address`; or as of [`learn`].
pub fn dialect_at(
    target: &Target,
    address: SocketAddr,
    hints: &Hints,
) -> Result<Arc<dyn Dialect>, Failure> {
    check(target, hints).map_err(Failure::Usage)?;
    learn(target, address, hints).map_err(|what| {
        match TcpStream::connect_timeout(&address, hints.timeout) {
            Ok(_) => Failure::Server(what),
            Err(error) => Failure::Unresolved(format!("nothing answers at {address}: {error}")),
        }
    })
}

/// The dialect of a target of which nothing need be learnt.
///
/// # Errors
/// It is none of these.
pub fn dialect(target: &Target) -> Result<Arc<dyn Dialect>, String> {
    match &*target.scheme {
        "echo" => Ok(Arc::new(echo::EchoDialect::default())),
        other => Err(format!("{other}:// is not spoken here; echo:// is")),
    }
}
