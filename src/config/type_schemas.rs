//! What messages must obey by their type, `[schemas]`.

use std::collections::BTreeMap;

use super::routes::check_type;
use super::values;
use crate::schema::SchemaSource;

/// Types with a schema.
const SCHEMAS_MAX: usize = 1000;

/// `[schemas]`: a schema for each type.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TypeSchemas(BTreeMap<Box<str>, SchemaSource>);

impl TypeSchemas {
    /// What was written for a type.
    ///
    /// # Errors
    ///
    /// Half a sentence: what is wrong with it.
    pub fn set(&mut self, kind: &str, text: &str) -> Result<(), String> {
        check_type(kind)?;
        let source = values::parse_schema(text)?
            .ok_or("expected \"envelope\", or a file such as \"/etc/stentor/order.json\"")?;
        if self.0.len() >= SCHEMAS_MAX && !self.0.contains_key(kind) {
            return Err(format!("there are {SCHEMAS_MAX} schemas already"));
        }
        self.0.insert(kind.into(), source);
        Ok(())
    }

    /// In the order of the types.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &SchemaSource)> {
        self.0.iter().map(|(kind, source)| (&**kind, source))
    }
}
