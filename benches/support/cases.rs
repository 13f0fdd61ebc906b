//! The hot path in pieces, each as a closure that does it once.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use foldhash::SharedSeed;
use foldhash::quality::SeedableRandomState;
use stentor::broker::{
    Body, Broker, Deliver, Effect, Origin, PublishRequest, Select, SubscribeRequest, home_of,
};
use stentor::config::Config;
use stentor::filter::{Attributes, Filter, Interner};
use stentor::ids::{ShardId, Token, TopicName};
use stentor::io::{FrameId, FramePool, Waker};
use stentor::mesh;
use stentor::message::{Begin, ShardMessage};
use stentor::proto::protobuf::{self, Requests, Scratch};
use stentor::proto::{
    Command, Commands, Decoder, DecoderLimits, Encoding, Event, Rejection, Start, encoder,
};
use stentor::schema::Schema;

use super::null::{NullServer, client_frame, protobuf_publish};

/// Does its case once.
pub type Case = Box<dyn FnMut()>;
/// Gets a case ready.
pub type Prepare = fn() -> Case;

/// Every case by name.
pub const CASES: [(&str, Prepare); 22] = [
    ("decode-text-64B", || decode(client_frame(1, &[b'x'; 64]))),
    ("decode-text-1KiB", || decode(client_frame(1, &[b'x'; 1024]))),
    ("unmask-16KiB", || decode(masked(&[b'x'; 16 << 10]))),
    ("parse-publish-64B", || parse(text(64))),
    ("parse-publish-1KiB", || parse(text(1024))),
    ("frame-64B", || frame(text(64))),
    ("frame-1KiB", || frame(text(1024))),
    ("route-publish-json-128B", || route_publish(Encoding::Json)),
    ("route-publish-protobuf-128B", || route_publish(Encoding::Protobuf)),
    ("take-publish-json-128B", || take_publish(Encoding::Json)),
    ("take-publish-protobuf-128B", || take_publish(Encoding::Protobuf)),
    ("frame-protobuf-128B", || other_frame(text(128))),
    ("validate-text-300B", validate_text),
    ("broker-publish-to-1", || broker_publish(1)),
    ("broker-publish-to-100", || broker_publish(100)),
    ("broker-publish-to-10000", || broker_publish(10_000)),
    ("filter-10000-receivers", filter_receivers),
    ("mesh-hop", mesh_hop),
    ("shard-publish-to-1", || shard_publish(1)),
    ("shard-publish-to-100", || shard_publish(100)),
    ("shard-publish-to-10000", || shard_publish(10_000)),
    ("shard-publish-protobuf-to-100", shard_publish_protobuf),
];

/// A JSON string of this many bytes with its quotes.
fn text(bytes: usize) -> String {
    format!("\"{}\"", "x".repeat(bytes - 2))
}

/// A binary frame under a real key: its payload is only unmasked, not validated as text.
fn masked(payload: &[u8]) -> Vec<u8> {
    let mut frame = client_frame(2, payload);
    let key = frame.len() - payload.len() - 4;
    frame[key..key + 4].copy_from_slice(&[0x37, 0xfa, 0x21, 0x3d]);
    frame
}

fn decode(mut wire: Vec<u8>) -> Case {
    let limits = DecoderLimits { message_bytes_max: 1 << 20, empty_fragments_max: 16 };
    let mut decoder = Decoder::default();
    Box::new(move || {
        let mut input = &mut wire[..];
        assert!(matches!(decoder.next(black_box(&mut input), &limits), Ok(Some(_))));
    })
}

fn parse(data: String) -> Case {
    let message = format!(r#"{{"action":"publish","channel":"topic","data":{data}}}"#);
    Box::new(move || {
        let command = Commands::new(black_box(&message)).next();
        assert!(matches!(black_box(command), Some(Ok(_))));
    })
}

fn frame(data: String) -> Case {
    Box::new(move || {
        black_box(encoder::publication_frame(black_box("topic"), black_box(data.as_bytes())));
    })
}

/// Takes every delivery and does nothing with it.
struct Nobody;

impl Deliver for Nobody {
    fn live(&mut self, _: &mut FramePool, slot: u32, ids: &[FrameId], _: bool) {
        black_box((slot, ids.len()));
    }

    fn retained(&mut self, _: &mut FramePool, slot: u32, ids: &[FrameId]) -> bool {
        black_box((slot, ids.len()));
        true
    }
}

/// A chat message of 300 bytes against the schema of the envelope.
fn validate_text() -> Case {
    let schema = Schema::envelope();
    let head = r#"{"version":"1.2","messageId":"11111111-2222-4333-8444-555555555555","timestamp":1763718000000,"type":"text","sender":"alice","channel":"chat:lobby","payload":{"content":""#;
    let tail = r#"","mentions":["bob"]},"metadata":{"client":"web"}}"#;
    let content = "x".repeat(300 - head.len() - tail.len());
    let message = format!("{head}{content}{tail}");
    Box::new(move || assert!(schema.check(black_box(&message)).is_ok()))
}

/// A publication in JSON made into that of protobuf, as it is once for all subscribers of a shard.
fn other_frame(data: String) -> Case {
    let frame = encoder::publication_frame("topic", data.as_bytes());
    Box::new(move || {
        black_box(protobuf::translated(black_box(&frame)));
    })
}

/// A client's publication of 128 bytes, without its frame, and that as it comes.
fn publish_of_128(encoding: Encoding) -> (u8, Vec<u8>) {
    let data = text(128);
    match encoding {
        Encoding::Json => {
            let text = format!(r#"{{"action":"publish","channel":"topic","data":{data}}}"#);
            (1, text.into_bytes())
        }
        Encoding::Protobuf => (2, protobuf_publish(&data)),
    }
}

/// A client's publication of 128 bytes: parsed, its topic found, its frame made, for the shard that orders it.
fn route_publish(encoding: Encoding) -> Case {
    let (_, message) = publish_of_128(encoding);
    // That it is UTF-8 is found out with the frame.
    let text = String::from_utf8(message.clone()).unwrap_or_default();
    let ShardId(home) = home_of(&hasher(), 2, "topic");
    let mut broker = subscribed_broker((ShardId(1 - home), 2), 1);
    let (mut frames, mut effects) = (FramePool::default(), Vec::new());
    Box::new(move || {
        let mut scratch = Scratch::default();
        let command = match encoding {
            Encoding::Json => Commands::new(black_box(&text)).next(),
            Encoding::Protobuf => Requests::new(black_box(&message)).next(&mut scratch),
        };
        publish(&mut broker, command, &mut frames, &mut effects);
        assert!(matches!(effects.pop(), Some(Effect::Send { .. })));
    })
}

/// The frame of a client's publication of 128 bytes, until it stands in its order for one subscriber.
fn take_publish(encoding: Encoding) -> Case {
    let (opcode, message) = publish_of_128(encoding);
    let mut wire = client_frame(opcode, &message);
    let limits = DecoderLimits { message_bytes_max: 1 << 20, empty_fragments_max: 16 };
    let mut decoder = Decoder::default();
    let mut broker = subscribed_broker((ShardId(0), 1), 1);
    let (mut frames, mut effects) = (FramePool::default(), Vec::new());
    Box::new(move || {
        let mut scratch = Scratch::default();
        let mut input = &mut wire[..];
        let event = decoder.next(black_box(&mut input), &limits);
        let command = match &event {
            Ok(Some(Event::Text(text))) => Commands::new(text).next(),
            Ok(Some(Event::Binary(bytes))) => Requests::new(bytes).next(&mut scratch),
            other => panic!("{other:?}"),
        };
        publish(&mut broker, command, &mut frames, &mut effects);
        while broker.has_fanouts() {
            broker.advance(256, &mut frames, &mut effects, &mut Nobody);
        }
    })
}

/// Gives a client's publication to the broker.
fn publish(
    broker: &mut Broker,
    command: Option<Result<Command<'_>, Rejection<'_>>>,
    frames: &mut FramePool,
    effects: &mut Vec<Effect>,
) {
    let Some(Ok(Command::Publish { channel, data, echo, .. })) = command else {
        panic!("{command:?}")
    };
    let (token, body) = (Token { slot: 0, generation: 1 }, Body::Sent(data));
    let request = PublishRequest { token, topic: &channel, body, echo, receipt: None };
    broker.publish(request, frames, effects);
}

fn hasher() -> SeedableRandomState {
    SeedableRandomState::with_seed(1, SharedSeed::global_fixed())
}

/// The broker of a shard, of so many, at which these slots have subscribed to one topic.
fn subscribed_broker((shard, shards): (ShardId, u16), subscribers: u32) -> Broker {
    let origin = Origin { identity: 1, unix_start: 0 };
    let mut broker = Broker::new(shard, shards, hasher(), origin, &Config::default());
    let mut effects = Vec::new();
    for slot in 0..subscribers {
        let begin = Begin { start: Start::Now, limit: None };
        let token = Token { slot, generation: 1 };
        let select = Select::All;
        let request = SubscribeRequest { token, topic: "topic", begin, request_id: None, select };
        broker.subscribe(request, &mut effects).expect("there is room");
    }
    broker
}

/// One publication in the broker: put in order, fanned out to nobody's queue.
fn broker_publish(subscribers: u32) -> Case {
    let mut broker = subscribed_broker((ShardId(0), 1), subscribers);
    let (mut frames, mut effects) = (FramePool::default(), Vec::new());
    Box::new(move || {
        let (token, body) = (Token { slot: 0, generation: 1 }, Body::Kept(b"{}"));
        let request = PublishRequest { token, topic: "topic", body, echo: true, receipt: None };
        broker.publish(request, &mut frames, &mut effects);
        let mut deliveries = 0;
        while broker.has_fanouts() {
            deliveries += broker.advance(256, &mut frames, &mut effects, &mut Nobody);
        }
        assert_eq!(deliveries, subscribers as usize);
    })
}

/// One filter asked of 10,000 receivers, no two of whom have the same attributes.
fn filter_receivers() -> Case {
    let filter = r#"plan == "pro" && region in ["eu", "us"] && level >= 100"#;
    let filter = Filter::parse(filter).expect("it is one");
    let mut interner = Interner::default();
    let receivers: Vec<_> = (0..10_000)
        .map(|number| {
            let plan = ["free", "pro", "team"][number % 3];
            let region = ["eu", "us", "asia", "africa"][number % 4];
            let text = format!("level={number},plan={plan},region={region}");
            Arc::new(Attributes::parse(&text, &mut interner).expect("they are attributes"))
        })
        .collect();
    Box::new(move || {
        let taken = receivers.iter().filter(|receiver| filter.matches(black_box(receiver)));
        black_box(taken.count());
    })
}

/// A publication from one shard to another that is awake.
fn mesh_hop() -> Case {
    let waker = || Waker::Simulated(Arc::new(AtomicBool::new(false)));
    let (mut ports, _) = mesh::connect(vec![waker(), waker()], usize::MAX);
    let (mut to, mut from) = (ports.pop().expect("two"), ports.pop().expect("two"));
    let topic = TopicName::new("topic");
    let bytes = Bytes::from_static(b"frame");
    Box::new(move || {
        let (topic, frame) = (topic.clone(), bytes.clone());
        from.post(ShardId(1), ShardMessage::Deliver { topic, frame, except: None, offset: 0 });
        from.flush();
        assert!(to.receive().is_some());
        assert!(to.receive().is_none());
    })
}

/// One publication through a whole shard, from the bytes that come to the bytes that leave.
fn shard_publish(subscribers: usize) -> Case {
    let mut server = NullServer::new(subscribers, &text(64));
    Box::new(move || server.publish())
}

/// As [`shard_publish`], where all speak protobuf.
fn shard_publish_protobuf() -> Case {
    let mut server = NullServer::protobuf(100, &text(64));
    Box::new(move || server.publish())
}
