//! An object that is looked into by name, off the hot path: see `Object` for the way that allocates nothing.

use std::borrow::Cow;
use std::str::FromStr;

use super::{RawString, Scanner};

/// The members of an object: keys as text, values as they were written.
#[derive(Debug, Default)]
pub struct Members<'a>(Vec<(Cow<'a, str>, &'a str)>);

impl<'a> Members<'a> {
    /// Those of the object that a text begins with. `None`: it is none.
    pub fn of(json: &'a str) -> Option<Self> {
        let mut scanner = Scanner::new(json);
        let mut object = scanner.object()?;
        let mut members = Vec::new();
        while let Some((key, value)) = object.next_member().ok()? {
            // What is no Unicode text is no name that anybody asks for.
            members.extend(key.decode().map(|key| (key, value)));
        }
        Some(Self(members))
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &'a str)> {
        self.0.iter().map(|(key, value)| (&**key, *value))
    }

    /// The first value of that name.
    pub fn raw(&self, name: &str) -> Option<&'a str> {
        self.iter().find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// The text of a string.
    pub fn text(&self, name: &str) -> Option<Cow<'a, str>> {
        RawString::of_value(self.raw(name)?)?.decode()
    }

    /// A whole number, if the type has it.
    pub fn number<T: FromStr>(&self, name: &str) -> Option<T> {
        self.raw(name)?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_found_by_their_names() {
        let members =
            Members::of(r#"{"\u0061":"x\n","n":7,"o":{"a":1},"a":2}"#).expect("an object");
        assert_eq!(
            (members.raw("a"), members.text("a").as_deref()),
            (Some("\"x\\n\""), Some("x\n"))
        );
        assert_eq!((members.number::<u64>("n"), members.number::<u64>("a")), (Some(7), None));
        assert_eq!((members.raw("o"), members.raw("b")), (Some(r#"{"a":1}"#), None));
        assert_eq!(members.iter().count(), 4);
        let odd = Members::of(r#"{"\ud800":1,"a":2}"#).expect("an object");
        assert_eq!(odd.iter().collect::<Vec<_>>(), [("a", "2")]);
        for text in ["[]", "7", "", "{"] {
            assert!(Members::of(text).is_none(), "{text}");
        }
    }
}
