//! The members of an object in JSON, taken one by one: what nobody has taken in the end has no word in
//! protobuf. There a text that is empty, or a number that is 0, is as one that is absent.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

/// Something, or why protobuf has no word for it.
pub type Said<T> = Result<T, String>;

pub struct Fields<'a> {
    /// Of the object, for people.
    name: &'static str,
    members: Members<'a>,
}

impl<'a> Fields<'a> {
    /// The members of an object, each there once.
    pub fn of(name: &'static str, json: &'a str) -> Said<Self> {
        let wrong = |error: serde_json::Error| format!("{name}: {error}");
        // Escapes and numbers too are such that there are.
        serde_json::from_str::<Value>(json).map_err(wrong)?;
        Ok(Self { name, members: serde_json::from_str(json).map_err(wrong)? })
    }

    pub fn has(&self, name: &str) -> bool {
        self.members.0.contains_key(name)
    }

    /// A value as it was written.
    pub fn take(&mut self, name: &str) -> Option<&'a str> {
        self.members.0.remove(name)
    }

    /// Takes a value if it is this one, as it was written.
    pub fn take_if(&mut self, name: &str, value: &str) -> bool {
        let is_it = self.members.0.get(name) == Some(&value);
        if is_it {
            self.take(name);
        }
        is_it
    }

    /// A text that may be absent, but not empty.
    pub fn text(&mut self, name: &str) -> Said<String> {
        if self.has(name) { self.required(name) } else { Ok(String::new()) }
    }

    /// A text that is there, and not empty.
    pub fn required(&mut self, name: &str) -> Said<String> {
        match self.present(name)? {
            text if text.is_empty() => Err(self.error(name, "is empty")),
            text => Ok(text),
        }
    }

    /// A text that is there, be it empty.
    pub fn present(&mut self, name: &str) -> Said<String> {
        let raw = self.take(name).ok_or_else(|| self.error(name, "is missing"))?;
        serde_json::from_str(raw).map_err(|_| self.error(name, "is no text"))
    }

    /// A whole number of this size that may be absent.
    pub fn number<T: FromStr>(&mut self, name: &str) -> Said<Option<T>> {
        let number = self.take(name).map(str::parse).transpose();
        number.map_err(|_| self.error(name, "is no such number"))
    }

    /// A number that may be absent, but not 0.
    pub fn nonzero<T: FromStr + Default + PartialEq>(&mut self, name: &str) -> Said<T> {
        match self.number(name)? {
            Some(number) if number == T::default() => Err(self.error(name, "is 0")),
            number => Ok(number.unwrap_or_default()),
        }
    }

    pub fn truth(&mut self, name: &str) -> Said<Option<bool>> {
        let truth = self.take(name).map(str::parse).transpose();
        truth.map_err(|_| self.error(name, "is neither true nor false"))
    }

    pub fn object(&mut self, name: &'static str) -> Said<Option<Self>> {
        self.take(name).map(|json| Self::of(name, json)).transpose()
    }

    pub fn payload(&mut self) -> Said<Self> {
        self.object("payload")?.ok_or_else(|| self.error("payload", "is missing"))
    }

    /// All that is left.
    pub fn rest(self) -> impl Iterator<Item = (String, &'a str)> {
        self.members.0.into_iter()
    }

    /// Nothing is left.
    pub fn end(self) -> Said<()> {
        match self.members.0.keys().next() {
            Some(name) => Err(self.error(name, "is no field")),
            None => Ok(()),
        }
    }

    fn error(&self, name: &str, what: &str) -> String {
        format!("`{name}` {what} in {}", self.name)
    }
}

struct Members<'a>(BTreeMap<String, &'a str>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = BTreeMap::new();
        while let Some((key, value)) = map.next_entry::<String, &RawValue>()? {
            if members.insert(key, value.get()).is_some() {
                return Err(A::Error::custom("a member is there twice"));
            }
        }
        Ok(Members(members))
    }
}
