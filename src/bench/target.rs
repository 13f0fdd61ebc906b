//! The server under load: where it is and how it is spoken to.
//!
//! Any server that takes one message for a subscription and one for a publication can be measured, by
//! templates. `{channel}` is the name of a channel, `{topic}` its number, `{data}` the payload: a JSON
//! string with its quotes.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use tungstenite::handshake::derive_accept_key;
use tungstenite::http::Uri;

/// Any 16 bytes will do; the same for every connection.
const KEY: &str = "c3RlbnRvciBiZW5jaCAxNg==";

/// How a server wants its messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dialect {
    /// Answered by one message, unless `confirms` is off.
    pub subscribe: String,
    pub publish: String,
    /// A ping with a payload; the answer has the payload in it.
    pub echo: String,
    /// A ping without one; any one message is the answer.
    pub ping: String,
    /// Whether each subscription is answered.
    pub confirms: bool,
    /// What the name of every channel begins with: a namespace and its colon, or nothing.
    pub channel_prefix: String,
}

impl Dialect {
    /// The native protocol, version 1.
    pub fn stentor() -> Self {
        Self {
            subscribe: r#"{"action":"subscribe","channel":"{channel}"}"#.to_string(),
            publish: r#"{"action":"publish","channel":"{channel}","data":{data}}"#.to_string(),
            echo: r#"{"type":"ping","timestamp":{data}}"#.to_string(),
            ping: r#"{"type":"ping"}"#.to_string(),
            confirms: true,
            channel_prefix: String::new(),
        }
    }

    /// What `benches/floor` understands; its deliveries have the bytes that Stentor's have.
    ///
    /// * `+TOPIC` subscribes to a topic, a decimal number. It is sent back.
    /// * `=TOPIC BODY` sends `BODY` to every subscriber of the topic.
    /// * Anything else is sent back.
    pub fn raw() -> Self {
        Self {
            subscribe: "+{topic}".to_string(),
            publish: r#"={topic} {"channel":"{channel}","data":{data}}"#.to_string(),
            ..Self::stentor()
        }
    }
}

/// A server, ready to be connected to.
#[derive(Debug, Clone)]
pub struct Target {
    pub address: SocketAddr,
    /// The request of every upgrade.
    pub request: Vec<u8>,
    /// What `Sec-WebSocket-Accept` must say.
    pub accept: String,
    pub subscribe: Template,
    pub publish: Template,
    pub echo: Template,
    pub ping: Template,
    pub confirms: bool,
    channel_prefix: String,
    /// Tells the channels of this run from those of another.
    run: u16,
}

/// Why a server cannot be put under load.
#[derive(Debug)]
pub enum TargetError {
    Url { url: String, reason: String },
    Placeholder { template: String, name: String },
    Missing { template: String, name: &'static str },
}

impl Target {
    /// `url` is `ws://HOST:PORT/PATH`. `run` is a random number.
    pub fn new(url: &str, dialect: &Dialect, run: u16) -> Result<Arc<Self>, TargetError> {
        let wrong = |reason: String| TargetError::Url { url: url.to_string(), reason };
        let uri: Uri = url.parse().map_err(|error| wrong(format!("{error}")))?;
        if uri.scheme_str() != Some("ws") {
            return Err(wrong("it does not start with `ws://`".to_string()));
        }
        let host = uri.host().unwrap_or_default();
        let port = uri.port_u16().unwrap_or(80);
        let address = (host.trim_matches(['[', ']']), port)
            .to_socket_addrs()
            .map_err(|error| wrong(error.to_string()))?
            .next()
            .ok_or_else(|| wrong("the host has no address".to_string()))?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        );
        let subscribe = Template::parse(&dialect.subscribe)?;
        let publish = Template::parse(&dialect.publish)?;
        let echo = Template::parse(&dialect.echo)?;
        publish.needs(&Part::Data, &dialect.publish)?;
        echo.needs(&Part::Data, &dialect.echo)?;
        Ok(Arc::new(Self {
            address,
            request: request.into_bytes(),
            accept: derive_accept_key(KEY.as_bytes()),
            subscribe,
            publish,
            echo,
            ping: Template::parse(&dialect.ping)?,
            confirms: dialect.confirms,
            channel_prefix: dialect.channel_prefix.clone(),
            run,
        }))
    }

    /// The same server, asked for a subprotocol at each upgrade.
    pub fn with_subprotocol(&self, name: &str) -> Arc<Self> {
        let mut target = self.clone();
        // Behind the last field, before the empty line.
        target.request.truncate(target.request.len() - 2);
        let field = format!("Sec-WebSocket-Protocol: {name}\r\n\r\n");
        target.request.extend_from_slice(field.as_bytes());
        Arc::new(target)
    }

    /// The name of a channel of this run.
    pub fn channel(&self, topic: usize) -> String {
        format!("{}bench-{:04x}-{topic}", self.channel_prefix, self.run)
    }

    /// The inverse of [`Target::channel`]; `None`: it is no channel of this run.
    pub fn topic(&self, channel: &str) -> Option<usize> {
        let name = channel.strip_prefix(self.channel_prefix.as_str())?;
        let (run, topic) = name.strip_prefix("bench-")?.split_once('-')?;
        let is_own = u16::from_str_radix(run, 16) == Ok(self.run);
        topic.parse().ok().filter(|_| is_own)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(Vec<u8>),
    Channel,
    Topic,
    Data,
}

/// A message with places to fill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Part>);

impl Template {
    /// Braces around anything but lower-case letters are text: JSON has many.
    fn parse(text: &str) -> Result<Self, TargetError> {
        let mut parts = vec![Part::Text(Vec::new())];
        let mut rest = text;
        while let Some(character) = rest.chars().next() {
            let name = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'));
            let part = match name {
                Some(("channel", _)) => Part::Channel,
                Some(("topic", _)) => Part::Topic,
                Some(("data", _)) => Part::Data,
                Some((name, _)) if is_word(name) => {
                    let (template, name) = (text.to_string(), name.to_string());
                    return Err(TargetError::Placeholder { template, name });
                }
                _ => {
                    let (plain, after) = rest.split_at(character.len_utf8());
                    match parts.last_mut() {
                        Some(Part::Text(text)) => text.extend_from_slice(plain.as_bytes()),
                        _ => parts.push(Part::Text(plain.as_bytes().to_vec())),
                    }
                    rest = after;
                    continue;
                }
            };
            parts.push(part);
            rest = name.map_or("", |(_, after)| after);
        }
        Ok(Self(parts))
    }

    fn needs(&self, part: &Part, template: &str) -> Result<(), TargetError> {
        if self.0.contains(part) {
            return Ok(());
        }
        Err(TargetError::Missing { template: template.to_string(), name: "data" })
    }

    /// Appends the message; `data` appends the payload.
    pub fn write(
        &self,
        channel: &str,
        topic: usize,
        mut data: impl FnMut(&mut Vec<u8>),
        out: &mut Vec<u8>,
    ) {
        for part in &self.0 {
            match part {
                Part::Text(text) => out.extend_from_slice(text),
                Part::Channel => out.extend_from_slice(channel.as_bytes()),
                Part::Topic => push_decimal(topic, out),
                Part::Data => data(out),
            }
        }
    }
}

fn is_word(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase())
}

fn push_decimal(number: usize, out: &mut Vec<u8>) {
    let begin = out.len();
    let mut rest = number;
    loop {
        out.push(b'0' + (rest % 10) as u8);
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out[begin..].reverse();
}

impl fmt::Display for TargetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url { url, reason } => {
                write!(f, "`{url}` is not the address of a server: {reason}")
            }
            Self::Placeholder { template, name } => {
                write!(f, "`{template}`: {{{name}}} is none of {{channel}}, {{topic}}, {{data}}")
            }
            Self::Missing { template, name } => write!(f, "`{template}` has no {{{name}}}"),
        }
    }
}

impl std::error::Error for TargetError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(template: &str) -> String {
        let mut out = Vec::new();
        let template = Template::parse(template).unwrap();
        template.write("c", 120, |out| out.extend_from_slice(b"\"d\""), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn templates_keep_the_braces_of_json() {
        let native = Dialect::stentor();
        assert_eq!(render(&native.publish), r#"{"action":"publish","channel":"c","data":"d"}"#);
        assert_eq!(render(&Dialect::raw().publish), r#"=120 {"channel":"c","data":"d"}"#);
        assert_eq!(render("{}{é}}"), "{}{é}}");
    }

    #[test]
    fn channels_have_a_namespace_and_a_number() {
        let dialect = Dialect { channel_prefix: "kept:".to_string(), ..Dialect::stentor() };
        let target = Target::new("ws://127.0.0.1:1", &dialect, 0xAB).unwrap();
        assert_eq!(target.channel(12), "kept:bench-00ab-12");
        assert_eq!(target.topic("kept:bench-00ab-12"), Some(12));
        for other in ["bench-00ab-12", "kept:bench-00ac-12", "kept:bench-00ab-x", "kept:a"] {
            assert_eq!(target.topic(other), None, "{other}");
        }
    }

    #[test]
    fn a_subprotocol_is_a_field_of_the_upgrade() {
        let target = Target::new("ws://127.0.0.1:1", &Dialect::stentor(), 0).unwrap();
        let target = target.with_subprotocol("stentor.v1.json");
        let request = String::from_utf8(target.request.clone()).unwrap();
        assert!(request.ends_with("\r\nSec-WebSocket-Protocol: stentor.v1.json\r\n\r\n"));
        assert_eq!(request.matches("\r\n\r\n").count(), 1);
    }

    #[test]
    fn a_wrong_placeholder_is_named() {
        let error = Template::parse("{chanel}").unwrap_err().to_string();
        assert_eq!(error, "`{chanel}`: {chanel} is none of {channel}, {topic}, {data}");
        let dialect = Dialect { publish: "x".to_string(), ..Dialect::stentor() };
        let error = Target::new("ws://127.0.0.1:1", &dialect, 0).unwrap_err().to_string();
        assert_eq!(error, "`x` has no {data}");
    }
}
