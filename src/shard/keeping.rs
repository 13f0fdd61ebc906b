//! Sessions that survive the server: with `sessions.durable` what becomes of them goes to the durable log.
//!
//! The shard of a connection tells the home of its session how that stands, a while after it has changed,
//! so that many changes are one; the home writes that, and what becomes of sessions there, to its
//! [`SessionLog`]. At the start the home reads what is kept, and requests for sessions wait until then.

use std::borrow::Cow;
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use super::State;
use super::identity::Identity;
use crate::broker::SessionLog;
use crate::config::Config;
use crate::ids::{ConnectionId, Moment, SessionId, ShardId, Token};
use crate::message::{
    EndRequest, KeptSession, LogAnswer, SessionMessage, SessionRecord, SessionState,
};
use crate::metrics::Counter;
use crate::proto::ErrorCode;

/// Sessions of connections looked at per turn.
const NOTED_MAX: usize = 256;

/// Requests wait so long for what is kept to be read.
const LOADING_MAX: Duration = Duration::from_secs(10);

/// Intervals until it is told what a client has acknowledged: if that is lost, something comes again that
/// may come again, and clients acknowledge all the time.
const PROGRESS_INTERVALS: u32 = 10;

/// For people, with `unavailable`.
pub(super) const LOADING: &str = "the sessions of before are still being read";

/// Where the session of a connection stands in the log.
#[derive(Debug, Default, Clone, Copy)]
pub struct Keep {
    /// When its home is told of it next; see [`Keeping::due`].
    due: Option<Moment>,
    /// Its home was told of it, or has given it.
    pub known: bool,
}

/// What a shard has to do for the log of sessions.
pub(super) struct Keeping {
    log: SessionLog,
    /// Connections whose session is to be told of: at most one entry for each, by time.
    due: BTreeSet<(Moment, u64)>,
    /// From a change until it is told of.
    interval: Duration,
    /// Without a change too a session is told of after this time.
    refresh: Duration,
    /// Requests that came while sessions were being read, and until when they wait.
    held: VecDeque<(Moment, SessionMessage)>,
    /// Of those; over that they are refused.
    held_max: usize,
}

impl Keeping {
    /// `None`: sessions are not kept.
    pub fn new(shard: ShardId, shards: u16, known: u16, config: &Config) -> Option<Box<Self>> {
        config.sessions.durable.then(|| {
            Box::new(Self {
                log: SessionLog::new(shard, shards, known, config),
                due: BTreeSet::new(),
                interval: config.sessions.durable_interval,
                refresh: config.sessions.ttl,
                held: VecDeque::new(),
                held_max: config.sessions.max_parked.max(1),
            })
        })
    }
}

impl State {
    /// The shard that keeps a session.
    pub(super) fn session_home(&self, session: SessionId) -> ShardId {
        SessionLog::home(session, self.settings.metrics.shards().len() as u16)
    }

    /// The session of a connection has changed.
    pub(super) fn note_session(&mut self, token: Token) {
        if let Some(keeping) = &self.keeping {
            self.tell_by(token, self.now.after(keeping.interval));
        }
    }

    /// The client of a connection has acknowledged something.
    pub(super) fn note_progress(&mut self, token: Token) {
        if let Some(keeping) = &self.keeping {
            self.tell_by(token, self.now.after(keeping.interval * PROGRESS_INTERVALS));
        }
    }

    /// A connection has a session that its home knows.
    pub(super) fn note_known(&mut self, token: Token) {
        if let Some(identity) = self.known_identity(token) {
            identity.keep.known = true;
            self.note_session(token);
        }
    }

    fn tell_by(&mut self, token: Token, due: Moment) {
        let Some(keep) = self.known_identity(token).map(|identity| &mut identity.keep) else {
            return;
        };
        let before = keep.due;
        if before.is_some_and(|before| before <= due) {
            return;
        }
        keep.due = Some(due);
        let Some(keeping) = &mut self.keeping else { return };
        if let Some(before) = before {
            keeping.due.remove(&(before, token.pack()));
        }
        keeping.due.insert((due, token.pack()));
    }

    /// A connection has its session no longer.
    pub(super) fn forget_due(&mut self, token: Token, keep: Keep) {
        if let Some((keeping, due)) = self.keeping.as_mut().zip(keep.due) {
            keeping.due.remove(&(due, token.pack()));
        }
    }

    /// Tells homes of sessions, gives the log what it is to have, asks it for what it has: a bounded amount
    /// of each.
    pub(super) fn advance_keeping(&mut self) {
        if self.keeping.is_none() {
            return;
        }
        self.tell_homes();
        let Some(keeping) = &mut self.keeping else { return };
        let unix_ms = self.settings.unix_start + self.now.0;
        keeping.log.advance(self.now, unix_ms, self.broker.to_log());
        let tally = keeping.log.take_tally();
        if tally != crate::broker::SessionLogTally::default() {
            self.count(Counter::SessionsWritten, tally.written);
            self.count(Counter::SessionsUnwritten, tally.refused);
            self.count(Counter::SessionsUnkept, tally.dropped);
            self.count(Counter::SessionsUnreadable, tally.unreadable);
        }
        self.release_held();
    }

    fn tell_homes(&mut self) {
        for _ in 0..NOTED_MAX {
            let Some(keeping) = &mut self.keeping else { return };
            // Nothing changes any more that is worth a wait.
            let ahead = if self.shutdown.has_begun() { keeping.interval } else { Duration::ZERO };
            let (refresh, interval) = (keeping.refresh, keeping.interval);
            let Some(&(due, packed)) = keeping.due.first() else { return };
            if due > self.now.after(ahead) {
                return;
            }
            keeping.due.pop_first();
            let token = Token::unpack(packed);
            let Some(identity) = self.known_identity(token) else { continue };
            identity.keep.due = None;
            let session = identity.session_id;
            let home = self.session_home(session);
            if self.broker.is_congested(home) {
                self.tell_by(token, self.now.after(interval));
                continue;
            }
            let Some((connection, state)) = self.session_now(token) else { continue };
            if let Some(identity) = self.known_identity(token) {
                identity.keep.known = true;
            }
            self.post_session(home, SessionMessage::Keep { session, connection, state });
            if !self.shutdown.has_begun() {
                self.tell_by(token, self.now.after(refresh));
            }
        }
    }

    /// The session of a connection, which is named with it, as its next one would get it.
    fn session_now(&mut self, token: Token) -> Option<(ConnectionId, SessionState)> {
        let identity = self.known_identity(token)?;
        let (connection, user) = (identity.connection_id, identity.user.clone());
        let track = identity.track.take();
        let subscriptions = match &track {
            Some(track) => self.listed_subscriptions(token, track),
            None => self.listed_subscriptions(token, &super::identity::Track::default()),
        };
        if let Some(identity) = self.known_identity(token) {
            identity.track = track;
        }
        Some((connection, SessionState { user, subscriptions }))
    }

    /// At home: the log is to have this of a session.
    pub(super) fn write_session(&mut self, session: SessionId, kept: Option<KeptSession>) {
        let time_ms = self.settings.unix_start + self.now.0;
        if let Some(keeping) = &mut self.keeping {
            let record = SessionRecord { secret: session.secret, time_ms, kept };
            keeping.log.write(session, &record);
        }
    }

    /// At home: what has become of a session with this message, for the log.
    pub(super) fn write_granted(&mut self, messages: &[(ShardId, SessionMessage)]) -> bool {
        let mut granted = false;
        for (_, message) in messages {
            if let SessionMessage::Granted { request, state } = message {
                granted = true;
                let proofs = self.sessions.proofs(request.session, request.connection);
                let user = state.user.clone().or_else(|| request.user.clone());
                let state = SessionState { user, ..state.clone() };
                let kept = Some(KeptSession { proofs, connected: true, state });
                self.write_session(request.session, kept);
            }
        }
        granted
    }

    /// At home: keeps a message until what the log has is read. Returns one that need not
    /// wait.
    pub(super) fn hold_session(&mut self, message: SessionMessage) -> Option<SessionMessage> {
        let Some(keeping) = self.keeping.as_mut().filter(|keeping| keeping.log.is_loading()) else {
            return Some(message);
        };
        match message {
            SessionMessage::Restore(_) | SessionMessage::End(_) | SessionMessage::List { .. } => {}
            other => return Some(other),
        }
        if keeping.held.len() >= keeping.held_max {
            self.refuse_held(message, ErrorCode::BacklogFull);
        } else {
            keeping.held.push_back((self.now.after(LOADING_MAX), message));
        }
        None
    }

    fn release_held(&mut self) {
        while let Some(keeping) = &mut self.keeping {
            let is_loading = keeping.log.is_loading();
            let now = self.now;
            let over = |(until, _): &mut (Moment, SessionMessage)| !is_loading || *until <= now;
            let Some((_, message)) = keeping.held.pop_front_if(over) else { return };
            if is_loading {
                self.refuse_held(message, ErrorCode::Unavailable);
            } else {
                self.receive_session(message);
            }
        }
    }

    fn refuse_held(&mut self, message: SessionMessage, code: ErrorCode) {
        let (to, answer) = match message {
            SessionMessage::Restore(request) => {
                (request.to.shard, SessionMessage::Refused { request, code })
            }
            SessionMessage::End(request) => {
                let EndRequest { to, .. } = request;
                (to.shard, SessionMessage::Ended { request, found: false })
            }
            SessionMessage::List { user, to } => return self.list_sessions(&user, to),
            _ => return,
        };
        self.post_session(to, answer);
    }

    /// The durable log has answered what was asked for sessions.
    pub(super) fn session_log_answered(&mut self, answer: LogAnswer) {
        let Some(keeping) = &mut self.keeping else { return };
        let mut loaded = Vec::new();
        keeping.log.answered(answer, self.now, &mut loaded);
        let (ttl, now) = (self.settings.config.sessions.ttl, self.now);
        let unix_now = self.settings.unix_start + now.0;
        let mut count = 0;
        for (session, SessionRecord { time_ms, kept, .. }) in loaded {
            // With a connection it was told of at least each `ttl`.
            let spans = 1 + u32::from(kept.as_ref().is_some_and(|kept| kept.connected));
            let left = Duration::from_millis(
                (time_ms.saturating_add((ttl * spans).as_millis() as u64)).saturating_sub(unix_now),
            );
            let kept = kept.filter(|_| !left.is_zero());
            count += u64::from(kept.is_some());
            self.sessions.load(session, kept, now.after(left.min(ttl)));
        }
        self.count(Counter::SessionsLoaded, count);
    }

    /// Whether something is to be written that can be, before the shard may end.
    pub(super) fn is_keeping(&self) -> bool {
        self.keeping.as_ref().is_some_and(|keeping| {
            let soon = self.now.after(keeping.interval);
            keeping.log.is_writing() || keeping.due.first().is_some_and(|(due, _)| *due <= soon)
        })
    }

    /// When there is something to do for the log of sessions that nobody brings.
    pub(super) fn next_keeping(&self) -> Option<Moment> {
        let keeping = self.keeping.as_ref()?;
        let due = keeping.due.first().map(|(due, _)| *due);
        due.into_iter().chain(keeping.log.next()).min()
    }

    /// What a session is replaced by or left for has ended, if somebody else knows of it.
    pub(super) fn is_known_at_home(identity: &Identity) -> bool {
        identity.has_moved() || identity.keep.known
    }

    pub(super) fn refusal_text(code: ErrorCode) -> Cow<'static, str> {
        Cow::Borrowed(match code {
            ErrorCode::BacklogFull => super::dispatch::BACKLOG_FULL,
            ErrorCode::Unavailable => LOADING,
            _ => super::sessions::NOT_FOUND,
        })
    }
}
