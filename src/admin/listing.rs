//! What takes many calls, each a bounded piece of a shard's turn: going through all channels or all
//! connections. A listing is no snapshot: what comes and goes meanwhile may be in it or not.

use super::Context;
use super::answer::{self, Outcome, json};
use super::command::{Channels, Connections, check_limit};
use super::error::ApiError;
use super::pattern::matches;
use super::value::Cursor;
use crate::ids::{ShardId, TopicName};
use crate::message::{AdminAnswer, AdminCall};

/// Calls of one request; what has not come up by then is left to the next one.
const CALLS_MAX: usize = 100;

/// Bytes of a pattern: as many as a name has.
const PATTERN_BYTES_MAX: usize = crate::ids::TOPIC_NAME_BYTES_MAX;

/// A piece of a shard's table: entries with their places, and where it goes on.
type Piece<T> = (Vec<(u32, T)>, Option<u32>);

impl Context {
    pub async fn channels(&self, channels: &Channels) -> Outcome {
        let Channels { pattern, limit, cursor } = channels;
        let limit = check_limit(*limit)?;
        if let Some(pattern) = pattern
            && pattern.len() > PATTERN_BYTES_MAX
        {
            return Err(ApiError::invalid(format!(
                "`pattern` of {} bytes exceeds the limit of {PATTERN_BYTES_MAX}",
                pattern.len()
            )));
        }
        let wanted =
            |topic: &TopicName| pattern.as_ref().is_none_or(|pattern| matches(pattern, topic));
        let piece = |shard, from| self.topics(shard, from);
        let (topics, cursor) =
            self.gather(cursor.unwrap_or_default(), limit, piece, wanted).await?;
        let mut counts = vec![0; topics.len()];
        if !topics.is_empty() {
            let call = |_| AdminCall::Subscribers { topics: topics.clone() };
            let asked: Vec<_> =
                self.shards.ids().map(|shard| self.shards.ask(shard, call(shard))).collect();
            for asked in asked {
                let AdminAnswer::Subscribers(here) = asked?.answer().await? else {
                    return Err(ApiError::unexpected());
                };
                counts.iter_mut().zip(here).for_each(|(count, here)| *count += u64::from(here));
            }
        }
        let channel = |(topic, subscribers): (&TopicName, u64)| answer::Channel {
            channel: topic.to_string(),
            subscribers,
        };
        let channels = topics.iter().zip(counts).map(channel).collect();
        json(&answer::Channels { channels, cursor: answer::cursor(cursor) })
    }

    pub async fn connections(&self, connections: &Connections) -> Outcome {
        let Connections { limit, cursor } = connections;
        let limit = check_limit(*limit)?;
        let piece = |shard, from| async move {
            match self.shards.ask(shard, AdminCall::Connections { from })?.answer().await? {
                AdminAnswer::Connections { connections, next } => {
                    let placed = connections.into_iter().map(|info| (info.id.slot, info));
                    Ok((placed.collect(), next))
                }
                _ => Err(ApiError::unexpected()),
            }
        };
        let (found, cursor) =
            self.gather(cursor.unwrap_or_default(), limit, piece, |_| true).await?;
        let connections = found.iter().map(answer::Connection::listed).collect();
        json(&answer::Connections { connections, cursor: answer::cursor(cursor) })
    }

    async fn topics(&self, shard: ShardId, from: u32) -> Result<Piece<TopicName>, ApiError> {
        match self.shards.ask(shard, AdminCall::Topics { from })?.answer().await? {
            AdminAnswer::Topics { topics, next } => Ok((topics, next)),
            _ => Err(ApiError::unexpected()),
        }
    }

    /// Up to `limit` entries from a place on, and where to go on; `None`: these were the last.
    async fn gather<T, F: Future<Output = Result<Piece<T>, ApiError>>>(
        &self,
        from: Cursor,
        limit: usize,
        piece: impl Fn(ShardId, u32) -> F,
        wanted: impl Fn(&T) -> bool,
    ) -> Result<(Vec<T>, Option<Cursor>), ApiError> {
        // It is never closed.
        let _turn = self.listings.acquire().await.map_err(|_| ApiError::shutting_down())?;
        let shards = self.shards.ids().count();
        let (mut cursor, mut found) = (from, Vec::new());
        for _ in 0..CALLS_MAX {
            if usize::from(cursor.shard) >= shards {
                return Ok((found, None));
            }
            let (entries, next) = piece(ShardId(cursor.shard), cursor.place).await?;
            for (place, entry) in entries {
                if !wanted(&entry) {
                    continue;
                }
                if found.len() == limit {
                    return Ok((found, Some(Cursor { place, ..cursor })));
                }
                found.push(entry);
            }
            cursor = match next {
                Some(place) => Cursor { place, ..cursor },
                None => Cursor { shard: cursor.shard + 1, place: 0 },
            };
        }
        Ok((found, Some(cursor).filter(|cursor| usize::from(cursor.shard) < shards)))
    }
}
