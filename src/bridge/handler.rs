//! Functions of the program that the server is a part of, as targets of routes.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;

use super::target::{Failure, Target};
use crate::message::{BridgeMessage, BridgeOutcome};

/// How long one call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// A message of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inbound {
    /// Its `type`.
    pub kind: String,
    /// The JSON value of its `id`, if it has one.
    pub id: Option<String>,
    pub connection_id: String,
    /// Whose connection it is; `None`: it has not authenticated.
    pub user: Option<String>,
    /// The channel that it names.
    pub channel: Option<String>,
    /// Unix time, in milliseconds.
    pub received_at: u64,
    /// All of it as it was sent: a JSON object.
    pub message: String,
}

/// What a handler answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply(Box<str>);

/// Why a handler does not want a message. Its client is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// For programs: 1 to 64 visible ASCII characters, else it becomes `refused`.
    pub code: String,
    /// For people; 1 KiB of it at most.
    pub message: String,
}

/// What a handler comes to: `None` acknowledges the message, if it has an `id`.
type Handled = Pin<Box<dyn Future<Output = Result<Option<Reply>, Refusal>> + Send>>;

/// Takes messages of one type. Any function that takes an [`Inbound`] and returns a future is one.
///
/// It runs on the thread of the bridge, which other routes share: it may wait but must not block. Up to
/// 64 calls are under way at a time, each for 30 s at most.
pub trait Handler: Send + Sync + 'static {
    fn handle(&self, inbound: Inbound) -> Handled;
}

/// By the type that is routed to them.
pub type Handlers = BTreeMap<Box<str>, Arc<dyn Handler>>;

impl<F, R> Handler for F
where
    F: Fn(Inbound) -> R + Send + Sync + 'static,
    R: Future<Output = Result<Option<Reply>, Refusal>> + Send + 'static,
{
    fn handle(&self, inbound: Inbound) -> Handled {
        Box::pin(self(inbound))
    }
}

impl Reply {
    /// The payload of the response to the client.
    ///
    /// # Errors
    ///
    /// The value cannot be written as JSON.
    pub fn new(payload: &impl Serialize) -> Result<Self, serde_json::Error> {
        serde_json::to_string(payload).map(|json| Self(json.into()))
    }

    /// As [`Reply::new`], of what is JSON already.
    ///
    /// # Errors
    ///
    /// It is none.
    pub fn from_json(payload: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str::<&RawValue>(payload).map(|json| Self(json.get().into()))
    }
}

impl Refusal {
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into() }
    }
}

impl From<&BridgeMessage> for Inbound {
    fn from(message: &BridgeMessage) -> Self {
        Self {
            kind: message.kind.to_string(),
            id: message.origin.request_id.as_deref().map(ToOwned::to_owned),
            connection_id: message.connection_id.to_string(),
            user: message.user.as_ref().map(|user| user.to_string()),
            channel: message.channel.as_deref().map(ToOwned::to_owned),
            received_at: message.received_ms,
            message: message.text.to_string(),
        }
    }
}

/// The handler of one type.
pub struct HandlerTarget {
    name: String,
    handler: Arc<dyn Handler>,
}

impl HandlerTarget {
    pub fn new(kind: &str, handler: Arc<dyn Handler>) -> Self {
        Self { name: format!("the handler of `{}`", kind.escape_debug()), handler }
    }
}

impl Target for HandlerTarget {
    fn name(&self) -> &str {
        &self.name
    }

    async fn deliver(&mut self, batch: &[BridgeMessage]) -> Result<Vec<BridgeOutcome>, Failure> {
        // A task for each, so that one that panics ends nothing else.
        let start = |message: &BridgeMessage| {
            let (handler, inbound) = (Arc::clone(&self.handler), Inbound::from(message));
            tokio::spawn(tokio::time::timeout(CALL_TIMEOUT, async move {
                handler.handle(inbound).await
            }))
        };
        let calls: Vec<_> = batch.iter().map(start).collect();
        let mut outcomes = Vec::with_capacity(calls.len());
        for call in calls {
            outcomes.push(match call.await {
                Ok(Ok(Ok(None))) => BridgeOutcome::Taken,
                Ok(Ok(Ok(Some(reply)))) => BridgeOutcome::replied(&reply.0),
                Ok(Ok(Err(Refusal { code, message }))) => BridgeOutcome::refusal(&code, &message),
                Ok(Err(_)) => {
                    tracing::warn!(
                        route = self.name,
                        "a handler took longer than {CALL_TIMEOUT:?}"
                    );
                    BridgeOutcome::Unavailable
                }
                Err(error) => {
                    tracing::error!(route = self.name, %error, "a handler panicked");
                    BridgeOutcome::refusal("internal", "the handler of the message failed")
                }
            });
        }
        Ok(outcomes)
    }
}
