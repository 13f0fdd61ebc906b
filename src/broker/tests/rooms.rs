//! A room whose home is not where its member is, while messages between the two cross.

use super::broker;
use crate::broker::{Broker, Effect};
use crate::config::Config;
use crate::ids::{ShardId, Token, TopicName, UserName};
use crate::io::FramePool;
use crate::message::{RoomOutcome, ShardMessage};
use crate::proto::{RoomAction, RoomRefusal};

const TOKEN: Token = Token { slot: 0, generation: 1 };

/// What the broker has for the other one, and what it tells its shard.
fn sorted(effects: Vec<Effect>) -> (Vec<ShardMessage>, Vec<Effect>) {
    let (mut sent, mut told) = (Vec::new(), Vec::new());
    for effect in effects {
        match effect {
            Effect::Send { message, .. } => sent.push(message),
            effect => told.push(effect),
        }
    }
    (sent, told)
}

fn receive(broker: &mut Broker, messages: Vec<ShardMessage>) -> (Vec<ShardMessage>, Vec<Effect>) {
    let mut effects = Vec::new();
    for message in messages {
        broker.receive(message, &mut FramePool::default(), &mut effects);
    }
    sorted(effects)
}

fn join(broker: &mut Broker, room: &TopicName, returns: bool) -> Vec<ShardMessage> {
    let mut effects = Vec::new();
    let name = UserName::parse("bert").unwrap();
    let what = (RoomAction::Join, returns);
    broker.ask_room((TOKEN, name), room, what, None, &mut effects).expect("there is room");
    sorted(effects).0
}

#[test]
fn a_removal_that_a_return_crosses_is_of_the_membership_before() {
    let mut config = Config::default();
    config.channels.auto_create = true;
    let [mut here, mut home] = [0, 1].map(|shard| broker(shard, 2, &config));
    let is_far = |name: &String| here.topics.home(here.topics.hash(name)) == ShardId(1);
    let name = (0..).map(|number| number.to_string()).find(is_far).expect("one of them");
    let room = TopicName::new(&name);

    let (answer, _) = receive(&mut home, join(&mut here, &room, false));
    receive(&mut here, answer);
    here.note_membership(TOKEN, room.clone());

    // Deleted there, left here, and come back to by a session.
    let mut effects = Vec::new();
    let outcome = home.run_room(&room, None, RoomAction::Delete, &mut effects);
    assert_eq!(outcome, RoomOutcome::Done);
    let (removal, _) = sorted(effects);
    let mut effects = Vec::new();
    here.leave_room(TOKEN, &room, &mut effects);
    let (mut sent, _) = sorted(effects);
    here.note_membership(TOKEN, room.clone());
    sent.extend(join(&mut here, &room, true));

    let (_, told) = receive(&mut here, removal);
    assert!(told.is_empty(), "{told:?}");
    let (answer, _) = receive(&mut home, sent);
    let (_, told) = receive(&mut here, answer);
    let [Effect::Room { outcome: RoomOutcome::Joined(_), returns: true, .. }] = &told[..] else {
        panic!("{told:?}");
    };
    assert_eq!(here.rooms_of(TOKEN), std::slice::from_ref(&room));

    // The next removal is of this membership.
    let mut effects = Vec::new();
    home.run_room(&room, None, RoomAction::Delete, &mut effects);
    let (_, told) = receive(&mut here, sorted(effects).0);
    assert!(matches!(told[..], [Effect::Removed { .. }]), "{told:?}");
    assert!(here.rooms_of(TOKEN).is_empty());
    let outcome = home.run_room(&room, None, RoomAction::Describe, &mut Vec::new());
    assert_eq!(outcome, RoomOutcome::Refused(RoomRefusal::NotFound));
}
