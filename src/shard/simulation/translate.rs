//! What a client of protobuf says and hears, as the JSON of the others: so all are held to the same.

use prost::Message;
use serde_json::{Value, json};

use crate::proto::protobuf::tests::envelope::envelope::Body;
use crate::proto::protobuf::tests::envelope::{
    Ack, Confirmation, Envelope, Error, Gap, Member, Ping, Position, Presence, Publication,
    Publish, Query, Response, Subscribe, Unsubscribe, Welcome,
};

/// Behind the data of a publication that is not to be JSON.
const RAW: u8 = 0xFF;

/// The frame of a request; `is_raw`: its data is not to be JSON.
pub fn request(text: &str, is_raw: bool) -> Vec<u8> {
    let request: Value = serde_json::from_str(text).expect("our own");
    let text = |name: &str| request[name].as_str().unwrap_or_default().to_owned();
    let channel = text("channel");
    let body = match request["action"].as_str() {
        Some("subscribe") => {
            let recover = request.get("recover").map(|place| Position {
                epoch: place["epoch"].as_str().expect("an epoch").to_owned(),
                offset: place["offset"].as_u64().expect("an offset"),
            });
            Body::Subscribe(Subscribe { channel, recover, ..Default::default() })
        }
        Some("unsubscribe") => Body::Unsubscribe(Unsubscribe { channel, subscription_id: None }),
        Some("publish") => {
            let mut data = request["data"].to_string().into_bytes();
            data.extend(is_raw.then_some(RAW));
            let no_echo = request["echo"] == false;
            Body::Publish(Publish { channel, data, no_echo, ..Default::default() })
        }
        _ if request["type"] == "ack" => {
            let offset = request["offset"].as_u64().unwrap_or_default();
            Body::Ack(Ack { message_id: text("messageId"), channel, offset })
        }
        _ if request["type"] == "query" => {
            let Value::Object(payload) = &request["payload"] else { panic!("an object") };
            let resource = payload["resource"].as_str().expect("a resource").to_owned();
            let parameters = payload["parameters"].to_string().into_bytes();
            Body::Query(Query { resource, parameters })
        }
        _ => Body::Ping(Ping { timestamp_ms: request["timestamp"].as_i64().expect("a number") }),
    };
    let id = request.get("id").map(Value::to_string).unwrap_or_default();
    let envelope = Envelope { id, request_id: String::new(), body: Some(body) };
    envelope.encode_length_delimited_to_vec()
}

/// The messages of a frame.
pub fn messages(mut frame: &[u8]) -> Vec<Value> {
    let mut messages = Vec::new();
    while !frame.is_empty() {
        let envelope = Envelope::decode_length_delimited(&mut frame).expect("envelopes");
        messages.push(message(envelope));
    }
    messages
}

fn message(envelope: Envelope) -> Value {
    let id = envelope.request_id.parse::<u64>().ok();
    let system = |data: Value| json!({"channel": "system", "data": data});
    match envelope.body.expect("a body") {
        Body::Publication(Publication { channel, mut data, offset, message_id, .. }) => {
            let is_raw = data.last() == Some(&RAW);
            data.truncate(data.len() - usize::from(is_raw));
            let data: Value = serde_json::from_slice(&data).expect("what was published");
            let message_id = (!message_id.is_empty()).then_some(message_id);
            json!({
                "channel": channel, "data": data, "offset": offset, "raw": is_raw,
                "messageId": message_id,
            })
        }
        Body::Confirmation(Confirmation { channel, unsubscribed: true, .. }) => {
            system(json!({"type": "unsubscription_confirm", "channel": channel}))
        }
        Body::Confirmation(Confirmation { channel, position, recovered, reason, .. }) => {
            let reason = (!reason.is_empty()).then_some(reason);
            let epoch = position.as_ref().map(|position| position.epoch.clone());
            let offset = position.map(|position| position.offset);
            system(json!({
                "type": "subscription_confirm", "channel": channel, "epoch": epoch,
                "offset": offset, "recovered": recovered, "reason": reason,
            }))
        }
        Body::Error(Error { code, .. }) => {
            system(json!({"type": "error", "code": code, "requestId": id}))
        }
        Body::Gap(Gap { channel, from, to, .. }) => {
            system(json!({"type": "gap", "channel": channel, "from": from, "to": to}))
        }
        Body::Ack(_) => json!({"type": "ack", "requestId": id}),
        Body::Pong(pong) => json!({"type": "pong", "timestamp": pong.timestamp_ms}),
        Body::Welcome(Welcome { session_id, connection_id, .. }) => {
            json!({"type": "welcome", "sessionId": session_id, "connectionId": connection_id})
        }
        Body::Response(Response { payload, .. }) => {
            let payload: Value = serde_json::from_slice(&payload).expect("JSON");
            json!({"type": "response", "requestId": id, "payload": payload})
        }
        Body::Presence(Presence { channel, joined, left, clients, more, .. }) => json!({
            "type": "presence", "channel": channel, "joined": members(joined),
            "left": members(left), "clients": clients, "more": more,
        }),
        other => panic!("unexpected {other:?}"),
    }
}

fn members(members: Vec<Member>) -> Vec<Value> {
    members.into_iter().map(|member| json!({"connectionId": member.connection_id})).collect()
}

/// A message of JSON; the data of a publication that is not, as in [`messages`].
pub fn plain(mut message: Value) -> Value {
    if message["encoding"] == "base64" {
        let digits = message["data"].as_str().expect("text");
        let bytes = data_encoding::BASE64.decode(digits.as_bytes()).expect("base64");
        let data = bytes.strip_suffix(&[RAW]).expect("it is not JSON");
        message["data"] = serde_json::from_slice(data).expect("what was published");
        message["raw"] = true.into();
    }
    message
}
