//! What is kept of each topic, and what goes: the trim by count, bytes and age.

use std::io;

use super::disk::Disk;
use super::reading::places;
use super::store::Store;
use super::topics::{Run, TopicSlot};

/// What is kept of a topic; whatever is beyond the first bound that is reached goes, oldest first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// Publications; 0: no bound.
    pub records: u64,
    /// Bytes of publications as they are on disk, with some 40 more and the channel's name for each;
    /// the newest stays however long it is. 0: no bound.
    pub bytes: u64,
    /// Milliseconds since it was published; 0: no bound.
    pub age_ms: u64,
}

/// Where a time is in a topic.
#[derive(Debug, Clone, Copy)]
pub(super) struct First {
    pub offset: u64,
    /// Segment of the run that was searched for it, and where the search ended.
    searched: Option<(u64, u64)>,
}

impl<D: Disk> Store<D> {
    /// Trims one topic to what its retention allows at `now_ms`, Unix milliseconds. Nothing is
    /// written: the room comes back with [`Store::clean`]. Returns how many publications went.
    pub fn trim(&mut self, slot: TopicSlot, now_ms: u64) -> io::Result<u64> {
        let Some(topic) = self.topics.get(slot) else { return Ok(0) };
        let Some(first) = topic.runs.first() else { return Ok(0) };
        // What is not settled may yet be taken back, and the newest stays for its bytes.
        let settled = topic.settled();
        let before = first.live_first();
        let mut gone = 0;
        let rules = topic.retention;
        let mut oldest = before;
        // Holes count for nothing: after damage offsets go on far higher.
        if rules.records > 0 && settled.saturating_sub(rules.records) > before {
            oldest = oldest.max(topic.first_of_last(rules.records));
        }
        if rules.age_ms > 0 {
            let since_ms = now_ms.saturating_sub(rules.age_ms);
            let first = self.first_since(slot, since_ms, oldest)?;
            oldest = first.offset;
            self.note_earliest(slot, first, since_ms);
        }
        if oldest > before {
            gone += self.advance(slot, oldest.min(settled))?;
        }
        if rules.bytes > 0 {
            gone += self.trim_bytes(slot, rules.bytes)?;
        }
        Ok(gone)
    }

    /// The first publication from `from` on whose time is `since_ms` or later; if there is none, the
    /// place behind the last.
    pub(super) fn first_since(
        &mut self,
        slot: TopicSlot,
        since_ms: u64,
        from: u64,
    ) -> io::Result<First> {
        let mut at = from;
        while let Some(run) = self.topics.get(slot).and_then(|topic| topic.run_from(at)) {
            if run.earliest_ms >= since_ms {
                break;
            }
            if run.latest_ms < since_ms {
                at = run.end();
                continue;
            }
            let (segment, mut low, mut high) = (run.segment, at.max(run.live_first()), run.end());
            while low < high {
                let middle = low + (high - low) / 2;
                let run = self.topics.get(slot).and_then(|topic| topic.run_from(middle));
                let run = run.expect("it is in this run");
                let place = places(&self.disk, &mut self.files, run, middle..middle + 1)?[0];
                match self.time_of(segment, place)? {
                    Some(time_ms) if time_ms >= since_ms => high = middle,
                    _ => low = middle + 1,
                }
            }
            return Ok(First { offset: low.max(at), searched: Some((segment, low)) });
        }
        Ok(First { offset: at, searched: None })
    }

    /// What lies before is about to go: the next look for the same time ends at once.
    fn note_earliest(&mut self, slot: TopicSlot, first: First, since_ms: u64) {
        let Some((segment, low)) = first.searched else { return };
        let run = self.topics.get_mut(slot).and_then(|topic| {
            let at = topic.runs.partition_point(|run| run.end() < low);
            topic.runs.get_mut(at)
        });
        if let Some(run) = run.filter(|run| run.segment == segment) {
            run.earliest_ms = since_ms;
        }
    }

    fn trim_bytes(&mut self, slot: TopicSlot, bytes_max: u64) -> io::Result<u64> {
        let mut trimmed = 0;
        loop {
            let Some(topic) = self.topics.get(slot) else { return Ok(trimmed) };
            let excess = topic.bytes().saturating_sub(bytes_max);
            let Some(run) = topic.runs.first().filter(|_| excess > 0) else { return Ok(trimmed) };
            // There may be a hole before the next one.
            let newest = topic.runs.last().map_or(0, Run::end).min(topic.settled());
            let (from, end) = (run.live_first(), run.end().min(newest.saturating_sub(1)));
            if from >= end {
                return Ok(trimmed);
            }
            let end = end.min(from + 512);
            let mut gone = 0;
            let mut oldest = from;
            for place in places(&self.disk, &mut self.files, run, from..end)? {
                if gone >= excess {
                    break;
                }
                gone += u64::from(place.length);
                oldest += 1;
            }
            trimmed += self.advance(slot, oldest)?;
        }
    }

    /// Makes `oldest` the first offset that is kept of a topic. Returns how many publications went.
    pub(super) fn advance(&mut self, slot: TopicSlot, oldest: u64) -> io::Result<u64> {
        let Some(topic) = self.topics.get(slot) else { return Ok(0) };
        // Looked up first: after an error nothing has changed.
        let partial = topic.run_from(oldest).filter(|run| run.live_first() < oldest);
        let lengths = match partial {
            Some(run) => places(&self.disk, &mut self.files, run, run.live_first()..oldest)?
                .iter()
                .map(|place| u64::from(place.length))
                .sum(),
            None => 0,
        };
        let topic = self.topics.get_mut(slot).expect("it was just there");
        let segments = &mut self.segments;
        let mut trimmed = 0;
        let mut gone = |segment: u64, count: u32| {
            trimmed += u64::from(count);
            if let Some(segment) = segments.get_mut(&segment) {
                segment.live = segment.live.saturating_sub(u64::from(count));
            }
        };
        topic.drop_runs_before(oldest, &mut gone);
        if let Some(run) = topic.runs.first_mut()
            && run.live_first() < oldest
        {
            gone(run.segment, (oldest - run.live_first()) as u32);
            run.skip = (oldest - run.first) as u32;
            run.bytes = run.bytes.saturating_sub(lengths);
        }
        topic.oldest = topic.oldest.max(oldest);
        Ok(trimmed)
    }
}
