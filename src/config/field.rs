//! What a key holds: the place in [`Config`], how it is written, and its bounds.

use super::{BackendChoice, Config, Level, LogFormat, LogLevel, SlowConsumer, SyncMode, UserRule};
use super::{secret, values};
use crate::schema::SchemaSource;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

/// The place of a value in [`Config`], what may be written there, and its bounds.
pub enum Field {
    Address(fn(&mut Config) -> &mut SocketAddr),
    OptionalAddress(fn(&mut Config) -> &mut Option<SocketAddr>),
    Switch(fn(&mut Config) -> &mut bool),
    Count(fn(&mut Config) -> &mut dyn Number, RangeInclusive<u64>),
    Size(fn(&mut Config) -> &mut dyn Number, RangeInclusive<u64>),
    Time(fn(&mut Config) -> &mut Duration, RangeInclusive<Duration>),
    Path(fn(&mut Config) -> &mut Option<String>),
    /// Of the file system.
    Directory(fn(&mut Config) -> &mut Option<PathBuf>),
    /// Likewise.
    File(fn(&mut Config) -> &mut Option<PathBuf>),
    Sync(fn(&mut Config) -> &mut SyncMode),
    /// A file, or the name of the schema that is built in.
    Schema(fn(&mut Config) -> &mut Option<SchemaSource>),
    /// Of attributes of users.
    Attributes(fn(&mut Config) -> &mut Vec<Box<str>>),
    /// Which users are meant.
    Rule(fn(&mut Config) -> &mut Option<UserRule>),
    Choice(fn(&mut Config) -> &mut dyn Choice),
    /// Never shown, neither here nor in messages.
    Secret(fn(&mut Config) -> &mut Option<secret::Secret>),
}

/// Whole numbers of any width. An `Option` writes its `None` as 0.
pub trait Number {
    fn load(&self) -> u64;
    /// `number` is within the bounds of the key, which fit the type.
    fn store(&mut self, number: u64);
}

/// An enumeration with a name for each variant.
pub trait Choice {
    fn names(&self) -> &'static [&'static str];
    /// The variant's place in `names`.
    fn index(&self) -> usize;
    fn choose(&mut self, index: usize);
}

impl Field {
    /// Puts what was written into its place. The error is half a sentence: what is wrong with it.
    pub fn set(&self, config: &mut Config, text: &str) -> Result<(), String> {
        match self {
            Self::Address(at) => *at(config) = values::parse_address(text)?,
            Self::OptionalAddress(at) => {
                let is_none = text.trim().is_empty();
                *at(config) = if is_none { None } else { Some(values::parse_address(text)?) };
            }
            Self::Switch(at) => {
                *at(config) = match text {
                    "true" | "1" => true,
                    "false" | "0" => false,
                    _ => return Err("neither".to_string()),
                }
            }
            Self::Count(at, range) => {
                let number = text.trim().parse().map_err(|_| "not a whole number".to_string())?;
                at(config).store(within(range, number)?);
            }
            Self::Size(at, range) => at(config).store(within(range, values::parse_size(text)?)?),
            Self::Time(at, range) => *at(config) = within(range, values::parse_duration(text)?)?,
            Self::Path(at) => *at(config) = values::parse_path(text)?,
            Self::Directory(at) | Self::File(at) => *at(config) = values::parse_directory(text)?,
            Self::Sync(at) => *at(config) = values::parse_sync(text)?,
            Self::Schema(at) => *at(config) = values::parse_schema(text)?,
            Self::Attributes(at) => *at(config) = values::parse_attributes(text)?,
            Self::Rule(at) => *at(config) = UserRule::parse(text)?,
            Self::Choice(at) => {
                let choice = at(config);
                let index = choice.names().iter().position(|name| *name == text);
                choice.choose(index.ok_or_else(|| "unknown name".to_string())?);
            }
            Self::Secret(at) => *at(config) = secret::Secret::parse(text)?,
        }
        Ok(())
    }

    /// The value as it is written in the file. The configuration does not change; only the places
    /// are mutable.
    pub fn show(&self, config: &mut Config) -> String {
        match self {
            Self::Address(at) => format!("\"{}\"", at(config)),
            Self::OptionalAddress(at) => {
                let address = at(config).map(|address| address.to_string());
                format!("\"{}\"", address.unwrap_or_default())
            }
            Self::Switch(at) => at(config).to_string(),
            Self::Count(at, _) => at(config).load().to_string(),
            Self::Size(at, _) => {
                let text = values::show_size(at(config).load());
                if text.ends_with('B') { format!("\"{text}\"") } else { text }
            }
            Self::Time(at, _) => format!("\"{}\"", values::show_duration(*at(config))),
            // No path holds a character that TOML would escape.
            Self::Path(at) => format!("\"{}\"", at(config).as_deref().unwrap_or_default()),
            Self::Directory(at) | Self::File(at) => values::show_path(at(config).as_deref()),
            Self::Schema(at) => values::show_schema(at(config).as_ref()),
            Self::Sync(at) => format!("\"{}\"", values::show_sync(*at(config))),
            Self::Attributes(at) => format!("\"{}\"", at(config).join(",")),
            Self::Rule(at) => {
                let text = at(config).as_ref().map(UserRule::text).unwrap_or_default();
                values::quoted(text)
            }
            Self::Choice(at) => {
                let choice = at(config);
                format!("\"{}\"", choice.names()[choice.index()])
            }
            // One that is set has no line in the file, see `to_toml`.
            Self::Secret(_) => "\"\"".to_string(),
        }
    }

    /// What may be written, for error messages and help.
    pub fn expected(&self) -> String {
        match self {
            Self::Address(_) => {
                r#"an address such as "127.0.0.1:8080" or "[::1]:8080", or a port of 127.0.0.1"#
                    .to_string()
            }
            Self::OptionalAddress(_) => {
                r#"an address such as "127.0.0.1:8081", a port of 127.0.0.1, or "" for none"#
                    .to_string()
            }
            Self::Switch(_) => "true or false".to_string(),
            Self::Count(_, range) => {
                format!("a whole number from {} to {}", range.start(), range.end())
            }
            Self::Size(_, range) => format!(
                r#"a size from {} to {}, such as 65536, "64KiB" (1024) or "64KB" (1000)"#,
                values::show_size(*range.start()),
                values::show_size(*range.end())
            ),
            Self::Time(_, range) => format!(
                r#"a duration from {} to {}, such as "500ms", "25s" or "1m30s""#,
                values::show_duration(*range.start()),
                values::show_duration(*range.end())
            ),
            Self::Path(_) => r#"a path such as "/echo", or "" for none"#.to_string(),
            Self::Directory(_) => {
                r#"a folder such as "/var/lib/stentor", or "" for none"#.to_string()
            }
            Self::File(_) => r#"a file such as "/etc/stentor/keys", or "" for none"#.to_string(),
            Self::Schema(_) => {
                r#""envelope", a file such as "/etc/stentor/chat.json", or "" for none"#.to_string()
            }
            Self::Sync(_) => {
                r#""always", "os", or "interval 5ms" with a time from 1ms to 1s"#.to_string()
            }
            Self::Attributes(_) => format!(
                "up to {} names of attributes, such as \"name,plan\", or \"\" for none",
                values::SHOWN_ATTRIBUTES_MAX
            ),
            Self::Rule(_) => {
                "a filter such as \"role == 'moderator'\", or \"\" for nobody".to_string()
            }
            Self::Choice(_) => format!("one of {}", self.choices().join(", ")),
            Self::Secret(_) => {
                let (least, most) = (secret::SECRET_BYTES.start(), secret::SECRET_BYTES.end());
                format!("{least} to {most} visible ASCII characters, or \"\" for none")
            }
        }
    }

    /// The names to choose from; empty for what is not a choice.
    pub fn choices(&self) -> &'static [&'static str] {
        match self {
            Self::Choice(at) => at(&mut Config::default()).names(),
            Self::Address(_)
            | Self::OptionalAddress(_)
            | Self::Secret(_)
            | Self::Switch(_)
            | Self::Count(..)
            | Self::Size(..)
            | Self::Time(..)
            | Self::Directory(_)
            | Self::File(_)
            | Self::Sync(_)
            | Self::Schema(_)
            | Self::Attributes(_)
            | Self::Rule(_)
            | Self::Path(_) => &[],
        }
    }

    /// Whether it has a value that must not be shown.
    pub fn hides(&self, config: &mut Config) -> bool {
        match self {
            Self::Secret(at) => at(config).is_some(),
            _ => false,
        }
    }

    /// The word for a value in a usage line.
    pub fn value_name(&self) -> &'static str {
        match self {
            Self::Address(_) | Self::OptionalAddress(_) => "ADDRESS",
            Self::Secret(_) => "SECRET",
            Self::Switch(_) => "true|false",
            Self::Count(..) => "N",
            Self::Size(..) => "SIZE",
            Self::Time(..) => "TIME",
            Self::Path(_) => "PATH",
            Self::Directory(_) => "FOLDER",
            Self::File(_) => "FILE",
            Self::Sync(_) => "WHEN",
            Self::Schema(_) => "SCHEMA",
            Self::Attributes(_) => "NAME,NAME",
            Self::Rule(_) => "FILTER",
            Self::Choice(_) => "NAME",
        }
    }
}

fn within<T: PartialOrd>(range: &RangeInclusive<T>, value: T) -> Result<T, String> {
    if range.contains(&value) { Ok(value) } else { Err("out of range".to_string()) }
}

impl Number for u32 {
    fn load(&self) -> u64 {
        u64::from(*self)
    }

    fn store(&mut self, number: u64) {
        *self = u32::try_from(number).unwrap_or(u32::MAX);
    }
}

impl Number for usize {
    fn load(&self) -> u64 {
        *self as u64
    }

    fn store(&mut self, number: u64) {
        *self = usize::try_from(number).unwrap_or(usize::MAX);
    }
}

impl Number for u64 {
    fn load(&self) -> u64 {
        *self
    }

    fn store(&mut self, number: u64) {
        *self = number;
    }
}

impl Number for Option<u16> {
    fn load(&self) -> u64 {
        self.map_or(0, u64::from)
    }

    fn store(&mut self, number: u64) {
        *self = (number > 0).then(|| u16::try_from(number).unwrap_or(u16::MAX));
    }
}

impl Number for Option<usize> {
    fn load(&self) -> u64 {
        self.map_or(0, |number| number as u64)
    }

    fn store(&mut self, number: u64) {
        *self = (number > 0).then(|| usize::try_from(number).unwrap_or(usize::MAX));
    }
}

/// Gives an enumeration its names, in one place.
macro_rules! choice {
    ($type:ident { $($variant:ident = $name:literal),* $(,)? }) => {
        impl Choice for $type {
            fn names(&self) -> &'static [&'static str] {
                &[$($name),*]
            }

            fn index(&self) -> usize {
                *self as usize
            }

            fn choose(&mut self, index: usize) {
                *self = [$(Self::$variant),*][index];
            }
        }
    };
}

choice!(SlowConsumer {
    DropOldest = "drop_oldest",
    DropNewest = "drop_newest",
    Conflate = "conflate",
    Disconnect = "disconnect",
});
choice!(Level { Live = "live", History = "history", Durable = "durable", Acked = "acked" });
choice!(LogLevel {
    Error = "error",
    Warn = "warn",
    Info = "info",
    Debug = "debug",
    Trace = "trace",
});
choice!(BackendChoice { Epoll = "epoll", Uring = "uring", Auto = "auto" });
choice!(LogFormat { Auto = "auto", Text = "text", Json = "json" });
