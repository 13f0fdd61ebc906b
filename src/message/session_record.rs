//! A session as the durable log keeps it: the whole of it, or that it has ended.
//!
//! Little endian; the log knows whether the bytes are whole:
//!
//! ```text
//!  0 u8   version
//!  1 u8   0: ended, and nothing follows the secret; 1: with a connection; 2: without
//!  2 u64  when it was so, Unix ms
//! 10 u128 secret of its id
//! 26 u8   connections that may be named; of each: u128 its secret
//!    u8   length of its user, 0: nobody's; the user
//!    u32  subscriptions; of each:
//!         u8 length of the channel, the channel
//!         u8 0: without position; 1: u64 epoch, u64 offset; 128 more: a room that it was in;
//!            64 more: with a filter
//!         with a filter: u16 length, the filter as it was written
//!         u32 ranges of what is acknowledged behind that; of each: u64 first, u64 last
//! ```

use std::sync::Arc;

use bytes::Bytes;

use super::{SessionProofs, SessionState, SessionSubscription};
use crate::filter::Filter;
use crate::ids::{Epoch, Position, TopicName, UserName, check_topic_name};

/// Of the form above.
const VERSION: u8 = 3;

/// Of a subscription: it is a room that the session was in.
const MEMBER: u8 = 128;
/// Of a subscription: it has a filter.
const FILTERED: u8 = 64;

const ENDED: u8 = 0;
const CONNECTED: u8 = 1;
const PARKED: u8 = 2;

/// What the log says of one session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRecord {
    /// Of its id.
    pub secret: u128,
    /// When that was so: Unix time in milliseconds.
    pub time_ms: u64,
    /// `None`: it has ended.
    pub kept: Option<KeptSession>,
}

/// A session that can be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptSession {
    pub proofs: SessionProofs,
    /// A connection had it.
    pub connected: bool,
    pub state: SessionState,
}

/// Why bytes are no session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordFlaw {
    /// Another program has written it, a newer one perhaps.
    Version(u8),
    /// It ends early, or late, or says what cannot be.
    Content,
}

impl SessionRecord {
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(128);
        let kind = match &self.kept {
            None => ENDED,
            Some(kept) if kept.connected => CONNECTED,
            Some(_) => PARKED,
        };
        out.extend([VERSION, kind]);
        out.extend(self.time_ms.to_le_bytes());
        out.extend(self.secret.to_le_bytes());
        if let Some(KeptSession { proofs, state, .. }) = &self.kept {
            let secrets = proofs.as_list();
            out.push(secrets.len() as u8);
            secrets.iter().for_each(|secret| out.extend(secret.to_le_bytes()));
            put_text(&mut out, state.user.as_deref().unwrap_or_default());
            out.extend((state.subscriptions.len() as u32).to_le_bytes());
            for SessionSubscription { topic, position, acked, is_member, filter } in
                &state.subscriptions
            {
                put_text(&mut out, topic);
                let member = if *is_member { MEMBER } else { 0 };
                let filtered = if filter.is_some() { FILTERED } else { 0 };
                out.push(u8::from(position.is_some()) | member | filtered);
                if let Some(filter) = filter {
                    let text = filter.text();
                    // No longer than `FILTER_BYTES_MAX`.
                    out.extend((text.len() as u16).to_le_bytes());
                    out.extend(text.as_bytes());
                }
                if let Some(Position { epoch, offset }) = position {
                    out.extend(epoch.0.to_le_bytes());
                    out.extend(offset.to_le_bytes());
                }
                out.extend((acked.len() as u32).to_le_bytes());
                for (first, last) in acked {
                    out.extend(first.to_le_bytes());
                    out.extend(last.to_le_bytes());
                }
            }
        }
        out.into()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, RecordFlaw> {
        let mut rest = Rest(bytes);
        match rest.u8() {
            Some(VERSION) => {}
            Some(other) => return Err(RecordFlaw::Version(other)),
            None => return Err(RecordFlaw::Content),
        }
        let record = rest.record().ok_or(RecordFlaw::Content)?;
        if rest.0.is_empty() { Ok(record) } else { Err(RecordFlaw::Content) }
    }
}

/// Names are shorter than 256 bytes: see `ids`.
fn put_text(out: &mut Vec<u8>, text: &str) {
    debug_assert!(text.len() <= usize::from(u8::MAX));
    out.push(text.len() as u8);
    out.extend(text.as_bytes());
}

/// What is not read yet; `None` from each: it ends early, or cannot be.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn record(&mut self) -> Option<SessionRecord> {
        let kind = self.u8()?;
        let (time_ms, secret) = (self.u64()?, self.u128()?);
        let connected = match kind {
            ENDED => return Some(SessionRecord { secret, time_ms, kept: None }),
            CONNECTED => true,
            PARKED => false,
            _ => return None,
        };
        let proofs = self.proofs()?;
        let user = match self.text()? {
            "" => None,
            name => Some(UserName::parse(name)?),
        };
        let count = self.u32()?;
        // Not as many places as it says: bytes that are not there take no memory.
        let mut subscriptions = Vec::new();
        for _ in 0..count {
            subscriptions.push(self.subscription()?);
        }
        let state = SessionState { user, subscriptions: subscriptions.into() };
        let kept = Some(KeptSession { proofs, connected, state });
        Some(SessionRecord { secret, time_ms, kept })
    }

    fn proofs(&mut self) -> Option<SessionProofs> {
        let mut list = Vec::new();
        for _ in 0..self.u8()? {
            list.push(self.u128()?);
        }
        SessionProofs::from_list(&list)
    }

    fn subscription(&mut self) -> Option<SessionSubscription> {
        let topic = self.text().filter(|topic| check_topic_name(topic).is_ok())?;
        let topic = TopicName::new(topic);
        let flags = self.u8()?;
        let filter = if flags & FILTERED != 0 { Some(self.filter()?) } else { None };
        let position = match flags & !(MEMBER | FILTERED) {
            0 => None,
            1 => Some(Position { epoch: Epoch(self.u64()?), offset: self.u64()? }),
            _ => return None,
        };
        let count = self.u32()?;
        let mut acked: Vec<(u64, u64)> = Vec::new();
        for _ in 0..count {
            let (first, last) = (self.u64()?, self.u64()?);
            let before = acked.last().map(|(_, last)| *last).or(position.map(|it| it.offset))?;
            if first <= before || last < first {
                return None;
            }
            acked.push((first, last));
        }
        Some(SessionSubscription {
            topic,
            position,
            acked: acked.into(),
            is_member: flags & MEMBER != 0,
            filter,
        })
    }

    fn filter(&mut self) -> Option<Arc<Filter>> {
        let length = usize::from(self.array().map(u16::from_le_bytes)?);
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Filter::parse(str::from_utf8(text).ok()?).ok().map(Arc::new)
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = usize::from(self.u8()?);
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        str::from_utf8(text).ok()
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn u128(&mut self) -> Option<u128> {
        self.array().map(u128::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn subscriptions() -> impl Strategy<Value = SessionSubscription> {
        let position = proptest::option::of((any::<u64>(), 0..1000u64));
        let steps = proptest::collection::vec((1..9u64, 0..9u64), 0..5);
        let filter = proptest::option::of("[a-z]{1,9} == '[a-zé]{0,300}'");
        ("[a-z:é]{1,40}", position, steps, any::<bool>(), filter).prop_map(
            |(topic, position, steps, is_member, filter)| {
                let filter = filter.and_then(|text| Filter::parse(&text).ok()).map(Arc::new);
                let position =
                    position.map(|(epoch, offset)| Position { epoch: Epoch(epoch), offset });
                let mut last = position.map_or(0, |position| position.offset);
                let range = |(gap, length): (u64, u64)| {
                    let first = last + gap;
                    last = first + length;
                    (first, last)
                };
                let acked: Vec<_> = steps.into_iter().map(range).collect();
                let acked = if position.is_some() { acked } else { Vec::new() };
                let (topic, acked) = (TopicName::new(&topic), acked.into());
                SessionSubscription { topic, position, acked, is_member, filter }
            },
        )
    }

    fn records() -> impl Strategy<Value = SessionRecord> {
        let user = proptest::option::of("[a-zé ]{1,20}");
        let subscriptions = proptest::collection::vec(subscriptions(), 0..6);
        let proofs = proptest::collection::hash_set(any::<u128>(), 1..=4).prop_map(|secrets| {
            SessionProofs::from_list(&secrets.into_iter().collect::<Vec<_>>())
                .expect("some, each once")
        });
        let kept = (proofs, any::<bool>(), user, subscriptions).prop_map(
            |(proofs, connected, user, subscriptions)| {
                let user = user.and_then(|user| UserName::parse(&user));
                let state = SessionState { user, subscriptions: subscriptions.into() };
                KeptSession { proofs, connected, state }
            },
        );
        (any::<u128>(), any::<u64>(), proptest::option::of(kept))
            .prop_map(|(secret, time_ms, kept)| SessionRecord { secret, time_ms, kept })
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(record in records()) {
            let bytes = record.encode();
            prop_assert_eq!(SessionRecord::decode(&bytes), Ok(record));
            for length in 0..bytes.len() {
                prop_assert!(SessionRecord::decode(&bytes[..length]).is_err(), "cut at {}", length);
            }
            let longer = [&bytes[..], &[0]].concat();
            prop_assert_eq!(SessionRecord::decode(&longer), Err(RecordFlaw::Content));
        }

        #[test]
        fn no_bytes_make_it_panic(
            record in records(),
            noise in proptest::collection::vec(any::<u8>(), 0..200),
            flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        ) {
            let _ = SessionRecord::decode(&noise);
            let mut bytes = record.encode().to_vec();
            for (at, byte) in flips {
                bytes[at.index(record.encode().len())] = byte;
            }
            // What is read of it is what would be written.
            if let Ok(read) = SessionRecord::decode(&bytes) {
                prop_assert_eq!(SessionRecord::decode(&read.encode()), Ok(read));
            }
        }

        #[test]
        fn other_versions_are_told_apart(record in records(), version in 1..=u8::MAX) {
            let version = version ^ VERSION;
            let mut bytes = record.encode().to_vec();
            bytes[0] = version;
            prop_assert_eq!(SessionRecord::decode(&bytes), Err(RecordFlaw::Version(version)));
        }
    }

    #[test]
    fn a_record_is_as_its_form_says() {
        let filter = Filter::parse("b").map(Arc::new).ok();
        let (topic, acked) = (TopicName::new("a"), Box::default());
        let subscription =
            SessionSubscription { topic, position: None, acked, is_member: true, filter };
        let state = SessionState { user: None, subscriptions: [subscription].into() };
        let proofs = SessionProofs::from_list(&[3, 4]).expect("some, each once");
        let kept = Some(KeptSession { proofs, connected: false, state });
        let record = SessionRecord { secret: 2, time_ms: 1, kept };
        let mut written = vec![3, 2];
        written.extend(1u64.to_le_bytes());
        written.extend(2u128.to_le_bytes());
        written.push(2);
        [3u128, 4].iter().for_each(|secret| written.extend(secret.to_le_bytes()));
        written.extend([0, 1, 0, 0, 0, 1, b'a', 128 | 64, 1, 0, b'b', 0, 0, 0, 0]);
        assert_eq!(record.encode(), written);
        assert_eq!(SessionRecord::decode(&written), Ok(record));
    }

    #[test]
    fn counts_take_no_memory_of_their_own() {
        let state = SessionState::default();
        let kept = Some(KeptSession { proofs: SessionProofs::new(1), connected: true, state });
        let mut bytes = SessionRecord { secret: 1, time_ms: 2, kept }.encode().to_vec();
        let end = bytes.len();
        bytes[end - 4..].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(SessionRecord::decode(&bytes), Err(RecordFlaw::Content));
    }
}
