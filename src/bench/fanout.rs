//! Scenarios `fanout` and `many`: what a delivery costs, and how long it takes.

use super::audience::Shape;
use super::broadcast::{Broadcast, BroadcastPlan, Finish, Pace, Span};
use super::conditions::Conditions;
use super::outcome::Outcome;
use super::summary::Summary;
use super::team::{self, Member};
use std::io;

/// Runs the plan; `scenario` is the name it goes by.
pub fn run(
    scenario: &'static str,
    conditions: &Conditions,
    plan: BroadcastPlan,
) -> io::Result<Summary> {
    let Shape { publishers, topics, subscribers } = plan.shape;
    conditions.require("topics", topics, "one thread proves all subscribers of a channel")?;
    conditions.require("publishers", publishers, "each thread has its own channels")?;
    let mut summary = conditions.summary(scenario);
    summary.parameter("publishers", publishers);
    summary.parameter("topics", topics);
    summary.parameter("subscribers", subscribers);
    summary.parameter("size", plan.data_bytes);
    match plan.pace {
        Pace::Window(window) => summary.parameter("window", window),
        Pace::Rate(rate) => summary.parameter("rate", rate),
    }
    let before = conditions.server_memory()?;
    let spans = team::run(conditions, |member| drive(member, plan))?;
    let absorb = |mut all: Span, other| {
        all.absorb(other);
        all
    };
    let Some(span) = spans.into_iter().reduce(absorb) else { return Ok(summary) };
    span.summarize(&mut summary);
    let Outcome { memory, faults, troubles, .. } = span.outcome;
    if let (Some(before), Some(after)) = (before, memory) {
        let connections = (subscribers + publishers) as f64;
        summary.figure("memory_per_connection", (after - before) / connections / 1024.0, "KiB");
    }
    summary.faults = faults;
    summary.notes.extend(troubles);
    Ok(summary)
}

/// One thread's part.
fn drive(member: Member<'_>, plan: BroadcastPlan) -> io::Result<Span> {
    let mut broadcast = Broadcast::assemble(member, plan)?;
    let begin_ns = broadcast.warm_up()?;
    let mut span = broadcast.measure(begin_ns)?;
    span.outcome.memory = member.server_memory()?;
    // Nobody's connections end before the memory of all has been looked at.
    broadcast.rally()?;
    let Finish { faults, trouble, .. } = broadcast.finish()?;
    span.outcome.faults = faults;
    span.outcome.troubles.extend(trouble);
    Ok(span)
}

impl Span {
    /// Adds the figures of this span.
    pub fn summarize(&self, summary: &mut Summary) {
        let meter = &self.outcome.meter;
        summary.meter("deliveries", meter, self.lag.as_ref());
        summary.figure("publications", self.publications as f64, "");
        let per_second = self.publications as f64 / meter.seconds();
        summary.figure("publications_per_second", per_second, "/s");
        summary.latency("last delivery", &self.completion);
        if let Some(probes) = &self.probes {
            summary.latency("ping", probes);
        }
        if let Some(spent) = self.outcome.spent {
            summary.cost("delivery", spent, meter.count as f64, meter.seconds());
        }
    }
}
