//! What happens to brokers with histories, one thing at a time and at random.

use proptest::prelude::*;

use super::{ACKED, SHARDS, SLOTS, TOPICS};
use crate::broker::tests::UNIX_START;
use crate::proto::{HistoryQuery, Since};

#[derive(Debug, Clone)]
pub enum From {
    Now,
    /// From where the slot's last subscription to the topic came to.
    Recover,
    RecoverForeign,
    Since(Since),
}

#[derive(Debug, Clone)]
pub enum Step {
    /// With a limit, and the tag of what it is for.
    Subscribe(usize, u32, usize, From, (Option<u64>, Option<bool>)),
    Unsubscribe(usize, u32, usize),
    Leave(usize, u32),
    /// With the number of a message id, perhaps.
    Publish(usize, u32, usize, bool, Option<u8>),
    Query(usize, u32, usize, HistoryQuery),
    Arrive(usize, usize),
    Advance(usize, usize),
    Feed(usize, u32),
    /// Whether a connection has room for live publications.
    Slow(usize, u32, bool),
    Congest(usize, usize, bool),
    /// Seconds pass.
    Wait(u64),
    /// A slot acknowledges one delivery of the acked topic, several, or what was none.
    Ack(usize, u32, usize),
    /// A connection breaks, and the next one goes on with what it has acknowledged.
    Resume(usize, u32),
}

fn since() -> impl Strategy<Value = Since> {
    prop_oneof![
        2 => Just(Since::Oldest),
        3 => (0..30u64).prop_map(Since::Offset),
        1 => Just(Since::Offset(u64::MAX)),
        2 => (0..60u64).prop_map(|second| Since::Time(UNIX_START + second * 1000)),
        1 => Just(Since::Time(u64::MAX)),
    ]
}

pub fn step() -> impl Strategy<Value = Step> {
    let (shard, slot, topic) = (0..SHARDS, 0..SLOTS, 0..TOPICS.len());
    let begin = prop_oneof![
        2 => Just(From::Now),
        3 => Just(From::Recover),
        1 => Just(From::RecoverForeign),
        2 => since().prop_map(From::Since),
    ];
    let limit = prop_oneof![3 => Just(None), 1 => (0..8u64).prop_map(Some)];
    let until = prop::option::of(since().prop_filter("a place", |at| *at != Since::Oldest));
    let query = (since(), until, 1..9usize, any::<bool>())
        .prop_map(|(since, until, limit, reverse)| HistoryQuery { since, until, limit, reverse });
    prop_oneof![
        6 => (shard.clone(), slot.clone(), topic.clone(), begin, (limit, any::<Option<bool>>()))
            .prop_map(|(shard, slot, topic, begin, what)| Step::Subscribe(shard, slot, topic, begin, what)),
        2 => (shard.clone(), slot.clone(), topic.clone())
            .prop_map(|(shard, slot, topic)| Step::Unsubscribe(shard, slot, topic)),
        1 => (shard.clone(), slot.clone()).prop_map(|(shard, slot)| Step::Leave(shard, slot)),
        12 => (shard.clone(), slot.clone(), topic.clone(), any::<bool>(), prop::option::weighted(0.3, 0..3u8))
            .prop_map(|(shard, slot, topic, echo, id)| Step::Publish(shard, slot, topic, echo, id)),
        1 => (shard.clone(), slot.clone(), topic, query)
            .prop_map(|(shard, slot, topic, query)| Step::Query(shard, slot, topic, query)),
        16 => (shard.clone(), shard.clone()).prop_map(|(from, to)| Step::Arrive(from, to)),
        6 => (shard.clone(), 1..4usize).prop_map(|(shard, visits)| Step::Advance(shard, visits)),
        6 => (shard.clone(), slot.clone()).prop_map(|(shard, slot)| Step::Feed(shard, slot)),
        2 => (shard.clone(), slot.clone(), any::<bool>())
            .prop_map(|(shard, slot, slow)| Step::Slow(shard, slot, slow)),
        1 => (shard.clone(), shard.clone(), any::<bool>())
            .prop_map(|(shard, other, full)| Step::Congest(shard, other, full)),
        2 => (1..8u64).prop_map(Step::Wait),
        4 => (shard.clone(), slot.clone(), 0..9usize)
            .prop_map(|(shard, slot, pick)| Step::Ack(shard, slot, pick)),
        1 => (shard.clone(), slot.clone()).prop_map(|(shard, slot)| Step::Resume(shard, slot)),
    ]
}

/// As [`step`], on the acked topic alone and with more of what belongs to it.
pub fn acked_step() -> impl Strategy<Value = Step> {
    let (shard, slot) = (0..SHARDS, 0..SLOTS);
    let place = (shard.clone(), slot.clone());
    let begin = prop_oneof![3 => Just(From::Now), 1 => Just(From::Recover)];
    prop_oneof![
        3 => (place.clone(), begin, any::<Option<bool>>())
            .prop_map(|((shard, slot), begin, tag)| Step::Subscribe(shard, slot, ACKED, begin, (None, tag))),
        1 => place.clone().prop_map(|(shard, slot)| Step::Unsubscribe(shard, slot, ACKED)),
        8 => (place.clone(), any::<bool>())
            .prop_map(|((shard, slot), echo)| Step::Publish(shard, slot, ACKED, echo, None)),
        16 => (shard.clone(), shard.clone()).prop_map(|(from, to)| Step::Arrive(from, to)),
        8 => (shard.clone(), 1..4usize).prop_map(|(shard, visits)| Step::Advance(shard, visits)),
        14 => place.clone().prop_map(|(shard, slot)| Step::Feed(shard, slot)),
        1 => (place.clone(), any::<bool>())
            .prop_map(|((shard, slot), slow)| Step::Slow(shard, slot, slow)),
        5 => (2..6u64).prop_map(Step::Wait),
        6 => (place.clone(), 0..9usize)
            .prop_map(|((shard, slot), pick)| Step::Ack(shard, slot, pick)),
        2 => place.prop_map(|(shard, slot)| Step::Resume(shard, slot)),
    ]
}
