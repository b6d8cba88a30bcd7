//! The configuration file: its keys, its faults, and what the daemon runs of it.

pub mod changes;
pub mod fault;
pub mod file;
pub mod load;
pub mod place;
pub mod plan;
pub mod rule;
pub mod values;

#[cfg(test)]
mod tests;
