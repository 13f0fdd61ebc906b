//! Messages that are passed on whole: events, and what is said in a chat. The server looks at where they
//! go and says whom they are from; the rest stays byte for byte as the client wrote it.

use std::borrow::Cow;
use std::ops::Range;

use crate::proto::command::RequestId;
use crate::proto::json::escape;

/// Stands before a whole message where else the data of a publication stands: in a history, in the
/// durable log, on the way to a topic's home. No JSON value begins with it.
pub const MESSAGE_MARK: u8 = b'\n';

/// The minor version of the protocol that is spoken; the major version is 1.
pub const MINOR_VERSION: u32 = 2;

/// A message of a client that goes to a channel as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypedMessage<'a> {
    /// The value of `type`.
    pub kind: &'static str,
    /// Where it goes; `None`: it does not say.
    pub channel: Option<Cow<'a, str>>,
    /// Whether the publisher receives it, if it is subscribed.
    pub echo: bool,
    pub id: Option<RequestId<'a>>,
    /// A JSON string with its quotes, as [`Command::Publish`](crate::proto::Command) has it.
    pub message_id: Option<&'a str>,
    /// An object with a member at least, and nothing around it.
    pub text: &'a str,
    /// The place of the value of `sender` in it.
    pub sender: Option<Range<usize>>,
    /// Everybody gets it with an `id`, which is to be added.
    pub lacks_id: bool,
    /// As well as a `timestamp`.
    pub lacks_timestamp: bool,
}

impl TypedMessage<'_> {
    /// The message behind [`MESSAGE_MARK`], as everybody gets it. `sender`: whom it is from, whatever it
    /// says itself; `None`: as it says. `number` becomes its `id` if it has none.
    pub fn stamped(&self, sender: Option<&str>, now_unix_ms: u64, number: u64) -> Vec<u8> {
        /// Of `id` and `timestamp` with their names.
        const ADDED_BYTES_MAX: usize = 80;
        let sender_len = sender.map_or(0, |sender| escape::string_len(sender) + 16);
        let mut out = Vec::with_capacity(self.text.len() + sender_len + ADDED_BYTES_MAX);
        out.extend_from_slice(&[MESSAGE_MARK, b'{']);
        if self.lacks_id {
            out.extend_from_slice(format!(r#""id":"{number}","#).as_bytes());
        }
        if self.lacks_timestamp {
            out.extend_from_slice(format!(r#""timestamp":{now_unix_ms},"#).as_bytes());
        }
        let members = |range: Range<usize>| self.text.as_bytes().get(range).unwrap_or_default();
        match (sender, self.sender.clone()) {
            (Some(sender), Some(place)) => {
                out.extend_from_slice(members(1..place.start));
                escape::push_string(sender, &mut out);
                out.extend_from_slice(members(place.end..self.text.len()));
            }
            (Some(sender), None) => {
                out.extend_from_slice(br#""sender":"#);
                escape::push_string(sender, &mut out);
                out.push(b',');
                out.extend_from_slice(members(1..self.text.len()));
            }
            (None, _) => out.extend_from_slice(members(1..self.text.len())),
        }
        out
    }
}

/// The message that stands behind the mark, if this is no data of a publication.
pub fn as_message(data: &[u8]) -> Option<&[u8]> {
    data.strip_prefix(&[MESSAGE_MARK])
}
