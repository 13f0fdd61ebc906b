//! The sessions at home on one shard: those without a connection, and those that have left the connection
//! they began on. Data only: what has to be said to shards comes back as messages.
//!
//! A session is had by one connection at most. To give it to another one its home asks for it back
//! (`Release`) and waits until whoever has it has sent it (`Park`), or ended it (`Forget`).

use std::collections::{BTreeMap, BTreeSet};
use std::mem;

use hashbrown::HashMap;

use crate::config;
use crate::ids::{ConnectionId, Moment, SessionId, ShardId, UserName};
use crate::message::{
    Holder, KeptSession, RestoreRequest, SessionMessage, SessionProofs, SessionState,
};
use crate::proto::ErrorCode;

/// Clients that wait for the same session to come back.
const WAITING_MAX: usize = 8;

/// Sessions that expire at a time.
const EXPIRED_MAX: usize = 256;

/// What a session takes in the tables here, on top of its state.
const SESSION_BYTES: usize = 320;

/// What was lost since it was last asked for, for the counters.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct SessionsTally {
    /// Nobody came back in time.
    pub expired: u64,
    /// There were too many.
    pub dropped: u64,
}

#[derive(Debug)]
struct Entry {
    /// Where it began: it is found under its whole id only.
    shard: ShardId,
    proofs: SessionProofs,
    /// Whose it is, as far as that is known here: not if its connection has authenticated since it got it.
    user: Option<UserName>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// No connection has it. The key is that of [`Sessions::parked`].
    Parked { state: SessionState, key: (Moment, u64) },
    /// This connection has it. Those are no more than there are connections.
    Live(Holder),
    /// This connection has it and was asked for it; the others are to have it, one after the other.
    Moving { from: Holder, waiting: Vec<RestoreRequest> },
}

/// What becomes of a session that is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It was parked.
    Ended,
    /// It is another user's, or nobody's.
    NotFound,
    /// This connection has it, or had it until just now.
    Held(Holder),
    /// There is none, or it has never left the connection it began on.
    Unknown,
}

/// The sessions at home on one shard, by their secrets. One that has never left its first connection is not
/// here.
#[derive(Debug)]
pub struct Sessions {
    entries: HashMap<u128, Entry, foldhash::fast::RandomState>,
    /// By the time they expire, then in the order they came.
    parked: BTreeMap<(Moment, u64), u128>,
    /// Those of `parked` that are somebody's, by user.
    users: HashMap<UserName, BTreeSet<u128>, foldhash::quality::RandomState>,
    last_number: u64,
    /// Bytes of all that are parked, at most `limits.memory`.
    bytes: usize,
    limits: config::Sessions,
    tally: SessionsTally,
}

impl Sessions {
    pub fn new(limits: config::Sessions) -> Self {
        Self {
            entries: HashMap::default(),
            parked: BTreeMap::new(),
            users: HashMap::default(),
            last_number: 0,
            bytes: 0,
            limits,
            tally: SessionsTally::default(),
        }
    }

    /// Sessions without a connection.
    pub fn parked(&self) -> usize {
        self.parked.len()
    }

    pub fn take_tally(&mut self) -> SessionsTally {
        mem::take(&mut self.tally)
    }

    /// A client wants to go on with a session. `fresh`: the connection that it names, and whose that is, if
    /// it is here and has the session since it began.
    pub fn restore(
        &mut self,
        request: RestoreRequest,
        fresh: Option<(Holder, Option<UserName>)>,
        now: Moment,
        messages: &mut Vec<(ShardId, SessionMessage)>,
    ) {
        let secret = request.session.secret;
        if let Some((holder, user)) = fresh {
            let (shard, proof) = (request.session.shard, request.proof.secret);
            let proofs = SessionProofs::new(proof);
            let entry = || Entry { shard, proofs, user, stage: Stage::Live(holder) };
            self.entries.entry(secret).or_insert_with(entry);
        }
        let entry = self.entries.get_mut(&secret);
        let Some(entry) = entry.filter(|entry| {
            entry.shard == request.session.shard
                && entry.proofs.contain(request.proof.secret)
                && request.may_have(entry.user.as_ref())
        }) else {
            messages.push(refusal(request, ErrorCode::SessionNotFound));
            return;
        };
        match &mut entry.stage {
            Stage::Parked { key: (until, _), .. } if *until <= now => {
                messages.push(refusal(request, ErrorCode::SessionNotFound));
            }
            Stage::Parked { state, key } => {
                let (state, key) = (mem::take(state), *key);
                let bytes = SESSION_BYTES + state.bytes();
                let user = state.user.clone();
                entry.grant(request, state, messages);
                self.parked.remove(&key);
                self.unlist(secret, user.as_ref(), bytes);
            }
            Stage::Live(holder) => {
                let (from, session) = (*holder, request.session);
                entry.stage = Stage::Moving { from, waiting: vec![request] };
                messages.push((from.shard, SessionMessage::Release { session, from }));
            }
            Stage::Moving { waiting, .. } if waiting.len() < WAITING_MAX => waiting.push(request),
            Stage::Moving { .. } => messages.push(refusal(request, ErrorCode::BacklogFull)),
        }
    }

    /// The connection that had a session has ended, or has given it back. `told`: its client may have heard of
    /// that connection.
    pub fn park(
        &mut self,
        session: SessionId,
        connection: ConnectionId,
        (from, told): (Holder, bool),
        state: SessionState,
        now: Moment,
        messages: &mut Vec<(ShardId, SessionMessage)>,
    ) {
        // Without an entry it was fresh.
        let entry = self.entries.entry(session.secret).or_insert_with(|| Entry {
            shard: session.shard,
            proofs: SessionProofs::new(connection.secret),
            user: None,
            stage: Stage::Live(from),
        });
        match &mut entry.stage {
            Stage::Live(holder) | Stage::Moving { from: holder, .. } if *holder == from => {}
            Stage::Live(_) | Stage::Moving { .. } | Stage::Parked { .. } => return,
        }
        if !told {
            entry.proofs.withdraw(connection.secret);
        }
        match &mut entry.stage {
            Stage::Live(_) | Stage::Parked { .. } => {}
            Stage::Moving { waiting, .. } => {
                let waiting = mem::take(waiting).into_iter();
                let (mut waiting, strangers): (Vec<_>, Vec<_>) =
                    waiting.partition(|request| request.may_have(state.user.as_ref()));
                let refused = |request| refusal(request, ErrorCode::SessionNotFound);
                messages.extend(strangers.into_iter().map(refused));
                if !waiting.is_empty() {
                    entry.grant(waiting.remove(0), state, messages);
                    for request in waiting {
                        self.restore(request, None, now, messages);
                    }
                    return;
                }
            }
        }
        let proofs = entry.proofs.clone();
        self.keep(session, proofs, state, now.after(self.limits.ttl));
    }

    /// A session of the time before the server started, without a connection until then. `None`: it has
    /// ended. What is told last of it counts; nobody may have had it since the start.
    pub fn load(&mut self, session: SessionId, kept: Option<KeptSession>, until: Moment) {
        self.take_parked(session);
        if let Some(KeptSession { proofs, state, .. }) = kept {
            self.keep(session, proofs, state, until);
        }
    }

    /// A parked session as the durable log is to have it.
    pub fn parked_session(&self, session: SessionId) -> Option<KeptSession> {
        let entry = self.entries.get(&session.secret)?;
        let Stage::Parked { state, .. } = &entry.stage else { return None };
        Some(KeptSession { proofs: entry.proofs.clone(), connected: false, state: state.clone() })
    }

    /// What a client may name to get a session that this connection has.
    pub fn proofs(&self, session: SessionId, connection: ConnectionId) -> SessionProofs {
        match self.entries.get(&session.secret) {
            Some(entry) => entry.proofs.clone(),
            // It began there.
            None => SessionProofs::new(connection.secret),
        }
    }

    fn take_parked(&mut self, session: SessionId) {
        let Some(entry) = self.entries.get(&session.secret) else { return };
        if let Stage::Parked { ref state, key } = entry.stage {
            let (user, bytes) = (state.user.clone(), SESSION_BYTES + state.bytes());
            self.entries.remove(&session.secret);
            self.parked.remove(&key);
            self.unlist(session.secret, user.as_ref(), bytes);
        }
    }

    /// Parks a session, and lets the oldest make room.
    fn keep(
        &mut self,
        session: SessionId,
        proofs: SessionProofs,
        state: SessionState,
        until: Moment,
    ) {
        let (shard, user) = (session.shard, state.user.clone());
        let bytes = SESSION_BYTES + state.bytes();
        self.last_number += 1;
        let key = (until, self.last_number);
        if let Some(user) = &user {
            self.users.entry_ref(user).or_default().insert(session.secret);
        }
        let stage = Stage::Parked { state, key };
        self.entries.insert(session.secret, Entry { shard, proofs, user, stage });
        self.parked.insert(key, session.secret);
        self.bytes += bytes;
        while self.bytes > self.limits.memory || self.parked.len() > self.limits.max_parked {
            if !self.drop_oldest() {
                break;
            }
            self.tally.dropped += 1;
        }
    }

    /// A session has ended with its connection. Returns whether that is so: it may be another's meanwhile.
    pub fn forget(
        &mut self,
        session: SessionId,
        from: Holder,
        messages: &mut Vec<(ShardId, SessionMessage)>,
    ) -> bool {
        // Without an entry it has never left its connection.
        let Some(entry) = self.entries.get_mut(&session.secret) else { return true };
        let waiting = match &mut entry.stage {
            Stage::Live(holder) if *holder == from => Vec::new(),
            Stage::Moving { from: holder, waiting } if *holder == from => mem::take(waiting),
            Stage::Live(_) | Stage::Moving { .. } | Stage::Parked { .. } => return false,
        };
        self.entries.remove(&session.secret);
        let refused = |request| refusal(request, ErrorCode::SessionNotFound);
        messages.extend(waiting.into_iter().map(refused));
        true
    }

    /// Forgets sessions whose time is over, a bounded number.
    pub fn expire(&mut self, now: Moment) {
        for _ in 0..EXPIRED_MAX {
            match self.parked.first_key_value() {
                Some(((until, _), _)) if *until <= now => {}
                Some(_) | None => return,
            }
            self.drop_oldest();
            self.tally.expired += 1;
        }
    }

    fn drop_oldest(&mut self) -> bool {
        let Some((_, secret)) = self.parked.pop_first() else { return false };
        if let Some(Entry { stage: Stage::Parked { state, .. }, .. }) = self.entries.remove(&secret)
        {
            self.unlist(secret, state.user.as_ref(), SESSION_BYTES + state.bytes());
        }
        if self.entries.is_empty() {
            // Gives the memory of a past crowd back.
            self.entries = HashMap::default();
        }
        true
    }

    /// The parked sessions of a user: their ids, until when they are kept, and how many subscriptions
    /// they have.
    pub fn parked_of(&self, user: &UserName) -> impl Iterator<Item = (SessionId, Moment, usize)> {
        self.users.get(user).into_iter().flatten().filter_map(|secret| {
            let entry = self.entries.get(secret)?;
            match entry.stage {
                Stage::Parked { ref state, key: (until, _) } => {
                    let session = SessionId { shard: entry.shard, secret: *secret };
                    Some((session, until, state.subscriptions.len()))
                }
                Stage::Live(_) | Stage::Moving { .. } => None,
            }
        })
    }

    /// Ends a session of a user, if it is parked.
    pub fn end(&mut self, session: SessionId, user: &UserName) -> Ending {
        let Some(entry) = self.entries.get(&session.secret) else { return Ending::Unknown };
        match entry.stage {
            _ if entry.shard != session.shard => Ending::NotFound,
            _ if entry.user.as_ref().is_some_and(|other| other != user) => Ending::NotFound,
            Stage::Live(holder) | Stage::Moving { from: holder, .. } => Ending::Held(holder),
            Stage::Parked { .. } if entry.user.is_none() => Ending::NotFound,
            Stage::Parked { .. } => {
                self.take_parked(session);
                Ending::Ended
            }
        }
    }

    /// A session is parked no longer.
    fn unlist(&mut self, secret: u128, user: Option<&UserName>, bytes: usize) {
        self.bytes -= bytes;
        let Some(user) = user else { return };
        if let Some(secrets) = self.users.get_mut(user) {
            secrets.remove(&secret);
            if secrets.is_empty() {
                self.users.remove(user);
            }
        }
    }
}

impl Entry {
    fn grant(
        &mut self,
        request: RestoreRequest,
        state: SessionState,
        messages: &mut Vec<(ShardId, SessionMessage)>,
    ) {
        self.proofs.pass_to(request.connection.secret, request.proof.secret);
        self.user = state.user.clone().or_else(|| request.user.clone());
        self.stage = Stage::Live(request.to);
        messages.push((request.to.shard, SessionMessage::Granted { request, state }));
    }
}

fn refusal(request: RestoreRequest, code: ErrorCode) -> (ShardId, SessionMessage) {
    (request.to.shard, SessionMessage::Refused { request, code })
}
