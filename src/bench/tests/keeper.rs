//! A server with histories that speaks the native protocol, and can acknowledge and replay badly on
//! purpose.

use super::send;
use serde_json::Value;
use std::collections::HashMap;
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use tungstenite::handshake::server::{Request, Response};

/// One acknowledgement, or one replayed publication, in this many is treated badly.
const MISCHIEF_EVERY: usize = 25;

/// What it does badly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misdeed {
    None,
    /// Publishes, and does not say so.
    LoseAck,
    RepeatAck,
    /// Another offset than the publication has.
    WrongAck,
    /// One replayed publication is left out, sent twice, or sent behind the next.
    Lose,
    Repeat,
    Reorder,
    /// One bit of it is turned.
    Corrupt,
    /// It has another offset than it had.
    WrongOffset,
    /// The oldest are not kept, and the reader is told so.
    Trim,
    /// Sessions are not known any more.
    Forget,
}

struct Keeper {
    misdeed: Misdeed,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    channels: HashMap<String, Channel>,
    /// Connection, and channels, by session.
    sessions: HashMap<String, (String, Vec<String>)>,
    connections: usize,
    /// Acknowledgements or replayed publications so far.
    things: usize,
}

#[derive(Default)]
struct Channel {
    /// From offset 1 on.
    publications: Vec<String>,
    subscribers: Vec<TcpStream>,
}

/// Starts one; it lives as long as the test's process.
pub fn keeper(misdeed: Misdeed) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let keeper = Arc::new(Keeper { misdeed, state: Mutex::default() });
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let keeper = Arc::clone(&keeper);
            thread::spawn(move || keeper.serve(stream));
        }
    });
    url
}

impl Keeper {
    fn serve(&self, stream: TcpStream) {
        stream.set_nodelay(true).unwrap();
        let mut speaks_first = false;
        // Its type is tungstenite's.
        #[expect(clippy::result_large_err)]
        let look = |request: &Request, response: Response| {
            speaks_first = request.headers().contains_key("sec-websocket-protocol");
            Ok(response)
        };
        let accepted = tungstenite::accept_hdr(stream.try_clone().unwrap(), look);
        let Ok(mut socket) = accepted else { return };
        let id = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.connections += 1;
            state.connections
        };
        let mut session = format!("s{id}");
        if speaks_first {
            let welcome =
                format!(r#"{{"type":"welcome","connectionId":"c{id}","sessionId":"{session}"}}"#);
            send(&stream, welcome.as_bytes());
        }
        while let Ok(message) = socket.read() {
            let Ok(text) = message.into_text() else { return };
            let Ok(request) = serde_json::from_str::<Value>(&text) else { return };
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            match (request["action"].as_str(), request["type"].as_str()) {
                (Some("publish"), _) => self.publish(&mut state, &stream, &request),
                (Some("subscribe"), _) => {
                    let channel = request["channel"].as_str().unwrap();
                    let connection = format!("c{id}");
                    let known = state.sessions.entry(session.clone());
                    known.or_insert((connection, Vec::new())).1.push(channel.to_string());
                    self.subscribe(&mut state, &stream, channel, &request);
                }
                (_, Some("restore_session")) => {
                    if let Some(restored) = self.restore(&mut state, &stream, id, &request) {
                        session = restored;
                    }
                }
                _ => send(&stream, br#"{"type":"pong"}"#),
            }
        }
    }

    /// The session that the connection has now.
    fn restore(
        &self,
        state: &mut State,
        stream: &TcpStream,
        id: usize,
        request: &Value,
    ) -> Option<String> {
        let session = request["sessionId"].as_str().unwrap().to_string();
        let known = state.sessions.get(&session).cloned();
        let known = known.filter(|(connection, _)| request["connectionId"] == **connection);
        let Some((_, channels)) = known.filter(|_| self.misdeed != Misdeed::Forget) else {
            send(stream, br#"{"type":"error","code":"session_not_found"}"#);
            return None;
        };
        let connection = format!("c{id}");
        let each = |channel| format!(r#"{{"channel":"{channel}","recovered":true}}"#);
        let each: Vec<_> = channels.iter().map(each).collect();
        let text = format!(
            r#"{{"type":"session_restored","sessionId":"{session}","connectionId":"{connection}","subscriptions":[{}]}}"#,
            each.join(",")
        );
        send(stream, text.as_bytes());
        for channel in &channels {
            let after = request["positions"][channel].as_u64().unwrap();
            self.replay(state, stream, channel, after as usize);
        }
        state.sessions.insert(session.clone(), (connection, channels));
        Some(session)
    }

    fn publish(&self, state: &mut State, stream: &TcpStream, request: &Value) {
        let name = request["channel"].as_str().unwrap();
        let channel = state.channels.entry(name.to_string()).or_default();
        channel.publications.push(request["data"].to_string());
        let offset = channel.publications.len();
        let message = publication(name, offset, &channel.publications[offset - 1]);
        for subscriber in &channel.subscribers {
            send(subscriber, &message);
        }
        let Some(id) = request["id"].as_u64() else { return };
        let bad = is_bad(state);
        let offset = offset + usize::from(bad && self.misdeed == Misdeed::WrongAck);
        let ack =
            format!(r#"{{"type":"ack","requestId":{id},"channel":"{name}","offset":{offset}}}"#);
        let times = match self.misdeed {
            Misdeed::LoseAck if bad => 0,
            Misdeed::RepeatAck if bad => 2,
            _ => 1,
        };
        for _ in 0..times {
            send(stream, ack.as_bytes());
        }
    }

    fn subscribe(&self, state: &mut State, stream: &TcpStream, name: &str, request: &Value) {
        let channel = state.channels.entry(name.to_string()).or_default();
        let newest = channel.publications.len();
        let recover = request["recover"]["offset"].as_u64();
        let after = match recover {
            Some(offset) => offset as usize,
            None if request["since"] == "start" && self.misdeed == Misdeed::Trim => newest / 2,
            None if request["since"] == "start" => 0,
            None => newest,
        };
        let recovered = if recover.is_some() { r#","recovered":true"# } else { "" };
        let confirm = format!(
            r#"{{"channel":"system","data":{{"type":"subscription_confirm","channel":"{name}","epoch":"e","offset":{after}{recovered}}}}}"#
        );
        send(stream, confirm.as_bytes());
        self.replay(state, stream, name, after);
    }

    /// What is behind `after`, and then whatever comes.
    fn replay(&self, state: &mut State, stream: &TcpStream, name: &str, after: usize) {
        let missed = state.channels[name].publications.clone();
        let mut held = None;
        for (index, data) in missed.iter().enumerate().skip(after) {
            let bad = is_bad(state);
            let mut message = publication(name, index + 1, data);
            match self.misdeed {
                Misdeed::Lose if bad => continue,
                Misdeed::Repeat if bad => send(stream, &message),
                Misdeed::Corrupt if bad => {
                    let last = message.len() - 4;
                    message[last] ^= 1;
                }
                Misdeed::WrongOffset if bad => message = publication(name, index + 2, data),
                Misdeed::Reorder if bad => {
                    held = Some(message);
                    continue;
                }
                _ => {}
            }
            send(stream, &message);
            if let Some(late) = held.take() {
                send(stream, &late);
            }
        }
        if let Some(late) = held {
            send(stream, &late);
        }
        let channel = state.channels.get_mut(name).unwrap();
        channel.subscribers.push(stream.try_clone().unwrap());
    }
}

fn is_bad(state: &mut State) -> bool {
    state.things += 1;
    state.things.is_multiple_of(MISCHIEF_EVERY)
}

fn publication(channel: &str, offset: usize, data: &str) -> Vec<u8> {
    format!(r#"{{"channel":"{channel}","offset":{offset},"data":{data}}}"#).into_bytes()
}
