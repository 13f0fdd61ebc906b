//! What is said to a webhook, and what it says: the JSON of requests and responses.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::message::{BridgeMessage, BridgeOutcome};
use crate::proto::json::quote;

/// `{"responses":[…]}`, in the order of the messages.
#[derive(Deserialize)]
struct Responses<'a> {
    #[serde(borrow, default)]
    responses: Vec<Option<Response<'a>>>,
}

/// What answers one message.
#[derive(Deserialize)]
struct Response<'a> {
    #[serde(borrow, default)]
    payload: Option<&'a RawValue>,
    #[serde(default)]
    error: Option<Error>,
}

#[derive(Deserialize)]
struct Error {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// The body of a request.
pub fn body(batch: &[BridgeMessage]) -> String {
    let bytes: usize = batch.iter().map(BridgeMessage::weight).sum();
    let mut text = String::with_capacity(bytes + 64);
    text.push_str(r#"{"messages":["#);
    for (index, message) in batch.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        push_message(message, &mut text);
    }
    text.push_str("]}");
    text
}

fn push_message(message: &BridgeMessage, text: &mut String) {
    text.push_str(r#"{"type":"#);
    text.push_str(&quote(&message.kind));
    if let Some(id) = &message.origin.request_id {
        text.push_str(r#","id":"#);
        text.push_str(id);
    }
    text.push_str(&format!(r#","connectionId":"{}""#, message.connection_id));
    if let Some(user) = &message.user {
        text.push_str(r#","user":"#);
        text.push_str(&quote(user));
    }
    if let Some(channel) = &message.channel {
        text.push_str(r#","channel":"#);
        text.push_str(&quote(channel));
    }
    text.push_str(&format!(r#","receivedAt":{},"message":"#, message.received_ms));
    text.push_str(&message.text);
    text.push('}');
}

/// What a response to a batch that was taken means for each of its messages. `body`: `None` if it could
/// not be read.
pub fn outcomes(batch: &[BridgeMessage], body: Option<&[u8]>) -> Vec<BridgeOutcome> {
    let read = match body {
        Some(body) if body.trim_ascii().is_empty() => Some(Vec::new()),
        Some(body) => serde_json::from_slice::<Responses<'_>>(body).ok().map(|it| it.responses),
        None => None,
    };
    let Some(responses) = read else {
        // It has the messages, whatever it says; but a query wants an answer.
        let outcome = |message: &BridgeMessage| match &*message.kind {
            "query" => BridgeOutcome::Unavailable,
            _ => BridgeOutcome::Taken,
        };
        return batch.iter().map(outcome).collect();
    };
    let mut responses = responses.into_iter();
    batch.iter().map(|_| outcome(responses.next().flatten())).collect()
}

fn outcome(response: Option<Response<'_>>) -> BridgeOutcome {
    match response {
        Some(Response { error: Some(Error { code, message }), .. }) => {
            BridgeOutcome::refusal(&code, &message)
        }
        Some(Response { payload: Some(payload), .. }) => BridgeOutcome::replied(payload.get()),
        Some(Response { payload: None, error: None }) | None => BridgeOutcome::Taken,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ConnectionId, ShardId, TargetId, Token, UserName};
    use crate::message::BridgeOrigin;

    fn message(kind: &str, request_id: Option<&str>) -> BridgeMessage {
        let shard = ShardId(0);
        let token = Token { slot: 0, generation: 0 };
        BridgeMessage {
            target: TargetId(0),
            kind: kind.into(),
            text: format!(r#"{{"type": "{kind}" }}"#).into(),
            connection_id: ConnectionId { shard, slot: 1, secret: 2 },
            user: None,
            channel: None,
            received_ms: 1_700_000_000_000,
            origin: BridgeOrigin {
                shard,
                token,
                request_id: request_id.map(Into::into),
                message_id: None,
            },
        }
    }

    #[test]
    fn a_request_has_the_messages_as_they_were_sent() {
        let whole = BridgeMessage {
            user: UserName::parse("b\"b"),
            channel: Some("a:b".into()),
            ..message("dance", Some("\"x\""))
        };
        assert_eq!(
            body(&[whole, message("query", Some("7")), message("text", None)]),
            concat!(
                r#"{"messages":[{"type":"dance","id":"x","connectionId":"00000000000100000000000000000000000000000002","#,
                r#""user":"b\"b","channel":"a:b","receivedAt":1700000000000,"message":{"type": "dance" }},"#,
                r#"{"type":"query","id":7,"connectionId":"00000000000100000000000000000000000000000002","#,
                r#""receivedAt":1700000000000,"message":{"type": "query" }},"#,
                r#"{"type":"text","connectionId":"00000000000100000000000000000000000000000002","#,
                r#""receivedAt":1700000000000,"message":{"type": "text" }}]}"#
            )
        );
    }

    #[test]
    fn responses_are_in_the_order_of_the_messages() {
        let batch = ["query", "a", "b", "c", "query"].map(|kind| message(kind, None));
        let refused = BridgeOutcome::refusal("late", "too late");
        let replied = BridgeOutcome::replied("{ \"x\": 1.50 }");
        assert_eq!(
            outcomes(
                &batch,
                Some(
                    br#"{"responses":[{"payload":{ "x": 1.50 }},null,{"error":{"code":"late","message":"too late"}},{}]}"#
                )
            ),
            [replied, BridgeOutcome::Taken, refused, BridgeOutcome::Taken, BridgeOutcome::Taken]
        );
        for nothing in [&b""[..], b" \n", b"{}", br#"{"responses":[]}"#] {
            assert_eq!(outcomes(&batch, Some(nothing)), vec![BridgeOutcome::Taken; 5]);
        }
    }

    #[test]
    fn what_cannot_be_read_is_no_answer_to_a_query() {
        let batch = ["query", "a"].map(|kind| message(kind, None));
        let expected = [BridgeOutcome::Unavailable, BridgeOutcome::Taken];
        for body in [None, Some(&b"ok"[..]), Some(b"\xff"), Some(br#"{"responses":{}}"#)] {
            assert_eq!(outcomes(&batch, body), expected);
        }
    }
}
