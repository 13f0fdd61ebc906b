//! The bounds of a store and of its topics.

use super::*;
use crate::log::cleaning::Cleaned;
use crate::log::inspect::inspect_disk;
use crate::log::sim_disk::SimDisk;

fn clean_all(store: &mut Store<SimDisk>, now_ms: u64) -> Cleaned {
    let mut sum = Cleaned::default();
    loop {
        let cleaned = store.clean(now_ms).unwrap();
        sum.moved += cleaned.moved;
        sum.evicted += cleaned.evicted;
        sum.lost += cleaned.lost;
        sum.removed += cleaned.removed;
        if !cleaned.more {
            return sum;
        }
    }
}

#[test]
fn bytes_are_bounded_by_whole_publications() {
    let retention = Retention { records: 0, bytes: 1000, age_ms: 0 };
    let (mut store, _) = open(SimDisk::new(1), SMALL, retention);
    for offset in 1..=50 {
        put(&mut store, "a", offset);
        let slot = store.topics.find("a").unwrap();
        store.trim(slot, 0).unwrap();
        let topic = store.topics.get(slot).unwrap();
        let each = 40 + 1 + data("a", offset, 40).len() as u64;
        assert!(topic.bytes() <= 1000, "{}", topic.bytes());
        assert_eq!(topic.next - topic.oldest, offset.min(1000 / each), "{offset}");
    }
    // The newest stays.
    store.prepare().unwrap();
    append(&mut store, "a", 51, 0, &data("a", 51, 5000)).unwrap();
    store.write().unwrap();
    store.sync().unwrap();
    let slot = store.topics.find("a").unwrap();
    store.trim(slot, 0).unwrap();
    assert_eq!(offsets(&store.read("a", 51, ALL).unwrap()), [51]);
    assert_eq!(store.position("a").oldest, 51);
}

#[test]
fn one_quiet_topic_does_not_keep_the_room_of_others() {
    let disk = SimDisk::new(1);
    let retention = Retention { records: 10, bytes: 0, age_ms: 0 };
    let (mut store, _) = open(disk.clone(), SMALL, retention);
    for offset in 1..=2000 {
        if offset % 400 == 1 {
            put(&mut store, "quiet", 1 + offset / 400);
        }
        put(&mut store, "busy", offset);
        let slot = store.topics.find("busy").unwrap();
        store.trim(slot, 0).unwrap();
        if offset % 50 == 0 {
            let cleaned = clean_all(&mut store, 0);
            assert_eq!((cleaned.evicted, cleaned.lost), (0, 0));
        }
    }
    assert!(disk.used() < 60_000, "{} bytes are left", disk.used());
    let check = |store: &mut Store<SimDisk>| {
        assert_eq!(offsets(&store.read("quiet", 1, ALL).unwrap()), [1, 2, 3, 4, 5]);
        let busy = store.read("busy", 1, ALL).unwrap();
        assert_eq!(offsets(&busy), (1991..=2000).collect::<Vec<_>>());
        assert_eq!(busy.missing.map(|missing| (missing.from, missing.to)), Some((1, 1990)));
    };
    check(&mut store);
    let report = inspect_disk(&disk).unwrap();
    assert_eq!(report.problems, Vec::<String>::new());
    store.close().unwrap();
    let (mut store, notes) = open(disk, SMALL, retention);
    assert_eq!(notes, []);
    check(&mut store);
}

#[test]
fn over_its_bound_the_oldest_goes_and_offsets_go_on() {
    let disk = SimDisk::new(1);
    let limits = StoreLimits { store_bytes: 20_000, ..SMALL };
    let (mut store, _) = open(disk.clone(), limits, Retention::default());
    put(&mut store, "once", 1);
    let mut evicted = 0;
    for offset in 1..=1000 {
        put(&mut store, "a", offset);
        evicted += clean_all(&mut store, 0).evicted;
        assert!(store.bytes() <= 20_000 + 2 * 4096 + 2000, "{}", store.bytes());
    }
    assert!(evicted > 700, "{evicted}");
    let position = store.position("a");
    assert_eq!((position.next, position.oldest), (1001, evicted));
    store.close().unwrap();
    let (mut store, _) = open(disk, limits, Retention::default());
    let position = store.position("once");
    assert_eq!((position.epoch, position.next, position.oldest), (EPOCH, 2, 2));
    put(&mut store, "once", 2);
    assert_eq!(offsets(&store.read("once", 1, ALL).unwrap()), [2]);
}

#[test]
fn a_topic_that_was_forgotten_has_another_epoch() {
    let disk = SimDisk::new(1);
    let limits = StoreLimits { forget_after_ms: 1000, ..SMALL };
    let retention = Retention { records: 0, bytes: 0, age_ms: 10 };
    let (mut store, _) = open(disk.clone(), limits, retention);
    let unknown = store.position("a").epoch;
    assert_eq!(store.position("a").epoch, unknown);
    put(&mut store, "a", 1);
    for offset in 1..=100 {
        put(&mut store, "b", offset);
    }
    for topic in ["a", "b"] {
        let slot = store.topics.find(topic).unwrap();
        assert!(store.trim(slot, 500).unwrap() > 0);
    }
    clean_all(&mut store, 500);
    assert_eq!(store.position("a").epoch, EPOCH, "it is too early to forget it");
    store.close().unwrap();
    let (mut store, _) = open(disk, limits, retention);
    let position = store.position("a");
    assert_eq!((position.epoch, position.next, position.oldest), (EPOCH, 2, 2));
    // Its position wanders with every segment that goes, until it is old enough.
    for round in 0..3 {
        for offset in 101 + round * 100..201 + round * 100 {
            put(&mut store, "b", offset);
        }
        let slot = store.topics.find("b").unwrap();
        store.trim(slot, 5000).unwrap();
        clean_all(&mut store, 5000);
    }
    assert!(store.topics.find("a").is_none());
    let again = store.position("a");
    assert_eq!((again.next, again.oldest), (1, 1));
    assert!(again.epoch != EPOCH && again.epoch != unknown);
}

#[test]
fn the_table_of_topics_is_bounded() {
    let limits = StoreLimits { topics_max: 2, ..SMALL };
    let (mut store, _) = open(SimDisk::new(1), limits, Retention::default());
    put(&mut store, "a", 1);
    put(&mut store, "b", 1);
    store.prepare().unwrap();
    assert_eq!(append(&mut store, "c", 1, 0, b"1"), Err(Refused::Topics));
    append(&mut store, "a", 2, 0, b"1").unwrap();
}

#[test]
fn an_offset_out_of_order_is_refused() {
    let (mut store, _) = open(SimDisk::new(1), SMALL, Retention::default());
    put(&mut store, "a", 1);
    store.prepare().unwrap();
    for offset in [0, 1, 3, u64::MAX] {
        let refused = Err(Refused::Position { epoch: EPOCH, next: 2 });
        assert_eq!(append(&mut store, "a", offset, 0, b"1"), refused, "{offset}");
    }
    assert_eq!(
        append(&mut store, "new", 0, 0, b"1"),
        Err(Refused::Position { epoch: EPOCH, next: 1 })
    );
    assert!(store.topics.find("new").is_none());
    append(&mut store, "b", 57, 0, b"1").unwrap();
}
