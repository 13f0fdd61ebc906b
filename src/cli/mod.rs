//! The command line: one file for each subcommand, their words here.

mod bench;
mod check;
mod config;
mod log;
mod logging;
mod open_files;
mod publish;
mod remote;
mod serve;
mod settings;
mod subscribe;

use clap::{Parser, Subcommand};
use settings::Settings;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// A WebSocket messaging server: clients subscribe to channels and publish to them.
#[derive(Parser)]
#[command(
    name = "stentor",
    version,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "\
Try it in three terminals:
  stentor serve
  stentor subscribe news
  stentor publish news '{\"hello\":\"world\"}'

`stentor COMMAND --help` says more about each."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server until SIGTERM or Ctrl-C
    #[command(after_help = serve::HELP)]
    Serve(Settings),
    /// Check a configuration file without running anything
    #[command(after_help = check::HELP)]
    Check {
        /// The TOML file; only what it says counts, not the environment
        file: PathBuf,
    },
    /// Print the configuration that `serve` would use, and where each value comes from
    #[command(after_help = config::help())]
    Config(Settings),
    /// Print the publications of channels, a line for each
    #[command(after_help = subscribe::HELP)]
    Subscribe(subscribe::Options),
    /// Publish to a channel, and wait until the server has accepted it
    #[command(after_help = publish::HELP)]
    Publish(publish::Options),
    /// Look at a durable log while its server does not run
    #[command(after_help = log::HELP)]
    Log {
        #[command(subcommand)]
        command: log::Command,
    },
    /// Put a server under load, and prove what comes back
    #[command(after_help = bench::HELP)]
    Bench(Box<bench::Options>),
}

/// Does what the command line says.
pub fn run() -> anyhow::Result<ExitCode> {
    match Arguments::parse().command {
        Command::Serve(settings) => serve::run(settings),
        Command::Check { file } => check::run(file),
        Command::Config(settings) => config::run(settings),
        Command::Subscribe(options) => subscribe::run(&options),
        Command::Publish(options) => publish::run(&options),
        Command::Log { command } => log::run(&command),
        Command::Bench(options) => bench::run(&options),
    }
}

/// Writes to stdout at once. `false`: whoever read it is gone, which is nobody's fault.
fn print(text: &str) -> io::Result<bool> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_hold_together() {
        Arguments::command().debug_assert();
    }

    /// What a shell would make of a line of the help: one command, without what follows it.
    fn words(line: &str) -> Vec<String> {
        let mut words = vec![String::new()];
        let (mut quoted, mut characters) = (false, line.trim().chars().peekable());
        while let Some(character) = characters.next() {
            match character {
                '\'' => quoted = !quoted,
                '|' | '>' | '&' if !quoted => break,
                // Two spaces separate the example from its explanation.
                ' ' if !quoted && characters.peek() == Some(&' ') => break,
                ' ' if !quoted => words.push(String::new()),
                _ => words.last_mut().expect("it starts with one").push(character),
            }
        }
        words.retain(|word| !word.is_empty());
        words
    }

    #[test]
    fn the_examples_of_the_help_are_understood() {
        let mut command = Arguments::command();
        let mut texts = vec![command.render_long_help().to_string()];
        for subcommand in command.get_subcommands_mut() {
            texts.push(subcommand.render_long_help().to_string());
        }
        let mut examples = 0;
        for line in texts.iter().flat_map(|text| text.lines()) {
            // A variable or a pipe may stand before it. What is in backticks is prose.
            let after = match line.split_once("stentor ") {
                Some((before, after)) if line.starts_with("  ") && !before.contains('`') => after,
                _ => continue,
            };
            let words = words(&format!("stentor {after}"));
            Arguments::try_parse_from(&words).unwrap_or_else(|error| panic!("{line}\n{error}"));
            examples += 1;
        }
        assert!(examples >= 15, "only {examples} examples found");
    }

    #[test]
    fn every_key_is_in_the_help_of_config() {
        let help = config::help();
        for key in crate::config::keys::keys() {
            assert!(help.contains(&format!("\n{} = ", key.name())), "{}", key.path);
        }
    }
}
