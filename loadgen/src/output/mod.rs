//! Live views, report files, and the commands that read reports.

pub mod compare;
pub mod files;
mod hlog;
pub mod html;
pub mod live;
pub mod merge;
pub mod outputs;
pub mod reading;
pub mod screen;
pub mod show;
