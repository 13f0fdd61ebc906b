//! The store does what a map of vectors does, through restarts and cleaning.

use std::collections::BTreeMap;

use super::*;
use crate::log::sim_disk::{Random, SimDisk};

/// What the store should have of one topic.
#[derive(Default)]
struct Model {
    /// From offset 1 on.
    all: Vec<(u64, Vec<u8>)>,
    /// The first that is kept.
    oldest: u64,
}

impl Model {
    fn next(&self) -> u64 {
        self.all.len() as u64 + 1
    }

    fn trim(&mut self, retention: Retention, now: u64) {
        let next = self.next();
        let mut oldest = self.oldest.max(1);
        if retention.records > 0 {
            oldest = oldest.max(next.saturating_sub(retention.records));
        }
        let since = now.saturating_sub(retention.age_ms);
        let old = |offset: u64| offset < next && self.all[offset as usize - 1].0 < since;
        while retention.age_ms > 0 && old(oldest) {
            oldest += 1;
        }
        self.oldest = oldest;
    }
}

const TOPICS: [&str; 4] = ["a", "chat:lobby", "chat:quiet", "prices:btc"];

fn check(store: &mut Store<SimDisk>, models: &BTreeMap<&str, Model>, random: &mut Random) {
    for (topic, model) in models.iter().filter(|(_, model)| !model.all.is_empty()) {
        let position = store.position(topic);
        assert_eq!((position.epoch, position.next), (EPOCH, model.next()), "{topic}");
        let oldest = model.oldest.max(1);
        let from = 1 + random.below(model.next());
        let records = 1 + random.below(50) as u32;
        let bytes = 1 + random.below(3000) as usize;
        let slice = store.read(topic, from, ReadLimits { records, bytes }).unwrap();
        let begin = from.max(oldest);
        if from < oldest {
            let missing = slice.missing.expect("it was trimmed");
            assert_eq!((missing.from, missing.to), (from, oldest - 1));
        } else {
            assert_eq!(slice.missing, None, "{topic} from {from}, oldest {oldest}");
        }
        assert!(slice.records.len() <= records as usize);
        assert!(!slice.records.is_empty() || begin >= model.next(), "{topic} {from}");
        for (record, offset) in slice.records.iter().zip(begin..) {
            let (time_ms, data) = &model.all[offset as usize - 1];
            assert_eq!((record.offset, record.time_ms), (offset, *time_ms));
            assert_eq!(record.data, data.as_slice());
        }
    }
}

#[test]
fn it_does_what_a_map_of_vectors_does() {
    for seed in 0..300 {
        let mut random = Random(seed);
        let retention = Retention {
            records: [0, 5, 60][random.below(3) as usize],
            bytes: 0,
            age_ms: [0, 40][random.below(2) as usize],
        };
        let disk = SimDisk::new(seed);
        let mut models: BTreeMap<&str, Model> = BTreeMap::new();
        let (mut store, _) = open(disk.clone(), SMALL, retention);
        let mut now = 1000;
        for _ in 0..120 {
            now += random.below(4);
            match random.below(10) {
                0..=5 => {
                    store.prepare().unwrap();
                    for _ in 0..random.below(20) {
                        // The last but one topic is seldom used, so that segments stand for it.
                        let topic = TOPICS[(random.below(13) / 4) as usize];
                        let model = models.entry(topic).or_default();
                        let data = data(topic, model.next(), random.below(300) as usize);
                        append(&mut store, topic, model.next(), now, &data).unwrap();
                        model.all.push((now, data));
                    }
                    store.write().unwrap();
                    store.sync().unwrap();
                }
                6 | 7 => {
                    for (topic, model) in &mut models {
                        let Some(slot) = store.topics.find(topic) else { continue };
                        store.trim(slot, now).unwrap();
                        model.trim(retention, now);
                    }
                }
                8 => while store.clean(now).unwrap().more {},
                _ => {
                    if random.one_in(2) {
                        store.close().unwrap();
                    } else {
                        drop(store);
                    }
                    let (again, notes) = open(disk.clone(), SMALL, retention);
                    assert_eq!(notes, []);
                    store = again;
                    // What a restart brings back is trimmed again, as the rules say.
                    for (topic, model) in &mut models {
                        if let Some(slot) = store.topics.find(topic)
                            && let Some(topic) = store.topics.get(slot)
                        {
                            let oldest = model.oldest.max(topic.oldest);
                            store.advance(slot, oldest).unwrap();
                        }
                    }
                }
            }
            check(&mut store, &models, &mut random);
        }
    }
}
