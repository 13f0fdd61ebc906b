//! Brokers of several shards under random commands, against models: messages between two shards keep
//! their order, everything else happens in any order.

mod durable;
mod histories;
mod inboxes;
mod live;
mod resume;
mod session_log;
mod sessions;

use foldhash::SharedSeed;
use foldhash::quality::SeedableRandomState;

use super::{Broker, Deliver, Origin, SubscribeRequest};
use crate::config::Config;
use crate::ids::{ShardId, Token};
use crate::io::{FrameId, FramePool};
use crate::message::Begin;
use crate::proto::Start;

/// Unix time of the simulated clock's zero.
const UNIX_START: u64 = 1_700_000_000_000;

fn broker(shard: u16, shards: usize, config: &Config) -> Broker {
    let hasher = SeedableRandomState::with_seed(1, SharedSeed::global_fixed());
    let origin = Origin { identity: 7, unix_start: UNIX_START };
    Broker::new(ShardId(shard), shards as u16, hasher, origin, config)
}

fn subscribe(token: Token, topic: &str) -> SubscribeRequest<'_> {
    let begin = Begin { start: Start::Now, limit: None };
    SubscribeRequest { token, topic, begin, request_id: None }
}

/// The text of a frame's payload; all of ours are short.
fn payload(frame: &[u8]) -> &str {
    let header = if frame[1] < 126 { 2 } else { 4 };
    std::str::from_utf8(&frame[header..]).unwrap()
}

/// Where a fan-out puts its deliveries: all of them, or those of readers that are quick enough.
struct Sink<'a> {
    delivered: Vec<(u32, String)>,
    is_slow: &'a dyn Fn(u32) -> bool,
}

impl Deliver for Sink<'_> {
    fn live(&mut self, frames: &mut FramePool, slot: u32, ids: &[FrameId]) {
        let texts = ids.iter().map(|id| (slot, payload(frames.bytes(*id)).to_owned()));
        self.delivered.extend(texts);
    }

    fn retained(&mut self, frames: &mut FramePool, slot: u32, ids: &[FrameId]) -> bool {
        let taken = !(self.is_slow)(slot);
        if taken {
            self.live(frames, slot, ids);
        }
        taken
    }
}
