//! How commands are done: what goes to which shard, and what their answers mean.

use bytes::Bytes;
use serde_json::value::RawValue;

use super::answer::{self, Envelope, Outcome, json};
use super::asking::Asked;
use super::command::{
    self, Batch, Broadcast, Command, Disconnect, History, Presence, Publish, Subscribe, Unsubscribe,
};
use super::error::ApiError;
use super::target::{Compiled, Who};
use super::value::{Channel, MessageId};
use super::{Context, Stage};
use crate::ids::{ConnectionId, TopicName};
use crate::message::{AdminAnswer, AdminCall};
use crate::proto::close::{KICKED, is_sendable_by_peer};
use crate::proto::json::{JsonError, Scanner, quote};
use crate::proto::tags::Tags;
use crate::proto::{CloseCode, ErrorCode};

/// 5.5: all control frames have a payload of 125 bytes or less; two are the code.
const CLOSE_REASON_BYTES_MAX: usize = 123;

/// Publications that are under way: of one command.
enum Begun {
    Publish(Result<Asked, ApiError>),
    Broadcast(Result<Vec<Result<Asked, ApiError>>, ApiError>),
}

/// A command of a batch.
enum Reply {
    Begun(Begun),
    Done(Outcome),
}

impl Context {
    pub async fn run(&self, command: Command) -> Outcome {
        if self.stage() != Stage::Serving {
            return Err(ApiError::shutting_down());
        }
        match command {
            Command::Publish(publish) => self.publish(&publish).finish().await,
            Command::Broadcast(broadcast) => self.broadcast(&broadcast).finish().await,
            Command::Send(send) => self.send(send).await,
            Command::Subscribe(subscription) => self.subscribe(&subscription).await,
            Command::Unsubscribe(subscription) => self.unsubscribe(&subscription).await,
            Command::Disconnect(disconnect) => self.disconnect(disconnect).await,
            Command::History(history) => self.history(&history).await,
            Command::Presence(presence) => self.presence(&presence).await,
            Command::Channels(channels) => self.channels(&channels).await,
            Command::Connections(connections) => self.connections(&connections).await,
            Command::Connection(one) => self.connection(one.connection.find()?).await,
            Command::Rooms(list) => self.list_rooms(list).await,
            Command::Room(one) => self.room(one).await,
            Command::CreateRoom(create) => self.create_room(create).await,
            Command::DeleteRoom(one) => self.delete_room(one).await,
            Command::RoomMute(one) => self.mute(one, true).await,
            Command::RoomUnmute(one) => self.mute(one, false).await,
            Command::RoomKick(one) => self.kick(one).await,
            Command::Groups(list) => self.list_groups(list),
            Command::Group(one) => self.group(one),
            Command::CreateGroup(create) => self.create_group(create).await,
            Command::DeleteGroup(delete) => self.delete_group(delete).await,
            Command::GroupAdd(add) => self.group_add(add).await,
            Command::GroupRemove(remove) => self.group_remove(remove).await,
            Command::Info(_) => self.info().await,
        }
    }

    /// In their order, as if each had come when the one before was answered; publications that follow
    /// each other are under way together.
    pub async fn run_all(&self, batch: Batch) -> Outcome {
        command::check_count(batch.commands.len(), "commands")?;
        let mut replies = Vec::with_capacity(batch.commands.len());
        for command in batch.commands {
            let reply = match parse::<Command>(command.get()) {
                Err(error) if error.code == ErrorCode::InvalidMessage.as_str() => {
                    Reply::Done(Err(error))
                }
                // It is JSON, whatever else it is not.
                Err(_) => {
                    let message = "a command is an object with one member, its name";
                    Reply::Done(Err(ApiError::invalid(message)))
                }
                Ok(_) if self.stage() != Stage::Serving => {
                    Reply::Done(Err(ApiError::shutting_down()))
                }
                Ok(Command::Publish(publish)) => Reply::Begun(self.publish(&publish)),
                Ok(Command::Broadcast(broadcast)) => Reply::Begun(self.broadcast(&broadcast)),
                Ok(other) => {
                    finish_all(&mut replies).await;
                    Reply::Done(self.run(other).await)
                }
            };
            replies.push(reply);
        }
        finish_all(&mut replies).await;
        let outcomes: Vec<_> = replies.iter().filter_map(Reply::outcome).collect();
        let replies = outcomes.into_iter().map(Envelope::of).collect();
        json(&answer::Replies { replies })
    }

    fn publish(&self, publish: &Publish) -> Begun {
        let Publish { channel, data, message_id, filter, tags } = publish;
        let rest = (message_id.as_ref(), filter.as_ref());
        let tags = tags.as_ref().and_then(|tags| tags.0.as_ref());
        let begin = || self.post(channel, &self.check_data(data)?, tags, rest);
        Begun::Publish(begin())
    }

    fn broadcast(&self, broadcast: &Broadcast) -> Begun {
        let Broadcast { channels, data, message_id, filter, tags } = broadcast;
        let rest = (message_id.as_ref(), filter.as_ref());
        let tags = tags.as_ref().and_then(|tags| tags.0.as_ref());
        let begin = || {
            command::check_count(channels.len(), "channels")?;
            let data = self.check_data(data)?;
            let post = |channel| self.post(channel, &data, tags, rest);
            Ok(channels.iter().map(post).collect())
        };
        Begun::Broadcast(begin())
    }

    fn post(
        &self,
        channel: &Channel,
        data: &Bytes,
        tags: Option<&Tags>,
        (message_id, filter): (Option<&MessageId>, Option<&Compiled>),
    ) -> Result<Asked, ApiError> {
        let topic = channel.check()?;
        if filter.is_some() && self.config.options_of(&topic).has_history() {
            return Err(ApiError::filtered_history());
        }
        if tags.is_some() {
            self.check_tags(&topic)?;
        }
        let data = tags.map_or_else(|| data.clone(), |tags| tags.before(data).into());
        let message_id = message_id.map(|id| quote(&id.0).into());
        let filter = filter.map(|filter| filter.0.clone());
        let home = (self.home)(&topic);
        self.shards.ask(home, AdminCall::Publish { topic, data, message_id, filter })
    }

    fn check_tags(&self, topic: &TopicName) -> Result<(), ApiError> {
        match self.config.options_of(topic).tags {
            true => Ok(()),
            false => Err(ApiError::no_tags()),
        }
    }

    /// A value that clients too might publish, without the body it stands in.
    pub fn check_data(&self, data: &RawValue) -> Result<Bytes, ApiError> {
        let (text, limit) = (data.get(), self.config.limits.max_message_size);
        if text.len() > limit {
            return Err(ApiError::too_large("`data`", text.len(), limit));
        }
        match Scanner::new(text).value() {
            Ok(_) => Ok(Bytes::copy_from_slice(text.as_bytes())),
            Err(error @ (JsonError::Syntax | JsonError::TooDeep)) => Err(ApiError::new(
                axum::http::StatusCode::BAD_REQUEST,
                ErrorCode::InvalidJson.as_str(),
                error.to_string(),
            )),
        }
    }

    async fn subscribe(&self, subscription: &Subscribe) -> Outcome {
        let topic = subscription.channel.check()?;
        let filter = subscription.filter.as_ref().map(|filter| filter.0.clone());
        if filter.is_some() {
            self.check_tags(&topic)?;
        }
        match subscription.who()? {
            Who::Connection(id) => {
                let connection = id.find()?;
                let call = AdminCall::Subscribe { connection, topic, filter };
                match self.ask_connection(connection, call).await? {
                    AdminAnswer::Subscribed(position) => json(&answer::Place::from(position)),
                    _ => Err(ApiError::unexpected()),
                }
            }
            Who::User(user) => {
                let call = || {
                    let (user, topic, filter) = (user.clone(), topic.clone(), filter.clone());
                    AdminCall::SubscribeUser { user, topic, filter }
                };
                self.reach(call).await
            }
        }
    }

    async fn unsubscribe(&self, subscription: &Unsubscribe) -> Outcome {
        let topic = subscription.channel.check()?;
        match subscription.who()? {
            Who::Connection(id) => {
                let connection = id.find()?;
                let call = AdminCall::Unsubscribe { connection, topic };
                self.ask_connection(connection, call).await?;
                json(&answer::Done {})
            }
            Who::User(user) => {
                let call =
                    || AdminCall::UnsubscribeUser { user: user.clone(), topic: topic.clone() };
                self.reach(call).await
            }
        }
    }

    async fn disconnect(&self, disconnect: Disconnect) -> Outcome {
        let who = disconnect.who()?;
        let Disconnect { code, reason, .. } = disconnect;
        let code = code.map_or(Ok(u16::from(KICKED)), |code| u16::try_from(code.0));
        let Some(code) = code.ok().filter(|code| is_sendable_by_peer(*code)) else {
            return Err(ApiError::invalid(
                "`code` cannot be sent: 1000 to 1003, 1007 to 1014 and 3000 to 4999 can",
            ));
        };
        let reason = reason.unwrap_or_else(|| "kicked".to_owned());
        if reason.len() > CLOSE_REASON_BYTES_MAX {
            return Err(ApiError::invalid(format!(
                "`reason` of {} bytes exceeds the limit of {CLOSE_REASON_BYTES_MAX}",
                reason.len()
            )));
        }
        let (code, reason): (_, Box<str>) = (CloseCode::from(code), reason.into());
        match who {
            Who::Connection(id) => {
                let connection = id.find()?;
                let call = AdminCall::Disconnect { connection, code, reason };
                self.ask_connection(connection, call).await?;
                json(&answer::Done {})
            }
            Who::User(user) => {
                let call = || {
                    let (user, reason) = (user.clone(), reason.clone());
                    AdminCall::DisconnectUser { user, code, reason }
                };
                self.reach(call).await
            }
        }
    }

    async fn history(&self, history: &History) -> Outcome {
        let topic = history.channel.check()?;
        let query = history.query()?;
        let home = (self.home)(&topic);
        let asked = self.shards.ask(home, AdminCall::History { topic: topic.clone(), query })?;
        match asked.answer().await? {
            AdminAnswer::Page(page) => json(&answer::HistoryPage::new(&topic, &page)?),
            _ => Err(ApiError::unexpected()),
        }
    }

    async fn presence(&self, presence: &Presence) -> Outcome {
        let topic = presence.channel.check()?;
        let query = presence.query()?;
        let home = (self.home)(&topic);
        let asked = self.shards.ask(home, AdminCall::Presence { topic: topic.clone(), query })?;
        match asked.answer().await? {
            AdminAnswer::Presence(presence) => answer::presence(&topic, &presence),
            _ => Err(ApiError::unexpected()),
        }
    }

    async fn connection(&self, id: ConnectionId) -> Outcome {
        match self.ask_connection(id, AdminCall::Connection(id)).await? {
            AdminAnswer::Connection(info) => json(&answer::Connection::whole(&info)),
            _ => Err(ApiError::unexpected()),
        }
    }

    async fn info(&self) -> Outcome {
        let ask = |shard| (shard, self.shards.ask(shard, AdminCall::Stats));
        let asked: Vec<_> = self.shards.ids().map(ask).collect();
        let mut shards = Vec::with_capacity(asked.len());
        for (shard, asked) in asked {
            let AdminAnswer::Stats(stats) = asked?.answer().await? else {
                return Err(ApiError::unexpected());
            };
            shards.push(answer::Shard::new(shard, &stats));
        }
        json(&answer::Info {
            version: env!("CARGO_PKG_VERSION"),
            uptime_seconds: self.started.elapsed().as_secs(),
            connections: self.metrics.connections(),
            shards,
        })
    }

    /// Asks the shard whose connection it is.
    async fn ask_connection(
        &self,
        id: ConnectionId,
        call: AdminCall,
    ) -> Result<AdminAnswer, ApiError> {
        self.begin_asking(id, call)?.answer().await
    }

    pub fn begin_asking(&self, id: ConnectionId, call: AdminCall) -> Result<Asked, ApiError> {
        if self.shards.ids().all(|shard| shard != id.shard) {
            return Err(ApiError::no_connection());
        }
        self.shards.ask(id.shard, call)
    }
}

impl Begun {
    async fn finish(self) -> Outcome {
        match self {
            Self::Publish(asked) => finish_one(asked).await,
            Self::Broadcast(asked) => {
                let mut outcomes = Vec::new();
                for asked in asked? {
                    outcomes.push(finish_one(asked).await);
                }
                let responses = outcomes.iter().map(Envelope::of).collect();
                json(&answer::Broadcasted { responses })
            }
        }
    }
}

impl Reply {
    fn outcome(&self) -> Option<&Outcome> {
        match self {
            Self::Done(outcome) => Some(outcome),
            Self::Begun(_) => None,
        }
    }
}

async fn finish_one(asked: Result<Asked, ApiError>) -> Outcome {
    match asked?.answer().await? {
        AdminAnswer::Published(outcome) => {
            json(&answer::Published { offset: ApiError::of_publication(outcome)? })
        }
        _ => Err(ApiError::unexpected()),
    }
}

async fn finish_all(replies: &mut [Reply]) {
    for reply in replies {
        if let Reply::Begun(_) = reply {
            let placeholder = Reply::Done(Err(ApiError::unexpected()));
            if let Reply::Begun(begun) = std::mem::replace(reply, placeholder) {
                *reply = Reply::Done(begun.finish().await);
            }
        }
    }
}

/// A text as what is asked, or what is wrong with it.
pub fn parse<'a, T: serde::Deserialize<'a>>(text: &'a str) -> Result<T, ApiError> {
    serde_json::from_str(text).map_err(|error| {
        let code = match error.classify() {
            serde_json::error::Category::Data => ErrorCode::InvalidMessage,
            serde_json::error::Category::Io
            | serde_json::error::Category::Syntax
            | serde_json::error::Category::Eof => ErrorCode::InvalidJson,
        };
        let status = axum::http::StatusCode::BAD_REQUEST;
        ApiError::new(status, code.as_str(), error.to_string())
    })
}
