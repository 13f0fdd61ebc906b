//! Who a client is: its credentials.

use crate::proto::command::fields::{Fields, Refused, decode, invalid};
use crate::proto::command::recall::members;
use crate::proto::command::{Command, RequestId};

impl<'a> Fields<'a> {
    pub fn auth(&self, id: Option<RequestId<'a>>) -> Result<Command<'a>, Refused> {
        let payload = self.payload.ok_or_else(|| invalid("`payload` is missing"))?;
        let [token] = members(payload, "payload", ["token"])?;
        let token = token.ok_or_else(|| invalid("`token` is missing in `payload`"))?;
        Ok(Command::Auth { token: decode(token, "token")?, id })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::command::tests::read;

    #[test]
    fn credentials_come_in_a_payload() {
        let frame = r#"{"type":"auth","id":"a","timestamp":1,"payload":{"token":"t\/1"}}"#;
        let Ok(Command::Auth { token, id }) = read(frame) else { panic!("{:?}", read(frame)) };
        assert_eq!((&*token, id.map(RequestId::as_json)), ("t/1", Some("\"a\"")));
        for (payload, expected) in [
            ("7", "`payload` must be an object"),
            ("{}", "`token` is missing in `payload`"),
            (r#"{"token":7}"#, "`token` must be a string of Unicode text"),
        ] {
            let frame = format!(r#"{{"type":"auth","payload":{payload}}}"#);
            assert_eq!(read(&frame), Err(expected.to_owned()));
        }
        assert_eq!(read(r#"{"type":"auth"}"#), Err("`payload` is missing".to_owned()));
    }
}
