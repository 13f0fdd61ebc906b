//! Readers that are slow or have stopped: what each policy keeps and drops, counted; who is closed;
//! and that nobody else notices. Row 6 of the threat table.

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::*;

const CONFIGURATION: &str = r#"
[limits]
max_message_size = "16KiB"
send_queue_size = "32KiB"

[namespaces.old]
slow_consumer = "drop_oldest"

[namespaces.new]
slow_consumer = "drop_newest"

[namespaces.last]
slow_consumer = "conflate"

[namespaces.strict]
slow_consumer = "disconnect"
"#;

/// Publications of [`data`] that surely fit into 32 KiB, whatever a queue counts besides bytes.
const WAITING: usize = 20;

/// More than the buffers of both kernels take, whatever they are.
const PUBLICATIONS: usize = 2000;

/// A server with a namespace for each policy.
fn start(flags: &[&str]) -> (TempDir, Server) {
    start_with(CONFIGURATION, flags)
}

/// A subscriber with a small buffer, who does not read from now on.
fn stopped_reader(server: &Server, channels: &[&str]) -> Peer {
    let mut peer = Peer::connect_small(server, 4096);
    peer.upgrade("/ws");
    channels.iter().for_each(|channel| peer.subscribe(channel));
    peer
}

/// A publication of about a kilobyte with its number.
fn data(number: usize) -> String {
    format!(r#"[{number},"{}"]"#, "x".repeat(1000))
}

/// Publishes the numbers in order, each acknowledged, and waits until all have been dealt with.
fn publish_all(server: &Server, channels: &[&str]) {
    let mut publisher = Peer::open(server);
    let count = PUBLICATIONS * channels.len();
    for number in 0..PUBLICATIONS {
        for channel in channels {
            publisher.publish_acked(channel, &data(number));
        }
    }
    // A fan-out on the other shard may come after the acknowledgement.
    server.wait_for_counter("deliveries", count as u64);
}

/// The numbers that reach a reader who goes on, up to the publication `end`.
fn read_to_end(peer: &mut Peer, channel: &str) -> Vec<usize> {
    let start = format!(r#"{{"channel":"{channel}","data":["#);
    let mut numbers = Vec::new();
    loop {
        let text = peer.text();
        let Some(rest) = text.strip_prefix(&start) else { panic!("{text}") };
        let first = rest.split([',', ']']).next().unwrap_or_default();
        if first == r#""end""# {
            return numbers;
        }
        numbers.push(first.parse().expect("a number"));
    }
}

/// How many numbers come first without a gap.
fn run_length(numbers: &[usize]) -> usize {
    numbers.iter().zip(0..).take_while(|(number, place)| *number == place).count()
}

/// Publishes `end` to a reader that reads again; it must not be dropped as well.
fn publish_end(server: &Server, channel: &str) {
    Peer::open(server).publish_acked(channel, r#"["end"]"#);
}

/// Reads on a thread of its own, while `publish` sees to it that an end comes.
fn resume(server: &Server, mut peer: Peer, channel: &'static str) -> Vec<usize> {
    let total = server.counter("bytes_sent");
    let reading = thread::spawn(move || read_to_end(&mut peer, channel));
    // Whatever waited has left once more bytes went out than were queued.
    server.wait_for_counter("bytes_sent", total + 1);
    let mut last = 0;
    wait_until("its queue has drained", || {
        thread::sleep(Duration::from_millis(50));
        let sent = server.counter("bytes_sent");
        std::mem::replace(&mut last, sent) == sent
    });
    publish_end(server, channel);
    reading.join().expect("no panics")
}

#[test]
fn drop_newest_keeps_what_waits_already() {
    let (_folder, server) = start(&[]);
    let peer = stopped_reader(&server, &["new:a"]);
    publish_all(&server, &["new:a"]);
    let dropped = server.counter("dropped_newest");
    let numbers = resume(&server, peer, "new:a");
    assert_eq!(numbers.len() + dropped as usize, PUBLICATIONS);
    assert!(dropped > 500, "only {dropped} dropped");
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
    // It did not read, so there was no room again: all that came is the beginning.
    assert!(run_length(&numbers) + 40 > numbers.len(), "{numbers:?}");
    assert_eq!(server.counter("slow_consumer"), 0);
}

#[test]
fn drop_oldest_keeps_what_came_last() {
    let (_folder, server) = start(&[]);
    let peer = stopped_reader(&server, &["old:a"]);
    publish_all(&server, &["old:a"]);
    let dropped = server.counter("dropped_oldest");
    let numbers = resume(&server, peer, "old:a");
    assert_eq!(numbers.len() + dropped as usize, PUBLICATIONS);
    assert!(dropped > 500, "only {dropped} dropped");
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
    // The beginning had left when it stopped; what waited in 32 KiB is the end without a gap.
    let tail: Vec<_> = (PUBLICATIONS - WAITING..PUBLICATIONS).collect();
    assert!(numbers.ends_with(&tail), "{numbers:?}");
    assert_eq!(server.counter("slow_consumer"), 0);
}

#[test]
fn conflate_keeps_the_last_of_each_channel() {
    let (_folder, server) = start(&[]);
    let mut peer = stopped_reader(&server, &["last:a", "last:b"]);
    publish_all(&server, &["last:a", "last:b"]);
    let counters = server.counters();
    let conflated = counters["conflated"] as usize;
    assert!(conflated > 1000, "{counters:?}");
    assert!(counters["frames_held"] > 0, "{counters:?}");
    let mut numbers = [Vec::new(), Vec::new()];
    while numbers.iter().any(|numbers| numbers.last() != Some(&(PUBLICATIONS - 1))) {
        let message = peer.json();
        let place = ["last:a", "last:b"].iter().position(|name| message["channel"] == *name);
        let number = message["data"][0].as_u64().expect("a number") as usize;
        numbers[place.expect("one of them")].push(number);
    }
    peer.expect_idle();
    let received: usize = numbers.iter().map(Vec::len).sum();
    assert_eq!(received + conflated, 2 * PUBLICATIONS);
    assert!(numbers.iter().all(|numbers| numbers.is_sorted_by(|a, b| a < b)), "{numbers:?}");
    wait_until("nothing is held", || server.counter("frames_held") == 0);
    assert_eq!(server.counter("dropped_oldest"), 0);
    assert_eq!(server.counter("slow_consumer"), 0);
}

#[test]
fn disconnect_closes_with_4002_and_says_why_to_whoever_reads_on() {
    let (_folder, server) = start(&[]);
    let mut peer = stopped_reader(&server, &["strict:a"]);
    let mut publisher = Peer::open(&server);
    for number in 0..PUBLICATIONS {
        publisher.publish_acked("strict:a", &data(number));
    }
    server.wait_for_counter("slow_consumer", 1);
    let line = server.log.wait_for(0, |line| line["reason"] == "slow_consumer");
    let detail = line["detail"].as_str().expect("a text");
    assert!(detail.contains(" bytes queued, the next publication exceeds the limit of "), "{line}");
    let mut next = 0;
    let close = loop {
        let frame = peer.frame();
        if frame.opcode == OpCode::CLOSE {
            break frame.payload;
        }
        // Up to there nothing is missing.
        assert!(frame.text().contains(&format!(r#""data":[{next},"#)), "{}", &frame.text()[..60]);
        next += 1;
    };
    assert_eq!(close, close_payload(4002, b"slow_consumer"));
    assert!(next > 0 && next < PUBLICATIONS, "{next}");
    peer.expect_end();
    fresh_client_works(&server);
}

#[test]
fn disconnect_drops_whoever_does_not_read_on() {
    let (_folder, server) = start(&["--set", "limits.close_timeout=500ms"]);
    let peer = stopped_reader(&server, &["strict:a"]);
    let mut publisher = Peer::open(&server);
    for number in 0..PUBLICATIONS {
        publisher.publish_acked("strict:a", &data(number));
    }
    server.wait_for_counter("slow_consumer", 1);
    server.wait_for_counter("close_timeout", 1);
    server.wait_for_connections(1);
    drop(peer);
}

#[test]
fn no_progress_is_slow_too_although_there_is_room() {
    let flags = ["--send-queue-size", "64MiB", "--set", "limits.slow_consumer_timeout=1s"];
    let (_folder, server) = start(&flags);
    let mut peer = stopped_reader(&server, &["strict:a"]);
    let mut publisher = Peer::open(&server);
    let start = Instant::now();
    for number in 0..PUBLICATIONS {
        publisher.publish_acked("strict:a", &data(number));
    }
    server.wait_for_counter("slow_consumer", 1);
    let took = start.elapsed();
    // Time is kept in ticks of 64 ms: the last byte may have been taken at the end of one.
    assert!(took >= Duration::from_millis(1000 - 64), "{took:?}");
    let line = server.log.wait_for(0, |line| line["reason"] == "slow_consumer");
    assert!(
        line["detail"].as_str().expect("a text").ends_with(" queued, none taken for 1s"),
        "{line}"
    );
    assert_eq!(peer.skip_to_close(), (4002, "slow_consumer".to_string()));
    fresh_client_works(&server);
}

#[test]
fn a_reader_of_droppable_channels_may_stop_for_as_long_as_it_likes() {
    let (_folder, server) = start(&["--set", "limits.slow_consumer_timeout=500ms"]);
    let peer = stopped_reader(&server, &["new:a"]);
    publish_all(&server, &["new:a"]);
    thread::sleep(Duration::from_secs(1));
    let numbers = resume(&server, peer, "new:a");
    assert!(numbers.len() > 50, "{numbers:?}");
    assert_eq!(server.counter("slow_consumer"), 0);
}

#[test]
fn replies_are_never_dropped() {
    const REQUESTS: usize = 20_000;
    let (_folder, server) = start(&["--shards", "1"]);
    let mut peer = stopped_reader(&server, &["old:a"]);
    let mut sender = peer.sender();
    let asking = thread::spawn(move || {
        for number in 0..REQUESTS {
            let text =
                format!(r#"{{"type":"ping","id":{number},"timestamp":"{}"}}"#, "t".repeat(50));
            sender.write_all(&frame(OpCode::TEXT, text.as_bytes())).expect("the server reads on");
        }
    });
    // It does not read its replies, so the server does not take more of its requests.
    server.wait_for_counter("receive_paused", 1);
    // Nor does a flood of publications push them out.
    let mut publisher = Peer::open(&server);
    for number in 0..200 {
        publisher.publish_acked("old:a", &data(number));
    }
    let mut next = 0;
    while next < REQUESTS {
        let message = peer.json();
        if message["type"] == "pong" {
            assert_eq!(message["id"], next);
            next += 1;
        }
    }
    asking.join().expect("no panics");
    assert_eq!(server.counter("slow_consumer"), 0);
    // Some had to go, and all of them were publications.
    assert!(server.counter("dropped_oldest") > 0);
}

#[test]
fn a_stopped_reader_of_its_own_replies_is_closed_in_time() {
    let (_folder, server) = start(&["--set", "limits.slow_consumer_timeout=1s"]);
    let peer = stopped_reader(&server, &[]);
    let mut sender = peer.sender();
    let asking = thread::spawn(move || {
        let ping =
            frame(OpCode::TEXT, br#"{"type":"ping","id":"0123456789012345678901234567890"}"#);
        let pings = ping.repeat(100);
        // Until the server hangs up.
        while sender.write_all(&pings).is_ok() {}
    });
    server.wait_for_counter("slow_consumer", 1);
    server.wait_for_counter("close_timeout", 1);
    drop(peer);
    asking.join().expect("no panics");
    fresh_client_works(&server);
}

#[test]
fn control_frames_go_ahead_of_what_waits() {
    let (_folder, server) = start(&["--shards", "1"]);
    let mut peer = stopped_reader(&server, &["old:a"]);
    publish_all(&server, &["old:a"]);
    let received = server.counter("bytes_received");
    peer.send(&frame(OpCode::PING, b"now"));
    server.wait_for_counter("bytes_received", received + 1);
    let mut behind = 0;
    let mut answered = false;
    loop {
        let frame = peer.frame();
        if frame.opcode == OpCode::PONG {
            assert_eq!(frame.payload, b"now");
            answered = true;
        } else if answered {
            behind += 1;
            if frame.text().contains(&format!(r#""data":[{},"#, PUBLICATIONS - 1)) {
                break;
            }
        }
    }
    // What was still in the queue, but for a frame that had begun to leave.
    assert!(behind >= WAITING - 1, "only {behind} publications behind the pong");
}

#[test]
fn a_stopped_reader_among_two_thousand_changes_nothing_for_the_others() {
    const READERS: usize = 2000;
    const ROUNDS: usize = 30;
    const EACH: usize = 10;
    // Two thousand readers are not read from one after the other within a heartbeat.
    let (_folder, server) = start(&["--heartbeat", "1h"]);
    let mut readers: Vec<_> = (0..READERS - 1).map(|_| Peer::open(&server)).collect();
    readers.iter_mut().for_each(|peer| peer.subscribe("old:crowd"));
    let mut publisher = Peer::open(&server);
    let mut round = |round: usize| {
        for number in 0..EACH {
            let number = round * EACH + number;
            publisher.publish_acked("old:crowd", &data(number));
        }
        for peer in &mut readers {
            for number in 0..EACH {
                peer.expect_publication("old:crowd", &data(round * EACH + number));
            }
        }
    };
    // The buffers of the allocator and of the readers find their size.
    (0..3).for_each(&mut round);
    let stopped = stopped_reader(&server, &["old:crowd"]);
    let before = server.rss();
    (3..ROUNDS + 3).for_each(&mut round);
    let growth = server.rss().saturating_sub(before);
    let dropped = server.counter("dropped_oldest");
    assert!(growth < (32 << 10) + (1 << 20), "{growth} bytes more for one stopped reader");
    // Twice as many publications, no more memory.
    (ROUNDS + 3..2 * ROUNDS + 3).for_each(&mut round);
    assert!(server.counter("dropped_oldest") > dropped);
    let growth = server.rss().saturating_sub(before);
    assert!(growth < (32 << 10) + (1 << 20), "{growth} bytes more for one stopped reader");
    drop(stopped);
    let counters = server.counters();
    assert!(counters["dropped_oldest"] > 100, "{counters:?}");
    assert!(!counters.contains_key("slow_consumer"), "{counters:?}");
}
