//! Frames on their way to many connections here that are no subscribers of a topic: each turn to a bounded
//! number of them.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::vec;

use bytes::Bytes;

use super::State;
use super::connection::{Aside, Connection, Phase};
use crate::config::SlowConsumer;
use crate::ids::Token;
use crate::io::{FRAME_OVERHEAD_BYTES, FrameClass, FrameId};
use crate::message::{AdminAnswer, AdminTicket};
use crate::metrics::Counter;
use crate::proto::{Among, Audience, Encoding, protobuf};

/// Connections that are told something in one turn.
const TOLD_MAX: usize = 1024;

/// Not that of a topic: no publication takes the place of what is told.
const NO_TOPIC: u32 = u32::MAX;

/// It makes room for newer ones where a reader is slow.
const TOLD: FrameClass =
    FrameClass::Publication { topic: NO_TOPIC, policy: SlowConsumer::DropOldest };

/// What is told one after the other: what comes second is heard second.
#[derive(Debug, Default)]
pub(super) struct Tellings {
    waiting: VecDeque<Telling>,
    /// What they cost.
    bytes: usize,
}

/// One frame, in the form of each encoding.
#[derive(Debug)]
pub(super) struct Telling {
    json: FrameId,
    /// Bytes of the frame in JSON, and what it and the list of its audience take beside.
    cost: usize,
    /// Made when the first connection needs it.
    protobuf: Option<FrameId>,
    to: Listeners,
    /// Counts connections that are too slow for it.
    dropped: Counter,
    /// Connections that it was queued for.
    reached: u64,
    /// The request that is answered with how many those are.
    ticket: Option<AdminTicket>,
}

/// Who has not heard it.
#[derive(Debug)]
enum Listeners {
    /// Who was there when it came.
    Listed(vec::IntoIter<Token>),
    /// Whom of the audience is in these slots.
    Slots(Range<usize>, Arc<Audience>),
}

impl Tellings {
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether something of that cost may wait as well. One always may.
    fn has_room(&self, cost: usize, bytes_max: usize) -> bool {
        self.waiting.is_empty() || self.bytes + cost <= bytes_max
    }

    fn push(&mut self, telling: Telling) {
        self.bytes += telling.cost;
        self.waiting.push_back(telling);
    }
}

impl State {
    /// Whether the next turn has somebody to tell.
    pub(super) fn has_tellings(&self) -> bool {
        !self.notices.is_empty() || !self.announcements.is_empty()
    }

    /// Queues what is told for a bounded number of connections.
    pub(super) fn advance_tellings(&mut self) {
        if !self.notices.is_empty() {
            let mut notices = std::mem::take(&mut self.notices);
            self.advance(&mut notices);
            self.notices = notices;
        }
        if !self.announcements.is_empty() {
            let mut announcements = std::mem::take(&mut self.announcements);
            self.advance(&mut announcements);
            self.announcements = announcements;
        }
    }

    /// Tells these connections something that comes in JSON; none of them, if too much waits to be told.
    pub(super) fn tell_listed(&mut self, frame: Bytes, to: Vec<Token>) {
        let cost = frame.len() + FRAME_OVERHEAD_BYTES + size_of_val(&*to);
        if !self.notices.has_room(cost, self.settings.config.limits.fanout_backlog) {
            self.count(Counter::PresenceDropped, to.len() as u64);
            return;
        }
        let telling = Telling {
            json: self.frames.insert(frame, TOLD),
            cost,
            protobuf: None,
            to: Listeners::Listed(to.into_iter()),
            dropped: Counter::PresenceDropped,
            reached: 0,
            ticket: None,
        };
        self.notices.push(telling);
    }

    /// The same for those of an audience; the request, if it was one of the server API, is answered when all
    /// have been told. `false`: too much waits to be told already.
    pub(super) fn tell_audience(
        &mut self,
        ticket: Option<AdminTicket>,
        frame: Bytes,
        audience: Arc<Audience>,
    ) -> bool {
        let to = self.listeners(audience);
        let listed = match &to {
            Listeners::Listed(tokens) => size_of_val(tokens.as_slice()),
            Listeners::Slots(_, audience) => audience.weight(),
        };
        let cost = frame.len() + FRAME_OVERHEAD_BYTES + listed;
        if !self.announcements.has_room(cost, self.settings.config.limits.fanout_backlog) {
            return false;
        }
        let telling = Telling {
            json: self.frames.insert(frame, TOLD),
            cost,
            protobuf: None,
            to,
            dropped: match ticket {
                Some(_) => Counter::ApiDropped,
                None => Counter::AnnouncementsDropped,
            },
            reached: 0,
            ticket,
        };
        self.announcements.push(telling);
        true
    }

    fn advance(&mut self, tellings: &mut Tellings) {
        let mut left = TOLD_MAX;
        while left > 0
            && let Some(mut telling) = tellings.waiting.pop_front()
        {
            if self.advance_telling(&mut telling, &mut left) {
                tellings.bytes -= telling.cost;
                self.end_telling(&telling);
            } else {
                tellings.waiting.push_front(telling);
            }
        }
    }

    /// Whether everybody has heard it. `left`: how many may hear it now.
    fn advance_telling(&mut self, telling: &mut Telling, left: &mut usize) -> bool {
        while *left > 0 {
            let token = match &mut telling.to {
                Listeners::Listed(tokens) => match tokens.next() {
                    Some(token) => Some(token),
                    None => return true,
                },
                Listeners::Slots(slots, audience) => match slots.next() {
                    Some(slot) => self.called(slot, audience),
                    None => return true,
                },
            };
            // An empty slot takes a look too.
            *left -= 1;
            if let Some(token) = token {
                self.tell(token, telling);
            }
        }
        false
    }

    /// Where those of an audience are: the few that it names, or slots that have to be looked at.
    fn listeners(&self, audience: Arc<Audience>) -> Listeners {
        let tokens: Vec<Token> = match &audience.among {
            Among::Everybody | Among::Groups(_) => {
                return Listeners::Slots(0..self.connections.capacity(), audience);
            }
            Among::Users(users) => {
                users.iter().flat_map(|user| self.broker.connections_of(user, usize::MAX)).collect()
            }
            Among::Connections(ids) => ids.iter().filter_map(|id| self.find_open(*id)).collect(),
        };
        let called = tokens.into_iter().filter_map(|token| self.called(token.index(), &audience));
        Listeners::Listed(called.collect::<Vec<_>>().into_iter())
    }

    /// Whoever is in this slot, if the audience includes it. What it lists was looked up.
    fn called(&self, slot: usize, audience: &Audience) -> Option<Token> {
        let connection = self.connections.get(slot)?;
        let identity = match connection.aside.as_deref() {
            Some(Aside::Identity(identity)) => Some(identity),
            _ => None,
        };
        let user = identity.and_then(|identity| identity.user.as_ref());
        let excepted =
            identity.is_some_and(|identity| audience.excepts(identity.connection_id, user));
        let is_among = match &audience.among {
            Among::Groups(groups) => user.is_some_and(|user| self.memberships.any(user, groups)),
            Among::Everybody | Among::Users(_) | Among::Connections(_) => true,
        };
        let token = connection.token(slot as u32);
        let attributes = || self.broker.attributes(token.slot);
        let is_meant = audience.filter.as_ref().is_none_or(|filter| filter.matches(attributes()));
        (is_among && !excepted && is_meant && self.may_hear(connection)).then_some(token)
    }

    /// Whether what nobody has subscribed to may come to this connection.
    pub(super) fn may_hear(&self, connection: &Connection) -> bool {
        connection.authenticated || !self.settings.config.auth.required
    }

    fn end_telling(&mut self, telling: &Telling) {
        self.frames.release(telling.json);
        if let Some(frame) = telling.protobuf {
            self.frames.release(frame);
        }
        if let Some(ticket) = telling.ticket {
            self.count(Counter::ApiDeliveries, telling.reached);
            let answer = AdminAnswer::Reached { connections: telling.reached, refusal: None };
            self.outside.answers.push((ticket, answer));
        }
    }

    /// A connection that is too slow for it does not get it.
    fn tell(&mut self, token: Token, telling: &mut Telling) {
        let Some(connection) = self.connections.get(token.index()) else { return };
        if connection.generation != token.generation || connection.phase != Phase::Open {
            return;
        }
        let frame = match connection.encoding {
            Encoding::Json => telling.json,
            Encoding::Protobuf => *telling.protobuf.get_or_insert_with(|| {
                let frame = protobuf::translated(self.frames.bytes(telling.json));
                self.frames.insert(frame, TOLD)
            }),
        };
        if self.is_too_slow_for(connection, frame) {
            self.count(telling.dropped, 1);
        } else {
            telling.reached += 1;
            self.queue(token, frame);
        }
    }

    /// A frame for this connection alone, in JSON. `false`: it is too slow for it.
    pub(super) fn tell_one(&mut self, token: Token, frame: Bytes) -> bool {
        let Some(connection) = self.connection(token) else { return false };
        let frame = match connection.encoding {
            Encoding::Json => frame,
            Encoding::Protobuf => protobuf::translated(&frame),
        };
        let frame = self.frames.insert(frame, TOLD);
        let slow =
            self.connections.get(token.index()).is_none_or(|it| self.is_too_slow_for(it, frame));
        if !slow {
            self.queue(token, frame);
        }
        self.count(if slow { Counter::ApiDropped } else { Counter::ApiDeliveries }, 1);
        self.frames.release(frame);
        !slow
    }

    fn is_too_slow_for(&self, connection: &Connection, frame: FrameId) -> bool {
        let cost = self.frames.bytes(frame).len() + FRAME_OVERHEAD_BYTES;
        let limit = self.settings.config.limits.send_queue_size;
        connection.blocked && connection.queue.cost() + cost > limit
    }
}
