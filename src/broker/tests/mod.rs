//! Brokers of several shards under random commands, against models: messages between two shards keep
//! their order, everything else happens in any order.

mod durable;
mod histories;
mod inboxes;
mod live;
mod resume;
mod rooms;
mod session_log;
mod sessions;

use std::sync::Arc;

use bytes::Bytes;
use foldhash::SharedSeed;
use foldhash::quality::SeedableRandomState;

use super::{Body, Broker, Deliver, Origin, Select, SubscribeRequest};
use crate::config::Config;
use crate::filter::Filter;
use crate::ids::{ShardId, Token, TopicName};
use crate::io::{FrameId, FramePool};
use crate::message::{Begin, LogBatch, LogMessage, LogRecord, LogRequest, Ticket};
use crate::proto::encoder::frame_payload;
use crate::proto::tags::Tags;
use crate::proto::{Data, Encoding, Start, protobuf};

/// Unix time of the simulated clock's zero.
const UNIX_START: u64 = 1_700_000_000_000;

fn broker(shard: u16, shards: usize, config: &Config) -> Broker {
    let hasher = SeedableRandomState::with_seed(1, SharedSeed::global_fixed());
    let origin = Origin { identity: 7, unix_start: UNIX_START };
    Broker::new(ShardId(shard), shards as u16, hasher, origin, config)
}

/// What the log is asked, as a model of it keeps that.
#[derive(Debug)]
enum Asked {
    Append(Appended),
    Message(LogMessage),
}

#[derive(Debug)]
struct Appended {
    topic: TopicName,
    record: LogRecord,
    ticket: Ticket,
}

fn asked(batch: &mut LogBatch) -> Vec<Asked> {
    let mut all = Vec::with_capacity(batch.len());
    batch.drain(|request| {
        all.push(match request {
            LogRequest::Message(message) => Asked::Message(message),
            LogRequest::Append(append) => Asked::Append(Appended {
                topic: TopicName::new(append.topic),
                record: LogRecord {
                    offset: append.offset,
                    time_ms: append.time_ms,
                    message_id: append.message_id.map(Into::into),
                    data: Bytes::copy_from_slice(append.data),
                },
                ticket: append.ticket,
            }),
        });
    });
    all
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

/// The same as a request has it: some of those without a tag as bytes of which nothing is known.
fn published(number: usize, body: &[u8]) -> Body<'_> {
    if number.is_multiple_of(6) { Body::Sent(Data::Bytes(body)) } else { Body::Kept(body) }
}

/// What a frame says, in JSON.
fn payload(frame: &[u8]) -> String {
    let json = match Encoding::of_frame(frame) {
        Encoding::Json => Bytes::copy_from_slice(frame),
        Encoding::Protobuf => protobuf::translated(frame),
    };
    String::from_utf8(frame_payload(&json).to_vec()).unwrap()
}

/// Where a fan-out puts its deliveries: all of them, or those of readers that are quick enough.
struct Sink<'a> {
    delivered: Vec<(u32, String)>,
    is_slow: &'a dyn Fn(u32) -> bool,
}

impl Deliver for Sink<'_> {
    fn live(&mut self, frames: &mut FramePool, slot: u32, ids: &[FrameId], are_json: bool) {
        let is_json = |id: &FrameId| Encoding::of_frame(frames.bytes(*id)) == Encoding::Json;
        assert!(!are_json || ids.iter().all(is_json));
        let texts = ids.iter().map(|id| (slot, payload(frames.bytes(*id))));
        self.delivered.extend(texts);
    }

    fn retained(&mut self, frames: &mut FramePool, slot: u32, ids: &[FrameId]) -> bool {
        let taken = !(self.is_slow)(slot);
        if taken {
            self.live(frames, slot, ids, true);
        }
        taken
    }
}
