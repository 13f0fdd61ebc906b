//! Pings beside a broadcast: how long others wait while a shard is busy. Open loop, so a late answer
//! does not delay the next ping, and every latency counts from when the ping should have been sent.
//!
//! Connections of their own poll: they are looked at between small batches of deliveries.

use super::clock::SECOND_NS;
use super::ending::Ending;
use super::fleet::{Crowd, Fleet, Wait};
use super::frame::push_frame;
use super::meter::Meter;
use super::muster::Muster;
use super::team::Member;
use crate::proto::OpCode;
use std::collections::VecDeque;
use std::io;
use std::thread;
use std::time::Duration;

/// A thread that sleeps wakes up by this much later, at most, on a machine that is not busy.
const WAKE_UP_NS: u64 = 100_000;

/// How it is pinged.
#[derive(Debug, Clone, Copy)]
pub struct Probing {
    pub connections: usize,
    /// Of all connections together, in a second.
    pub rate: f64,
}

/// The connections that ping.
pub struct Prober {
    probing: Probing,
    fleet: Fleet,
    answers: Answers,
    ping: Vec<u8>,
    begin_ns: u64,
    sent: u64,
    pub meter: Meter,
    pub disconnected: u64,
}

#[derive(Default)]
struct Answers {
    /// When the pings without an answer were due, by connection.
    asked_ns: Vec<VecDeque<u64>>,
    /// Due and answered.
    answered: Vec<(u64, u64)>,
    disconnected: u64,
}

impl Crowd for Answers {
    fn opened(&mut self, _: usize, _: u64) {}

    fn received(&mut self, id: usize, _: &[u8], now_ns: u64) {
        let asked_ns = self.asked_ns[id].pop_front();
        self.answered.extend(asked_ns.map(|asked_ns| (asked_ns, now_ns)));
    }

    fn closed(&mut self, _: usize, _: &Ending, _: u64) {
        self.disconnected += 1;
    }
}

impl Prober {
    /// `first`: the number of the first of its connections in the whole run.
    pub fn assemble(member: Member<'_>, probing: Probing, first: usize) -> io::Result<Self> {
        let conditions = member.conditions;
        let mut fleet = member.fleet(first)?;
        let count = probing.connections;
        let muster = Muster { count, concurrency: member.concurrency(), confirms: false };
        muster.run(&mut fleet, |_, _| {}, |_| Ok(()))?;
        let (mut message, mut ping) = (Vec::new(), Vec::new());
        conditions.target.ping.write("", 0, |_| {}, &mut message);
        push_frame(OpCode::Text, &message, &mut ping);
        let asked_ns = vec![VecDeque::new(); count];
        Ok(Self {
            probing,
            fleet,
            answers: Answers { asked_ns, ..Answers::default() },
            ping,
            begin_ns: conditions.clock.now_ns(),
            sent: 0,
            meter: Meter::default(),
            disconnected: 0,
        })
    }

    /// When the next ping is due.
    pub fn due_ns(&self) -> u64 {
        self.begin_ns + (self.sent as f64 / self.probing.rate * SECOND_NS as f64) as u64
    }

    /// Pings until then, on a thread that has nothing else to do.
    pub fn keep_on(&mut self, end_ns: u64) -> io::Result<()> {
        let clock = self.fleet.clock();
        while clock.now_ns() < end_ns {
            let until_ns = self.due_ns().min(end_ns);
            if !self.is_awaiting() {
                // A poll would spin the last two milliseconds away, on a core that others need.
                let left_ns = until_ns.saturating_sub(clock.now_ns());
                thread::sleep(Duration::from_nanos(left_ns.saturating_sub(WAKE_UP_NS)));
            }
            self.turn(Wait::Until(until_ns))?;
        }
        Ok(())
    }

    /// Waits for the answers that are missing, until then at the latest.
    pub fn drain(&mut self, end_ns: u64) -> io::Result<()> {
        while self.is_awaiting() && self.fleet.clock().now_ns() < end_ns {
            self.take_in(Wait::Until(end_ns))?;
        }
        Ok(())
    }

    fn is_awaiting(&self) -> bool {
        self.answers.asked_ns.iter().any(|asked_ns| !asked_ns.is_empty())
    }

    /// Takes answers in and sends what is due. Returns how much happened.
    pub fn turn(&mut self, wait: Wait) -> io::Result<usize> {
        let mut happened = self.take_in(wait)?;
        while self.due_ns() <= self.fleet.clock().now_ns() {
            let due_ns = self.due_ns();
            let id = self.sent as usize % self.probing.connections;
            self.answers.asked_ns[id].push_back(due_ns);
            self.fleet.send(id, &self.ping);
            self.sent += 1;
            happened += 1;
        }
        Ok(happened)
    }

    fn take_in(&mut self, wait: Wait) -> io::Result<usize> {
        let happened = self.fleet.poll(wait, &mut self.answers)?;
        for (asked_ns, answered_ns) in self.answers.answered.drain(..) {
            self.meter.note(asked_ns, answered_ns);
        }
        self.disconnected = self.answers.disconnected;
        Ok(happened)
    }
}
