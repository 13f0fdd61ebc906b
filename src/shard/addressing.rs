//! Whom the server API means: a user, wherever the connections of that user are, one connection, everybody.

use std::sync::Arc;

use bytes::Bytes;

use super::State;
use super::connection::Phase;
use crate::filter::Filter;
use crate::ids::{ConnectionId, Position, Token, TopicName, UserName};
use crate::message::{AdminAnswer, AdminRefusal, AdminTicket, Publisher, Receipt};
use crate::metrics::Counter;
use crate::proto::{Audience, CloseCode, Family};

/// Connections of a user that are subscribed, all for one request.
#[derive(Debug)]
pub(super) struct Crowd {
    ticket: AdminTicket,
    /// Those that are not confirmed.
    left: usize,
    subscribed: u64,
    /// Why one of them is not.
    refusal: Option<AdminRefusal>,
}

impl State {
    /// By the door of the clients who send messages to users.
    pub(super) fn send_to_user_outside(
        &mut self,
        ticket: AdminTicket,
        inbox: TopicName,
        channel: &str,
        data: &[u8],
    ) {
        if self.shutdown.has_begun() {
            self.refuse_outside(ticket, AdminRefusal::ShuttingDown);
            return;
        }
        let receipt = Some(Box::new(Receipt {
            request_id: None,
            message_id: None,
            channel: Some(channel.into()),
            family: Family::Action,
            filter: None,
        }));
        let publisher = Publisher { shard: self.id, token: ticket.token(), echo: true, receipt };
        let (frames, mut effects) = (&mut self.frames, std::mem::take(&mut self.effects));
        self.broker.publish_to_from_outside(inbox, channel, data, publisher, frames, &mut effects);
        self.count(Counter::Publications, 1);
        self.apply(effects);
    }

    pub(super) fn send_to_connection(
        &mut self,
        ticket: AdminTicket,
        id: ConnectionId,
        frame: Bytes,
        filter: Option<&Filter>,
    ) {
        let Some(token) = self.find_open(id) else {
            self.refuse_outside(ticket, AdminRefusal::NoConnection);
            return;
        };
        let connection = self.connections.get(token.index());
        if !connection.is_some_and(|connection| self.may_hear(connection)) {
            self.refuse_outside(ticket, AdminRefusal::NotAuthenticated);
        } else if filter.is_some_and(|filter| !filter.matches(self.broker.attributes(token.slot)))
            || self.tell_one(token, frame)
        {
            self.answer_outside(ticket, AdminAnswer::Done);
        } else {
            self.refuse_outside(ticket, AdminRefusal::BacklogFull);
        }
    }

    pub(super) fn send_to_many(
        &mut self,
        ticket: AdminTicket,
        frame: Bytes,
        audience: Arc<Audience>,
    ) {
        if self.shutdown.has_begun() {
            self.refuse_outside(ticket, AdminRefusal::ShuttingDown);
        } else if !self.tell_audience(Some(ticket), frame, audience) {
            self.count(Counter::BacklogFull, 1);
            self.refuse_outside(ticket, AdminRefusal::BacklogFull);
        }
    }

    pub(super) fn subscribe_user(
        &mut self,
        ticket: AdminTicket,
        user: &UserName,
        topic: &TopicName,
        filter: Option<&Arc<Filter>>,
    ) {
        let tokens = self.open_connections_of(user);
        if tokens.is_empty() {
            self.reached(ticket, 0);
            return;
        }
        let crowd = Crowd { ticket, left: tokens.len(), subscribed: 0, refusal: None };
        self.outside.crowds.push(crowd);
        for token in tokens {
            self.begin_subscribing(ticket, token, topic.clone(), filter.cloned());
        }
    }

    /// A subscription that a request wanted is confirmed, or is not to be.
    pub(super) fn end_subscribing(
        &mut self,
        ticket: AdminTicket,
        outcome: Result<Option<Position>, AdminRefusal>,
    ) {
        let crowds = &mut self.outside.crowds;
        let Some(at) = crowds.iter().position(|crowd| crowd.ticket == ticket) else {
            let answer = outcome.map_or_else(AdminAnswer::Refused, AdminAnswer::Subscribed);
            self.answer_outside(ticket, answer);
            return;
        };
        let crowd = &mut crowds[at];
        crowd.left -= 1;
        match outcome {
            Ok(_) => crowd.subscribed += 1,
            // It is none of the user's any more.
            Err(AdminRefusal::NoConnection) => {}
            Err(refusal) => crowd.refusal = Some(refusal),
        }
        if crowd.left == 0 {
            let Crowd { subscribed: connections, refusal, .. } = crowds.swap_remove(at);
            self.answer_outside(ticket, AdminAnswer::Reached { connections, refusal });
        }
    }

    pub(super) fn unsubscribe_user(&mut self, ticket: AdminTicket, user: &UserName, topic: &str) {
        let tokens = self.open_connections_of(user);
        let ended = tokens.into_iter().filter(|token| self.unsubscribe_for(*token, topic)).count();
        self.reached(ticket, ended as u64);
    }

    pub(super) fn disconnect_user(
        &mut self,
        ticket: AdminTicket,
        user: &UserName,
        code: CloseCode,
        reason: &str,
    ) {
        let tokens = self.open_connections_of(user);
        for token in &tokens {
            self.kick(*token, code, reason);
        }
        self.reached(ticket, tokens.len() as u64);
    }

    fn reached(&mut self, ticket: AdminTicket, connections: u64) {
        self.answer_outside(ticket, AdminAnswer::Reached { connections, refusal: None });
    }

    /// No more than `auth.max_connections_per_user`.
    fn open_connections_of(&self, user: &UserName) -> Vec<Token> {
        let mut tokens = self.broker.connections_of(user, usize::MAX);
        tokens.retain(|token| {
            let connection = self.connections.get(token.index());
            connection.is_some_and(|connection| connection.phase == Phase::Open)
        });
        tokens
    }
}
