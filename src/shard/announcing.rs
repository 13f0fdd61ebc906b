//! Messages of clients to many connections that need not be subscribed: to groups, to everybody.

use std::sync::Arc;

use bytes::Bytes;

use super::State;
use super::publishing::Message;
use crate::ids::{ShardId, Token};
use crate::message::{PublishOutcome, Receipt, ShardMessage};
use crate::metrics::Counter;
use crate::proto::{Audience, ErrorCode, Family, encoder};

impl State {
    /// A client sends a message to an audience: each shard hands it to those who are there now.
    pub(super) fn announce(&mut self, token: Token, mut audience: Audience, message: Message<'_>) {
        let Message { channel, data, echo, id, message_id, filter, tags: _ } = message;
        if let Err(refused) = self.admit_announcement(token, &channel) {
            self.refuse_direct(token, (channel, id), refused);
            return;
        }
        if !self.obeys_schema(token, &channel, (Family::Action, data), id) {
            return;
        }
        if !echo && let Some(identity) = self.identity(token) {
            audience.except_connections.insert(identity.connection_id);
        }
        audience.filter = filter;
        let frame = encoder::publication_frame(&channel, data.as_json().as_bytes());
        let outcome = match self.tell_all_shards(frame, Arc::new(audience)) {
            true => PublishOutcome::ACCEPTED,
            false => PublishOutcome::BacklogFull,
        };
        let receipt = Receipt::new(Family::Action, id, message_id);
        self.count(Counter::Publications, 1);
        self.answer_publisher(token, &channel, Some(&receipt), outcome);
    }

    /// `false`: a shard can take no more, and nobody is told.
    fn tell_all_shards(&mut self, frame: Bytes, audience: Arc<Audience>) -> bool {
        let shards = (0..self.settings.metrics.shards().len() as u16).map(ShardId);
        let own = self.id;
        let others = shards.filter(|shard| *shard != own);
        if others.clone().any(|shard| self.broker.is_congested(shard))
            || !self.tell_audience(None, frame.clone(), audience.clone())
        {
            return false;
        }
        self.count(Counter::Announcements, 1);
        for to in others {
            let (frame, audience) = (frame.clone(), audience.clone());
            self.outbox.push((to, ShardMessage::Announce { frame, audience }));
        }
        true
    }

    /// A client of another shard sends this.
    pub(super) fn announced_elsewhere(&mut self, frame: Bytes, audience: Arc<Audience>) {
        if !self.tell_audience(None, frame, audience) {
            self.count(Counter::AnnouncementsDropped, 1);
        }
    }

    fn admit_announcement(
        &mut self,
        token: Token,
        channel: &str,
    ) -> Result<(), (ErrorCode, &'static str)> {
        if !self.connection(token).is_some_and(|connection| connection.authenticated) {
            return Err((ErrorCode::Unauthenticated, "only users may send messages to many"));
        }
        if !self.broker.may_send_to_many(token, channel) {
            let text = "this user may not send messages to many in the channel's namespace";
            return Err((ErrorCode::PermissionDenied, text));
        }
        self.admit_publication(token)
    }
}
