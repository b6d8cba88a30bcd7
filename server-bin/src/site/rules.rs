//! The rules of a site: what they decide about a path.
//!
//! # Order
//! A request is decided about in this order. For each key, the first rule that matches and has the
//! key decides.
//! 1. [`Rules::facts`] for the path that was asked for.
//! 2. `allow` and `deny`: [`Rules::admits`], otherwise 403.
//! 3. `auth`: [`Rules::auth`], unless `cors` is set and the request is a preflight.
//! 4. `rate`: [`Rules::rate`].
//! 5. `redirect`: [`Rules::redirect`].
//! 6. `root` and `listing`: the file is chosen.
//! 7. [`Rules::facts`], [`Rules::admits`] and [`Rules::auth`] for the path of the file that will be
//!    sent: an index file, the file of `spa`, an error page.
//! 8. [`Rules::headers`] for the same path.
//!
//! # Paths
//! A path is decoded once, without its first slash, empty segments and dot segments, as
//! [`resolve`](crate::http::target::resolve) writes it. The path of a directory ends with a slash.
//! A rule that matches `x.html` also matches `x.html.gz`, `x.html.br` and `x.html.zst`: their
//! contents are those of `x.html`.
//!
//! Paths are compared in this case. In a directory that ignores the case of names (ext4 with
//! `casefold`, FAT, NTFS), `/Private` would be served without the rules of `/private`.

use super::cors::Sharing;
use super::headers::Headers;
use super::pattern::{Pattern, Subject};
use super::rate::Limit;
use super::redirect::{Source, Target};
use super::spec::{Auth, Listing, RuleSpec};
use super::variants;
use ringwright::Prefix;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// Rules of a site at most.
pub const RULES_MAX: usize = 1000;
/// Prefixes of `allow` and of `deny` of a rule at most.
pub const PREFIXES_MAX: usize = 1000;

/// The rules of a site, checked and prepared.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The rules that decide about requests, which is more than about header fields.
    deciding: Box<[Rule]>,
    headers: Headers,
    /// A name of the site for redirects.
    name: Box<str>,
}

#[derive(Clone, Debug)]
struct Rule {
    /// The index in the configuration.
    index: u16,
    pattern: Pattern,
    allow: Box<[Prefix]>,
    deny: Box<[Prefix]>,
    auth: Option<Auth>,
    rate: Option<Limit>,
    redirect: Option<Target>,
    root: Option<PathBuf>,
    listing: Option<Listing>,
    cors: Option<Sharing>,
}

/// A mistake in a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleError {
    /// The index of the rule.
    pub rule: usize,
    /// The key.
    pub key: &'static str,
    /// The reason.
    pub reason: String,
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rule {}: {}: {}", self.rule + 1, self.key, self.reason)
    }
}

/// The rules that decide about a path, by key. They depend on the path alone, so that they can be
/// kept with an open file; then no pattern is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    allow: At,
    deny: At,
    auth: At,
    rate: At,
    redirect: At,
    root: At,
    listing: At,
    cors: At,
}

impl Facts {
    /// Returns whether no rule decides if the request is answered by the file that it asks for.
    #[must_use]
    pub fn decide_nothing(&self) -> bool {
        let Self { allow, deny, auth, rate, redirect, root, .. } = *self;
        [allow, deny, auth, rate, redirect, root].iter().all(|at| *at == At::NONE)
    }
}

/// A place in the rules that decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct At(u16);

impl At {
    const NONE: Self = Self(u16::MAX);
}

const _: () = assert!(RULES_MAX < At::NONE.0 as usize);

/// Nothing is served under such a path: it contains a backslash, which some programs take for a
/// slash, or a NUL. The reply is 404.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoPath;

impl Rules {
    /// Reads the rules of a site. `names` are the site's, as [`check`](super::names::check)
    /// returns them.
    ///
    /// # Errors
    /// All mistakes.
    pub fn new(specs: &[RuleSpec], names: &[String]) -> Result<Self, Vec<RuleError>> {
        let mut errors = Vec::new();
        let mut headers = Headers::default();
        let mut deciding = Vec::new();
        if specs.len() > RULES_MAX {
            let reason = format!("a site has at most {RULES_MAX} rules");
            return Err(vec![RuleError { rule: RULES_MAX, key: "match", reason }]);
        }
        let name = names.iter().find(|name| !name.starts_with("*."));
        for (index, spec) in specs.iter().enumerate() {
            let mut compiler = Compiler { index, errors: &mut errors };
            let Some(pattern) = compiler.take("match", Pattern::new(&spec.matching)) else {
                continue;
            };
            headers.add(index, spec, &pattern, compiler.errors);
            let rule = compiler.rule(spec, pattern, name.is_some());
            if rule.decides() {
                deciding.push(rule);
            } else if changes_nothing(spec) {
                compiler.error("match", "the rule changes nothing");
            }
        }
        check_loops(&deciding, &mut errors);
        errors.sort_by_key(|error| error.rule);
        if !errors.is_empty() {
            return Err(errors);
        }
        let name = name.map_or("", String::as_str).into();
        Ok(Self { deciding: deciding.into(), headers, name })
    }

    /// No rules.
    #[must_use]
    pub fn none() -> Self {
        Self { deciding: Box::default(), headers: Headers::default(), name: Box::default() }
    }

    /// Finds the rules that decide about a path.
    ///
    /// # Errors
    /// Nothing is served under the path.
    pub fn facts(&self, path: &[u8]) -> Result<Facts, NoPath> {
        if memchr::memchr2(b'\\', 0, path).is_some() {
            return Err(NoPath);
        }
        let mut facts = Facts {
            allow: At::NONE,
            deny: At::NONE,
            auth: At::NONE,
            rate: At::NONE,
            redirect: At::NONE,
            root: At::NONE,
            listing: At::NONE,
            cors: At::NONE,
        };
        let (subject, originals) = (Subject::new(path), Originals::of(path));
        for (at, rule) in self.deciding.iter().enumerate() {
            if rule.pattern.matches(&subject) || originals.any_matches(&rule.pattern) {
                rule.decide(At(at as u16), path, &mut facts);
            }
        }
        Ok(facts)
    }

    /// Returns whether an address is let in. A client without one is in no prefix.
    #[must_use]
    pub fn admits(&self, facts: &Facts, address: Option<IpAddr>) -> bool {
        let has = |prefixes: &[Prefix]| {
            address.is_some_and(|ip| prefixes.iter().any(|prefix| prefix.contains(ip)))
        };
        let is_allowed = self.at(facts.allow).is_none_or(|rule| has(&rule.allow));
        let is_denied = self.at(facts.deny).is_some_and(|rule| has(&rule.deny));
        is_allowed && !is_denied
    }

    /// The authentication that is asked for, with the index of its rule in the configuration.
    #[must_use]
    pub fn auth(&self, facts: &Facts) -> Option<(u16, &Auth)> {
        let rule = self.at(facts.auth)?;
        Some((rule.index, rule.auth.as_ref()?))
    }

    /// The limit on requests, with the index of its rule in the configuration.
    #[must_use]
    pub fn rate(&self, facts: &Facts) -> Option<(u16, &Limit)> {
        let rule = self.at(facts.rate)?;
        Some((rule.index, rule.rate.as_ref()?))
    }

    /// The redirect of the request.
    #[must_use]
    pub fn redirect(&self, facts: &Facts) -> Option<&Target> {
        self.at(facts.redirect)?.redirect.as_ref()
    }

    /// The directory that replaces the site's, with the index of its rule in the configuration.
    #[must_use]
    pub fn root(&self, facts: &Facts) -> Option<(u16, &Path)> {
        let rule = self.at(facts.root)?;
        Some((rule.index, rule.root.as_deref()?))
    }

    /// The listing that replaces the site's.
    #[must_use]
    pub fn listing(&self, facts: &Facts) -> Option<Listing> {
        self.at(facts.listing)?.listing
    }

    /// The pages that may read the reply.
    #[must_use]
    pub fn cors(&self, facts: &Facts) -> Option<&Sharing> {
        self.at(facts.cors)?.cors.as_ref()
    }

    /// The header fields of rules.
    #[must_use]
    pub const fn headers(&self) -> &Headers {
        &self.headers
    }

    /// The request that a redirect is filled from. `name` is the name in the configuration that
    /// was asked for ([`Named::name`](super::names::Named::name)).
    #[must_use]
    pub fn source<'a>(
        &'a self,
        path: &'a [u8],
        query: &'a [u8],
        name: Option<&'a str>,
    ) -> Source<'a> {
        Source { path, query, name: name.unwrap_or(&self.name) }
    }

    /// All password files, with the indices of their rules in the configuration.
    pub fn auths(&self) -> impl Iterator<Item = (u16, &Auth)> {
        self.deciding.iter().filter_map(|rule| Some((rule.index, rule.auth.as_ref()?)))
    }

    /// All directories of rules, with the indices of their rules in the configuration.
    pub fn roots(&self) -> impl Iterator<Item = (u16, &Path)> {
        self.deciding.iter().filter_map(|rule| Some((rule.index, rule.root.as_deref()?)))
    }

    fn at(&self, at: At) -> Option<&Rule> {
        self.deciding.get(usize::from(at.0))
    }
}

impl Rule {
    fn decides(&self) -> bool {
        !self.allow.is_empty()
            || !self.deny.is_empty()
            || self.auth.is_some()
            || self.rate.is_some()
            || self.redirect.is_some()
            || self.root.is_some()
            || self.listing.is_some()
            || self.cors.is_some()
    }

    /// Decides what no earlier rule has decided.
    fn decide(&self, at: At, path: &[u8], facts: &mut Facts) {
        let redirects = self.redirect.as_ref().is_some_and(|target| !target.spares(path));
        for (fact, has_key) in [
            (&mut facts.allow, !self.allow.is_empty()),
            (&mut facts.deny, !self.deny.is_empty()),
            (&mut facts.auth, self.auth.is_some()),
            (&mut facts.rate, self.rate.is_some()),
            (&mut facts.redirect, redirects),
            (&mut facts.root, self.root.is_some()),
            (&mut facts.listing, self.listing.is_some()),
            (&mut facts.cors, self.cors.is_some()),
        ] {
            if has_key && *fact == At::NONE {
                *fact = at;
            }
        }
    }
}

/// The paths of the files that a path can be a variant of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Originals<'a>([Option<Subject<'a>>; 2]);

impl<'a> Originals<'a> {
    /// A variant of a variant is one of the original, too. Nobody compresses more often.
    pub(super) fn of(path: &'a [u8]) -> Self {
        let original = variants::original(path);
        Self([original, original.and_then(variants::original)].map(|path| path.map(Subject::new)))
    }

    /// Returns whether the pattern matches one of them.
    pub(super) fn any_matches(&self, pattern: &Pattern) -> bool {
        self.0.iter().flatten().any(|subject| pattern.matches(subject))
    }
}

/// Reads one rule and collects its mistakes.
struct Compiler<'a> {
    index: usize,
    errors: &'a mut Vec<RuleError>,
}

impl Compiler<'_> {
    fn rule(&mut self, spec: &RuleSpec, pattern: Pattern, has_name: bool) -> Rule {
        for (key, prefixes) in [("allow", &spec.allow), ("deny", &spec.deny)] {
            if prefixes.len() > PREFIXES_MAX {
                self.error(key, &format!("more than {PREFIXES_MAX} prefixes"));
            }
        }
        let redirect = spec.redirect.as_ref().map(Target::new);
        let redirect = redirect.and_then(|target| self.take("redirect", target));
        if redirect.as_ref().is_some_and(Target::has_name) && !has_name {
            self.error("redirect", "{name} needs a name of the site that does not begin with `*`");
        }
        if spec.auth.as_ref().is_some_and(|auth| !is_realm(&auth.realm)) {
            self.error("auth", "`realm` is ASCII in one line, at most 128 bytes, without quotes");
        }
        if spec.root.as_ref().is_some_and(|root| !root.is_absolute()) {
            self.error("root", "it is not absolute");
        }
        let rate = spec.rate.as_ref().map(Limit::new);
        let cors = spec.cors.as_ref().map(Sharing::new);
        Rule {
            index: self.index as u16,
            pattern,
            allow: spec.allow.as_slice().into(),
            deny: spec.deny.as_slice().into(),
            auth: spec.auth.clone(),
            rate: rate.and_then(|limit| self.take("rate", limit)),
            redirect,
            root: spec.root.clone(),
            listing: spec.listing,
            cors: cors.and_then(|sharing| self.take("cors", sharing)),
        }
    }

    fn take<T>(&mut self, key: &'static str, result: Result<T, impl AsRef<str>>) -> Option<T> {
        result.map_err(|reason| self.error(key, reason.as_ref())).ok()
    }

    fn error(&mut self, key: &'static str, reason: &str) {
        self.errors.push(RuleError { rule: self.index, key, reason: reason.into() });
    }
}

/// Returns whether a rule without any key that decides has no header field, either.
fn changes_nothing(spec: &RuleSpec) -> bool {
    let RuleSpec { headers, content_type, cache, redirect, rate, cors, status, .. } = spec;
    // Keys with a mistake have an error of their own.
    let is_mistaken = redirect.is_some() || rate.is_some() || cors.is_some() || !status.is_empty();
    headers.is_empty() && content_type.is_none() && cache.is_none() && !is_mistaken
}

/// The realm is sent between quotes.
fn is_realm(realm: &str) -> bool {
    realm.len() <= 128 && realm.chars().all(|c| matches!(c, ' '..='~') && c != '"' && c != '\\')
}

/// Finds redirects that lead back to themselves.
fn check_loops(rules: &[Rule], errors: &mut Vec<RuleError>) {
    for rule in rules {
        let target = rule.redirect.as_ref().and_then(Target::fixed_path);
        let Some(path) = target else { continue };
        let subject = Subject::new(path.as_bytes());
        let first =
            rules.iter().find(|rule| rule.redirect.is_some() && rule.pattern.matches(&subject));
        if first.is_some_and(|first| first.index == rule.index) {
            let reason = format!("the rule redirects its target /{path} to itself");
            errors.push(RuleError { rule: rule.index.into(), key: "redirect", reason });
        }
    }
}

#[cfg(test)]
mod tests;
