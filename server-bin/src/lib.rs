//! The parts of `ringwrightd`, so that tests and fuzzers reach them.

pub mod access_log;
pub mod admin;
pub mod clients;
pub mod config;
pub mod daemon;
pub mod descriptors;
pub mod doctor;
pub mod echo;
pub mod files;
pub mod generation;
pub mod http;
pub mod inherited;
pub mod messages;
pub mod options;
pub mod packets;
pub mod places;
pub mod proxies;
pub mod proxy_protocol;
mod quiet;
pub mod reload;
pub mod serve;
pub mod served;
pub mod signals;
#[cfg(test)]
mod simulated;
pub mod site;
pub mod troubles;
pub mod units;
