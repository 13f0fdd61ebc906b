//! What messages can be delivered to.

use crate::message::{BridgeMessage, BridgeOutcome};

/// Something outside that takes messages, one batch at a time.
///
/// It has no queue and repeats nothing: that is done for all of them in the same way.
pub trait Target: Send + 'static {
    /// For the log; without secrets.
    fn name(&self) -> &str;

    /// Delivers messages, of which there is one at least. Returns an outcome for each, in their order.
    ///
    /// # Errors
    ///
    /// None of them was taken, as far as can be told.
    fn deliver(
        &mut self,
        batch: &[BridgeMessage],
    ) -> impl Future<Output = Result<Vec<BridgeOutcome>, Failure>> + Send;
}

/// Why a batch was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Whether the same batch may be taken later.
    pub passes: bool,
    /// For people.
    pub reason: String,
}

impl Failure {
    /// Another time it may go well.
    pub fn passing(reason: impl Into<String>) -> Self {
        Self { passes: true, reason: reason.into() }
    }

    /// It will not be better next time.
    pub fn lasting(reason: impl Into<String>) -> Self {
        Self { passes: false, reason: reason.into() }
    }
}
