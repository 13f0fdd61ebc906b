//! What stands in the fields of a command, with rules of its own.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Unexpected, Visitor};
use serde_json::value::RawValue;

use super::error::ApiError;
use crate::ids::{ConnectionId, TopicName, check_topic_name};
use crate::proto::Since;
use crate::proto::tags::Tags;

/// As of clients.
const MESSAGE_ID_BYTES_MAX: usize = 128;

/// Something that is written as an object, and in no other way: by itself a structure would take a list
/// of its fields too.
#[derive(Debug)]
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        object(deserializer).map(Self)
    }
}

/// The same for `deserialize_with`.
pub fn object<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    struct Reader<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Reader<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<T, A::Error> {
            T::deserialize(MapAccessDeserializer::new(members))
        }
    }

    deserializer.deserialize_map(Reader(PhantomData))
}

/// A name that is not checked yet: which error it is matters.
#[derive(Debug, Clone, Deserialize)]
pub struct Channel(String);

impl Channel {
    pub fn check(&self) -> Result<TopicName, ApiError> {
        check_topic_name(&self.0)?;
        Ok(TopicName::new(&self.0))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageId(pub String);

impl<'de> Deserialize<'de> for MessageId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if (1..=MESSAGE_ID_BYTES_MAX).contains(&text.len()) {
            return Ok(Self(text));
        }
        let expected = format!("a message id of 1 to {MESSAGE_ID_BYTES_MAX} bytes");
        Err(Error::invalid_length(text.len(), &expected.as_str()))
    }
}

/// The tags of a publication; `None`: the object is empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tagged(pub Option<Tags>);

impl<'de> Deserialize<'de> for Tagged {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = Box::<RawValue>::deserialize(deserializer)?;
        Tags::of_json(json.get()).map(Self).map_err(Error::custom)
    }
}

/// The id of a connection; what is none is that of no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Id(Option<ConnectionId>);

impl Id {
    pub fn find(self) -> Result<ConnectionId, ApiError> {
        self.0.ok_or_else(ApiError::no_connection)
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        Ok(Self(ConnectionId::parse(&text)))
    }
}

/// Where a listing goes on: a shard, and a place in its table. Written `SHARD.PLACE`, and to be taken as
/// it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cursor {
    pub shard: u16,
    pub place: u32,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.shard, self.place)
    }
}

impl<'de> Deserialize<'de> for Cursor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        let parse = || {
            let (shard, place) = text.split_once('.')?;
            Some(Self { shard: shard.parse().ok()?, place: place.parse().ok()? })
        };
        let invalid = || Error::invalid_value(Unexpected::Str(&text), &"a cursor of this listing");
        parse().ok_or_else(invalid)
    }
}

/// A whole number, which may be written with a point: to JSON Schema 5.0 is one too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whole(pub u64);

impl Whole {
    fn of_float(number: f64) -> Option<Self> {
        /// Up to here each whole number has its own float.
        const EXACT_MAX: f64 = (1_u64 << 53) as f64;
        let is_whole = number.fract() == 0.0 && (0.0..=EXACT_MAX).contains(&number);
        is_whole.then_some(Self(number as u64))
    }
}

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl Visitor<'_> for Reader {
            type Value = Whole;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number")
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Whole, E> {
                Ok(Whole(number))
            }

            fn visit_f64<E: Error>(self, number: f64) -> Result<Whole, E> {
                Whole::of_float(number)
                    .ok_or_else(|| E::invalid_value(Unexpected::Float(number), &self))
            }
        }

        deserializer.deserialize_u64(Reader)
    }
}

/// A place in a history, as clients name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place(pub Since);

impl<'de> Deserialize<'de> for Place {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl Visitor<'_> for Reader {
            type Value = Place;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"start\", an offset or a Unix time in milliseconds")
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Place, E> {
                Ok(Place(Since::from_number(number)))
            }

            fn visit_f64<E: Error>(self, number: f64) -> Result<Place, E> {
                let whole = Whole::of_float(number);
                whole
                    .map(|whole| Place(Since::from_number(whole.0)))
                    .ok_or_else(|| E::invalid_value(Unexpected::Float(number), &self))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Place, E> {
                match text {
                    "start" => Ok(Place(Since::Oldest)),
                    _ => Err(E::invalid_value(Unexpected::Str(text), &self)),
                }
            }
        }

        deserializer.deserialize_any(Reader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_number_may_have_a_point_and_nothing_behind_it() {
        for (text, number) in [("0", 0), ("5.0", 5), ("1e3", 1000), ("-0.0", 0)] {
            assert_eq!(serde_json::from_str::<Whole>(text).unwrap(), Whole(number), "{text}");
        }
        for text in ["-1", "0.5", "1e300", "\"5\"", "null", "[]"] {
            assert!(serde_json::from_str::<Whole>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_cursor_is_read_as_it_is_shown() {
        let cursor = Cursor { shard: 3, place: 4096 };
        let text = format!("\"{cursor}\"");
        assert_eq!(serde_json::from_str::<Cursor>(&text).unwrap(), cursor);
        for text in ["\"\"", "\"1\"", "\"1.x\"", "\"-1.0\"", "\"70000.0\"", "1.5"] {
            assert!(serde_json::from_str::<Cursor>(text).is_err(), "{text}");
        }
    }
}
