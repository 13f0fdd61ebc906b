//! One simulated client: speaks WebSocket, keeps what it saw.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::attendance::Attendance;
use super::sessions::Session;
use super::{ACKED, Outcome, Published, TOPICS, translate};
use crate::io::sim::{Network, Random, SocketId};
use crate::proto::Encoding;
use crate::shard::heartbeat::PROBE;

/// How a client behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Reads everything at once.
    Witness,
    Brisk,
    /// Reads a few bytes now and then.
    Slow,
    /// Reads nothing until the world settles.
    Stopped,
    /// Answers no pings.
    Mute,
}

/// What a client saw of one topic between a confirmation and its end.
#[derive(Debug)]
pub struct Segment {
    pub topic: usize,
    /// Publications that anybody had sent when the confirmation arrived: later ones must be seen.
    pub published_before: usize,
    pub seen: Vec<usize>,
    /// On a topic with history: epoch and offset of where it begins and where it came to.
    pub place: Option<Place>,
    /// It ended before the world did.
    pub over: bool,
}

/// What a subscriber of a topic with history knows.
#[derive(Debug, Clone)]
pub struct Place {
    pub epoch: String,
    /// It has everything to here, or was told what it cannot have.
    pub offset: u64,
    /// The publications it got, with their offsets.
    pub seen: Vec<(u64, usize)>,
    /// What it was told is gone: first and last offset.
    pub gaps: Vec<(u64, u64)>,
    /// Where it began.
    pub begin: u64,
    /// On the acked topic: what it has and has not acknowledged.
    pub unacked: BTreeSet<u64>,
}

pub struct Client {
    pub socket: SocketId,
    manner: Manner,
    encoding: Encoding,
    upgraded: bool,
    closed: bool,
    /// It broke the connection off, or the protocol.
    left: bool,
    incoming: Vec<u8>,
    /// Messages read; pings do not count.
    pub messages: u64,
    pub close_code: Option<u16>,
    pub segments: Vec<Segment>,
    /// Requests in order, by topic: confirmations come in the order of the requests.
    subscribed: BTreeMap<usize, usize>,
    last_pong: u64,
    pings: u64,
    /// What it asked to recover, by topic: until that is answered.
    recovering: BTreeMap<usize, Place>,
    pub session: Session,
    pub attendance: Attendance,
    /// Offsets of the acked topic that it has got and is to acknowledge.
    pub owed: Vec<u64>,
    /// Offsets of the acked topic for which it has sent an acknowledgement.
    pub acknowledged: BTreeSet<u64>,
    /// From now on it acknowledges whatever it gets.
    prompt: bool,
}

impl Client {
    pub fn new(socket: SocketId, manner: Manner, encoding: Encoding) -> Self {
        Self {
            socket,
            manner,
            encoding,
            upgraded: false,
            closed: false,
            left: false,
            incoming: Vec::new(),
            messages: 0,
            close_code: None,
            segments: Vec::new(),
            subscribed: BTreeMap::new(),
            last_pong: 0,
            pings: 0,
            recovering: BTreeMap::new(),
            session: Session::default(),
            attendance: Attendance::new(manner),
            owed: Vec::new(),
            acknowledged: BTreeSet::new(),
            prompt: manner == Manner::Witness,
        }
    }

    pub fn is_closed(&self) -> bool {
        self.closed || self.left
    }

    /// It speaks WebSocket and nobody has said goodbye.
    pub fn is_open(&self) -> bool {
        self.upgraded && !self.is_closed() && self.close_code.is_none()
    }

    pub fn is_subscribed(&self, topic: usize) -> bool {
        self.subscribed.contains_key(&topic)
    }

    /// Those that it is subscribed to.
    pub fn topics(&self) -> impl Iterator<Item = usize> {
        self.subscribed.keys().copied()
    }

    pub fn upgrade(&self, network: &RefCell<Network>) {
        let subprotocol = match self.encoding {
            Encoding::Json => "",
            Encoding::Protobuf => "Sec-WebSocket-Protocol: stentor.v1.protobuf\r\n",
        };
        let request = format!(
            "GET /ws HTTP/1.1\r\nHost: s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\n{subprotocol}\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        network.borrow_mut().send(self.socket, request.as_bytes());
    }

    pub fn subscribe(&mut self, network: &RefCell<Network>, topic: usize, random: &mut Random) {
        let text = format!(r#"{{"action":"subscribe","channel":"{}"}}"#, TOPICS[topic]);
        self.say(network, &text, random);
    }

    /// Where it is on each topic with history that it is subscribed to; on the acked one before what it
    /// has not acknowledged.
    pub fn reached(&self) -> Vec<(usize, Place)> {
        let places = self.subscribed.iter().filter_map(|(topic, segment)| {
            let mut place = self.segments[*segment].place.clone()?;
            place.offset = place.unacked.first().map_or(place.offset, |first| first - 1);
            Some((*topic, place))
        });
        places.collect()
    }

    pub fn is_prompt(&self) -> bool {
        self.prompt
    }

    /// Where it is on the acked topic, if it is subscribed to that.
    pub fn acked_place(&mut self) -> Option<&mut Place> {
        let segment = *self.subscribed.get(&ACKED)?;
        self.segments[segment].place.as_mut()
    }

    pub fn recover(
        &mut self,
        network: &RefCell<Network>,
        topic: usize,
        place: Place,
        random: &mut Random,
    ) {
        let (name, Place { epoch, offset, .. }) = (TOPICS[topic], &place);
        let text = format!(
            r#"{{"action":"subscribe","channel":"{name}","recover":{{"epoch":"{epoch}","offset":{offset}}}}}"#
        );
        self.say(network, &text, random);
        self.recovering.insert(topic, place);
    }

    pub fn unsubscribe(&mut self, network: &RefCell<Network>, topic: usize, random: &mut Random) {
        self.note_withdrawn(topic);
        let text = format!(r#"{{"action":"unsubscribe","channel":"{}"}}"#, TOPICS[topic]);
        self.say(network, &text, random);
    }

    pub fn ping(&mut self, network: &RefCell<Network>, random: &mut Random) {
        self.pings += 1;
        let text = format!(r#"{{"type":"ping","timestamp":{}}}"#, self.pings);
        self.say(network, &text, random);
    }

    /// Whether its publication with this id is of bytes that are not JSON.
    pub fn publishes_raw(&self, id: usize) -> bool {
        self.encoding == Encoding::Protobuf && id % 2 == 1
    }

    /// Whether it could be sent.
    pub fn publish(
        &mut self,
        network: &RefCell<Network>,
        topic: usize,
        id: usize,
        echo: bool,
        random: &mut Random,
    ) -> bool {
        let padding = "x".repeat(random.below(60));
        let text = format!(
            r#"{{"action":"publish","channel":"{}","id":{id},"echo":{echo},"data":[{id},"{padding}"]}}"#,
            TOPICS[topic]
        );
        match self.encoding {
            Encoding::Json => self.send(network, 1, text.as_bytes(), random),
            Encoding::Protobuf => {
                let request = translate::request(&text, self.publishes_raw(id));
                self.send(network, 2, &request, random)
            }
        }
    }

    /// A request that is no publication.
    pub fn say(&mut self, network: &RefCell<Network>, text: &str, random: &mut Random) {
        match self.encoding {
            Encoding::Json => self.send(network, 1, text.as_bytes(), random),
            Encoding::Protobuf => self.send(network, 2, &translate::request(text, false), random),
        };
    }

    pub fn close(&mut self, network: &RefCell<Network>, random: &mut Random) {
        self.send(network, 8, &[0x03, 0xE8], random);
        self.leave();
    }

    pub fn garbage(&mut self, network: &RefCell<Network>, random: &mut Random) {
        let bytes: Vec<_> = (0..1 + random.below(40)).map(|_| random.number() as u8).collect();
        network.borrow_mut().send(self.socket, &bytes);
        self.leave();
    }

    pub fn reset(&mut self, network: &RefCell<Network>) {
        network.borrow_mut().reset(self.socket);
        self.leave();
    }

    pub fn end(&mut self, network: &RefCell<Network>) {
        network.borrow_mut().end(self.socket);
        self.leave();
    }

    /// Breaks off if it has left without the server knowing, or will be thrown out for its silence.
    pub fn depart_if_doomed(&mut self, network: &RefCell<Network>) {
        if !self.closed && (self.left || self.manner == Manner::Mute) {
            self.reset(network);
        }
    }

    pub fn set_manner(&mut self, manner: Manner) {
        self.manner = manner;
    }

    /// From now on it answers no pings.
    pub fn mute(&mut self) {
        self.manner = Manner::Mute;
    }

    /// From now on it reads whatever comes, and acknowledges it.
    pub fn hurry(&mut self) {
        self.prompt = true;
        if matches!(self.manner, Manner::Slow | Manner::Stopped) {
            self.manner = Manner::Brisk;
        }
    }

    pub fn read(
        &mut self,
        network: &RefCell<Network>,
        index: usize,
        published: &mut [Published],
        random: &mut Random,
    ) {
        let count = match self.manner {
            Manner::Stopped => 0,
            Manner::Slow if random.one_in(3) => random.below(30),
            Manner::Slow => 0,
            Manner::Brisk | Manner::Mute if random.one_in(5) => random.below(100),
            Manner::Witness | Manner::Brisk | Manner::Mute => usize::MAX,
        };
        let bytes = network.borrow_mut().read(self.socket, count);
        self.incoming.extend(bytes);
        if !self.upgraded {
            let Some(end) = self.incoming.windows(4).position(|window| window == b"\r\n\r\n")
            else {
                return self.notice_end(network);
            };
            let head = String::from_utf8_lossy(&self.incoming[..end]);
            assert!(head.starts_with("HTTP/1.1 101 "), "not upgraded: {head}");
            self.incoming.drain(..end + 4);
            self.upgraded = true;
        }
        while let Some((opcode, payload)) = self.next_frame() {
            assert_eq!(self.close_code, None, "a frame behind the close frame");
            match opcode {
                1 if self.encoding == Encoding::Json => {
                    self.messages += 1;
                    let message = serde_json::from_slice(&payload).unwrap_or_else(|error| {
                        let text = String::from_utf8_lossy(&payload);
                        panic!("not JSON: {error}: {}", text.escape_debug())
                    });
                    self.take_message(&translate::plain(message), index, published);
                }
                2 if self.encoding == Encoding::Protobuf => {
                    self.messages += 1;
                    for message in translate::messages(&payload) {
                        self.take_message(&message, index, published);
                    }
                }
                8 => {
                    let code = payload.get(..2).map(|code| u16::from_be_bytes([code[0], code[1]]));
                    self.close_code = code.or(Some(1005));
                    // 5.5.1: the answer; whoever left has sent its own.
                    if !self.left {
                        self.send(network, 8, &payload, random);
                    }
                    self.leave();
                }
                9 if self.manner != Manner::Mute => {
                    self.session.probes += u32::from(payload == PROBE);
                    self.send(network, 10, &payload, random);
                }
                9 => {}
                // By chance its garbage was a ping.
                10 if self.left => {}
                opcode => panic!("unexpected opcode {opcode}"),
            }
        }
        self.acknowledge(network, random);
        self.notice_end(network);
    }

    /// A client that was open when the server shut down was told so.
    pub fn check_farewell(&self) {
        let told = matches!(self.close_code, Some(1001 | 4002 | 4004));
        assert!(told, "{:?} left with {:?}", self.manner, self.close_code);
    }

    fn leave(&mut self) {
        self.left = true;
        for segment in &mut self.segments {
            segment.over = true;
        }
        self.subscribed.clear();
    }

    fn notice_end(&mut self, network: &RefCell<Network>) {
        let ended = network.borrow().server_ended(self.socket);
        if ended && network.borrow().readable(self.socket) == 0 && !self.closed {
            self.closed = true;
            self.leave();
            network.borrow_mut().end(self.socket);
        }
    }

    fn take_message(&mut self, message: &Value, index: usize, published: &mut [Published]) {
        if message["type"] == "welcome" {
            assert_eq!(self.messages, 1, "the server speaks first");
        }
        if self.take_attendance(message) || self.take_session_message(message, published.len()) {
        } else if message["type"] == "pong" {
            let pong = message["timestamp"].as_u64().expect("our timestamp");
            assert_eq!(pong, self.last_pong + 1, "pongs come in order, none is lost");
            self.last_pong = pong;
        } else if message["type"] == "ack" {
            self.take_outcome(&message["requestId"], Outcome::Accepted, published);
        } else if message["type"] == "error" {
            // An acknowledgement that met the end of its subscription.
            assert_eq!(message["code"], "not_subscribed", "{message}");
        } else if message["channel"] == "system" {
            self.take_system_message(&message["data"], index, published);
        } else {
            self.take_publication(message, index, published);
        }
    }

    fn take_system_message(&mut self, data: &Value, index: usize, published: &mut [Published]) {
        let topic = TOPICS.iter().position(|topic| data["channel"] == *topic);
        match data["type"].as_str() {
            Some("subscription_confirm") => {
                let topic = topic.expect("one of ours");
                let place = self.take_place(topic, data);
                if !self.left && !self.subscribed.contains_key(&topic) {
                    self.begin_segment(Segment {
                        topic,
                        published_before: published.len(),
                        seen: Vec::new(),
                        place,
                        over: false,
                    });
                }
            }
            Some("gap") => {
                let topic = topic.expect("one of ours");
                let [from, to] = ["from", "to"].map(|end| data[end].as_u64().expect("an offset"));
                if let Some(segment) = self.subscribed.get(&topic) {
                    let place = self.segments[*segment].place.as_mut().expect("it has a history");
                    assert!(from > place.offset && from <= to, "{from} to {to}: {place:?}");
                    place.gaps.push((from, to));
                    place.offset = to;
                }
            }
            Some("unsubscription_confirm") => {
                let topic = topic.expect("one of ours");
                if let Some(segment) = self.subscribed.remove(&topic) {
                    self.segments[segment].over = true;
                }
                self.attendance.forget(topic);
                if topic == ACKED {
                    self.owed.clear();
                }
            }
            Some("error") => match data["code"].as_str() {
                Some("backlog_full" | "unavailable") => {
                    self.take_outcome(&data["requestId"], Outcome::Refused, published);
                }
                Some("not_subscribed" | "too_many_subscriptions") => {}
                // By chance its garbage was a message.
                _ if self.left => {}
                code => panic!("client {index}: unexpected error {code:?}"),
            },
            kind => panic!("unexpected system message {kind:?}"),
        }
    }

    pub fn begin_segment(&mut self, segment: Segment) {
        self.subscribed.insert(segment.topic, self.segments.len());
        self.segments.push(segment);
    }

    /// Where a subscription begins, as its confirmation says.
    fn take_place(&mut self, topic: usize, data: &Value) -> Option<Place> {
        let asked = self.recovering.remove(&topic);
        // With a history only that of a subscription which was withdrawn meanwhile has none.
        let epoch = data["epoch"].as_str()?;
        let offset = data["offset"].as_u64().expect("an offset");
        if let Some(asked) = asked
            && data["recovered"] == true
        {
            assert_eq!((epoch, offset), (&*asked.epoch, asked.offset), "recovered elsewhere");
        } else if data["recovered"] == false {
            assert!(data["reason"].is_string(), "{data}");
        }
        let (seen, gaps) = (Vec::new(), Vec::new());
        let unacked = BTreeSet::new();
        Some(Place { epoch: epoch.to_owned(), offset, seen, gaps, begin: offset, unacked })
    }

    fn take_outcome(&mut self, id: &Value, outcome: Outcome, published: &mut [Published]) {
        // A subscription that is refused has no id.
        let Some(id) = id.as_u64() else { return };
        let id = id as usize;
        assert_eq!(published[id].outcome, None, "answered twice");
        published[id].outcome = Some(outcome);
    }

    fn take_publication(&mut self, message: &Value, index: usize, published: &mut [Published]) {
        let id = message["data"][0].as_u64().expect("our id") as usize;
        let publication = &published[id];
        assert_eq!(message["channel"], TOPICS[publication.topic]);
        assert_eq!(message["raw"].as_bool().unwrap_or(false), publication.raw);
        assert!(publication.echo || publication.client != index, "its own, unwanted");
        if self.left {
            // What was on its way when it left.
            return;
        }
        let segment = self.subscribed.get(&publication.topic);
        let segment = *segment.unwrap_or_else(|| panic!("client {index}: not subscribed: {id}"));
        let mut place = self.segments[segment].place.take();
        let again = match &mut place {
            Some(place) if publication.topic == ACKED => self.take_delivery(message, place, id),
            _ => false,
        };
        let segment = &mut self.segments[segment];
        segment.place = place;
        if again {
            return;
        }
        segment.seen.push(id);
        if let Some(place) = &mut segment.place {
            let offset = message["offset"].as_u64().expect("an offset");
            assert!(offset > place.offset, "client {index}: {offset} again: {place:?}");
            place.offset = offset;
            place.seen.push((offset, id));
        }
    }

    pub fn left(&self) -> bool {
        self.left
    }

    /// A masked frame. Whether the connection is there to take it.
    pub fn send(
        &mut self,
        network: &RefCell<Network>,
        opcode: u8,
        payload: &[u8],
        random: &mut Random,
    ) -> bool {
        if self.is_closed() {
            return false;
        }
        let mut frame = vec![0x80 | opcode];
        match payload.len() {
            length @ 0..126 => frame.push(0x80 | length as u8),
            length => {
                frame.push(0x80 | 126);
                frame.extend((length as u16).to_be_bytes());
            }
        }
        let key = (random.number() as u32).to_be_bytes();
        frame.extend(key);
        frame.extend(payload.iter().enumerate().map(|(index, byte)| byte ^ key[index % 4]));
        network.borrow_mut().send(self.socket, &frame);
        true
    }

    fn next_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let first = *self.incoming.first()?;
        let short = usize::from(*self.incoming.get(1)?);
        assert_eq!(first & 0xF0, 0x80, "whole frames without reserved bits");
        let (header, length) = match short {
            0..126 => (2, short),
            126 => {
                let length = self.incoming.get(2..4)?;
                (4, usize::from(u16::from_be_bytes([length[0], length[1]])))
            }
            _ => panic!("masked or huge"),
        };
        let payload = self.incoming.get(header..header + length)?.to_vec();
        self.incoming.drain(..header + length);
        Some((first & 0x0F, payload))
    }
}
