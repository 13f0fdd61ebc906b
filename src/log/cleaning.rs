//! Room comes back a segment at a time: what is left of one that is mostly trimmed moves to the end
//! of the log, and the file goes, or is kept to be that of a later segment. Over the bound of the store the
//! oldest goes with all it has.

use std::io;

use super::disk::{Disk, DiskFile, absent};
use super::index::{self, RunEntry, SlotRange};
use super::reading::{places, span};
use super::record::{Kind, Record, Seal};
use super::segment::{index_name, log_name, spare_name};
use super::store::{Spare, Store};
use super::topics::{Run, Slots, TopicSlot};

/// Bytes moved in one step.
const STEP_BYTES: usize = 1 << 20;
/// Topics looked at in one step.
const STEP_TOPICS: usize = 4096;
/// Files of removed segments that are kept for later ones.
const SPARES_MAX: usize = 2;
/// Small finished segments that may stand; restarts leave them behind.
const SMALL_SEGMENTS_MAX: usize = 8;

/// A segment on its way out.
#[derive(Debug)]
pub struct Cleaning {
    segment: u64,
    /// Its publications go with it.
    evict: bool,
    /// Topics that still have something in it, and whether their position is to be written in any
    /// case: trimmed records of theirs go with it, while older ones may stay elsewhere.
    members: Vec<(TopicSlot, bool)>,
    /// Topics whose last trace it is, long without publications.
    forgotten: Vec<TopicSlot>,
}

/// What one step did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Cleaned {
    /// Publications written again at the end of the log.
    pub moved: u64,
    /// Publications that went although their topic would have kept them.
    pub evicted: u64,
    /// Publications that could not be read any more.
    pub lost: u64,
    /// Segments removed.
    pub removed: u64,
    /// There is more to do now.
    pub more: bool,
}

/// Where the proof of a topic's position is.
enum Kept {
    Elsewhere,
    /// In the batch.
    Written,
    /// Nowhere: the topic may be forgotten.
    Not,
}

/// Records copied to the end of the log, which count once that is synced.
struct Copies {
    topic: TopicSlot,
    runs: Vec<Run>,
    /// Offset behind the last one looked at.
    end: u64,
}

impl<D: Disk> Store<D> {
    /// Does one bounded step of cleaning, if there is something to clean. Not within a batch.
    pub fn clean(&mut self, now_ms: u64) -> io::Result<Cleaned> {
        debug_assert!(!self.has_pending());
        let mut cleaned = Cleaned::default();
        if self.is_over() && (self.drop_spare()? || self.cut_ahead()?) {
            cleaned.more = true;
            return Ok(cleaned);
        }
        let mut cleaning = match self.cleaning.take().or_else(|| self.choose()) {
            Some(cleaning) => cleaning,
            None => return Ok(cleaned),
        };
        cleaned.more = true;
        if cleaning.members.is_empty() {
            self.remove(&cleaning)?;
            cleaned.removed = 1;
            return Ok(cleaned);
        }
        self.prepare()?;
        let mut copied = 0;
        let mut positions = Vec::new();
        for _ in 0..STEP_TOPICS {
            let Some(&(topic, trimmed)) = cleaning.members.last() else { break };
            if copied >= STEP_BYTES {
                break;
            }
            if cleaning.evict {
                cleaned.evicted += self.evict(topic, cleaning.segment);
            } else {
                match self.move_some(topic, cleaning.segment, STEP_BYTES - copied, &mut cleaned) {
                    Ok(0) => {}
                    Ok(bytes) => {
                        copied += bytes;
                        continue;
                    }
                    Err(error) => {
                        // A failed write has given the active segment up, and is no fault of this one.
                        if let Some(segment) = self.segments.get_mut(&cleaning.segment) {
                            segment.stuck = self.active.is_some();
                        }
                        self.discard_batch();
                        return Err(error);
                    }
                }
            }
            match self.keep_position(topic, trimmed, cleaning.segment, now_ms) {
                Kept::Elsewhere => {}
                Kept::Written => positions.push(topic),
                Kept::Not => cleaning.forgotten.push(topic),
            }
            cleaning.members.pop();
        }
        self.commit()?;
        self.settle_positions(&positions);
        self.cleaning = Some(cleaning);
        Ok(cleaned)
    }

    /// The segment that goes next, if one does.
    fn choose(&self) -> Option<Cleaning> {
        let finished =
            |number: &u64| self.active.as_ref().is_none_or(|active| active.number != *number);
        let mut candidates = self.segments.iter().filter(|(number, _)| finished(number));
        if self.is_over() {
            return candidates.next().map(|(number, _)| self.cleaning_of(*number, true));
        }
        let mostly_trimmed = |segment: &super::store::Segment| segment.live * 4 <= segment.records;
        let small = |segment: &super::store::Segment| {
            segment.end / segment.records.max(1) * segment.live <= self.limits.segment_bytes / 4
        };
        let candidates: Vec<_> = candidates.filter(|(_, segment)| !segment.stuck).collect();
        let trimmed = candidates.iter().find(|(_, segment)| mostly_trimmed(segment));
        let mut few = candidates.iter().filter(|(_, segment)| small(segment));
        let first = few.next();
        let chosen = trimmed.or_else(|| first.filter(|_| few.count() >= SMALL_SEGMENTS_MAX));
        chosen.map(|(number, _)| self.cleaning_of(**number, false))
    }

    fn cleaning_of(&self, segment: u64, evict: bool) -> Cleaning {
        let concerned = self.topics.iter().filter(|(_, topic)| {
            topic.home == segment || topic.runs.iter().any(|run| run.segment == segment)
        });
        let mut members: Vec<_> = concerned.map(|(slot, _)| (slot, false)).collect();
        if self.segments.first_key_value().is_some_and(|(first, _)| *first < segment) {
            members.extend(self.trimmed_in(segment).into_iter().map(|slot| (slot, true)));
        }
        Cleaning { segment, evict, members, forgotten: Vec::new() }
    }

    /// Topics that had more in a finished segment than they keep.
    fn trimmed_in(&self, segment: u64) -> Vec<TopicSlot> {
        let read = || {
            let file = self.disk.open(&index_name(segment)).ok()?;
            let mut bytes = vec![0; usize::try_from(file.length().ok()?).ok()?];
            file.read_at(&mut bytes, 0).ok()?;
            index::decode(&bytes, self.id, segment)
        };
        // Without its index older records of a topic may come back with a restart; the rules of the
        // topic then trim them again.
        let entries = read().map_or_else(Vec::new, |(_, entries)| entries);
        let trimmed = |entry: &RunEntry<SlotRange>| {
            let slot = self.topics.find(&entry.topic)?;
            let topic = self.topics.get(slot)?;
            (topic.oldest > entry.oldest()).then_some(slot)
        };
        let mut trimmed: Vec<_> = entries.iter().filter_map(trimmed).collect();
        trimmed.sort_unstable();
        trimmed.dedup();
        trimmed
    }

    /// Drops what a topic has in a segment; how much that was.
    fn evict(&mut self, topic: TopicSlot, segment: u64) -> u64 {
        let Some(topic) = self.topics.get_mut(topic) else { return 0 };
        let mut evicted = 0;
        topic.runs.retain(|run| {
            if run.segment == segment {
                evicted += u64::from(run.live());
            }
            run.segment != segment
        });
        let first = topic.runs.first().map_or(topic.next, Run::live_first);
        topic.oldest = topic.oldest.max(first);
        evicted
    }

    /// Copies some of what a topic has in a segment to the end of the log. Returns bytes; 0: it has
    /// nothing there any more.
    fn move_some(
        &mut self,
        slot: TopicSlot,
        segment: u64,
        bytes_max: usize,
        cleaned: &mut Cleaned,
    ) -> io::Result<usize> {
        let Some(topic) = self.topics.get(slot) else { return Ok(0) };
        let in_it = |run: &&Run| run.segment == segment && run.live() > 0;
        let Some(run) = topic.runs.iter().find(in_it) else { return Ok(0) };
        let (from, end) = (run.live_first(), run.end().min(run.live_first() + 4096));
        let places = places(&self.disk, &mut self.files, run, from..end)?;
        let mut copies = Copies { topic: slot, runs: Vec::new(), end: from };
        let mut bytes = 0;
        let mut rest = places.as_slice();
        while !rest.is_empty() && bytes < bytes_max {
            let (range, count) = span(rest);
            let mut raw = vec![0; (range.end - range.start) as usize];
            let file = self.files.get(&self.disk, &log_name(segment))?;
            file.read_at(&mut raw, u64::from(range.start))?;
            for place in &rest[..count] {
                let start = (place.at - range.start) as usize;
                let raw = &raw[start..start + place.length as usize];
                let record = Record::decode(raw, Seal::of(segment));
                bytes += place.length as usize;
                self.copy(record.ok(), &mut copies, cleaned);
            }
            rest = &rest[count..];
        }
        // Synced before anything counts: a copy that is lost must leave the original standing.
        self.commit()?;
        self.place(copies, segment);
        Ok(bytes.max(1))
    }

    fn copy(&mut self, record: Option<Record<'_>>, copies: &mut Copies, cleaned: &mut Cleaned) {
        let offset = copies.end;
        copies.end += 1;
        let topic = self.topics.get(copies.topic).expect("its records are being moved");
        let same = |record: &Record<'_>| {
            (record.topic, record.epoch, record.offset) == (&*topic.name, topic.epoch, offset)
        };
        let Some(record) = record.filter(same) else {
            cleaned.lost += 1;
            return;
        };
        let record = Record { kind: Kind::Moved, ..record };
        let (segment, place) = self.add(&record, copies.topic);
        cleaned.moved += 1;
        let bytes = u64::from(place.length);
        match copies.runs.last_mut() {
            Some(Run {
                slots: Slots::Memory(slots),
                bytes: sum,
                earliest_ms,
                latest_ms,
                first,
                ..
            }) if *first + slots.len() as u64 == offset => {
                slots.push(place);
                *sum += bytes;
                *earliest_ms = record.time_ms.min(*earliest_ms);
                *latest_ms = record.time_ms.max(*latest_ms);
            }
            _ => copies.runs.push(Run {
                segment,
                first: offset,
                skip: 0,
                slots: Slots::Memory(vec![place]),
                earliest_ms: record.time_ms,
                latest_ms: record.time_ms,
                bytes,
            }),
        }
    }

    /// Lets the copies take the place of the originals.
    fn place(&mut self, copies: Copies, from: u64) {
        let Self { topics, segments, .. } = self;
        let Some(topic) = topics.get_mut(copies.topic) else { return };
        let mut gone = |segment: u64, count: u32| {
            if let Some(segment) = segments.get_mut(&segment) {
                segment.live = segment.live.saturating_sub(u64::from(count));
            }
        };
        let oldest = topic.oldest;
        for run in copies.runs {
            if run.end() == topic.next {
                topic.home = run.segment;
            }
            topic.place(run, &mut gone);
        }
        // What could not be read stays behind, and goes with the segment.
        let end = copies.end;
        topic.runs.retain_mut(|run| {
            if run.segment == from && run.live_first() < end {
                gone(from, run.live().min((end - run.live_first()) as u32));
                run.skip = run.slots.count().min((end - run.first) as u32);
            }
            run.live() > 0
        });
        topic.oldest = oldest;
    }

    /// Writes down where a topic is if the segment was the proof of it.
    fn keep_position(&mut self, slot: TopicSlot, trimmed: bool, segment: u64, now_ms: u64) -> Kept {
        let Some(topic) = self.topics.get(slot) else { return Kept::Elsewhere };
        if topic.home != segment {
            if trimmed {
                self.add_position(slot);
                return Kept::Written;
            }
            return Kept::Elsewhere;
        }
        // An older segment may hold records of it, which would bring it back at a wrong place.
        let oldest = self.segments.first_key_value().is_some_and(|(first, _)| *first == segment);
        let quiet = now_ms.saturating_sub(topic.latest_ms) > self.limits.forget_after_ms;
        if topic.runs.is_empty() && oldest && quiet {
            return Kept::Not;
        }
        self.add_position(slot);
        Kept::Written
    }

    /// Puts the position of a topic into the batch.
    pub(super) fn add_position(&mut self, slot: TopicSlot) {
        let Some(topic) = self.topics.get(slot) else { return };
        let (name, epoch, offset, time_ms) =
            (topic.name.clone(), topic.epoch, topic.next, topic.latest_ms);
        let oldest = topic.oldest.to_le_bytes();
        let (kind, message_id, data) = (Kind::Position, None, &oldest[..]);
        let record = Record { kind, topic: &name, epoch, offset, time_ms, message_id, data };
        self.add(&record, slot);
    }

    /// From here on the positions that were put into the batch are the proof: they are synced.
    pub(super) fn settle_positions(&mut self, topics: &[TopicSlot]) {
        let Some(active) = self.active.as_ref().map(|active| active.number) else { return };
        for &slot in topics {
            if let Some(topic) = self.topics.get_mut(slot) {
                topic.home = active;
            }
        }
    }

    /// Removes a segment that nobody needs any more.
    fn remove(&mut self, cleaning: &Cleaning) -> io::Result<()> {
        let number = cleaning.segment;
        let (log, index) = (log_name(number), index_name(number));
        self.files.forget(&log);
        self.files.forget(&index);
        absent(self.disk.remove(&index))?;
        // Before the records: an index without them says that they are lost.
        self.disk.sync_folder()?;
        let mut spare = self.spare_of(number);
        match &spare {
            None => absent(self.disk.remove(&log))?,
            Some(file) => {
                if self.disk.rename(&log, &file.name).is_err() {
                    // The room is wanted more than the file.
                    absent(self.disk.remove(&log))?;
                    spare = None;
                }
            }
        }
        self.segments.remove(&number);
        if let Err(error) = self.disk.sync_folder() {
            // After a power loss it might still be the segment: nothing may be written to it.
            if let Some(spare) = spare {
                drop(self.disk.remove(&spare.name));
            }
            return Err(error);
        }
        self.spares.extend(spare);
        for &slot in &cleaning.forgotten {
            if self.topics.get(slot).is_some_and(|topic| topic.home == number) {
                self.topics.remove(slot);
            }
        }
        Ok(())
    }

    /// The file of a segment that is to be removed as a spare one, if one more is wanted.
    fn spare_of(&self, number: u64) -> Option<Spare> {
        let bytes = self.segments.get(&number)?.end;
        // About as long as the segments are that it is for: one that was given up early is not.
        let wanted = self.limits.segment_bytes..=self.limits.segment_bytes.saturating_mul(2);
        let fits = wanted.contains(&bytes) && !self.is_over();
        (fits && self.spares.len() < SPARES_MAX).then(|| Spare { name: spare_name(number), bytes })
    }

    /// Removes a spare file. `false`: there is none.
    fn drop_spare(&mut self) -> io::Result<bool> {
        let Some(spare) = self.spares.last() else { return Ok(false) };
        absent(self.disk.remove(&spare.name))?;
        self.spares.pop();
        Ok(true)
    }

    /// Whether the store has more than it may.
    fn is_over(&self) -> bool {
        self.limits.store_bytes > 0 && self.bytes() > self.limits.store_bytes
    }
}
