//! A JSON text as schemas see it: its strings are those of the text, where they have no escapes.

use std::borrow::Cow;
use std::fmt;

use jsonschema::JsonType;
use jsonschema::json::{Array, Json, Node, NodeIdentity, Object, cmp};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Number, Value};

/// Objects with no more members are searched from one end to the other; those with more are sorted.
const SEARCHED_MAX: usize = 16;

/// One JSON value.
#[derive(Debug, PartialEq)]
pub(super) enum Document<'a> {
    Null,
    Bool(bool),
    Number(Number),
    Text(Cow<'a, str>),
    Array(Vec<Document<'a>>),
    Object(Members<'a>),
}

/// The members of an object. Of a name that comes twice there is the last one.
#[derive(Debug, PartialEq)]
pub(super) struct Members<'a>(Vec<(Cow<'a, str>, Document<'a>)>);

impl<'a> Members<'a> {
    fn new(mut members: Vec<(Cow<'a, str>, Document<'a>)>) -> Self {
        if members.len() > SEARCHED_MAX {
            // The sort is stable: of equal names the last one stays the last.
            members.sort_by(|(name, _), (other, _)| name.cmp(other));
            members.dedup_by(|later, kept| {
                let is_same = later.0 == kept.0;
                if is_same {
                    std::mem::swap(later, kept);
                }
                is_same
            });
            // What is few now is searched, which is as good.
            return Self(members);
        }
        let mut at = 0;
        while let Some((name, _)) = members.get(at) {
            if members.iter().skip(at + 1).any(|(other, _)| other == name) {
                members.remove(at);
            } else {
                at += 1;
            }
        }
        Self(members)
    }

    fn find(&self, name: &str) -> Option<&Document<'a>> {
        let found = if self.0.len() > SEARCHED_MAX {
            let place = self.0.binary_search_by(|(other, _)| (**other).cmp(name));
            place.ok().and_then(|place| self.0.get(place))
        } else {
            self.0.iter().find(|(other, _)| other == name)
        };
        found.map(|(_, value)| value)
    }
}

impl<'de> Deserialize<'de> for Document<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Document<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Document<'de>, E> {
        Ok(Document::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Document<'de>, E> {
        Ok(Document::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Document<'de>, E> {
        Ok(Document::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Document<'de>, E> {
        Ok(Document::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Document<'de>, E> {
        // JSON has no others than finite ones.
        Ok(Number::from_f64(value).map_or(Document::Null, Document::Number))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Document<'de>, E> {
        Ok(Document::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Document<'de>, E> {
        Ok(Document::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Document<'de>, A::Error> {
        let mut array = Vec::new();
        while let Some(item) = items.next_element()? {
            array.push(item);
        }
        Ok(Document::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Document<'de>, A::Error> {
        let mut members = Vec::with_capacity(SEARCHED_MAX / 2);
        while let Some((name, value)) = map.next_entry()? {
            // Names are texts.
            if let Document::Text(name) = name {
                members.push((name, value));
            }
        }
        Ok(Document::Object(Members::new(members)))
    }
}

/// The representation that [`Document`] is, for the validator.
pub(super) struct Documents;

impl Json for Documents {
    type Node<'a> = &'a Document<'a>;
    type PreparedKey = Box<str>;
    type StringBuffer = ();

    // A look-up goes over the names, too.
    const KEYS_PER_LOOKUP: usize = 2;

    fn prepare_key(key: &str) -> Box<str> {
        key.into()
    }

    fn with_string_node<T>((): &mut (), string: &str, f: impl FnOnce(Self::Node<'_>) -> T) -> T {
        f(&Document::Text(Cow::Borrowed(string)))
    }
}

impl<'a> Node<'a, Documents> for &'a Document<'a> {
    type Object = &'a Members<'a>;
    type Array = &'a [Document<'a>];
    type Number = &'a Number;

    fn as_object(&self) -> Option<&'a Members<'a>> {
        if let Document::Object(members) = self { Some(members) } else { None }
    }

    fn as_array(&self) -> Option<&'a [Document<'a>]> {
        if let Document::Array(items) = self { Some(items) } else { None }
    }

    fn as_string(&self) -> Option<Cow<'a, str>> {
        if let Document::Text(text) = self { Some(Cow::Borrowed(text)) } else { None }
    }

    fn as_number(&self) -> Option<&'a Number> {
        if let Document::Number(number) = self { Some(number) } else { None }
    }

    fn as_boolean(&self) -> Option<bool> {
        if let Document::Bool(value) = self { Some(*value) } else { None }
    }

    fn is_null(&self) -> bool {
        matches!(self, Document::Null)
    }

    fn json_type(&self) -> JsonType {
        match self {
            Document::Null => JsonType::Null,
            Document::Bool(_) => JsonType::Boolean,
            Document::Number(_) => JsonType::Number,
            Document::Text(_) => JsonType::String,
            Document::Array(_) => JsonType::Array,
            Document::Object(_) => JsonType::Object,
        }
    }

    fn equals_value(&self, expected: &Value) -> bool {
        match (self, expected) {
            (Document::Null, Value::Null) => true,
            (Document::Bool(value), Value::Bool(expected)) => value == expected,
            (Document::Text(text), Value::String(expected)) => text == expected,
            (Document::Number(_), Value::Number(_))
            | (Document::Array(_), Value::Array(_))
            | (Document::Object(_), Value::Object(_)) => cmp::equal(&self.to_value(), expected),
            _ => false,
        }
    }

    fn to_value(&self) -> Cow<'a, Value> {
        Cow::Owned(match self {
            Document::Null => Value::Null,
            Document::Bool(value) => Value::Bool(*value),
            Document::Number(number) => Value::Number(number.clone()),
            Document::Text(text) => Value::String(text.to_string()),
            Document::Array(items) => {
                items.iter().map(|item| item.to_value().into_owned()).collect()
            }
            Document::Object(Members(members)) => {
                let member = |(name, value): &'a (Cow<'_, str>, Document<'a>)| {
                    (name.to_string(), value.to_value().into_owned())
                };
                Value::Object(members.iter().map(member).collect())
            }
        })
    }

    fn identity(&self) -> Option<NodeIdentity> {
        Some(NodeIdentity::new(std::ptr::from_ref(*self).addr()))
    }
}

impl<'a> Object<'a, Documents> for &'a Members<'a> {
    type Node = &'a Document<'a>;
    type MemberName = &'a str;
    type MembersIter = MembersIter<'a>;

    fn len(&self) -> usize {
        self.0.len()
    }

    fn get(&self, key: &Box<str>) -> Option<&'a Document<'a>> {
        self.find(key)
    }

    fn members(&self) -> MembersIter<'a> {
        MembersIter(self.0.iter())
    }
}

pub(super) struct MembersIter<'a>(std::slice::Iter<'a, (Cow<'a, str>, Document<'a>)>);

impl<'a> Iterator for MembersIter<'a> {
    type Item = (&'a str, &'a Document<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|(name, value)| (&**name, value))
    }
}

impl<'a> Array<'a, Documents> for &'a [Document<'a>] {
    type Node = &'a Document<'a>;
    type ElementsIter = std::slice::Iter<'a, Document<'a>>;

    fn len(&self) -> usize {
        (*self).len()
    }

    fn elements(&self) -> std::slice::Iter<'a, Document<'a>> {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jsonschema::json::conformance;

    fn read(text: &str) -> Document<'_> {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_document_is_what_the_validator_relies_on() {
        let text = conformance::document().to_string();
        conformance::assert_conformance::<Documents>(&&read(&text));
    }

    #[test]
    fn a_document_is_the_value_of_its_text() {
        let many = |count: u32| {
            let members: Vec<_> = (0..count).map(|at| format!(r#""k{}":{at}"#, at % 50)).collect();
            format!("{{{}}}", members.join(","))
        };
        for text in [
            "null",
            "true",
            "0",
            "-7",
            "1.5",
            "18446744073709551615",
            "1e300",
            r#""""#,
            r#""a\nü\ud83d\ude00""#,
            "[]",
            "{}",
            r#"[1,[2,{"a":[null]}],"x"]"#,
            r#"{"a":1,"b":2,"a":3,"b":{"\u0061":4,"a":5}}"#,
            &many(3),
            &many(16),
            &many(17),
            &many(60),
            &many(200),
        ] {
            let (document, value) = (read(text), serde_json::from_str::<Value>(text).unwrap());
            assert_eq!(*(&document).to_value(), value, "{text}");
            assert!((&document).equals_value(&value), "{text}");
            let Some(members) = (&document).as_object() else { continue };
            for (name, value) in value.as_object().unwrap() {
                let found = members.get(&Documents::prepare_key(name)).unwrap();
                assert!(found.equals_value(value), "{text}");
            }
            assert_eq!(members.len(), value.as_object().unwrap().len());
            assert_eq!(members.get(&Documents::prepare_key("k50")), None);
        }
        for text in ["1e999", r#""\ud800""#, "[", &"[".repeat(200)] {
            assert!(serde_json::from_str::<Document<'_>>(text).is_err(), "{text}");
        }
    }
}
