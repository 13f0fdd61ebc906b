//! Sessions: what outlives a connection, and how another one gets it.
//!
//! The table of those at home here is [`Sessions`](crate::broker::Sessions). A connection has its
//! session from the `Granted` of the home on (a fresh one from the beginning), until it sends the home one
//! `Park` or `Forget`.

use std::borrow::Cow;

use super::State;
use super::connection::{Aside, Phase};
use super::dispatch::BACKLOG_FULL;
use super::identity::{Identity, Restoring, Track};
use crate::broker::Resumed;
use crate::ids::{ConnectionId, SessionId, ShardId, Token, UserName};
use crate::message::{
    Holder, KeptSession, RestoreRequest, SessionMessage, SessionState, SessionSubscription,
    ShardMessage,
};
use crate::metrics::Counter;
use crate::proto::reply::{self, SessionFacts};
use crate::proto::{
    Answer, Claim, ClaimedPlace, ErrorCode, Family, Rejection, RequestId, Restored, Standing,
    Start, close,
};

/// For people, with `session_not_found`.
pub(super) const NOT_FOUND: &str = "no session has these ids, or it has ended";

impl State {
    /// A client wants to go on with a session.
    pub(super) fn restore_session(
        &mut self,
        token: Token,
        pair: Option<(SessionId, ConnectionId)>,
        claims: Vec<Claim>,
        id: Option<RequestId<'_>>,
    ) {
        let Some(identity) = self.identity(token) else { return };
        let (connection, own) = (identity.connection_id, identity.session_id);
        let user = identity.user.clone();
        let track = identity.track();
        if track.restoring.is_some() {
            let message = "a session is being restored on this connection already";
            self.refuse_restore(token, ErrorCode::InvalidMessage, message, id);
            return;
        }
        let named = track.proof;
        let Some((session, proof)) = pair else {
            self.refuse_restore(token, ErrorCode::SessionNotFound, NOT_FOUND, id);
            return;
        };
        if session == own {
            if proof == connection || Some(proof) == named {
                // It is there already.
                let standings = self.broker.standings(token);
                self.tell_restored(token, &standings, id);
            } else {
                // Its home would take it from this connection first.
                self.refuse_restore(token, ErrorCode::SessionNotFound, NOT_FOUND, id);
            }
            return;
        }
        let home = self.session_home(session);
        if self.broker.is_congested(home) {
            self.refuse_restore(token, ErrorCode::BacklogFull, BACKLOG_FULL, id);
            return;
        }
        let request_id = id.map(|id| id.as_json().into());
        if let Some(identity) = self.identity(token) {
            let restoring = Restoring { request_id, claims: claims.into() };
            identity.track().restoring = Some(Box::new(restoring));
        }
        let to = Holder { shard: self.id, token };
        let request = RestoreRequest { session, proof, to, connection, user };
        self.post_session(home, SessionMessage::Restore(request));
    }

    /// What the server knows of the connection and its session.
    pub(super) fn query_session(&mut self, token: Token, id: Option<RequestId<'_>>) {
        let subscriptions = self.broker.subscriptions(token);
        let ttl_ms = self.settings.config.sessions.ttl.as_millis() as u64;
        let Some(identity) = self.identity(token) else { return };
        let Identity { connection_id, session_id, user, link, .. } = identity;
        let (connection_id, session_id, user) = (*connection_id, *session_id, user.clone());
        let rtt = link.rtt();
        let facts = SessionFacts { session_id, connection_id, user, subscriptions, rtt, ttl_ms };
        self.respond(token, &reply::session_facts(&facts), id);
    }

    /// A message of another shard, or of this one to itself.
    pub(super) fn receive_session(&mut self, message: SessionMessage) {
        if self.shutdown.has_begun() && !matches!(message, SessionMessage::Keep { .. }) {
            // Every connection is about to end, and nothing is kept in memory.
            return;
        }
        let Some(message) = self.hold_session(message) else { return };
        let mut messages = Vec::new();
        match message {
            SessionMessage::Restore(request) => {
                let fresh = self.fresh_holder(&request);
                self.sessions.restore(request, fresh, self.now, &mut messages);
                self.write_granted(&messages);
            }
            SessionMessage::Park { session, connection, from, told, state } => {
                self.count(Counter::SessionsParked, 1);
                let from = (from, told);
                self.sessions.park(session, connection, from, state, self.now, &mut messages);
                if self.keeping.is_some() && !self.write_granted(&messages) {
                    let kept = self.sessions.parked_session(session);
                    self.write_session(session, kept);
                }
            }
            SessionMessage::Keep { session, connection, state } => {
                let proofs = self.sessions.proofs(session, connection);
                let kept = KeptSession { proofs, connected: true, state };
                self.write_session(session, Some(kept));
            }
            SessionMessage::Forget { session, from } => {
                if self.sessions.forget(session, from, &mut messages) {
                    self.write_session(session, None);
                }
            }
            SessionMessage::Release { session, from } => self.release_session(session, from.token),
            SessionMessage::Granted { request, state } => self.take_session(request, state),
            SessionMessage::List { user, to } => self.list_sessions(&user, to),
            SessionMessage::Listed { to, lines } => self.sessions_listed(to.token, lines),
            SessionMessage::End(request) => self.end_at_home(request),
            SessionMessage::EndHeld { holder, request } => self.end_held(holder.token, request),
            SessionMessage::Ended { request, found } => self.session_ended(&request, found),
            SessionMessage::Refused { request, code } => {
                let text = Self::refusal_text(code);
                match code {
                    ErrorCode::BacklogFull => self.count(Counter::BacklogFull, 1),
                    ErrorCode::Unavailable => {}
                    _ => self.count(Counter::SessionNotFound, 1),
                }
                self.session_refused(request.to.token, code, text);
            }
        }
        for (to, message) in messages {
            self.post_session(to, message);
        }
    }

    /// Subscriptions of a restored session are there.
    pub(super) fn resumed(&mut self, token: Token, subscriptions: &[Resumed]) {
        let Some(identity) = self.known_identity(token) else { return };
        let track = identity.track();
        let Some(restoring) = track.restoring.take() else { return };
        let refused = subscriptions.iter().filter(|resumed| resumed.outcome.is_err());
        track.unmet = refused.map(|resumed| resumed.subscription.clone()).collect();
        let id = restoring.request_id.as_deref().and_then(RequestId::parse);
        self.tell_restored(token, subscriptions, id);
        self.note_session(token);
        for Resumed { subscription, outcome } in subscriptions {
            if subscription.is_member && outcome.is_ok() {
                self.return_to_room(token, &subscription.topic);
            }
        }
    }

    /// The connection ends: its session goes home. Before it leaves the broker.
    pub(super) fn end_session(&mut self, token: Token) {
        if self.shutdown.has_begun() {
            // Nothing is kept.
            self.take_identity(token);
        } else if let Some((home, message)) = self.take_ending(token) {
            self.post_session(home, message);
        }
    }

    /// The connection is closed for a reason that its session does not survive.
    pub(super) fn give_up_session(&mut self, token: Token) {
        if let Some(Identity { session_id, .. }) = self.take_identity(token) {
            let from = Holder { shard: self.id, token };
            let message = SessionMessage::Forget { session: session_id, from };
            self.post_session(self.session_home(session_id), message);
        }
    }

    /// Forgets parked sessions whose time is over, and counts what was lost.
    pub(super) fn expire_sessions(&mut self) {
        if self.sessions.parked() == 0 {
            return;
        }
        self.sessions.expire(self.now);
        let tally = self.sessions.take_tally();
        if tally != crate::broker::SessionsTally::default() {
            self.count(Counter::SessionsExpired, tally.expired);
            self.count(Counter::SessionsDropped, tally.dropped);
        }
    }

    /// Who has a session since it began, and whose that is, if the client names that connection.
    fn fresh_holder(&self, request: &RestoreRequest) -> Option<(Holder, Option<UserName>)> {
        let RestoreRequest { session, proof, .. } = *request;
        let connection = self.connections.get(proof.slot as usize)?;
        let Some(Aside::Identity(identity)) = connection.aside.as_deref() else { return None };
        let is_it = proof.shard == self.id
            && (identity.session_id, identity.connection_id) == (session, proof)
            && !identity.has_moved();
        is_it.then(|| {
            let holder = Holder { shard: self.id, token: connection.token(proof.slot) };
            (holder, identity.user.clone())
        })
    }

    /// Another connection is to have the session of this one. If it is not here any more it is on its way
    /// home already.
    fn release_session(&mut self, session: SessionId, token: Token) {
        if self.known_identity(token).is_none_or(|identity| identity.session_id != session) {
            return;
        }
        let ending = self.take_ending(token);
        self.count(Counter::SessionsMoved, 1);
        self.close(token, close::SESSION_MOVED, "session_moved");
        if let Some((home, message)) = ending {
            self.post_session(home, message);
        }
    }

    /// The home gives a session to a connection of this shard.
    fn take_session(&mut self, request: RestoreRequest, state: SessionState) {
        let RestoreRequest { session, proof, to, connection, .. } = request;
        let token = to.token;
        let adopted = match self.known_identity(token) {
            Some(_) => self.adopt_user(token, state.user.as_ref()).map_err(Some),
            // It has gone meanwhile.
            None => Err(None),
        };
        if let Err(refusal) = adopted {
            let message =
                SessionMessage::Park { session, connection, from: to, told: false, state };
            self.post_session(self.session_home(session), message);
            if let Some((code, text)) = refusal {
                self.session_refused(token, code, text);
            }
            return;
        }
        let Some(identity) = self.known_identity(token) else { return };
        let is_known = Self::is_known_at_home(identity);
        let given_up = std::mem::replace(&mut identity.session_id, session);
        let track = identity.track();
        track.proof = Some(proof);
        let claims =
            track.restoring.as_mut().map(|restoring| std::mem::take(&mut restoring.claims));
        let claims = claims.unwrap_or_default();
        let mut places = std::mem::take(&mut track.places);
        // What was looked up does not know of what follows.
        track.asked = None;
        if is_known {
            let message = SessionMessage::Forget { session: given_up, from: to };
            self.post_session(self.session_home(given_up), message);
        }
        self.note_known(token);
        self.count(Counter::SessionsRestored, 1);
        let wanted = state.subscriptions.iter().map(|subscription| {
            let start = start(subscription, &claims);
            (subscription.clone(), start)
        });
        let mut effects = std::mem::take(&mut self.effects);
        self.broker.resume(token, wanted.collect(), &mut effects);
        for SessionSubscription { topic, position, .. } in &state.subscriptions {
            // Not where it begins now: the client may not hear of that, and come back once more.
            if let Some(position) = *position {
                self.broker.note_kept(&mut places, topic, position);
            }
        }
        if let Some(identity) = self.known_identity(token) {
            identity.track().places = places;
        }
        self.apply(effects);
    }

    /// Tells a client that it does not get its session. That is counted.
    fn session_refused(&mut self, token: Token, code: ErrorCode, message: Cow<'static, str>) {
        let Some(identity) = self.known_identity(token) else { return };
        let Some(restoring) = identity.track().restoring.take() else { return };
        let id = restoring.request_id.as_deref().and_then(RequestId::parse);
        self.reject_restore(token, code, message, id);
    }

    fn refuse_restore(
        &mut self,
        token: Token,
        code: ErrorCode,
        message: &'static str,
        id: Option<RequestId<'_>>,
    ) {
        match code {
            ErrorCode::BacklogFull => self.count(Counter::BacklogFull, 1),
            ErrorCode::SessionNotFound => self.count(Counter::SessionNotFound, 1),
            _ => {}
        }
        self.reject_restore(token, code, Cow::Borrowed(message), id);
    }

    fn reject_restore(
        &mut self,
        token: Token,
        code: ErrorCode,
        message: Cow<'static, str>,
        id: Option<RequestId<'_>>,
    ) {
        // The server's want of room is no mistake of its client.
        let penalty = u32::from(!matches!(code, ErrorCode::BacklogFull | ErrorCode::Unavailable));
        let refused = Rejection { family: Family::Type, code, message, channel: None, id };
        self.reject(token, &refused, penalty);
    }

    fn tell_restored(
        &mut self,
        token: Token,
        subscriptions: &[Resumed],
        id: Option<RequestId<'_>>,
    ) {
        let Some(identity) = self.known_identity(token) else { return };
        let Identity { connection_id, session_id, ref user, .. } = *identity;
        let user = user.clone();
        self.next_message_id += 1;
        let listed: Vec<_> = subscriptions
            .iter()
            .map(|Resumed { subscription, outcome }| {
                let channel = &*subscription.topic;
                let told = outcome.is_ok_and(|standing| standing != Standing::default());
                let subscription_id = told.then(|| self.broker.subscription_id(channel)).flatten();
                Restored { channel, subscription_id, outcome: *outcome }
            })
            .collect();
        let restored = Answer::SessionRestored {
            session_id,
            connection_id,
            user: user.as_ref(),
            subscriptions: &listed,
            id,
            message_id: self.next_message_id,
        };
        self.reply_placed(token, &restored);
    }

    /// What goes to the home of the connection's session, which it has no longer.
    fn take_ending(&mut self, token: Token) -> Option<(ShardId, SessionMessage)> {
        let Identity { connection_id, session_id, user, track, .. } = self.take_identity(token)?;
        let subscriptions = self.listed_subscriptions(token, &track.unwrap_or_default());
        let message = SessionMessage::Park {
            session: session_id,
            connection: connection_id,
            from: Holder { shard: self.id, token },
            told: true,
            state: SessionState { user, subscriptions },
        };
        Some((self.session_home(session_id), message))
    }

    /// The subscriptions that the session of a connection keeps.
    pub(super) fn listed_subscriptions(
        &mut self,
        token: Token,
        track: &Track,
    ) -> Box<[SessionSubscription]> {
        let mut subscriptions = self.broker.session_subscriptions(token, &track.places);
        for unmet in &track.unmet {
            if subscriptions.iter().all(|subscription| subscription.topic != unmet.topic) {
                subscriptions.push(unmet.clone());
            }
        }
        subscriptions.into()
    }

    pub(super) fn post_session(&mut self, to: ShardId, message: SessionMessage) {
        if to == self.id {
            self.receive_session(message);
        } else {
            self.outbox.push((to, ShardMessage::Session(Box::new(message))));
        }
    }

    /// The identity of a connection that is open and has one.
    pub(super) fn known_identity(&mut self, token: Token) -> Option<&mut Identity> {
        let connection = self.connection(token)?;
        match connection.aside.as_deref_mut() {
            Some(Aside::Identity(identity))
                if matches!(connection.phase, Phase::Open | Phase::Echo) =>
            {
                Some(identity)
            }
            _ => None,
        }
    }

    fn take_identity(&mut self, token: Token) -> Option<Identity> {
        let connection = self.connection(token)?;
        let is_identity = |aside: &mut Box<Aside>| matches!(**aside, Aside::Identity(_));
        match *connection.aside.take_if(is_identity)? {
            Aside::Identity(identity) => {
                self.forget_due(token, identity.keep);
                Some(identity)
            }
            Aside::Head(_) => None,
        }
    }
}

/// Where a subscription of a session goes on: where its client says that it is, or where it surely was.
fn start(subscription: &SessionSubscription, claims: &[Claim]) -> Start {
    let kept = subscription.position;
    let topic = &*subscription.topic;
    let claim = claims.binary_search_by(|claim| (*claim.channel).cmp(topic)).ok();
    let epoch = kept.map(|position| position.epoch);
    match claim.map(|claim| claims[claim].place) {
        Some(ClaimedPlace::Position { epoch, offset }) => Start::Recover { epoch, offset },
        Some(ClaimedPlace::Offset(offset)) => Start::Recover { epoch, offset },
        None => Start::Recover { epoch, offset: kept.map_or(0, |position| position.offset) },
    }
}
