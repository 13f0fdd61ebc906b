//! The reader's side of a replay: every publication at its own offset, each once, in order.

use super::answer::{self, Notice};
use super::ending::Ending;
use super::fleet::Crowd;
use super::ledger::{Arrival, Ledger};
use super::meter::Meter;
use super::outcome::Outcome;
use super::stamp::{Corrupt, Payload};

/// What a reader gets of a channel that one publisher has filled.
pub struct Replayed {
    publications: u32,
    /// Offset of the publication 0.
    base: u64,
    /// The first publication that the server still has; `None` until it has confirmed.
    first: Option<u32>,
    payload: Payload,
    place: usize,
    /// By number, counted from `first`.
    ledger: Ledger,
    pub meter: Meter,
    /// The last delivery, or the confirmation.
    pub arrived_ns: u64,
    trouble: Option<String>,
}

impl Replayed {
    /// `publications` in a row, of which the first has the offset `base`.
    pub fn new(publications: u32, base: u64, data_bytes: usize) -> Self {
        Self {
            publications,
            base,
            first: None,
            payload: Payload::new(data_bytes),
            place: 0,
            ledger: Ledger::new(1, 1),
            meter: Meter::default(),
            arrived_ns: 0,
            trouble: None,
        }
    }

    /// Publications that the server had no more, from the first on.
    pub fn trimmed(&self) -> u32 {
        self.first.unwrap_or(0)
    }

    /// Whether all that the server has have come.
    pub fn is_complete(&self) -> bool {
        self.first.is_some() && self.ledger.is_complete(0, 0, self.due())
    }

    /// Closes the books.
    pub fn settle(mut self) -> Outcome {
        self.ledger.settle(0, 0, self.due());
        Outcome {
            meter: self.meter,
            faults: self.ledger.faults,
            troubles: self.trouble.into_iter().collect(),
            ..Outcome::default()
        }
    }

    fn due(&self) -> u32 {
        self.publications - self.trimmed()
    }

    fn unexpected(&mut self, text: impl FnOnce() -> String) {
        self.ledger.faults.unexpected += 1;
        self.trouble.get_or_insert_with(|| format!("unexpected: {}", text()));
    }

    fn noticed(&mut self, notice: Notice<'_>, message: &[u8]) {
        match notice {
            Notice::Confirmed { position: Some((_, offset)), .. } if self.first.is_none() => {
                let first = offset.saturating_add(1).saturating_sub(self.base);
                self.first = Some(first.min(u64::from(self.publications)) as u32);
            }
            Notice::Confirmed { .. } | Notice::Gap | Notice::Other => {
                self.unexpected(|| String::from_utf8_lossy(message).into_owned());
            }
        }
    }

    fn delivered(&mut self, number: u32, message: &[u8], now_ns: u64) {
        let offset = answer::number(message, "offset");
        if number >= self.publications {
            self.ledger.faults.corrupt += 1;
            return;
        }
        let base = self.base;
        if offset != Some(base.wrapping_add(u64::from(number))) {
            self.unexpected(|| {
                format!("publication {number} at offset {offset:?}, and the first was at {base}")
            });
        }
        // What it begins before, it says to have no more; so this was invented, or repeated.
        let Some(place) = self.first.and_then(|first| number.checked_sub(first)) else {
            self.ledger.faults.repeated += 1;
            return;
        };
        if self.ledger.note(0, 0, place) == Arrival::First {
            self.meter.tally(now_ns);
        }
    }
}

impl Crowd for Replayed {
    fn opened(&mut self, _: usize, _: u64) {}

    fn received(&mut self, _: usize, message: &[u8], now_ns: u64) {
        self.arrived_ns = now_ns;
        if let Some(notice) = Notice::read(message) {
            return self.noticed(notice, message);
        }
        match self.payload.read(message, &mut self.place) {
            Some(Ok(stamp)) => self.delivered(stamp.number, message, now_ns),
            Some(Err(Corrupt)) => self.ledger.faults.corrupt += 1,
            None => self.unexpected(|| String::from_utf8_lossy(message).into_owned()),
        }
    }

    fn closed(&mut self, _: usize, ending: &Ending, _: u64) {
        self.ledger.faults.disconnected += 1;
        self.trouble.get_or_insert_with(|| format!("the reader: {ending}"));
    }
}
