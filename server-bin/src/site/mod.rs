//! The sites of the HTTP server: names, rules, and what is sent for a path.

pub mod auth;
pub mod cors;
pub mod counters;
pub mod headers;
pub mod listing;
pub mod names;
pub mod pattern;
pub mod rate;
pub mod redirect;
pub mod rules;
pub mod spec;
pub mod variants;
