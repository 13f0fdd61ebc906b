//! A loaded configuration as a file that would load the same, each line with its origin.

use super::Loaded;
use super::keys::{GROUPS, NAMESPACES, ROUTES, SCHEMAS, SECTIONS, keys};
use super::{ChannelOptions, Config, values};
use std::fmt::Write;

impl Loaded {
    /// Valid TOML with every key; the comment of each line says where its value came from.
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        for section in SECTIONS {
            if section == NAMESPACES {
                for namespace in &self.config.namespaces {
                    let section = format!("{NAMESPACES}.{}", namespace.name);
                    self.write_options(&mut text, &section, &namespace.options);
                }
            } else if section == ROUTES {
                let routes = self.config.routes.iter();
                let routes = routes.map(|(kind, to)| (kind, format!("\"{to}\"")));
                self.write_named(&mut text, ROUTES, routes);
            } else if section == SCHEMAS {
                let schemas = self.config.type_schemas.iter();
                let schemas =
                    schemas.map(|(kind, source)| (kind, values::show_schema(Some(source))));
                self.write_named(&mut text, SCHEMAS, schemas);
            } else if section == GROUPS {
                let groups = self.config.groups.iter();
                let groups = groups.map(|(name, rule)| (&**name, values::quoted(rule.text())));
                self.write_named(&mut text, GROUPS, groups);
            } else {
                self.write_section(&mut text, section, section, &self.config);
            }
        }
        text
    }

    fn write_options(&self, text: &mut String, section: &str, options: &ChannelOptions) {
        let config = Config { channels: options.clone(), ..Config::default() };
        self.write_section(text, section, "channels", &config);
    }

    /// The keys of `key_section`, under the heading `section`.
    fn write_section(&self, text: &mut String, section: &str, key_section: &str, config: &Config) {
        let keys = keys().filter(|key| key.section() == key_section);
        let lines: Vec<_> = keys
            .map(|key| {
                let origin = self.origin(&format!("{section}.{}", key.name()));
                if key.field.hides(&mut config.clone()) {
                    // A comment, so that the file does not set another one in its place.
                    return (format!("# {} is set and not shown", key.name()), origin.brief());
                }
                (format!("{} = {}", key.name(), key.show(config)), origin.brief())
            })
            .collect();
        write_lines(text, section, lines);
    }

    /// A section with names of the user's own, and its values as TOML.
    fn write_named<'a>(
        &self,
        text: &mut String,
        section: &str,
        values: impl Iterator<Item = (&'a str, String)>,
    ) {
        let lines: Vec<_> = values
            .map(|(name, value)| {
                let origin = self.origin(&format!("{section}.{name}"));
                (format!("{} = {value}", values::quoted(name)), origin.brief())
            })
            .collect();
        if !lines.is_empty() {
            write_lines(text, section, lines);
        }
    }
}

fn write_lines(text: &mut String, section: &str, lines: Vec<(String, String)>) {
    let width = lines.iter().map(|(line, _)| line.len()).max().unwrap_or_default();
    let gap = if text.is_empty() { "" } else { "\n" };
    let _ = writeln!(text, "{gap}[{section}]");
    for (line, origin) in lines {
        let _ = writeln!(text, "{line:width$}  # {origin}");
    }
}
