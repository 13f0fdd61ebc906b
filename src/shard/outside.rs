//! The server API as a shard meets it: calls in, answers out. Nothing here waits; an answer that takes
//! other threads comes when they have answered.

use std::sync::Arc;

use bytes::Bytes;

use super::State;
use super::addressing::Crowd;
use super::connection::{Aside, Connection, Phase};
use super::traffic::{Carried, Flow};
use crate::broker::{SubscribeError, SubscribeRequest};
use crate::filter::Filter;
use crate::ids::{ConnectionId, Position, Tick, Token, TopicName};
use crate::message::{
    AdminAnswer, AdminCall, AdminRefusal, AdminRequest, AdminTicket, Begin, ConnectionInfo, Page,
    PublishOutcome, Publisher, Receipt, ShardStats,
};
use crate::metrics::Counter;
use crate::proto::{
    Answer, CloseCode, Family, HistoryQuery, PresenceQuery, RoomAction, Standing, Start,
};

/// Slots that one listing looks at: each name of a connection that had none costs two system calls.
const LISTED_MAX: usize = 256;

/// A subscription that the server API has made and that is not confirmed.
#[derive(Debug)]
pub(super) struct Subscribing {
    token: Token,
    topic: TopicName,
    ticket: AdminTicket,
}

/// What the shard has for the thread of the server API.
#[derive(Debug, Default)]
pub(super) struct Outside {
    pub answers: Vec<(AdminTicket, AdminAnswer)>,
    /// Of one connection for each call under way, or of all of a user.
    subscribing: Vec<Subscribing>,
    /// As many as that thread has calls under way.
    pub crowds: Vec<Crowd>,
}

impl State {
    pub(super) fn serve_outside(&mut self, request: AdminRequest) {
        self.count(Counter::AdminCalls, 1);
        let AdminRequest { ticket, call } = request;
        match call {
            AdminCall::Publish { topic, data, message_id, filter } => {
                self.publish_outside(ticket, topic, data, (message_id, filter));
            }
            AdminCall::History { topic, query } => self.query_outside(ticket, &topic, &query),
            AdminCall::Presence { topic, query } => {
                self.presence_query_outside(ticket, &topic, query);
            }
            AdminCall::Room { topic, action } => self.room_outside(ticket, &topic, action),
            AdminCall::Rooms { after, limit } => {
                let rooms = self.broker.list_rooms(after.as_ref(), limit);
                self.answer_outside(ticket, AdminAnswer::Rooms(rooms));
            }
            AdminCall::Topics { from } => {
                let (topics, next) = self.broker.list_topics(from);
                self.answer_outside(ticket, AdminAnswer::Topics { topics, next });
            }
            AdminCall::Subscribers { topics } => {
                let counts = topics.iter().map(|topic| self.broker.subscribers(topic)).collect();
                self.answer_outside(ticket, AdminAnswer::Subscribers(counts));
            }
            AdminCall::Connections { from } => self.list_connections(ticket, from),
            AdminCall::Connection(id) => self.tell_connection(ticket, id),
            AdminCall::Subscribe { connection, topic, filter } => {
                self.subscribe_outside(ticket, connection, topic, filter);
            }
            AdminCall::Unsubscribe { connection, topic } => {
                self.unsubscribe_outside(ticket, connection, &topic);
            }
            AdminCall::Disconnect { connection, code, reason } => {
                self.disconnect(ticket, connection, code, &reason);
            }
            AdminCall::SendToUser { inbox, channel, data } => {
                self.send_to_user_outside(ticket, inbox, &channel, &data);
            }
            AdminCall::SendToConnection { connection, frame, filter } => {
                self.send_to_connection(ticket, connection, frame, filter.as_deref());
            }
            AdminCall::SendToMany { frame, audience } => {
                self.send_to_many(ticket, frame, audience);
            }
            AdminCall::SubscribeUser { user, topic, filter } => {
                self.subscribe_user(ticket, &user, &topic, filter.as_ref());
            }
            AdminCall::UnsubscribeUser { user, topic } => {
                self.unsubscribe_user(ticket, &user, &topic);
            }
            AdminCall::DisconnectUser { user, code, reason } => {
                self.disconnect_user(ticket, &user, code, &reason);
            }
            AdminCall::Group(change) => {
                self.memberships.apply(&change);
                self.answer_outside(ticket, AdminAnswer::Done);
            }
            AdminCall::Stats => self.answer_outside(ticket, AdminAnswer::Stats(self.stats())),
        }
    }

    pub(super) fn answer_outside(&mut self, ticket: AdminTicket, answer: AdminAnswer) {
        self.outside.answers.push((ticket, answer));
    }

    pub(super) fn refuse_outside(&mut self, ticket: AdminTicket, refusal: AdminRefusal) {
        self.answer_outside(ticket, AdminAnswer::Refused(refusal));
    }

    fn publish_outside(
        &mut self,
        ticket: AdminTicket,
        topic: TopicName,
        data: Bytes,
        (message_id, filter): (Option<Box<str>>, Option<Arc<Filter>>),
    ) {
        if self.shutdown.has_begun() {
            self.refuse_outside(ticket, AdminRefusal::ShuttingDown);
            return;
        }
        let receipt = Some(Box::new(Receipt {
            request_id: None,
            message_id,
            channel: None,
            family: Family::Action,
            filter,
        }));
        let publisher = Publisher { shard: self.id, token: ticket.token(), echo: true, receipt };
        let mut effects = std::mem::take(&mut self.effects);
        self.broker.publish_from_outside(topic, data, publisher, &mut self.frames, &mut effects);
        self.count(Counter::Publications, 1);
        self.apply(effects);
    }

    /// A publication of the server API has its outcome.
    pub(super) fn published_outside(&mut self, ticket: AdminTicket, outcome: PublishOutcome) {
        match outcome {
            PublishOutcome::BacklogFull => self.count(Counter::BacklogFull, 1),
            PublishOutcome::TableFull { .. } => self.count(Counter::SubscriptionLimit, 1),
            PublishOutcome::Accepted { .. }
            | PublishOutcome::NotStored
            | PublishOutcome::Barred => {}
        }
        self.answer_outside(ticket, AdminAnswer::Published(outcome));
    }

    fn query_outside(&mut self, ticket: AdminTicket, topic: &TopicName, query: &HistoryQuery) {
        if !self.broker.has_history(topic) {
            self.refuse_outside(ticket, AdminRefusal::NoHistory);
            return;
        }
        let mut effects = std::mem::take(&mut self.effects);
        let asked = self.broker.query(ticket.token(), topic, query, None, &mut effects);
        self.apply(effects);
        if asked.is_err() {
            self.count(Counter::BacklogFull, 1);
            self.refuse_outside(ticket, AdminRefusal::BacklogFull);
        }
    }

    pub(super) fn page_outside(&mut self, ticket: AdminTicket, page: Box<Page>) {
        self.answer_outside(ticket, AdminAnswer::Page(page));
    }

    fn presence_query_outside(
        &mut self,
        ticket: AdminTicket,
        topic: &TopicName,
        query: PresenceQuery,
    ) {
        if !self.broker.has_presence(topic) {
            self.refuse_outside(ticket, AdminRefusal::NoPresence);
            return;
        }
        let presence = Box::new(self.broker.presence_of(topic, query));
        self.answer_outside(ticket, AdminAnswer::Presence(presence));
    }

    fn room_outside(&mut self, ticket: AdminTicket, topic: &TopicName, action: RoomAction) {
        if !self.broker.may_be_room(topic) {
            self.refuse_outside(ticket, AdminRefusal::NoRooms);
            return;
        }
        let mut effects = std::mem::take(&mut self.effects);
        let outcome = self.broker.run_room(topic, None, action, &mut effects);
        self.apply(effects);
        self.answer_outside(ticket, AdminAnswer::Room(outcome));
    }

    fn list_connections(&mut self, ticket: AdminTicket, from: u32) {
        let end = self.connections.capacity();
        let until = (from as usize).saturating_add(LISTED_MAX).min(end);
        let tokens: Vec<_> = (from as usize..until)
            .filter_map(|slot| Some(self.connections.get(slot)?.token(slot as u32)))
            .collect();
        let connections = tokens.into_iter().filter_map(|token| self.connection_info(token));
        let connections = connections.collect();
        let next = (until < end).then_some(until as u32);
        self.answer_outside(ticket, AdminAnswer::Connections { connections, next });
    }

    fn tell_connection(&mut self, ticket: AdminTicket, id: ConnectionId) {
        let info = self.find_connection(id).and_then(|token| {
            Some(ConnectionInfo {
                topics: self.broker.topics_of(token),
                ..self.connection_info(token)?
            })
        });
        match info {
            Some(info) => self.answer_outside(ticket, AdminAnswer::Connection(Box::new(info))),
            None => self.refuse_outside(ticket, AdminRefusal::NoConnection),
        }
    }

    fn subscribe_outside(
        &mut self,
        ticket: AdminTicket,
        id: ConnectionId,
        topic: TopicName,
        filter: Option<Arc<Filter>>,
    ) {
        match self.find_open(id) {
            Some(token) => self.begin_subscribing(ticket, token, topic, filter),
            None => self.refuse_outside(ticket, AdminRefusal::NoConnection),
        }
    }

    pub(super) fn begin_subscribing(
        &mut self,
        ticket: AdminTicket,
        token: Token,
        topic: TopicName,
        filter: Option<Arc<Filter>>,
    ) {
        self.outside.subscribing.push(Subscribing { token, topic: topic.clone(), ticket });
        let begin = Begin { start: Start::Now, limit: None };
        let select = filter.into();
        let request = SubscribeRequest { token, topic: &topic, begin, request_id: None, select };
        let mut effects = std::mem::take(&mut self.effects);
        let outcome = self.broker.subscribe(request, &mut effects);
        self.apply(effects);
        let (counter, refusal) = match outcome {
            Ok(()) => return,
            Err(SubscribeError::TooMany { limit }) => {
                (Counter::SubscriptionLimit, AdminRefusal::TooManySubscriptions { limit })
            }
            Err(SubscribeError::TableFull { limit }) => {
                (Counter::SubscriptionLimit, AdminRefusal::TableFull { limit })
            }
            Err(SubscribeError::Congested) => (Counter::BacklogFull, AdminRefusal::BacklogFull),
        };
        self.count(counter, 1);
        self.outside
            .subscribing
            .retain(|subscribing| subscribing.ticket != ticket || subscribing.token != token);
        self.end_subscribing(ticket, Err(refusal));
    }

    /// A subscription is confirmed, whoever asked for it.
    pub(super) fn confirmed_outside(&mut self, token: Token, topic: &str, standing: &Standing) {
        self.take_subscribing(Ok(standing.position), |subscribing| {
            subscribing.token == token && *subscribing.topic == *topic
        });
    }

    /// A connection has left the broker: it will not be confirmed any more.
    pub(super) fn left_outside(&mut self, token: Token) {
        let refused = Err(AdminRefusal::NoConnection);
        self.take_subscribing(refused, |subscribing| subscribing.token == token);
    }

    fn take_subscribing(
        &mut self,
        outcome: Result<Option<Position>, AdminRefusal>,
        is_meant: impl Fn(&Subscribing) -> bool,
    ) {
        let subscribing = &mut self.outside.subscribing;
        if subscribing.is_empty() {
            return;
        }
        let ended: Vec<_> = subscribing.extract_if(.., |one| is_meant(one)).collect();
        for one in ended {
            self.end_subscribing(one.ticket, outcome);
        }
    }

    fn unsubscribe_outside(&mut self, ticket: AdminTicket, id: ConnectionId, topic: &str) {
        let Some(token) = self.find_open(id) else {
            self.refuse_outside(ticket, AdminRefusal::NoConnection);
            return;
        };
        if self.unsubscribe_for(token, topic) {
            self.answer_outside(ticket, AdminAnswer::Done);
        } else {
            self.refuse_outside(ticket, AdminRefusal::NotSubscribed);
        }
    }

    /// Ends a subscription as if the client had asked for that. `false`: there is none.
    pub(super) fn unsubscribe_for(&mut self, token: Token, topic: &str) -> bool {
        let was_subscribed = self.end_subscription(token, topic);
        if was_subscribed {
            // It must not wait for more.
            let (channel, id) = (topic, None);
            self.reply(token, &Answer::UnsubscriptionConfirm { channel, id });
        }
        was_subscribed
    }

    fn disconnect(&mut self, ticket: AdminTicket, id: ConnectionId, code: CloseCode, reason: &str) {
        let is_open = |phase| matches!(phase, Phase::Open | Phase::Echo);
        match self.find_connection(id).filter(|token| is_open(self.phase(*token))) {
            Some(token) => {
                self.kick(token, code, reason);
                self.answer_outside(ticket, AdminAnswer::Done);
            }
            None => self.refuse_outside(ticket, AdminRefusal::NoConnection),
        }
    }

    pub(super) fn kick(&mut self, token: Token, code: CloseCode, reason: &str) {
        self.count(Counter::Kicked, 1);
        self.note(token, Counter::Kicked.name(), reason);
        self.close(token, code, reason);
    }

    fn stats(&self) -> ShardStats {
        ShardStats {
            connections: self.connections.len(),
            topics: self.broker.topics(),
            frames: self.frames.len() - super::state::FRAMES_FOR_GOOD,
            fanout_bytes: self.broker.fanout_bytes(),
            history_bytes: self.broker.history_bytes(),
            log_bytes: self.broker.log_bytes(),
        }
    }

    /// The connection of that name, as long as its slot is its own.
    fn find_connection(&self, id: ConnectionId) -> Option<Token> {
        let connection = self.connections.get(id.slot as usize)?;
        match connection.aside.as_deref() {
            Some(Aside::Identity(identity)) if identity.connection_id == id => {
                Some(connection.token(id.slot))
            }
            _ => None,
        }
    }

    /// As [`State::find_connection`], if it is an open WebSocket.
    pub(super) fn find_open(&self, id: ConnectionId) -> Option<Token> {
        self.find_connection(id).filter(|token| self.phase(*token) == Phase::Open)
    }

    /// What is known of a connection that is, or was until now, an open WebSocket.
    pub(super) fn connection_info(&mut self, token: Token) -> Option<ConnectionInfo> {
        let id = self.identity(token)?.connection_id;
        let unix_start = self.settings.unix_start;
        let unix_ms = |tick: Tick| unix_start + u64::from(tick.0) * Tick::MILLIS;
        let subscriptions = self.broker.subscriptions(token);
        let connection = self.connection(token)?;
        let state = match connection.phase {
            Phase::Open => "open",
            Phase::Echo => "echo",
            Phase::Closing | Phase::Draining => "closing",
            Phase::Head | Phase::Gone => return None,
        };
        let Connection { queue, traffic, .. } = &*connection;
        let identity = match connection.aside.as_deref() {
            Some(Aside::Identity(identity)) => Some(identity),
            _ => None,
        };
        let carried = identity.map_or_else(Carried::default, |identity| identity.carried);
        let value = |flow| traffic.value(&carried, flow);
        Some(ConnectionInfo {
            id,
            peer: connection.peer(),
            state,
            state_since_ms: unix_ms(connection.phase_since),
            last_activity_ms: unix_ms(connection.last_received.max(connection.progress)),
            messages_received: value(Flow::MessagesReceived),
            bytes_received: value(Flow::BytesReceived),
            messages_sent: traffic.messages_sent(&carried),
            bytes_sent: value(Flow::BytesSent),
            queued_messages: queue.len(),
            queued_bytes: queue.bytes(),
            rtt: identity.and_then(|identity| identity.link.rtt()),
            user: identity.and_then(|identity| identity.user.clone()),
            is_blocked: connection.blocked,
            subscriptions,
            topics: Vec::new(),
        })
    }
}
