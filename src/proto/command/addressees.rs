//! Whom a message is for: a user, or many connections.

use std::borrow::Cow;
use std::collections::HashSet;
use std::hash::Hash;

use crate::ids::{ConnectionId, GROUP_NAME_BYTES_MAX, GroupName, USER_NAME_BYTES_MAX, UserName};
use crate::proto::audience::{ADDRESSEES_MAX, Addressee, Among, Audience};
use crate::proto::command::fields::{Fields, Refused, decode, invalid};
use crate::proto::command::recall::members;
use crate::proto::json::Scanner;

/// Whom a message is for, as texts; `None`: there is no such list.
#[derive(Debug, Default)]
pub(in crate::proto) struct Addressees<'a> {
    pub users: Option<Vec<Cow<'a, str>>>,
    pub groups: Option<Vec<Cow<'a, str>>>,
    pub connections: Option<Vec<Cow<'a, str>>>,
    pub everybody: bool,
    pub except_users: Vec<Cow<'a, str>>,
    pub except_connections: Vec<Cow<'a, str>>,
}

impl Addressees<'_> {
    /// Whom that is. Names that nobody has are no fault.
    pub fn audience(&self) -> Result<Audience, Refused> {
        let among = match (&self.users, &self.groups, &self.connections, self.everybody) {
            (Some(users), None, None, false) => Among::Users(listed(users, "users", user)?),
            (None, Some(groups), None, false) => Among::Groups(listed(groups, "groups", group)?),
            (None, None, Some(connections), false) => {
                Among::Connections(listed(connections, "connections", connection)?)
            }
            (None, None, None, true) => Among::Everybody,
            _ => return Err(not_one()),
        };
        Ok(Audience {
            among,
            except_users: excepted(&self.except_users, "users", user)?,
            except_connections: excepted(&self.except_connections, "connections", connection)?,
            filter: None,
        })
    }
}

fn not_one() -> Refused {
    let names = "`user`, `users`, `groups`, `connections` and `everybody`";
    invalid(format!("`to` needs exactly one of {names}"))
}

/// What one name of a list stands for; `None` inside: for nobody.
type Named<T> = fn(&str, &str) -> Result<Option<T>, Refused>;

fn listed<T: Eq + Hash>(
    names: &[Cow<'_, str>],
    field: &str,
    named: Named<T>,
) -> Result<HashSet<T>, Refused> {
    if names.is_empty() {
        return Err(invalid(format!("`{field}` must have 1 to {ADDRESSEES_MAX} entries")));
    }
    excepted(names, field, named)
}

fn excepted<T: Eq + Hash>(
    names: &[Cow<'_, str>],
    field: &str,
    named: Named<T>,
) -> Result<HashSet<T>, Refused> {
    if names.len() > ADDRESSEES_MAX {
        return Err(invalid(format!("`{field}` must have at most {ADDRESSEES_MAX} entries")));
    }
    names.iter().filter_map(|name| named(name, field).transpose()).collect()
}

fn user(name: &str, field: &str) -> Result<Option<UserName>, Refused> {
    addressee(name, field).map(Some)
}

fn group(name: &str, field: &str) -> Result<Option<GroupName>, Refused> {
    let rule = format!(
        "`{field}` must be names of 1 to {GROUP_NAME_BYTES_MAX} bytes without control characters"
    );
    GroupName::parse(name).map(Some).ok_or_else(|| invalid(rule))
}

fn connection(id: &str, _: &str) -> Result<Option<ConnectionId>, Refused> {
    Ok(ConnectionId::parse(id))
}

impl<'a> Fields<'a> {
    /// Whom a message is for.
    pub fn addressee(&self) -> Result<Addressee, Refused> {
        let to = self.to.ok_or_else(|| invalid("`to` is missing"))?;
        let names = ["user", "users", "groups", "connections", "everybody", "except"];
        let [user, users, groups, connections, everybody, except] = members(to, "to", names)?;
        if let Some(user) = user {
            let is_alone =
                [users, groups, connections, everybody, except].iter().all(Option::is_none);
            let user = decode(user, "user")?;
            return if is_alone {
                addressee(&user, "user").map(Addressee::User)
            } else {
                Err(not_one())
            };
        }
        let [except_users, except_connections] = match except {
            Some(except) => members(except, "except", ["users", "connections"])?,
            None => [None; 2],
        };
        let list = |value: Option<&'a str>, name| value.map(|value| texts(value, name)).transpose();
        let addressees = Addressees {
            users: list(users, "users")?,
            groups: list(groups, "groups")?,
            connections: list(connections, "connections")?,
            everybody: match everybody {
                None => false,
                Some("true") => true,
                Some(_) => return Err(invalid("`everybody` must be true, or left out")),
            },
            except_users: list(except_users, "users")?.unwrap_or_default(),
            except_connections: list(except_connections, "connections")?.unwrap_or_default(),
        };
        addressees.audience().map(|audience| Addressee::Audience(Box::new(audience)))
    }
}

/// The entries of a list of texts: no more than one over the limit.
fn texts<'a>(value: &'a str, name: &str) -> Result<Vec<Cow<'a, str>>, Refused> {
    let must_be = || invalid(format!("`{name}` must be an array of strings"));
    let mut texts = Vec::new();
    let mut scanner = Scanner::new(value);
    if !scanner.literal("[") {
        return Err(must_be());
    }
    // All of it is JSON, so what is no element is the end.
    while texts.len() <= ADDRESSEES_MAX
        && let Ok(element) = scanner.value()
    {
        texts.push(decode(element, name).map_err(|_| must_be())?);
        scanner.whitespace();
        if !scanner.literal(",") {
            break;
        }
    }
    Ok(texts)
}

/// The user that the field `field` names.
pub(in crate::proto) fn addressee(name: &str, field: &str) -> Result<UserName, Refused> {
    UserName::parse(name).ok_or_else(|| {
        invalid(format!(
            "`{field}` must be a name of 1 to {USER_NAME_BYTES_MAX} bytes without control characters"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::Data;
    use crate::proto::command::tests::read;
    use crate::proto::command::{Command, RequestId};

    #[test]
    fn a_message_to_a_user_has_all_that_a_publication_has() {
        let frame = r#"{"action":"publish","to":{"user":"b\u00f6b","x":1},"channel":"c","data":[ 1],"id":7,"messageId":"m","echo":false}"#;
        let Ok(Command::Direct { to, channel, data, echo, id, message_id, .. }) = read(frame)
        else {
            panic!("{:?}", read(frame));
        };
        assert_eq!(to, Addressee::User(UserName::parse("böb").unwrap()));
        assert_eq!((&*channel, data, echo), ("c", Data::Json("[ 1]"), false));
        assert_eq!((id.map(RequestId::as_json), message_id), (Some("7"), Some("\"m\"")));
    }

    fn audience(to: &str) -> Audience {
        let frame = format!(r#"{{"action":"publish","to":{to},"channel":"c","data":1}}"#);
        match read(&frame) {
            Ok(Command::Direct { to: Addressee::Audience(audience), .. }) => *audience,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_message_may_be_for_many() {
        let user = |name: &str| UserName::parse(name).unwrap();
        let id = "00020000000300000000000000000000000000000000";
        let connection = ConnectionId::parse(id).unwrap();
        let to = audience(r#"{ "users" : [ "a" , "\u0062", "a" ] }"#);
        assert_eq!(to.among, Among::Users(HashSet::from([user("a"), user("b")])));
        let to = audience(r#"{"groups":["a b"]}"#);
        assert_eq!(to.among, Among::Groups(HashSet::from([GroupName::parse("a b").unwrap()])));
        // What is no id is nobody's.
        let to = audience(&format!(r#"{{"connections":["x","{id}"]}}"#));
        assert_eq!(to.among, Among::Connections(HashSet::from([connection])));
        let except = format!(r#"{{"users":["a"],"connections":["{id}",""]}}"#);
        let to = audience(&format!(r#"{{"everybody":true,"except":{except}}}"#));
        assert_eq!(to.among, Among::Everybody);
        assert!(to.excepts(connection, None) && !to.excepts(connection_of_nobody(), None));
        assert!(to.excepts(connection_of_nobody(), Some(&user("a"))));
        assert!(!to.excepts(connection_of_nobody(), Some(&user("b"))));
    }

    fn connection_of_nobody() -> ConnectionId {
        ConnectionId::parse("00010000000000000000000000000000000000000000").unwrap()
    }

    #[test]
    fn whom_a_message_is_for_is_checked() {
        let long = format!(r#"{{"user":"{}"}}"#, "x".repeat(129));
        let many = format!(r#"{{"users":[{}]}}"#, vec![r#""u""#; 101].join(","));
        let one_of =
            "`to` needs exactly one of `user`, `users`, `groups`, `connections` and `everybody`";
        let name = "`user` must be a name of 1 to 128 bytes without control characters";
        for (to, expected) in [
            (r#""bob""#, "`to` must be an object"),
            ("null", "`to` must be an object"),
            (r#"[{"user":"bob"}]"#, "`to` must be an object"),
            ("{}", one_of),
            (r#"{"user":"a","users":["b"]}"#, one_of),
            (r#"{"user":"a","except":{}}"#, one_of),
            (r#"{"users":["b"],"groups":["c"]}"#, one_of),
            (r#"{"everybody":true,"connections":["c"]}"#, one_of),
            (r#"{"everybody":false}"#, "`everybody` must be true, or left out"),
            (r#"{"everybody":1}"#, "`everybody` must be true, or left out"),
            (r#"{"users":"a"}"#, "`users` must be an array of strings"),
            (r#"{"users":["a",1]}"#, "`users` must be an array of strings"),
            (r#"{"users":[["a"]]}"#, "`users` must be an array of strings"),
            (r#"{"users":[]}"#, "`users` must have 1 to 100 entries"),
            (&many, "`users` must have at most 100 entries"),
            (
                r#"{"users":["a",""]}"#,
                "`users` must be a name of 1 to 128 bytes without control characters",
            ),
            (
                r#"{"groups":["a\u0007"]}"#,
                "`groups` must be names of 1 to 64 bytes without control characters",
            ),
            (r#"{"everybody":true,"except":7}"#, "`except` must be an object"),
            (r#"{"everybody":true,"except":{"users":7}}"#, "`users` must be an array of strings"),
            (r#"{"user":7}"#, "`user` must be a string of Unicode text"),
            (r#"{"user":["bob"]}"#, "`user` must be a string of Unicode text"),
            (r#"{"user":"\ud800"}"#, "`user` must be a string of Unicode text"),
            (r#"{"user":"a","user":"b"}"#, "`user` appears more than once in `to`"),
            (r#"{"user":""}"#, name),
            (r#"{"user":"a\u0001b"}"#, name),
            (&long, name),
        ] {
            let frame = format!(r#"{{"action":"publish","to":{to},"channel":"c","data":1}}"#);
            assert_eq!(read(&frame), Err(expected.to_owned()), "{to}");
        }
        let twice =
            r#"{"action":"publish","to":{"user":"a"},"to":{"user":"b"},"channel":"c","data":1}"#;
        assert_eq!(read(twice), Err("`to` appears more than once".to_owned()));
    }
}
