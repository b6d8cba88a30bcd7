//! The current generation of the configuration, for all shards.
//!
//! A reload puts a new generation into its place. A connection keeps the settings of the generation
//! that accepted it, and a request those of the generation that was current when it began.

use crate::config::plan::{PacketsPlan, Plan, Service, SitePlan};
use crate::packets;
use crate::places::Places;
use crate::proxies::Proxies;
use crate::served::{Folder, Served, Watcher};
use crate::site::auth::Passwords;
use crate::site::counters::Counters;
use crate::site::names::Names;
use crate::site::rules::Rules;
use crate::site::spec::{SiteSpec, Symlinks};
use ringwright::Config;
use ringwright::files::Directory;
use ringwright::packets::Framing;
use std::collections::{HashMap, HashSet};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A generation of the configuration.
pub struct Generation {
    /// Counts from 1.
    pub number: u64,
    /// The service of each listener, by its number. Removed listeners stay until their number is
    /// used again, because they may have connections.
    pub listeners: Vec<Option<Listening>>,
    /// The sites of the present listeners.
    sites: Vec<Arc<Site>>,
    /// The sites of all listeners, each once.
    pub served: Vec<Arc<Site>>,
    /// The places in `served` of the sites of each listener, by its number.
    places: Vec<Box<[usize]>>,
    /// The packet services of the present listeners.
    pub packets: Vec<Arc<PacketService>>,
}

/// The service of a listener, and who is its client.
#[derive(Clone)]
pub struct Listening {
    /// The kind of its connections.
    pub service: Serving,
    /// The proxies that begin with a header of the PROXY protocol.
    pub proxies: Arc<Proxies>,
    /// A proxy may name a client, by this protocol or in a header field.
    pub has_proxies: bool,
    /// The time in which a request must be complete.
    pub request_timeout: Option<Duration>,
}

/// The kind of the connections of a listener.
#[derive(Clone)]
pub enum Serving {
    /// Requests for one of these sites, which are found by name.
    Sites(Vec<Arc<Site>>, Arc<Names>),
    /// Echo.
    Echo,
    /// Packets.
    Packets(Arc<PacketService>),
}

/// A site that is served. One whose settings do not change stays the same at a reload.
pub struct Site {
    /// Tells it from all others.
    pub id: u32,
    /// Its name in metrics.
    pub label: String,
    /// Its counters.
    pub counters: Arc<Counters>,
    /// Its settings.
    pub spec: SiteSpec,
    /// Its rules.
    pub rules: Rules,
    /// There is a rule.
    pub has_rules: bool,
    /// Its directory. It has no other site's open files, because their notes differ.
    pub root: Arc<Served<Directory>>,
    /// The directories of rules, with the indices of the rules.
    pub roots: Vec<(u16, Arc<Served<Directory>>)>,
    /// The users of rules, with the indices of the rules.
    pub passwords: Vec<(u16, Arc<Passwords>)>,
}

/// A packet service.
pub struct PacketService {
    /// Its settings.
    pub plan: PacketsPlan,
    /// Its directory.
    pub root: Arc<Served<packets::Root>>,
    /// The limit on digests.
    pub places: Arc<Places>,
    /// The uploads that wait to be resumed.
    pub kept: Arc<packets::Kept>,
    /// The form of packets.
    pub framing: Framing,
}

/// The directories and password files of a plan, opened.
pub struct Opened {
    sites: Vec<Arc<Site>>,
    packets: Vec<Arc<PacketService>>,
    /// The service of each listener, in the plan's order.
    pub listeners: Vec<Listening>,
}

impl Opened {
    /// Opens the directories of a plan. The generation `before` shares those that are the same.
    ///
    /// # Errors
    /// A message for the user.
    pub fn open(
        plan: &Plan,
        shards: usize,
        before: Option<&Generation>,
        watcher: &Watcher,
    ) -> Result<Self, String> {
        let before_sites = before.map_or(&[][..], |before| &before.sites);
        let by_label: HashMap<&str, &Arc<Site>> =
            before_sites.iter().map(|site| (&site.label[..], site)).collect();
        let sites = plan.sites.iter().zip(labels(plan));
        let sites = sites.map(|(site, label)| {
            let same = by_label.get(&label[..]).copied();
            Site::open(site, label, shards, same, watcher)
        });
        let sites: Vec<Arc<Site>> = sites.collect::<Result<_, _>>()?;
        let packets = plan.packets.iter();
        let packets =
            packets.map(|packets| PacketService::open(packets, &plan.engine, before, watcher));
        let packets: Vec<Arc<PacketService>> = packets.collect::<Result<_, _>>()?;
        let serving = |(service, names): (&Service, &Arc<Names>)| match service {
            Service::Sites(numbers) => {
                let sites = numbers.iter().map(|number| sites[*number].clone()).collect();
                Serving::Sites(sites, names.clone())
            }
            Service::Echo => Serving::Echo,
            Service::Packets(number) => Serving::Packets(packets[*number].clone()),
        };
        let services = plan.services.iter().zip(&plan.names).map(serving);
        let of_engine = plan.engine.receive_timeout;
        let timeouts = plan.engine.listeners.iter().map(|listener| {
            listener.settings.as_ref().map_or(of_engine, |settings| settings.receive_timeout)
        });
        let listening = |((service, proxies), request_timeout): ((Serving, &Proxies), _)| {
            let has_real_ip = match &service {
                Serving::Sites(sites, _) => sites.iter().any(|site| site.spec.real_ip.is_some()),
                Serving::Echo | Serving::Packets(_) => false,
            };
            let has_proxies = has_real_ip || !proxies.is_empty();
            Listening { service, proxies: Arc::new(proxies.clone()), has_proxies, request_timeout }
        };
        let listeners = services.zip(&plan.proxies).zip(timeouts).map(listening).collect();
        Ok(Self { sites, packets, listeners })
    }

    /// The packet services.
    #[must_use]
    pub fn packets(&self) -> &[Arc<PacketService>] {
        &self.packets
    }

    /// The first generation: the numbers of the listeners are those of the plan's order.
    #[must_use]
    pub fn first(self) -> Generation {
        let Self { sites, packets, listeners } = self;
        Generation::new(1, listeners.into_iter().map(Some).collect(), sites, packets)
    }

    /// The next generation. `numbers` are those of the listeners in the plan's order.
    #[must_use]
    pub fn next(self, before: &Generation, numbers: &[u16]) -> Generation {
        let mut all = before.listeners.clone();
        for (number, listening) in numbers.iter().zip(self.listeners) {
            let number = usize::from(*number);
            all.resize_with(all.len().max(number + 1), || None);
            all[number] = Some(listening);
        }
        let Self { sites, packets, .. } = self;
        Generation::new(before.number + 1, all, sites, packets)
    }
}

impl Generation {
    /// Finds out here what each shard would find out.
    fn new(
        number: u64,
        listeners: Vec<Option<Listening>>,
        sites: Vec<Arc<Site>>,
        packets: Vec<Arc<PacketService>>,
    ) -> Self {
        let (mut served, mut known) = (Vec::new(), HashMap::new());
        let mut place = |site: &Arc<Site>| {
            *known.entry(site.id).or_insert_with(|| {
                served.push(site.clone());
                served.len() - 1
            })
        };
        let places = listeners.iter().map(|listening| match listening {
            Some(Listening { service: Serving::Sites(sites, _), .. }) => {
                sites.iter().map(&mut place).collect()
            }
            _ => Box::default(),
        });
        let places = places.collect();
        Self { number, listeners, sites, served, places, packets }
    }

    /// The names of a listener's sites, and their places in [`served`](Self::served). `None` if it
    /// has none.
    #[must_use]
    pub fn sites_of(&self, listener: u16) -> Option<(&Arc<Names>, &[usize])> {
        let listening = self.listeners.get(usize::from(listener))?.as_ref()?;
        let Serving::Sites(_, names) = &listening.service else { return None };
        Some((names, &self.places[usize::from(listener)]))
    }

    /// The sites of the present listeners.
    #[must_use]
    pub fn sites(&self) -> &[Arc<Site>] {
        &self.sites
    }

    /// The service of the listener of this number.
    ///
    /// # Panics
    /// The generation has no such listener. The shards accept clients of a new listener only after
    /// the generation that has it is current.
    #[must_use]
    pub fn serving(&self, number: u16) -> &Listening {
        let listening = self.listeners.get(usize::from(number)).and_then(Option::as_ref);
        listening.expect("a listener accepts clients after its generation has become current")
    }
}

/// The names of the sites in metrics: the first name of each, and its place where that is not
/// enough.
fn labels(plan: &Plan) -> Vec<String> {
    let mut used = HashSet::new();
    let label = |(index, site): (usize, &SitePlan)| match site.spec.names.first() {
        Some(name) if used.insert(name.clone()) => name.clone(),
        Some(name) => format!("{name} site[{index}]"),
        None => format!("site[{index}]"),
    };
    plan.sites.iter().enumerate().map(label).collect()
}

impl Site {
    fn open(
        plan: &SitePlan,
        label: String,
        shards: usize,
        before: Option<&Arc<Self>>,
        watcher: &Watcher,
    ) -> Result<Arc<Self>, String> {
        static IDS: AtomicU32 = AtomicU32::new(0);
        // A password file may have changed though its name has not.
        let is_same = |site: &&Arc<Self>| site.spec == plan.spec && site.passwords.is_empty();
        if let Some(same) = before.filter(is_same) {
            return Ok(same.clone());
        }
        let counters = before.map(|site| site.counters.clone());
        let open = |path: &Path| match plan.spec.symlinks {
            Symlinks::Deny => open_with(path, Directory::open, watcher),
            Symlinks::Beneath => open_with(path, Directory::open_following_links, watcher),
        };
        let roots = plan.rules.roots().map(|(rule, root)| Ok((rule, open(root)?)));
        let passwords = plan.rules.auths().map(|(rule, auth)| {
            let passwords = Passwords::load(&auth.file).map_err(|mistakes| {
                let mistakes: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
                format!("{}: {}", auth.file.display(), mistakes.join("; "))
            })?;
            Ok((rule, Arc::new(passwords)))
        });
        Ok(Arc::new(Self {
            id: IDS.fetch_add(1, Ordering::Relaxed),
            label,
            counters: counters.unwrap_or_else(|| Arc::new(Counters::new(shards))),
            spec: plan.spec.clone(),
            has_rules: !plan.spec.rules.is_empty(),
            root: open(&plan.spec.root)?,
            roots: roots.collect::<Result<_, String>>()?,
            passwords: passwords.collect::<Result<_, String>>()?,
            rules: plan.rules.clone(),
        }))
    }
}

impl PacketService {
    fn open(
        plan: &PacketsPlan,
        config: &Config,
        before: Option<&Generation>,
        watcher: &Watcher,
    ) -> Result<Arc<Self>, String> {
        let mut services = before.into_iter().flat_map(|before| &before.packets);
        let same = services.find(|service| service.plan.root == plan.root);
        let root = match same {
            Some(service) => service.root.clone(),
            None => open_with(&plan.root, packets::Root::open, watcher)?,
        };
        let framing =
            Framing::new(packets::BODY_BYTES_MAX, config).map_err(|error| error.to_string())?;
        if let Some(same) = same.filter(|service| service.plan == *plan) {
            return Ok(same.clone());
        }
        let kept = same.filter(|service| service.plan.kept == plan.kept);
        Ok(Arc::new(Self {
            plan: plan.clone(),
            root,
            places: Arc::new(Places::new(packets::SUMS_MAX)),
            kept: kept
                .map_or_else(|| Arc::new(packets::Kept::new(plan.kept)), |same| same.kept.clone()),
            framing,
        }))
    }
}

fn open_with<F: Folder>(
    path: &Path,
    open: fn(&Path) -> io::Result<F>,
    watcher: &Watcher,
) -> Result<Arc<Served<F>>, String> {
    let served = Served::open_with(path, open)
        .map_err(|error| format!("cannot open the directory {}: {error}", path.display()))?;
    watcher.add(&served);
    Ok(served)
}

/// The current generation, for all shards.
pub struct Current {
    /// The number of the current generation.
    number: AtomicU64,
    generation: Mutex<Arc<Generation>>,
}

impl Current {
    /// The first generation.
    #[must_use]
    pub fn new(first: Generation) -> Arc<Self> {
        let number = AtomicU64::new(first.number);
        Arc::new(Self { number, generation: Mutex::new(Arc::new(first)) })
    }

    /// The current generation.
    #[must_use]
    pub fn get(&self) -> Arc<Generation> {
        self.generation.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The current generation, unless it has this number.
    #[inline]
    #[must_use]
    pub fn other_than(&self, number: u64) -> Option<Arc<Generation>> {
        (self.number.load(Ordering::Acquire) != number).then(|| self.get())
    }

    /// The number of the current generation.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number.load(Ordering::Relaxed)
    }

    /// Makes a generation current.
    pub fn replace(&self, generation: Generation) {
        let number = generation.number;
        *self.generation.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(generation);
        self.number.store(number, Ordering::Release);
    }
}
