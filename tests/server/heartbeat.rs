//! Heartbeats: who is pinged, who need not be, and who is given up.

use std::thread;
use std::time::{Duration, Instant};

use crate::support::*;

const INTERVAL: Duration = Duration::from_millis(500);

fn start() -> Server {
    Server::start(&["--heartbeat", "500ms", "--echo", "/echo"])
}

#[test]
fn a_silent_connection_is_pinged_within_the_interval() {
    let server = start();
    for path in ["/ws", "/echo"] {
        let mut peer = Peer::open_at(&server, path);
        let start = Instant::now();
        peer.expect_frame(OpCode::PING, b"");
        let took = start.elapsed();
        // Up to a quarter early.
        assert!(took >= INTERVAL / 2, "{took:?}");
        assert!(took < 2 * INTERVAL, "{took:?}");
    }
    assert_eq!(server.counter("heartbeats_sent"), 2);
}

#[test]
fn pongs_keep_a_connection_alive() {
    let server = start();
    let mut peer = Peer::open(&server);
    for _ in 0..6 {
        peer.expect_frame(OpCode::PING, b"");
        peer.send(&frame(OpCode::PONG, b""));
    }
    peer.expect_idle();
    let counters = server.counters();
    assert_eq!(counters["heartbeats_sent"], 6);
    assert!(!counters.contains_key("no_heartbeat"), "{counters:?}");
}

#[test]
fn anything_else_is_as_good_as_a_pong() {
    let server = start();
    let mut peer = Peer::open_at(&server, "/echo");
    peer.send(&fragment(OpCode::TEXT, b"a"));
    for _ in 0..5 {
        peer.expect_frame(OpCode::PING, b"");
        peer.send(&continuation(b"a", false));
    }
    peer.send(&continuation(b"", true));
    peer.expect_frame(OpCode::TEXT, b"aaaaaa");
    assert_eq!(server.counter("no_heartbeat"), 0);
}

#[test]
fn an_active_connection_needs_no_ping() {
    // Long enough that a busy machine does not look like a silent peer.
    let interval = Duration::from_secs(2);
    let server = Server::start(&["--heartbeat", "2s"]);
    let mut peer = Peer::open(&server);
    let start = Instant::now();
    while start.elapsed() < 2 * interval {
        peer.expect_idle();
        thread::sleep(interval / 40);
    }
    assert_eq!(server.counter("heartbeats_sent"), 0);
}

#[test]
fn receiving_is_no_activity_of_the_peer() {
    let server = start();
    let mut publisher = Peer::open(&server);
    let mut peer = Peer::open(&server);
    peer.subscribe("a");
    let start = Instant::now();
    let (code, reason) = loop {
        assert!(start.elapsed() < PATIENCE, "never given up");
        publisher.publish("a", "1");
        let frame = peer.frame();
        if frame.opcode == OpCode::CLOSE {
            break (u16::from_be_bytes([frame.payload[0], frame.payload[1]]), frame.payload);
        }
        thread::sleep(INTERVAL / 20);
    };
    assert_eq!((code, &reason[2..]), (4004, &b"no_heartbeat"[..]));
}

#[test]
fn after_two_intervals_of_silence_a_connection_is_closed_with_4004() {
    let server = start();
    let start = Instant::now();
    let mut peer = Peer::open(&server);
    peer.expect_frame(OpCode::PING, b"");
    peer.expect_close(4004, "no_heartbeat");
    let took = start.elapsed();
    assert!(took >= 2 * INTERVAL - Duration::from_millis(100), "{took:?}");
    assert!(took < 4 * INTERVAL, "{took:?}");
    assert_eq!(server.counter("no_heartbeat"), 1);
    assert_eq!(server.counter("heartbeats_sent"), 1);
    let line = server.log.wait_for(0, |line| line["reason"] == "no_heartbeat");
    assert_eq!(line["message"], "closing connection");
    // An answer that comes too late completes the closing handshake.
    peer.send(&frame(OpCode::PONG, b""));
    peer.send(&frame(OpCode::CLOSE, &close_payload(4004, b"")));
    peer.expect_end();
    drop(peer);
    server.wait_for_connections(0);
    assert_eq!(server.counter("close_timeout"), 0);
    fresh_client_works(&server);
}

#[test]
fn a_crowd_that_came_at_once_is_not_pinged_at_once() {
    const PEERS: usize = 200;
    let server = Server::start(&["--heartbeat", "4s"]);
    let mut peers: Vec<_> = (0..PEERS).map(|_| Peer::open(&server)).collect();
    // A second of the four is the time in which they are spread.
    let mut counts = Vec::new();
    wait_until("all are pinged", || {
        counts.push(server.counter("heartbeats_sent") as usize);
        thread::sleep(Duration::from_millis(95));
        counts.last() == Some(&PEERS)
    });
    // On a busy machine a look may come late, and so may the server: not all at once is what counts.
    let most = counts.windows(2).map(|pair| pair[1] - pair[0]).max();
    assert!(most < Some(PEERS * 3 / 4), "{counts:?}");
    peers.iter_mut().for_each(|peer| peer.expect_frame(OpCode::PING, b""));
}
