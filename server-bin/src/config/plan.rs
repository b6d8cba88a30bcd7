//! The plan of the daemon: the engine's settings, the listeners, and the service of each.

use super::fault::Fault;
use super::file::{Admin, Engine, File, Log, OwnListener, OwnTimeouts, Packets, Rule, Site};
use super::place::Place;
use super::values::{Network, ProxyAddress, Size, Timeout};
use crate::admin::{Access, AdminPlan, DrainTimes};
use crate::files;
use crate::http::range::RANGES_MAX;
use crate::http::target;
use crate::inherited;
use crate::options::{ProbeWith, RingOf, Spread, WhenFull};
use crate::packets::{self, BODY_BYTES_MAX};
use crate::proxies::Proxies;
use crate::site::auth::Passwords;
use crate::site::names::{self, Names};
use crate::site::rules::{RuleError, Rules};
use crate::site::spec::{Listing, RuleSpec, SiteSpec};
use ringwright::packets::Framing;
use ringwright::{
    Address, AtCapacity, Balance, Config, Error, IdleOperation, ListenerSettings,
    ParseAddressError, Prefix, RingChoice, SocketPath,
};
use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::slice;
use std::sync::Arc;

/// The default of `workers` if there are packets: digests and lists need some.
const PACKETS_WORKERS: usize = 2;

/// The default of `min_rate` for sites, in bytes per second. No usable connection is slower.
const SITE_MIN_RATE: u32 = 64;

impl Plan {
    /// The number of shards.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.engine.shards.unwrap_or_else(ringwright::cpu::default_shards)
    }
}

/// The least length of the admin listener's token: a shorter one can be guessed.
const TOKEN_BYTES_MIN: usize = 16;
/// The length of the file with the token, at most.
const TOKEN_BYTES_MAX: u64 = 4096;

/// A configuration, checked as a whole.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The settings of the engine, with the listeners.
    pub engine: Config,
    /// The durations of a drain.
    pub drain: DrainTimes,
    /// The access log.
    pub log: Log,
    /// The admin listener.
    pub admin: Option<AdminPlan>,
    /// The service of each listener, in the order of `engine.listeners`.
    pub services: Vec<Service>,
    /// The names of the sites of each listener, in the same order.
    pub names: Vec<Arc<Names>>,
    /// The proxies of each listener that begin with a header of the PROXY protocol.
    pub proxies: Vec<Proxies>,
    /// The sites.
    pub sites: Vec<SitePlan>,
    /// The packet services.
    pub packets: Vec<PacketsPlan>,
}

/// The service of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Service {
    /// These sites, in the order of the file.
    Sites(Vec<usize>),
    /// Echo.
    Echo,
    /// The packet service with this number.
    Packets(usize),
}

impl Service {
    /// The scheme in the line that announces a listener.
    #[must_use]
    pub const fn scheme(&self) -> &'static str {
        match self {
            Self::Sites(_) => "http",
            Self::Echo => "echo",
            Self::Packets(_) => "packets",
        }
    }

    /// A listener of this service as a URL.
    #[must_use]
    pub fn url(&self, address: &Address) -> String {
        url(self.scheme(), address)
    }
}

/// A listener as a URL: `http://127.0.0.1:80`, `http+unix:/run/site.sock`.
#[must_use]
pub fn url(scheme: &str, address: &Address) -> String {
    match address {
        Address::Ip(address) => format!("{scheme}://{address}"),
        Address::Unix(_) => format!("{scheme}+{address}"),
    }
}

/// Returns whether two addresses are the same, apart from the mode of a Unix socket.
#[must_use]
pub fn is_same(one: &Address, other: &Address) -> bool {
    match (one.unix(), other.unix()) {
        (Some(one), Some(other)) => one.path == other.path,
        _ => one == other,
    }
}

/// A site.
#[derive(Clone, Debug)]
pub struct SitePlan {
    /// Its settings.
    pub spec: SiteSpec,
    /// Its rules.
    pub rules: Rules,
}

/// A packet service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PacketsPlan {
    /// The directory of the files; absolute.
    pub root: PathBuf,
    /// The permissions of clients.
    pub rules: packets::Rules,
    /// The limits on interrupted uploads.
    pub kept: packets::Limits,
}

/// The faults of a configuration, while it is being checked.
struct Checker<'a> {
    folder: &'a Path,
    faults: Vec<Fault>,
    listeners: Vec<Listener>,
    /// The addresses of texts, once they are known.
    resolved: HashMap<String, Vec<Address>>,
    /// A listener has an inherited socket, which only a server knows.
    inherits: bool,
}

/// A listener and where it was found first.
struct Listener {
    address: Address,
    service: Service,
    own: Own,
    place: Place,
    /// The place of the site or service.
    of: Place,
}

/// The settings of one listener.
#[derive(Clone, PartialEq)]
struct Own {
    proxies: Proxies,
    max_connections: Option<usize>,
    timeouts: OwnTimeouts,
    listener: OwnListener,
    min_rate: Option<u32>,
}

/// Checks a configuration. Relative paths begin at `folder`.
///
/// # Errors
/// All faults.
pub fn plan(file: &File, folder: &Path) -> Result<Plan, Vec<Fault>> {
    let mut checker = Checker {
        folder,
        faults: Vec::new(),
        listeners: Vec::new(),
        resolved: HashMap::new(),
        inherits: false,
    };
    let sites = file.site.iter().enumerate().map(|(index, site)| checker.site(index, site));
    let sites: Vec<SitePlan> = sites.collect();
    for (index, echo) in file.echo.iter().enumerate() {
        let place = Place::top("echo").index(index);
        let own = Own {
            proxies: proxies(&echo.proxy_protocol_from),
            max_connections: echo.max_connections.0,
            timeouts: echo.timeouts.clone(),
            listener: echo.listener.clone(),
            min_rate: echo.min_rate.0,
        };
        checker.listen(&echo.listen, &place, &Service::Echo, &own);
    }
    let packets = file.packets.iter().enumerate();
    let packets: Vec<PacketsPlan> =
        packets.map(|(index, packets)| checker.packets(index, packets)).collect();
    let admin = checker.admin(&file.admin);
    checker.secrets(&file.admin, &sites, &packets);
    if checker.listeners.is_empty() && !checker.inherits && checker.faults.is_empty() {
        let reason = "there is no listener; add [[site]], [[echo]] or [[packets]]";
        checker.faults.push(Fault::new(Place::top("site"), reason));
    }
    checker.workers(file);
    let engine = checker.engine(file);
    let names = checker.names(&sites);
    let Checker { faults, listeners, .. } = checker;
    if !faults.is_empty() {
        return Err(faults);
    }
    Ok(Plan {
        engine,
        drain: DrainTimes {
            delay: file.engine.drain_delay.0,
            timeout: file.engine.timeouts.drain.0,
        },
        log: Log {
            access: file.log.access.as_ref().map(|path| beneath(folder, path)),
            format: file.log.format,
            error: file.log.error.as_ref().map(|path| beneath(folder, path)),
            level: file.log.level,
        },
        admin,
        proxies: listeners.iter().map(|listener| listener.own.proxies.clone()).collect(),
        services: listeners.into_iter().map(|listener| listener.service).collect(),
        names,
        sites,
        packets,
    })
}

fn networks(networks: &[Network]) -> Vec<Prefix> {
    networks.iter().map(|network| network.0).collect()
}

fn proxies(proxies: &[ProxyAddress]) -> Proxies {
    proxies.iter().map(|proxy| proxy.0).collect()
}

/// Finds directories of a plan whose clients could ask for this configuration file.
///
/// # Errors
/// A fault for each directory.
pub fn check_exposure(plan: &Plan, file: &Path) -> Result<(), Vec<Fault>> {
    let parent = file.parent().map_or_else(PathBuf::new, resolved);
    let named = parent.join(file.file_name().unwrap_or_default());
    let found = resolved(file);
    let served = served(&plan.sites, &plan.packets).into_iter();
    let exposed = served.filter(|(root, _)| named.starts_with(root) || found.starts_with(root));
    let reason = "the configuration file lies in the directory that is served; move one of them";
    let faults: Vec<Fault> = exposed.map(|(_, place)| Fault::new(place, reason)).collect();
    if faults.is_empty() { Ok(()) } else { Err(faults) }
}

/// All directories that are served, without symbolic links, and the first place of each.
fn served(sites: &[SitePlan], packets: &[PacketsPlan]) -> BTreeMap<PathBuf, Place> {
    let mut named: BTreeMap<&Path, Place> = BTreeMap::new();
    for (at, site) in sites.iter().enumerate() {
        let place = Place::top("site").index(at);
        named.entry(&site.spec.root).or_insert_with(|| place.key("root"));
        for (at, rule) in site.spec.rules.iter().enumerate() {
            if let Some(root) = &rule.root {
                let place = place.key("rule").index(at);
                named.entry(root).or_insert_with(|| place.key("root"));
            }
        }
    }
    for (at, packets) in packets.iter().enumerate() {
        let place = Place::top("packets").index(at);
        named.entry(&packets.root).or_insert_with(|| place.key("root"));
    }
    named.into_iter().map(|(root, place)| (resolved(root), place)).collect()
}

/// A path without symbolic links and dots. One that does not exist has a fault of its own.
fn resolved(path: &Path) -> PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

/// Reads a token, and a byte more than it may have.
fn read_token(path: &Path) -> io::Result<Vec<u8>> {
    let mut token = Vec::new();
    std::fs::File::open(path)?.take(TOKEN_BYTES_MAX + 1).read_to_end(&mut token)?;
    Ok(token)
}

/// A path of the configuration; `-` stays what it is.
fn beneath(folder: &Path, path: &Path) -> PathBuf {
    if path == Path::new("-") { path.to_owned() } else { folder.join(path) }
}

impl Checker<'_> {
    fn fault(&mut self, place: &Place, reason: impl Into<String>) {
        self.faults.push(Fault::new(place.clone(), reason));
    }

    fn site(&mut self, index: usize, site: &Site) -> SitePlan {
        let place = Place::top("site").index(index);
        let own = Own {
            proxies: proxies(&site.proxy_protocol_from),
            max_connections: site.max_connections.0,
            timeouts: site.timeouts.clone(),
            listener: site.listener.clone(),
            min_rate: site.min_rate.0,
        };
        self.listen(&site.listen, &place, &Service::Sites(vec![index]), &own);
        let root = self.folder.join(&site.root);
        self.directory(&root, &place.key("root"));
        let mut names = Vec::new();
        for (index, name) in site.names.iter().enumerate() {
            match names::check(name) {
                Ok(name) => names.push(name),
                Err(reason) => self.fault(&place.key("names").index(index), reason),
            }
        }
        let rules = site.rule.iter().enumerate();
        let spec = SiteSpec {
            names,
            is_default: site.default,
            index: site.index.clone(),
            spa: self.url_path(site.spa.as_deref(), &place.key("spa")),
            precompressed: site.precompressed,
            symlinks: site.symlinks,
            listing: site.listing,
            real_ip: site.real_ip.clone().map(Into::into),
            max_ranges: site.max_ranges,
            errors: self.error_pages(&site.errors, &place.key("errors")),
            health: self.url_path(site.health.as_deref(), &place.key("health")),
            rules: rules.map(|(at, rule)| self.rule(rule, &place.key("rule").index(at))).collect(),
            ..SiteSpec::of(root)
        };
        if !(1..=RANGES_MAX).contains(&site.max_ranges) {
            let reason = format!("expected 1 to {RANGES_MAX}, not {}", site.max_ranges);
            self.fault(&place.key("max_ranges"), reason);
        }
        for (at, name) in site.index.iter().enumerate() {
            if name.is_empty() || name.starts_with('.') || name.contains(['/', '\0']) {
                let reason = "expected the name of a file, such as \"index.html\"";
                self.fault(&place.key("index").index(at), reason);
            }
        }
        for (at, auth) in
            spec.rules.iter().enumerate().filter_map(|(at, rule)| Some((at, rule.auth.as_ref()?)))
        {
            if let Err(mistakes) = Passwords::load(&auth.file) {
                let mistakes: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
                let reason = format!("{}: {}", auth.file.display(), mistakes.join("; "));
                self.fault(&place.key("rule").index(at).key("auth"), reason);
            }
        }
        let rules = Rules::new(&spec.rules, &spec.names).unwrap_or_else(|errors| {
            for RuleError { rule, key, reason } in errors {
                self.fault(&place.key("rule").index(rule).key(key), reason);
            }
            Rules::none()
        });
        SitePlan { spec, rules }
    }

    /// No password file and no token lies where clients can ask for it.
    fn secrets(&mut self, admin: &Admin, sites: &[SitePlan], packets: &[PacketsPlan]) {
        let rules = sites.iter().enumerate().flat_map(|(site, plan)| {
            let place = Place::top("site").index(site).key("rule");
            plan.spec.rules.iter().enumerate().map(move |(rule, spec)| (place.index(rule), spec))
        });
        let auths = rules.filter_map(|(place, rule)| {
            Some((place.key("auth"), rule.auth.as_ref()?.file.clone(), "password file"))
        });
        let token = admin.token.as_ref().map(|token| {
            (Place::top("admin").key("token"), self.folder.join(token), "file of the token")
        });
        let secrets: Vec<_> = auths.chain(token).collect();
        if secrets.is_empty() {
            return;
        }
        let served = served(sites, packets);
        for (place, file, kind) in secrets {
            let file = resolved(&file);
            if served.keys().any(|root| file.starts_with(root)) {
                self.fault(
                    &place,
                    format!("the {kind} lies in the directory that is served; move it"),
                );
            }
        }
    }

    /// The settings of a rule.
    fn rule(&mut self, rule: &Rule, place: &Place) -> RuleSpec {
        let folder = self.folder;
        let root = rule.root.as_ref().map(|root| folder.join(root));
        if let Some(root) = &root {
            self.directory(root, &place.key("root"));
        }
        RuleSpec {
            matching: rule.matching.clone(),
            root,
            headers: rule.headers.clone().into_iter().collect(),
            content_type: rule.content_type.clone(),
            cache: rule.cache.clone(),
            redirect: rule.redirect.clone().map(Into::into),
            auth: rule.auth.clone().map(|auth| auth.beneath(folder)),
            rate: rule.rate.clone().map(|rate| rate.0),
            allow: networks(&rule.allow),
            deny: networks(&rule.deny),
            cors: rule.cors.clone().map(Into::into),
            listing: rule.listing,
            status: rule.status.clone(),
        }
    }

    /// A URL path below a site, without its first slash.
    fn url_path(&mut self, path: Option<&str>, place: &Place) -> Option<String> {
        let path = path?;
        let mut resolved = Vec::new();
        let is_path = path.starts_with('/')
            && target::resolve(path.as_bytes(), &mut resolved).is_ok()
            && !resolved.is_empty()
            && !resolved.ends_with(b"/");
        if !is_path {
            self.fault(
                place,
                "expected the URL path of a file below the site, such as \"/404.html\"",
            );
            return None;
        }
        String::from_utf8(resolved).ok()
    }

    fn error_pages(
        &mut self,
        pages: &BTreeMap<String, String>,
        place: &Place,
    ) -> BTreeMap<u16, String> {
        let mut all = BTreeMap::new();
        for (status, page) in pages {
            let place = place.key(status);
            match status.parse().ok().filter(|status| (400..600).contains(status)) {
                Some(status) => {
                    all.extend(self.url_path(Some(page), &place).map(|page| (status, page)));
                }
                None => self.fault(&place, "expected a status from 400 to 599"),
            }
        }
        all
    }

    fn admin(&mut self, admin: &Admin) -> Option<AdminPlan> {
        let place = Place::top("admin");
        let mut addresses =
            |text: &Option<String>, key| self.addresses(text.as_ref()?, &place.key(key));
        let listen = addresses(&admin.listen, "listen").unwrap_or_default();
        let read = addresses(&admin.read, "read").unwrap_or_default();
        self.sockets_of_admin(&listen, &read);
        let token = admin.token.as_ref().and_then(|path| {
            let path = self.folder.join(path);
            let place = place.key("token");
            match read_token(&path) {
                Ok(token) if token.len() as u64 > TOKEN_BYTES_MAX => {
                    let reason = format!("the file has more than {TOKEN_BYTES_MAX} bytes");
                    self.fault(&place, reason);
                }
                Ok(token) if token.trim_ascii().len() >= TOKEN_BYTES_MIN => {
                    return Some(token.trim_ascii().to_vec());
                }
                Ok(_) => {
                    let reason = format!("the token has fewer than {TOKEN_BYTES_MIN} bytes");
                    self.fault(&place, reason);
                }
                Err(error) => {
                    self.fault(&place, format!("cannot read {}: {error}", path.display()));
                }
            }
            None
        });
        for (at, name) in admin.names.iter().enumerate() {
            let place = place.key("names").index(at);
            match names::check(name) {
                Ok(name) if name.starts_with('*') => self.fault(&place, "expected a whole name"),
                Ok(_) => {}
                Err(reason) => self.fault(&place, reason),
            }
        }
        let access = Access { names: admin.names.clone(), token };
        (!listen.is_empty() || !read.is_empty()).then_some(AdminPlan { listen, read, access })
    }

    /// The Unix and inherited sockets of the admin listener are its own.
    fn sockets_of_admin(&mut self, listen: &[Address], read: &[Address]) {
        let all = listen.iter().map(|it| ("listen", it)).chain(read.iter().map(|it| ("read", it)));
        let is_its_own = |address: &Address| {
            address.unix().is_some() || inherited::listener(address).inherited.is_some()
        };
        for (key, address) in all.filter(|(_, address)| is_its_own(address)) {
            let known = self.listeners.iter().find(|known| is_same(&known.address, address));
            let mut first = known.map(|known| known.place.to_string());
            if key == "read" && listen.iter().any(|known| is_same(known, address)) {
                first = Some("admin.listen".into());
            }
            if let Some(first) = first {
                let reason = format!("{address} is already taken by {first}; give another one");
                self.fault(&Place::top("admin").key(key), reason);
            }
        }
    }

    /// The names of the sites of each listener.
    fn names(&mut self, sites: &[SitePlan]) -> Vec<Arc<Names>> {
        let mut faults = Vec::new();
        let of = |listener: &Listener| {
            let Service::Sites(numbers) = &listener.service else { return Arc::default() };
            let specs = numbers.iter().map(|number| &sites[*number].spec);
            Arc::new(Names::new(specs).unwrap_or_else(|ambiguous| {
                let site = Place::top("site").index(numbers[ambiguous.second]);
                let key = if ambiguous.name.is_some() { "names" } else { "default" };
                let first = Place::top("site").index(numbers[ambiguous.first]).key(key);
                faults.push(Fault::new(site.key(key), format!("{ambiguous}: see {first}")));
                Names::default()
            }))
        };
        let names = self.listeners.iter().map(of).collect();
        // Two sites may share several listeners.
        faults.dedup();
        self.faults.extend(faults);
        names
    }

    fn packets(&mut self, index: usize, packets: &Packets) -> PacketsPlan {
        let place = Place::top("packets").index(index);
        let own = Own {
            proxies: proxies(&packets.proxy_protocol_from),
            max_connections: packets.max_connections.0,
            timeouts: packets.timeouts.clone(),
            listener: packets.listener.clone(),
            min_rate: packets.min_rate.0,
        };
        self.listen(&packets.listen, &place, &Service::Packets(index), &own);
        if packets.read_only && packets.replace {
            let reason = "read_only refuses every upload, but replace allows uploads that replace \
                          a file: remove one of them";
            self.fault(&place.key("replace"), reason);
        }
        let root = self.folder.join(&packets.root);
        self.directory(&root, &place.key("root"));
        PacketsPlan {
            root,
            rules: packets::Rules {
                upload_bytes_max: packets.upload_max.0,
                read_only: packets.read_only,
                replace: packets.replace,
                sync: packets.sync,
                offer_timeout: packets.offer_timeout.0,
            },
            kept: packets::Limits {
                timeout: packets.resume_timeout.0,
                bytes_max: packets.resume_max.0,
            },
        }
    }

    fn directory(&mut self, path: &Path, place: &Place) {
        let shown = path.display();
        let reason = match (std::fs::metadata(path), std::fs::metadata(path.join("."))) {
            (Ok(about), Ok(_)) if about.is_dir() => return,
            // Opening it with O_PATH does not require search permission; serving files does.
            (Ok(about), Err(error)) if about.is_dir() => format!(
                "cannot enter the directory {shown}: {error}; give this user search permission \
                 (chmod +x)"
            ),
            (result, _) => {
                let trouble = result.map_or_else(
                    |error| error.to_string(),
                    |_| io::Error::from_raw_os_error(libc::ENOTDIR).to_string(),
                );
                format!(
                    "cannot open the directory {shown}: {trouble}; give a directory that exists \
                     and that this user may read"
                )
            }
        };
        self.fault(place, reason);
    }

    /// Notes the listeners of a service.
    fn listen(&mut self, listen: &[String], of: &Place, service: &Service, own: &Own) {
        let place = &of.key("listen");
        if listen.is_empty() {
            self.fault(place, "give at least one address, such as \"127.0.0.1:8080\"");
        }
        let mut sockets: Vec<Address> = Vec::new();
        // The address of an inherited socket may not be known.
        let mut has_v6 = listen.iter().any(|text| text.starts_with(inherited::PREFIX));
        for (index, text) in listen.iter().enumerate() {
            let place = place.index(index);
            for address in self.addresses(text, &place).into_iter().flatten() {
                // A name may stand for an address that is also given, but nothing for a path.
                if sockets.iter().any(|known| is_same(known, &address)) {
                    self.fault(&place, format!("{address} is given twice; remove one of them"));
                    continue;
                }
                sockets.extend(address.unix().map(|_| address.clone()));
                has_v6 |= address.ip().is_some_and(|address| address.is_ipv6());
                self.listener(address, service, own, (&place, of));
            }
        }
        if own.listener.v6_only.is_some() && !has_v6 {
            let place = of.key("listener").key("v6_only");
            self.fault(&place, "it is for IPv6 addresses, and `listen` has none; remove it");
        }
    }

    fn listener(
        &mut self,
        address: Address,
        service: &Service,
        own: &Own,
        (place, of): (&Place, &Place),
    ) {
        // Each port 0 is a port of its own.
        let is_any = address.ip().is_some_and(|address| address.port() == 0);
        let same = |other: &&mut Listener| is_same(&other.address, &address) && !is_any;
        let Some(known) = self.listeners.iter_mut().find(same) else {
            let (service, own) = (service.clone(), own.clone());
            let (place, of) = (place.clone(), of.clone());
            self.listeners.push(Listener { address, service, own, place, of });
            return;
        };
        let first = known.place.clone();
        if known.address != address {
            let reason = format!(
                "{address} is also the address of {first}, with another mode; give both the same"
            );
            return self.fault(place, reason);
        }
        if known.own != *own {
            let reason = format!(
                "{address} is also the address of {first}, with other values of \
                 proxy_protocol_from, max_connections, timeouts, listener or min_rate; give both \
                 the same"
            );
            return self.fault(place, reason);
        }
        match (&mut known.service, service) {
            // A name may stand for an address that is also given.
            (known, service) if known == service => {}
            (Service::Sites(sites), Service::Sites(more)) => {
                let more = more.iter().filter(|site| !sites.contains(site));
                let more: Vec<usize> = more.copied().collect();
                sites.extend(more);
            }
            _ => {
                let reason = format!("{address} is already taken by {first}; give another one");
                self.fault(place, reason);
            }
        }
    }

    /// The addresses that a text stands for. Many sites may have the same text.
    fn addresses(&mut self, text: &str, place: &Place) -> Option<Vec<Address>> {
        if let Some(known) = self.resolved.get(text) {
            return Some(known.clone());
        }
        let is_inherited = text.starts_with(inherited::PREFIX);
        self.inherits |= is_inherited;
        if is_inherited || text.starts_with("unix:") {
            let found = match is_inherited {
                true => inherited::addresses(text),
                false => self.socket(text).map(|address| vec![address]),
            };
            return match found {
                Ok(addresses) => Some(addresses),
                Err(reason) => {
                    self.fault(place, reason);
                    None
                }
            };
        }
        match ringwright_names::resolve(text) {
            Ok(all) => {
                let all: Vec<Address> = usable(all).into_iter().map(Address::Ip).collect();
                self.resolved.insert(text.to_owned(), all.clone());
                Some(all)
            }
            Err(error) => {
                self.fault(place, error.to_string());
                None
            }
        }
    }

    /// The path of a Unix socket, whose folder is there.
    fn socket(&self, text: &str) -> Result<Address, String> {
        let address: Address =
            text.parse().map_err(|error: ParseAddressError| error.to_string())?;
        let Address::Unix(socket) = address else { unreachable!("it begins with unix:") };
        if socket.is_abstract() {
            return Ok(Address::Unix(socket));
        }
        let SocketPath { path, mode } = socket;
        let socket = SocketPath { path: self.folder.join(path), mode };
        let shown = socket.path.display();
        socket.check().map_err(|error| format!("{shown}: {error}"))?;
        let folder = socket.path.parent().unwrap_or(self.folder);
        if !folder.is_dir() {
            let folder = folder.display();
            return Err(format!("the folder {folder} of the Unix socket does not exist; make it"));
        }
        let found = std::fs::symlink_metadata(&socket.path);
        if found.is_ok_and(|found| !found.file_type().is_socket()) {
            return Err(format!("{shown} exists and is not a socket; choose another path"));
        }
        Ok(Address::Unix(socket))
    }

    /// Passwords are checked and directories listed on workers.
    fn workers(&mut self, file: &File) {
        if file.engine.workers.0 != Some(0) {
            return;
        }
        for (index, site) in file.site.iter().enumerate() {
            let place = Place::top("site").index(index);
            let reason = "it needs workers, but engine.workers is 0; give at least 1";
            if site.listing != Listing::Off {
                self.fault(&place.key("listing"), reason);
            }
            for (at, rule) in site.rule.iter().enumerate() {
                let place = place.key("rule").index(at);
                if rule.auth.is_some() {
                    self.fault(&place.key("auth"), reason);
                }
                if rule.listing.is_some_and(|listing| listing != Listing::Off) {
                    self.fault(&place.key("listing"), reason);
                }
            }
        }
    }

    fn engine(&mut self, file: &File) -> Config {
        let base = self.settings(&file.engine, file);
        let listener = |listener: &Listener| listener_of(listener, &base, file);
        let listeners = self.listeners.iter().map(listener).collect();
        let config = Config { listeners, ..base };
        match config.check() {
            Err(Error::Config { key, value, remedy }) => {
                let place = self.place_of(&config, key);
                self.fault(&place, format!("expected {remedy}, not {value}"));
            }
            Err(error) => self.fault(&Place::top("engine"), error.to_string()),
            Ok(()) => {}
        }
        config
    }

    /// The place of a wrong value: that of a listener if the engine is right without listeners.
    fn place_of(&self, config: &Config, field: &str) -> Place {
        let is_right = |listeners: &[ringwright::Listener]| {
            Config { listeners: listeners.to_vec(), ..config.clone() }.check().is_ok()
        };
        let wrong = || config.listeners.iter().position(|it| !is_right(slice::from_ref(it)));
        match wrong().filter(|_| is_right(&[])) {
            Some(at) => place_in(&self.listeners[at].of.key("listener"), field),
            None => place_in(&Place::top("engine"), field),
        }
    }

    /// The engine's settings without listeners.
    fn settings(&mut self, engine: &Engine, file: &File) -> Config {
        let has_sites = !file.site.is_empty();
        let has_packets = !file.packets.is_empty();
        let workers = if has_sites { files::READERS } else { 0 };
        let workers = workers + if has_packets { PACKETS_WORKERS } else { 0 };
        let message_bytes = if has_packets { BODY_BYTES_MAX + Framing::HEADER_BYTES } else { 0 };
        Config {
            shards: engine.shards.0,
            ring: match engine.ring {
                RingOf::Auto => RingChoice::Auto,
                RingOf::IoUring => RingChoice::IoUring,
                RingOf::Epoll => RingChoice::Epoll,
            },
            raise_descriptors: true,
            pin: engine.pin,
            pin_from: engine.pin_from.0,
            max_connections: engine.max_connections.0,
            max_per_address: engine.max_per_ip.0.map(|limit| self.narrow(limit, "max_per_ip")),
            at_capacity: match engine.at_capacity {
                WhenFull::Wait => AtCapacity::Wait,
                WhenFull::Reject => AtCapacity::Reject,
            },
            balance: match engine.balance {
                Spread::Off => Balance::Off,
                Spread::Accept => Balance::Accept,
            },
            // Each listener has settings of its own.
            evict_idle: engine.evict_idle.0.unwrap_or(has_sites),
            bans: engine.bans.iter().map(|network| network.0).collect(),
            backlog: self.narrow(engine.backlog.0, "backlog"),
            receive_buffers: self.narrow(engine.buffers.0, "buffers"),
            receive_buffer_bytes: self.narrow(engine.buffer_size.0, "buffer_size"),
            send_buffers: self.narrow(engine.send_buffers.0, "send_buffers"),
            send_buffer_bytes: self.narrow(engine.send_buffer_size.0, "send_buffer_size"),
            accept_backoff: engine.accept_backoff.0,
            pipes: self.narrow(engine.pipes.0, "pipes"),
            pipe_bytes: self.narrow(engine.pipe_size.0, "pipe_size"),
            sendfile_bytes_max: self.narrow(engine.sendfile_max.0, "sendfile_max"),
            splice_from_bytes: engine.splice_from.0,
            open_files: if has_sites { engine.open_files.0 } else { 0 },
            open_files_valid: engine.open_files_valid.0,
            io_workers_max: self.narrow(engine.io_workers.0, "io_workers"),
            submission_entries: self.narrow(engine.submission_entries.0, "submission_entries"),
            message_bytes_max: message_bytes.max(Config::default().message_bytes_max),
            output_high_bytes: engine.output_high.0 as usize,
            output_low_bytes: engine.output_low.0 as usize,
            output_bytes_max: engine.output_max.0 as usize,
            memory_budget_bytes: engine.memory_budget.0.map(|bytes| bytes as usize),
            idle_operation: match engine.probe {
                ProbeWith::Recv => IdleOperation::Receive,
                ProbeWith::Poll => IdleOperation::Poll,
            },
            park_after: engine.park_after.0,
            streaming_connections_max: engine.streaming_max.0,
            workers: engine.workers.0.unwrap_or(workers),
            jobs_queued_max: engine.jobs_max.0,
            jobs_per_connection_max: self
                .narrow(engine.jobs_per_connection.0, "jobs_per_connection"),
            mailbox_commands_max: engine.commands_max.0,
            tcp_keepalive: engine.keepalive.0,
            tcp_user_timeout: engine.user_timeout.0,
            idle_timeout: engine.timeouts.idle.0,
            receive_timeout: engine.timeouts.request.0,
            write_timeout: engine.timeouts.write.0,
            transfer_timeout: engine.timeouts.write.0,
            linger_timeout: engine.timeouts.linger.0,
            linger_total: engine.timeouts.linger_total.0,
            ..Config::default()
        }
    }

    /// Makes a number as narrow as the engine has it. One that does not fit is refused.
    fn narrow<W: TryInto<N> + ToString + Copy, N: Default>(&mut self, wide: W, key: &str) -> N {
        wide.try_into().unwrap_or_else(|_| {
            let place = Place::top("engine").key(key);
            self.fault(&place, format!("{} is too large", wide.to_string()));
            N::default()
        })
    }
}

/// A listener as the engine has it.
fn listener_of(listener: &Listener, base: &Config, file: &File) -> ringwright::Listener {
    let OwnListener { v6_only, backlog, .. } = &listener.own.listener;
    let engine = inherited::listener(&listener.address);
    let is_v6 = listener.address.ip().is_some_and(|address| address.is_ipv6());
    ringwright::Listener {
        settings: Some(settings_of(listener, base, file)),
        v6_only: v6_only.filter(|_| is_v6 && engine.inherited.is_none()),
        // One that is too large is refused by the engine's check.
        backlog: backlog.as_ref().map(|count| u32::try_from(count.0).unwrap_or(u32::MAX)),
        ..engine
    }
}

/// The settings of a listener's connections.
fn settings_of(listener: &Listener, base: &Config, file: &File) -> ListenerSettings {
    let Own { max_connections, timeouts, min_rate, listener: own, .. } = &listener.own;
    let bytes = |own: &Option<Size>, base| own.as_ref().map_or(base, |size| size.0 as usize);
    let time = |own: &Option<Timeout>, base| own.as_ref().map_or(base, |timeout| timeout.0);
    let is_site = matches!(listener.service, Service::Sites(_));
    let evict_idle = file.engine.evict_idle.0.unwrap_or(is_site);
    let rate = if is_site { SITE_MIN_RATE } else { 0 };
    let rate = min_rate.or(file.engine.min_rate.0).unwrap_or(rate);
    let write_timeout = timeouts.write.map_or(base.write_timeout, |timeout| timeout.0);
    let message_bytes = match listener.service {
        Service::Packets(_) => BODY_BYTES_MAX + Framing::HEADER_BYTES,
        Service::Sites(_) | Service::Echo => Config::default().message_bytes_max,
    };
    ListenerSettings {
        idle_timeout: timeouts.idle.map_or(base.idle_timeout, |timeout| timeout.0),
        receive_timeout: timeouts.request.map_or(base.receive_timeout, |timeout| timeout.0),
        write_timeout,
        transfer_timeout: write_timeout,
        min_rate: if evict_idle { rate } else { 0 },
        evict_idle,
        // Sites log replies, the others connections.
        count_traffic: !is_site && file.log.access.is_some(),
        message_bytes_max: message_bytes.max(Config::default().message_bytes_max),
        connections_max: *max_connections,
        output_high_bytes: bytes(&own.output_high, base.output_high_bytes),
        output_low_bytes: bytes(&own.output_low, base.output_low_bytes),
        output_bytes_max: bytes(&own.output_max, base.output_bytes_max),
        tcp_keepalive: time(&own.keepalive, base.tcp_keepalive),
        tcp_user_timeout: time(&own.user_timeout, base.tcp_user_timeout),
        exempt: proxies_of(listener, file),
    }
}

/// The proxies of a listener: each address that may name another one.
fn proxies_of(listener: &Listener, file: &File) -> Vec<Prefix> {
    let mut all = listener.own.proxies.networks().to_vec();
    if let Service::Sites(numbers) = &listener.service {
        let real_ip = numbers.iter().filter_map(|number| file.site[*number].real_ip.as_ref());
        real_ip.for_each(|real_ip| all.extend(proxies(&real_ip.from).networks()));
    }
    all.sort_unstable();
    all.dedup();
    all
}

/// The place of the key that sets a field of the engine's configuration, in `[engine]` or in the
/// `listener` of a service.
fn place_in(engine: &Place, field: &str) -> Place {
    let timeouts = engine.key("timeouts");
    match field {
        "idle_timeout" => timeouts.key("idle"),
        "receive_timeout" => timeouts.key("request"),
        "write_timeout" | "transfer_timeout" => timeouts.key("write"),
        "linger_timeout" => timeouts.key("linger"),
        "linger_total" => timeouts.key("linger_total"),
        "max_per_address" => engine.key("max_per_ip"),
        "receive_buffers" => engine.key("buffers"),
        "receive_buffer_bytes" => engine.key("buffer_size"),
        "send_buffer_bytes" => engine.key("send_buffer_size"),
        "pipe_bytes" => engine.key("pipe_size"),
        "io_workers_max" => engine.key("io_workers"),
        "jobs_queued_max" => engine.key("jobs_max"),
        "jobs_per_connection_max" => engine.key("jobs_per_connection"),
        "mailbox_commands_max" => engine.key("commands_max"),
        "memory_budget_bytes" => engine.key("memory_budget"),
        "tcp_keepalive" => engine.key("keepalive"),
        "tcp_user_timeout" => engine.key("user_timeout"),
        "output_high_bytes" => engine.key("output_high"),
        "output_low_bytes" => engine.key("output_low"),
        "output_bytes_max" => engine.key("output_max"),
        field => engine.key(field),
    }
}

/// The addresses that this machine has, or all if it has none of them; the engine then says why it
/// cannot listen. /etc/hosts often gives localhost the address ::1 where IPv6 is switched off.
fn usable(all: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let is_missing = |address: &SocketAddr| {
        let on_any_port = SocketAddr::new(address.ip(), 0);
        let errno = TcpListener::bind(on_any_port).err().and_then(|error| error.raw_os_error());
        matches!(errno, Some(libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT))
    };
    let (missing, found): (Vec<_>, Vec<_>) = all.into_iter().partition(is_missing);
    if found.is_empty() { missing } else { found }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_other_machines_are_left_out_if_one_is_here() {
        // 203.0.113.0/24 is reserved for documentation (RFC 5737).
        let [here, elsewhere, other] =
            ["127.0.0.1:80", "203.0.113.1:80", "203.0.113.2:80"].map(|text| text.parse().unwrap());
        assert_eq!(usable(vec![elsewhere, here, other]), [here]);
        assert_eq!(usable(vec![elsewhere, other]), [elsewhere, other]);
    }
}
