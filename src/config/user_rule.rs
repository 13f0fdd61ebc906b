//! Which users are meant, by what is known of them.

use std::sync::Arc;

use crate::filter::{Attributes, Filter};

/// A filter over the attributes of users, with its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserRule {
    text: Box<str>,
    filter: Arc<Filter>,
}

impl UserRule {
    /// `None` for the empty text.
    ///
    /// # Errors
    ///
    /// Half a sentence: what is wrong with it.
    pub fn parse(text: &str) -> Result<Option<Self>, String> {
        if text.is_empty() {
            return Ok(None);
        }
        if text.contains(char::is_control) {
            return Err("control characters cannot stand in it".to_string());
        }
        let filter = Filter::parse(text).map_err(|error| format!("no filter: {error}"))?;
        Ok(Some(Self { text: text.into(), filter: Arc::new(filter) }))
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether somebody of whom that is known is meant.
    pub fn matches(&self, attributes: &Attributes) -> bool {
        self.filter.matches(attributes)
    }
}
