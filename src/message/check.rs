//! What shards and the checker tell each other.

use std::sync::Arc;

use crate::ids::{ShardId, Token};
use crate::schema::{Schema, Violation};

/// Whether a text of a client obeys a schema.
#[derive(Debug)]
pub struct Question {
    /// Who asks, and on whose behalf.
    pub shard: ShardId,
    pub token: Token,
    pub schema: Arc<Schema>,
    pub text: Box<str>,
}

/// The answer.
#[derive(Debug)]
pub struct Verdict {
    pub token: Token,
    pub schema: Arc<Schema>,
    pub outcome: Result<(), Violation>,
    /// Of the text: its room in the queue is free again.
    pub bytes: usize,
}

impl Question {
    /// Asks the schema, which may take long.
    pub fn judge(self) -> Verdict {
        let Self { shard: _, token, schema, text } = self;
        let outcome = schema.check(&text);
        Verdict { token, schema, outcome, bytes: text.len() }
    }
}
