//! The parts of `ringload` that run without the engine: clients on plain sockets, and everything
//! that all commands share.
//!
//! No code of the engine runs here, so that a bug of the engine cannot hide itself. The package
//! graph proves it: this package does not depend on `ringwright`.
//!
//! # Commands
//! - [`churn`] and [`replay`] inject faults and judge the server's reactions. A
//!   [`script::Script`] describes one connection. A [`dialect::Dialect`] implements one protocol:
//!   the requests, the check of received bytes, and the judgement of each ending. [`oracle`] has
//!   the rules that all protocols share. [`walk`] runs many scripts at once and records the
//!   results.
//! - [`herd`] holds idle connections and probes them with the requests of [`clients`].
//!
//! # Shared with the commands on the engine
//! - Protocols: [`clients`] makes the requests of load and checks the replies.
//! - Formats: [`http`] and [`packets`]; [`stream`] has the bytes that are sent and come back.
//! - Ends of a run: [`delivery::Delivery`], [`failure::Failure`], [`mod@report`].
//! - Helpers: [`mod@route`], [`rows`], [`screen`], [`system`], [`units`], [`random`].

/// Prints a line to standard error and ignores a failure; `eprintln!` would panic if standard error
/// is closed.
#[macro_export]
macro_rules! note {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($words)*);
    }};
}

/// Declares an enum whose variants have names in output: `Variant = "name"`. Adds `ALL`, all values
/// in their order, and `name`.
#[macro_export]
macro_rules! named {
    (
        $(#[$of_enum:meta])*
        pub enum $enum:ident { $($(#[$of_variant:meta])* $variant:ident = $name:literal,)* }
    ) => {
        $(#[$of_enum])*
        pub enum $enum { $($(#[$of_variant])* $variant,)* }

        impl $enum {
            /// Every value, in order.
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$variant),*];

            /// The name on the command line and in output.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

pub mod args;
pub mod bystander;
pub mod cell;
pub mod churn;
pub mod clients;
pub mod delivery;
pub mod dialect;
pub mod dialects;
pub mod draw;
pub mod event_loop;
pub mod failure;
pub mod fault;
pub mod finding;
pub mod herd;
pub mod http;
pub mod oracle;
pub mod packets;
pub mod random;
pub mod replay;
pub mod report;
pub mod route;
pub mod rows;
#[cfg(any(test, feature = "testing"))]
pub mod schema;
pub mod screen;
pub mod script;
pub mod shrink;
pub mod socket;
pub mod stream;
pub mod system;
pub mod timeline;
pub mod units;
pub mod walk;
