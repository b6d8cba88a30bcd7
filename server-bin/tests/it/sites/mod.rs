//! Sites and rules of a configuration file, on the wire: each key changes what a client gets.

mod auth;
mod errors;
