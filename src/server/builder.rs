//! A server as a part of another program.

use super::{Server, StartError};
use crate::bridge::{Handler, Handlers};
use crate::config::{Config, Destination};
use std::sync::Arc;

/// Descriptors that a program may have unless it says more: what shells give.
const OPEN_FILES: u64 = 1024;

/// A server before it has its address: its configuration, and functions that messages are routed to.
pub struct Builder {
    config: Config,
    open_files: u64,
    handlers: Handlers,
}

impl Default for Builder {
    fn default() -> Self {
        let (config, handlers) = (Config::default(), Handlers::new());
        Self { config, open_files: OPEN_FILES, handlers }
    }
}

impl Builder {
    /// Default: what an empty configuration means.
    #[must_use]
    pub fn config(self, config: Config) -> Self {
        Self { config, ..self }
    }

    /// The descriptors that the process may have. Default 1,024.
    #[must_use]
    pub fn open_files(self, open_files: u64) -> Self {
        Self { open_files, ..self }
    }

    /// Messages of this type go to `handler`, whatever the configuration says; `default`: those of all
    /// types without a route of their own.
    #[must_use]
    pub fn route(mut self, kind: &str, handler: impl Handler) -> Self {
        self.handlers.insert(kind.into(), Arc::new(handler));
        self
    }

    /// Takes the address.
    pub fn bind(mut self) -> Result<Server, StartError> {
        for kind in self.handlers.keys() {
            let inserted = self.config.routes.insert(kind, Destination::Handler);
            inserted.map_err(|reason| StartError::Route { kind: kind.to_string(), reason })?;
        }
        Server::open(self.config, self.open_files, self.handlers)
    }
}
