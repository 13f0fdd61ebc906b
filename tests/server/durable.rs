//! Durable channels on the real binary: what was acknowledged or delivered is there after the process
//! was killed, once and in order; a disk that takes no more refuses publications and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::*;

const CONFIGURATION: &str = r#"
[namespaces.kept]
level = "durable"
history_size = 10000000
history_bytes = "1GiB"
history_ttl = "1h"
idempotency_size = 20000

# Most of it is on disk only.
[store]
cache_size = "4KiB"

[namespaces.short]
level = "durable"
history_size = 5

[namespaces.state]
level = "durable"
last = true
"#;

/// Unless `STENTOR_KILLS` says otherwise.
const KILLS: usize = 10;
const READERS: usize = 2;
const PUBLISHERS: u64 = 3;
/// Of all publishers together.
const PUBLICATIONS_A_SECOND: u32 = 10_000;
/// Of one publisher: it waits rather than have more.
const UNANSWERED_MAX: usize = 5000;
/// Each publisher has so many numbers for itself.
const PUBLISHER_NUMBERS: u64 = 1_000_000_000;

/// Every shard is the home of some of them, and after a restart of others.
const CHANNELS: [&str; 4] = ["kept:0", "kept:1", "kept:2", "kept:3"];

fn folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("stentor.toml"), CONFIGURATION).expect("it is ours");
    folder
}

fn flags(folder: &Path) -> [String; 4] {
    let path = |name| folder.join(name).to_str().expect("text").to_owned();
    ["--config".into(), path("stentor.toml"), "--store".into(), path("log")]
}

fn launch(folder: &Path) -> Server {
    let flags = flags(folder);
    Server::start(&flags.each_ref().map(String::as_str))
}

#[track_caller]
fn publish(peer: &mut Peer, channel: &str, data: &str) -> Value {
    peer.send_text(&format!(
        r#"{{"action":"publish","channel":"{channel}","data":{data},"id":1}}"#
    ));
    peer.json()
}

#[track_caller]
fn acknowledged(answer: &Value) -> u64 {
    assert_eq!(answer["type"], "ack", "{answer}");
    answer["offset"].as_u64().expect("an offset")
}

#[track_caller]
fn expect_publication(peer: &mut Peer, channel: &str, offset: u64, data: &str) {
    peer.expect_text(&format!(r#"{{"channel":"{channel}","offset":{offset},"data":{data}}}"#));
}

/// Values by channel and offset.
type Record = BTreeMap<(String, u64), u64>;

/// Somebody who publishes ever larger numbers, each under its own message id, and repeats what was not
/// acknowledged when the server comes back.
struct Publisher {
    /// The number to go on with.
    next: u64,
    unanswered: BTreeSet<u64>,
    acks: Record,
    refused: u64,
}

impl Publisher {
    fn new(index: u64) -> Self {
        let next = index * PUBLISHER_NUMBERS;
        Self { next, unanswered: BTreeSet::new(), acks: Record::new(), refused: 0 }
    }

    fn take(&mut self, answer: &Value) {
        let number = answer["requestId"].as_u64().or(answer["data"]["requestId"].as_u64());
        let number = number.unwrap_or_else(|| panic!("{answer}"));
        assert!(self.unanswered.remove(&number), "answered twice: {answer}");
        if answer["type"] != "ack" {
            // More than may wait: it was not delivered, and is not repeated, to keep the order.
            assert_eq!(answer["data"]["code"], "backlog_full", "{answer}");
            self.refused += 1;
            return;
        }
        let channel = answer["channel"].as_str().expect("a name").to_owned();
        let before = self.acks.insert((channel, acknowledged(answer)), number);
        assert_eq!(before, None, "{answer}");
    }
}

fn message(number: u64) -> Vec<u8> {
    let channel = CHANNELS[(number % 4) as usize];
    let text = format!(
        r#"{{"action":"publish","channel":"{channel}","data":{number},"id":{number},"messageId":"m-{number}"}}"#
    );
    frame(OpCode::TEXT, text.as_bytes())
}

/// Publishes until the server is gone: first what was not acknowledged, then new numbers at its share of
/// [`PUBLICATIONS_A_SECOND`]. Counts acknowledgements.
fn publish_on(
    server: &Server,
    publisher: Arc<Mutex<Publisher>>,
    acknowledged: Arc<AtomicU64>,
) -> JoinHandle<()> {
    const BATCH: u64 = 20;
    let mut peer = Peer::open(server);
    let mut stream = peer.sender();
    let sender = Arc::clone(&publisher);
    let gone = Arc::new(AtomicBool::new(false));
    let ended = Arc::clone(&gone);
    let sending = thread::spawn(move || {
        let again: Vec<_> = sender.lock().unwrap().unanswered.iter().copied().collect();
        let again: Vec<u8> = again.into_iter().flat_map(message).collect();
        let (begin, mut sent) = (Instant::now(), 0);
        let mut going = stream.write_all(&again).is_ok();
        while going && !ended.load(Ordering::Relaxed) {
            let due = begin + Duration::from_secs(sent * PUBLISHERS) / PUBLICATIONS_A_SECOND;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            sent += BATCH;
            let mut publisher = sender.lock().unwrap();
            if publisher.unanswered.len() > UNANSWERED_MAX {
                continue;
            }
            let numbers = publisher.next..publisher.next + BATCH;
            publisher.next = numbers.end;
            publisher.unanswered.extend(numbers.clone());
            drop(publisher);
            let batch: Vec<u8> = numbers.flat_map(message).collect();
            going = stream.write_all(&batch).is_ok();
        }
    });
    thread::spawn(move || {
        while let Some(frame) = peer.frame_within(PATIENCE) {
            if frame.opcode == OpCode::TEXT {
                publisher.lock().unwrap().take(&serde_json::from_str(frame.text()).expect("JSON"));
                acknowledged.fetch_add(1, Ordering::Relaxed);
            }
        }
        gone.store(true, Ordering::Relaxed);
        sending.join().expect("no panics");
    })
}

/// Notes what a subscriber gets until the server is gone.
fn listen(mut peer: Peer, mut seen: Record) -> JoinHandle<Record> {
    thread::spawn(move || {
        while let Some(frame) = peer.frame_within(PATIENCE) {
            if frame.opcode == OpCode::TEXT {
                note(&mut seen, &serde_json::from_str(frame.text()).expect("JSON"));
            }
        }
        seen
    })
}

/// A publication must follow the one before it.
fn note(seen: &mut Record, message: &Value) {
    let Some(offset) = message["offset"].as_u64().filter(|_| message.get("data").is_some()) else {
        return;
    };
    let channel = message["channel"].as_str().expect("a name").to_owned();
    assert_eq!(offset, head(seen, &channel) + 1, "{message}");
    seen.insert((channel, offset), message["data"].as_u64().expect("a number"));
}

fn head(seen: &Record, channel: &str) -> u64 {
    let range = (channel.to_owned(), 0)..=(channel.to_owned(), u64::MAX);
    seen.range(range).next_back().map_or(0, |((_, offset), _)| *offset)
}

/// A subscriber of all channels, from where it was.
fn come_back(server: &Server, epochs: &mut BTreeMap<&str, Value>, seen: &mut Record) -> Peer {
    let mut reader = Peer::open(server);
    for channel in CHANNELS {
        let place = epochs.get(channel).map_or(String::new(), |epoch| {
            let offset = head(seen, channel);
            format!(r#","recover":{{"epoch":{epoch},"offset":{offset}}}"#)
        });
        reader.send_text(&format!(r#"{{"action":"subscribe","channel":"{channel}"{place}}}"#));
        // Others' replay may come before it.
        let confirmation = loop {
            let message = reader.json();
            if message["channel"] == "system" {
                break message["data"].clone();
            }
            note(seen, &message);
        };
        let epoch = confirmation["epoch"].clone();
        assert!(epoch.is_string(), "{confirmation}");
        if let Some(before) = epochs.insert(channel, epoch.clone()) {
            assert_eq!((&before, &confirmation["recovered"]), (&epoch, &json!(true)));
        }
    }
    reader
}

#[test]
fn what_was_acknowledged_or_delivered_survives_every_kill() {
    let kills =
        std::env::var("STENTOR_KILLS").map_or(KILLS, |text| text.parse().expect("a number"));
    let folder = folder();
    let mut random = Random::new(11);
    let mut epochs: BTreeMap<&str, Value> = BTreeMap::new();
    let mut readers = vec![Record::new(); READERS];
    let publishers: Vec<_> =
        (0..PUBLISHERS).map(|index| Arc::new(Mutex::new(Publisher::new(index)))).collect();
    let (acknowledged, mut working) = (Arc::new(AtomicU64::new(0)), Duration::ZERO);
    for _ in 0..kills {
        let server = launch(folder.path());
        let listeners: Vec<_> = std::mem::take(&mut readers)
            .into_iter()
            .map(|mut seen| {
                let peer = come_back(&server, &mut epochs, &mut seen);
                listen(peer, seen)
            })
            .collect();
        let begin = Instant::now();
        let publishing: Vec<_> = publishers
            .iter()
            .map(|each| publish_on(&server, Arc::clone(each), Arc::clone(&acknowledged)))
            .collect();
        let wanted = acknowledged.load(Ordering::Relaxed) + 500 + random.below(15_000) as u64;
        wait_until("enough is acknowledged", || acknowledged.load(Ordering::Relaxed) >= wanted);
        working += begin.elapsed();
        kill(server);
        for thread in publishing {
            thread.join().expect("no panics");
        }
        readers = listeners.into_iter().map(|each| each.join().expect("no panics")).collect();
    }
    let server = launch(folder.path());
    let mut all = Record::new();
    for channel in CHANNELS {
        let mut peer = Peer::open(&server);
        let confirmation = subscribe(&mut peer, channel, r#","since":"start""#);
        assert_eq!(
            (&confirmation["epoch"], &confirmation["offset"]),
            (&epochs[channel], &json!(0))
        );
        let count = confirmation["recoveredCount"].as_u64().expect("a number");
        for _ in 0..count {
            note(&mut all, &peer.json());
        }
        for publisher in 0..PUBLISHERS {
            let own = |(place, value): (&(String, u64), &u64)| {
                (place.0 == channel && value / PUBLISHER_NUMBERS == publisher).then_some(*value)
            };
            let values: Vec<_> = all.iter().filter_map(own).collect();
            let in_order = values.is_sorted_by(|a, b| a < b);
            assert!(in_order, "{channel}: once, in the order of its publisher");
        }
    }
    let mut refused = 0;
    for publisher in &publishers {
        let publisher = publisher.lock().unwrap();
        refused += publisher.refused;
        for (place, value) in &publisher.acks {
            assert_eq!(all.get(place), Some(value), "{place:?} was acknowledged");
        }
    }
    for (place, value) in readers.iter().flatten() {
        assert_eq!(all.get(place), Some(value), "{place:?} was delivered");
    }
    let (acknowledged, seconds) = (acknowledged.load(Ordering::Relaxed), working.as_secs_f64());
    let delivered: usize = readers.iter().map(Record::len).sum();
    println!(
        "{kills} kills: {acknowledged} acknowledged in {seconds:.1} s, {refused} of them refused, \
         {delivered} delivered to {READERS} subscribers, {} kept; 0 lost, 0 repeated, 0 reordered",
        all.len()
    );
}

#[test]
fn offsets_and_the_epoch_go_on_after_a_restart() {
    let folder = folder();
    let mut epochs = Vec::new();
    for round in 0..3u64 {
        let server = launch(folder.path());
        let mut peer = Peer::open(&server);
        for channel in ["short:a", "short:b", "short:c"] {
            // Whatever comes first opens the channel: a subscription, a query, a publication.
            if round == 1 {
                peer.send_text(&format!(
                    r#"{{"type":"query","payload":{{"resource":"history","parameters":{{"channel":"{channel}"}}}}}}"#
                ));
                let page = peer.json()["payload"].clone();
                assert_eq!(page["offset"], 7 * round, "{page}");
                let offsets: Vec<_> =
                    page["publications"].as_array().expect("a list").iter().collect();
                assert_eq!((offsets.len(), &offsets[0]["offset"]), (5, &json!(3)));
                assert_eq!(page["complete"], true);
            }
            if round < 2 {
                let confirmation = subscribe(&mut peer, channel, "");
                assert_eq!(confirmation["offset"], 7 * round);
                epochs.push((channel, confirmation["epoch"].clone()));
                peer.send_text(&format!(r#"{{"action":"unsubscribe","channel":"{channel}"}}"#));
                peer.json();
            }
            for n in 1..=7 {
                let answer = publish(&mut peer, channel, &n.to_string());
                assert_eq!(acknowledged(&answer), 7 * round + n);
            }
        }
        if round == 2 {
            for (channel, epoch) in &epochs {
                let mut peer = Peer::open(&server);
                let recover = format!(r#","recover":{{"epoch":{epoch},"offset":16}}"#);
                assert_eq!(subscribe(&mut peer, channel, &recover)["recovered"], true);
                for n in 17..=21 {
                    expect_publication(&mut peer, channel, n, &(n - 14).to_string());
                }
                let mut peer = Peer::open(&server);
                let recover = format!(r#","recover":{{"epoch":{epoch},"offset":15}}"#);
                let confirmation = subscribe(&mut peer, channel, &recover);
                assert_eq!(
                    (&confirmation["recovered"], &confirmation["reason"]),
                    (&json!(false), &json!("trimmed"))
                );
            }
        }
        kill(server);
    }
}

#[test]
fn the_latest_publication_is_there_after_a_restart() {
    let folder = folder();
    let server = launch(folder.path());
    let mut peer = Peer::open(&server);
    for n in 1..=3u64 {
        assert_eq!(acknowledged(&publish(&mut peer, "state:a", &n.to_string())), n);
    }
    kill(server);
    let server = launch(folder.path());
    let mut peer = Peer::open(&server);
    assert_eq!(subscribe(&mut peer, "state:a", "")["offset"], 2);
    expect_publication(&mut peer, "state:a", 3, "3");
    assert_eq!(acknowledged(&publish(&mut Peer::open(&server), "state:a", "4")), 4);
    expect_publication(&mut peer, "state:a", 4, "4");
}

#[test]
fn a_message_id_is_published_once_while_it_waits_for_the_log_too() {
    let folder = folder();
    let server = launch(folder.path());
    for channel in CHANNELS {
        let mut peer = Peer::open(&server);
        let text =
            format!(r#"{{"action":"publish","channel":"{channel}","data":1,"messageId":"m"}}"#);
        // In one piece: the second one is there before the log can answer for the first.
        peer.send_text(&[text.as_str(); 3].join("\n"));
        for _ in 0..3 {
            assert_eq!(acknowledged(&peer.json()), 1);
        }
        assert_eq!(acknowledged(&publish(&mut peer, channel, "2")), 2);
    }
}

#[test]
fn a_message_id_is_published_once_across_connections_and_kills() {
    let folder = folder();
    let message = |channel: &str, n: u64| {
        format!(r#"{{"action":"publish","channel":"{channel}","data":{n},"messageId":"m-{n}"}}"#)
    };
    for round in 0..3 {
        let server = launch(folder.path());
        for channel in CHANNELS {
            // More than the memory keeps.
            for n in 1..=100 + round {
                let mut peer = Peer::open(&server);
                peer.send_text(&message(channel, n));
                assert_eq!(acknowledged(&peer.json()), n);
            }
            let mut reader = Peer::open(&server);
            subscribe(&mut reader, channel, r#","since":"start""#);
            for n in 1..=100 + round {
                expect_publication(&mut reader, channel, n, &n.to_string());
            }
            reader.expect_idle();
        }
        kill(server);
    }
}

#[test]
fn a_full_disk_refuses_durable_publications_and_nothing_else() {
    let folder = folder();
    let flags = flags(folder.path());
    // Where a file may not grow, a write fails as on a full disk.
    let limits = "trap '' XFSZ; ulimit -f 512";
    let server = Launch::limited(limits, &flags.each_ref().map(String::as_str))
        .env("STENTOR_SERVER_SHARDS", "2")
        .start();
    let mut subscriber = Peer::open(&server);
    subscribe(&mut subscriber, "kept:0", "");
    subscriber.subscribe("live");
    let mut publisher = Peer::open(&server);
    let data = format!("\"{}\"", "d".repeat(10_000));
    let mut offset = 0;
    let refused = loop {
        let answer = publish(&mut publisher, "kept:0", &data);
        if answer["type"] != "ack" {
            break answer;
        }
        offset += 1;
        assert_eq!(answer["offset"], offset);
        expect_publication(&mut subscriber, "kept:0", offset, &data);
        assert!(offset < 1000, "the disk is never full");
    };
    assert_eq!(refused["data"]["code"], "unavailable", "{refused}");
    assert!(offset > 0);
    publisher.publish_acked("live", "1");
    subscriber.expect_publication("live", "1");
    // Another file has room, and the log begins one when it tries again: no offset is left out.
    wait_until("the log works again", || publish(&mut publisher, "kept:0", &data)["type"] == "ack");
    expect_publication(&mut subscriber, "kept:0", offset + 1, &data);
    assert!(server.counter("store_refused") > 0);
    kill(server);
    let server = launch(folder.path());
    let mut peer = Peer::open(&server);
    let confirmation = subscribe(&mut peer, "kept:0", r#","since":"start""#);
    assert_eq!(confirmation["recoveredCount"], offset + 1);
}

/// The log on a file system of its own, which has one megabyte; most of it is taken by a file that the
/// test removes.
#[test]
fn a_file_system_without_room_refuses_and_recovers() {
    let folder = folder();
    let path = |name| folder.path().join(name).to_str().expect("text").to_owned();
    let (disk, config) = (path("disk"), path("stentor.toml"));
    fs::create_dir(&disk).expect("it is ours");
    let mount = r#"mount -t tmpfs -o size=1m none "$0" && head -c 800000 /dev/zero >"$0/ballast" && exec "$@""#;
    let program = env!("CARGO_BIN_EXE_stentor");
    let launch = Launch::new(&[]).with(|command| {
        *command = Command::new("unshare");
        command.args(["--map-root-user", "--mount", "/bin/sh", "-c", mount, &disk, program]);
        command.args(["serve", "--config", &config, "--store", &format!("{disk}/log")]);
        command.env("STENTOR_SERVER_LISTEN", "127.0.0.1:0").env("STENTOR_SERVER_PIN", "false");
    });
    // Without the right to mount this fails here, and says so.
    let server = launch.start();
    let mut subscriber = Peer::open(&server);
    subscribe(&mut subscriber, "kept:0", "");
    let mut publisher = Peer::open(&server);
    let data = format!("\"{}\"", "d".repeat(10_000));
    let mut offset = 0;
    let refused = loop {
        let answer = publish(&mut publisher, "kept:0", &data);
        if answer["type"] != "ack" {
            break answer;
        }
        offset += 1;
        expect_publication(&mut subscriber, "kept:0", offset, &data);
        assert!(offset < 1000, "it is never full");
    };
    assert_eq!(refused["data"]["code"], "unavailable", "{refused}");
    // What is kept is served meanwhile.
    let mut reader = Peer::open(&server);
    let confirmation = subscribe(&mut reader, "kept:0", r#","since":"start""#);
    assert_eq!(confirmation["recoveredCount"], offset);
    for offset in 1..=offset {
        expect_publication(&mut reader, "kept:0", offset, &data);
    }
    fs::remove_file(format!("/proc/{}/root{disk}/ballast", server.id())).expect("it is there");
    wait_until("the log works again", || publish(&mut publisher, "kept:0", &data)["type"] == "ack");
    for peer in [&mut subscriber, &mut reader] {
        expect_publication(peer, "kept:0", offset + 1, &data);
    }
    server.log.wait_for(0, |line| line["message"] == "the durable log works again");
}

#[test]
fn a_durable_channel_needs_a_folder() {
    let folder = folder();
    let flags = flags(folder.path());
    let output = run(&["check", &flags[1]]);
    assert!(!output.status.success());
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(text.contains("namespaces.kept.level = \"durable\": needs a folder"), "{text}");
}
