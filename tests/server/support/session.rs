//! What a client restores its session with.

use serde_json::Value;

use super::{Peer, Server};

/// The ids that a client restores its session with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    pub session: String,
    pub connection: String,
}

impl Pair {
    /// Those in a message of the server.
    pub fn of(message: &Value) -> Self {
        let text = |name: &str| message[name].as_str().expect("an id").to_owned();
        Self { session: text("sessionId"), connection: text("connectionId") }
    }

    /// `more`: further members of the message, each behind a comma.
    pub fn request(&self, more: &str) -> String {
        let Self { session, connection } = self;
        format!(
            r#"{{"type":"restore_session","sessionId":"{session}","connectionId":"{connection}"{more}}}"#
        )
    }

    pub fn shard(&self) -> &str {
        &self.connection[..4]
    }
}

/// A client that is told its ids at once.
#[track_caller]
pub fn open_session(server: &Server) -> (Peer, Pair) {
    let mut peer = Peer::speaking(server, "stentor.v1.json");
    let welcome = peer.json();
    assert_eq!(welcome["type"], "welcome");
    let pair = Pair::of(&welcome);
    (peer, pair)
}
