//! What is done for those who are named: messages to them, and what concerns all connections of a user.

use bytes::Bytes;

use super::Context;
use super::answer::{self, Envelope, Outcome, json};
use super::asking::Asked;
use super::command::Id;
use super::error::ApiError;
use super::target::{Send, Target};
use crate::ids::{TopicName, UserName};
use crate::message::{AdminAnswer, AdminCall};
use crate::proto::{ErrorCode, encoder};

impl Context {
    pub async fn send(&self, mut send: Send) -> Outcome {
        let target = send.target()?;
        let topic = send.channel.check()?;
        let data = self.check_data(&send.data)?;
        let frame = || encoder::publication_frame(&topic, &data);
        match target {
            Target::Users(users) => {
                let namespace = self.inbox_namespace(&topic)?;
                let send = |user| self.send_to_user(namespace, user, &topic, &data);
                finish_list(users.iter().map(send).collect()).await
            }
            Target::Connections(ids) => {
                let frame = frame();
                finish_list(ids.into_iter().map(|id| self.send_to(id, &frame)).collect()).await
            }
            Target::Everybody(except) => {
                let frame = frame();
                let call =
                    || AdminCall::SendToEverybody { frame: frame.clone(), except: except.clone() };
                self.reach(call).await
            }
        }
    }

    /// The namespace whose inboxes take messages to users under this channel.
    fn inbox_namespace(&self, channel: &TopicName) -> Result<&str, ApiError> {
        self.config.inbox_namespace(channel).ok_or_else(|| {
            let message = "the channel's namespace takes no messages to users: set its option \
                           `direct` or `offline_queue`";
            let code = ErrorCode::PermissionDenied.as_str();
            ApiError::new(axum::http::StatusCode::CONFLICT, code, message)
        })
    }

    fn send_to_user(
        &self,
        namespace: &str,
        user: &UserName,
        channel: &TopicName,
        data: &Bytes,
    ) -> Result<Asked, ApiError> {
        let inbox = TopicName::inbox(namespace, user);
        let (home, channel, data) = ((self.home)(&inbox), channel.clone(), data.clone());
        self.shards.ask(home, AdminCall::SendToUser { inbox, channel, data })
    }

    fn send_to(&self, id: Id, frame: &Bytes) -> Result<Asked, ApiError> {
        let connection = id.find()?;
        let call = AdminCall::SendToConnection { connection, frame: frame.clone() };
        self.begin_asking(connection, call)
    }

    /// Asks every shard, and tells for how many connections it was done.
    pub async fn reach(&self, call: impl Fn() -> AdminCall) -> Outcome {
        let asked: Vec<_> = self.shards.ids().map(|shard| self.shards.ask(shard, call())).collect();
        let (mut reached, mut refused) = (0, None);
        for asked in asked {
            match asked?.answer().await? {
                AdminAnswer::Reached { connections, refusal } => {
                    reached += connections;
                    refused = refused.or(refusal);
                }
                _ => return Err(ApiError::unexpected()),
            }
        }
        match refused {
            Some(refusal) if reached == 0 => Err(refusal.into()),
            _ => json(&answer::Reached { connections: reached }),
        }
    }
}

/// An answer for each, in their order.
async fn finish_list(asked: Vec<Result<Asked, ApiError>>) -> Outcome {
    let mut outcomes = Vec::with_capacity(asked.len());
    for asked in asked {
        outcomes.push(finish(asked).await.and_then(|()| json(&answer::Done {})));
    }
    let responses = outcomes.iter().map(Envelope::of).collect();
    json(&answer::Broadcasted { responses })
}

/// A message is where it is to be.
async fn finish(asked: Result<Asked, ApiError>) -> Result<(), ApiError> {
    match asked?.answer().await? {
        AdminAnswer::Published(outcome) => ApiError::of_publication(outcome).map(|_| ()),
        AdminAnswer::Done => Ok(()),
        _ => Err(ApiError::unexpected()),
    }
}
