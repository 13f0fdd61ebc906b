//! The sessions of one user, wherever they are: listed, and ended.
//!
//! Every shard knows the connections that it has of a user, and the sessions without one that are at
//! home there: to list them each is asked. To end one its home is asked, which drops it, or passes that
//! on to the shard of its connection.

use std::borrow::Cow;

use hashbrown::HashMap;

use super::State;
use super::dispatch::BACKLOG_FULL;
use super::sessions::NOT_FOUND;
use crate::broker::Ending;
use crate::ids::{SessionId, ShardId, Tick, Token, UserName};
use crate::message::{EndRequest, Holder, SessionLine, SessionLines, SessionMessage};
use crate::metrics::Counter;
use crate::proto::reply::{self, Listed};
use crate::proto::{ErrorCode, Family, Rejection, RequestId, close};

/// Sessions in a list at most.
pub(super) const LISTED_MAX: usize = 100;

/// Lists that are being gathered, by the slot of the connection that wants one: one at a time for each.
#[derive(Debug, Default)]
pub(super) struct Gatherings {
    gatherings: HashMap<u32, Gathering, foldhash::fast::RandomState>,
}

#[derive(Debug)]
struct Gathering {
    generation: u32,
    /// Shards that have not answered.
    left: usize,
    /// Raw JSON of the client.
    request_id: Option<Box<str>>,
    lines: SessionLines,
}

impl Gatherings {
    /// The connection is gone.
    pub fn forget(&mut self, token: Token) {
        let is_its = |gathering: &Gathering| gathering.generation == token.generation;
        if self.gatherings.get(&token.slot).is_some_and(is_its) {
            self.gatherings.remove(&token.slot);
        }
    }

    /// A shard has answered. Returns the whole list when it was the last one.
    fn take(&mut self, token: Token, lines: SessionLines) -> Option<Gathering> {
        let gathering = self.gatherings.get_mut(&token.slot)?;
        if gathering.generation != token.generation {
            return None;
        }
        gathering.left -= 1;
        gathering.lines.lines.extend(lines.lines);
        gathering.lines.more |= lines.more;
        if gathering.left > 0 {
            return None;
        }
        let mut gathering = self.gatherings.remove(&token.slot)?;
        let SessionLines { lines, more } = &mut gathering.lines;
        lines.sort_unstable_by_key(|line| (!line.connected, line.since));
        *more |= lines.len() > LISTED_MAX;
        lines.truncate(LISTED_MAX);
        Some(gathering)
    }
}

impl State {
    /// A client wants to know the sessions of its user.
    pub(super) fn query_sessions(&mut self, token: Token, id: Option<RequestId<'_>>) {
        let Some(user) = self.user_of(token, id) else { return };
        if self.gatherings.gatherings.contains_key(&token.slot) {
            let message = "the sessions are being listed already";
            self.refuse_sessions(token, ErrorCode::InvalidMessage, message, id);
            return;
        }
        let shards = self.settings.metrics.shards().len();
        let all = || (0..shards).map(|shard| ShardId(shard as u16));
        if all().any(|shard| self.broker.is_congested(shard)) {
            self.refuse_sessions(token, ErrorCode::BacklogFull, BACKLOG_FULL, id);
            return;
        }
        let gathering = Gathering {
            generation: token.generation,
            left: shards,
            request_id: id.map(|id| id.as_json().into()),
            lines: SessionLines::default(),
        };
        self.gatherings.gatherings.insert(token.slot, gathering);
        let to = Holder { shard: self.id, token };
        for shard in all() {
            self.post_session(shard, SessionMessage::List { user: user.clone(), to });
        }
    }

    /// A client wants a session of its user to end.
    pub(super) fn end_users_session(
        &mut self,
        token: Token,
        session: Option<SessionId>,
        id: Option<RequestId<'_>>,
    ) {
        let Some(user) = self.user_of(token, id) else { return };
        let Some(session) = session else {
            self.refuse_sessions(token, ErrorCode::SessionNotFound, NOT_FOUND, id);
            return;
        };
        let home = self.session_home(session);
        if self.broker.is_congested(home) {
            self.refuse_sessions(token, ErrorCode::BacklogFull, BACKLOG_FULL, id);
            return;
        }
        let to = Holder { shard: self.id, token };
        let request_id = id.map(|id| id.as_json().into());
        let request = EndRequest { session, user, to, request_id };
        self.post_session(home, SessionMessage::End(request));
    }

    /// The sessions of a user that are on this shard, with a connection or without.
    pub(super) fn list_sessions(&mut self, user: &UserName, to: Holder) {
        let (unix_start, ttl) = (self.settings.unix_start, self.settings.config.sessions.ttl);
        let connected = self.broker.connections_of(user, LISTED_MAX + 1);
        let mut lines = Vec::with_capacity(connected.len());
        for token in connected {
            let subscriptions = self.broker.subscriptions(token);
            let Some(connection) = self.connection(token) else { continue };
            let since = unix_start + u64::from(connection.phase_since.0) * Tick::MILLIS;
            let Some(identity) = self.known_identity(token) else { continue };
            let session = identity.session_id;
            lines.push(SessionLine { session, connected: true, subscriptions, since });
        }
        let parked = self.sessions.parked_of(user).take(LISTED_MAX + 1);
        lines.extend(parked.map(|(session, until, subscriptions)| SessionLine {
            session,
            connected: false,
            subscriptions,
            since: (unix_start + until.0).saturating_sub(ttl.as_millis() as u64),
        }));
        let more = lines.len() > LISTED_MAX;
        lines.truncate(LISTED_MAX);
        let message = SessionMessage::Listed { to, lines: SessionLines { lines, more } };
        self.post_session(to.shard, message);
    }

    /// A shard has listed its sessions.
    pub(super) fn sessions_listed(&mut self, token: Token, lines: SessionLines) {
        let Some(Gathering { request_id, lines, .. }) = self.gatherings.take(token, lines) else {
            return;
        };
        let listed = lines.lines.iter().map(|line| {
            let SessionLine { session: session_id, connected, subscriptions, since } = *line;
            Listed { session_id, connected, subscriptions, since }
        });
        let payload = reply::session_list(listed, lines.more);
        self.respond_to(token, &payload, request_id.as_deref());
    }

    /// At home: a session is to end.
    pub(super) fn end_at_home(&mut self, request: EndRequest) {
        match self.sessions.end(request.session, &request.user) {
            Ending::Ended => {
                self.write_session(request.session, None);
                self.count(Counter::SessionsEnded, 1);
                self.answer_end(request, true);
            }
            Ending::NotFound => self.answer_end(request, false),
            Ending::Held(holder) => {
                self.post_session(holder.shard, SessionMessage::EndHeld { holder, request });
            }
            Ending::Unknown => {
                // It may be on the connection that it began on.
                let tokens = self.broker.connections_of(&request.user, usize::MAX);
                let found = tokens.into_iter().find(|token| {
                    let identity = self.known_identity(*token);
                    identity.is_some_and(|identity| identity.session_id == request.session)
                });
                match found {
                    Some(token) => self.end_held(token, request),
                    None => self.answer_end(request, false),
                }
            }
        }
    }

    /// The connection that has a session is to be closed with it.
    pub(super) fn end_held(&mut self, token: Token, request: EndRequest) {
        let identity = self.known_identity(token);
        let Some(identity) = identity.filter(|it| it.session_id == request.session) else {
            // It has left, and its session came home before this can.
            self.post_session(self.session_home(request.session), SessionMessage::End(request));
            return;
        };
        if identity.user.as_ref() != Some(&request.user) {
            self.answer_end(request, false);
            return;
        }
        self.count(Counter::SessionsEnded, 1);
        // Before its own end, if it is that.
        self.answer_end(request, true);
        self.close(token, close::KICKED, "session_ended");
    }

    fn answer_end(&mut self, request: EndRequest, found: bool) {
        let shard = request.to.shard;
        self.post_session(shard, SessionMessage::Ended { request, found });
    }

    /// The home of a session has answered.
    pub(super) fn session_ended(&mut self, request: &EndRequest, found: bool) {
        let (token, id) = (request.to.token, request.request_id.as_deref());
        if found {
            self.respond_to(token, r#"{"ended":true}"#, id);
        } else {
            let id = id.and_then(RequestId::parse);
            self.refuse_sessions(token, ErrorCode::SessionNotFound, NOT_FOUND, id);
        }
    }

    fn respond_to(&mut self, token: Token, payload: &str, request_id: Option<&str>) {
        self.respond(token, payload, request_id.and_then(RequestId::parse));
    }

    /// Whose a connection is. `None`: nobody's, and it is told so.
    fn user_of(&mut self, token: Token, id: Option<RequestId<'_>>) -> Option<UserName> {
        let user = self.identity(token).and_then(|identity| identity.user.clone());
        if user.is_none() {
            let message = "only users have sessions to list or end";
            self.refuse_sessions(token, ErrorCode::Unauthenticated, message, id);
        }
        user
    }

    fn refuse_sessions(
        &mut self,
        token: Token,
        code: ErrorCode,
        message: &'static str,
        id: Option<RequestId<'_>>,
    ) {
        let (counter, penalty) = match code {
            ErrorCode::BacklogFull => (Some(Counter::BacklogFull), 0),
            ErrorCode::SessionNotFound => (Some(Counter::SessionNotFound), 1),
            ErrorCode::Unauthenticated => (Some(Counter::Unauthenticated), 1),
            _ => (None, 1),
        };
        if let Some(counter) = counter {
            self.count(counter, 1);
        }
        let message = Cow::Borrowed(message);
        let refused = Rejection { family: Family::Type, code, message, channel: None, id };
        self.reject(token, &refused, penalty);
    }
}
