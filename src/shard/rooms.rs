//! Rooms as clients meet them: what they want of them, and how they get in and out.

use std::borrow::Cow;

use super::State;
use super::connection::Phase;
use super::dispatch::BACKLOG_FULL;
use crate::broker::{Select, SubscribeError, SubscribeRequest};
use crate::ids::{Token, TopicName, UserName};
use crate::message::{Begin, RoomOutcome};
use crate::metrics::Counter;
use crate::proto::room::{room_left, rooms};
use crate::proto::{
    Answer, ErrorCode, Family, Rejection, Removal, RequestId, RoomAction, RoomRefusal, RoomView,
    Start, close,
};

/// A member whose subscription is not confirmed.
#[derive(Debug)]
pub(super) struct Entering {
    token: Token,
    room: TopicName,
    view: Box<RoomView>,
    /// Raw JSON of the client.
    request_id: Option<Box<str>>,
}

impl State {
    /// A client wants something of a room. `room`: `None`: of the only one it is in.
    pub(super) fn ask_room(
        &mut self,
        token: Token,
        room: Option<Cow<'_, str>>,
        action: RoomAction,
        id: Option<RequestId<'_>>,
    ) {
        let only = || match self.broker.rooms_of(token) {
            [room] => Some(Cow::Owned(room.to_string())),
            _ => None,
        };
        let Some(room) = room.or_else(only) else {
            let text = "the command names no room, and the connection is not in exactly one";
            self.refuse_room(token, (ErrorCode::NoTarget, Cow::Borrowed(text)), id);
            return;
        };
        if !self.broker.may_be_room(&room) {
            let text = "channels of this namespace are no rooms";
            self.refuse_room(token, (ErrorCode::Forbidden, Cow::Borrowed(text)), id);
            return;
        }
        if action == RoomAction::Leave {
            self.leave_room(token, &room, id);
            return;
        }
        if self.ask_home(token, &room, action, id).is_err() {
            // The server's want of room, not the client's mistake.
            self.refuse_query(token, Cow::Borrowed(BACKLOG_FULL), id);
        }
    }

    fn ask_home(
        &mut self,
        token: Token,
        room: &str,
        action: RoomAction,
        id: Option<RequestId<'_>>,
    ) -> Result<(), SubscribeError> {
        let Some(name) = self.member_name(token) else { return Ok(()) };
        let request_id = id.map(|id| id.as_json().into());
        let mut effects = std::mem::take(&mut self.effects);
        let (who, what) = ((token, name), (action, false));
        let asked = self.broker.ask_room(who, room, what, request_id, &mut effects);
        self.apply(effects);
        asked
    }

    /// What others call whoever has this connection: its user, or its id.
    fn member_name(&mut self, token: Token) -> Option<UserName> {
        let identity = self.identity(token)?;
        let user = identity.user.clone();
        user.or_else(|| UserName::parse(&identity.connection_id.to_string()))
    }

    /// A session that was in rooms has its subscriptions again.
    pub(super) fn return_to_room(&mut self, token: Token, room: &TopicName) {
        if self.broker.rooms_of(token).contains(room) {
            // The connection has joined by itself.
            return;
        }
        let Some(name) = self.member_name(token) else { return };
        // From now on: who leaves before the home has answered has left, and a session that loses its
        // connection again is a member's still.
        self.broker.note_membership(token, room.clone());
        self.note_session(token);
        let mut effects = std::mem::take(&mut self.effects);
        let (who, what) = ((token, name), (RoomAction::Join, true));
        let asked = self.broker.ask_room(who, room, what, None, &mut effects);
        self.apply(effects);
        if asked.is_err() {
            self.lose_room(token, room);
        }
    }

    /// There is no way back into the room, if the connection still wants that.
    fn lose_room(&mut self, token: Token, room: &TopicName) {
        if self.broker.forget_membership(token, room) {
            self.removed(token, room, Removal::Lost);
        }
    }

    fn leave_room(&mut self, token: Token, room: &str, id: Option<RequestId<'_>>) {
        if !self.broker.rooms_of(token).iter().any(|other| **other == *room) {
            self.refuse_by(token, RoomRefusal::NotMember, id);
            return;
        }
        self.end_subscription(token, room);
        // Answered behind that by the home, so that whoever asks next does not see it there.
        if self.ask_home(token, room, RoomAction::Leave, id).is_err() {
            // It has left all the same: that the home hears of, however much waits for it.
            self.respond(token, &room_left(room), id);
        }
    }

    /// The home of a room has answered a client.
    pub(super) fn answer_room(
        &mut self,
        token: Token,
        room: TopicName,
        outcome: RoomOutcome,
        (request_id, returns): (Option<Box<str>>, bool),
    ) {
        let id = request_id.as_deref().and_then(RequestId::parse);
        match outcome {
            // It has known so since it asked, or has joined by itself meanwhile.
            RoomOutcome::Joined(_) | RoomOutcome::Refused(RoomRefusal::AlreadyMember)
                if returns => {}
            RoomOutcome::Refused(_) if returns => self.lose_room(token, &room),
            RoomOutcome::Joined(view) => self.enter_room(token, room, view, request_id),
            RoomOutcome::Done => self.respond(token, &room_left(&room), id),
            RoomOutcome::Described(view) => self.respond(token, &view.payload(&room), id),
            RoomOutcome::Refused(refusal) => self.refuse_by(token, refusal, id),
        }
    }

    /// A member is subscribed before it hears that it is one.
    fn enter_room(
        &mut self,
        token: Token,
        room: TopicName,
        view: Box<RoomView>,
        request_id: Option<Box<str>>,
    ) {
        if self.phase(token) != Phase::Open {
            // It has gone meanwhile, and what is noted by its slot may be another connection's.
            let mut effects = std::mem::take(&mut self.effects);
            self.broker.tell_left(token, &room, &mut effects);
            self.apply(effects);
            return;
        }
        self.broker.note_membership(token, room.clone());
        self.note_session(token);
        self.entering.push(Entering { token, room: room.clone(), view, request_id });
        let begin = Begin { start: Start::Now, limit: None };
        let select = Select::AsBefore;
        let request = SubscribeRequest { token, topic: &room, begin, request_id: None, select };
        let mut effects = std::mem::take(&mut self.effects);
        let outcome = self.broker.subscribe(request, &mut effects);
        self.apply(effects);
        let (counter, code, text) = match outcome {
            Ok(()) => return,
            Err(SubscribeError::TooMany { limit }) => (
                Counter::SubscriptionLimit,
                ErrorCode::TooManySubscriptions,
                Cow::Owned(format!("a connection may have {limit} subscriptions")),
            ),
            Err(SubscribeError::TableFull { limit }) => (
                Counter::SubscriptionLimit,
                ErrorCode::Unavailable,
                Cow::Owned(RoomRefusal::TableFull { limit }.text()),
            ),
            Err(SubscribeError::Congested) => {
                (Counter::BacklogFull, ErrorCode::BacklogFull, Cow::Borrowed(BACKLOG_FULL))
            }
        };
        self.count(counter, 1);
        let mut effects = std::mem::take(&mut self.effects);
        self.broker.leave_room(token, &room, &mut effects);
        self.apply(effects);
        if let Some(Entering { request_id, .. }) = self.take_entering(token, &room) {
            let id = request_id.as_deref().and_then(RequestId::parse);
            self.refuse_room(token, (code, text), id);
        }
    }

    fn take_entering(&mut self, token: Token, room: &str) -> Option<Entering> {
        let is_it = |entering: &Entering| entering.token == token && *entering.room == *room;
        let place = self.entering.iter().rposition(is_it)?;
        Some(self.entering.swap_remove(place))
    }

    /// A subscription is confirmed. Whether that was all of an entrance to a room, which is answered.
    pub(super) fn entered_room(&mut self, token: Token, room: &str) -> bool {
        if self.entering.is_empty() {
            return false;
        }
        let Some(entering) = self.take_entering(token, room) else { return false };
        let Entering { view, request_id, .. } = entering;
        let id = request_id.as_deref().and_then(RequestId::parse);
        self.respond(token, &view.payload(room), id);
        true
    }

    /// A connection has left the broker.
    pub(super) fn forget_entering(&mut self, token: Token) {
        self.entering.retain(|entering| entering.token != token);
    }

    /// A connection was in a room and is not any more: it is told.
    pub(super) fn removed(&mut self, token: Token, room: &TopicName, removal: Removal) {
        if self.phase(token) != Phase::Open {
            return;
        }
        // Who has not heard yet that it is in hears that first.
        self.end_subscription(token, room);
        self.count(Counter::RoomRemovals, 1);
        self.reply(token, &Answer::Removed { channel: room, reason: removal.as_str() });
        if removal == Removal::Kicked && self.broker.kick_closes(room) {
            self.close(token, close::KICKED, removal.as_str());
        }
    }

    /// The rooms that a connection is in.
    pub(super) fn query_rooms(&mut self, token: Token, id: Option<RequestId<'_>>) {
        let payload = rooms(self.broker.rooms_of(token));
        self.respond(token, &payload, id);
    }

    fn refuse_by(&mut self, token: Token, refusal: RoomRefusal, id: Option<RequestId<'_>>) {
        self.refuse_room(token, (refusal.code(), Cow::Owned(refusal.text())), id);
    }

    pub(super) fn refuse_room(
        &mut self,
        token: Token,
        (code, message): (ErrorCode, Cow<'static, str>),
        id: Option<RequestId<'_>>,
    ) {
        // The server's want of room is no mistake of its client.
        let penalty = u32::from(!matches!(code, ErrorCode::BacklogFull | ErrorCode::Unavailable));
        let refused = Rejection { family: Family::Type, code, message, channel: None, id };
        self.reject(token, &refused, penalty);
    }
}
