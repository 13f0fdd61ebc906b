//! Who is in a channel, as clients ask for it and hear of it.

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;

use crate::ids::{ConnectionId, UserName};
use crate::proto::encoder::{Part, text_frame};
use crate::proto::json;

/// A connection in a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresentMember {
    pub connection_id: ConnectionId,
    /// `None`: it has not authenticated.
    pub user: Option<UserName>,
    /// What others are shown of the user: a JSON object.
    pub info: Option<Arc<str>>,
    /// Unix time, in milliseconds.
    pub joined_at: u64,
}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PresenceQuery {
    /// The members behind this place; 0: from the first one on.
    pub after: u64,
    /// Members at most; 0: only how many there are.
    pub limit: usize,
}

impl PresenceQuery {
    /// Members that one query may ask for.
    pub const LIMIT_MAX: usize = 1000;
    /// Members that a query gets if it does not say.
    pub const LIMIT: usize = 100;
}

/// How many are in a channel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Headcount {
    /// Connections.
    pub clients: usize,
    /// Users among them, each once.
    pub users: usize,
}

/// Who is in a channel: one page of the list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Presence {
    pub count: Headcount,
    /// In the order in which they came.
    pub members: Vec<PresentMember>,
    /// The place to go on behind; `None`: these were the last.
    pub next: Option<u64>,
}

impl Presence {
    /// What one member takes in an answer, about.
    const MEMBER_BYTES: usize = 160;

    /// What the page takes in an answer, about.
    pub fn weight(&self) -> usize {
        let info = self.members.iter().filter_map(|member| member.info.as_ref());
        self.members.len() * Self::MEMBER_BYTES + info.map(|info| info.len()).sum::<usize>()
    }
}

/// Who came and went since the notice before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PresenceNotice {
    pub joined: Vec<PresentMember>,
    /// They were there before those who joined: who is in both lists is there.
    pub left: Vec<PresentMember>,
    /// Once all of that has happened.
    pub count: Headcount,
    /// Another notice follows, and the count is that behind it.
    pub more: bool,
}

impl Presence {
    /// The payload of the answer to a query.
    pub fn payload(&self, channel: &str) -> String {
        let Self { count: Headcount { clients, users }, members, next } = self;
        let channel = json::quote(channel);
        let mut out =
            format!(r#"{{"channel":{channel},"clients":{clients},"users":{users},"members":"#);
        write_members(&mut out, members);
        if let Some(next) = next {
            // Writing to a string does not fail.
            let _ = write!(out, r#","next":{next}"#);
        }
        out.push('}');
        out
    }
}

impl PresenceNotice {
    /// The frame that tells the subscribers of a channel. `number`: of this message.
    pub fn frame(&self, channel: &str, (now_unix_ms, number): (u64, u64)) -> Bytes {
        let Self { joined, left, count: Headcount { clients, users }, more } = self;
        let head =
            format!(r#"{{"id":"{number}","type":"presence","timestamp":{now_unix_ms},"channel":"#);
        let mut lists = String::from(r#","joined":"#);
        write_members(&mut lists, joined);
        lists.push_str(r#","left":"#);
        write_members(&mut lists, left);
        let more = if *more { r#","more":true"# } else { "" };
        let count = format!(r#","clients":{clients},"users":{users}{more}}}"#);
        let parts = [Part::raw(&head), Part::String(channel), Part::raw(&lists), Part::raw(&count)];
        text_frame(&parts)
    }
}

fn write_members(out: &mut String, members: &[PresentMember]) {
    out.push('[');
    for (index, member) in members.iter().enumerate() {
        let PresentMember { connection_id, user, info, joined_at } = member;
        let comma = if index == 0 { "" } else { "," };
        let _ = write!(out, r#"{comma}{{"connectionId":"{connection_id}""#);
        if let Some(user) = user {
            let _ = write!(out, r#","userId":{}"#, json::quote(user));
        }
        if let Some(info) = info {
            let _ = write!(out, r#","info":{info}"#);
        }
        let _ = write!(out, r#","joinedAt":{joined_at}}}"#);
    }
    out.push(']');
}
