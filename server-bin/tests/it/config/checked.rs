//! `check` as a program, and values that contradict each other.

use super::run;
use crate::configured::{USERS, folder, write};
use std::fs;
use tempfile::TempDir;

const SITE: &str = "[[site]]\nlisten = [\"127.0.0.1:8080\"]\nroot = \"www\"\n";

fn files() -> TempDir {
    folder(&[("users", USERS), ("www/users", USERS), ("www/index.html", "")])
}

/// The exit status of `check`, and what it says.
fn check(files: &TempDir, text: &str) -> (Option<i32>, String) {
    let path = files.path().join("c.toml");
    fs::write(&path, text).unwrap();
    let output = run(&["check", path.to_str().unwrap()], &[]);
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "");
    let said = String::from_utf8(output.stderr).unwrap();
    (output.status.code(), said.replace(path.to_str().unwrap(), "c.toml"))
}

#[test]
fn a_valid_file_is_exit_0_and_says_nothing() {
    let files = files();
    assert_eq!(check(&files, SITE), (Some(0), String::new()));
}

#[test]
fn a_wrong_file_is_exit_2_and_says_where_and_why() {
    let files = files();
    let (status, said) = check(&files, &format!("{SITE}indx = []\n"));
    assert_eq!(status, Some(2));
    let expected = "c.toml:4:1: site[0].indx: unknown key; did you mean `index`?\n\
                    \x20 4 | indx = []\n    | ^^^^\n";
    assert!(said.ends_with(expected), "{said}");
    // All faults are told, each with its value.
    let (status, said) = check(
        &files,
        &format!("[engine]\nworkers = 2000\n{SITE}names = [\"a b\"]\nmax_ranges = 0\n"),
    );
    assert_eq!(status, Some(2));
    for expected in [
        "c.toml:2:11: engine.workers = 2000: expected ",
        "c.toml:6:10: site[0].names[0] = \"a b\": a name has ",
        "c.toml:7:14: site[0].max_ranges = 0: expected 1 to 64, not 0",
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    // `run` says the same.
    let path = files.path().join("c.toml");
    let output = run(&["run", path.to_str().unwrap()], &[]);
    assert_eq!(output.status.code(), Some(2));
    let of_run = String::from_utf8(output.stderr).unwrap();
    assert_eq!(of_run.replace(path.to_str().unwrap(), "c.toml"), said);
}

#[test]
fn a_file_that_cannot_be_read_is_exit_2() {
    let files = files();
    let missing = files.path().join("missing.toml");
    let folder = files.path().to_str().unwrap();
    for path in [missing.to_str().unwrap(), folder] {
        let output = run(&["check", path], &[]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(path), "{said}");
    }
    write(files.path(), "c.toml", b"[engine]\n# \xff\n");
    let path = files.path().join("c.toml");
    let output = run(&["check", path.to_str().unwrap()], &[]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(said.contains("c.toml:2:1: the file is not UTF-8"), "{said}");
    assert_eq!(run(&["check"], &[]).status.code(), Some(2));
    assert_eq!(run(&["check", "a", "b"], &[]).status.code(), Some(2));
}

#[test]
fn contradictions_are_refused_and_name_both_places() {
    let files = files();
    let named = |name: &str| format!("{SITE}names = [\"{name}\"]\n");
    let proxied = "proxy_protocol_from = [\"10.0.0.0/8\"]\n";
    let auth = "[[site.rule]]\nmatch = \"/p/**\"\nauth = \"users\"\n";
    let echo = "[[echo]]\nlisten = [\"127.0.0.1:8080\"]\n";
    let packets = "[[packets]]\nlisten = [\"127.0.0.1:7100\"]\nroot = \"www\"\n";
    for (text, expected) in [
        (String::new(), &["c.toml:1:1: ", "there is no listener"][..]),
        ("[engine]\nshards = 1\n".into(), &["there is no listener"]),
        (format!("{SITE}{echo}"), &["echo[0].listen[0]", "is already taken by site[0].listen[0]"]),
        (format!("{echo}{echo}{SITE}").replacen("8080", "1", 1), &["echo[1]", "site[0]"]),
        (
            named("a.example") + &named("A.Example."),
            &["site[1].names", "a.example is also a name", "see site[0].names"],
        ),
        (named("*.a.example") + &named("*.a.example"), &["site[1].names", "see site[0].names"]),
        (
            format!("{SITE}default = true\n{SITE}default = true\n"),
            &["c.toml:8:11: site[1].default = true", "see site[0].default"],
        ),
        (
            format!("{SITE}{SITE}{proxied}"),
            &["site[1].listen[0]", "address of site[0].listen[0]", "proxy_protocol_from"],
        ),
        (
            format!("{SITE}{auth}").replace("\"users\"", "\"www/users\""),
            &["site[0].rule[0].auth", "lies in the directory that is served"],
        ),
        (
            format!("[engine]\nworkers = 0\n{SITE}{auth}"),
            &["site[0].rule[0].auth", "it needs workers, but engine.workers is 0"],
        ),
        (
            format!("[engine]\nworkers = 0\n{SITE}listing = \"html\"\n"),
            &["site[0].listing", "it needs workers"],
        ),
        (
            format!(
                "[engine]\nworkers = 0\n{SITE}[[site.rule]]\nmatch = \"*\"\nlisting = 'json'\n"
            ),
            &["site[0].rule[0].listing", "it needs workers"],
        ),
        (
            format!("{packets}read_only = true\nreplace = true\n"),
            &["c.toml:5:11: packets[0].replace = true", "read_only refuses every upload"],
        ),
        (
            format!("{SITE}[[site.rule]]\nmatch = \"*\"\nredirect = \"https://{{name}}/\"\n"),
            &["site[0].rule[0].redirect", "{name} needs a name of the site"],
        ),
        (
            format!("{SITE}[[site.rule]]\nmatch = \"/a\"\nredirect = \"/a\"\n"),
            &["site[0].rule[0].redirect", "to itself"],
        ),
        (
            format!("{SITE}[[site.rule]]\nmatch = \"/a\"\n"),
            &["site[0].rule[0].match", "the rule changes nothing"],
        ),
    ] {
        let (status, said) = check(&files, &text);
        assert_eq!(status, Some(2), "{text}{said}");
        for expected in expected {
            assert!(said.contains(expected), "{expected}: {said}");
        }
    }
}

#[test]
fn secrets_beneath_a_served_directory_are_refused() {
    let files = folder(&[
        ("users", USERS),
        ("one/a.txt", ""),
        ("two/sub/users", USERS),
        ("alias/users", USERS),
    ]);
    let site = |root: &str, rule: &str| {
        format!(
            "[[site]]\nlisten = [\"127.0.0.1:0\"]\nroot = \"{root}\"\n\
             [[site.rule]]\nmatch = \"/p/**\"\n{rule}\n"
        )
    };
    let auth = |file: &str| format!("auth = \"{file}\"");
    assert_eq!(check(&files, &site("one", &auth("users"))), (Some(0), String::new()));
    for text in [
        // In another site's directory, in a rule's, by another path.
        site("one", &auth("two/sub/users")) + &site("two", &auth("users")),
        site("one", &format!("root = \"alias\"\n{}", auth("alias/users"))),
        site("one", &auth("one/../two/sub/users")) + &site("two", &auth("users")),
        site("two", &auth("two/sub/../sub/users")),
    ] {
        let (status, said) = check(&files, &text);
        assert_eq!(status, Some(2), "{text}");
        assert!(said.contains("lies in the directory that is served"), "{said}");
    }
    write(files.path(), "one/token", "0123456789abcdef0123456789abcdef");
    let token = "[admin]\ntoken = \"one/token\"\n".to_owned();
    let (status, said) = check(&files, &(token + &site("one", &auth("users"))));
    assert_eq!(status, Some(2));
    assert!(said.contains("c.toml:2:9: admin.token = \"one/token\": the file of the"), "{said}");
    // The configuration itself.
    let (status, said) = check(&files, &site(".", "deny = [\"192.0.2.1\"]"));
    assert_eq!(status, Some(2));
    assert!(
        said.contains("c.toml:3:8: site[0].root = \".\": the configuration file lies"),
        "{said}"
    );
}

#[test]
fn shared_addresses_that_agree_are_accepted() {
    let files = files();
    let proxied = "proxy_protocol_from = [\"10.0.0.0/8\"]\n";
    for text in [
        format!("{SITE}names = ['a']\n{SITE}names = ['b']\n"),
        format!("{SITE}{proxied}{SITE}{proxied}"),
        // Each port 0 is a port of its own.
        format!("{SITE}default = true\n{SITE}default = true\n").replace("8080", "0"),
        // The same name at different addresses.
        format!("{SITE}names = ['a']\n")
            + &format!("{SITE}names = ['a']\n").replace("8080", "8081"),
        "[engine]\nworkers = 0\n".to_owned() + SITE,
    ] {
        assert_eq!(check(&files, &text), (Some(0), String::new()), "{text}");
    }
}
