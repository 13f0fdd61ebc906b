//! The client against a server of a few lines: what it says, and what it makes of the answers.

use super::*;
use std::net::TcpListener;
use std::thread::{self, JoinHandle};
use tungstenite::protocol::CloseFrame;

type Served = WebSocket<TcpStream>;

/// A server for one connection, on a free port.
fn serve(talk: impl FnOnce(&mut Served) + Send + 'static) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let server = thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        talk(&mut tungstenite::accept(stream).unwrap());
    });
    (url, server)
}

fn hear(socket: &mut Served, expected: &str) {
    assert_eq!(socket.read().unwrap().to_text().unwrap(), expected);
}

fn say(socket: &mut Served, text: &str) {
    socket.send(Message::text(text.to_string())).unwrap();
}

#[test]
fn a_subscriber_sees_its_confirmation_then_the_publications() {
    let (url, server) = serve(|socket| {
        hear(socket, r#"{"action":"subscribe","channel":"a \"b\""}"#);
        say(socket, r#"{"channel":"system","data":{"type":"subscription_confirm","channel":"x"}}"#);
        socket.send(Message::Ping("are you there".into())).unwrap();
        say(socket, r#"{"channel":"x","data":{"n": 1.0}}"#);
        assert_eq!(socket.read().unwrap(), Message::Pong("are you there".into()));
        socket
            .close(Some(CloseFrame { code: 1001.into(), reason: "shutting_down".into() }))
            .unwrap();
        while socket.read().is_ok() {}
    });
    let mut client = Client::connect(&url).unwrap();
    client.subscribe("a \"b\"", &Begin::Now, None).unwrap();
    let confirmed = client.next_message().unwrap();
    assert_eq!(
        confirmed,
        ServerMessage::Subscribed { channel: "x".to_string(), position: None, not_recovered: None }
    );
    let ServerMessage::Publication(publication) = client.next_message().unwrap() else {
        panic!("not a publication");
    };
    assert_eq!(publication.data(), r#"{"n": 1.0}"#);
    let error = client.next_message().unwrap_err();
    assert_eq!(error.to_string(), "closed by the server: 1001 shutting_down");
    server.join().unwrap();
}

#[test]
fn a_publisher_waits_for_its_own_answer() {
    let (url, server) = serve(|socket| {
        hear(socket, r#"{"action":"publish","channel":"x","data":[1, 2],"id":1}"#);
        say(socket, r#"{"channel":"x","data":[1, 2]}"#);
        say(socket, r#"{"type":"ack","requestId":1,"channel":"x","offset":8}"#);
        hear(socket, r#"{"type":"ack","messageId":"e-1"}"#);
        hear(socket, r#"{"action":"publish","channel":"x","data":3,"id":2}"#);
        say(socket, r#"{"type":"ack","requestId":1,"channel":"x"}"#);
        say(
            socket,
            r#"{"channel":"system","data":{"type":"error","message":"too many","code":"rate_limited","requestId":2}}"#,
        );
        assert!(matches!(socket.read(), Ok(Message::Close(_))));
        while socket.read().is_ok() {}
    });
    let mut client = Client::connect(&url).unwrap();
    assert_eq!(client.publish("x", "[1, 2]", None).unwrap(), Some(8));
    client.acknowledge("e-1").unwrap();
    let error = client.publish("x", "3", None).unwrap_err();
    assert_eq!(error.to_string(), "too many (rate_limited)");
    client.close();
    server.join().unwrap();
}

#[test]
fn an_idle_publisher_answers_pings() {
    let (url, server) = serve(|socket| {
        socket.send(Message::Ping("1".into())).unwrap();
        socket.send(Message::Ping("2".into())).unwrap();
        while socket.read().unwrap() != Message::Pong("2".into()) {}
        socket.close(None).unwrap();
        while socket.read().is_ok() {}
    });
    let mut client = Client::connect(&url).unwrap();
    let error = loop {
        if let Err(error) = client.answer_pings() {
            break error;
        }
    };
    assert!(matches!(error, ClientError::Closed { code: 1005, .. }), "{error}");
    server.join().unwrap();
}

#[test]
fn a_server_that_vanishes_is_reported() {
    let (url, server) = serve(|_| {});
    let mut client = Client::connect(&url).unwrap();
    server.join().unwrap();
    let error = client.next_message().unwrap_err();
    assert!(matches!(error, ClientError::Disconnected), "{error}");
}

#[test]
fn what_is_not_a_server_is_named() {
    let refused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("ws://{refused}");
    assert_eq!(
        Client::connect(&url).err().unwrap().to_string(),
        format!(
            "cannot connect to {url}: connection refused; is the server running? start it with: \
             stentor serve"
        )
    );

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/x", listener.local_addr().unwrap());
    let server = thread::spawn(move || {
        use std::io::{Read, Write};
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.extend(byte);
        }
        stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").unwrap();
    });
    assert_eq!(
        Client::connect(&url).err().unwrap().to_string(),
        format!("{url} does not speak WebSocket: it answered with HTTP status 404")
    );
    server.join().unwrap();

    for (url, reason) in [
        ("wss://example.org", "TLS (wss://) is not supported by this client yet"),
        ("http://example.org", "`http://` is not WebSocket"),
        ("127.0.0.1:8080", "it does not start with `ws://`"),
        ("ws://", "write it like ws://127.0.0.1:8080"),
    ] {
        let error = Client::connect(url).err().unwrap().to_string();
        assert!(error.contains(reason), "{url}: {error}");
    }
}
