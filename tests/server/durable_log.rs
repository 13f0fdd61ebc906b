//! The durable log on a real disk: the server that owns it, the commands that look at it, and a
//! process that is killed while it writes.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use rustix::process::Signal;
use stentor::config::{Config, SyncMode};
use stentor::ids::{Epoch, ShardId, TopicName};
use stentor::io::Waker;
use stentor::log::{Clock, DurableLog};
use stentor::mesh::{self, LogPort, LogSender, Port};
use stentor::message::{LogAnswer, LogAppend, LogBatch, LogMessage, ShardMessage, Ticket};
use stentor::metrics::Metrics;

use crate::support::{Launch, PATIENCE, Random, Server, run, wait_until};

/// Tells the process that is killed where its log is.
const FOLDER: &str = "STENTOR_TEST_LOG_FOLDER";
const TOPICS: u64 = 5;

/// A log in this process, and the one shard that asks it.
struct Log {
    port: Port,
    log: LogPort,
    sender: LogSender,
    thread: JoinHandle<std::io::Result<()>>,
}

impl Log {
    fn open(folder: &Path, sync: SyncMode) -> Self {
        let mut config = Config::default();
        config.store.sync = sync;
        config.store.segment_size = 1 << 20;
        config.channels.history_size = 10_000_000;
        config.channels.history_bytes = 1 << 30;
        let waker = Waker::Simulated(Arc::new(AtomicBool::new(false)));
        let (mut ports, control) = mesh::connect(vec![waker], 64 << 20);
        let (sender, inbox) = mesh::connect_log();
        let durable = DurableLog::open(folder, &config, 0x5eed).expect("it opens");
        let clock = Clock { started: Instant::now(), unix_start: unix_ms() };
        let mailer = control.mailer(64 << 20);
        let thread = thread::spawn(move || durable.run(inbox, mailer, Metrics::new(1), clock));
        let port = ports.pop().expect("there is one");
        Self { port, log: sender.port(), sender, thread }
    }

    fn ask(&mut self, message: LogMessage) {
        let mut batch = LogBatch::default();
        batch.push(message);
        self.log.flush(&mut batch);
    }

    fn answer(&mut self) -> LogAnswer {
        let begin = Instant::now();
        loop {
            match self.port.receive() {
                Some(ShardMessage::Log(answer)) => return answer,
                Some(message) => panic!("{message:?}"),
                None => thread::yield_now(),
            }
            assert!(begin.elapsed() < PATIENCE, "no answer");
        }
    }

    fn position(&mut self, topic: &str) -> (Epoch, u64) {
        let (topic, ticket) = (TopicName::new(topic), Ticket { shard: ShardId(0), number: 0 });
        self.ask(LogMessage::Position { topic, ticket });
        match self.answer() {
            LogAnswer::Position { epoch, next, .. } => (epoch, next),
            answer => panic!("{answer:?}"),
        }
    }

    fn append(&mut self, topic: &str, epoch: Epoch, offset: u64) {
        let mut batch = LogBatch::default();
        batch.append(LogAppend {
            topic,
            epoch,
            offset,
            stored: offset - 1,
            time_ms: unix_ms(),
            message_id: None,
            data: &data(topic, offset),
            ticket: Ticket { shard: ShardId(0), number: offset },
        });
        self.log.flush(&mut batch);
    }

    /// Every offset of the topic, each with the data that it should have.
    fn check_topic(&mut self, name: &str) {
        let (_, end) = self.position(name);
        let mut next = 1;
        while next < end {
            let (topic, ticket) = (TopicName::new(name), Ticket { shard: ShardId(0), number: 0 });
            let (records_max, bytes_max) = (100_000, 1 << 20);
            self.ask(LogMessage::Read { topic, from: next, records_max, bytes_max, ticket });
            let LogAnswer::Read { slice, .. } = self.answer() else { panic!("unreadable") };
            assert_eq!(slice.missing, None);
            for record in &slice.records {
                assert_eq!(record.offset, next);
                assert_eq!(record.data, data(name, next));
                next += 1;
            }
        }
    }

    fn close(self) {
        self.sender.stop();
        self.thread.join().expect("no panics").expect("it ends in order");
    }
}

fn data(topic: &str, offset: u64) -> Bytes {
    let length = (offset * 37 % 400) as usize;
    Bytes::from(format!("\"{topic} {offset} {}\"", "x".repeat(length)))
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later").as_millis() as u64
}

fn topic(index: u64) -> String {
    format!("room:{index}")
}

/// The process that [`a_killed_process_loses_nothing_it_acknowledged`] starts and kills: publishes
/// as fast as it can, and prints what was acknowledged.
#[test]
#[ignore = "a part of another test"]
fn the_process_that_is_killed() {
    let folder =
        PathBuf::from(std::env::var_os(FOLDER).expect("the test that starts it says where"));
    let mut log = Log::open(&folder, SyncMode::Always);
    let names: Vec<String> = (0..TOPICS).map(topic).collect();
    let mut positions: Vec<(Epoch, u64)> = names.iter().map(|name| log.position(name)).collect();
    let mut kept: Vec<u64> = positions.iter().map(|(_, next)| next - 1).collect();
    loop {
        for (name, (epoch, next)) in names.iter().zip(&mut positions) {
            for _ in 0..20 {
                log.append(name, *epoch, *next);
                *next += 1;
            }
        }
        let in_flight = |kept: &[u64]| {
            let offered: u64 = positions.iter().map(|(_, next)| next - 1).sum();
            offered - kept.iter().sum::<u64>()
        };
        while in_flight(&kept) > 300 {
            let LogAnswer::Stored { topic, upto, .. } = log.answer() else { panic!("refused") };
            println!("kept {} {upto}", &*topic);
            let place = names.iter().position(|name| **name == *topic).expect("one of ours");
            kept[place] = upto;
        }
    }
}

fn start_victim(folder: &Path) -> Child {
    let program = std::env::current_exe().expect("this test");
    let mut command = Command::new(program);
    command.args([
        "--exact",
        "durable_log::the_process_that_is_killed",
        "--ignored",
        "--nocapture",
    ]);
    command.env(FOLDER, folder).stdout(Stdio::piped()).stderr(Stdio::null());
    command.spawn().expect("it starts")
}

#[test]
fn a_killed_process_loses_nothing_it_acknowledged() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path().join("store");
    let mut random = Random::new(5);
    let mut kept = [0; TOPICS as usize];
    let mut epochs = None;
    for round in 0..10 {
        let mut victim = start_victim(&folder);
        let lines = BufReader::new(victim.stdout.take().expect("it is piped")).lines();
        let mut acknowledged = 20 + random.below(400);
        for line in lines {
            let Ok(line) = line else { break };
            let Some(rest) = line.strip_prefix("kept room:") else { continue };
            let (index, upto) = rest.split_once(' ').expect("two numbers");
            let (index, upto): (usize, u64) =
                (index.parse().expect("a number"), upto.parse().expect("a number"));
            assert!(upto > kept[index], "round {round}: {upto} after {}", kept[index]);
            kept[index] = upto;
            acknowledged -= 1;
            if acknowledged == 0 {
                victim.kill().expect("it runs");
            }
            acknowledged = acknowledged.max(1);
        }
        victim.wait().expect("it is our child");
        let report = run(&["log", "verify", folder.to_str().expect("text")]);
        assert!(report.status.success(), "{report:?}");
        let mut log = Log::open(&folder, SyncMode::Always);
        let names: Vec<String> = (0..TOPICS).map(topic).collect();
        let positions: Vec<_> = names.iter().map(|name| log.position(name)).collect();
        let now: Vec<Epoch> = positions.iter().map(|(epoch, _)| *epoch).collect();
        assert_eq!(*epochs.get_or_insert(now.clone()), now, "an epoch has changed");
        for (name, ((_, next), kept)) in names.iter().zip(positions.iter().zip(&mut kept)) {
            assert!(*next > *kept, "round {round}: {name} has lost {} to {kept}", next);
            log.check_topic(name);
            // What came through without an acknowledgement counts from now on.
            *kept = next - 1;
        }
        log.close();
    }
    assert!(kept.iter().sum::<u64>() > 1000, "{kept:?}");
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A store with publications, in order and closed.
fn filled(folder: &Path) {
    let mut log = Log::open(folder, SyncMode::Always);
    for name in ["news", "chat:lobby"] {
        let (epoch, _) = log.position(name);
        for offset in 1..=10 {
            log.append(name, epoch, offset);
        }
        while !matches!(log.answer(), LogAnswer::Stored { upto: 10, .. }) {}
    }
    log.close();
}

#[track_caller]
fn expect_refusal(folder: &Path, words: &[&str]) {
    let launch = Launch::new(&["--store", folder.to_str().expect("text")]);
    let output = launch.try_start().map(drop).expect_err("it does not start");
    assert_eq!(output.status.code(), Some(1));
    let stderr = text(&output.stderr);
    for word in words.iter().chain(&[folder.to_str().expect("text")]) {
        assert!(stderr.contains(word), "{stderr} does not say {word}");
    }
}

fn wait_for_line(server: &Server, words: &str) {
    server
        .log
        .wait_for(0, |line| line["message"].as_str().is_some_and(|text| text.contains(words)));
}

#[test]
fn a_server_owns_its_log_and_ends_it_in_order() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path().join("below").join("store");
    let path = folder.to_str().expect("text");
    let mut server = Server::start(&["--store", path]);
    wait_until("the log runs", || server.find_thread("stentor-log").is_some());
    expect_refusal(&folder, &["another process uses it"]);
    for command in ["verify", "stats"] {
        let output = run(&["log", command, path]);
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).contains("another process uses it"), "{output:?}");
    }
    server.signal(Signal::TERM);
    assert_eq!(server.wait_for_exit(PATIENCE).code(), Some(0));
    let output = run(&["log", "verify", path]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(text(&output.stdout).contains(": ok; 0 channels"), "{output:?}");
    filled(&folder);
    let mut server = Server::start(&["--store", path]);
    server.signal(Signal::KILL);
    server.wait_for_exit(PATIENCE);
    // The lock of a killed server is nobody's.
    let mut server = Server::start(&["--store", path]);
    server.signal(Signal::TERM);
    assert_eq!(server.wait_for_exit(PATIENCE).code(), Some(0));
    let output = run(&["log", "stats", path]);
    let stats = text(&output.stdout);
    assert!(stats.contains("2 channels, 20 publications"), "{stats}");
    assert!(stats.contains("news\t10 publications"), "{stats}");
    assert!(stats.contains("offsets 1-10"), "{stats}");
}

#[test]
fn a_folder_of_somebody_else_stays_as_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("precious.txt");
    fs::write(&file, "precious").expect("it is ours");
    expect_refusal(folder.path(), &["other files", "nothing was changed"]);
    let names: Vec<_> = fs::read_dir(folder.path()).expect("it is there").collect();
    assert_eq!(names.len(), 1);
    assert_eq!(fs::read_to_string(&file).expect("it is there"), "precious");
    expect_refusal(&file, &["cannot be had"]);
    // Where nobody may write, root neither.
    expect_refusal(Path::new("/proc/stentor"), &["cannot be had"]);
    for path in [folder.path(), &file, Path::new("/does/not/exist")] {
        let path = path.to_str().expect("text");
        let output = run(&["log", "verify", path]);
        assert_eq!(output.status.code(), Some(1));
        let stderr = text(&output.stderr);
        assert!(stderr.contains("there is no log in it") && stderr.contains(path), "{stderr}");
    }
}

/// The first segment and what it holds; nothing else tells it any more.
fn without_index(folder: &Path) -> (PathBuf, Vec<u8>) {
    fs::remove_file(folder.join("0000000001.index")).expect("it is there");
    let segment = folder.join("0000000001.log");
    let bytes = fs::read(&segment).expect("it is there");
    (segment, bytes)
}

#[test]
fn damage_is_named_and_the_server_starts_all_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path().join("store");
    let path = folder.to_str().expect("text");
    filled(&folder);
    let (segment, mut bytes) = without_index(&folder);
    let wanted = data("news", 5);
    let at = bytes.windows(wanted.len()).position(|window| window == wanted).expect("it is there");
    bytes[at + 3] ^= 4;
    fs::write(&segment, &bytes).expect("it is ours");
    let output = run(&["log", "verify", path]);
    assert_eq!(output.status.code(), Some(1));
    let stderr = text(&output.stderr);
    assert!(stderr.contains("0000000001.log: bytes"), "{stderr}");
    assert!(stderr.contains("channel news: offsets 5 to 5 are missing"), "{stderr}");
    assert!(text(&output.stdout).contains("2 problems; 2 channels, 19 publications"), "{output:?}");
    let mut server = Server::start(&["--store", path]);
    wait_for_line(&server, "0000000001.log: bytes");
    server.signal(Signal::TERM);
    assert_eq!(server.wait_for_exit(PATIENCE).code(), Some(0));
    let mut log = Log::open(&folder, SyncMode::Always);
    log.check_topic("chat:lobby");
    let (topic, ticket) = (TopicName::new("news"), Ticket { shard: ShardId(0), number: 0 });
    let (records_max, bytes_max) = (100, 1 << 20);
    log.ask(LogMessage::Read { topic, from: 5, records_max, bytes_max, ticket });
    let LogAnswer::Read { slice, .. } = log.answer() else { panic!("unreadable") };
    let missing = slice.missing.expect("it is damaged");
    assert_eq!((missing.from, missing.to, slice.records.len()), (5, 5, 5));
    log.close();
}

#[test]
fn an_unfinished_write_is_cut_and_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path().join("store");
    let path = folder.to_str().expect("text");
    filled(&folder);
    let (segment, bytes) = without_index(&folder);
    fs::write(&segment, &bytes[..bytes.len() - 3]).expect("it is ours");
    let output = run(&["log", "verify", path]);
    assert_eq!(output.status.code(), Some(0), "an unfinished write is no loss: {output:?}");
    assert!(text(&output.stderr).contains("unfinished write"), "{output:?}");
    let mut server = Server::start(&["--store", path]);
    wait_for_line(&server, "of an unfinished write");
    server.signal(Signal::TERM);
    server.wait_for_exit(PATIENCE);
    let output = run(&["log", "verify", path]);
    assert_eq!(text(&output.stderr), "", "it was cut");
    // Time for a second file, so that nothing depends on the first being the last.
    filled_further(&folder);
    assert_eq!(run(&["log", "verify", path]).status.code(), Some(0));
}

fn filled_further(folder: &Path) {
    let mut log = Log::open(folder, SyncMode::Interval(Duration::from_millis(5)));
    let (epoch, next) = log.position("news");
    log.append("news", epoch, next);
    assert!(matches!(log.answer(), LogAnswer::Stored { upto, .. } if upto == next));
    log.close();
}
