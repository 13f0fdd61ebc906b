//! What clients publish against the schema of its channel: before it is a publication, on the event
//! loop, and so only up to a size.

use std::borrow::Cow;

use super::State;
use crate::ids::Token;
use crate::metrics::Counter;
use crate::proto::{ErrorCode, Family, Rejection, RequestId};

impl State {
    /// Whether data for this channel obeys its schema, if there is one. If not, the client is told so.
    #[inline]
    pub(super) fn obeys_schema(
        &mut self,
        token: Token,
        channel: &str,
        data: &str,
        id: Option<RequestId<'_>>,
    ) -> bool {
        self.settings.config.schemas.is_none() || self.check_data(token, channel, data, id)
    }

    #[inline(never)]
    fn check_data(
        &mut self,
        token: Token,
        channel: &str,
        data: &str,
        id: Option<RequestId<'_>>,
    ) -> bool {
        let config = &self.settings.config;
        let schemas = config.schemas.as_deref();
        let Some(schema) = schemas.and_then(|schemas| schemas.of_channel(channel)) else {
            return true;
        };
        let (bytes, limit) = (data.len(), config.limits.max_checked_size);
        let (code, message) = if bytes > limit {
            let text = format!("`data` of {bytes} bytes exceeds the limit of {limit} for a schema");
            (ErrorCode::MessageTooLarge, text)
        } else {
            match schema.check(data) {
                Ok(()) => return true,
                Err(violation) => (ErrorCode::SchemaViolation, format!("`data` at {violation}")),
            }
        };
        self.count(Counter::SchemaViolations, 1);
        let (family, channel) = (Family::Action, Some(Cow::Borrowed(channel)));
        let message = Cow::Owned(message);
        self.reject(token, &Rejection { family, code, message, channel, id }, 1);
        false
    }
}
