//! Commands of clients to the broker, and what the broker wants back to clients and shards.

use std::borrow::Cow;
use std::sync::Arc;

use super::State;
use super::connection::Phase;
use super::publishing::{Message, table_full};
use crate::broker::{Effect, SubscribeError, SubscribeRequest};
use crate::filter::Filter;
use crate::ids::Token;
use crate::message::{AdminTicket, Begin, NO_TAGS};
use crate::metrics::Counter;
use crate::proto::protobuf::{Requests, Scratch};
use crate::proto::{
    Addressee, Answer, CloseCode, Command, Commands, Encoding, ErrorCode, Family, Rejection,
    RequestId, Standing, Subscription, close,
};

/// For people, with `backlog_full`.
pub(super) const BACKLOG_FULL: &str = "too much waits for delivery; try again later";

/// What a refused subscription counts towards `max_errors`: ten of them and a connection at the
/// default limit is closed.
const SUBSCRIPTION_PENALTY: u32 = 10;

/// Messages in one frame: one frame must not keep a shard busy, nor its answers take more than a
/// queue may.
const FRAME_MESSAGES_MAX: usize = 1024;

impl State {
    /// Runs the messages of one text frame, in order. The first one has this index.
    pub(super) fn run_commands(&mut self, token: Token, text: &str, first: usize) {
        let mut commands = Commands::new(text);
        for index in first.. {
            let rest = commands.rest();
            let Some(command) = commands.next() else { return };
            if !self.take_command(token, index, command) {
                self.hold_frame(token, index, rest);
                return;
            }
            self.checks.drop_verdicts();
        }
    }

    /// Runs the envelopes of one binary frame, in order. The first one has this index.
    pub(super) fn run_requests(&mut self, token: Token, frame: &[u8], first: usize) {
        let (mut requests, mut scratch) = (Requests::new(frame), Scratch::default());
        for index in first.. {
            let rest = requests.rest();
            let Some(command) = requests.next(&mut scratch) else { return };
            if !self.take_command(token, index, command) {
                self.hold_frame(token, index, rest);
                return;
            }
            self.checks.drop_verdicts();
        }
    }

    /// Runs or refuses the message of a frame with that index. `false`: what follows is not to be run.
    #[inline]
    fn take_command(
        &mut self,
        token: Token,
        index: usize,
        command: Result<Command<'_>, Rejection<'_>>,
    ) -> bool {
        if index == FRAME_MESSAGES_MAX {
            let message = format!("a frame holds at most {FRAME_MESSAGES_MAX} messages");
            let refused = Rejection {
                family: Family::Action,
                code: ErrorCode::InvalidMessage,
                message: Cow::Owned(message),
                channel: None,
                id: None,
            };
            self.reject(token, &refused, 1);
            return false;
        }
        match command {
            Ok(command) => self.run(token, command),
            Err(rejection) => self.reject(token, &rejection, 1),
        }
        self.phase(token) == Phase::Open && !self.awaits_check(token)
    }

    fn run(&mut self, token: Token, command: Command<'_>) {
        if self.settings.config.auth.required && !self.may_run(token, &command) {
            return;
        }
        match command {
            Command::Subscribe { channel, start, limit, id, filter } => {
                self.subscribe(token, channel, (Begin { start, limit }, filter), id);
            }
            Command::Unsubscribe { subscription, id } => self.unsubscribe(token, subscription, id),
            Command::Publish { channel, data, echo, id, message_id, filter, tags } => {
                self.publish(token, Message { channel, data, echo, id, message_id, filter, tags });
            }
            Command::Direct { to, channel, data, echo, id, message_id, filter } => {
                let tags = None;
                let message = Message { channel, data, echo, id, message_id, filter, tags };
                match to {
                    Addressee::User(user) => self.send_to_user(token, &user, message),
                    Addressee::Audience(audience) => self.announce(token, *audience, message),
                }
            }
            Command::Message(message) => self.pass_on(token, &message),
            Command::Routed(message) => self.route(token, &message),
            Command::Time { id } => self.query_time(token, id),
            Command::Stats { id } => self.query_stats(token, id),
            Command::Auth { token: secret, id } => self.authenticate(token, &secret, id),
            Command::Session { id } => self.query_session(token, id),
            Command::Sessions { id } => self.query_sessions(token, id),
            Command::EndSession { session, id } => self.end_users_session(token, session, id),
            Command::RestoreSession { pair, claims, id } => {
                self.restore_session(token, pair, claims, id);
            }
            Command::Presence { channel, query, id } => {
                self.query_presence(token, &channel, query, id);
            }
            Command::Room { room, action, id } => self.ask_room(token, room, action, id),
            Command::Rooms { id } => self.query_rooms(token, id),
            Command::Groups { id } => self.query_groups(token, id),
            Command::History { channel, query, id } => self.query(token, &channel, &query, id),
            Command::Ack { received, id } => self.acknowledge(token, received, id),
            Command::Ping { id: None, timestamp: None }
                if self.encoding(token) == Encoding::Json =>
            {
                self.queue(token, self.pong);
            }
            Command::Ping { id, timestamp } => self.reply(token, &Answer::Pong { id, timestamp }),
            Command::Pong => {}
        }
    }

    fn subscribe(
        &mut self,
        token: Token,
        channel: Cow<'_, str>,
        (begin, filter): (Begin, Option<Arc<Filter>>),
        id: Option<RequestId<'_>>,
    ) {
        if filter.is_some() && !self.broker.has_tags(&channel) {
            let (family, code) = (Family::Action, ErrorCode::PermissionDenied);
            let (message, channel) = (Cow::Borrowed(NO_TAGS), Some(channel));
            self.reject(token, &Rejection { family, code, message, channel, id }, 1);
            return;
        }
        let request_id = id.map(|id| id.as_json().into());
        let select = filter.into();
        let request = SubscribeRequest { token, topic: &channel, begin, request_id, select };
        let mut effects = std::mem::take(&mut self.effects);
        let outcome = self.broker.subscribe(request, &mut effects);
        self.apply(effects);
        let (counter, code, message, penalty) = match outcome {
            Ok(()) => return,
            Err(SubscribeError::TooMany { limit }) => (
                Counter::SubscriptionLimit,
                ErrorCode::TooManySubscriptions,
                Cow::Owned(format!("a connection may have {limit} subscriptions")),
                SUBSCRIPTION_PENALTY,
            ),
            Err(SubscribeError::TableFull { limit }) => (
                Counter::SubscriptionLimit,
                ErrorCode::TooManySubscriptions,
                table_full(limit),
                SUBSCRIPTION_PENALTY,
            ),
            // The server's want of room, not the client's mistake.
            Err(SubscribeError::Congested) => {
                (Counter::BacklogFull, ErrorCode::BacklogFull, Cow::Borrowed(BACKLOG_FULL), 0)
            }
        };
        self.count(counter, 1);
        let refused =
            Rejection { family: Family::Action, code, message, channel: Some(channel), id };
        self.reject(token, &refused, penalty);
    }

    fn unsubscribe(
        &mut self,
        token: Token,
        subscription: Subscription<'_>,
        id: Option<RequestId<'_>>,
    ) {
        let topic;
        let channel = match subscription {
            Subscription::Channel(channel) => Some(channel),
            Subscription::Id(number) => {
                topic = self.broker.subscribed_topic(token, number);
                topic.as_deref().map(Cow::Borrowed)
            }
        };
        if let Some(channel) = &channel
            && self.end_subscription(token, channel)
        {
            self.reply(token, &Answer::UnsubscriptionConfirm { channel, id });
            return;
        }
        let message = match channel {
            Some(_) => "this connection is not subscribed to the channel",
            None => "this connection has no subscription with that id",
        };
        let refused = Rejection {
            family: Family::Action,
            code: ErrorCode::NotSubscribed,
            message: Cow::Borrowed(message),
            channel,
            id,
        };
        self.reject(token, &refused, 1);
    }

    /// Ends a subscription, and with it what the session and the room know of it. `false`: there is none.
    pub(super) fn end_subscription(&mut self, token: Token, channel: &str) -> bool {
        self.forget_place(token, channel);
        let mut effects = std::mem::take(&mut self.effects);
        let found = self.broker.unsubscribe(token, channel, &mut effects);
        self.apply(effects);
        if found {
            self.note_session(token);
        }
        found
    }

    /// Answers a message of a type. `payload` is JSON.
    pub(super) fn respond(&mut self, token: Token, payload: &str, id: Option<RequestId<'_>>) {
        self.next_message_id += 1;
        let envelope = (self.settings.unix_start + self.now.0, self.next_message_id);
        self.reply(token, &Answer::Response { payload, id, envelope });
    }

    /// Answers a message with an error. `penalty` counts towards the limit of errors.
    pub(super) fn reject(&mut self, token: Token, rejection: &Rejection<'_>, penalty: u32) {
        self.count(Counter::MessagesRejected, 1);
        self.next_message_id += 1;
        let now_unix_ms = self.settings.unix_start + self.now.0;
        let message_id = self.next_message_id;
        self.reply(token, &Answer::Error { rejection, now_unix_ms, message_id });
        let tick = self.tick();
        let errors_max = self.settings.config.limits.max_errors;
        let interval = self.settings.config.heartbeat.interval;
        let Some(connection) = self.connection(token) else { return };
        if connection.count_errors(tick, interval, penalty) >= errors_max && penalty > 0 {
            self.count(Counter::TooManyErrors, 1);
            self.note(token, Counter::TooManyErrors.name(), rejection.code.as_str());
            if rejection.code == ErrorCode::RateLimited {
                self.close(token, close::RATE_LIMITED, ErrorCode::RateLimited.as_str());
            } else {
                self.close(token, CloseCode::Policy, Counter::TooManyErrors.name());
            }
        }
    }

    /// Does what the broker asked for, and keeps the list for its next call.
    pub(super) fn apply(&mut self, mut effects: Vec<Effect>) {
        for effect in effects.drain(..) {
            match effect {
                Effect::Send { to, message } => self.outbox.push((to, message)),
                Effect::Subscribed { token, topic, .. } if topic.is_inbox() => {
                    self.inbox_opened(token);
                }
                Effect::Subscribed { token, topic, request_id, standing } => {
                    self.confirmed_outside(token, &topic, &standing);
                    if let Some(position) = standing.position {
                        self.note_begin(token, &topic, position);
                    }
                    let id = request_id.as_deref().and_then(RequestId::parse);
                    let told = standing != Standing::default();
                    let number = told.then(|| self.broker.subscription_id(&topic)).flatten();
                    let (channel, standing, subscription_id) = (&topic, &standing, number);
                    let answer =
                        Answer::SubscriptionConfirm { channel, standing, subscription_id, id };
                    // Who has joined need not be told of a subscription, but for its place in a history.
                    let entered = id.is_none() && self.entered_room(token, &topic);
                    if standing.position.is_some() {
                        self.reply_placed(token, &answer);
                    } else if !entered || told {
                        self.reply(token, &answer);
                    }
                    self.note_session(token);
                }
                Effect::Resumed { token, subscriptions } => self.resumed(token, &subscriptions),
                Effect::Session(message) => self.receive_session(*message),
                Effect::Published { token, topic, receipt, outcome } => {
                    match AdminTicket::of(token) {
                        None => {
                            self.answer_publisher(token, &topic, receipt.as_deref(), outcome);
                        }
                        Some(ticket) => self.published_outside(ticket, outcome),
                    }
                }
                Effect::Ready { token } => self.list_feed(token),
                Effect::Replay { token, topic, gap, frames } => {
                    self.replay(token, &topic, gap, frames);
                }
                Effect::Handed { token, topic, upto } => self.handed(token, topic, upto),
                Effect::Unreadable { token } => {
                    let reason = Counter::LogUnreadable.name();
                    self.fail(token, CloseCode::Error, reason, "the durable log cannot be read");
                }
                Effect::Room { token, topic, outcome, request_id, returns } => {
                    self.answer_room(token, topic, outcome, (request_id, returns));
                }
                Effect::Removed { token, topic, removal } => self.removed(token, &topic, removal),
                Effect::News { topic, interested, notice } => {
                    self.tell_news(&topic, interested, &notice);
                }
                Effect::Notice { topic, frame } => self.tell_subscribers(topic, frame),
                Effect::Presence { token, topic, presence, request_id } => {
                    self.answer_presence(token, &topic, &presence, request_id.as_deref());
                }
                Effect::Page { token, topic, page, request_id } => match AdminTicket::of(token) {
                    None => self.answer_query(token, &topic, &page, request_id.as_deref()),
                    Some(ticket) => self.page_outside(ticket, page),
                },
            }
        }
        self.effects = effects;
        if let Some(log) = &self.log {
            log.offer(self.broker.to_log());
        }
    }
}
