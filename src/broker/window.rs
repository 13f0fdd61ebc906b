//! What one subscriber of an acked topic was sent and has not acknowledged. Data only: no clock, no
//! names, no frames.

use std::collections::VecDeque;
use std::time::Duration;

use super::topics::TopicKey;
use crate::ids::{Epoch, Moment};

/// How a topic's deliveries are repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// From sending a delivery to sending it again.
    pub timeout: Duration,
    /// How often it is sent again at most.
    pub repeats_max: u32,
}

impl Terms {
    /// Deliveries that follow each other within this time are repeated together, by the time of the
    /// first, and so much later than they might be.
    fn slack(&self) -> Duration {
        self.timeout / 8
    }

    fn due(&self, sent: Moment) -> Moment {
        sent.after(self.timeout).after(self.slack())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The acknowledgement is awaited since then.
    Sent(Moment),
    /// To be sent again.
    Due,
    /// Sent as often as may be: it waits for its acknowledgement, however late.
    Expired,
}

/// Unacknowledged offsets that follow each other and have the same fate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    first: u64,
    last: u64,
    stage: Stage,
    repeats: u32,
}

impl Run {
    fn count(&self) -> usize {
        (self.last - self.first + 1) as usize
    }
}

/// The unacknowledged deliveries of one subscription. What was sent and stands in no run is
/// acknowledged, or was its subscriber's own publication.
///
/// Invariant: runs are in order, disjoint, not empty, and not above `sent`; ranges of `ahead` are in
/// order, disjoint, and above it.
#[derive(Debug)]
pub struct Window {
    pub topic: TopicKey,
    pub epoch: Epoch,
    /// The highest offset that was sent.
    sent: u64,
    /// At most as many as there are unacknowledged deliveries.
    runs: VecDeque<Run>,
    /// First and last offset of what was acknowledged on an earlier connection: not to be sent.
    ahead: VecDeque<(u64, u64)>,
}

/// What became of an acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acked {
    /// So many deliveries have theirs now; 0: they had it before.
    Taken(usize),
    /// The offset was never sent.
    NotSent,
}

/// What [`Window::expire`] found.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Overdue {
    /// Something is to be sent again.
    pub repeats: bool,
    /// Deliveries that were sent as often as may be.
    pub expired: usize,
    /// When to look again.
    pub next: Option<Moment>,
}

impl Window {
    /// `sent`: offset up to which everything is acknowledged; `ahead`: what is so above that, in order
    /// and disjoint.
    pub fn new(topic: TopicKey, epoch: Epoch, sent: u64, ahead: &[(u64, u64)]) -> Self {
        let ahead = ahead.iter().copied().collect();
        Self { topic, epoch, sent, runs: VecDeque::new(), ahead }
    }

    /// Whether a publication that is about to be sent is acknowledged already.
    pub fn is_known(&self, offset: u64) -> bool {
        self.ahead.iter().any(|(first, last)| (*first..=*last).contains(&offset))
    }

    /// A publication, not sent before, is on its way.
    pub fn note_sent(&mut self, offset: u64, now: Moment, terms: Terms) {
        debug_assert!(self.runs.back().is_none_or(|run| run.last < offset), "{offset}: {self:?}");
        if offset <= self.sent {
            // What an earlier connection had acknowledged was not this.
            self.ahead.clear();
        }
        self.sent = offset;
        while self.ahead.front().is_some_and(|(_, last)| *last <= offset) {
            self.ahead.pop_front();
        }
        if let Some(Run { last, stage: Stage::Sent(sent), repeats: 0, .. }) = self.runs.back_mut()
            && *last + 1 == offset
            && now.since(*sent) <= terms.slack()
        {
            *last = offset;
            return;
        }
        let run = Run { first: offset, last: offset, stage: Stage::Sent(now), repeats: 0 };
        self.runs.push_back(run);
    }

    /// The subscriber has one publication.
    pub fn ack(&mut self, offset: u64) -> Acked {
        if offset == 0 || (offset > self.sent && !self.is_known(offset)) {
            return Acked::NotSent;
        }
        Acked::Taken(self.remove(offset, offset))
    }

    /// The subscriber has everything up to this offset. Returns how many deliveries have their
    /// acknowledgement now.
    pub fn ack_to(&mut self, offset: u64) -> usize {
        self.remove(0, offset)
    }

    /// Forgets what waits for an acknowledgement between these offsets, both included: it cannot be sent
    /// again. Returns the first and the last offset of it, and how many.
    pub fn lose(&mut self, first: u64, last: u64) -> Option<(u64, u64, usize)> {
        let inside = self.runs.iter().filter(|run| run.first <= last && run.last >= first);
        let (from, to) = inside.fold((u64::MAX, 0), |(from, to), run| {
            (from.min(run.first.max(first)), to.max(run.last.min(last)))
        });
        (from <= to).then(|| (from, to, self.remove(first, last)))
    }

    /// Deliveries without an acknowledgement.
    pub fn unacked(&self) -> usize {
        self.runs.iter().map(Run::count).sum()
    }

    /// The offset before the first unacknowledged delivery, and the ranges above it that are
    /// acknowledged.
    pub fn acked(&self) -> (u64, Vec<(u64, u64)>) {
        let begin = self.runs.front().map_or(self.sent, |run| run.first - 1);
        let mut ranges = Vec::new();
        let mut runs = self.runs.iter().peekable();
        while let Some(run) = runs.next() {
            let end = runs.peek().map_or(self.sent, |next| next.first - 1);
            if run.last < end {
                ranges.push((run.last + 1, end));
            }
        }
        ranges.extend(&self.ahead);
        (begin, ranges)
    }

    /// When [`Window::expire`] has something to do for what is sent now.
    pub fn due(now: Moment, terms: Terms) -> Moment {
        terms.due(now)
    }

    /// Marks what has waited too long to be sent again, or for good.
    pub fn expire(&mut self, now: Moment, terms: Terms) -> Overdue {
        let mut overdue = Overdue::default();
        for run in &mut self.runs {
            if let Stage::Sent(sent) = run.stage {
                let due = terms.due(sent);
                if due > now {
                    overdue.next = Some(overdue.next.map_or(due, |next| next.min(due)));
                } else if run.repeats < terms.repeats_max {
                    run.stage = Stage::Due;
                } else {
                    run.stage = Stage::Expired;
                    overdue.expired += run.count();
                }
            }
            overdue.repeats |= run.stage == Stage::Due;
        }
        overdue
    }

    /// The first offset that is to be sent again.
    pub fn first_due(&self) -> Option<u64> {
        self.runs.iter().find(|run| run.stage == Stage::Due).map(|run| run.first)
    }

    pub fn is_due(&self, offset: u64) -> bool {
        let place = self.runs.partition_point(|run| run.last < offset);
        let run = self.runs.get(place);
        run.is_some_and(|run| run.first <= offset && run.stage == Stage::Due)
    }

    /// What was due from `first` on, and before `next`, is on its way again.
    pub fn note_repeated(&mut self, first: u64, next: u64, now: Moment) {
        let mut place = self.runs.partition_point(|run| run.first < first);
        while let Some(run) = self.runs.get_mut(place)
            && run.first < next
        {
            place += 1;
            if run.stage != Stage::Due {
                continue;
            }
            let rest = Run { first: next, ..*run };
            run.last = run.last.min(next - 1);
            run.stage = Stage::Sent(now);
            run.repeats += 1;
            if rest.first <= rest.last {
                self.runs.insert(place, rest);
            }
        }
    }

    /// What is due will not be sent again. Returns how many deliveries that is.
    pub fn give_up(&mut self) -> usize {
        let due = self.runs.iter_mut().filter(|run| run.stage == Stage::Due);
        due.map(|run| {
            run.stage = Stage::Expired;
            run.count()
        })
        .sum()
    }

    /// Takes these offsets, both included, out of the runs. Returns how many were there.
    fn remove(&mut self, first: u64, last: u64) -> usize {
        let mut removed = 0;
        let mut place = self.runs.partition_point(|run| run.last < first);
        while let Some(run) = self.runs.get_mut(place)
            && run.first <= last
        {
            let before = Run { last: first.saturating_sub(1).min(run.last), ..*run };
            let behind = Run { first: last.saturating_add(1).max(run.first), ..*run };
            let has_before = run.first < first;
            let has_behind = run.last > last;
            removed += run.count();
            removed -= if has_before { before.count() } else { 0 };
            removed -= if has_behind { behind.count() } else { 0 };
            match (has_before, has_behind) {
                (false, false) => drop(self.runs.remove(place)),
                (true, false) => *run = before,
                (false, true) => *run = behind,
                (true, true) => {
                    *run = before;
                    self.runs.insert(place + 1, behind);
                }
            }
            if has_behind {
                break;
            }
            place += usize::from(has_before);
        }
        removed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const TERMS: Terms = Terms { timeout: Duration::from_millis(80), repeats_max: 2 };

    /// Of an unacknowledged delivery: when it was sent, and how often; `None`: not to be repeated.
    #[derive(Debug, Clone, Copy)]
    struct Sent {
        /// The earliest and latest time that the window may have it under.
        at: (u64, u64),
        repeats: u32,
        due: bool,
        expired: bool,
    }

    proptest! {
        #[test]
        fn a_window_knows_what_is_unacknowledged(
            steps in prop::collection::vec((0..8u8, 0..40u64, 0..12u64), 0..200),
        ) {
            let mut window = Window::new(TopicKey(0), Epoch(1), 0, &[]);
            let mut model: BTreeMap<u64, Sent> = BTreeMap::new();
            let (mut sent, mut now) = (0, 0);
            for (step, a, b) in steps {
                match step {
                    0..=2 => {
                        // Sometimes one is left out: its subscriber's own.
                        sent += 1 + u64::from(b == 0);
                        window.note_sent(sent, Moment(now), TERMS);
                        let at = (now.saturating_sub(10), now);
                        model.insert(sent, Sent { at, repeats: 0, due: false, expired: false });
                    }
                    3 => {
                        let expected = if a == 0 || a > sent {
                            Acked::NotSent
                        } else {
                            Acked::Taken(usize::from(model.remove(&a).is_some()))
                        };
                        prop_assert_eq!(window.ack(a), expected);
                    }
                    4 => {
                        let rest = model.split_off(&(a + 1));
                        let taken = std::mem::replace(&mut model, rest).len();
                        prop_assert_eq!(window.ack_to(a), taken);
                    }
                    5 => {
                        let lost: Vec<u64> = model.range(a..=a + b).map(|(at, _)| *at).collect();
                        model.retain(|offset, _| !lost.contains(offset));
                        let ends = lost.first().zip(lost.last());
                        let expected = ends.map(|(first, last)| (*first, *last, lost.len()));
                        prop_assert_eq!(window.lose(a, a + b), expected);
                    }
                    6 => {
                        now += a;
                        let overdue = window.expire(Moment(now), TERMS);
                        let mut expired = 0;
                        for (offset, sent) in &mut model {
                            if sent.due || sent.expired {
                                continue;
                            }
                            let due = window.is_due(*offset);
                            let late = |at: u64| at + 90 <= now;
                            if late(sent.at.1) || (late(sent.at.0) && due) {
                                (sent.due, sent.expired) = (due, !due);
                                prop_assert_eq!(due, sent.repeats < TERMS.repeats_max);
                                expired += usize::from(!due);
                            } else if late(sent.at.0) && sent.repeats == TERMS.repeats_max {
                                // It may be either; the times of repeats are exact.
                                prop_assert!(false, "{:?}", sent);
                            } else {
                                prop_assert!(!due);
                            }
                        }
                        prop_assert_eq!(overdue.expired, expired);
                        prop_assert_eq!(overdue.repeats, model.values().any(|sent| sent.due));
                        let waits = model.values().any(|sent| !sent.due && !sent.expired);
                        prop_assert_eq!(overdue.next.is_some(), waits);
                    }
                    _ => {
                        let first = model.iter().find(|(_, sent)| sent.due).map(|(at, _)| *at);
                        prop_assert_eq!(window.first_due(), first);
                        if let Some(first) = first {
                            window.note_repeated(first, first + 1 + b, Moment(now));
                            for (_, sent) in model.range_mut(first..=first + b) {
                                if sent.due {
                                    let repeats = sent.repeats + 1;
                                    *sent =
                                        Sent { at: (now, now), repeats, due: false, expired: false };
                                }
                            }
                        }
                    }
                }
                prop_assert_eq!(window.unacked(), model.len());
                let (begin, ranges) = window.acked();
                for offset in 1..=sent {
                    let acked = offset <= begin
                        || ranges.iter().any(|(first, last)| (*first..=*last).contains(&offset));
                    prop_assert_eq!(acked, !model.contains_key(&offset), "{}", offset);
                }
            }
        }
    }

    #[test]
    fn what_was_acknowledged_elsewhere_is_known() {
        let mut window = Window::new(TopicKey(0), Epoch(1), 4, &[(6, 7), (9, 9)]);
        assert_eq!(window.acked(), (4, vec![(6, 7), (9, 9)]));
        assert_eq!(
            [5, 6, 7, 8, 9, 10].map(|offset| window.is_known(offset)),
            [false, true, true, false, true, false]
        );
        assert_eq!((window.ack(5), window.ack(6)), (Acked::NotSent, Acked::Taken(0)));
        window.note_sent(5, Moment(0), TERMS);
        window.note_sent(8, Moment(0), TERMS);
        assert_eq!(window.acked(), (4, vec![(6, 7), (9, 9)]));
        window.ack(5);
        assert_eq!(window.acked(), (7, vec![(9, 9)]));
    }

    #[test]
    fn what_is_acknowledged_in_order_takes_one_run() {
        let mut window = Window::new(TopicKey(0), Epoch(1), 0, &[]);
        (1..=1000).for_each(|offset| window.note_sent(offset, Moment(5), TERMS));
        (1..=500).for_each(|offset| assert_eq!(window.ack(offset), Acked::Taken(1)));
        assert_eq!((window.runs.len(), window.unacked()), (1, 500));
        assert!(size_of::<Run>() <= 40);
    }
}
