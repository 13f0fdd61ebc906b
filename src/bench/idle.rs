//! Scenario `idle`: what connections cost that only stay.

use super::clock::{SECOND_NS, nanoseconds};
use super::conditions::{Conditions, Progress};
use super::ending::Ending;
use super::fleet::{Crowd, Fleet, Wait};
use super::frame::push_frame;
use super::ledger::Faults;
use super::meter::Meter;
use super::muster::Muster;
use super::outcome::Outcome;
use super::summary::Summary;
use super::team::{self, Member};
use crate::proto::OpCode;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Points of the plot of memory by connections.
const MEMORY_POINTS: usize = 40;

#[derive(Debug, Clone, Copy)]
pub struct IdlePlan {
    pub connections: usize,
    /// Each connection subscribes to one of them; 0: to none.
    pub topics: usize,
}

#[derive(Default)]
struct Sleepers {
    /// The number of connection 0 in the whole run.
    first: usize,
    unexpected: u64,
    disconnected: u64,
    trouble: Option<String>,
}

impl Crowd for Sleepers {
    fn opened(&mut self, _: usize, _: u64) {}

    fn received(&mut self, _: usize, message: &[u8], _: u64) {
        self.unexpected += 1;
        let text = || format!("unexpected: {}", String::from_utf8_lossy(message));
        self.trouble.get_or_insert_with(text);
    }

    fn closed(&mut self, id: usize, ending: &Ending, _: u64) {
        self.disconnected += 1;
        self.trouble.get_or_insert_with(|| format!("connection {}: {ending}", self.first + id));
    }
}

/// What one thread has seen.
struct Watch {
    outcome: Outcome,
    /// Of the server while connections came, and at the end of the span: the leader's.
    memory: Vec<(f64, f64)>,
    memory_late: Option<f64>,
    heartbeats: u64,
}

/// Runs the plan.
pub fn run(conditions: &Conditions, plan: IdlePlan) -> io::Result<Summary> {
    let IdlePlan { connections, topics } = plan;
    conditions.require("connections", connections, "each thread has its own")?;
    let mut summary = conditions.summary("idle");
    summary.parameter("connections", connections);
    summary.parameter("topics", topics);
    let before = conditions.server_memory()?;
    summary.memory.extend(before.map(|bytes| (0.0, bytes)));
    let ready = AtomicUsize::new(0);
    let watches = team::run(conditions, |member| watch(member, plan, &ready))?;

    let heartbeats = watches.iter().map(|watch| watch.heartbeats).sum::<u64>() as f64;
    let late = watches[0].memory_late;
    summary.memory.extend(&watches[0].memory);
    let outcomes = watches.into_iter().map(|watch| watch.outcome);
    let Outcome { meter, spent, memory, faults, troubles } = Outcome::of(outcomes);
    let seconds = meter.seconds();
    summary.figure("seconds", seconds, "s");
    summary.figure("heartbeats", heartbeats, "");
    if let (Some(before), Some(after), Some(late)) = (before, memory, late) {
        let bytes = (after - before) / connections as f64;
        summary.figure("memory_per_connection", bytes / 1024.0, "KiB");
        summary.figure("memory_growth_while_idle", (late - after) / 1024.0, "KiB");
    }
    if let Some(spent) = spent {
        summary.cost("connection_second", spent, connections as f64 * seconds, seconds);
        let per_ping = |ns: f64| ns / heartbeats / 1000.0;
        summary.figure("cpu_per_heartbeat", per_ping(spent.total_ns()), "µs");
    }
    summary.faults = faults;
    summary.notes.extend(troubles);
    Ok(summary)
}

/// One thread's part. `all_ready` counts the connections of all threads.
fn watch(member: Member<'_>, plan: IdlePlan, all_ready: &AtomicUsize) -> io::Result<Watch> {
    let Conditions { clock, warmup, duration, .. } = *member.conditions;
    let part = member.share(plan.connections);
    let mut fleet = member.fleet(part.start)?;
    let mut progress = member.progress();
    let memory = muster(member, plan, &mut fleet, &mut progress, all_ready)?;
    let mut sleepers = Sleepers { first: part.start, ..Sleepers::default() };
    let start_ns = member.rally(|wait| fleet.poll(wait, &mut sleepers).map(drop))?;
    let begin_ns = start_ns + nanoseconds(warmup);
    while clock.now_ns() < begin_ns {
        fleet.poll(Wait::Until(begin_ns), &mut sleepers)?;
    }
    let after = member.server_memory()?;
    let before = member.server_time()?;
    let pings = fleet.pings();
    let mut meter = Meter::default();
    meter.start(clock.now_ns());
    let end_ns = begin_ns + nanoseconds(duration);
    loop {
        let now_ns = clock.now_ns();
        if now_ns >= end_ns {
            break;
        }
        progress.show(now_ns, || format!("{} s left", (end_ns - now_ns) / SECOND_NS));
        fleet.poll(Wait::Until(end_ns), &mut sleepers)?;
    }
    meter.stop(clock.now_ns());
    let heartbeats = fleet.pings() - pings;
    let spent = member.server_spent(before)?;
    let memory_late = member.server_memory()?;
    // Nobody's connections end before the memory of all has been looked at.
    member.rally(|wait| fleet.poll(wait, &mut sleepers).map(drop))?;
    let Sleepers { unexpected, disconnected, trouble, .. } = sleepers;
    let faults = Faults { unexpected, disconnected, ..Faults::default() };
    let troubles = trouble.into_iter().collect();
    let outcome = Outcome { meter, spent, memory: after, faults, troubles };
    Ok(Watch { outcome, memory, memory_late, heartbeats })
}

/// Connects and subscribes a thread's connections. Returns the points of the plot that the leader sees.
fn muster(
    member: Member<'_>,
    plan: IdlePlan,
    fleet: &mut Fleet,
    progress: &mut Progress,
    all_ready: &AtomicUsize,
) -> io::Result<Vec<(f64, f64)>> {
    let Conditions { clock, target, .. } = member.conditions;
    let IdlePlan { connections, topics } = plan;
    let part = member.share(connections);
    let mut message = Vec::new();
    let greet = |id: usize, out: &mut Vec<u8>| {
        if topics > 0 {
            let topic = (part.start + id) % topics;
            message.clear();
            target.subscribe.write(&target.channel(topic), topic, |_| {}, &mut message);
            push_frame(OpCode::Text, &message, out);
        }
    };
    let muster =
        Muster { count: part.len(), concurrency: member.concurrency(), confirms: target.confirms };
    let step = connections.div_ceil(MEMORY_POINTS) as f64;
    let mut memory: Vec<(f64, f64)> = Vec::new();
    let mut counted = 0;
    muster.run(fleet, greet, |ready| {
        let more = ready - counted;
        counted = ready;
        let ready = (all_ready.fetch_add(more, Ordering::Relaxed) + more) as f64;
        progress.show(clock.now_ns(), || format!("{counted} connections"));
        if ready >= memory.last().map_or(0.0, |(last, _)| *last) + step {
            memory.extend(member.server_memory()?.map(|bytes| (ready, bytes)));
        }
        Ok(())
    })?;
    Ok(memory)
}
