//! What was acknowledged is there after a power loss, on a disk that fails in between.
//!
//! `STENTOR_SIM_SEEDS=100000 cargo test --release power` runs so many disks, each from its seed; a
//! failure prints it.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::log::sim_disk::{Faults, Random, SimDisk};

/// Disks, unless the environment says otherwise.
const SEEDS: u64 = 1000;
const TOPICS: [&str; 3] = ["a", "chat:lobby", "chat:quiet"];

/// What is known of one topic from outside.
#[derive(Default)]
struct Known {
    /// Acknowledged, or seen by a reader; from offset 1 on.
    kept: Vec<Vec<u8>>,
    /// What was ever offered for an offset behind them.
    offered: BTreeMap<u64, BTreeSet<Vec<u8>>>,
}

struct Run {
    seed: u64,
    random: Random,
    disk: SimDisk,
    retention: Retention,
    known: BTreeMap<&'static str, Known>,
    attempts: u64,
    refused: u64,
    restarts: u64,
}

/// What all runs together have met: a simulation that meets nothing proves nothing.
#[derive(Default)]
struct Met {
    refused: u64,
    kept: u64,
    cut: u64,
    survivors: u64,
    moved: u64,
    reused: u64,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let records = [0, 0, 25][random.below(3) as usize];
        Self {
            seed,
            disk: SimDisk::new(seed),
            retention: Retention { records, bytes: 0, age_ms: 0 },
            known: TOPICS.iter().map(|topic| (*topic, Known::default())).collect(),
            attempts: 0,
            refused: 0,
            restarts: 0,
            random,
        }
    }

    /// One batch, or several with one sync; acknowledged or not.
    fn publish(&mut self, store: &mut Store<SimDisk>) {
        let mut batch: Vec<(&'static str, Vec<u8>)> = Vec::new();
        let mut written = || -> std::io::Result<()> {
            let batches = 1 + self.random.below(2);
            let is_awaited = self.random.below(2) == 0;
            for batch_number in 1..=batches {
                store.prepare()?;
                for _ in 0..self.random.below(12) {
                    let topic = TOPICS[(self.random.below(9) / 4) as usize];
                    let known = self.known.get_mut(topic).unwrap();
                    let before = batch.iter().filter(|(other, _)| *other == topic).count();
                    let offset = known.kept.len() as u64 + 1 + before as u64;
                    self.attempts += 1;
                    let mut data = data(topic, offset, self.random.below(700) as usize);
                    data.extend(self.attempts.to_le_bytes());
                    append(store, topic, offset, offset, &data).unwrap();
                    known.offered.entry(offset).or_default().insert(data.clone());
                    batch.push((topic, data));
                }
                if is_awaited && batch_number == batches {
                    store.commit()?;
                } else {
                    store.write()?;
                }
            }
            store.sync()
        };
        match written() {
            Ok(()) => acknowledge(&mut self.known, batch.into_iter()),
            Err(_) => self.refused += 1,
        }
        assert!(!store.has_pending());
        for (topic, known) in &self.known {
            // Nothing that was refused has left a trace.
            assert_eq!(store.position(topic).next, known.kept.len() as u64 + 1, "{topic}");
        }
    }

    /// Everything that is kept reads back as it was, or not at all while the disk fails.
    fn read(&mut self, store: &mut Store<SimDisk>, faulty: bool) {
        for (topic, known) in &self.known {
            let mut from = 1;
            if self.retention.records > 0 {
                from = (known.kept.len() as u64 + 1).saturating_sub(self.retention.records).max(1);
            }
            while from <= known.kept.len() as u64 {
                let slice = match store.read(topic, from, ALL) {
                    Ok(slice) => slice,
                    Err(_) => {
                        assert!(faulty, "the disk does not fail");
                        break;
                    }
                };
                assert_eq!(slice.missing, None, "{topic} from {from}");
                assert!(!slice.records.is_empty());
                for record in &slice.records {
                    assert_eq!(record.offset, from);
                    assert_eq!(record.data, known.kept[from as usize - 1], "{topic} {from}");
                    from += 1;
                }
            }
        }
    }

    /// After a restart: what was kept is kept, and what came through besides was offered.
    fn resume(&mut self, store: &mut Store<SimDisk>, met: &mut Met) {
        for (topic, known) in &mut self.known {
            let next = store.position(topic).next;
            assert!(next > known.kept.len() as u64, "{topic} lost its end: {next}");
            while (known.kept.len() as u64) < next - 1 {
                let offset = known.kept.len() as u64 + 1;
                let slice = store.read(topic, offset, ALL).unwrap();
                let data = slice.records.first().map(|record| record.data.to_vec());
                let data = data.unwrap_or_else(|| panic!("{topic} {offset}: {slice:?}"));
                assert!(known.offered[&offset].contains(&data), "{topic} {offset}");
                known.kept.push(data);
                met.survivors += 1;
            }
        }
    }

    fn go(mut self, met: &mut Met) {
        let limits = StoreLimits { segment_bytes: 6000, ..SMALL };
        while self.restarts < 5 {
            self.disk.set_faults(Faults::default());
            self.disk.set_room(None);
            let (mut store, notes) = open(self.disk.clone(), limits, self.retention);
            for note in notes {
                assert!(matches!(note, Note::TailCut { .. }), "{note}");
                met.cut += 1;
            }
            self.resume(&mut store, met);
            self.read(&mut store, false);
            let chance = [0, 0, 8, 40][self.random.below(4) as usize];
            let faults = Faults { write: chance, sync: chance, read: chance * 4 };
            self.disk.set_faults(faults);
            if self.random.one_in(3) {
                self.disk.set_room(Some(self.disk.used() + self.random.below(9000) as usize));
            }
            for _ in 0..self.random.below(40) {
                match self.random.below(8) {
                    0..=4 => {
                        let spares = store.spares.len();
                        self.publish(&mut store);
                        let is_reused =
                            store.active.as_ref().is_some_and(|it| it.length > it.written);
                        met.reused += u64::from(store.spares.len() < spares && is_reused);
                    }
                    5 => self.read(&mut store, chance > 0),
                    6 => {
                        let cleaned = store.clean(1).unwrap_or_default();
                        met.moved += cleaned.moved;
                        assert_eq!((cleaned.lost, cleaned.evicted), (0, 0));
                    }
                    _ => {
                        for topic in TOPICS {
                            if let Some(slot) = store.topics.find(topic) {
                                let _ = store.trim(slot, 1);
                            }
                        }
                    }
                }
            }
            match self.random.below(4) {
                0 => drop(store.close()),
                1 => drop(store),
                _ => {
                    // In the middle of a batch.
                    if store.prepare().is_ok() {
                        self.half_a_batch(&mut store);
                    }
                    drop(store);
                    self.disk.lose_power();
                }
            }
            self.restarts += 1;
        }
        met.refused += self.refused;
        met.kept += self.known.values().map(|known| known.kept.len() as u64).sum::<u64>();
    }

    /// Written, and nobody was told.
    fn half_a_batch(&mut self, store: &mut Store<SimDisk>) {
        let topic = TOPICS[0];
        let known = self.known.get_mut(topic).unwrap();
        for offset in (known.kept.len() as u64 + 1..).take(8) {
            let data = data(topic, offset, self.random.below(900) as usize);
            append(store, topic, offset, offset, &data).unwrap();
            known.offered.entry(offset).or_default().insert(data);
        }
        let _ = store.write();
    }
}

fn acknowledge(
    known: &mut BTreeMap<&'static str, Known>,
    batch: impl Iterator<Item = (&'static str, Vec<u8>)>,
) {
    for (topic, data) in batch {
        known.get_mut(topic).unwrap().kept.push(data);
    }
}

/// Prints the seed if what follows panics.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failing seed: {}", self.0);
        }
    }
}

#[test]
fn what_was_acknowledged_survives_power_loss() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seeds = number("STENTOR_SIM_SEEDS").unwrap_or(SEEDS);
    let first = number("STENTOR_SIM_SEED").unwrap_or(0);
    let mut met = Met::default();
    for seed in first..first + seeds {
        let run = Run::new(seed);
        let _seed = Seed(run.seed);
        run.go(&mut met);
    }
    if seeds >= 100 {
        let Met { refused, kept, cut, survivors, moved, reused } = met;
        assert!(refused > seeds / 10, "{refused} batches refused");
        assert!(kept > seeds * 50, "{kept} publications kept");
        assert!(reused > seeds / 10, "{reused} files used again");
        assert!(cut > seeds / 10, "{cut} unfinished writes cut");
        assert!(survivors > seeds / 10, "{survivors} unacknowledged publications came through");
        assert!(moved > seeds, "{moved} publications moved by cleaning");
    }
}
