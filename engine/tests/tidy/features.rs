//! The features of the engine: a crate that only one of them needs is no part of other builds.

use std::collections::BTreeSet;
use std::process::Command;

/// Returns the names of the crates that the engine depends on with these features.
fn crates_with(features: &str) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--edges=no-dev", "--prefix=none", "--format={p}"])
        .args(["--package=ringwright", "--features", features])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).expect("names are UTF-8");
    lines.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn crates_of_features_are_no_part_of_other_builds() {
    let plain = crates_with("");
    assert!(plain.contains("io-uring") && plain.len() < 15, "{plain:?}");
    for (feature, name) in [("tracing", "tracing"), ("bytes", "bytes")] {
        assert!(!plain.contains(name), "{plain:?}");
        let with = crates_with(feature);
        assert!(with.contains(name), "the check would see it: {with:?}");
    }
    // Its macros of attributes, which take long to build, are not among its parts.
    assert!(!crates_with("tracing").contains("tracing-attributes"));
}
