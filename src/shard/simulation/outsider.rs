//! The server API in a simulated world: calls to the shards, each answered once, and publications that
//! are held against the witnesses' order as those of clients are.

use std::collections::BTreeMap;

use super::{FIRST_KEPT, Outcome, Published, TOPICS, World};
use crate::broker::home_of;
use crate::ids::{ShardId, TopicName};
use crate::io::sim::Random;
use crate::mesh::{AdminInbox, Mailer};
use crate::message::{
    AdminAnswer, AdminCall, AdminRefusal, AdminRequest, AdminTicket, ShardMessage,
};
use crate::proto::{HistoryQuery, Since};

/// In the place of a client's number.
pub const OUTSIDE: usize = usize::MAX;

/// Calls that were not answered: with more, no new one is made.
const CALLS_MAX: usize = 40;

pub struct Outsider {
    mailer: Mailer,
    inbox: AdminInbox,
    last_ticket: u64,
    calls: BTreeMap<AdminTicket, Question>,
}

#[derive(Debug, Clone, Copy)]
enum Question {
    /// Of the publication with this id.
    Publish(usize),
    History,
    Topics,
    Connections,
    Stats,
}

impl Outsider {
    pub fn new(mailer: Mailer, inbox: AdminInbox) -> Self {
        Self { mailer, inbox, last_ticket: 0, calls: BTreeMap::new() }
    }

    fn ask(&mut self, shard: ShardId, question: Question, call: AdminCall) {
        self.last_ticket += 1;
        let ticket = AdminTicket::new(self.last_ticket);
        assert!(self.calls.insert(ticket, question).is_none());
        self.mailer.post(shard, ShardMessage::Admin(Box::new(AdminRequest { ticket, call })));
    }

    /// Hands over what was asked, and takes what was answered.
    pub fn step(&mut self, published: &mut [Published]) {
        self.mailer.flush();
        while let Some(answers) = self.inbox.receive() {
            for (ticket, answer) in answers {
                let question = self.calls.remove(&ticket).expect("an answer to a question, once");
                match (question, answer) {
                    (Question::Publish(id), AdminAnswer::Published(outcome)) => {
                        let outcome = match outcome.is_accepted() {
                            true => Outcome::Accepted,
                            false => Outcome::Refused,
                        };
                        assert!(published[id].outcome.replace(outcome).is_none());
                    }
                    (Question::History, AdminAnswer::Page(_))
                    | (Question::History, AdminAnswer::Refused(AdminRefusal::BacklogFull))
                    | (Question::Topics, AdminAnswer::Topics { .. })
                    | (Question::Connections, AdminAnswer::Connections { .. })
                    | (Question::Stats, AdminAnswer::Stats(_)) => {}
                    (question, answer) => panic!("{question:?} got {answer:?}"),
                }
            }
        }
    }

    pub fn is_answered(&self) -> bool {
        self.calls.is_empty()
    }
}

impl World {
    /// One thing that a backend asks.
    pub fn act_from_outside(&mut self) {
        if self.outsider.calls.len() >= CALLS_MAX {
            return;
        }
        let shard = ShardId(self.random.below(self.shards.len()) as u16);
        let topic = self.random.below(TOPICS.len());
        match self.random.below(8) {
            0 => self.outsider.ask(shard, Question::Topics, AdminCall::Topics { from: 0 }),
            1 => {
                let call = AdminCall::Connections { from: self.random.below(4) as u32 };
                self.outsider.ask(shard, Question::Connections, call);
            }
            2 => self.outsider.ask(shard, Question::Stats, AdminCall::Stats),
            3 if topic >= FIRST_KEPT => {
                let query =
                    HistoryQuery { since: Since::Oldest, until: None, limit: 9, reverse: true };
                let call = AdminCall::History { topic: TopicName::new(TOPICS[topic]), query };
                self.outsider.ask(self.home(topic), Question::History, call);
            }
            _ => self.publish_from_outside(topic),
        }
    }

    fn publish_from_outside(&mut self, topic: usize) {
        let id = self.published.len();
        self.published.push(Published {
            topic,
            client: OUTSIDE,
            echo: true,
            raw: false,
            outcome: None,
        });
        let data = format!(r#"[{id},"{}"]"#, padding(&mut self.random)).into();
        let call = AdminCall::Publish {
            topic: TopicName::new(TOPICS[topic]),
            data,
            message_id: Some(format!("\"{id}\"").into()),
            filter: None,
        };
        self.outsider.ask(self.home(topic), Question::Publish(id), call);
    }

    fn home(&self, topic: usize) -> ShardId {
        home_of(&self.settings.hasher, self.shards.len() as u16, TOPICS[topic])
    }
}

fn padding(random: &mut Random) -> String {
    "x".repeat(random.below(60))
}
