//! The flags of `serve` and `config`, made from the list of keys.

use crate::config::field::Field;
use crate::config::keys::{Key, keys};
use crate::config::{Assignment, Config, ConfigError, Loaded, Sources};
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, value_parser};
use std::collections::BTreeMap;
use std::env;
use std::path::PathBuf;

/// What the flags say about the configuration.
pub struct Settings {
    file: Option<PathBuf>,
    assignments: Vec<Assignment>,
}

impl Settings {
    /// With the environment of this process.
    pub fn load(self) -> Result<Loaded, ConfigError> {
        let variables = env::vars_os().map(|(name, text)| {
            (name.to_string_lossy().into_owned(), text.to_string_lossy().into_owned())
        });
        self.load_in(variables.collect())
    }

    fn load_in(self, environment: BTreeMap<String, String>) -> Result<Loaded, ConfigError> {
        Sources { file: self.file, environment, flags: self.assignments }.load()
    }
}

impl Args for Settings {
    fn augment_args(command: Command) -> Command {
        let command = command
            .arg(
                Arg::new("config")
                    .long("config")
                    .short('c')
                    .value_name("FILE")
                    .value_parser(value_parser!(PathBuf))
                    .help("TOML file to start from [env: STENTOR_CONFIG] [default: none]"),
            )
            .args(keys().filter_map(|key| Some(argument(key, key.flag?))));
        command.arg(
            Arg::new("set")
                .long("set")
                .value_name("KEY=VALUE")
                .action(ArgAction::Append)
                .value_parser(parse_set)
                .help("Any other key; may be repeated. `stentor config --help` lists them"),
        )
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

fn argument(key: &'static Key, flag: &'static str) -> Arg {
    let default = key.show(&Config::default());
    let default = default.trim_matches('"');
    let default = if default.is_empty() { "none" } else { default };
    let argument = Arg::new(key.path)
        .long(flag)
        .value_name(key.field.value_name())
        .help(format!("{} [default: {default}]", key.help_with_choices()));
    match &key.field {
        // `--pin` is `--pin=true`.
        Field::Switch(_) => argument.num_args(0..=1).default_missing_value("true"),
        _ => argument,
    }
}

fn parse_set(text: &str) -> Result<(String, String), String> {
    let (path, text) = text.split_once('=').ok_or("write --set KEY=VALUE")?;
    Ok((path.trim().to_string(), text.trim().to_string()))
}

impl FromArgMatches for Settings {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut assignments = Vec::new();
        for key in keys() {
            let Some(flag) = key.flag else { continue };
            if let Some(text) = matches.get_one::<String>(key.path) {
                assignments.push(Assignment {
                    flag: format!("--{flag}"),
                    path: key.path.to_string(),
                    text: text.clone(),
                });
            }
        }
        for (path, text) in matches.get_many::<(String, String)>("set").into_iter().flatten() {
            let flag = format!("--set {path}");
            assignments.push(Assignment { flag, path: path.clone(), text: text.clone() });
        }
        Ok(Self { file: matches.get_one("config").cloned(), assignments })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn parse(arguments: &[&str]) -> Result<Settings, clap::Error> {
        let command = Settings::augment_args(Command::new("serve").no_binary_name(true));
        Settings::from_arg_matches(&command.try_get_matches_from(arguments)?)
    }

    fn load(arguments: &[&str]) -> Loaded {
        parse(arguments).unwrap().load_in(BTreeMap::new()).unwrap()
    }

    #[test]
    fn flags_reach_their_keys() {
        let loaded = load(&[
            "--listen",
            ":0",
            "--shards=3",
            "--pin",
            "false",
            "--insecure",
            "--heartbeat",
            "10s",
            "--echo=/echo",
            "--slow-consumer",
            "conflate",
            "--set",
            "limits.max_topics=5000",
            "--set=namespaces.chat.slow_consumer = drop_newest",
        ]);
        let config = loaded.config;
        assert_eq!(config.server.listen.to_string(), "127.0.0.1:0");
        assert_eq!(config.server.shards, Some(3));
        assert!(!config.server.pin && config.server.insecure);
        assert_eq!(config.heartbeat.interval, Duration::from_secs(10));
        assert_eq!(config.diagnostics.echo.as_deref(), Some("/echo"));
        assert_eq!(config.limits.max_topics, 5000);
        assert_eq!(config.namespaces[0].name, "chat");
        assert_eq!(loaded.origins["server.shards"].to_string(), "--shards");
        assert_eq!(loaded.origins["limits.max_topics"].to_string(), "--set limits.max_topics");
    }

    #[test]
    fn every_key_with_a_flag_takes_its_own_default() {
        for key in keys().filter(|key| key.flag.is_some()) {
            let text = key.show(&Config::default());
            let argument = format!("--{}={}", key.flag.unwrap(), text.trim_matches('"'));
            assert_eq!(load(&[&argument]).config, Config::default(), "{argument}");
        }
    }

    #[test]
    fn a_set_without_a_value_is_a_usage_error() {
        let error = parse(&["--set", "limits.max_topics"]).err().unwrap();
        assert!(error.to_string().contains("write --set KEY=VALUE"), "{error}");
    }
}
