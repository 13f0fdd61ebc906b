//! How shards reach each other: one bounded channel per shard, batches per destination, and a wake-up
//! only for a shard that sleeps.
//!
//! A shard collects what it has for others in its outbox during a turn and hands each destination one
//! batch at the end. It never waits: a batch that finds the channel full stays in the outbox, and
//! [`Port::has_room`] tells the shard to refuse new publications for that destination. What answers a
//! message is posted whatever waits, so a shard that is behind with the answers asks no more.

mod bridge_port;
mod check_port;
mod log_port;
mod sidecar_port;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::vec;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use crate::ids::ShardId;
use crate::io::Waker;
use crate::message::{AdminAnswer, AdminTicket, ShardMessage};

pub use bridge_port::{BridgeInbox, BridgePort, BridgeSender, Posted, RoomSize, connect_bridge};
pub use check_port::{CheckInbox, CheckPort, CheckSender, connect_checker};
pub use log_port::{LogInbox, LogParcel, LogPort, LogSender, connect_log};
pub use sidecar_port::{SidecarInbox, SidecarPort, SidecarSender, connect_sidecar};

/// To the thread of the server API go the shards' answers, which what it has asked bounds.
pub type AdminPort = SidecarPort<(AdminTicket, AdminAnswer)>;
pub type AdminSender = SidecarSender<(AdminTicket, AdminAnswer)>;
pub type AdminInbox = SidecarInbox<(AdminTicket, AdminAnswer)>;

/// Batches that wait for one shard, from all others together.
const BATCHES_MAX: usize = 1024;
/// Messages in one batch.
const BATCH_MESSAGES_MAX: usize = 256;

struct Batch {
    messages: Vec<ShardMessage>,
    /// Their weight, and whose account it is on.
    bytes: usize,
    account: Arc<AtomicUsize>,
}

/// Whether a shard sleeps, and how to end that.
///
/// The shard raises the flag, looks at its mailbox once more, then polls; a sender pushes, then looks
/// at the flag. The fences order each side's write before its read, so one of them sees the other.
#[derive(Debug)]
struct Sleep {
    sleeping: AtomicBool,
    /// The shard is to close its connections and end. Not a message: it needs no room.
    shutdown: AtomicBool,
    waker: Waker,
}

impl Sleep {
    fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::Relaxed) && self.sleeping.swap(false, Ordering::Relaxed) {
            self.waker.wake();
        }
    }
}

/// The sending side of one shard's mailbox.
#[derive(Clone)]
struct Mailbox {
    sender: Sender<Batch>,
    sleep: Arc<Sleep>,
}

/// One destination as seen from one shard.
struct Peer {
    mailbox: Mailbox,
    outbox: VecDeque<ShardMessage>,
    /// Bytes in the outbox and in the channel that this shard has put there. The receiver takes its
    /// batches off, so this is the one word that two shards write; once per batch, not per message.
    account: Arc<AtomicUsize>,
}

impl Peer {
    fn new(mailbox: &Mailbox, account: Arc<AtomicUsize>) -> Self {
        Self { mailbox: mailbox.clone(), outbox: VecDeque::new(), account }
    }

    fn waiting(&self) -> usize {
        self.account.load(Ordering::Relaxed)
    }

    fn post(&mut self, message: ShardMessage) {
        self.account.fetch_add(message.weight(), Ordering::Relaxed);
        self.outbox.push_back(message);
    }

    /// Hands over what is in the outbox, as far as the channel takes it.
    fn flush(&mut self) {
        let mut sent = false;
        while !self.outbox.is_empty() && !self.mailbox.sender.is_full() {
            let count = self.outbox.len().min(BATCH_MESSAGES_MAX);
            let messages: Vec<_> = self.outbox.drain(..count).collect();
            let bytes = messages.iter().map(ShardMessage::weight).sum();
            let batch = Batch { messages, bytes, account: Arc::clone(&self.account) };
            match self.mailbox.sender.try_send(batch) {
                Ok(()) => sent = true,
                // A shard that has ended takes nothing; nobody misses it.
                Err(TrySendError::Disconnected(batch)) => {
                    self.account.fetch_sub(batch.bytes, Ordering::Relaxed);
                }
                Err(TrySendError::Full(batch)) => {
                    for message in batch.messages.into_iter().rev() {
                        self.outbox.push_front(message);
                    }
                    break;
                }
            }
        }
        if sent {
            self.mailbox.sleep.wake();
        }
    }
}

/// One shard's access to the mesh.
pub struct Port {
    shard: ShardId,
    /// By shard; this shard's own place stays unused.
    peers: Vec<Peer>,
    /// By shard: the bytes that wait from it to this one.
    owed: Vec<Arc<AtomicUsize>>,
    inbox: Receiver<Batch>,
    /// The rest of the batch that [`Port::receive`] has begun.
    begun: vec::IntoIter<ShardMessage>,
    begun_account: Option<(Arc<AtomicUsize>, usize)>,
    sleep: Arc<Sleep>,
    shutdown_taken: bool,
    backlog_max: usize,
}

/// Reaches all shards from a thread that is none.
#[derive(Clone)]
pub struct Control {
    shards: Vec<Mailbox>,
}

/// What a thread that is no shard sends to shards.
pub struct Mailer {
    /// By shard.
    peers: Vec<Peer>,
    backlog_max: usize,
}

/// Connects the shards that own these wakers. `backlog_max`: bytes that may wait from one shard to
/// another.
pub fn connect(wakers: Vec<Waker>, backlog_max: usize) -> (Vec<Port>, Control) {
    let (mailboxes, inboxes): (Vec<Mailbox>, Vec<_>) = wakers
        .into_iter()
        .map(|waker| {
            let (sender, inbox) = bounded(BATCHES_MAX);
            let (sleeping, shutdown) = (AtomicBool::new(false), AtomicBool::new(false));
            let sleep = Arc::new(Sleep { sleeping, shutdown, waker });
            (Mailbox { sender, sleep }, inbox)
        })
        .unzip();
    let shards = 0..mailboxes.len();
    // By sender, then receiver.
    let accounts: Vec<Vec<Arc<AtomicUsize>>> =
        shards.clone().map(|_| shards.clone().map(|_| Arc::default()).collect()).collect();
    let port = |(index, inbox): (usize, Receiver<Batch>)| Port {
        shard: ShardId(index as u16),
        peers: mailboxes
            .iter()
            .zip(&accounts[index])
            .map(|(to, it)| Peer::new(to, Arc::clone(it)))
            .collect(),
        owed: accounts.iter().map(|from| Arc::clone(&from[index])).collect(),
        inbox,
        begun: Vec::new().into_iter(),
        begun_account: None,
        sleep: Arc::clone(&mailboxes[index].sleep),
        shutdown_taken: false,
        backlog_max,
    };
    let ports = inboxes.into_iter().enumerate().map(port).collect();
    (ports, Control { shards: mailboxes })
}

impl Port {
    pub fn shard(&self) -> ShardId {
        self.shard
    }

    /// Puts `message` into the outbox for `destination`, which is another shard.
    pub fn post(&mut self, destination: ShardId, message: ShardMessage) {
        debug_assert_ne!(destination, self.shard);
        self.peers[destination.index()].post(message);
    }

    /// Whether a publication for `destination` may be accepted: little enough waits there, and here of
    /// what it has sent. That may be twice as much: what others publish there fills the first half, and
    /// must not keep the publishers of this shard out.
    pub fn has_room(&self, destination: ShardId) -> bool {
        let owed = self.owed[destination.index()].load(Ordering::Relaxed);
        let owed_max = self.backlog_max.saturating_mul(2);
        self.peers[destination.index()].waiting() < self.backlog_max && owed < owed_max
    }

    /// The shards that [`Port::has_room`] denies.
    pub fn congested(&self) -> impl Iterator<Item = ShardId> {
        (0..self.peers.len() as u16).map(ShardId).filter(|&shard| !self.has_room(shard))
    }

    /// Hands every destination what is in its outbox, as far as its channel takes it.
    pub fn flush(&mut self) {
        self.peers.iter_mut().for_each(Peer::flush);
    }

    /// The next message for this shard.
    pub fn receive(&mut self) -> Option<ShardMessage> {
        loop {
            if let Some(message) = self.begun.next() {
                return Some(message);
            }
            if let Some((account, bytes)) = self.begun_account.take() {
                account.fetch_sub(bytes, Ordering::Relaxed);
            }
            let batch = self.inbox.try_recv().ok()?;
            self.begun_account = Some((batch.account, batch.bytes));
            self.begun = batch.messages.into_iter();
        }
    }

    /// Raises the sleeping flag. `false`: there is mail, or a shutdown to begin, so the shard must not
    /// sleep.
    pub fn prepare_sleep(&self) -> bool {
        self.sleep.sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let quiet = !self.has_mail() && !self.wants_shutdown();
        if !quiet {
            self.awake();
        }
        quiet
    }

    /// Whether [`Control::shutdown`] was called and the shard has not been told so yet.
    pub fn take_shutdown(&mut self) -> bool {
        let wanted = self.wants_shutdown();
        self.shutdown_taken |= wanted;
        wanted
    }

    /// Bytes that wait from this shard to that one.
    #[cfg(test)]
    pub fn waiting(&self, destination: ShardId) -> usize {
        self.peers[destination.index()].waiting()
    }

    fn wants_shutdown(&self) -> bool {
        !self.shutdown_taken && self.sleep.shutdown.load(Ordering::Relaxed)
    }

    /// Whether [`Port::receive`] has something.
    pub fn has_mail(&self) -> bool {
        !self.begun.as_slice().is_empty() || !self.inbox.is_empty()
    }

    /// Takes the sleeping flag down.
    pub fn awake(&self) {
        self.sleep.sleeping.store(false, Ordering::Relaxed);
    }

    /// Whether a batch waits for room in a channel: it must be offered again soon.
    pub fn has_unsent(&self) -> bool {
        self.peers.iter().any(|peer| !peer.outbox.is_empty())
    }
}

impl Control {
    /// Tells every shard to close its connections and end.
    pub fn shutdown(&self) {
        for Mailbox { sleep, .. } in &self.shards {
            sleep.shutdown.store(true, Ordering::Relaxed);
            sleep.wake();
        }
    }

    /// The way to the shards for one thread. `backlog_max`: bytes that may wait for one shard.
    pub fn mailer(&self, backlog_max: usize) -> Mailer {
        let peers = self.shards.iter().map(|shard| Peer::new(shard, Arc::default())).collect();
        Mailer { peers, backlog_max }
    }
}

impl Mailer {
    /// Puts `message` into the outbox for `destination`; for a shard that there is not, nowhere.
    pub fn post(&mut self, destination: ShardId, message: ShardMessage) {
        if let Some(peer) = self.peers.get_mut(destination.index()) {
            peer.post(message);
        }
    }

    /// Whether the shard takes what it is sent: while it does not, nothing large should follow. One
    /// that there is not always does.
    pub fn has_room(&self, destination: ShardId) -> bool {
        let peer = self.peers.get(destination.index());
        peer.is_none_or(|peer| peer.waiting() < self.backlog_max)
    }

    /// Hands every shard what is in its outbox, as far as its channel takes it.
    pub fn flush(&mut self) {
        self.peers.iter_mut().for_each(Peer::flush);
    }

    /// Whether a batch waits for room in a channel: it must be offered again soon.
    pub fn has_unsent(&self) -> bool {
        self.peers.iter().any(|peer| !peer.outbox.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::TopicName;
    use bytes::Bytes;

    fn simulated(shards: usize, backlog_max: usize) -> (Vec<Port>, Vec<Arc<AtomicBool>>, Control) {
        let flags: Vec<Arc<AtomicBool>> = (0..shards).map(|_| Arc::default()).collect();
        let wakers = flags.iter().map(|flag| Waker::Simulated(Arc::clone(flag))).collect();
        let (ports, control) = connect(wakers, backlog_max);
        (ports, flags, control)
    }

    fn deliver(number: usize) -> ShardMessage {
        let frame = Bytes::from(number.to_string());
        ShardMessage::Deliver { topic: TopicName::new("t"), frame, except: None, offset: 0 }
    }

    fn number(message: ShardMessage) -> usize {
        let ShardMessage::Deliver { frame, .. } = message else { panic!("not a delivery") };
        std::str::from_utf8(&frame).unwrap().parse().unwrap()
    }

    #[test]
    fn messages_arrive_once_and_in_order() {
        let (mut ports, _, _) = simulated(2, usize::MAX);
        let count = BATCH_MESSAGES_MAX * 3 + 7;
        for index in 0..count {
            ports[0].post(ShardId(1), deliver(index));
        }
        assert!(ports[1].receive().is_none());
        ports[0].flush();
        let received: Vec<_> = std::iter::from_fn(|| ports[1].receive()).map(number).collect();
        assert_eq!(received, (0..count).collect::<Vec<_>>());
    }

    #[test]
    fn a_full_channel_keeps_order_and_denies_room() {
        let (mut ports, _, _) = simulated(2, 200);
        for index in 0..BATCHES_MAX + 5 {
            ports[0].post(ShardId(1), deliver(index));
            ports[0].flush();
        }
        assert!(ports[0].has_unsent());
        assert!(!ports[0].has_room(ShardId(1)));
        assert_eq!(ports[0].congested().collect::<Vec<_>>(), [ShardId(1)]);
        let mut received: Vec<_> = std::iter::from_fn(|| ports[1].receive()).map(number).collect();
        ports[0].flush();
        received.extend(std::iter::from_fn(|| ports[1].receive()).map(number));
        assert_eq!(received, (0..BATCHES_MAX + 5).collect::<Vec<_>>());
        assert!(!ports[0].has_unsent());
        assert!(ports[0].has_room(ShardId(1)));
    }

    #[test]
    fn who_is_behind_with_the_answers_has_no_room_to_ask() {
        let (mut ports, _, _) = simulated(2, 1000);
        for (waiting, has_room) in [(1000, true), (2000, false)] {
            while ports[1].peers[0].waiting() < waiting {
                ports[1].post(ShardId(0), deliver(0));
            }
            assert!(!ports[1].has_room(ShardId(0)));
            assert_eq!(ports[0].has_room(ShardId(1)), has_room);
        }
        ports[1].flush();
        while ports[0].receive().is_some() {}
        assert!(ports[0].has_room(ShardId(1)) && ports[1].has_room(ShardId(0)));
    }

    #[test]
    fn only_a_sleeper_is_woken() {
        let (mut ports, flags, control) = simulated(2, usize::MAX);
        ports[0].post(ShardId(1), deliver(0));
        ports[0].flush();
        assert!(!flags[1].load(Ordering::Relaxed));
        assert!(!ports[1].prepare_sleep(), "there is mail");
        ports[1].receive();
        assert!(ports[1].receive().is_none());
        assert!(ports[1].prepare_sleep());
        control.shutdown();
        assert!(!ports[0].prepare_sleep(), "it was not told of the shutdown yet");
        assert!(ports[0].take_shutdown());
        assert!(!ports[0].take_shutdown(), "once is enough");
        assert!(ports[0].prepare_sleep());
        assert!(flags[1].load(Ordering::Relaxed));
        assert!(!flags[0].load(Ordering::Relaxed), "shard 0 does not sleep");
    }

    #[test]
    fn no_wake_up_is_lost_between_threads() {
        // A shard that sleeps only on the flag protocol must see every message in the end.
        const COUNT: usize = 20_000;
        let (mut ports, flags, _) = simulated(2, usize::MAX);
        let mut receiver = ports.pop().unwrap();
        let mut sender = ports.pop().unwrap();
        let woken = Arc::clone(&flags[1]);
        let thread = std::thread::spawn(move || {
            let mut received = 0;
            while received < COUNT {
                while receiver.receive().is_some() {
                    received += 1;
                }
                if received < COUNT && receiver.prepare_sleep() {
                    while !woken.swap(false, Ordering::Acquire) {
                        std::hint::spin_loop();
                        std::thread::yield_now();
                    }
                    receiver.awake();
                }
            }
        });
        for index in 0..COUNT {
            sender.post(ShardId(1), deliver(index));
            sender.flush();
            while sender.has_unsent() {
                std::thread::yield_now();
                sender.flush();
            }
        }
        thread.join().unwrap();
    }
}
