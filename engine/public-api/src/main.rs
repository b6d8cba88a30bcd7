//! Compares the public items of the engine with `engine/public-api.txt`, so that no change of them
//! goes unnoticed.
//!
//! `cargo run -p ringwright-public-api` fails and prints the differences. With `-- --write` it
//! writes the list. Rust 1.95 writes the JSON only with `RUSTC_BOOTSTRAP`, which is set here for
//! rustdoc alone.

use public_api::{Builder, PublicApi};
use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

/// The list, relative to the package of this program.
const LIST: &str = "../public-api.txt";
/// The features whose items are public. `internals` is not one of them.
const FEATURES: &str = "bytes,testing";

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let list = Path::new(env!("CARGO_MANIFEST_DIR")).join(LIST);
    let present = items()?;
    if std::env::args().any(|argument| argument == "--write") {
        fs::write(list, present)?;
        return Ok(ExitCode::SUCCESS);
    }
    let expected = fs::read_to_string(list)?;
    let (expected, present): (BTreeSet<&str>, BTreeSet<&str>) =
        (expected.lines().collect(), present.lines().collect());
    for removed in expected.difference(&present) {
        println!("-{removed}");
    }
    for added in present.difference(&expected) {
        println!("+{added}");
    }
    if expected == present {
        println!("{} public items, as engine/public-api.txt lists them", present.len());
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!(
        "the public items of the engine have changed; if that is meant, say so in CHANGELOG.md and \
         run: cargo run -p ringwright-public-api -- --write"
    );
    Ok(ExitCode::FAILURE)
}

/// The public items, one per line, without what the compiler derives.
fn items() -> Result<String, Box<dyn Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/public-api");
    let status = Command::new(env!("CARGO"))
        .args(["rustdoc", "--locked", "--quiet", "--package", "ringwright", "--lib"])
        .args(["--features", FEATURES, "--target-dir"])
        .arg(&folder)
        .args(["--", "-Z", "unstable-options", "--output-format", "json", "--cap-lints", "allow"])
        .env("RUSTC_BOOTSTRAP", "1")
        .status()?;
    if !status.success() {
        return Err(format!("cargo rustdoc failed: {status}").into());
    }
    let api: PublicApi = Builder::from_rustdoc_json(folder.join("doc/ringwright.json"))
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .omit_auto_derived_impls(true)
        .build()?;
    let mut items: Vec<String> = api.items().map(|item| format!("{item}\n")).collect();
    items.dedup();
    Ok(items.concat())
}
