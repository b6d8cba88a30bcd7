//! The data: strings with a time to live, shared by all shards.

use foldhash::fast::RandomState;
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Parts of the data, each with a lock of its own, so that shards seldom wait for each other.
const STRIPES: usize = 64;

/// A value. The reply of a long one shares its bytes.
#[derive(Clone)]
pub struct Value {
    pub bytes: Arc<[u8]>,
    /// The end of its life, in milliseconds since 1970.
    pub expires_ms: Option<u64>,
}

/// One part of the data.
#[derive(Default)]
pub struct Stripe {
    values: HashMap<Box<[u8]>, Value, RandomState>,
    /// Values with a time to live.
    mortal: usize,
}

impl Stripe {
    /// The value of a key. One whose time is over is removed.
    pub fn get(&mut self, key: &[u8]) -> Option<&mut Value> {
        let is_over = self.values.get(key)?.expires_ms.is_some_and(|at_ms| at_ms <= now_ms());
        if is_over {
            self.remove(key);
            return None;
        }
        self.values.get_mut(key)
    }

    pub fn set(&mut self, key: &[u8], value: Value) {
        self.mortal += usize::from(value.expires_ms.is_some());
        let before = match self.values.get_mut(key) {
            Some(old) => Some(std::mem::replace(old, value)),
            None => self.values.insert(key.into(), value),
        };
        self.mortal -= usize::from(before.is_some_and(|it| it.expires_ms.is_some()));
    }

    /// Sets the end of a value's life. Returns `false` if there is no such value.
    pub fn set_expiry(&mut self, key: &[u8], expires_ms: Option<u64>) -> bool {
        let Some(value) = self.get(key) else { return false };
        let before = std::mem::replace(&mut value.expires_ms, expires_ms);
        self.mortal += usize::from(expires_ms.is_some());
        self.mortal -= usize::from(before.is_some());
        true
    }

    pub fn remove(&mut self, key: &[u8]) -> Option<Value> {
        let removed = self.values.remove(key)?;
        self.mortal -= usize::from(removed.expires_ms.is_some());
        Some(removed)
    }

    pub fn keys(&self) -> impl Iterator<Item = &[u8]> {
        self.values.keys().map(AsRef::as_ref)
    }

    pub fn len(&self) -> usize {
        self.values.len()
    }

    fn clear(&mut self) {
        (self.values, self.mortal) = (HashMap::default(), 0);
    }

    fn remove_expired(&mut self) {
        if self.mortal > 0 {
            let now_ms = now_ms();
            self.values.retain(|_, value| value.expires_ms.is_none_or(|at_ms| at_ms > now_ms));
            self.mortal = self.values.values().filter(|it| it.expires_ms.is_some()).count();
        }
    }
}

/// All data.
pub struct Store {
    stripes: Vec<Mutex<Stripe>>,
    hasher: RandomState,
}

/// Access to the data: by a lock for each key, or under the locks of all of them.
pub enum Access<'a> {
    Each(&'a Store),
    All(&'a Store, Vec<MutexGuard<'a, Stripe>>),
}

impl Store {
    pub fn new() -> Self {
        Self {
            stripes: (0..STRIPES).map(|_| Mutex::default()).collect(),
            hasher: RandomState::default(),
        }
    }

    /// Access under all locks, for commands that nothing may come between.
    pub fn all(&self) -> Access<'_> {
        // Always in this order, so that two callers cannot wait for each other.
        Access::All(self, (0..STRIPES).map(|number| self.lock(number)).collect())
    }

    /// Removes the values of a part whose time is over.
    pub fn remove_expired(&self, part: usize) {
        self.lock(part % STRIPES).remove_expired();
    }

    fn lock(&self, number: usize) -> MutexGuard<'_, Stripe> {
        self.stripes[number].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stripe_of(&self, key: &[u8]) -> usize {
        self.hasher.hash_one(key) as usize % STRIPES
    }
}

impl Access<'_> {
    /// Calls `f` with the part that has a key.
    pub fn of<T>(&mut self, key: &[u8], f: impl FnOnce(&mut Stripe) -> T) -> T {
        match self {
            Self::Each(store) => f(&mut store.lock(store.stripe_of(key))),
            Self::All(store, stripes) => f(&mut stripes[store.stripe_of(key)]),
        }
    }

    /// Calls `f` with each part.
    pub fn each(&mut self, mut f: impl FnMut(&mut Stripe)) {
        match self {
            Self::Each(store) => (0..STRIPES).for_each(|number| f(&mut store.lock(number))),
            Self::All(_, stripes) => stripes.iter_mut().for_each(|stripe| f(stripe)),
        }
    }

    pub fn clear(&mut self) {
        self.each(Stripe::clear);
    }
}

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_millis() as u64
}
