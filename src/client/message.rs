//! What the server says, as values. The `data` of a publication stays the bytes of its publisher.

use super::error::ClientError;
use crate::proto::json::Members;
use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

/// One message of the server.
#[derive(Debug, PartialEq, Eq)]
pub enum ServerMessage {
    Publication(Publication),
    Subscribed {
        channel: String,
        /// Behind which it begins, on a channel with history: an epoch, a colon and an offset.
        position: Option<String>,
        /// Why the subscription does not begin where it was asked to.
        not_recovered: Option<String>,
    },
    /// What is not kept any more, so that the subscriber cannot have it: both offsets included.
    Gap {
        channel: String,
        from: u64,
        to: u64,
    },
    Unsubscribed {
        channel: String,
    },
    Acknowledged {
        request: Option<u64>,
        /// Of the publication, on a channel with history.
        offset: Option<u64>,
    },
    Refused(Refusal),
    /// An event, or what is said in a chat, as it came.
    Message(String),
    /// The message as it came: a type that this client does not know.
    Other(String),
}

#[derive(Debug, PartialEq, Eq)]
pub struct Publication {
    pub channel: String,
    /// On a channel with history.
    pub offset: Option<u64>,
    /// By which the server wants it acknowledged, see
    /// [`Client::acknowledge`](super::Client::acknowledge).
    pub message_id: Option<String>,
    json: String,
    /// The place of the value of `data` in `json`.
    data: Range<usize>,
}

/// A request that the server did not do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refusal {
    /// For people.
    pub message: String,
    /// For machines: stable.
    pub code: Option<String>,
    pub channel: Option<String>,
    /// The `id` of the request, where it had one.
    pub request: Option<u64>,
}

impl Publication {
    /// Byte for byte what was published.
    pub fn data(&self) -> &str {
        &self.json[self.data.clone()]
    }

    /// The whole message.
    pub fn json(&self) -> &str {
        &self.json
    }
}

impl Refusal {
    /// `words` is the name of the field with the words for people.
    fn of(fields: &Members<'_>, words: &str) -> Self {
        Self {
            message: fields.text(words).unwrap_or("refused without a reason".into()).into_owned(),
            code: fields.text("code").map(Cow::into_owned),
            channel: fields.text("channel").map(Cow::into_owned),
            request: fields.number("requestId"),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.code {
            Some(code) => write!(f, " ({code})"),
            None => Ok(()),
        }
    }
}

impl ServerMessage {
    pub fn parse(text: String) -> Result<Self, ClientError> {
        let Some(fields) = Members::of(&text) else {
            return Err(ClientError::InvalidMessage(text));
        };
        let channel = fields.text("channel");
        match fields.text("type").as_deref() {
            Some("ack") => {
                let (request, offset) = (fields.number("requestId"), fields.number("offset"));
                return Ok(Self::Acknowledged { request, offset });
            }
            Some("error") => return Ok(Self::Refused(Refusal::of(&fields, "error"))),
            Some("event" | "text" | "image" | "file") => return Ok(Self::Message(text)),
            Some(_) | None => {}
        }
        match (channel, fields.raw("data")) {
            (Some(channel), Some(data)) if channel == "system" => {
                let Some(data) = Members::of(data) else { return Ok(Self::Other(text)) };
                let about = || data.text("channel").unwrap_or_default().into_owned();
                Ok(match data.text("type").as_deref() {
                    Some("subscription_confirm") => {
                        let reason = || data.text("reason").unwrap_or_default().into_owned();
                        let failed = data.raw("recovered") == Some("false");
                        let position = data.text("epoch").zip(data.number::<u64>("offset"));
                        Self::Subscribed {
                            channel: about(),
                            position: position.map(|(epoch, offset)| format!("{epoch}:{offset}")),
                            not_recovered: failed.then(reason),
                        }
                    }
                    Some("gap") => {
                        let offset = |name| data.number(name).unwrap_or_default();
                        Self::Gap { channel: about(), from: offset("from"), to: offset("to") }
                    }
                    Some("unsubscription_confirm") => Self::Unsubscribed { channel: about() },
                    Some("error") => Self::Refused(Refusal::of(&data, "message")),
                    Some(_) | None => Self::Other(text),
                })
            }
            (Some(channel), Some(data)) => {
                let channel = channel.into_owned();
                let offset = fields.number("offset");
                let message_id = fields.text("messageId").map(Cow::into_owned);
                // `data` is a part of `text`.
                let start = data.as_ptr().addr() - text.as_ptr().addr();
                let data = start..start + data.len();
                let publication = Publication { channel, offset, message_id, json: text, data };
                Ok(Self::Publication(publication))
            }
            _ => Ok(Self::Other(text)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> ServerMessage {
        ServerMessage::parse(json.to_string()).unwrap()
    }

    #[test]
    fn the_data_of_a_publication_is_its_publishers_bytes() {
        for data in [
            "1",
            "-1.50e3",
            "1e999",
            "123456789012345678901234567890",
            "true",
            "null",
            "\"\"",
            r#""a \"quoted\" \\""#,
            r#"{"a":[1,{"b":"}]"}] , "data":2}"#,
            "[ ]",
            "{ \"x\" :\n 1 }",
            "[[],{},\"\\\\\"]",
            "\"ünïcode ✓\"",
        ] {
            for json in [
                format!(r#"{{"channel":"news","data":{data}}}"#),
                format!(r#"{{"channel":"news","data":{data},"offset":7}}"#),
                format!(r#" {{ "offset" : 7 , "data" : {data} , "channel" : "news" }} "#),
                format!(r#"{{"tags":{{"data":0}},"data":{data},"channel":"news"}}"#),
            ] {
                let ServerMessage::Publication(publication) = parse(&json) else {
                    panic!("not a publication: {json}");
                };
                assert_eq!(publication.data(), data);
                assert_eq!(publication.json(), json);
                assert_eq!(publication.channel, "news");
            }
        }
    }

    #[test]
    fn the_words_of_the_server_become_values() {
        let channel = "a".to_string();
        assert_eq!(
            parse(r#"{"channel":"system","data":{"type":"subscription_confirm","channel":"a"}}"#),
            ServerMessage::Subscribed {
                channel: channel.clone(),
                position: None,
                not_recovered: None
            }
        );
        let json = r#"{"channel":"system","data":{"type":"subscription_confirm","channel":"a","epoch":"00000000000000ef","offset":7,"recovered":false,"reason":"trimmed"}}"#;
        assert_eq!(
            parse(json),
            ServerMessage::Subscribed {
                channel: channel.clone(),
                position: Some("00000000000000ef:7".to_owned()),
                not_recovered: Some("trimmed".to_owned())
            }
        );
        assert_eq!(
            parse(r#"{"channel":"system","data":{"type":"unsubscription_confirm","channel":"a"}}"#),
            ServerMessage::Unsubscribed { channel }
        );
        assert_eq!(
            parse(r#"{"type":"ack","requestId":3,"channel":"a"}"#),
            ServerMessage::Acknowledged { request: Some(3), offset: None }
        );
        assert_eq!(
            parse(r#"{"type":"ack","messageId":"m","channel":"a","offset":17}"#),
            ServerMessage::Acknowledged { request: None, offset: Some(17) }
        );
        let json = r#"{"channel":"a","offset":2,"messageId":"e-2","data":1}"#;
        let ServerMessage::Publication(publication) = parse(json) else { panic!("{json}") };
        assert_eq!((publication.offset, publication.message_id.as_deref()), (Some(2), Some("e-2")));
        let refusal = Refusal {
            message: "no".to_string(),
            code: Some("rate_limited".to_string()),
            channel: Some("a".to_string()),
            request: Some(4),
        };
        assert_eq!(refusal.to_string(), "no (rate_limited)");
        assert_eq!(
            parse(
                r#"{"channel":"system","data":{"type":"error","message":"no","code":"rate_limited",
                    "channel":"a","requestId":4}}"#
            ),
            ServerMessage::Refused(refusal)
        );
        let message = parse(r#"{"id":"1","type":"error","requestId":9,"error":"no"}"#);
        assert!(matches!(message, ServerMessage::Refused(Refusal { request: Some(9), .. })));
        let json = r#"{"type":"pong"}"#;
        assert_eq!(parse(json), ServerMessage::Other(json.to_string()));
        assert!(ServerMessage::parse("{".to_string()).is_err());
    }
}
