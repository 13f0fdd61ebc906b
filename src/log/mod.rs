//! Durable history: publications on disk, by topic and offset, and the thread that keeps them.
//!
//! `record` and `segment` are the bytes, `disk` the files, `store` what they mean, `thread` the
//! thread. Shards reach it through `mesh` with the messages of `message`, and in no other way.

mod cleaning;
mod disk;
mod files;
mod index;
mod indexing;
mod inspect;
mod locating;
mod reading;
mod record;
mod recovery;
mod retention;
mod segment;
mod store;
mod survey;
mod thread;
mod topics;

#[cfg(test)]
pub(crate) mod sim_disk;
#[cfg(test)]
pub(crate) mod simulated;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::config::{ChannelOptions, Config};
use crate::ids::TopicName;
use crate::mesh::{LogInbox, Mailer};
use crate::metrics::Metrics;
use disk::{Folder, FolderError};
use retention::Retention;
use store::{Store, StoreLimits};
use survey::OpenError;
use thread::Log;

pub use inspect::{Report, TopicReport, inspect};
pub use thread::Clock;

/// The durable log of a server, opened: nobody else has its folder for as long as this lives.
pub struct DurableLog {
    store: Store<Folder>,
    sync: crate::config::SyncMode,
}

/// Why there is no durable log in a folder. Nothing in it was changed.
#[derive(Debug)]
pub struct LogError {
    folder: PathBuf,
    reason: Reason,
}

#[derive(Debug)]
enum Reason {
    Folder(FolderError),
    Open(OpenError),
}

impl DurableLog {
    /// Opens the log in `folder`, or makes one. What an operator should know of it goes to the
    /// server's log. `new_id`: random, tells a new log from every other.
    pub fn open(folder: &Path, config: &Config, new_id: u64) -> Result<Self, LogError> {
        let fail = |reason| LogError { folder: folder.to_path_buf(), reason };
        let disk = Folder::for_writing(folder).map_err(|error| fail(Reason::Folder(error)))?;
        let limits = StoreLimits {
            segment_bytes: config.store.segment_size as u64,
            store_bytes: config.store.max_size,
            topics_max: config.store.max_channels,
            forget_after_ms: config.store.forget_after.as_millis() as u64,
        };
        let options = Options::new(config);
        let retention_of = Box::new(move |topic: &TopicName| options.retention(topic));
        let (store, notes) = Store::open(disk, new_id, limits, retention_of)
            .map_err(|error| fail(Reason::Open(error)))?;
        for note in notes {
            if note.is_harmless() {
                tracing::warn!("the durable log: {note}");
            } else {
                tracing::error!("the durable log: {note}");
            }
        }
        Ok(Self { store, sync: config.store.sync })
    }

    /// Shards that sessions in it may have begun on: those with a lower number.
    pub fn session_shards(&self) -> u16 {
        let shards = self.store.topics.iter().filter_map(|(_, topic)| topic.name.as_sessions());
        shards.map(|shard| shard.0.saturating_add(1)).max().unwrap_or(0)
    }

    /// Does what shards ask until it is told to stop. An error: the last file could not be finished;
    /// what was acknowledged is kept all the same.
    pub fn run(
        self,
        inbox: LogInbox,
        mailer: Mailer,
        metrics: Metrics,
        clock: Clock,
    ) -> io::Result<()> {
        Log::new(self.store, inbox, mailer, metrics, self.sync, clock).run()
    }
}

/// The options of channels, as far as they say what is kept.
struct Options {
    default: Retention,
    /// By the name of the namespace.
    namespaces: Vec<(String, Retention)>,
    /// Of what keeps sessions.
    sessions: Retention,
}

impl Options {
    fn new(config: &Config) -> Self {
        let of = |options: &ChannelOptions| Retention {
            records: options.history_size as u64,
            bytes: options.history_bytes as u64,
            age_ms: options.history_ttl.as_millis() as u64,
        };
        let namespaces = config.namespaces.iter();
        let namespaces = namespaces.map(|each| (each.name.clone(), of(&each.options)));
        let inboxes = config.inboxes().map(|(name, options)| (name, of(&options)));
        // One that stays connected is written again each `ttl`, and may go on for another one.
        let age_ms = (config.sessions.ttl.as_millis() as u64).saturating_mul(2);
        Self {
            default: of(&config.channels),
            namespaces: namespaces.chain(inboxes).collect(),
            sessions: Retention { records: 0, bytes: 0, age_ms },
        }
    }

    fn retention(&self, topic: &TopicName) -> Retention {
        if topic.is_sessions() {
            return self.sessions;
        }
        let named = topic
            .namespace()
            .and_then(|namespace| self.namespaces.iter().find(|(name, _)| name == namespace));
        named.map_or(self.default, |(_, retention)| *retention)
    }
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the durable log in {}: ", self.folder.display())?;
        match &self.reason {
            Reason::Folder(FolderError::Locked) => f.write_str("another process uses it"),
            Reason::Folder(FolderError::Foreign) => f.write_str(
                "the folder has other files, and no log of Stentor; nothing was changed",
            ),
            Reason::Folder(FolderError::Missing(error)) => {
                write!(f, "there is no log in it: {error}")
            }
            Reason::Folder(FolderError::Io(error)) => write!(f, "cannot be had: {error}"),
            Reason::Open(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for LogError {}
