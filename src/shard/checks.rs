//! What the checker was asked for by this shard, and what waits for its verdicts. Values only: what they mean
//! is decided in `checking`.

use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;

use crate::ids::{Moment, ShardId, Token};
use crate::mesh::CheckPort;
use crate::message::{Question, Verdict};
use crate::schema::{Schema, Violation};

/// What a schema has said of a message.
pub(super) type Judged = (Arc<Schema>, Result<(), Violation>);

/// The rest of a frame, in either encoding.
#[derive(Debug)]
pub(super) enum Frame {
    Text(Box<str>),
    Binary(Box<[u8]>),
}

/// A connection one of whose messages is being checked.
#[derive(Debug)]
pub(super) struct Waiting {
    generation: u32,
    pub since: Moment,
    /// The message, and those behind it in its frame. `None` until the message has ended to run.
    pub frame: Option<Frame>,
    /// The number of the message in its frame.
    pub index: usize,
    /// What has come behind the frame: not decoded, at most what the backend hands over at once.
    pub received: Vec<u8>,
    /// Of the same message.
    pub verdicts: Vec<Judged>,
    /// It came before the server began to shut down.
    pub timely: bool,
}

/// What a connection may publish beyond its rate because we have kept it waiting.
#[derive(Debug)]
struct Excuse {
    generation: u32,
    /// As many publications as its rate allows in this time.
    micros: u64,
    until: Moment,
}

/// What is known of what runs.
#[derive(Debug, Default)]
pub(super) struct Running {
    /// On the message, if it runs again.
    pub verdicts: Vec<Judged>,
    /// It was received before the server began to shut down, whatever the time is now.
    pub timely: bool,
    /// It cannot wait.
    pub hurried: bool,
}

/// The checks of one shard that are done beside it.
#[derive(Default)]
pub(super) struct Checks {
    /// `None`: there is no checker.
    port: Option<CheckPort>,
    /// By slot; one for each connection at most.
    waiting: HashMap<u32, Waiting, foldhash::fast::RandomState>,
    /// By slot.
    excuses: HashMap<u32, Excuse, foldhash::fast::RandomState>,
    running: Running,
    /// Verdicts of this turn, and the bytes they were on.
    settled: (usize, usize),
}

impl Checks {
    pub fn connect(&mut self, port: Option<CheckPort>) {
        self.port = port;
    }

    /// Whether the checker, and not this shard, is to be asked about a text of so many bytes.
    pub fn takes(&self, bytes: usize, in_turn_max: usize) -> bool {
        bytes > in_turn_max && self.port.is_some() && !self.running.hurried
    }

    /// What the schema has said of the message that runs again.
    pub fn verdict(&self, schema: &Arc<Schema>) -> Option<Result<(), Violation>> {
        let judged = self.running.verdicts.iter().find(|(other, _)| Arc::ptr_eq(schema, other));
        judged.map(|(_, outcome)| outcome.clone())
    }

    /// Asks the checker about the message that runs: its connection waits from now on. `false`: too many
    /// do.
    pub fn ask(
        &mut self,
        (shard, token): (ShardId, Token),
        schema: &Arc<Schema>,
        text: &str,
        (now, timely): (Moment, bool),
    ) -> bool {
        let Some(port) = self.port.as_ref().filter(|port| port.has_room()) else { return false };
        let schema = Arc::clone(schema);
        if !port.post(Question { shard, token, schema, text: text.into() }) {
            return false;
        }
        let waiting = Waiting {
            generation: token.generation,
            since: now,
            frame: None,
            index: 0,
            received: Vec::new(),
            verdicts: std::mem::take(&mut self.running.verdicts),
            timely,
        };
        self.waiting.insert(token.slot, waiting);
        true
    }

    /// Whether a message of this connection is being checked. Nearly always none of any is.
    #[inline]
    pub fn is_waiting(&self, token: Token) -> bool {
        !self.waiting.is_empty()
            && (self.waiting.get(&token.slot))
                .is_some_and(|waiting| waiting.generation == token.generation)
    }

    /// Where a message of this connection is being checked, what waits.
    pub fn waiting(&mut self, token: Token) -> Option<&mut Waiting> {
        let waiting = self.waiting.get_mut(&token.slot)?;
        (waiting.generation == token.generation).then_some(waiting)
    }

    /// The same, and it waits no more.
    pub fn take(&mut self, token: Token) -> Option<Waiting> {
        self.waiting(token)?;
        self.waiting.remove(&token.slot)
    }

    /// A verdict has come; its place is free when the turn is over.
    pub fn note_verdict(&mut self, verdict: &Verdict) {
        let (verdicts, bytes) = self.settled;
        self.settled = (verdicts + 1, bytes + verdict.bytes);
    }

    /// The end of a turn: what followed from its verdicts is with other shards.
    pub fn settle(&mut self) {
        let (verdicts, bytes) = std::mem::take(&mut self.settled);
        if verdicts > 0
            && let Some(port) = &self.port
        {
            port.give_back(verdicts, bytes);
        }
    }

    /// Whether anything waits for a verdict, here or on another shard, and may become a publication.
    pub fn is_owing(&self) -> bool {
        self.port.as_ref().is_some_and(CheckPort::is_waiting)
    }

    /// Something else runs; returns what has run until now.
    pub fn begin(&mut self, running: Running) -> Running {
        std::mem::replace(&mut self.running, running)
    }

    /// What runs next is another message.
    #[inline]
    pub fn drop_verdicts(&mut self) {
        if !self.running.verdicts.is_empty() {
            self.running.verdicts.clear();
        }
    }

    /// See [`Running::timely`].
    pub fn is_timely(&self) -> bool {
        self.running.timely
    }

    /// A connection has waited so long, up to now: for as long again it may publish what it might have
    /// published then.
    pub fn excuse(&mut self, token: Token, now: Moment, waited: Duration) {
        let Token { slot, generation } = token;
        let micros = waited.as_micros() as u64;
        let fresh = Excuse { generation, micros: 0, until: now };
        let excuse = self.excuses.entry(slot).or_insert(fresh);
        if excuse.generation != generation || excuse.until < now {
            *excuse = Excuse { generation, micros: 0, until: now };
        }
        excuse.micros += micros;
        excuse.until = excuse.until.after(waited);
    }

    /// Whether a publication over the rate is excused.
    pub fn excuses(&mut self, token: Token, now: Moment, rate: u32) -> bool {
        let interval = 1_000_000 / u64::from(rate.max(1));
        let Some(excuse) = self.excuses.get_mut(&token.slot) else { return false };
        let holds = excuse.generation == token.generation && now <= excuse.until;
        if holds && excuse.micros >= interval {
            excuse.micros -= interval;
            return true;
        }
        self.excuses.remove(&token.slot);
        false
    }

    /// A connection has ended.
    pub fn forget(&mut self, token: Token) {
        if !self.excuses.is_empty() {
            self.excuses.remove(&token.slot);
        }
    }
}
