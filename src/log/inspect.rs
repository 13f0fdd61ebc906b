//! A look at a log from outside: every byte read, every checksum and every offset checked, nothing
//! written. For a log whose server does not run.

use std::collections::BTreeMap;
use std::path::Path;

use super::disk::{Disk, Folder};
use super::record::{Kind, Record};
use super::segment::{HEADER_BYTES, log_name};
use super::survey::{
    End, MISSING, OpenError, Piece, attempt, identify, orphans, read_index, segments, walk,
};
use super::{LogError, Reason};
use crate::ids::Epoch;

/// What is in a log.
#[derive(Debug, Default)]
pub struct Report {
    pub segments: usize,
    /// Of all segments, in bytes.
    pub bytes: u64,
    /// By name.
    pub topics: BTreeMap<Box<str>, TopicReport>,
    /// What is wrong, each with its place.
    pub problems: Vec<String>,
    /// What is no loss: an unfinished write that the next start cuts.
    pub notes: Vec<String>,
}

/// What a log has of one topic. Publications that are trimmed but still on disk count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicReport {
    pub epoch: Epoch,
    /// Publications, each once.
    pub records: u64,
    /// Of them on disk, heads and all.
    pub bytes: u64,
    /// Unix times in milliseconds; `None` without publications.
    pub times_ms: Option<(u64, u64)>,
    /// Offset of the next publication.
    pub next: u64,
    /// The oldest offset that is kept, as far as that was written down.
    oldest: u64,
    /// First and last offset of what follows without a hole.
    ranges: Vec<(u64, u64)>,
}

impl TopicReport {
    fn new(epoch: u64) -> Self {
        let ranges = Vec::new();
        let epoch = Epoch(epoch);
        Self { epoch, records: 0, bytes: 0, times_ms: None, next: 1, oldest: 0, ranges }
    }

    /// First and last offset on disk.
    pub fn offsets(&self) -> Option<(u64, u64)> {
        Some((self.ranges.first()?.0, self.ranges.last()?.1))
    }

    fn add(&mut self, record: &Record<'_>) {
        let offset = record.offset;
        if record.kind == Kind::Position {
            self.next = self.next.max(offset);
            self.oldest = self.oldest.max(record.oldest().min(offset));
            return;
        }
        self.next = self.next.max(offset.saturating_add(1));
        let at = self.ranges.partition_point(|(first, _)| *first <= offset);
        let before = at.checked_sub(1).map(|before| self.ranges[before]);
        if before.is_some_and(|(_, last)| offset <= last) {
            // A copy, made when room was given back.
            return;
        }
        self.records += 1;
        self.bytes += record.length() as u64;
        let time = record.time_ms;
        let (earliest, latest) = self.times_ms.unwrap_or((time, time));
        self.times_ms = Some((earliest.min(time), latest.max(time)));
        let joins_before = before.is_some_and(|(_, last)| last + 1 == offset);
        let joins_after = self.ranges.get(at).is_some_and(|(first, _)| offset + 1 == *first);
        match (joins_before, joins_after) {
            (true, true) => {
                self.ranges[at - 1].1 = self.ranges[at].1;
                self.ranges.remove(at);
            }
            (true, false) => self.ranges[at - 1].1 = offset,
            (false, true) => self.ranges[at].0 = offset,
            (false, false) => self.ranges.insert(at, (offset, offset)),
        }
    }

    /// The holes in what is kept: first and last offset of each.
    fn holes(&self) -> impl Iterator<Item = (u64, u64)> {
        let ends = self.ranges.iter().map(|(_, last)| last + 1);
        let starts = self.ranges.iter().skip(1).map(|(first, _)| first - 1);
        let behind = self.next - 1;
        ends.zip(starts.chain([behind]))
            .filter(|(from, to)| from <= to)
            .filter_map(|(from, to)| (to >= self.oldest).then_some((from.max(self.oldest), to)))
    }
}

/// Reads the whole log in this folder.
pub fn inspect(folder: &Path) -> Result<Report, LogError> {
    let fail = |reason| LogError { folder: folder.to_path_buf(), reason };
    let disk = Folder::for_reading(folder).map_err(|error| fail(Reason::Folder(error)))?;
    inspect_disk(&disk).map_err(|error| fail(Reason::Open(error)))
}

/// The same of any disk.
pub(super) fn inspect_disk<D: Disk>(disk: &D) -> Result<Report, OpenError> {
    let mut report = Report::default();
    let Some(id) = identify(disk)? else { return Ok(report) };
    for number in orphans(disk)? {
        if read_index(disk, id, number).is_none_or(|index| index.end > HEADER_BYTES) {
            report.problems.push(format!("{}: {MISSING}", log_name(number)));
        }
    }
    for mut segment in segments(disk, id)? {
        let index = || read_index(disk, id, segment.number).map(|index| index.end);
        segment.end = segment.end.or_else(index);
        report.segments += 1;
        report.bytes += segment.length;
        let name = &segment.name;
        if segment.header_damaged {
            report.problems.push(format!("{name}: its header is damaged"));
        }
        let Report { topics, problems, .. } = &mut report;
        let End { at: end, is_unfinished } = walk(&segment, |piece| match piece {
            Piece::Record { record: Record { kind: Kind::Mark, .. }, .. } => {}
            Piece::Record { record, .. } => {
                let entry = topics.get_mut(record.topic);
                let topic = match entry {
                    Some(topic) => topic,
                    None => topics
                        .entry(record.topic.into())
                        .or_insert_with(|| TopicReport::new(record.epoch)),
                };
                if topic.epoch.0 != record.epoch {
                    // A later life: the log had forgotten the earlier one.
                    *topic = TopicReport::new(record.epoch);
                }
                topic.add(&record);
            }
            Piece::Damage { from, to, flaw } => {
                problems.push(format!("{name}: bytes {from} to {to} are damaged: {flaw}"));
            }
        })
        .map_err(attempt(format!("read its file {name}")))?;
        if end < segment.length && is_unfinished && segment.end.is_none() {
            let bytes = segment.length - end;
            report.notes.push(format!(
                "{name}: {bytes} bytes at {end} are of an unfinished write; the next start cuts them"
            ));
        }
    }
    let Report { topics, problems, .. } = &mut report;
    for (name, topic) in topics {
        for (from, to) in topic.holes() {
            problems.push(format!("channel {name}: offsets {from} to {to} are missing"));
        }
    }
    Ok(report)
}
