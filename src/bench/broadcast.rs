//! Publishers and subscribers at work: the engine of `fanout`, `many` and `slow`.

use super::audience::{Audience, Part, Shape, StoppedFate};
use super::clock::{SECOND_NS, nanoseconds};
use super::conditions::Conditions;
use super::fleet::{Fleet, Wait};
use super::frame::push_frame;
use super::ledger::Faults;
use super::meter::{add, histogram};
use super::muster::Muster;
use super::outcome::Outcome;
use super::probe::{Prober, Probing};
use super::stamp::{Payload, Stamp};
use super::team::Member;
use crate::proto::OpCode;
use hdrhistogram::Histogram;
use std::io;

/// A closed loop waits no longer for what does not come.
const STALL_NS: u64 = SECOND_NS;
/// At the end: nothing has come for this long, so nothing more will.
const QUIET_NS: u64 = 2 * SECOND_NS;
/// At the end, with everything there: whether something comes twice.
const EPILOGUE_NS: u64 = SECOND_NS / 10;
/// Publications of an open loop in one turn: reading must go on.
const TURN_PUBLICATIONS_MAX: usize = 64;

/// When publications are sent.
#[derive(Debug, Clone, Copy)]
pub enum Pace {
    /// Closed loop: this many of each publisher on their way at a time.
    Window(usize),
    /// Open loop: this many a second, of all publishers together, whatever comes back.
    Rate(f64),
}

impl Pace {
    /// That of a share of the publishers.
    fn part(self, share: f64) -> Self {
        match self {
            Self::Window(window) => Self::Window(window),
            Self::Rate(rate) => Self::Rate(rate * share),
        }
    }
}

/// What is broadcast.
#[derive(Debug, Clone, Copy)]
pub struct BroadcastPlan {
    pub shape: Shape,
    /// Of each payload, with its quotes; at least [`super::stamp::DATA_BYTES_MIN`].
    pub data_bytes: usize,
    pub pace: Pace,
    /// Connections that ping meanwhile: the first thread's.
    pub probing: Option<Probing>,
}

/// What a measured span has brought to one thread, or to all.
#[derive(Debug)]
pub struct Span {
    pub outcome: Outcome,
    pub completion: Histogram<u64>,
    /// Open loop: how late publications were sent.
    pub lag: Option<Histogram<u64>>,
    pub probes: Option<Histogram<u64>>,
    pub publications: u64,
}

impl Span {
    /// Adds what another thread has brought.
    pub fn absorb(&mut self, other: Self) {
        let Self { outcome, completion, lag, probes, publications } = other;
        self.outcome.absorb(outcome);
        add(&mut self.completion, &completion);
        for (own, other) in [(&mut self.lag, lag), (&mut self.probes, probes)] {
            match (own, other) {
                (Some(own), Some(other)) => add(own, &other),
                (own, other) => *own = own.take().or(other),
            }
        }
        self.publications += publications;
    }
}

/// What the books say in the end.
#[derive(Debug)]
pub struct Finish {
    pub faults: Faults,
    /// The first, in words.
    pub trouble: Option<String>,
    pub stopped: StoppedFate,
    /// From when the stopped ones read again, or nothing more was published, to the last delivery.
    pub last_after_ns: u64,
}

/// Everybody of one thread in place: a broadcast of its own, with channels that no other has.
pub struct Broadcast<'a> {
    member: Member<'a>,
    /// The thread's own.
    shape: Shape,
    part: Part,
    pace: Pace,
    fleet: Fleet,
    audience: Audience,
    prober: Option<Prober>,
    payload: Payload,
    /// By topic.
    channels: Vec<String>,
    /// Open loop: when the first is due, and how many were sent since.
    schedule: (u64, u64),
    lag: Histogram<u64>,
    /// Reused: a message, then its frames.
    message: Vec<u8>,
    wire: Vec<u8>,
}

impl<'a> Broadcast<'a> {
    /// Connects and subscribes this thread's part of the plan: at least one topic and one publisher.
    pub fn assemble(member: Member<'a>, plan: BroadcastPlan) -> io::Result<Self> {
        let conditions = member.conditions;
        let part = plan.shape.part(|total| member.share(total));
        let shape = part.own;
        let Shape { publishers, topics, subscribers } = shape;
        let target = &conditions.target;
        let channel = |topic| target.channel(part.first_topic + topic);
        let channels: Vec<_> = (0..topics).map(channel).collect();
        let mut fleet = member.fleet(part.first_connection)?;
        let mut message = Vec::new();
        let mut progress = member.progress();
        let muster = Muster {
            count: subscribers + publishers,
            concurrency: member.concurrency(),
            confirms: target.confirms,
        };
        let greet = |id: usize, out: &mut Vec<u8>| {
            if id < subscribers {
                let topic = shape.topic_of_subscriber(id);
                let number = part.first_topic + topic;
                message.clear();
                target.subscribe.write(&channels[topic], number, |_| {}, &mut message);
                push_frame(OpCode::Text, &message, out);
            }
        };
        muster.run(&mut fleet, greet, |ready| {
            progress.show(conditions.clock.now_ns(), || format!("{ready} connections"));
            Ok(())
        })?;
        let others = plan.shape.subscribers + plan.shape.publishers;
        let probing = plan.probing.filter(|_| member.is_leader());
        let prober =
            probing.map(|probing| Prober::assemble(member, probing, others)).transpose()?;
        let window = match plan.pace {
            Pace::Window(window) => Some(window),
            Pace::Rate(_) => None,
        };
        Ok(Self {
            member,
            shape,
            part,
            pace: plan.pace.part(publishers as f64 / plan.shape.publishers as f64),
            fleet,
            audience: Audience::new(part, plan.data_bytes, window),
            prober,
            payload: Payload::new(plan.data_bytes),
            channels,
            schedule: (conditions.clock.now_ns(), 0),
            lag: histogram(),
            message: Vec::new(),
            wire: Vec::new(),
        })
    }

    /// Waits for the other threads, then loads what is not measured. Returns when it ends.
    pub fn warm_up(&mut self) -> io::Result<u64> {
        let end_ns = self.rally()? + nanoseconds(self.member.conditions.warmup);
        self.keep_on(end_ns)?;
        Ok(end_ns)
    }

    /// Waits for the other threads.
    pub fn rally(&mut self) -> io::Result<u64> {
        let Self { member, fleet, audience, prober, .. } = self;
        member.rally(|wait| {
            fleet.poll(wait, audience)?;
            prober.as_mut().map_or(Ok(0), |prober| prober.turn(Wait::Spin)).map(drop)
        })
    }

    /// Load for the measured span, which begins then.
    pub fn measure(&mut self, begin_ns: u64) -> io::Result<Span> {
        let Conditions { clock, duration, .. } = *self.member.conditions;
        let published: u64 = self.audience.published.iter().sum();
        self.lag.reset();
        self.audience.completion.reset();
        if let Some(prober) = &mut self.prober {
            prober.meter.start(clock.now_ns());
        }
        let before = self.member.server_time()?;
        self.audience.meter.start(clock.now_ns());
        self.keep_on(begin_ns + nanoseconds(duration))?;
        self.audience.meter.stop(clock.now_ns());
        let spent = self.member.server_spent(before)?;
        let open = matches!(self.pace, Pace::Rate(_));
        let meter = std::mem::take(&mut self.audience.meter);
        Ok(Span {
            outcome: Outcome { meter, spent, ..Outcome::default() },
            completion: self.audience.completion.clone(),
            lag: open.then(|| self.lag.clone()),
            probes: self.prober.as_mut().map(|prober| prober.meter.latency.clone()),
            publications: self.audience.published.iter().sum::<u64>() - published,
        })
    }

    /// The last `count` subscribers read nothing any more.
    pub fn stop_reading(&mut self, count: usize) {
        self.audience.stop(count);
        for id in self.audience.stopped() {
            self.fleet.pause(id);
        }
    }

    /// Lets those read again that have stopped, waits for what is on its way, then closes the books.
    pub fn finish(mut self) -> io::Result<Finish> {
        let clock = self.member.conditions.clock;
        let begin_ns = clock.now_ns();
        for id in self.audience.stopped() {
            self.fleet.resume(id, &mut self.audience);
        }
        loop {
            let now_ns = clock.now_ns();
            let quiet_ns = now_ns - self.audience.arrived_ns.max(begin_ns);
            if quiet_ns > QUIET_NS || quiet_ns > EPILOGUE_NS && self.audience.is_complete() {
                break;
            }
            self.fleet.poll(Wait::Until(now_ns + EPILOGUE_NS / 2), &mut self.audience)?;
        }
        let mut faults = self.audience.settle();
        if let Some(prober) = &self.prober {
            faults.disconnected += prober.disconnected;
        }
        let stopped = self.audience.stopped_fate();
        let last_after_ns = self.audience.arrived_ns.saturating_sub(begin_ns);
        Ok(Finish { faults, trouble: self.audience.trouble, stopped, last_after_ns })
    }

    fn keep_on(&mut self, end_ns: u64) -> io::Result<()> {
        let clock = self.member.conditions.clock;
        let begin_ns = clock.now_ns();
        let closed = matches!(self.pace, Pace::Window(_));
        let spin = self.member.conditions.spin.unwrap_or(closed);
        self.schedule = (begin_ns, 0);
        if let Pace::Rate(rate) = self.pace {
            // Threads take turns: together they keep the rate as evenly as one.
            let turn = self.member.index as f64 / self.member.conditions.threads as f64;
            self.schedule.0 += (turn / rate * SECOND_NS as f64) as u64;
        }
        let mut progress = self.member.progress();
        let (mut shown_ns, mut shown) = (begin_ns, 0);
        loop {
            let now_ns = clock.now_ns();
            if now_ns >= end_ns {
                return Ok(());
            }
            let wait = if spin { Wait::Spin } else { Wait::Until(self.due_ns().min(end_ns)) };
            let mut happened = self.fleet.poll(wait, &mut self.audience)?;
            if let Some(prober) = &mut self.prober {
                happened += prober.turn(Wait::Spin)?;
            }
            happened += self.publish();
            let now_ns = clock.now_ns();
            if happened > 0 {
                self.audience.meter.note_work(now_ns - self.fleet.woke_ns());
            }
            progress.show(now_ns, || {
                let rate = (self.audience.meter.count.saturating_sub(shown)) as f64
                    / ((now_ns - shown_ns).max(1) as f64 / SECOND_NS as f64);
                (shown_ns, shown) = (now_ns, self.audience.meter.count);
                let left = (end_ns.saturating_sub(now_ns)) / SECOND_NS;
                format!("{rate:.0} deliveries/s, {left} s left")
            });
        }
    }

    /// When the loop must not wait any longer.
    fn due_ns(&self) -> u64 {
        let idle_ns = self.member.conditions.clock.now_ns() + SECOND_NS / 10;
        let due_ns = match self.pace {
            Pace::Window(_) => idle_ns,
            Pace::Rate(rate) => due_ns(self.schedule, rate).min(idle_ns),
        };
        self.prober.as_ref().map_or(due_ns, |prober| prober.due_ns().min(due_ns))
    }

    /// Sends what may be sent now. Returns how many publications.
    fn publish(&mut self) -> usize {
        match self.pace {
            Pace::Window(_) => self.fill_windows(),
            Pace::Rate(rate) => self.keep_schedule(rate),
        }
    }

    fn fill_windows(&mut self) -> usize {
        let now_ns = self.member.conditions.clock.now_ns();
        let mut count = 0;
        for publisher in 0..self.shape.publishers {
            self.wire.clear();
            loop {
                let index = self.audience.published[publisher];
                let Some(flights) = &mut self.audience.flights else { return count };
                if !flights.has_room(publisher, index) {
                    break;
                }
                let (topic, _) = self.shape.place(publisher, index);
                let deliveries = self.shape.subscribers_of(topic) as u32;
                flights.begin(publisher, index, deliveries, now_ns);
                self.write_publication(publisher, now_ns);
                count += 1;
            }
            // What may go at once goes in one system call, as a busy publisher's would.
            if !self.wire.is_empty() {
                self.fleet.send(self.shape.subscribers + publisher, &self.wire);
            }
        }
        if count == 0 && now_ns.saturating_sub(self.audience.arrived_ns) > STALL_NS {
            if let Some(flights) = &mut self.audience.flights {
                flights.give_up();
            }
            self.audience.arrived_ns = now_ns;
        }
        count
    }

    fn keep_schedule(&mut self, rate: f64) -> usize {
        let mut count = 0;
        while count < TURN_PUBLICATIONS_MAX {
            let now_ns = self.member.conditions.clock.now_ns();
            let due_ns = due_ns(self.schedule, rate);
            if due_ns > now_ns {
                break;
            }
            let publisher = self.schedule.1 as usize % self.shape.publishers;
            self.wire.clear();
            // From when it should have been sent: a client or server that is late hides nothing.
            self.write_publication(publisher, due_ns);
            self.fleet.send(self.shape.subscribers + publisher, &self.wire);
            self.schedule.1 += 1;
            if self.audience.meter.is_running() {
                self.lag.saturating_record((now_ns - due_ns).max(1));
            }
            count += 1;
        }
        count
    }

    /// Appends a publisher's next publication to `wire`.
    fn write_publication(&mut self, publisher: usize, sent_ns: u64) {
        let index = &mut self.audience.published[publisher];
        let (topic, number) = self.shape.place(publisher, *index);
        *index += 1;
        let stamp = Stamp { source: publisher as u32, topic: topic as u32, number, sent_ns };
        let stamp = self.part.to_whole(stamp);
        self.message.clear();
        let data = |out: &mut Vec<u8>| self.payload.write(stamp, out);
        let template = &self.member.conditions.target.publish;
        template.write(&self.channels[topic], stamp.topic as usize, data, &mut self.message);
        push_frame(OpCode::Text, &self.message, &mut self.wire);
    }
}

/// When the next publication of an open loop is due.
fn due_ns((begin_ns, sent): (u64, u64), rate: f64) -> u64 {
    begin_ns + (sent as f64 / rate * SECOND_NS as f64) as u64
}
