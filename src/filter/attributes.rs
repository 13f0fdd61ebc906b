//! What is known of a user beside the name: small values that filters ask for.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

/// Attributes of one user.
pub const ATTRIBUTES_MAX: usize = 32;

/// Longest name of an attribute, in bytes.
pub const ATTRIBUTE_NAME_BYTES_MAX: usize = 64;

/// Longest text that is a value, in bytes.
pub const VALUE_BYTES_MAX: usize = 256;

/// Longest JSON of what others are shown of a user, in bytes.
pub const SHOWN_BYTES_MAX: usize = 512;

/// One value. Numbers are finite: what is no number cannot be written.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Text(Arc<str>),
    Number(f64),
    Bool(bool),
}

impl Eq for Value {}

impl Value {
    pub fn text(text: &str) -> Self {
        Self::Text(text.into())
    }

    /// `None`: it is null, a list or an object.
    pub fn of_json(json: &serde_json::Value) -> Option<Self> {
        match json {
            serde_json::Value::String(text) => Some(Self::text(text)),
            serde_json::Value::Number(number) => number.as_f64().map(Self::Number),
            serde_json::Value::Bool(bool) => Some(Self::Bool(*bool)),
            _ => None,
        }
    }

    /// A number, `true`, `false` or a text in double quotes in JSON is that, everything else a text as it
    /// stands.
    fn reading(text: &str) -> Self {
        let json = serde_json::from_str(text).ok();
        json.as_ref().and_then(Self::of_json).unwrap_or_else(|| Self::text(text))
    }

    /// `None`: they are of two kinds, or have no order.
    pub fn compare(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Text(a), Self::Text(b)) => Some(a.cmp(b)),
            (Self::Number(a), Self::Number(b)) => a.partial_cmp(b),
            _ => None,
        }
    }
}

/// As JSON.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "{}", serde_json::Value::from(&**text)),
            // Of a whole one no point is written.
            Self::Number(number) => write!(f, "{number}"),
            Self::Bool(bool) => write!(f, "{bool}"),
        }
    }
}

/// The attributes of one user, in the order of their names; or the tags of one publication, in that of their
/// publisher.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes(Box<[(Arc<str>, Value)]>);

/// Texts that were met before: users have few different ones, and those that are asked for stay in the cache.
#[derive(Debug, Default)]
pub struct Interner(HashSet<Arc<str>>);

impl Interner {
    fn intern(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.0.get(text) {
            return known.clone();
        }
        let text = Arc::<str>::from(text);
        self.0.insert(text.clone());
        text
    }
}

impl Attributes {
    /// Of `plan=pro,level=7,beta=true`: a value that is a number, `true`, `false` or a text in double quotes in
    /// JSON is that, everything else is a text as it stands.
    ///
    /// # Errors
    ///
    /// What is wrong with it, for people, without the values.
    pub fn parse(text: &str, interner: &mut Interner) -> Result<Self, String> {
        let mut attributes = Vec::new();
        for word in text.split(',') {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            if value.is_empty() || !is_attribute_name(name) {
                return Err(format!(
                    "an attribute is NAME=VALUE; its name has up to {ATTRIBUTE_NAME_BYTES_MAX} \
                     letters, digits, `_`, `-` and `.`, and begins with a letter or `_`"
                ));
            }
            let value = match Value::reading(value) {
                Value::Text(text) => Value::Text(interner.intern(&text)),
                value => value,
            };
            if matches!(&value, Value::Text(text) if text.len() > VALUE_BYTES_MAX) {
                return Err(format!(
                    "the value of `{name}` is longer than {VALUE_BYTES_MAX} bytes"
                ));
            }
            attributes.push((interner.intern(name), value));
        }
        Self::of(attributes)
    }

    /// Of tags, each name once: their values have the kinds that those of [`Attributes::parse`] have.
    pub fn of_tags<T: AsRef<str>>(tags: Vec<(T, T)>) -> Self {
        let read = |(name, value): (T, T)| (name.as_ref().into(), Value::reading(value.as_ref()));
        Self(tags.into_iter().map(read).collect())
    }

    fn of(mut attributes: Vec<(Arc<str>, Value)>) -> Result<Self, String> {
        if attributes.len() > ATTRIBUTES_MAX {
            return Err(format!("more than {ATTRIBUTES_MAX} attributes"));
        }
        attributes.sort_by(|(a, _), (b, _)| a.cmp(b));
        if let Some([(name, _), _]) = attributes.array_windows().find(|[(a, _), (b, _)]| a == b) {
            return Err(format!("`{name}` has two values"));
        }
        Ok(Self(attributes.into()))
    }

    /// Both sets in one.
    ///
    /// # Errors
    ///
    /// They have two values for one name, or are too many together.
    pub fn merged(&self, other: &Self) -> Result<Self, String> {
        let fresh = other.0.iter().filter(|(name, value)| self.get(name) != Some(value));
        Self::of(self.0.iter().chain(fresh).cloned().collect())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn get(&self, name: &str) -> Option<&Value> {
        // There are a few: looking at all is faster than being clever.
        self.0.iter().find(|(known, _)| **known == *name).map(|(_, value)| value)
    }

    /// Those of these names as a JSON object of no more than [`SHOWN_BYTES_MAX`] bytes; who does not fit is
    /// left out. `None`: there are none.
    pub fn shown(&self, names: &[Box<str>]) -> Option<String> {
        let mut shown = String::new();
        for (name, value) in names.iter().filter_map(|name| Some((name, self.get(name)?))) {
            let begin = if shown.is_empty() { '{' } else { ',' };
            let member = format!("{begin}\"{name}\":{value}");
            if shown.len() + member.len() < SHOWN_BYTES_MAX {
                shown.push_str(&member);
            }
        }
        (!shown.is_empty()).then(|| shown + "}")
    }

    /// In the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, value)| (&**name, value))
    }
}

pub fn is_attribute_name(name: &str) -> bool {
    (1..=ATTRIBUTE_NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(is_name_byte)
        && !name.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '.'))
}

pub(super) fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Attributes, String> {
        Attributes::parse(text, &mut Interner::default())
    }

    #[test]
    fn attributes_have_kinds_and_an_order() {
        let attributes = parse(r#"plan=pro,level=7,beta=true,zip=01234,id="7",e=a=b"#).unwrap();
        let shown: Vec<_> =
            attributes.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        let expected = [
            "beta: true",
            r#"e: "a=b""#,
            r#"id: "7""#,
            "level: 7",
            r#"plan: "pro""#,
            r#"zip: "01234""#,
        ];
        assert_eq!(shown, expected);
        assert_eq!(attributes.get("level"), Some(&Value::Number(7.0)));
        assert_eq!(attributes.get("lev"), None);
    }

    #[test]
    fn what_are_no_attributes_is_told() {
        let many: Vec<_> = (0..33).map(|number| format!("a{number}=1")).collect();
        let long = format!("a={}", "x".repeat(257));
        for (text, expected) in [
            ("", "an attribute is NAME=VALUE"),
            ("a", "an attribute is NAME=VALUE"),
            ("a=", "an attribute is NAME=VALUE"),
            ("=1", "an attribute is NAME=VALUE"),
            ("1a=1", "an attribute is NAME=VALUE"),
            ("a b=1", "an attribute is NAME=VALUE"),
            ("a=1,,b=2", "an attribute is NAME=VALUE"),
            ("a=1,a=1", "`a` has two values"),
            (&many.join(","), "more than 32 attributes"),
            (&long, "the value of `a` is longer than 256 bytes"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with(expected), "{text}: {error}");
        }
    }

    #[test]
    fn some_are_shown() {
        let long = "x".repeat(256);
        let text = format!("name=\"A\\u0022\",plan=pro,level=7.5,a={long},b={long}");
        let attributes = parse(&text).unwrap();
        let shown = |names: &[&str]| {
            attributes.shown(&names.iter().map(|name| (*name).into()).collect::<Vec<_>>())
        };
        assert_eq!(shown(&["level", "none", "name"]).unwrap(), r#"{"level":7.5,"name":"A\""}"#);
        assert_eq!((shown(&[]), shown(&["none"])), (None, None));
        let most = shown(&["a", "b", "plan"]).unwrap();
        assert_eq!(most, format!(r#"{{"a":"{long}","plan":"pro"}}"#));
    }

    #[test]
    fn two_sets_are_one_if_they_agree() {
        let (a, b) = (parse("x=1,y=2").unwrap(), parse("y=2,z=3").unwrap());
        assert_eq!(a.merged(&b), parse("x=1,y=2,z=3"));
        assert_eq!(a.merged(&parse("y=3").unwrap()), Err("`y` has two values".to_owned()));
        assert_eq!(Attributes::default().merged(&a).as_ref(), Ok(&a));
    }
}
