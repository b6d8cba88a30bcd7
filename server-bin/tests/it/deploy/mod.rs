//! The files of `server-bin/deploy/`, used as `DEPLOYMENT.md` describes.

mod kubernetes;
mod nginx;
mod rolls;
mod unit;
mod watching;

use std::path::{Path, PathBuf};

/// A file of `server-bin/deploy/`.
fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name)
}

/// Replaces each text by another one, which the file must contain.
#[track_caller]
fn replaced(text: &str, replacements: &[(&str, &str)]) -> String {
    replacements.iter().fold(text.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "no {from} in {text}");
        text.replace(from, to)
    })
}
