//! A limit on things that are in progress at the same time.

use std::sync::Arc;

/// A number of places, for all shards together.
#[derive(Debug)]
pub struct Places {
    held: Arc<()>,
    max: usize,
}

/// One of the places. Dropping it returns it.
#[derive(Debug)]
pub struct Place(#[expect(dead_code, reason = "its reference is counted")] Arc<()>);

impl Places {
    /// At most `max` places.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { held: Arc::default(), max }
    }

    /// Returns `None` if all places are taken.
    #[must_use]
    pub fn take(&self) -> Option<Place> {
        let place = Place(self.held.clone());
        // One of the references is `self`.
        (Arc::strong_count(&self.held) <= 1 + self.max).then_some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_places_is_limited() {
        let places = Places::new(3);
        let mut taken: Vec<Place> = std::iter::from_fn(|| places.take()).collect();
        assert_eq!(taken.len(), 3);
        taken.pop();
        assert!(places.take().is_some(), "a place was returned");
    }
}
