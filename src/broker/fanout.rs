//! One topic's publications on their way to its local subscribers.
//!
//! A fan-out goes over the subscribers in sweeps, and a sweep in slices of bounded size. A sweep takes
//! all publications that have gathered since the last one, so each subscriber gets them in one visit:
//! the busier a topic, the larger its batches.

use std::collections::VecDeque;
use std::sync::Arc;

use super::receivers::Receivers;
use super::selections::Selections;
use super::subscribers::{Inserted, Subscribers};
use crate::filter::{Attributes, Filter};
use crate::io::{FrameId, FramePool};
use crate::proto::tags;

/// Publications of one sweep.
const SWEEP_PUBLICATIONS_MAX: usize = 64;
/// Bytes of one sweep's publications, if there is more than one.
const SWEEP_BYTES_MAX: usize = 32 << 10;
/// What a visit costs on top of its bytes, as bytes: a system call against copying.
const VISIT_BYTES: usize = 4096;
/// The same of what filters compare with.
const VISIT_VALUES: usize = 256;

/// A slice's bound: visits, where one with much to send counts for several.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    pub visits: usize,
}

/// A time of the shard's clock in microseconds, modulo 2^32: 71 minutes.
pub type Stamp = u32;

/// When publications were taken that every subscriber has now; those of one time in a row as one, with
/// their number.
pub type Finished = Vec<(Stamp, u32)>;

#[derive(Debug)]
struct Publication {
    frame: FrameId,
    bytes: usize,
    /// Its place in the sequence of this fan-out.
    number: u64,
    /// The slot that does not want it: its publisher's.
    except: Option<u32>,
    /// Which of the others want it.
    filter: Option<Arc<Filter>>,
    /// When this shard took it.
    taken: Stamp,
}

/// Somebody who subscribed when publications were waiting already.
#[derive(Debug)]
struct Newcomer {
    slot: u32,
    /// Wants only publications from this number on.
    since: u64,
}

/// What waits for the local subscribers of one topic.
#[derive(Debug, Default)]
pub struct Fanout {
    /// For the next sweep.
    pending: VecDeque<Publication>,
    /// Of the sweep under way; empty if there is none.
    batch: Vec<Publication>,
    /// The frames of `batch`.
    batch_frames: Vec<FrameId>,
    /// The tags in them, once some subscriber has a filter.
    batch_tags: Vec<Attributes>,
    batch_bytes: usize,
    /// Some of what waits is in a binary frame, or was.
    has_binary: bool,
    /// What the filters in `batch` compare with for each receiver.
    batch_values: usize,
    /// The next place to visit.
    cursor: usize,
    /// In slot order.
    newcomers: Vec<Newcomer>,
    /// Reused: what one subscriber wants of the batch.
    wanted: Vec<FrameId>,
    next_number: u64,
}

impl Fanout {
    pub fn is_idle(&self) -> bool {
        self.pending.is_empty() && self.batch.is_empty()
    }

    /// The number of the first publication that the subscriber in this slot, which is at that place, may still
    /// get; `None`: nothing waits for it.
    pub fn next_for(&self, slot: u32, place: usize) -> Option<u64> {
        let since = self.since(slot);
        let mut batch = self.batch.iter().filter(|_| place >= self.cursor);
        let in_batch = batch.find(|publication| publication.number >= since);
        let pending = || {
            let first = self.pending.partition_point(|publication| publication.number < since);
            self.pending.get(first)
        };
        in_batch.or_else(pending).map(|publication| publication.number)
    }

    /// Whether some of what waits may be in a binary frame.
    pub fn has_binary(&self) -> bool {
        self.has_binary
    }

    /// Worth keeping for another topic.
    pub fn is_small(&self) -> bool {
        const CAPACITY_MAX: usize = 256;
        self.pending.capacity() <= CAPACITY_MAX && self.newcomers.capacity() <= CAPACITY_MAX
    }

    /// Takes over the caller's hold on `frame`. For all subscribers but that slot, and of those for whom the
    /// filter is. `offset`: that of a topic with history, which takes
    /// the place of our own numbers; else 0.
    pub fn push(
        &mut self,
        (frame, bytes, is_binary): (FrameId, usize, bool),
        (except, filter): (Option<u32>, Option<Arc<Filter>>),
        offset: u64,
        taken: Stamp,
    ) {
        self.has_binary |= is_binary;
        let number = if offset == 0 { self.next_number } else { offset };
        self.next_number = number + 1;
        self.pending.push_back(Publication { frame, bytes, number, except, filter, taken });
    }

    /// `slot` subscribed: it wants nothing of what waits now.
    pub fn subscribed(&mut self, slot: u32, inserted: Inserted) {
        if self.is_idle() || inserted == Inserted::Already {
            return;
        }
        if let Inserted::At(place) = inserted
            && place < self.cursor
        {
            self.cursor += 1;
        }
        let newcomer = Newcomer { slot, since: self.next_number };
        match self.newcomers.binary_search_by_key(&slot, |newcomer| newcomer.slot) {
            Ok(index) => self.newcomers[index] = newcomer,
            Err(index) => self.newcomers.insert(index, newcomer),
        }
    }

    /// Visits subscribers until the budget or the sweep is used up; a new sweep begins by itself.
    /// `selections`: which of them have a filter of their own.
    /// `deliver` gets a slot and the frames for it, in order. Who does not take them (`false`) is no
    /// subscriber any more and goes to `behind`, with the number of the first one it has not got.
    /// Returns the deliveries, and the bytes of the publications that every subscriber has now; when
    /// those were taken goes to `finished`.
    pub fn advance(
        &mut self,
        (subscribers, known, selections): (&mut Subscribers, &Receivers, Option<&Selections>),
        frames: &mut FramePool,
        budget: &mut Budget,
        (behind, finished): (&mut Vec<(u32, u64)>, &mut Finished),
        mut deliver: impl FnMut(&mut FramePool, u32, &[FrameId]) -> bool,
    ) -> Advanced {
        let mut advanced = Advanced::default();
        if self.batch.is_empty() {
            subscribers.compact();
            self.begin_sweep();
        }
        if selections.is_some() {
            let behind = self.batch_frames.iter().skip(self.batch_tags.len());
            self.batch_tags.extend(behind.map(|frame| tags::of_frame(frames.bytes(*frame))));
        }
        let filtered = selections.is_some()
            || !self.newcomers.is_empty()
            || self
                .batch
                .iter()
                .any(|publication| publication.except.is_some() || publication.filter.is_some());
        let cost = 1 + self.batch_bytes / VISIT_BYTES + self.batch_values / VISIT_VALUES;
        let mut values = 0;
        let mut wanted = std::mem::take(&mut self.wanted);
        while budget.visits > 0 && self.cursor < subscribers.places() {
            let slot = subscribers.at(self.cursor);
            self.cursor += 1;
            let Some(slot) = slot else { continue };
            let ids = if filtered {
                let selection = selections.and_then(|selections| selections.get(slot));
                self.filter(slot, known, selection, &mut wanted);
                values += selection.map_or(0, |filter| filter.cost() * self.batch.len());
                &wanted
            } else {
                &self.batch_frames
            };
            // Empty only where it was filtered.
            if !filtered || !ids.is_empty() {
                if deliver(frames, slot, ids) {
                    advanced.deliveries += ids.len();
                } else {
                    let first = self.batch.iter().find(|publication| publication.frame == ids[0]);
                    subscribers.remove(slot);
                    behind.extend(first.map(|first| (slot, first.number)));
                }
            }
            budget.visits = budget.visits.saturating_sub(cost + values / VISIT_VALUES);
            values %= VISIT_VALUES;
        }
        self.wanted = wanted;
        advanced.last = self.batch.last().map_or(0, |publication| publication.number);
        if self.cursor >= subscribers.places() {
            for &Publication { taken, .. } in &self.batch {
                match finished.last_mut() {
                    Some((last, count)) if *last == taken => *count += 1,
                    _ => finished.push((taken, 1)),
                }
            }
            advanced.finished_bytes = self.end_sweep(frames);
        }
        advanced
    }

    /// Drops everything: nobody is left to receive it. Returns its bytes.
    pub fn abandon(&mut self, frames: &mut FramePool) -> usize {
        let mut bytes = self.end_sweep(frames);
        for publication in self.pending.drain(..) {
            frames.retire(publication.frame);
            bytes += publication.bytes;
        }
        self.newcomers.clear();
        self.has_binary = false;
        bytes
    }

    fn begin_sweep(&mut self) {
        // One by one: mostly there is one, and a drain would cost more than it.
        while let Some(publication) = self.pending.pop_front_if(|publication| {
            self.batch.is_empty()
                || self.batch.len() < SWEEP_PUBLICATIONS_MAX
                    && self.batch_bytes + publication.bytes <= SWEEP_BYTES_MAX
        }) {
            self.batch_bytes += publication.bytes;
            self.batch_values += publication.filter.as_ref().map_or(0, |filter| filter.cost());
            self.batch_frames.push(publication.frame);
            self.batch.push(publication);
        }
        self.cursor = 0;
        let first = self.batch.first().map_or(self.next_number, |publication| publication.number);
        self.newcomers.retain(|newcomer| newcomer.since > first);
    }

    fn end_sweep(&mut self, frames: &mut FramePool) -> usize {
        for publication in self.batch.drain(..) {
            frames.retire(publication.frame);
        }
        self.batch_frames.clear();
        self.batch_tags.clear();
        self.cursor = 0;
        self.batch_values = 0;
        if self.pending.is_empty() {
            self.newcomers.clear();
            self.has_binary = false;
        }
        std::mem::take(&mut self.batch_bytes)
    }

    /// The number of the first publication that a subscriber wants; 0: all that wait.
    fn since(&self, slot: u32) -> u64 {
        let newcomer = self.newcomers.binary_search_by_key(&slot, |newcomer| newcomer.slot);
        newcomer.map_or(0, |index| self.newcomers[index].since)
    }

    /// `selection`: the filter of the subscriber, who has asked for publications with some tags only.
    fn filter(
        &self,
        slot: u32,
        known: &Receivers,
        selection: Option<&Arc<Filter>>,
        wanted: &mut Vec<FrameId>,
    ) {
        let since = self.since(slot);
        wanted.clear();
        let is_wanted = |(place, publication): &(usize, &Publication)| {
            let Publication { number, except, filter, .. } = publication;
            let is_for_it =
                || filter.as_ref().is_none_or(|filter| filter.matches(known.attributes(slot)));
            // There are tags for each in the batch if there is a selection.
            let is_selected = || {
                let tags = self.batch_tags.get(*place);
                selection.zip(tags).is_none_or(|(selection, tags)| selection.matches(tags))
            };
            *number >= since && *except != Some(slot) && is_for_it() && is_selected()
        };
        let meant = self.batch.iter().enumerate().filter(is_wanted);
        wanted.extend(meant.map(|(_, publication)| publication.frame));
    }
}

/// What [`Fanout::advance`] got done.
#[derive(Debug, Default, Clone, Copy)]
pub struct Advanced {
    pub deliveries: usize,
    pub finished_bytes: usize,
    /// The number of the sweep's last publication: every subscriber that was visited has come so far.
    pub last: u64,
}
