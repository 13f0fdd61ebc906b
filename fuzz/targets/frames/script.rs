//! A script of frames, mostly legal ones in a legal order: what random bytes seldom are.

/// Most bytes that a script may make.
const WIRE_BYTES_MAX: usize = 70_000;

/// Makes the frames that `script` asks for.
///
/// Each takes 2 bytes, what it is and how long, and then its payload. A length up to 240 is of bytes
/// that follow; above, it is of filler, up to beyond the limit of a message.
pub fn play(script: &[u8]) -> Vec<u8> {
    let mut wire = Vec::new();
    let mut is_open = false;
    let mut rest = script;
    while let [kind, len, behind @ ..] = rest
        && wire.len() < WIRE_BYTES_MAX
    {
        let (payload, behind) = payload(*len, behind);
        rest = behind;
        let data_opcode = |opcode| if is_open { 0 } else { opcode };
        let first = match kind % 16 {
            0..=2 => 0x80 | data_opcode(1),
            3 | 4 => 0x80 | data_opcode(2),
            5..=7 => data_opcode(1),
            8 => data_opcode(2),
            9..=11 => 0x89,
            12 => 0x8A,
            13 => 0x88,
            // Any bits, legal or not.
            _ => *kind,
        };
        match first {
            0x88.. => {}
            0x80.. => is_open = false,
            _ => is_open = true,
        }
        // The high bits: one form in 16 is not the shortest, and one frame in 16 not masked.
        let key = (kind >> 4 != 15).then_some([*kind, *len, kind ^ 0x5A, !len]);
        write_frame(first, &payload, key, kind >> 4 == 14, &mut wire);
    }
    wire
}

fn payload(len: u8, behind: &[u8]) -> (Vec<u8>, &[u8]) {
    let filler = |len| ("é".bytes().cycle().take(len).collect(), behind);
    match len {
        0..=240 => {
            let (payload, behind) = behind.split_at(behind.len().min(usize::from(len)));
            (payload.to_vec(), behind)
        }
        241..=252 => filler(usize::from(len - 241) + 120),
        253 => filler(65_535),
        254 => filler(65_536),
        255 => filler(66_001),
    }
}

fn write_frame(first: u8, payload: &[u8], key: Option<[u8; 4]>, is_wide: bool, out: &mut Vec<u8>) {
    let mask = if key.is_some() { 0x80 } else { 0 };
    out.push(first);
    match payload.len() {
        len @ 0..126 if !is_wide => out.push(mask | len as u8),
        len @ 0..65536 => {
            out.push(mask | 126);
            out.extend((len as u16).to_be_bytes());
        }
        len => {
            out.push(mask | 127);
            out.extend((len as u64).to_be_bytes());
        }
    }
    out.extend(key.iter().flatten());
    let key = key.unwrap_or_default();
    out.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, octet)| byte ^ octet));
}
