//! The proof that travels in every payload: who published it, as which of its publications, when, and
//! a checksum. Letters only, so that it is the same in JSON and outside.
//!
//! ```text
//! "~s SSSS TTTT NNNNNN MMMMMMMM CCCCC abcdefgh…"     without the spaces
//!     source    number          checksum
//!          topic       time, ns       filler up to the size asked for
//! ```

use std::ops::Range;

const MARKER: &[u8; 2] = b"~s";
/// Six bits each, all of them plain in JSON.
const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const NO_DIGIT: u8 = 0xFF;
const VALUES: [u8; 256] = values();

const SOURCE: Range<usize> = 2..6;
const TOPIC: Range<usize> = 6..10;
const NUMBER: Range<usize> = 10..16;
const TIME: Range<usize> = 16..24;
const CHECKSUM: Range<usize> = 24..29;
const STAMP_BYTES: usize = CHECKSUM.end;
const CHECKSUM_BITS: u32 = 30;

/// The shortest payload: a stamp between its quotes.
pub const DATA_BYTES_MIN: usize = STAMP_BYTES + 2;

/// What one payload says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Publisher, or connection; below 2^24.
    pub source: u32,
    /// Below 2^24.
    pub topic: u32,
    /// Counts from 0 for each source and topic.
    pub number: u32,
    /// When it was sent, or in an open loop should have been; below 2^48, which is three days.
    pub sent_ns: u64,
}

/// A payload that carries the marker but is not what was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Corrupt;

/// Payloads of one size.
#[derive(Debug, Clone)]
pub struct Payload {
    /// What follows the stamp: the filler and the closing quote.
    tail: Vec<u8>,
}

impl Payload {
    /// JSON strings of `data_bytes`, with their quotes; at least [`DATA_BYTES_MIN`].
    pub fn new(data_bytes: usize) -> Self {
        debug_assert!(data_bytes >= DATA_BYTES_MIN);
        let filler = (b'a'..=b'z').cycle().take(data_bytes - DATA_BYTES_MIN);
        Self { tail: filler.chain([b'"']).collect() }
    }

    /// Appends the payload that carries `stamp`.
    pub fn write(&self, stamp: Stamp, out: &mut Vec<u8>) {
        let mut text = [0; STAMP_BYTES];
        text[..2].copy_from_slice(MARKER);
        encode(u64::from(stamp.source), &mut text[SOURCE]);
        encode(u64::from(stamp.topic), &mut text[TOPIC]);
        encode(u64::from(stamp.number), &mut text[NUMBER]);
        encode(stamp.sent_ns, &mut text[TIME]);
        encode(checksum(stamp), &mut text[CHECKSUM]);
        out.push(b'"');
        out.extend_from_slice(&text);
        out.extend_from_slice(&self.tail);
    }

    /// The stamp in `message`, every byte of its payload checked; `None` if there is none. `place` is
    /// where the last one was: messages of one kind have it in the same place.
    pub fn read(&self, message: &[u8], place: &mut usize) -> Option<Result<Stamp, Corrupt>> {
        if !message.get(*place..).is_some_and(|rest| rest.starts_with(MARKER)) {
            *place = message.windows(MARKER.len()).position(|bytes| bytes == MARKER)?;
        }
        let text = &message[*place..];
        Some(self.check(text).ok_or(Corrupt))
    }

    fn check(&self, text: &[u8]) -> Option<Stamp> {
        let stamp = Stamp {
            source: decode(text.get(SOURCE)?)? as u32,
            topic: decode(text.get(TOPIC)?)? as u32,
            number: decode(text.get(NUMBER)?)?.try_into().ok()?,
            sent_ns: decode(text.get(TIME)?)?,
        };
        let intact = decode(text.get(CHECKSUM)?)? == checksum(stamp)
            && text.get(STAMP_BYTES..STAMP_BYTES + self.tail.len())? == self.tail;
        intact.then_some(stamp)
    }
}

fn checksum(stamp: Stamp) -> u64 {
    let mut sum = 0x9E37_79B9_7F4A_7C15_u64;
    let who = u64::from(stamp.source) << 32 | u64::from(stamp.topic);
    for word in [who, u64::from(stamp.number), stamp.sent_ns] {
        sum = (sum ^ word).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        sum ^= sum >> 31;
    }
    sum >> (u64::BITS - CHECKSUM_BITS)
}

fn encode(mut number: u64, out: &mut [u8]) {
    for digit in out.iter_mut().rev() {
        *digit = DIGITS[(number & 63) as usize];
        number >>= 6;
    }
    debug_assert_eq!(number, 0);
}

fn decode(digits: &[u8]) -> Option<u64> {
    let mut number = 0;
    let mut seen = 0;
    for digit in digits {
        let value = VALUES[usize::from(*digit)];
        seen |= value;
        number = number << 6 | u64::from(value & 63);
    }
    (seen < 64).then_some(number)
}

const fn values() -> [u8; 256] {
    let mut values = [NO_DIGIT; 256];
    let mut value = 0;
    while value < DIGITS.len() {
        values[DIGITS[value] as usize] = value as u8;
        value += 1;
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp =
        Stamp { source: 17, topic: 4999, number: 4_000_000_000, sent_ns: 987_654_321_012 };

    #[test]
    fn a_stamp_comes_back_from_any_envelope() {
        for size in [DATA_BYTES_MIN, 64, 1024] {
            let payload = Payload::new(size);
            let mut data = Vec::new();
            payload.write(STAMP, &mut data);
            assert_eq!(data.len(), size);
            assert!(serde_json::from_slice::<String>(&data).is_ok());
            let mut place = 0;
            for before in ["", r#"{"channel":"a","data":"#, "{"] {
                let message = [before.as_bytes(), &data, b"}"].concat();
                assert_eq!(payload.read(&message, &mut place), Some(Ok(STAMP)));
            }
            assert_eq!(payload.read(br#"{"type":"pong"}"#, &mut place), None);
        }
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let payload = Payload::new(64);
        let mut data = Vec::new();
        payload.write(STAMP, &mut data);
        for index in 3..data.len() {
            let mut changed = data.clone();
            changed[index] ^= 1;
            assert_eq!(payload.read(&changed, &mut 0), Some(Err(Corrupt)), "byte {index}");
        }
        assert_eq!(payload.read(&data[..40], &mut 0), Some(Err(Corrupt)));
    }
}
