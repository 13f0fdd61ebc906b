//! Everything of a shard but its sockets and its mesh, as the loop and the backend see it.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use slab::Slab;

use super::checks::Checks;
use super::connection::{self, Connection, Phase};
use super::pace::Pace;
use super::peer_log::PeerLog;
use super::timers::TimerWheel;
use super::traffic::Flow;
use super::{
    Settings, TURNED_AWAY_MAX, ending, groups, heartbeat, keeping, outside, receipts, rooms,
    telling, user_sessions, users,
};
use crate::broker::{Broker, Effect, Origin, Sessions};
use crate::config::RouteTable;
use crate::ids::{Moment, ShardId, Tick, Token};
use crate::io::{FrameClass, FrameId, FramePool, Handler, Receive, SendStatus};
use crate::mesh::{BridgePort, LogPort};
use crate::message::{LogAnswer, ShardMessage};
use crate::metrics::{Counter, ShardMetrics};
use crate::proto::http::HeadLimits;
use crate::proto::{Answer, DecoderLimits, Encoding, encoder};

/// Longest wait: a shard turns at least this often, so that a stalled one can be told.
const WAIT_MAX: Duration = Duration::from_secs(1);
/// What expires in histories is collected for so long.
const EXPIRY_PAUSE: Duration = Duration::from_millis(20);
/// Without another pause for this long, accepting goes on.
const ACCEPT_PAUSE_OVER: Duration = Duration::from_secs(1);
/// Frames that a shard holds as long as it runs: [`State::ping`], [`State::probe`] and [`State::pong`].
pub(super) const FRAMES_FOR_GOOD: usize = 3;

/// Everything of a shard but its sockets and its mesh.
pub struct State {
    pub(super) id: ShardId,
    pub(super) settings: Arc<Settings>,
    pub(super) decoder_limits: DecoderLimits,
    pub(super) head_limits: HeadLimits,
    pub(super) now: Moment,
    /// When everything that peers had sent was last known to have been read.
    pub(super) caught_up: Moment,
    /// When the turn began, until it ends.
    pub(super) woken: Option<Duration>,
    pub(super) pace: Pace,
    pub(super) connections: Slab<Connection>,
    pub(super) last_generation: u32,
    pub(super) timers: TimerWheel,
    pub(super) broker: Broker,
    /// At home here.
    pub(super) sessions: Sessions,
    /// `None`: sessions end with the server.
    pub(super) keeping: Option<Box<keeping::Keeping>>,
    pub(super) frames: FramePool,
    /// Connections to flush.
    pub(super) dirty: Vec<u32>,
    /// Those of the flush under way whose send is done, and from which something follows.
    pub(super) submitted: Vec<Token>,
    /// Bytes that sockets took in the flush under way.
    pub(super) sent_bytes: u64,
    /// Connections that a publication did not fit into, see [`Connection::overflowed`].
    pub(super) overflowed: Vec<Token>,
    /// Connections whose cursors have their turn, see [`Feed`](connection::Feed).
    pub(super) feeds: VecDeque<Token>,
    pub(super) outbox: Vec<(ShardId, ShardMessage)>,
    /// The way to the durable log, if there is one.
    pub(super) log: Option<LogPort>,
    pub(super) routes: RouteTable,
    /// The way to the bridge, if something is routed outside.
    pub(super) bridge: Option<BridgePort>,
    pub(super) checks: Checks,
    /// What the log has read for readers, until the live publications of the turn have left: at most what the
    /// broker asks for at a time.
    pub(super) slices: Vec<LogAnswer>,
    /// Reused: what the broker asked for in the last call.
    pub(super) effects: Vec<Effect>,
    /// Reused: frames in the other encoding, see `sending`.
    pub(super) twins: Vec<FrameId>,
    /// Reused: slots whose deadline has come.
    pub(super) expired: Vec<u32>,
    /// The heartbeat ping, shared by all connections.
    pub(super) ping: FrameId,
    /// The ping that asks what a client has got, shared likewise.
    pub(super) probe: FrameId,
    /// The answer to a bare `{"type":"ping"}`, shared likewise.
    pub(super) pong: FrameId,
    /// Of the next message of the `type` family.
    pub(super) next_message_id: u64,
    /// Connections that authenticate and whose inboxes are not all open.
    pub(super) joining: users::Joining,
    pub(super) gatherings: user_sessions::Gatherings,
    pub(super) receipts: receipts::Receipts,
    /// When accepting last paused, as long as that is news: the log says once that it pauses, and
    /// once that it goes on.
    pub(super) accept_paused: Option<Moment>,
    pub(super) shutdown: ending::Shutdown,
    pub(super) outside: outside::Outside,
    pub(super) memberships: groups::Memberships,
    /// Of who came and went.
    pub(super) notices: telling::Tellings,
    /// As many as have asked for that.
    pub(super) entering: Vec<rooms::Entering>,
    /// What the server API says to everybody.
    pub(super) announcements: telling::Tellings,
    pub(super) peer_log: PeerLog,
}

impl State {
    pub(super) fn new(
        id: ShardId,
        log: Option<LogPort>,
        settings: Arc<Settings>,
        now: Moment,
    ) -> Self {
        let config = &settings.config;
        let shards = settings.metrics.shards().len() as u16;
        let origin = Origin { identity: (settings.identity)(), unix_start: settings.unix_start };
        let broker = Broker::new(id, shards, settings.hasher.clone(), origin, config);
        // From now on it is told if it stands still.
        settings.metrics.shards()[id.index()].note_turn(now.0);
        let mut frames = FramePool::default();
        let ping = frames.insert(encoder::ping_frame(&[]), FrameClass::Control);
        let pong = Answer::Pong { id: None, timestamp: None }.frame(Encoding::Json);
        let pong = frames.insert(pong, FrameClass::Reply);
        let probe = encoder::ping_frame(heartbeat::PROBE);
        let probe = frames.insert(probe, FrameClass::Control);
        Self {
            id,
            decoder_limits: DecoderLimits {
                message_bytes_max: config.limits.max_message_size,
                empty_fragments_max: config.limits.max_empty_fragments,
            },
            head_limits: HeadLimits {
                bytes_max: config.limits.max_head_size,
                fields_max: config.limits.max_head_fields,
            },
            now,
            caught_up: now,
            woken: None,
            pace: Pace::default(),
            connections: Slab::new(),
            last_generation: 0,
            timers: TimerWheel::new(now),
            broker,
            sessions: Sessions::new(config.sessions.clone()),
            keeping: keeping::Keeping::new(id, shards, settings.session_shards, config),
            frames,
            dirty: Vec::new(),
            submitted: Vec::new(),
            sent_bytes: 0,
            overflowed: Vec::new(),
            feeds: VecDeque::new(),
            outbox: Vec::new(),
            log,
            routes: RouteTable::new(&config.routes),
            bridge: None,
            checks: Checks::default(),
            slices: Vec::new(),
            effects: Vec::new(),
            twins: Vec::new(),
            expired: Vec::new(),
            ping,
            probe,
            pong,
            next_message_id: 0,
            joining: users::Joining::default(),
            gatherings: user_sessions::Gatherings::default(),
            receipts: receipts::Receipts::default(),
            accept_paused: None,
            shutdown: ending::Shutdown::default(),
            outside: outside::Outside::default(),
            memberships: groups::Memberships::new(config.auth.keys.groups()),
            notices: telling::Tellings::default(),
            entering: Vec::new(),
            announcements: telling::Tellings::default(),
            peer_log: PeerLog::new(id),
            settings,
        }
    }

    pub(super) fn flush_log(&mut self) {
        // Without a log no channel is durable.
        if let Some(log) = &self.log {
            log.flush(self.broker.to_log());
        }
    }

    pub(super) fn begin_turn(&mut self, now: Moment) {
        self.now = now;
        self.broker.begin_turn(now);
        self.metrics().note_turn(now.0);
        if self.peer_log.begin_second(now) {
            self.frames.shrink();
        }
        if self.accept_paused.is_some_and(|paused| now.since(paused) > ACCEPT_PAUSE_OVER) {
            self.accept_paused = None;
            tracing::info!(shard = self.id.0, "accepting connections again");
        }
    }

    /// The sockets were offered what they are to get in this turn; the time is read once for all of it.
    pub(super) fn note_fanouts(&mut self, elapsed: Duration) {
        let now = elapsed.as_micros() as u32;
        let metrics = &self.settings.metrics.shards()[self.id.index()];
        for (taken, count) in self.broker.finished() {
            metrics.fanout().record(u64::from(now.wrapping_sub(taken)), u64::from(count));
        }
    }

    /// The end of a turn.
    pub(super) fn note_frames(&mut self) {
        let metrics = &self.settings.metrics.shards()[self.id.index()];
        metrics.note_frames(self.frames.len() - FRAMES_FOR_GOOD);
        metrics.note_topics(self.broker.topics());
        if let Some(counts) = self.broker.take_namespace_counts() {
            let counts = counts.iter().map(|count| (count.publications, count.deliveries));
            metrics.note_namespaces(counts);
        }
    }

    /// How long the shard may wait for something to happen.
    pub(super) fn timeout(&self) -> Duration {
        if self.broker.has_fanouts()
            || self.has_feeds()
            || self.has_tellings()
            || !self.dirty.is_empty()
            || self.shutdown.is_advancing()
        {
            return Duration::ZERO;
        }
        let longest = self.shutdown.time_left(self.now).map_or(WAIT_MAX, |left| left.min(WAIT_MAX));
        let longest = self.broker.next_expiry().map_or(longest, |due| {
            // What expires may be a moment late, so that many come together.
            due.after(EXPIRY_PAUSE).since(self.now).min(longest)
        });
        let due = self.next_keeping();
        let longest = due.map_or(longest, |due| due.since(self.now).min(longest));
        let notice = self.broker.next_notice();
        let longest = notice.map_or(longest, |due| due.since(self.now).min(longest));
        let overdue = self.broker.next_overdue();
        let longest = overdue.map_or(longest, |due| due.since(self.now).min(longest));
        self.timers.next(self.now, longest)
    }

    pub(super) fn receive_message(&mut self, message: ShardMessage) {
        let message = match message {
            ShardMessage::Admin(request) => return self.serve_outside(*request),
            ShardMessage::Bridge(answer) => return self.answer_routed(*answer),
            ShardMessage::Verdict(verdict) => return self.receive_verdict(*verdict),
            ShardMessage::Announce { frame, audience } => {
                return self.announced_elsewhere(frame, audience);
            }
            ShardMessage::Log(answer) if answer.topic().is_sessions() => {
                return self.session_log_answered(answer);
            }
            ShardMessage::Log(answer) if Broker::is_for_readers(&answer) => {
                return self.slices.push(answer);
            }
            message => message,
        };
        let mut effects = std::mem::take(&mut self.effects);
        self.broker.receive(message, &mut self.frames, &mut effects);
        self.apply(effects);
    }

    pub(super) fn metrics(&self) -> &ShardMetrics {
        &self.settings.metrics.shards()[self.id.index()]
    }

    pub(super) fn count(&self, counter: Counter, count: u64) {
        self.metrics().add(counter, count);
    }

    pub(super) fn tick(&self) -> Tick {
        Tick::at(self.now)
    }

    pub(super) fn connection(&mut self, token: Token) -> Option<&mut Connection> {
        self.connections
            .get_mut(token.index())
            .filter(|connection| connection.generation == token.generation)
    }

    pub(super) fn phase(&self, token: Token) -> Phase {
        self.connections
            .get(token.index())
            .filter(|connection| connection.generation == token.generation)
            .map_or(Phase::Gone, |connection| connection.phase)
    }

    /// Queues a message for this connection alone, in its encoding.
    pub(super) fn reply(&mut self, token: Token, answer: &Answer<'_>) {
        let frame = answer.frame(self.encoding(token));
        self.queue_bytes(token, frame, FrameClass::Reply);
    }

    /// Queues a message that names a place in a history. When a connection is closed it goes as the
    /// publications before it do: else it would pass for the place where the client is.
    pub(super) fn reply_placed(&mut self, token: Token, answer: &Answer<'_>) {
        let frame = answer.frame(self.encoding(token));
        self.queue_bytes(token, frame, FrameClass::Retained);
    }

    /// Of one that is gone, any.
    pub(super) fn encoding(&self, token: Token) -> Encoding {
        self.connections.get(token.index()).map_or(Encoding::Json, |connection| connection.encoding)
    }

    pub(super) fn queue_bytes(&mut self, token: Token, bytes: Bytes, class: FrameClass) {
        let frame = self.frames.insert(bytes, class);
        self.queue(token, frame);
        self.frames.release(frame);
    }
}

impl Handler for State {
    fn waits(&mut self, elapsed: Duration) {
        if let Some(woken) = self.woken.take() {
            let length = elapsed.saturating_sub(woken);
            self.pace.note_turn(length);
            self.metrics().note_turn_length(length);
        }
    }

    fn woke(&mut self, elapsed: Duration) {
        self.now = Moment::at(elapsed);
        self.woken = Some(elapsed);
        self.broker.note_time(elapsed.as_micros() as u32);
    }

    fn caught_up(&mut self) {
        self.caught_up = self.now;
    }

    fn accepted(&mut self, peer: SocketAddr) -> Option<Token> {
        let most = self.settings.connections_max.saturating_add(TURNED_AWAY_MAX);
        if self.settings.metrics.connections() as usize >= most {
            self.count(Counter::ConnectionLimit, 1);
            return None;
        }
        self.count(Counter::ConnectionsAccepted, 1);
        // 0 is nobody's: a zeroed slot elsewhere must not match a token.
        self.last_generation = self.last_generation.checked_add(1).unwrap_or(1);
        let connection = Connection::new(peer, self.last_generation, self.tick());
        let slot = self.connections.insert(connection) as u32;
        let token = Token { slot, generation: self.last_generation };
        self.rearm(token);
        Some(token)
    }

    fn accept_paused(&mut self, error: &io::Error) {
        self.count(Counter::AcceptPaused, 1);
        if self.accept_paused.replace(self.now).is_none() {
            let connections = self.connections.len();
            tracing::warn!(shard = self.id.0, %error, connections, "accepting pauses");
        }
    }

    fn received(&mut self, token: Token, bytes: &mut [u8]) -> Receive {
        let tick = self.tick();
        let Some(connection) = self.connection(token) else { return Receive::More };
        if bytes.is_empty() {
            self.peer_ended(token);
            return Receive::More;
        }
        connection.last_received = tick;
        let answered_ping = connection.note_heard();
        let is_over = connection.traffic.add(Flow::BytesReceived, bytes.len());
        let phase = connection.phase;
        if is_over {
            self.carry(token, Flow::BytesReceived);
        }
        if answered_ping {
            // The next ping is due by this connection's own time again, not by the last deadline.
            self.rearm(token);
        }
        self.count(Counter::BytesReceived, bytes.len() as u64);
        match phase {
            Phase::Head => self.read_head(token, bytes),
            Phase::Open | Phase::Echo | Phase::Closing => self.read_frames(token, bytes),
            Phase::Draining | Phase::Gone => {}
        }
        self.throttle(token)
    }

    fn receive_starved(&mut self) {
        self.count(Counter::ReceiveBuffersEmpty, 1);
    }

    fn sent(&mut self, token: Token, count: usize) {
        let tick = self.tick();
        let Some(connection) = self.connections.get_mut(token.index()) else { return };
        if connection.generation != token.generation || !connection.blocked {
            return;
        }
        if count > 0 {
            connection.queue.advance(&mut self.frames, count);
        }
        // Room means that the peer acknowledged something: it is alive and reads.
        connection.blocked = false;
        connection.progress = tick;
        connection.last_received = tick;
        let parked = connection.feed == connection::Feed::Parked;
        self.mark_dirty(token.slot);
        if parked {
            self.list_feed(token);
        }
    }

    fn submitted(&mut self, token: Token, count: usize) -> SendStatus {
        self.finish_send(token, count)
    }

    fn closed(&mut self, token: Token, reason: io::Result<()>) {
        if let Err(error) = &reason {
            tracing::debug!(shard = self.id.0, slot = token.slot, %error, "connection lost");
        }
        self.forget(token);
    }
}
