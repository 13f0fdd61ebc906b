//! An HTTP server that a test holds in its hand: it sees each request, and says when and what is answered.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use serde_json::Value;

use super::PATIENCE;

/// The end of a webhook.
pub struct Hook {
    pub address: SocketAddr,
    calls: Receiver<Call>,
}

/// One request, which waits for its answer.
pub struct Call {
    /// The request line and the fields, each on a line.
    pub head: String,
    pub body: String,
    answer: Sender<(u16, String)>,
}

impl Hook {
    pub fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("it has one");
        let (sender, calls) = channel();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let sender = sender.clone();
                thread::spawn(move || serve(stream, &sender));
            }
        });
        Self { address, calls }
    }

    /// The value of a route that leads here.
    pub fn route(&self) -> String {
        format!("webhook:http://{}/hook", self.address)
    }

    #[track_caller]
    pub fn call(&self) -> Call {
        self.calls.recv_timeout(PATIENCE).expect("a request comes")
    }

    /// Whether nothing has come that was not looked at.
    pub fn is_idle(&self) -> bool {
        self.calls.try_recv().is_err()
    }
}

impl Call {
    /// The value of a field of the head.
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().filter_map(|line| line.split_once(": "));
        fields.find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    #[track_caller]
    pub fn messages(&self) -> Vec<Value> {
        let body: Value = serde_json::from_str(&self.body).expect("JSON");
        body["messages"].as_array().expect("messages").clone()
    }

    pub fn answer(self, status: u16, body: &str) {
        // The server may have given up.
        drop(self.answer.send((status, body.to_owned())));
    }
}

/// The requests of one connection; without an answer it ends.
fn serve(mut stream: TcpStream, calls: &Sender<Call>) {
    while let Some((head, body)) = read_request(&mut stream) {
        let (answer, answers) = channel();
        if calls.send(Call { head, body, answer }).is_err() {
            return;
        }
        let Ok((status, body)) = answers.recv() else { return };
        let response = format!(
            "HTTP/1.1 {status} x\r\nContent-Length: {}\r\nContent-Type: application/json\r\n\r\n{body}",
            body.len()
        );
        if stream.write_all(response.as_bytes()).is_err() {
            return;
        }
    }
}

fn read_request(stream: &mut TcpStream) -> Option<(String, String)> {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    loop {
        if let Some(end) = bytes.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            let head = String::from_utf8(bytes[..end].to_vec()).expect("a head is text");
            let length = head
                .to_lowercase()
                .lines()
                .find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
            let body = bytes.get(end + 4..end + 4 + length.unwrap_or_default());
            if let Some(body) = body {
                return Some((head, String::from_utf8(body.to_vec()).expect("text")));
            }
        }
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => return None,
            Ok(count) => bytes.extend_from_slice(&piece[..count]),
        }
    }
}
