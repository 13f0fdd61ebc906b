//! Rooms on simulated servers, at random: guests make, join, leave and delete rooms, mute and kick each other,
//! break off and come back by session, while shards stall and have no room for more. Where each of them is,
//! as far as it was told, is at rest what the rooms tell.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;

use super::World;
use super::rooms::{say, take_frame, upgrade};
use crate::config::{ChannelOptions, Config, Namespace};
use crate::ids::ShardId;
use crate::io::seeds;
use crate::io::sim::{Random, STEADY_CAPACITY, SocketId};

/// Of the default namespace, and of one whose rooms need not be made.
const ROOMS: [&str; 4] = ["a", "b", "auto:a", "auto:b"];
const GUESTS: usize = 8;
const STEPS: usize = 250;
const SEEDS: u64 = 300;

/// One connection.
struct Guest {
    socket: SocketId,
    incoming: Vec<u8>,
    /// Its session, and what it is called in rooms, once it is welcome.
    names: Option<(String, String)>,
    /// Where it is, as far as it was told.
    rooms: BTreeSet<usize>,
    /// What it has asked for and not been answered.
    asked: BTreeMap<u64, Asked>,
    /// It has broken off.
    gone: bool,
    /// Somebody goes on with its session.
    succeeded: bool,
}

impl Guest {
    /// It knows where it is: while its session is being restored it does not.
    fn is_settled(&self) -> bool {
        let is_restoring = self.asked.values().any(|asked| matches!(asked, Asked::Session));
        !self.gone && self.names.is_some() && !is_restoring
    }

    fn is_joining(&self, room: usize) -> bool {
        let is_it =
            |asked: &Asked| matches!(asked, Asked::Join { room: other, .. } if *other == room);
        self.asked.values().any(is_it)
    }
}

#[derive(Debug, Clone, Copy)]
enum Asked {
    /// It may be in the room before this is judged: it was, or had asked to join, when it asked.
    Join {
        room: usize,
        again: bool,
    },
    Leave(usize),
    /// Which of them is said by the room.
    Unsubscribe,
    /// Who is in a room.
    Members(usize),
    Session,
    Other,
}

/// What befell the guests: all of it must, else the seeds prove nothing.
#[derive(Debug, Clone, Copy)]
enum Met {
    Joined,
    Full,
    Forbidden,
    Heard,
    Kicked,
    Deleted,
    Lost,
    Restored,
    Congested,
}

impl Met {
    const ALL: [Self; 9] = [
        Self::Joined,
        Self::Full,
        Self::Forbidden,
        Self::Heard,
        Self::Kicked,
        Self::Deleted,
        Self::Lost,
        Self::Restored,
        Self::Congested,
    ];
}

struct House {
    world: World,
    guests: Vec<Guest>,
    last_id: u64,
    /// By room: who is there, as the last one who asked was told.
    members: BTreeMap<usize, BTreeSet<String>>,
    /// How often each of [`Met`] did.
    met: [u64; Met::ALL.len()],
}

impl House {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let count = 1 + random.below(4);
        let world = World::configured(seed, count, |config| {
            *config = Config::default();
            config.limits.mesh_backlog = if random.one_in(2) { 2000 } else { 1 << 20 };
            config.limits.max_subscriptions = 2 + random.below(4) as u32;
            config.limits.max_errors = 1_000_000;
            config.sessions.ttl = Duration::from_secs(if random.one_in(3) { 1 } else { 1000 });
            let options = ChannelOptions { auto_create: true, ..ChannelOptions::default() };
            config.namespaces = vec![Namespace { name: "auto".to_owned(), options }];
        });
        let (guests, members) = (Vec::new(), BTreeMap::new());
        Self { world, guests, last_id: 0, members, met: [0; Met::ALL.len()] }
    }

    fn run(mut self) -> [u64; Met::ALL.len()] {
        for _ in 0..STEPS {
            self.act();
            self.step();
        }
        self.rest();
        let inspector = self.open();
        for (room, channel) in ROOMS.into_iter().enumerate() {
            // A shard that had no room has it after a while.
            while !self.members.contains_key(&room) {
                let parameters = format!(r#"{{"room":"{channel}"}}"#);
                let payload = format!(r#"{{"resource":"room","parameters":{parameters}}}"#);
                self.ask(inspector, "query", &payload, Asked::Members(room));
                self.rest();
            }
            let there = self.guests.iter().filter(|guest| !guest.gone);
            let there = there.filter(|guest| guest.rooms.contains(&room));
            let name = |guest: &Guest| guest.names.as_ref().map(|(_, name)| name.clone());
            let told: BTreeSet<_> = there.filter_map(name).collect();
            assert_eq!(self.members[&room], told, "who is in {channel}");
        }
        for guest in self.guests.iter().filter(|guest| !guest.gone) {
            assert!(guest.asked.is_empty(), "never answered: {:?}", guest.asked);
        }
        self.met
    }

    fn open(&mut self) -> usize {
        let shard = ShardId(self.world.random.below(self.world.shards.len()) as u16);
        let socket = self.world.network.borrow_mut().connect(shard, STEADY_CAPACITY);
        upgrade(&self.world, socket);
        self.guests.push(Guest {
            socket,
            incoming: Vec::new(),
            names: None,
            rooms: BTreeSet::new(),
            asked: BTreeMap::new(),
            gone: false,
            succeeded: false,
        });
        self.guests.len() - 1
    }

    /// One thing that a guest does.
    fn act(&mut self) {
        let is_settled = |index: &usize| self.guests[*index].is_settled();
        let here: Vec<_> = (0..self.guests.len()).filter(is_settled).collect();
        let random = &mut self.world.random;
        if here.is_empty() || (here.len() < GUESTS && random.one_in(6)) {
            self.open();
            return;
        }
        let (index, other) = (here[random.below(here.len())], here[random.below(here.len())]);
        let room = random.below(ROOMS.len());
        let target = self.guests[other].names.as_ref().map_or("", |(_, name)| name).to_owned();
        let name = ROOMS[room];
        let at = format!(r#"{{"room":"{name}","target":"{target}"}}"#);
        match random.below(24) {
            0 | 1 => {
                let most = 1 + random.below(5);
                let plan = format!(r#"{{"room":"{name}","maxUsers":{most}}}"#);
                self.command(index, "create_room", &plan, Asked::Other);
            }
            2..=7 => {
                let guest = &self.guests[index];
                let again = guest.rooms.contains(&room) || guest.is_joining(room);
                self.command(index, "join", &at, Asked::Join { room, again });
            }
            8 | 9 => self.command(index, "leave", &at, Asked::Leave(room)),
            10 if random.one_in(2) => self.command(index, "delete_room", &at, Asked::Other),
            11 => self.command(index, "mute", &at, Asked::Other),
            12 => self.command(index, "unmute", &at, Asked::Other),
            13 => self.command(index, "kick", &at, Asked::Other),
            14 => self.request(index, Asked::Unsubscribe, |id| {
                format!(r#"{{"action":"unsubscribe","id":{id},"channel":"{name}"}}"#)
            }),
            15 | 16 => self.break_off(index),
            17 | 18 => self.come_back(),
            19 if random.one_in(3) => {
                let shard = random.below(self.world.shards.len());
                self.world.stopped[shard] = 1 + random.below(40);
            }
            _ => {
                for _ in 0..1 + random.below(8) {
                    self.request(index, Asked::Other, |id| {
                        format!(r#"{{"action":"publish","channel":"{name}","id":{id},"data":"{id:50}"}}"#)
                    });
                }
            }
        }
    }

    fn command(&mut self, index: usize, action: &str, parameters: &str, asked: Asked) {
        let payload = format!(r#"{{"action":"{action}","parameters":{parameters}}}"#);
        self.ask(index, "command", &payload, asked);
    }

    fn ask(&mut self, index: usize, kind: &str, payload: &str, asked: Asked) {
        self.request(index, asked, |id| {
            format!(r#"{{"type":"{kind}","id":{id},"payload":{payload}}}"#)
        });
    }

    fn request(&mut self, index: usize, asked: Asked, text: impl Fn(u64) -> String) {
        self.last_id += 1;
        let guest = &mut self.guests[index];
        guest.asked.insert(self.last_id, asked);
        say(&self.world, guest.socket, &text(self.last_id));
    }

    fn break_off(&mut self, index: usize) {
        let guest = &mut self.guests[index];
        guest.gone = true;
        let mut network = self.world.network.borrow_mut();
        if self.last_id.is_multiple_of(3) {
            network.end(guest.socket);
        } else {
            network.reset(guest.socket);
        }
    }

    /// A new guest wants the session of one who is gone.
    fn come_back(&mut self) {
        let may_be = |guest: &&mut Guest| guest.gone && !guest.succeeded;
        let Some(gone) = self.guests.iter_mut().rev().find(may_be) else { return };
        gone.succeeded = true;
        let Some((session, connection)) = gone.names.clone() else { return };
        let index = self.open();
        self.request(index, Asked::Session, |id| {
            format!(
                r#"{{"type":"restore_session","id":{id},"sessionId":"{session}","connectionId":"{connection}"}}"#
            )
        });
        if self.world.random.one_in(8) {
            self.break_off(index);
        }
    }

    fn step(&mut self) -> usize {
        self.world.step();
        let mut taken = 0;
        for index in 0..self.guests.len() {
            let socket = self.guests[index].socket;
            let bytes = self.world.network.borrow_mut().read(socket, usize::MAX);
            self.guests[index].incoming.extend(bytes);
            while let Some(message) = self.next_message(index) {
                taken += 1;
                // What was on its way when it went.
                if !self.guests[index].gone {
                    self.take(index, &message);
                }
            }
        }
        taken
    }

    /// Nobody does anything until nothing moves any more.
    fn rest(&mut self) {
        self.world.stopped.fill(0);
        let (mut quiet, mut steps) = (0, 0);
        while quiet < 60 {
            quiet = if self.step() == 0 { quiet + 1 } else { 0 };
            steps += 1;
            assert!(steps < 20_000, "the server does not come to rest");
        }
    }

    /// A text; pings are answered.
    fn next_message(&mut self, index: usize) -> Option<Value> {
        let Guest { incoming, socket, gone, .. } = &mut self.guests[index];
        loop {
            let (opcode, payload) = take_frame(incoming)?;
            match opcode {
                0x1 => return Some(serde_json::from_slice(&payload).expect("JSON")),
                0x9 => {
                    let pong =
                        [&[0x8A, 0x80 | payload.len() as u8, 0, 0, 0, 0], &payload[..]].concat();
                    self.world.network.borrow_mut().send(*socket, &pong);
                }
                // Its session is somebody else's now.
                0x8 if *gone => {}
                _ => panic!("{index} is told {opcode:x} {}", payload.escape_ascii()),
            }
        }
    }

    fn take(&mut self, index: usize, message: &Value) {
        let text = |name: &str| message[name].as_str().expect("a text").to_owned();
        let guest = &mut self.guests[index];
        match message["type"].as_str() {
            Some("welcome") => guest.names = Some((text("sessionId"), text("connectionId"))),
            Some("session_restored") => {
                self.met[Met::Restored as usize] += 1;
                guest.names = Some((text("sessionId"), text("connectionId")));
                let subscriptions = message["subscriptions"].as_array().expect("a list");
                for subscription in subscriptions {
                    // With another code it does not have the subscription now.
                    if subscription["code"] == "position_unavailable" {
                        guest.rooms.insert(number(&subscription["channel"]));
                    }
                }
                self.answered(index, &message["requestId"]);
            }
            Some("response") => match self.answered(index, &message["requestId"]) {
                Asked::Join { room, .. } => {
                    self.met[Met::Joined as usize] += 1;
                    assert!(self.guests[index].rooms.insert(room), "{index} was there: {message}");
                }
                Asked::Leave(room) => {
                    assert!(self.guests[index].rooms.remove(&room), "{index} was not there");
                }
                Asked::Members(room) => {
                    let users = message["payload"]["users"].as_array().expect("a list").iter();
                    let names = users.map(|user| user.as_str().expect("a name").to_owned());
                    self.members.insert(room, names.collect());
                }
                Asked::Unsubscribe | Asked::Session | Asked::Other => {}
            },
            Some("error") => self.refused(index, &message["requestId"], &text("code")),
            Some("ack") => drop(self.answered(index, &message["requestId"])),
            _ if message["channel"] == "system" => self.take_system(index, &message["data"]),
            _ => {
                self.met[Met::Heard as usize] += 1;
                let room = number(&message["channel"]);
                assert!(guest.rooms.contains(&room), "{index} is not there: {message}");
            }
        }
    }

    fn take_system(&mut self, index: usize, data: &Value) {
        match data["type"].as_str() {
            Some("error") => {
                let code = data["code"].as_str().expect("a code");
                self.refused(index, &data["requestId"], code);
            }
            Some("unsubscription_confirm") => {
                let room = number(&data["channel"]);
                assert!(self.guests[index].rooms.remove(&room), "{index} was not there: {data}");
                match data["reason"].as_str() {
                    None => drop(self.answered(index, &data["requestId"])),
                    Some("kicked") => self.met[Met::Kicked as usize] += 1,
                    Some("room_deleted") => self.met[Met::Deleted as usize] += 1,
                    Some("room_lost") => self.met[Met::Lost as usize] += 1,
                    Some(reason) => panic!("taken out for {reason}"),
                }
            }
            _ => panic!("{index} is told {data}"),
        }
    }

    fn answered(&mut self, index: usize, id: &Value) -> Asked {
        let asked = id.as_u64().and_then(|id| self.guests[index].asked.remove(&id));
        asked.unwrap_or_else(|| panic!("{index} has not asked {id}"))
    }

    fn refused(&mut self, index: usize, id: &Value, code: &str) {
        let asked = self.answered(index, id);
        match (asked, code) {
            // It has not been done: who asked is still where it was.
            (_, "backlog_full") => self.met[Met::Congested as usize] += 1,
            (Asked::Join { .. }, "room_full") => self.met[Met::Full as usize] += 1,
            // The home said so; who unsubscribed since has left before it hears of this.
            (Asked::Join { again: true, .. }, "already_member") => {}
            (Asked::Leave(room), "not_subscribed") => {
                let is_next = |other: &Asked| matches!(other, Asked::Leave(left) if *left == room);
                let is_leaving = self.guests[index].asked.values().any(is_next);
                let is_in = self.guests[index].rooms.contains(&room);
                assert!(!is_in || is_leaving, "{index} is there");
            }
            (Asked::Members(room), "room_not_found") => {
                self.members.insert(room, BTreeSet::new());
            }
            (Asked::Join { .. } | Asked::Other, "room_not_found") => {}
            (Asked::Unsubscribe | Asked::Other, "not_subscribed") => {}
            (Asked::Session, "session_not_found" | "unavailable") => {}
            (Asked::Other, "forbidden") => self.met[Met::Forbidden as usize] += 1,
            (Asked::Other, "room_exists") => {}
            // As many are muted as may be in it.
            (Asked::Other, "room_full") => {}
            // It has as many subscriptions as it may.
            (Asked::Join { .. }, "too_many_subscriptions") => {}
            _ => panic!("{index} is refused {asked:?} with {code}"),
        }
    }
}

fn number(channel: &Value) -> usize {
    ROOMS.iter().position(|room| channel == room).unwrap_or_else(|| panic!("{channel}"))
}

#[test]
fn who_is_in_a_room_is_who_was_told_so() {
    seeds::run((SEEDS, 0), Met::ALL, |seed| House::new(seed).run());
}
