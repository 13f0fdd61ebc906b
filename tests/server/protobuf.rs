//! The subprotocol `stentor.v1.protobuf` over real sockets, spoken by generated code.

use std::fs;
use std::path::Path;

use prost::Message;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::envelope::envelope::Body;
use crate::support::envelope::{
    Ack, Confirmation, Envelope, Error, Gap, Ping, Pong, Position, Publication, Publish, Query,
    Subscribe, Unsubscribe, Welcome,
};
use crate::support::*;

/// What `prost` makes of the schema stands in the repository, so that no build needs a generator.
#[test]
fn the_generated_code_is_that_of_the_schema() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (schema, generated) =
        ("src/proto/protobuf/stentor.proto", "tests/server/support/envelope.rs");
    let folder = tempfile::tempdir().expect("a folder");
    let files = protox::compile([root.join(schema)], [root.join("src/proto/protobuf")])
        .expect("the schema is one");
    let mut config = prost_build::Config::new();
    config.out_dir(folder.path()).compile_fds(files).expect("code is made of it");
    let fresh = fs::read_to_string(folder.path().join("stentor.v1.rs")).expect("it is there");
    if std::env::var_os("STENTOR_GENERATE").is_some() {
        fs::write(root.join(generated), &fresh).expect("it is ours");
    }
    let kept = fs::read_to_string(root.join(generated)).expect("it is there");
    assert!(fresh == kept, "run this with STENTOR_GENERATE=1 after a change of {schema}");
}

const CONFIGURATION: &str = r#"
[limits]
max_message_size = "16KiB"
send_queue_size = "64KiB"
max_errors = 1000

[namespaces.kept]
level = "history"
history_size = 1000

[namespaces.short]
level = "history"
history_size = 5

[namespaces.disk]
level = "durable"
"#;

/// Bytes that are no JSON.
const BYTES: &[u8] = b"\x00\xff{not json";

fn start(flags: &[&str]) -> (tempfile::TempDir, Server) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("stentor.toml");
    let store = folder.path().join("store");
    fs::write(&file, CONFIGURATION).expect("it is ours");
    let [path, store] = [&file, &store].map(|path| path.to_str().expect("text"));
    let server = Server::start(&[&["--config", path, "--store", store], flags].concat());
    (folder, server)
}

/// A client of the subprotocol.
struct Client {
    peer: Peer,
    /// The frame that came last, as far as it was not looked at.
    frame: Vec<u8>,
}

impl Client {
    /// Connected and welcomed.
    #[track_caller]
    fn open(server: &Server) -> Self {
        Self::over(Peer::connect(server)).0
    }

    /// With what it was welcomed by.
    #[track_caller]
    fn over(mut peer: Peer) -> (Self, Envelope) {
        let line = "Sec-WebSocket-Protocol: stentor.v1.protobuf\r\n";
        peer.send(upgrade_request("/ws", line).as_bytes());
        let response = peer.response();
        assert_eq!(response.status, 101, "{response:?}");
        assert_eq!(response.field("Sec-WebSocket-Protocol"), Some("stentor.v1.protobuf"));
        let mut client = Self { peer, frame: Vec::new() };
        let welcome = client.envelope();
        (client, welcome)
    }

    #[track_caller]
    fn send(&mut self, id: &str, body: Body) {
        self.send_all(&[(id, body)]);
    }

    /// All of them in one frame.
    #[track_caller]
    fn send_all(&mut self, requests: &[(&str, Body)]) {
        let mut payload = Vec::new();
        for (id, body) in requests {
            let envelope = Envelope {
                id: (*id).to_owned(),
                request_id: String::new(),
                body: Some(body.clone()),
            };
            envelope.encode_length_delimited(&mut payload).expect("a vector grows");
        }
        self.send_bytes(&payload);
    }

    #[track_caller]
    fn send_bytes(&mut self, payload: &[u8]) {
        self.peer.send(&frame(OpCode::BINARY, payload));
    }

    /// What comes next.
    #[track_caller]
    fn envelope(&mut self) -> Envelope {
        if self.frame.is_empty() {
            let frame = self.peer.frame();
            assert_eq!(frame.opcode, OpCode::BINARY, "{frame:?}");
            self.frame = frame.payload;
        }
        let mut rest = &self.frame[..];
        let envelope = Envelope::decode_length_delimited(&mut rest).expect("an envelope");
        self.frame = rest.to_vec();
        envelope
    }

    /// The answer to this request.
    #[track_caller]
    fn answer(&mut self, id: &str) -> Body {
        let envelope = self.envelope();
        assert_eq!(envelope.request_id, id, "{envelope:?}");
        envelope.body.expect("a body")
    }

    #[track_caller]
    fn subscribe(&mut self, request: Subscribe) -> Confirmation {
        self.send("s", Body::Subscribe(request));
        match self.answer("s") {
            Body::Confirmation(confirmation) => confirmation,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn publish(&mut self, channel: &str, data: &[u8]) -> Ack {
        self.send("p", publish(channel, data));
        match self.answer("p") {
            Body::Ack(ack) => ack,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn expect_publication(&mut self, channel: &str, offset: u64, data: &[u8]) {
        let (channel, data) = (channel.into(), data.to_vec());
        let publication = Publication { channel, data, offset, ..Default::default() };
        assert_eq!(self.answer(""), Body::Publication(publication));
    }

    #[track_caller]
    fn refusal(&mut self) -> (String, Error) {
        let envelope = self.envelope();
        match envelope.body {
            Some(Body::Error(error)) => (envelope.request_id, error),
            other => panic!("{other:?}"),
        }
    }
}

fn publish(channel: &str, data: &[u8]) -> Body {
    Body::Publish(Publish { channel: channel.into(), data: data.to_vec(), ..Default::default() })
}

fn to(channel: &str) -> Subscribe {
    Subscribe { channel: channel.into(), ..Default::default() }
}

/// A confirmation over JSON.
#[track_caller]
fn subscribe_json(peer: &mut Peer, channel: &str) -> Value {
    peer.send_text(&format!(r#"{{"action":"subscribe","channel":"{channel}"}}"#));
    let confirmation = peer.json();
    assert_eq!(confirmation["data"]["type"], "subscription_confirm", "{confirmation}");
    confirmation["data"].clone()
}

/// Every shard is met: connections are spread by the kernel, channels by their name.
fn channels(namespace: &str) -> Vec<String> {
    (0..6).map(|number| format!("{namespace}:{number}")).collect()
}

#[test]
fn the_server_welcomes_and_answers_pings() {
    let (_folder, server) = start(&["--heartbeat", "20s"]);
    let (mut client, welcome) = Client::over(Peer::connect(&server));
    assert_eq!((&*welcome.id, &*welcome.request_id), ("1", ""));
    let Some(Body::Welcome(welcome)) = welcome.body else { panic!("{welcome:?}") };
    let Welcome { connection_id, session_id, version, heartbeat_ms, max_message_size } = welcome;
    assert_eq!((connection_id.len(), session_id.len(), &*version), (44, 36, "1.2"));
    assert_eq!((heartbeat_ms, max_message_size), (20_000, 16 << 10));
    client.send("", Body::Ping(Ping { timestamp_ms: 0 }));
    assert_eq!(client.answer(""), Body::Pong(Pong { timestamp_ms: 0 }));
    client.send("a", Body::Ping(Ping { timestamp_ms: -7 }));
    assert_eq!(client.answer("a"), Body::Pong(Pong { timestamp_ms: -7 }));
    // That of a client is passed over.
    client.send_all(&[("", Body::Pong(Pong::default())), ("b", Body::Ping(Ping::default()))]);
    assert_eq!(client.answer("b"), Body::Pong(Pong::default()));
    client.peer.close();
}

#[test]
fn publications_cross_from_each_encoding_to_the_other() {
    let (_folder, server) = start(&["--shards", "2"]);
    for channel in channels("live") {
        let (mut binary, mut other) = (Client::open(&server), Client::open(&server));
        let mut text = Peer::open(&server);
        assert_eq!(
            binary.subscribe(to(&channel)),
            Confirmation { channel: channel.clone(), ..Default::default() }
        );
        other.subscribe(to(&channel));
        text.subscribe(&channel);
        // As it was written, white space within included.
        text.publish(&channel, r#"{ "n" : 1.0, "s":"\u00e9" }"#);
        for client in [&mut binary, &mut other] {
            client.expect_publication(&channel, 0, br#"{ "n" : 1.0, "s":"\u00e9" }"#);
        }
        text.expect_publication(&channel, r#"{ "n" : 1.0, "s":"\u00e9" }"#);
        // JSON stays JSON.
        binary.send("", publish(&channel, b"[1, 2]"));
        text.expect_publication(&channel, "[1, 2]");
        // Bytes that are none are marked, and come back as they were.
        for data in [BYTES, b"", b" 7", b"7\n", "\"é\"".as_bytes().split_at(2).0] {
            binary.send("", publish(&channel, data));
            let publication = text.json();
            assert_eq!(publication["encoding"], "base64", "{publication}");
            let digits = publication["data"].as_str().expect("text");
            assert_eq!(data_encoding::BASE64.decode(digits.as_bytes()).expect("base64"), data);
        }
        for client in [&mut binary, &mut other] {
            client.expect_publication(&channel, 0, b"[1, 2]");
            for data in [BYTES, b"", b" 7", b"7\n", b"\"\xc3"] {
                client.expect_publication(&channel, 0, data);
            }
        }
        // Unless it does not want its own.
        let own = Publish { channel: channel.clone(), no_echo: true, ..Default::default() };
        binary.send("", Body::Publish(own));
        other.expect_publication(&channel, 0, b"");
        text.json();
        // Nobody forges the mark.
        text.publish(&channel, r#"{"data":"/w==","encoding":"base64"}"#);
        binary.expect_publication(&channel, 0, br#"{"data":"/w==","encoding":"base64"}"#);
        let request = Unsubscribe { channel: channel.clone(), subscription_id: None };
        binary.send("u", Body::Unsubscribe(request));
        let confirmation = Confirmation { unsubscribed: true, channel, ..Default::default() };
        assert_eq!(binary.answer("u"), Body::Confirmation(confirmation));
    }
}

#[test]
fn histories_are_the_same_in_both_encodings() {
    let (_folder, server) = start(&["--shards", "2"]);
    for channel in channels("kept") {
        let (mut client, mut text) = (Client::open(&server), Peer::open(&server));
        let confirmation = client.subscribe(to(&channel));
        let Position { epoch, offset } = confirmation.position.expect("a history");
        assert_eq!((offset, confirmation.recovered), (0, None));
        assert_eq!(subscribe_json(&mut text, &channel)["epoch"], *epoch);
        let ack = Ack { channel: channel.clone(), offset: 1, ..Default::default() };
        assert_eq!(Client::open(&server).publish(&channel, BYTES), ack);
        client.expect_publication(&channel, 1, BYTES);
        let marked = text.json();
        assert_eq!((&marked["offset"], &marked["encoding"]), (&json!(1), &json!("base64")));
        text.publish(&channel, r#""two""#);
        text.expect_text(&format!(r#"{{"channel":"{channel}","offset":2,"data":"two"}}"#));
        client.expect_publication(&channel, 2, b"\"two\"");

        // What was missed, by position and by place.
        let mut late = Client::open(&server);
        let recover = Some(Position { epoch: epoch.clone(), offset: 0 });
        let confirmation = late.subscribe(Subscribe { recover, ..to(&channel) });
        assert_eq!((confirmation.recovered, confirmation.recovered_count), (Some(true), 2));
        late.expect_publication(&channel, 1, BYTES);
        late.expect_publication(&channel, 2, b"\"two\"");
        let mut late = Client::open(&server);
        let request = Subscribe { from_start: true, limit: Some(1), ..to(&channel) };
        let confirmation = late.subscribe(request);
        assert_eq!((confirmation.recovered, &*confirmation.reason), (Some(false), "limit"));
        late.expect_publication(&channel, 2, b"\"two\"");
        let mut late = Client::open(&server);
        let confirmation = late.subscribe(Subscribe { since: Some(1), ..to(&channel) });
        assert_eq!((confirmation.recovered, confirmation.recovered_count), (Some(true), 1));
        late.expect_publication(&channel, 2, b"\"two\"");
        let mut late = Client::open(&server);
        let recover = Some(Position { epoch: "another".into(), offset: 0 });
        let confirmation = late.subscribe(Subscribe { recover, ..to(&channel) });
        assert_eq!((confirmation.recovered, &*confirmation.reason), (Some(false), "epoch"));

        // A page, for both.
        let parameters = format!(r#"{{"channel":"{channel}","limit":10}}"#);
        let query = Query { resource: "history".into(), parameters: parameters.clone().into() };
        client.send("q", Body::Query(query));
        let Body::Response(response) = client.answer("q") else { panic!("a response") };
        assert!(response.timestamp_ms > 1_700_000_000_000);
        let history = response.history.expect("a page");
        assert_eq!(history.position, Some(Position { epoch, offset: 2 }));
        assert!(history.complete && !history.more && history.channel == channel);
        let publications = history.publications.iter();
        let publications: Vec<_> = publications.map(|one| (one.offset, &one.data[..])).collect();
        assert_eq!(publications, [(1, BYTES), (2, b"\"two\"")]);
        text.send_text(&format!(
            r#"{{"type":"query","payload":{{"resource":"history","parameters":{parameters}}}}}"#
        ));
        let page = text.json();
        assert_eq!(page["payload"]["publications"][0]["encoding"], "base64", "{page}");
    }
}

#[test]
fn a_publication_is_translated_once_for_all_subscribers_of_a_shard() {
    let (_folder, server) = start(&["--shards", "1"]);
    let mut publisher = Peer::open(&server);
    publisher.publish_acked("live", "0");
    assert_eq!(server.counter("translated"), 0, "nobody wants it");
    let mut clients: Vec<_> = (0..20).map(|_| Client::open(&server)).collect();
    for client in &mut clients {
        client.subscribe(to("live"));
    }
    for n in 1..=10 {
        publisher.publish_acked("live", &n.to_string());
    }
    for client in &mut clients {
        for n in 1..=10 {
            client.expect_publication("live", 0, n.to_string().as_bytes());
        }
    }
    assert_eq!(server.counter("translated"), 10);

    // What was said in protobuf is passed on as it is, until somebody wants JSON.
    let mut speaker = Client::open(&server);
    speaker.publish("live", BYTES);
    assert_eq!(server.counter("translated"), 10);
    let mut listeners = [Peer::open(&server), Peer::open(&server)];
    for listener in &mut listeners {
        listener.subscribe("live");
    }
    speaker.publish("live", b"{\"a\":1}");
    speaker.publish("live", b"{\"a\":1} ");
    for client in &mut clients {
        for data in [BYTES, b"{\"a\":1}", b"{\"a\":1} "] {
            client.expect_publication("live", 0, data);
        }
    }
    for listener in &mut listeners {
        listener.expect_text(r#"{"channel":"live","data":{"a":1}}"#);
        let base64 = r#""eyJhIjoxfSA=","encoding":"base64""#;
        listener.expect_text(&format!(r#"{{"channel":"live","data":{base64}}}"#));
    }
    assert_eq!(server.counter("translated"), 12);
}

#[test]
fn a_message_id_publishes_once() {
    let (_folder, server) = start(&[]);
    let mut client = Client::open(&server);
    for _ in 0..2 {
        let (channel, message_id) = ("kept:a".into(), "m\"1".to_owned());
        let request = Publish { channel, message_id, data: BYTES.to_vec(), ..Default::default() };
        client.send("", Body::Publish(request));
        let ack = Ack { message_id: "m\"1".into(), channel: "kept:a".into(), offset: 1 };
        assert_eq!(client.answer(""), Body::Ack(ack));
    }
}

#[test]
fn a_reader_that_is_late_is_told_of_the_gap() {
    let (_folder, server) = start(&["--shards", "1"]);
    let mut client = Client::open(&server);
    let epoch = client.subscribe(to("short:a")).position.expect("a history").epoch;
    client.send(
        "u",
        Body::Unsubscribe(Unsubscribe { channel: "short:a".into(), subscription_id: None }),
    );
    client.answer("u");
    let mut publisher = Peer::open(&server);
    for n in 1..=9 {
        publisher
            .send_text(&format!(r#"{{"action":"publish","channel":"short:a","data":{n},"id":1}}"#));
        publisher.json();
    }
    let recover = Some(Position { epoch, offset: 1 });
    let confirmation = client.subscribe(Subscribe { recover, ..to("short:a") });
    assert_eq!((confirmation.recovered, &*confirmation.reason), (Some(false), "trimmed"));
    // One that does not read while the history goes on: what it has to be told, it is told in its encoding.
    let (mut slow, _) = Client::over(Peer::connect_small(&server, 8 << 10));
    slow.subscribe(to("short:a"));
    let data = format!("\"{}\"", "x".repeat(12 << 10));
    for _ in 0..600 {
        publisher.send_text(&format!(
            r#"{{"action":"publish","channel":"short:a","data":{data},"id":1}}"#
        ));
        publisher.json();
    }
    let mut place = 9;
    let mut gaps = 0;
    while place < 609 {
        match slow.answer("") {
            Body::Publication(Publication { offset, data: seen, .. }) => {
                assert_eq!((offset, seen.len()), (place + 1, data.len()));
                place = offset;
            }
            Body::Gap(Gap { channel, from, to, reason, .. }) => {
                assert_eq!((&*channel, from, &*reason), ("short:a", place + 1, "trimmed"));
                assert!(to >= from);
                place = to;
                gaps += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(gaps > 0, "it was never late");
}

#[test]
fn bytes_survive_a_restart_on_disk() {
    let (folder, mut server) = start(&[]);
    let mut client = Client::open(&server);
    assert_eq!(client.publish("disk:a", BYTES).offset, 1);
    assert_eq!(client.publish("disk:a", b"{}").offset, 2);
    server.signal(Signal::TERM);
    server.wait_for_exit(PATIENCE);
    let [path, store] = ["stentor.toml", "store"].map(|name| folder.path().join(name));
    let [path, store] = [&path, &store].map(|path| path.to_str().expect("text"));
    let server = Server::start(&["--config", path, "--store", store]);
    let mut client = Client::open(&server);
    client.subscribe(Subscribe { from_start: true, ..to("disk:a") });
    client.expect_publication("disk:a", 1, BYTES);
    client.expect_publication("disk:a", 2, b"{}");
}

#[test]
fn what_is_refused_is_refused_with_a_code() {
    let (_folder, server) = start(&[]);
    let mut client = Client::open(&server);
    let unsubscribe = |channel: &str| {
        Body::Unsubscribe(Unsubscribe { channel: channel.into(), subscription_id: None })
    };
    let query = |resource: &str, parameters: &str| {
        Body::Query(Query { resource: resource.into(), parameters: parameters.into() })
    };
    let both = Subscribe { since: Some(1), from_start: true, ..to("kept:a") };
    let no_epoch = Subscribe { recover: Some(Position::default()), ..to("kept:a") };
    for (body, code, channel) in [
        (publish("", b"1"), "channel_invalid", ""),
        (publish("a\n", b"1"), "channel_invalid", "a\n"),
        (publish("system", b"1"), "channel_reserved", "system"),
        (Body::Subscribe(to("system")), "channel_reserved", "system"),
        (unsubscribe("a"), "not_subscribed", "a"),
        (Body::Subscribe(both), "invalid_message", "kept:a"),
        (Body::Subscribe(no_epoch), "invalid_message", "kept:a"),
        (query("weather", ""), "no_route", ""),
        (query("history", "{"), "invalid_json", ""),
        (query("history", "{}"), "invalid_message", ""),
        (query("history", r#"{"channel":"a"}"#), "position_unavailable", ""),
        (Body::Ack(Ack::default()), "channel_invalid", ""),
        (Body::Gap(Gap::default()), "no_route", ""),
    ] {
        client.send("r", body.clone());
        let (id, error) = client.refusal();
        assert_eq!((&*id, &*error.code, &*error.channel), ("r", code, channel), "{body:?}");
        assert!(!error.message.is_empty() && error.timestamp_ms > 1_700_000_000_000);
    }
    client.send(&"x".repeat(65), publish("a", b"1"));
    assert_eq!(client.refusal().1.code, "invalid_message");
    let message_id = "x".repeat(129);
    let long = Publish { channel: "a".into(), message_id, ..Default::default() };
    client.send("r", Body::Publish(long));
    assert_eq!(client.refusal().1.code, "invalid_message");
    for payload in [
        &b""[..],
        b"\x05half",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\xff\xff\xff\xff\x0f",
        b"\x01\x0b",
        b"\x02\x60\x01",
        b"\x03\x0a\x01\xff",
        b"\x03\x62\x05\x0a",
    ] {
        client.send_bytes(payload);
        let (id, error) = client.refusal();
        assert_eq!((&*id, &*error.code), ("", "invalid_protobuf"), "{}", payload.escape_ascii());
    }
    // It is as good as ever.
    assert_eq!(client.publish("a", b"1").channel, "a");
}

#[test]
fn a_frame_may_hold_several_envelopes_and_a_half() {
    let (_folder, server) = start(&[]);
    let mut client = Client::open(&server);
    let subscribe = Body::Subscribe(to("kept:a"));
    client.send_all(&[
        ("1", subscribe),
        ("2", publish("kept:a", b"1")),
        ("3", Body::Ping(Ping::default())),
    ]);
    // Answers need not come in the order of the requests; but a publication comes behind its confirmation.
    let mut seen: Vec<_> = (0..4).map(|_| client.envelope().request_id).collect();
    let place = |id| seen.iter().position(|seen| seen == id);
    assert!(place("1") < place(""), "{seen:?}");
    seen.sort();
    assert_eq!(seen, ["", "1", "2", "3"]);
    // What is whole before a half is run; in fragments, what is one message is one.
    let ping = |id: &str| {
        let body = Some(Body::Ping(Ping::default()));
        Envelope { id: id.into(), request_id: String::new(), body }.encode_length_delimited_to_vec()
    };
    let (first, second) = (ping("first"), ping("second"));
    let half = [&first[..], &second[..5]].concat();
    client.send_bytes(&half);
    assert_eq!(client.answer("first"), Body::Pong(Pong::default()));
    assert_eq!(client.refusal().1.code, "invalid_protobuf");
    client.peer.send(&fragment(OpCode::BINARY, &half));
    client.peer.send(&continuation(&second[5..], true));
    assert_eq!(client.answer("first"), Body::Pong(Pong::default()));
    assert_eq!(client.answer("second"), Body::Pong(Pong::default()));
    // No more than a frame of JSON may have.
    client.send_bytes(&ping("").repeat(1030));
    for _ in 0..1024 {
        assert_eq!(client.answer(""), Body::Pong(Pong::default()));
    }
    let (_, error) = client.refusal();
    assert_eq!(error.code, "invalid_message");
    client.send_bytes(&ping("last"));
    assert_eq!(client.answer("last"), Body::Pong(Pong::default()));
}

#[test]
fn text_ends_a_connection_of_protobuf_and_binary_one_of_json() {
    let (_folder, server) = start(&[]);
    let mut client = Client::open(&server);
    client.peer.send_text(r#"{"type":"ping"}"#);
    client.peer.expect_close(1003, "unsupported_data");
    client.peer.expect_end();
    let mut peer = Peer::open(&server);
    peer.send(&frame(OpCode::BINARY, b"\x00"));
    peer.expect_close(1003, "unsupported_data");
    peer.expect_end();
    fresh_client_works(&server);
}
