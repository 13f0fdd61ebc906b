//! The state of one connection. Its bytes are elsewhere: received ones in the shard's scratch buffer,
//! queued ones in the shard's frame pool.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::identity::Identity;
use super::traffic::{Flow, Traffic};
use crate::ids::{Moment, Tick, Token};
use crate::io::SendQueue;
use crate::proto::{Decoder, Encoding};

/// Where a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Waits for an HTTP request, the first or, kept alive, another one.
    Head,
    /// Speaks the native protocol.
    Open,
    /// Gets its messages back.
    Echo,
    /// Our Close is on its way; the peer's is awaited.
    Closing,
    /// What is queued still goes out, then we end our side and wait for the peer to end its own.
    /// What it sends is thrown away: closing at once would reset the connection under the last bytes.
    Draining,
    /// The backend was told to close, or will be with the next flush.
    Gone,
}

/// How a connection's cursors are fed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feed {
    /// It has none.
    None,
    /// They wait: for room in its queue, or for an answer of another shard.
    Parked,
    /// On the shard's list: they have their turn.
    Listed,
}

/// An HTTP head that is not complete yet.
#[derive(Debug, Default)]
pub struct HeadBuffer {
    pub bytes: Vec<u8>,
    /// Bytes that were searched for the head's end.
    pub scanned: usize,
}

/// What few connections have at a time, out of the way of what all have.
#[derive(Debug)]
pub enum Aside {
    /// In [`Phase::Head`] only.
    Head(HeadBuffer),
    /// In the phases behind it, see [`State::identity`](super::State::identity).
    Identity(Identity),
}

/// The state of one connection. What a delivery touches stands first, within one cache line.
#[derive(Debug)]
#[repr(C)]
pub struct Connection {
    pub queue: SendQueue,
    pub generation: u32,
    pub phase: Phase,
    /// On the shard's dirty list.
    pub dirty: bool,
    /// The kernel had no room: `sent` comes when it has.
    pub blocked: bool,
    /// A publication did not fit and its policy is `disconnect`: the connection is about to end.
    pub overflowed: bool,
    pub feed: Feed,
    /// In which it gets its messages, and sends them.
    pub encoding: Encoding,
    /// Receiving is paused until the queue has drained, and no message of it is being checked.
    pub paused: bool,
    /// We have ended our side.
    pub shut: bool,
    /// The peer has ended its side.
    pub ended: bool,
    /// A message has begun and not ended.
    pub message_open: bool,
    /// It is known whose it is.
    pub authenticated: bool,
    /// Close frames sent: at most one (RFC 6455 §5.5.1).
    pub close_sent: bool,
    peer_port: u16,
    /// Refused messages since `errors_since`.
    errors: u16,
    errors_since: Tick,
    /// Control frames since `control_since`.
    control_frames: u16,
    control_since: Tick,
    pub last_received: Tick,
    /// See [`Connection::pinged`].
    pinged: Tick,
    /// When the kernel last accepted a byte, or the first one waited.
    pub progress: Tick,
    /// When the phase began.
    pub phase_since: Tick,
    pub message_since: Tick,
    pub traffic: Traffic,
    pub decoder: Decoder,
    pub aside: Option<Box<Aside>>,
    /// GCRA: the time at which the publish rate is used up to date, in microseconds.
    pub publish_time: u64,
    peer: Ipv6Addr,
}

impl Connection {
    /// No time at which a ping can leave: the clock ends with it.
    const NOT_PINGED: Tick = Tick(u32::MAX);

    pub fn new(peer: SocketAddr, generation: u32, now: Tick) -> Self {
        let address = match peer.ip() {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        Self {
            queue: SendQueue::default(),
            generation,
            phase: Phase::Head,
            dirty: false,
            blocked: false,
            overflowed: false,
            feed: Feed::None,
            encoding: Encoding::Json,
            paused: false,
            pinged: Self::NOT_PINGED,
            shut: false,
            ended: false,
            message_open: false,
            authenticated: false,
            close_sent: false,
            peer_port: peer.port(),
            errors: 0,
            errors_since: now,
            control_frames: 0,
            control_since: now,
            last_received: now,
            progress: now,
            phase_since: now,
            message_since: now,
            traffic: Traffic::default(),
            decoder: Decoder::default(),
            aside: None,
            publish_time: 0,
            peer: address,
        }
    }

    pub fn token(&self, slot: u32) -> Token {
        Token { slot, generation: self.generation }
    }

    /// When the heartbeat ping left that is unanswered.
    pub fn pinged(&self) -> Option<Tick> {
        (self.pinged != Self::NOT_PINGED).then_some(self.pinged)
    }

    /// A heartbeat ping leaves.
    pub fn note_ping(&mut self, now: Tick) {
        self.pinged = now;
    }

    /// Something has come; whether that answers a ping.
    pub fn note_heard(&mut self) -> bool {
        std::mem::replace(&mut self.pinged, Self::NOT_PINGED) != Self::NOT_PINGED
    }

    /// The socket has taken something; which of the two numbers went over 2^32.
    pub fn note_taken(&mut self, frames: usize, bytes: usize) -> [bool; 2] {
        [self.traffic.add(Flow::FramesSent, frames), self.traffic.add(Flow::BytesSent, bytes)]
    }

    /// What has come of a head that is not complete.
    pub fn head(&mut self) -> Option<&mut HeadBuffer> {
        match self.aside.as_deref_mut()? {
            Aside::Head(head) => Some(head),
            Aside::Identity(_) => None,
        }
    }

    pub fn peer(&self) -> SocketAddr {
        SocketAddr::new(self.peer.to_canonical(), self.peer_port)
    }

    /// Whether a publication may be taken under a limit of `rate` a second with `burst` at once
    /// (GCRA: one number per connection).
    pub fn admit_publication(&mut self, now: Moment, rate: u32, burst: u32) -> bool {
        if rate == 0 {
            return true;
        }
        let interval = 1_000_000 / u64::from(rate);
        let now = now.0 * 1000;
        let begin = self.publish_time.max(now);
        if begin - now > interval * u64::from(burst) {
            return false;
        }
        self.publish_time = begin + interval;
        true
    }

    /// Takes back what [`Connection::admit_publication`] has just admitted: it will be asked again.
    pub fn withdraw_publication(&mut self, rate: u32) {
        if rate != 0 {
            self.publish_time = self.publish_time.saturating_sub(1_000_000 / u64::from(rate));
        }
    }

    /// It was not read from for our own sake: what it has sent meanwhile comes at once, and is not late.
    pub fn excuse(&mut self, now: Tick) {
        if self.pinged().is_some() {
            self.note_ping(now);
        }
        self.control_since = now;
        self.control_frames = 0;
    }

    /// Counts refused messages; returns how many there were within one `interval`.
    pub fn count_errors(&mut self, now: Tick, interval: Duration, count: u32) -> u32 {
        if now >= self.errors_since.after(interval) {
            self.errors_since = now;
            self.errors = 0;
        }
        let count = u16::try_from(count).unwrap_or(u16::MAX);
        self.errors = self.errors.saturating_add(count);
        self.errors.into()
    }

    /// Whether a control frame may be taken under a limit of `rate` a second, averaged over 5 s.
    pub fn admit_control(&mut self, now: Tick, rate: u32) -> bool {
        const WINDOW: Duration = Duration::from_secs(5);
        if now >= self.control_since.after(WINDOW) {
            self.control_since = now;
            self.control_frames = 0;
        }
        self.control_frames = self.control_frames.saturating_add(1);
        rate == 0 || u64::from(self.control_frames) <= u64::from(rate) * WINDOW.as_secs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection() -> Connection {
        Connection::new("192.0.2.7:55".parse().unwrap(), 1, Tick(0))
    }

    #[test]
    fn a_connection_is_two_cache_lines() {
        assert!(size_of::<Connection>() <= 128, "{}", size_of::<Connection>());
        assert_eq!(connection().peer(), "192.0.2.7:55".parse().unwrap());
    }

    #[test]
    fn publications_keep_to_rate_and_burst() {
        let mut connection = connection();
        let taken = |connection: &mut Connection, now, count| {
            (0..count).filter(|_| connection.admit_publication(Moment(now), 10, 5)).count()
        };
        assert_eq!(taken(&mut connection, 1000, 100), 6);
        assert_eq!(taken(&mut connection, 1100, 100), 1);
        assert_eq!(taken(&mut connection, 2100, 100), 6);
        assert!((0..1000).all(|_| connection.admit_publication(Moment(2100), 0, 0)));
    }

    #[test]
    fn errors_are_counted_by_interval() {
        let mut connection = connection();
        let mut count = |tick| connection.count_errors(Tick(tick), Duration::from_millis(640), 2);
        assert_eq!([count(0), count(9), count(10), count(11)], [2, 4, 2, 4]);
    }

    #[test]
    fn control_frames_keep_to_their_average() {
        let mut connection = connection();
        assert_eq!((0..600).filter(|_| connection.admit_control(Tick(1), 50)).count(), 250);
        assert!(connection.admit_control(Tick(200), 50));
    }
}
