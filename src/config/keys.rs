//! Every key of the configuration, said once: its name, its flag, its help, and the field it fills.
//!
//! Reading the file, the environment and the flags, `stentor config`, the suggestions for wrong
//! keys and the help texts all go by this list.

mod channels;
mod outside;
mod server;

use super::Config;
use super::field::Field;
use std::ops::RangeInclusive;
use std::time::Duration;

/// The sections of the file, in the order they are printed.
pub const SECTIONS: [&str; 15] = [
    "server",
    "limits",
    "heartbeat",
    "auth",
    GROUPS,
    "sessions",
    "channels",
    NAMESPACES,
    SCHEMAS,
    ROUTES,
    "webhooks",
    "store",
    "admin",
    "diagnostics",
    "log",
];

/// The section of sections: `[namespaces.chat]` has the keys of `[channels]`.
pub const NAMESPACES: &str = "namespaces";

/// The section whose keys are the types of messages, and `default`.
pub const ROUTES: &str = "routes";

/// The section whose keys are the types of messages that obey a schema.
pub const SCHEMAS: &str = "schemas";

/// The section whose keys are the names of groups.
pub const GROUPS: &str = "groups";

/// What the name of every environment variable of ours starts with.
pub const ENVIRONMENT_PREFIX: &str = "STENTOR_";

pub struct Key {
    /// `section.name`
    pub path: &'static str,
    /// The long flag without its dashes. The other keys are reached with `--set`.
    pub flag: Option<&'static str>,
    /// One line for people, without a full stop.
    pub help: &'static str,
    pub field: Field,
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// What a slot number can tell apart.
const CONNECTIONS_MAX: u64 = u32::MAX as u64;
const TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_hours(24);
const RETENTION: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(24 * 365);
const RATE: RangeInclusive<u64> = 0..=1_000_000;
const BACKLOG: RangeInclusive<u64> = MIB..=1024 * GIB;

/// In the order they are printed; the keys of one section stand together.
pub fn keys() -> impl Iterator<Item = &'static Key> {
    server::KEYS.iter().chain(&channels::KEYS).chain(&outside::KEYS)
}

/// The key with this path.
pub fn find(path: &str) -> Option<&'static Key> {
    keys().find(|key| key.path == path)
}

impl Key {
    pub fn section(&self) -> &'static str {
        self.split().0
    }

    pub fn name(&self) -> &'static str {
        self.split().1
    }

    /// `STENTOR_SECTION_KEY`
    pub fn environment_name(&self) -> String {
        format!("{ENVIRONMENT_PREFIX}{}", self.path.replace('.', "_").to_ascii_uppercase())
    }

    /// Puts what was written for this key into its field. The error says what is wrong with it and
    /// what was expected.
    pub fn set(&self, config: &mut Config, text: &str) -> Result<(), String> {
        self.field
            .set(config, text)
            .map_err(|reason| format!("{reason}; expected {}", self.field.expected()))
    }

    /// The value as it is written in the file.
    pub fn show(&self, config: &Config) -> String {
        self.field.show(&mut config.clone())
    }

    /// The help, with the names where there is a choice.
    pub fn help_with_choices(&self) -> String {
        match self.field.choices() {
            [] => self.help.to_string(),
            names => format!("{}: {}", self.help, names.join(", ")),
        }
    }

    fn split(&self) -> (&'static str, &'static str) {
        self.path.split_once('.').expect("every path has a section, see the tests")
    }
}
