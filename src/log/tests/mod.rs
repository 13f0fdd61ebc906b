//! The store against a model, through power losses, and over damaged bytes.

mod damage;
mod locating;
mod model;
mod power;
mod retention;
mod reuse;
mod thread;

use super::disk::Disk;
use super::reading::ReadLimits;
use super::record::{Kind, Record};
use super::recovery::Note;
use super::retention::Retention;
use super::store::{Refused, Store, StoreLimits};
use super::topics::TopicSlot;
use crate::ids::TopicName;
use crate::message::LogSlice;

const EPOCH: u64 = 77;
const ALL: ReadLimits = ReadLimits { records: 1000, bytes: 1 << 20 };

/// Small, so that segments end often.
const SMALL: StoreLimits = StoreLimits {
    segment_bytes: 4096,
    store_bytes: 0,
    topics_max: 1000,
    forget_after_ms: u64::MAX,
};

fn open<D: Disk>(disk: D, limits: StoreLimits, retention: Retention) -> (Store<D>, Vec<Note>) {
    Store::open(disk, 42, limits, Box::new(move |_| retention))
        .unwrap_or_else(|error| panic!("{error}"))
}

/// Data that tells where it belongs, of some length.
fn data(topic: &str, offset: u64, length: usize) -> Vec<u8> {
    let mut data = format!("\"{topic} {offset} ").into_bytes();
    data.resize(data.len().max(length), b'.');
    data.push(b'"');
    data
}

fn append<D: Disk>(
    store: &mut Store<D>,
    topic: &str,
    offset: u64,
    time_ms: u64,
    data: &[u8],
) -> Result<TopicSlot, Refused> {
    let kind = Kind::Publication;
    // An epoch of one's own is only taken where the topic is unknown.
    let epoch = store.topics.find(topic).map_or(EPOCH, |_| store.position(topic).epoch);
    let record = Record { kind, topic, epoch, offset, time_ms, message_id: None, data };
    store.append(&record, offset.saturating_sub(1))
}

/// One record, durable.
fn put<D: Disk>(store: &mut Store<D>, topic: &str, offset: u64) {
    store.prepare().unwrap();
    append(store, topic, offset, offset, &data(topic, offset, 40)).unwrap();
    store.commit().unwrap();
}

fn offsets(slice: &LogSlice) -> Vec<u64> {
    slice.records.iter().map(|record| record.offset).collect()
}
