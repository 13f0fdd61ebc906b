//! Times, and the last publications of a range.

use super::*;
use crate::log::sim_disk::SimDisk;

/// Times come in steps of ten, three publications each.
fn time_of(offset: u64) -> u64 {
    1000 + (offset - 1) / 3 * 10
}

/// Two topics in many segments.
fn filled(retention: Retention) -> Store<SimDisk> {
    let (mut store, _) = open(SimDisk::new(1), SMALL, retention);
    for offset in 1..=300 {
        for topic in ["a", "b"] {
            store.prepare().unwrap();
            append(&mut store, topic, offset, time_of(offset), &data(topic, offset, 40)).unwrap();
            store.write().unwrap();
            store.sync().unwrap();
        }
    }
    store
}

fn last(store: &mut Store<SimDisk>, range: std::ops::Range<u64>, limits: ReadLimits) -> LogSlice {
    store.read_last("a", range, limits).unwrap()
}

#[test]
fn times_are_found_in_any_segment() {
    let mut store = filled(Retention::default());
    for time in 990..2010 {
        let place = store.locate("a", Some(time), Some(time)).unwrap();
        let first = (1..=300).find(|offset| time_of(*offset) >= time).unwrap_or(301);
        let until = (1..=300).rfind(|offset| time_of(*offset) <= time).unwrap_or(0);
        assert_eq!((place.since, place.until), (Some(first), until), "{time}");
        assert_eq!((place.oldest, place.next), (1, 301));
    }
    let unknown = store.locate("c", Some(5), Some(5)).unwrap();
    assert_eq!((unknown.oldest, unknown.next, unknown.since, unknown.until), (1, 1, Some(1), 0));
}

#[test]
fn a_time_that_may_be_among_what_was_trimmed_is_not_told() {
    let mut store = filled(Retention { records: 100, bytes: 0, age_ms: 0 });
    let slot = store.topics.find("a").unwrap();
    store.trim(slot, 0).unwrap();
    let since = |store: &mut Store<SimDisk>, time| {
        let place = store.locate("a", Some(time), None).unwrap();
        assert_eq!(place.oldest, 201);
        place.since
    };
    assert_eq!(since(&mut store, 5), None);
    assert_eq!(since(&mut store, time_of(201)), None);
    assert_eq!(since(&mut store, time_of(201) + 1), Some(202));
    assert_eq!(since(&mut store, time_of(300) + 1), Some(301), "nothing is that new");
}

#[test]
fn the_last_publications_of_a_range_are_read() {
    let mut store = filled(Retention::default());
    let few = ReadLimits { records: 7, bytes: 1 << 20 };
    for range in [1..301, 1..4, 100..250, 250..900, 40..41, 60..60] {
        let end: u64 = range.end.min(301);
        let begin = range.start.max(end.saturating_sub(7));
        let slice = last(&mut store, range.clone(), few);
        assert_eq!(offsets(&slice), (begin..end).collect::<Vec<_>>(), "{range:?}");
        assert_eq!(slice.missing, None);
    }
    let each = store.read("a", 300, ALL).unwrap().records[0].data.len() + 41;
    let bytes = ReadLimits { records: 100, bytes: 3 * each };
    assert_eq!(offsets(&last(&mut store, 1..301, bytes)), [298, 299, 300]);
    let one = ReadLimits { records: 100, bytes: 1 };
    assert_eq!(offsets(&last(&mut store, 1..301, one)), [300], "one comes however long it is");
}

#[test]
fn what_is_damaged_among_the_last_is_told() {
    let mut store = filled(Retention::default());
    let wanted = data("a", 290, 40);
    let disk = store.disk.clone();
    for name in disk.list().unwrap().iter().filter(|name| name.ends_with(".log")) {
        disk.alter(name, |bytes| {
            if let Some(at) = bytes.windows(wanted.len()).position(|window| window == wanted) {
                bytes[at + 3] ^= 4;
            }
        });
    }
    let slice = last(&mut store, 1..301, ReadLimits { records: 20, bytes: 1 << 20 });
    assert_eq!(offsets(&slice), (291..=300).collect::<Vec<_>>());
    let missing = slice.missing.expect("it is told");
    assert_eq!((missing.from, missing.to, missing.is_lost()), (290, 290, true));
    // With nothing behind it, what lies before is read.
    let slice = last(&mut store, 1..291, ReadLimits { records: 5, bytes: 1 << 20 });
    assert_eq!(offsets(&slice), [286, 287, 288, 289]);
    assert!(slice.missing.is_some());
}
