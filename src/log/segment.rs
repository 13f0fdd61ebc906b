//! A segment file: its name, its header, and the way through its records past whatever is damaged.

use std::io;

use super::disk::DiskFile;
use super::record::{Flaw, Kind, RECORD_HEAD, Record, Seal, length_of, u32_at, u64_at};

/// Bytes before the first record.
pub const HEADER_BYTES: u64 = 48;
const MAGIC: &[u8; 8] = b"STENTLOG";
/// Changes when what was written before can no longer be read.
const VERSION: u32 = 2;
const SPARE_SUFFIX: &str = ".spare";
/// Bytes read at once.
const CHUNK: usize = 1 << 20;

/// `0000000001.log`: the records.
pub fn log_name(number: u64) -> String {
    format!("{number:010}.log")
}

/// `0000000001.index`: where they are.
pub fn index_name(number: u64) -> String {
    format!("{number:010}.index")
}

/// `0000000001.spare`: the file of a segment that was removed, to be that of a later one. To write where a
/// file has been written before is faster to make durable than to write behind its end: the file system has
/// nothing to note.
pub fn spare_name(number: u64) -> String {
    format!("{number:010}{SPARE_SUFFIX}")
}

pub fn is_spare(name: &str) -> bool {
    let number = name.strip_suffix(SPARE_SUFFIX).and_then(|digits| digits.parse().ok());
    number.is_some_and(|number| spare_name(number) == name)
}

/// There is one before it, and one behind it.
fn is_number(number: u64) -> bool {
    (1..u64::MAX).contains(&number)
}

/// The number of the segment whose records are in the file of that name.
pub fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".log")?;
    let number = digits.parse().ok()?;
    (is_number(number) && log_name(number) == name).then_some(number)
}

/// The number of the segment whose index is in the file of that name.
pub fn number_of_index(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".index")?;
    let number = digits.parse().ok()?;
    (is_number(number) && index_name(number) == name).then_some(number)
}

/// What a segment says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The store it belongs to.
    pub store: u64,
    pub number: u64,
    /// Where the segment before this one ends. What stands behind that was given up after a failed
    /// write: it was never acknowledged, and its offsets have been given again.
    pub previous_end: u64,
    /// Bytes that the file had before, of an older segment; 0: it is a new one.
    pub held: u32,
}

/// Why a file is no segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderFlaw {
    /// Of another version of this program.
    Version(u32),
    Damaged,
}

impl Header {
    pub fn encode(&self) -> [u8; HEADER_BYTES as usize] {
        let mut bytes = [0; HEADER_BYTES as usize];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.store.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.number.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.previous_end.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.held.to_le_bytes());
        let checksum = crc32fast::hash(&bytes[..44]);
        bytes[44..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    pub fn decode(bytes: &[u8; HEADER_BYTES as usize]) -> Result<Self, HeaderFlaw> {
        if &bytes[..8] != MAGIC || crc32fast::hash(&bytes[..44]) != u32_at(bytes, 44) {
            return Err(HeaderFlaw::Damaged);
        }
        match u32_at(bytes, 8) {
            VERSION => Ok(Self {
                store: u64_at(bytes, 16),
                number: u64_at(bytes, 24),
                previous_end: u64_at(bytes, 32),
                held: u32_at(bytes, 40),
            }),
            other => Err(HeaderFlaw::Version(other)),
        }
    }
}

/// Goes through the records of one file, from its header to `end`.
pub struct Scanner<'f, F> {
    file: &'f F,
    seal: Seal,
    /// Of the next record.
    at: u64,
    /// Nothing at or behind it is read. Within the file.
    end: u64,
    /// Bytes of the file from `chunk_at` on.
    chunk: Vec<u8>,
    chunk_at: u64,
}

/// What stands at a position.
#[derive(Debug, PartialEq, Eq)]
pub enum Found<'a> {
    Record(Record<'a>),
    Flaw(Flaw),
}

impl<'f, F: DiskFile> Scanner<'f, F> {
    /// `number`: of the segment.
    pub fn new(file: &'f F, number: u64, end: u64) -> Self {
        let seal = Seal::of(number);
        Self { file, seal, at: HEADER_BYTES, end, chunk: Vec::new(), chunk_at: 0 }
    }

    /// What stands next, and where; `None` at the end. A flaw is found again and again: see
    /// [`Scanner::skip_flaw`].
    pub fn next(&mut self) -> io::Result<Option<(u64, Found<'_>)>> {
        let at = self.at;
        if at >= self.end {
            return Ok(None);
        }
        let length = match self.length_at(at)? {
            Ok(length) => length,
            Err(flaw) => return Ok(Some((at, Found::Flaw(flaw)))),
        };
        self.load(at, length)?;
        let start = (at - self.chunk_at) as usize;
        let found = match Record::decode(&self.chunk[start..start + length], self.seal) {
            Ok(record) => {
                self.at += length as u64;
                Found::Record(record)
            }
            Err(flaw) => Found::Flaw(flaw),
        };
        Ok(Some((at, found)))
    }

    /// Goes to the next whole record behind a flaw, or to the end.
    pub fn skip_flaw(&mut self) -> io::Result<u64> {
        let mut at = self.at + 1;
        let mark = self.seal.mark();
        while at + RECORD_HEAD as u64 <= self.end {
            self.load(at, RECORD_HEAD)?;
            let chunk = &self.chunk[(at - self.chunk_at) as usize..];
            // Cheap to see, and true of one position in ten million.
            let plausible = |head: &[u8]| (1..=4).contains(&head[8]) && head[10..12] == mark;
            match chunk.windows(RECORD_HEAD).position(plausible) {
                Some(further) => at += further as u64,
                None => {
                    at += (chunk.len() - RECORD_HEAD) as u64 + 1;
                    continue;
                }
            }
            if let Ok(length) = self.length_at(at)? {
                self.load(at, length)?;
                let start = (at - self.chunk_at) as usize;
                if Record::decode(&self.chunk[start..start + length], self.seal).is_ok() {
                    self.at = at;
                    return Ok(at);
                }
            }
            at += 1;
        }
        self.at = self.end;
        Ok(self.end)
    }

    /// The highest position that a batch behind this one says was on disk before it.
    pub fn synced_later(mut self) -> io::Result<u64> {
        let mut synced = 0;
        loop {
            match self.next()? {
                None => return Ok(synced),
                Some((_, Found::Record(record))) => {
                    if record.kind == Kind::Mark {
                        synced = synced.max(record.offset);
                    }
                }
                Some((_, Found::Flaw(_))) => {
                    self.skip_flaw()?;
                }
            }
        }
    }

    /// The same way again, from here.
    pub fn fork(&self) -> Self {
        Self { chunk: Vec::new(), chunk_at: 0, ..*self }
    }

    fn length_at(&mut self, at: u64) -> io::Result<Result<usize, Flaw>> {
        let left = self.end - at;
        if left < RECORD_HEAD as u64 {
            return Ok(Err(Flaw::Cut));
        }
        self.load(at, RECORD_HEAD)?;
        let start = (at - self.chunk_at) as usize;
        let head = self.chunk[start..].first_chunk().expect("it was loaded");
        Ok(match length_of(head) {
            Ok(length) if length as u64 > left => Err(Flaw::Cut),
            length => length,
        })
    }

    /// Makes the chunk hold `length` bytes from `at` on, which lie before the end.
    fn load(&mut self, at: u64, length: usize) -> io::Result<()> {
        let chunk_end = self.chunk_at + self.chunk.len() as u64;
        if at >= self.chunk_at && at + length as u64 <= chunk_end {
            return Ok(());
        }
        let wanted = length.max(CHUNK).min((self.end - at) as usize);
        self.chunk.resize(wanted, 0);
        self.chunk_at = at;
        let read = self.file.read_at(&mut self.chunk, at);
        if read.is_err() {
            self.chunk.clear();
        }
        read
    }
}
