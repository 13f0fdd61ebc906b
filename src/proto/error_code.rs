//! The stable names of what can be wrong with a client's request.

use std::fmt;

use crate::ids::TopicNameError;

/// The `code` of an error reply. Clients match on it, so a name never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// Not JSON, or nested too deep.
    InvalidJson,
    /// Not protobuf, or not of our schema.
    InvalidProtobuf,
    /// Well formed, but a field is missing, doubled or of the wrong type.
    InvalidMessage,
    UnknownAction,
    /// A `type` that nothing here handles.
    NoRoute,
    /// A `version` that is not spoken here.
    UnsupportedVersion,
    /// A message that does not say where it goes, and cannot go to one place only.
    NoTarget,
    ChannelInvalid,
    ChannelReserved,
    NotSubscribed,
    RateLimited,
    TooManySubscriptions,
    BacklogFull,
    Unavailable,
    /// A place in a history that the server cannot give everything from.
    PositionUnavailable,
    /// Credentials are missing or wrong.
    Unauthenticated,
    /// Whoever it is may not do this.
    PermissionDenied,
    /// The data breaks a rule of the schema of its channel.
    SchemaViolation,
    /// Larger than what a schema is asked about.
    MessageTooLarge,
    /// No session has this pair of ids, or none any more.
    SessionNotFound,
    RoomExists,
    RoomNotFound,
    RoomFull,
    /// The connection is in the room.
    AlreadyMember,
    /// It is for somebody else to do.
    Forbidden,
}

impl ErrorCode {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidJson => "invalid_json",
            Self::InvalidProtobuf => "invalid_protobuf",
            Self::InvalidMessage => "invalid_message",
            Self::UnknownAction => "unknown_action",
            Self::NoRoute => "no_route",
            Self::UnsupportedVersion => "unsupported_version",
            Self::NoTarget => "no_target",
            Self::ChannelInvalid => "channel_invalid",
            Self::ChannelReserved => "channel_reserved",
            Self::NotSubscribed => "not_subscribed",
            Self::RateLimited => "rate_limited",
            Self::TooManySubscriptions => "too_many_subscriptions",
            Self::BacklogFull => "backlog_full",
            Self::Unavailable => "unavailable",
            Self::PositionUnavailable => "position_unavailable",
            Self::Unauthenticated => "unauthenticated",
            Self::PermissionDenied => "permission_denied",
            Self::SchemaViolation => "schema_violation",
            Self::MessageTooLarge => "message_too_large",
            Self::SessionNotFound => "session_not_found",
            Self::RoomExists => "room_exists",
            Self::RoomNotFound => "room_not_found",
            Self::RoomFull => "room_full",
            Self::AlreadyMember => "already_member",
            Self::Forbidden => "forbidden",
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<TopicNameError> for ErrorCode {
    fn from(error: TopicNameError) -> Self {
        match error {
            TopicNameError::Empty
            | TopicNameError::TooLong(_)
            | TopicNameError::ControlCharacter => Self::ChannelInvalid,
            TopicNameError::Reserved => Self::ChannelReserved,
        }
    }
}
