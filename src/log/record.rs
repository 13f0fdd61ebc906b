//! One record as bytes: what stands in a segment, and how it is known to be whole.
//!
//! Little endian; the checksum is CRC-32 over everything behind it, begun with the [`Seal`] of the segment:
//!
//! ```text
//!  0 u32 checksum      8 u8  kind            16 u64 epoch      40 topic, message id, data
//!  4 u32 length        9 u8  topic length    24 u64 offset
//!    (of all of it)   10 u16 of the seal     32 u64 time, Unix ms
//!                     12 u32 length of the message id + 1; 0: there is none
//! ```

use std::fmt;

use crate::ids::check_kept_name;

/// Bytes of a record before its topic.
pub const RECORD_HEAD: usize = 40;
/// Longest record: a publication of the largest message that can be configured, and its head.
pub const RECORD_BYTES_MAX: usize = (1 << 30) + (1 << 20);

/// What the records of one segment have in common. The file of a segment may have been that of an older
/// one, whose records stand behind the new ones: whole, but sealed otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seal(u32);

impl Seal {
    /// Of the segment with this number. Numbers are not used twice.
    pub fn of(number: u64) -> Self {
        Self(number as u32)
    }

    /// The part of it that stands in each record, where a search can see it cheaply.
    pub fn mark(self) -> [u8; 2] {
        (self.0 as u16).to_le_bytes()
    }

    /// Of all of a record behind the checksum itself.
    fn checksum(self, bytes: &[u8]) -> u32 {
        let mut hasher = crc32fast::Hasher::new_with_initial(self.0);
        hasher.update(bytes);
        hasher.finalize()
    }
}

/// What a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Begins a batch. Its offset is a position in the segment: everything before that was on disk
    /// when the batch was written, so a flaw there is damage and no torn write. In the place of an epoch it has
    /// the bytes of the batch, with itself; in that of a time 1 if nothing is written behind the batch before that
    /// is on disk.
    Mark = 1,
    /// A publication, in the order of its topic.
    Publication = 2,
    /// A publication copied from an older segment, so that this one could be removed.
    Moved = 3,
    /// Where a topic is: its epoch, its next offset, and as its data (u64) the oldest that it keeps.
    Position = 4,
}

/// A record whose texts lie elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    pub kind: Kind,
    /// Empty for a [`Kind::Mark`].
    pub topic: &'a str,
    pub epoch: u64,
    /// From 1 on; see [`Kind`] for what else it may be.
    pub offset: u64,
    /// Unix time in milliseconds.
    pub time_ms: u64,
    /// As its publisher wrote it, raw JSON.
    pub message_id: Option<&'a str>,
    /// The JSON value as its publisher wrote it.
    pub data: &'a [u8],
}

/// Why bytes are no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// It would go on behind the end.
    Cut,
    /// The length in its head is none that a record can have.
    Length(u32),
    Checksum,
    /// Whole, but nothing that this version writes.
    Content,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cut => f.write_str("the record is cut off"),
            Self::Length(length) => write!(f, "a record cannot have {length} bytes"),
            Self::Checksum => f.write_str("the checksum does not match"),
            Self::Content => f.write_str("the record is of no known kind"),
        }
    }
}

impl<'a> Record<'a> {
    /// A [`Kind::Mark`] for everything before `synced`, at the beginning of so many bytes. `is_awaited`: nothing is
    /// written behind them before they are on disk.
    pub fn mark(synced: u64, batch_bytes: u64, is_awaited: bool) -> Self {
        Self {
            kind: Kind::Mark,
            topic: "",
            epoch: batch_bytes,
            offset: synced,
            time_ms: u64::from(is_awaited),
            message_id: None,
            data: &[],
        }
    }

    /// Bytes of it in a segment.
    pub fn length(&self) -> usize {
        let id = self.message_id.map_or(0, str::len);
        RECORD_HEAD + self.topic.len() + id + self.data.len()
    }

    /// Appends it to `out`. Its length is at most [`RECORD_BYTES_MAX`], its topic a valid name.
    pub fn encode(&self, seal: Seal, out: &mut Vec<u8>) {
        let length = self.length();
        debug_assert!(length <= RECORD_BYTES_MAX && self.topic.len() <= usize::from(u8::MAX));
        let start = out.len();
        let id = self.message_id.map_or(0, |id| id.len() as u32 + 1);
        let mut head = [0; RECORD_HEAD];
        head[4..8].copy_from_slice(&(length as u32).to_le_bytes());
        head[8] = self.kind as u8;
        head[9] = self.topic.len() as u8;
        head[10..12].copy_from_slice(&seal.mark());
        head[12..16].copy_from_slice(&id.to_le_bytes());
        head[16..24].copy_from_slice(&self.epoch.to_le_bytes());
        head[24..32].copy_from_slice(&self.offset.to_le_bytes());
        head[32..40].copy_from_slice(&self.time_ms.to_le_bytes());
        out.reserve(length);
        out.extend_from_slice(&head);
        out.extend_from_slice(self.topic.as_bytes());
        out.extend_from_slice(self.message_id.unwrap_or_default().as_bytes());
        out.extend_from_slice(self.data);
        let checksum = seal.checksum(&out[start + 4..]);
        out[start..start + 4].copy_from_slice(&checksum.to_le_bytes());
    }

    /// The oldest offset that a [`Kind::Position`] says is kept.
    pub fn oldest(&self) -> u64 {
        self.data.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }

    /// The record at the start of `bytes`, which may go on behind it.
    pub fn decode(bytes: &'a [u8], seal: Seal) -> Result<Self, Flaw> {
        let head = bytes.first_chunk::<RECORD_HEAD>().ok_or(Flaw::Cut)?;
        let length = length_of(head)?;
        let bytes = bytes.get(..length).ok_or(Flaw::Cut)?;
        if seal.checksum(&bytes[4..]) != u32_at(head, 0) || head[10..12] != seal.mark() {
            return Err(Flaw::Checksum);
        }
        let kind = match head[8] {
            1 => Kind::Mark,
            2 => Kind::Publication,
            3 => Kind::Moved,
            4 => Kind::Position,
            _ => return Err(Flaw::Content),
        };
        let rest = &bytes[RECORD_HEAD..];
        let (topic, rest) = rest.split_at_checked(usize::from(head[9])).ok_or(Flaw::Content)?;
        let id_length = u32_at(head, 12);
        let id_bytes = id_length.saturating_sub(1) as usize;
        let (id, data) = rest.split_at_checked(id_bytes).ok_or(Flaw::Content)?;
        let topic = str::from_utf8(topic).map_err(|_| Flaw::Content)?;
        let id = str::from_utf8(id).map_err(|_| Flaw::Content)?;
        if kind != Kind::Mark && check_kept_name(topic).is_err() {
            return Err(Flaw::Content);
        }
        Ok(Self {
            kind,
            topic,
            epoch: u64_at(head, 16),
            offset: u64_at(head, 24),
            time_ms: u64_at(head, 32),
            message_id: (id_length > 0).then_some(id),
            data,
        })
    }
}

/// The length that the head of a record gives; it has room for what else the head says is there.
pub fn length_of(head: &[u8; RECORD_HEAD]) -> Result<usize, Flaw> {
    let length = u32_at(head, 4);
    let names = usize::from(head[9]) + u32_at(head, 12).saturating_sub(1) as usize;
    let possible = RECORD_HEAD + names..=RECORD_BYTES_MAX;
    if possible.contains(&(length as usize)) {
        Ok(length as usize)
    } else {
        Err(Flaw::Length(length))
    }
}

/// The four bytes at `at`, which lie within.
pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// The eight bytes at `at`, which lie within.
pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEAL: Seal = Seal(7);

    fn record() -> Record<'static> {
        Record {
            kind: Kind::Publication,
            topic: "chat:lobby",
            epoch: 0x1234_5678_9abc_def0,
            offset: 7,
            time_ms: 1_700_000_000_000,
            message_id: Some("\"a-1\""),
            data: br#"{"text":"hello"}"#,
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        let plain = Record { message_id: None, data: b"", kind: Kind::Moved, ..record() };
        let empty_id = Record { message_id: Some(""), ..record() };
        let position = Record { kind: Kind::Position, ..plain };
        for record in [record(), plain, empty_id, position, Record::mark(99, 40, true)] {
            let mut bytes = Vec::new();
            record.encode(SEAL, &mut bytes);
            assert_eq!(bytes.len(), record.length());
            bytes.extend_from_slice(b"what follows");
            assert_eq!(Record::decode(&bytes, SEAL), Ok(record));
        }
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_seen() {
        let mut bytes = Vec::new();
        record().encode(SEAL, &mut bytes);
        for length in 0..bytes.len() {
            assert_eq!(Record::decode(&bytes[..length], SEAL), Err(Flaw::Cut), "{length}");
        }
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Record::decode(&bytes, SEAL).is_err(), "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn a_record_of_another_segment_is_none() {
        let mut bytes = Vec::new();
        record().encode(Seal::of(5), &mut bytes);
        // The third has the same mark.
        for other in [4, 6, 5 + (1 << 16)] {
            assert_eq!(Record::decode(&bytes, Seal::of(other)), Err(Flaw::Checksum), "{other}");
        }
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let mut seed = 1u64;
        for _ in 0..10_000 {
            let mut bytes = Vec::new();
            record().encode(SEAL, &mut bytes);
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let at = (seed >> 33) as usize % bytes.len();
            bytes[at] = (seed >> 20) as u8;
            // With a checksum that fits, so that what lies behind it is reached.
            let end = (u32_at(&bytes, 4) as usize).clamp(4, bytes.len());
            let checksum = SEAL.checksum(&bytes[4..end]);
            bytes[..4].copy_from_slice(&checksum.to_le_bytes());
            let _ = Record::decode(&bytes, SEAL);
        }
    }
}
