//! The server API of a server, as its users call it.

use std::net::SocketAddr;

use serde_json::Value;

use super::{Launch, Peer, Response, Server};

/// A server with its API, without a key unless one is set.
pub struct Api {
    pub server: Server,
    pub address: SocketAddr,
}

impl Api {
    pub fn start(flags: &[&str]) -> Self {
        Self::launch(Launch::new(&[&["--admin", "127.0.0.1:0"], flags].concat()))
    }

    pub fn launch(launch: Launch) -> Self {
        let mut server = launch.start();
        let address = server.admin_address();
        Self { server, address }
    }

    pub fn connect(&self) -> Peer {
        Peer::try_connect(self.address).expect("the server API accepts")
    }

    /// One request on a connection of its own.
    #[track_caller]
    pub fn request(&self, head: &str, body: &str) -> Response {
        let mut peer = self.connect();
        let length = body.len();
        peer.send(
            format!("{head}Host: 127.0.0.1\r\nContent-Length: {length}\r\n\r\n{body}").as_bytes(),
        );
        peer.response()
    }

    #[track_caller]
    pub fn post(&self, path: &str, body: &str) -> (u16, Value) {
        let head = format!("POST {path} HTTP/1.1\r\nContent-Type: application/json\r\n");
        let response = self.request(&head, body);
        assert_eq!(response.field("content-type"), Some("application/json"), "{response:?}");
        (response.status, serde_json::from_str(&response.body).expect("JSON"))
    }

    /// A call that must succeed; its result.
    #[track_caller]
    pub fn call(&self, name: &str, body: &Value) -> Value {
        let (status, answer) = self.post(&format!("/api/{name}"), &body.to_string());
        assert_eq!(status, 200, "{name} {body}: {answer}");
        answer["result"].clone()
    }

    /// A call that must be refused; its status and code.
    #[track_caller]
    pub fn refused(&self, name: &str, body: &Value) -> (u16, String) {
        let (status, answer) = self.post(&format!("/api/{name}"), &body.to_string());
        let error = &answer["error"];
        assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()), "{answer}");
        assert_eq!(answer.as_object().map(|answer| answer.len()), Some(1), "{answer}");
        (status, error["code"].as_str().expect("a code").to_owned())
    }

    pub fn get(&self, path: &str) -> Response {
        self.request(&format!("GET {path} HTTP/1.1\r\n"), "")
    }

    /// All pages of a listing.
    pub fn list(&self, name: &str, mut body: Value) -> Vec<Value> {
        let mut found = Vec::new();
        loop {
            let page = self.call(name, &body);
            found.extend(page[name].as_array().expect("a list").iter().cloned());
            match page.get("cursor") {
                Some(cursor) => body["cursor"] = cursor.clone(),
                None => return found,
            }
        }
    }
}

/// A client that knows its id.
pub fn open_named(server: &Server) -> (Peer, String) {
    let mut peer = Peer::speaking(server, "stentor.v1.json");
    let welcome = peer.json();
    let id = welcome["connectionId"].as_str().expect("an id").to_owned();
    (peer, id)
}

/// One client on each of two shards: the kernel spreads them by their ports.
pub fn open_on_both_shards(server: &Server) -> [(Peer, String); 2] {
    let mut found: [Option<(Peer, String)>; 2] = [None, None];
    while found.iter().any(Option::is_none) {
        let (peer, id) = open_named(server);
        let shard = usize::from_str_radix(&id[..4], 16).expect("a number");
        found[shard] = Some((peer, id));
    }
    found.map(|one| one.expect("both are there"))
}
