//! How a request is refused: a status, a stable code for programs, a text for people.

use std::borrow::Cow;

use axum::http::StatusCode;
use serde::Serialize;

use crate::ids::TopicNameError;
use crate::message::{AdminRefusal, FILTERED_HISTORY, NO_TAGS, PublishOutcome};
use crate::proto::ErrorCode;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    pub status: StatusCode,
    pub code: &'static str,
    pub message: Cow<'static, str>,
}

/// As it is written: `{"code":C,"message":M}`.
#[derive(Debug, Serialize)]
pub struct Shown<'a> {
    code: &'a str,
    message: &'a str,
}

impl ApiError {
    pub fn new(
        status: StatusCode,
        code: &'static str,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { status, code, message: message.into() }
    }

    /// What was asked is well-formed JSON and yet makes no sense.
    pub fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, ErrorCode::InvalidMessage.as_str(), message)
    }

    pub fn unavailable(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Unavailable.as_str(), message)
    }

    pub fn shutting_down() -> Self {
        Self::unavailable("the server is shutting down")
    }

    pub fn backlog_full() -> Self {
        let message = "too much waits for delivery; try again later";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::BacklogFull.as_str(), message)
    }

    pub fn no_connection() -> Self {
        let message = "no open connection has this id";
        Self::new(StatusCode::NOT_FOUND, "connection_not_found", message)
    }

    /// A publication for some of the subscribers where everybody can have it later.
    pub fn filtered_history() -> Self {
        let code = ErrorCode::InvalidMessage.as_str();
        Self::new(StatusCode::CONFLICT, code, FILTERED_HISTORY)
    }

    /// Tags, or a filter over them, where the namespace has none.
    pub fn no_tags() -> Self {
        Self::new(StatusCode::CONFLICT, ErrorCode::PermissionDenied.as_str(), NO_TAGS)
    }

    /// A shard has answered something else than it was asked: a bug.
    pub fn unexpected() -> Self {
        let message = "an event loop gave the wrong answer; this is a bug";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message)
    }

    pub fn too_large(what: &str, bytes: usize, limit: usize) -> Self {
        let message = format!("{what} of {bytes} bytes exceeds the limit of {limit}");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "message_too_large", message)
    }

    pub fn shown(&self) -> Shown<'_> {
        Shown { code: self.code, message: &self.message }
    }

    /// What became of a publication: its offset, if its topic has a history.
    pub fn of_publication(outcome: PublishOutcome) -> Result<Option<u64>, Self> {
        match outcome {
            PublishOutcome::Accepted { offset } => Ok(offset),
            PublishOutcome::BacklogFull => Err(Self::backlog_full()),
            PublishOutcome::TableFull { limit } => Err(AdminRefusal::TableFull { limit }.into()),
            // Whoever asks the server API is barred from nothing.
            PublishOutcome::Barred => Err(Self::unexpected()),
            PublishOutcome::NotStored => {
                Err(Self::unavailable("the durable log has not kept it; try again later"))
            }
        }
    }
}

impl From<TopicNameError> for ApiError {
    fn from(error: TopicNameError) -> Self {
        let code = ErrorCode::from(error).as_str();
        Self::new(StatusCode::BAD_REQUEST, code, error.to_string())
    }
}

impl From<AdminRefusal> for ApiError {
    fn from(refusal: AdminRefusal) -> Self {
        match refusal {
            AdminRefusal::NoConnection => Self::no_connection(),
            AdminRefusal::NotSubscribed => {
                let message = "the connection is not subscribed to the channel";
                Self::new(StatusCode::NOT_FOUND, ErrorCode::NotSubscribed.as_str(), message)
            }
            AdminRefusal::NotAuthenticated => {
                let message = "the connection has not authenticated, and `auth.required` is set";
                Self::new(StatusCode::CONFLICT, ErrorCode::PermissionDenied.as_str(), message)
            }
            AdminRefusal::TooManySubscriptions { limit } => {
                let message = format!("a connection may have {limit} subscriptions");
                let code = ErrorCode::TooManySubscriptions.as_str();
                Self::new(StatusCode::CONFLICT, code, message)
            }
            AdminRefusal::TableFull { limit } => {
                Self::unavailable(format!("this server holds {limit} channels already"))
            }
            AdminRefusal::BacklogFull => Self::backlog_full(),
            AdminRefusal::NoHistory => {
                let message = "the channel keeps no history";
                let code = ErrorCode::PositionUnavailable.as_str();
                Self::new(StatusCode::CONFLICT, code, message)
            }
            AdminRefusal::NoPresence => {
                let message = "the channel keeps no presence";
                Self::new(StatusCode::CONFLICT, ErrorCode::PermissionDenied.as_str(), message)
            }
            AdminRefusal::NoRooms => {
                let message = "channels of this namespace are no rooms";
                Self::new(StatusCode::CONFLICT, ErrorCode::Forbidden.as_str(), message)
            }
            AdminRefusal::ShuttingDown => Self::shutting_down(),
        }
    }
}
