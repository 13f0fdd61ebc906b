//! What a client publishes.

use std::borrow::Cow;

use crate::proto::json;
use crate::proto::protobuf::bytes_as_json;

/// The data of a publication, as its publisher's encoding has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Data<'a> {
    /// One JSON value with nothing around it, byte for byte as the publisher wrote it.
    Json(&'a str),
    /// Any bytes. Whether they are JSON is asked only where somebody is to get JSON.
    Bytes(&'a [u8]),
}

impl<'a> Data<'a> {
    /// What stands behind `"data":` in the JSON of the publication: one value as it is; of bytes that are
    /// none, or nested deeper than a message may be, what [`bytes_as_json`] makes of them.
    pub fn as_json(self) -> Cow<'a, str> {
        match self {
            Self::Json(json) => Cow::Borrowed(json),
            Self::Bytes(bytes) => json::member_value(bytes)
                .map_or_else(|| Cow::Owned(bytes_as_json(bytes)), Cow::Borrowed),
        }
    }
}
