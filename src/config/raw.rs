//! What a user wrote, before anybody judged it: entries of a name, a text and a place.
//!
//! The syntax of TOML and the names of environment variables end here; keys, types and bounds are
//! the concern of `load`.

use super::hint;
use super::keys::{self, ENVIRONMENT_PREFIX, NAMESPACES, SECTIONS};
use super::problem::{Origin, Problem};
use std::borrow::Cow;
use std::sync::Arc;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// One assignment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// `limits`, `namespaces.chat`, or whatever was written instead; empty at the top of the file.
    pub section: String,
    pub name: String,
    pub value: Value,
    /// The value as it stands in the file, for messages; a text from elsewhere is quoted.
    pub written: String,
    pub key_at: Origin,
    pub value_at: Origin,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A string, number or boolean; the keys know how to read theirs.
    Text(String),
    /// A section, or something in braces.
    Table,
    /// Anything else, named with its article: `an array`.
    Other(&'static str),
}

/// The variable that stands for `--config`.
pub const CONFIG_VARIABLE: &str = "STENTOR_CONFIG";

/// The variable that stands for `--token` of the commands that are clients.
pub const TOKEN_VARIABLE: &str = "STENTOR_TOKEN";

/// The characters of a value that a message repeats.
const WRITTEN_LENGTH_MAX: usize = 60;

impl Entry {
    /// From a flag or an environment variable, whose text is the value.
    pub fn typed(path: &str, text: &str, origin: Origin) -> Self {
        let (section, name) = path.rsplit_once('.').unwrap_or(("", path));
        Self {
            section: section.to_string(),
            name: name.to_string(),
            value: Value::Text(text.to_string()),
            written: shorten(&format!("\"{}\"", text.escape_debug())),
            key_at: origin.clone(),
            value_at: origin,
        }
    }

    pub fn path(&self) -> String {
        if self.section.is_empty() {
            self.name.clone()
        } else {
            format!("{}.{}", self.section, self.name)
        }
    }
}

/// The entries of a file, or what is wrong with its syntax.
pub fn read_toml(name: &str, text: &str) -> Result<Vec<Entry>, Vec<Problem>> {
    let file = File { name: Arc::from(name), text };
    let (root, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        let problem = |error: toml::de::Error| Problem {
            origin: file.origin(error.span().map_or(0, |span| span.start)),
            text: error.message().trim_end().replace('\n', ", "),
        };
        return Err(errors.into_iter().map(problem).collect());
    }
    let mut entries = Vec::new();
    file.read_table("", root.get_ref(), &mut entries);
    Ok(entries)
}

/// The entries of the variables that are named after a key, and a warning for each that starts like
/// ours but names none. An empty variable counts as not set.
pub fn read_environment<'a>(
    variables: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> (Vec<Entry>, Vec<Problem>) {
    let mut entries = Vec::new();
    let mut warnings = Vec::new();
    let known: Vec<_> = keys::keys().collect();
    let names: Vec<String> = known.iter().map(|key| key.environment_name()).collect();
    for (name, text) in variables {
        let is_elsewhere = name == CONFIG_VARIABLE || name == TOKEN_VARIABLE;
        if !name.starts_with(ENVIRONMENT_PREFIX) || is_elsewhere || text.is_empty() {
            continue;
        }
        let origin = Origin::Environment(name.to_string());
        if let Some(index) = names.iter().position(|known| known == name) {
            entries.push(Entry::typed(known[index].path, text, origin));
        } else if name.starts_with("STENTOR_NAMESPACES_") {
            let text = "ignored: namespaces are set in the file, or with --set";
            warnings.push(Problem { origin, text: text.to_string() });
        } else if name.starts_with("STENTOR_ROUTES_") {
            let text = "ignored: routes are set in the file, or with --set";
            warnings.push(Problem { origin, text: text.to_string() });
        } else if name.starts_with("STENTOR_SCHEMAS_") {
            let text = "ignored: schemas are set in the file, or with --set";
            warnings.push(Problem { origin, text: text.to_string() });
        } else if name.starts_with("STENTOR_GROUPS_") {
            let text = "ignored: groups are set in the file, or with --set";
            warnings.push(Problem { origin, text: text.to_string() });
        } else {
            let hint = hint::for_variable(name);
            let text = format!("ignored: it names no key; {hint}");
            warnings.push(Problem { origin, text });
        }
    }
    (entries, warnings)
}

struct File<'a> {
    name: Arc<str>,
    text: &'a str,
}

impl File<'_> {
    /// Goes down into the tables that are sections; `section` is empty at the top.
    fn read_table(&self, section: &str, table: &DeTable<'_>, entries: &mut Vec<Entry>) {
        for (key, value) in table {
            let entry = self.entry(section, key, value);
            match value.get_ref() {
                DeValue::Table(table) if section.is_empty() && SECTIONS.contains(&&*entry.name) => {
                    self.read_table(&entry.name, table, entries);
                }
                DeValue::Table(table) if section == NAMESPACES => {
                    let namespace = entry.path();
                    entries.push(entry);
                    self.read_table(&namespace, table, entries);
                }
                _ => entries.push(entry),
            }
        }
    }

    fn entry(
        &self,
        section: &str,
        key: &Spanned<Cow<'_, str>>,
        value: &Spanned<DeValue<'_>>,
    ) -> Entry {
        Entry {
            section: section.to_string(),
            name: key.get_ref().to_string(),
            value: match value.get_ref() {
                DeValue::String(text) => Value::Text(text.to_string()),
                DeValue::Integer(number) => Value::Text(
                    i128::from_str_radix(number.as_str(), number.radix())
                        .map_or_else(|_| number.to_string(), |number| number.to_string()),
                ),
                DeValue::Float(number) => Value::Text(number.as_str().to_string()),
                DeValue::Boolean(on) => Value::Text(on.to_string()),
                DeValue::Datetime(_) => Value::Other("a date"),
                DeValue::Array(_) => Value::Other("an array"),
                DeValue::Table(_) => Value::Table,
            },
            written: shorten(&self.text[value.span()]),
            key_at: self.origin(key.span().start),
            value_at: self.origin(value.span().start),
        }
    }

    fn origin(&self, offset: usize) -> Origin {
        let before = &self.text[..self.text.floor_char_boundary(offset)];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Origin::File {
            path: self.name.clone(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }
}

/// The first line of it, and not too much of that.
fn shorten(written: &str) -> String {
    let line = written.lines().next().unwrap_or_default();
    match line.char_indices().nth(WRITTEN_LENGTH_MAX) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_string(),
    }
}
