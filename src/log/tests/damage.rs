//! Damaged bytes are told and never served; what came before them is.

use super::*;
use crate::log::inspect::inspect_disk;
use crate::log::segment::{index_name, log_name};
use crate::log::sim_disk::{Random, SimDisk};
use crate::log::survey::OpenError;
use crate::message::MissingReason;

/// Batches of three topics, and where each record of `a` ends in the first segment.
fn filled(limits: StoreLimits, close: bool) -> SimDisk {
    let disk = SimDisk::new(7);
    let (mut store, _) = open(disk.clone(), limits, Retention::default());
    for offset in 1..=30 {
        for topic in ["a", "b:c", "d"] {
            put(&mut store, topic, offset);
        }
    }
    if close {
        store.close().unwrap();
    }
    disk
}

/// One segment holds everything.
const LARGE: StoreLimits = StoreLimits { segment_bytes: 1 << 20, ..SMALL };

/// Reads everything there is of a topic: what is served is right, and what is not is said.
fn served(store: &mut Store<SimDisk>, topic: &str) -> Vec<u64> {
    let mut served = Vec::new();
    let mut from = 1;
    let next = store.position(topic).next;
    while from < next {
        let slice = store.read(topic, from, ALL).unwrap();
        if let Some(missing) = slice.missing {
            assert_eq!(missing.from, from);
            from = missing.to + 1;
        }
        for record in &slice.records {
            assert_eq!(record.offset, from, "{topic}");
            assert_eq!(record.data, data(topic, from, 40), "{topic} {from}");
            served.push(from);
            from += 1;
        }
        assert!(slice.missing.is_some() || !slice.records.is_empty());
    }
    served
}

#[test]
fn a_cut_at_every_byte_of_the_last_record_loses_that_record_alone() {
    let disk = filled(LARGE, false);
    let whole = disk.copy();
    let mut length = 0;
    whole.alter(&log_name(1), |bytes| length = bytes.len());
    // The mark of the last batch, and its record.
    let last =
        Record::mark(0, 0, false).length() + RECORD_OVERHEAD + "d".len() + data("d", 30, 40).len();
    for cut in 1..=last {
        let disk = disk.copy();
        disk.alter(&log_name(1), |bytes| bytes.truncate(length - cut));
        let report = inspect_disk(&disk).unwrap();
        assert_eq!(report.problems, Vec::<String>::new(), "cut by {cut}");
        let (mut store, notes) = open(disk.clone(), LARGE, Retention::default());
        // Between two records nothing tells that there was more.
        let whole_records = [last, Record::mark(0, 0, false).length()];
        let clean = cut == last || cut == last - whole_records[1];
        assert_eq!(notes.len(), usize::from(!clean), "cut by {cut}: {notes:?}");
        assert!(notes.iter().all(Note::is_harmless));
        assert_eq!(served(&mut store, "a"), (1..=30).collect::<Vec<_>>());
        assert_eq!(served(&mut store, "d"), (1..=29).collect::<Vec<_>>());
        put(&mut store, "d", 30);
        assert_eq!(served(&mut store, "d"), (1..=30).collect::<Vec<_>>());
    }
}

const RECORD_OVERHEAD: usize = crate::log::record::RECORD_HEAD;

#[test]
fn flipped_bits_are_found_and_never_served() {
    let closed = filled(SMALL, true);
    let killed = filled(LARGE, false);
    let mut random = Random(11);
    for round in 0..1000 {
        let disk = if round % 2 == 0 { closed.copy() } else { killed.copy() };
        let names: Vec<_> = disk.list().unwrap();
        let name = names[random.below(names.len() as u64) as usize].clone();
        let mut at = 0;
        disk.alter(&name, |bytes| {
            at = random.below(bytes.len() as u64 * 8);
            bytes[(at / 8) as usize] ^= 1 << (at % 8);
        });
        let context = format!("round {round}: bit {at} of {name}");
        let report = inspect_disk(&disk);
        let opened = Store::open(disk.clone(), 42, SMALL, Box::new(|_| Retention::default()));
        let (mut store, notes) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                assert!(error.to_string().contains(&name), "{context}: {error}");
                assert!(report.is_err(), "{context}");
                continue;
            }
        };
        let report = report.unwrap_or_else(|error| panic!("{context}: {error}"));
        let mut lost = 0;
        for topic in ["a", "b:c", "d"] {
            let served = served(&mut store, topic);
            assert!(served.len() >= 29, "{context}: {topic} {served:?}");
            lost += 30 - served.len();
            // No offset that was given is given again.
            let next = store.position(topic).next;
            let last = served.last().copied().unwrap_or_default();
            assert!(next > 30 || lost > 0 && notes.iter().all(Note::is_harmless), "{context}");
            assert!(last <= 30);
        }
        assert!(lost <= 1, "{context}");
        let told = !report.problems.is_empty() || !report.notes.is_empty();
        let index = name.ends_with(".index");
        assert!(told || index, "{context}: nobody has seen it");
        assert!(!index || lost == 0, "{context}: an index is made again");
    }
}

#[test]
fn a_damaged_end_of_a_channel_leaves_its_offsets_out() {
    let disk = filled(LARGE, false);
    // The last record of `b:c`: one of `d` stands behind it, so it was on disk once.
    disk.alter(&log_name(1), |bytes| {
        let wanted = data("b:c", 30, 40);
        let at = bytes.windows(wanted.len()).position(|window| window == wanted).unwrap();
        bytes[at] ^= 1;
    });
    let (mut store, notes) = open(disk.clone(), LARGE, Retention::default());
    assert_eq!(notes.len(), 2, "{notes:?}");
    assert!(notes.iter().all(|note| !note.is_harmless()));
    let next = store.position("b:c").next;
    assert!(next > 1 << 32);
    assert_eq!(served(&mut store, "b:c"), (1..=29).collect::<Vec<_>>());
    assert_eq!(served(&mut store, "d"), (1..=30).collect::<Vec<_>>());
    let slice = store.read("b:c", 30, ALL).unwrap();
    assert_eq!(slice.missing.map(|missing| missing.reason), Some(MissingReason::Lost));
    put(&mut store, "b:c", next);
    drop(store);
    let (store, notes) = open(disk, LARGE, Retention::default());
    assert_eq!(notes, [], "it is told once");
    assert_eq!(store.position("b:c").next, next + 1);
}

/// What is lost is told, by a look from outside too, and told once; no offset that was given is given again.
#[track_caller]
fn expect_told_and_left_out(disk: &SimDisk, limits: StoreLimits, context: &str) {
    let problems = inspect_disk(disk).unwrap().problems;
    assert!(!problems.is_empty(), "{context}");
    let (mut store, notes) = open(disk.clone(), limits, Retention::default());
    assert!(notes.iter().any(|note| !note.is_harmless()), "{context}: {notes:?}");
    let mut kept = 0;
    for topic in ["a", "b:c", "d"] {
        kept += served(&mut store, topic).len();
        assert!(store.position(topic).next > 30, "{context}: {topic} after {notes:?}");
    }
    assert!(kept < 90, "{context}");
    drop(store);
    let (_, notes) = open(disk.clone(), limits, Retention::default());
    assert!(!notes.iter().any(|note| matches!(note, Note::OffsetsLeftOut { .. })), "{notes:?}");
}

#[test]
fn an_end_that_is_lost_is_no_unfinished_write() {
    let whole = filled(LARGE, false);
    let mut length = 0;
    whole.alter(&log_name(1), |bytes| length = bytes.len());
    let batch = |topic: &str| 2 * RECORD_OVERHEAD + topic.len() + data(topic, 30, 40).len();
    let last_two = batch("b:c") + batch("d");
    for lost in batch("d") + 1..last_two {
        let disk = whole.copy();
        disk.alter(&log_name(1), |bytes| bytes[length - lost..].fill(0));
        // The mark of the last but one must be whole: it says how long its batch is.
        if lost <= last_two - RECORD_OVERHEAD {
            expect_told_and_left_out(&disk, LARGE, &format!("the last {lost} bytes"));
        }
    }
}

#[test]
fn files_that_are_lost_are_told() {
    let whole = filled(SMALL, true);
    let logs = whole.list().unwrap().into_iter().filter(|name| name.ends_with(".log"));
    let logs: Vec<_> = logs.collect();
    let last = logs.last().unwrap();
    let garbage = |bytes: &mut Vec<u8>| bytes.iter_mut().for_each(|byte| *byte ^= 0x5a);
    let disk = whole.copy();
    disk.alter(last, garbage);
    disk.remove(&index_name(logs.len() as u64)).unwrap();
    expect_told_and_left_out(&disk, SMALL, "the last file is garbage, without an index");
    for length in [0, 60, 200] {
        let disk = whole.copy();
        disk.alter(last, |bytes| bytes.truncate(length));
        expect_told_and_left_out(&disk, SMALL, &format!("the last file has {length} bytes"));
    }
    for name in &logs {
        let disk = whole.copy();
        disk.remove(name).unwrap();
        expect_told_and_left_out(&disk, SMALL, &format!("{name} is missing"));
    }
    for name in &logs {
        let disk = whole.copy();
        disk.alter(name, |bytes| {
            let middle = bytes.len() / 2;
            garbage(&mut bytes.split_off(middle));
            bytes.resize(2 * middle, 0x77);
        });
        // The index is believed until somebody reads.
        assert!(!inspect_disk(&disk).unwrap().problems.is_empty(), "half of {name} is garbage");
    }
}

#[test]
fn a_record_that_turns_bad_while_the_server_runs_is_not_served() {
    let disk = filled(SMALL, true);
    let (mut store, notes) = open(disk.clone(), SMALL, Retention::default());
    assert_eq!(notes, []);
    disk.alter(&log_name(2), |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
    });
    let lost: usize =
        ["a", "b:c", "d"].map(|topic| 30 - served(&mut store, topic).len()).iter().sum();
    assert!(lost <= 1);
    disk.alter(&log_name(1), |bytes| bytes.truncate(bytes.len() / 2));
    let left = served(&mut store, "a");
    assert!(left.len() > 10 && left.len() < 30, "{left:?}");
}

/// A copy of older publications behind what is lost does not say that nothing is.
#[test]
fn moved_copies_are_no_proof_of_the_end() {
    let disk = SimDisk::new(7);
    let kept = Retention::default();
    let retention_of = |topic: &TopicName| Retention {
        records: if topic.starts_with('x') { 1 } else { 0 },
        bytes: 0,
        age_ms: 0,
    };
    let (mut store, _) = Store::open(disk.clone(), 42, SMALL, Box::new(retention_of)).unwrap();
    // In the first file little of `a` and much that goes; the end of `a` is in a later one.
    put(&mut store, "a", 1);
    let mut offset = 0;
    let mut fill = |store: &mut Store<SimDisk>, until: u64| {
        while *store.segments.keys().last().unwrap() < until {
            offset += 1;
            put(store, "x", offset);
            store.trim(store.topics.find("x").unwrap(), 1).unwrap();
        }
    };
    fill(&mut store, 2);
    put(&mut store, "a", 2);
    fill(&mut store, 3);
    while store.clean(1).unwrap().more {}
    assert!(!store.segments.contains_key(&1), "{:?}", store.segments.keys());
    fill(&mut store, 5);
    let slot = store.topics.find("a").unwrap();
    let holder = store.topics.get(slot).unwrap().runs.last().unwrap().segment;
    store.close().unwrap();
    disk.remove(&log_name(holder)).unwrap();
    let (store, notes) = open(disk, SMALL, kept);
    assert!(store.position("a").next > 2, "{notes:?}");
}

/// What began in a file that is lost is known by its index.
#[test]
fn channels_of_a_lost_file_go_on_behind_it() {
    let disk = filled(SMALL, true);
    let (mut store, _) = open(disk.clone(), SMALL, Retention::default());
    for offset in 1..=3 {
        put(&mut store, "new", offset);
    }
    let epoch = store.position("new").epoch;
    store.close().unwrap();
    let last = disk.list().unwrap().into_iter().filter(|name| name.ends_with(".log")).max();
    for length in [None, Some(0), Some(100)] {
        let disk = disk.copy();
        match length {
            None => disk.remove(last.as_ref().unwrap()).unwrap(),
            Some(length) => disk.alter(last.as_ref().unwrap(), |bytes| bytes.truncate(length)),
        }
        let (store, notes) = open(disk.clone(), SMALL, Retention::default());
        assert!(!notes.is_empty(), "{length:?}");
        let position = store.position("new");
        assert!(position.next > 3 && position.epoch == epoch, "{length:?}: {position:?}");
        drop(store);
        let (store, _) = open(disk, SMALL, Retention::default());
        assert_eq!(store.position("new"), position, "{length:?}");
    }
}

/// A start that fails before the offsets have gone on leaves what the next one needs to know.
#[test]
fn a_start_that_fails_forgets_no_damage() {
    let whole = filled(SMALL, true);
    let last =
        whole.list().unwrap().into_iter().filter(|name| name.ends_with(".log")).max().unwrap();
    for length in [0, 100] {
        let disk = whole.copy();
        disk.alter(&last, |bytes| bytes.truncate(length));
        disk.set_room(Some(disk.used()));
        let failed = Store::open(disk.clone(), 42, SMALL, Box::new(|_| Retention::default()));
        assert!(failed.is_err(), "there is no room for the positions");
        disk.set_room(None);
        expect_told_and_left_out(&disk, SMALL, &format!("{length} bytes, and a start that failed"));
    }
    // An index that nobody can read is no reason not to start.
    let disk = whole.copy();
    disk.remove(&last).unwrap();
    disk.alter(&last.replace("log", "index"), |bytes| bytes.truncate(30));
    expect_told_and_left_out(&disk, SMALL, "neither the file nor its index");
}

/// The hole that damage leaves in the offsets is none of the publications that a channel keeps.
#[test]
fn what_is_kept_by_number_survives_a_leap_of_offsets() {
    let retention = Retention { records: 20, bytes: 0, age_ms: 0 };
    let disk = filled(SMALL, true);
    let last = disk.list().unwrap().into_iter().filter(|name| name.ends_with(".log")).max();
    disk.remove(&last.unwrap()).unwrap();
    let (mut store, _) = open(disk, SMALL, retention);
    let next = store.position("a").next;
    assert!(next > 1 << 32);
    let kept = served(&mut store, "a");
    let slot = store.topics.find("a").unwrap();
    for offset in next..next + 25 {
        put(&mut store, "a", offset);
        store.trim(slot, 1).unwrap();
        let written = (next..=offset).collect::<Vec<_>>();
        let all = [&kept[..], &written].concat();
        let newest = &all[all.len().saturating_sub(20)..];
        let slice = store.read("a", newest[0], ALL).unwrap();
        assert_eq!(store.position("a").oldest, newest[0]);
        assert_eq!(slice.records[0].offset, newest[0]);
    }
}

/// Readers get one gap for what is lost together, as far as they may read at once.
#[test]
fn what_is_lost_together_is_one_gap() {
    let disk = filled(LARGE, true);
    let (mut store, _) = open(disk.clone(), LARGE, Retention::default());
    disk.alter(&log_name(1), |bytes| {
        let wanted = data("a", 10, 40);
        let from = bytes.windows(wanted.len()).position(|window| window == wanted).unwrap();
        bytes[from..].fill(0);
    });
    let slice = store.read("a", 1, ALL).unwrap();
    assert_eq!(offsets(&slice), (1..=9).collect::<Vec<_>>());
    let missing = store.read("a", 10, ALL).unwrap().missing.unwrap();
    assert_eq!((missing.from, missing.to, missing.reason), (10, 30, MissingReason::Lost));
    let few = ReadLimits { records: 100, bytes: 500 };
    let missing = store.read("a", 10, few).unwrap().missing.unwrap();
    assert!(missing.from == 10 && (13..20).contains(&missing.to), "{missing:?}");
}

#[test]
fn an_index_can_be_lost() {
    let disk = filled(SMALL, true);
    for name in disk.list().unwrap().iter().filter(|name| name.ends_with(".index")) {
        disk.remove(name).unwrap();
    }
    let (mut store, notes) = open(disk.clone(), SMALL, Retention::default());
    assert_eq!(notes, []);
    assert_eq!(served(&mut store, "a"), (1..=30).collect::<Vec<_>>());
    assert!(disk.open(&index_name(1)).is_ok(), "it was made again");
}

#[test]
fn what_is_no_store_stays_as_it_is() {
    let open = |disk: &SimDisk| {
        let store = Store::open(disk.clone(), 42, SMALL, Box::new(|_| Retention::default()));
        store.map(drop).unwrap_err()
    };
    let foreign = SimDisk::new(1);
    foreign.create("precious.txt").unwrap();
    assert!(matches!(open(&foreign), OpenError::Foreign { file } if file == "precious.txt"));
    assert_eq!(foreign.list().unwrap(), ["precious.txt"]);
    let other = filled(SMALL, true);
    let mixed = SimDisk::new(2);
    let (mut store, _) =
        Store::open(mixed.clone(), 43, SMALL, Box::new(|_| Retention::default())).unwrap();
    put(&mut store, "a", 1);
    store.close().unwrap();
    let mut bytes = Vec::new();
    other.alter(&log_name(2), |segment| bytes = segment.clone());
    mixed.create(&log_name(2)).unwrap();
    mixed.alter(&log_name(2), |segment| *segment = bytes);
    assert!(matches!(open(&mixed), OpenError::OtherStore { file } if file == log_name(2)));
    let nameless = filled(SMALL, true);
    nameless.remove("store").unwrap();
    assert!(matches!(open(&nameless), OpenError::Foreign { .. }));
    let newer = filled(SMALL, true);
    newer.alter("store", |bytes| {
        bytes[8] = 9;
        let checksum = crc32fast::hash(&bytes[..20]);
        bytes[20..24].copy_from_slice(&checksum.to_le_bytes());
    });
    assert!(matches!(open(&newer), OpenError::Version { version: 9, .. }));
}
