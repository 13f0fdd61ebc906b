//! What is wrong with a configuration, and where it was said: values with a text for people.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Where a value came from, in order of precedence. Displayed with its column where it has one.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    #[default]
    Default,
    /// Line and column count from 1; the column in characters.
    File { path: Arc<str>, line: usize, column: usize },
    /// The variable's name.
    Environment(String),
    /// As it is typed: `--listen`, or `--set limits.max_topics`.
    Flag(String),
}

impl Origin {
    /// Without the column: `stentor.toml:4`. One line, whatever the file's name holds.
    pub fn brief(&self) -> String {
        let text = match self {
            Self::File { path, line, .. } => format!("{path}:{line}"),
            Self::Default | Self::Environment(_) | Self::Flag(_) => self.to_string(),
        };
        text.replace(char::is_control, "?")
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line, column } => write!(f, "{path}:{line}:{column}"),
            Self::Environment(name) => write!(f, "env {name}"),
            Self::Flag(flag) => f.write_str(flag),
        }
    }
}

/// One thing to correct, or to be warned of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub origin: Origin,
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.text)
    }
}

/// Why there is no valid configuration.
#[derive(Debug)]
pub enum ConfigError {
    Unreadable {
        path: PathBuf,
        error: io::Error,
    },
    /// At least one, in the order of their origins.
    Invalid(Vec<Problem>),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { path, error } => {
                write!(f, "cannot read the configuration file {}: {error}", path.display())
            }
            Self::Invalid(problems) => {
                if let [problem] = problems.as_slice() {
                    return problem.fmt(f);
                }
                write!(f, "the configuration has {} problems:", problems.len())?;
                problems.iter().try_for_each(|problem| write!(f, "\n{problem}"))
            }
        }
    }
}

// The text holds the cause already.
impl Error for ConfigError {}
