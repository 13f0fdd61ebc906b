//! Simulated servers in one particular situation each.

use std::time::Duration;

use super::World;
use super::client::{Client, Manner};
use super::rooms::{hear, open, say, upgrade};
use crate::config::{Config, Level};
use crate::ids::ShardId;
use crate::io::sim::{STEADY_CAPACITY, SocketId};
use crate::proto::Encoding;

impl World {
    fn raw_socket(&mut self, shard: u16) -> SocketId {
        self.network.borrow_mut().connect(ShardId(shard), STEADY_CAPACITY)
    }

    pub fn steps(&mut self, count: usize) {
        (0..count).for_each(|_| self.step());
    }

    pub fn said(&mut self, socket: SocketId) -> String {
        let bytes = self.network.borrow_mut().read(socket, usize::MAX);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    pub fn open_client(&mut self, shard: u16) -> usize {
        let client = Client::new(self.raw_socket(shard), Manner::Brisk, Encoding::Json);
        client.upgrade(&self.network);
        self.clients.push(client);
        let index = self.clients.len() - 1;
        for _ in 0..100 {
            self.step();
        }
        assert!(self.clients[index].is_open());
        index
    }

    /// Milliseconds until the server ends the connection, at most a minute.
    fn time_until_closed(&mut self, index: usize) -> u64 {
        let begin = self.network.borrow().now().0;
        while !self.clients[index].is_closed() {
            self.step();
            assert!(self.network.borrow().now().0 < begin + 60_000, "never closed");
        }
        self.network.borrow().now().0 - begin
    }
}

pub fn world(shards: usize, change: impl Fn(&mut Config)) -> World {
    World::configured(7, shards, |config| {
        *config = Config::default();
        change(config);
    })
}

#[test]
fn health_names_a_stalled_shard() {
    let mut world = world(2, |_| {});
    let ask = |world: &mut World| {
        let socket = world.raw_socket(0);
        let request = b"GET /health HTTP/1.1\r\nHost: s\r\n\r\n";
        world.network.borrow_mut().send(socket, request);
        world.steps(100);
        world.said(socket)
    };
    let healthy = ask(&mut world);
    assert!(healthy.starts_with("HTTP/1.1 200 "), "{healthy}");
    world.stopped[1] = usize::MAX;
    world.network.borrow_mut().advance(Duration::from_secs(10));
    let stalled = ask(&mut world);
    assert!(stalled.starts_with("HTTP/1.1 503 "), "{stalled}");
    assert!(stalled.contains(r#""stalled":[1]"#), "{stalled}");
    world.stopped[1] = 0;
    let recovered = ask(&mut world);
    assert!(recovered.starts_with("HTTP/1.1 200 "), "{recovered}");
}

#[test]
fn a_peer_that_falls_silent_is_closed_after_two_intervals() {
    let mut world = world(1, |config| config.heartbeat.interval = Duration::from_secs(4));
    let index = world.open_client(0);
    // It answers a few pings first.
    while world.network.borrow().now().0 < 15_000 {
        world.step();
    }
    assert!(world.clients[index].is_open());
    world.clients[index].mute();
    let time = world.time_until_closed(index);
    assert_eq!(world.clients[index].close_code, Some(4004));
    assert!((4_000..=9_000).contains(&time), "{time} ms");
}

#[test]
fn a_peer_whose_answer_is_not_read_is_not_closed_for_silence() {
    let mut world = world(1, |config| config.heartbeat.interval = Duration::from_secs(4));
    let index = world.open_client(0);
    let socket = world.clients[index].socket;
    world.network.borrow_mut().unheard = Some(socket);
    while world.network.borrow().now().0 < 14_000 {
        world.step();
    }
    assert!(world.clients[index].is_open());
    world.network.borrow_mut().unheard = None;
    while world.network.borrow().now().0 < 40_000 {
        world.step();
    }
    assert!(world.clients[index].is_open());
    // Not for ever: nobody holds a slot because a shard is always busy.
    world.network.borrow_mut().unheard = Some(socket);
    let time = world.time_until_closed(index);
    assert!((10_000..=25_000).contains(&time), "{time} ms");
}

#[test]
fn messages_back_to_back_do_not_count_as_one_that_stays_open() {
    let mut world = world(1, |config| config.limits.message_timeout = Duration::from_secs(2));
    let socket = world.raw_socket(0);
    let request = "GET /ws HTTP/1.1\r\nHost: s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    world.network.borrow_mut().send(socket, request.as_bytes());
    let text = br#"{"type":"ping"}"#;
    let frame = [&[0x81, 0x80 | text.len() as u8, 0, 0, 0, 0], &text[..]].concat();
    // Every piece ends in the midst of a message.
    world.network.borrow_mut().send(socket, &frame[..5]);
    let piece = [&frame[5..], &frame[..5]].concat();
    while world.network.borrow().now().0 < 10_000 {
        world.network.borrow_mut().send(socket, &piece);
        world.steps(10);
    }
    let said = world.said(socket);
    assert!(said.contains(r#"{"type":"pong"}"#) && !said.contains("fragment_abuse"), "{said}");
    // Now one does stay open.
    world.network.borrow_mut().advance(Duration::from_secs(5));
    world.steps(20);
    assert!(world.said(socket).contains("fragment_abuse"));
}

#[test]
fn who_is_closed_hears_of_no_place_that_it_has_not_come_to() {
    let mut world = world(1, |config| {
        config.channels.level = Level::History;
        config.channels.history_size = 10;
    });
    let (publisher, _) = open(&mut world, 0);
    let reader = world.network.borrow_mut().connect(ShardId(0), 1000);
    upgrade(&world, reader);
    let subscribe = r#"{"action":"subscribe","channel":"c"}"#;
    say(&world, reader, subscribe);
    hear(&mut world, reader, "subscription_confirm");
    let publish = format!(r#"{{"action":"publish","channel":"c","id":1,"data":"{:2000}"}}"#, 1);
    for _ in 0..3 {
        say(&world, publisher, &publish);
        hear(&mut world, publisher, r#""requestId":1"#);
    }
    // It does not read, and the publications wait, one of them with its first bytes gone.
    world.steps(50);
    say(&world, reader, subscribe);
    world.steps(50);
    let unmasked = [0x81, 0];
    world.network.borrow_mut().send(reader, &unmasked);
    let mut said = String::new();
    for _ in 0..200 {
        world.step();
        said += &world.said(reader);
    }
    assert!(said.contains("unmasked"), "{said}");
    assert!(said.contains(r#""offset":1"#) && !said.contains(r#""offset":3"#), "{said}");
}
