//! The threads of the shards.

use std::io;
use std::sync::Arc;
use std::thread;

use core_affinity::CoreId;
use crossbeam_channel::Sender;

use super::error::StartError;
use super::running::Event;
use crate::io::Backend;
use crate::io::descriptors::Tables;
use crate::mesh::{
    self, AdminPort, AdminSender, BridgePort, BridgeSender, CheckPort, CheckSender, Control,
    LogPort, LogSender, Port,
};
use crate::shard::{Settings, Shard};

/// What the threads of all shards start with.
pub(super) struct Threads {
    pub settings: Arc<Settings>,
    pub cores: Vec<CoreId>,
    pub events: Sender<Event>,
    pub admin: Option<AdminSender>,
    pub bridge: Option<BridgeSender>,
    pub checker: Option<CheckSender>,
}

impl Threads {
    /// Starts them, and has them listen to what it returns.
    pub fn start<B: Backend + Send + 'static>(
        self,
        backends: Vec<B>,
        tables: Option<Tables>,
        log: Option<&LogSender>,
    ) -> Result<Control, StartError> {
        let tables = tables.map(Arc::new);
        let wakers = backends.iter().map(Backend::waker).collect();
        let (ports, control) = mesh::connect(wakers, self.settings.config.limits.mesh_backlog);
        let pin = self.settings.config.server.pin && !self.cores.is_empty();
        for (index, (backend, port)) in backends.into_iter().zip(ports).enumerate() {
            let core = pin.then(|| self.cores[index % self.cores.len()]);
            let settings = Arc::clone(&self.settings);
            let events = self.events.clone();
            let shard = port.shard();
            let tables = tables.clone();
            let log = log.map(LogSender::port);
            let admin = self.admin.as_ref().map(AdminSender::port);
            let bridge = self.bridge.as_ref().map(BridgeSender::port);
            let checker = self.checker.as_ref().map(CheckSender::port);
            let run = move || {
                let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    if let Some(tables) = tables {
                        tables.part(shard.index())?;
                    }
                    let ports = (log, admin, bridge, checker);
                    run_shard(backend, port, ports, settings, core)
                }));
                // Nobody listens any more only if the process is ending already.
                drop(events.send(Event::Ended(shard, ended)));
            };
            thread::Builder::new()
                .name(format!("stentor-{}", shard.0))
                .spawn(run)
                .map_err(StartError::Thread)?;
        }
        if let Some(tables) = tables {
            tables.leave();
        }
        Ok(control)
    }
}

/// A shard's ways to the threads beside the shards, as far as these run.
type Ports = (Option<LogPort>, Option<AdminPort>, Option<BridgePort>, Option<CheckPort>);

fn run_shard<B: Backend>(
    backend: B,
    port: Port,
    (log, admin, bridge, checker): Ports,
    settings: Arc<Settings>,
    core: Option<CoreId>,
) -> io::Result<()> {
    if let Some(core) = core
        && !core_affinity::set_for_current(core)
    {
        tracing::warn!(shard = port.shard().0, core = core.id, "cannot pin to core");
    }
    let shard = Shard::new(backend, port, log, settings);
    shard.with_admin(admin).with_bridge(bridge).with_checker(checker).run()
}
