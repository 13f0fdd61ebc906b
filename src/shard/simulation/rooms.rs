//! Rooms on simulated servers, in one particular situation each.

use serde_json::Value;

use super::World;
use super::scenarios::world;
use crate::broker::home_of;
use crate::ids::ShardId;
use crate::io::sim::{STEADY_CAPACITY, SocketId};

pub fn say(world: &World, socket: SocketId, text: &str) {
    let [high, low] = (text.len() as u16).to_be_bytes();
    let head: &[u8] = if text.len() < 126 { &[0x81, 0x80 | low] } else { &[0x81, 0xFE, high, low] };
    let frame = [head, &[0; 4], text.as_bytes()].concat();
    world.network.borrow_mut().send(socket, &frame);
}

/// The first frame of what the server has said, with its opcode; what answers an upgrade is passed over.
pub fn take_frame(incoming: &mut Vec<u8>) -> Option<(u8, Vec<u8>)> {
    if incoming.starts_with(b"HTTP") {
        let end = incoming.windows(4).position(|window| window == b"\r\n\r\n")?;
        incoming.drain(..end + 4);
    }
    let (first, short) = (*incoming.first()?, usize::from(*incoming.get(1)?));
    let (header, length) = match short {
        126 => (4, usize::from(u16::from_be_bytes([*incoming.get(2)?, *incoming.get(3)?]))),
        length => (2, length),
    };
    let payload = incoming.get(header..header + length)?.to_vec();
    incoming.drain(..header + length);
    assert_eq!(first & 0xF0, 0x80, "whole frames without reserved bits");
    Some((first & 0x0F, payload))
}

/// What the server says until it has said this.
pub fn hear(world: &mut World, socket: SocketId, wanted: &str) -> String {
    let mut said = String::new();
    for _ in 0..1000 {
        world.step();
        said += &world.said(socket);
        if said.contains(wanted) {
            return said;
        }
    }
    panic!("no {wanted} in {said}");
}

/// Asks for a connection that is told its ids.
pub fn upgrade(world: &World, socket: SocketId) {
    let request = "GET /ws HTTP/1.1\r\nHost: s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: stentor.v1.json\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    world.network.borrow_mut().send(socket, request.as_bytes());
}

/// An open connection to a shard, with what its welcome says.
pub fn open(world: &mut World, shard: u16) -> (SocketId, Value) {
    let socket = world.network.borrow_mut().connect(ShardId(shard), STEADY_CAPACITY);
    upgrade(world, socket);
    let said = hear(world, socket, r#""maxMessageSize":65536}"#);
    let begin = said.find('{').expect("a welcome");
    let mut values = serde_json::Deserializer::from_str(&said[begin..]).into_iter();
    (socket, values.next().expect("a welcome").expect("JSON"))
}

fn command(world: &World, socket: SocketId, id: u32, action: &str, room: &str) {
    let text = format!(
        r#"{{"type":"command","id":{id},"payload":{{"action":"{action}","parameters":{{"room":"{room}"}}}}}}"#
    );
    say(world, socket, &text);
}

/// A connection that has made a room and is in it, with its welcome.
fn make(world: &mut World, room: &str) -> (SocketId, Value) {
    let (socket, welcome) = open(world, 0);
    command(world, socket, 1, "create_room", room);
    command(world, socket, 2, "join", room);
    hear(world, socket, r#""requestId":2"#);
    (socket, welcome)
}

/// How many users are in the room.
fn users(world: &mut World, room: &str) -> usize {
    let (socket, _) = open(world, 0);
    let text = format!(
        r#"{{"type":"query","id":99,"payload":{{"resource":"room","parameters":{{"room":"{room}"}}}}}}"#
    );
    say(world, socket, &text);
    let said = hear(world, socket, r#""requestId":99"#);
    let (_, count) = said.split_once(r#""userCount":"#).unwrap_or_else(|| panic!("{said}"));
    count.split(',').next().and_then(|count| count.parse().ok()).expect("a number")
}

fn restore(world: &World, socket: SocketId, welcome: &Value) {
    let [session, connection] = ["sessionId", "connectionId"].map(|name| &welcome[name]);
    let text = format!(
        r#"{{"type":"restore_session","sessionId":{session},"connectionId":{connection},"id":9}}"#
    );
    say(world, socket, &text);
}

/// The name of a room at home on a shard of two.
pub fn room_at(world: &World, shard: u16) -> String {
    let is_there = |name: &String| home_of(&world.settings.hasher, 2, name) == ShardId(shard);
    (0..).map(|number| format!("room{number}")).find(is_there).expect("one of them")
}

fn far_room(world: &World) -> String {
    room_at(world, 1)
}

#[test]
fn who_leaves_a_room_whose_home_takes_no_more_has_left() {
    let mut world = world(2, |config| config.limits.mesh_backlog = 2000);
    let room = far_room(&world);
    let (socket, _) = open(&mut world, 0);
    command(&world, socket, 1, "create_room", &room);
    command(&world, socket, 2, "join", &room);
    hear(&mut world, socket, r#""requestId":2"#);

    world.stopped[1] = usize::MAX;
    let text = format!(r#"{{"action":"publish","channel":"{room}","id":3,"data":"{:50}"}}"#, 3);
    for _ in 0..100 {
        say(&world, socket, &text);
    }
    hear(&mut world, socket, "backlog_full");
    world.steps(20);
    world.said(socket);
    command(&world, socket, 4, "leave", &room);
    let said = hear(&mut world, socket, r#""requestId":4"#);
    assert!(said.contains(&format!(r#""payload":{{"id":"{room}"}}"#)), "{said}");

    world.stopped[1] = 0;
    world.steps(50);
    assert_eq!(users(&mut world, &room), 0);
}

#[test]
fn who_comes_back_and_unsubscribes_before_the_home_answers_has_left() {
    let mut world = world(2, |_| {});
    let room = far_room(&world);
    make(&mut world, &room);
    let (before, welcome) = open(&mut world, 0);
    command(&world, before, 3, "join", &room);
    hear(&mut world, before, r#""requestId":3"#);
    world.network.borrow_mut().reset(before);
    world.steps(50);
    assert_eq!(users(&mut world, &room), 1);

    let (after, _) = open(&mut world, 0);
    world.stopped[1] = usize::MAX;
    restore(&world, after, &welcome);
    hear(&mut world, after, "session_restored");
    say(&world, after, &format!(r#"{{"action":"unsubscribe","channel":"{room}"}}"#));
    hear(&mut world, after, "unsubscription_confirm");

    world.stopped[1] = 0;
    world.steps(50);
    assert_eq!(users(&mut world, &room), 1);
}

#[test]
fn a_session_that_comes_back_to_a_member_leaves_it_in_the_room() {
    let mut world = world(2, |_| {});
    let room = far_room(&world);
    let (before, welcome) = make(&mut world, &room);
    world.network.borrow_mut().reset(before);

    let (after, _) = open(&mut world, 0);
    command(&world, after, 3, "join", &room);
    hear(&mut world, after, r#""requestId":3"#);
    restore(&world, after, &welcome);
    hear(&mut world, after, "session_restored");
    world.steps(50);
    let said = world.said(after);
    assert!(!said.contains("room_lost"), "{said}");
    assert_eq!(users(&mut world, &room), 1);
}

#[test]
fn who_is_taken_out_at_once_hears_that_it_was_in() {
    let mut world = world(2, |_| {});
    let room = far_room(&world);
    let (socket, welcome) = open(&mut world, 0);
    // The home answers all of it at once, before it is asked for the subscription.
    world.stopped[1] = usize::MAX;
    command(&world, socket, 1, "create_room", &room);
    command(&world, socket, 2, "join", &room);
    let target = &welcome["connectionId"];
    let parameters = format!(r#"{{"room":"{room}","target":{target}}}"#);
    let payload = format!(r#"{{"action":"kick","parameters":{parameters}}}"#);
    say(&world, socket, &format!(r#"{{"type":"command","id":3,"payload":{payload}}}"#));
    world.steps(50);
    world.stopped[1] = 0;
    let said = hear(&mut world, socket, r#""requestId":3"#);
    assert!(!said.contains(r#""subscription_confirm""#), "{said}");
    let joined = said.find(r#""type":"response","requestId":2"#);
    assert!(joined.is_some() && joined < said.find(r#""reason":"kicked""#), "{said}");
}

#[test]
fn who_has_the_slot_of_one_who_went_while_joining_stays_where_it_is() {
    let mut world = world(2, |_| {});
    let (near, far) = (room_at(&world, 0), room_at(&world, 1));
    make(&mut world, &far);
    world.stopped[1] = usize::MAX;
    let (before, welcome) = open(&mut world, 0);
    command(&world, before, 3, "join", &far);
    world.steps(20);
    world.network.borrow_mut().reset(before);
    world.steps(20);

    let (after, next) = open(&mut world, 0);
    let slot = |welcome: &Value| welcome["connectionId"].as_str().map(|id| id[..12].to_owned());
    assert_eq!(slot(&next), slot(&welcome));
    command(&world, after, 4, "create_room", &near);
    command(&world, after, 5, "join", &near);
    hear(&mut world, after, r#""requestId":5"#);

    world.stopped[1] = 0;
    world.steps(50);
    assert_eq!(users(&mut world, &far), 1);
    command(&world, after, 6, "leave", &near);
    let said = hear(&mut world, after, r#""requestId":6"#);
    assert!(said.contains(&format!(r#""payload":{{"id":"{near}"}}"#)), "{said}");
    assert_eq!(users(&mut world, &near), 0);
}
