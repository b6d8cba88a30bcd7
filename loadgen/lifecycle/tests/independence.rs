//! The package graph: no code of the engine can run in this package.

use std::process::Command;

/// Returns the names of all packages that `package` is built of, its tests included.
fn parts_of(package: &str) -> Vec<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--edges=all", "--prefix=none", "--format={p}", "--package"])
        .arg(package)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).expect("names are UTF-8");
    lines.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn the_engine_is_no_part_of_this_package() {
    let has = |parts: &[String], name: &str| parts.iter().any(|part| part == name);
    let parts = parts_of(env!("CARGO_PKG_NAME"));
    assert!(has(&parts, "mio") && !has(&parts, "ringwright"), "{parts:?}");
    // The check would see it.
    assert!(has(&parts_of("ringload"), "ringwright"));
}
