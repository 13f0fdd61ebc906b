//! The topics of a store: what each has, and in which segments it lies. No files.

use std::collections::HashMap;

use foldhash::quality::RandomState;
use slab::Slab;

use super::index::{Slot, SlotRange};
use super::retention::Retention;
use crate::ids::TopicName;

/// The place of a topic in the table, for as long as the topic is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicSlot(pub u32);

/// What a store knows of one topic.
#[derive(Debug)]
pub struct Topic {
    pub name: TopicName,
    pub epoch: u64,
    /// Offset of its next publication.
    pub next: u64,
    /// What lies before was trimmed.
    pub oldest: u64,
    /// Publications before `next` that are not settled yet.
    pub pending: u32,
    /// By offset, without overlaps; there may be holes where something was damaged.
    pub runs: Vec<Run>,
    /// The segment of its newest publication or position: the proof of `next`.
    pub home: u64,
    /// Unix time of its newest publication, in milliseconds.
    pub latest_ms: u64,
    pub retention: Retention,
}

/// Records of one topic in one segment, with offsets that follow each other.
#[derive(Debug)]
pub struct Run {
    pub segment: u64,
    /// Offset of the first slot.
    pub first: u64,
    /// Slots at the front that were trimmed.
    pub skip: u32,
    pub slots: Slots,
    /// At most the earliest and the latest time of its records, Unix milliseconds.
    pub earliest_ms: u64,
    pub latest_ms: u64,
    /// Bytes of its records that are not trimmed.
    pub bytes: u64,
}

/// Where the records of a run lie.
#[derive(Debug, Clone)]
pub enum Slots {
    Memory(Vec<Slot>),
    /// In the index of the segment.
    Indexed(SlotRange),
}

impl Slots {
    pub fn count(&self) -> u32 {
        match self {
            Self::Memory(slots) => slots.len() as u32,
            Self::Indexed(range) => range.count,
        }
    }

    /// Those from `from` to before `to`.
    fn part(&self, from: u32, to: u32) -> Self {
        match self {
            Self::Memory(slots) => Self::Memory(slots[from as usize..to as usize].to_vec()),
            Self::Indexed(range) => Self::Indexed(SlotRange {
                at: range.at + u64::from(from) * super::index::SLOT_BYTES as u64,
                count: to - from,
            }),
        }
    }
}

impl Run {
    /// Offset behind the last.
    pub fn end(&self) -> u64 {
        self.first + u64::from(self.slots.count())
    }

    /// Offset of the first that is not trimmed.
    pub fn live_first(&self) -> u64 {
        self.first + u64::from(self.skip)
    }

    /// Records that are not trimmed.
    pub fn live(&self) -> u32 {
        self.slots.count() - self.skip
    }

    /// Its records from `from` to before `to`, which lie within it.
    fn part(&self, from: u64, to: u64) -> Self {
        let (start, end) = ((from - self.first) as u32, (to - self.first) as u32);
        let live = u64::from(self.live().max(1));
        let kept = u64::from(end - start);
        Self {
            segment: self.segment,
            first: from,
            skip: 0,
            slots: self.slots.part(start, end),
            earliest_ms: self.earliest_ms,
            latest_ms: self.latest_ms,
            bytes: self.bytes / live * kept + self.bytes % live * kept / live,
        }
    }
}

impl Topic {
    pub fn new(name: TopicName, epoch: u64, next: u64, retention: Retention) -> Self {
        Self {
            name,
            epoch,
            next,
            oldest: next,
            pending: 0,
            runs: Vec::new(),
            home: 0,
            latest_ms: 0,
            retention,
        }
    }

    /// Offset behind the last publication that is settled.
    pub fn settled(&self) -> u64 {
        self.next - u64::from(self.pending)
    }

    /// Offset of the first of the last `count` publications that are settled, or of the oldest.
    pub fn first_of_last(&self, count: u64) -> u64 {
        let settled = self.settled();
        let (mut left, mut first) = (count, settled);
        for run in self.runs.iter().rev() {
            let end = run.end().min(settled);
            let here = end.saturating_sub(run.live_first());
            if here >= left {
                return end - left;
            }
            left -= here;
            first = first.min(run.live_first());
        }
        first
    }

    /// Bytes of its records, heads and all.
    pub fn bytes(&self) -> u64 {
        self.runs.iter().map(|run| run.bytes).sum()
    }

    /// The run that has `offset`, else the first one behind it.
    pub fn run_from(&self, offset: u64) -> Option<&Run> {
        self.runs.get(self.runs.partition_point(|run| run.end() <= offset))
    }

    /// Takes in a record at the end of the topic, whose offset is `next`.
    pub fn push(&mut self, segment: u64, slot: Slot, time_ms: u64) {
        let bytes = u64::from(slot.length);
        match self.runs.last_mut() {
            Some(run) if run.segment == segment && run.end() == self.next => {
                let Slots::Memory(slots) = &mut run.slots else {
                    unreachable!("only a finished segment has an index, and nothing is added to it")
                };
                slots.push(slot);
                run.bytes += bytes;
                run.earliest_ms = run.earliest_ms.min(time_ms);
                run.latest_ms = run.latest_ms.max(time_ms);
            }
            _ => {
                // Most topics of a large table have one record or two.
                let slots = vec![slot];
                if self.runs.is_empty() {
                    self.runs.reserve_exact(1);
                }
                self.runs.push(Run {
                    segment,
                    first: self.next,
                    skip: 0,
                    slots: Slots::Memory(slots),
                    earliest_ms: time_ms,
                    latest_ms: time_ms,
                    bytes,
                });
            }
        }
        self.next += 1;
        self.latest_ms = self.latest_ms.max(time_ms);
    }

    /// Takes the last record back out.
    pub fn pop(&mut self) {
        let Some(run) = self.runs.last_mut() else { return };
        let Slots::Memory(slots) = &mut run.slots else { return };
        let Some(slot) = slots.pop() else { return };
        run.bytes -= u64::from(slot.length);
        self.next -= 1;
        if slots.is_empty() {
            self.runs.pop();
        }
    }

    /// Takes in a run in place of what overlaps it: a copy of the same records, newer than they.
    /// `gone` hears of every record that has lost its place, by segment.
    pub fn place(&mut self, run: Run, mut gone: impl FnMut(u64, u32)) {
        let (first, end) = (run.first, run.end());
        let mut kept = Vec::with_capacity(self.runs.len() + 1);
        for old in self.runs.drain(..) {
            let (from, to) = (old.live_first(), old.end());
            if to <= first || from >= end {
                kept.push(old);
                continue;
            }
            gone(old.segment, (to.min(end) - from.max(first)) as u32);
            if from < first {
                kept.push(old.part(from, first));
            }
            if to > end {
                kept.push(old.part(end, to));
            }
        }
        let at = kept.partition_point(|old| old.first < first);
        kept.insert(at, run);
        self.runs = kept;
        self.oldest = self.oldest.min(first);
    }

    /// Forgets whole runs before `offset`, and tells of them; what is left of the run that has
    /// `offset` in it is for the caller to trim. `gone`: by segment, records that went.
    pub fn drop_runs_before(&mut self, offset: u64, mut gone: impl FnMut(u64, u32)) {
        let count = self.runs.partition_point(|run| run.end() <= offset);
        for run in self.runs.drain(..count) {
            gone(run.segment, run.live());
        }
    }
}

/// All topics, by name and by place.
#[derive(Debug, Default)]
pub struct Topics {
    slab: Slab<Topic>,
    names: HashMap<TopicName, TopicSlot, RandomState>,
}

impl Topics {
    pub fn len(&self) -> usize {
        self.slab.len()
    }

    /// Places in the table, taken or not: what [`Topics::get`] may be asked for.
    pub fn places(&self) -> u32 {
        self.slab.capacity() as u32
    }

    pub fn find(&self, name: &str) -> Option<TopicSlot> {
        self.names.get(name).copied()
    }

    pub fn insert(&mut self, topic: Topic) -> TopicSlot {
        let name = topic.name.clone();
        let slot = TopicSlot(self.slab.insert(topic) as u32);
        self.names.insert(name, slot);
        slot
    }

    pub fn remove(&mut self, slot: TopicSlot) {
        if let Some(topic) = self.slab.try_remove(slot.0 as usize) {
            self.names.remove(&topic.name);
        }
    }

    pub fn get(&self, slot: TopicSlot) -> Option<&Topic> {
        self.slab.get(slot.0 as usize)
    }

    pub fn get_mut(&mut self, slot: TopicSlot) -> Option<&mut Topic> {
        self.slab.get_mut(slot.0 as usize)
    }

    pub fn iter(&self) -> impl Iterator<Item = (TopicSlot, &Topic)> {
        self.slab.iter().map(|(slot, topic)| (TopicSlot(slot as u32), topic))
    }
}
