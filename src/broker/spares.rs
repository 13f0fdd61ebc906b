//! Memory of publications that are trimmed, for the next ones: a history at its bound takes as many in as it
//! lets go, and what goes has lain too long to be near.

use bytes::Bytes;

use crate::io::FRAME_OVERHEAD_BYTES;

/// Pieces that wait.
const PIECES_MAX: usize = 256;
/// Longest piece that is kept.
const PIECE_BYTES_MAX: usize = 4 << 10;
/// What a frame may leave unused of its memory, beside an eighth: half of what is counted for each anyway.
const SLACK_BYTES: usize = FRAME_OVERHEAD_BYTES / 2;

/// A bounded stack of memory.
#[derive(Debug, Default)]
pub struct Spares(Vec<Vec<u8>>);

impl Spares {
    /// Takes the memory of a frame, if nobody else has it.
    pub fn put(&mut self, frame: Bytes) {
        if self.0.len() < PIECES_MAX
            && (1..=PIECE_BYTES_MAX).contains(&frame.len())
            && let Ok(mut frame) = frame.try_into_mut()
        {
            frame.clear();
            self.0.push(frame.into());
        }
    }

    /// Empty memory for a frame of at least that length; without room if the next piece does not suit it, which
    /// is given up then: others are as long, or have been.
    pub fn take(&mut self, bytes: usize) -> Vec<u8> {
        let most = bytes + bytes / 8 + SLACK_BYTES;
        let fits = |piece: &Vec<u8>| (bytes..=most).contains(&piece.capacity());
        self.0.pop().filter(fits).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_a_frame_serves_again_if_nobody_else_has_it() {
        let mut spares = Spares::default();
        for (bytes, why) in [(301, "too short"), (200, "much too long")] {
            spares.put(Bytes::from(vec![1; 300]));
            assert_eq!(spares.take(bytes).capacity(), 0, "{why}");
        }
        let frame = Bytes::from(vec![1; 300]);
        let place = frame.as_ptr();
        spares.put(frame);
        let piece = spares.take(290);
        assert_eq!((piece.as_ptr(), piece.len()), (place, 0));
        let frame = Bytes::from(piece);
        let _shared = frame.clone();
        spares.put(frame);
        assert_eq!(spares.take(0).capacity(), 0);
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut spares = Spares::default();
        spares.put(Bytes::from(vec![0; PIECE_BYTES_MAX + 1]));
        spares.put(Bytes::new());
        assert!(spares.0.is_empty());
        for _ in 0..PIECES_MAX + 10 {
            spares.put(Bytes::from(vec![0; 10]));
        }
        assert_eq!(spares.0.len(), PIECES_MAX);
    }
}
