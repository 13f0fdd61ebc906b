//! Who is in the topics of a simulated world: what clients hear of it, and what they get when they ask.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::client::{Client, Manner};
use super::{TOPICS, World};
use crate::io::sim::{Network, Random};
use crate::metrics::Counter;

/// Queries have ids from here on, publications lower ones.
const QUERY_IDS: u64 = 1 << 40;

/// Who hears what of those in a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Custom {
    /// Its subscribers hear who comes and goes.
    Told,
    /// They may ask.
    Asked,
    Unknown,
}

const CUSTOMS: [Custom; TOPICS.len()] = {
    use Custom::{Asked, Told, Unknown};
    [Told, Asked, Unknown, Told, Told, Told, Told, Unknown, Told]
};

/// What a client knows of who is there: the ids of connections.
#[derive(Debug, Default)]
pub struct Attendance {
    /// By topic: who was there when it asked, and came since. Only while it is subscribed.
    heard: BTreeMap<usize, BTreeSet<String>>,
    asked: BTreeMap<u64, Question>,
    last_query: u64,
    /// What it is called, if no welcome has said so.
    connection: Option<String>,
    /// By topic: where to go on asking, and who there is to that place.
    pages: BTreeMap<usize, (u64, Vec<String>)>,
    /// By topic: everybody on all pages; `None`: it is not to know.
    answers: BTreeMap<usize, Option<BTreeSet<String>>>,
}

#[derive(Debug, Clone, Copy)]
enum Question {
    /// What it is called.
    Name,
    /// All who are in a topic, to hear from then on who comes and goes.
    Everybody(usize),
    /// The next of those in a topic.
    Page(usize),
}

impl Attendance {
    pub fn new(manner: Manner) -> Self {
        let mut attendance = Self::default();
        if manner == Manner::Witness {
            // It is the first one.
            let nobody = |topic| (topic, BTreeSet::new());
            attendance.heard = (0..TOPICS.len()).map(nobody).collect();
        }
        attendance
    }

    /// It is not in that topic any more.
    pub fn forget(&mut self, topic: usize) {
        self.heard.remove(&topic);
    }
}

impl Client {
    pub fn ask_everybody(&mut self, network: &RefCell<Network>, topic: usize, random: &mut Random) {
        let channel = TOPICS[topic];
        let parameters = format!(r#"{{"channel":"{channel}","limit":1000}}"#);
        self.ask(network, Question::Everybody(topic), ("presence", &parameters), random);
    }

    fn ask(
        &mut self,
        network: &RefCell<Network>,
        question: Question,
        (resource, parameters): (&str, &str),
        random: &mut Random,
    ) {
        if self.is_closed() {
            return;
        }
        let id = QUERY_IDS + self.attendance.last_query;
        self.attendance.last_query += 1;
        self.attendance.asked.insert(id, question);
        let text = format!(
            r#"{{"type":"query","id":{id},"payload":{{"resource":"{resource}","parameters":{parameters}}}}}"#
        );
        self.say(network, &text, random);
    }

    /// Asks the next thing of what it is called and who is in its topics. `false`: it knows all of it.
    fn ask_on(&mut self, network: &RefCell<Network>, random: &mut Random) -> bool {
        if !self.attendance.asked.is_empty() {
            return true;
        }
        if self.name().is_none() {
            self.ask(network, Question::Name, ("session", "{}"), random);
            return true;
        }
        let mut topics = self.topics();
        let Some(topic) = topics.find(|topic| !self.attendance.answers.contains_key(topic)) else {
            return false;
        };
        drop(topics);
        let (channel, limit) = (TOPICS[topic], 1 + random.below(8));
        let after = self.attendance.pages.entry(topic).or_default().0;
        let parameters = format!(r#"{{"channel":"{channel}","limit":{limit},"after":{after}}}"#);
        self.ask(network, Question::Page(topic), ("presence", &parameters), random);
        true
    }

    /// The id of its connection.
    fn name(&self) -> Option<&String> {
        let told = self.session.pair.as_ref().map(|(_, connection)| connection);
        told.or(self.attendance.connection.as_ref())
    }

    /// An answer to one of these questions, or a notice. `false`: it is none.
    pub fn take_attendance(&mut self, message: &Value) -> bool {
        if message["type"] == "presence" {
            self.take_notice(message);
            return true;
        }
        let id = message["requestId"].as_u64().or(message["data"]["requestId"].as_u64());
        let Some(id) = id.filter(|id| *id >= QUERY_IDS) else { return false };
        let question = self.attendance.asked.remove(&id);
        let question = question.unwrap_or_else(|| panic!("not asked for: {message}"));
        if message["type"] == "response" {
            self.take_answer(question, &message["payload"]);
            return true;
        }
        let code = message["code"].as_str().or(message["data"]["code"].as_str());
        match (question, code) {
            // It may ask again.
            (_, Some("backlog_full")) => {}
            (Question::Everybody(_), Some("not_subscribed")) => {}
            (Question::Everybody(topic) | Question::Page(topic), Some("permission_denied")) => {
                assert_eq!(CUSTOMS[topic], Custom::Unknown, "{message}");
                self.attendance.answers.insert(topic, None);
            }
            _ => panic!("{question:?} got {message}"),
        }
        true
    }

    fn take_answer(&mut self, question: Question, payload: &Value) {
        let topic = match question {
            Question::Name => {
                let name = payload["connectionId"].as_str().expect("an id").to_owned();
                self.attendance.connection = Some(name);
                return;
            }
            Question::Everybody(topic) | Question::Page(topic) => topic,
        };
        assert_ne!(CUSTOMS[topic], Custom::Unknown, "{payload}");
        assert_eq!(payload["channel"], TOPICS[topic]);
        let clients = payload["clients"].as_u64().expect("a number") as usize;
        let members = names(&payload["members"]);
        let next = payload["next"].as_u64();
        if let Question::Everybody(_) = question {
            assert_eq!((clients, next), (members.len(), None), "{payload}");
            if self.is_subscribed(topic) {
                self.attendance.heard.insert(topic, members.into_iter().collect());
            }
            return;
        }
        let (place, listed) = self.attendance.pages.entry(topic).or_default();
        assert!(next.is_none_or(|next| next > *place), "{payload}");
        listed.extend(members);
        if let Some(next) = next {
            *place = next;
            return;
        }
        let everybody: BTreeSet<_> = listed.iter().cloned().collect();
        assert_eq!((everybody.len(), listed.len()), (clients, clients), "in {}", TOPICS[topic]);
        self.attendance.answers.insert(topic, Some(everybody));
    }

    fn take_notice(&mut self, notice: &Value) {
        let topic = TOPICS.iter().position(|topic| notice["channel"] == *topic);
        let topic = topic.expect("one of ours");
        assert_eq!(CUSTOMS[topic], Custom::Told, "{notice}");
        let Some(heard) = self.attendance.heard.get_mut(&topic) else { return };
        for left in names(&notice["left"]) {
            heard.remove(&left);
        }
        heard.extend(names(&notice["joined"]));
    }
}

fn names(members: &Value) -> Vec<String> {
    let members = members.as_array().expect("a list").iter();
    members.map(|it| it["connectionId"].as_str().expect("an id").to_owned()).collect()
}

impl World {
    /// At rest whoever is in a topic is told exactly who else is, and has heard the same, if nothing of that
    /// was dropped.
    pub fn check_attendance(&mut self) {
        for client in &mut self.clients {
            client.depart_if_doomed(&self.network);
        }
        self.settle();
        let open: Vec<_> =
            (0..self.clients.len()).filter(|index| self.clients[*index].is_open()).collect();
        let mut steps = 0;
        loop {
            let mut is_asking = false;
            for index in &open {
                is_asking |= self.clients[*index].ask_on(&self.network, &mut self.random);
            }
            if !is_asking {
                break;
            }
            self.step();
            steps += 1;
            assert!(steps < 20_000, "queries are never answered");
        }
        let total = |counter| self.settings.metrics.total(counter);
        let is_told = total(Counter::PresenceDropped) == 0;
        let is_heard = is_told && total(Counter::DroppedOldest) == 0;
        for (topic, channel) in TOPICS.iter().enumerate() {
            let there = open.iter().filter(|index| self.clients[**index].is_subscribed(topic));
            let there: Vec<_> = there.copied().collect();
            let name = |index: &usize| self.clients[*index].name().expect("it has asked").clone();
            let names: BTreeSet<_> = there.iter().map(name).collect();
            let known = (CUSTOMS[topic] != Custom::Unknown).then_some(&names);
            for index in there {
                let client = &self.clients[index];
                let answer = client.attendance.answers[&topic].as_ref();
                assert_eq!(answer, known, "client {index} asked who is in {channel}");
                let Some(heard) = client.attendance.heard.get(&topic) else { continue };
                // A witness reads everything.
                let is_witness = index < TOPICS.len();
                if CUSTOMS[topic] == Custom::Told && (is_heard || (is_told && is_witness)) {
                    assert_eq!(heard, &names, "client {index} in {channel}");
                }
            }
        }
    }
}
