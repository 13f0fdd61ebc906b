//! Sessions on the broker's side: what a connection surely has, and subscriptions that stand before they
//! begin.

use super::{Sink, broker, payload, subscribe};
use crate::broker::{Body, Broker, Effect, Places, PublishRequest, Resumed};
use crate::config::{ChannelOptions, Config, Level, Namespace};
use crate::ids::{Position, ShardId, Token, TopicName};
use crate::io::FramePool;
use crate::message::{SessionSubscription, ShardMessage};
use crate::proto::{ErrorCode, Start, Unavailable};

const ANNA: Token = Token { slot: 0, generation: 1 };
const BERT: Token = Token { slot: 1, generation: 1 };

/// Two shards; messages between them arrive when they are told to.
struct World {
    brokers: [Broker; 2],
    frames: [FramePool; 2],
    mail: Vec<(ShardId, ShardMessage)>,
    /// On the first shard, but for messages to the other one.
    effects: Vec<Effect>,
    delivered: Vec<(u32, String)>,
}

impl World {
    fn new() -> Self {
        let mut config = Config::default();
        let options = ChannelOptions { level: Level::History, ..ChannelOptions::default() };
        config.namespaces = vec![Namespace { name: "kept".into(), options }];
        config.limits.max_subscriptions = 5;
        Self {
            brokers: [broker(0, 2, &config), broker(1, 2, &config)],
            frames: Default::default(),
            mail: Vec::new(),
            effects: Vec::new(),
            delivered: Vec::new(),
        }
    }

    /// A name in that namespace that is at home there.
    fn name(&self, namespace: &str, home: u16) -> String {
        let topics = &self.brokers[0].topics;
        let mut names = (0..).map(|number| format!("{namespace}{number}"));
        names.find(|name| topics.home(topics.hash(name)) == ShardId(home)).expect("some are")
    }

    fn apply(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send { to, message } => self.mail.push((to, message)),
                other => self.effects.push(other),
            }
        }
    }

    fn on_first(&mut self, call: impl FnOnce(&mut Broker, &mut FramePool, &mut Vec<Effect>)) {
        let mut effects = Vec::new();
        call(&mut self.brokers[0], &mut self.frames[0], &mut effects);
        self.apply(effects);
    }

    fn publish(&mut self, topic: &str, data: &str) {
        let body = Body::Kept(data.as_bytes());
        let request = PublishRequest { token: BERT, topic, body, echo: true, receipt: None };
        self.on_first(|broker, frames, effects| broker.publish(request, frames, effects));
    }

    fn deliver_mail(&mut self) {
        while !self.mail.is_empty() {
            for (to, message) in std::mem::take(&mut self.mail) {
                let mut effects = Vec::new();
                let index = to.index();
                self.brokers[index].receive(message, &mut self.frames[index], &mut effects);
                self.apply(effects);
            }
        }
    }

    /// Everything that the first shard can hand out, histories included.
    fn advance(&mut self) {
        loop {
            let mut sink = Sink { delivered: Vec::new(), is_slow: &|_| false };
            let mut effects = Vec::new();
            let [broker, _] = &mut self.brokers;
            broker.advance(100, &mut self.frames[0], &mut effects, &mut sink);
            self.delivered.append(&mut sink.delivered);
            self.apply(effects);
            let mut effects = Vec::new();
            self.brokers[0].feed(ANNA, &mut effects);
            self.apply(effects);
            self.deliver_mail();
            let mut replayed = false;
            for effect in std::mem::take(&mut self.effects) {
                match effect {
                    Effect::Replay { token, frames, .. } => {
                        replayed = true;
                        let texts = frames.iter().map(|frame| payload(frame));
                        self.delivered.extend(texts.map(|text| (token.slot, text)));
                    }
                    other => self.effects.push(other),
                }
            }
            if !replayed && !self.brokers[0].has_fanouts() {
                return;
            }
        }
    }

    fn resumed(&mut self) -> Option<Vec<Resumed>> {
        let place = self.effects.iter().position(|it| matches!(it, Effect::Resumed { .. }))?;
        match self.effects.remove(place) {
            Effect::Resumed { token: ANNA, subscriptions } => Some(subscriptions),
            other => panic!("{other:?}"),
        }
    }

    fn confirmed(&mut self, topic: &str) -> Position {
        let mut effects = self.effects.drain(..);
        let found = effects.find_map(|effect| match effect {
            Effect::Subscribed { topic: name, standing, .. } if &*name == topic => {
                standing.position
            }
            _ => None,
        });
        found.expect("it is confirmed")
    }
}

fn at(topic: &str, position: Position) -> (SessionSubscription, Start) {
    let Position { epoch, offset } = position;
    let subscription = SessionSubscription {
        topic: TopicName::new(topic),
        position: Some(position),
        acked: Box::default(),
        is_member: false,
        filter: None,
    };
    (subscription, Start::Recover { epoch: Some(epoch), offset })
}

fn live(topic: &str) -> (SessionSubscription, Start) {
    let subscription = SessionSubscription {
        topic: TopicName::new(topic),
        position: None,
        acked: Box::default(),
        is_member: false,
        filter: None,
    };
    (subscription, Start::Recover { epoch: None, offset: 0 })
}

#[test]
fn nobody_has_what_is_still_to_be_handed_out() {
    let mut world = World::new();
    for home in 0..2 {
        let topic = world.name("kept:", home);
        world.on_first(|broker, _, effects| {
            broker.subscribe(subscribe(ANNA, &topic), effects).unwrap()
        });
        world.deliver_mail();
        let begin = world.confirmed(&topic);
        let mut places = Places::default();
        world.brokers[0].note_begin(&mut places, &topic, begin);
        let offset = |world: &mut World| {
            let mut now = places.clone();
            now.advance(&world.brokers[0].places(ANNA));
            let list = world.brokers[0].session_subscriptions(ANNA, &now);
            let mut found = list.iter().filter(|subscription| *subscription.topic == topic);
            found.next().and_then(|found| found.position).map(|position| position.offset)
        };
        assert_eq!(offset(&mut world), Some(0));
        world.publish(&topic, "1");
        world.deliver_mail();
        assert_eq!(offset(&mut world), Some(0), "it waits for its fan-out");
        world.advance();
        assert_eq!(offset(&mut world), Some(1));
        world.publish(&topic, "2");
        world.deliver_mail();
        world.publish(&topic, "3");
        world.deliver_mail();
        assert_eq!(offset(&mut world), Some(1));
        world.advance();
        assert_eq!(offset(&mut world), Some(3));
    }
}

#[test]
fn subscriptions_of_a_session_begin_together() {
    let mut world = World::new();
    let kept = [world.name("kept:", 0), world.name("kept:", 1)];
    let plain = [world.name("a", 0), world.name("a", 1)];
    // Somebody else listens, so that there is an epoch.
    let mut begins = Vec::new();
    for topic in &kept {
        world.on_first(|broker, _, effects| {
            broker.subscribe(subscribe(BERT, topic), effects).unwrap()
        });
        world.deliver_mail();
        begins.push(world.confirmed(topic));
        world.publish(topic, "1");
        world.deliver_mail();
        world.advance();
    }
    world.delivered.clear();
    let wanted: Vec<_> = kept
        .iter()
        .zip(&begins)
        .map(|(topic, begin)| at(topic, *begin))
        .chain(plain.iter().map(|topic| live(topic)))
        .collect();
    let list = wanted.clone();
    world.on_first(|broker, _, effects| broker.resume(ANNA, list, effects));
    // Two of them stand; nobody gets anything of them.
    world.publish(&kept[0], "2");
    world.publish(&plain[0], "0");
    world.on_first(|broker, _, effects| {
        broker.subscribe(subscribe(ANNA, &plain[0]), effects).unwrap()
    });
    let mut sink = Sink { delivered: Vec::new(), is_slow: &|_| false };
    world.brokers[0].advance(100, &mut world.frames[0], &mut Vec::new(), &mut sink);
    assert!(sink.delivered.iter().all(|(slot, _)| *slot == BERT.slot), "{:?}", sink.delivered);
    assert_eq!(world.resumed(), None);
    assert!(world.effects.is_empty(), "{:?}", world.effects);
    // What the session keeps meanwhile, if the connection ends.
    let mut places = Places::default();
    for (subscription, _) in &wanted[..2] {
        let position = subscription.position.expect("it has one");
        world.brokers[0].note_kept(&mut places, &subscription.topic, position);
    }
    let mut kept_list = world.brokers[0].session_subscriptions(ANNA, &places);
    kept_list.sort_by(|one, other| one.topic.cmp(&other.topic));
    let mut expected: Vec<_> =
        wanted.iter().map(|(subscription, _)| subscription.clone()).collect();
    expected.sort_by(|one, other| one.topic.cmp(&other.topic));
    assert_eq!(kept_list, expected);
    world.deliver_mail();
    let resumed = world.resumed().expect("everything is answered");
    let outcomes: Vec<_> = resumed
        .iter()
        .map(|one| {
            one.outcome.expect("none is refused").recovery.expect("it named a place").outcome
        })
        .collect();
    assert_eq!(outcomes[..2], [Ok(()), Ok(())]);
    assert_eq!(outcomes[2..], [Err(Unavailable::NoHistory); 2]);
    assert!(
        world
            .effects
            .iter()
            .any(|it| matches!(it, Effect::Subscribed { topic, .. } if **topic == *plain[0])),
        "confirmed behind it: {:?}",
        world.effects
    );
    world.advance();
    for topic in &plain {
        world.publish(topic, "3");
        world.deliver_mail();
    }
    world.advance();
    let mut got: Vec<_> = world
        .delivered
        .iter()
        .filter(|(slot, _)| *slot == ANNA.slot)
        .map(|(_, text)| &**text)
        .collect();
    got.sort_unstable();
    let mut due = vec![
        format!(r#"{{"channel":"{}","offset":1,"data":1}}"#, kept[0]),
        format!(r#"{{"channel":"{}","offset":2,"data":2}}"#, kept[0]),
        format!(r#"{{"channel":"{}","offset":1,"data":1}}"#, kept[1]),
        format!(r#"{{"channel":"{}","data":3}}"#, plain[0]),
        format!(r#"{{"channel":"{}","data":3}}"#, plain[1]),
    ];
    due.sort_unstable();
    assert_eq!(got, due);
}

#[test]
fn what_has_no_room_is_refused_and_stays_in_the_session() {
    let mut world = World::new();
    let names: Vec<_> = (0..7).map(|number| format!("live{number}")).collect();
    let wanted = names.iter().map(|name| live(name)).collect();
    world.on_first(|broker, _, effects| {
        broker.subscribe(subscribe(ANNA, "live0"), effects).unwrap()
    });
    world.on_first(|broker, _, effects| broker.resume(ANNA, wanted, effects));
    let kept = world.brokers[0].session_subscriptions(ANNA, &Places::default());
    assert!(kept.len() >= 6, "{kept:?}");
    world.deliver_mail();
    let resumed = world.resumed().expect("everything is answered");
    let refused = resumed.iter().filter(|one| one.outcome == Err(ErrorCode::TooManySubscriptions));
    assert_eq!(refused.count(), 2);
    let own = resumed[0].outcome.expect("it is subscribed").recovery.expect("it says why not");
    assert_eq!(own.outcome, Err(Unavailable::Subscribed));
    world.on_first(|broker, _, effects| {
        assert!(broker.unsubscribe(ANNA, "live1", effects));
        broker.leave(ANNA, effects);
    });
    world.deliver_mail();
    assert_eq!(world.brokers.each_ref().map(Broker::topics), [0, 0]);
}
