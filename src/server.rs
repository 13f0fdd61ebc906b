//! The server as a whole: wires the parts, starts one thread per shard, turns signals into an ordered
//! shutdown.

mod backends;
mod builder;
mod checking;
mod error;
#[cfg(test)]
mod lives;
mod running;
mod threads;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use core_affinity::CoreId;
use crossbeam_channel::{Receiver, Sender, unbounded};
use foldhash::SharedSeed;
use foldhash::quality::SeedableRandomState;
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;
use tokio::sync::watch;

use crate::admin::{Sidecar, Stage, Surroundings};
use crate::bridge::{self, Bridge, Handlers};
use crate::broker::home_of;
use crate::config::Config;
use crate::ids::ShardId;
use crate::io::descriptors::Tables;
use crate::io::epoll::Epoll;
use crate::io::listener;
use crate::log::{Clock, DurableLog};
use crate::mesh::{self, AdminInbox, BridgeInbox, BridgeSender, Control, LogInbox, RoomSize};
use crate::metrics::Metrics;
use crate::shard::Settings;
use backends::{Backends, Capacity};
pub use builder::Builder;
pub use error::{RunError, StartError};
use running::{Event, Running};
use threads::Threads;

/// Its share of the descriptors is at most one in so many.
const OPEN_FILES_FOR_ADMIN: u64 = 8;

/// Descriptors of the bridge beside one for each target: for names, and while one is replaced.
const OPEN_FILES_FOR_BRIDGE: u64 = 8;

/// A server that has its address and accepts connections as soon as it runs.
pub struct Server {
    settings: Arc<Settings>,
    address: SocketAddr,
    shards: usize,
    backends: Backends,
    cores: Vec<CoreId>,
    /// Caught from `bind` on, so that none ends the process after it said where it listens.
    signals: Signals,
    log: Option<DurableLog>,
    admin: Option<Sidecar>,
    bridge: Option<Bridge>,
    events: (Sender<Event>, Receiver<Event>),
    /// When the clock of all threads started.
    started: Instant,
}

/// Ends a server from another thread.
#[derive(Clone)]
pub struct Stopper(Sender<Event>);

impl Stopper {
    /// As SIGTERM does.
    pub fn stop(&self) {
        // Nobody listens any more only if it has ended.
        drop(self.0.send(Event::Signal(SIGTERM)));
    }
}

impl Server {
    /// Takes the address. `open_files`: the descriptors this process may have.
    pub fn bind(config: Config, open_files: u64) -> Result<Self, StartError> {
        Self::open(config, open_files, Handlers::new())
    }

    /// For a program that the server is a part of.
    pub fn builder() -> Builder {
        Builder::default()
    }

    fn open(config: Config, open_files: u64, handlers: Handlers) -> Result<Self, StartError> {
        getrandom::fill(&mut [0; 16]).map_err(StartError::Randomness)?;
        let signals = Signals::new([SIGINT, SIGTERM, SIGUSR1]).map_err(StartError::Signals)?;
        let cores = core_affinity::get_core_ids().unwrap_or_default();
        let shards = config.server.shards.map_or(cores.len().max(1), usize::from);
        // The server API answers when clients have taken all that is theirs.
        let kept = config.admin.listen.map_or(0, |_| config.admin.max_connections as u64);
        let kept = kept.min(open_files / OPEN_FILES_FOR_ADMIN);
        let bridge = Bridge::prepare(&config, &handlers).map_err(StartError::Bridge)?;
        let targets = bridge.as_ref().map(|bridge| bridge.targets() as u64);
        let bridged = targets.map_or(0, |targets| targets + OPEN_FILES_FOR_BRIDGE);
        let capacity = Capacity::new(open_files.saturating_sub(kept + bridged), shards);
        let affordable = backends::affordable(&config, capacity);
        let connections_max = config.limits.max_connections.unwrap_or(affordable).min(affordable);
        // Before the address: a server that cannot keep what it is sent does not listen.
        let log = match &config.store.directory {
            Some(folder) => {
                Some(DurableLog::open(folder, &config, random_u64()).map_err(StartError::Log)?)
            }
            None => None,
        };
        let listen = config.server.listen;
        let listeners = listener::bind(listen, shards)
            .map_err(|error| StartError::Listen { address: listen, error })?;
        let address = listeners
            .first()
            .map_or(Ok(listen), |listener| listener.local_addr())
            .map_err(|error| StartError::Listen { address: listen, error })?;
        let bind_admin =
            |address| Sidecar::bind(address).map_err(|error| StartError::Admin { address, error });
        let admin = config.admin.listen.map(bind_admin).transpose()?;
        let clock = Instant::now();
        let backends =
            Backends::new(&config, listeners, clock, capacity).map_err(StartError::Backend)?;
        let unix_start = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let namespaces = config.namespaces.iter().map(|namespace| &*namespace.name);
        let metrics = Metrics::with_namespaces(shards, namespaces);
        let settings = Arc::new(Settings {
            config,
            metrics,
            connections_max,
            unix_start: unix_start.as_millis() as u64,
            hasher: SeedableRandomState::with_seed(random_u64(), SharedSeed::global_random()),
            session_shards: log.as_ref().map_or(0, DurableLog::session_shards),
            identity: || u128::from(random_u64()) << 64 | u128::from(random_u64()),
        });
        Ok(Self {
            settings,
            address,
            shards,
            backends,
            cores,
            signals,
            log,
            admin,
            bridge,
            events: unbounded(),
            started: clock,
        })
    }

    /// The address in use; tells the port where 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address of the server API, if there is one.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(Sidecar::address)
    }

    pub fn shards(&self) -> usize {
        self.shards
    }

    /// The cores that shards are pinned to; empty if they are not.
    pub fn cores(&self) -> &[CoreId] {
        if self.settings.config.server.pin { &self.cores } else { &[] }
    }

    pub fn backend(&self) -> &'static str {
        self.backends.name()
    }

    pub fn connections_max(&self) -> usize {
        self.settings.connections_max
    }

    /// What ends it while it runs.
    pub fn stopper(&self) -> Stopper {
        Stopper(self.events.0.clone())
    }

    /// Serves until SIGTERM or SIGINT, then closes every connection and returns. A second signal ends
    /// the process at once; SIGUSR1 writes the counters to the log.
    pub fn run(self) -> Result<(), RunError> {
        let (sender, events) = self.events.clone();
        let settings = Arc::clone(&self.settings);
        let running = self.start_threads(sender).map_err(RunError::Start)?;
        let outcome = running.supervise(&settings, &events);
        running::log_counters(&settings.metrics, "stopped");
        outcome
    }

    fn start_threads(self, events: Sender<Event>) -> Result<Running, StartError> {
        running::watch_signals(self.signals, events.clone())?;
        let settings = Arc::clone(&self.settings);
        let shards = (0..self.shards as u16).map(ShardId).collect();
        let (sender, inbox) = mesh::connect_log();
        let log = self.log.is_some().then_some(&sender);
        let answers = match &self.admin {
            Some(_) => Some(mesh::connect_sidecar().map_err(StartError::Thread)?),
            None => None,
        };
        let routed = match &self.bridge {
            Some(bridge) => {
                Some(connect_bridge(bridge, &settings.config).map_err(StartError::Thread)?)
            }
            None => None,
        };
        let (checker, questions) = checking::connect(&settings.config).unzip();
        let threads = Threads {
            settings: self.settings,
            cores: self.cores,
            events: events.clone(),
            admin: answers.as_ref().map(|(sender, _)| sender.clone()),
            bridge: routed.as_ref().map(|(sender, _)| sender.clone()),
            checker,
        };
        let control = match self.backends {
            Backends::Epoll(backends) => {
                let owned = || backends.iter().map(Epoll::descriptors).collect();
                let unshares = threads.settings.config.server.unshare_descriptors;
                let tables = unshares.then(|| Tables::new(owned()));
                threads.start(backends, tables, log)
            }
            #[cfg(feature = "uring")]
            Backends::Uring(backends) => threads.start(backends, None, log),
        }?;
        let clock = Clock { started: self.started, unix_start: settings.unix_start };
        if let Some(questions) = questions {
            checking::start(questions, &settings.config, &control, events.clone())?;
        }
        let log = match self.log {
            Some(log) => {
                start_log(log, inbox, &settings, &control, clock, events.clone())?;
                Some(sender)
            }
            None => None,
        };
        let admin = match self.admin.zip(answers) {
            Some((sidecar, (_, inbox))) => {
                Some(start_admin(sidecar, inbox, &settings, &control, clock, events.clone())?)
            }
            None => None,
        };
        let bridge = match self.bridge.zip(routed) {
            Some((bridge, (_, inbox))) => {
                Some(start_bridge(bridge, inbox, &settings, &control, events)?)
            }
            None => None,
        };
        Ok(Running::new(control, shards, (log, admin, bridge)))
    }
}

/// Starts the thread of the durable log.
fn start_log(
    log: DurableLog,
    inbox: LogInbox,
    settings: &Settings,
    control: &Control,
    clock: Clock,
    events: Sender<Event>,
) -> Result<(), StartError> {
    let mailer = control.mailer(settings.config.limits.mesh_backlog);
    let metrics = settings.metrics.clone();
    let run = move || {
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            log.run(inbox, mailer, metrics, clock)
        }));
        drop(events.send(Event::LogEnded(ended)));
    };
    let builder = thread::Builder::new().name("stentor-log".into());
    builder.spawn(run).map(drop).map_err(StartError::Thread)
}

/// Starts the thread of the server API. It is told there where the server stands.
fn start_admin(
    sidecar: Sidecar,
    inbox: AdminInbox,
    settings: &Arc<Settings>,
    control: &Control,
    clock: Clock,
    events: Sender<Event>,
) -> Result<watch::Sender<Stage>, StartError> {
    let (sender, stage) = watch::channel(Stage::Serving);
    let shared = Arc::clone(settings);
    let surroundings = Surroundings {
        config: settings.config.clone(),
        metrics: settings.metrics.clone(),
        mailer: control.mailer(settings.config.limits.mesh_backlog),
        inbox,
        home: Box::new(move |name| {
            home_of(&shared.hasher, shared.metrics.shards().len() as u16, name)
        }),
        started: clock.started,
        unix_start: clock.unix_start,
        stage,
    };
    let run = move || {
        let ended =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| sidecar.run(surroundings)));
        drop(events.send(Event::AdminEnded(ended)));
    };
    let builder = thread::Builder::new().name("stentor-admin".into());
    builder.spawn(run).map_err(StartError::Thread)?;
    Ok(sender)
}

/// The way to the bridge.
fn connect_bridge(bridge: &Bridge, config: &Config) -> io::Result<(BridgeSender, BridgeInbox)> {
    // As much as may wait for a shard.
    let size = RoomSize { messages: config.webhooks.queue_size, bytes: config.limits.mesh_backlog };
    mesh::connect_bridge(bridge.targets(), size)
}

/// Starts the thread of the bridge. It is told there when the shards have ended.
fn start_bridge(
    bridge: Bridge,
    inbox: BridgeInbox,
    settings: &Settings,
    control: &Control,
    events: Sender<Event>,
) -> Result<watch::Sender<bridge::Stage>, StartError> {
    let (sender, stage) = watch::channel(bridge::Stage::Serving);
    let surroundings = bridge::Surroundings {
        config: settings.config.clone(),
        metrics: settings.metrics.clone(),
        mailer: control.mailer(settings.config.limits.mesh_backlog),
        inbox,
        stage,
    };
    let run = move || {
        let ended =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| bridge.run(surroundings)));
        drop(events.send(Event::BridgeEnded(ended)));
    };
    let builder = thread::Builder::new().name("stentor-bridge".into());
    builder.spawn(run).map_err(StartError::Thread)?;
    Ok(sender)
}

fn random_u64() -> u64 {
    // `bind` has tried it; a kernel that has given randomness once goes on doing so.
    getrandom::u64().expect("the kernel gave randomness at start")
}
