//! The end of a segment: its index is written, and the places of its records leave memory.

use super::disk::{Disk, DiskFile};
use super::index::{self, RunEntry, Slot, Subject};
use super::record::Kind;
use super::segment::index_name;
use super::store::Store;
use super::topics::{Run, Slots, Topic, TopicSlot};

impl<D: Disk> Store<D> {
    /// Writes the index of a segment that has ended, and takes the places of its records out of
    /// memory. Where that cannot be written they stay there, and the next start makes it.
    pub(super) fn index_segment(&mut self, number: u64, end: u64, mut members: Vec<TopicSlot>) {
        members.sort_unstable();
        members.dedup();
        let members = || members.iter().filter_map(|slot| self.topics.get(*slot));
        let runs: Vec<_> = members().flat_map(|topic| entries_of(topic, number)).collect();
        let bytes = index::encode(Subject { store: self.id, number, end }, &runs);
        let name = index_name(number);
        let written = self.disk.create(&name).and_then(|mut file| file.write_at(&bytes, 0));
        if written.is_err() {
            drop(self.disk.remove(&name));
            return;
        }
        let (_, entries) = index::decode(&bytes, self.id, number).expect("it was just made");
        if let Some(segment) = self.segments.get_mut(&number) {
            segment.index_bytes = bytes.len() as u64;
        }
        for entry in entries {
            let Some(slot) = self.topics.find(&entry.topic) else { continue };
            let Some(topic) = self.topics.get_mut(slot) else { continue };
            if entry.kind == Kind::Position {
                continue;
            }
            let end = entry.first + u64::from(entry.slots.count);
            let same = |run: &&mut Run| run.segment == number && run.end() == end;
            if let Some(run) = topic.runs.iter_mut().find(same) {
                (run.first, run.skip) = (entry.first, 0);
                run.slots = Slots::Indexed(entry.slots);
            }
        }
    }
}

/// What the index of a segment says of a topic: its runs there, and its position if no run in it
/// proves that, or something was trimmed.
fn entries_of(topic: &Topic, number: u64) -> Vec<RunEntry<&[Slot]>> {
    let entry = |kind, first, run: Option<&Run>, slots| RunEntry {
        kind,
        topic: topic.name.clone(),
        epoch: topic.epoch,
        first,
        earliest_ms: run.map_or(topic.latest_ms, |run| run.earliest_ms),
        latest_ms: run.map_or(topic.latest_ms, |run| run.latest_ms),
        bytes: run.map_or(topic.oldest, |run| run.bytes),
        slots,
    };
    let mut entries = Vec::new();
    let mut proven = topic.home != number;
    for run in topic.runs.iter().filter(|run| run.segment == number) {
        if let Slots::Memory(slots) = &run.slots {
            let is_newest = topic.home == number && run.end() == topic.next;
            proven |= is_newest;
            // Copies of older ones do not say that nothing came behind them.
            let kind = if is_newest { Kind::Publication } else { Kind::Moved };
            let slots = &slots[run.skip as usize..];
            entries.push(entry(kind, run.live_first(), Some(run), slots));
        }
    }
    if !proven || topic.oldest > 1 {
        entries.push(entry(Kind::Position, topic.next, None, &[]));
    }
    entries
}
