//! What requests get, as it is written in JSON.

use std::net::SocketAddr;

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::error::{ApiError, Shown};
use super::value::Cursor;
use crate::ids::{Position, ShardId, TopicName};
use crate::message::{ConnectionInfo, Page, ShardStats};
use crate::proto::Presence;
use crate::proto::encoder::retained_fields;
use crate::proto::reply::LinkQuality;

/// The result of a command, as JSON.
pub type Outcome = Result<Box<RawValue>, ApiError>;

/// `{"result":R}` or `{"error":E}`.
#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Envelope<'a> {
    Result(&'a RawValue),
    Error(Shown<'a>),
}

impl<'a> Envelope<'a> {
    pub fn of(outcome: &'a Outcome) -> Self {
        match outcome {
            Ok(result) => Self::Result(result),
            Err(error) => Self::Error(error.shown()),
        }
    }
}

pub fn json(result: &impl Serialize) -> Outcome {
    // Nothing here has keys that are no strings, or fails by itself.
    to_raw_value(result).map_err(|_| ApiError::unexpected())
}

#[derive(Serialize)]
pub struct Done {}

#[derive(Serialize)]
pub struct Published {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
}

#[derive(Serialize)]
pub struct Broadcasted<'a> {
    pub responses: Vec<Envelope<'a>>,
}

/// How many connections it was done for.
#[derive(Serialize)]
pub struct Reached {
    pub connections: u64,
}

#[derive(Serialize)]
pub struct Replies<'a> {
    pub replies: Vec<Envelope<'a>>,
}

#[derive(Serialize)]
pub struct Place {
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
}

impl From<Option<Position>> for Place {
    fn from(position: Option<Position>) -> Self {
        let epoch = position.map(|position| position.epoch.to_string());
        Self { epoch, offset: position.map(|position| position.offset) }
    }
}

#[derive(Serialize)]
pub struct HistoryPage {
    epoch: Option<String>,
    /// Of the newest publication; 0 before the first one.
    offset: u64,
    publications: Vec<Box<RawValue>>,
    complete: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    more: bool,
}

impl HistoryPage {
    pub fn new(topic: &TopicName, page: &Page) -> Result<Self, ApiError> {
        let publication = |frame: &bytes::Bytes| {
            let fields = std::str::from_utf8(retained_fields(topic, frame)).ok()?;
            RawValue::from_string(format!("{{{fields}")).ok()
        };
        let publications: Option<_> = page.frames.iter().map(publication).collect();
        Ok(Self {
            epoch: page.position.map(|position| position.epoch.to_string()),
            offset: page.position.map_or(0, |position| position.offset),
            publications: publications.ok_or_else(ApiError::unexpected)?,
            complete: page.complete.is_ok(),
            reason: page.complete.err().map(|reason| reason.as_str()),
            more: page.more,
        })
    }
}

/// Who is in a channel, as clients get it.
pub fn presence(topic: &TopicName, presence: &Presence) -> Outcome {
    RawValue::from_string(presence.payload(topic)).map_err(|_| ApiError::unexpected())
}

#[derive(Serialize)]
pub struct Channels {
    pub channels: Vec<Channel>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

#[derive(Serialize)]
pub struct Channel {
    pub channel: String,
    pub subscribers: u64,
}

#[derive(Serialize)]
pub struct Connections {
    pub connections: Vec<Connection>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

pub fn cursor(cursor: Option<Cursor>) -> Option<String> {
    cursor.map(|cursor| cursor.to_string())
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Connection {
    connection_id: String,
    shard: u16,
    peer: SocketAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<String>,
    state: &'static str,
    /// Unix times, in milliseconds.
    state_since: u64,
    last_activity: u64,
    messages_received: u64,
    bytes_received: u64,
    messages_sent: u64,
    bytes_sent: u64,
    queued_messages: usize,
    queued_bytes: usize,
    blocked: bool,
    link_quality: &'static str,
    /// In milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    rtt: Option<u16>,
    subscriptions: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    channels: Option<Vec<String>>,
}

impl Connection {
    pub fn listed(info: &ConnectionInfo) -> Self {
        Self {
            connection_id: info.id.to_string(),
            shard: info.id.shard.0,
            peer: info.peer,
            user_id: info.user.as_deref().map(ToOwned::to_owned),
            state: info.state,
            state_since: info.state_since_ms,
            last_activity: info.last_activity_ms,
            messages_received: info.messages_received,
            bytes_received: info.bytes_received,
            messages_sent: info.messages_sent,
            bytes_sent: info.bytes_sent,
            queued_messages: info.queued_messages,
            queued_bytes: info.queued_bytes,
            blocked: info.is_blocked,
            link_quality: LinkQuality::of(info.rtt).as_str(),
            rtt: info.rtt,
            subscriptions: info.subscriptions,
            channels: None,
        }
    }

    /// With the names of its channels.
    pub fn whole(info: &ConnectionInfo) -> Self {
        let channels = info.topics.iter().map(|topic| topic.to_string()).collect();
        Self { channels: Some(channels), ..Self::listed(info) }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Info {
    pub version: &'static str,
    pub uptime_seconds: u64,
    pub connections: u64,
    pub shards: Vec<Shard>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shard {
    shard: u16,
    connections: usize,
    channels: usize,
    queued_frames: usize,
    fanout_bytes: usize,
    history_bytes: usize,
    log_bytes: usize,
}

impl Shard {
    pub fn new(shard: ShardId, stats: &ShardStats) -> Self {
        Self {
            shard: shard.0,
            connections: stats.connections,
            channels: stats.topics,
            queued_frames: stats.frames,
            fanout_bytes: stats.fanout_bytes,
            history_bytes: stats.history_bytes,
            log_bytes: stats.log_bytes,
        }
    }
}
