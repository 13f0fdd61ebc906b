//! How a store opens: a new one is made, one that is there is read and put in order.
//!
//! A finished segment is known by its index alone; one without is read, and gets its index. The end
//! of the segment written last is cut where a write was not finished. Damage elsewhere stays, is
//! told, and is never served.

use std::collections::HashMap;
use std::fmt;

use foldhash::quality::RandomState;

use super::disk::{Disk, DiskFile, absent};
use super::index::{self, RunEntry, Slot, SlotRange, Subject};
use super::record::{Flaw, Kind, Record};
use super::segment::{HEADER_BYTES, index_name, is_spare, log_name};
use super::store::{RetentionOf, Segment, Store, StoreLimits};
use super::survey::{
    End, FoundIndex, MISSING, OpenError, Piece, STORE_NAME, STORE_NAME_NEW, SegmentFile, attempt,
    encode_store, had_records, identify, orphans, read_index, segments, walk,
};
use super::topics::{Run, Slots, Topic, TopicSlot};
use crate::ids::TopicName;

/// Offsets that are left out when the end of a topic may have been in a damaged place: none that
/// was ever given is given again, and readers are told of the gap.
const OFFSETS_LEFT_OUT: u64 = 1 << 32;

/// What an operator should know of an opening.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// A write that was not finished, and so never acknowledged, was cut off.
    TailCut { file: String, at: u64, bytes: u64 },
    /// These bytes are no records any more.
    Damaged { file: String, from: u64, to: u64, flaw: Flaw },
    /// The records of the file were looked for all the same.
    HeaderDamaged { file: String },
    /// The file is not there, or is empty; its index says that it had publications.
    Missing { file: String },
    /// So many topics may have lost their newest publications in it.
    OffsetsLeftOut { topics: usize },
}

impl Note {
    /// Whether nothing that was acknowledged is concerned.
    pub fn is_harmless(&self) -> bool {
        match self {
            Self::TailCut { .. } => true,
            Self::Damaged { .. }
            | Self::HeaderDamaged { .. }
            | Self::Missing { .. }
            | Self::OffsetsLeftOut { .. } => false,
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TailCut { file, at, bytes } => {
                write!(f, "{file}: cut {bytes} bytes of an unfinished write at {at}")
            }
            Self::Damaged { file, from, to, flaw } => {
                write!(f, "{file}: bytes {from} to {to} are damaged: {flaw}")
            }
            Self::HeaderDamaged { file } => write!(f, "{file}: its header is damaged"),
            Self::Missing { file } => write!(f, "{file}: {MISSING}"),
            Self::OffsetsLeftOut { topics } => write!(
                f,
                "{topics} channels may have lost their newest publications; their offsets go on \
                 {OFFSETS_LEFT_OUT} higher"
            ),
        }
    }
}

/// What is known of the topics while segments are read.
struct Recovery<'n> {
    notes: &'n mut Vec<Note>,
    /// Damaged places so far.
    damages: u32,
    /// How many of them stood before the newest record of each topic.
    seen: HashMap<TopicSlot, u32, RandomState>,
    /// The oldest offset that topics keep, where that was written down.
    oldest: HashMap<TopicSlot, u64, RandomState>,
    /// Indexes of damaged segments, by name: with them the next start knows nothing of the damage.
    late: Vec<(String, Vec<u8>)>,
}

impl<D: Disk> Store<D> {
    /// Opens the store on this disk. `new_id`: random, for a store that is new.
    pub fn open(
        disk: D,
        new_id: u64,
        limits: StoreLimits,
        retention_of: RetentionOf,
    ) -> Result<(Self, Vec<Note>), OpenError> {
        let mut notes = Vec::new();
        let id = match identify(&disk)? {
            Some(id) => id,
            None => {
                make(&disk, new_id).map_err(attempt("make a store in it"))?;
                new_id
            }
        };
        let found = segments(&disk, id)?;
        remove_spares(&disk)?;
        let mut store = Self::empty(disk, id, limits, retention_of);
        let mut recovery = Recovery {
            notes: &mut notes,
            damages: 0,
            seen: HashMap::default(),
            oldest: HashMap::default(),
            late: Vec::new(),
        };
        let (empty, found): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|segment| segment.length <= HEADER_BYTES);
        let numbers: Vec<_> = empty.iter().map(|segment| segment.number).collect();
        store.next_number = numbers.last().map_or(1, |number| number + 1).max(store.next_number);
        remove_empty(&store.disk, id, &numbers).map_err(attempt("remove its empty files"))?;
        let orphans = orphans(&store.disk)?;
        let mut rest = &orphans[..];
        for segment in found {
            let before = rest.partition_point(|number| *number < segment.number);
            store.miss(&rest[..before], &mut recovery);
            rest = &rest[before..];
            store.next_number = store.next_number.max(segment.number + 1);
            store.recover_segment(segment, &mut recovery)?;
        }
        store.miss(rest, &mut recovery);
        store.next_number = store.next_number.max(rest.last().map_or(0, |number| number + 1));
        let Recovery { damages, seen, oldest, late, .. } = recovery;
        store.count_live();
        for (slot, oldest) in oldest {
            store.advance(slot, oldest).map_err(attempt("read its files"))?;
        }
        store.leave_out_offsets(damages, &seen, &mut notes).map_err(attempt("write to it"))?;
        // Now the topics know of it, and it need not be told again.
        for (name, bytes) in late {
            drop(store.disk.create(&name).and_then(|mut file| file.write_at(&bytes, 0)));
        }
        for name in orphans.iter().copied().map(index_name) {
            absent(store.disk.remove(&name)).map_err(attempt(format!("remove its file {name}")))?;
        }
        if !orphans.is_empty() {
            store.disk.sync_folder().map_err(attempt("remove its files"))?;
        }
        Ok((store, notes))
    }

    /// The records of these segments are lost, and their indexes are left.
    fn miss(&mut self, numbers: &[u64], recovery: &mut Recovery<'_>) {
        for &number in numbers {
            let index = read_index(&self.disk, self.id, number);
            if let Some(FoundIndex { entries, .. }) = &index {
                self.adopt_positions(number, entries, recovery);
            }
            // One that had no records is none.
            if index.is_none_or(|index| index.end > HEADER_BYTES) {
                recovery.damages += 1;
                recovery.notes.push(Note::Missing { file: log_name(number) });
            }
        }
    }

    /// Takes over how far topics were, from the index of a segment whose records are lost.
    fn adopt_positions(
        &mut self,
        number: u64,
        entries: &[RunEntry<SlotRange>],
        recovery: &mut Recovery<'_>,
    ) {
        for entry in entries {
            let first = entry.first.saturating_add(entry.slots.count());
            let (topic, slots) = (entry.topic.clone(), SlotRange { at: 0, count: 0 });
            // What it says of the oldest is no reason to drop what is left.
            let position =
                RunEntry { kind: Kind::Position, topic, first, bytes: 0, slots, ..*entry };
            self.adopt(number, &position, Slots::Indexed(slots), recovery);
        }
    }

    fn recover_segment(
        &mut self,
        mut segment: SegmentFile<D::File>,
        recovery: &mut Recovery<'_>,
    ) -> Result<(), OpenError> {
        let (number, name) = (segment.number, segment.name.clone());
        if segment.header_damaged {
            recovery.notes.push(Note::HeaderDamaged { file: name.clone() });
        }
        let read = attempt(format!("read its file {name}"));
        let found = read_index(&self.disk, self.id, number)
            .filter(|index| segment.end.is_none_or(|said| said == index.end));
        segment.end = segment.end.or(found.as_ref().map(|index| index.end));
        // Longer it may be, where what was given up could not be cut off.
        let (whole, cut) = match found {
            Some(index) if index.end <= segment.length => (Some(index), None),
            cut => (None, cut),
        };
        if let Some(index) = cut {
            self.adopt_positions(number, &index.entries, recovery);
        }
        if let Some(FoundIndex { end, bytes, entries }) = whole {
            if end < segment.length {
                // What it held before its last use; where that cannot be cut off, it does no harm.
                drop(segment.file.cut(end));
            }
            self.add_segment(number, end, bytes, &entries);
            for entry in entries {
                self.adopt(number, &entry, Slots::Indexed(entry.slots), recovery);
            }
            return Ok(());
        }
        let mut runs = Runs::default();
        let damages_before = recovery.damages;
        let notes = &mut *recovery.notes;
        let damages = &mut recovery.damages;
        let mut synced = HEADER_BYTES;
        let End { at: end, is_unfinished } = walk(&segment, |piece| match piece {
            Piece::Record { record: Record { kind: Kind::Mark, offset, .. }, .. } => {
                synced = synced.max(offset);
            }
            Piece::Record { at, record } => runs.add(at, &record, *damages),
            Piece::Damage { from, to, flaw } => {
                *damages += 1;
                notes.push(Note::Damaged { file: name.clone(), from, to, flaw });
            }
        })
        .map_err(read)?;
        if end < segment.length && segment.end.is_none() {
            let bytes = segment.length - end;
            segment.file.cut(end).map_err(attempt(format!("cut its file {name}")))?;
            // What the file held before is no news.
            if is_unfinished {
                let file = name.clone();
                recovery.notes.push(Note::TailCut { file, at: end, bytes });
            }
        }
        let synced = segment.end.unwrap_or(synced);
        write_again(&mut segment.file, synced, end)
            .map_err(attempt(format!("write its file {name} again")))?;
        let (entries, seen): (Vec<_>, Vec<_>) = runs.list.into_iter().unzip();
        let bytes = index::encode(Subject { store: self.id, number, end }, &entries);
        let index = index_name(number);
        let is_damaged = recovery.damages > damages_before;
        let written = !is_damaged
            && self.disk.create(&index).and_then(|mut file| file.write_at(&bytes, 0)).is_ok();
        let indexed = written.then(|| index::decode(&bytes, self.id, number)).flatten();
        let index_bytes = if written || is_damaged { bytes.len() as u64 } else { 0 };
        self.add_segment(number, end, index_bytes, &entries);
        if is_damaged {
            recovery.late.push((index, bytes));
        }
        let ranges = indexed.map(|(_, entries)| entries);
        for (place, (entry, seen)) in entries.iter().zip(seen).enumerate() {
            let slots = match &ranges {
                Some(ranges) => Slots::Indexed(ranges[place].slots),
                None => Slots::Memory(entry.slots.clone()),
            };
            let now = std::mem::replace(&mut recovery.damages, seen);
            self.adopt(number, entry, slots, recovery);
            recovery.damages = now;
        }
        Ok(())
    }

    fn add_segment<S: Count>(
        &mut self,
        number: u64,
        end: u64,
        index_bytes: u64,
        runs: &[RunEntry<S>],
    ) {
        let records = runs.iter().map(|run| run.slots.count()).sum();
        let segment = Segment { end, index_bytes, records, live: 0, stuck: false };
        self.segments.insert(number, segment);
    }

    /// Takes over what a segment says of one topic. Segments come in the order of their numbers.
    fn adopt<S: Count>(
        &mut self,
        number: u64,
        entry: &RunEntry<S>,
        slots: Slots,
        recovery: &mut Recovery<'_>,
    ) {
        let end = entry.first.saturating_add(entry.slots.count());
        let slot = self.topics.find(&entry.topic).unwrap_or_else(|| {
            let retention = (self.retention_of)(&entry.topic);
            let topic = Topic::new(entry.topic.clone(), entry.epoch, entry.first, retention);
            self.topics.insert(topic)
        });
        let topic = self.topics.get_mut(slot).expect("it is in the table");
        if topic.epoch != entry.epoch {
            // A later life of the topic: the earlier one was forgotten.
            topic.runs.clear();
            (topic.epoch, topic.next, topic.oldest) = (entry.epoch, entry.first, entry.first);
            recovery.oldest.remove(&slot);
        }
        if entry.kind != Kind::Position {
            let run = Run {
                segment: number,
                first: entry.first,
                skip: 0,
                slots,
                earliest_ms: entry.earliest_ms,
                latest_ms: entry.latest_ms,
                bytes: entry.bytes,
            };
            topic.place(run, |_, _| {});
        } else {
            let oldest = recovery.oldest.entry(slot).or_default();
            *oldest = entry.bytes.min(entry.first).max(*oldest);
        }
        topic.latest_ms = topic.latest_ms.max(entry.latest_ms);
        if end >= topic.next {
            topic.next = end;
            topic.home = number;
            if entry.kind != Kind::Moved {
                recovery.seen.insert(slot, recovery.damages);
            }
        }
    }

    fn count_live(&mut self) {
        for (_, topic) in self.topics.iter() {
            for run in &topic.runs {
                if let Some(segment) = self.segments.get_mut(&run.segment) {
                    segment.live += u64::from(run.live());
                }
            }
        }
    }

    /// Lets no offset be given again that a damaged place may have held: every topic without a
    /// record behind the last such place may have had more.
    fn leave_out_offsets(
        &mut self,
        damages: u32,
        seen: &HashMap<TopicSlot, u32, RandomState>,
        notes: &mut Vec<Note>,
    ) -> std::io::Result<()> {
        let unsure = |slot: &TopicSlot| seen.get(slot).is_none_or(|seen| *seen < damages);
        let topics: Vec<_> = self.topics.iter().map(|(slot, _)| slot).filter(unsure).collect();
        if damages == 0 || topics.is_empty() {
            return Ok(());
        }
        self.prepare()?;
        for &slot in &topics {
            if let Some(topic) = self.topics.get_mut(slot) {
                topic.next += OFFSETS_LEFT_OUT;
                if topic.runs.is_empty() {
                    topic.oldest = topic.next;
                }
            }
            self.add_position(slot);
        }
        self.commit()?;
        self.settle_positions(&topics);
        notes.push(Note::OffsetsLeftOut { topics: topics.len() });
        Ok(())
    }
}

/// Makes durable what the server before this one has written and perhaps never synced: it counts from
/// now on. After a failed sync the system holds it for written although it is not, so a sync alone
/// is not enough.
fn write_again<F: DiskFile>(file: &mut F, from: u64, to: u64) -> std::io::Result<()> {
    let mut at = from;
    while at < to {
        let mut bytes = vec![0; (to - at).min(1 << 20) as usize];
        file.read_at(&mut bytes, at)?;
        file.write_at(&bytes, at)?;
        at += bytes.len() as u64;
    }
    file.sync()
}

/// Removes segments that were being made, or were given up before their first record. Of one that had records the
/// index stays, for it says so.
fn remove_empty<D: Disk>(disk: &D, store: u64, numbers: &[u64]) -> std::io::Result<()> {
    let had = |number: &&u64| had_records(disk, store, **number);
    let indexes = numbers.iter().filter(|number| !had(number)).map(|number| index_name(*number));
    for name in indexes {
        absent(disk.remove(&name))?;
    }
    if !numbers.is_empty() {
        // Before the records: an index without them says that they are lost.
        disk.sync_folder()?;
    }
    numbers.iter().try_for_each(|number| disk.remove(&log_name(*number)))
}

/// Removes the files that were kept for later segments. One that lost its name in a power loss may have two:
/// then it is a segment already.
fn remove_spares<D: Disk>(disk: &D) -> Result<(), OpenError> {
    for name in disk.list().map_err(attempt("list its files"))? {
        if is_spare(&name) {
            disk.remove(&name).map_err(attempt(format!("remove its file {name}")))?;
        }
    }
    Ok(())
}

/// Makes an empty folder a store.
fn make<D: Disk>(disk: &D, id: u64) -> std::io::Result<()> {
    let mut file = disk.create(STORE_NAME_NEW)?;
    file.write_at(&encode_store(id), 0)?;
    file.sync()?;
    disk.rename(STORE_NAME_NEW, STORE_NAME)?;
    disk.sync_folder()
}

/// How many records there are.
trait Count {
    fn count(&self) -> u64;
}

impl Count for Vec<Slot> {
    fn count(&self) -> u64 {
        self.len() as u64
    }
}

impl Count for SlotRange {
    fn count(&self) -> u64 {
        u64::from(self.count)
    }
}

/// The runs of a segment that is being read, each with the damaged places before its last record.
#[derive(Default)]
struct Runs {
    list: Vec<(RunEntry<Vec<Slot>>, u32)>,
    /// Place in the list of the newest run of each topic.
    newest: HashMap<TopicName, usize, RandomState>,
}

impl Runs {
    fn add(&mut self, at: u64, record: &Record<'_>, damages: u32) {
        let slot = Slot { at: at as u32, length: record.length() as u32 };
        let position = record.kind == Kind::Position;
        let kind = record.kind;
        let bytes = if position { record.oldest() } else { u64::from(slot.length) };
        if let Some(&newest) = self.newest.get(record.topic) {
            let (run, seen) = &mut self.list[newest];
            let follows = !position
                && run.kind == kind
                && run.epoch == record.epoch
                && run.first + run.slots.len() as u64 == record.offset;
            if follows {
                run.slots.push(slot);
                run.bytes += bytes;
                run.earliest_ms = run.earliest_ms.min(record.time_ms);
                run.latest_ms = run.latest_ms.max(record.time_ms);
                *seen = damages;
                return;
            }
        }
        let topic = match self.newest.get_key_value(record.topic) {
            Some((topic, _)) => topic.clone(),
            None => TopicName::new(record.topic),
        };
        self.newest.insert(topic.clone(), self.list.len());
        let entry = RunEntry {
            kind,
            topic,
            epoch: record.epoch,
            first: record.offset,
            earliest_ms: record.time_ms,
            latest_ms: record.time_ms,
            bytes,
            slots: if position { Vec::new() } else { vec![slot] },
        };
        self.list.push((entry, damages));
    }
}
