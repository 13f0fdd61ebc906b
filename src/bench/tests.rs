//! The scenarios against a server that can lose, repeat, reorder, change and misroute on purpose: each
//! must be noticed, and nothing else be seen.

mod histories;
mod keeper;

use super::acked;
use super::audience::{Shape, StoppedFate};
use super::broadcast::{Broadcast, BroadcastPlan, Finish, Pace};
use super::clock::Clock;
use super::conditions::Conditions;
use super::connect::{self, ConnectPlan};
use super::cost::ServerProcess;
use super::echo::{self, EchoPlan};
use super::fanout;
use super::fleet::FleetOptions;
use super::idle::{self, IdlePlan};
use super::ledger::Faults;
use super::probe::Probing;
use super::slow::{self, SlowPlan};
use super::summary::Summary;
use super::target::{Dialect, Target};
use super::team;
use crate::proto::OpCode;
use crate::proto::encoder::payload_frame;
use std::io::Write;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// One publication, or one echo, in this many is treated badly.
const MISCHIEF_EVERY: usize = 25;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mischief {
    None,
    Lose,
    Repeat,
    /// One is sent behind the next.
    Reorder,
    /// One bit is turned.
    Corrupt,
    /// To a subscriber of another topic.
    Misroute,
    /// Something that nobody has published.
    Invent,
    /// The connection ends.
    Cut,
}

/// A server of the `raw` dialect, a thread for each connection.
struct Scoundrel {
    mischief: Mischief,
    /// Harms the last subscriber once this is set; `None`: the first, at once.
    late: Option<Arc<AtomicBool>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Topic and socket of each subscriber.
    subscribers: Vec<(usize, TcpStream)>,
    messages: usize,
    /// Waits for the next one of its subscriber.
    held: Option<(usize, Vec<u8>)>,
}

/// Starts one; it lives as long as the test's process.
fn scoundrel(mischief: Mischief) -> String {
    scoundrel_with(mischief, None)
}

fn scoundrel_with(mischief: Mischief, late: Option<Arc<AtomicBool>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let server = Arc::new(Scoundrel { mischief, late, state: Mutex::default() });
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let server = Arc::clone(&server);
            thread::spawn(move || server.serve(stream));
        }
    });
    url
}

impl Scoundrel {
    fn serve(&self, stream: TcpStream) {
        stream.set_nodelay(true).unwrap();
        let Ok(mut socket) = tungstenite::accept(stream.try_clone().unwrap()) else { return };
        while let Ok(message) = socket.read() {
            if message.is_close() {
                return;
            }
            let text = message.into_text().unwrap();
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(topic) = text.strip_prefix('+') {
                state.subscribers.push((topic.parse().unwrap(), stream.try_clone().unwrap()));
                send(&stream, text.as_bytes());
            } else if let Some(publication) = text.strip_prefix('=') {
                let (topic, body) = publication.split_once(' ').unwrap();
                self.publish(&mut state, topic.parse().unwrap(), body.as_bytes());
            } else {
                state.messages += 1;
                let bad = state.messages.is_multiple_of(MISCHIEF_EVERY);
                match self.mischief {
                    Mischief::Lose if bad => {}
                    Mischief::Repeat if bad => {
                        send(&stream, text.as_bytes());
                        send(&stream, text.as_bytes());
                    }
                    _ => send(&stream, text.as_bytes()),
                }
            }
        }
    }

    fn publish(&self, state: &mut State, topic: usize, body: &[u8]) {
        state.messages += 1;
        let bad = state.messages.is_multiple_of(MISCHIEF_EVERY);
        let is_here = |(subscribed, _): &(usize, TcpStream)| *subscribed == topic;
        let victim = match &self.late {
            None => state.subscribers.iter().position(is_here),
            Some(late) if late.load(Ordering::Acquire) => {
                state.subscribers.iter().rposition(is_here)
            }
            Some(_) => None,
        };
        for (index, (subscribed, stream)) in state.subscribers.iter().enumerate() {
            if *subscribed != topic {
                if bad && self.mischief == Mischief::Misroute {
                    send(stream, body);
                }
                continue;
            }
            if !bad || victim != Some(index) {
                send(stream, body);
                if state.held.as_ref().is_some_and(|(held, _)| *held == index) {
                    let (_, late) = state.held.take().unwrap();
                    send(stream, &late);
                }
                continue;
            }
            match self.mischief {
                Mischief::None | Mischief::Misroute => send(stream, body),
                Mischief::Lose => {}
                Mischief::Repeat => {
                    send(stream, body);
                    send(stream, body);
                }
                Mischief::Reorder => state.held = Some((index, body.to_vec())),
                Mischief::Corrupt => {
                    let mut body = body.to_vec();
                    let last = body.len() - 4;
                    body[last] ^= 1;
                    send(stream, &body);
                }
                Mischief::Invent => {
                    send(stream, body);
                    send(stream, br#"{"type":"error"}"#);
                }
                Mischief::Cut => drop(stream.shutdown(Shutdown::Both)),
            }
        }
    }
}

fn send(mut stream: &TcpStream, payload: &[u8]) {
    // Whoever is gone misses it.
    drop(stream.write_all(&payload_frame(OpCode::Text, payload)));
}

/// A server at `url`, and this process as its own.
pub fn conditions(url: &str) -> Conditions {
    Conditions {
        target: Target::new(url, &Dialect::raw(), 7).unwrap(),
        url: url.to_string(),
        server: Some(ServerProcess::new(std::process::id()).unwrap()),
        threads: 1,
        pin: None,
        warmup: Duration::from_millis(50),
        duration: Duration::from_millis(300),
        // Two threads of a test share a core with many others.
        spin: Some(false),
        fleet: FleetOptions::default(),
        concurrency: 8,
        progress: false,
        clock: Clock::start(),
    }
}

fn by(threads: usize, url: &str) -> Conditions {
    Conditions { threads, ..conditions(url) }
}

fn broadcast(mischief: Mischief, pace: Pace) -> Summary {
    broadcast_from(2, mischief, pace)
}

fn broadcast_from(publishers: usize, mischief: Mischief, pace: Pace) -> Summary {
    broadcast_by(1, publishers, mischief, pace)
}

fn broadcast_by(threads: usize, publishers: usize, mischief: Mischief, pace: Pace) -> Summary {
    let plan = BroadcastPlan {
        shape: Shape { publishers, topics: 2, subscribers: 5 },
        data_bytes: 80,
        pace,
        probing: None,
    };
    fanout::run("fanout", &by(threads, &scoundrel(mischief)), plan).unwrap()
}

fn figure(summary: &Summary, name: &str) -> f64 {
    summary.figures.iter().find(|figure| figure.name == name).unwrap().value
}

const OPEN: Pace = Pace::Rate(1000.0);

#[test]
fn an_honest_server_has_no_faults() {
    for pace in [OPEN, Pace::Window(1), Pace::Window(8)] {
        let summary = broadcast(Mischief::None, pace);
        assert_eq!(summary.faults, Faults::default(), "{:?}", summary.notes);
        assert!(figure(&summary, "deliveries") > 100.0);
        assert!(figure(&summary, "cpu_per_delivery") >= 0.0);
        assert!(!summary.throughput.is_empty());
    }
}

#[test]
fn losses_are_noticed() {
    let faults = broadcast(Mischief::Lose, OPEN).faults;
    assert!(faults.lost > 5, "{faults:?}");
    assert_eq!(Faults { lost: 0, ..faults }, Faults::default());
}

#[test]
fn a_closed_loop_goes_on_behind_a_loss() {
    let faults = broadcast(Mischief::Lose, Pace::Window(2)).faults;
    assert!(faults.lost > 0, "{faults:?}");
    assert_eq!(Faults { lost: 0, ..faults }, Faults::default());
}

#[test]
fn repetitions_are_noticed() {
    for pace in [OPEN, Pace::Window(4)] {
        let faults = broadcast(Mischief::Repeat, pace).faults;
        assert!(faults.repeated > 5, "{faults:?}");
        assert_eq!(Faults { repeated: 0, ..faults }, Faults::default());
    }
}

#[test]
fn wrong_order_is_noticed() {
    let faults = broadcast_from(1, Mischief::Reorder, OPEN).faults;
    // The last one held may never be followed by another.
    assert!(faults.reordered > 5 && faults.lost <= 1, "{faults:?}");
    assert_eq!(Faults { reordered: 0, lost: 0, ..faults }, Faults::default());
}

#[test]
fn an_order_that_is_not_everybodys_is_noticed() {
    // Of two publishers in turn: each of them is still in order, unless one was late.
    let faults = broadcast(Mischief::Reorder, OPEN).faults;
    assert!(faults.disagreeing + faults.reordered + faults.lost > 0, "{faults:?}");
    let others = Faults { disagreeing: 0, reordered: 0, lost: 0, ..faults };
    assert_eq!(others, Faults::default());
}

#[test]
fn changed_bytes_are_noticed() {
    let faults = broadcast(Mischief::Corrupt, OPEN).faults;
    assert!(faults.corrupt > 5, "{faults:?}");
    // What came changed has not come.
    assert_eq!(Faults { corrupt: 0, lost: 0, ..faults }, Faults::default());
    assert_eq!(faults.corrupt, faults.lost);
}

#[test]
fn the_wrong_topic_and_the_unexpected_are_noticed() {
    let faults = broadcast(Mischief::Misroute, OPEN).faults;
    assert!(faults.misrouted > 5, "{faults:?}");
    assert_eq!(Faults { misrouted: 0, ..faults }, Faults::default());

    let summary = broadcast(Mischief::Invent, OPEN);
    let faults = summary.faults;
    assert!(faults.unexpected > 5, "{faults:?}");
    assert_eq!(Faults { unexpected: 0, ..faults }, Faults::default());
    let note = r#"unexpected: {"type":"error"}"#;
    assert!(summary.notes.iter().any(|text| text == note), "{:?}", summary.notes);
}

#[test]
fn an_ended_connection_is_noticed() {
    let summary = broadcast(Mischief::Cut, OPEN);
    assert!(summary.faults.disconnected > 0 && summary.faults.lost > 0, "{:?}", summary.faults);
    assert!(!summary.notes.is_empty());
}

#[test]
fn echoes_are_proven_too() {
    let run = |mischief, window, message_bytes| {
        let plan = EchoPlan { connections: 3, window, message_bytes };
        echo::run(&conditions(&scoundrel(mischief)), plan).unwrap()
    };
    for message_bytes in [None, Some(64)] {
        let summary = run(Mischief::None, 2, message_bytes);
        assert_eq!(summary.faults, Faults::default());
        assert!(figure(&summary, "round_trips") > 100.0);
    }
    let faults = run(Mischief::Lose, 4, Some(100)).faults;
    assert!(faults.lost > 0, "{faults:?}");
    let faults = run(Mischief::Repeat, 4, Some(100)).faults;
    assert!(faults.repeated > 0, "{faults:?}");
}

#[test]
fn the_other_scenarios_run() {
    let conditions = conditions(&scoundrel(Mischief::None));
    let summary = connect::run(&conditions, ConnectPlan { concurrency: 4, storm: None }).unwrap();
    assert_eq!(summary.faults, Faults::default(), "{:?}", summary.notes);
    assert!(figure(&summary, "handshakes") > 10.0);

    let storm = ConnectPlan { concurrency: 4, storm: Some(20) };
    let summary = connect::run(&conditions, storm).unwrap();
    assert_eq!(figure(&summary, "handshakes"), 20.0);

    let summary = idle::run(&conditions, IdlePlan { connections: 20, topics: 3 }).unwrap();
    assert_eq!(summary.faults, Faults::default());
    // At most eight of them come between two looks.
    assert!(summary.memory.len() > 3, "{:?}", summary.memory);
}

#[test]
fn probes_and_stopped_readers_run() {
    let conditions = conditions(&scoundrel(Mischief::None));
    let plan = BroadcastPlan {
        shape: Shape { publishers: 1, topics: 1, subscribers: 3 },
        data_bytes: 64,
        pace: Pace::Window(1),
        probing: Some(Probing { connections: 2, rate: 200.0 }),
    };
    let summary = fanout::run("fanout", &conditions, plan).unwrap();
    let ping = summary.latencies.iter().find(|latency| latency.name == "ping").unwrap();
    assert!(ping.count > 10);

    let plan = SlowPlan { subscribers: 4, stopped: 1, data_bytes: 100, rate: 200.0 };
    let summary = slow::run(&conditions, plan).unwrap();
    assert_eq!(summary.faults, Faults::default(), "{:?}", summary.notes);
    assert!(figure(&summary, "p99_ratio") > 0.0);
    assert_eq!(figure(&summary, "stopped_caught_up"), 1.0);
    assert_eq!(figure(&summary, "stopped_missed"), 0.0);
}

/// Every one that was counted has its latency and its place in time.
#[track_caller]
fn expect_sums(summary: &Summary, things: &str) {
    assert_eq!(summary.faults, Faults::default(), "{:?}", summary.notes);
    assert!(summary.parameters.contains(&("threads", "2".to_string())));
    let count = figure(summary, things);
    let latency = summary.latencies.iter().find(|latency| latency.name == "latency").unwrap();
    assert_eq!(latency.count as f64, count);
    let seen: f64 = summary.throughput.iter().map(|(_, rate)| rate / 10.0).sum();
    assert!(count > 10.0 && seen.round() <= count, "{seen} of {count}");
    let seconds = figure(summary, "seconds");
    assert!(seconds > 0.2 && figure(summary, "server_cores") > 0.0, "{seconds}");
}

#[test]
fn threads_divide_the_connections() {
    let conditions = by(2, &scoundrel(Mischief::None));
    for message_bytes in [None, Some(64)] {
        let plan = EchoPlan { connections: 5, window: 2, message_bytes };
        expect_sums(&echo::run(&conditions, plan).unwrap(), "round_trips");
    }
    let plan = ConnectPlan { concurrency: 5, storm: None };
    expect_sums(&connect::run(&conditions, plan).unwrap(), "handshakes");

    let summary = connect::run(&conditions, ConnectPlan { concurrency: 2, storm: Some(21) });
    let summary = summary.unwrap();
    assert_eq!(figure(&summary, "handshakes"), 21.0);
    assert_eq!(summary.faults, Faults::default(), "{:?}", summary.notes);

    let summary = idle::run(&conditions, IdlePlan { connections: 21, topics: 3 }).unwrap();
    assert_eq!(summary.faults, Faults::default());
    assert!(summary.memory.iter().all(|(connections, _)| *connections <= 21.0));
    assert!(summary.memory.len() > 2, "{:?}", summary.memory);
}

#[test]
fn threads_divide_the_channels() {
    for pace in [OPEN, Pace::Window(2)] {
        let summary = broadcast_by(2, 3, Mischief::None, pace);
        expect_sums(&summary, "deliveries");
    }
    // Of all threads together, not of each.
    let summary = broadcast_by(2, 2, Mischief::None, Pace::Rate(400.0));
    let rate = figure(&summary, "publications_per_second");
    assert!(rate > 0.0 && rate < 600.0, "{rate}");
}

#[test]
fn faults_are_noticed_on_every_thread() {
    let faults = broadcast_by(2, 2, Mischief::Lose, OPEN).faults;
    assert!(faults.lost > 5, "{faults:?}");
    assert_eq!(Faults { lost: 0, ..faults }, Faults::default());
    // The other topic is the other thread's: what is astray looks right but for its number.
    for pace in [OPEN, Pace::Window(2)] {
        let faults = broadcast_by(2, 2, Mischief::Misroute, pace).faults;
        assert!(faults.misrouted > 5, "{faults:?}");
        assert_eq!(Faults { misrouted: 0, ..faults }, Faults::default());
    }
    let plan = EchoPlan { connections: 4, window: 4, message_bytes: Some(100) };
    let faults = echo::run(&by(2, &scoundrel(Mischief::Lose)), plan).unwrap().faults;
    assert!(faults.lost > 0, "{faults:?}");
    assert_eq!(Faults { lost: 0, ..faults }, Faults::default());
    let summary = broadcast_by(2, 2, Mischief::Cut, OPEN);
    assert!(summary.faults.disconnected > 0 && summary.faults.lost > 0, "{:?}", summary.faults);
}

#[test]
fn what_cannot_be_divided_is_refused() {
    let conditions = by(2, "ws://127.0.0.1:1");
    let refusal = |outcome: std::io::Result<Summary>| outcome.unwrap_err().to_string();
    let fanout = |publishers, topics| {
        let shape = Shape { publishers, topics, subscribers: 5 };
        let (pace, probing) = (OPEN, None);
        let plan = BroadcastPlan { shape, data_bytes: 64, pace, probing };
        refusal(fanout::run("fanout", &conditions, plan))
    };
    let text =
        "--threads 2 needs --topics 2 or more: one thread proves all subscribers of a channel";
    assert_eq!(fanout(2, 1), text);
    let text = "--threads 2 needs --publishers 2 or more: each thread has its own channels";
    assert_eq!(fanout(1, 2), text);
    let plan = EchoPlan { connections: 1, window: 1, message_bytes: None };
    let text = "--threads 2 needs --connections 2 or more: each thread has its own";
    assert_eq!(refusal(echo::run(&conditions, plan)), text);
    let plan = SlowPlan { subscribers: 4, stopped: 1, data_bytes: 100, rate: 200.0 };
    let text = "--threads: the one channel of this scenario is proved by one thread";
    assert_eq!(refusal(slow::run(&conditions, plan)), text);
}

/// The last of four subscribers has stopped when the mischief, which is its own, begins.
fn stopped_reader(mischief: Mischief) -> Finish {
    let late = Arc::new(AtomicBool::new(false));
    let url = scoundrel_with(mischief, Some(Arc::clone(&late)));
    // One after the other: the last subscriber is the server's last, too.
    let conditions = Conditions { concurrency: 1, ..conditions(&url) };
    let shape = Shape { publishers: 1, topics: 1, subscribers: 4 };
    let plan = BroadcastPlan { shape, data_bytes: 100, pace: OPEN, probing: None };
    let finishes = team::run(&conditions, |member| {
        let mut broadcast = Broadcast::assemble(member, plan)?;
        let begin_ns = broadcast.warm_up()?;
        broadcast.stop_reading(1);
        late.store(true, Ordering::Release);
        broadcast.measure(begin_ns)?;
        broadcast.finish()
    });
    finishes.unwrap().remove(0)
}

#[test]
fn the_fate_of_stopped_readers_is_told() {
    let Finish { faults, stopped, .. } = stopped_reader(Mischief::None);
    assert_eq!(stopped, StoppedFate { caught_up: 1, ..StoppedFate::default() });
    assert_eq!(faults, Faults::default());

    // Dropped for a slow consumer: no fault.
    let Finish { faults, stopped, .. } = stopped_reader(Mischief::Lose);
    assert!(stopped.missed > 5, "{stopped:?}");
    assert_eq!(stopped, StoppedFate { gap: 1, missed: stopped.missed, ..StoppedFate::default() });
    assert_eq!(faults, Faults::default());

    // Disconnected for being one: no fault.
    let Finish { faults, stopped, trouble, .. } = stopped_reader(Mischief::Cut);
    assert_eq!((stopped.disconnected, stopped.gap, stopped.caught_up), (1, 0, 0));
    assert_eq!(stopped.ending.as_deref(), Some("ended by the server without a reason"));
    assert_eq!((faults, trouble), (Faults::default(), None));
}

#[test]
fn what_stopped_readers_get_is_proved() {
    let Finish { faults, stopped, .. } = stopped_reader(Mischief::Repeat);
    assert!(faults.repeated > 5, "{faults:?}");
    assert_eq!(Faults { repeated: 0, ..faults }, Faults::default());
    assert_eq!(stopped.caught_up, 1);

    let Finish { faults, .. } = stopped_reader(Mischief::Reorder);
    assert!(faults.reordered > 5, "{faults:?}");
    assert_eq!(Faults { reordered: 0, ..faults }, Faults::default());

    let Finish { faults, stopped, .. } = stopped_reader(Mischief::Corrupt);
    assert!(faults.corrupt > 5, "{faults:?}");
    assert_eq!(Faults { corrupt: 0, ..faults }, Faults::default());
    assert_eq!(stopped.missed, faults.corrupt);
}
