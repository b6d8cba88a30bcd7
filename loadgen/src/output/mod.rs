//! Report files, and the commands that read reports.

pub mod compare;
pub mod files;
mod hlog;
pub mod html;
pub mod merge;
pub mod outputs;
pub mod show;
