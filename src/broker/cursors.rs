//! Subscriptions that are not live but read from the history: those that recover, and those whose
//! connection was too slow for live ones. Each costs its place here and nothing else.

use std::collections::VecDeque;

use hashbrown::HashMap;

use super::topics::TopicKey;
use crate::ids::Token;
use crate::message::Ask;

/// Questions to other shards' histories that may be open at a time: so many slices at most are on
/// their way to one shard.
const READS_MAX: usize = 256;

#[derive(Debug)]
pub struct Cursor {
    pub topic: TopicKey,
    pub state: CursorState,
}

#[derive(Debug)]
pub enum CursorState {
    /// The home was asked where to begin.
    Opening(Opening),
    /// The offset of the publication that is wanted next.
    Reading { next: u64 },
    /// The same, but it must not read yet: the session that it belongs to is not restored.
    Held { next: u64 },
}

/// A subscription that the home has not answered.
#[derive(Debug)]
pub struct Opening {
    pub ask: Ask,
    /// Of every request that waits for the same answer, in their order; raw JSON of the client.
    pub request_ids: Vec<Option<Box<str>>>,
    /// It belongs to a session that is being restored, and is held when it is answered.
    pub resumes: bool,
}

/// The cursors of one connection. They have turns.
#[derive(Debug, Default)]
struct Reader {
    generation: u32,
    cursors: VecDeque<Cursor>,
    /// The slice that is on its way: one at a time, so a connection that stops taking bytes has no
    /// more than that coming.
    asked: Option<(TopicKey, Ask)>,
}

/// What to read for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// It has no cursor.
    None,
    /// It must wait for an answer.
    Waiting,
    Read {
        topic: TopicKey,
        next: u64,
    },
}

/// By connection slot.
#[derive(Debug, Default)]
pub struct Cursors {
    readers: HashMap<u32, Reader, foldhash::fast::RandomState>,
    /// Reads whose answer is due, those of connections that have gone included.
    reads: usize,
}

impl Cursors {
    /// Whether no more slices may be asked for until one has come.
    pub fn reads_full(&self) -> bool {
        self.reads >= READS_MAX
    }

    /// The slots of those that read this topic, in a look at all of them.
    pub fn readers_of(&self, topic: TopicKey) -> impl Iterator<Item = u32> {
        let reads =
            move |reader: &Reader| reader.cursors.iter().any(|cursor| cursor.topic == topic);
        self.readers.iter().filter(move |(_, reader)| reads(reader)).map(|(slot, _)| *slot)
    }

    pub fn find(&mut self, token: Token, topic: TopicKey) -> Option<&mut CursorState> {
        let cursors = &mut self.reader(token)?.cursors;
        cursors.iter_mut().find(|cursor| cursor.topic == topic).map(|cursor| &mut cursor.state)
    }

    /// A cursor on a topic on which the connection has none.
    pub fn insert(&mut self, token: Token, topic: TopicKey, state: CursorState) {
        let reader = self.readers.entry(token.slot).or_default();
        if reader.generation != token.generation {
            *reader = Reader { generation: token.generation, ..Reader::default() };
        }
        reader.cursors.push_back(Cursor { topic, state });
    }

    pub fn remove(&mut self, token: Token, topic: TopicKey) -> Option<CursorState> {
        let reader = self.reader(token)?;
        let place = reader.cursors.iter().position(|cursor| cursor.topic == topic)?;
        let cursor = reader.cursors.remove(place)?;
        // A slice on its way is for this cursor, not for the next one on the topic.
        reader.asked.take_if(|(asked, _)| *asked == topic);
        if reader.cursors.is_empty() {
            self.readers.remove(&token.slot);
        }
        if self.readers.is_empty() {
            // Gives the memory of a past crowd back.
            self.readers = HashMap::default();
        }
        Some(cursor.state)
    }

    /// Whose turn it is of the connection's cursors; it goes behind the others, unless
    /// it waits for an answer. Those on topics that pause are passed over.
    pub fn turn(&mut self, token: Token, pauses: impl Fn(TopicKey) -> bool) -> Turn {
        let Some(reader) = self.reader(token) else { return Turn::None };
        if reader.asked.is_some() {
            return Turn::Waiting;
        }
        for _ in 0..reader.cursors.len() {
            reader.cursors.rotate_left(1);
            if let Some(Cursor { topic, state: CursorState::Reading { next } }) =
                reader.cursors.back()
                && !pauses(*topic)
            {
                return Turn::Read { topic: *topic, next: *next };
            }
        }
        Turn::Waiting
    }

    /// A slice of `topic` is on its way to `token`, which has a cursor there.
    pub fn asked(&mut self, token: Token, topic: TopicKey, ask: Ask) {
        self.begin_read();
        if let Some(reader) = self.reader(token) {
            reader.asked = Some((topic, ask));
        }
    }

    /// A slice is on its way, for whomever.
    pub fn begin_read(&mut self) {
        self.reads += 1;
    }

    /// A slice has come. Returns whether it is the one that `token` waits for.
    pub fn answered(&mut self, token: Token, topic: TopicKey, ask: Ask) -> bool {
        let Some(reader) = self.reader(token) else { return false };
        reader.asked.take_if(|asked| *asked == (topic, ask)).is_some()
    }

    /// A slice has come, for whomever.
    pub fn end_read(&mut self) {
        self.reads = self.reads.saturating_sub(1);
    }

    fn reader(&mut self, token: Token) -> Option<&mut Reader> {
        self.readers.get_mut(&token.slot).filter(|reader| reader.generation == token.generation)
    }
}
