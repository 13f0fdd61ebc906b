//! JSON Schemas, compiled: a JSON text in, what is wrong with it out. Values only: no channels, no
//! connections, and no files but the one a schema is read from.
//!
//! Drafts 4 to 2020-12, by `$schema`; 2020-12 without it. Nothing remote is ever fetched. Regular expressions
//! run on an engine whose time is linear in the text, so they have no look-around and no back-references.

mod document;
mod source;
mod violation;

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use jsonschema::{PatternOptions, Validator};
use serde_json::Value;

use document::{Document, Documents};
pub use source::{SchemaSource, Schemas, SchemasReader};
pub use violation::Violation;

/// Largest file of a schema, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Arrays and objects inside one another, in a schema.
const DEPTH_MAX: usize = 64;
/// Bytes of one compiled regular expression, and of the cache it works with.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// The schema of the chat envelope, draft-07.
const ENVELOPE: &str = include_str!("envelope.schema.json");

/// One schema, ready to judge.
pub struct Schema {
    /// As it was written.
    text: String,
    validator: Validator<Documents>,
}

impl Schema {
    /// The schema of the chat envelope.
    pub fn envelope() -> Self {
        Self::parse(ENVELOPE).expect("it is a part of the program, see the tests")
    }

    /// Reads a schema from a file.
    ///
    /// # Errors
    ///
    /// What is wrong, with the JSON pointer of the place where one is known.
    pub fn read(path: &Path) -> Result<Self, String> {
        let mut text = String::new();
        let file = File::open(path).map_err(|error| error.to_string())?;
        let mut file = file.take(FILE_BYTES_MAX + 1);
        file.read_to_string(&mut text).map_err(|error| error.to_string())?;
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(format!("it is larger than {FILE_BYTES_MAX} bytes"));
        }
        Self::parse(&text)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let schema: Value =
            serde_json::from_str(text).map_err(|error| format!("it is not JSON: {error}"))?;
        if let Some(pointer) = too_deep(&schema) {
            return Err(format!("at `{pointer}`: nested deeper than {DEPTH_MAX}"));
        }
        let patterns =
            PatternOptions::regex().size_limit(PATTERN_BYTES_MAX).dfa_size_limit(PATTERN_BYTES_MAX);
        let options =
            jsonschema::options_for::<Documents>().offline().with_pattern_options(patterns);
        // Drafts differ in whether `format` is a rule; here it always is.
        let options = options.should_validate_formats(true).with_format("uuid", is_uuid);
        let validator = options.build(&schema).map_err(|error| {
            // Of a rule that is wrong in itself, the place is known within the schema.
            match error.instance_path().as_str() {
                "" => error.to_string(),
                pointer => format!("at `{pointer}`: {error}"),
            }
        })?;
        Ok(Self { text: text.to_owned(), validator })
    }

    /// Judges a JSON text.
    ///
    /// # Errors
    ///
    /// The first rule that it breaks. A text that cannot be told what it says (a number that is out of
    /// range, half of a surrogate pair) is refused too.
    pub fn check(&self, text: &str) -> Result<(), Violation> {
        let document: Document<'_> =
            serde_json::from_str(text).map_err(|error| Violation::unclear(&error))?;
        // Whether there is an error is told faster than which one.
        if self.validator.is_valid(&document) {
            return Ok(());
        }
        self.validator.validate(&document).map_err(|error| Violation::new(&error))
    }
}

/// RFC 9562 §4. Draft-07 has no such format of its own, and the envelope needs it.
fn is_uuid(text: &str) -> bool {
    let is_right = |(at, byte): (usize, u8)| match at {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    };
    text.len() == 36 && text.bytes().enumerate().all(is_right)
}

/// Two schemas are the same if they were written the same.
impl PartialEq for Schema {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Schema {}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Schema({} bytes)", self.text.len())
    }
}

/// The JSON pointer of something that is inside of too much.
fn too_deep(schema: &Value) -> Option<String> {
    let mut open = vec![(schema, String::new(), 0)];
    while let Some((value, pointer, depth)) = open.pop() {
        if depth > DEPTH_MAX {
            return Some(pointer);
        }
        match value {
            Value::Array(items) => {
                let items = items.iter().enumerate();
                open.extend(items.map(|(at, item)| (item, format!("{pointer}/{at}"), depth + 1)));
            }
            Value::Object(members) => {
                let inside = |(key, member)| (member, format!("{pointer}/{key}"), depth + 1);
                open.extend(members.iter().map(inside));
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    None
}

#[cfg(test)]
mod tests;
