//! Scenario `connect`: handshakes a second, and the storm of everybody coming back at once.

use super::clock::{SECOND_NS, nanoseconds};
use super::conditions::Conditions;
use super::cost::Spent;
use super::ending::Ending;
use super::fleet::{Crowd, Fleet, Wait};
use super::ledger::Faults;
use super::meter::Meter;
use super::muster::Muster;
use super::outcome::Outcome;
use super::summary::Summary;
use super::team::{self, Member};
use std::io;
use std::ops::Range;

#[derive(Debug, Clone, Copy)]
pub struct ConnectPlan {
    /// Handshakes under way at a time, of all threads together.
    pub concurrency: usize,
    /// Connections that are cut and come back; `None`: each connection is cut as soon as it is open,
    /// for the span of the run.
    pub storm: Option<usize>,
}

/// A storm that has not ended by then is over.
const STORM_NS_MAX: u64 = 120 * SECOND_NS;

#[derive(Default)]
struct Arrivals {
    /// The number of connection 0 in the whole run.
    first: usize,
    /// When each began to connect, by id.
    begun_ns: Vec<u64>,
    opened: Vec<usize>,
    failed: Vec<usize>,
    meter: Meter,
    failures: u64,
    /// Of a storm: connections that have not come back.
    missing: usize,
    trouble: Option<String>,
}

impl Crowd for Arrivals {
    fn opened(&mut self, id: usize, now_ns: u64) {
        self.meter.note(self.begun_ns[id], now_ns);
        self.opened.push(id);
    }

    fn received(&mut self, _: usize, _: &[u8], _: u64) {}

    fn closed(&mut self, id: usize, ending: &Ending, _: u64) {
        self.failures += 1;
        self.failed.push(id);
        self.trouble.get_or_insert_with(|| format!("connection {}: {ending}", self.first + id));
    }
}

/// Runs the plan.
pub fn run(conditions: &Conditions, plan: ConnectPlan) -> io::Result<Summary> {
    let why = "each thread has its own";
    conditions.require("concurrency", plan.concurrency, why)?;
    let mut summary = conditions.summary("connect");
    summary.parameter("concurrency", plan.concurrency);
    let parts = match plan.storm {
        Some(connections) => {
            conditions.require("storm", connections, why)?;
            summary.parameter("connections", connections);
            team::run(conditions, |member| storm(member, plan.concurrency, connections))?
        }
        None => team::run(conditions, |member| handshakes(member, plan.concurrency))?,
    };
    let missing: usize = parts.iter().map(|(arrivals, _)| arrivals.missing).sum();
    let outcomes = parts.into_iter().map(|(arrivals, spent)| arrivals.outcome(spent));
    let Outcome { meter, spent, faults, troubles, .. } = Outcome::of(outcomes);
    summary.meter("handshakes", &meter, None);
    if let Some(connections) = plan.storm {
        summary.figure("all_back_after", meter.seconds(), "s");
        if missing > 0 {
            let (back, seconds) = (connections - missing, STORM_NS_MAX / SECOND_NS);
            summary.notes.push(format!("only {back} were back after {seconds} s"));
        }
    }
    if let Some(spent) = spent {
        summary.cost("handshake", spent, meter.count as f64, meter.seconds());
    }
    summary.faults = faults;
    summary.notes.extend(troubles);
    Ok(summary)
}

impl Arrivals {
    fn new(part: Range<usize>) -> Self {
        Self { first: part.start, begun_ns: vec![0; part.len()], ..Self::default() }
    }

    fn outcome(self, spent: Option<Spent>) -> Outcome {
        Outcome {
            meter: self.meter,
            spent,
            memory: None,
            faults: Faults { disconnected: self.failures, ..Faults::default() },
            troubles: self.trouble.into_iter().collect(),
        }
    }
}

/// One thread's arrivals over the span, and what the server spent.
fn handshakes(member: Member<'_>, concurrency: usize) -> io::Result<(Arrivals, Option<Spent>)> {
    let Conditions { clock, warmup, duration, .. } = *member.conditions;
    let part = member.share(concurrency);
    let mut fleet = member.fleet(part.start)?;
    let mut arrivals = Arrivals::new(part.clone());
    let begin_ns =
        member.rally(|wait| fleet.poll(wait, &mut arrivals).map(drop))? + nanoseconds(warmup);
    for id in 0..part.len() {
        arrivals.begun_ns[id] = clock.now_ns();
        fleet.connect(id)?;
    }
    keep_on(member, &mut fleet, &mut arrivals, begin_ns)?;
    let before = member.server_time()?;
    arrivals.meter.start(clock.now_ns());
    keep_on(member, &mut fleet, &mut arrivals, begin_ns + nanoseconds(duration))?;
    arrivals.meter.stop(clock.now_ns());
    let spent = member.server_spent(before)?;
    Ok((arrivals, spent))
}

/// Cuts each connection once it is open, and opens it again, until then.
fn keep_on(
    member: Member<'_>,
    fleet: &mut Fleet,
    arrivals: &mut Arrivals,
    end_ns: u64,
) -> io::Result<()> {
    let Conditions { clock, spin, .. } = *member.conditions;
    let spin = spin.unwrap_or(true);
    let mut progress = member.progress();
    loop {
        let now_ns = clock.now_ns();
        if now_ns >= end_ns {
            return Ok(());
        }
        progress.show(now_ns, || format!("{} handshakes", arrivals.meter.count));
        let wait = if spin { Wait::Spin } else { Wait::Until(end_ns) };
        let happened = fleet.poll(wait, arrivals)?;
        for id in arrivals.opened.drain(..) {
            fleet.cut(id);
            arrivals.begun_ns[id] = clock.now_ns();
            fleet.connect(id)?;
        }
        for id in arrivals.failed.drain(..) {
            arrivals.begun_ns[id] = clock.now_ns();
            fleet.connect(id)?;
        }
        if happened > 0 {
            arrivals.meter.note_work(clock.now_ns() - fleet.woke_ns());
        }
    }
}

/// One thread's part of it: everybody is connected, everybody is cut, everybody comes back as fast as
/// `concurrency` lets them.
fn storm(
    member: Member<'_>,
    concurrency: usize,
    connections: usize,
) -> io::Result<(Arrivals, Option<Spent>)> {
    let clock = member.conditions.clock;
    let part = member.share(connections);
    let (connections, concurrency) = (part.len(), member.share(concurrency).len());
    let mut fleet = member.fleet(part.start)?;
    let muster = Muster { count: connections, concurrency: member.concurrency(), confirms: false };
    muster.run(&mut fleet, |_, _| {}, |_| Ok(()))?;

    let mut arrivals = Arrivals::new(part);
    member.rally(|wait| fleet.poll(wait, &mut arrivals).map(drop))?;
    let before = member.server_time()?;
    let begin_ns = clock.now_ns();
    arrivals.meter.start(begin_ns);
    for id in 0..connections {
        fleet.cut(id);
        // They all want to be back from this moment on.
        arrivals.begun_ns[id] = begin_ns;
    }
    let (mut begun, mut back) = (0, 0);
    while back < connections {
        while begun < connections && begun - back < concurrency {
            fleet.connect(begun)?;
            begun += 1;
        }
        let happened = fleet.poll(Wait::Until(clock.now_ns() + SECOND_NS / 10), &mut arrivals)?;
        back += arrivals.opened.drain(..).count();
        for id in arrivals.failed.drain(..) {
            fleet.connect(id)?;
        }
        if happened > 0 {
            arrivals.meter.note_work(clock.now_ns() - fleet.woke_ns());
        }
        if clock.now_ns() - begin_ns > STORM_NS_MAX {
            break;
        }
    }
    arrivals.missing = connections - back;
    arrivals.meter.stop(clock.now_ns());
    // The storm is over when the last thread has everybody back.
    member.rally(|wait| fleet.poll(wait, &mut arrivals).map(drop))?;
    let spent = member.server_spent(before)?;
    Ok((arrivals, spent))
}
