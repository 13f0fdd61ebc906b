//! What connections are known to have received of the inboxes of their users, where those queue.
//!
//! Bytes that a socket took may still be lost with the connection, and no client has to know of
//! acknowledgements here. But every WebSocket answers pings (RFC 6455, 5.5.2), and answers this one after
//! it has read what came before it: so a ping goes behind the messages, and its pong proves them. There is
//! one ping under way for each connection; what is handed to it meanwhile is for the next.

use hashbrown::HashMap;

use super::State;
use crate::ids::{Token, TopicName};
use crate::io::FrameClass;
use crate::metrics::Counter;
use crate::proto::encoder;

/// Inboxes with an offset each: one for each namespace that queues, at most.
type Offsets = Vec<(TopicName, u64)>;

/// By slot; connections without messages have no entry.
#[derive(Debug, Default)]
pub struct Receipts {
    connections: HashMap<u32, Receipt, foldhash::fast::RandomState>,
    /// Pings are numbered from 1.
    last_ping: u64,
}

#[derive(Debug)]
struct Receipt {
    generation: u32,
    /// The number of the ping that is under way.
    ping: u64,
    /// What its pong proves.
    proves: Offsets,
    /// What was handed to the connection since.
    newer: Offsets,
}

impl Receipts {
    /// The connection is gone, and proves nothing any more.
    pub fn forget(&mut self, token: Token) {
        if !self.connections.is_empty() && self.receipt(token).is_some() {
            self.connections.remove(&token.slot);
        }
    }

    /// The connection was handed what an inbox has up to this offset. The number of the ping to send now,
    /// if none is under way.
    fn handed(&mut self, token: Token, topic: TopicName, upto: u64) -> Option<u64> {
        if let Some(receipt) = self.receipt(token) {
            match receipt.newer.iter_mut().find(|(known, _)| *known == topic) {
                Some((_, known)) => *known = upto,
                None => receipt.newer.push((topic, upto)),
            }
            return None;
        }
        self.last_ping += 1;
        let (generation, ping) = (token.generation, self.last_ping);
        let (proves, newer) = (vec![(topic, upto)], Offsets::new());
        self.connections.insert(token.slot, Receipt { generation, ping, proves, newer });
        Some(ping)
    }

    /// What the pong with this payload proves, and the number of the next ping, if one is to be sent.
    /// `None`: it proves nothing.
    fn take(&mut self, token: Token, payload: &[u8]) -> Option<(Offsets, Option<u64>)> {
        if self.connections.is_empty() {
            return None;
        }
        let next_ping = self.last_ping + 1;
        let receipt = self.receipt(token)?;
        if *payload != receipt.ping.to_be_bytes() {
            return None;
        }
        let newer = std::mem::take(&mut receipt.newer);
        if newer.is_empty() {
            let receipt = self.connections.remove(&token.slot)?;
            return Some((receipt.proves, None));
        }
        receipt.ping = next_ping;
        let proven = std::mem::replace(&mut receipt.proves, newer);
        self.last_ping = next_ping;
        Some((proven, Some(next_ping)))
    }

    fn receipt(&mut self, token: Token) -> Option<&mut Receipt> {
        let receipt = self.connections.get_mut(&token.slot)?;
        (receipt.generation == token.generation).then_some(receipt)
    }
}

impl State {
    pub(super) fn handed(&mut self, token: Token, topic: TopicName, upto: u64) {
        // Whoever is about to end has left the broker already, or will not read this.
        if self.connection(token).is_none_or(|connection| connection.close_sent) {
            return;
        }
        if let Some(ping) = self.receipts.handed(token, topic, upto) {
            self.ping_behind(token, ping);
        }
    }

    /// `false`: the pong proves nothing.
    pub(super) fn prove(&mut self, token: Token, payload: &[u8]) -> bool {
        let Some((proven, next)) = self.receipts.take(token, payload) else { return false };
        self.count(Counter::QueueProofs, 1);
        let mut effects = std::mem::take(&mut self.effects);
        for (topic, upto) in proven {
            self.broker.received(topic, upto, &mut effects);
        }
        self.apply(effects);
        if let Some(ping) = next {
            self.ping_behind(token, ping);
        }
        true
    }

    /// Behind the messages, and dropped with them if they are.
    fn ping_behind(&mut self, token: Token, number: u64) {
        let frame = encoder::ping_frame(&number.to_be_bytes());
        self.queue_bytes(token, frame, FrameClass::Retained);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pong_proves_what_was_handed_before_its_ping() {
        let mut receipts = Receipts::default();
        let token = Token { slot: 3, generation: 7 };
        let (a, b) = (TopicName::new("a"), TopicName::new("b"));
        let first = receipts.handed(token, a.clone(), 1).expect("none is under way");
        assert_eq!(receipts.handed(token, b.clone(), 4), None);
        assert_eq!(receipts.handed(token, b.clone(), 5), None);
        for payload in [&b""[..], b"x", &(first + 1).to_be_bytes()] {
            assert_eq!(receipts.take(token, payload), None, "{payload:?}");
        }
        let (proven, next) = receipts.take(token, &first.to_be_bytes()).expect("it was asked");
        assert_eq!(proven, [(a.clone(), 1)]);
        let next = next.expect("there is more");
        assert_eq!(receipts.take(token, &first.to_be_bytes()), None, "once");
        assert_eq!(receipts.take(token, &next.to_be_bytes()), Some((vec![(b, 5)], None)));
        let third = receipts.handed(token, a, 9).expect("none is under way");
        // Somebody else in the same slot.
        let other = Token { slot: 3, generation: 8 };
        assert_eq!(receipts.take(other, &third.to_be_bytes()), None);
        receipts.forget(other);
        receipts.forget(token);
        assert_eq!(receipts.take(token, &third.to_be_bytes()), None);
        assert!(receipts.connections.is_empty());
    }
}
