use super::*;
use crate::http::target::resolve;
use crate::site::headers::Sent;
use crate::site::spec::{Cors, Rate, Redirect};
use std::time::Duration;

fn rule(matching: &str) -> RuleSpec {
    RuleSpec { matching: matching.into(), ..RuleSpec::default() }
}

fn redirect(matching: &str, to: &str) -> RuleSpec {
    RuleSpec { redirect: Some(Redirect { to: to.into(), status: 302 }), ..rule(matching) }
}

fn auth(matching: &str, realm: &str) -> RuleSpec {
    let (file, realm) = ("/etc/passwords".into(), realm.into());
    RuleSpec { auth: Some(Auth { file, realm }), ..rule(matching) }
}

fn rate(matching: &str, requests: u32) -> RuleSpec {
    let (per, burst) = (Duration::from_secs(1), 1);
    RuleSpec { rate: Some(Rate { requests, per, burst }), ..rule(matching) }
}

fn deny(matching: &str, prefixes: &[&str]) -> RuleSpec {
    RuleSpec { deny: prefixes.iter().map(|text| text.parse().unwrap()).collect(), ..rule(matching) }
}

fn allow(matching: &str, prefixes: &[&str]) -> RuleSpec {
    let allow = prefixes.iter().map(|text| text.parse().unwrap()).collect();
    RuleSpec { allow, ..rule(matching) }
}

fn rules(specs: &[RuleSpec]) -> Rules {
    Rules::new(specs, &["*.example.org".into(), "example.org".into()]).unwrap()
}

fn admits(rules: &Rules, path: &str, address: &str) -> bool {
    rules.admits(&rules.facts(path.as_bytes()).unwrap(), address.parse().ok())
}

#[test]
fn addresses_are_let_in_or_not() {
    let rules = rules(&[
        allow("/admin/status", &["0.0.0.0/0", "::/0"]),
        allow("/admin/**", &["10.0.0.0/8", "fd00::/8"]),
        deny("/**", &["10.6.6.6", "192.0.2.0/24"]),
        deny("*.txt", &["198.51.100.0/24"]),
    ]);
    for (path, address, is_admitted) in [
        ("admin/a", "10.1.1.1", true),
        ("admin/a", "fd00::1", true),
        ("admin/a", "::ffff:10.1.1.1", true),
        ("admin/a", "203.0.113.1", false),
        ("admin/a", "10.6.6.6", false),
        ("admin/", "203.0.113.1", false),
        ("admin", "203.0.113.1", false),
        ("admin/status", "203.0.113.1", true),
        ("admin/status", "192.0.2.1", false),
        ("a", "203.0.113.1", true),
        ("a", "192.0.2.7", false),
        // The first rule with the key decides.
        ("a.txt", "198.51.100.1", true),
    ] {
        assert_eq!(admits(&rules, path, address), is_admitted, "{path} by {address}");
    }
}

#[test]
fn the_first_rule_with_a_key_decides() {
    let rules = rules(&[
        rate("/a/b/**", 5),
        auth("/a/**", "first"),
        auth("/a/b/**", "second"),
        redirect("/a/old", "/a/new"),
        redirect("/a/**", "/b"),
        rate("/**", 7),
        RuleSpec { root: Some("/srv/shared".into()), ..rule("/a/b/**") },
        RuleSpec { listing: Some(Listing::Json), ..rule("/a/b/") },
        RuleSpec { listing: Some(Listing::Off), ..rule("/**") },
    ]);
    let facts = rules.facts(b"a/b/").unwrap();
    assert_eq!(rules.auth(&facts).map(|(rule, auth)| (rule, &*auth.realm)), Some((1, "first")));
    assert_eq!(rules.rate(&facts).map(|(rule, _)| rule), Some(0));
    assert_eq!(rules.root(&facts), Some((6, Path::new("/srv/shared"))));
    assert_eq!(rules.listing(&facts), Some(Listing::Json));
    assert_eq!(rules.redirect(&facts).and_then(Target::fixed_path), Some("b"));
    let facts = rules.facts(b"a/old").unwrap();
    assert_eq!(rules.redirect(&facts).and_then(Target::fixed_path), Some("a/new"));
    assert_eq!(rules.rate(&facts).map(|(rule, _)| rule), Some(5));
    assert_eq!((rules.root(&facts), rules.listing(&facts)), (None, Some(Listing::Off)));
    let facts = rules.facts(b"c").unwrap();
    assert!(rules.auth(&facts).is_none() && rules.redirect(&facts).is_none());
    assert_eq!(rules.auths().map(|(rule, _)| rule).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(rules.roots().collect::<Vec<_>>(), [(6, Path::new("/srv/shared"))]);
}

/// Everything that a rule can do about `private/x.html`.
fn protection() -> [RuleSpec; 6] {
    let cors = Cors { origins: vec!["https://a".into()], max_age: Duration::from_secs(1) };
    [
        deny("/private/**", &["0.0.0.0/0"]),
        auth("/private/*.html", "x"),
        rate("/**/x.html", 1),
        redirect("x.h*", "/elsewhere"),
        RuleSpec { root: Some("/srv".into()), cors: Some(cors), ..rule("*.html") },
        RuleSpec { headers: vec![("X-A".into(), "1".into())], ..rule("/private/x.html") },
    ]
}

/// Checks that all rules of [`protection`] apply to a path.
fn assert_protected(rules: &Rules, path: &[u8], target: &str) {
    let facts = rules.facts(path).unwrap();
    assert!(!rules.admits(&facts, "192.0.2.1".parse().ok()), "deny and {target}");
    assert!(rules.auth(&facts).is_some(), "auth and {target}");
    assert!(rules.rate(&facts).is_some(), "rate and {target}");
    assert!(rules.redirect(&facts).is_some(), "redirect and {target}");
    assert!(rules.root(&facts).is_some(), "root and {target}");
    assert!(rules.cors(&facts).is_some(), "cors and {target}");
    let mut out = Vec::new();
    let sent = Sent { path, status: 200, is_file: true, is_private: false };
    rules.headers().append_lines(&sent, &mut out);
    assert_eq!(out, b"X-A: 1\r\n", "headers and {target}");
}

#[test]
fn each_spelling_of_a_path_meets_the_rules() {
    let rules = rules(&protection());
    for target in [
        "/private/x.html",
        "//private//x.html",
        "///private/x.html",
        "/private/./x.html",
        "/./private/x.html",
        "/a/../private/x.html",
        "/a/b/../../private/x.html",
        "/../private/x.html",
        "/private/a/../x.html",
        "/private//../x.html",
        "/%70rivate/x.html",
        "/p%72ivate/%78.html",
        "/private/x%2Ehtml",
        "/private/%2e/x.html",
        "/a/%2e%2e/private/x.html",
        "/a/.%2E/private/x.html",
        "/private/x.html?a=/../..",
        "/private/x.html?",
        "http://example.org/private/x.html",
        "HTTPS://other.example//private/x.html",
        "/private/x.html.gz",
        "/private/x.html.br",
        "/private/x.html.zst",
        "/private/x.html%2egz",
        "/private/x.html.gz.br",
    ] {
        let mut path = Vec::new();
        resolve(target.as_bytes(), &mut path).unwrap();
        let original = path.starts_with(b"private/x.html");
        assert!(original, "{target} leads to the file: {}", String::from_utf8_lossy(&path));
        assert_protected(&rules, &path, target);
    }
}

#[test]
fn other_spellings_lead_nowhere() {
    let rules = rules(&protection());
    for target in [
        "/private%2fx.html",
        "/private%2Fx.html",
        "/a/..%2fprivate/x.html",
        "/private/x.html%00",
        "/private%00/x.html",
        "/private\\x.html",
        "/private%5cx.html",
        "/a\\..\\private/x.html",
        "/private/x.html%5c",
        "/private/.x.html",
        "private/x.html",
        "\\private/x.html",
    ] {
        let mut path = Vec::new();
        let is_refused = resolve(target.as_bytes(), &mut path).is_err();
        assert!(is_refused || rules.facts(&path) == Err(NoPath), "{target}");
    }
    assert_eq!(rules.facts(b"private/x\0"), Err(NoPath));
    // These are the paths of other files.
    for target in [
        "/Private/x.html",
        "/PRIVATE/X.HTML",
        "/private%252fx.html",
        "/private;a/x.html",
        "/%2570rivate/x.html",
        "/private%20/x.html",
        "/private./x.html",
        "/private/x.html/",
        "/private/x.html.gz/a",
        "/private/x.htm",
    ] {
        let mut path = Vec::new();
        resolve(target.as_bytes(), &mut path).unwrap();
        let variants = ["", ".gz", ".br", ".zst"];
        let is_file = |end: &&str| path == format!("private/x.html{end}").as_bytes();
        assert!(!variants.iter().any(is_file), "{target}");
    }
}

#[test]
fn the_file_that_is_sent_is_decided_about_as_well() {
    let rules = rules(&[deny("/a/index.html", &["192.0.2.1"]), auth("/shell.html", "x")]);
    assert!(admits(&rules, "a/", "192.0.2.1"), "the directory itself is open");
    assert!(!admits(&rules, "a/index.html", "192.0.2.1"));
    let facts = rules.facts(b"shell.html").unwrap();
    assert!(rules.auth(&facts).is_some());
}

#[test]
fn redirects_are_filled_with_names_of_the_configuration() {
    let rules = rules(&[redirect("/**", "https://{name}{path}{query}")]);
    let facts = rules.facts(b"a/b").unwrap();
    let target = rules.redirect(&facts).unwrap();
    for (name, host) in [(Some("www.example.org"), "www.example.org"), (None, "example.org")] {
        let mut out = Vec::new();
        target.append_location(&rules.source(b"a/b", b"c=d", name), &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), format!("https://{host}/a/b?c=d"));
    }
}

#[test]
fn challenges_of_acme_are_not_redirected_to_https() {
    let specs = [redirect("/**", "https://{name}{path}")];
    let all = rules(&specs);
    let challenge = b".well-known/acme-challenge/x";
    assert_eq!(all.redirect(&all.facts(challenge).unwrap()), None);
    assert!(all.redirect(&all.facts(b".well-known/x").unwrap()).is_some());
    let mut path = Vec::new();
    resolve(b"/.well-known/acme-challenge/../../secret", &mut path).unwrap();
    assert!(all.redirect(&all.facts(&path).unwrap()).is_some());
    let rules = rules(&[&specs[..], &[redirect("/.well-known/**", "/b")]].concat());
    let target = rules.redirect(&rules.facts(challenge).unwrap());
    assert_eq!(target.and_then(Target::fixed_path), Some("b"), "a later rule decides");
}

#[test]
fn rules_of_header_fields_are_not_compared_with_requests() {
    let mut specs: Vec<_> = (0..50)
        .map(|n| RuleSpec { cache: Some("no-cache".into()), ..rule(&format!("/{n}/**")) })
        .collect();
    specs.push(deny("/49/**", &["0.0.0.0/0"]));
    let rules = rules(&specs);
    assert_eq!(rules.deciding.len(), 1);
    assert!(!admits(&rules, "49/a", "192.0.2.1"));
}

#[test]
fn mistakes_name_rule_and_key() {
    let good = deny("/**", &["192.0.2.1"]);
    let cors = Cors { origins: vec!["null".into()], max_age: Duration::ZERO };
    let nothing = vec![good.deny[0]; PREFIXES_MAX + 1];
    for (spec, key, reason) in [
        (deny("a/b", &["192.0.2.1"]), "match", "begin with one"),
        (rule("/**"), "match", "changes nothing"),
        (redirect("/**", "ftp://a"), "redirect", "http"),
        (redirect("/x/**", "/x/y"), "redirect", "itself"),
        (redirect("*.html", "/a.html?b"), "redirect", "itself"),
        (rate("/**", 0), "rate", "no request"),
        (auth("/**", "a\"b"), "auth", "realm"),
        (auth("/**", "a\r\nb"), "auth", "realm"),
        (RuleSpec { cors: Some(cors), ..rule("/**") }, "cors", "null"),
        (RuleSpec { root: Some("srv".into()), ..rule("/**") }, "root", "absolute"),
        (RuleSpec { deny: nothing.clone(), ..rule("/**") }, "deny", "1000"),
        (RuleSpec { allow: nothing, ..rule("/**") }, "allow", "1000"),
        (RuleSpec { headers: vec![("Date".into(), "x".into())], ..rule("/**") }, "headers", "Date"),
    ] {
        let errors = Rules::new(&[good.clone(), spec], &["example.org".into()]).unwrap_err();
        let [RuleError { rule: 1, key: found, reason: text }] = &errors[..] else {
            panic!("{reason}: {errors:?}")
        };
        assert_eq!(*found, key);
        assert!(text.contains(reason), "{errors:?}");
        assert!(errors[0].to_string().starts_with("rule 2: "));
    }
}

#[test]
fn mistakes_of_all_rules() {
    let named = redirect("/**", "https://{name}/");
    let errors = Rules::new(std::slice::from_ref(&named), &["*.example.org".into()]).unwrap_err();
    assert!(errors[0].reason.contains("{name}"), "{errors:?}");
    assert!(Rules::new(&[named], &["example.org".into()]).is_ok());
    let earlier = [redirect("/x/y", "/z"), redirect("/x/**", "/x/y")];
    assert!(Rules::new(&earlier, &[]).is_ok(), "another rule ends the loop");
    let many = vec![deny("/**", &["192.0.2.1"]); RULES_MAX + 1];
    assert!(Rules::new(&many[1..], &[]).is_ok());
    let errors = Rules::new(&many, &[]).unwrap_err();
    assert!(errors[0].reason.contains("1000"), "{errors:?}");
    let errors = Rules::new(&[rule("a/b"), rule("/**"), rule("")], &[]).unwrap_err();
    assert_eq!(errors.iter().map(|error| error.rule).collect::<Vec<_>>(), [0, 1, 2]);
}
