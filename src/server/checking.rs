//! The thread that asks schemas about large texts, where the configuration needs one.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use crossbeam_channel::Sender;

use super::{Event, StartError};
use crate::checker;
use crate::config::Config;
use crate::mesh::{self, CheckInbox, CheckSender, Control};

/// The way to the thread. `None`: the shards check everything that may be checked.
pub(super) fn connect(config: &Config) -> Option<(CheckSender, CheckInbox)> {
    let limits = &config.limits;
    let is_needed = config.schemas.is_some() && limits.checked_in_turn < limits.max_checked_size;
    // As much as may wait for a shard.
    is_needed.then(|| mesh::connect_checker(limits.mesh_backlog))
}

/// Starts the thread, which ends with the last shard: nobody need wait for it.
pub(super) fn start(
    questions: CheckInbox,
    config: &Config,
    control: &Control,
    events: Sender<Event>,
) -> Result<(), StartError> {
    let mailer = control.mailer(config.limits.mesh_backlog);
    let run = move || {
        if catch_unwind(AssertUnwindSafe(|| checker::run(&questions, mailer))).is_err() {
            drop(events.send(Event::CheckerPanicked));
        }
    };
    let builder = thread::Builder::new().name("stentor-checker".into());
    let spawned: io::Result<_> = builder.spawn(run);
    spawned.map(drop).map_err(StartError::Thread)
}
