//! Messages whose check takes long: the checker does it, and meanwhile their connection waits, with all that it
//! has sent behind them. When the verdict is there the message runs again, from its beginning.

use super::State;
use super::checks::{Frame, Running, Waiting};
use super::connection::Phase;
use crate::ids::Token;
use crate::message::Verdict;

/// A frame, as it was received.
pub(super) trait AsFrame {
    fn to_frame(&self) -> Frame;
}

impl AsFrame for str {
    fn to_frame(&self) -> Frame {
        Frame::Text(self.into())
    }
}

impl AsFrame for [u8] {
    fn to_frame(&self) -> Frame {
        Frame::Binary(self.into())
    }
}

impl State {
    /// Whether a message of this connection is being checked: what comes behind it waits.
    #[inline]
    pub(super) fn awaits_check(&self, token: Token) -> bool {
        self.checks.is_waiting(token)
    }

    /// Keeps a frame from the message on that is being checked, if one is.
    pub(super) fn hold_frame(
        &mut self,
        token: Token,
        index: usize,
        rest: &(impl AsFrame + ?Sized),
    ) {
        if let Some(waiting) = self.checks.waiting(token) {
            (waiting.frame, waiting.index) = (Some(rest.to_frame()), index);
        }
    }

    /// Keeps what has come behind that frame.
    pub(super) fn hold_received(&mut self, token: Token, bytes: &[u8]) {
        if let Some(waiting) = self.checks.waiting(token) {
            waiting.received.extend_from_slice(bytes);
        }
    }

    /// The checker has judged. The connection may be gone, or have been in a hurry.
    pub(super) fn receive_verdict(&mut self, verdict: Verdict) {
        self.checks.note_verdict(&verdict);
        let Verdict { token, schema, outcome, bytes: _ } = verdict;
        let Some(mut waiting) = self.checks.take(token) else { return };
        waiting.verdicts.push((schema, outcome));
        let (now, tick) = (self.now, self.tick());
        if self.settings.config.limits.publish_rate > 0 {
            self.checks.excuse(token, now, now.since(waiting.since));
        }
        if let Some(connection) = self.connection(token) {
            connection.excuse(tick);
        }
        self.go_on(token, waiting, false);
    }

    /// A connection is about to end: what it has sent counts, so it is checked here and now.
    pub(super) fn hurry_check(&mut self, token: Token) {
        if let Some(waiting) = self.checks.take(token) {
            self.go_on(token, waiting, true);
        }
    }

    /// Runs the message that has waited, and what waited behind it, until one has to wait again.
    fn go_on(&mut self, token: Token, waiting: Waiting, hurried: bool) {
        let Waiting { frame, index, mut received, verdicts, timely, .. } = waiting;
        let before = self.checks.begin(Running { verdicts, timely, hurried });
        match frame {
            Some(Frame::Text(text)) => self.run_commands(token, &text, index),
            Some(Frame::Binary(bytes)) => self.run_requests(token, &bytes, index),
            None => {}
        }
        match self.phase(token) {
            Phase::Open | Phase::Closing if !received.is_empty() => {
                self.read_frames(token, &mut received);
            }
            Phase::Head
            | Phase::Open
            | Phase::Echo
            | Phase::Closing
            | Phase::Draining
            | Phase::Gone => {}
        }
        self.checks.begin(before);
        // The flush resumes it, if nothing else keeps it waiting.
        self.mark_dirty(token.slot);
    }
}
