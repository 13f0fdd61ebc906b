//! Publications on their way, in a closed loop: each publisher has a bounded number of them.

/// Publications behind an unfinished one that may be begun, as a multiple of the window.
const LEAD_MAX: usize = 16;

#[derive(Debug, Clone, Copy, Default)]
struct Flight {
    /// The publisher's how manieth.
    index: u64,
    /// Deliveries that have not come.
    left: u32,
    sent_ns: u64,
}

#[derive(Debug)]
struct Ring {
    /// Flights with deliveries left.
    open: usize,
    /// By index, modulo the length, which is a power of two.
    flights: Box<[Flight]>,
}

/// The flights of all publishers.
#[derive(Debug)]
pub struct Flights {
    /// Of one publisher at a time.
    window: usize,
    rings: Vec<Ring>,
}

impl Flights {
    pub fn new(publishers: usize, window: usize) -> Self {
        let length = (window * LEAD_MAX).next_power_of_two();
        let ring = || Ring { open: 0, flights: vec![Flight::default(); length].into() };
        Self { window, rings: (0..publishers).map(|_| ring()).collect() }
    }

    /// Whether the publisher may send this one now.
    pub fn has_room(&self, publisher: usize, index: u64) -> bool {
        let ring = &self.rings[publisher];
        ring.open < self.window && ring.flights[ring.slot(index)].left == 0
    }

    pub fn begin(&mut self, publisher: usize, index: u64, deliveries: u32, sent_ns: u64) {
        let ring = &mut self.rings[publisher];
        let slot = ring.slot(index);
        ring.flights[slot] = Flight { index, left: deliveries, sent_ns };
        ring.open += 1;
    }

    /// One delivery has come. When it was the last, returns when the publication was sent.
    pub fn land(&mut self, publisher: usize, index: u64) -> Option<u64> {
        let ring = &mut self.rings[publisher];
        let slot = ring.slot(index);
        let flight = &mut ring.flights[slot];
        // One that was given up has another in its place, or nothing left.
        if flight.index != index || flight.left == 0 {
            return None;
        }
        flight.left -= 1;
        if flight.left > 0 {
            return None;
        }
        ring.open -= 1;
        Some(flight.sent_ns)
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.rings.iter().all(|ring| ring.open == 0)
    }

    /// Waits for none of them any longer.
    pub fn give_up(&mut self) {
        for ring in &mut self.rings {
            ring.open = 0;
            ring.flights.fill(Flight::default());
        }
    }
}

impl Ring {
    fn slot(&self, index: u64) -> usize {
        index as usize & (self.flights.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_opens_with_the_last_delivery() {
        let mut flights = Flights::new(1, 2);
        flights.begin(0, 0, 2, 10);
        assert!(flights.has_room(0, 1));
        flights.begin(0, 1, 1, 20);
        assert!(!flights.has_room(0, 2));
        assert_eq!(flights.land(0, 0), None);
        assert_eq!(flights.land(0, 1), Some(20));
        assert!(flights.has_room(0, 2));
        assert_eq!(flights.land(0, 0), Some(10));
        assert_eq!(flights.land(0, 0), None, "it has landed");
        assert!(flights.is_empty());
    }

    #[test]
    fn what_is_given_up_makes_room_and_may_still_come() {
        let mut flights = Flights::new(2, 1);
        flights.begin(1, 0, 1, 10);
        flights.give_up();
        assert!(flights.is_empty() && flights.has_room(1, 1));
        assert_eq!(flights.land(1, 0), None);
        assert!(flights.is_empty());
    }
}
