//! What clients publish against the schemas of its channel and its type: before it is a publication, on the
//! event loop, and so only up to a size.

use std::borrow::Cow;

use super::State;
use crate::config::Config;
use crate::ids::Token;
use crate::metrics::Counter;
use crate::proto::{ErrorCode, Family, Rejection, RequestId};
use crate::schema::{Schema, Schemas};

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
        let refused = self.find_violation(family, text, |schemas| schemas.of_channel(channel));
        self.is_obedient(token, (family, Some(channel)), refused, id)
    }

    /// The same of a message and the schema of its type.
    pub(super) fn obeys_schema_of_type(
        &mut self,
        token: Token,
        kind: &str,
        text: &str,
        id: Option<RequestId<'_>>,
    ) -> bool {
        let refused = self.find_violation(Family::Type, text, |schemas| schemas.of_type(kind));
        self.is_obedient(token, (Family::Type, None), refused, id)
    }

    fn find_violation<'s>(
        &'s self,
        family: Family,
        text: &str,
        find: impl FnOnce(&'s Schemas) -> Option<&'s Schema>,
    ) -> Option<(ErrorCode, String)> {
        let config = &self.settings.config;
        violation(config, family, find(config.schemas.as_deref()?)?, text)
    }

    fn is_obedient(
        &mut self,
        token: Token,
        (family, channel): (Family, Option<&str>),
        refused: Option<(ErrorCode, String)>,
        id: Option<RequestId<'_>>,
    ) -> bool {
        let Some((code, message)) = refused else { return true };
        self.count(Counter::SchemaViolations, 1);
        let (channel, message) = (channel.map(Cow::Borrowed), Cow::Owned(message));
        self.reject(token, &Rejection { family, code, message, channel, id }, 1);
        false
    }
}

fn violation(
    config: &Config,
    family: Family,
    schema: &Schema,
    text: &str,
) -> Option<(ErrorCode, String)> {
    let subject = match family {
        Family::Action => "`data`",
        Family::Type => "the message",
    };
    let (bytes, limit) = (text.len(), config.limits.max_checked_size);
    if bytes > limit {
        let text = format!("{subject} of {bytes} bytes exceeds the limit of {limit} for a schema");
        return Some((ErrorCode::MessageTooLarge, text));
    }
    let violation = schema.check(text).err()?;
    Some((ErrorCode::SchemaViolation, format!("{subject} at {violation}")))
}
