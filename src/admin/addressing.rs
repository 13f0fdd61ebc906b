//! What is done for those who are named: messages to them, and what concerns all connections of a user.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;

use super::Context;
use super::answer::{self, Envelope, Outcome, json};
use super::asking::Asked;
use super::error::ApiError;
use super::grouping::group_reached;
use super::groups::GroupError;
use super::target::{Send, Target};
use super::value::Id;
use crate::filter::Filter;
use crate::ids::{GroupName, TopicName, UserName};
use crate::message::{AdminAnswer, AdminCall};
use crate::proto::{ErrorCode, encoder};

/// Users of groups to whom a message is under way at a time.
const AT_ONCE_MAX: usize = 256;

impl Context {
    pub async fn send(&self, mut send: Send) -> Outcome {
        let filter = send.filter.as_ref().map(|filter| filter.0.clone());
        let target = send.target()?;
        let topic = send.channel.check()?;
        let data = self.check_data(&send.data)?;
        let frame = || encoder::publication_frame(&topic, &data);
        match target {
            Target::Users(users) => {
                let namespace = self.inbox_namespace(&topic)?;
                let mut asked = Vec::with_capacity(users.len());
                for user in &users {
                    let is_meant = self.is_meant(user, filter.as_deref());
                    asked.push(is_meant.then(|| self.send_to_user(namespace, user, &topic, &data)));
                }
                finish_list(asked).await
            }
            Target::Connections(ids) => {
                let frame = frame();
                let send = |id| Some(self.send_to(id, &frame, filter.as_ref()));
                finish_list(ids.into_iter().map(send).collect()).await
            }
            Target::Groups(groups) => {
                self.send_to_groups(&groups, &topic, &data, filter.as_deref()).await
            }
            Target::Everybody(audience) => {
                let frame = frame();
                let call =
                    || AdminCall::SendToMany { frame: frame.clone(), audience: audience.clone() };
                self.reach(call).await
            }
        }
    }

    /// Each user once, however many of the groups it is in; an answer for each group.
    async fn send_to_groups(
        &self,
        groups: &[GroupName],
        channel: &TopicName,
        data: &Bytes,
        filter: Option<&Filter>,
    ) -> Outcome {
        let namespace = self.inbox_namespace(channel)?;
        let members = groups.iter().map(|group| {
            let mut users = self.groups().users(group)?;
            users.retain(|user| self.is_meant(user, filter));
            Ok(users)
        });
        let members: Vec<Result<_, GroupError>> = members.collect();
        let distinct: BTreeSet<_> = members.iter().flatten().flatten().collect();
        let distinct: Vec<_> = distinct.into_iter().collect();
        let mut failed = HashMap::new();
        for users in distinct.chunks(AT_ONCE_MAX) {
            let send = |user: &&UserName| self.send_to_user(namespace, user, channel, data);
            let asked: Vec<_> = users.iter().map(send).collect();
            for (user, asked) in users.iter().zip(asked) {
                if let Err(error) = finish(asked).await {
                    failed.insert(*user, error);
                }
            }
        }
        let outcome = |users: &Vec<UserName>| {
            let errors: Vec<_> = users.iter().filter_map(|user| failed.get(user)).collect();
            match errors.first() {
                None => group_reached(users.len()),
                Some(first) => {
                    let (count, all) = (errors.len(), users.len());
                    let message = format!("{count} of {all} users: {}", first.message);
                    Err(ApiError::new(first.status, first.code, message))
                }
            }
        };
        let outcomes: Vec<Outcome> = members
            .iter()
            .map(|users| users.as_ref().map_err(|error| (*error).into()).and_then(outcome))
            .collect();
        json(&answer::Broadcasted { responses: outcomes.iter().map(Envelope::of).collect() })
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

    fn is_meant(&self, user: &UserName, filter: Option<&Filter>) -> bool {
        let attributes = self.config.auth.keys.attributes_of(user);
        filter.is_none_or(|filter| filter.matches(attributes))
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

    fn send_to(
        &self,
        id: Id,
        frame: &Bytes,
        filter: Option<&Arc<Filter>>,
    ) -> Result<Asked, ApiError> {
        let (connection, frame, filter) = (id.find()?, frame.clone(), filter.cloned());
        let call = AdminCall::SendToConnection { connection, frame, filter };
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

/// An answer for each, in their order. `None`: it is not for this one.
async fn finish_list(asked: Vec<Option<Result<Asked, ApiError>>>) -> Outcome {
    let mut outcomes = Vec::with_capacity(asked.len());
    for asked in asked {
        let sent = match asked {
            Some(asked) => finish(asked).await,
            None => Ok(()),
        };
        outcomes.push(sent.and_then(|()| json(&answer::Done {})));
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
