//! WebSocket frames of a connection: decoded, answered, or handed on as messages.

use super::State;
use super::connection::Phase;
use super::traffic::Flow;
use crate::ids::Token;
use crate::io::FrameClass;
use crate::metrics::Counter;
use crate::proto::{CloseCode, Encoding, Event, OpCode, encoder};

/// Pings beyond this within one turn are answered by their last one.
const QUEUED_PONGS_MAX: usize = 64;

impl State {
    /// Takes what has arrived apart. Message bytes are borrowed from `bytes` as far as possible.
    pub(super) fn read_frames(&mut self, token: Token, mut bytes: &mut [u8]) {
        if self.awaits_check(token) {
            self.hold_received(token, bytes);
            return;
        }
        let tick = self.tick();
        let limits = self.decoder_limits;
        let Some(connection) = self.connection(token) else { return };
        let mut same_message = connection.message_open;
        let mut decoder = std::mem::take(&mut connection.decoder);
        let mut messages = 0;
        loop {
            match decoder.next(&mut bytes, &limits) {
                Ok(Some(event)) => {
                    // Control frames may come in the midst of a message.
                    let is_message = matches!(event, Event::Text(_) | Event::Binary(_));
                    same_message &= !is_message;
                    messages += usize::from(is_message);
                    self.receive_event(token, event);
                }
                Ok(None) => break,
                Err(error) => {
                    self.fail(token, error.close_code(), error.reason(), &error.to_string());
                    return;
                }
            }
            if !matches!(self.phase(token), Phase::Open | Phase::Echo | Phase::Closing) {
                return;
            }
            if self.awaits_check(token) {
                self.hold_received(token, bytes);
                break;
            }
        }
        let Some(connection) = self.connection(token) else { return };
        let is_over = connection.traffic.add(Flow::MessagesReceived, messages);
        connection.message_open = decoder.holds_partial();
        connection.decoder = decoder;
        if connection.message_open && !same_message {
            connection.message_since = tick;
            self.rearm(token);
        }
        if is_over {
            self.carry(token, Flow::MessagesReceived);
        }
    }

    fn receive_event(&mut self, token: Token, event: Event<'_>) {
        let phase = self.phase(token);
        match event {
            // 5.5.1: after sending a Close, data that still arrives is of no use.
            Event::Text(_) | Event::Binary(_) if phase == Phase::Closing => {}
            Event::Text(text) if phase == Phase::Echo => {
                self.echo(token, OpCode::Text, text.as_bytes());
            }
            Event::Binary(payload) if phase == Phase::Echo => {
                self.echo(token, OpCode::Binary, &payload);
            }
            Event::Text(text) if self.encoding(token) == Encoding::Json => {
                self.count(Counter::MessagesReceived, 1);
                self.run_commands(token, &text, 0);
            }
            Event::Binary(payload) if self.encoding(token) == Encoding::Protobuf => {
                self.count(Counter::MessagesReceived, 1);
                self.run_requests(token, &payload, 0);
            }
            Event::Text(_) => {
                let text = "the subprotocol stentor.v1.protobuf has no text messages";
                self.fail(token, CloseCode::Unsupported, "unsupported_data", text);
            }
            Event::Binary(_) => {
                let text = "binary messages need the subprotocol stentor.v1.protobuf";
                self.fail(token, CloseCode::Unsupported, "unsupported_data", text);
            }
            Event::Ping(payload) => {
                if self.admit_control(token) {
                    self.answer_ping(token, &payload);
                }
            }
            // One that proves something was asked for, and does not count.
            Event::Pong(payload) => {
                if !self.prove(token, &payload) && self.admit_control(token) {
                    self.take_pong(token, &payload);
                }
            }
            // The answer to ours: both sides are done.
            Event::Close(_) if phase == Phase::Closing => self.enter(token, Phase::Draining),
            Event::Close(frame) => {
                tracing::debug!(shard = self.id.0, slot = token.slot, ?frame, "closed by the peer");
                self.peer_closed(token, frame.map(|frame| frame.code));
            }
        }
    }

    fn echo(&mut self, token: Token, opcode: OpCode, payload: &[u8]) {
        self.count(Counter::MessagesReceived, 1);
        self.queue_bytes(token, encoder::payload_frame(opcode, payload), FrameClass::Reply);
    }

    /// `false`: the connection was closed for too many.
    fn admit_control(&mut self, token: Token) -> bool {
        let tick = self.tick();
        let rate = self.settings.config.limits.control_frame_rate;
        let Some(connection) = self.connection(token) else { return false };
        let admitted = connection.admit_control(tick, rate);
        if !admitted {
            let text = format!("more than {rate} control frames a second for 5 s");
            self.fail(token, CloseCode::Policy, Counter::ControlFlood.name(), &text);
        }
        admitted
    }

    /// 5.5.3: a Pong has the application data of the Ping it answers. While the peer does not read,
    /// or sends more than it can be meant to, only the newest one waits.
    fn answer_ping(&mut self, token: Token, payload: &[u8]) {
        let Some(connection) = self.connections.get_mut(token.index()) else { return };
        let crowded = connection.blocked || connection.queue.len() > QUEUED_PONGS_MAX;
        if crowded && connection.queue.take_pong(&mut self.frames) {
            self.count(Counter::PongsReplaced, 1);
        }
        let frame = self.frames.insert(encoder::pong_frame(payload), FrameClass::Pong);
        self.queue_control(token, frame);
        self.frames.release(frame);
    }
}
