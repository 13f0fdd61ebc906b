//! Texts that are not shown.

use std::fmt;
use std::ops::RangeInclusive;

/// Bytes of a secret.
pub const SECRET_BYTES: RangeInclusive<usize> = 16..=256;

/// A text that only its owners know. It compares, and never shows itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// `None` for the empty text. What is wrong is said without the text.
    pub fn parse(text: &str) -> Result<Option<Self>, String> {
        if text.is_empty() {
            return Ok(None);
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("a character of it is not visible ASCII".to_string());
        }
        if !SECRET_BYTES.contains(&text.len()) {
            return Err(format!("it has {} characters", text.len()));
        }
        Ok(Some(Self(text.to_string())))
    }

    /// For whoever has to compare it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_has_a_length_and_is_not_shown() {
        assert_eq!(Secret::parse(""), Ok(None));
        let secret = Secret::parse("0123456789abcdef").unwrap().unwrap();
        assert_eq!(secret.expose(), "0123456789abcdef");
        assert_eq!(format!("{secret:?}"), "Secret(…)");
        for text in ["short", "0123456789 abcdef", "0123456789abcdé", &"x".repeat(257)] {
            let error = Secret::parse(text).unwrap_err();
            assert!(!error.contains(text), "{error}");
        }
    }
}
