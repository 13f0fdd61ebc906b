//! What has gone over one connection: four numbers that cost an addition each, on lines of memory that
//! are touched anyway.

use super::State;
use crate::ids::Token;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Flow {
    BytesReceived,
    /// WebSocket messages.
    MessagesReceived,
    /// Taken by the socket.
    BytesSent,
    /// Frames, or HTTP responses, taken by the socket.
    FramesSent,
}

/// The numbers of one connection, modulo 2^32: what is above that has its place in
/// [`Identity`](super::identity::Identity), and few connections need one for it.
#[derive(Debug, Default, Clone, Copy)]
pub struct Traffic([u32; 4]);

/// How often each number went over 2^32.
pub type Carried = [u32; 4];

impl Traffic {
    /// Whether the number went over 2^32. `count` is below that.
    #[must_use]
    pub fn add(&mut self, flow: Flow, count: usize) -> bool {
        let (sum, is_over) = self.0[flow as usize].overflowing_add(count as u32);
        self.0[flow as usize] = sum;
        is_over
    }

    /// From now on messages are sent, behind the response to the upgrade, which is the first frame to be
    /// taken unless the client has not waited for the answer to a request before it.
    pub fn begin_messages(&mut self) {
        self.0[Flow::FramesSent as usize] = 0;
    }

    pub fn messages_sent(&self, carried: &Carried) -> u64 {
        self.value(carried, Flow::FramesSent).saturating_sub(1)
    }

    pub fn value(&self, carried: &Carried, flow: Flow) -> u64 {
        u64::from(carried[flow as usize]) << 32 | u64::from(self.0[flow as usize])
    }
}

impl State {
    /// A number of this connection went over 2^32.
    #[cold]
    pub(super) fn carry(&mut self, token: Token, flow: Flow) {
        if let Some(identity) = self.identity(token) {
            identity.carried[flow as usize] += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_on_above_32_bits() {
        let (mut traffic, mut carried) = (Traffic::default(), Carried::default());
        for _ in 0..5 {
            carried[Flow::BytesSent as usize] +=
                u32::from(traffic.add(Flow::BytesSent, 1_000_000_000));
        }
        assert!(!traffic.add(Flow::FramesSent, 3));
        assert_eq!(traffic.value(&carried, Flow::BytesSent), 5_000_000_000);
        assert_eq!(traffic.value(&carried, Flow::FramesSent), 3);
        traffic.begin_messages();
        assert_eq!(traffic.messages_sent(&carried), 0);
        assert!(!traffic.add(Flow::FramesSent, 3));
        assert_eq!(traffic.messages_sent(&carried), 2, "one is the response");
        assert_eq!(traffic.value(&carried, Flow::BytesReceived), 0);
    }
}
