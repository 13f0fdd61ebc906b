//! Scenario `slow`: some readers stop; what do the others, and the server's memory, notice, and what
//! becomes of those that stopped?

use super::audience::{Shape, StoppedFate};
use super::broadcast::{Broadcast, BroadcastPlan, Finish, Pace, Span};
use super::clock::SECOND_NS;
use super::conditions::Conditions;
use super::summary::Summary;
use super::team::{self, Member};
use hdrhistogram::Histogram;
use std::io::{self, ErrorKind};

#[derive(Debug, Clone, Copy)]
pub struct SlowPlan {
    pub subscribers: usize,
    /// How many of them stop reading; fewer than all.
    pub stopped: usize,
    pub data_bytes: usize,
    /// Publications a second.
    pub rate: f64,
}

/// Measures with all readers, then with some of them stopped, and lets these read again.
pub fn run(conditions: &Conditions, plan: SlowPlan) -> io::Result<Summary> {
    let SlowPlan { subscribers, stopped, data_bytes, rate } = plan;
    if conditions.threads > 1 {
        let text = "--threads: the one channel of this scenario is proved by one thread";
        return Err(io::Error::new(ErrorKind::InvalidInput, text));
    }
    let mut summary = conditions.summary("slow");
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
    let parts = team::run(conditions, |member| drive(member, broadcast, stopped))?;
    let Some(Course { with_all, without, growth_bytes, fate, last_after_ns }) =
        parts.into_iter().next()
    else {
        return Ok(summary);
    };
    without.summarize(&mut summary);
    let before = &with_all.outcome.meter.latency;
    summary.latency("latency before", before);
    let p99 = |latency: &Histogram<u64>| latency.value_at_quantile(0.99) as f64;
    let ratio = p99(&without.outcome.meter.latency) / p99(before);
    summary.figure("p99_ratio", ratio, "×");
    if let Some(bytes) = growth_bytes {
        summary.figure("memory_growth", bytes / f64::from(1 << 20), "MiB");
    }
    if fate.caught_up > 0 {
        let seconds = last_after_ns as f64 / SECOND_NS as f64;
        summary.figure("stopped_caught_up_after", seconds, "s");
    }
    let StoppedFate { disconnected, caught_up, gap, missed, ending } = fate;
    summary.figure("stopped_disconnected", disconnected as f64, "");
    summary.figure("stopped_caught_up", caught_up as f64, "");
    summary.figure("stopped_gap", gap as f64, "");
    summary.figure("stopped_missed", missed as f64, "");
    let note = |ending| format!("the first stopped reader that was disconnected: {ending}");
    summary.notes.extend(ending.map(note));
    summary.faults = without.outcome.faults;
    summary.notes.extend(without.outcome.troubles);
    Ok(summary)
}

/// Both spans.
struct Course {
    with_all: Span,
    without: Span,
    /// Of the server's memory, in the second.
    growth_bytes: Option<f64>,
    /// Of those that had stopped.
    fate: StoppedFate,
    last_after_ns: u64,
}

fn drive(member: Member<'_>, plan: BroadcastPlan, stopped: usize) -> io::Result<Course> {
    let mut broadcast = Broadcast::assemble(member, plan)?;
    let begin_ns = broadcast.warm_up()?;
    let with_all = broadcast.measure(begin_ns)?;
    let before = member.server_memory()?;
    broadcast.stop_reading(stopped);
    let mut without = broadcast.measure(member.conditions.clock.now_ns())?;
    let after = member.server_memory()?;
    let Finish { faults, trouble, stopped, last_after_ns } = broadcast.finish()?;
    without.outcome.faults = faults;
    without.outcome.troubles.extend(trouble);
    let growth_bytes = after.zip(before).map(|(after, before)| after - before);
    Ok(Course { with_all, without, growth_bytes, fate: stopped, last_after_ns })
}
