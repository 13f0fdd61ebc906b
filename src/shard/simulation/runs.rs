//! What a subscription with a filter must have got: a stretch of its channel's order, without what the filter
//! is not for.

use serde_json::{Value, json};

use super::library::{CHANNELS, FIRST_KEPT, Library};
use crate::io::sim::Random;

const PLACES: [&str; 3] = ["a", "b", "c"];

/// Those of one publication.
#[derive(Debug, Clone, Copy)]
pub struct Tags {
    place: Option<&'static str>,
    level: Option<usize>,
}

impl Tags {
    pub fn new(random: &mut Random) -> Self {
        let place = (!random.one_in(3)).then(|| PLACES[random.below(PLACES.len())]);
        let level = (!random.one_in(3)).then(|| random.below(8));
        Self { place, level }
    }

    pub fn is_empty(self) -> bool {
        self.place.is_none() && self.level.is_none()
    }

    pub fn as_json(self) -> Value {
        let mut tags = json!({});
        if let Some(place) = self.place {
            tags["place"] = place.into();
        }
        if let Some(level) = self.level {
            tags["level"] = level.to_string().into();
        }
        tags
    }

    /// Whether a subscription with this one of the filters gets them.
    pub fn are_for(self, filter: usize) -> bool {
        let Self { place, level } = self;
        match filter {
            0 => true,
            1 => place == Some("a"),
            2 => place != Some("a"),
            3 => level.is_some_and(|level| level > 3),
            4 => place.is_some_and(|place| place != "c") && level.is_some_and(|level| level <= 5),
            _ => level.is_none_or(|level| level >= 4),
        }
    }
}

/// A subscription of one connection, from one confirmation to the next one or to its end.
#[derive(Debug)]
pub struct Run {
    pub channel: usize,
    /// Its filter is one of these: of a restored session nobody can say which, if a change was on its way.
    pub filters: Vec<usize>,
    /// Publications that anybody had sent when the confirmation came.
    pub published_before: usize,
    /// Each with its offset, or with 0.
    pub seen: Vec<(usize, u64)>,
    /// Of a channel with a history, as the confirmation says: what is behind this offset is to come.
    pub begin: Option<usize>,
    pub epoch: Option<String>,
    /// It has changed its filter, and got everything before under the last one.
    pub continues: bool,
    /// Where the last connection of its session came to, and who that was.
    pub follows: Option<(usize, usize)>,
    /// It ended before the world did.
    pub over: bool,
}

impl Run {
    pub fn new(channel: usize, filters: Vec<usize>, published_before: usize) -> Self {
        Self {
            channel,
            filters,
            published_before,
            seen: Vec::new(),
            begin: None,
            epoch: None,
            continues: false,
            follows: None,
            over: false,
        }
    }

    /// Where it begins, as a confirmation says. One that was withdrawn meanwhile begins nowhere.
    pub fn take_place(&mut self, confirmation: &Value) {
        self.begin = confirmation["offset"].as_u64().map(|offset| offset as usize);
        self.epoch = confirmation["epoch"].as_str().map(str::to_owned);
    }

    /// The client's position.
    pub fn reached(&self) -> u64 {
        let begin = self.begin.unwrap_or_default() as u64;
        self.seen.last().map_or(begin, |(_, offset)| (*offset).max(begin))
    }

    /// Where in `order` it may have ended, first and last, if it began where the run before it may have
    /// ended; empty: what it got is not what it was to get.
    pub fn spans(
        &self,
        before: &[(usize, usize)],
        order: &[usize],
        wanted: impl Fn(usize, usize) -> bool,
    ) -> Vec<(usize, usize)> {
        let due = order.iter().position(|id| *id >= self.published_before);
        let mut starts = before.to_vec();
        if !self.continues {
            starts = vec![(0, order.len())];
        }
        // What was sent when it had been confirmed must come.
        let (first, last) =
            self.begin.map_or((0, due.unwrap_or(order.len())), |begin| (begin, begin));
        let clipped = starts.into_iter().map(|(from, to)| (from.max(first), to.min(last)));
        let starts: Vec<_> = clipped.filter(|(from, to)| from <= to).collect();
        let mut ends = Vec::new();
        for filter in &self.filters {
            let ended = starts
                .iter()
                .filter_map(|start| self.span(*start, order, |id| wanted(id, *filter)));
            ends.extend(ended);
        }
        ends
    }

    /// The same from one range of starts, under one filter.
    fn span(
        &self,
        (first, last): (usize, usize),
        order: &[usize],
        wanted: impl Fn(usize) -> bool,
    ) -> Option<(usize, usize)> {
        let next = |place: usize| {
            let found = order[place..].iter().position(|id| wanted(*id));
            found.map_or(order.len(), |found| place + found)
        };
        let Some((id, _)) = self.seen.first() else { return Some((first, next(last))) };
        let begin = order.iter().position(|other| other == id)?;
        // Nothing that it wants is between where it began and what it got first.
        if begin < first || !(first..=last.min(begin)).any(|start| next(start) == begin) {
            return None;
        }
        let mut place = begin;
        for (id, offset) in &self.seen {
            place = next(place);
            let is_it = order.get(place) == Some(id);
            if !is_it || (*offset > 0 && *offset != place as u64 + 1) {
                return None;
            }
            place += 1;
        }
        Some((place, next(place)))
    }
}

impl Library {
    /// What everybody got is what it was to get.
    pub fn judge(&mut self) {
        let orders: [Vec<usize>; CHANNELS.len()] =
            std::array::from_fn(|channel| self.order_of(channel));
        for (index, reader) in self.readers.iter().enumerate() {
            assert!(reader.gone || reader.asked.is_empty(), "never answered: {:?}", reader.asked);
            for (channel, order) in orders.iter().enumerate() {
                let mut spans = Vec::new();
                for run in reader.runs.iter().filter(|run| run.channel == channel) {
                    let what = || format!("reader {index}, {}: {run:?}", CHANNELS[channel]);
                    let wanted = |id: usize, reader: usize, filter: usize| {
                        let published = &self.published[id];
                        published.except != Some(reader) && published.tags.are_for(filter)
                    };
                    if let Some((reached, before)) = run.follows {
                        for id in order.iter().take(run.begin.unwrap_or(0)).skip(reached) {
                            let takes = |filter: &usize| wanted(*id, before, *filter);
                            assert!(!run.filters.iter().all(takes), "{id} is lost: {}", what());
                        }
                    }
                    spans = run.spans(&spans, order, |id, filter| wanted(id, index, filter));
                    assert!(!spans.is_empty(), "no place in {order:?}: {}", what());
                    let is_whole = spans.iter().any(|(_, last)| *last == order.len());
                    assert!(run.over || is_whole, "ends early, {order:?}: {}", what());
                }
            }
        }
    }

    /// What the witness saw. What was accepted is in it once, what was refused is not.
    fn order_of(&self, channel: usize) -> Vec<usize> {
        let witness = &self.readers[0];
        assert!(!witness.gone, "the witness was lost");
        let mut runs = witness.runs.iter().filter(|run| run.channel == channel);
        let run = runs.next().expect("it is subscribed");
        let order: Vec<_> = run.seen.iter().map(|(id, _)| *id).collect();
        if channel >= FIRST_KEPT {
            let is_next =
                |(place, (_, offset)): (usize, &(usize, u64))| *offset == place as u64 + 1;
            assert!(run.seen.iter().enumerate().all(is_next), "{run:?}");
        }
        for (id, published) in self.published.iter().enumerate() {
            if published.channel == channel {
                let count = order.iter().filter(|other| **other == id).count();
                match published.outcome {
                    Some(accepted) => assert_eq!(count, usize::from(accepted), "{id}"),
                    None => assert!(count <= 1, "{id}"),
                }
            }
        }
        order
    }
}
