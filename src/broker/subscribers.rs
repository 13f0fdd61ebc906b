//! The local subscribers of one topic: a dense array of connection slots, in slot order, so that a
//! fan-out walks memory in the order the connections lie in it.

/// A slot whose subscriber has left. It keeps its place until the array is compacted, so leaving and
/// coming back (slots are reused) moves nothing.
const GONE: u32 = 1 << 31;

/// Slots in ascending order.
#[derive(Debug, Default)]
pub struct Subscribers {
    slots: Vec<u32>,
    /// Places without [`GONE`].
    live: u32,
}

/// What [`Subscribers::insert`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inserted {
    Already,
    /// In a place that its slot had before.
    Revived,
    /// At this index; what was there and behind it moved up by one.
    At(usize),
}

impl Subscribers {
    pub fn len(&self) -> usize {
        self.live as usize
    }

    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Places, those of subscribers that have left included.
    pub fn places(&self) -> usize {
        self.slots.len()
    }

    /// The slot at that place, unless its subscriber has left.
    pub fn at(&self, place: usize) -> Option<u32> {
        self.slots.get(place).copied().filter(|slot| slot & GONE == 0)
    }

    pub fn contains(&self, slot: u32) -> bool {
        self.place_of(slot).is_some()
    }

    pub fn insert(&mut self, slot: u32) -> Inserted {
        debug_assert_eq!(slot & GONE, 0);
        let inserted = match self.find(slot) {
            Ok(place) if self.slots[place] & GONE == 0 => return Inserted::Already,
            Ok(place) => {
                self.slots[place] = slot;
                Inserted::Revived
            }
            Err(place) => {
                self.slots.insert(place, slot);
                Inserted::At(place)
            }
        };
        self.live += 1;
        inserted
    }

    /// Whether `slot` was there. Moves nothing.
    pub fn remove(&mut self, slot: u32) -> bool {
        let Ok(place) = self.find(slot) else { return false };
        let was_live = self.slots[place] & GONE == 0;
        self.slots[place] |= GONE;
        self.live -= u32::from(was_live);
        was_live
    }

    /// Gives the places of those who left back once they are the larger half. Moves places: not
    /// while somebody remembers one.
    pub fn compact(&mut self) {
        const PLACES_KEPT: usize = 16;
        if self.slots.len() > PLACES_KEPT && self.len() < self.slots.len() / 2 || self.live == 0 {
            self.slots.retain(|slot| slot & GONE == 0);
            self.slots.shrink_to(self.slots.len() + PLACES_KEPT);
        }
    }

    /// Where this subscriber is.
    pub fn place_of(&self, slot: u32) -> Option<usize> {
        self.find(slot).ok().filter(|place| self.slots[*place] & GONE == 0)
    }

    fn find(&self, slot: u32) -> Result<usize, usize> {
        match self.slots.last() {
            // Connections mostly come in the order of their slots.
            Some(last) if last & !GONE < slot => Err(self.slots.len()),
            _ => self.slots.binary_search_by_key(&slot, |place| place & !GONE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn subscribers_are_an_ordered_set(
            steps in prop::collection::vec((0..3u8, 0..40u32), 0..300),
        ) {
            let mut subscribers = Subscribers::default();
            let mut model = BTreeSet::new();
            for (step, slot) in steps {
                match step {
                    0 => {
                        let inserted = subscribers.insert(slot);
                        prop_assert_eq!(inserted != Inserted::Already, model.insert(slot));
                    }
                    1 => prop_assert_eq!(subscribers.remove(slot), model.remove(&slot)),
                    _ => subscribers.compact(),
                }
                let listed: Vec<_> =
                    (0..subscribers.places()).filter_map(|place| subscribers.at(place)).collect();
                prop_assert_eq!(&listed, &model.iter().copied().collect::<Vec<_>>());
                prop_assert_eq!(subscribers.len(), model.len());
                prop_assert_eq!(subscribers.contains(slot), model.contains(&slot));
            }
        }
    }

    #[test]
    fn leaving_and_coming_back_moves_nothing() {
        let mut subscribers = Subscribers::default();
        for slot in 0..10 {
            assert_eq!(subscribers.insert(slot), Inserted::At(slot as usize));
        }
        subscribers.remove(3);
        assert_eq!(subscribers.places(), 10);
        assert_eq!(subscribers.insert(3), Inserted::Revived);
        assert_eq!(subscribers.insert(3), Inserted::Already);
    }
}
