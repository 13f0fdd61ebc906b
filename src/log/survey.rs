//! The segments of a store as they lie on disk, before anybody trusts them: which there are, where
//! each ends, and the way through one with whatever is damaged in it. Nothing is written.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;

use super::disk::{Disk, DiskFile, LOCK_NAME};
use super::index::{self, RunEntry, SlotRange};
use super::record::{Flaw, Kind, Record, u32_at, u64_at};
use super::segment::{
    Found, HEADER_BYTES, Header, HeaderFlaw, Scanner, index_name, log_name, number_of,
    number_of_index,
};

/// Says that a folder is a store, and which one.
pub const STORE_NAME: &str = "store";
/// The same before it is whole.
pub const STORE_NAME_NEW: &str = "store.new";
const STORE_MAGIC: &[u8; 8] = b"STENTORE";
const STORE_VERSION: u32 = 1;
const STORE_BYTES: usize = 24;

/// Why a folder is no store that this program can open. Nothing in it was changed.
#[derive(Debug)]
pub enum OpenError {
    /// There are files, but not that of a store.
    Foreign {
        file: String,
    },
    /// The file that names the store is not whole.
    Damaged {
        file: &'static str,
    },
    /// Written by another version of this program.
    Version {
        file: String,
        version: u32,
    },
    /// A segment of another store.
    OtherStore {
        file: String,
    },
    Io {
        what: String,
        error: io::Error,
    },
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign { file } => {
                write!(f, "it is not a store of Stentor, but has other files, such as {file}")
            }
            Self::Damaged { file } => write!(f, "the file {file} in it is damaged"),
            Self::Version { file, version } => {
                write!(
                    f,
                    "the file {file} in it is of format {version}, which this program cannot read"
                )
            }
            Self::OtherStore { file } => {
                write!(f, "the file {file} in it belongs to another store")
            }
            Self::Io { what, error } => write!(f, "cannot {what}: {error}"),
        }
    }
}

/// Says what was attempted.
pub fn attempt(what: impl Into<String>) -> impl FnOnce(io::Error) -> OpenError {
    |error| OpenError::Io { what: what.into(), error }
}

/// The file that makes a folder a store.
pub fn encode_store(id: u64) -> [u8; STORE_BYTES] {
    let mut bytes = [0; STORE_BYTES];
    bytes[..8].copy_from_slice(STORE_MAGIC);
    bytes[8..12].copy_from_slice(&STORE_VERSION.to_le_bytes());
    bytes[12..20].copy_from_slice(&id.to_le_bytes());
    let checksum = crc32fast::hash(&bytes[..20]);
    bytes[20..].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// Reads which store this is; `None`: the folder is empty, and may become one.
pub fn identify<D: Disk>(disk: &D) -> Result<Option<u64>, OpenError> {
    let names = disk.list().map_err(attempt("list its files"))?;
    if !names.iter().any(|name| name == STORE_NAME) {
        let ours = [LOCK_NAME, STORE_NAME_NEW];
        return match names.into_iter().find(|name| !ours.contains(&name.as_str())) {
            Some(file) => Err(OpenError::Foreign { file }),
            None => Ok(None),
        };
    }
    let read = || {
        let file = disk.open(STORE_NAME)?;
        let mut bytes = vec![0; file.length()?.min(4096) as usize];
        file.read_at(&mut bytes, 0).map(|()| bytes)
    };
    let bytes = read().map_err(attempt(format!("read its file {STORE_NAME}")))?;
    let damaged = OpenError::Damaged { file: STORE_NAME };
    if bytes.len() < STORE_BYTES || crc32fast::hash(&bytes[..20]) != u32_at(&bytes, 20) {
        return Err(damaged);
    }
    match (&bytes[..8] == STORE_MAGIC, u32_at(&bytes, 8)) {
        (true, STORE_VERSION) => Ok(Some(u64_at(&bytes, 12))),
        (true, version) => Err(OpenError::Version { file: STORE_NAME.to_string(), version }),
        (false, _) => Err(damaged),
    }
}

/// One segment file.
#[derive(Debug)]
pub struct SegmentFile<F> {
    pub number: u64,
    pub name: String,
    pub file: F,
    /// Bytes in the file.
    pub length: u64,
    /// Where its records end, if the segment behind it or its index says so.
    pub end: Option<u64>,
    /// Before here may stand what the file held as another segment.
    pub held: u64,
    /// Its header is damaged; its records may be good.
    pub header_damaged: bool,
}

/// All segments of the store, in order. One that is shorter than a header is there with no records:
/// it was being made when the server ended.
pub fn segments<D: Disk>(disk: &D, store: u64) -> Result<Vec<SegmentFile<D::File>>, OpenError> {
    let names = disk.list().map_err(attempt("list its files"))?;
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| number_of(name)).collect();
    numbers.sort_unstable();
    let mut found = Vec::new();
    let mut ends = BTreeMap::new();
    for number in numbers {
        let name = log_name(number);
        let read = || {
            let file = disk.open(&name)?;
            let length = file.length()?;
            let mut header = [0; HEADER_BYTES as usize];
            if length >= HEADER_BYTES {
                file.read_at(&mut header, 0)?;
            }
            Ok((file, length, header))
        };
        let (file, length, header) = read().map_err(attempt(format!("read its file {name}")))?;
        let mut held = 0;
        let header_damaged = match Header::decode(&header) {
            Ok(header) if header.store != store => {
                return Err(OpenError::OtherStore { file: name });
            }
            Ok(header) if header.number == number => {
                if header.previous_end >= HEADER_BYTES {
                    ends.insert(number - 1, header.previous_end);
                }
                held = u64::from(header.held);
                false
            }
            Err(HeaderFlaw::Version(version)) => {
                return Err(OpenError::Version { file: name, version });
            }
            Ok(_) | Err(HeaderFlaw::Damaged) => length > HEADER_BYTES,
        };
        found.push(SegmentFile { number, name, file, length, end: None, held, header_damaged });
    }
    for segment in &mut found {
        segment.end = ends.get(&segment.number).copied();
    }
    Ok(found)
}

/// Numbers of segments that have an index and no records, in order.
pub fn orphans<D: Disk>(disk: &D) -> Result<Vec<u64>, OpenError> {
    let names = disk.list().map_err(attempt("list its files"))?;
    let logs: BTreeSet<_> = names.iter().filter_map(|name| number_of(name)).collect();
    let indexes: BTreeSet<_> = names.iter().filter_map(|name| number_of_index(name)).collect();
    Ok(indexes.difference(&logs).copied().collect())
}

/// Of a segment that had records and has none.
pub const MISSING: &str = "the file is missing or empty; its index says that it had publications";

/// Whether a segment whose file is missing or empty had records. Whoever removes a segment removes its index
/// before them.
pub fn had_records<D: Disk>(disk: &D, store: u64, number: u64) -> bool {
    read_index(disk, store, number).is_some_and(|index| index.end > HEADER_BYTES)
}

/// The index of a segment.
pub struct FoundIndex {
    /// Where the segment ends.
    pub end: u64,
    /// Of the index itself.
    pub bytes: u64,
    pub entries: Vec<RunEntry<SlotRange>>,
}

/// The index of the segment, if it is whole.
pub fn read_index<D: Disk>(disk: &D, store: u64, number: u64) -> Option<FoundIndex> {
    let file = disk.open(&index_name(number)).ok()?;
    let mut bytes = vec![0; usize::try_from(file.length().ok()?).ok()?];
    file.read_at(&mut bytes, 0).ok()?;
    let (end, entries) = index::decode(&bytes, store, number)?;
    Some(FoundIndex { end, bytes: bytes.len() as u64, entries })
}

/// What stands in a segment, in order.
#[derive(Debug)]
pub enum Piece<'a> {
    Record {
        at: u64,
        record: Record<'a>,
    },
    /// Bytes that were on disk once, and are no records any more.
    Damage {
        from: u64,
        to: u64,
        flaw: Flaw,
    },
}

/// Where the good part of a segment ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// Before the length of the file if a write at the end was never finished, or if the file has something of
    /// an older segment there; only the segment written last can have either.
    pub at: u64,
    /// Something of this segment was written behind it.
    pub is_unfinished: bool,
}

/// Goes through a segment, and tells where its good part ends.
pub fn walk<F: DiskFile>(
    segment: &SegmentFile<F>,
    mut visit: impl FnMut(Piece<'_>),
) -> io::Result<End> {
    let wanted = segment.end.unwrap_or(segment.length);
    let end = wanted.min(segment.length);
    let mut scanner = Scanner::new(&segment.file, segment.number, end);
    // Everything before it was on disk, as far as is known without looking.
    let mut synced = segment.end.unwrap_or(0);
    if segment.header_damaged {
        // It was on disk before anything else was written.
        synced = end;
    }
    let mut looked = synced > 0;
    // Of the batch that the last mark begins.
    let (mut batch_end, mut is_awaited) = (0, false);
    let mut has_more = false;
    loop {
        let (at, flaw) = match scanner.next()? {
            None => break,
            Some((at, Found::Record(record))) => {
                if record.kind == Kind::Mark {
                    batch_end = at.saturating_add(record.epoch);
                    is_awaited = record.time_ms == 1;
                }
                visit(Piece::Record { at, record });
                continue;
            }
            Some((at, Found::Flaw(flaw))) => (at, flaw),
        };
        if !looked {
            looked = true;
            let mut ahead = scanner.fork();
            has_more = ahead.skip_flaw()? < end;
            synced = ahead.synced_later()?;
        }
        if at < batch_end && is_awaited && segment.held <= batch_end && batch_end < end {
            // The file was made longer than the batch, which was on disk by then.
            synced = synced.max(batch_end);
        }
        if at >= synced {
            let is_unfinished = at < batch_end || has_more || at >= segment.held;
            return Ok(End { at, is_unfinished });
        }
        let to = scanner.skip_flaw()?;
        visit(Piece::Damage { from: at, to, flaw });
    }
    if end < wanted {
        visit(Piece::Damage { from: end, to: wanted, flaw: Flaw::Cut });
    }
    Ok(End { at: end, is_unfinished: false })
}
