//! Filters of subscriptions: which publications of one topic its local subscribers want, by their tags.

use std::sync::Arc;

use bytes::Bytes;
use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::Broker;
use super::effect::Select;
use super::topics::{Topic, TopicKey};
use crate::filter::Filter;
use crate::ids::Token;
use crate::proto::tags;

/// Those of one topic, by the slots of their connections. A connection that has a subscription, or waits for
/// one, may be among them, and nobody else.
#[derive(Debug, Default)]
pub struct Selections(HashMap<u32, Arc<Filter>, RandomState>);

impl Selections {
    pub fn get(&self, slot: u32) -> Option<&Arc<Filter>> {
        self.0.get(&slot)
    }
}

impl Topic {
    /// The filter of the subscription that the connection in this slot has; `None`: it has none, and gets
    /// everything.
    pub fn selection(&self, slot: u32) -> Option<&Arc<Filter>> {
        self.selections.as_ref()?.get(slot)
    }

    /// The subscription of the connection in this slot has this filter from now on, or none.
    pub fn set_selection(&mut self, slot: u32, filter: Option<Arc<Filter>>) {
        match (filter, &mut self.selections) {
            (Some(filter), selections) => {
                selections.get_or_insert_default().0.insert(slot, filter);
            }
            (None, Some(selections)) => {
                selections.0.remove(&slot);
                // A topic without any has nothing that has to be looked at.
                if selections.0.is_empty() {
                    self.selections = None;
                }
            }
            (None, None) => {}
        }
    }
}

impl Broker {
    /// Whether publications of channels with this name may have tags.
    pub fn has_tags(&self, name: &str) -> bool {
        self.options(name).tags
    }

    /// Values that filters of subscriptions were compared with since the last call, when histories were
    /// read.
    pub fn take_compared(&mut self) -> usize {
        std::mem::take(&mut self.compared)
    }

    /// What a connection that has subscribed has said of the publications it wants.
    pub(super) fn select(&mut self, key: TopicKey, token: Token, select: Select) {
        let topic = self.topics.topic_mut(key);
        match select {
            Select::AsBefore => {}
            Select::All => topic.set_selection(token.slot, None),
            Select::Matching(filter) => topic.set_selection(token.slot, Some(filter)),
        }
    }

    /// Leaves of these frames those that the subscription of a connection is for.
    pub(super) fn retain_selected(&mut self, key: TopicKey, token: Token, frames: &mut Vec<Bytes>) {
        if let Some(filter) = self.topics.topic(key).selection(token.slot) {
            self.compared += filter.cost() * frames.len();
            frames.retain(|frame| filter.matches(&tags::of_frame(frame)));
        }
    }
}
