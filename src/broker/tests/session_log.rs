//! The records of sessions against a log that refuses what it likes: in the end it has the last one of each.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::{Appended, Asked, asked};
use crate::broker::SessionLog;
use crate::config::Config;
use crate::ids::{Epoch, Moment, SessionId, ShardId};
use crate::message::{
    KeptSession, LogAnswer, LogBatch, LogMessage, LogRefusal, LogSlice, SessionProofs,
    SessionRecord, SessionState,
};

const EPOCH: Epoch = Epoch(7);

#[derive(Debug, Clone)]
enum Step {
    /// Something has become of this session.
    Write(u128),
    /// The shard turns.
    Turn,
    /// The log deals with so many messages, or refuses them.
    Answer(usize, bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..5u128).prop_map(Step::Write),
        3 => Just(Step::Turn),
        3 => (1..6usize, prop::bool::weighted(0.3)).prop_map(|(count, bad)| Step::Answer(count, bad)),
    ]
}

/// The log of sessions of one shard, and the log it writes to.
struct World {
    log: SessionLog,
    now: Moment,
    asked: VecDeque<Asked>,
    /// What is on disk.
    records: Vec<Bytes>,
    /// The number of the last record of each session.
    written: BTreeMap<u128, u64>,
    last: u64,
}

impl World {
    fn new() -> Self {
        let mut config = Config::default();
        config.store.backlog = 2000;
        Self {
            log: SessionLog::new(ShardId(0), 1, 1, &config),
            now: Moment(0),
            asked: VecDeque::new(),
            records: Vec::new(),
            written: BTreeMap::new(),
            last: 0,
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Write(secret) => {
                self.last += 1;
                self.written.insert(secret, self.last);
                let state = SessionState { user: None, subscriptions: Box::default() };
                let kept =
                    Some(KeptSession { proofs: SessionProofs::new(1), connected: true, state });
                let record = SessionRecord { secret, time_ms: self.last, kept };
                self.log.write(SessionId { shard: ShardId(0), secret }, &record);
            }
            Step::Turn => {
                self.now = self.now.after(Duration::from_millis(100));
                let mut batch = LogBatch::default();
                self.log.advance(self.now, 1, &mut batch);
                self.asked.extend(asked(&mut batch));
            }
            Step::Answer(count, refuses) => {
                for _ in 0..count {
                    let Some(message) = self.asked.pop_front() else { return };
                    let answer = self.answer(message, refuses);
                    self.log.answered(answer, self.now, &mut Vec::new());
                }
            }
        }
    }

    fn answer(&mut self, asked: Asked, refuses: bool) -> LogAnswer {
        let next = self.records.len() as u64 + 1;
        let (epoch, oldest) = (EPOCH, 1);
        match asked {
            Asked::Message(LogMessage::Position { topic, ticket }) => {
                LogAnswer::Position { topic, epoch, next, oldest, ticket: ticket.number }
            }
            Asked::Message(LogMessage::Read { topic, ticket, .. }) => {
                let records = Vec::new();
                let slice = LogSlice { epoch, oldest, next, missing: None, records };
                LogAnswer::Read { topic, slice: Box::new(slice), ticket: ticket.number }
            }
            Asked::Append(Appended { topic, record, ticket }) => {
                let offset = record.offset;
                let ticket = ticket.number;
                if !refuses && offset == next {
                    self.records.push(record.data);
                    return LogAnswer::Stored { topic, epoch, upto: offset, ticket };
                }
                let reason = match refuses {
                    true => LogRefusal::Disk,
                    false => LogRefusal::Position { epoch, next },
                };
                LogAnswer::Refused { topic, offset, reason, ticket }
            }
            Asked::Message(other) => panic!("not asked by sessions: {other:?}"),
        }
    }
}

proptest! {
    #[test]
    fn the_last_record_of_each_session_is_written_in_the_end(
        steps in prop::collection::vec(step(), 0..120),
    ) {
        let mut world = World::new();
        for step in steps {
            world.take(step);
        }
        for _ in 0..100 {
            world.take(Step::Turn);
            world.take(Step::Answer(usize::MAX, false));
        }
        prop_assert!(!world.log.is_writing());
        let records = world.records.iter().map(|data| SessionRecord::decode(data).expect("ours"));
        let last: BTreeMap<_, _> =
            records.map(|record| (record.secret, record.time_ms)).collect();
        prop_assert_eq!(last, world.written);
        prop_assert_eq!(world.log.take_tally().dropped, 0);
    }
}
