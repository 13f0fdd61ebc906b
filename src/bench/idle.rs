//! Scenario `idle`: what connections cost that only stay.

use super::clock::{SECOND_NS, nanoseconds};
use super::conditions::Conditions;
use super::ending::Ending;
use super::fleet::{Crowd, Wait};
use super::frame::push_frame;
use super::meter::Meter;
use super::muster::Muster;
use super::summary::Summary;
use crate::proto::OpCode;
use std::io;

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
        self.trouble.get_or_insert_with(|| format!("connection {id}: {ending}"));
    }
}

pub fn run(conditions: &Conditions, plan: IdlePlan) -> io::Result<Summary> {
    let IdlePlan { connections, topics } = plan;
    let mut summary = Summary::new("idle", &conditions.url);
    summary.parameter("connections", connections);
    summary.parameter("topics", topics);
    let clock = conditions.clock;
    let target = &conditions.target;
    let mut fleet = conditions.fleet()?;
    let before = conditions.server_memory()?;
    summary.memory.extend(before.map(|bytes| (0.0, bytes)));

    let mut message = Vec::new();
    let greet = |id: usize, out: &mut Vec<u8>| {
        if topics > 0 {
            let topic = id % topics;
            message.clear();
            target.subscribe.write(&target.channel(topic), topic, |_| {}, &mut message);
            push_frame(OpCode::Text, &message, out);
        }
    };
    let mut progress = conditions.progress();
    let step = connections.div_ceil(MEMORY_POINTS);
    let muster = Muster {
        count: connections,
        concurrency: conditions.concurrency,
        confirms: target.confirms,
    };
    let memory = &mut summary.memory;
    muster.run(&mut fleet, greet, |ready| {
        progress.show(clock.now_ns(), || format!("{ready} connections"));
        if memory.last().is_none_or(|(last, _)| ready as f64 >= last + step as f64) {
            memory.extend(conditions.server_memory()?.map(|bytes| (ready as f64, bytes)));
        }
        Ok(())
    })?;

    let mut sleepers = Sleepers::default();
    let warm_ns = clock.now_ns() + nanoseconds(conditions.warmup);
    while clock.now_ns() < warm_ns {
        fleet.poll(Wait::Until(warm_ns), &mut sleepers)?;
    }
    let after = conditions.server_memory()?;
    let time_before = conditions.server_time()?;
    let pings_before = fleet.pings();
    let mut meter = Meter::default();
    meter.start(clock.now_ns());
    let end_ns = clock.now_ns() + nanoseconds(conditions.duration);
    loop {
        let now_ns = clock.now_ns();
        if now_ns >= end_ns {
            break;
        }
        progress.show(now_ns, || format!("{} s left", (end_ns - now_ns) / SECOND_NS));
        fleet.poll(Wait::Until(end_ns), &mut sleepers)?;
    }
    meter.stop(clock.now_ns());
    let seconds = meter.seconds();
    let pings = (fleet.pings() - pings_before) as f64;
    summary.figure("seconds", seconds, "s");
    summary.figure("heartbeats", pings, "");
    if let (Some(before), Some(after)) = (before, after) {
        let bytes = (after - before) / connections as f64;
        summary.figure("memory_per_connection", bytes / 1024.0, "KiB");
        let late = conditions.server_memory()?.unwrap_or(after);
        summary.figure("memory_growth_while_idle", (late - after) / 1024.0, "KiB");
    }
    if let Some(spent) = conditions.server_spent(time_before)? {
        summary.cost("connection_second", spent, connections as f64 * seconds, seconds);
        let per_ping = |ns: f64| ns / pings / 1000.0;
        summary.figure("cpu_per_heartbeat", per_ping(spent.total_ns()), "µs");
    }
    summary.faults.unexpected = sleepers.unexpected;
    summary.faults.disconnected = sleepers.disconnected;
    summary.notes.extend(sleepers.trouble);
    Ok(summary)
}
