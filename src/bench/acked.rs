//! Publishers that wait for acknowledgements: the engine of `durable`, and what fills the channel of
//! `replay`. Each has a channel of its own, so its acknowledgements come in order, each once, and say
//! offsets without a gap.

use super::answer::Acknowledgement;
use super::clock::{SECOND_NS, nanoseconds};
use super::ending::Ending;
use super::fleet::{Crowd, Fleet, Wait};
use super::frame::push_frame;
use super::ledger::{Arrival, Ledger};
use super::meter::Meter;
use super::muster::Muster;
use super::outcome::Outcome;
use super::stamp::{Payload, Stamp};
use super::team::Member;
use crate::proto::OpCode;
use std::io::{self, Write};
use std::iter;
use std::ops::Range;

/// Longest time without any acknowledgement: disks that sync have long pauses.
const QUIET_NS: u64 = 10 * SECOND_NS;

/// What publishers do.
#[derive(Debug, Clone, Copy)]
pub struct Quota {
    /// Publications of one publisher on their way at a time.
    pub window: usize,
    /// Of each payload, with its quotes.
    pub data_bytes: usize,
    /// Of each publisher, and then no more.
    pub publications_max: u32,
}

/// The publishers' side of one thread, by its numbers.
struct Desk {
    quota: Quota,
    /// The number of publisher 0 in the whole run.
    first: usize,
    /// Of acknowledgements, by publisher.
    ledger: Ledger,
    sent: Vec<u32>,
    acked: Vec<u32>,
    /// Offset of each publisher's publication 0: the others follow it.
    base: Vec<Option<u64>>,
    /// When the publications on their way were sent, by publisher and number modulo the window.
    sent_ns: Vec<u64>,
    /// Publishers that may send again, once for each acknowledgement.
    ready: Vec<usize>,
    meter: Meter,
    acked_ns: u64,
    trouble: Option<String>,
}

/// One thread's publishers.
pub struct AckedPublishers<'a> {
    member: Member<'a>,
    fleet: Fleet,
    desk: Desk,
    payload: Payload,
    channels: Vec<String>,
    message: Vec<u8>,
    wire: Vec<u8>,
    /// Nothing was acknowledged for this long: nothing more will be.
    pub quiet_ns: u64,
}

impl Crowd for Desk {
    fn opened(&mut self, _: usize, _: u64) {}

    fn received(&mut self, id: usize, message: &[u8], now_ns: u64) {
        let Some(Acknowledgement { request, offset }) = Acknowledgement::read(message) else {
            return self.unexpected(|| String::from_utf8_lossy(message).into_owned());
        };
        let Some(number) = u32::try_from(request).ok().filter(|number| *number < self.sent[id])
        else {
            return self.unexpected(|| format!("publication {request} was not sent yet"));
        };
        self.acked_ns = now_ns;
        if self.ledger.note(id, 0, number) == Arrival::Again {
            return;
        }
        self.acked[id] += 1;
        self.meter.note(self.sent_ns[self.slot(id, number)], now_ns);
        self.ready.push(id);
        let Some(offset) = offset else {
            return self.unexpected(|| "no offset: the channel has no history".to_string());
        };
        // Of a wrong first one the others tell.
        let base = *self.base[id].get_or_insert(offset.wrapping_sub(u64::from(number)));
        if offset != base.wrapping_add(u64::from(number)) {
            self.unexpected(|| {
                format!("publication {number} has offset {offset}, and the first has {base}")
            });
        }
    }

    fn closed(&mut self, id: usize, ending: &Ending, _: u64) {
        self.ledger.faults.disconnected += 1;
        self.trouble.get_or_insert_with(|| format!("connection {}: {ending}", self.first + id));
    }
}

impl Desk {
    fn slot(&self, id: usize, number: u32) -> usize {
        id * self.quota.window + number as usize % self.quota.window
    }

    fn unexpected(&mut self, text: impl FnOnce() -> String) {
        self.ledger.faults.unexpected += 1;
        self.trouble.get_or_insert_with(|| format!("unexpected: {}", text()));
    }

    /// Whether everything that may be published is.
    fn is_done(&self) -> bool {
        self.acked.iter().all(|acked| *acked == self.quota.publications_max)
    }
}

impl<'a> AckedPublishers<'a> {
    /// Connects the publishers with these numbers.
    pub fn assemble(member: Member<'a>, quota: Quota, part: Range<usize>) -> io::Result<Self> {
        let (first, count) = (part.start, part.len());
        let mut fleet = member.fleet(first)?;
        let muster = Muster { count, concurrency: member.concurrency(), confirms: false };
        muster.run(&mut fleet, |_, _| {}, |_| Ok(()))?;
        let target = &member.conditions.target;
        let desk = Desk {
            quota,
            first,
            ledger: Ledger::new(count, 1),
            sent: vec![0; count],
            acked: vec![0; count],
            base: vec![None; count],
            sent_ns: vec![0; count * quota.window],
            ready: (0..count).flat_map(|id| iter::repeat_n(id, quota.window)).collect(),
            meter: Meter::default(),
            acked_ns: 0,
            trouble: None,
        };
        Ok(Self {
            member,
            fleet,
            desk,
            payload: Payload::new(quota.data_bytes),
            channels: part.map(|number| target.channel(number)).collect(),
            message: Vec::new(),
            wire: Vec::new(),
            quiet_ns: QUIET_NS,
        })
    }

    /// Waits for the other threads, loads, measures, and waits for the last acknowledgements.
    pub fn measure(mut self) -> io::Result<Outcome> {
        let conditions = self.member.conditions;
        let clock = conditions.clock;
        let begin_ns = self.rally()? + nanoseconds(conditions.warmup);
        self.keep_on(begin_ns)?;
        let before = self.member.server_time()?;
        self.desk.meter.start(clock.now_ns());
        self.keep_on(begin_ns + nanoseconds(conditions.duration))?;
        self.desk.meter.stop(clock.now_ns());
        let spent = self.member.server_spent(before)?;
        let memory = self.member.server_memory()?;
        // Nobody stops before the server's time for all has been read.
        self.rally()?;
        self.settle()?;
        let Desk { meter, ledger, trouble, .. } = self.desk;
        let troubles = trouble.into_iter().collect();
        Ok(Outcome { meter, spent, memory, faults: ledger.faults, troubles })
    }

    /// Publishes all there is. Its meter tells how fast it was.
    pub fn publish_all(&mut self) -> io::Result<()> {
        let clock = self.member.conditions.clock;
        let begin_ns = clock.now_ns();
        self.desk.meter.start(begin_ns);
        while !self.desk.is_done() {
            let now_ns = clock.now_ns();
            if now_ns - self.desk.acked_ns.max(begin_ns) > self.quiet_ns {
                break;
            }
            self.keep_on(now_ns + self.quiet_ns.min(SECOND_NS))?;
        }
        self.desk.meter.stop(clock.now_ns());
        self.settle()
    }

    /// Offset of publication 0 of the publisher, as its acknowledgements say.
    pub fn base(&self, publisher: usize) -> Option<u64> {
        self.desk.base[publisher]
    }

    pub fn channel(&self, publisher: usize) -> &str {
        &self.channels[publisher]
    }

    /// What the books say; behind [`AckedPublishers::publish_all`].
    pub fn outcome(&mut self) -> Outcome {
        let desk = &mut self.desk;
        Outcome {
            meter: std::mem::take(&mut desk.meter),
            faults: desk.ledger.faults,
            troubles: desk.trouble.take().into_iter().collect(),
            ..Outcome::default()
        }
    }

    /// Answers heartbeats.
    pub fn poll(&mut self, wait: Wait) -> io::Result<usize> {
        self.fleet.poll(wait, &mut self.desk)
    }

    fn rally(&mut self) -> io::Result<u64> {
        let Self { member, fleet, desk, .. } = self;
        member.rally(|wait| fleet.poll(wait, desk).map(drop))
    }

    /// Answers every acknowledgement by the next publication until then, or until all are published.
    fn keep_on(&mut self, end_ns: u64) -> io::Result<()> {
        let clock = self.member.conditions.clock;
        // A log that syncs needs the core that a spinning client would take.
        let spin = self.member.conditions.spin.unwrap_or(false);
        let mut progress = self.member.progress();
        loop {
            let now_ns = clock.now_ns();
            if now_ns >= end_ns || self.desk.is_done() {
                return Ok(());
            }
            progress.show(now_ns, || format!("{} acknowledged", self.desk.meter.count));
            self.send_ready();
            let busy_ns = clock.now_ns() - now_ns;
            let wait = if spin { Wait::Spin } else { Wait::Until(end_ns) };
            let happened = self.fleet.poll(wait, &mut self.desk)?;
            let work_ns = if happened > 0 { clock.now_ns() - self.fleet.woke_ns() } else { 0 };
            self.desk.meter.note_work(busy_ns + work_ns);
        }
    }

    fn send_ready(&mut self) {
        let mut ready = std::mem::take(&mut self.desk.ready);
        let sent_ns = self.member.conditions.clock.now_ns();
        // Acknowledgements of one publisher come in a row: its publications leave in one system call.
        for group in ready.chunk_by(|one, next| one == next) {
            self.wire.clear();
            for id in group {
                self.write_publication(*id, sent_ns);
            }
            if !self.wire.is_empty() {
                self.fleet.send(group[0], &self.wire);
            }
        }
        ready.clear();
        self.desk.ready = ready;
    }

    /// Appends a publisher's next publication to `wire`, if it has one left.
    fn write_publication(&mut self, id: usize, sent_ns: u64) {
        let number = self.desk.sent[id];
        if number == self.desk.quota.publications_max {
            return;
        }
        self.desk.sent[id] += 1;
        let slot = self.desk.slot(id, number);
        self.desk.sent_ns[slot] = sent_ns;
        let source = (self.desk.first + id) as u32;
        let stamp = Stamp { source, topic: source, number, sent_ns };
        let channel = &self.channels[id];
        self.message.clear();
        write!(self.message, r#"{{"action":"publish","id":{number},"channel":"{channel}","data":"#)
            .expect("a vector takes all");
        self.payload.write(stamp, &mut self.message);
        self.message.push(b'}');
        push_frame(OpCode::Text, &self.message, &mut self.wire);
    }

    /// Waits for the acknowledgements that are on their way, then closes the books.
    fn settle(&mut self) -> io::Result<()> {
        let clock = self.member.conditions.clock;
        let begin_ns = clock.now_ns();
        while self.desk.sent != self.desk.acked {
            let now_ns = clock.now_ns();
            if now_ns - self.desk.acked_ns.max(begin_ns) > self.quiet_ns {
                break;
            }
            self.fleet.poll(Wait::Until(now_ns + SECOND_NS / 10), &mut self.desk)?;
        }
        for id in 0..self.desk.sent.len() {
            let sent = self.desk.sent[id];
            self.desk.ledger.settle(id, 0, sent);
        }
        Ok(())
    }
}
