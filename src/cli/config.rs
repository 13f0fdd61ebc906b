//! `stentor config`: the effective configuration, and the list of its keys.

use super::print;
use super::settings::Settings;
use crate::config::Config;
use crate::config::keys::{Key, keys};
use std::fmt::Write;
use std::process::ExitCode;

pub fn run(settings: Settings) -> anyhow::Result<ExitCode> {
    let loaded = settings.load()?;
    for warning in &loaded.warnings {
        eprintln!("warning: {warning}");
    }
    print(&loaded.to_toml())?;
    Ok(ExitCode::SUCCESS)
}

/// The keys with their defaults, for people.
pub fn help() -> String {
    let mut text = String::from(
        "\
The output is a valid configuration file; the comment of each line says where its value comes from.

Examples:
  stentor config
  stentor config --config stentor.toml --shards 2
  stentor config > stentor.toml                        a file to start from

These are the keys of the file and their defaults. The environment variable of limits.max_topics
is STENTOR_LIMITS_MAX_TOPICS, its flag --set limits.max_topics=VALUE; some keys have a flag of their
own, given in brackets. Sizes: 65536, \"64KiB\" (KiB = 1024), \"64KB\" (KB = 1000). Times: \"500ms\",
\"25s\", \"1m30s\", \"2h\".
",
    );
    let defaults = Config::default();
    let mut section = "";
    for key in keys() {
        if key.section() != section {
            section = key.section();
            let note = match section {
                "channels" => "  # and [namespaces.NAME], for the channels NAME:…",
                "webhooks" => {
                    "  # of [routes]: TYPE = \"webhook:https://HOST/PATH\", or default = …"
                }
                _ => "",
            };
            let _ = writeln!(text, "\n[{section}]{note}");
        }
        let _ = writeln!(text, "{} = {}\n    {}", key.name(), key.show(&defaults), describe(key));
    }
    text
}

fn describe(key: &Key) -> String {
    match key.flag {
        Some(flag) => format!("{} [--{flag}]", key.help_with_choices()),
        None => key.help_with_choices(),
    }
}
