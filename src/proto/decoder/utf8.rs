//! Text that arrives in pieces: validated once, as it comes, cut anywhere.

use std::str;

/// The bytes so far are not the beginning of any UTF-8 text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct InvalidUtf8;

/// Assembles a text from chunks and fails on the first chunk that cannot belong to one. Each byte
/// is looked at once, so the cost is linear for chunks of any size.
#[derive(Debug, Default)]
pub(super) struct TextAssembler {
    text: String,
    /// The beginning of a character whose end has not arrived.
    /// Invariant: `tail[..tail_len]` is a valid, incomplete sequence.
    tail: [u8; 4],
    tail_len: u8,
}

impl TextAssembler {
    /// Bytes taken so far.
    pub fn len(&self) -> usize {
        self.text.len() + usize::from(self.tail_len)
    }

    pub fn push(&mut self, chunk: &[u8]) -> Result<(), InvalidUtf8> {
        let chunk = self.complete_tail(chunk)?;
        let (whole, tail) = split_incomplete(chunk);
        let whole = simdutf8::basic::from_utf8(whole).map_err(|_| InvalidUtf8)?;
        self.text.push_str(whole);
        if !tail.is_empty() {
            check_beginning(tail)?;
            self.keep_tail(tail);
        }
        Ok(())
    }

    /// The whole text.
    ///
    /// # Errors
    ///
    /// The last character is incomplete.
    pub fn finish(self) -> Result<String, InvalidUtf8> {
        if self.tail_len == 0 { Ok(self.text) } else { Err(InvalidUtf8) }
    }

    /// Feeds the incomplete character byte by byte and returns what follows it.
    fn complete_tail<'a>(&mut self, mut chunk: &'a [u8]) -> Result<&'a [u8], InvalidUtf8> {
        while self.tail_len > 0 {
            let Some((&byte, rest)) = chunk.split_first() else {
                break;
            };
            chunk = rest;
            let mut bytes = self.tail;
            let len = usize::from(self.tail_len) + 1;
            // At most 3 bytes are ever kept, so there is room for one more.
            let Some(slot) = bytes.get_mut(len - 1) else {
                return Err(InvalidUtf8);
            };
            *slot = byte;
            let sequence = bytes.get(..len).ok_or(InvalidUtf8)?;
            match str::from_utf8(sequence) {
                Ok(character) => {
                    self.text.push_str(character);
                    self.tail_len = 0;
                }
                Err(error) if error.error_len().is_none() => {
                    self.tail = bytes;
                    self.tail_len += 1;
                }
                Err(_) => return Err(InvalidUtf8),
            }
        }
        Ok(chunk)
    }

    fn keep_tail(&mut self, tail: &[u8]) {
        for (slot, &byte) in self.tail.iter_mut().zip(tail) {
            *slot = byte;
        }
        self.tail_len = tail.len() as u8; // at most 3, see `split_incomplete`
    }
}

/// Cuts off a last character of which only the beginning is there: at most 3 bytes.
fn split_incomplete(bytes: &[u8]) -> (&[u8], &[u8]) {
    for (i, &byte) in bytes.iter().rev().take(3).enumerate() {
        let width = match byte {
            0x80..=0xBF => continue,
            0xC0..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xFF => 4,
            0x00..=0x7F => 1,
        };
        let present = i + 1;
        let cut = if width > present { bytes.len() - present } else { bytes.len() };
        return bytes.split_at(cut);
    }
    (bytes, &[])
}

/// Whether some text starts with these bytes, which end within a character.
fn check_beginning(tail: &[u8]) -> Result<(), InvalidUtf8> {
    match str::from_utf8(tail) {
        Err(error) if error.error_len().is_some() => Err(InvalidUtf8),
        Ok(_) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn assemble<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Result<String, InvalidUtf8> {
        let mut assembler = TextAssembler::default();
        for chunk in chunks {
            assembler.push(chunk)?;
        }
        assembler.finish()
    }

    #[test]
    fn characters_survive_every_cut() {
        let text = "aé✓😀z\u{7ff}\u{800}\u{ffff}\u{10000}\u{10ffff}";
        for first in 0..=text.len() {
            for second in first..=text.len() {
                let bytes = text.as_bytes();
                let cut = [&bytes[..first], &bytes[first..second], &bytes[second..]];
                assert_eq!(assemble(cut), Ok(text.to_owned()));
            }
        }
        assert_eq!(assemble(text.as_bytes().chunks(1)), Ok(text.to_owned()));
    }

    #[test]
    fn the_first_bad_byte_fails() {
        // Overlong, surrogate, beyond U+10FFFF, lone continuation: each fails before its end.
        let beginnings: [&[u8]; 6] =
            [b"\xc0", b"\xe0\x80", b"\xed\xa0", b"\xf4\x90", b"\xf5", b"a\x80"];
        for bytes in beginnings {
            let mut whole = TextAssembler::default();
            assert_eq!(whole.push(bytes), Err(InvalidUtf8), "{bytes:x?}");
            let mut single = TextAssembler::default();
            let verdict = bytes.chunks(1).try_for_each(|byte| single.push(byte));
            assert_eq!(verdict, Err(InvalidUtf8), "{bytes:x?}");
        }
    }

    #[test]
    fn an_incomplete_end_is_found_at_the_end() {
        let mut assembler = TextAssembler::default();
        assert_eq!(assembler.push(b"ok \xf0\x9f\x98"), Ok(()));
        assert_eq!(assembler.len(), 6);
        assert_eq!(assembler.finish(), Err(InvalidUtf8));
    }

    proptest! {
        #[test]
        fn agrees_with_std_on_any_bytes_in_any_chunks(
            pieces in prop::collection::vec(
                prop_oneof![
                    prop::collection::vec(any::<u8>(), 0..6),
                    "\\PC{0,12}".prop_map(String::into_bytes),
                    prop::collection::vec(prop::sample::select(
                        &[0xE2u8, 0x9C, 0x93, 0xF0, 0x9F, 0x98, 0x80, 0xC3, 0xA9, 0x41][..]), 0..8),
                ], 0..8)
        ) {
            let whole = pieces.concat();
            let expected = String::from_utf8(whole).map_err(|_| InvalidUtf8);
            prop_assert_eq!(assemble(pieces.iter().map(Vec::as_slice)), expected);
        }
    }
}
