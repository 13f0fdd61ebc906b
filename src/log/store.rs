//! Publications on disk, by topic and offset: a log of segments in which all topics stand in the
//! order they came, so that one sync makes a whole batch durable. No thread, no clock.
//!
//! A batch: [`Store::prepare`], [`Store::append`] for each record, [`Store::write`], and
//! [`Store::sync`] or [`Store::settle`]. Records are read, trimmed and proven by positions only once
//! they are settled. After an error nothing of the batch counts: the topics are as they were, and the
//! segment is given up at its last settled byte, because after a failed sync nobody knows what of
//! the file is on disk.
//!
//! Files beside this one: `recovery` (how it opens), `indexing` (how a segment ends), `reading`,
//! `cleaning` (trim, removal, bounds), `inspect` (a look from outside).

use std::collections::BTreeMap;
use std::io;

use super::cleaning::Cleaning;
use super::disk::{Disk, DiskFile, absent};
use super::files::Files;
use super::index::Slot;
use super::record::{Kind, RECORD_BYTES_MAX, RECORD_HEAD, Record, Seal};
use super::retention::Retention;
use super::segment::{HEADER_BYTES, Header, index_name, log_name};
use super::topics::{Topic, TopicSlot, Topics};
use crate::ids::TopicName;

/// The bounds of a store.
#[derive(Debug, Clone, Copy)]
pub struct StoreLimits {
    /// Bytes after which a segment is finished. It may end a batch later.
    pub segment_bytes: u64,
    /// Bytes of all files; over that the oldest segment goes. 0: no bound.
    pub store_bytes: u64,
    pub topics_max: usize,
    /// Time after which the epoch of a topic without publications may be forgotten.
    pub forget_after_ms: u64,
}

/// What is to be kept of a topic.
pub type RetentionOf = Box<dyn Fn(&TopicName) -> Retention + Send>;

/// Why a record is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The topic is elsewhere.
    Position { epoch: u64, next: u64 },
    /// The table of topics is full.
    Topics,
    /// Longer than a record can be.
    TooLong,
}

/// Where a topic is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    pub epoch: u64,
    /// Offset of the next publication.
    pub next: u64,
    /// Offset of the oldest publication that is kept; `next` if there is none.
    pub oldest: u64,
}

/// A segment as far as the table of segments knows it.
#[derive(Debug, Clone, Copy)]
pub struct Segment {
    /// Bytes up to the end of its last settled record.
    pub end: u64,
    pub index_bytes: u64,
    pub records: u64,
    /// Records that are not trimmed.
    pub live: u64,
    /// It could not be read when its records were to be moved: it stays until it goes as the oldest.
    pub stuck: bool,
}

/// The segment that grows.
#[derive(Debug)]
pub struct Active<F> {
    pub number: u64,
    file: F,
    /// Bytes in the file that were written for it.
    pub(super) written: u64,
    /// Bytes of the file; more, while it has some of the segment whose it was before.
    pub(super) length: u64,
    /// Bytes of it that are on disk.
    synced: u64,
    /// Bytes of it that count: nothing behind was promised to anybody.
    settled: u64,
    /// The topics that have something in it; some more than once.
    members: Vec<TopicSlot>,
}

/// A file for a later segment, with the records of an older one in it.
#[derive(Debug)]
pub struct Spare {
    pub name: String,
    pub bytes: u64,
}

/// A record that is not settled yet, with what its topic was before.
#[derive(Debug)]
struct Pending {
    topic: TopicSlot,
    home: u64,
    /// The topic came into the table with it.
    created: bool,
}

/// A store on its disk.
pub struct Store<D: Disk> {
    pub(super) disk: D,
    /// Tells its segments from those of another store.
    pub(super) id: u64,
    pub(super) limits: StoreLimits,
    pub(super) retention_of: RetentionOf,
    pub(super) topics: Topics,
    /// By number. The last one is the active one, if there is one.
    pub(super) segments: BTreeMap<u64, Segment>,
    pub(super) active: Option<Active<D::File>>,
    pub(super) spares: Vec<Spare>,
    /// Of the next segment; numbers are not used twice.
    pub(super) next_number: u64,
    /// Records of the batch that is not written yet.
    batch: Vec<u8>,
    batch_records: u64,
    pending: Vec<Pending>,
    pub(super) files: Files<D::File>,
    pub(super) cleaning: Option<Cleaning>,
}

impl<D: Disk> Store<D> {
    /// Without segments; see [`Store::open`] for the way to have one.
    pub(super) fn empty(disk: D, id: u64, limits: StoreLimits, retention_of: RetentionOf) -> Self {
        Self {
            disk,
            id,
            limits,
            retention_of,
            topics: Topics::default(),
            segments: BTreeMap::new(),
            active: None,
            spares: Vec::new(),
            next_number: 1,
            batch: Vec::new(),
            batch_records: 0,
            pending: Vec::new(),
            files: Files::default(),
            cleaning: None,
        }
    }

    /// Where the topic is. One that the store does not know has an epoch too: it stays the same until
    /// the store removes a segment, or the topic gets its first publication.
    pub fn position(&self, topic: &str) -> Position {
        match self.topics.find(topic).and_then(|slot| self.topics.get(slot)) {
            Some(topic) => {
                let next = topic.settled();
                Position { epoch: topic.epoch, next, oldest: topic.oldest.min(next) }
            }
            None => Position { epoch: self.epoch_of_unknown(topic), next: 1, oldest: 1 },
        }
    }

    /// Never the same again for a topic that was forgotten: that takes the removal of the oldest
    /// segment.
    fn epoch_of_unknown(&self, topic: &str) -> u64 {
        // Without a segment, that of the first one there will be.
        let first = self.segments.first_key_value();
        let oldest = first.map_or(self.next_number, |(number, _)| *number);
        // FNV-1a, and a finish that spreads every bit: the same in every version of this program.
        let mut hash = 0xcbf2_9ce4_8422_2325u64;
        let bytes = self.id.to_le_bytes().into_iter().chain(oldest.to_le_bytes());
        for byte in bytes.chain(topic.bytes()) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        hash = (hash ^ hash >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
        (hash ^ hash >> 32).max(1)
    }

    /// Places of the table of topics, taken or not: each below this number may be trimmed.
    pub fn topic_places(&self) -> u32 {
        self.topics.places()
    }

    /// Whether there is a segment to append to, as far as is known.
    pub fn is_writable(&self) -> bool {
        self.active.is_some()
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        let segments = self.segments.values().map(|segment| segment.end + segment.index_bytes);
        let spares = self.spares.iter().map(|spare| spare.bytes);
        let ahead = self.active.iter().map(|active| active.length.saturating_sub(active.written));
        segments.chain(spares).chain(ahead).sum()
    }

    /// Whether there are records that were neither settled nor given up.
    pub fn has_pending(&self) -> bool {
        !self.pending.is_empty() || !self.batch.is_empty()
    }

    /// Makes sure that there is a segment to append to. After an error nothing can be appended. Returns whether
    /// that is a new one.
    pub fn prepare(&mut self) -> io::Result<bool> {
        let full = |active: &Active<D::File>| active.written >= self.limits.segment_bytes;
        // Not before everything is settled: who waits for that hears of it from `sync` alone.
        if !self.has_pending() && self.active.as_ref().is_some_and(full) {
            self.sync()?;
            self.finish_segment();
        }
        let begins = self.active.is_none();
        if begins {
            self.begin_segment()?;
        }
        Ok(begins)
    }

    fn begin_segment(&mut self) -> io::Result<()> {
        let number = self.next_number;
        let previous = self.segments.last_key_value();
        let previous_end =
            previous.filter(|(last, _)| **last + 1 == number).map_or(0, |(_, segment)| segment.end);
        let (store, name) = (self.id, log_name(number));
        let create = |spare: Option<&Spare>| {
            // Of a segment of that number that a power loss has taken: it says nothing of this one.
            absent(self.disk.remove(&index_name(number)))?;
            let mut file = match spare {
                Some(spare) => self.disk.open(&spare.name)?,
                None => self.disk.create(&name)?,
            };
            let length = file.length()?;
            // No segment is longer than the positions of its records can say.
            let header = Header { store, number, previous_end, held: length as u32 };
            file.write_at(&header.encode(), 0)?;
            file.sync()?;
            if let Some(spare) = spare {
                // Under its new name it has the header that belongs to that, whatever happens.
                self.disk.rename(&spare.name, &name)?;
            }
            self.disk.sync_folder()?;
            Ok((file, length))
        };
        let created = match self.spares.pop() {
            None => create(None),
            Some(spare) => create(Some(&spare)).or_else(|_| {
                // A bad one says nothing of others. It may have got its new name already.
                drop(self.disk.remove(&spare.name));
                create(None)
            }),
        };
        match created {
            Ok((file, length)) => {
                let (written, synced) = (HEADER_BYTES, HEADER_BYTES);
                let (settled, members) = (written, Vec::new());
                self.active =
                    Some(Active { number, file, written, length, synced, settled, members });
                let segment = Segment {
                    end: HEADER_BYTES,
                    index_bytes: 0,
                    records: 0,
                    live: 0,
                    stuck: false,
                };
                self.segments.insert(number, segment);
                self.next_number = number + 1;
                Ok(())
            }
            Err(error) => {
                // The next attempt makes it anew; left behind, it is empty.
                drop(self.disk.remove(&name));
                Err(error)
            }
        }
    }

    /// Adds a publication to the batch. Not before [`Store::prepare`]. `stored`: the newest of the topic that
    /// is known to be kept; one that is unknown here begins right behind it.
    pub fn append(&mut self, record: &Record<'_>, stored: u64) -> Result<TopicSlot, Refused> {
        debug_assert_eq!(record.kind, Kind::Publication);
        let end = self.active.as_ref().map_or(0, |active| active.written) + self.batch.len() as u64;
        // The second: in the same segment no further record has a place.
        if record.length() > RECORD_BYTES_MAX || end > u64::from(u32::MAX) - (2 << 30) {
            return Err(Refused::TooLong);
        }
        let found = self.topics.find(record.topic);
        let slot = match found {
            Some(slot) => slot,
            None if record.offset != stored + 1 => {
                return Err(Refused::Position { epoch: record.epoch, next: stored + 1 });
            }
            None if self.topics.len() >= self.limits.topics_max => return Err(Refused::Topics),
            None => {
                // Whoever publishes knows where it left off; 0 is no offset.
                let next = record.offset.max(1);
                let name = TopicName::new(record.topic);
                let retention = (self.retention_of)(&name);
                self.topics.insert(Topic::new(name, record.epoch, next, retention))
            }
        };
        let topic = self.topics.get(slot).expect("it is in the table");
        if (record.epoch, record.offset) != (topic.epoch, topic.next) {
            let refused = Refused::Position { epoch: topic.epoch, next: topic.next };
            if found.is_none() {
                self.topics.remove(slot);
            }
            return Err(refused);
        }
        let (segment, place) = self.add(record, slot);
        let topic = self.topics.get_mut(slot).expect("it is in the table");
        self.pending.push(Pending { topic: slot, home: topic.home, created: found.is_none() });
        topic.push(segment, place, record.time_ms);
        topic.pending += 1;
        topic.home = segment;
        Ok(slot)
    }

    /// Puts a record of `topic` into the batch; where it will lie.
    pub(super) fn add(&mut self, record: &Record<'_>, topic: TopicSlot) -> (u64, Slot) {
        let active = self.active.as_mut().expect("it was prepared");
        let home = self.topics.get(topic).map(|topic| topic.home);
        if home != Some(active.number) || record.kind != Kind::Publication {
            active.members.push(topic);
        }
        let seal = Seal::of(active.number);
        if self.batch.is_empty() {
            // In its place when the batch is written, with the length of that.
            self.batch.resize(RECORD_HEAD, 0);
        }
        let at = active.written + self.batch.len() as u64;
        record.encode(seal, &mut self.batch);
        self.batch_records += u64::from(record.kind != Kind::Position);
        (active.number, Slot { at: at as u32, length: record.length() as u32 })
    }

    /// Bytes of the batch so far.
    pub fn batch_bytes(&self) -> usize {
        self.batch.len()
    }

    /// Writes the batch and makes it durable, with everything before it.
    pub fn commit(&mut self) -> io::Result<()> {
        self.write_batch(true)?;
        self.sync()
    }

    /// Writes the batch. Nobody may be told of it before it is settled.
    pub fn write(&mut self) -> io::Result<()> {
        self.write_batch(false)
    }

    /// `is_awaited`: the next thing that happens to the segment is a sync.
    fn write_batch(&mut self, is_awaited: bool) -> io::Result<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let active = self.active.as_mut().expect("the batch was put in for it");
        let mut mark = Vec::with_capacity(RECORD_HEAD);
        let mark_of = Record::mark(active.synced, self.batch.len() as u64, is_awaited);
        mark_of.encode(Seal::of(active.number), &mut mark);
        self.batch[..RECORD_HEAD].copy_from_slice(&mark);
        match active.file.write_at(&self.batch, active.written) {
            Ok(()) => {
                active.written += self.batch.len() as u64;
                let segment = self.segments.get_mut(&active.number).expect("it is the active one");
                segment.records += self.batch_records;
                segment.live += self.batch_records;
                self.batch_records = 0;
                self.batch.clear();
                // Of a batch with one huge record.
                self.batch.shrink_to(4 << 20);
                Ok(())
            }
            Err(error) => {
                self.give_up();
                Err(error)
            }
        }
    }

    /// Makes everything written durable, and settles it.
    pub fn sync(&mut self) -> io::Result<()> {
        let Some(active) = &mut self.active else { return Ok(()) };
        if active.synced < active.written {
            if let Err(error) = active.file.sync() {
                self.give_up();
                return Err(error);
            }
            active.synced = active.written;
        }
        self.settle();
        Ok(())
    }

    /// Counts everything written as settled without a sync: it survives the end of this process, not
    /// that of the machine.
    pub fn settle(&mut self) {
        let Some(active) = &mut self.active else { return };
        active.settled = active.written;
        self.segments.get_mut(&active.number).expect("it is the active one").end = active.written;
        for pending in self.pending.drain(..) {
            if let Some(topic) = self.topics.get_mut(pending.topic) {
                topic.pending = 0;
            }
        }
    }

    /// Takes back what is not settled, and ends the segment there.
    fn give_up(&mut self) {
        for pending in self.pending.drain(..).rev() {
            if pending.created {
                self.topics.remove(pending.topic);
            } else if let Some(topic) = self.topics.get_mut(pending.topic) {
                topic.pop();
                topic.pending -= 1;
                topic.home = pending.home;
            }
        }
        self.discard_batch();
        let Some(mut active) = self.active.take() else { return };
        // Frees the room; where that fails too, the next segment says that the rest does not count.
        drop(active.file.cut(active.settled));
        self.index_segment(active.number, active.settled, active.members);
    }

    /// Drops the batch, in which there is no publication.
    pub(super) fn discard_batch(&mut self) {
        debug_assert!(self.pending.is_empty());
        self.batch.clear();
        self.batch_records = 0;
    }

    /// Gives the room back that the active file has ahead of what is written, if it has some. `false`: it has
    /// none.
    pub(super) fn cut_ahead(&mut self) -> io::Result<bool> {
        let Some(active) = &mut self.active else { return Ok(false) };
        if active.length <= active.written {
            return Ok(false);
        }
        active.file.cut(active.written)?;
        active.length = active.written;
        Ok(true)
    }

    /// Ends the active segment, which is synced.
    fn finish_segment(&mut self) {
        if let Some(mut active) = self.active.take() {
            if active.length > active.settled {
                // Where that fails, the index says where the segment ends.
                drop(active.file.cut(active.settled));
            }
            self.index_segment(active.number, active.settled, active.members);
        }
    }

    /// Ends the active segment in order, so that the next start finds everything finished.
    pub fn close(mut self) -> io::Result<()> {
        self.commit()?;
        self.finish_segment();
        Ok(())
    }
}
