//! How connections come in: accepts under way, the rings that have room for them, and the pause when
//! the system has none.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Instant;

use rustix::io::Errno;

use super::tag::{Kind, tag, tag_place};
use super::{ACCEPTS, Lane, Socket, Uring};
use crate::io::Handler;
use crate::io::accept::{ACCEPT_PAUSE, is_peers_loss};

impl Uring {
    /// Sees to it that connections are accepted, as far as there is room for them.
    pub(super) fn arm_accepts(&mut self, handler: &mut impl Handler) {
        if self.accept_retry.is_some_and(|retry| retry > Instant::now()) {
            return;
        }
        self.accept_retry = None;
        while self.accepting < ACCEPTS
            && let Some(listener) = &self.listener
        {
            let slots = self.direct.map_or(u32::MAX, |direct| direct.slots);
            let free = |lane: &Lane| lane.files < slots && !lane.idle_accepts.is_empty();
            let Some(lane) = self.lanes.iter_mut().find(|lane| free(lane)) else {
                let rings_max = self.direct.map_or(1, |direct| direct.rings_max);
                if self.lanes.len() >= usize::from(rings_max) {
                    // As long as one accept is under way, nobody waits for a slot.
                    if self.accepting == 0 {
                        self.pause_accepting(&tables_full(), handler);
                    }
                    return;
                }
                if let Err(error) = self.add_lane() {
                    self.pause_accepting(&error, handler);
                    return;
                }
                continue;
            };
            let Some(place) = lane.idle_accepts.pop() else { return };
            lane.ring.accept(listener.as_fd(), place, tag_place(Kind::Accept, place));
            lane.files += 1;
            self.accepting += 1;
        }
    }

    fn pause_accepting(&mut self, error: &io::Error, handler: &mut impl Handler) {
        self.accept_retry = Some(Instant::now() + ACCEPT_PAUSE);
        handler.accept_paused(error);
    }

    /// An accept has ended.
    pub(super) fn accepted(
        &mut self,
        lane_index: u16,
        place: u16,
        result: io::Result<u32>,
        handler: &mut impl Handler,
    ) {
        let lane = &mut self.lanes[usize::from(lane_index)];
        lane.idle_accepts.push(place);
        self.accepting -= 1;
        let file = match result {
            Ok(number) => lane.ring.accepted_file(number),
            Err(error) => {
                lane.files -= 1;
                let cancelled = error.raw_os_error() == Some(Errno::CANCELED.raw_os_error());
                if !cancelled && !is_peers_loss(&error) {
                    self.pause_accepting(&error, handler);
                }
                return;
            }
        };
        let peer = lane.ring.peer(place).unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0)));
        let token = self.listener.is_some().then(|| handler.accepted(peer)).flatten();
        let Some(token) = token else {
            lane.ring.close(file, tag_place(Kind::Close, 0));
            return;
        };
        if self.sockets.len() <= token.index() {
            self.sockets.resize(token.index() + 1, None);
        }
        self.sockets[token.index()] = Some(Socket {
            file,
            generation: token.generation,
            ring: lane_index,
            open: true,
            paused: false,
            receiving: true,
            awaiting_room: false,
            shutting: false,
        });
        lane.ring.receive(file, tag(Kind::Receive, token));
    }
}

/// The tables of the rings are as full as that of a process can be.
fn tables_full() -> io::Error {
    Errno::MFILE.into()
}
