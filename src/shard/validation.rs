//! What clients publish against the schemas of its channel and its type: before it is a publication, and so
//! only up to a size; what is large by the checker, see `checking`.

use std::borrow::Cow;
use std::sync::Arc;

use super::State;
use crate::ids::Token;
use crate::metrics::Counter;
use crate::proto::{Data, ErrorCode, Family, Rejection, RequestId};
use crate::schema::{Schema, Schemas};

/// What becomes of a message.
enum Judgement {
    Obeys,
    Refused(ErrorCode, String),
    /// Nothing yet: it runs again with the verdict of the checker.
    Waits,
}

impl State {
    /// Whether what a client publishes in this channel obeys its schema, if there is one: the data of a
    /// publication (of the family of actions), or a message that is passed on whole. If not, the client is
    /// told so, unless the checker is asked; then the message runs again. It was admitted already.
    pub(super) fn obeys_schema(
        &mut self,
        token: Token,
        channel: &str,
        (family, data): (Family, Data<'_>),
        id: Option<RequestId<'_>>,
    ) -> bool {
        let judgement = self.judge(token, family, data, |schemas| schemas.of_channel(channel));
        if matches!(judgement, Judgement::Waits) {
            let rate = self.settings.config.limits.publish_rate;
            if let Some(connection) = self.connection(token) {
                connection.withdraw_publication(rate);
            }
        }
        self.is_obedient(token, (family, Some(channel)), judgement, id)
    }

    /// The same of a message and the schema of its type, before it is admitted.
    pub(super) fn obeys_schema_of_type(
        &mut self,
        token: Token,
        kind: &str,
        text: &str,
        id: Option<RequestId<'_>>,
    ) -> bool {
        let data = Data::Json(text);
        let judgement = self.judge(token, Family::Type, data, |schemas| schemas.of_type(kind));
        self.is_obedient(token, (Family::Type, None), judgement, id)
    }

    fn judge(
        &mut self,
        token: Token,
        family: Family,
        data: Data<'_>,
        find: impl FnOnce(&Schemas) -> Option<&Arc<Schema>>,
    ) -> Judgement {
        let Self { id, settings, checks, shutdown, now, .. } = self;
        let config = &settings.config;
        let Some(schema) = config.schemas.as_deref().and_then(find) else {
            return Judgement::Obeys;
        };
        let subject = match family {
            Family::Action => "`data`",
            Family::Type => "the message",
        };
        let text = &*data.as_json();
        let (bytes, limit) = (text.len(), config.limits.max_checked_size);
        if bytes > limit {
            let text =
                format!("{subject} of {bytes} bytes exceeds the limit of {limit} for a schema");
            return Judgement::Refused(ErrorCode::MessageTooLarge, text);
        }
        let timely = !shutdown.has_begun() || checks.is_timely();
        let count = |counter| settings.metrics.shards()[id.index()].add(counter, 1);
        let outcome = if let Some(outcome) = checks.verdict(schema) {
            outcome
        } else if !checks.takes(bytes, config.limits.checked_in_turn) {
            schema.check(text)
        } else if checks.ask((*id, token), schema, text, (*now, timely)) {
            count(Counter::CheckedAside);
            return Judgement::Waits;
        } else {
            count(Counter::CheckQueueFull);
            schema.check(text)
        };
        match outcome {
            Ok(()) => Judgement::Obeys,
            Err(violation) => {
                let text = format!("{subject} at {violation}");
                Judgement::Refused(ErrorCode::SchemaViolation, text)
            }
        }
    }

    fn is_obedient(
        &mut self,
        token: Token,
        (family, channel): (Family, Option<&str>),
        judgement: Judgement,
        id: Option<RequestId<'_>>,
    ) -> bool {
        let (code, message) = match judgement {
            Judgement::Obeys => return true,
            Judgement::Waits => return false,
            Judgement::Refused(code, message) => (code, message),
        };
        self.count(Counter::SchemaViolations, 1);
        let (channel, message) = (channel.map(Cow::Borrowed), Cow::Owned(message));
        self.reject(token, &Rejection { family, code, message, channel, id }, 1);
        false
    }
}
