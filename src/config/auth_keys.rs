//! The static keys of users: which token stands for whom, who is in which group, and what else is known of
//! whom. Tokens are secrets: nothing here shows one.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::fs;
use std::hash::BuildHasher;
use std::path::Path;
use std::sync::Arc;

use subtle::ConstantTimeEq;

use super::UserRule;
use crate::filter::{Attributes, Interner};
use crate::ids::{GROUP_NAME_BYTES_MAX, GroupName, USER_NAME_BYTES_MAX, UserName};

/// Shortest token, in bytes: 128 bits as 22 characters of base64 are well above, a password is below.
pub const TOKEN_BYTES_MIN: usize = 16;

/// Longest token, in bytes.
pub const TOKEN_BYTES_MAX: usize = 1024;

/// Keys of one file, in lines.
const KEYS_MAX: usize = 1_000_000;

struct Key {
    /// Of the token, seeded at random: nobody outside can choose tokens by it.
    hash: u64,
    token: Box<[u8]>,
    user: UserName,
}

/// What a word behind the token begins with that names groups, and one that gives attributes.
const GROUPS: &str = "groups=";
const ATTRIBUTES: &str = "attributes=";

/// The users of each group; none only of one by a rule.
pub type StaticGroups = BTreeMap<GroupName, BTreeSet<UserName>>;

/// Who stands behind which token.
#[derive(Default)]
pub struct Keys {
    hasher: RandomState,
    /// In the order of their hashes.
    keys: Vec<Key>,
    groups: StaticGroups,
    /// Of those who have some. Who has the same mostly shares them.
    attributes: HashMap<UserName, Arc<Attributes>>,
    /// Of everybody else.
    none: Arc<Attributes>,
}

impl Keys {
    /// Reads a file with a line `USER TOKEN` for each key, with `groups=GROUP,GROUP` and
    /// `attributes=NAME=VALUE,NAME=VALUE` behind it or not (see [`Attributes::parse`]). The token is the last
    /// word of its line but for those; a user may have several lines, is in the groups of all of them and has
    /// the attributes of all of them; empty ones and those that begin with `#` are passed over.
    ///
    /// # Errors
    ///
    /// What is wrong with it, with the number of the line, and never with the token.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
        Self::parse(&text)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut keys = Self::default();
        let mut sets = AttributeSets::default();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if keys.keys.len() == KEYS_MAX {
                return Err(format!("more than {KEYS_MAX} keys"));
            }
            let read = parse_line(line).and_then(|line| keys.add(line, &mut sets));
            read.map_err(|reason| format!("line {}: {reason}", index + 1))?;
        }
        if keys.is_empty() {
            return Err("it has no keys".to_string());
        }
        keys.keys.sort_by(|a, b| (a.hash, &a.token).cmp(&(b.hash, &b.token)));
        if keys.keys.windows(2).any(|pair| pair[0].token == pair[1].token) {
            return Err("two keys have the same token".to_string());
        }
        Ok(keys)
    }

    fn add<'a>(&mut self, line: Line<'a>, sets: &mut AttributeSets<'a>) -> Result<(), String> {
        let Line { user, token, groups, attributes } = line;
        for group in groups {
            self.groups.entry(group).or_default().insert(user.clone());
        }
        if let Some(text) = attributes {
            let own = sets.find(text)?;
            let all = match self.attributes.get(&user) {
                Some(known) => Arc::new(known.merged(&own)?),
                None => own,
            };
            self.attributes.insert(user.clone(), all);
        }
        let hash = self.hasher.hash_one(token);
        self.keys.push(Key { hash, token: token.into(), user });
        Ok(())
    }

    /// Puts everybody who is meant into a group.
    pub fn add_group(&mut self, name: &GroupName, rule: &UserRule) {
        let users = self.keys.iter().map(|key| &key.user);
        let users: BTreeSet<_> =
            users.filter(|user| rule.matches(self.attributes_of(user))).cloned().collect();
        self.groups.entry(name.clone()).or_default().extend(users);
    }

    /// What is known of a user, who may be unknown.
    pub fn attributes_of(&self, user: &UserName) -> &Arc<Attributes> {
        self.attributes.get(user).unwrap_or(&self.none)
    }

    pub fn groups(&self) -> &StaticGroups {
        &self.groups
    }

    /// The user of a token. How long it takes tells nothing about the tokens that there are: they are
    /// found by a seeded hash, and compared in constant time.
    pub fn user_of(&self, token: &[u8]) -> Option<&UserName> {
        if token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let hash = self.hasher.hash_one(token);
        let first = self.keys.partition_point(|key| key.hash < hash);
        let same = self.keys[first..].iter().take_while(|key| key.hash == hash);
        let mut found = same.filter(|key| bool::from(key.token.ct_eq(token)));
        found.next().map(|key| &key.user)
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

/// What stands in one line.
struct Line<'a> {
    user: UserName,
    token: &'a [u8],
    groups: Vec<GroupName>,
    attributes: Option<&'a str>,
}

fn parse_line(line: &str) -> Result<Line<'_>, String> {
    // The words behind the token, and what stands before each.
    let mut words = Vec::new();
    let mut key = line;
    while let Some((before, word)) = key.rsplit_once(|c: char| c.is_ascii_whitespace())
        && (word.starts_with(GROUPS) || word.starts_with(ATTRIBUTES))
    {
        words.push((word, key));
        key = before.trim_end();
    }
    let (user, token) = match (parse_key(key), words.pop()) {
        (Ok(key), word) => {
            words.extend(word);
            key
        }
        // A token may begin so too.
        (Err(reason), Some((_, longer))) => parse_key(longer).map_err(|_| reason)?,
        (Err(reason), None) => return Err(reason),
    };
    let mut line = Line { user, token, groups: Vec::new(), attributes: None };
    for (word, _) in words {
        if let Some(names) = word.strip_prefix(GROUPS) {
            line.groups.extend(parse_groups(names)?);
        } else if line.attributes.replace(&word[ATTRIBUTES.len()..]).is_some() {
            return Err(format!("`{ATTRIBUTES}` stands there twice"));
        }
    }
    Ok(line)
}

/// Attributes that were read before, by their text.
#[derive(Default)]
struct AttributeSets<'a> {
    sets: HashMap<&'a str, Arc<Attributes>>,
    interner: Interner,
}

impl<'a> AttributeSets<'a> {
    fn find(&mut self, text: &'a str) -> Result<Arc<Attributes>, String> {
        if let Some(known) = self.sets.get(text) {
            return Ok(known.clone());
        }
        let set = Arc::new(Attributes::parse(text, &mut self.interner)?);
        self.sets.insert(text, set.clone());
        Ok(set)
    }
}

fn parse_groups(names: &str) -> Result<Vec<GroupName>, String> {
    let parse = |name| {
        GroupName::parse(name).ok_or_else(|| {
            let rule = "a group has 1 to";
            format!("{rule} {GROUP_NAME_BYTES_MAX} bytes, none of them control: `{GROUPS}a,b`")
        })
    };
    names.split(',').map(parse).collect()
}

fn parse_key(line: &str) -> Result<(UserName, &[u8]), String> {
    let (user, token) = line
        .rsplit_once(|c: char| c.is_ascii_whitespace())
        .ok_or("expected a user, a space and a token")?;
    let user = UserName::parse(user.trim_end()).ok_or_else(|| {
        format!("a user has 1 to {USER_NAME_BYTES_MAX} bytes, none of them control")
    })?;
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("a token has printable ASCII characters only".to_string());
    }
    if !(TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX).contains(&token.len()) {
        return Err(format!(
            "a token of {} bytes: expected {TOKEN_BYTES_MIN} to {TOKEN_BYTES_MAX}, such as the \
             output of `openssl rand -base64 24`",
            token.len()
        ));
    }
    Ok((user, token.as_bytes()))
}

/// Shows how many, and no more.
impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} keys", self.keys.len())
    }
}

/// The same users with the same tokens, groups and attributes; each reading has hashes of its own.
impl PartialEq for Keys {
    fn eq(&self, other: &Self) -> bool {
        self.groups == other.groups
            && self.attributes == other.attributes
            && self.keys.len() == other.keys.len()
            && self.keys.iter().all(|key| other.user_of(&key.token) == Some(&key.user))
    }
}

impl Eq for Keys {}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: &str = "0123456789abcdef";
    const BOB: &str = "fedcba9876543210+/==";

    fn user(keys: &Keys, token: &str) -> Option<String> {
        keys.user_of(token.as_bytes()).map(|user| user.to_string())
    }

    #[test]
    fn a_token_finds_its_user_and_nothing_else_does() {
        let text = format!("# users\n\nalice {ALICE}\n  bob the second\t{BOB}\r\nalice {ALICE}x\n");
        let keys = Keys::parse(&text).unwrap();
        assert_eq!(user(&keys, ALICE).as_deref(), Some("alice"));
        assert_eq!(user(&keys, &format!("{ALICE}x")).as_deref(), Some("alice"));
        assert_eq!(user(&keys, BOB).as_deref(), Some("bob the second"));
        for token in ["", "alice", &ALICE[1..], &ALICE.to_uppercase(), &"x".repeat(5000)] {
            assert_eq!(user(&keys, token), None, "{token}");
        }
        assert_eq!(user(&Keys::default(), ""), None);
        assert_eq!(Keys::parse(&text), Keys::parse(&text));
        assert_eq!(format!("{keys:?}"), "3 keys");
    }

    #[test]
    fn a_key_may_name_groups_and_a_token_may_look_as_if() {
        let look = "groups=0123456789abc";
        let text = format!(
            "alice {ALICE} groups=staff,on-call\nbob the second {BOB}\tgroups=staff\n\
             alice {ALICE}x groups=staff,admins\ncarol {look}\ncarol {look}d groups=c\n"
        );
        let keys = Keys::parse(&text).unwrap();
        assert_eq!(user(&keys, ALICE).as_deref(), Some("alice"));
        assert_eq!(user(&keys, BOB).as_deref(), Some("bob the second"));
        assert_eq!(user(&keys, look).as_deref(), Some("carol"));
        let groups = keys.groups().iter();
        let shown: Vec<_> = groups
            .map(|(group, users)| {
                let users: Vec<_> = users.iter().map(|user| &**user).collect();
                (&**group, users.join("+"))
            })
            .collect();
        let expected = [
            ("admins", "alice".into()),
            ("c", "carol".into()),
            ("on-call", "alice".into()),
            ("staff", "alice+bob the second".to_string()),
        ];
        assert_eq!(shown, expected);
        let plain = Keys::parse(&format!("alice {ALICE}")).unwrap();
        assert!(plain.groups().is_empty());
        assert_ne!(plain, Keys::parse(&format!("alice {ALICE} groups=a")).unwrap());
    }

    #[test]
    fn a_key_may_give_attributes_and_they_may_make_groups() {
        let look = "attributes=a=1,b=2,c=3";
        let text = format!(
            "alice {ALICE} groups=staff attributes=plan=pro,level=7\n\
             alice {ALICE}x attributes=region=eu,level=7\nbob {BOB} attributes=plan=free groups=a\n\
             carol {look}\ndave {look}d attributes=plan=pro\n"
        );
        let mut keys = Keys::parse(&text).unwrap();
        let shown = |keys: &Keys, user: &str| {
            let attributes = keys.attributes_of(&UserName::parse(user).unwrap()).clone();
            let shown: Vec<_> =
                attributes.iter().map(|(name, value)| format!("{name}={value}")).collect();
            shown.join(" ")
        };
        assert_eq!(shown(&keys, "alice"), r#"level=7 plan="pro" region="eu""#);
        assert_eq!(shown(&keys, "bob"), r#"plan="free""#);
        assert_eq!(user(&keys, look).as_deref(), Some("carol"));
        assert_eq!(shown(&keys, "carol") + &shown(&keys, "nobody"), "");
        let name = |name| GroupName::parse(name).unwrap();
        let rule = |text| UserRule::parse(text).unwrap().unwrap();
        keys.add_group(&name("staff"), &rule("plan == 'pro'"));
        keys.add_group(&name("others"), &rule("!(plan == 'pro')"));
        let members = |group| keys.groups()[&name(group)].iter().map(|user| &**user);
        assert_eq!(members("staff").collect::<Vec<_>>(), ["alice", "dave"]);
        assert_eq!(members("others").collect::<Vec<_>>(), ["bob", "carol"]);
        assert_ne!(keys, Keys::parse(&text).unwrap());
    }

    #[test]
    fn what_is_wrong_is_told_without_the_token() {
        let long = "x".repeat(TOKEN_BYTES_MAX + 1);
        for (text, reason) in [
            (String::new(), "it has no keys"),
            ("# nothing".into(), "it has no keys"),
            (ALICE.into(), "line 1: expected a user"),
            (format!("# a\nalice {}", &ALICE[1..]), "line 2: a token of 15 bytes"),
            (format!("alice {long}"), "a token of 1025 bytes"),
            (format!("alice {ALICE}é"), "printable ASCII"),
            (format!("{long} {ALICE}"), "line 1: a user has"),
            (format!("alice {ALICE}\nbob {ALICE}"), "two keys have the same token"),
            (format!("a {BOB}\nalice {ALICE} groups="), "line 2: a group has 1 to 64 bytes"),
            (format!("alice {ALICE} groups=a,,b"), "line 1: a group has 1 to 64 bytes"),
            (format!("alice {ALICE} groups={}", "x".repeat(65)), "line 1: a group has"),
            ("alice short groups=a".into(), "line 1: a token of 5 bytes"),
            ("alice short groups=a attributes=a=1".into(), "line 1: a token of 5 bytes"),
            (format!("alice {ALICE} attributes=a"), "line 1: an attribute is NAME=VALUE"),
            (
                format!("alice {ALICE} attributes=a=1 attributes=b=1"),
                "line 1: `attributes=` stands",
            ),
            (
                format!("alice {ALICE} attributes=a=1\nalice {BOB} attributes=a=2"),
                "line 2: `a` has two values",
            ),
        ] {
            let error = Keys::parse(&text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
            assert!(!error.contains(&ALICE[1..]), "{error}");
        }
    }
}
