//! Payloads of any kind. Each owner is dropped once, and the drop panics.

use super::actor::OnPurpose;
use crate::Payload;
use crate::ring::simulated::Rng;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The number of owners that have not been dropped.
#[derive(Clone, Debug, Default)]
pub struct Owners(Arc<AtomicUsize>);

struct Owner {
    bytes: Vec<u8>,
    owners: Owners,
}

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.owners.0.fetch_sub(1, Ordering::SeqCst);
        std::panic::panic_any(OnPurpose);
    }
}

impl Owners {
    /// The number of owners that have not been dropped.
    pub fn left(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    /// A payload with these bytes, which also decide its kind.
    pub fn payload(&self, bytes: &[u8]) -> Payload {
        let seed = bytes.iter().take(8).fold(bytes.len() as u64, |sum, byte| {
            sum.wrapping_mul(31).wrapping_add(u64::from(*byte))
        });
        let mut rng = Rng::new(seed);
        match rng.below(5) {
            0 => {
                let mut with_room = Vec::with_capacity(bytes.len() + rng.below(300) as usize);
                with_room.extend_from_slice(bytes);
                with_room.into()
            }
            1 => bytes.to_vec().into_boxed_slice().into(),
            2 => Arc::<[u8]>::from(bytes).into(),
            3 => {
                let (before, behind) = (rng.below(50) as usize, rng.below(50) as usize);
                let mut around = vec![1; before];
                around.extend_from_slice(bytes);
                around.resize(before + bytes.len() + behind, 2);
                Payload::range(around.into(), before..before + bytes.len())
            }
            _ => {
                self.0.fetch_add(1, Ordering::SeqCst);
                Payload::from_owner(Owner { bytes: bytes.to_vec(), owners: self.clone() })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::book::{Farewell, Role};
    use super::super::scenarios::{config, go_on, part, world_of};
    use super::super::world::World;
    use super::*;
    use crate::Config;
    use crate::ring::simulated::Plan;
    use std::time::Duration;

    /// A world with a connection in slot 0 that has queued nothing.
    fn connected(seed: u64) -> World {
        let config = Config { send_buffer_bytes: 8 << 10, ..config() };
        let mut world = world_of(seed, config, 1);
        world.add_peer(Plan::plain(), part(Role::Echo, Farewell::Close), 0);
        go_on(&mut world, Duration::from_millis(20));
        world
    }

    /// The number of chunks, and of bytes of the budget, that a payload takes.
    fn taken(payload: Payload) -> (usize, u64) {
        let mut world = connected(3);
        let (_, core) = world.shard(0).parts();
        let (chunks, used) = (core.chunks.len(), core.counters.budget_used_bytes);
        core.queue_bytes(0, b"a head");
        core.queue_payload(0, payload);
        let taken = (core.chunks.len() - chunks - 1, core.counters.budget_used_bytes - used);
        core.touch(0);
        go_on(&mut world, Duration::from_millis(20));
        assert_eq!(world.shard(0).parts().1.counters.budget_used_bytes, used, "it is given back");
        taken
    }

    /// A payload that is short takes no chunk, and one that others hold takes its share.
    #[test]
    fn a_payload_is_copied_or_charged() {
        static LONG: [u8; 3_000] = [1; 3_000];
        let (chunks, chunk) = taken((&LONG).into());
        assert!(chunks == 1 && (50..300).contains(&chunk), "{chunk} bytes for a chunk");
        assert_eq!(taken(vec![1; 2_048].into()), (0, 0));
        let mut with_room = Vec::with_capacity(10_000);
        with_room.resize(2_049, 1);
        assert_eq!(taken(with_room.into()), (1, 10_000 + chunk));
        let shared: Arc<[u8]> = vec![1; 3_000].into();
        let others = [shared.clone(), shared.clone()];
        assert_eq!(taken(Payload::range(shared.clone(), ..512)), (0, 0));
        // A short range of what others hold keeps no more than itself.
        assert_eq!(taken(Payload::range(shared.clone(), ..513)), (1, 513 + chunk));
        assert_eq!(taken(Payload::range(shared, ..)), (1, 3_000 / 3 + chunk));
        drop(others);
    }
}
