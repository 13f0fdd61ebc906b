//! Tags: what a publisher says of a publication beside its data, for the filters of subscriptions.
//!
//! They are written once, in one form, and stand before the data wherever that goes: to the home of the
//! topic, into a history and into the durable log.

use std::borrow::Cow;
use std::fmt;

use crate::filter::{
    ATTRIBUTE_NAME_BYTES_MAX, ATTRIBUTES_MAX, Attributes, VALUE_BYTES_MAX, is_attribute_name,
};
use crate::proto::encoder::frame_payload;
use crate::proto::encoding::Encoding;
use crate::proto::json::{RawString, Scanner, escape};

/// Stands before tags, and between them and the data. No JSON value begins with it, and no tags have it:
/// in a string it would be escaped.
pub const TAGS_MARK: u8 = b'\t';

/// The tags of one publication: a JSON object of strings without white space, with a member at least and
/// at most [`ATTRIBUTES_MAX`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tags(Box<str>);

/// Why something is no tags: for people, names the tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TagsError {
    NoObject,
    /// No attribute could have this name.
    Name,
    /// The value of this one is no string.
    Kind(String),
    Long(String),
    Twice(String),
    Many,
}

impl Tags {
    /// Those of the object that is this JSON value; `None`: it is empty.
    ///
    /// # Errors
    ///
    /// It is no object of strings, or has more, or other ones, than attributes may be.
    pub fn of_json(value: &str) -> Result<Option<Self>, TagsError> {
        let mut scanner = Scanner::new(value);
        let Some(mut object) = scanner.object() else { return Err(TagsError::NoObject) };
        let mut tags = Vec::new();
        while let Some((name, value)) = object.next_member().map_err(|_| TagsError::NoObject)? {
            let name = name.decode().ok_or(TagsError::Name)?;
            let text = RawString::of_value(value).and_then(RawString::decode);
            match text {
                // One too many is enough to tell.
                Some(_) if tags.len() > ATTRIBUTES_MAX => break,
                Some(text) => tags.push((name, text)),
                None if is_attribute_name(&name) => {
                    return Err(TagsError::Kind(name.into_owned()));
                }
                None => return Err(TagsError::Name),
            }
        }
        Self::of_texts(&tags)
    }

    /// Those of names with their values; `None`: there are none.
    ///
    /// # Errors
    ///
    /// They are more, or other ones, than attributes may be.
    pub fn of_texts(tags: &[(Cow<'_, str>, Cow<'_, str>)]) -> Result<Option<Self>, TagsError> {
        match tags.len() {
            0 => return Ok(None),
            1..=ATTRIBUTES_MAX => {}
            _ => return Err(TagsError::Many),
        }
        let mut json = Vec::new();
        for (place, (name, value)) in tags.iter().enumerate() {
            if !is_attribute_name(name) {
                return Err(TagsError::Name);
            }
            if value.len() > VALUE_BYTES_MAX {
                return Err(TagsError::Long(name.to_string()));
            }
            if tags.iter().take(place).any(|(other, _)| other == name) {
                return Err(TagsError::Twice(name.to_string()));
            }
            json.push(if place == 0 { b'{' } else { b',' });
            escape::push_string(name, &mut json);
            json.push(b':');
            escape::push_string(value, &mut json);
        }
        json.push(b'}');
        // Escaping keeps UTF-8, so nothing is lost.
        let json = String::from_utf8(json).unwrap_or_default();
        Ok(Some(Self(json.into())))
    }

    /// What takes the place of the data of a publication with these tags.
    pub fn before(&self, data: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.0.len() + data.len() + 2);
        out.push(TAGS_MARK);
        out.extend_from_slice(self.0.as_bytes());
        out.push(TAGS_MARK);
        out.extend_from_slice(data);
        out
    }

    /// As JSON.
    pub fn as_json(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TagsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoObject => f.write_str("`tags` must be an object"),
            Self::Name => write!(
                f,
                "a name in `tags` has 1 to {ATTRIBUTE_NAME_BYTES_MAX} letters, digits, `_`, `-` \
                 and `.`, and begins with a letter or `_`"
            ),
            Self::Kind(name) => write!(f, "`{name}` in `tags` must be a string of Unicode text"),
            Self::Long(name) => {
                write!(f, "`{name}` in `tags` is longer than {VALUE_BYTES_MAX} bytes")
            }
            Self::Twice(name) => write!(f, "`{name}` appears more than once in `tags`"),
            Self::Many => write!(f, "`tags` has more than {ATTRIBUTES_MAX} members"),
        }
    }
}

impl std::error::Error for TagsError {}

/// The tags, as JSON, and the data behind them; `None`: it is data alone, or a message.
pub fn split(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let tagged = body.strip_prefix(&[TAGS_MARK])?;
    let end = tagged.iter().position(|byte| *byte == TAGS_MARK)?;
    Some((tagged.get(..end)?, tagged.get(end + 1..)?))
}

/// What filters are asked of: the tags of the publication that is in this frame; a publication without any
/// has none, and neither has a message in its place. With tags it is a frame of JSON.
pub fn of_frame(frame: &[u8]) -> Attributes {
    if Encoding::of_frame(frame) == Encoding::Protobuf {
        return Attributes::default();
    }
    let text = simdutf8::basic::from_utf8(frame_payload(frame)).unwrap_or_default();
    let mut scanner = Scanner::new(text);
    let Some(mut object) = scanner.object() else { return Attributes::default() };
    let mut found = None;
    while let Ok(Some((key, value))) = object.next_member() {
        match key.decode().as_deref().unwrap_or_default() {
            "tags" => found = Some(value),
            // They stand before the data. What follows it matters only if there are some: a client may
            // write a message that looks like a publication so far, but it has a type.
            "data" if found.is_none() => break,
            "type" => return Attributes::default(),
            _ => {}
        }
    }
    found.map(|tags| Attributes::of_tags(pairs(tags))).unwrap_or_default()
}

/// Names and values of tags that were written here.
pub fn pairs(tags: &str) -> Vec<(Cow<'_, str>, Cow<'_, str>)> {
    let mut pairs = Vec::new();
    let mut scanner = Scanner::new(tags);
    let Some(mut object) = scanner.object() else { return pairs };
    while let Ok(Some((name, value))) = object.next_member() {
        let value = RawString::of_value(value).and_then(RawString::decode);
        pairs.extend(name.decode().zip(value));
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::Filter;
    use crate::proto::encoder::{kept_frame, publication_frame};
    use crate::proto::typed::MESSAGE_MARK;

    fn tags(json: &str) -> Tags {
        Tags::of_json(json).expect("tags").expect("some")
    }

    #[test]
    fn tags_are_written_in_one_form() {
        let written = tags(" { \"pl\\u0061n\" : \"p\\u0072o\\t\\\"\" ,\"a.b-c\":\"\"}");
        assert_eq!(written.as_json(), r#"{"plan":"pro\t\"","a.b-c":""}"#);
        let body = written.before(b"[\t1]");
        assert_eq!(split(&body), Some((written.as_json().as_bytes(), &b"[\t1]"[..])));
        assert_eq!(Tags::of_json(" { } "), Ok(None));
        for data in [&b"{}"[..], b"", b"1", &[MESSAGE_MARK], b"\t{}"] {
            assert_eq!(split(data), None);
        }
    }

    #[test]
    fn what_are_no_tags_is_told() {
        let many: Vec<_> = (0..33).map(|number| format!(r#""a{number}":"""#)).collect();
        let most = format!("{{{}}}", many[..32].join(","));
        assert!(Tags::of_json(&most).is_ok());
        let long = |bytes| format!(r#"{{"a":"{}"}}"#, "x".repeat(bytes));
        assert!(Tags::of_json(&long(256)).is_ok());
        let name = "a name in `tags` has 1 to 64 letters";
        for (json, expected) in [
            ("null", "`tags` must be an object"),
            ("[]", "`tags` must be an object"),
            (r#""a""#, "`tags` must be an object"),
            (r#"{"a":1}"#, "`a` in `tags` must be a string of Unicode text"),
            (r#"{"a":null}"#, "`a` in `tags` must be a string of Unicode text"),
            (r#"{"a":{}}"#, "`a` in `tags` must be a string of Unicode text"),
            (r#"{"a":"\ud800"}"#, "`a` in `tags` must be a string of Unicode text"),
            (r#"{"a":"1","b":"2","\u0061":"1"}"#, "`a` appears more than once in `tags`"),
            (r#"{"":"1"}"#, name),
            (r#"{"1a":"1"}"#, name),
            (r#"{"a b":1}"#, name),
            (r#"{"\ud800":"1"}"#, name),
            (&format!(r#"{{"{}":"1"}}"#, "x".repeat(65)), name),
            (&long(257), "`a` in `tags` is longer than 256 bytes"),
            (&format!("{{{}}}", many.join(",")), "`tags` has more than 32 members"),
        ] {
            let error = Tags::of_json(json).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{json}: {error}");
        }
    }

    #[test]
    fn filters_are_asked_of_the_tags_in_a_frame() {
        let asked = |frame: &[u8], filter: &str| {
            Filter::parse(filter).expect("a filter").matches(&of_frame(frame))
        };
        let filter = "plan == 'pro' && level > 3 && beta && zip == '01' && quoted == '7'";
        let body = tags(
            r#"{"plan":"pro","level":"7","beta":"true","zip":"01","quoted":"\"7\"","none":""}"#,
        )
        .before(br#"{"tags":{"plan":"x"}}"#);
        let position = crate::ids::Position { epoch: crate::ids::Epoch(1), offset: 9 };
        for frame in [
            publication_frame("a\"b", &body),
            kept_frame("a\"b", position, &body, false),
            kept_frame("a\"b", position, &body, true),
        ] {
            assert!(asked(&frame, filter));
            assert!(asked(&frame, "none == '' && other != 1"));
        }
        for data in [
            &br#"{"tags":{"plan":"pro"}}"#[..],
            b"\n{\"tags\":{\"plan\":\"pro\"},\"type\":\"event\"}",
            b"\n{\"channel\":\"a\",\"tags\":{\"plan\":\"pro\"},\"data\":1,\"t\\u0079pe\":\"event\"}",
        ] {
            for frame in
                [publication_frame("a", data), kept_frame("a", position, data, false)]
            {
                assert!(asked(&frame, "plan != 'pro'"));
            }
        }
    }
}
