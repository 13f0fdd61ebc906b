//! Users: which connection is whose, what nobody may do unauthenticated, and messages to users.

use std::borrow::Cow;
use std::time::Duration;

use hashbrown::HashMap;

use super::State;
use super::dispatch::BACKLOG_FULL;
use super::publishing::Message;
use super::sessions::NOT_FOUND;
use crate::broker::{Body, JoinError, PublishRequest};
use crate::ids::{Token, UserName};
use crate::message::{PublishOutcome, Receipt};
use crate::metrics::Counter;
use crate::proto::http::{Refusal, Upgrade};
use crate::proto::{
    CloseCode, Command, ErrorCode, Family, Rejection, RequestId, Subscription, reply,
};

/// What wrong credentials count towards `max_errors`: at the default limit a connection has ten guesses.
const GUESS_PENALTY: u32 = 10;

/// When somebody for whom there is no room may try again.
const RETRY_AFTER: Duration = Duration::from_secs(5);

const WRONG_TOKEN: &str = "the token is not known";

/// Connections that wait for the answer to their credentials, by slot.
#[derive(Debug, Default)]
pub(super) struct Joining {
    connections: HashMap<u32, Joiner, foldhash::fast::RandomState>,
}

#[derive(Debug)]
struct Joiner {
    generation: u32,
    /// Inboxes that are not open yet.
    left: usize,
    /// Of each request that waits for the answer, in their order; raw JSON of the client.
    request_ids: Vec<Option<Box<str>>>,
}

impl Joining {
    /// A request waits until so many inboxes are open, or as many as one before it waits for.
    fn wait(&mut self, token: Token, left: usize, request_id: Option<Box<str>>) {
        let fresh = || Joiner { generation: token.generation, left, request_ids: Vec::new() };
        let joiner = self.connections.entry(token.slot).or_insert_with(fresh);
        if joiner.generation != token.generation {
            *joiner = fresh();
        }
        joiner.request_ids.push(request_id);
    }

    /// The connection is gone.
    pub fn forget(&mut self, token: Token) {
        let is_its = |joiner: &Joiner| joiner.generation == token.generation;
        if !self.connections.is_empty() && self.connections.get(&token.slot).is_some_and(is_its) {
            self.connections.remove(&token.slot);
        }
    }

    /// One more inbox is open. Returns the ids of the requests that waited, when it was the last one.
    fn opened(&mut self, token: Token) -> Vec<Option<Box<str>>> {
        let is_its = |joiner: &&mut Joiner| joiner.generation == token.generation;
        let joiner = self.connections.get_mut(&token.slot).filter(is_its);
        let Some(joiner) = joiner else { return Vec::new() };
        joiner.left = joiner.left.saturating_sub(1);
        if joiner.left > 0 {
            return Vec::new();
        }
        self.connections.remove(&token.slot).map_or(Vec::new(), |joiner| joiner.request_ids)
    }
}

impl State {
    /// Whose connection an upgrade makes; its inboxes are open then, or about to be.
    ///
    /// # Errors
    ///
    /// 401 for wrong credentials, and on the echo path, which cannot bring them later, for none where
    /// there must be some; 503 without room.
    pub(super) fn upgrading_user(
        &mut self,
        token: Token,
        upgrade: &Upgrade,
        is_echo: bool,
    ) -> Result<Option<UserName>, Refusal> {
        let auth = &self.settings.config.auth;
        // Without keys they are for somebody else: the application behind a proxy, say.
        let parameter = upgrade.query.iter().find(|(name, _)| name == "token");
        let secret = upgrade.bearer.as_deref().or(parameter.map(|(_, value)| value.as_bytes()));
        let Some(secret) = secret.filter(|_| !auth.keys.is_empty()) else {
            return match auth.required && is_echo {
                true => Err(Refusal::unauthenticated("a token is needed here")),
                false => Ok(None),
            };
        };
        let Some(user) = auth.keys.user_of(secret).cloned() else {
            return Err(Refusal::unauthenticated(WRONG_TOKEN));
        };
        if is_echo {
            return Ok(None);
        }
        match self.join(token, &user) {
            Ok(()) => Ok(Some(user)),
            Err(error) => {
                let (counter, _) = reason(error);
                Err(Refusal::no_room(counter.name(), no_room(error), RETRY_AFTER))
            }
        }
    }

    /// A `{"type":"auth"}` message. It is answered when nothing that is sent to the user from then on can
    /// miss the connection.
    pub(super) fn authenticate(&mut self, token: Token, secret: &str, id: Option<RequestId<'_>>) {
        let refuse = |state: &mut Self, code, message, penalty| {
            let refused = Rejection { family: Family::Type, code, message, channel: None, id };
            state.reject(token, &refused, penalty);
        };
        let user = self.settings.config.auth.keys.user_of(secret.as_bytes()).cloned();
        let Some(user) = user else {
            self.count(Counter::Unauthenticated, 1);
            let text = match self.settings.config.auth.keys.is_empty() {
                true => "this server knows no tokens",
                false => WRONG_TOKEN,
            };
            refuse(self, ErrorCode::Unauthenticated, Cow::Borrowed(text), GUESS_PENALTY);
            return;
        };
        let known = self.identity(token).and_then(|identity| identity.user.clone());
        if let Some(known) = known {
            // It may be so by its session, or by a request before this one.
            let left = self.broker.inboxes_under_way(token);
            if known == user && left > 0 {
                self.joining.wait(token, left, id.map(|id| id.as_json().into()));
            } else if known == user {
                self.answer_auth(token, id);
            } else {
                let text = Cow::Borrowed("this connection is another user's");
                refuse(self, ErrorCode::PermissionDenied, text, GUESS_PENALTY);
            }
            return;
        }
        let left = self.broker.inboxes();
        if left > 0 {
            self.joining.wait(token, left, id.map(|id| id.as_json().into()));
        }
        // Before its inboxes open, which may be at once and tells it so.
        self.become_user(token, user.clone());
        if let Err(error) = self.join(token, &user) {
            self.joining.forget(token);
            self.become_nobody(token);
            let (counter, code) = reason(error);
            self.count(counter, 1);
            refuse(self, code, Cow::Owned(no_room(error)), 0);
        } else if left == 0 {
            self.answer_auth(token, id);
        }
    }

    /// The connection is the user's, and open.
    pub(super) fn become_user(&mut self, token: Token, user: UserName) {
        if let Some(identity) = self.identity(token) {
            identity.user = Some(user);
            self.note_session(token);
        }
        if let Some(connection) = self.connection(token) {
            connection.authenticated = true;
        }
    }

    fn become_nobody(&mut self, token: Token) {
        if let Some(identity) = self.identity(token) {
            identity.user = None;
            self.note_session(token);
        }
        if let Some(connection) = self.connection(token) {
            connection.authenticated = false;
        }
    }

    /// Makes a connection that is to have a session that session's user's. Its inboxes are open then, or
    /// about to be.
    ///
    /// # Errors
    ///
    /// What its client is told, and the connection is whose it was: it is somebody else's; there is no
    /// room; it is, and with the session would be, nobody's where it must be somebody's.
    pub(super) fn adopt_user(
        &mut self,
        token: Token,
        user: Option<&UserName>,
    ) -> Result<(), (ErrorCode, Cow<'static, str>)> {
        let known = self.identity(token).and_then(|identity| identity.user.clone());
        match (user, known) {
            (Some(user), None) => {
                self.become_user(token, user.clone());
                self.join(token, user).map_err(|error| {
                    self.become_nobody(token);
                    let (counter, code) = reason(error);
                    self.count(counter, 1);
                    (code, Cow::Owned(no_room(error)))
                })
            }
            (Some(user), Some(known)) if *user != known => {
                self.count(Counter::SessionNotFound, 1);
                Err((ErrorCode::SessionNotFound, Cow::Borrowed(NOT_FOUND)))
            }
            (None, None) if self.settings.config.auth.required => {
                self.count(Counter::Unauthenticated, 1);
                Err((ErrorCode::Unauthenticated, Cow::Borrowed("the session is nobody's")))
            }
            _ => Ok(()),
        }
    }

    fn join(&mut self, token: Token, user: &UserName) -> Result<(), JoinError> {
        let mut effects = std::mem::take(&mut self.effects);
        let attributes = self.settings.config.auth.keys.attributes_of(user);
        let outcome = self.broker.join(token, (user, attributes), &mut effects);
        self.apply(effects);
        if outcome.is_ok() {
            self.count(Counter::Authenticated, 1);
        }
        outcome
    }

    /// One of the inboxes of a connection is open: what is sent to its user comes, behind what waits.
    pub(super) fn inbox_opened(&mut self, token: Token) {
        for request_id in self.joining.opened(token) {
            self.answer_auth(token, request_id.as_deref().and_then(RequestId::parse));
        }
    }

    fn answer_auth(&mut self, token: Token, id: Option<RequestId<'_>>) {
        let Some(identity) = self.identity(token) else { return };
        let (connection_id, session_id) = (identity.connection_id, identity.session_id);
        let Some(user) = identity.user.clone() else { return };
        self.respond(token, &reply::authenticated(&user, connection_id, session_id), id);
    }

    /// With `auth.required`: whether this connection may ask for that. If not, it is told so.
    pub(super) fn may_run(&mut self, token: Token, command: &Command<'_>) -> bool {
        if self.connection(token).is_some_and(|connection| connection.authenticated) {
            return true;
        }
        let (family, channel, id) = match command {
            // A session may be a user's, and then the connection is too.
            Command::Ping { .. }
            | Command::Pong
            | Command::Auth { .. }
            | Command::RestoreSession { .. } => return true,
            Command::Subscribe { channel, id, .. }
            | Command::Publish { channel, id, .. }
            | Command::Direct { channel, id, .. } => (Family::Action, Some(channel.clone()), *id),
            Command::Unsubscribe { subscription, id } => {
                let channel = match subscription {
                    Subscription::Channel(channel) => Some(channel.clone()),
                    Subscription::Id(_) => None,
                };
                (Family::Action, channel, *id)
            }
            Command::Message(message) => (Family::Type, message.channel.clone(), message.id),
            Command::Routed(message) => (Family::Type, message.channel.clone(), message.id),
            Command::Time { id }
            | Command::Stats { id }
            | Command::Sessions { id }
            | Command::EndSession { id, .. }
            | Command::History { id, .. }
            | Command::Room { id, .. }
            | Command::Rooms { id }
            | Command::Groups { id }
            | Command::Presence { id, .. }
            | Command::Ack { id, .. }
            | Command::Session { id } => (Family::Type, None, *id),
        };
        self.count(Counter::Unauthenticated, 1);
        let (code, message) = (ErrorCode::Unauthenticated, Cow::Borrowed("authenticate first"));
        self.reject(token, &Rejection { family, code, message, channel, id }, 1);
        false
    }

    /// It had its time.
    pub(super) fn close_unauthenticated(&mut self, token: Token) {
        self.count(Counter::AuthTimeout, 1);
        self.note(token, Counter::AuthTimeout.name(), "not authenticated in time");
        self.close(token, CloseCode::Policy, ErrorCode::Unauthenticated.as_str());
    }

    /// A client sends a message to a user.
    pub(super) fn send_to_user(&mut self, token: Token, to: &UserName, message: Message<'_>) {
        let Message { channel, data, echo, id, message_id, filter, tags: _ } = message;
        if let Err(refused) = self.admit_message(token, &channel) {
            self.refuse_direct(token, (channel, id), refused);
            return;
        }
        if !self.obeys_schema(token, &channel, (Family::Action, data), id) {
            return;
        }
        let receipt = Receipt::new(Family::Action, id, message_id);
        let receipt = Box::new(Receipt { channel: Some((&*channel).into()), ..receipt });
        let attributes = self.settings.config.auth.keys.attributes_of(to);
        if filter.is_some_and(|filter| !filter.matches(attributes)) {
            self.answer_publisher(token, &channel, Some(&receipt), PublishOutcome::ACCEPTED);
            return;
        }
        let (body, receipt) = (Body::Sent(data), Some(receipt));
        let request = PublishRequest { token, topic: &channel, body, echo, receipt };
        let mut effects = std::mem::take(&mut self.effects);
        self.broker.publish_to(to, request, &mut self.frames, &mut effects);
        self.count(Counter::Publications, 1);
        self.count(Counter::DirectMessages, 1);
        self.apply(effects);
    }

    fn admit_message(
        &mut self,
        token: Token,
        channel: &str,
    ) -> Result<(), (ErrorCode, &'static str)> {
        if !self.connection(token).is_some_and(|connection| connection.authenticated) {
            return Err((ErrorCode::Unauthenticated, "only users may send messages to users"));
        }
        if !self.broker.is_direct(channel) {
            let text = "the channel's namespace takes no messages to users";
            return Err((ErrorCode::PermissionDenied, text));
        }
        self.admit_publication(token)
    }
}

/// What is counted, and said to programs.
fn reason(error: JoinError) -> (Counter, ErrorCode) {
    match error {
        JoinError::Congested => (Counter::BacklogFull, ErrorCode::BacklogFull),
        JoinError::TooManyUsers { .. } | JoinError::TooManyConnections { .. } => {
            (Counter::UserLimit, ErrorCode::Unavailable)
        }
        JoinError::TableFull { .. } => (Counter::SubscriptionLimit, ErrorCode::Unavailable),
    }
}

/// For people.
fn no_room(error: JoinError) -> String {
    match error {
        JoinError::TooManyUsers { limit } => {
            format!("this server has connections of {limit} users already")
        }
        JoinError::TooManyConnections { limit } => {
            format!("the user has {limit} connections already")
        }
        JoinError::Congested => BACKLOG_FULL.to_owned(),
        JoinError::TableFull { limit } => format!("this server holds {limit} channels already"),
    }
}
