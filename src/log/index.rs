//! The index of a finished segment: which topics it has, and where each of their records lies.
//!
//! It can always be made again from the segment, so nobody waits for it to be on disk; one that is
//! missing, cut or damaged is found by its checksum and replaced. Little endian:
//!
//! ```text
//! "STENTIDX" u32 version, u32 zero, u64 store, u64 segment number, u64 end of the segment,
//! u32 runs, u32 slots of all of them; then each run:
//!     u8 kind, u8 topic length, u16 zero, u32 records, u64 epoch, u64 first offset,
//!     u64 earliest time, u64 latest time, u64 bytes, topic
//! then for each record of each run: u32 position, u32 length; then the u32 checksum
//! ```

use super::record::{Kind, u32_at, u64_at};
use crate::ids::{TopicName, check_kept_name};

const MAGIC: &[u8; 8] = b"STENTIDX";
const VERSION: u32 = 1;
const HEAD: usize = 48;
const RUN_HEAD: usize = 48;
/// Bytes of one [`Slot`] in the file.
pub const SLOT_BYTES: usize = 8;

/// Where one record lies in its segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    pub at: u32,
    pub length: u32,
}

/// Records of one topic in one segment, with offsets that follow each other. A
/// [`Kind::Position`] has none, the topic's next offset as its first, and in the place of bytes the
/// oldest offset that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunEntry<S> {
    pub kind: Kind,
    pub topic: TopicName,
    pub epoch: u64,
    pub first: u64,
    pub earliest_ms: u64,
    pub latest_ms: u64,
    /// Of its records, heads and all.
    pub bytes: u64,
    pub slots: S,
}

impl<S> RunEntry<S> {
    /// The oldest offset that it says anything of.
    pub fn oldest(&self) -> u64 {
        // Of a position nobody knows what lies before.
        if self.kind == Kind::Position { 0 } else { self.first }
    }
}

/// Slots that lie in an index file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotRange {
    /// Position of the first in the index file.
    pub at: u64,
    pub count: u32,
}

/// What an index belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subject {
    pub store: u64,
    pub number: u64,
    /// End of the segment when the index was made.
    pub end: u64,
}

/// The index as a file.
pub fn encode<S: AsRef<[Slot]>>(subject: Subject, runs: &[RunEntry<S>]) -> Vec<u8> {
    let slots: usize = runs.iter().map(|run| run.slots.as_ref().len()).sum();
    let mut bytes = Vec::with_capacity(HEAD + runs.len() * 2 * RUN_HEAD + slots * SLOT_BYTES + 4);
    bytes.extend_from_slice(MAGIC);
    for number in [VERSION, 0] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    for number in [subject.store, subject.number, subject.end] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    for number in [runs.len() as u32, slots as u32] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    for run in runs {
        bytes.extend_from_slice(&[run.kind as u8, run.topic.len() as u8, 0, 0]);
        bytes.extend_from_slice(&(run.slots.as_ref().len() as u32).to_le_bytes());
        for number in [run.epoch, run.first, run.earliest_ms, run.latest_ms, run.bytes] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(run.topic.as_bytes());
    }
    for slot in runs.iter().flat_map(|run| run.slots.as_ref()) {
        bytes.extend_from_slice(&slot.at.to_le_bytes());
        bytes.extend_from_slice(&slot.length.to_le_bytes());
    }
    let checksum = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes
}

/// What the index says, with the end of its segment; `None` if it is not whole, or not the index of
/// that segment of that store.
pub fn decode(bytes: &[u8], store: u64, number: u64) -> Option<(u64, Vec<RunEntry<SlotRange>>)> {
    let (bytes, checksum) = bytes.split_last_chunk::<4>()?;
    if bytes.len() < HEAD || crc32fast::hash(bytes) != u32::from_le_bytes(*checksum) {
        return None;
    }
    let same = &bytes[..8] == MAGIC
        && u32_at(bytes, 8) == VERSION
        && u64_at(bytes, 16) == store
        && u64_at(bytes, 24) == number;
    if !same {
        return None;
    }
    let (count, slots) = (u32_at(bytes, 40), u32_at(bytes, 44));
    let slots_bytes = slots as usize * SLOT_BYTES;
    let mut slots_at = bytes.len().checked_sub(slots_bytes)?;
    let mut rest = bytes.get(HEAD..slots_at)?;
    let mut runs = Vec::new();
    for _ in 0..count {
        let (head, tail) = rest.split_at_checked(RUN_HEAD)?;
        let (topic, tail) = tail.split_at_checked(usize::from(head[1]))?;
        rest = tail;
        let topic = str::from_utf8(topic).ok()?;
        check_kept_name(topic).ok()?;
        let kind = match head[0] {
            2 => Kind::Publication,
            3 => Kind::Moved,
            4 => Kind::Position,
            _ => return None,
        };
        let range = SlotRange { at: slots_at as u64, count: u32_at(head, 4) };
        slots_at += range.count as usize * SLOT_BYTES;
        runs.push(RunEntry {
            kind,
            topic: TopicName::new(topic),
            epoch: u64_at(head, 8),
            first: u64_at(head, 16),
            earliest_ms: u64_at(head, 24),
            latest_ms: u64_at(head, 32),
            bytes: u64_at(head, 40),
            slots: range,
        });
    }
    (rest.is_empty() && slots_at == bytes.len()).then_some((u64_at(bytes, 32), runs))
}

/// The slots in these bytes of an index.
pub fn decode_slots(bytes: &[u8]) -> Vec<Slot> {
    let slot = |bytes: &[u8]| Slot { at: u32_at(bytes, 0), length: u32_at(bytes, 4) };
    bytes.chunks_exact(SLOT_BYTES).map(slot).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs() -> Vec<RunEntry<Vec<Slot>>> {
        let run = |kind, topic, slots| RunEntry {
            kind,
            topic: TopicName::new(topic),
            epoch: 7,
            first: 40,
            earliest_ms: 1,
            latest_ms: 2,
            bytes: 300,
            slots,
        };
        let slots = |count| (0..count).map(|n| Slot { at: n * 10, length: 10 + n }).collect();
        vec![
            run(Kind::Publication, "a", slots(3)),
            run(Kind::Position, "b:c", slots(0)),
            run(Kind::Moved, "a", slots(2)),
        ]
    }

    #[test]
    fn what_is_written_reads_back() {
        let subject = Subject { store: 1, number: 2, end: 3 };
        let bytes = encode(subject, &runs());
        let (end, found) = decode(&bytes, 1, 2).expect("it is whole");
        assert_eq!((end, found.len()), (3, 3));
        for (found, run) in found.iter().zip(runs()) {
            let (at, count) = (found.slots.at as usize, found.slots.count as usize);
            let slots = decode_slots(&bytes[at..at + count * SLOT_BYTES]);
            assert_eq!(RunEntry { slots, ..run.clone() }, run);
            assert_eq!((&found.topic, found.first, found.kind), (&run.topic, run.first, run.kind));
        }
        assert_eq!(decode(&bytes, 9, 2), None, "of another store");
        assert_eq!(decode(&bytes, 1, 9), None, "of another segment");
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_seen() {
        let mut bytes = encode(Subject { store: 1, number: 2, end: 3 }, &runs());
        for length in 0..bytes.len() {
            assert_eq!(decode(&bytes[..length], 1, 2), None);
        }
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&bytes, 1, 2), None, "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
}
