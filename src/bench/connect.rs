//! Scenario `connect`: handshakes a second, and the storm of everybody coming back at once.

use super::clock::{SECOND_NS, nanoseconds};
use super::conditions::Conditions;
use super::ending::Ending;
use super::fleet::{Crowd, Fleet, Wait};
use super::meter::Meter;
use super::muster::Muster;
use super::summary::Summary;
use std::io;
use std::time::Duration;

#[derive(Debug, Clone, Copy)]
pub struct ConnectPlan {
    /// Handshakes under way at a time.
    pub concurrency: usize,
    /// Connections that are cut and come back; `None`: each connection is cut as soon as it is open,
    /// for the span of the run.
    pub storm: Option<usize>,
}

/// A storm that has not ended by then is over.
const STORM_NS_MAX: u64 = 120 * SECOND_NS;

#[derive(Default)]
struct Arrivals {
    /// When each began to connect, by id.
    begun_ns: Vec<u64>,
    opened: Vec<usize>,
    failed: Vec<usize>,
    meter: Meter,
    failures: u64,
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
        self.trouble.get_or_insert_with(|| format!("connection {id}: {ending}"));
    }
}

pub fn run(conditions: &Conditions, plan: ConnectPlan) -> io::Result<Summary> {
    let mut summary = Summary::new("connect", &conditions.url);
    summary.parameter("concurrency", plan.concurrency);
    let arrivals = match plan.storm {
        Some(connections) => storm(conditions, plan.concurrency, connections, &mut summary)?,
        None => handshakes(conditions, plan.concurrency, &mut summary)?,
    };
    summary.faults.disconnected = arrivals.failures;
    summary.notes.extend(arrivals.trouble);
    Ok(summary)
}

fn handshakes(
    conditions: &Conditions,
    concurrency: usize,
    summary: &mut Summary,
) -> io::Result<Arrivals> {
    let clock = conditions.clock;
    let mut fleet = conditions.fleet()?;
    let mut arrivals = Arrivals { begun_ns: vec![0; concurrency], ..Arrivals::default() };
    for id in 0..concurrency {
        arrivals.begun_ns[id] = clock.now_ns();
        fleet.connect(id)?;
    }
    keep_on(conditions, &mut fleet, &mut arrivals, conditions.warmup)?;
    let before = conditions.server_time()?;
    arrivals.meter.start(clock.now_ns());
    keep_on(conditions, &mut fleet, &mut arrivals, conditions.duration)?;
    arrivals.meter.stop(clock.now_ns());
    let spent = conditions.server_spent(before)?;
    let meter = &arrivals.meter;
    summary.meter("handshakes", meter, None);
    if let Some(spent) = spent {
        summary.cost("handshake", spent, meter.count as f64, meter.seconds());
    }
    Ok(arrivals)
}

/// Cuts each connection once it is open, and opens it again.
fn keep_on(
    conditions: &Conditions,
    fleet: &mut Fleet,
    arrivals: &mut Arrivals,
    duration: Duration,
) -> io::Result<()> {
    let clock = conditions.clock;
    let end_ns = clock.now_ns() + nanoseconds(duration);
    let spin = conditions.spin.unwrap_or(true);
    let mut progress = conditions.progress();
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

/// Everybody is connected, everybody is cut, everybody comes back as fast as `concurrency` lets them.
fn storm(
    conditions: &Conditions,
    concurrency: usize,
    connections: usize,
    summary: &mut Summary,
) -> io::Result<Arrivals> {
    summary.parameter("connections", connections);
    let clock = conditions.clock;
    let mut fleet = conditions.fleet()?;
    let muster =
        Muster { count: connections, concurrency: conditions.concurrency, confirms: false };
    muster.run(&mut fleet, |_, _| {}, |_| Ok(()))?;

    let before = conditions.server_time()?;
    let mut arrivals = Arrivals { begun_ns: vec![0; connections], ..Arrivals::default() };
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
            let seconds = STORM_NS_MAX / SECOND_NS;
            summary.notes.push(format!("only {back} were back after {seconds} s"));
            break;
        }
    }
    arrivals.meter.stop(clock.now_ns());
    let spent = conditions.server_spent(before)?;
    let meter = &arrivals.meter;
    summary.meter("handshakes", meter, None);
    summary.figure("all_back_after", meter.seconds(), "s");
    if let Some(spent) = spent {
        summary.cost("handshake", spent, meter.count as f64, meter.seconds());
    }
    Ok(arrivals)
}
