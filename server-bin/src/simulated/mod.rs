//! The daemon's handler on the engine's simulated kernel: many seeds, with faults of every kind.

mod http;
mod packets;

use crate::config::load::{self, Source};
use crate::config::plan::Plan;
use crate::daemon::Daemon;
use crate::files;
use crate::generation::{Current, Opened};
use crate::packets::Root;
use crate::serve::plan_of;
use crate::served::{Identity, Watcher};
use ringwright::testing::{Bench, Place, Storm};
use std::fs;
use std::ops::Range;
use std::sync::Arc;
use tempfile::TempDir;

/// The simulated files: names and sizes.
const FILES: [(&str, u64); 3] = [("small", 700), ("middling", 40_000), ("large", 300_000)];

/// The folder that the simulated one replaces. Its device and inode mean nothing.
const IDENTITY: Identity = Identity { device: 1, inode: 1 };

/// A daemon that serves a simulated folder.
struct Simulated {
    plan: Plan,
    /// The real folder: workers list it, and it is where the configuration is.
    folder: TempDir,
}

impl Simulated {
    /// A daemon with this configuration, whose only root is `root`.
    fn new(configuration: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir(folder.path().join("root")).expect("a new folder");
        let path = folder.path().join("it.toml");
        fs::write(&path, configuration).expect("a new file");
        let source = Source::read(&path).expect("it can be read");
        let loaded = load::load(Some(&source), &[]).expect("it is TOML");
        let mut plan = plan_of(&loaded, Some(&source)).expect("it can be served");
        plan.engine.shards = Some(1);
        // The buffers run out in many runs.
        plan.engine.receive_buffers = 2;
        Self { plan, folder }
    }

    /// The handler of a shard.
    fn daemon(&self, place: &Place) -> Daemon {
        let opened = Opened::open(&self.plan, 1, None, &Watcher::default()).expect("it is there");
        for service in opened.packets() {
            let (root, _) = service.root.current().expect("it was opened");
            let directory = place.directory.clone();
            service.root.replace(Root { directory, folder: root.folder }, IDENTITY);
        }
        let generation = opened.first();
        for site in generation.sites() {
            site.root.replace(place.directory.clone(), IDENTITY);
        }
        let engine = &self.plan.engine;
        let shared = files::Shared::new(engine.workers, engine.open_files > 0, Default::default());
        let clients = Arc::default();
        Daemon::new(Current::new(generation), place.shard, shared, None, clients)
    }

    /// A storm of this daemon.
    fn storm(&self) -> Storm<'_, Daemon> {
        assert!(self.folder.path().is_dir());
        let add_files = |bench: &mut Bench<Daemon>| {
            FILES.iter().for_each(|(name, bytes)| bench.add_file(name, *bytes));
        };
        Storm::new(self.plan.engine.clone(), |place| self.daemon(place)).prepare(add_files)
    }
}

/// The content of a simulated file.
fn content(number: usize) -> Vec<u8> {
    ringwright::testing::file_content(number, 0, FILES[number].1 as usize)
}

/// Few seeds, or many before a release.
fn seeds() -> Range<u64> {
    0..if std::env::var_os("RINGWRIGHT_FULL").is_some() { 10_000 } else { 400 }
}
