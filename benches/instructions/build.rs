//! Tells the programs by which compiler they are built: instruction counts depend on it.

use std::env;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let rustc = env::var("RUSTC").expect("cargo says which compiler it uses");
    let output = Command::new(rustc).arg("--version").output().expect("cargo has run it, too");
    let version = String::from_utf8(output.stdout).expect("a version is text");
    println!("cargo::rustc-env=RINGWRIGHT_RUSTC={}", version.trim());
}
