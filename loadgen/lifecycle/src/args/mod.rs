//! The options of the commands of this package, and of all connections.

mod churn;
mod idle;
mod route;

pub use churn::{ChurnArgs, OracleArgs, PATIENCE, ReplayArgs};
pub use idle::{HerdProtocol, IdleArgs};
pub use route::{Resolved, RouteArgs};

use std::time::Duration;

/// Maximum of `--connections`. A single address has far fewer ports.
pub const CONNECTIONS_MAX: u64 = 1_000_000;
/// Maximum of `--duration`, `--hold`, `--probe-every` and `--timeout`.
pub const DURATION_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// The options of every command that a run needs.
#[derive(Clone, Copy, Debug, Default)]
pub struct RunArgs {
    /// `--seed`. Default: from the clock.
    pub seed: Option<u64>,
    /// `--quiet`: no progress.
    pub quiet: bool,
}

/// Checks the form `HOST:PORT` without resolving the name.
///
/// # Errors
/// Describes the form.
pub fn parse_address(text: &str) -> Result<String, String> {
    let is_host = |host: &str| match host.strip_prefix('[') {
        Some(rest) => rest.len() > 1 && rest.ends_with(']'),
        // An IPv6 address has colons of its own.
        None => !host.is_empty() && !host.contains(':'),
    };
    let is_port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
    match text.rsplit_once(':') {
        Some((host, port)) if is_host(host) && is_port(port) => Ok(text.into()),
        Some((host, "")) if is_host(host) => {
            Err(format!("the port is missing behind {text}; expected HOST:PORT"))
        }
        _ => Err(
            "expected HOST:PORT with a port from 1 to 65535; write an IPv6 address in brackets, \
                 as in [::1]:7000"
                .into(),
        ),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use clap::{Args, Parser};

    #[derive(Parser)]
    struct Command<A: Args> {
        #[command(flatten)]
        args: A,
    }

    /// Reads the arguments of a command.
    pub(crate) fn read<A: Args>(arguments: &[&str]) -> A {
        Command::parse_from([&["ringload"], arguments].concat()).args
    }
}
