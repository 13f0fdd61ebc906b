//! Files of removed segments that serve again: what they held before is never taken for what they hold now.

use super::*;
use crate::log::disk::DiskFile;
use crate::log::inspect::inspect_disk;
use crate::log::record::RECORD_HEAD;
use crate::log::segment::{is_spare, log_name, spare_name};
use crate::log::sim_disk::{Faults, SimDisk};
use crate::log::survey::OpenError;

/// One record more of the topic, and what is not to be kept any more goes.
fn put_and_trim(store: &mut Store<SimDisk>, offset: u64) {
    put(store, "a", offset);
    let slot = store.topics.find("a").expect("it has a record");
    store.trim(slot, 1).unwrap();
}

/// One record at a time, of which few are kept, until a file has served again.
fn publish_until_reused(disk: &SimDisk, store: &mut Store<SimDisk>, retention: Retention) -> u64 {
    for offset in 1..10_000 {
        let spares = store.spares.len();
        put_and_trim(store, offset);
        if store.spares.len() < spares {
            assert!(offset > retention.records);
            return offset;
        }
        while store.clean(1).unwrap().more {}
        let files = disk.list().unwrap();
        assert!(files.len() < 12, "{files:?}");
    }
    panic!("no file was used again");
}

fn names(disk: &SimDisk) -> Vec<String> {
    disk.list().unwrap().into_iter().filter(|name| is_spare(name)).collect()
}

#[test]
fn what_a_file_held_before_is_cut_off_and_not_served() {
    let retention = Retention { records: 5, bytes: 0, age_ms: 0 };
    for crash in [false, true] {
        let disk = SimDisk::new(11);
        let (mut store, _) = open(disk.clone(), SMALL, retention);
        let last = publish_until_reused(&disk, &mut store, retention);
        let number = *store.segments.keys().last().unwrap();
        let mut length = 0;
        disk.alter(&log_name(number), |bytes| length = bytes.len());
        assert!(length as u64 >= SMALL.segment_bytes, "it is as long as before: {length}");
        assert!(store.bytes() >= length as u64);
        if crash {
            drop(store);
            disk.lose_power();
        } else {
            store.close().unwrap();
        }
        assert_eq!(inspect_disk(&disk).unwrap().problems, Vec::<String>::new());
        let (mut store, notes) = open(disk.clone(), SMALL, retention);
        assert_eq!(notes, [], "what it held before is no news");
        disk.alter(&log_name(number), |bytes| length = bytes.len());
        assert!((length as u64) < SMALL.segment_bytes, "the rest is gone: {length}");
        assert_eq!(names(&disk), Vec::<String>::new());
        assert_eq!(store.position("a").next, last + 1);
        let kept = store.read("a", last - 4, ALL).unwrap();
        assert_eq!(offsets(&kept), (last - 4..=last).collect::<Vec<_>>());
    }
}

#[test]
fn spare_files_go_before_publications_do() {
    let retention = Retention { records: 40, bytes: 0, age_ms: 0 };
    let disk = SimDisk::new(12);
    let limits = StoreLimits { store_bytes: 20_000, ..SMALL };
    let (mut store, _) = open(disk.clone(), limits, retention);
    publish_until_reused(&disk, &mut store, retention);
    let next = store.position("a").next;
    // Another topic takes the room.
    let mut evicted = 0;
    for offset in 1..=200 {
        put(&mut store, "b", offset);
        loop {
            let spares = store.spares.len();
            let cleaned = store.clean(1).unwrap();
            assert!(cleaned.evicted == 0 || spares == 0, "a spare file was left");
            evicted += cleaned.evicted;
            if !cleaned.more {
                break;
            }
        }
        assert!(store.bytes() <= limits.store_bytes + 4096 + 1000, "{}", store.bytes());
    }
    assert!(evicted > 0);
    assert_eq!(store.position("a").next, next);
}

#[test]
fn a_file_whose_removal_is_not_sure_does_not_serve_again() {
    let retention = Retention { records: 5, bytes: 0, age_ms: 0 };
    let disk = SimDisk::new(13);
    let (mut store, _) = open(disk.clone(), SMALL, retention);
    let mut failed = 0;
    for offset in 1..400 {
        put_and_trim(&mut store, offset);
        let segments = store.segments.len();
        disk.set_faults(Faults { sync: 2, ..Faults::default() });
        let cleaned = store.clean(1);
        disk.set_faults(Faults::default());
        if cleaned.is_err() && store.segments.len() < segments {
            failed += 1;
            assert_eq!(names(&disk).len(), store.spares.len());
        }
    }
    assert!(failed > 0, "no removal failed");
}

fn bytes_of(disk: &SimDisk, name: &str) -> Vec<u8> {
    let mut found = Vec::new();
    disk.alter(name, |bytes| found.clone_from(bytes));
    found
}

/// A file that serves again, and a batch of three at the end of it: the disk, the name of the file, where the
/// batch lies, and what the file was before it.
fn with_a_batch() -> (SimDisk, String, std::ops::Range<usize>, Vec<u8>) {
    let retention = Retention { records: 50, bytes: 0, age_ms: 0 };
    let disk = SimDisk::new(14);
    let (mut store, _) = open(disk.clone(), SMALL, retention);
    let last = publish_until_reused(&disk, &mut store, retention);
    let name = log_name(store.active.as_ref().unwrap().number);
    let before = bytes_of(&disk, &name);
    let begin = store.active.as_ref().unwrap().written as usize;
    for offset in last + 1..=last + 3 {
        append(&mut store, "a", offset, 1, &data("a", offset, 40)).unwrap();
    }
    store.write().unwrap();
    store.sync().unwrap();
    let end = store.active.as_ref().unwrap().written as usize;
    assert!(end < before.len(), "it lies over what was there before");
    (disk, name, begin..end, before)
}

#[test]
fn damage_in_the_last_batch_of_a_file_that_serves_again_is_told() {
    let (disk, name, batch, _) = with_a_batch();
    let whole = inspect_disk(&disk).unwrap();
    assert_eq!((whole.problems.len(), whole.notes.len()), (0, 0));
    for at in batch {
        let disk = disk.copy();
        disk.alter(&name, |bytes| bytes[at] ^= 1);
        let report = inspect_disk(&disk).unwrap();
        assert!(report.notes.len() + report.problems.len() > 0, "byte {at}");
        let (_, notes) = open(disk.clone(), SMALL, Retention::default());
        assert!(!notes.is_empty(), "byte {at}");
    }
}

#[test]
fn an_unfinished_write_over_old_records_is_told_and_old_records_are_not() {
    let (disk, name, batch, before) = with_a_batch();
    let after = bytes_of(&disk, &name);
    for cut in batch.clone() {
        let disk = disk.copy();
        disk.alter(&name, |bytes| {
            bytes.clone_from(&before);
            bytes[..cut].copy_from_slice(&after[..cut]);
        });
        let report = inspect_disk(&disk).unwrap();
        assert_eq!(report.problems, Vec::<String>::new(), "cut at {cut}");
        // Of a mark that is not whole there is nothing to say: no record was behind it. Some bytes are the same.
        let differs = (cut..batch.end).find(|at| before[*at] != after[*at]);
        let is_told = differs.is_some_and(|at| at >= batch.start + RECORD_HEAD);
        assert_eq!(report.notes.len(), usize::from(is_told), "cut at {cut}");
        let (_, notes) = open(disk.clone(), SMALL, Retention::default());
        assert_eq!(notes.len(), usize::from(is_told), "cut at {cut}: {notes:?}");
    }
}

#[test]
fn a_spare_file_that_is_bad_costs_nothing() {
    let retention = Retention { records: 5, bytes: 0, age_ms: 0 };
    let disk = SimDisk::new(15);
    let (mut store, _) = open(disk.clone(), SMALL, retention);
    let mut removed = 0;
    for offset in 1..400 {
        put_and_trim(&mut store, offset);
        while store.clean(1).unwrap().more {}
        for name in names(&disk) {
            disk.remove(&name).unwrap();
            removed += 1;
        }
    }
    assert!(removed > 3, "{removed} spare files");
}

#[test]
fn a_store_that_is_refused_keeps_all_its_files() {
    let (disk, name, ..) = with_a_batch();
    let mut spare = disk.create(&spare_name(77)).unwrap();
    spare.write_at(b"of a later version", 0).unwrap();
    disk.alter(&name, |bytes| {
        bytes[8] = 1;
        let checksum = crc32fast::hash(&bytes[..44]);
        bytes[44..48].copy_from_slice(&checksum.to_le_bytes());
    });
    let before = disk.list().unwrap();
    let refused = Store::open(disk.clone(), 42, SMALL, Box::new(|_| Retention::default()));
    let Err(OpenError::Version { version: 1, .. }) = refused else { panic!("it was opened") };
    assert_eq!(disk.list().unwrap(), before);
}
