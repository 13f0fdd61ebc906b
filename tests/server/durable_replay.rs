//! What a durable channel has on disk and not in memory any more, on the real binary: readers and
//! queries get it as if it were there.

use std::fs;
use std::io::Read;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::*;

const CONFIGURATION: &str = r#"
[namespaces.deep]
level = "durable"
history_size = 10000000
history_bytes = "4GiB"
history_ttl = "1h"

[namespaces.last]
level = "durable"
last = true

[store]
cache_size = "4KiB"
"#;

/// Every shard is the home of some of them.
const CHANNELS: [&str; 4] = ["deep:0", "deep:1", "deep:2", "deep:3"];

/// Publications of each channel, some ten times what one read of the log brings.
const COUNT: u64 = 4000;

fn start(folder: &TempDir, variables: &[(&str, &str)]) -> Server {
    let path = |name| folder.path().join(name).to_str().expect("text").to_owned();
    fs::write(path("stentor.toml"), CONFIGURATION).expect("it is ours");
    let (config, log) = (path("stentor.toml"), path("log"));
    let mut launch = Launch::new(&["--config", &config, "--store", &log]);
    for (name, value) in variables {
        launch = launch.env(name, value);
    }
    launch.start()
}

fn start_sharded(folder: &TempDir) -> Server {
    start(folder, &[("STENTOR_SERVER_SHARDS", "2")])
}

fn data(n: u64) -> String {
    format!(r#"[{n},"{}"]"#, "d".repeat(80))
}

/// Publishes what has these offsets, and waits until the last is kept.
#[track_caller]
fn fill(server: &Server, channel: &str, offsets: std::ops::RangeInclusive<u64>) {
    let mut peer = Peer::open(server);
    let (first, last) = offsets.into_inner();
    for n in first..=last {
        let id = if n == last { r#","id":1"# } else { "" };
        let data = data(n);
        let text = format!(r#"{{"action":"publish","channel":"{channel}","data":{data}{id}}}"#);
        peer.send_text(&text);
    }
    let ack = peer.json();
    assert_eq!((&ack["type"], &ack["offset"]), (&json!("ack"), &json!(last)), "{ack}");
}

#[track_caller]
fn expect(peer: &mut Peer, channel: &str, offsets: std::ops::RangeInclusive<u64>) {
    for offset in offsets {
        let data = data(offset);
        peer.expect_text(&format!(r#"{{"channel":"{channel}","offset":{offset},"data":{data}}}"#));
    }
}

#[track_caller]
fn query(peer: &mut Peer, channel: &str, parameters: &str) -> (Vec<u64>, Value) {
    peer.send_text(&format!(
        r#"{{"type":"query","payload":{{"resource":"history","parameters":{{"channel":"{channel}"{parameters}}}}}}}"#
    ));
    let page = peer.json()["payload"].clone();
    let publications = page["publications"].as_array().unwrap_or_else(|| panic!("{page}"));
    let offset = |each: &Value| {
        assert_eq!(each["data"][0], each["offset"], "{each}");
        each["offset"].as_u64().expect("an offset")
    };
    (publications.iter().map(offset).collect(), page)
}

fn unix_ms() -> u64 {
    let elapsed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    elapsed.expect("it is later").as_millis() as u64
}

#[test]
fn readers_get_what_is_on_disk_and_then_what_comes() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut server = start_sharded(&folder);
    for channel in CHANNELS {
        fill(&server, channel, 1..=COUNT);
    }
    for restarted in [false, true] {
        for channel in CHANNELS {
            let head = COUNT + 50 * u64::from(restarted);
            let mut reader = Peer::open(&server);
            let confirmation = subscribe(&mut reader, channel, r#","since":"start""#);
            assert_eq!(
                [&confirmation["recovered"], &confirmation["recoveredCount"]],
                [&json!(true), &json!(head)],
            );
            // What is published meanwhile follows.
            fill(&server, channel, head + 1..=head + 50);
            let place = format!(
                r#","recover":{{"epoch":{},"offset":{}}}"#,
                confirmation["epoch"],
                COUNT / 2
            );
            let mut other = Peer::open(&server);
            let confirmation = subscribe(&mut other, channel, &place);
            assert_eq!(confirmation["recovered"], true, "{confirmation}");
            let mut newest = Peer::open(&server);
            let confirmation = subscribe(&mut newest, channel, r#","since":"start","limit":300"#);
            assert_eq!(
                [&confirmation["reason"], &confirmation["recoveredCount"]],
                [&json!("limit"), &json!(300)]
            );
            expect(&mut newest, channel, head + 50 - 299..=head + 50);
            expect(&mut other, channel, COUNT / 2 + 1..=head + 50);
            expect(&mut reader, channel, 1..=head + 50);
            for peer in [&mut reader, &mut other, &mut newest] {
                peer.expect_idle();
            }
        }
        if !restarted {
            kill(server);
            server = start_sharded(&folder);
        }
    }
    assert_eq!(server.counter("history_gaps"), 0);
}

#[test]
fn a_reader_that_stops_reads_on_from_the_disk() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = start(&folder, &[("STENTOR_SERVER_SHARDS", "2")]);
    for channel in CHANNELS {
        let mut reader = Peer::connect_small(&server, 4096);
        reader.upgrade("/ws");
        subscribe(&mut reader, channel, "");
        // More than the kernel, the queue and the memory hold.
        let last = 60_000;
        fill(&server, channel, 1..=last);
        expect(&mut reader, channel, 1..=last);
        reader.expect_idle();
    }
    assert!(server.counter("fell_behind") > 0);
    assert!(server.counter("store_read") > 0);
    assert_eq!(server.counter("history_gaps"), 0);
}

#[test]
fn queries_reach_what_is_on_disk() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = start_sharded(&folder);
    for channel in CHANNELS {
        fill(&server, channel, 1..=COUNT / 2);
        // Time is what is asked for: it must have passed.
        thread::sleep(Duration::from_millis(30));
        let time = unix_ms();
        thread::sleep(Duration::from_millis(30));
        fill(&server, channel, COUNT / 2 + 1..=COUNT);
        let mut peer = Peer::open(&server);
        let (offsets, page) = query(&mut peer, channel, "");
        assert_eq!(offsets, (1..=100).collect::<Vec<_>>());
        assert_eq!(
            [&page["complete"], &page["more"], &page["offset"]],
            [&json!(true), &json!(true), &json!(COUNT)]
        );
        // Forwards and backwards, page after page, over the boundary between disk and memory.
        let mut at = COUNT - 1000;
        while at < COUNT {
            let (offsets, page) =
                query(&mut peer, channel, &format!(r#","since":{at},"limit":300"#));
            let end = COUNT.min(at + 300);
            assert_eq!(offsets, (at + 1..=end).collect::<Vec<_>>());
            assert_eq!([&page["complete"], &page["more"]], [&json!(true), &json!(end < COUNT)]);
            at = end;
        }
        let mut until = COUNT;
        while until > COUNT - 1000 {
            let parameters =
                format!(r#","until":{until},"limit":300,"reverse":true,"since":{}"#, COUNT - 1000);
            let (offsets, page) = query(&mut peer, channel, &parameters);
            let begin = (until - 300).max(COUNT - 1000);
            assert_eq!(offsets, (begin + 1..=until).rev().collect::<Vec<_>>());
            assert_eq!(
                [&page["complete"], &page["more"]],
                [&json!(true), &json!(begin > COUNT - 1000)]
            );
            until = begin;
        }
        let (offsets, _) = query(&mut peer, channel, r#","since":10,"until":12"#);
        assert_eq!(offsets, [11, 12]);
        let (offsets, page) = query(&mut peer, channel, &format!(r#","since":{time},"limit":2"#));
        assert_eq!(
            (offsets, &page["complete"]),
            (vec![COUNT / 2 + 1, COUNT / 2 + 2], &json!(true))
        );
        let (offsets, _) =
            query(&mut peer, channel, &format!(r#","until":{time},"limit":2,"reverse":true"#));
        assert_eq!(offsets, [COUNT / 2, COUNT / 2 - 1]);
        let mut reader = Peer::open(&server);
        let confirmation = subscribe(&mut reader, channel, &format!(r#","since":{time}"#));
        assert_eq!(confirmation["offset"], COUNT / 2);
        expect(&mut reader, channel, COUNT / 2 + 1..=COUNT);
    }
}

/// 1,000,000 publications of 256 bytes from the log to one reader.
#[test]
#[ignore = "measures; takes a minute"]
fn replay_from_the_log_keeps_a_socket_busy() {
    const COUNT: u64 = 1_000_000;
    let folder = tempfile::tempdir().expect("a folder");
    let server = start(&folder, &[]);
    let mut publisher = Peer::open(&server);
    let data = format!(r#""{}""#, "d".repeat(254));
    for n in 1..=COUNT {
        let id = if n % 2000 == 0 { r#","id":1"# } else { "" };
        publisher
            .send_text(&format!(r#"{{"action":"publish","channel":"deep:0","data":{data}{id}}}"#));
        if n % 2000 == 0 {
            assert_eq!(publisher.json()["offset"], n);
        }
    }
    for _ in 0..3 {
        let mut reader = Peer::open(&server);
        let confirmation = subscribe(&mut reader, "deep:0", r#","since":"start""#);
        assert_eq!(confirmation["recoveredCount"], COUNT);
        let (begin, used) = (Instant::now(), server.cpu_time());
        let mut stream = reader.sender();
        let mut bytes = vec![0; 1 << 20];
        // The last publication ends with its number's frame: all are as long as the digits say.
        let digits: u64 = (1..=COUNT).map(|n| u64::from(n.ilog10()) + 1).sum();
        let frame = r#"{"channel":"deep:0","offset":,"data":}"#.len() as u64 + 256 + 4;
        let mut left = COUNT * frame + digits;
        while left > 0 {
            let count = stream.read(&mut bytes).expect("the server sends") as u64;
            assert!(count > 0, "the server went");
            left = left.checked_sub(count).expect("no more than that");
        }
        let seconds = begin.elapsed().as_secs_f64();
        let used = (server.cpu_time() - used).as_secs_f64();
        println!(
            "{COUNT} in {seconds:.2} s: {:.0} a second; the server worked {used:.2} s",
            COUNT as f64 / seconds
        );
    }
}
