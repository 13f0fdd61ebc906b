//! Names of things: the small values every layer passes around. No behaviour beyond validation.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

/// One event loop: a thread with its sockets and its part of the topic table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardId(pub u16);

impl ShardId {
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shard {}", self.0)
    }
}

/// A connection of one shard: a slab slot, and the generation that tells its tenants apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token {
    pub slot: u32,
    pub generation: u32,
}

impl Token {
    pub fn index(self) -> usize {
        self.slot as usize
    }

    pub fn pack(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.slot)
    }

    pub fn unpack(packed: u64) -> Self {
        Self { slot: packed as u32, generation: (packed >> 32) as u32 }
    }
}

/// Longest type of a message that can have a route, in bytes.
pub const TYPE_NAME_BYTES_MAX: usize = 64;

/// One of the places outside that messages are routed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TargetId(pub u16);

impl TargetId {
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// One life of a topic's history: offsets of two epochs have nothing to do with each other. Chosen at
/// random when the history begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The epoch that is displayed like this: 16 hexadecimal digits, lower case.
    pub fn parse(text: &str) -> Option<Self> {
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let valid = text.len() == 16 && text.bytes().all(is_digit);
        valid.then(|| u64::from_str_radix(text, 16).ok().map(Self))?
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A place in a topic's history: behind the publication with this offset, before the next one. The
/// first publication of an epoch has offset 1, so 0 is before everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    pub epoch: Epoch,
    pub offset: u64,
}

impl Position {
    /// The position that is displayed like this: an epoch, `-`, and an offset that is not 0.
    pub fn parse(text: &str) -> Option<Self> {
        let (epoch, offset) = text.split_once('-')?;
        let epoch = Epoch::parse(epoch)?;
        let canonical =
            !offset.starts_with('0') && offset.bytes().all(|byte| byte.is_ascii_digit());
        canonical.then(|| Some(Self { epoch, offset: offset.parse().ok()? }))?
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.offset)
    }
}

/// Milliseconds since the server's clock started. Monotonic; passed in, never read by the layers
/// that use it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub u64);

impl Moment {
    /// So long after the clock started.
    pub fn at(elapsed: Duration) -> Self {
        Self(elapsed.as_millis() as u64)
    }

    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration.as_millis() as u64))
    }

    /// Zero if `earlier` is later.
    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// Coarse time for what every connection keeps: 64 ms a tick, so 32 bits last 8 years.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tick(pub u32);

impl Tick {
    pub const MILLIS: u64 = 64;

    pub fn at(moment: Moment) -> Self {
        Self((moment.0 / Self::MILLIS) as u32)
    }

    /// At least one tick later, so that a deadline never lies in the tick it was set in.
    pub fn after(self, duration: Duration) -> Self {
        let ticks = (duration.as_millis() as u64).div_ceil(Self::MILLIS).max(1);
        Self(self.0.saturating_add(u32::try_from(ticks).unwrap_or(u32::MAX)))
    }
}

/// Names one session to its client, who alone knows it: 128 random bits, behind the shard that keeps it.
/// Displayed as 4 and 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId {
    pub shard: ShardId,
    pub secret: u128,
}

impl SessionId {
    /// The id that is displayed like this.
    pub fn parse(text: &str) -> Option<Self> {
        let (shard, secret) = split_hex(text, 4)?;
        Some(Self { shard: ShardId(shard as u16), secret })
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}{:032x}", self.shard.0, self.secret)
    }
}

/// Names one connection to clients and operators: 128 random bits, behind the shard and the slot where it
/// is found. Displayed as 4, 8 and 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnectionId {
    pub shard: ShardId,
    pub slot: u32,
    pub secret: u128,
}

impl ConnectionId {
    /// The id that is displayed like this.
    pub fn parse(text: &str) -> Option<Self> {
        let (place, secret) = split_hex(text, 12)?;
        Some(Self { shard: ShardId((place >> 32) as u16), slot: place as u32, secret })
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}{:08x}{:032x}", self.shard.0, self.slot, self.secret)
    }
}

/// The numbers of `digits` and 32 hexadecimal digits in lower case.
fn split_hex(text: &str, digits: usize) -> Option<(u64, u128)> {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if text.len() != digits + 32 || !text.bytes().all(is_digit) {
        return None;
    }
    let (place, secret) = text.split_at(digits);
    Some((u64::from_str_radix(place, 16).ok()?, u128::from_str_radix(secret, 16).ok()?))
}

/// The name of a topic that passed [`check_topic_name`]; clones share the text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicName(Arc<str>);

impl TopicName {
    /// `name` must have passed [`check_topic_name`], or be that of an inbox.
    pub fn new(name: &str) -> Self {
        debug_assert_eq!(check_kept_name(name), Ok(()));
        Self(Arc::from(name))
    }

    /// The topic of what is sent to one user under a namespace, `""` being that of channels without
    /// one. No client can name it: see [`INBOX_MARK`].
    pub fn inbox(namespace: &str, user: &UserName) -> Self {
        Self(Arc::from(format!("{INBOX_MARK}{namespace}:{}", &**user)))
    }

    /// The namespace and the user whose inbox this is.
    pub fn as_inbox(&self) -> Option<(&str, &str)> {
        self.0.strip_prefix(INBOX_MARK)?.split_once(':')
    }

    pub fn is_inbox(&self) -> bool {
        self.0.starts_with(INBOX_MARK)
    }

    /// The topic of the log that keeps the sessions which began on this shard. No client can name it, and
    /// nobody subscribes to it: see [`SESSIONS_MARK`].
    pub fn sessions(shard: ShardId) -> Self {
        Self(Arc::from(format!("{SESSIONS_MARK}{:04x}", shard.0)))
    }

    /// The shard on which the sessions began that this topic keeps.
    pub fn as_sessions(&self) -> Option<ShardId> {
        let digits = self.0.strip_prefix(SESSIONS_MARK).filter(|digits| digits.len() == 4)?;
        u16::from_str_radix(digits, 16).ok().map(ShardId)
    }

    pub fn is_sessions(&self) -> bool {
        self.0.starts_with(SESSIONS_MARK)
    }

    /// The part before the first `:`, whose options apply.
    pub fn namespace(&self) -> Option<&str> {
        self.0.split_once(':').map(|(namespace, _)| namespace)
    }
}

impl Deref for TopicName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

// Equal, ordered and hashed as the text is: tables are asked by it.
impl Borrow<str> for TopicName {
    fn borrow(&self) -> &str {
        self
    }
}

/// What the names of inboxes begin with: a character that [`check_topic_name`] refuses to clients.
pub const INBOX_MARK: char = '\u{1}';

/// What the names of topics begin with that keep sessions: clients cannot use it either.
pub const SESSIONS_MARK: char = '\u{2}';

/// Longest topic name, in bytes of UTF-8.
pub const TOPIC_NAME_BYTES_MAX: usize = 255;

/// The name that only the server speaks on.
pub const SYSTEM_TOPIC: &str = "system";

/// Why a string is not the name of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopicNameError {
    Empty,
    /// Its length in bytes.
    TooLong(usize),
    ControlCharacter,
    /// `system` belongs to the server.
    Reserved,
}

impl fmt::Display for TopicNameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("a channel name needs at least one character"),
            Self::TooLong(bytes) => write!(
                f,
                "a channel name of {bytes} bytes exceeds the limit of {TOPIC_NAME_BYTES_MAX}"
            ),
            Self::ControlCharacter => f.write_str("a channel name has no control characters"),
            Self::Reserved => write!(f, "the channel `{SYSTEM_TOPIC}` is reserved"),
        }
    }
}

/// Checks the rules for a name that clients may subscribe or publish to.
pub fn check_topic_name(name: &str) -> Result<(), TopicNameError> {
    if name.is_empty() {
        return Err(TopicNameError::Empty);
    }
    if name.len() > TOPIC_NAME_BYTES_MAX {
        return Err(TopicNameError::TooLong(name.len()));
    }
    // Most names are plain ASCII.
    if !name.bytes().all(|byte| matches!(byte, b' '..=b'~')) && name.chars().any(char::is_control) {
        return Err(TopicNameError::ControlCharacter);
    }
    if name == SYSTEM_TOPIC {
        return Err(TopicNameError::Reserved);
    }
    Ok(())
}

/// Checks the rules for a name that topics have here and in the log: those of clients, inboxes, and what
/// keeps sessions.
pub fn check_kept_name(name: &str) -> Result<(), TopicNameError> {
    match name.strip_prefix([INBOX_MARK, SESSIONS_MARK]) {
        Some(inbox) if name.len() <= TOPIC_NAME_BYTES_MAX => check_topic_name(inbox),
        _ => check_topic_name(name),
    }
}

/// Who a connection is authenticated as; clones share the text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserName(Arc<str>);

/// Longest name of a user, in bytes of UTF-8.
pub const USER_NAME_BYTES_MAX: usize = 128;

impl UserName {
    /// The user of that name: 1 to [`USER_NAME_BYTES_MAX`] bytes without control characters.
    pub fn parse(name: &str) -> Option<Self> {
        let valid =
            (1..=USER_NAME_BYTES_MAX).contains(&name.len()) && !name.contains(char::is_control);
        valid.then(|| Self(Arc::from(name)))
    }
}

impl Deref for UserName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

/// A named set of users; clones share the text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupName(Arc<str>);

/// Longest name of a group, in bytes of UTF-8.
pub const GROUP_NAME_BYTES_MAX: usize = 64;

impl GroupName {
    /// The group of that name: 1 to [`GROUP_NAME_BYTES_MAX`] bytes without control characters.
    pub fn parse(name: &str) -> Option<Self> {
        let valid =
            (1..=GROUP_NAME_BYTES_MAX).contains(&name.len()) && !name.contains(char::is_control);
        valid.then(|| Self(Arc::from(name)))
    }
}

impl Deref for GroupName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_packing() {
        let token = Token { slot: 7, generation: u32::MAX };
        assert_eq!(Token::unpack(token.pack()), token);
    }

    #[test]
    fn an_epoch_is_read_as_it_is_shown() {
        for epoch in [Epoch(0), Epoch(0xABC), Epoch(u64::MAX)] {
            assert_eq!(Epoch::parse(&epoch.to_string()), Some(epoch));
        }
        for text in ["", "0", "+00000000000000a", "000000000000000A", "00000000000000000"] {
            assert_eq!(Epoch::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_position_is_read_as_it_is_shown() {
        for offset in [1, 10, u64::MAX] {
            let position = Position { epoch: Epoch(0xABC), offset };
            assert_eq!(Position::parse(&position.to_string()), Some(position));
        }
        let epoch = Epoch(7);
        for offset in ["", "0", "+1", "-1", "01", "1 ", "18446744073709551616"] {
            assert_eq!(Position::parse(&format!("{epoch}-{offset}")), None, "{offset}");
        }
        assert_eq!(Position::parse("7-1"), None);
        assert_eq!(Position::parse(&epoch.to_string()), None);
    }

    #[test]
    fn ids_of_sessions_and_connections_are_read_as_they_are_shown() {
        for secret in [0, 0xABC, u128::MAX] {
            let session = SessionId { shard: ShardId(0x3FF), secret };
            assert_eq!(SessionId::parse(&session.to_string()), Some(session));
            let connection = ConnectionId { shard: ShardId(7), slot: u32::MAX, secret };
            assert_eq!(ConnectionId::parse(&connection.to_string()), Some(connection));
            assert_eq!(SessionId::parse(&connection.to_string()), None);
        }
        for text in ["", "é", &"0".repeat(35), &"A".repeat(36), &"+".repeat(36), &"0".repeat(37)] {
            assert_eq!(SessionId::parse(text), None, "{text}");
        }
    }

    #[test]
    fn user_names_follow_the_rules() {
        for name in ["a", "bob:x", "ünï côde", &"x".repeat(128)] {
            assert_eq!(UserName::parse(name).as_deref(), Some(name));
        }
        for name in ["", "a\n", "\u{1}", "a\u{85}b", &"é".repeat(65)] {
            assert_eq!(UserName::parse(name), None, "{name:?}");
        }
    }

    #[test]
    fn group_names_follow_the_rules() {
        for name in ["a", "on call", "ünï", &"x".repeat(64)] {
            assert_eq!(GroupName::parse(name).as_deref(), Some(name));
        }
        for name in ["", "a\n", "\u{1}", &"é".repeat(33)] {
            assert_eq!(GroupName::parse(name), None, "{name:?}");
        }
    }

    #[test]
    fn an_inbox_has_a_name_that_no_client_can_use() {
        let user = UserName::parse(&"a:".repeat(64)).unwrap();
        for namespace in ["", "chat", &"n".repeat(64)] {
            let inbox = TopicName::inbox(namespace, &user);
            assert_eq!(inbox.as_inbox(), Some((namespace, &*user)));
            assert_eq!(check_topic_name(&inbox), Err(TopicNameError::ControlCharacter));
            assert_eq!(check_kept_name(&inbox), Ok(()));
        }
        assert!(check_kept_name("\u{1}").is_err() && check_kept_name("\u{1}a\n").is_err());
        assert_eq!(TopicName::new("a:b").as_inbox(), None);
    }

    #[test]
    fn what_keeps_sessions_has_a_name_that_no_client_can_use() {
        for shard in [0, 7, 0xABC, u16::MAX].map(ShardId) {
            let topic = TopicName::sessions(shard);
            assert_eq!((topic.as_sessions(), topic.is_sessions()), (Some(shard), true));
            assert_eq!(check_topic_name(&topic), Err(TopicNameError::ControlCharacter));
            assert_eq!(check_kept_name(&topic), Ok(()));
            assert!(!topic.is_inbox() && topic.namespace().is_none());
        }
        let inbox = TopicName::inbox("", &UserName::parse("0001").unwrap());
        assert!(!inbox.is_sessions() && inbox.as_sessions().is_none());
        assert_eq!(TopicName::new("0001").as_sessions(), None);
    }

    #[test]
    fn topic_names_follow_the_rules() {
        assert_eq!(check_topic_name("chat:lobby"), Ok(()));
        assert_eq!(check_topic_name("ünïcode ✓"), Ok(()));
        assert_eq!(check_topic_name(""), Err(TopicNameError::Empty));
        assert_eq!(check_topic_name("a\nb"), Err(TopicNameError::ControlCharacter));
        assert_eq!(check_topic_name("a\u{85}b"), Err(TopicNameError::ControlCharacter));
        assert_eq!(check_topic_name("system"), Err(TopicNameError::Reserved));
        assert_eq!(check_topic_name(&"x".repeat(255)), Ok(()));
        assert_eq!(check_topic_name(&"é".repeat(128)), Err(TopicNameError::TooLong(256)));
    }
}
