//! What clients publish against the schema of its channel: before it is a publication, on the event
//! loop, and so only up to a size.

use std::borrow::Cow;

use super::State;
use crate::ids::Token;
use crate::metrics::Counter;
use crate::proto::{ErrorCode, Family, Rejection, RequestId};

impl State {
    /// Whether what a client publishes in this channel obeys its schema, if there is one: the data of a
    /// publication (of the family of actions), or a message that is passed on whole. If not, the client is
    /// told so.
    pub(super) fn obeys_schema(
        &mut self,
        token: Token,
        channel: &str,
        (family, text): (Family, &str),
        id: Option<RequestId<'_>>,
    ) -> bool {
        let config = &self.settings.config;
        let schemas = config.schemas.as_deref();
        let Some(schema) = schemas.and_then(|schemas| schemas.of_channel(channel)) else {
            return true;
        };
        let subject = match family {
            Family::Action => "`data`",
            Family::Type => "the message",
        };
        let (bytes, limit) = (text.len(), config.limits.max_checked_size);
        let (code, message) = if bytes > limit {
            let text =
                format!("{subject} of {bytes} bytes exceeds the limit of {limit} for a schema");
            (ErrorCode::MessageTooLarge, text)
        } else {
            match schema.check(text) {
                Ok(()) => return true,
                Err(violation) => (ErrorCode::SchemaViolation, format!("{subject} at {violation}")),
            }
        };
        self.count(Counter::SchemaViolations, 1);
        let channel = Some(Cow::Borrowed(channel));
        let message = Cow::Owned(message);
        self.reject(token, &Rejection { family, code, message, channel, id }, 1);
        false
    }
}
