//! Scenario `replay`: a channel is filled, and one reader takes all of it while others ping. The reader
//! and the pings have a thread each, so that they do not wait for each other.

use super::acked::{AckedPublishers, Quota};
use super::clock::{Clock, SECOND_NS, nanoseconds};
use super::conditions::Conditions;
use super::fleet::{Fleet, Wait};
use super::frame::push_frame;
use super::muster::Muster;
use super::outcome::Outcome;
use super::probe::{Prober, Probing};
use super::replayed::Replayed;
use super::summary::Summary;
use super::team::{self, Member};
use crate::proto::OpCode;
use hdrhistogram::Histogram;
use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicBool, Ordering};

/// Nothing has come for this long, so nothing more will.
const QUIET_NS: u64 = 5 * SECOND_NS;
/// Pings look whether the replay is over this often.
const LOOK_NS: u64 = SECOND_NS / 50;
/// A replay that has not ended by then is over.
const REPLAY_NS_MAX: u64 = 600 * SECOND_NS;
/// The reader and the pings.
const THREADS: usize = 2;
/// The reader's number in the whole run; the publisher has 0, and the pings those behind.
const READER: usize = 1;

#[derive(Debug, Clone, Copy)]
pub struct ReplayPlan {
    pub publications: u32,
    /// Publications on their way at a time while the channel is filled.
    pub window: usize,
    /// Of each payload, with its quotes; at least [`super::stamp::DATA_BYTES_MIN`].
    pub data_bytes: usize,
    /// At least one connection.
    pub probing: Probing,
}

/// What the reader's thread has seen.
struct Reading {
    /// Of filling the channel.
    filling: Outcome,
    /// Of the replay.
    outcome: Outcome,
    /// Publications that the server did not keep, from the first on.
    trimmed: u32,
    /// Of the server's memory.
    growth_bytes: Option<f64>,
}

/// What the pings' thread has seen.
struct Watch {
    before: Histogram<u64>,
    during: Histogram<u64>,
    disconnected: u64,
}

enum Part {
    Reader(Box<Reading>),
    Pings(Box<Watch>),
}

/// Runs the plan.
pub fn run(conditions: &Conditions, plan: ReplayPlan) -> io::Result<Summary> {
    if conditions.threads > 1 {
        let text = "--threads: there is one reader, and its pings have a thread of their own";
        return Err(io::Error::new(ErrorKind::InvalidInput, text));
    }
    let mut summary = conditions.summary("replay");
    summary.parameter("publications", plan.publications);
    summary.parameter("window", plan.window);
    summary.parameter("size", plan.data_bytes);
    summary.parameter("probes", plan.probing.connections);
    let conditions = Conditions { threads: THREADS, ..conditions.clone() };
    let is_over = AtomicBool::new(false);
    let parts = team::run(&conditions, |member| {
        if !member.is_leader() {
            return watch(member, plan, &is_over).map(|watch| Part::Pings(Box::new(watch)));
        }
        let reading = read(member, plan);
        is_over.store(true, Ordering::Release);
        Ok(Part::Reader(Box::new(reading?)))
    })?;
    for part in parts {
        match part {
            Part::Reader(reading) => reading.summarize(&mut summary),
            Part::Pings(watch) => watch.summarize(&mut summary),
        }
    }
    Ok(summary)
}

impl Reading {
    fn summarize(self, summary: &mut Summary) {
        let Self { filling, outcome, trimmed, growth_bytes } = self;
        let Outcome { meter, spent, faults, troubles, .. } = outcome;
        summary.meter("publications", &meter, None);
        if let Some(spent) = spent {
            summary.cost("publication", spent, meter.count as f64, meter.seconds());
        }
        if let Some(bytes) = growth_bytes {
            summary.figure("memory_growth", bytes / f64::from(1 << 20), "MiB");
        }
        summary.figure("not_kept", f64::from(trimmed), "");
        summary.figure("filled_per_second", filling.meter.per_second(), "/s");
        summary.latency("acknowledgement", &filling.meter.latency);
        summary.faults += faults;
        summary.notes.extend(troubles);
    }
}

impl Watch {
    fn summarize(&self, summary: &mut Summary) {
        summary.latency("ping", &self.during);
        summary.latency("ping before", &self.before);
        let p99 = |latency: &Histogram<u64>| latency.value_at_quantile(0.99) as f64;
        // Without a ping there is no ratio.
        summary.figure("ping_p99_ratio", p99(&self.during) / p99(&self.before), "×");
        summary.faults.disconnected += self.disconnected;
    }
}

/// Fills the channel, waits until the pings have their time without a replay, and replays.
fn read(member: Member<'_>, plan: ReplayPlan) -> io::Result<Reading> {
    let Conditions { clock, warmup, duration, .. } = *member.conditions;
    let quota = Quota {
        window: plan.window,
        data_bytes: plan.data_bytes,
        publications_max: plan.publications,
    };
    let mut publishers = AckedPublishers::assemble(member, quota, 0..READER)?;
    publishers.publish_all()?;
    let filling = publishers.outcome();
    // What is not in the channel cannot be proved to come out of it.
    let Some(base) = publishers.base(0).filter(|_| filling.faults.total() == 0) else {
        let (acked, trouble) = (filling.meter.count, filling.troubles.join("; "));
        let text = format!("the channel is not filled: {acked} acknowledged; {trouble}");
        return Err(io::Error::other(text));
    };
    let mut fleet = member.fleet(READER)?;
    let mut replayed = Replayed::new(plan.publications, base, plan.data_bytes);
    Muster { count: 1, concurrency: 1, confirms: false }.run(&mut fleet, |_, _| {}, |_| Ok(()))?;
    let mut rest = |wait: Wait| {
        publishers.poll(Wait::Spin)?;
        fleet.poll(wait, &mut replayed).map(drop)
    };
    let start_ns = member.rally(&mut rest)?;
    let begin_ns = start_ns + nanoseconds(warmup) + nanoseconds(duration);
    while clock.now_ns() < begin_ns {
        rest(Wait::Until(begin_ns))?;
    }
    let channel = publishers.channel(0);
    let message = format!(r#"{{"action":"subscribe","channel":"{channel}","since":"start"}}"#);
    let memory = member.server_memory()?;
    let before = member.server_time()?;
    replayed.meter.start(clock.now_ns());
    let mut wire = Vec::new();
    push_frame(OpCode::Text, message.as_bytes(), &mut wire);
    fleet.send(0, &wire);
    take_all(clock, &mut fleet, &mut replayed, member)?;
    let spent = member.server_spent(before)?;
    let growth_bytes = member.server_memory()?.zip(memory).map(|(after, before)| after - before);
    let trimmed = replayed.trimmed();
    let outcome = Outcome { spent, ..replayed.settle() };
    Ok(Reading { filling, outcome, trimmed, growth_bytes })
}

/// Until everything has come, or nothing more does.
fn take_all(
    clock: Clock,
    fleet: &mut Fleet,
    replayed: &mut Replayed,
    member: Member<'_>,
) -> io::Result<()> {
    let begin_ns = clock.now_ns();
    let mut progress = member.progress();
    while !replayed.is_complete() && clock.now_ns() - begin_ns < REPLAY_NS_MAX {
        let now_ns = clock.now_ns();
        if now_ns - replayed.arrived_ns.max(begin_ns) > QUIET_NS {
            break;
        }
        progress.show(now_ns, || format!("{} replayed", replayed.meter.count));
        if fleet.poll(Wait::Until(now_ns + SECOND_NS / 10), replayed)? > 0 {
            let work_ns = clock.now_ns() - fleet.woke_ns();
            replayed.meter.note_work(work_ns);
        }
    }
    // Not the silence behind the last one.
    let end_ns = replayed.arrived_ns.max(begin_ns + 1);
    replayed.meter.stop(end_ns);
    Ok(())
}

/// Pings before and during the replay.
fn watch(member: Member<'_>, plan: ReplayPlan, is_over: &AtomicBool) -> io::Result<Watch> {
    let Conditions { clock, warmup, duration, .. } = *member.conditions;
    let mut prober = Prober::assemble(member, plan.probing, READER + 1)?;
    let start_ns = member.rally(|wait| prober.turn(wait).map(drop))?;
    let begin_ns = start_ns + nanoseconds(warmup);
    prober.keep_on(begin_ns)?;
    prober.meter.start(clock.now_ns());
    prober.keep_on(begin_ns + nanoseconds(duration))?;
    prober.drain(clock.now_ns() + QUIET_NS)?;
    let before = std::mem::take(&mut prober.meter).latency;
    prober.meter.start(clock.now_ns());
    while !is_over.load(Ordering::Acquire) {
        prober.keep_on(clock.now_ns() + LOOK_NS)?;
    }
    prober.drain(clock.now_ns() + QUIET_NS)?;
    let during = std::mem::take(&mut prober.meter).latency;
    Ok(Watch { before, during, disconnected: prober.disconnected })
}
