//! What simulated clients acknowledge: at once, late, twice, all together, or not before the end.

use std::cell::RefCell;

use serde_json::Value;

use super::client::{Client, Place};
use super::{ACKED, TOPICS, World};
use crate::io::sim::{Network, Random};

impl Client {
    /// Takes a delivery of the acked topic. Whether it came before.
    pub fn take_delivery(&mut self, message: &Value, place: &mut Place, id: usize) -> bool {
        let offset = message["offset"].as_u64().expect("an offset");
        let message_id = message["messageId"].as_str().expect("a message id");
        assert_eq!(message_id, format!("{}-{offset}", place.epoch));
        self.owed.push(offset);
        if offset > place.offset {
            place.unacked.insert(offset);
            return false;
        }
        // An acknowledgement may be on its way.
        assert!(place.seen.contains(&(offset, id)), "{offset} comes late: {place:?}");
        true
    }

    /// Acknowledges some of what it has, in its own manner.
    pub fn acknowledge(&mut self, network: &RefCell<Network>, random: &mut Random) {
        if self.owed.is_empty() || (!self.is_prompt() && random.one_in(2)) {
            return;
        }
        let owed = std::mem::take(&mut self.owed);
        if !self.is_prompt() && random.one_in(6) {
            // It forgets them: they come again.
            return;
        }
        if random.one_in(8) {
            self.acknowledge_all(network, random);
            return;
        }
        for offset in owed {
            let Some(place) = self.acked_place() else { return };
            place.unacked.remove(&offset);
            let text = format!(r#"{{"type":"ack","messageId":"{}-{offset}"}}"#, place.epoch);
            self.acknowledged.insert(offset);
            let times = if random.one_in(5) { 2 } else { 1 };
            for _ in 0..times {
                self.say(network, &text, random);
            }
        }
    }

    /// Acknowledges everything that it has, be it forgotten or not.
    pub fn acknowledge_all(&mut self, network: &RefCell<Network>, random: &mut Random) {
        let Some(place) = self.acked_place() else { return };
        place.unacked.clear();
        let (channel, offset) = (TOPICS[ACKED], place.offset);
        self.acknowledged.extend(1..=offset);
        let text = format!(r#"{{"type":"ack","channel":"{channel}","offset":{offset}}}"#);
        self.say(network, &text, random);
    }

    /// Deliveries for which no acknowledgement has left.
    pub fn unacked(&mut self) -> usize {
        self.acked_place().map_or(0, |place| place.unacked.len())
    }
}

impl World {
    /// Nobody gets more than it may leave without an acknowledgement.
    pub fn check_windows(&mut self) {
        let most = self.settings.config.limits.max_unacked;
        for client in &mut self.clients {
            let unacked = client.unacked();
            assert!(unacked <= most, "{unacked} of {most}");
        }
    }
}
