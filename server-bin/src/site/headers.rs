//! Header fields of rules: `headers`, `cache` and `type`.
//!
//! All rules that match a reply apply. A later one replaces the field of an earlier one, and an
//! empty value removes it.

use super::pattern::{Pattern, Subject};
use super::rules::{Originals, RuleError};
use super::spec::RuleSpec;
use crate::http::fields::is_token_byte;

/// Different field names in the rules of a site, at most.
pub const FIELDS_MAX: usize = 128;
/// Bytes of a field's name at most.
const NAME_BYTES_MAX: usize = 128;
/// Bytes of a field's value at most.
const VALUE_BYTES_MAX: usize = 4096;
/// Bytes of all fields that rules can add to one reply, at most.
const REPLY_BYTES_MAX: usize = 16 << 10;

/// The server decides about these fields: they frame the reply, or a peer acts on them.
const RESERVED: [&str; 17] = [
    "allow",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "date",
    "keep-alive",
    "location",
    "proxy-authenticate",
    "proxy-connection",
    "retry-after",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "www-authenticate",
];

/// Fields that keep a reply in caches. They would keep an error there, too.
const CACHING: [&str; 3] = ["cache-control", "cdn-cache-control", "expires"];
/// The statuses that such fields are sent with if the rule names none.
const CACHED_STATUSES: [u16; 6] = [200, 203, 206, 301, 304, 308];

/// Fields that the server adds to replies, as a set. A rule can replace or remove each; of
/// [`ETAG`](Self::ETAG), [`LAST_MODIFIED`](Self::LAST_MODIFIED) and
/// [`ACCEPT_RANGES`](Self::ACCEPT_RANGES) it can only be rid, because the server acts on their
/// values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BuiltIn(u16);

impl BuiltIn {
    /// Server.
    pub const SERVER: Self = Self(1);
    /// X-Content-Type-Options.
    pub const NO_SNIFF: Self = Self(1 << 1);
    /// Content-Type. It can be replaced, not removed.
    pub const CONTENT_TYPE: Self = Self(1 << 2);
    /// ETag. It can be removed, not replaced.
    pub const ETAG: Self = Self(1 << 3);
    /// Last-Modified. It can be removed, not replaced.
    pub const LAST_MODIFIED: Self = Self(1 << 4);
    /// Accept-Ranges. It can be removed, not replaced.
    pub const ACCEPT_RANGES: Self = Self(1 << 5);
    /// Access-Control-Allow-Origin of `cors`, and the fields that come with it.
    pub const SHARING: Self = Self(1 << 6);
    /// Content-Security-Policy of a listing.
    pub const POLICY: Self = Self(1 << 7);
    /// Cache-Control of replies that are made for one request, such as listings.
    pub const CACHE_CONTROL: Self = Self(1 << 8);

    const fn named(lower: &[u8]) -> Self {
        match lower {
            b"server" => Self::SERVER,
            b"x-content-type-options" => Self::NO_SNIFF,
            b"content-type" => Self::CONTENT_TYPE,
            b"etag" => Self::ETAG,
            b"last-modified" => Self::LAST_MODIFIED,
            b"accept-ranges" => Self::ACCEPT_RANGES,
            b"access-control-allow-origin" => Self::SHARING,
            b"content-security-policy" => Self::POLICY,
            b"cache-control" => Self::CACHE_CONTROL,
            _ => Self(0),
        }
    }

    /// Returns whether the set has one of these fields.
    #[must_use]
    pub const fn has(self, fields: Self) -> bool {
        self.0 & fields.0 != 0
    }
}

/// A reply that rules add fields to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent<'a> {
    /// The path of the file that is sent: decoded, without its first slash. For a variant it is
    /// that of the original. If no file is sent, the path that was asked for.
    pub path: &'a [u8],
    /// The status.
    pub status: u16,
    /// The content, or that of a GET, is the file's.
    pub is_file: bool,
    /// The request or the file asks for authentication. The reply is then `private` in caches
    /// unless a rule says otherwise.
    pub is_private: bool,
}

/// The fields of all rules of a site.
#[derive(Clone, Debug, Default)]
pub struct Headers {
    fields: Vec<Field>,
    rules: Vec<Rule>,
}

#[derive(Clone, Debug)]
struct Field {
    lower: Box<[u8]>,
    built_in: BuiltIn,
    is_about_caching: bool,
    /// Bytes of the longest line.
    bytes_max: usize,
}

#[derive(Clone, Debug)]
struct Rule {
    pattern: Pattern,
    /// Empty for the default.
    statuses: Box<[u16]>,
    settings: Box<[Setting]>,
}

#[derive(Clone, Debug)]
struct Setting {
    /// The index of the field.
    field: usize,
    /// The line with its CRLF; empty if the field is removed.
    line: Box<[u8]>,
}

impl Headers {
    /// Adds the fields of a rule. Errors name it by `index`.
    pub(super) fn add(
        &mut self,
        index: usize,
        spec: &RuleSpec,
        pattern: &Pattern,
        errors: &mut Vec<RuleError>,
    ) {
        let bytes_before = self.bytes_max();
        let mut settings = Vec::<Setting>::new();
        let keys =
            [("cache", "Cache-Control", &spec.cache), ("type", "Content-Type", &spec.content_type)];
        let of_keys = keys
            .iter()
            .filter_map(|(key, name, value)| value.as_deref().map(|value| (*key, *name, value)));
        let of_headers =
            spec.headers.iter().map(|(name, value)| ("headers", name.as_str(), value.as_str()));
        for (key, name, value) in of_headers.chain(of_keys) {
            match self.setting(key, name, value) {
                Ok(setting) if settings.iter().any(|other| other.field == setting.field) => {
                    let reason = format!("{name} is given twice");
                    errors.push(RuleError { rule: index, key, reason });
                }
                Ok(setting) => settings.push(setting),
                Err(reason) => errors.push(RuleError { rule: index, key, reason }),
            }
        }
        let is_status = |status: &u16| (200..600).contains(status);
        if let Some(bad) = spec.status.iter().find(|status| !is_status(status)) {
            let reason = format!("{bad} is not the status of a reply");
            errors.push(RuleError { rule: index, key: "status", reason });
        }
        if !spec.status.is_empty() && settings.is_empty() {
            let reason = "it says for which replies `headers`, `cache` and `type` are, and there \
                          is none of them";
            errors.push(RuleError { rule: index, key: "status", reason: reason.into() });
        }
        if bytes_before <= REPLY_BYTES_MAX && self.bytes_max() > REPLY_BYTES_MAX {
            let reason = format!("the rules up to here can add more than {REPLY_BYTES_MAX} bytes");
            errors.push(RuleError { rule: index, key: "headers", reason });
        }
        if !settings.is_empty() {
            let (pattern, statuses) = (pattern.clone(), spec.status.as_slice().into());
            self.rules.push(Rule { pattern, statuses, settings: settings.into() });
        }
    }

    fn bytes_max(&self) -> usize {
        self.fields.iter().map(|field| field.bytes_max).sum()
    }

    fn setting(&mut self, key: &str, name: &str, value: &str) -> Result<Setting, String> {
        let lower = name.to_ascii_lowercase();
        check_name(name, &lower)?;
        check_value(key, name, value)?;
        let built_in = BuiltIn::named(lower.as_bytes());
        if value.is_empty() && built_in == BuiltIn::CONTENT_TYPE {
            return Err("Content-Type cannot be removed: browsers would guess it".into());
        }
        let validators =
            BuiltIn(BuiltIn::ETAG.0 | BuiltIn::LAST_MODIFIED.0 | BuiltIn::ACCEPT_RANGES.0);
        if !value.is_empty() && validators.has(built_in) {
            return Err(format!("{name} can be removed (\"\"), but the server decides its value"));
        }
        let known = self.fields.iter().position(|field| *field.lower == *lower.as_bytes());
        let field = match known {
            Some(field) => field,
            None if self.fields.len() == FIELDS_MAX => {
                return Err(format!("the rules have more than {FIELDS_MAX} different fields"));
            }
            None => {
                let is_about_caching = CACHING.contains(&lower.as_str());
                let lower = lower.as_bytes().into();
                self.fields.push(Field { lower, built_in, is_about_caching, bytes_max: 0 });
                self.fields.len() - 1
            }
        };
        let line = match value {
            "" => Box::default(),
            _ => format!("{name}: {value}\r\n").into_bytes().into_boxed_slice(),
        };
        let bytes_max = &mut self.fields[field].bytes_max;
        *bytes_max = line.len().max(*bytes_max);
        Ok(Setting { field, line })
    }

    /// Appends the header lines that rules add to a reply, each with its CRLF. The server leaves
    /// out its own fields that the result names.
    ///
    /// The lines depend on nothing but `sent`, so that they can be kept.
    pub fn append_lines(&self, sent: &Sent<'_>, out: &mut Vec<u8>) -> BuiltIn {
        let mut last = [None::<&Setting>; FIELDS_MAX];
        let (subject, originals) = (Subject::new(sent.path), Originals::of(sent.path));
        for rule in &self.rules {
            if !rule.statuses.is_empty() && !rule.statuses.contains(&sent.status) {
                continue;
            }
            let is_direct = rule.pattern.matches(&subject);
            if !is_direct && !originals.any_matches(&rule.pattern) {
                continue;
            }
            for setting in &rule.settings {
                if self.applies(rule, setting, sent, is_direct) {
                    last[setting.field] = Some(setting);
                }
            }
        }
        let mut without = BuiltIn::default();
        for (field, setting) in self.fields.iter().zip(last) {
            let Some(setting) = setting else { continue };
            out.extend_from_slice(&setting.line);
            without.0 |= field.built_in.0;
        }
        if sent.is_private && !without.has(BuiltIn::CACHE_CONTROL) {
            out.extend_from_slice(b"Cache-Control: private\r\n");
            without.0 |= BuiltIn::CACHE_CONTROL.0;
        }
        without
    }

    fn applies(&self, rule: &Rule, setting: &Setting, sent: &Sent<'_>, is_direct: bool) -> bool {
        let field = &self.fields[setting.field];
        if field.is_about_caching && rule.statuses.is_empty() {
            return CACHED_STATUSES.contains(&sent.status);
        }
        // A text of the server keeps its type, a compressed file that is asked for by its own name
        // has none of the original's, and a 304 has no content.
        let is_of_content = field.built_in == BuiltIn::CONTENT_TYPE;
        !is_of_content || (sent.is_file && is_direct && sent.status != 304)
    }
}

fn check_name(name: &str, lower: &str) -> Result<(), String> {
    if name.is_empty() || !name.bytes().all(is_token_byte) {
        return Err(format!("{name:?} is no name of a field: letters, digits and hyphens"));
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(format!("a name is longer than {NAME_BYTES_MAX} bytes"));
    }
    if RESERVED.contains(&lower) {
        return Err(format!("the server decides about {name}: it cannot be set"));
    }
    Ok(())
}

fn check_value(key: &str, name: &str, value: &str) -> Result<(), String> {
    if value.len() > VALUE_BYTES_MAX {
        return Err(format!("the value of {name} is longer than {VALUE_BYTES_MAX} bytes"));
    }
    if let Some(bad) = value.chars().find(|c| !matches!(c, '\t' | ' '..='~')) {
        return Err(format!("the value of {name} contains {bad:?}: only ASCII in one line"));
    }
    if value.trim() != value {
        return Err(format!("the value of {name} begins or ends with a space"));
    }
    if key != "headers" && value.is_empty() {
        return Err(format!("it is empty; remove {name} by `headers`"));
    }
    if name.eq_ignore_ascii_case("content-type") && !value.is_empty() && !value.contains('/') {
        return Err("expected a media type such as text/html; charset=utf-8".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(matching: &str, headers: &[(&str, &str)]) -> RuleSpec {
        let text = |text: &&str| (*text).to_owned();
        RuleSpec {
            matching: matching.into(),
            headers: headers.iter().map(|(name, value)| (text(name), text(value))).collect(),
            ..RuleSpec::default()
        }
    }

    fn headers(specs: &[RuleSpec]) -> Result<Headers, Vec<RuleError>> {
        let (mut headers, mut errors) = (Headers::default(), Vec::new());
        for (index, spec) in specs.iter().enumerate() {
            headers.add(index, spec, &Pattern::new(&spec.matching).unwrap(), &mut errors);
        }
        if errors.is_empty() { Ok(headers) } else { Err(errors) }
    }

    const SENT: Sent<'_> = Sent { path: b"a.html", status: 200, is_file: true, is_private: false };

    fn lines(specs: &[RuleSpec], sent: &Sent<'_>) -> (String, BuiltIn) {
        let mut out = b"Before: x\r\n".to_vec();
        let without = headers(specs).unwrap().append_lines(sent, &mut out);
        let text = String::from_utf8(out).unwrap();
        (text.strip_prefix("Before: x\r\n").unwrap().replace("\r\n", "|"), without)
    }

    #[test]
    fn all_rules_apply_and_later_ones_replace() {
        let specs = [
            rule("/**", &[("X-Frame-Options", "DENY"), ("X-A", "1")]),
            rule("*.html", &[("x-frame-options", "SAMEORIGIN"), ("X-B", "2")]),
            rule("/a.html", &[("x-a", "")]),
            rule("*.js", &[("X-B", "3")]),
        ];
        let of = |path: &str| lines(&specs, &Sent { path: path.as_bytes(), ..SENT }).0;
        assert_eq!(of("a.html"), "x-frame-options: SAMEORIGIN|X-B: 2|");
        assert_eq!(of("b.html"), "x-frame-options: SAMEORIGIN|X-A: 1|X-B: 2|");
        assert_eq!(of("c.js"), "X-Frame-Options: DENY|X-A: 1|X-B: 3|");
        assert_eq!(of("d"), "X-Frame-Options: DENY|X-A: 1|");
        assert_eq!(lines(&specs, &SENT).1, BuiltIn::default());
        let restored =
            [specs[0].clone(), rule("/**", &[("X-A", "")]), rule("/**", &[("X-A", "4")])];
        assert_eq!(lines(&restored, &SENT).0, "X-Frame-Options: DENY|X-A: 4|");
    }

    #[test]
    fn errors_are_not_kept_in_caches() {
        let mut specs = [
            rule("/**", &[("Expires", "Thu, 01 Jan 2037 00:00:00 GMT"), ("X-A", "1")]),
            RuleSpec {
                matching: "/**".into(),
                cache: Some("max-age=31536000, immutable".into()),
                ..RuleSpec::default()
            },
        ];
        let cached = "Expires: Thu, 01 Jan 2037 00:00:00 GMT|X-A: 1|\
                      Cache-Control: max-age=31536000, immutable|";
        for status in [200, 203, 206, 301, 304, 308] {
            assert_eq!(lines(&specs, &Sent { status, ..SENT }).0, cached, "{status}");
        }
        for status in [302, 303, 307, 400, 401, 403, 404, 410, 412, 416, 429, 500, 503] {
            assert_eq!(lines(&specs, &Sent { status, ..SENT }).0, "X-A: 1|", "{status}");
        }
        specs[1].status = vec![404, 410];
        let of_404 = "X-A: 1|Cache-Control: max-age=31536000, immutable|";
        assert_eq!(lines(&specs, &Sent { status: 404, ..SENT }).0, of_404);
        assert!(!lines(&specs, &SENT).0.contains("immutable"), "200 is not listed");
    }

    #[test]
    fn a_rule_with_statuses_replaces_only_in_their_replies() {
        let specs = [
            rule("/**", &[("X-A", "1"), ("Cache-Control", "max-age=60")]),
            RuleSpec {
                status: vec![404],
                ..rule("/**", &[("X-A", ""), ("Cache-Control", "no-store")])
            },
        ];
        assert_eq!(lines(&specs, &SENT).0, "X-A: 1|Cache-Control: max-age=60|");
        assert_eq!(lines(&specs, &Sent { status: 404, ..SENT }).0, "Cache-Control: no-store|");
        assert_eq!(lines(&specs, &Sent { status: 403, ..SENT }).0, "X-A: 1|");
    }

    #[test]
    fn fields_of_the_server() {
        let specs = [rule(
            "/**",
            &[("server", "x"), ("ETag", ""), ("X-Content-Type-Options", ""), ("Vary", "Cookie")],
        )];
        let (text, without) = lines(&specs, &SENT);
        assert_eq!(text, "server: x|Vary: Cookie|");
        for (field, is_replaced) in [
            (BuiltIn::SERVER, true),
            (BuiltIn::NO_SNIFF, true),
            (BuiltIn::ETAG, true),
            (BuiltIn::CONTENT_TYPE, false),
            (BuiltIn::LAST_MODIFIED, false),
            (BuiltIn::ACCEPT_RANGES, false),
            (BuiltIn::SHARING, false),
            (BuiltIn::POLICY, false),
            (BuiltIn::CACHE_CONTROL, false),
        ] {
            assert_eq!(without.has(field), is_replaced, "{field:?}");
        }
        let all = "Access-Control-Allow-Origin";
        assert!(lines(&[rule("/**", &[(all, "*")])], &SENT).1.has(BuiltIn::SHARING));
        let policy = [rule("/**", &[("content-security-policy", "default-src 'self'")])];
        assert!(lines(&policy, &SENT).1.has(BuiltIn::POLICY));
        let cache = [rule("/**", &[("Cache-Control", "no-cache")])];
        assert!(lines(&cache, &SENT).1.has(BuiltIn::CACHE_CONTROL));
        assert!(!lines(&cache, &Sent { status: 500, ..SENT }).1.has(BuiltIn::CACHE_CONTROL));
        let private = Sent { is_private: true, ..SENT };
        assert!(lines(&specs, &private).1.has(BuiltIn::CACHE_CONTROL));
    }

    #[test]
    fn types_are_those_of_files() {
        let spec = RuleSpec {
            matching: "*.html".into(),
            content_type: Some("text/x-new".into()),
            headers: vec![("X-A".into(), "1".into())],
            ..RuleSpec::default()
        };
        let of = |sent: &Sent<'_>| lines(std::slice::from_ref(&spec), sent);
        let (text, without) = of(&SENT);
        assert_eq!(text, "X-A: 1|Content-Type: text/x-new|");
        assert!(without.has(BuiltIn::CONTENT_TYPE));
        let without_type = ("X-A: 1|".to_owned(), BuiltIn::default());
        assert_eq!(of(&Sent { status: 304, ..SENT }), without_type);
        assert_eq!(of(&Sent { status: 404, is_file: false, ..SENT }), without_type);
        assert_eq!(of(&Sent { path: b"a.html.gz", ..SENT }), without_type, "it is a gzip file");
        assert!(of(&Sent { status: 404, ..SENT }).1.has(BuiltIn::CONTENT_TYPE), "an error page");
    }

    #[test]
    fn compressed_files_have_the_fields_of_their_originals() {
        let specs = [rule("*.html", &[("X-A", "1")]), rule("*.gz", &[("X-B", "2")])];
        for (path, expected) in [
            ("a.html.gz", "X-A: 1|X-B: 2|"),
            ("a.html.br", "X-A: 1|"),
            ("a.html.zst", "X-A: 1|"),
            ("a.html.br.gz", "X-A: 1|X-B: 2|"),
            ("a.html.zip", ""),
            ("a.html.GZ", ""),
        ] {
            assert_eq!(lines(&specs, &Sent { path: path.as_bytes(), ..SENT }).0, expected);
        }
    }

    #[test]
    fn protected_replies_are_private() {
        let private = Sent { is_private: true, ..SENT };
        let other = [rule("/**", &[("X-A", "1")])];
        assert_eq!(lines(&other, &private).0, "X-A: 1|Cache-Control: private|");
        assert_eq!(lines(&other, &SENT).0, "X-A: 1|");
        let own = [rule("/**", &[("cache-control", "no-cache")])];
        assert_eq!(lines(&own, &private).0, "cache-control: no-cache|");
        let of_404 = Sent { status: 404, ..private };
        assert_eq!(lines(&own, &of_404).0, "Cache-Control: private|", "the rule is for 200");
        assert_eq!(lines(&[rule("/**", &[("Cache-Control", "")])], &private).0, "");
    }

    #[test]
    fn mistakes() {
        let wrong = |name: &str, value: &str| {
            headers(&[rule("/**", &[(name, value)])]).unwrap_err().remove(0).reason
        };
        for name in RESERVED {
            assert!(wrong(&name.to_uppercase(), "x").contains("cannot be set"), "{name}");
            assert!(wrong(name, "").contains("cannot be set"), "{name}");
        }
        for (name, value, reason) in [
            ("", "x", "no name"),
            ("X A", "x", "no name"),
            ("X:", "x", "no name"),
            ("X\r\nY", "x", "no name"),
            ("\u{e9}", "x", "no name"),
            (&"x".repeat(129), "x", "longer"),
            ("X", "a\r\nSet-Cookie: b", "one line"),
            ("X", "a\nb", "one line"),
            ("X", "a\0", "one line"),
            ("X", "\u{e9}", "ASCII"),
            ("X", " a", "space"),
            ("X", "a\t", "space"),
            ("X", &"x".repeat(4097), "longer"),
            ("ETag", "\"a\"", "can be removed"),
            ("last-modified", "x", "can be removed"),
            ("Accept-Ranges", "none", "can be removed"),
            ("Content-Type", "", "cannot be removed"),
            ("Content-Type", "html", "media type"),
        ] {
            let error = wrong(name, value);
            assert!(error.contains(reason), "{name:?}: {error}");
        }
    }

    #[test]
    fn mistakes_in_a_rule() {
        let good = rule("/**", &[("X", "a")]);
        let some = |text: &str| Some(text.to_owned());
        let without = RuleSpec { headers: Vec::new(), ..good.clone() };
        for (spec, key, reason) in [
            (rule("/**", &[("X", "a"), ("x", "b")]), "headers", "twice"),
            (
                RuleSpec { cache: some("a"), ..rule("*", &[("cache-control", "b")]) },
                "cache",
                "twice",
            ),
            (
                RuleSpec { content_type: some("a/b"), ..rule("*", &[("Content-Type", "a/b")]) },
                "type",
                "twice",
            ),
            (RuleSpec { cache: some(""), ..good.clone() }, "cache", "empty"),
            (RuleSpec { content_type: some(""), ..good.clone() }, "type", "empty"),
            (RuleSpec { content_type: some("html"), ..good.clone() }, "type", "media type"),
            (RuleSpec { cache: some("a\r\nb"), ..good.clone() }, "cache", "one line"),
            (RuleSpec { status: vec![404, 99], ..good.clone() }, "status", "99"),
            (RuleSpec { status: vec![600], ..good.clone() }, "status", "600"),
            (RuleSpec { status: vec![404], ..without }, "status", "none of them"),
        ] {
            let errors = headers(&[good.clone(), spec]).unwrap_err();
            assert_eq!((errors[0].rule, errors[0].key), (1, key), "{errors:?}");
            assert!(errors[0].reason.contains(reason), "{errors:?}");
        }
    }

    #[test]
    fn fields_are_limited() {
        let names: Vec<_> = (0..=FIELDS_MAX).map(|n| format!("X-{n}")).collect();
        let fields: Vec<_> = names.iter().map(|name| (name.as_str(), "x")).collect();
        let error = headers(&[rule("/**", &fields)]).unwrap_err();
        assert!(error.len() == 1 && error[0].reason.contains("128"), "{error:?}");
        assert!(headers(&[rule("/**", &fields[1..])]).is_ok());
        let long = "x".repeat(4000);
        let rules: Vec<_> = names[..6].iter().map(|name| rule("/**", &[(name, &long)])).collect();
        assert!(headers(&rules[..4]).is_ok());
        let error = headers(&rules).unwrap_err();
        assert!(error.len() == 1 && error[0].rule == 4, "{error:?}");
        let same: Vec<_> = (0..6).map(|_| rules[0].clone()).collect();
        assert!(headers(&same).is_ok(), "one reply has a field once");
    }
}
