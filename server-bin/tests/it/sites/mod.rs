//! Sites and rules of a configuration file, on the wire: each key changes what a client gets.

mod auth;
mod bypass;
mod cors;
mod errors;
mod files;
mod headers;
mod health;
mod links;
mod listings;
mod metrics;
mod names;
mod proxies;
mod rate;
mod redirects;
mod variants;
