//! Scenario `connect --direct-descriptors`: more connections than a process has descriptors, held and
//! served. They are in the tables of rings of io_uring, as the server's are.

use std::collections::HashMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::clock::{Clock, SECOND_NS, nanoseconds};
use super::conditions::{Conditions, Progress};
use super::frame::{next_frame, push_frame};
use super::summary::Summary;
use crate::io::uring::ring::{Completion, File, Ring, RingOptions};
use crate::proto::OpCode;

#[derive(Debug, Clone, Copy)]
pub struct ReachPlan {
    pub connections: usize,
    /// Upgrades under way at a time.
    pub concurrency: usize,
    /// How long all of them stay, with heartbeats.
    pub hold: Duration,
    /// Publications to all of them, half before and half after that time.
    pub publications: u32,
}

/// Nothing has happened for this long where something should: the run is over.
const QUIET_NS: u64 = 30 * SECOND_NS;
/// The kernel's own limit for one table.
const SLOTS_MAX: u64 = 1 << 15;
/// Between two looks at rings where nothing happens.
const NAP: Duration = Duration::from_micros(200);
/// Connections from one source address, each from a port of our choice: the kernel need not search.
const PORTS: usize = 50_000;
const FIRST_PORT: usize = 10_000;
const NUMBER_DIGITS: usize = 10;
/// An answer to the upgrade is shorter than this.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// What a request was, above the number of its connection.
const DIAL: u64 = 1 << 60;
const RECEIVE: u64 = 2 << 60;
const OTHER: u64 = 3 << 60;
const KIND: u64 = 15 << 60;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Dialing,
    Upgrading,
    Subscribing,
    Ready,
    Gone,
}

#[derive(Debug, Clone, Copy)]
struct Member {
    phase: Phase,
    /// Publications received, in their order.
    seen: u32,
}

/// All connections, and what has come of them.
struct Reach<'a> {
    conditions: &'a Conditions,
    clock: Clock,
    plan: ReachPlan,
    /// Of one ring: the kernel allows as many as files may be open.
    slots: usize,
    lanes: Vec<Ring>,
    members: Vec<Member>,
    /// Beginnings of what has not come whole.
    partial: HashMap<usize, Vec<u8>>,
    /// Second byte of the source addresses: those of the last run still have their TIME_WAIT.
    network: u8,
    request: &'static [u8],
    subscription: &'static [u8],
    dialing: usize,
    ready: usize,
    /// Members that have the publication under way.
    delivered: usize,
    published: u32,
    heartbeats: u64,
    lost: u64,
    disordered: u64,
    trouble: Option<String>,
    progressed_ns: u64,
}

pub fn run(conditions: &Conditions, plan: ReachPlan) -> io::Result<Summary> {
    let mut summary = conditions.summary("connect");
    summary.parameter("direct-descriptors", true);
    summary.parameter("connections", plan.connections);
    let server_before = conditions.server_memory()?;
    let slab_before = slab_bytes()?;
    let mut reach = Reach::new(conditions, plan)?;
    let begin_ns = reach.clock.now_ns();
    reach.connect_all()?;
    let seconds = (reach.clock.now_ns() - begin_ns) as f64 / SECOND_NS as f64;
    let count = plan.connections as f64;
    summary.figure("connections", reach.ready as f64, "");
    summary.figure("all_connected_after", seconds, "s");
    summary.figure("connections_per_second", count / seconds, "/s");
    if let (Some(before), Some(after)) = (server_before, conditions.server_memory()?) {
        summary.figure("memory_per_connection", (after - before) / count / 1024.0, "KiB");
    }
    let slab = slab_bytes()? - slab_before;
    summary.figure("kernel_memory_per_pair", slab / count / 1024.0, "KiB");
    let mut spans = Vec::new();
    let time = conditions.server_time()?;
    for _ in 0..plan.publications.div_ceil(2) {
        spans.push(reach.publish()?);
    }
    if let (Some(before), Some(after)) = (time, conditions.server_time()?) {
        let deliveries = count * spans.len() as f64;
        let span: f64 = spans.iter().sum();
        summary.cost("delivery", after.since(before), deliveries.max(1.0), span);
    }
    reach.hold()?;
    for _ in 0..plan.publications / 2 {
        spans.push(reach.publish()?);
    }
    spans.sort_by(f64::total_cmp);
    if let (Some(last), Some(median)) = (spans.last(), spans.get(spans.len() / 2)) {
        summary.figure("last_delivery_median", *median, "s");
        summary.figure("last_delivery_max", *last, "s");
    }
    summary.figure("heartbeats", reach.heartbeats as f64, "");
    summary.faults.disconnected = reach.lost;
    summary.faults.reordered = reach.disordered;
    summary.notes.extend(reach.trouble.take());
    // Nothing comes behind this, and the kernel ends a million requests at once faster than one by one.
    std::mem::forget(reach.lanes);
    Ok(summary)
}

impl<'a> Reach<'a> {
    fn new(conditions: &'a Conditions, plan: ReachPlan) -> io::Result<Self> {
        let target = &conditions.target;
        if !target.address.is_ipv4() || !target.address.ip().is_loopback() {
            let text = "--direct-descriptors is for an address 127.0.0.x: it chooses its sources";
            return Err(io::Error::new(ErrorKind::InvalidInput, text));
        }
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        let slots = limit.current.unwrap_or(u64::MAX).min(SLOTS_MAX) as usize;
        let options = RingOptions { slots: Some(slots as u32), buffers: 64, accepts: 0 };
        let rings = plan.connections.div_ceil(slots);
        let lanes = (0..rings).map(|_| Ring::new(options)).collect::<io::Result<_>>()?;
        let mut message = Vec::new();
        target.subscribe.write(&target.channel(0), 0, |_| {}, &mut message);
        let member = Member { phase: Phase::Dialing, seen: 0 };
        Ok(Self {
            conditions,
            clock: conditions.clock,
            plan,
            slots,
            lanes,
            members: vec![member; plan.connections],
            partial: HashMap::new(),
            network: (getrandom::u32().map_err(io::Error::other)? % 250) as u8 + 1,
            request: Vec::leak(target.request.clone()),
            subscription: text_frame(&message),
            dialing: 0,
            ready: 0,
            delivered: 0,
            published: 0,
            heartbeats: 0,
            lost: 0,
            disordered: 0,
            trouble: None,
            progressed_ns: conditions.clock.now_ns(),
        })
    }

    fn place(&self, id: usize) -> (usize, File) {
        (id / self.slots, File::Slot((id % self.slots) as u32))
    }

    fn connect_all(&mut self) -> io::Result<()> {
        let mut progress = self.conditions.progress(true);
        let mut next = 0;
        // One that is lost never becomes ready; the summary tells.
        while self.ready + (self.lost as usize) < self.plan.connections {
            while next < self.plan.connections && self.dialing < self.plan.concurrency {
                self.dial(next);
                next += 1;
            }
            self.turn(&mut progress)?;
        }
        Ok(())
    }

    fn dial(&mut self, id: usize) {
        let (lane, slot) = (id / self.slots, (id % self.slots) as u32);
        let port = (FIRST_PORT + id % PORTS) as u16;
        let [c, d] = (id / PORTS + 1).to_be_bytes().last_chunk().copied().unwrap_or_default();
        let source = SocketAddr::from((Ipv4Addr::new(127, self.network, c, d), port));
        let target = self.conditions.target.address;
        self.dialing += 1;
        self.lanes[lane].dial(slot, source, target, DIAL | id as u64);
    }

    /// To everybody; seconds until the last one has it.
    fn publish(&mut self) -> io::Result<f64> {
        let mut progress = self.conditions.progress(true);
        self.published += 1;
        self.delivered = 0;
        let target = &self.conditions.target;
        let number = format!("\"{:0NUMBER_DIGITS$}\"", self.published);
        let mut message = Vec::new();
        let data = |out: &mut Vec<u8>| out.extend_from_slice(number.as_bytes());
        target.publish.write(&target.channel(0), 0, data, &mut message);
        let begin_ns = self.clock.now_ns();
        self.progressed_ns = begin_ns;
        self.send(0, text_frame(&message));
        while self.delivered + (self.lost as usize) < self.plan.connections {
            self.turn(&mut progress)?;
        }
        Ok((self.clock.now_ns() - begin_ns) as f64 / SECOND_NS as f64)
    }

    fn hold(&mut self) -> io::Result<()> {
        let mut progress = self.conditions.progress(true);
        let end_ns = self.clock.now_ns() + nanoseconds(self.plan.hold);
        while self.clock.now_ns() < end_ns {
            self.progressed_ns = self.clock.now_ns();
            self.turn(&mut progress)?;
        }
        Ok(())
    }

    /// Looks at all rings once.
    fn turn(&mut self, progress: &mut Progress) -> io::Result<()> {
        let mut happened = false;
        for lane in 0..self.lanes.len() {
            loop {
                while let Some(completion) = self.lanes[lane].take() {
                    happened = true;
                    self.complete(lane, completion);
                }
                if !self.lanes[lane].wants_enter() {
                    break;
                }
                self.lanes[lane].enter(None)?;
                if !self.lanes[lane].has_completions() {
                    break;
                }
            }
        }
        let now_ns = self.clock.now_ns();
        let (ready, delivered) = (self.ready, self.delivered);
        progress.show(now_ns, || format!("{ready} connected, {delivered} have the publication"));
        if happened {
            self.progressed_ns = now_ns;
        } else if now_ns - self.progressed_ns > QUIET_NS {
            let Self { dialing, lost, trouble, .. } = self;
            let text = format!(
                "nothing happens any more: {ready} connected, {dialing} on their way, {lost} lost, \
                 {delivered} have publication {}; first trouble: {trouble:?}",
                self.published
            );
            return Err(io::Error::new(ErrorKind::TimedOut, text));
        } else {
            std::thread::sleep(NAP);
        }
        Ok(())
    }

    fn complete(&mut self, lane: usize, completion: Completion) {
        let Completion { user_data, result, more, buffer } = completion;
        let id = (user_data & !KIND) as usize;
        match (user_data & KIND, result) {
            (DIAL, Ok(_)) => {
                let (_, file) = self.place(id);
                self.members[id].phase = Phase::Upgrading;
                self.lanes[lane].receive(file, RECEIVE | id as u64);
                self.send(id, self.request);
            }
            // A link of a chain that has failed before.
            (DIAL, Err(error)) if error.raw_os_error() == Some(ECANCELED) => {}
            (DIAL, Err(error)) => self.lose(id, &format!("connect: {error}")),
            (RECEIVE, Ok(0)) => self.lose(id, "the server has ended it"),
            (RECEIVE, Ok(_)) => {
                if let Some(buffer) = buffer {
                    let bytes = self.lanes[lane].bytes(&buffer).to_vec();
                    self.lanes[lane].recycle(buffer);
                    self.take_in(id, bytes);
                }
                self.receive_again(lane, id, more);
            }
            (RECEIVE, Err(error)) if error.raw_os_error() == Some(ENOBUFS) => {
                self.receive_again(lane, id, more);
            }
            (RECEIVE, Err(error)) => self.lose(id, &error.to_string()),
            (_, Ok(_)) => {}
            (_, Err(error)) => self.lose(id, &format!("send: {error}")),
        }
    }

    fn receive_again(&mut self, lane: usize, id: usize, more: bool) {
        let (_, file) = self.place(id);
        if !more && self.members[id].phase != Phase::Gone {
            self.lanes[lane].receive(file, RECEIVE | id as u64);
        }
    }

    fn lose(&mut self, id: usize, why: &str) {
        let phase = std::mem::replace(&mut self.members[id].phase, Phase::Gone);
        if phase == Phase::Gone {
            return;
        }
        self.lost += 1;
        self.dialing -= usize::from(phase != Phase::Ready);
        self.trouble.get_or_insert_with(|| format!("connection {id}: {why}"));
    }

    fn send(&mut self, id: usize, bytes: &'static [u8]) {
        let (lane, file) = self.place(id);
        self.lanes[lane].send_static(file, bytes, OTHER | id as u64);
    }

    fn take_in(&mut self, id: usize, bytes: Vec<u8>) {
        let held = match self.partial.remove(&id) {
            Some(mut held) => {
                held.extend_from_slice(&bytes);
                held
            }
            None => bytes,
        };
        let mut rest = &held[..];
        if self.members[id].phase == Phase::Upgrading {
            let Some(end) = rest.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
                if held.len() > HEAD_BYTES_MAX {
                    return self.lose(id, "an endless head");
                }
                self.partial.insert(id, held);
                return;
            };
            if !rest.starts_with(b"HTTP/1.1 101 ") {
                let line = String::from_utf8_lossy(&rest[..end.min(60)]).into_owned();
                return self.lose(id, &line);
            }
            rest = &rest[end + 4..];
            self.members[id].phase = Phase::Subscribing;
            self.send(id, self.subscription);
        }
        loop {
            match next_frame(&mut rest) {
                Ok(Some(frame)) => match frame.opcode {
                    OpCode::Text => self.message(id, frame.payload),
                    OpCode::Ping => {
                        self.heartbeats += 1;
                        self.send(id, PONG);
                    }
                    OpCode::Close => return self.lose(id, "closed by the server"),
                    OpCode::Binary | OpCode::Pong | OpCode::Continuation => {}
                },
                Ok(None) => break,
                Err(error) => return self.lose(id, &format!("{error:?}")),
            }
        }
        if !rest.is_empty() {
            self.partial.insert(id, rest.to_vec());
        }
    }

    fn message(&mut self, id: usize, text: &[u8]) {
        let member = &mut self.members[id];
        if member.phase == Phase::Subscribing {
            member.phase = Phase::Ready;
            self.dialing -= 1;
            self.ready += 1;
            return;
        }
        let digits = text.iter().rev().skip_while(|byte| !byte.is_ascii_digit());
        let number = digits
            .take_while(|byte| byte.is_ascii_digit())
            .zip(0..)
            .fold(0, |number, (digit, place)| number + u32::from(digit - b'0') * 10u32.pow(place));
        if number == member.seen + 1 {
            member.seen = number;
            self.delivered += usize::from(number == self.published);
        } else {
            self.disordered += 1;
        }
    }
}

/// Masked with a key of zeros.
const PONG: &[u8] = &[0x8A, 0x80, 0, 0, 0, 0];
const ECANCELED: i32 = rustix::io::Errno::CANCELED.raw_os_error();
const ENOBUFS: i32 = rustix::io::Errno::NOBUFS.raw_os_error();

/// Kept until the end of the program: there are few of them.
fn text_frame(message: &[u8]) -> &'static [u8] {
    let mut wire = Vec::new();
    push_frame(OpCode::Text, message, &mut wire);
    Vec::leak(wire)
}

/// What the kernel keeps for itself in small pieces, sockets among them.
fn slab_bytes() -> io::Result<f64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("Slab:")).unwrap_or_default();
    let kib = line.trim().trim_end_matches(" kB").trim().parse::<f64>();
    kib.map(|kib| kib * 1024.0).map_err(|_| io::Error::other("no Slab in /proc/meminfo"))
}
