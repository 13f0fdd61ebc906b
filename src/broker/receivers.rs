//! What filters are asked of: the attributes of whoever a connection belongs to.

use std::sync::Arc;

use crate::filter::Attributes;

/// By connection slot, where they are found without a look-up.
#[derive(Debug, Default)]
pub struct Receivers {
    attributes: Vec<Option<Arc<Attributes>>>,
    none: Attributes,
}

impl Receivers {
    /// The connection is one of a user with these.
    pub fn insert(&mut self, slot: u32, attributes: &Arc<Attributes>) {
        let slot = slot as usize;
        // Where nobody has attributes nothing is kept.
        if attributes.is_empty() {
            return;
        }
        if self.attributes.len() <= slot {
            self.attributes.resize(slot + 1, None);
        }
        self.attributes[slot] = Some(attributes.clone());
    }

    /// It is nobody's any more.
    pub fn remove(&mut self, slot: u32) {
        if let Some(attributes) = self.attributes.get_mut(slot as usize) {
            *attributes = None;
        }
    }

    /// None of those that nobody gave any.
    pub fn attributes(&self, slot: u32) -> &Attributes {
        let known = self.attributes.get(slot as usize);
        known.and_then(Option::as_deref).unwrap_or(&self.none)
    }
}
