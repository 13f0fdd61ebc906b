//! Brokers of several shards under random commands, against models: messages between two shards keep
//! their order, everything else happens in any order.

mod durable;
mod histories;
mod inboxes;
mod live;
mod resume;
mod session_log;
mod sessions;

use std::sync::Arc;

use foldhash::SharedSeed;
use foldhash::quality::SeedableRandomState;

use super::{Broker, Deliver, Origin, Select, SubscribeRequest};
use crate::config::Config;
use crate::filter::Filter;
use crate::ids::{ShardId, Token};
use crate::io::{FrameId, FramePool};
use crate::message::Begin;
use crate::proto::Start;
use crate::proto::tags::Tags;

/// Unix time of the simulated clock's zero.
const UNIX_START: u64 = 1_700_000_000_000;

fn broker(shard: u16, shards: usize, config: &Config) -> Broker {
    let hasher = SeedableRandomState::with_seed(1, SharedSeed::global_fixed());
    let origin = Origin { identity: 7, unix_start: UNIX_START };
    Broker::new(ShardId(shard), shards as u16, hasher, origin, config)
}

fn subscribe(token: Token, topic: &str) -> SubscribeRequest<'_> {
    let begin = Begin { start: Start::Now, limit: None };
    SubscribeRequest { token, topic, begin, request_id: None, select: Select::All }
}

/// A subscription to those publications only whose tag `odd` is that; `None`: to all.
fn select(odd: Option<bool>) -> Select {
    odd.map_or(Select::All, |odd| {
        Select::Matching(Arc::new(Filter::parse(&format!("odd == {odd}")).unwrap()))
    })
}

/// The tag `odd` of the publication with this number, if it has one.
fn tag(number: usize) -> Option<bool> {
    (!number.is_multiple_of(3)).then_some(number % 2 == 1)
}

/// What is published: the number, with its tag.
fn body(number: usize) -> Vec<u8> {
    let data = number.to_string().into_bytes();
    let Some(odd) = tag(number) else { return data };
    let tags = Tags::of_texts(&[("odd".into(), odd.to_string().into())]).unwrap();
    tags.unwrap().before(&data)
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
