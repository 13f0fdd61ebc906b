//! The table of sessions against connections that come and go, with every message on its way for as long
//! as it likes, in the order of its way.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use proptest::prelude::*;

use crate::broker::{Ending, Sessions};
use crate::config;
use crate::ids::{
    ConnectionId, Epoch, Moment, Position, SessionId, ShardId, Token, TopicName, UserName,
};
use crate::message::{Holder, RestoreRequest, SessionMessage, SessionState, SessionSubscription};
use crate::proto::ErrorCode;

const HOME: ShardId = ShardId(0);
const SHARDS: u16 = 3;
const TTL: Duration = Duration::from_secs(10);

/// One session, its home, and everybody who wants it.
struct World {
    sessions: Sessions,
    now: Moment,
    /// On their way from and to each shard.
    from_home: BTreeMap<ShardId, VecDeque<SessionMessage>>,
    to_home: BTreeMap<ShardId, VecDeque<SessionMessage>>,
    /// Open connections, by number: which shard, whether it has the session.
    connections: BTreeMap<u32, (ShardId, bool)>,
    /// Requests without an answer, by connection.
    asked: BTreeSet<u32>,
    last: u32,
    /// Connections that had it, in order.
    had: Vec<u32>,
    /// The connection that was named to get it last, or its first one.
    named: u32,
    /// What was in the state that was parked last.
    version: u64,
    /// It was given up for good.
    over: bool,
    moved: usize,
}

fn session() -> SessionId {
    SessionId { shard: HOME, secret: 77 }
}

fn connection(number: u32, shard: ShardId) -> ConnectionId {
    ConnectionId { shard, slot: number, secret: u128::from(number) }
}

fn holder(number: u32, shard: ShardId) -> Holder {
    Holder { shard, token: Token { slot: number, generation: 1 } }
}

/// Tells states apart.
fn state(version: u64) -> SessionState {
    let position = Some(Position { epoch: Epoch(1), offset: version });
    let (topic, acked) = (TopicName::new("kept:a"), Box::default());
    let (is_member, filter) = (false, None);
    let subscriptions = [SessionSubscription { topic, position, acked, is_member, filter }].into();
    SessionState { user: None, subscriptions }
}

impl World {
    fn new() -> Self {
        let limits = config::Sessions { ttl: TTL, ..config::Sessions::default() };
        Self {
            sessions: Sessions::new(limits),
            now: Moment(0),
            from_home: BTreeMap::new(),
            to_home: BTreeMap::new(),
            // The one that it began on.
            connections: BTreeMap::from([(1, (HOME, true))]),
            asked: BTreeSet::new(),
            last: 1,
            had: vec![1],
            named: 1,
            version: 0,
            over: false,
            moved: 0,
        }
    }

    /// A new connection asks for the session with the ids of one that had it, or of another.
    fn ask(&mut self, shard: u16, which: usize) {
        let recent = self.had.len() - 1 - which.min(self.had.len() - 1);
        let proof = if which == 9 { 0 } else { self.had[recent] };
        self.ask_with(shard, proof);
    }

    fn ask_with(&mut self, shard: u16, proof: u32) {
        self.last += 1;
        let (number, shard) = (self.last, ShardId(shard % SHARDS));
        self.connections.insert(number, (shard, false));
        self.asked.insert(number);
        let request = RestoreRequest {
            session: session(),
            proof: connection(proof, HOME),
            to: holder(number, shard),
            connection: connection(number, shard),
            user: None,
        };
        self.to_home.entry(shard).or_default().push_back(SessionMessage::Restore(request));
    }

    /// A connection ends; what it had goes home, or is lost with it.
    fn end(&mut self, index: usize, for_good: bool) {
        let Some(&number) = self.connections.keys().nth(index) else { return };
        let Some((shard, has)) = self.connections.remove(&number) else { return };
        self.asked.remove(&number);
        if has {
            self.give_back(number, shard, true, for_good);
        }
    }

    fn give_back(&mut self, number: u32, shard: ShardId, told: bool, for_good: bool) {
        let from = holder(number, shard);
        self.version += 1;
        let message = if for_good {
            self.over = true;
            SessionMessage::Forget { session: session(), from }
        } else {
            let connection = connection(number, shard);
            SessionMessage::Park {
                session: session(),
                connection,
                from,
                told,
                state: state(self.version),
            }
        };
        if shard == HOME {
            self.deliver_home(message);
        } else {
            self.to_home.entry(shard).or_default().push_back(message);
        }
    }

    /// The next message on one of the ways arrives.
    fn arrive(&mut self, shard: u16, homeward: bool) {
        let shard = ShardId(shard % SHARDS);
        let ways = if homeward { &mut self.to_home } else { &mut self.from_home };
        let Some(message) = ways.get_mut(&shard).and_then(VecDeque::pop_front) else { return };
        if homeward { self.deliver_home(message) } else { self.deliver(shard, message) }
    }

    fn deliver_home(&mut self, message: SessionMessage) {
        let mut messages = Vec::new();
        match message {
            SessionMessage::Restore(request) => {
                let first = self.connections.get(&1).is_some_and(|(_, has)| *has);
                let fresh = (first && self.moved == 0 && request.proof.secret == 1)
                    .then(|| (holder(1, HOME), None));
                self.sessions.restore(request, fresh, self.now, &mut messages);
            }
            SessionMessage::Park { session, connection, from, told, state } => {
                let from = (from, told);
                self.sessions.park(session, connection, from, state, self.now, &mut messages);
            }
            SessionMessage::Forget { session, from } => {
                self.sessions.forget(session, from, &mut messages);
            }
            other => panic!("not for a home: {other:?}"),
        }
        for (to, message) in messages {
            // A shard does not wait for what it says to itself.
            if to == HOME {
                self.deliver(to, message);
            } else {
                self.from_home.entry(to).or_default().push_back(message);
            }
        }
    }

    fn deliver(&mut self, shard: ShardId, message: SessionMessage) {
        match message {
            SessionMessage::Granted { request, state: kept } => {
                assert_eq!(kept, state(self.version), "not what was parked last");
                let number = request.to.token.slot;
                self.moved += 1;
                self.named = request.proof.slot;
                let others = self.connections.values().filter(|(_, has)| *has).count();
                assert_eq!(others, 0, "had twice");
                match self.connections.get_mut(&number) {
                    Some((_, has)) => {
                        *has = true;
                        assert!(self.asked.remove(&number), "answered twice");
                        self.had.push(number);
                    }
                    None => self.give_back(number, shard, false, false),
                }
            }
            SessionMessage::Refused { request, code } => {
                assert!(matches!(code, ErrorCode::SessionNotFound | ErrorCode::BacklogFull));
                let number = request.to.token.slot;
                if self.connections.contains_key(&number) {
                    assert!(self.asked.remove(&number), "answered twice");
                }
            }
            SessionMessage::Release { from, .. } => {
                let number = from.token.slot;
                if self.connections.get(&number).is_some_and(|(_, has)| *has) {
                    self.connections.remove(&number);
                    self.give_back(number, shard, true, false);
                }
            }
            other => panic!("not for a shard: {other:?}"),
        }
    }

    /// Everything arrives. Then every request is answered, and the session is where it should be.
    fn settle(&mut self) {
        while self.from_home.values().chain(self.to_home.values()).any(|way| !way.is_empty()) {
            for shard in 0..SHARDS {
                self.arrive(shard, true);
                self.arrive(shard, false);
            }
        }
        assert!(self.asked.is_empty(), "never answered: {:?}", self.asked);
        let holders = self.connections.values().filter(|(_, has)| *has).count();
        let parked = self.sessions.parked();
        assert_eq!(holders + parked, usize::from(!self.over), "{holders} have it, {parked} parked");
        // Whoever was told least of its way gets it, if it is there.
        if !self.over {
            self.ask_with(1, self.named);
            let asked = self.last;
            while self.asked.contains(&asked) {
                for shard in 0..SHARDS {
                    self.arrive(shard, true);
                    self.arrive(shard, false);
                }
            }
            assert!(self.connections[&asked].1, "its owner is refused");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn a_session_is_had_once_and_never_lost(
        steps in prop::collection::vec((0..12u8, 0..3u16, 0..10usize), 0..80),
    ) {
        let mut world = World::new();
        for (step, shard, which) in steps {
            match step {
                0..3 => world.ask(shard, which),
                3 => world.end(which, false),
                4 if which == 0 => world.end(0, true),
                _ => world.arrive(shard, step % 2 == 0),
            }
        }
        world.settle();
    }
}

/// The client has it on 10 and has heard so. Then what others asked before they were gone arrives: of most when they
/// are gone already, of one before that is noticed.
#[test]
fn late_requests_take_no_session_from_its_client() {
    let mut sessions = Sessions::new(config::Sessions { ttl: TTL, ..config::Sessions::default() });
    let mut messages = Vec::new();
    let restore = |sessions: &mut Sessions, number: u32, proof: u32, messages: &mut Vec<_>| {
        let request = RestoreRequest {
            session: session(),
            proof: connection(proof, HOME),
            to: holder(number, HOME),
            connection: connection(number, HOME),
            user: None,
        };
        sessions.restore(request, None, Moment(0), messages);
    };
    let park = |sessions: &mut Sessions, number: u32, told: bool, messages: &mut Vec<_>| {
        let (id, from) = (connection(number, HOME), holder(number, HOME));
        sessions.park(session(), id, (from, told), state(1), Moment(0), messages);
    };
    park(&mut sessions, 1, true, &mut messages);
    restore(&mut sessions, 10, 1, &mut messages);
    // It has it, and gives it back.
    restore(&mut sessions, 2, 1, &mut messages);
    park(&mut sessions, 10, true, &mut messages);
    for number in 2..9 {
        let told = number < 3;
        park(&mut sessions, number, told, &mut messages);
        restore(&mut sessions, number + 1, 1, &mut messages);
    }
    park(&mut sessions, 9, false, &mut messages);
    messages.clear();
    restore(&mut sessions, 11, 10, &mut messages);
    assert!(matches!(messages[..], [(HOME, SessionMessage::Granted { .. })]), "{messages:?}");
    // What was before that one is over, and who was never told is nobody.
    park(&mut sessions, 11, true, &mut messages);
    for proof in [1, 3, 9] {
        messages.clear();
        restore(&mut sessions, 12, proof, &mut messages);
        assert!(matches!(messages[..], [(HOME, SessionMessage::Refused { .. })]), "{messages:?}");
    }
}

#[test]
fn what_is_parked_is_bounded_and_expires() {
    let limits =
        config::Sessions { ttl: TTL, max_parked: 3, memory: 2650, ..config::Sessions::default() };
    let mut sessions = Sessions::new(limits);
    let park = |sessions: &mut Sessions, number: u32, subscriptions: usize, now| {
        let session = SessionId { shard: HOME, secret: u128::from(number) };
        let one = state(1).subscriptions[0].clone();
        let state = SessionState { user: None, subscriptions: vec![one; subscriptions].into() };
        let (id, from) = (connection(number, HOME), holder(number, HOME));
        let mut messages = Vec::new();
        sessions.park(session, id, (from, true), state, Moment(now), &mut messages);
        assert!(messages.is_empty());
    };
    let restore = |sessions: &mut Sessions, number: u32, now| {
        let request = RestoreRequest {
            session: SessionId { shard: HOME, secret: u128::from(number) },
            proof: connection(number, HOME),
            to: holder(100 + number, HOME),
            connection: connection(100 + number, HOME),
            user: None,
        };
        let mut messages = Vec::new();
        sessions.restore(request, None, Moment(now), &mut messages);
        matches!(messages[..], [(HOME, SessionMessage::Granted { .. })])
    };
    for number in 1..=4 {
        park(&mut sessions, number, 1, 0);
    }
    assert_eq!((sessions.parked(), sessions.take_tally().dropped), (3, 1));
    assert!(!restore(&mut sessions, 1, 0) && restore(&mut sessions, 2, 0));
    // Those that are left make room for a large one.
    park(&mut sessions, 5, 20, 0);
    assert_eq!((sessions.parked(), sessions.take_tally().dropped), (1, 2));
    // One that is too large alone is not kept.
    park(&mut sessions, 6, 1000, 0);
    assert_eq!((sessions.parked(), sessions.take_tally().dropped), (0, 2));
    let ttl = TTL.as_millis() as u64;
    park(&mut sessions, 7, 1, 5);
    park(&mut sessions, 8, 1, 6);
    assert!(restore(&mut sessions, 7, 4 + ttl));
    assert!(!restore(&mut sessions, 8, 6 + ttl), "its time is over, looked at or not");
    sessions.expire(Moment(5 + ttl));
    assert_eq!(sessions.parked(), 1);
    sessions.expire(Moment(6 + ttl));
    assert_eq!((sessions.parked(), sessions.take_tally().expired), (0, 1));
    // All of it came back.
    park(&mut sessions, 9, 20, 0);
    assert_eq!(sessions.parked(), 1);
}

/// A user's session, on the way between connections of that user, of nobody, and of somebody else.
#[test]
fn a_session_is_its_users_alone() {
    let user = |name: &str| UserName::parse(name).expect("a name");
    let (alice, bob) = (user("alice"), user("bob"));
    let mut sessions = Sessions::new(config::Sessions { ttl: TTL, ..config::Sessions::default() });
    let restore = |sessions: &mut Sessions, number: u32, proof: u32, by: Option<&UserName>| {
        let request = RestoreRequest {
            session: session(),
            proof: connection(proof, HOME),
            to: holder(number, HOME),
            connection: connection(number, HOME),
            user: by.cloned(),
        };
        let mut messages = Vec::new();
        // The first one has the session since it began, and its home does not know whose it will be.
        let fresh = (proof == 1 && number < 10).then(|| (holder(1, HOME), None));
        sessions.restore(request, fresh, Moment(0), &mut messages);
        messages.pop().map(|(_, message)| message)
    };
    let park = |sessions: &mut Sessions, number: u32| {
        let state = SessionState { user: Some(alice.clone()), ..state(1) };
        let (id, from) = (connection(number, HOME), holder(number, HOME));
        let mut messages = Vec::new();
        sessions.park(session(), id, (from, true), state, Moment(0), &mut messages);
        messages
    };
    let refused = |message: &SessionMessage| {
        matches!(message, SessionMessage::Refused { code: ErrorCode::SessionNotFound, .. })
    };
    let parked = |sessions: &Sessions, user: &UserName| sessions.parked_of(user).count();
    // Who turns out to be a stranger when it comes home does not get it, and whoever else waits does.
    let message = restore(&mut sessions, 2, 1, Some(&bob));
    assert!(matches!(message, Some(SessionMessage::Release { .. })));
    assert!(restore(&mut sessions, 3, 1, None).is_none());
    assert_eq!(sessions.end(session(), &alice), Ending::Held(holder(1, HOME)));
    let messages = park(&mut sessions, 1);
    let [(_, first), (_, SessionMessage::Granted { request, .. })] = &messages[..] else {
        panic!("{messages:?}");
    };
    assert!(refused(first) && request.to == holder(3, HOME));
    // Now it is known.
    assert!(restore(&mut sessions, 12, 3, Some(&bob)).is_some_and(|message| refused(&message)));
    assert_eq!(sessions.end(session(), &bob), Ending::NotFound);
    assert!(park(&mut sessions, 3).is_empty());
    assert!(restore(&mut sessions, 12, 3, Some(&bob)).is_some_and(|message| refused(&message)));
    assert_eq!((parked(&sessions, &alice), parked(&sessions, &bob)), (1, 0));
    let message = restore(&mut sessions, 13, 3, Some(&alice));
    assert!(matches!(message, Some(SessionMessage::Granted { .. })));
    assert_eq!(parked(&sessions, &alice), 0);
    park(&mut sessions, 13);
    assert_eq!(sessions.end(session(), &bob), Ending::NotFound);
    assert_eq!(sessions.end(session(), &alice), Ending::Ended);
    assert_eq!(sessions.end(session(), &alice), Ending::Unknown);
    assert_eq!((parked(&sessions, &alice), sessions.parked()), (0, 0));
    // By time too.
    park(&mut sessions, 13);
    sessions.expire(Moment(TTL.as_millis() as u64));
    assert_eq!((parked(&sessions, &alice), sessions.parked()), (0, 0));
}
