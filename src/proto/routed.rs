//! Messages that go to a route: those of types, and queries for resources, that are not built in. The
//! server looks at their type alone; the rest is for whoever the route leads to.

use std::borrow::Cow;

use crate::proto::command::{Family, Rejection, RequestId, displayed_name};
use crate::proto::error_code::ErrorCode;

/// A message of a client that goes to the route of its type, if there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoutedMessage<'a> {
    /// The value of `type`, at most [`TYPE_NAME_BYTES_MAX`](crate::ids::TYPE_NAME_BYTES_MAX) bytes.
    pub kind: Cow<'a, str>,
    /// All of it as it was written, and nothing around it.
    pub text: &'a str,
    pub id: Option<RequestId<'a>>,
    /// A JSON string with its quotes, as [`Command::Publish`](crate::proto::Command) has it.
    pub message_id: Option<&'a str>,
    /// As the client wrote it, valid or not, if it is text and not too long to repeat.
    pub channel: Option<Cow<'a, str>>,
    /// Of a query.
    pub resource: Option<Cow<'a, str>>,
}

impl<'a> RoutedMessage<'a> {
    /// What its client is told where its type has no route.
    pub fn no_route(&self) -> Rejection<'a> {
        let message = match &self.resource {
            Some(resource) => format!("no route for query `{}`", displayed_name(resource)),
            None => format!("no route for type `{}`", displayed_name(&self.kind)),
        };
        Rejection {
            family: Family::Type,
            code: ErrorCode::NoRoute,
            message: Cow::Owned(message),
            channel: None,
            id: self.id,
        }
    }
}
