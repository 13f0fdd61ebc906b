//! Unmasking of client payloads (RFC 6455, section 5.3), in place.

/// Applies the masking key to `payload`, whose first byte is byte `phase` of the frame's payload.
///
/// Masking is its own inverse. Whole 8-byte words, so that the compiler can use vector registers.
pub(super) fn apply_mask(payload: &mut [u8], key: [u8; 4], phase: usize) {
    // 5.3: octet i of the transformed data is octet i of the original XOR octet i MODULO 4 of the
    // key. Turning the key to the phase makes the first byte of `payload` its octet 0.
    let mut key = key;
    key.rotate_left(phase % 4);
    let [a, b, c, d] = key;
    let word = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);

    let (words, tail) = payload.as_chunks_mut::<8>();
    for bytes in words {
        *bytes = (u64::from_ne_bytes(*bytes) ^ word).to_ne_bytes();
    }
    // The tail starts at a multiple of 8, so at octet 0 of the key again.
    for (byte, octet) in tail.iter_mut().zip(key.iter().cycle()) {
        *byte ^= octet;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn naive(payload: &mut [u8], key: [u8; 4], phase: usize) {
        for (i, byte) in payload.iter_mut().enumerate() {
            *byte ^= key[(i + phase) % 4];
        }
    }

    #[test]
    fn equals_the_naive_form_at_every_alignment_length_and_phase() {
        let key = [0x3d, 0x84, 0xbc, 0x7f];
        let original: Vec<u8> = (0..=255).cycle().take(300).collect();
        for start in 0..16 {
            for length in (0..70).chain(250..280) {
                for phase in 0..8 {
                    let mut fast = original.clone();
                    let mut slow = original.clone();
                    apply_mask(&mut fast[start..start + length], key, phase);
                    naive(&mut slow[start..start + length], key, phase);
                    assert_eq!(fast, slow, "start {start}, length {length}, phase {phase}");
                }
            }
        }
    }

    #[test]
    fn key_zero_changes_nothing() {
        let mut payload = *b"hello, world";
        apply_mask(&mut payload, [0; 4], 3);
        assert_eq!(&payload, b"hello, world");
    }
}
