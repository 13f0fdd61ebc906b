//! The namespaces of channels: what holds in each, and what has happened there.

use std::sync::Arc;

use crate::config::{ChannelOptions, Config};
use crate::ids::INBOX_MARK;

/// What has happened in one namespace, on one shard.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NamespaceCount {
    /// That have their place in a topic's order; at their home.
    pub publications: u64,
    /// To connections here.
    pub deliveries: u64,
}

/// The place of a namespace among the counts: 0 is that of channels without one, the others follow in the order
/// of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space(u16);

#[derive(Debug)]
pub struct Namespaces {
    /// Of channels without a namespace, or with one that is not configured.
    shared: Arc<ChannelOptions>,
    /// With the part of a name before its `:`. Those of inboxes are behind the configured ones.
    named: Vec<(Box<str>, Arc<ChannelOptions>, Space)>,
    /// The namespaces under which users may be sent messages; an inbox each.
    inboxes: Vec<Box<str>>,
    counts: Vec<NamespaceCount>,
    is_changed: bool,
}

impl Namespaces {
    pub fn new(config: &Config) -> Self {
        // The log keeps what the options say, and memory the newest of it.
        let cached = |options: &ChannelOptions| {
            let mut options = options.clone();
            if options.is_durable() {
                options.history_bytes = options.history_bytes.min(config.store.cache_size);
            }
            Arc::new(options)
        };
        let spaces = config.namespaces.iter().zip(1..);
        let mut named: Vec<_> = spaces
            .map(|(space, number)| (Box::from(&*space.name), cached(&space.options), Space(number)))
            .collect();
        let mut inboxes = Vec::new();
        // An inbox is served from memory alone.
        for (name, options) in config.inboxes() {
            let of: Box<str> = name.trim_start_matches(INBOX_MARK).into();
            let space = named.iter().find(|(name, ..)| *name == of).map_or(Space(0), |it| it.2);
            named.push((name.into(), Arc::new(options), space));
            inboxes.push(of);
        }
        let counts = vec![NamespaceCount::default(); config.namespaces.len() + 1];
        let shared = cached(&config.channels);
        Self { shared, named, inboxes, counts, is_changed: false }
    }

    /// What holds for a topic of this name, and where it is counted.
    pub fn of(&self, topic: &str) -> (&Arc<ChannelOptions>, Space) {
        let named = self.find(topic);
        named.map_or((&self.shared, Space(0)), |(_, options, space)| (options, *space))
    }

    /// The namespace whose inboxes take what is sent to users under this channel.
    pub fn inbox_of(&self, channel: &str) -> Option<&str> {
        let (name, options) =
            self.find(channel).map_or(("", &self.shared), |(name, options, _)| (name, options));
        options.is_direct().then_some(name)
    }

    pub fn inboxes(&self) -> &[Box<str>] {
        &self.inboxes
    }

    /// Whether any topic can have a history.
    pub fn keep_histories(&self) -> bool {
        self.shared.has_history() || self.named.iter().any(|(_, options, _)| options.has_history())
    }

    pub fn note_publication(&mut self, space: Space) {
        self.counts[usize::from(space.0)].publications += 1;
        self.is_changed = true;
    }

    pub fn note_deliveries(&mut self, space: Space, count: usize) {
        self.counts[usize::from(space.0)].deliveries += count as u64;
        self.is_changed = true;
    }

    /// All of them, if there is news since the last call.
    pub fn take_counts(&mut self) -> Option<&[NamespaceCount]> {
        std::mem::take(&mut self.is_changed).then_some(&*self.counts)
    }

    fn find(&self, topic: &str) -> Option<&(Box<str>, Arc<ChannelOptions>, Space)> {
        let (wanted, _) = topic.split_once(':')?;
        self.named.iter().find(|(name, ..)| **name == *wanted)
    }
}
