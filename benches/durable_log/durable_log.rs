//! The durable log beside a bare loop of append and sync on the same disk, and a replay:
//! `cargo run --release --example durable_log [FOLDER]`. Takes some 20 s and 1 GiB of the disk of
//! FOLDER, a new folder in which everything is removed again; without one, of the system's place for
//! such. With `--bare`, in front of FOLDER, only the loop's records a second are printed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use stentor::config::{Config, SyncMode};
use stentor::ids::{Epoch, ShardId, TopicName};
use stentor::io::Waker;
use stentor::log::{Clock, DurableLog};
use stentor::mesh::{self, LogPort, LogSender, Port};
use stentor::message::{LogAnswer, LogAppend, LogBatch, LogMessage, ShardMessage, Ticket};
use stentor::metrics::{Counter, Metrics};

const PUBLISHERS: usize = 64;
const IN_FLIGHT: u64 = 16;
/// Bytes of one publication.
const DATA: usize = 256;
/// Bytes of one as the log writes it: a head, the channel's name, the data.
const RECORD: usize = 40 + 8 + DATA;
const TIME: Duration = Duration::from_secs(4);
const REPLAYED: u64 = 1_000_000;

struct Log {
    port: Port,
    log: LogPort,
    batch: LogBatch,
    sender: LogSender,
    metrics: Metrics,
    thread: thread::JoinHandle<std::io::Result<()>>,
}

impl Log {
    fn open(folder: &Path, sync: SyncMode) -> Self {
        let mut config = Config::default();
        config.store.sync = sync;
        config.channels.history_size = 100_000_000;
        config.channels.history_bytes = 1 << 40;
        config.channels.history_ttl = Duration::from_hours(1);
        let waker = Waker::Simulated(Arc::new(AtomicBool::new(false)));
        let (mut ports, control) = mesh::connect(vec![waker], 64 << 20);
        let (sender, inbox) = mesh::connect_log();
        let durable = DurableLog::open(folder, &config, 1).expect("it opens");
        let metrics = Metrics::new(1);
        let counted = metrics.clone();
        let clock = Clock { started: Instant::now(), unix_start: 1_000_000 };
        let mailer = control.mailer(64 << 20);
        let thread = thread::spawn(move || durable.run(inbox, mailer, counted, clock));
        let port = ports.pop().expect("there is one");
        Self { port, log: sender.port(), batch: LogBatch::default(), sender, metrics, thread }
    }

    fn append(&mut self, topic: &TopicName, offset: u64, data: &[u8]) {
        self.batch.append(LogAppend {
            topic,
            epoch: Epoch(1),
            offset,
            stored: offset - 1,
            time_ms: 1_000_000,
            message_id: None,
            data,
            ticket: Ticket { shard: ShardId(0), number: offset },
        });
        self.log.offer(&mut self.batch);
    }

    fn flush(&mut self) {
        self.log.flush(&mut self.batch);
    }

    /// Waits without a turn of its own, as a shard that sleeps does.
    fn answer(&mut self) -> LogAnswer {
        loop {
            match self.port.receive() {
                Some(ShardMessage::Log(answer)) => return answer,
                Some(other) => panic!("{other:?}"),
                None => thread::sleep(Duration::from_micros(20)),
            }
        }
    }

    fn close(self) {
        self.sender.stop();
        self.thread.join().expect("no panics").expect("it ends in order");
    }
}

/// Batches of `records`, each written at the end of a file and synced; records a second.
fn bare(folder: &Path, records: usize) -> f64 {
    let mut file = File::create(folder.join("bare")).expect("a file");
    let batch = vec![b'x'; records * RECORD];
    let begin = Instant::now();
    let mut count = 0;
    while begin.elapsed() < TIME {
        file.write_all(&batch).expect("room");
        file.sync_data().expect("a sync");
        count += records;
    }
    let rate = count as f64 / begin.elapsed().as_secs_f64();
    std::fs::remove_file(folder.join("bare")).expect("it is there");
    rate
}

/// Publishers with so many in flight each, on a channel each: publications a second, and how many a
/// batch had.
fn durable(folder: &Path) -> (f64, f64) {
    let mut log = Log::open(folder, SyncMode::Always);
    let topics: Vec<_> =
        (0..PUBLISHERS).map(|index| TopicName::new(&format!("topic:{index:02}"))).collect();
    let places: BTreeMap<_, _> = topics.iter().cloned().zip(0..).collect();
    let data = vec![b'7'; DATA];
    let mut next = vec![1; PUBLISHERS];
    for (topic, next) in topics.iter().zip(&mut next) {
        for _ in 0..IN_FLIGHT {
            log.append(topic, *next, &data);
            *next += 1;
        }
    }
    log.flush();
    let begin = Instant::now();
    let mut kept = 0;
    let mut waiting = PUBLISHERS as u64 * IN_FLIGHT;
    while waiting > 0 {
        let mut answer = Some(log.answer());
        while let Some(now) = answer {
            let LogAnswer::Stored { topic, upto, .. } = now else { panic!("{now:?}") };
            let place: usize = places[&topic];
            let settled = upto + 1 + IN_FLIGHT - next[place];
            kept += settled;
            waiting -= settled;
            if begin.elapsed() < TIME {
                for _ in 0..settled {
                    log.append(&topics[place], next[place], &data);
                    next[place] += 1;
                }
                waiting += settled;
            } else {
                next[place] += settled;
            }
            answer = log.port.receive().map(|message| match message {
                ShardMessage::Log(answer) => answer,
                other => panic!("{other:?}"),
            });
        }
        log.flush();
    }
    let rate = kept as f64 / begin.elapsed().as_secs_f64();
    let batch = kept as f64 / log.metrics.total(Counter::StoreBatches) as f64;
    log.close();
    (rate, batch)
}

/// One reader that asks for 256 KiB at a time; publications a second.
fn replay(folder: &Path) -> f64 {
    let mut log = Log::open(folder, SyncMode::Os);
    let topic = TopicName::new("replayed");
    let data = vec![b'7'; DATA];
    let mut kept = 0;
    for first in (1..=REPLAYED).step_by(10_000) {
        for offset in first..first + 10_000 {
            log.append(&topic, offset, &data);
        }
        log.flush();
        while kept < first + 9_999 {
            let LogAnswer::Stored { upto, .. } = log.answer() else { panic!("it is refused") };
            kept = upto;
        }
    }
    let begin = Instant::now();
    let mut next = 1;
    while next <= REPLAYED {
        let (records_max, bytes_max) = (u32::MAX, 256 << 10);
        let (topic, ticket) = (topic.clone(), Ticket { shard: ShardId(0), number: 0 });
        let read = LogMessage::Read { topic, from: next, records_max, bytes_max, ticket };
        log.batch.push(read);
        log.flush();
        let LogAnswer::Read { slice, .. } = log.answer() else { panic!("it is unreadable") };
        assert_eq!(slice.missing, None);
        for record in &slice.records {
            assert_eq!((record.offset, record.data.len()), (next, DATA));
            next += 1;
        }
    }
    let rate = REPLAYED as f64 / begin.elapsed().as_secs_f64();
    log.close();
    rate
}

fn main() {
    let mut arguments = std::env::args_os().skip(1).peekable();
    let only_bare = arguments.next_if(|argument| argument == "--bare").is_some();
    let folder = match arguments.next() {
        Some(folder) => tempfile::tempdir_in(folder),
        None => tempfile::tempdir(),
    }
    .expect("a folder");
    let at_once = PUBLISHERS * IN_FLIGHT as usize;
    if only_bare {
        println!("{:.0}", bare(folder.path(), at_once));
        return;
    }
    // Disks have moods: the log has to do with the better one of the loop's.
    let before = bare(folder.path(), at_once);
    let (rate, batch) = durable(&folder.path().join("store"));
    let after = bare(folder.path(), at_once);
    println!("bare loop, {at_once} records of {RECORD} B a batch: {before:.0}/s, {after:.0}/s");
    println!(
        "durable log, {PUBLISHERS} publishers with {IN_FLIGHT} in flight: {rate:.0}/s, {batch:.0} \
         a batch: {:.0} %",
        rate / before.max(after) * 100.0
    );
    let rate = replay(&folder.path().join("replay"));
    println!("replay of {REPLAYED} publications of {DATA} B: {rate:.0}/s");
}
