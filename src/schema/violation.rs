//! How a text breaks a schema, in words that say nothing of its values and have a bound.

use std::fmt;

use jsonschema::ValidationError;

/// Longest pointer, and longest text behind it, in bytes: keys of the client stand in both.
const PART_BYTES_MAX: usize = 200;

/// The first rule that is broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// JSON pointer (RFC 6901) of the value that breaks it; empty: the whole text.
    pub pointer: String,
    /// The keyword of the schema: `maxLength`. `json`: the text itself is not clear.
    pub rule: String,
    /// For people.
    pub text: String,
}

impl Violation {
    pub(super) fn new(error: &ValidationError<'_>) -> Self {
        Self {
            pointer: shorten(error.instance_path().as_str()),
            rule: shorten(error.kind().keyword()),
            text: shorten(&error.masked().to_string()),
        }
    }

    /// A text that does not say what it means.
    pub(super) fn unclear(error: &serde_json::Error) -> Self {
        Self { pointer: String::new(), rule: "json".to_owned(), text: shorten(&error.to_string()) }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pointer, rule, text } = self;
        write!(f, "`{pointer}` breaks `{rule}`: {text}")
    }
}

fn shorten(text: &str) -> String {
    if text.len() <= PART_BYTES_MAX {
        return text.to_owned();
    }
    format!("{}…", &text[..text.floor_char_boundary(PART_BYTES_MAX)])
}
