//! Histories as clients meet them: queries and their answers, replays and gaps.

use std::borrow::Cow;

use bytes::Bytes;

use super::State;
use super::dispatch::BACKLOG_FULL;
use crate::ids::{Token, TopicName};
use crate::io::FrameClass;
use crate::message::Page;
use crate::metrics::Counter;
use crate::proto::{
    Answer, Encoding, ErrorCode, Family, HistoryQuery, Rejection, RequestId, protobuf,
};

/// For people, with `backlog_full`.
pub(super) const UNREAD: &str = "too much waits for this connection; read it and ask again";

impl State {
    pub(super) fn query(
        &mut self,
        token: Token,
        channel: &str,
        query: &HistoryQuery,
        id: Option<RequestId<'_>>,
    ) {
        if !self.broker.has_history(channel) {
            let message = Cow::Borrowed("the channel keeps no history");
            self.reject(token, &refusal(ErrorCode::PositionUnavailable, message, id), 1);
            return;
        }
        let request_id = id.map(|id| id.as_json().into());
        let mut effects = std::mem::take(&mut self.effects);
        let asked = self.broker.query(token, channel, query, request_id, &mut effects);
        self.apply(effects);
        if asked.is_err() {
            self.refuse_query(token, Cow::Borrowed(BACKLOG_FULL), id);
        }
    }

    /// Answers of queries never fill a queue beyond its bound: who does not read them gets errors.
    pub(super) fn answer_query(
        &mut self,
        token: Token,
        channel: &str,
        page: &Page,
        request_id: Option<&str>,
    ) {
        let id = request_id.and_then(RequestId::parse);
        let bytes: usize = page.frames.iter().map(Bytes::len).sum();
        if !self.has_room_for(token, bytes) {
            self.refuse_query(token, Cow::Borrowed(UNREAD), id);
            return;
        }
        self.next_message_id += 1;
        let envelope = (self.settings.unix_start + self.now.0, self.next_message_id);
        let &Page { position, ref frames, complete, more } = page;
        let answer =
            Answer::HistoryPage { channel, position, frames, complete, more, id, envelope };
        self.reply(token, &answer);
    }

    /// Whether the client reads its answers, or has read all.
    pub(super) fn has_room_for(&mut self, token: Token, bytes: usize) -> bool {
        let limit = self.settings.config.limits.send_queue_size;
        self.connection(token).is_none_or(|connection| {
            connection.queue.is_empty() || connection.queue.cost() + bytes <= limit
        })
    }

    /// What the history has for a subscriber, behind a notice of what it has not any more.
    pub(super) fn replay(
        &mut self,
        token: Token,
        channel: &TopicName,
        gap: Option<(u64, u64)>,
        frames: Vec<Bytes>,
    ) {
        let encoding = self.encoding(token);
        if let Some((from, to)) = gap {
            // Not a reply: if the connection is closed and the publications before it are dropped, it
            // must not arrive and pass for the place where the client is.
            let notice = match channel.as_inbox() {
                None => Answer::Gap { channel, from, to },
                Some((namespace, _)) => Answer::QueueGap { namespace },
            };
            self.queue_bytes(token, notice.frame(encoding), FrameClass::Retained);
        }
        self.count(Counter::Deliveries, frames.len() as u64);
        self.count(Counter::Replayed, frames.len() as u64);
        if encoding == Encoding::Protobuf {
            self.count(Counter::Translated, frames.len() as u64);
        }
        for frame in frames {
            let frame = match encoding {
                Encoding::Json => frame,
                Encoding::Protobuf => protobuf::translated(&frame),
            };
            self.queue_bytes(token, frame, FrameClass::Retained);
        }
    }

    pub(super) fn refuse_query(
        &mut self,
        token: Token,
        message: Cow<'static, str>,
        id: Option<RequestId<'_>>,
    ) {
        self.count(Counter::BacklogFull, 1);
        // The server's want of room, not the client's mistake.
        self.reject(token, &refusal(ErrorCode::BacklogFull, message, id), 0);
    }
}

fn refusal<'a>(
    code: ErrorCode,
    message: Cow<'static, str>,
    id: Option<RequestId<'a>>,
) -> Rejection<'a> {
    Rejection { family: Family::Type, code, message, channel: None, id }
}
