//! Getting everybody into place before anything is measured: connected, subscribed, confirmed.

use super::clock::SECOND_NS;
use super::ending::Ending;
use super::fleet::{Crowd, Fleet, Wait};
use std::io;

/// Longest time without any connection getting ready.
const PATIENCE_NS: u64 = 10 * SECOND_NS;
/// Time for what is not confirmed to take effect.
const SETTLE_NS: u64 = SECOND_NS / 2;

/// How connections are opened.
#[derive(Debug, Clone, Copy)]
pub struct Muster {
    /// Ids from 0 up to this.
    pub count: usize,
    /// Upgrades under way at a time.
    pub concurrency: usize,
    /// Whether the greeting is answered.
    pub confirms: bool,
}

struct Newcomers {
    /// The number of connection 0 in the whole run.
    first: usize,
    opened: Vec<usize>,
    confirmed: usize,
    trouble: Option<String>,
}

impl Crowd for Newcomers {
    fn opened(&mut self, id: usize, _: u64) {
        self.opened.push(id);
    }

    fn received(&mut self, _: usize, message: &[u8], _: u64) {
        self.confirmed += 1;
        // The one family of messages that says no.
        if message.windows(7).any(|bytes| bytes == b"\"error\"") {
            self.trouble = Some(String::from_utf8_lossy(message).into_owned());
        }
    }

    fn closed(&mut self, id: usize, ending: &Ending, _: u64) {
        self.trouble.get_or_insert_with(|| format!("connection {}: {ending}", self.first + id));
    }
}

impl Muster {
    /// Opens the connections of `fleet` and sends each its greeting, the frame that `greet` appends for
    /// its id, if any. `watch` hears how many are ready as they get so.
    pub fn run(
        self,
        fleet: &mut Fleet,
        mut greet: impl FnMut(usize, &mut Vec<u8>),
        mut watch: impl FnMut(usize) -> io::Result<()>,
    ) -> io::Result<()> {
        let clock = fleet.clock();
        let mut newcomers =
            Newcomers { first: fleet.first(), opened: Vec::new(), confirmed: 0, trouble: None };
        let mut frame = Vec::new();
        let (mut begun, mut ready, mut silent, mut awaited) = (0, 0, 0, 0);
        let mut moved_ns = clock.now_ns();
        while ready < self.count {
            while begun < self.count && begun - ready < self.concurrency {
                fleet.connect(begun)?;
                begun += 1;
            }
            fleet.poll(Wait::Until(clock.now_ns() + SECOND_NS / 10), &mut newcomers)?;
            for id in newcomers.opened.drain(..) {
                frame.clear();
                greet(id, &mut frame);
                fleet.send(id, &frame);
                if frame.is_empty() || !self.confirms {
                    silent += 1;
                } else {
                    awaited += 1;
                }
            }
            let now = silent + newcomers.confirmed.min(awaited);
            if now > ready {
                ready = now;
                moved_ns = clock.now_ns();
                watch(ready)?;
            }
            if let Some(trouble) = newcomers.trouble {
                return Err(io::Error::other(trouble));
            }
            if clock.now_ns() - moved_ns > PATIENCE_NS {
                let (count, seconds) = (self.count, PATIENCE_NS / SECOND_NS);
                return Err(io::Error::other(format!(
                    "only {ready} of {count} connections are ready, none more for {seconds} s"
                )));
            }
        }
        let settled_ns = clock.now_ns() + if self.confirms { 0 } else { SETTLE_NS };
        while clock.now_ns() < settled_ns {
            fleet.poll(Wait::Until(settled_ns), &mut newcomers)?;
        }
        Ok(())
    }
}
