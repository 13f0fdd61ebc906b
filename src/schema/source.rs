//! Which schema holds where: as it is written in the configuration, and compiled.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::Schema;

/// Where a schema comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum SchemaSource {
    /// The chat envelope's, which is built in.
    Envelope,
    File(PathBuf),
}

impl SchemaSource {
    /// What stands for [`SchemaSource::Envelope`] in the configuration. A file of that name is `./envelope`.
    pub const ENVELOPE: &str = "envelope";

    /// # Errors
    ///
    /// As [`Schema::read`].
    fn read(&self) -> Result<Schema, String> {
        match self {
            Self::Envelope => Ok(Schema::envelope()),
            Self::File(path) => Schema::read(path),
        }
    }
}

/// The compiled schemas of all channels, and of types of messages.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Schemas {
    /// Of channels in no namespace that is configured.
    shared: Option<Arc<Schema>>,
    /// Of all namespaces that are configured, those without a schema too: they do not share the other.
    namespaces: Vec<(String, Option<Arc<Schema>>)>,
    types: BTreeMap<Box<str>, Arc<Schema>>,
}

impl Schemas {
    /// The schema that what is published to a channel must obey.
    pub fn of_channel(&self, channel: &str) -> Option<&Arc<Schema>> {
        channel
            .split_once(':')
            .and_then(|(wanted, _)| self.namespaces.iter().find(|(name, _)| name == wanted))
            .map_or(&self.shared, |(_, schema)| schema)
            .as_ref()
    }

    /// The schema that messages of a type must obey, wherever they go.
    pub fn of_type(&self, kind: &str) -> Option<&Arc<Schema>> {
        self.types.get(kind)
    }
}

/// Collects the schemas that a configuration names; each source is read and compiled once.
#[derive(Debug, Default)]
pub struct SchemasReader {
    read: BTreeMap<SchemaSource, Option<Arc<Schema>>>,
    schemas: Schemas,
}

impl SchemasReader {
    /// The schema of one namespace, or of channels in none.
    ///
    /// # Errors
    ///
    /// What is wrong with it, the first time that the source is named.
    pub fn add(
        &mut self,
        namespace: Option<&str>,
        source: Option<&SchemaSource>,
    ) -> Result<(), String> {
        let (schema, outcome) = self.read(source);
        match namespace {
            None => self.schemas.shared = schema,
            Some(name) => self.schemas.namespaces.push((name.to_owned(), schema)),
        }
        outcome
    }

    /// The schema of a type of messages.
    ///
    /// # Errors
    ///
    /// As [`SchemasReader::add`].
    pub fn add_type(&mut self, kind: &str, source: &SchemaSource) -> Result<(), String> {
        let (schema, outcome) = self.read(Some(source));
        if let Some(schema) = schema {
            self.schemas.types.insert(kind.into(), schema);
        }
        outcome
    }

    fn read(&mut self, source: Option<&SchemaSource>) -> (Option<Arc<Schema>>, Result<(), String>) {
        let Some(source) = source else { return (None, Ok(())) };
        if let Some(schema) = self.read.get(source) {
            return (schema.clone(), Ok(()));
        }
        let (schema, outcome) = match source.read() {
            Ok(schema) => (Some(Arc::new(schema)), Ok(())),
            Err(reason) => (None, Err(reason)),
        };
        self.read.insert(source.clone(), schema.clone());
        (schema, outcome)
    }

    /// `None`: there is none.
    pub fn finish(self) -> Option<Arc<Schemas>> {
        self.read.values().any(Option::is_some).then(|| Arc::new(self.schemas))
    }
}
