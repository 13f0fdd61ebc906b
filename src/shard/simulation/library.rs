//! Tags and filters on simulated servers, at random: readers subscribe with filters and change them, publish
//! with tags, break off and come back, by a place in a history or by session, while shards stall and some
//! of them read slowly. What each has got is what its filters were for, exactly.
//!
//! A *witness* of every channel subscribes without a filter before anything is published: what it got is
//! the channel's order.

use std::time::Duration;

use serde_json::{Value, json};

use super::World;
use super::readers::{Asked, Published, Reader};
use super::rooms::{say, take_frame, upgrade};
use super::runs::{Run, Tags};
use crate::config::{ChannelOptions, Config, Level, Namespace};
use crate::ids::ShardId;
use crate::io::seeds;
use crate::io::sim::{Random, STEADY_CAPACITY};

/// The first two are live, the others have a history.
pub const CHANNELS: [&str; 4] = ["live:a", "live:b", "kept:a", "kept:b"];
pub const FIRST_KEPT: usize = 2;
/// Of a subscription; the first one is none. [`Tags::are_for`] says the same.
const FILTERS: [&str; 6] = [
    "",
    "place == 'a'",
    "place != 'a'",
    "level > 3",
    "place in ['a', 'b'] && level <= 5",
    "!(level < 4)",
];
const READERS: usize = 8;
const STEPS: usize = 250;
const SEEDS: u64 = 300;

/// What befell the readers: all of it must, else the seeds prove nothing.
#[derive(Debug, Clone, Copy)]
enum Met {
    Heard,
    Selected,
    Changed,
    Recovered,
    Since,
    Restored,
    Uncertain,
    Unmet,
    Slow,
    Congested,
}

impl Met {
    const ALL: [Self; 10] = [
        Self::Heard,
        Self::Selected,
        Self::Changed,
        Self::Recovered,
        Self::Since,
        Self::Restored,
        Self::Uncertain,
        Self::Unmet,
        Self::Slow,
        Self::Congested,
    ];
}

pub struct Library {
    world: World,
    pub readers: Vec<Reader>,
    pub published: Vec<Published>,
    last_id: u64,
    /// How often each of [`Met`] did.
    met: [u64; Met::ALL.len()],
}

impl Library {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let count = 1 + random.below(4);
        let world = World::configured(seed, count, |config| *config = bounds(&mut random));
        let (readers, published) = (Vec::new(), Vec::new());
        Self { world, readers, published, last_id: 0, met: [0; Met::ALL.len()] }
    }

    fn run(mut self) -> [u64; Met::ALL.len()] {
        let witness = self.open(true);
        for channel in 0..CHANNELS.len() {
            self.subscribe(witness, channel, 0, None);
        }
        while self.readers[witness].current.contains(&None) {
            self.step();
        }
        for _ in 0..STEPS {
            self.act();
            self.step();
        }
        self.rest();
        self.judge();
        self.world.shut_down();
        self.met
    }

    /// The first one is the witness.
    fn open(&mut self, is_steady: bool) -> usize {
        let random = &mut self.world.random;
        let shard = ShardId(random.below(self.world.shards.len()) as u16);
        let (capacity, pace) = match random.below(4) {
            _ if is_steady => (STEADY_CAPACITY, usize::MAX),
            0 => (64 + random.below(1000), 1 + random.below(60)),
            1 => (64 + random.below(4000), 100 + random.below(1000)),
            _ => (64 + random.below(4000), usize::MAX),
        };
        let socket = self.world.network.borrow_mut().connect(shard, capacity);
        upgrade(&self.world, socket);
        self.readers.push(Reader::new(socket, pace));
        self.readers.len() - 1
    }

    /// One thing that a reader does, or the machine.
    fn act(&mut self) {
        let here: Vec<_> =
            (1..self.readers.len()).filter(|index| self.readers[*index].is_settled()).collect();
        let random = &mut self.world.random;
        if here.is_empty() || (here.len() < READERS && random.one_in(5)) {
            self.open(false);
            return;
        }
        let index = here[random.below(here.len())];
        let channel = random.below(CHANNELS.len());
        let filter = random.below(FILTERS.len());
        match random.below(20) {
            0..=5 => self.subscribe(index, channel, filter, None),
            6 if channel >= FIRST_KEPT => self.subscribe(index, channel, filter, Some(0)),
            7 => self.unsubscribe(index, channel),
            8 => self.break_off(index),
            9 => self.come_back(),
            10 => self.restore(),
            11 if random.one_in(3) => {
                let shard = random.below(self.world.shards.len());
                self.world.stopped[shard] = 1 + random.below(40);
            }
            _ => {
                let burst = if random.one_in(6) { 20 } else { 3 };
                for _ in 0..1 + random.below(burst) {
                    self.publish(index, channel);
                }
            }
        }
    }

    /// `behind`: the offset behind which it wants to begin, of the epoch that the witness knows.
    fn subscribe(&mut self, index: usize, channel: usize, filter: usize, behind: Option<u64>) {
        let mut text = json!({"action": "subscribe", "channel": CHANNELS[channel]});
        if filter > 0 {
            text["filter"] = FILTERS[filter].into();
        }
        match behind {
            Some(0) => text["since"] = "start".into(),
            Some(offset) => {
                let run = self.readers[0].current[channel].expect("the witness is subscribed");
                let epoch = self.readers[0].runs[run].epoch.clone();
                text["recover"] = json!({"epoch": epoch, "offset": offset});
            }
            None => {}
        }
        self.ask(index, Asked::Subscribe { channel, filter, behind }, text);
    }

    fn unsubscribe(&mut self, index: usize, channel: usize) {
        let text = json!({"action": "unsubscribe", "channel": CHANNELS[channel]});
        self.ask(index, Asked::Unsubscribe(channel), text);
    }

    fn publish(&mut self, index: usize, channel: usize) {
        let id = self.published.len();
        let random = &mut self.world.random;
        let tags = Tags::new(random);
        let echo = !random.one_in(4);
        let mut text = json!({
            "action": "publish", "channel": CHANNELS[channel], "echo": echo,
            "data": [id, "x".repeat(random.below(60))],
        });
        if !tags.is_empty() || random.one_in(2) {
            text["tags"] = tags.as_json();
        }
        let except = (!echo).then_some(index);
        self.published.push(Published { channel, tags, except, outcome: None });
        self.ask(index, Asked::Publish(id), text);
    }

    fn ask(&mut self, index: usize, asked: Asked, mut text: Value) {
        self.last_id += 1;
        text["id"] = self.last_id.into();
        let reader = &mut self.readers[index];
        reader.asked.insert(self.last_id, asked);
        say(&self.world, reader.socket, &text.to_string());
    }

    fn break_off(&mut self, index: usize) {
        let mut network = self.world.network.borrow_mut();
        if self.last_id.is_multiple_of(3) {
            network.end(self.readers[index].socket);
        } else {
            network.reset(self.readers[index].socket);
        }
        drop(network);
        self.leave(index);
    }

    /// The last one of those who are gone and have no successor.
    fn last_gone(&mut self) -> Option<usize> {
        let may_be = |reader: &Reader| reader.gone && !reader.succeeded && reader.pair.is_some();
        let index = self.readers.iter().rposition(may_be)?;
        self.readers[index].succeeded = true;
        Some(index)
    }

    /// A new reader goes on where one who is gone was, with the same filters or others.
    fn come_back(&mut self) {
        let Some(gone) = self.last_gone() else { return };
        let index = self.open(false);
        for channel in FIRST_KEPT..CHANNELS.len() {
            let Some(run) = self.readers[gone].last_run(channel) else { continue };
            let (reached, mut filter) = (run.reached(), run.filters[0]);
            if self.world.random.one_in(3) {
                filter = self.world.random.below(FILTERS.len());
            }
            self.subscribe(index, channel, filter, Some(reached));
        }
    }

    /// A new reader wants the session of one who is gone.
    fn restore(&mut self) {
        let Some(gone) = self.last_gone() else { return };
        let (session, connection) = self.readers[gone].pair.clone().expect("it was welcome");
        let index = self.open(false);
        let mut claims = [None; CHANNELS.len()];
        let mut positions = serde_json::Map::new();
        if self.world.random.one_in(2) {
            for channel in FIRST_KEPT..CHANNELS.len() {
                let reader = &self.readers[gone];
                let Some(run) = reader.current[channel] else { continue };
                let reached = reader.runs[run].reached();
                claims[channel] = Some(reached);
                positions.insert(CHANNELS[channel].to_owned(), reached.into());
            }
        }
        let text = json!({
            "type": "restore_session", "sessionId": session, "connectionId": connection,
            "positions": positions,
        });
        self.ask(index, Asked::Session { of: gone, claims }, text);
        if self.world.random.one_in(8) {
            self.break_off(index);
        }
    }

    fn leave(&mut self, index: usize) {
        let reader = &mut self.readers[index];
        if std::mem::replace(&mut reader.gone, true) {
            return;
        }
        let wanted = reader.asked.values().find_map(|asked| match asked {
            Asked::Session { of, .. } => Some(*of),
            _ => None,
        });
        if wanted.is_some() {
            // What it was welcomed with may be another's session now.
            reader.pair = None;
        }
        for run in reader.current.into_iter().flatten() {
            reader.runs[run].over = true;
        }
        if let Some(of) = wanted {
            // The next one wants it too.
            self.readers[of].succeeded = false;
        }
    }

    /// Returns how many messages came.
    fn step(&mut self) -> usize {
        self.world.step();
        let mut taken = 0;
        for index in 0..self.readers.len() {
            let Reader { socket, pace, .. } = self.readers[index];
            let count = match pace {
                usize::MAX => usize::MAX,
                most => self.world.random.below(most),
            };
            let bytes = self.world.network.borrow_mut().read(socket, count);
            self.readers[index].incoming.extend(bytes);
            while let Some((opcode, payload)) = take_frame(&mut self.readers[index].incoming) {
                // Pings go on for ever.
                taken += usize::from(opcode == 1);
                // What was on its way when it went.
                if !self.readers[index].gone {
                    self.take_frame(index, opcode, &payload);
                }
            }
            let ended = self.world.network.borrow().server_ended(socket);
            if ended && self.world.network.borrow().readable(socket) == 0 {
                self.world.network.borrow_mut().end(socket);
                self.leave(index);
            }
        }
        taken
    }

    /// Nobody does anything until nothing moves any more.
    fn rest(&mut self) {
        self.world.stopped.fill(0);
        for reader in &mut self.readers {
            reader.pace = usize::MAX;
        }
        let (mut quiet, mut steps) = (0, 0);
        while quiet < 60 {
            quiet = if self.step() == 0 { quiet + 1 } else { 0 };
            steps += 1;
            assert!(steps < 20_000, "the server does not come to rest");
        }
    }

    fn take_frame(&mut self, index: usize, opcode: u8, payload: &[u8]) {
        match opcode {
            1 => {
                let message = serde_json::from_slice(payload).expect("JSON");
                self.take(index, &message);
            }
            9 => {
                let head = [0x8A, 0x80 | payload.len() as u8, 0, 0, 0, 0];
                let pong = [&head, payload].concat();
                self.world.network.borrow_mut().send(self.readers[index].socket, &pong);
            }
            8 => {
                let code = u16::from_be_bytes([payload[0], payload[1]]);
                // Too slow, or its session is that of one who asked for it before and is gone.
                assert!([4002, 4004, 4005].contains(&code), "{index}: {}", payload.escape_ascii());
                self.met[Met::Slow as usize] += 1;
                let head = [0x88, 0x80 | payload.len() as u8, 0, 0, 0, 0];
                let answer = [&head, payload].concat();
                self.world.network.borrow_mut().send(self.readers[index].socket, &answer);
                self.leave(index);
            }
            _ => panic!("{index} is told {opcode} {}", payload.escape_ascii()),
        }
    }

    fn take(&mut self, index: usize, message: &Value) {
        let text = |name: &str| message[name].as_str().expect("a text").to_owned();
        let data = &message["data"];
        match message["type"].as_str() {
            Some("welcome") => {
                self.readers[index].pair = Some((text("sessionId"), text("connectionId")));
            }
            Some("session_restored") => {
                self.readers[index].pair = Some((text("sessionId"), text("connectionId")));
                self.restored(index, message);
            }
            Some("ack") => match self.answered(index, &message["requestId"]) {
                Asked::Publish(id) => self.published[id].outcome = Some(true),
                asked => panic!("{asked:?} is acknowledged"),
            },
            Some("error") => self.refused(index, &message["requestId"], &text("code")),
            Some(_) => panic!("{index} is told {message}"),
            None if message["channel"] != "system" => self.hear(index, message),
            None => match data["type"].as_str() {
                Some("error") => {
                    let code = data["code"].as_str().expect("a code");
                    self.refused(index, &data["requestId"], code);
                }
                Some("subscription_confirm") => self.confirmed(index, data),
                Some("unsubscription_confirm") => {
                    let Asked::Unsubscribe(channel) = self.answered(index, &data["requestId"])
                    else {
                        panic!("not asked for: {data}");
                    };
                    self.readers[index].unmet[channel] = None;
                    let reader = &mut self.readers[index];
                    if let Some(run) = reader.current[channel].take() {
                        reader.runs[run].over = true;
                    }
                }
                _ => panic!("{index} is told {data}"),
            },
        }
    }

    fn answered(&mut self, index: usize, id: &Value) -> Asked {
        let asked = id.as_u64().and_then(|id| self.readers[index].asked.remove(&id));
        asked.unwrap_or_else(|| panic!("{index} has not asked {id}"))
    }

    fn refused(&mut self, index: usize, id: &Value, code: &str) {
        match (self.answered(index, id), code) {
            (Asked::Publish(id), "backlog_full") => {
                self.published[id].outcome = Some(false);
                self.met[Met::Congested as usize] += 1;
            }
            (Asked::Subscribe { .. }, "backlog_full") => {}
            (Asked::Unsubscribe(channel), "not_subscribed") => {
                let reader = &mut self.readers[index];
                assert!(reader.current[channel].is_none(), "{index} is subscribed");
                reader.unmet[channel] = None;
            }
            (Asked::Session { of, .. }, "backlog_full") => self.readers[of].succeeded = false,
            (Asked::Session { .. }, "session_not_found") => {
                let ttl = self.world.settings.config.sessions.ttl;
                assert!(ttl < Duration::from_mins(1), "{index}: the session is lost");
            }
            (asked, code) => panic!("{index} is refused {asked:?} with {code}"),
        }
    }

    fn confirmed(&mut self, index: usize, data: &Value) {
        let asked = self.answered(index, &data["requestId"]);
        let Asked::Subscribe { channel, filter, behind } = asked else { panic!("{data}") };
        let mut run = Run::new(channel, vec![filter], self.published.len());
        run.take_place(data);
        if data["recovered"].is_boolean() && channel >= FIRST_KEPT {
            assert_eq!(data["recovered"], true, "{index}: nothing is trimmed: {data}");
            assert_eq!(run.begin, behind.map(|behind| behind as usize), "{index}: {data}");
            let met = if behind == Some(0) { Met::Since } else { Met::Recovered };
            self.met[met as usize] += 1;
        }
        let reader = &mut self.readers[index];
        if let Some(before) = reader.current[channel] {
            let reached = reader.runs[before].reached();
            assert!(
                run.begin.is_none_or(|begin| begin as u64 >= reached),
                "{index}: {data} behind {reached}"
            );
            run.continues = true;
            self.met[Met::Changed as usize] +=
                u64::from(reader.runs[before].filters != run.filters);
        }
        reader.enter(run);
    }

    fn hear(&mut self, index: usize, message: &Value) {
        let id = message["data"][0].as_u64().expect("our id") as usize;
        let Published { channel, tags, except, .. } = &self.published[id];
        assert_eq!(message["channel"], CHANNELS[*channel]);
        let expected = if tags.is_empty() { Value::Null } else { tags.as_json() };
        assert_eq!(message["tags"], expected, "{message}");
        assert_ne!(*except, Some(index), "its own, unwanted: {message}");
        let reader = &mut self.readers[index];
        let run = reader.current[*channel].unwrap_or_else(|| panic!("{index}: {message}"));
        let offset = message["offset"].as_u64();
        assert_eq!(offset.is_some(), *channel >= FIRST_KEPT, "{message}");
        let run = &mut reader.runs[run];
        let is_later = offset.is_none_or(|offset| offset > run.reached());
        assert!(is_later, "{index}: {message} again: {run:?}");
        run.seen.push((id, offset.unwrap_or_default()));
        let met = if run.filters[0] > 0 { Met::Selected } else { Met::Heard };
        self.met[met as usize] += 1;
    }

    /// A session is there: each of its subscriptions has the filter that it had.
    fn restored(&mut self, index: usize, message: &Value) {
        let asked = self.answered(index, &message["requestId"]);
        let Asked::Session { of, claims } = asked else { panic!("{message}") };
        self.met[Met::Restored as usize] += 1;
        let listed = message["subscriptions"].as_array().expect("a list");
        for (channel, name) in CHANNELS.into_iter().enumerate() {
            let one = listed.iter().find(|one| one["channel"] == name);
            let before = &self.readers[of];
            let (filters, may_lack) = before.in_session(channel);
            let Some(one) = one else {
                let has_none = before.current[channel].is_none() && before.unmet[channel].is_none();
                assert!(has_none || may_lack, "{index}: {name} is missing: {message}");
                continue;
            };
            assert!(!filters.is_empty(), "{index}: {name} was not subscribed: {message}");
            self.met[Met::Uncertain as usize] += u64::from(filters.len() > 1);
            if one["recovered"] == false && one["code"] != "position_unavailable" {
                self.readers[index].unmet[channel] = Some(filters);
                self.met[Met::Unmet as usize] += 1;
                continue;
            }
            let mut run = Run::new(channel, filters, self.published.len());
            if channel >= FIRST_KEPT {
                assert_eq!(one["recovered"], true, "{index}: nothing is trimmed: {message}");
                run.take_place(one);
                let begin = run.begin.expect("a place") as u64;
                if let Some(claim) = claims[channel] {
                    assert_eq!(begin, claim, "{index}: {name}: {message}");
                }
                if let Some(last) = before.current[channel].filter(|_| !may_lack) {
                    run.follows = Some((before.runs[last].reached() as usize, of));
                }
            }
            self.readers[index].enter(run);
        }
    }
}

/// Small bounds, so that they are met.
fn bounds(random: &mut Random) -> Config {
    let mut config = Config::default();
    config.limits.send_queue_size = 1000 + random.below(8000);
    config.limits.mesh_backlog = if random.one_in(3) { 2000 } else { 1 << 20 };
    config.limits.fanout_backlog = if random.one_in(3) { 1000 } else { 1 << 20 };
    config.limits.max_errors = 1_000_000;
    config.limits.slow_consumer_timeout = Duration::from_secs(2);
    config.limits.close_timeout = Duration::from_secs(1);
    config.heartbeat.interval = Duration::from_millis(400 + random.below(2000) as u64);
    config.sessions.ttl = Duration::from_secs(if random.one_in(6) { 1 } else { 1_000_000 });
    let live = ChannelOptions { tags: true, ..ChannelOptions::default() };
    let kept = ChannelOptions {
        level: Level::History,
        history_size: 1_000_000,
        history_ttl: Duration::from_secs(1_000_000),
        ..live.clone()
    };
    let namespace = |name: &str, options| Namespace { name: name.to_owned(), options };
    config.namespaces = vec![namespace("kept", kept), namespace("live", live)];
    config
}

#[test]
fn readers_get_what_their_filters_are_for() {
    seeds::run((SEEDS, 0), Met::ALL, |seed| Library::new(seed).run());
}
