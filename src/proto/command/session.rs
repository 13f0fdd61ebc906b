//! The fields of `restore_session` and `end_session`.

use crate::ids::{ConnectionId, Epoch, SessionId};
use crate::proto::command::fields::{Fields, Refused, decode, invalid};
use crate::proto::command::recall::{members, whole};
use crate::proto::command::{Command, RequestId};
use crate::proto::json::Scanner;
use crate::proto::recall::{Claim, ClaimedPlace};

impl<'a> Fields<'a> {
    pub fn restore(&self, id: Option<RequestId<'a>>) -> Result<Command<'a>, Refused> {
        let text = |value: Option<&'a str>, name: &str| {
            decode(value.ok_or_else(|| invalid(format!("`{name}` is missing")))?, name)
        };
        let session = text(self.session_id, "sessionId")?;
        let connection = text(self.connection_id, "connectionId")?;
        let pair = SessionId::parse(&session).zip(ConnectionId::parse(&connection));
        let claims = self.positions.map_or(Ok(Vec::new()), claims)?;
        Ok(Command::RestoreSession { pair, claims, id })
    }
}

impl<'a> Fields<'a> {
    pub fn end_session(&self, id: Option<RequestId<'a>>) -> Result<Command<'a>, Refused> {
        let session = self.session_id.ok_or_else(|| invalid("`sessionId` is missing"))?;
        let session = SessionId::parse(&decode(session, "sessionId")?);
        Ok(Command::EndSession { session, id })
    }
}

/// Where the client is, by channel. A message is bounded, and with it their number.
fn claims(value: &str) -> Result<Vec<Claim>, Refused> {
    let must_be_object = || invalid("`positions` must be an object");
    let mut scanner = Scanner::new(value);
    let mut object = scanner.object().ok_or_else(must_be_object)?;
    let mut claims = Vec::new();
    while let Some((key, value)) = object.next_member().map_err(|_| must_be_object())? {
        let channel = key.decode();
        let channel = channel.ok_or_else(|| invalid("`positions` has a key that is no text"))?;
        let place = if value.starts_with('{') {
            let [epoch, offset] = members(value, "positions", ["epoch", "offset"])?;
            let missing = |name| invalid(format!("`{name}` is missing in `positions`"));
            let epoch = decode(epoch.ok_or_else(|| missing("epoch"))?, "epoch")?;
            let offset = whole(offset.ok_or_else(|| missing("offset"))?, "offset")?;
            ClaimedPlace::Position { epoch: Epoch::parse(&epoch), offset }
        } else {
            ClaimedPlace::Offset(whole(value, "positions")?)
        };
        claims.push(Claim { channel: channel.into(), place });
    }
    sorted_claims(claims)
}

/// In the order of their channels, each of which may come once.
pub(in crate::proto) fn sorted_claims(mut claims: Vec<Claim>) -> Result<Vec<Claim>, Refused> {
    claims.sort_unstable_by(|one, other| one.channel.cmp(&other.channel));
    if claims.windows(2).any(|pair| pair[0].channel == pair[1].channel) {
        return Err(invalid("a channel appears more than once in `positions`"));
    }
    Ok(claims)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ShardId;
    use crate::proto::ErrorCode;
    use crate::proto::command::Commands;

    const SESSION: &str = "00010000000000000000000000000000000a";
    const CONNECTION: &str = "00020000000300000000000000000000000000000000";

    fn restore(fields: &str) -> Result<(bool, Vec<Claim>), String> {
        let frame = format!(r#"{{"type":"restore_session","id":7,{fields}}}"#);
        match Commands::new(&frame).next() {
            Some(Ok(Command::RestoreSession { pair, claims, id })) => {
                assert_eq!(id.map(RequestId::as_json), Some("7"));
                Ok((pair.is_some(), claims))
            }
            Some(Err(rejection)) => {
                assert_eq!(rejection.code, ErrorCode::InvalidMessage);
                Err(rejection.message.into_owned())
            }
            other => panic!("{other:?}"),
        }
    }

    fn with_positions(positions: &str) -> Result<Vec<Claim>, String> {
        let fields = format!(
            r#""sessionId":"{SESSION}","connectionId":"{CONNECTION}","positions":{positions}"#
        );
        restore(&fields).map(|(_, claims)| claims)
    }

    #[test]
    fn a_session_is_named_by_a_pair_of_ids() {
        let frame = format!(
            r#"{{"type":"restore_session","connectionId":"{CONNECTION}","sessionId":"{SESSION}"}}"#
        );
        let session = SessionId { shard: ShardId(1), secret: 10 };
        let connection = ConnectionId { shard: ShardId(2), slot: 3, secret: 0 };
        let pair = Some((session, connection));
        let command = Command::RestoreSession { pair, claims: Vec::new(), id: None };
        assert_eq!(Commands::new(&frame).next(), Some(Ok(command)));
        let foreign = format!(r#""sessionId":"abc","connectionId":"{CONNECTION}""#);
        assert_eq!(restore(&foreign), Ok((false, Vec::new())));
    }

    #[test]
    fn a_session_is_ended_by_its_id() {
        let one = |fields: &str| {
            let frame = format!(r#"{{"type":"end_session"{fields}}}"#);
            match Commands::new(&frame).next() {
                Some(Ok(Command::EndSession { session, id: None })) => Ok(session),
                Some(Err(rejection)) => Err(rejection.message.into_owned()),
                other => panic!("{other:?}"),
            }
        };
        let session = SessionId { shard: ShardId(1), secret: 10 };
        assert_eq!(one(&format!(r#","sessionId":"{SESSION}""#)), Ok(Some(session)));
        assert_eq!(one(r#","sessionId":"x""#), Ok(None));
        assert_eq!(one(""), Err("`sessionId` is missing".to_owned()));
    }

    #[test]
    fn positions_are_offsets_or_epochs_and_offsets() {
        let place = |channel: &str, place| Claim { channel: channel.into(), place };
        assert_eq!(
            with_positions(
                r#"{"b":18446744073709551615,"\u0061":{"offset":3,"epoch":"00000000000000ff"},
                    "c":{"epoch":"x","offset":0}}"#
            ),
            Ok(vec![
                place("a", ClaimedPlace::Position { epoch: Some(Epoch(255)), offset: 3 }),
                place("b", ClaimedPlace::Offset(u64::MAX)),
                place("c", ClaimedPlace::Position { epoch: None, offset: 0 }),
            ])
        );
    }

    #[test]
    fn what_is_no_pair_or_no_place_is_refused() {
        let number = "`positions` must be a whole number from 0 to 18446744073709551615";
        for (positions, expected) in [
            ("7", "`positions` must be an object"),
            ("[]", "`positions` must be an object"),
            (r#"{"a":-1}"#, number),
            (r#"{"a":1.5}"#, number),
            (r#"{"a":18446744073709551616}"#, number),
            (r#"{"a":"1"}"#, number),
            (r#"{"a":null}"#, number),
            (r#"{"a":{"epoch":"x"}}"#, "`offset` is missing in `positions`"),
            (r#"{"a":{"offset":1}}"#, "`epoch` is missing in `positions`"),
            (r#"{"a":{"epoch":1,"offset":1}}"#, "`epoch` must be a string of Unicode text"),
            (r#"{"a":1,"\u0061":1}"#, "a channel appears more than once in `positions`"),
            (r#"{"\ud800":1}"#, "`positions` has a key that is no text"),
        ] {
            assert_eq!(with_positions(positions), Err(expected.to_owned()), "{positions}");
        }
        assert_eq!(restore(r#""sessionId":"x""#), Err("`connectionId` is missing".to_owned()));
        let number = r#""sessionId":7,"connectionId":"x""#;
        assert_eq!(restore(number), Err("`sessionId` must be a string of Unicode text".to_owned()));
    }
}
