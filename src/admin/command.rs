//! What can be asked, as it is written in JSON.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Unexpected, Visitor};
use serde_json::value::RawValue;

use super::error::ApiError;
use super::grouping::{CreateGroup, DeleteGroup, GroupUsers, ListGroups, OneGroup};
use super::rooms::{CreateRoom, ListRooms, OneRoom, RoomUser};
use super::target::{Compiled, Send, User, Who, present};
use crate::ids::{ConnectionId, TopicName, check_topic_name};
use crate::proto::tags::Tags;
use crate::proto::{HistoryQuery, PresenceQuery, Since};

/// Entries of one page of a listing, publications of one page of a history.
pub const LIMIT_MAX: usize = 1000;
const LIMIT: usize = 100;
/// Channels of one broadcast, commands of one batch.
pub const MANY_MAX: usize = 1000;
/// As of clients.
const MESSAGE_ID_BYTES_MAX: usize = 128;

/// One command; in a batch `{"publish":{…}}`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    #[serde(deserialize_with = "object")]
    Publish(Publish),
    #[serde(deserialize_with = "object")]
    Broadcast(Broadcast),
    #[serde(deserialize_with = "object")]
    Send(Send),
    #[serde(deserialize_with = "object")]
    Subscribe(Subscribe),
    #[serde(deserialize_with = "object")]
    Unsubscribe(Unsubscribe),
    #[serde(deserialize_with = "object")]
    Disconnect(Disconnect),
    #[serde(deserialize_with = "object")]
    History(History),
    #[serde(deserialize_with = "object")]
    Presence(Presence),
    #[serde(deserialize_with = "object")]
    Channels(Channels),
    #[serde(deserialize_with = "object")]
    Connections(Connections),
    #[serde(deserialize_with = "object")]
    Connection(One),
    #[serde(deserialize_with = "object")]
    Groups(ListGroups),
    #[serde(deserialize_with = "object")]
    Group(OneGroup),
    #[serde(deserialize_with = "object")]
    Rooms(ListRooms),
    #[serde(deserialize_with = "object")]
    Room(OneRoom),
    #[serde(deserialize_with = "object")]
    CreateRoom(CreateRoom),
    #[serde(deserialize_with = "object")]
    DeleteRoom(OneRoom),
    #[serde(deserialize_with = "object")]
    RoomMute(RoomUser),
    #[serde(deserialize_with = "object")]
    RoomUnmute(RoomUser),
    #[serde(deserialize_with = "object")]
    RoomKick(RoomUser),
    #[serde(deserialize_with = "object")]
    CreateGroup(CreateGroup),
    #[serde(deserialize_with = "object")]
    DeleteGroup(DeleteGroup),
    #[serde(deserialize_with = "object")]
    GroupAdd(GroupUsers),
    #[serde(deserialize_with = "object")]
    GroupRemove(GroupUsers),
    #[serde(deserialize_with = "object")]
    Info(Info),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Publish {
    pub channel: Channel,
    pub data: Box<RawValue>,
    #[serde(default, alias = "idempotency_key", alias = "idempotencyKey")]
    pub message_id: Option<MessageId>,
    #[serde(default, deserialize_with = "present")]
    pub filter: Option<Compiled>,
    #[serde(default, deserialize_with = "present")]
    pub tags: Option<Tagged>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Broadcast {
    pub channels: Vec<Channel>,
    pub data: Box<RawValue>,
    #[serde(default, alias = "idempotency_key", alias = "idempotencyKey")]
    pub message_id: Option<MessageId>,
    #[serde(default, deserialize_with = "present")]
    pub filter: Option<Compiled>,
    #[serde(default, deserialize_with = "present")]
    pub tags: Option<Tagged>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subscribe {
    #[serde(default, alias = "connectionId", deserialize_with = "present")]
    connection: Option<Id>,
    #[serde(default, deserialize_with = "present")]
    user: Option<User>,
    pub channel: Channel,
    #[serde(default, deserialize_with = "present")]
    pub filter: Option<Compiled>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unsubscribe {
    #[serde(default, alias = "connectionId", deserialize_with = "present")]
    connection: Option<Id>,
    #[serde(default, deserialize_with = "present")]
    user: Option<User>,
    pub channel: Channel,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disconnect {
    #[serde(default, alias = "connectionId", deserialize_with = "present")]
    connection: Option<Id>,
    #[serde(default, deserialize_with = "present")]
    user: Option<User>,
    pub code: Option<Whole>,
    pub reason: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct History {
    pub channel: Channel,
    since: Option<Place>,
    until: Option<Place>,
    limit: Option<Whole>,
    #[serde(default)]
    reverse: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Presence {
    pub channel: Channel,
    limit: Option<Whole>,
    after: Option<Whole>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Channels {
    /// `*` stands for any text, `?` for one character.
    pub pattern: Option<String>,
    pub limit: Option<Whole>,
    pub cursor: Option<Cursor>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Connections {
    pub limit: Option<Whole>,
    pub cursor: Option<Cursor>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct One {
    #[serde(alias = "connectionId")]
    pub connection: Id,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Info {}

/// Commands that are looked at one by one: a bad one does not spoil the others.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Batch {
    pub commands: Vec<Box<RawValue>>,
}

/// Something that is written as an object, and in no other way: by itself a structure would take a list
/// of its fields too.
#[derive(Debug)]
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        object(deserializer).map(Self)
    }
}

fn object<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
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

impl Subscribe {
    pub fn who(&self) -> Result<Who, ApiError> {
        Who::of(self.connection, self.user.clone())
    }
}

impl Unsubscribe {
    pub fn who(&self) -> Result<Who, ApiError> {
        Who::of(self.connection, self.user.clone())
    }
}

impl Disconnect {
    pub fn who(&self) -> Result<Who, ApiError> {
        Who::of(self.connection, self.user.clone())
    }
}

impl History {
    pub fn query(&self) -> Result<HistoryQuery, ApiError> {
        let limit = check_limit(self.limit)?;
        let since = self.since.as_ref().map_or(Since::Oldest, |place| place.0);
        let until = self.until.as_ref().map(|place| place.0);
        if until == Some(Since::Oldest) {
            return Err(ApiError::invalid(
                "`until` must be an offset or a Unix time in milliseconds",
            ));
        }
        Ok(HistoryQuery { since, until, limit, reverse: self.reverse })
    }
}

impl Presence {
    pub fn query(&self) -> Result<PresenceQuery, ApiError> {
        let after = self.after.map_or(0, |after| after.0);
        let limit = match self.limit {
            // Only how many there are.
            Some(Whole(0)) => 0,
            limit => check_limit(limit)?,
        };
        Ok(PresenceQuery { after, limit })
    }
}

pub fn check_limit(limit: Option<Whole>) -> Result<usize, ApiError> {
    match limit.map_or(Ok(LIMIT), |limit| usize::try_from(limit.0)) {
        Ok(limit @ 1..=LIMIT_MAX) => Ok(limit),
        _ => Err(ApiError::invalid(format!("`limit` must be a number from 1 to {LIMIT_MAX}"))),
    }
}

pub fn check_count(count: usize, what: &str) -> Result<(), ApiError> {
    match count {
        1..=MANY_MAX => Ok(()),
        _ => Err(ApiError::invalid(format!("`{what}` must have 1 to {MANY_MAX} entries"))),
    }
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
struct Place(Since);

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

/// Whether a name is of this pattern.
pub fn matches(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    let (mut at, mut place) = (0, 0);
    // Where to go on if it fails: behind the last `*`, with one character more for that.
    let mut retry = None;
    while place < name.len() {
        match pattern.get(at) {
            Some('*') => {
                retry = Some((at + 1, place));
                at += 1;
            }
            Some(&wanted) if wanted == '?' || wanted == name[place] => {
                at += 1;
                place += 1;
            }
            _ => {
                let Some((pattern_at, name_at)) = retry else { return false };
                retry = Some((pattern_at, name_at + 1));
                (at, place) = (pattern_at, name_at + 1);
            }
        }
    }
    pattern[at..].iter().all(|wanted| *wanted == '*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn places_are_those_of_clients() {
        let since = |text: &str| {
            let text = format!(r#"{{"channel":"a","since":{text}}}"#);
            serde_json::from_str::<History>(&text).map(|history| history.query().unwrap().since)
        };
        assert_eq!(since("\"start\"").unwrap(), Since::Oldest);
        assert_eq!(since("7").unwrap(), Since::Offset(7));
        assert_eq!(since("7.0").unwrap(), Since::Offset(7));
        assert_eq!(since("1700000000000").unwrap(), Since::Time(1_700_000_000_000));
        for text in ["-1", "1.5", "\"end\"", "[]", "true"] {
            let error = since(text).unwrap_err().to_string();
            assert!(error.contains("an offset or a Unix time in milliseconds"), "{error}");
        }
    }

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

    /// By the definition.
    fn matches_slowly(pattern: &[char], name: &[char]) -> bool {
        match (pattern.split_first(), name.split_first()) {
            (None, None) => true,
            (None, Some(_)) => false,
            (Some(('*', rest)), None) => matches_slowly(rest, name),
            (Some(('*', rest)), Some((_, tail))) => {
                matches_slowly(rest, name) || matches_slowly(pattern, tail)
            }
            (Some(_), None) => false,
            (Some((wanted, rest)), Some((first, tail))) => {
                (*wanted == '?' || wanted == first) && matches_slowly(rest, tail)
            }
        }
    }

    proptest! {
        #[test]
        fn patterns_match_by_their_definition(pattern in "[ab*?]{0,8}", name in "[abé]{0,8}") {
            let (slow_pattern, slow_name): (Vec<_>, Vec<_>) =
                (pattern.chars().collect(), name.chars().collect());
            prop_assert_eq!(matches(&pattern, &name), matches_slowly(&slow_pattern, &slow_name));
        }
    }
}
