//! Publishers and subscribers at work: the engine of `fanout`, `many` and `slow`.

use super::audience::{Audience, Shape};
use super::clock::{SECOND_NS, nanoseconds};
use super::conditions::Conditions;
use super::cost::Spent;
use super::fleet::{Fleet, Wait};
use super::frame::push_frame;
use super::ledger::Faults;
use super::meter::{Meter, histogram};
use super::muster::Muster;
use super::probe::{Prober, Probing};
use super::stamp::{Payload, Stamp};
use crate::proto::OpCode;
use hdrhistogram::Histogram;
use std::io;
use std::time::Duration;

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

/// What is broadcast.
#[derive(Debug, Clone, Copy)]
pub struct BroadcastPlan {
    pub shape: Shape,
    /// Of each payload, with its quotes; at least [`super::stamp::DATA_BYTES_MIN`].
    pub data_bytes: usize,
    pub pace: Pace,
    /// Connections that ping meanwhile.
    pub probing: Option<Probing>,
}

/// What a measured span has brought.
#[derive(Debug)]
pub struct Span {
    pub meter: Meter,
    pub completion: Histogram<u64>,
    /// Open loop: how late publications were sent.
    pub lag: Option<Histogram<u64>>,
    pub probes: Option<Histogram<u64>>,
    pub publications: u64,
    pub spent: Option<Spent>,
}

/// Everybody in place.
pub struct Broadcast {
    conditions: Conditions,
    plan: BroadcastPlan,
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

impl Broadcast {
    pub fn assemble(conditions: &Conditions, plan: BroadcastPlan) -> io::Result<Self> {
        let Shape { publishers, topics, subscribers } = plan.shape;
        let target = &conditions.target;
        let channels: Vec<_> = (0..topics).map(|topic| target.channel(topic)).collect();
        let mut fleet = conditions.fleet()?;
        let mut message = Vec::new();
        let mut progress = conditions.progress();
        let muster = Muster {
            count: subscribers + publishers,
            concurrency: conditions.concurrency,
            confirms: target.confirms,
        };
        let greet = |id: usize, out: &mut Vec<u8>| {
            if id < subscribers {
                let topic = plan.shape.topic_of_subscriber(id);
                message.clear();
                target.subscribe.write(&channels[topic], topic, |_| {}, &mut message);
                push_frame(OpCode::Text, &message, out);
            }
        };
        muster.run(&mut fleet, greet, |ready| {
            progress.show(conditions.clock.now_ns(), || format!("{ready} connections"));
            Ok(())
        })?;
        let prober =
            plan.probing.map(|probing| Prober::assemble(conditions, probing)).transpose()?;
        let window = match plan.pace {
            Pace::Window(window) => Some(window),
            Pace::Rate(_) => None,
        };
        Ok(Self {
            conditions: conditions.clone(),
            plan,
            fleet,
            audience: Audience::new(plan.shape, plan.data_bytes, window),
            prober,
            payload: Payload::new(plan.data_bytes),
            channels,
            schedule: (conditions.clock.now_ns(), 0),
            lag: histogram(),
            message: Vec::new(),
            wire: Vec::new(),
        })
    }

    /// Load that is not measured.
    pub fn warm_up(&mut self) -> io::Result<()> {
        self.keep_on(self.conditions.warmup)
    }

    /// Load for the measured span.
    pub fn measure(&mut self) -> io::Result<Span> {
        let clock = self.conditions.clock;
        let published: u64 = self.audience.published.iter().sum();
        self.lag.reset();
        self.audience.completion.reset();
        if let Some(prober) = &mut self.prober {
            prober.meter.start(clock.now_ns());
        }
        let before = self.conditions.server_time()?;
        self.audience.meter.start(clock.now_ns());
        self.keep_on(self.conditions.duration)?;
        self.audience.meter.stop(clock.now_ns());
        let spent = self.conditions.server_spent(before)?;
        let open = matches!(self.plan.pace, Pace::Rate(_));
        Ok(Span {
            meter: std::mem::take(&mut self.audience.meter),
            completion: self.audience.completion.clone(),
            lag: open.then(|| self.lag.clone()),
            probes: self.prober.as_mut().map(|prober| prober.meter.latency.clone()),
            publications: self.audience.published.iter().sum::<u64>() - published,
            spent,
        })
    }

    /// The last `count` subscribers read nothing any more.
    pub fn stop_reading(&mut self, count: usize) {
        let subscribers = self.plan.shape.subscribers;
        self.audience.stopped_from = subscribers - count;
        for id in subscribers - count..subscribers {
            self.fleet.pause(id);
        }
    }

    /// Waits for what is on its way, then says what went wrong, and the first trouble in words.
    pub fn finish(mut self) -> io::Result<(Faults, Option<String>)> {
        let clock = self.conditions.clock;
        let begin_ns = clock.now_ns();
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
        Ok((faults, self.audience.trouble))
    }

    fn keep_on(&mut self, duration: Duration) -> io::Result<()> {
        let clock = self.conditions.clock;
        let begin_ns = clock.now_ns();
        let end_ns = begin_ns + nanoseconds(duration);
        let closed = matches!(self.plan.pace, Pace::Window(_));
        let spin = self.conditions.spin.unwrap_or(closed);
        self.schedule = (begin_ns, 0);
        let mut progress = self.conditions.progress();
        let (mut shown_ns, mut shown) = (begin_ns, 0);
        loop {
            let now_ns = clock.now_ns();
            if now_ns >= end_ns {
                return Ok(());
            }
            let wait = if spin { Wait::Spin } else { Wait::Until(self.due_ns().min(end_ns)) };
            let mut happened = self.fleet.poll(wait, &mut self.audience)?;
            if let Some(prober) = &mut self.prober {
                happened += prober.turn()?;
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
        let idle_ns = self.conditions.clock.now_ns() + SECOND_NS / 10;
        let due_ns = match self.plan.pace {
            Pace::Window(_) => idle_ns,
            Pace::Rate(rate) => due_ns(self.schedule, rate).min(idle_ns),
        };
        self.prober.as_ref().map_or(due_ns, |prober| prober.due_ns().min(due_ns))
    }

    /// Sends what may be sent now. Returns how many publications.
    fn publish(&mut self) -> usize {
        match self.plan.pace {
            Pace::Window(_) => self.fill_windows(),
            Pace::Rate(rate) => self.keep_schedule(rate),
        }
    }

    fn fill_windows(&mut self) -> usize {
        let now_ns = self.conditions.clock.now_ns();
        let mut count = 0;
        for publisher in 0..self.plan.shape.publishers {
            self.wire.clear();
            loop {
                let index = self.audience.published[publisher];
                let Some(flights) = &mut self.audience.flights else { return count };
                if !flights.has_room(publisher, index) {
                    break;
                }
                let (topic, _) = self.plan.shape.place(publisher, index);
                let deliveries = self.plan.shape.subscribers_of(topic) as u32;
                flights.begin(publisher, index, deliveries, now_ns);
                self.write_publication(publisher, now_ns);
                count += 1;
            }
            // What may go at once goes in one system call, as a busy publisher's would.
            if !self.wire.is_empty() {
                self.fleet.send(self.plan.shape.subscribers + publisher, &self.wire);
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
            let now_ns = self.conditions.clock.now_ns();
            let due_ns = due_ns(self.schedule, rate);
            if due_ns > now_ns {
                break;
            }
            let publisher = self.schedule.1 as usize % self.plan.shape.publishers;
            self.wire.clear();
            // From when it should have been sent: a client or server that is late hides nothing.
            self.write_publication(publisher, due_ns);
            self.fleet.send(self.plan.shape.subscribers + publisher, &self.wire);
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
        let (topic, number) = self.plan.shape.place(publisher, *index);
        *index += 1;
        let stamp = Stamp { source: publisher as u32, topic: topic as u32, number, sent_ns };
        self.message.clear();
        let data = |out: &mut Vec<u8>| self.payload.write(stamp, out);
        let template = &self.conditions.target.publish;
        template.write(&self.channels[topic], topic, data, &mut self.message);
        push_frame(OpCode::Text, &self.message, &mut self.wire);
    }
}

/// When the next publication of an open loop is due.
fn due_ns((begin_ns, sent): (u64, u64), rate: f64) -> u64 {
    begin_ns + (sent as f64 / rate * SECOND_NS as f64) as u64
}
