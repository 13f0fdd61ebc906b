//! A durable topic at its home, and a log that answers as the test wants.

use std::path::PathBuf;

use super::broker;
use crate::broker::{Body, Broker, Effect, PublishRequest};
use crate::config::{Config, Level};
use crate::ids::{Epoch, Moment, ShardId, Token, TopicName};
use crate::io::FramePool;
use crate::message::{LogAnswer, LogRefusal, LogRequest, PublishOutcome, Receipt, ShardMessage};
use crate::proto::Family;

const TOKEN: Token = Token { slot: 0, generation: 1 };

/// What the broker asks of the log, and what publishers hear.
#[derive(Default)]
struct Heard {
    /// Offset and ticket of what was appended.
    appended: Vec<(u64, u64)>,
    questions: usize,
    outcomes: Vec<PublishOutcome>,
}

struct Home {
    broker: Broker,
    frames: FramePool,
}

impl Home {
    fn new(backlog: usize) -> Self {
        let mut config = Config::default();
        config.channels.level = Level::Durable;
        config.store.directory = Some(PathBuf::from("unused"));
        config.store.backlog = backlog;
        let mut broker = broker(0, 1, &config);
        broker.begin_turn(Moment(1));
        Self { broker, frames: FramePool::default() }
    }

    fn publish(&mut self, message_id: Option<&str>) -> Heard {
        let receipt = Receipt {
            request_id: None,
            message_id: message_id.map(Into::into),
            channel: None,
            family: Family::Action,
            filter: None,
        };
        let request = PublishRequest {
            token: TOKEN,
            topic: "t",
            body: Body::Kept(b"1"),
            echo: true,
            receipt: Some(Box::new(receipt)),
        };
        let mut effects = Vec::new();
        self.broker.publish(request, &mut self.frames, &mut effects);
        self.heard(effects)
    }

    fn answer(&mut self, answer: LogAnswer) -> Heard {
        let mut effects = Vec::new();
        self.broker.receive(ShardMessage::Log(answer), &mut self.frames, &mut effects);
        self.heard(effects)
    }

    fn heard(&mut self, effects: Vec<Effect>) -> Heard {
        let mut heard = Heard::default();
        self.broker.to_log().drain(|request| match request {
            LogRequest::Append(append) => {
                assert_eq!(append.ticket.shard, ShardId(0));
                heard.appended.push((append.offset, append.ticket.number));
            }
            LogRequest::Message(_) => heard.questions += 1,
        });
        for effect in effects {
            match effect {
                Effect::Published { outcome, .. } => heard.outcomes.push(outcome),
                other => panic!("{other:?}"),
            }
        }
        heard
    }

    fn locate(&mut self, next: u64) -> Heard {
        let topic = TopicName::new("t");
        self.answer(LogAnswer::Position { topic, epoch: Epoch(7), next, oldest: next, ticket: 0 })
    }

    fn store(&mut self, (upto, ticket): (u64, u64)) -> Heard {
        let topic = TopicName::new("t");
        self.answer(LogAnswer::Stored { topic, epoch: Epoch(7), upto, ticket })
    }

    fn refuse(&mut self, (offset, ticket): (u64, u64)) -> Heard {
        let (topic, reason) = (TopicName::new("t"), LogRefusal::Disk);
        self.answer(LogAnswer::Refused { topic, offset, reason, ticket })
    }
}

fn accepted(offset: u64) -> PublishOutcome {
    PublishOutcome::Accepted { offset: Some(offset) }
}

#[test]
fn what_comes_before_the_position_waits_and_keeps_its_order() {
    let mut home = Home::new(1 << 20);
    let first = home.publish(None);
    assert_eq!((first.questions, first.appended.len(), first.outcomes.len()), (1, 0, 0));
    assert_eq!(home.publish(None).questions, 0, "it is asked once");
    let opened = home.locate(41);
    let offsets: Vec<_> = opened.appended.iter().map(|(offset, _)| *offset).collect();
    assert_eq!((offsets, opened.outcomes), (vec![41, 42], vec![]));
    assert_eq!(home.store(opened.appended[1]).outcomes, [accepted(41), accepted(42)]);
    assert!(!home.broker.waits_for_log());
}

#[test]
fn a_refusal_takes_back_what_is_behind_it_and_nothing_before() {
    let mut home = Home::new(1 << 20);
    home.publish(None);
    let first = home.locate(1).appended[0];
    let (second, third) = (home.publish(Some("\"a\"")).appended[0], home.publish(None).appended[0]);
    assert_eq!((second.0, third.0), (2, 3));
    assert!(home.publish(Some("\"a\"")).outcomes.is_empty(), "it waits for the one it repeats");
    assert_eq!(home.refuse(second).outcomes, [PublishOutcome::NotStored; 3]);
    let again = home.publish(Some("\"a\"")).appended[0];
    assert_eq!(again.0, 2, "the offset is free, and the id is forgotten");
    assert!(home.refuse(third).outcomes.is_empty(), "it was taken back already");
    assert_eq!(home.store(first).outcomes, [accepted(1)]);
    assert_eq!(home.store(again).outcomes, [accepted(2)]);
    assert_eq!(home.publish(Some("\"a\"")).outcomes, [accepted(2)]);
    assert!(!home.broker.waits_for_log());
}

#[test]
fn what_was_taken_back_takes_room_until_the_log_has_refused_it_too() {
    let mut home = Home::new(2000);
    home.publish(None);
    let mut appended = home.locate(1).appended;
    while let [next] = home.publish(None).appended[..] {
        appended.push(next);
    }
    assert_eq!(home.refuse(appended[0]).outcomes.len(), appended.len());
    // All but one are on their way to the log still.
    assert_eq!(home.publish(None).appended.len(), 1);
    assert_eq!(home.publish(None).outcomes, [PublishOutcome::BacklogFull]);
    for refused in &appended[1..] {
        assert!(home.refuse(*refused).outcomes.is_empty());
    }
    assert_eq!(home.publish(None).appended.len(), 1);
}

#[test]
fn what_waits_for_the_log_is_bounded() {
    let mut home = Home::new(2000);
    home.publish(None);
    let mut appended = home.locate(1).appended;
    let refused = loop {
        let next = home.publish(None);
        match next.outcomes.first() {
            Some(outcome) => break *outcome,
            None => appended.extend(next.appended),
        }
        assert!(appended.len() < 100);
    };
    assert_eq!(refused, PublishOutcome::BacklogFull);
    assert!(appended.len() > 5);
    assert_eq!(home.store(appended[appended.len() - 1]).outcomes.len(), appended.len());
    assert_eq!(home.publish(None).appended.len(), 1, "there is room again");
}
