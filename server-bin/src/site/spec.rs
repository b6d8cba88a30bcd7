//! The settings of a site, as the configuration file gives them, checked value by value.

use crate::proxies::Proxies;
use ringwright::Prefix;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// A site: the names that it answers to and what it serves.
#[derive(Clone, Debug, PartialEq)]
pub struct SiteSpec {
    /// The names in lower case, without port and trailing dot: `example.org`, `*.example.org`, or
    /// an IP literal.
    pub names: Vec<String>,
    /// The site answers requests that name no site.
    pub is_default: bool,
    /// The directory that is served; absolute.
    pub root: PathBuf,
    /// The names of the files that answer for a directory, in the order of preference.
    pub index: Vec<String>,
    /// The URL path of the file that answers navigations to what does not exist.
    pub spa: Option<String>,
    /// `.zst`, `.br` and `.gz` files beside a file are sent to clients that accept them.
    pub precompressed: bool,
    /// The treatment of symbolic links below the directories.
    pub symlinks: Symlinks,
    /// The listing of directories without an index file.
    pub listing: Listing,
    /// The URL paths of the error pages by status.
    pub errors: BTreeMap<u16, String>,
    /// The URL path of the health check.
    pub health: Option<String>,
    /// The source of the real address of a request.
    pub real_ip: Option<RealIp>,
    /// The limit on ranges of a request.
    pub max_ranges: u16,
    /// The rules, in the order of the file.
    pub rules: Vec<RuleSpec>,
}

impl SiteSpec {
    /// A site with the defaults of every key.
    #[must_use]
    pub fn of(root: PathBuf) -> Self {
        Self {
            names: Vec::new(),
            is_default: false,
            root,
            index: vec!["index.html".to_owned()],
            spa: None,
            precompressed: false,
            symlinks: Symlinks::Deny,
            listing: Listing::Off,
            errors: BTreeMap::new(),
            health: None,
            real_ip: None,
            max_ranges: 1,
            rules: Vec::new(),
        }
    }
}

/// A rule: what it matches, and what it changes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RuleSpec {
    /// The glob pattern of paths.
    pub matching: String,
    /// A directory that replaces the site's for these paths; absolute.
    pub root: Option<PathBuf>,
    /// Header fields to set, or to remove where the value is empty.
    pub headers: Vec<(String, String)>,
    /// The value of Content-Type.
    pub content_type: Option<String>,
    /// The value of Cache-Control.
    pub cache: Option<String>,
    /// A redirect.
    pub redirect: Option<Redirect>,
    /// Basic authentication.
    pub auth: Option<Auth>,
    /// A limit on requests by address.
    pub rate: Option<Rate>,
    /// The only addresses that are let in; all if empty.
    pub allow: Vec<Prefix>,
    /// The addresses that are refused.
    pub deny: Vec<Prefix>,
    /// Cross-origin requests.
    pub cors: Option<Cors>,
    /// The listing of these directories, instead of the site's.
    pub listing: Option<Listing>,
    /// The statuses of the replies that `headers` and `cache` apply to; empty for the default.
    pub status: Vec<u16>,
}

/// The listing of directories.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, clap::ValueEnum)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Listing {
    /// None: 404.
    #[default]
    Off,
    /// An HTML page.
    Html,
    /// A JSON array.
    Json,
}

/// The treatment of symbolic links.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, clap::ValueEnum)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Symlinks {
    /// No link is followed.
    #[default]
    Deny,
    /// Links are followed as long as they stay beneath the directory that is served.
    Beneath,
}

/// The source of the real address of a request.
#[derive(Clone, Debug, PartialEq)]
pub struct RealIp {
    /// The proxies that are believed.
    pub from: Proxies,
    /// The header field that is read.
    pub header: RealIpHeader,
}

/// The header field of a real address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum RealIpHeader {
    /// `X-Forwarded-For`.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// A redirect.
#[derive(Clone, Debug, PartialEq)]
pub struct Redirect {
    /// The target: an absolute URL or a path, with `{path}`, `{query}` and `{name}`.
    pub to: String,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
}

/// Basic authentication (RFC 7617).
#[derive(Clone, Debug, PartialEq)]
pub struct Auth {
    /// The password file; absolute.
    pub file: PathBuf,
    /// The realm that browsers show.
    pub realm: String,
}

/// A limit on requests by address.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// The number of requests in `per`.
    pub requests: u32,
    /// The time in which so many requests are allowed.
    pub per: Duration,
    /// The number of requests that may come at once.
    pub burst: u32,
}

/// Cross-origin requests (the Fetch standard).
#[derive(Clone, Debug, PartialEq)]
pub struct Cors {
    /// The origins that may read replies, or `*`.
    pub origins: Vec<String>,
    /// The time in which a preflight's reply may be reused.
    pub max_age: Duration,
}
