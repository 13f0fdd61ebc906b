//! Groups by what is known of users, `[groups]`.

use std::collections::BTreeMap;

use super::UserRule;
use crate::ids::{GROUP_NAME_BYTES_MAX, GroupName};

/// Groups of one file.
const GROUPS_MAX: usize = 1000;

/// `[groups]`: a filter over the attributes of the keys file for each group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupRules(BTreeMap<GroupName, UserRule>);

impl GroupRules {
    /// What was written for a group.
    ///
    /// # Errors
    ///
    /// Half a sentence: what is wrong with it.
    pub fn set(&mut self, name: &str, filter: &str) -> Result<(), String> {
        let name = GroupName::parse(name).ok_or_else(|| {
            format!("a group has 1 to {GROUP_NAME_BYTES_MAX} bytes, none of them control")
        })?;
        let rule = UserRule::parse(filter)?.ok_or("it is empty")?;
        if self.0.len() >= GROUPS_MAX && !self.0.contains_key(&name) {
            return Err(format!("there are {GROUPS_MAX} groups already"));
        }
        self.0.insert(name, rule);
        Ok(())
    }

    /// In the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&GroupName, &UserRule)> {
        self.0.iter()
    }
}
