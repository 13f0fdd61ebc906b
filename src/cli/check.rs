//! `stentor check`: whether a file is a configuration.

use super::print;
use crate::config::{ConfigError, Sources};
use std::path::PathBuf;
use std::process::ExitCode;

pub const HELP: &str = "\
Prints `FILE: ok`, or everything that is wrong, each with its line and column, and exits with 1.

Example:
  stentor check stentor.toml && systemctl restart stentor";

pub fn run(file: PathBuf) -> anyhow::Result<ExitCode> {
    let name = file.display().to_string();
    match (Sources { file: Some(file), ..Sources::default() }).load() {
        Ok(loaded) => {
            for warning in &loaded.warnings {
                eprintln!("{}: warning: {}", warning.origin, warning.text);
            }
            print(&format!("{name}: ok\n"))?;
            Ok(ExitCode::SUCCESS)
        }
        Err(ConfigError::Invalid(problems)) => {
            for problem in problems {
                eprintln!("{problem}");
            }
            Ok(ExitCode::FAILURE)
        }
        Err(error @ ConfigError::Unreadable { .. }) => Err(error.into()),
    }
}
