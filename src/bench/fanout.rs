//! Scenarios `fanout` and `many`: what a delivery costs, and how long it takes.

use super::audience::Shape;
use super::broadcast::{Broadcast, BroadcastPlan, Pace, Span};
use super::conditions::Conditions;
use super::summary::Summary;
use std::io;

/// Runs the plan; `scenario` is the name it goes by.
pub fn run(
    scenario: &'static str,
    conditions: &Conditions,
    plan: BroadcastPlan,
) -> io::Result<Summary> {
    let mut summary = Summary::new(scenario, &conditions.url);
    let Shape { publishers, topics, subscribers } = plan.shape;
    summary.parameter("publishers", publishers);
    summary.parameter("topics", topics);
    summary.parameter("subscribers", subscribers);
    summary.parameter("size", plan.data_bytes);
    match plan.pace {
        Pace::Window(window) => summary.parameter("window", window),
        Pace::Rate(rate) => summary.parameter("rate", rate),
    }
    let before = conditions.server_memory()?;
    let mut broadcast = Broadcast::assemble(conditions, plan)?;
    broadcast.warm_up()?;
    let span = broadcast.measure()?;
    let after = conditions.server_memory()?;
    let (faults, trouble) = broadcast.finish()?;
    span.summarize(&mut summary);
    if let (Some(before), Some(after)) = (before, after) {
        let connections = (subscribers + publishers) as f64;
        summary.figure("memory_per_connection", (after - before) / connections / 1024.0, "KiB");
    }
    summary.faults = faults;
    summary.notes.extend(trouble);
    Ok(summary)
}

impl Span {
    /// Adds the figures of this span.
    pub fn summarize(&self, summary: &mut Summary) {
        summary.meter("deliveries", &self.meter, self.lag.as_ref());
        summary.figure("publications", self.publications as f64, "");
        let per_second = self.publications as f64 / self.meter.seconds();
        summary.figure("publications_per_second", per_second, "/s");
        summary.latency("last delivery", &self.completion);
        if let Some(probes) = &self.probes {
            summary.latency("ping", probes);
        }
        if let Some(spent) = self.spent {
            summary.cost("delivery", spent, self.meter.count as f64, self.meter.seconds());
        }
    }
}
