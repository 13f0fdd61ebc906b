//! Reading publications of a topic back, and never one that is not exactly what was written.

use std::io;
use std::ops::Range;

use bytes::Bytes;

use super::disk::{Disk, DiskFile};
use super::index::{SLOT_BYTES, Slot, decode_slots};
use super::record::{Kind, RECORD_HEAD, Record, Seal};
use super::segment::{index_name, log_name};
use super::store::Store;
use super::topics::{Run, Slots};
use crate::ids::{Epoch, TopicName};
use crate::message::{LogRecord, LogSlice, Missing, MissingReason};

/// What lies between two wanted records is read along, up to this many bytes of it.
const GAP_BYTES_MAX: u32 = 4096;
/// Bytes read at once, unless one record is longer.
const SPAN_BYTES_MAX: u32 = 1 << 18;
/// Bytes beside its data that a record which is given out keeps in memory, at most; else it is copied.
const KEPT_BYTES_MAX: usize = 128;
/// Places of records looked up at once.
pub(super) const SLOTS_MAX: u32 = 4096;

/// How much a reader takes.
#[derive(Debug, Clone, Copy)]
pub struct ReadLimits {
    pub records: u32,
    /// Bytes of records, heads and all; one record comes however long it is.
    pub bytes: usize,
}

impl<D: Disk> Store<D> {
    /// The settled publications of a topic from offset `from` on, in order and without a hole. What
    /// is missing at `from` is told in [`LogSlice::missing`], and the records go on behind it. An
    /// error is the disk's; it may be gone at the next attempt.
    pub fn read(&mut self, topic: &str, from: u64, limits: ReadLimits) -> io::Result<LogSlice> {
        let position = self.position(topic);
        let mut slice = LogSlice {
            epoch: Epoch(position.epoch),
            oldest: position.oldest,
            next: position.next,
            missing: None,
            records: Vec::new(),
        };
        let Some(topic) = self.topics.find(topic) else { return Ok(slice) };
        let mut at = from.max(1);
        let mut bytes_left = limits.bytes;
        while at < slice.next && (slice.records.len() as u32) < limits.records && bytes_left > 0 {
            let Some(state) = self.topics.get(topic) else { break };
            let run = state.run_from(at).filter(|run| run.live() > 0);
            let first = run.map_or(slice.next, |run| run.live_first().min(slice.next));
            if first > at {
                if !slice.records.is_empty() {
                    break;
                }
                let reason =
                    if at < state.oldest { MissingReason::Trimmed } else { MissingReason::Lost };
                slice.missing = Some(widen(slice.missing, at, first - 1, reason));
                at = first;
                continue;
            }
            let Some(run) = run else { break };
            let is_lost = |missing: Missing| missing.reason == MissingReason::Lost;
            let wanted = if slice.records.is_empty() && slice.missing.is_some_and(is_lost) {
                // Where one is lost the next ones may be, too: they are not read in vain, again and again.
                1
            } else {
                limits.records - slice.records.len() as u32
            };
            let end = run.end().min(slice.next).min(at + u64::from(wanted.min(SLOTS_MAX)));
            let (name, epoch, segment) = (state.name.clone(), state.epoch, run.segment);
            let places = places(&self.disk, &mut self.files, run, at..end)?;
            let before = slice.records.len();
            let count = fit(&places, bytes_left, slice.records.is_empty());
            let flaw = self.read_places(segment, &places[..count], &name, epoch, at, &mut slice)?;
            let done = slice.records.len() - before;
            at += done as u64;
            let read = places[..done + usize::from(flaw)].iter().map(|place| place.length as usize);
            bytes_left = bytes_left.saturating_sub(read.sum());
            if flaw {
                if !slice.records.is_empty() {
                    break;
                }
                slice.missing = Some(widen(slice.missing, at, at, MissingReason::Lost));
                at += 1;
            } else if count < places.len() {
                break;
            }
        }
        Ok(slice)
    }

    /// Reads the records at `places`, the first of which has the offset `first`, into the slice.
    /// `true`: it ended before one that is not what it should be.
    fn read_places(
        &mut self,
        segment: u64,
        places: &[Slot],
        topic: &TopicName,
        epoch: u64,
        first: u64,
        slice: &mut LogSlice,
    ) -> io::Result<bool> {
        let file = self.files.get(&self.disk, &log_name(segment))?;
        let seal = Seal::of(segment);
        let mut offset = first;
        let mut rest = places;
        while !rest.is_empty() {
            let (span, count) = span(rest);
            let mut bytes = vec![0; (span.end - span.start) as usize];
            match file.read_at(&mut bytes, u64::from(span.start)) {
                Ok(()) => {}
                // Shorter than its index says: something has cut it.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(true),
                Err(error) => return Err(error),
            }
            let bytes = Bytes::from(bytes);
            let before = slice.records.len();
            for place in &rest[..count] {
                let start = (place.at - span.start) as usize;
                let part = bytes.slice(start..start + place.length as usize);
                let Some(record) = accept(&part, seal, topic, epoch, offset) else { break };
                slice.records.push(record);
                offset += 1;
            }
            let records = &mut slice.records[before..];
            pack(records, bytes.len());
            if records.len() < count {
                return Ok(true);
            }
            rest = &rest[count..];
        }
        Ok(false)
    }

    /// Time of a record, Unix milliseconds, without a look at the rest of it; `None` if it is not
    /// there any more.
    pub(super) fn time_of(&mut self, segment: u64, place: Slot) -> io::Result<Option<u64>> {
        let file = self.files.get(&self.disk, &log_name(segment))?;
        let mut time = [0; 8];
        match file.read_at(&mut time, u64::from(place.at) + RECORD_HEAD as u64 - 8) {
            Ok(()) => Ok(Some(u64::from_le_bytes(time))),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The places of the records of a run with these offsets.
pub(super) fn places<D: Disk>(
    disk: &D,
    files: &mut super::files::Files<D::File>,
    run: &Run,
    offsets: Range<u64>,
) -> io::Result<Vec<Slot>> {
    let (start, end) = ((offsets.start - run.first) as usize, (offsets.end - run.first) as usize);
    match &run.slots {
        Slots::Memory(slots) => Ok(slots[start..end].to_vec()),
        Slots::Indexed(range) => {
            let file = files.get(disk, &index_name(run.segment))?;
            let mut bytes = vec![0; (end - start) * SLOT_BYTES];
            file.read_at(&mut bytes, range.at + (start * SLOT_BYTES) as u64)?;
            Ok(decode_slots(&bytes))
        }
    }
}

/// How many of these records the bytes that are left suffice for; the first one always, where
/// nothing was read yet.
fn fit(places: &[Slot], mut bytes_left: usize, first: bool) -> usize {
    let mut count = 0;
    for place in places {
        let length = place.length as usize;
        if length > bytes_left && !(first && count == 0) {
            break;
        }
        bytes_left = bytes_left.saturating_sub(length);
        count += 1;
    }
    count
}

/// The bytes to read at once for the first of these places, and for how many of them.
pub(super) fn span(places: &[Slot]) -> (Range<u32>, usize) {
    let first = places[0];
    let mut span = first.at..first.at.saturating_add(first.length);
    let mut count = 1;
    for place in &places[1..] {
        let end = place.at.saturating_add(place.length);
        let near = place.at >= span.end && place.at - span.end <= GAP_BYTES_MAX;
        if !near || end - span.start > SPAN_BYTES_MAX {
            break;
        }
        span.end = end;
        count += 1;
    }
    (span, count)
}

/// The publication in these bytes, if it is the one that was asked for.
fn accept(bytes: &Bytes, seal: Seal, topic: &str, epoch: u64, offset: u64) -> Option<LogRecord> {
    let record = Record::decode(bytes, seal).ok()?;
    let same = matches!(record.kind, Kind::Publication | Kind::Moved)
        && (record.topic, record.epoch, record.offset) == (topic, epoch, offset)
        && record.length() == bytes.len();
    same.then(|| LogRecord {
        offset,
        time_ms: record.time_ms,
        message_id: record.message_id.map(Box::from),
        data: bytes.slice(bytes.len() - record.data.len()..),
    })
}

/// Copies the data of records that are a small part of the bytes that were read with them, and would keep
/// these in memory.
fn pack(records: &mut [LogRecord], read: usize) {
    let wanted = records.iter().map(|record| record.data.len()).sum::<usize>();
    if read <= wanted + KEPT_BYTES_MAX * records.len() {
        return;
    }
    let mut packed = Vec::with_capacity(wanted);
    for record in &*records {
        packed.extend_from_slice(&record.data);
    }
    let mut packed = Bytes::from(packed);
    for record in records {
        record.data = packed.split_to(record.data.len());
    }
}

/// What is missing up to now, and more of it right behind.
fn widen(missing: Option<Missing>, from: u64, to: u64, reason: MissingReason) -> Missing {
    match missing {
        // Of two reasons the one that nobody asked for.
        Some(missing) if missing.reason == MissingReason::Lost => Missing { to, ..missing },
        Some(missing) => Missing { to, reason, ..missing },
        None => Missing { from, to, reason },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Records of 10 bytes, one every so many bytes of what was read.
    fn records(read: &Bytes, every: usize) -> Vec<LogRecord> {
        let record = |start: usize| LogRecord {
            offset: start as u64,
            time_ms: 1,
            message_id: None,
            data: read.slice(start..start + 10),
        };
        (0..read.len()).step_by(every).map(record).collect()
    }

    #[test]
    fn records_between_others_do_not_keep_these_in_memory() {
        let read: Bytes = (0..60_000_u32).map(|number| number as u8).collect();
        for (every, is_copied) in [(100, false), (1000, true)] {
            let mut packed = records(&read, every);
            pack(&mut packed, read.len());
            assert_eq!(packed, records(&read, every));
            let range = read.as_ptr_range();
            let is_inside = |record: &LogRecord| range.contains(&record.data.as_ptr());
            assert!(packed.iter().all(|record| is_inside(record) != is_copied), "{every}");
        }
    }
}
