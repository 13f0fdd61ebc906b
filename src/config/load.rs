//! From what was written to what holds: file, then environment, then flags, each over the one
//! before, and everything that is wrong with any of them at once.

use super::field::Field;
use super::hint;
use super::keys::{self, GROUPS, Key, NAMESPACES, ROUTES, SCHEMAS, SECTIONS};
use super::problem::{ConfigError, Origin, Problem};
use super::raw::{self, Entry, Value};
use super::{ChannelOptions, Config, Keys, Namespace, values};
use crate::schema::SchemasReader;
use std::collections::BTreeMap;
use std::fs;
use std::mem;
use std::path::PathBuf;
use std::sync::Arc;

/// Where a configuration may come from. The default is nowhere, which gives the default values.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The file of `--config`. `None`: the one that `STENTOR_CONFIG` names, if any.
    pub file: Option<PathBuf>,
    /// Variables; those that do not concern us are passed over.
    pub environment: BTreeMap<String, String>,
    /// In the order they apply.
    pub flags: Vec<Assignment>,
}

/// One flag of the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// As it was typed: `--shards`, `--set server.shards`.
    pub flag: String,
    /// `server.shards`
    pub path: String,
    pub text: String,
}

/// A valid configuration, and where each value came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub config: Config,
    /// Of every value that was written somewhere, by path. The others are defaults.
    pub origins: BTreeMap<String, Origin>,
    pub warnings: Vec<Problem>,
}

impl Sources {
    pub fn load(&self) -> Result<Loaded, ConfigError> {
        let mut merge = Merge::default();
        let variable = self.environment.get(raw::CONFIG_VARIABLE).filter(|path| !path.is_empty());
        if let Some(path) = self.file.clone().or(variable.map(PathBuf::from)) {
            let text = fs::read_to_string(&path)
                .map_err(|error| ConfigError::Unreadable { path: path.clone(), error })?;
            match raw::read_toml(&path.display().to_string(), &text) {
                Ok(entries) => merge.apply_all(entries),
                Err(problems) => merge.problems.extend(problems),
            }
        }
        let port = self.environment.get("PORT").filter(|port| !port.is_empty());
        if let Some(port) = port {
            merge.apply_port(port);
        }
        let variables = self.environment.iter().map(|(name, text)| (name.as_str(), text.as_str()));
        let (entries, warnings) = raw::read_environment(variables);
        merge.warnings.extend(warnings);
        let listen = entries.iter().find(|entry| entry.path() == LISTEN).cloned();
        merge.apply_all(entries);
        if let (Some(port), Some(listen)) = (port, listen) {
            merge.compare_port(port, &listen);
        }
        for (index, assignment) in self.flags.iter().enumerate() {
            let Assignment { flag, path, text } = assignment;
            let origin = Origin::Flag(flag.clone());
            // No order among flags is known to whoever types them: `--set` stands for `--shards`.
            let earlier = self.flags[..index].iter().find(|earlier| earlier.path == *path);
            if let Some(Assignment { flag, .. }) = earlier {
                let text = format!("{path} is given twice, the other time by {flag}");
                merge.problems.push(Problem { origin, text });
            } else {
                merge.apply(Entry::typed(path, text, origin));
            }
        }
        merge.finish()
    }
}

impl Loaded {
    /// Where the value at `path` came from; an option that a namespace leaves out, from `[channels]`.
    pub fn origin(&self, path: &str) -> Origin {
        let shared = || {
            let (_, name) = path.strip_prefix("namespaces.")?.rsplit_once('.')?;
            self.origins.get(&format!("channels.{name}"))
        };
        self.origins.get(path).or_else(shared).cloned().unwrap_or_default()
    }
}

/// The key whose port the variable `PORT` changes.
const LISTEN: &str = "server.listen";

/// The longest name of a namespace, in bytes.
const NAMESPACE_NAME_BYTES_MAX: usize = 64;

#[derive(Default)]
struct Merge {
    config: Config,
    origins: BTreeMap<String, Origin>,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
    /// What was written for namespaces. They start from `[channels]`, so they come last.
    deferred: Vec<Entry>,
}

impl Merge {
    fn apply_all(&mut self, entries: Vec<Entry>) {
        entries.into_iter().for_each(|entry| self.apply(entry));
    }

    fn apply(&mut self, entry: Entry) {
        if entry.section == NAMESPACES || entry.section.starts_with("namespaces.") {
            self.deferred.push(entry);
        } else if let Some(kind) = name_within(ROUTES, &entry) {
            let set = |text: &str| self.config.routes.set(&kind, text);
            let result = set_named(&entry, "a type", set);
            self.note(&entry, result);
        } else if let Some(kind) = name_within(SCHEMAS, &entry) {
            let set = |text: &str| self.config.type_schemas.set(&kind, text);
            let result = set_named(&entry, "a type", set);
            self.note(&entry, result);
        } else if let Some(group) = name_within(GROUPS, &entry) {
            let set = |text: &str| self.config.groups.set(&group, text);
            let result = set_named(&entry, "a group", set);
            self.note(&entry, result);
        } else if let Some(key) = keys::find(&entry.path()) {
            let result = set(key, &mut self.config, &entry);
            self.note(&entry, result);
        } else {
            self.refuse_path(&entry, keys::keys().map(|key| key.path.to_string()));
        }
    }

    /// `PORT` changes only the port of what the file or the default says.
    fn apply_port(&mut self, text: &str) {
        let origin = Origin::Environment("PORT".to_string());
        match text.trim().parse() {
            Ok(port) => {
                self.config.server.listen.set_port(port);
                self.origins.insert(LISTEN.to_string(), origin);
            }
            Err(_) => {
                let text = format!("PORT = \"{text}\": expected a port from 0 to 65535");
                self.problems.push(Problem { origin, text });
            }
        }
    }

    /// Both come from the environment, where nobody sees which one holds: the whole address.
    fn compare_port(&mut self, port: &str, listen: &Entry) {
        if port.trim().parse() == Ok(self.config.server.listen.port()) {
            return;
        }
        let origin = Origin::Environment("PORT".to_string());
        let text = format!("ignored: {} gives the whole address", listen.value_at);
        self.warnings.push(Problem { origin, text });
    }

    fn finish(mut self) -> Result<Loaded, ConfigError> {
        let mut namespaces = BTreeMap::new();
        for entry in mem::take(&mut self.deferred) {
            self.apply_to_namespace(&mut namespaces, &entry);
        }
        let namespaces = namespaces.into_iter();
        self.config.namespaces =
            namespaces.map(|(name, options)| Namespace { name, options }).collect();
        self.read_keys();
        self.read_schemas();
        self.check_exposure();
        self.check_admin();
        self.check_groups();
        self.check_sizes();
        self.check_levels();
        if self.problems.is_empty() {
            let Self { config, origins, warnings, .. } = self;
            return Ok(Loaded { config, origins, warnings });
        }
        self.problems.sort_by(|a, b| a.origin.cmp(&b.origin));
        Err(ConfigError::Invalid(self.problems))
    }

    fn apply_to_namespace(
        &mut self,
        namespaces: &mut BTreeMap<String, ChannelOptions>,
        entry: &Entry,
    ) {
        // `[namespaces.chat]` itself is an entry of the section `namespaces`.
        let name = entry.section.strip_prefix("namespaces.").unwrap_or(&entry.name);
        let options = namespaces.entry(name.to_string()).or_insert_with(|| {
            if let Err(reason) = check_namespace_name(name) {
                let text = format!("`{}` cannot name a namespace: {reason}", name.escape_debug());
                self.problems.push(Problem { origin: entry.key_at.clone(), text });
            }
            self.config.channels.clone()
        });
        if entry.section == NAMESPACES {
            if entry.value != Value::Table {
                let text = format!("`{0}` is a section: write [{0}]", entry.path());
                self.problems.push(Problem { origin: entry.key_at.clone(), text });
            }
        } else if let Some(key) = keys::find(&format!("channels.{}", entry.name)) {
            let mut scratch = Config { channels: options.clone(), ..Config::default() };
            let result = set(key, &mut scratch, entry);
            *options = scratch.channels;
            self.note(entry, result);
        } else {
            let channel_keys = keys::keys().filter(|key| key.section() == "channels");
            let paths = channel_keys.map(|key| format!("{}.{}", entry.section, key.name()));
            self.refuse_path(entry, paths);
        }
    }

    fn note(&mut self, entry: &Entry, result: Result<(), String>) {
        match result {
            Ok(()) => {
                self.origins.insert(entry.path(), entry.value_at.clone());
            }
            Err(reason) => {
                let is_secret = keys::find(&entry.path())
                    .is_some_and(|key| matches!(key.field, Field::Secret(_)));
                let written = if is_secret { "(not shown)" } else { &entry.written };
                let text = format!("{} = {written}: {reason}", entry.path());
                self.problems.push(Problem { origin: entry.value_at.clone(), text });
            }
        }
    }

    /// Nothing has the entry's path; `valid` are the paths that it may be a slip for.
    fn refuse_path(&mut self, entry: &Entry, valid: impl Iterator<Item = String>) {
        let path = entry.path();
        let text = if SECTIONS.contains(&path.as_str()) {
            format!("`{path}` is a section: write [{path}]")
        } else if entry.section.is_empty() && entry.value == Value::Table {
            format!("unknown section [{path}]; {}", hint::for_section(&path))
        } else {
            let valid: Vec<String> = valid.collect();
            format!("unknown key `{path}`; {}", hint::for_key(&path, &valid))
        };
        self.problems.push(Problem { origin: entry.key_at.clone(), text });
    }

    /// The server API holds the groups of the keys file too.
    fn check_groups(&mut self) {
        let groups = self.config.auth.keys.groups();
        let (count, users) = (groups.len(), groups.values().map(|users| users.len()).sum());
        let admin = &self.config.admin;
        for (key, there, limit) in [
            ("admin.max_groups", count, admin.max_groups),
            ("admin.max_group_users", users, admin.max_group_users),
        ] {
            if there > limit {
                let text = format!("{key} = {limit}: auth.keys_file and [groups] make {there}");
                let origin = self.origins.get(key).cloned().unwrap_or_default();
                self.problems.push(Problem { origin, text });
            }
        }
    }

    /// The users that can authenticate.
    fn read_keys(&mut self) {
        let auth = &mut self.config.auth;
        if let Some(path) = &auth.keys_file {
            match Keys::read(path) {
                Ok(mut keys) => {
                    for (group, rule) in self.config.groups.iter() {
                        keys.add_group(group, rule);
                    }
                    auth.keys = Arc::new(keys);
                }
                Err(reason) => {
                    let text = format!("auth.keys_file = \"{}\": {reason}", path.display());
                    let origin = self.origins.get("auth.keys_file").cloned().unwrap_or_default();
                    self.problems.push(Problem { origin, text });
                }
            }
        } else if auth.required {
            let text = "auth.required = true: nobody can authenticate: set auth.keys_file";
            let origin = self.origins.get("auth.required").cloned().unwrap_or_default();
            self.problems.push(Problem { origin, text: text.to_string() });
        }
    }

    /// What the data and the messages of clients must obey.
    fn read_schemas(&mut self) {
        let mut reader = SchemasReader::default();
        let shared = (None, &self.config.channels);
        let namespaces = self.config.namespaces.iter();
        let namespaces = namespaces.map(|space| (Some(&*space.name), &space.options));
        for (name, options) in std::iter::once(shared).chain(namespaces) {
            if let Err(reason) = reader.add(name, options.schema.as_ref()) {
                let path = name.map_or("channels.schema".to_string(), |name| {
                    format!("namespaces.{name}.schema")
                });
                let origin = self.origins.get(&path).cloned().unwrap_or_default();
                let scratch = Config { channels: options.clone(), ..Config::default() };
                let written = keys::find("channels.schema").map(|key| key.show(&scratch));
                let text = format!("{path} = {}: {reason}", written.unwrap_or_default());
                self.problems.push(Problem { origin, text });
            }
        }
        for (kind, source) in self.config.type_schemas.iter() {
            if let Err(reason) = reader.add_type(kind, source) {
                let path = format!("{SCHEMAS}.{kind}");
                let origin = self.origins.get(&path).cloned().unwrap_or_default();
                let text = format!("{path} = {}: {reason}", values::show_schema(Some(source)));
                self.problems.push(Problem { origin, text });
            }
        }
        self.config.schemas = reader.finish();
    }

    /// Nothing in this build encrypts, so what goes to a public address, tokens too, can be read on its
    /// way: it has to be asked for twice, with authentication or without.
    fn check_exposure(&mut self) {
        let listen = self.config.server.listen;
        if listen.ip().to_canonical().is_loopback() || self.config.server.insecure {
            return;
        }
        let danger = if self.config.auth.required {
            "nothing is encrypted, so everybody on the way could read the tokens of clients and use them"
        } else {
            "nothing authenticates clients, so everybody who reaches it could read and publish on every \
             channel"
        };
        let text = format!(
            "server.listen = \"{listen}\": refused: the address is not loopback and {danger}. Listen \
             on loopback behind a proxy with TLS (127.0.0.1:{port}), or accept the risk with \
             --insecure or server.insecure = true",
            port = listen.port(),
        );
        let origin = self.origins.get(LISTEN).cloned().unwrap_or_default();
        self.problems.push(Problem { origin, text });
    }

    /// Whoever reaches the server API can do everything, so off loopback it needs a key.
    fn check_admin(&mut self) {
        let Some(listen) = self.config.admin.listen else { return };
        if listen.ip().to_canonical().is_loopback() || self.config.admin.key.is_some() {
            return;
        }
        let text = format!(
            "admin.listen = \"{listen}\": refused: the address is not loopback and there is no \
             admin.key, so everybody who reaches it could publish, disconnect and read. Set \
             admin.key or STENTOR_ADMIN_KEY ({})",
            Field::Secret(|config| &mut config.admin.key).expected(),
        );
        let origin = self.origins.get("admin.listen").cloned().unwrap_or_default();
        self.problems.push(Problem { origin, text });
    }

    fn check_sizes(&mut self) {
        let limits = &self.config.limits;
        if limits.send_queue_size < limits.max_message_size {
            let text = format!(
                "limits.send_queue_size = {}: smaller than limits.max_message_size ({}), so the \
                 largest messages reach a blocked reader only when nothing else waits for it",
                values::show_size(limits.send_queue_size as u64),
                values::show_size(limits.max_message_size as u64),
            );
            let origin = self.origins.get("limits.send_queue_size").cloned().unwrap_or_default();
            self.warnings.push(Problem { origin, text });
        }
    }

    /// Levels that need something else, and options of a channel that mean nothing at its level.
    fn check_levels(&mut self) {
        if self.config.sessions.durable && self.config.store.directory.is_none() {
            let text = "sessions.durable = true: needs a folder for the durable log: set \
                        store.directory or --store FOLDER"
                .to_string();
            let origin = self.origins.get("sessions.durable").cloned().unwrap_or_default();
            self.problems.push(Problem { origin, text });
        }
        let shared = ("channels".to_string(), &self.config.channels);
        let namespaces = self.config.namespaces.iter();
        let namespaces =
            namespaces.map(|space| (format!("namespaces.{}", space.name), &space.options));
        for (section, options) in std::iter::once(shared).chain(namespaces) {
            if options.is_durable() && self.config.store.directory.is_none() {
                let level = self.origins.get(&format!("{section}.level"));
                let shared = || self.origins.get("channels.level");
                let name = if options.is_acked() { "acked" } else { "durable" };
                let text = format!(
                    "{section}.level = \"{name}\": needs a folder for the durable log: set \
                     store.directory or --store FOLDER"
                );
                let origin = level.or_else(shared).cloned().unwrap_or_default();
                self.problems.push(Problem { origin, text });
            }
            if options.offline_queue && self.config.store.directory.is_none() {
                let own = self.origins.get(&format!("{section}.offline_queue"));
                let shared = || self.origins.get("channels.offline_queue");
                let text = format!(
                    "{section}.offline_queue = true: needs a folder for the durable log: set \
                     store.directory or --store FOLDER"
                );
                let origin = own.or_else(shared).cloned().unwrap_or_default();
                self.problems.push(Problem { origin, text });
            }
            let origin = self.origins.get(&format!("{section}.last"));
            if let Some(origin) = origin
                && options.last
                && !options.has_history()
            {
                let text = format!(
                    "{section}.last = true: has no effect: level \"live\" keeps nothing; it needs \
                     {section}.level = \"history\""
                );
                self.warnings.push(Problem { origin: origin.clone(), text });
            }
        }
    }
}

/// The name that an entry is for, of a section with names of the user's own: all that stands behind it.
fn name_within(section: &str, entry: &Entry) -> Option<String> {
    entry.path().strip_prefix(section)?.strip_prefix('.').map(ToOwned::to_owned)
}

fn set_named(
    entry: &Entry,
    what: &str,
    set: impl FnOnce(&str) -> Result<(), String>,
) -> Result<(), String> {
    match &entry.value {
        Value::Text(text) => set(text),
        Value::Table => Err(format!("a table; {what} with a `.` is written in quotes")),
        Value::Other(what) => Err(format!("{what}; expected a text")),
    }
}

fn set(key: &Key, config: &mut Config, entry: &Entry) -> Result<(), String> {
    match &entry.value {
        Value::Text(text) => key.set(config, text),
        Value::Table => Err(format!("a table; expected {}", key.field.expected())),
        Value::Other(kind) => Err(format!("{kind}; expected {}", key.field.expected())),
    }
}

fn check_namespace_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("it is empty".to_string());
    }
    if name.len() > NAMESPACE_NAME_BYTES_MAX {
        return Err(format!("{} bytes exceed {NAMESPACE_NAME_BYTES_MAX}", name.len()));
    }
    match name.chars().find(|c| !c.is_ascii_alphanumeric() && !"_-".contains(*c)) {
        Some(bad) => Err(format!("`{}` is not one of A-Z a-z 0-9 _ -", bad.escape_debug())),
        None => Ok(()),
    }
}
