//! Scenario `durable`: how many publications a second are acknowledged, and after how long.

use super::acked::{AckedPublishers, Quota};
use super::conditions::Conditions;
use super::outcome::Outcome;
use super::summary::Summary;
use super::team;
use std::io;

#[derive(Debug, Clone, Copy)]
pub struct DurablePlan {
    /// Connections that publish, to a channel each.
    pub publishers: usize,
    /// Publications of one publisher on their way at a time.
    pub window: usize,
    /// Of each payload, with its quotes; at least [`super::stamp::DATA_BYTES_MIN`].
    pub data_bytes: usize,
}

/// Runs the plan.
pub fn run(conditions: &Conditions, plan: DurablePlan) -> io::Result<Summary> {
    let DurablePlan { publishers, window, data_bytes } = plan;
    conditions.require("publishers", publishers, "each thread has its own")?;
    let mut summary = conditions.summary("durable");
    summary.parameter("publishers", publishers);
    summary.parameter("window", window);
    summary.parameter("size", data_bytes);
    let quota = Quota { window, data_bytes, publications_max: u32::MAX };
    let before = conditions.server_memory()?;
    let outcomes = team::run(conditions, |member| {
        AckedPublishers::assemble(member, quota, member.share(publishers))?.measure()
    })?;
    let Outcome { meter, spent, memory, faults, troubles } = Outcome::of(outcomes);
    summary.meter("acknowledgements", &meter, None);
    if let Some(spent) = spent {
        summary.cost("acknowledgement", spent, meter.count as f64, meter.seconds());
    }
    if let (Some(before), Some(after)) = (before, memory) {
        summary.figure("memory_growth", (after - before) / f64::from(1 << 20), "MiB");
    }
    summary.faults = faults;
    summary.notes.extend(troubles);
    Ok(summary)
}
