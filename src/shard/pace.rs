//! How much of a broadcast one turn sends, by what the last turns took.

use std::time::Duration;

/// Visits of a turn as long as turns are short: about half a millisecond of sending.
const VISITS_MAX: usize = 128;
/// A broadcast goes on in any case.
const VISITS_MIN: usize = 16;
/// Added after each turn that was short.
const STEP: usize = 4;
/// A turn above this sent too much: twice as long is what others may have to wait for one.
const TURN_TARGET: Duration = Duration::from_millis(1);

/// Visits of fan-outs per turn, see [`Broker::advance`](crate::broker::Broker::advance).
///
/// Where a million connections share a core nothing of one is in the cache, and a send takes three times
/// what it takes among ten thousand: slices get smaller then, by half after a long turn, and grow slowly.
#[derive(Debug)]
pub struct Pace {
    visits: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self { visits: VISITS_MAX }
    }
}

impl Pace {
    pub fn visits(&self) -> usize {
        self.visits
    }

    /// A turn has taken so long, all of it.
    pub fn note_turn(&mut self, length: Duration) {
        self.visits = if length > TURN_TARGET {
            (self.visits / 2).max(VISITS_MIN)
        } else {
            (self.visits + STEP).min(VISITS_MAX)
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Turns that cost so much for each visit, and so much beside them.
    fn settle(pace: &mut Pace, visit: Duration, rest: Duration) -> Duration {
        let mut longest = Duration::ZERO;
        for turn in 0..1000 {
            let length = visit * pace.visits() as u32 + rest;
            pace.note_turn(length);
            if turn > 10 {
                longest = longest.max(length);
            }
        }
        longest
    }

    #[test]
    fn cheap_visits_are_never_slowed() {
        let mut pace = Pace::default();
        settle(&mut pace, Duration::from_micros(5), Duration::from_micros(200));
        assert_eq!(pace.visits(), VISITS_MAX);
    }

    #[test]
    fn dear_visits_get_smaller_slices_and_then_large_ones_again() {
        let mut pace = Pace::default();
        let longest = settle(&mut pace, Duration::from_micros(14), Duration::from_micros(500));
        assert!(longest < Duration::from_micros(1100), "{longest:?}");
        pace.note_turn(Duration::from_secs(1));
        assert!(pace.visits() >= VISITS_MIN);
        settle(&mut pace, Duration::from_micros(5), Duration::ZERO);
        assert_eq!(pace.visits(), VISITS_MAX);
    }
}
