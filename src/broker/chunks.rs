//! Pieces of durable topics that were read from the log, kept as frames for those who read there next:
//! a crowd that comes back together costs one read.
//!
//! A frame is made when the first reader comes to it: what was read lies in no cache of this core, so to make
//! all of a chunk at once would hold up everybody else.

use std::collections::VecDeque;
use std::vec;

use bytes::Bytes;

use crate::ids::{Epoch, Position, TopicName};
use crate::io::FRAME_OVERHEAD_BYTES;
use crate::message::{LogRecord, LogSlice, Reader, Slice};
use crate::proto::encoder;

/// Bytes of publications that one question to the log asks for at most, and how many of them.
const CHUNK_BYTES: usize = 64 << 10;
pub const CHUNK_RECORDS: u32 = 256;

/// What follows one offset of a topic.
#[derive(Debug)]
pub struct Chunk {
    topic: TopicName,
    epoch: Epoch,
    /// What was asked for.
    from: u64,
    /// Of the first frame; what lies between is gone.
    first: u64,
    frames: Vec<Bytes>,
    /// Behind them, what has no frame yet.
    records: vec::IntoIter<LogRecord>,
    is_acked: bool,
    /// What it counts in [`Chunks::bytes`]: each publication as it was read, and as its frame, though it is not
    /// long that there are both.
    cost: usize,
}

/// A chunk that somebody needs.
#[derive(Debug)]
pub struct Want {
    pub topic: TopicName,
    pub from: u64,
    /// Who waits for it. Nobody: it is read ahead.
    pub readers: Vec<Reader>,
}

/// The chunks of one shard.
#[derive(Debug)]
pub struct Chunks {
    /// The one used last at the end.
    ready: VecDeque<Chunk>,
    bytes: usize,
    /// Over it the chunk that was used least lately goes, but for the last one.
    bytes_max: usize,
    /// To ask for. As many as cursors may wait, see [`super::cursors`], and one ahead of each chunk.
    pub wanted: VecDeque<Want>,
}

impl Chunk {
    /// `is_acked`: its readers acknowledge what they get.
    pub fn new(topic: TopicName, from: u64, slice: LogSlice, is_acked: bool) -> Self {
        let first = slice.missing.map_or(from, |missing| missing.to + 1);
        let cost = |record: &LogRecord| {
            let message_id = record.message_id.as_ref().map_or(0, |id| id.len());
            2 * (record.data.len() + FRAME_OVERHEAD_BYTES) + topic.len() + message_id
        };
        let cost = slice.records.iter().map(cost).sum();
        let frames = Vec::with_capacity(slice.records.len());
        let (epoch, records) = (slice.epoch, slice.records.into_iter());
        Self { topic, epoch, from, first, frames, records, is_acked, cost }
    }

    /// Behind its last publication.
    pub fn end(&self) -> u64 {
        self.first + self.len() as u64
    }

    fn len(&self) -> usize {
        self.frames.len() + self.records.len()
    }

    /// The frame at this place, made with those before it.
    fn frame(&mut self, place: usize) -> Option<&Bytes> {
        while self.frames.len() <= place {
            let LogRecord { offset, data, .. } = self.records.next()?;
            let position = Position { epoch: self.epoch, offset };
            self.frames.push(encoder::kept_frame(&self.topic, position, &data, self.is_acked));
        }
        self.frames.get(place)
    }

    /// What a reader gets next who wants `next`, which is in this chunk: as
    /// [`History::slice`](super::history::History::slice), but never at the head.
    pub fn slice(&mut self, next: u64, cost_max: usize) -> Slice {
        let begin = next.max(self.first);
        let mut slice = Slice {
            gap: (begin > next).then(|| (next, begin - 1)),
            frames: Vec::new(),
            next: begin,
            at_head: false,
            failed: false,
        };
        let mut cost = 0;
        while let Some(frame) = self.frame((slice.next - self.first) as usize) {
            cost += frame.len() + FRAME_OVERHEAD_BYTES;
            if cost > cost_max && slice.next > begin {
                break;
            }
            slice.next += 1;
            slice.frames.push(frame.clone());
        }
        slice
    }

    /// Whether more than half of it is behind a reader that goes on at `next`.
    pub fn nears_end(&self, next: u64) -> bool {
        self.end().saturating_sub(next) <= self.len() as u64 / 2
    }

    fn has(&self, topic: &str, epoch: Epoch, next: u64) -> bool {
        self.epoch == epoch && (self.from..self.end()).contains(&next) && *self.topic == *topic
    }
}

impl Chunks {
    pub fn new(bytes_max: usize) -> Self {
        Self { ready: VecDeque::new(), bytes: 0, bytes_max, wanted: VecDeque::new() }
    }

    /// Bytes that one question asks for.
    pub fn chunk_bytes(&self) -> usize {
        CHUNK_BYTES.min(self.bytes_max / 4).max(1)
    }

    /// Questions to the log that may be open at a time, so that the answers fit as well.
    pub fn reads_max(&self) -> usize {
        (self.bytes_max / self.chunk_bytes() / 2).clamp(1, 64)
    }

    /// The chunk that has `next`.
    pub fn find(&mut self, topic: &str, epoch: Epoch, next: u64) -> Option<&mut Chunk> {
        let place = self.ready.iter().rposition(|chunk| chunk.has(topic, epoch, next))?;
        let chunk = self.ready.remove(place)?;
        self.ready.push_back(chunk);
        self.ready.back_mut()
    }

    pub fn contains(&self, topic: &str, epoch: Epoch, next: u64) -> bool {
        self.ready.iter().any(|chunk| chunk.has(topic, epoch, next))
    }

    pub fn insert(&mut self, chunk: Chunk) {
        self.bytes += chunk.cost;
        self.ready.push_back(chunk);
        while self.bytes > self.bytes_max
            && self.ready.len() > 1
            && let Some(oldest) = self.ready.pop_front()
        {
            self.bytes -= oldest.cost;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{LogRecord, Missing, MissingReason};

    fn chunk(topic: &str, from: u64, missing: u64, count: u64) -> Chunk {
        let first = from + missing;
        let record = |offset| LogRecord {
            offset,
            time_ms: 1,
            message_id: None,
            data: Bytes::from_static(b"1"),
        };
        let reason = MissingReason::Trimmed;
        let slice = LogSlice {
            epoch: Epoch(7),
            oldest: first,
            next: 1000,
            missing: (missing > 0).then(|| Missing { from, to: first - 1, reason }),
            records: (first..first + count).map(record).collect(),
        };
        Chunk::new(TopicName::new(topic), from, slice, false)
    }

    #[test]
    fn a_reader_goes_through_a_chunk_and_hears_of_the_gap_before_it() {
        let mut chunk = chunk("a", 10, 5, 4);
        let first = chunk.slice(12, 1);
        assert_eq!((first.gap, first.frames.len(), first.next), (Some((12, 14)), 1, 16));
        let rest = chunk.slice(first.next, usize::MAX);
        assert_eq!((rest.gap, rest.frames.len(), rest.next), (None, 3, 19));
        assert!(!chunk.nears_end(16) && chunk.nears_end(17));
    }

    #[test]
    fn readers_share_frames_wherever_they_begin() {
        let mut chunk = chunk("a", 10, 0, 4);
        let middle = chunk.slice(12, usize::MAX);
        assert_eq!((middle.frames.len(), middle.next), (2, 14));
        let whole = chunk.slice(10, usize::MAX);
        assert_eq!((whole.frames.len(), whole.next), (4, 14));
        let offset = |frame: &Bytes| encoder::retained_offset("a", frame);
        assert_eq!(whole.frames.iter().map(offset).collect::<Vec<_>>(), [10, 11, 12, 13]);
        for (mine, other) in middle.frames.iter().zip(&whole.frames[2..]) {
            assert_eq!(mine.as_ptr(), other.as_ptr());
        }
    }

    #[test]
    fn the_least_used_goes_when_there_is_no_room() {
        let cost = chunk("a", 101, 0, 10).cost;
        let mut chunks = Chunks::new(3 * cost);
        for from in [101, 111, 121] {
            chunks.insert(chunk("a", from, 0, 10));
        }
        assert!(chunks.find("a", Epoch(7), 101).is_some());
        chunks.insert(chunk("b", 101, 0, 10));
        let found = [101, 120, 130].map(|next| chunks.contains("a", Epoch(7), next));
        assert_eq!(found, [true, false, true]);
        assert!(chunks.contains("b", Epoch(7), 110) && !chunks.contains("b", Epoch(8), 110));
        assert_eq!(chunks.bytes, 3 * cost);
        chunks.insert(chunk("c", 1, 0, 100));
        assert_eq!(chunks.ready.len(), 1, "however large it is");
    }
}
