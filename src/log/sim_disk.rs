//! A disk that fails as disks do, from a seed: what is not synced may be lost in any part, writes are
//! torn at sectors, room ends, syncs and reads fail. Not a file of it is real.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use super::disk::{Disk, DiskFile};

/// Bytes that are written whole or not at all.
const SECTOR: usize = 512;
/// What a full disk answers.
const ENOSPC: i32 = 28;
/// What a broken one answers.
const EIO: i32 = 5;

/// Chances of faults, in one of so many; 0: never.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    pub write: u32,
    pub sync: u32,
    pub read: u32,
}

#[derive(Debug, Clone, Default)]
struct Data {
    /// As a reader of the running system sees it.
    now: Vec<u8>,
    /// As it is after a power loss.
    durable: Vec<u8>,
    /// Sectors that are to be written yet.
    dirty: BTreeSet<usize>,
}

#[derive(Debug)]
struct State {
    files: Vec<Data>,
    /// Names of files, as seen now and after a power loss.
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    faults: Faults,
    /// Bytes of all files; `None`: no bound.
    room: Option<usize>,
    random: Random,
    syncs: u64,
    /// Syncs wait.
    held: bool,
    /// Whether a sync waits.
    is_waiting: bool,
}

/// A linear congruential generator: the same numbers from the same seed for ever.
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mixed = (self.0 ^ self.0 >> 31).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^ mixed >> 32
    }

    /// Less than `count`, which is not 0.
    pub fn below(&mut self, count: u64) -> u64 {
        self.next() % count
    }

    pub fn one_in(&mut self, chance: u32) -> bool {
        chance > 0 && self.below(u64::from(chance)) == 0
    }
}

/// The disk; clones are the same one.
#[derive(Debug, Clone)]
pub struct SimDisk(Arc<Mutex<State>>);

/// An open file of it.
#[derive(Debug)]
pub struct SimFile {
    disk: SimDisk,
    file: usize,
}

impl SimDisk {
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            files: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            faults: Faults::default(),
            room: None,
            random: Random(seed),
            syncs: 0,
            held: false,
            is_waiting: false,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no test panics while it holds it")
    }

    pub fn set_faults(&self, faults: Faults) {
        self.state().faults = faults;
    }

    /// Bytes that fit; `None`: all.
    pub fn set_room(&self, room: Option<usize>) {
        self.state().room = room;
    }

    /// Bytes of all files.
    pub fn used(&self) -> usize {
        self.state().used()
    }

    /// Lets syncs of files wait, or go on.
    pub fn hold_syncs(&self, held: bool) {
        self.state().held = held;
    }

    /// Whether a sync has begun that is held.
    pub fn holds_a_sync(&self) -> bool {
        self.state().is_waiting
    }

    /// Successful syncs of files so far.
    pub fn syncs(&self) -> u64 {
        self.state().syncs
    }

    /// The power goes and comes back: of what was not synced any part is there.
    pub fn lose_power(&self) {
        let mut state = self.state();
        let State { files, names, durable_names, random, .. } = &mut *state;
        for data in files.iter_mut() {
            data.flush(random, 2);
            let (durable, now) = (data.durable.len(), data.now.len());
            if now > durable && random.one_in(2) {
                // The length may be on disk before the bytes are.
                let length = durable + random.below((now - durable) as u64 + 1) as usize;
                data.durable.resize(length, 0);
            }
            data.now = data.durable.clone();
        }
        // Each change of the folder is there or not.
        let changed: BTreeSet<String> = names.keys().chain(durable_names.keys()).cloned().collect();
        for name in changed {
            let (now, durable) = (names.get(&name).copied(), durable_names.get(&name).copied());
            if now != durable && random.one_in(2) {
                match now {
                    Some(file) => durable_names.insert(name, file),
                    None => durable_names.remove(&name),
                };
            }
        }
        *names = durable_names.clone();
    }

    /// The bytes of a file, to damage them.
    pub fn alter(&self, name: &str, alter: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        let file = state.names[name];
        let data = &mut state.files[file];
        alter(&mut data.now);
        data.durable = data.now.clone();
        data.dirty.clear();
    }

    /// The same files on a disk of its own, without faults.
    pub fn copy(&self) -> Self {
        let state = self.state();
        Self(Arc::new(Mutex::new(State {
            files: state.files.clone(),
            names: state.names.clone(),
            durable_names: state.durable_names.clone(),
            faults: Faults::default(),
            room: None,
            random: state.random.clone(),
            syncs: 0,
            held: false,
            is_waiting: false,
        })))
    }

    fn file(&self, file: usize) -> SimFile {
        SimFile { disk: self.clone(), file }
    }
}

impl State {
    fn used(&self) -> usize {
        self.names.values().map(|&file| self.files[file].now.len()).sum()
    }

    fn find(&self, name: &str) -> io::Result<usize> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn fails(&mut self, chance: u32) -> io::Result<()> {
        if self.random.one_in(chance) { Err(io::Error::from_raw_os_error(EIO)) } else { Ok(()) }
    }
}

impl Data {
    /// Writes some dirty sectors, one of `chance` is left out; none is dirty afterwards.
    fn flush(&mut self, random: &mut Random, chance: u32) {
        for sector in std::mem::take(&mut self.dirty) {
            if !random.one_in(chance) {
                let start = sector * SECTOR;
                let end = self.now.len().min(start + SECTOR);
                if start < end {
                    if self.durable.len() < end {
                        self.durable.resize(end, 0);
                    }
                    self.durable[start..end].copy_from_slice(&self.now[start..end]);
                }
            }
        }
    }
}

impl Disk for SimDisk {
    type File = SimFile;

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.state().names.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<SimFile> {
        let mut state = self.state();
        let chance = state.faults.write;
        state.fails(chance)?;
        // A new file in place of the old one, as if that had been removed first: the harder case.
        state.files.push(Data::default());
        let file = state.files.len() - 1;
        state.names.insert(name.to_string(), file);
        drop(state);
        Ok(self.file(file))
    }

    fn open(&self, name: &str) -> io::Result<SimFile> {
        let file = self.state().find(name)?;
        Ok(self.file(file))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.find(name)?;
        let chance = state.faults.write;
        state.fails(chance)?;
        state.names.remove(name);
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        let file = state.find(from)?;
        let chance = state.faults.write;
        state.fails(chance)?;
        state.names.remove(from);
        state.names.insert(to.to_string(), file);
        Ok(())
    }

    fn sync_folder(&self) -> io::Result<()> {
        let mut state = self.state();
        let chance = state.faults.sync;
        state.fails(chance)?;
        state.durable_names = state.names.clone();
        Ok(())
    }
}

impl DiskFile for SimFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.disk.state().files[self.file].now.len() as u64)
    }

    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        let chance = state.faults.read;
        state.fails(chance)?;
        let at = at as usize;
        let wanted = state.files[self.file].now.get(at..at + bytes.len());
        bytes.copy_from_slice(wanted.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&mut self, bytes: &[u8], at: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        let at = at as usize;
        let mut count = bytes.len();
        let mut outcome = Ok(());
        if let Some(room) = state.room {
            let length = state.files[self.file].now.len();
            let left = room.saturating_sub(state.used()) + length.saturating_sub(at);
            if left < count {
                count = left;
                outcome = Err(io::Error::from_raw_os_error(ENOSPC));
            }
        }
        let chance = state.faults.write;
        if state.random.one_in(chance) {
            count = state.random.below(count as u64 + 1) as usize;
            outcome = Err(io::Error::from_raw_os_error(EIO));
        }
        if count > 0 {
            let data = &mut state.files[self.file];
            if data.now.len() < at + count {
                data.now.resize(at + count, 0);
            }
            data.now[at..at + count].copy_from_slice(&bytes[..count]);
            data.dirty.extend(at / SECTOR..=(at + count - 1) / SECTOR);
        }
        outcome
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        let chance = state.faults.write;
        state.fails(chance)?;
        state.files[self.file].now.truncate(length as usize);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.disk.state();
        while state.held {
            state.is_waiting = true;
            drop(state);
            std::thread::yield_now();
            state = self.disk.state();
        }
        state.is_waiting = false;
        let chance = state.faults.sync;
        if state.random.one_in(chance) {
            // As Linux has it: some pages were written, and none counts as dirty any more.
            let State { files, random, .. } = &mut *state;
            files[self.file].flush(random, 2);
            return Err(io::Error::from_raw_os_error(EIO));
        }
        state.syncs += 1;
        let State { files, random, .. } = &mut *state;
        let data = &mut files[self.file];
        data.flush(random, 0);
        let length = data.now.len();
        data.durable.resize(length, 0);
        Ok(())
    }
}
