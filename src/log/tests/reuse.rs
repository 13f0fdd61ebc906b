//! Files of removed segments that serve again: what they held before is never taken for what they hold now.

use super::*;
use crate::log::inspect::inspect_disk;
use crate::log::segment::{is_spare, log_name};
use crate::log::sim_disk::{Faults, SimDisk};

/// One record at a time, of which few are kept, until a file has served again.
fn publish_until_reused(disk: &SimDisk, store: &mut Store<SimDisk>, retention: Retention) -> u64 {
    for offset in 1..10_000 {
        let spares = store.spares.len();
        put(store, "a", offset);
        if store.spares.len() < spares {
            assert!(offset > retention.records);
            return offset;
        }
        if let Some(slot) = store.topics.find("a") {
            store.trim(slot, 1).unwrap();
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
        put(&mut store, "a", offset);
        let slot = store.topics.find("a").unwrap();
        store.trim(slot, 1).unwrap();
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
