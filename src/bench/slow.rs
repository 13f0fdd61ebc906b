//! Scenario `slow`: some readers stop; what do the others, and the server's memory, notice?

use super::audience::Shape;
use super::broadcast::{Broadcast, BroadcastPlan, Pace};
use super::conditions::Conditions;
use super::summary::Summary;
use std::io;

#[derive(Debug, Clone, Copy)]
pub struct SlowPlan {
    pub subscribers: usize,
    /// How many of them stop reading; fewer than all.
    pub stopped: usize,
    pub data_bytes: usize,
    /// Publications a second.
    pub rate: f64,
}

/// Measures with all readers, then with some of them stopped.
pub fn run(conditions: &Conditions, plan: SlowPlan) -> io::Result<Summary> {
    let SlowPlan { subscribers, stopped, data_bytes, rate } = plan;
    let mut summary = Summary::new("slow", &conditions.url);
    summary.parameter("subscribers", subscribers);
    summary.parameter("stopped", stopped);
    summary.parameter("size", data_bytes);
    summary.parameter("rate", rate);
    let broadcast = BroadcastPlan {
        shape: Shape { publishers: 1, topics: 1, subscribers },
        data_bytes,
        pace: Pace::Rate(rate),
        probing: None,
    };
    let mut broadcast = Broadcast::assemble(conditions, broadcast)?;
    broadcast.warm_up()?;
    let with_all = broadcast.measure()?;
    let before = conditions.server_memory()?;
    broadcast.stop_reading(stopped);
    let without = broadcast.measure()?;
    let after = conditions.server_memory()?;
    let (faults, trouble) = broadcast.finish()?;

    without.summarize(&mut summary);
    summary.latency("latency before", &with_all.meter.latency);
    let p99 = |latency: &hdrhistogram::Histogram<u64>| latency.value_at_quantile(0.99) as f64;
    let ratio = p99(&without.meter.latency) / p99(&with_all.meter.latency);
    summary.figure("p99_ratio", ratio, "×");
    if let (Some(before), Some(after)) = (before, after) {
        summary.figure("memory_growth", (after - before) / f64::from(1 << 20), "MiB");
    }
    summary.faults = faults;
    summary.notes.extend(trouble);
    Ok(summary)
}
