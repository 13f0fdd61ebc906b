//! Acknowledgements of clients, and what follows where none comes.

use std::borrow::Cow;

use super::State;
use crate::broker::AckError;
use crate::ids::Token;
use crate::proto::{ErrorCode, Family, Received, Rejection, RequestId};

impl State {
    /// There is no answer but to what is refused.
    pub(super) fn acknowledge(
        &mut self,
        token: Token,
        received: Received<'_>,
        id: Option<RequestId<'_>>,
    ) {
        let mut effects = std::mem::take(&mut self.effects);
        let outcome = match &received {
            Received::One(position) => self.broker.ack(token, *position, &mut effects),
            Received::UpTo { channel, offset } => {
                self.broker.ack_to(token, channel, *offset, &mut effects)
            }
        };
        self.apply(effects);
        let (code, message, penalty) = match outcome {
            Ok(()) => return self.note_progress(token),
            // Acknowledgements that meet the end of their subscription are no mistake.
            Err(AckError::NotSubscribed) => {
                let message = "the ack belongs to no subscription of this connection";
                (ErrorCode::NotSubscribed, message, 0)
            }
            Err(AckError::NotSent) => {
                let message = "the ack is for a publication that was not delivered";
                (ErrorCode::InvalidMessage, message, 1)
            }
        };
        let message = Cow::Borrowed(message);
        let refused = Rejection { family: Family::Type, code, message, channel: None, id };
        self.reject(token, &refused, penalty);
    }

    /// Has deliveries repeated whose acknowledgement is overdue.
    pub(super) fn expire_acks(&mut self) {
        if self.broker.next_overdue().is_some_and(|due| due <= self.now) {
            let mut effects = std::mem::take(&mut self.effects);
            self.broker.expire_acks(&mut effects);
            self.apply(effects);
        }
    }
}
