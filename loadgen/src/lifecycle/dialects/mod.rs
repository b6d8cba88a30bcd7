//! The protocols, as spoken by clients that misbehave.

pub mod echo;
mod ending;
pub mod http;
mod learnt;
pub mod packets;

use super::dialect::Dialect;
use super::script::Target;
use std::sync::Arc;

/// The dialect of a target.
///
/// # Errors
/// Nobody speaks its scheme, or its path means nothing.
pub fn dialect(target: &Target) -> Result<Arc<dyn Dialect>, String> {
    match &*target.scheme {
        "echo" => Ok(Arc::new(echo::EchoDialect::default())),
        other => Err(format!("{other}:// is not spoken here; echo:// is")),
    }
}
