//! The thread, asked and answering through the mesh as shards do.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::*;
use crate::config::SyncMode;
use crate::ids::{Epoch, ShardId};
use crate::io::Waker;
use crate::log::segment::is_spare;
use crate::log::sim_disk::{Faults, SimDisk};
use crate::log::thread::{Clock, Log};
use crate::mesh::{self, LogPort, LogSender, Port};
use crate::message::{
    LogAnswer, LogAppend, LogBatch, LogMessage, LogRefusal, ShardMessage, Ticket,
};
use crate::metrics::{Counter, Metrics};

const PATIENCE: Duration = Duration::from_secs(60);

/// A log on a simulated disk, and two shards that are none.
struct Rig {
    disk: SimDisk,
    ports: Vec<Port>,
    logs: Vec<LogPort>,
    sender: LogSender,
    metrics: Metrics,
    thread: JoinHandle<std::io::Result<()>>,
}

impl Rig {
    fn new(disk: SimDisk, sync: SyncMode) -> Self {
        let wakers = (0..2).map(|_| Waker::Simulated(Arc::new(AtomicBool::new(false))));
        let (ports, control) = mesh::connect(wakers.collect(), 1 << 20);
        let (sender, inbox) = mesh::connect_log();
        let logs = (0..2).map(|_| sender.port()).collect();
        let (store, _) = open(disk.clone(), SMALL, Retention::default());
        let metrics = Metrics::new(2);
        let clock = Clock { started: Instant::now(), unix_start: 1_000_000 };
        let log = Log::new(store, inbox, control.mailer(1 << 20), metrics.clone(), sync, clock);
        let thread = std::thread::spawn(move || log.run());
        Self { disk, ports, logs, sender, metrics, thread }
    }

    fn append(&mut self, shard: u16, topic: &str, offset: u64) {
        self.put(shard, record(shard, topic, offset, &data(topic, offset, 10)));
    }

    fn put(&mut self, shard: u16, append: LogAppend<'_>) {
        let mut batch = LogBatch::default();
        batch.append(append);
        self.logs[usize::from(shard)].flush(&mut batch);
        assert!(batch.is_empty(), "the channel takes it");
    }

    fn post(&mut self, shard: u16, message: LogMessage) {
        let mut batch = LogBatch::default();
        batch.push(message);
        self.logs[usize::from(shard)].flush(&mut batch);
        assert!(batch.is_empty(), "the channel takes it");
    }

    fn answer(&mut self, shard: u16) -> LogAnswer {
        let begin = Instant::now();
        loop {
            if let Some(message) = self.ports[usize::from(shard)].receive() {
                let ShardMessage::Log(answer) = message else { panic!("{message:?}") };
                return answer;
            }
            assert!(begin.elapsed() < PATIENCE, "no answer");
            std::thread::yield_now();
        }
    }

    /// The answer to the appends of a topic up to `upto`, however many it comes in.
    fn stored(&mut self, shard: u16, topic: &str, upto: u64) {
        loop {
            let answer = self.answer(shard);
            let LogAnswer::Stored { topic: stored, epoch, upto: now, ticket } = &answer else {
                panic!("{answer:?}")
            };
            assert_eq!((&**stored, *epoch, *ticket), (topic, Epoch(EPOCH), *now));
            assert!(*now <= upto);
            if *now == upto {
                return;
            }
        }
    }

    fn read(&mut self, shard: u16, topic: &str, from: u64) -> LogAnswer {
        let topic = TopicName::new(topic);
        let (records_max, bytes_max) = (1000, 1 << 20);
        let ticket = ticket(shard, 99);
        self.post(shard, LogMessage::Read { topic, from, records_max, bytes_max, ticket });
        self.answer(shard)
    }

    fn stop(self) -> SimDisk {
        self.sender.stop();
        self.thread.join().unwrap().unwrap();
        self.disk
    }
}

fn record<'a>(shard: u16, topic: &'a str, offset: u64, data: &'a [u8]) -> LogAppend<'a> {
    LogAppend {
        topic,
        epoch: Epoch(EPOCH),
        offset,
        stored: offset - 1,
        time_ms: 1_000_000,
        message_id: Some("\"id\""),
        data,
        ticket: ticket(shard, offset),
    }
}

fn ticket(shard: u16, number: u64) -> Ticket {
    Ticket { shard: ShardId(shard), number }
}

fn read_offsets(answer: &LogAnswer) -> Vec<u64> {
    let LogAnswer::Read { slice, .. } = answer else { panic!("{answer:?}") };
    offsets(slice)
}

#[test]
fn a_topic_that_is_unknown_begins_behind_what_is_known_to_be_kept() {
    let mut rig = Rig::new(SimDisk::new(3), SyncMode::Always);
    let append = |offset, stored| LogAppend {
        topic: "a",
        epoch: Epoch(EPOCH),
        offset,
        stored,
        time_ms: 1_000_000,
        message_id: None,
        data: b"1",
        ticket: ticket(0, offset),
    };
    // The one before it was refused: kept, it would leave the topic where nobody looks for it.
    rig.put(0, append(8, 6));
    let refused = rig.answer(0);
    let LogAnswer::Refused { reason: LogRefusal::Position { next: 7, .. }, .. } = refused else {
        panic!("{refused:?}")
    };
    rig.put(0, append(7, 6));
    rig.stored(0, "a", 7);
    rig.stop();
}

#[test]
fn shards_append_and_read() {
    for sync in [SyncMode::Always, SyncMode::Interval(Duration::from_millis(1)), SyncMode::Os] {
        let mut rig = Rig::new(SimDisk::new(3), sync);
        for offset in 1..=100 {
            rig.append(0, "a", offset);
            rig.append(1, "b", offset);
        }
        rig.stored(0, "a", 100);
        rig.stored(1, "b", 100);
        let answer = rig.read(1, "b", 51);
        assert_eq!(read_offsets(&answer), (51..=100).collect::<Vec<_>>());
        let LogAnswer::Read { slice, ticket, .. } = answer else { unreachable!() };
        assert_eq!((slice.epoch, slice.oldest, slice.next, ticket), (Epoch(EPOCH), 1, 101, 99));
        assert_eq!(slice.records[0].message_id.as_deref(), Some("\"id\""));
        let position = LogMessage::Position { topic: TopicName::new("a"), ticket: ticket_of(7) };
        rig.post(0, position);
        let LogAnswer::Position { next, oldest, .. } = rig.answer(0) else { panic!() };
        assert_eq!((next, oldest), (101, 1));
        assert_eq!(rig.metrics.total(Counter::StoreKept), 200);
        assert!(rig.metrics.total(Counter::StoreBatches) <= 200);
        let disk = rig.stop();
        let (mut store, notes) = open(disk, SMALL, Retention::default());
        assert_eq!(notes, []);
        assert_eq!(offsets(&store.read("a", 1, ALL).unwrap()).len(), 100);
    }
}

fn ticket_of(number: u64) -> Ticket {
    ticket(0, number)
}

#[test]
fn what_waits_during_a_sync_shares_the_next_one() {
    let mut rig = Rig::new(SimDisk::new(3), SyncMode::Always);
    rig.append(0, "a", 1);
    rig.stored(0, "a", 1);
    rig.disk.hold_syncs(true);
    rig.append(0, "a", 2);
    // Nothing is acknowledged before it is on disk, and the shard does not wait.
    for offset in 3..=60 {
        rig.append(0, "a", offset);
    }
    assert!(rig.ports[0].receive().is_none());
    let before = rig.metrics.total(Counter::StoreBatches);
    rig.disk.hold_syncs(false);
    rig.stored(0, "a", 60);
    assert!(rig.metrics.total(Counter::StoreBatches) - before <= 3);
    rig.stop();
}

#[test]
fn an_interval_gathers_and_still_syncs_before_it_answers() {
    let interval = SyncMode::Interval(Duration::from_millis(200));
    let mut rig = Rig::new(SimDisk::new(3), interval);
    for offset in 1..=20 {
        rig.append(0, "a", offset);
    }
    rig.stored(0, "a", 20);
    assert_eq!(rig.metrics.total(Counter::StoreBatches), 1);
    assert!(rig.disk.syncs() >= 2, "the header, and the batch");
    rig.disk.lose_power();
    let (mut store, _) = open(rig.disk.copy(), SMALL, Retention::default());
    assert_eq!(offsets(&store.read("a", 1, ALL).unwrap()).len(), 20);
    rig.stop();
}

#[test]
fn a_slow_disk_makes_no_shard_wait_and_loses_nothing() {
    let mut rig = Rig::new(SimDisk::new(3), SyncMode::Always);
    rig.append(0, "a", 1);
    rig.stored(0, "a", 1);
    rig.disk.hold_syncs(true);
    rig.append(0, "a", 2);
    let begin = Instant::now();
    while !rig.disk.holds_a_sync() {
        assert!(begin.elapsed() < PATIENCE, "no sync");
        std::thread::yield_now();
    }
    // More batches than the channel takes: the last ones stay with their shard.
    let mut batch = LogBatch::default();
    let last = 1200;
    for offset in 3..=last {
        batch.append(record(0, "a", offset, &data("a", offset, 10)));
        rig.logs[0].flush(&mut batch);
    }
    assert!(batch.len() > 1);
    rig.disk.hold_syncs(false);
    while !batch.is_empty() {
        rig.logs[0].flush(&mut batch);
        std::thread::yield_now();
    }
    rig.stored(0, "a", last);
    rig.stop();
}

#[test]
fn a_full_disk_refuses_serves_what_it_has_and_recovers() {
    let mut rig = Rig::new(SimDisk::new(3), SyncMode::Always);
    rig.append(0, "a", 1);
    rig.stored(0, "a", 1);
    rig.disk.set_room(Some(rig.disk.used() + 10));
    rig.append(0, "a", 2);
    let refused = |answer: &LogAnswer, at: u64| {
        matches!(answer, LogAnswer::Refused { offset, reason: LogRefusal::Disk, ticket, .. }
            if (*offset, *ticket) == (at, at))
    };
    let answer = rig.answer(0);
    assert!(refused(&answer, 2), "{answer:?}");
    rig.append(0, "a", 2);
    let answer = rig.answer(0);
    assert!(refused(&answer, 2), "{answer:?}");
    assert_eq!(read_offsets(&rig.read(0, "a", 1)), [1]);
    assert!(rig.metrics.total(Counter::StoreFailures) >= 1);
    assert!(rig.metrics.total(Counter::StoreRefused) >= 2);
    rig.disk.set_room(None);
    let begin = Instant::now();
    loop {
        rig.append(0, "a", 2);
        match rig.answer(0) {
            LogAnswer::Stored { upto: 2, .. } => break,
            answer => assert!(refused(&answer, 2), "{answer:?}"),
        }
        assert!(begin.elapsed() < Duration::from_secs(5), "it does not recover");
    }
    assert_eq!(read_offsets(&rig.read(0, "a", 1)), [1, 2]);
    let disk = rig.stop();
    let (mut store, _) = open(disk, SMALL, Retention::default());
    assert_eq!(offsets(&store.read("a", 1, ALL).unwrap()), [1, 2]);
}

#[test]
fn a_failed_sync_takes_the_whole_batch_back() {
    let mut rig = Rig::new(SimDisk::new(3), SyncMode::Always);
    rig.append(0, "a", 1);
    rig.stored(0, "a", 1);
    rig.disk.set_faults(Faults { sync: 1, ..Faults::default() });
    rig.append(0, "a", 2);
    assert!(matches!(rig.answer(0), LogAnswer::Refused { offset: 2, .. }));
    rig.disk.set_faults(Faults::default());
    // What follows a refused publication would leave a hole.
    let begin = Instant::now();
    loop {
        rig.append(0, "a", 3);
        match rig.answer(0) {
            LogAnswer::Refused { reason: LogRefusal::Position { next: 2, .. }, .. } => break,
            LogAnswer::Refused { reason: LogRefusal::Disk, .. } => {}
            answer => panic!("{answer:?}"),
        }
        assert!(begin.elapsed() < PATIENCE);
    }
    rig.append(0, "a", 2);
    rig.stored(0, "a", 2);
    rig.disk.lose_power();
    let (mut store, _) = open(rig.disk.copy(), SMALL, Retention::default());
    assert_eq!(offsets(&store.read("a", 1, ALL).unwrap()), [1, 2]);
    rig.stop();
}

#[test]
fn a_read_that_fails_is_told() {
    let mut rig = Rig::new(SimDisk::new(3), SyncMode::Always);
    rig.append(0, "a", 1);
    rig.stored(0, "a", 1);
    rig.disk.set_faults(Faults { read: 1, ..Faults::default() });
    assert!(matches!(rig.read(0, "a", 1), LogAnswer::Unreadable { ticket: 99, .. }));
    assert_eq!(rig.metrics.total(Counter::StoreReadRefused), 1);
    rig.disk.set_faults(Faults::default());
    assert_eq!(read_offsets(&rig.read(0, "a", 1)), [1]);
    rig.stop();
}

#[test]
fn what_was_handed_over_before_the_stop_is_kept() {
    let mut rig = Rig::new(SimDisk::new(3), SyncMode::Interval(Duration::from_secs(1)));
    for offset in 1..=500 {
        rig.append(0, "a", offset);
    }
    let disk = rig.stop();
    let (mut store, notes) = open(disk, SMALL, Retention::default());
    assert_eq!(notes, []);
    assert_eq!(store.position("a").next, 501);
    assert_eq!(offsets(&store.read("a", 1, ALL).unwrap()).len(), 500);
}

/// A log whose clock stands still, and its one shard.
struct Still {
    log: Log<SimDisk>,
    port: Port,
    requests: LogPort,
}

impl Still {
    fn new(disk: &SimDisk, sync: SyncMode) -> Self {
        let wakers = vec![Waker::Simulated(Arc::new(AtomicBool::new(false)))];
        let (mut ports, control) = mesh::connect(wakers, 1 << 20);
        let (sender, inbox) = mesh::connect_log();
        let retention = Retention { records: 5, bytes: 0, age_ms: 0 };
        let (store, _) = open(disk.clone(), SMALL, retention);
        let clock = Clock { started: Instant::now(), unix_start: 1_000_000 };
        let (mailer, metrics) = (control.mailer(1 << 20), Metrics::new(1));
        let log = Log::new(store, inbox, mailer, metrics, sync, clock);
        Self { log, port: ports.remove(0), requests: sender.port() }
    }

    fn append(&mut self, offset: u64) {
        let (text, mut batch) = (data("a", offset, 10), LogBatch::default());
        batch.append(record(0, "a", offset, &text));
        self.requests.flush(&mut batch);
        self.log.turn_at(Duration::ZERO);
    }

    /// Turns until there is nothing to do at once.
    fn rest(&mut self) {
        for _ in 0..100 {
            if !self.log.timeout(Instant::now()).is_zero() {
                return;
            }
            self.log.turn_at(Duration::ZERO);
        }
        panic!("it never rests");
    }
}

#[test]
fn room_comes_back_as_files_fill() {
    let disk = SimDisk::new(5);
    let mut still = Still::new(&disk, SyncMode::Always);
    let mut served_again = 0;
    let mut waiting = 0;
    for offset in 1..=1000 {
        still.append(offset);
        assert!(still.port.receive().is_some(), "it is answered");
        let files = disk.list().unwrap();
        assert!(files.len() < 12, "{files:?}");
        let spares = files.iter().filter(|name| is_spare(name)).count();
        served_again += usize::from(spares < waiting);
        waiting = spares;
    }
    assert!(served_again > 5, "{served_again}");
}

/// While nothing can be cleaned it does not try again and again.
#[test]
fn it_rests_until_a_sync_is_due_or_a_failed_disk_is_tried_again() {
    let mut still = Still::new(&SimDisk::new(5), SyncMode::Interval(Duration::from_mins(1)));
    still.append(1);
    still.rest();
    let disk = SimDisk::new(5);
    let mut still = Still::new(&disk, SyncMode::Always);
    disk.set_faults(Faults { sync: 1, ..Faults::default() });
    still.append(1);
    still.rest();
}
