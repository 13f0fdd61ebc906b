//! Simulated clients that come back with their session, on any shard, once or twice at a time.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use super::client::{Client, Manner, Place, Segment};
use super::scenarios::world;
use super::{ACKED, FIRST_KEPT, Published, TOPICS, World};
use crate::config::{ChannelOptions, Level, Namespace};
use crate::ids::ShardId;
use crate::io::sim::{Network, Random};
use crate::proto::Encoding;

/// What a client knows of its session.
#[derive(Debug, Default)]
pub struct Session {
    /// Of the session, and of the connection.
    pub pair: Option<(String, String)>,
    /// Somebody else has its ids.
    pub used: bool,
    /// Pings that ask what it has got, and that it has answered.
    pub probes: u32,
    /// Topics that it has asked to leave.
    withdrawn: BTreeSet<usize>,
    /// What it restores, until that is answered.
    asked: Option<Asked>,
    /// What it was told, until the world has judged it.
    told: Option<Value>,
    /// The session that it has asked for and that there is not, though nobody else wanted it then.
    lost: Option<String>,
}

/// A request to restore a session.
#[derive(Debug)]
struct Asked {
    predecessor: usize,
    session: String,
    /// Where the client says it is; `None`: it does not say.
    claims: Option<Vec<(usize, Place)>>,
    /// Nobody else has ever wanted the session, so it must be there.
    alone: bool,
}

impl Client {
    /// As [`Client::upgrade`], with a subprotocol: the server tells it its ids.
    pub fn upgrade_named(&self, network: &RefCell<Network>) {
        let request = "GET /ws HTTP/1.1\r\nHost: s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: stentor.v1.json\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        network.borrow_mut().send(self.socket, request.as_bytes());
    }

    fn restore(
        &mut self,
        network: &RefCell<Network>,
        pair: &(String, String),
        asked: Asked,
        random: &mut Random,
    ) {
        let (session, connection) = pair;
        let positions = asked.claims.as_ref().map_or(String::new(), |claims| {
            let places: Vec<_> = claims
                .iter()
                .map(|(topic, place)| {
                    let (name, Place { epoch, offset, .. }) = (TOPICS[*topic], place);
                    if random.one_in(2) {
                        format!(r#""{name}":{offset}"#)
                    } else {
                        format!(r#""{name}":{{"epoch":"{epoch}","offset":{offset}}}"#)
                    }
                })
                .collect();
            format!(r#","positions":{{{}}}"#, places.join(","))
        });
        let text = format!(
            r#"{{"type":"restore_session","sessionId":"{session}","connectionId":"{connection}"{positions}}}"#
        );
        self.send(network, 1, text.as_bytes(), random);
        self.session.asked = Some(asked);
    }

    /// Wants the session of a client of the server's last life back, saying where that was. `alone`: it must
    /// be there.
    pub fn restore_kept(
        &mut self,
        network: &RefCell<Network>,
        pair: &(String, String),
        places: Vec<(usize, Place)>,
        alone: bool,
        random: &mut Random,
    ) {
        let (predecessor, session, claims) = (0, pair.0.clone(), Some(places));
        let asked = Asked { predecessor, session, claims, alone };
        self.restore(network, pair, asked, random);
    }

    /// Whether it has asked for another session and does not know whether it has that.
    pub fn is_restoring(&self) -> bool {
        self.session.asked.is_some()
    }

    /// What it was told of the session that it wanted, and that session.
    pub fn take_told(&mut self) -> Option<(String, Value)> {
        let told = self.session.told.take()?;
        Some((self.session.asked.take()?.session, told))
    }

    pub fn note_withdrawn(&mut self, topic: usize) {
        self.session.withdrawn.insert(topic);
    }

    /// A message of the `type` family that is of sessions. `false`: it is none.
    pub fn take_session_message(&mut self, message: &Value, published: usize) -> bool {
        let text = |name: &str| message[name].as_str().expect("a text").to_owned();
        match message["type"].as_str() {
            Some("welcome") => {
                self.session.pair = Some((text("sessionId"), text("connectionId")));
            }
            Some("session_restored") => {
                self.session.pair = Some((text("sessionId"), text("connectionId")));
                for subscription in message["subscriptions"].as_array().expect("a list") {
                    self.take_restored(subscription, published);
                }
                self.session.told = Some(message.clone());
            }
            // Else of an acknowledgement.
            Some("error") if message["code"] != "not_subscribed" => {
                let code = text("code");
                let asked = self.session.asked.take();
                // By chance its garbage was a message.
                assert!(asked.is_some() || self.left(), "{message}");
                if let Some(asked) = asked {
                    let later = ["backlog_full", "unavailable"].contains(&&*code);
                    let known = ["session_not_found", "invalid_message"];
                    assert!(later || known.contains(&&*code), "{message}");
                    let is_lost = asked.alone && !later;
                    self.session.lost =
                        is_lost.then_some(asked.session).or(self.session.lost.take());
                }
            }
            _ => return false,
        }
        true
    }

    fn take_restored(&mut self, subscription: &Value, published: usize) {
        let channel = &subscription["channel"];
        let topic = TOPICS.iter().position(|topic| channel == topic).expect("one of ours");
        // Its own subscription is confirmed by itself.
        let is_own = subscription["reason"] == "subscribed";
        let is_refused =
            subscription["recovered"] == false && subscription["code"] != "position_unavailable";
        if is_own || is_refused || self.left() || self.is_subscribed(topic) {
            return;
        }
        let place = (topic >= FIRST_KEPT).then(|| {
            let epoch = subscription["epoch"].as_str().expect("an epoch").to_owned();
            let offset = subscription["offset"].as_u64().expect("an offset");
            let (seen, gaps, unacked) = (Vec::new(), Vec::new(), BTreeSet::new());
            Place { epoch, offset, seen, gaps, begin: offset, unacked }
        });
        self.begin_segment(Segment {
            topic,
            published_before: published,
            seen: Vec::new(),
            place,
            over: false,
        });
    }

    /// Where it came to on a topic, subscribed or not any more.
    fn came_to(&self, topic: usize) -> Option<&Place> {
        let mut segments = self.segments.iter().rev();
        segments.find(|segment| segment.topic == topic)?.place.as_ref()
    }
}

impl World {
    /// Another connection wants the session of a client, which may still be there.
    pub fn restore_session(&mut self, index: usize) {
        let client = &self.clients[index];
        let Some(pair) = client.session.pair.clone() else { return };
        if client.session.asked.is_some() || !client.is_open() {
            return;
        }
        let alone = !client.session.used && !self.doubled.contains(&pair.0);
        let reached = client.reached();
        match self.random.below(5) {
            0 => self.clients[index].close(&self.network, &mut self.random),
            1 => self.clients[index].end(&self.network),
            2 => {}
            _ => self.clients[index].reset(&self.network),
        }
        let count = if self.random.one_in(4) { 2 } else { 1 };
        if count == 2 || !alone {
            self.doubled.insert(pair.0.clone());
        }
        self.clients[index].session.used = true;
        if self.random.one_in(4) {
            self.restore_and_go(index, &pair);
        }
        for _ in 0..count {
            let manner = if self.random.one_in(3) { Manner::Slow } else { Manner::Brisk };
            let successor = self.connect_named(manner);
            let says = self.random.one_in(2) && !self.clients[index].is_open();
            let asked = Asked {
                predecessor: index,
                session: pair.0.clone(),
                claims: says.then(|| reached.clone()),
                alone: alone && count == 1 && self.sessions_last,
            };
            self.clients[successor].restore(&self.network, &pair, asked, &mut self.random);
        }
    }

    /// Somebody asks for the session and is gone before the answer can come. It is still there for the next
    /// one.
    fn restore_and_go(&mut self, index: usize, pair: &(String, String)) {
        let ghost = self.connect_named(Manner::Brisk);
        let session = pair.0.clone();
        self.doubled.insert(session.clone());
        let asked = Asked { predecessor: index, session, claims: None, alone: false };
        let client = &mut self.clients[ghost];
        client.restore(&self.network, pair, asked, &mut self.random);
        client.end(&self.network);
    }

    /// Holds what clients were told of their sessions against what they had.
    pub fn judge_restored(&mut self) {
        for index in 0..self.clients.len() {
            if let Some(lost) = self.clients[index].session.lost.take() {
                // Others may have come to want it when this one had asked.
                assert!(self.doubled.contains(&lost), "client {index} has lost {lost}");
            }
            let Some(told) = self.clients[index].session.told.take() else { continue };
            let session = &mut self.clients[index].session;
            let Some(Asked { predecessor, session, claims, .. }) = session.asked.take() else {
                panic!("not asked for: {told}");
            };
            assert_eq!(told["sessionId"], session);
            if self.doubled.contains(&session) {
                continue;
            }
            let list = told["subscriptions"].as_array().expect("a list");
            let mut acked_to = None;
            let before = &self.clients[predecessor];
            for (topic, name) in TOPICS.iter().enumerate().skip(FIRST_KEPT) {
                let Some(had) = before.came_to(topic) else { continue };
                let listed = list.iter().find(|one| one["channel"] == *name);
                let left = before.session.withdrawn.contains(&topic)
                    || self.clients[index].session.withdrawn.contains(&topic);
                let Some(listed) = listed else {
                    assert!(left, "client {index}: {name} is missing in {told}");
                    continue;
                };
                if listed["recovered"] != true || left {
                    assert!(listed["recovered"] == true || listed["reason"].is_string(), "{told}");
                    continue;
                }
                let offset = listed["offset"].as_u64().expect("an offset");
                assert_eq!(listed["epoch"], had.epoch, "another epoch: {told}");
                let claim = claims.as_ref().and_then(|claims| {
                    claims.iter().find(|(claimed, _)| *claimed == topic).map(|(_, place)| place)
                });
                if topic == ACKED {
                    // What was its own and never came may be passed over; that is looked at in the end.
                    let had_to = had.unacked.first().map_or(had.offset, |first| first - 1);
                    let had_to = claim.map_or(had_to, |place| place.offset);
                    assert!(claim.is_none() || offset >= had_to, "not where it said: {told}");
                    acked_to = Some(had_to.min(offset));
                    continue;
                }
                match claim {
                    Some(place) => assert_eq!(offset, place.offset, "not where it said: {told}"),
                    None => assert!(offset <= had.offset, "a silent gap behind {had:?}: {told}"),
                }
            }
            let place = self.clients[index].acked_place();
            if let Some((begin, place)) = acked_to.zip(place) {
                place.begin = begin;
            }
        }
    }

    /// Whether somebody who had the session of a client has acknowledged this offset of the acked topic, or
    /// is its publisher and did not want it.
    pub fn had_acknowledged(&self, index: usize, offset: u64, published: &Published) -> bool {
        let session = |client: &Client| client.session.pair.clone().map(|(session, _)| session);
        let own = session(&self.clients[index]);
        let others = self.clients.iter().enumerate().filter(|(other, _)| *other != index);
        let mut those = others.filter(|(_, client)| own.is_some() && session(client) == own);
        those.any(|(other, client)| {
            let own = !published.echo && published.client == other;
            own || client.acknowledged.contains(&offset)
        })
    }

    /// At rest no session has two connections, and nobody lost one to whom nobody had been.
    pub fn check_sessions(&self) {
        let mut had = BTreeSet::new();
        for (index, client) in self.clients.iter().enumerate() {
            if client.close_code == Some(4005) {
                // It may have lost it before it heard that it had it.
                let asked = client.session.asked.as_ref().map(|asked| &asked.session);
                let session = asked.or(client.session.pair.as_ref().map(|pair| &pair.0));
                let is_doubled = session.is_some_and(|session| self.doubled.contains(session));
                assert!(client.session.used || is_doubled, "client {index} lost its session");
            }
            if let Some((session, _)) = client.session.pair.as_ref().filter(|_| client.is_open()) {
                assert!(had.insert(session), "client {index}: {session} is had twice");
                assert!(client.session.asked.is_none(), "client {index} was never answered");
            }
        }
    }
}

#[test]
fn a_ping_that_overtakes_publications_does_not_prove_them() {
    let mut world = world(2, |config| {
        let options = ChannelOptions { level: Level::History, ..ChannelOptions::default() };
        config.namespaces = vec![Namespace { name: "kept".into(), options }];
        config.heartbeat.interval = Duration::from_secs(2);
    });
    for shard in 0..2 {
        let publisher = world.open_client(shard);
        let socket = world.network.borrow_mut().connect(ShardId(shard), 200);
        let reader = world.clients.len();
        world.clients.push(Client::new(socket, Manner::Slow, Encoding::Json));
        world.clients[reader].upgrade_named(&world.network);
        world.clients[reader].subscribe(&world.network, FIRST_KEPT, &mut world.random);
        while !world.clients[reader].is_subscribed(FIRST_KEPT) {
            world.step();
        }
        // It takes nothing for so long that it is pinged, then little by little.
        world.clients[reader].set_manner(Manner::Stopped);
        let begin = world.network.borrow().now();
        let mut published = 0;
        while world.network.borrow().now().since(begin) < Duration::from_millis(2500) {
            if published < 200 {
                world.publish(publisher, FIRST_KEPT);
                published += 1;
            }
            world.step();
        }
        world.clients[reader].set_manner(Manner::Slow);
        let answered = world.clients[reader].session.probes;
        let mut steps = 0;
        while world.clients[reader].session.probes == answered {
            world.step();
            steps += 1;
            let client = &world.clients[reader];
            assert!(client.is_open() && steps < 100_000, "{:?} {steps}", client.close_code);
        }
        // Until the pong has arrived.
        world.steps(20);
        world.clients[reader].reset(&world.network);
        let pair = world.clients[reader].session.pair.clone().expect("it was welcome");
        let successor = world.connect_named(Manner::Brisk);
        let asked =
            Asked { predecessor: reader, session: pair.0.clone(), claims: None, alone: true };
        world.clients[successor].restore(&world.network, &pair, asked, &mut world.random);
        while !world.clients[successor].is_subscribed(FIRST_KEPT) {
            world.step();
        }
    }
}
