//! The fields that have to do with users: whom a message is for, and who a client is.

use crate::ids::{USER_NAME_BYTES_MAX, UserName};
use crate::proto::command::fields::{Fields, Refused, decode, invalid};
use crate::proto::command::recall::members;
use crate::proto::command::{Command, RequestId};

impl<'a> Fields<'a> {
    /// Whom a message is for.
    pub fn addressee(&self) -> Result<UserName, Refused> {
        let to = self.to.ok_or_else(|| invalid("`to` is missing"))?;
        let [user] = members(to, "to", ["user"])?;
        let user = decode(user.ok_or_else(|| invalid("`user` is missing in `to`"))?, "user")?;
        addressee(&user, "user")
    }

    pub fn auth(&self, id: Option<RequestId<'a>>) -> Result<Command<'a>, Refused> {
        let payload = self.payload.ok_or_else(|| invalid("`payload` is missing"))?;
        let [token] = members(payload, "payload", ["token"])?;
        let token = token.ok_or_else(|| invalid("`token` is missing in `payload`"))?;
        Ok(Command::Auth { token: decode(token, "token")?, id })
    }
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
    use crate::proto::command::Commands;

    fn one(frame: &str) -> Result<Command<'_>, String> {
        let mut commands = Commands::new(frame);
        commands.next().expect("a message").map_err(|rejection| rejection.message.into_owned())
    }

    #[test]
    fn a_message_to_a_user_has_all_that_a_publication_has() {
        let frame = r#"{"action":"publish","to":{"user":"b\u00f6b","x":1},"channel":"c","data":[ 1],"id":7,"messageId":"m","echo":false}"#;
        let Ok(Command::Direct { to, channel, data, echo, id, message_id, .. }) = one(frame) else {
            panic!("{:?}", one(frame));
        };
        assert_eq!((&*to, &*channel, data, echo), ("böb", "c", "[ 1]", false));
        assert_eq!((id.map(RequestId::as_json), message_id), (Some("7"), Some("\"m\"")));
    }

    #[test]
    fn whom_a_message_is_for_is_checked() {
        let long = format!(r#"{{"user":"{}"}}"#, "x".repeat(129));
        let name = "`user` must be a name of 1 to 128 bytes without control characters";
        for (to, expected) in [
            (r#""bob""#, "`to` must be an object"),
            ("null", "`to` must be an object"),
            (r#"[{"user":"bob"}]"#, "`to` must be an object"),
            ("{}", "`user` is missing in `to`"),
            (r#"{"user":7}"#, "`user` must be a string of Unicode text"),
            (r#"{"user":["bob"]}"#, "`user` must be a string of Unicode text"),
            (r#"{"user":"\ud800"}"#, "`user` must be a string of Unicode text"),
            (r#"{"user":"a","user":"b"}"#, "`user` appears more than once in `to`"),
            (r#"{"user":""}"#, name),
            (r#"{"user":"a\u0001b"}"#, name),
            (&long, name),
        ] {
            let frame = format!(r#"{{"action":"publish","to":{to},"channel":"c","data":1}}"#);
            assert_eq!(one(&frame), Err(expected.to_owned()), "{to}");
        }
        let twice =
            r#"{"action":"publish","to":{"user":"a"},"to":{"user":"b"},"channel":"c","data":1}"#;
        assert_eq!(one(twice), Err("`to` appears more than once".to_owned()));
    }

    #[test]
    fn credentials_come_in_a_payload() {
        let frame = r#"{"type":"auth","id":"a","timestamp":1,"payload":{"token":"t\/1"}}"#;
        let Ok(Command::Auth { token, id }) = one(frame) else { panic!("{:?}", one(frame)) };
        assert_eq!((&*token, id.map(RequestId::as_json)), ("t/1", Some("\"a\"")));
        for (payload, expected) in [
            ("7", "`payload` must be an object"),
            ("{}", "`token` is missing in `payload`"),
            (r#"{"token":7}"#, "`token` must be a string of Unicode text"),
        ] {
            let frame = format!(r#"{{"type":"auth","payload":{payload}}}"#);
            assert_eq!(one(&frame), Err(expected.to_owned()));
        }
        assert_eq!(one(r#"{"type":"auth"}"#), Err("`payload` is missing".to_owned()));
    }
}
