//! The grammar of RFC 8259. Each function takes the bytes at which something begins and returns the
//! bytes behind it, or an error if it is not there.

use crate::proto::json::JsonError;

/// Most arrays and objects that may be open at once, the outermost included.
pub const DEPTH_MAX: u32 = 64;

type Rest<'a> = Result<&'a [u8], JsonError>;

/// A value inside of `depth` open containers.
#[inline]
pub(super) fn value(rest: &[u8], depth: u32) -> Rest<'_> {
    match rest {
        [b'"', content @ ..] => string_end(content).map(|(behind, _)| behind),
        _ => any_value(rest, depth),
    }
}

/// A loop and one word, where a grammar has recursion.
fn any_value(mut rest: &[u8], depth: u32) -> Rest<'_> {
    // One bit for each container opened here, the innermost lowest; 1 is an object.
    let mut objects: u64 = 0;
    let mut open = 0;
    loop {
        // A value begins here.
        rest = match whitespace(rest) {
            [b'"', content @ ..] => string_end(content)?.0,
            [first @ (b'{' | b'['), inside @ ..] => {
                open += 1;
                if depth + open > DEPTH_MAX {
                    return Err(JsonError::TooDeep);
                }
                let is_object = *first == b'{';
                objects = objects << 1 | u64::from(is_object);
                match (whitespace(inside), is_object) {
                    ([b'}', rest @ ..], true) | ([b']', rest @ ..], false) => {
                        open -= 1;
                        objects >>= 1;
                        rest
                    }
                    (member, true) => {
                        rest = key(member)?;
                        continue;
                    }
                    (element, false) => {
                        rest = element;
                        continue;
                    }
                }
            }
            [b'-', digits @ ..] => number(digits)?,
            digits @ [b'0'..=b'9', ..] => number(digits)?,
            [b't', b'r', b'u', b'e', rest @ ..] => rest,
            [b'f', b'a', b'l', b's', b'e', rest @ ..] => rest,
            [b'n', b'u', b'l', b'l', rest @ ..] => rest,
            _ => return Err(JsonError::Syntax),
        };
        // A value ended here, and with it perhaps the containers around it.
        loop {
            if open == 0 {
                return Ok(rest);
            }
            match (whitespace(rest), objects & 1 == 1) {
                ([b',', next @ ..], true) => {
                    rest = key(whitespace(next))?;
                    break;
                }
                ([b',', next @ ..], false) => {
                    rest = next;
                    break;
                }
                ([b'}', behind @ ..], true) | ([b']', behind @ ..], false) => rest = behind,
                _ => return Err(JsonError::Syntax),
            }
            open -= 1;
            objects >>= 1;
        }
    }
}

/// White space, if any (section 2).
#[inline]
pub(super) fn whitespace(rest: &[u8]) -> &[u8] {
    match rest {
        [first, ..] if *first > b' ' => rest,
        _ => behind_whitespace(rest),
    }
}

fn behind_whitespace(mut rest: &[u8]) -> &[u8] {
    while let [b' ' | b'\n' | b'\r' | b'\t', behind @ ..] = rest {
        rest = behind;
    }
    rest
}

/// A key and its colon.
#[inline]
fn key(rest: &[u8]) -> Rest<'_> {
    let [b'"', content @ ..] = rest else {
        return Err(JsonError::Syntax);
    };
    match whitespace(string_end(content)?.0) {
        [b':', value @ ..] => Ok(value),
        _ => Err(JsonError::Syntax),
    }
}

/// A string from behind its opening quote (section 7), and whether it has escapes.
#[inline]
pub(super) fn string_end(rest: &[u8]) -> Result<(&[u8], bool), JsonError> {
    // Most keys and names end within a word.
    if let Some((word, _)) = rest.split_first_chunk::<8>() {
        let plain_len = special_bytes(u64::from_le_bytes(*word)).trailing_zeros() as usize / 8;
        if let Some([b'"', behind @ ..]) = rest.get(plain_len..) {
            return Ok((behind, false));
        }
    }
    long_string_end(rest)
}

fn long_string_end(mut rest: &[u8]) -> Result<(&[u8], bool), JsonError> {
    let mut has_escapes = false;
    loop {
        rest = match plain(rest) {
            [b'"', behind @ ..] => return Ok((behind, has_escapes)),
            [b'\\', b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', behind @ ..] => behind,
            [b'\\', b'u', a, b, c, d, behind @ ..]
                if [a, b, c, d].into_iter().all(u8::is_ascii_hexdigit) =>
            {
                behind
            }
            _ => return Err(JsonError::Syntax),
        };
        has_escapes = true;
    }
}

/// A number without its sign: `int [ frac ] [ exp ]` (section 6).
#[inline]
fn number(rest: &[u8]) -> Rest<'_> {
    let mut rest = match rest {
        // Leading zeros are not allowed: a digit here is found where a comma should be.
        [b'0', behind @ ..] => behind,
        _ => digits(rest)?,
    };
    if let [b'.', fraction @ ..] = rest {
        rest = digits(fraction)?;
    }
    match rest {
        [b'e' | b'E', b'+' | b'-', exponent @ ..] | [b'e' | b'E', exponent @ ..] => {
            digits(exponent)
        }
        _ => Ok(rest),
    }
}

#[inline]
fn digits(rest: &[u8]) -> Rest<'_> {
    let [b'0'..=b'9', rest @ ..] = rest else {
        return Err(JsonError::Syntax);
    };
    let mut rest = rest;
    while let [b'0'..=b'9', behind @ ..] = rest {
        rest = behind;
    }
    Ok(rest)
}

/// Bytes that stand for themselves in a string: up to a quote, a backslash or a control character. Returns what
/// follows them.
#[inline]
pub(super) fn plain(text: &[u8]) -> &[u8] {
    let mut rest = plain_chunks(text);
    while let Some((word, behind)) = rest.split_first_chunk::<8>() {
        let special = special_bytes(u64::from_le_bytes(*word));
        if special != 0 {
            return rest.get(special.trailing_zeros() as usize / 8..).unwrap_or_default();
        }
        rest = behind;
    }
    // What is left, with spaces behind it, which are plain.
    let mut word = [b' '; 8];
    if let Some(left) = word.get_mut(..rest.len()) {
        left.copy_from_slice(rest);
    }
    let plain_len = special_bytes(u64::from_le_bytes(word)).trailing_zeros() as usize / 8;
    rest.get(plain_len..).unwrap_or_default()
}

/// Passes over whole chunks of plain bytes: one may be left that is plain at first.
#[inline]
fn plain_chunks(mut rest: &[u8]) -> &[u8] {
    while let Some((chunk, behind)) = rest.split_first_chunk::<16>() {
        // Without a branch, so that it becomes vector instructions.
        let has_special = chunk.iter().fold(false, |special, byte| {
            special | (*byte < 0x20) | (*byte == b'"') | (*byte == b'\\')
        });
        if has_special {
            break;
        }
        rest = behind;
    }
    rest
}

/// Sets the top bit of each byte that ends a run of plain ones. Only the lowest one set is exact:
/// a borrow can mark bytes above it.
#[inline]
fn special_bytes(word: u64) -> u64 {
    const ONES: u64 = u64::from_ne_bytes([0x01; 8]);
    const TOPS: u64 = u64::from_ne_bytes([0x80; 8]);
    let quote = word ^ (ONES * b'"' as u64);
    let backslash = word ^ (ONES * b'\\' as u64);
    let zero_if_quote = quote.wrapping_sub(ONES) & !quote;
    let zero_if_backslash = backslash.wrapping_sub(ONES) & !backslash;
    let below_space = word.wrapping_sub(ONES * 0x20) & !word;
    (zero_if_quote | zero_if_backslash | below_space) & TOPS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_bytes_are_found_at_every_place() {
        for special in [b'"', b'\\', 0, 0x1f, b'\n'] {
            for at in 0..200 {
                let mut bytes = vec![0xC3; at];
                bytes.push(special);
                bytes.extend(*b"\"!#[]\x7f\x80 \\");
                assert_eq!(plain(&bytes), &bytes[at..], "{special:x}");
            }
        }
        let all_plain: Vec<u8> = (0x20..=0xff).filter(|byte| !b"\"\\".contains(byte)).collect();
        for start in 0..8 {
            assert_eq!(plain(&all_plain[start..]), b"");
        }
    }
}
