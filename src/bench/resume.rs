//! Scenario `resume`: clients with many subscriptions are cut at once and come back, while publishing
//! goes on.

use super::clock::{SECOND_NS, nanoseconds};
use super::conditions::Conditions;
use super::cost::Spent;
use super::fleet::{Fleet, Wait};
use super::frame::push_frame;
use super::ledger::Faults;
use super::meter::Meter;
use super::returning::{By, Crew, Returning};
use super::stamp::{Payload, Stamp};
use super::summary::Summary;
use super::team::{self, Member};
use crate::proto::OpCode;
use std::io::{self, ErrorKind};
use std::time::Duration;

/// Longest time without any client getting its subscriptions.
const PATIENCE_NS: u64 = 10 * SECOND_NS;
/// A storm that has not ended by then is over.
const STORM_NS_MAX: u64 = 120 * SECOND_NS;
/// At the end: nothing has come for this long, so nothing more will.
const QUIET_NS: u64 = 2 * SECOND_NS;
/// At the end, with everything there: whether something comes twice.
const EPILOGUE_NS: u64 = SECOND_NS / 10;
/// Publications in one turn: reading must go on.
const TURN_PUBLICATIONS_MAX: usize = 64;
/// The welcome with a session's ids comes with a subprotocol only.
const SUBPROTOCOL: &str = "stentor.v1.json";

#[derive(Debug, Clone, Copy)]
pub struct ResumePlan {
    pub crew: Crew,
    /// Of each payload, with its quotes; at least [`super::stamp::DATA_BYTES_MIN`].
    pub data_bytes: usize,
    /// Publications a second, to all topics in turn.
    pub rate: f64,
    /// From when all are cut until they come back.
    pub away: Duration,
    /// Upgrades and questions under way at a time.
    pub concurrency: usize,
}

/// What the storm has brought.
struct Storm {
    meter: Meter,
    faults: Faults,
    trouble: Option<String>,
    back: usize,
    missed: u64,
    received_bytes: u64,
    spent: Option<Spent>,
    growth_bytes: Option<f64>,
}

/// Runs the plan.
pub fn run(conditions: &Conditions, plan: ResumePlan) -> io::Result<Summary> {
    if conditions.threads > 1 {
        let text = "--threads: what is published to all clients is proved by one thread";
        return Err(io::Error::new(ErrorKind::InvalidInput, text));
    }
    let Crew { clients, subscriptions, topics, by } = plan.crew;
    let mut summary = conditions.summary("resume");
    summary.parameter("clients", clients);
    summary.parameter("subscriptions", subscriptions);
    summary.parameter("topics", topics);
    summary.parameter("size", plan.data_bytes);
    summary.parameter("rate", plan.rate);
    summary.parameter("by", if by == By::Session { "session" } else { "recover" });
    let storms = team::run(conditions, |member| Resume::assemble(member, plan)?.run())?;
    let Some(storm) = storms.into_iter().next() else { return Ok(summary) };
    let Storm { meter, faults, trouble, back, missed, .. } = storm;
    summary.meter("clients", &meter, None);
    summary.figure("all_restored_after", meter.seconds(), "s");
    summary.figure("not_restored", (clients - back) as f64, "");
    summary.figure("missed_meanwhile", missed as f64, "");
    let bytes = storm.received_bytes as f64 / back as f64;
    summary.figure("received_per_client", bytes / 1024.0, "KiB");
    if let Some(spent) = storm.spent.filter(|_| back > 0) {
        summary.cost("client", spent, back as f64, meter.seconds());
    }
    if let Some(bytes) = storm.growth_bytes {
        summary.figure("memory_growth", bytes / f64::from(1 << 20), "MiB");
    }
    if back < clients {
        summary.notes.push(format!("only {back} of {clients} clients are restored"));
    }
    summary.faults = faults;
    summary.notes.extend(trouble);
    Ok(summary)
}

struct Resume<'a> {
    member: Member<'a>,
    plan: ResumePlan,
    fleet: Fleet,
    crowd: Returning,
    channels: Vec<String>,
    payload: Payload,
    /// When the first publication is due, and how many were sent since; `None`: not yet.
    schedule: Option<(u64, u64)>,
    message: Vec<u8>,
    wire: Vec<u8>,
}

impl<'a> Resume<'a> {
    /// Connects everybody and subscribes.
    fn assemble(member: Member<'a>, plan: ResumePlan) -> io::Result<Self> {
        let Conditions { target, clock, fleet, .. } = member.conditions;
        let speaking = match plan.crew.by {
            By::Session => target.with_subprotocol(SUBPROTOCOL),
            By::Recover => target.clone(),
        };
        let mut resume = Self {
            member,
            plan,
            fleet: Fleet::new(speaking, *clock, *fleet, 0)?,
            crowd: Returning::new(plan.crew, target.clone(), plan.data_bytes),
            channels: (0..plan.crew.topics).map(|topic| target.channel(topic)).collect(),
            payload: Payload::new(plan.data_bytes),
            schedule: None,
            message: Vec::new(),
            wire: Vec::new(),
        };
        resume.come(false)?;
        let clients = plan.crew.clients;
        match resume.crowd.trouble.take() {
            Some(trouble) => return Err(io::Error::other(trouble)),
            None if resume.crowd.back < clients => {
                let back = resume.crowd.back;
                let text = format!("only {back} of {clients} clients have their subscriptions");
                return Err(io::Error::other(text));
            }
            None => {}
        }
        // The publisher's id is behind theirs.
        resume.fleet.connect(clients)?;
        let patience_ns = clock.now_ns() + PATIENCE_NS;
        while !resume.crowd.publisher_is_here {
            resume.turn(patience_ns)?;
            if let Some(trouble) = resume.crowd.trouble.take() {
                return Err(io::Error::other(trouble));
            }
            if clock.now_ns() > patience_ns {
                return Err(io::Error::other("the publisher is not let in"));
            }
        }
        Ok(resume)
    }

    fn run(mut self) -> io::Result<Storm> {
        let Conditions { clock, warmup, .. } = *self.member.conditions;
        self.schedule = Some((clock.now_ns(), 0));
        self.keep_on(clock.now_ns() + nanoseconds(warmup))?;
        let memory = self.member.server_memory()?;
        let before = self.member.server_time()?;
        for id in 0..self.plan.crew.clients {
            self.fleet.cut(id);
            self.crowd.leave(id);
        }
        self.crowd.failed.clear();
        self.crowd.asking.clear();
        self.keep_on(clock.now_ns() + nanoseconds(self.plan.away))?;
        let received_bytes = self.fleet.received_bytes();
        self.crowd.missed = 0;
        self.crowd.begin_ns = clock.now_ns();
        self.crowd.meter.start(self.crowd.begin_ns);
        self.come(true)?;
        self.crowd.meter.stop(clock.now_ns());
        let spent = self.member.server_spent(before)?;
        let received_bytes = self.fleet.received_bytes() - received_bytes;
        let growth_bytes =
            self.member.server_memory()?.zip(memory).map(|(after, before)| after - before);
        let back = self.crowd.back;
        self.finish()?;
        let faults = self.crowd.settle();
        let Returning { meter, trouble, missed, .. } = self.crowd;
        Ok(Storm { meter, faults, trouble, back, missed, received_bytes, spent, growth_bytes })
    }

    /// Lets all clients come, for the first time or `again`, until each has what it is subscribed to.
    fn come(&mut self, again: bool) -> io::Result<()> {
        let clock = self.member.conditions.clock;
        let clients = self.plan.crew.clients;
        let mut progress = self.member.progress();
        let begin_ns = clock.now_ns();
        let (mut begun, mut settled, mut moved_ns) = (0, 0, begin_ns);
        loop {
            let now = self.crowd.back + self.crowd.refused;
            let now_ns = clock.now_ns();
            if now > settled {
                (settled, moved_ns) = (now, now_ns);
            }
            // The first time, what goes wrong once will go wrong again.
            let is_hopeless = !again && self.crowd.trouble.is_some();
            if now == clients
                || is_hopeless
                || now_ns - moved_ns > PATIENCE_NS
                || now_ns - begin_ns > STORM_NS_MAX
            {
                return Ok(());
            }
            progress.show(now_ns, || format!("{} clients", self.crowd.back));
            while begun < clients && begun < now + self.plan.concurrency {
                self.fleet.connect(begun)?;
                begun += 1;
            }
            self.turn(now_ns + SECOND_NS / 10)?;
            for id in std::mem::take(&mut self.crowd.failed) {
                self.fleet.connect(id)?;
            }
            for id in std::mem::take(&mut self.crowd.asking) {
                self.wire.clear();
                let push = |text: &str| push_frame(OpCode::Text, text.as_bytes(), &mut self.wire);
                self.crowd.ask(id, again, push);
                self.fleet.send(id, &self.wire);
            }
        }
    }

    /// Waits for what is on its way.
    fn finish(&mut self) -> io::Result<()> {
        self.schedule = None;
        let clock = self.member.conditions.clock;
        let begin_ns = clock.now_ns();
        loop {
            let now_ns = clock.now_ns();
            let quiet_ns = now_ns - self.crowd.arrived_ns.max(begin_ns);
            if quiet_ns > QUIET_NS || quiet_ns > EPILOGUE_NS && self.crowd.is_complete() {
                return Ok(());
            }
            self.turn(now_ns + EPILOGUE_NS / 2)?;
        }
    }

    fn keep_on(&mut self, end_ns: u64) -> io::Result<()> {
        while self.member.conditions.clock.now_ns() < end_ns {
            self.turn(end_ns)?;
        }
        Ok(())
    }

    /// Takes in what has come, and publishes what is due.
    fn turn(&mut self, until_ns: u64) -> io::Result<()> {
        let clock = self.member.conditions.clock;
        let due_ns = self.due_ns().unwrap_or(until_ns);
        let happened = self.fleet.poll(Wait::Until(due_ns.min(until_ns)), &mut self.crowd)?;
        let published = self.publish();
        if happened + published > 0 {
            self.crowd.meter.note_work(clock.now_ns() - self.fleet.woke_ns());
        }
        Ok(())
    }

    /// When the next publication is due.
    fn due_ns(&self) -> Option<u64> {
        let (begin_ns, sent) = self.schedule?;
        Some(begin_ns + (sent as f64 / self.plan.rate * SECOND_NS as f64) as u64)
    }

    /// Sends what is due. Returns how many publications.
    fn publish(&mut self) -> usize {
        let clock = self.member.conditions.clock;
        let Crew { clients, topics, .. } = self.plan.crew;
        let mut count = 0;
        self.wire.clear();
        while count < TURN_PUBLICATIONS_MAX
            && let Some(sent_ns) = self.due_ns().filter(|due_ns| *due_ns <= clock.now_ns())
            && let Some((_, sent)) = &mut self.schedule
        {
            let topic = (*sent % topics as u64) as usize;
            *sent += 1;
            let number = self.crowd.published[topic];
            self.crowd.published[topic] += 1;
            let stamp = Stamp { source: 0, topic: topic as u32, number, sent_ns };
            self.message.clear();
            let data = |out: &mut Vec<u8>| self.payload.write(stamp, out);
            let template = &self.member.conditions.target.publish;
            template.write(&self.channels[topic], topic, data, &mut self.message);
            push_frame(OpCode::Text, &self.message, &mut self.wire);
            count += 1;
        }
        if count > 0 {
            self.fleet.send(clients, &self.wire);
        }
        count
    }
}
