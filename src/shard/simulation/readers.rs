//! Those who read on simulated servers: what each has asked for and what it has got, from its own view.

use std::collections::BTreeMap;

use super::library::CHANNELS;
use super::runs::{Run, Tags};
use crate::io::sim::SocketId;

/// One connection.
pub struct Reader {
    pub socket: SocketId,
    pub incoming: Vec<u8>,
    /// Bytes that it reads in a step, on average half of that.
    pub pace: usize,
    /// Its session and its own id, once it is welcome.
    pub pair: Option<(String, String)>,
    /// What it has asked for and not been answered.
    pub asked: BTreeMap<u64, Asked>,
    pub runs: Vec<Run>,
    /// By channel: the run that it is in.
    pub current: [Option<usize>; CHANNELS.len()],
    /// By channel: what a session could not get back when it was restored, and still has.
    pub unmet: [Option<Vec<usize>>; CHANNELS.len()],
    /// It has broken off, or was closed.
    pub gone: bool,
    /// Somebody goes on where it was.
    pub succeeded: bool,
}

impl Reader {
    pub fn new(socket: SocketId, pace: usize) -> Self {
        Self {
            socket,
            incoming: Vec::new(),
            pace,
            pair: None,
            asked: BTreeMap::new(),
            runs: Vec::new(),
            current: [None; CHANNELS.len()],
            unmet: [const { None }; CHANNELS.len()],
            gone: false,
            succeeded: false,
        }
    }

    /// It knows where it is: while its session is being restored it does not.
    pub fn is_settled(&self) -> bool {
        let is_restoring = self.asked.values().any(|asked| matches!(asked, Asked::Session { .. }));
        !self.gone && self.pair.is_some() && !is_restoring
    }

    pub fn last_run(&self, channel: usize) -> Option<&Run> {
        self.runs.iter().rev().find(|run| run.channel == channel)
    }

    /// A confirmation begins this.
    pub fn enter(&mut self, run: Run) {
        if let Some(before) = self.current[run.channel].replace(self.runs.len()) {
            self.runs[before].over = true;
        }
        self.runs.push(run);
    }

    /// The filters that the subscription of its session may have, if there is one, and whether there may be
    /// none.
    pub fn in_session(&self, channel: usize) -> (Vec<usize>, bool) {
        let confirmed = self.current[channel].map(|run| self.runs[run].filters.clone());
        let mut filters = confirmed.or_else(|| self.unmet[channel].clone()).unwrap_or_default();
        let mut may_lack = filters.is_empty();
        for asked in self.asked.values() {
            match asked {
                Asked::Subscribe { channel: other, filter, .. } if *other == channel => {
                    filters.push(*filter);
                }
                Asked::Unsubscribe(other) if *other == channel => may_lack = true,
                _ => {}
            }
        }
        (filters, may_lack)
    }
}

#[derive(Debug, Clone)]
pub enum Asked {
    Subscribe { channel: usize, filter: usize, behind: Option<u64> },
    Unsubscribe(usize),
    Publish(usize),
    Session { of: usize, claims: [Option<u64>; CHANNELS.len()] },
}

/// Something published: ids are handed out in order.
pub struct Published {
    pub channel: usize,
    pub tags: Tags,
    /// Who does not want it back.
    pub except: Option<usize>,
    /// Whether it was accepted, once that is told.
    pub outcome: Option<bool>,
}
