//! What a client publishes.

use std::borrow::Cow;

use bytes::Bytes;

use crate::proto::protobuf::{self, bytes_as_json};
use crate::proto::{encoder, json};

/// The data of a publication, as its publisher's encoding has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Data<'a> {
    /// One JSON value with nothing around it, byte for byte as the publisher wrote it.
    Json(&'a str),
    /// Any bytes. Whether they are JSON is asked only where somebody is to get JSON.
    Bytes(&'a [u8]),
    /// The same in a publication that has a channel and them alone, as nearly all have: passed on as it came.
    Plain {
        /// A whole message `Publish`, which is a `Publication` too: its two fields in their shortest form,
        /// neither of them empty.
        publication: &'a [u8],
        /// Those at its end.
        bytes: &'a [u8],
    },
}

impl<'a> Data<'a> {
    /// What stands behind `"data":` in the JSON of the publication: one value as it is; of bytes that are
    /// none, or nested deeper than a message may be, what [`bytes_as_json`] makes of them.
    pub fn as_json(self) -> Cow<'a, str> {
        match self {
            Self::Json(json) => Cow::Borrowed(json),
            Self::Bytes(bytes) | Self::Plain { bytes, .. } => json::member_value(bytes)
                .map_or_else(|| Cow::Owned(bytes_as_json(bytes)), Cow::Borrowed),
        }
    }

    /// The frame of a publication on `channel`, of which it is a part, that nobody keeps: in the encoding that it
    /// came in.
    #[inline]
    pub fn live_frame(self, channel: &str) -> Bytes {
        match self {
            Self::Json(json) => encoder::publication_frame(channel, json.as_bytes()),
            Self::Bytes(bytes) => protobuf::publication_frame(channel, bytes),
            Self::Plain { publication, .. } => protobuf::plain_frame(publication),
        }
    }
}
