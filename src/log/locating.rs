//! Where in a topic something is: times, and how far back the last publications of a range reach.

use std::io;
use std::ops::Range;

use super::disk::Disk;
use super::reading::{ReadLimits, SLOTS_MAX, places};
use super::store::Store;
use super::topics::TopicSlot;
use crate::ids::Epoch;
use crate::message::{LogPlace, LogSlice};

impl<D: Disk> Store<D> {
    /// What is kept of a topic, and where these times are in it (Unix milliseconds).
    pub fn locate(
        &mut self,
        topic: &str,
        since_ms: Option<u64>,
        until_ms: Option<u64>,
    ) -> io::Result<LogPlace> {
        let position = self.position(topic);
        let (oldest, next) = (position.oldest, position.next);
        let slot = self.topics.find(topic);
        let mut place = LogPlace {
            epoch: Epoch(position.epoch),
            oldest,
            next,
            since: Some(next),
            until: next - 1,
        };
        let Some(slot) = slot else { return Ok(place) };
        let latest_ms = self.topics.get(slot).map_or(0, |topic| topic.latest_ms);
        if let Some(since_ms) = since_ms.filter(|since_ms| *since_ms <= latest_ms) {
            let first = self.first_since(slot, since_ms, oldest)?.offset.min(next);
            // Of what was trimmed nobody knows the times.
            place.since = (first > oldest || oldest == 1).then_some(first);
        }
        if let Some(until_ms) = until_ms.filter(|until_ms| *until_ms < latest_ms) {
            place.until = self.first_since(slot, until_ms + 1, oldest)?.offset.min(next) - 1;
        }
        Ok(place)
    }

    /// As [`Store::read`], of the publications in `range` those that come last. What is missing among
    /// them is told; what lies before it is read only if there is nothing behind.
    pub fn read_last(
        &mut self,
        topic: &str,
        range: Range<u64>,
        limits: ReadLimits,
    ) -> io::Result<LogSlice> {
        let end = range.end.min(self.position(topic).next);
        let from = match self.topics.find(topic) {
            Some(slot) => self.first_of_last(slot, range.start..end, limits)?,
            None => end,
        };
        let mut slice = self.read_until(topic, from, end)?;
        while let Some(last) = slice.records.last()
            && last.offset + 1 < end
        {
            let rest = self.read_until(topic, last.offset + 1, end)?;
            let missing = rest.missing.or(slice.missing);
            if rest.records.is_empty() {
                slice.missing = missing;
                break;
            }
            slice = LogSlice { missing, ..rest };
        }
        Ok(slice)
    }

    fn read_until(&mut self, topic: &str, from: u64, end: u64) -> io::Result<LogSlice> {
        let records = end.saturating_sub(from).min(u64::from(u32::MAX)) as u32;
        let mut slice = self.read(topic, from, ReadLimits { records, bytes: usize::MAX })?;
        // Behind what is missing the count reaches further.
        while slice.records.last().is_some_and(|record| record.offset >= end) {
            slice.records.pop();
        }
        Ok(slice)
    }

    /// Where to begin so that the limits suffice for all up to the end of the range. One record comes
    /// however long it is.
    fn first_of_last(
        &mut self,
        slot: TopicSlot,
        range: Range<u64>,
        limits: ReadLimits,
    ) -> io::Result<u64> {
        let mut at = range.end;
        let (mut records_left, mut bytes_left) = (limits.records, limits.bytes);
        let mut is_first = true;
        while at > range.start && records_left > 0 {
            let Some(topic) = self.topics.get(slot) else { break };
            let before = topic.runs.partition_point(|run| run.first < at);
            let Some(run) = topic.runs[..before].last() else { break };
            if run.end() < at {
                if !is_first {
                    break;
                }
                at = run.end();
                continue;
            }
            let part = u64::from(records_left.min(SLOTS_MAX));
            let low = run.live_first().max(range.start).max(at.saturating_sub(part));
            if low >= at {
                break;
            }
            for place in places(&self.disk, &mut self.files, run, low..at)?.iter().rev() {
                let length = place.length as usize;
                if length > bytes_left && !is_first {
                    return Ok(at);
                }
                bytes_left = bytes_left.saturating_sub(length);
                (at, is_first) = (at - 1, false);
                records_left -= 1;
            }
        }
        Ok(at)
    }
}
