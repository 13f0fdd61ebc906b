//! Scenario `echo`: ping round trips, closed loop.

use super::clock::{Clock, SECOND_NS, nanoseconds};
use super::conditions::Conditions;
use super::ending::Ending;
use super::fleet::{Crowd, Fleet, Wait};
use super::frame::push_frame;
use super::ledger::{Arrival, Ledger};
use super::meter::Meter;
use super::muster::Muster;
use super::outcome::Outcome;
use super::stamp::{Corrupt, DATA_BYTES_MIN, Payload, Stamp};
use super::summary::Summary;
use super::team::{self, Member};
use crate::proto::OpCode;
use std::io;

/// At the end: longest wait for what has not come.
const QUIET_NS: u64 = 2 * SECOND_NS;

#[derive(Debug, Clone, Copy)]
pub struct EchoPlan {
    pub connections: usize,
    /// Pings of one connection on their way at a time.
    pub window: usize,
    /// Of the whole message; `None`: the bare ping, whose answers can only be counted.
    pub message_bytes: Option<usize>,
}

struct Pingers {
    plan: EchoPlan,
    /// The number of connection 0 in the whole run: what stamps carry.
    first: usize,
    /// `None` for bare pings.
    payload: Option<Payload>,
    place: usize,
    ledger: Ledger,
    /// Pings sent and answers taken, by connection.
    sent: Vec<u32>,
    answered: Vec<u32>,
    /// When the pings on their way were sent, by connection and number modulo the window.
    sent_ns: Vec<u64>,
    /// Connections that may send again, once for each answer.
    ready: Vec<usize>,
    meter: Meter,
    answered_ns: u64,
    trouble: Option<String>,
}

impl Crowd for Pingers {
    fn opened(&mut self, _: usize, _: u64) {}

    fn received(&mut self, id: usize, message: &[u8], now_ns: u64) {
        let number = match &self.payload {
            None => self.answered[id],
            Some(payload) => match payload.read(message, &mut self.place) {
                Some(Ok(stamp)) if stamp.source as usize != self.first + id => {
                    self.ledger.faults.misrouted += 1;
                    return;
                }
                Some(Ok(stamp)) => stamp.number,
                Some(Err(Corrupt)) => {
                    self.ledger.faults.corrupt += 1;
                    return;
                }
                None => {
                    self.ledger.faults.unexpected += 1;
                    self.trouble.get_or_insert_with(|| {
                        format!("unexpected: {}", String::from_utf8_lossy(message))
                    });
                    return;
                }
            },
        };
        self.answered_ns = now_ns;
        if number >= self.sent[id] {
            self.ledger.faults.unexpected += 1;
        } else if self.ledger.note(id, 0, number) == Arrival::First {
            self.answered[id] += 1;
            self.meter.note(self.sent_ns[self.slot(id, number)], now_ns);
            self.ready.push(id);
        }
    }

    fn closed(&mut self, id: usize, ending: &Ending, _: u64) {
        self.ledger.faults.disconnected += 1;
        self.trouble.get_or_insert_with(|| format!("connection {}: {ending}", self.first + id));
    }
}

impl Pingers {
    fn slot(&self, id: usize, number: u32) -> usize {
        id * self.plan.window + number as usize % self.plan.window
    }
}

/// One thread's part.
struct Echo<'a> {
    member: Member<'a>,
    clock: Clock,
    fleet: Fleet,
    pingers: Pingers,
    message: Vec<u8>,
    wire: Vec<u8>,
}

/// Runs the plan. The size, if any, is at least [`message_bytes_min`].
pub fn run(conditions: &Conditions, plan: EchoPlan) -> io::Result<Summary> {
    conditions.require("connections", plan.connections, "each thread has its own")?;
    let mut summary = conditions.summary("echo");
    summary.parameter("connections", plan.connections);
    summary.parameter("window", plan.window);
    if let Some(bytes) = plan.message_bytes {
        summary.parameter("size", bytes);
    }
    let before = conditions.server_memory()?;
    let Outcome { meter, spent, memory, faults, troubles } =
        Outcome::of(team::run(conditions, |member| Echo::assemble(member, plan)?.run())?);
    summary.meter("round_trips", &meter, None);
    if let Some(spent) = spent {
        summary.cost("round_trip", spent, meter.count as f64, meter.seconds());
    }
    if let (Some(before), Some(after)) = (before, memory) {
        let bytes = (after - before) / plan.connections as f64;
        summary.figure("memory_per_connection", bytes / 1024.0, "KiB");
    }
    summary.faults = faults;
    summary.notes.extend(troubles);
    Ok(summary)
}

/// The shortest message with a stamp.
pub fn message_bytes_min(conditions: &Conditions) -> usize {
    let mut message = Vec::new();
    conditions.target.echo.write("", 0, |_| {}, &mut message);
    message.len() + DATA_BYTES_MIN
}

impl<'a> Echo<'a> {
    fn assemble(member: Member<'a>, plan: EchoPlan) -> io::Result<Self> {
        let conditions = member.conditions;
        let part = member.share(plan.connections);
        let (first, count) = (part.start, part.len());
        let mut fleet = member.fleet(first)?;
        let muster = Muster { count, concurrency: member.concurrency(), confirms: false };
        muster.run(&mut fleet, |_, _| {}, |_| Ok(()))?;
        let envelope_bytes = message_bytes_min(conditions) - DATA_BYTES_MIN;
        let payload = plan.message_bytes.map(|bytes| Payload::new(bytes - envelope_bytes));
        let pingers = Pingers {
            plan,
            first,
            payload,
            place: 0,
            ledger: Ledger::new(count, 1),
            sent: vec![0; count],
            answered: vec![0; count],
            sent_ns: vec![0; count * plan.window],
            ready: (0..count).flat_map(|id| std::iter::repeat_n(id, plan.window)).collect(),
            meter: Meter::default(),
            answered_ns: 0,
            trouble: None,
        };
        let clock = conditions.clock;
        Ok(Self { member, clock, fleet, pingers, message: Vec::new(), wire: Vec::new() })
    }

    fn run(mut self) -> io::Result<Outcome> {
        let Self { member, clock, .. } = self;
        let begin_ns = self.rally()? + nanoseconds(member.conditions.warmup);
        self.keep_on(begin_ns)?;
        let before = member.server_time()?;
        self.pingers.meter.start(clock.now_ns());
        self.keep_on(begin_ns + nanoseconds(member.conditions.duration))?;
        self.pingers.meter.stop(clock.now_ns());
        let spent = member.server_spent(before)?;
        let memory = member.server_memory()?;
        // Nobody's connections end before the memory of all has been looked at.
        self.rally()?;
        let Pingers { meter, ledger, trouble, .. } = self.finish()?;
        let troubles = trouble.into_iter().collect();
        Ok(Outcome { meter, spent, memory, faults: ledger.faults, troubles })
    }

    fn rally(&mut self) -> io::Result<u64> {
        let Self { member, fleet, pingers, .. } = self;
        member.rally(|wait| fleet.poll(wait, pingers).map(drop))
    }

    /// Answers every answer by the next ping until then.
    fn keep_on(&mut self, end_ns: u64) -> io::Result<()> {
        let spin = self.member.conditions.spin.unwrap_or(true);
        let mut progress = self.member.progress();
        loop {
            let now_ns = self.clock.now_ns();
            if now_ns >= end_ns {
                return Ok(());
            }
            progress.show(now_ns, || format!("{} round trips", self.pingers.meter.count));
            self.send_ready();
            let wait = if spin { Wait::Spin } else { Wait::Until(end_ns) };
            let busy_ns = self.clock.now_ns() - now_ns;
            if self.fleet.poll(wait, &mut self.pingers)? > 0 {
                let work_ns = self.clock.now_ns() - self.fleet.woke_ns();
                self.pingers.meter.note_work(busy_ns + work_ns);
            }
        }
    }

    fn send_ready(&mut self) {
        let mut ready = std::mem::take(&mut self.pingers.ready);
        let sent_ns = self.clock.now_ns();
        for id in ready.drain(..) {
            let pingers = &mut self.pingers;
            let number = pingers.sent[id];
            pingers.sent[id] += 1;
            let slot = pingers.slot(id, number);
            pingers.sent_ns[slot] = sent_ns;
            self.message.clear();
            self.wire.clear();
            let target = &self.member.conditions.target;
            match &pingers.payload {
                None => target.ping.write("", 0, |_| {}, &mut self.message),
                Some(payload) => {
                    let source = (pingers.first + id) as u32;
                    let stamp = Stamp { source, topic: 0, number, sent_ns };
                    let data = |out: &mut Vec<u8>| payload.write(stamp, out);
                    target.echo.write("", 0, data, &mut self.message);
                }
            }
            push_frame(OpCode::Text, &self.message, &mut self.wire);
            self.fleet.send(id, &self.wire);
        }
        self.pingers.ready = ready;
    }

    /// Waits for the last answers.
    fn finish(mut self) -> io::Result<Pingers> {
        let begin_ns = self.clock.now_ns();
        let complete = |pingers: &Pingers| pingers.sent == pingers.answered;
        while !complete(&self.pingers) {
            let now_ns = self.clock.now_ns();
            if now_ns - self.pingers.answered_ns.max(begin_ns) > QUIET_NS {
                break;
            }
            self.fleet.poll(Wait::Until(now_ns + SECOND_NS / 10), &mut self.pingers)?;
        }
        for id in 0..self.pingers.sent.len() {
            let sent = self.pingers.sent[id];
            self.pingers.ledger.settle(id, 0, sent);
        }
        Ok(self.pingers)
    }
}
