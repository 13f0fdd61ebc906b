//! The fields that ask for a history: of `subscribe`, and of the query `history`; and the other queries.

use std::borrow::Cow;

use crate::ids::Epoch;
use crate::proto::command::fields::{Fields, Refused, channel, decode, invalid};
use crate::proto::command::room::room;
use crate::proto::command::{Command, RequestId};
use crate::proto::json::Scanner;
use crate::proto::presence::PresenceQuery;
use crate::proto::recall::{HistoryQuery, Since, Start};

/// Publications that one query may ask for.
const QUERY_LIMIT_MAX: usize = 1000;
/// Publications that a query gets if it does not say.
const QUERY_LIMIT: usize = 100;

impl<'a> Fields<'a> {
    /// Where a subscription is to begin.
    pub fn start(&self) -> Result<Start, Refused> {
        match (self.recover, self.since) {
            (None, None) => Ok(Start::Now),
            (Some(_), Some(_)) => Err(invalid("`recover` and `since` exclude each other")),
            (None, Some(since)) => Ok(Start::Since(place(since, "since", true)?)),
            (Some(recover), None) => {
                let [epoch, offset] = members(recover, "recover", ["epoch", "offset"])?;
                let missing = |name| invalid(format!("`{name}` is missing in `recover`"));
                let epoch = decode(epoch.ok_or_else(|| missing("epoch"))?, "epoch")?;
                let offset = whole(offset.ok_or_else(|| missing("offset"))?, "offset")?;
                Ok(Start::Recover { epoch: Epoch::parse(&epoch), offset })
            }
        }
    }

    pub fn limit(&self) -> Result<Option<u64>, Refused> {
        self.limit.map(|value| whole(value, "limit")).transpose()
    }

    pub fn query(&self, id: Option<RequestId<'a>>) -> Result<Command<'a>, Refused> {
        let payload = self.payload.ok_or_else(|| invalid("`payload` is missing"))?;
        let [resource, parameters] = members(payload, "payload", ["resource", "parameters"])?;
        let resource = resource.ok_or_else(|| invalid("`resource` is missing in `payload`"))?;
        let resource = decode(resource, "resource")?;
        match &*resource {
            "history" => history(parameters, id),
            "presence" => presence(parameters, id),
            "room" => room(parameters, id),
            "rooms" => Ok(Command::Rooms { id }),
            "groups" => Ok(Command::Groups { id }),
            "time" => Ok(Command::Time { id }),
            "stats" => Ok(Command::Stats { id }),
            "session" => Ok(Command::Session { id }),
            "sessions" => Ok(Command::Sessions { id }),
            _ => self.routed(Cow::Borrowed("query"), id, Some(resource)),
        }
    }
}

/// The query `history`; `parameters` is JSON.
pub(in crate::proto) fn history<'a>(
    parameters: Option<&'a str>,
    id: Option<RequestId<'a>>,
) -> Result<Command<'a>, Refused> {
    let names = ["channel", "since", "until", "limit", "reverse"];
    let [name, since, until, limit, reverse] = match parameters {
        Some(parameters) => members(parameters, "parameters", names)?,
        None => [None; 5],
    };
    let channel = channel(name)?;
    let limit = limit.map(|value| whole(value, "limit")).transpose()?;
    let limit = limit.map_or(Ok(QUERY_LIMIT), |limit| match usize::try_from(limit) {
        Ok(limit @ 1..=QUERY_LIMIT_MAX) => Ok(limit),
        _ => Err(invalid(format!("`limit` must be a whole number from 1 to {QUERY_LIMIT_MAX}"))),
    })?;
    let since = since.map_or(Ok(Since::Oldest), |value| place(value, "since", true))?;
    let until = until.map(|value| place(value, "until", false)).transpose()?;
    let reverse = match reverse {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(invalid("`reverse` must be true or false")),
    };
    let query = HistoryQuery { since, until, limit, reverse };
    Ok(Command::History { channel, query, id })
}

/// The query `presence`; `parameters` is JSON.
pub(in crate::proto) fn presence<'a>(
    parameters: Option<&'a str>,
    id: Option<RequestId<'a>>,
) -> Result<Command<'a>, Refused> {
    const LIMIT_MAX: usize = PresenceQuery::LIMIT_MAX;
    let [name, limit, after] = match parameters {
        Some(parameters) => members(parameters, "parameters", ["channel", "limit", "after"])?,
        None => [None; 3],
    };
    let channel = channel(name)?;
    let limit = limit.map(|value| whole(value, "limit")).transpose()?;
    let limit = limit.map_or(Ok(PresenceQuery::LIMIT), |limit| match usize::try_from(limit) {
        Ok(limit @ 0..=LIMIT_MAX) => Ok(limit),
        _ => Err(invalid(format!("`limit` must be a whole number from 0 to {LIMIT_MAX}"))),
    })?;
    let after = after.map_or(Ok(0), |value| whole(value, "after"))?;
    Ok(Command::Presence { channel, query: PresenceQuery { after, limit }, id })
}

/// A place in a history: an offset, a Unix time in milliseconds, or, if it may be, `"start"`.
fn place(value: &str, name: &str, may_be_start: bool) -> Result<Since, Refused> {
    if may_be_start && value.starts_with('"') && &*decode(value, name)? == "start" {
        return Ok(Since::Oldest);
    }
    value.parse().map(Since::from_number).map_err(|_| {
        let start = if may_be_start { "\"start\", " } else { "" };
        invalid(format!("`{name}` must be {start}an offset or a Unix time in milliseconds"))
    })
}

/// The value of a field that must be a whole number, without sign, point or exponent.
pub(super) fn whole(value: &str, name: &str) -> Result<u64, Refused> {
    let parsed = value.parse();
    parsed.map_err(|_| invalid(format!("`{name}` must be a whole number from 0 to {}", u64::MAX)))
}

/// The values of these members of an object; others are passed over.
pub(super) fn members<'a, const N: usize>(
    value: &'a str,
    name: &str,
    wanted: [&'static str; N],
) -> Result<[Option<&'a str>; N], Refused> {
    let must_be_object = || invalid(format!("`{name}` must be an object"));
    let mut scanner = Scanner::new(value);
    let mut object = scanner.object().ok_or_else(must_be_object)?;
    let mut found = [None; N];
    while let Some((key, value)) = object.next_member().map_err(|_| must_be_object())? {
        let Some(key) = key.decode() else { continue };
        let Some(place) = wanted.iter().position(|wanted| *wanted == key) else { continue };
        if found[place].replace(value).is_some() {
            return Err(invalid(format!("`{key}` appears more than once in `{name}`")));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::command::Commands;

    fn subscribe(fields: &str) -> Result<(Start, Option<u64>), String> {
        let frame = format!(r#"{{"action":"subscribe","channel":"a"{fields}}}"#);
        match Commands::new(&frame).next() {
            Some(Ok(Command::Subscribe { start, limit, .. })) => Ok((start, limit)),
            Some(Err(rejection)) => Err(rejection.message.into_owned()),
            other => panic!("{other:?}"),
        }
    }

    fn query(payload: &str) -> Result<HistoryQuery, String> {
        let frame = format!(r#"{{"type":"query","id":7,"payload":{payload}}}"#);
        match Commands::new(&frame).next() {
            Some(Ok(Command::History { channel, query, id })) => {
                assert_eq!((&*channel, id.map(RequestId::as_json)), ("a:b", Some("7")));
                Ok(query)
            }
            Some(Err(rejection)) => Err(rejection.message.into_owned()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_subscription_may_begin_in_the_past() {
        assert_eq!(subscribe(""), Ok((Start::Now, None)));
        let recover = |epoch, offset| Ok((Start::Recover { epoch, offset }, None));
        assert_eq!(
            subscribe(r#","recover":{"offset":3,"x":[],"epoch":"00000000000000ff"}"#),
            recover(Some(Epoch(255)), 3)
        );
        assert_eq!(
            subscribe(r#","recover":{"epoch":"other server","offset":18446744073709551615}"#),
            recover(None, u64::MAX)
        );
        let since = |since| Ok((Start::Since(since), Some(9)));
        assert_eq!(subscribe(r#","since":"start","limit":9"#), since(Since::Oldest));
        assert_eq!(subscribe(r#","since":0,"limit":9"#), since(Since::Offset(0)));
        assert_eq!(
            subscribe(r#","since":99999999999,"limit":9"#),
            since(Since::Offset(99_999_999_999))
        );
        assert_eq!(
            subscribe(r#","since":1700000000000,"limit":9"#),
            since(Since::Time(1_700_000_000_000))
        );
    }

    #[test]
    fn places_that_are_none_are_refused() {
        let since = "`since` must be \"start\", an offset or a Unix time in milliseconds";
        let offset = "`offset` must be a whole number from 0 to 18446744073709551615";
        for (fields, expected) in [
            (r#","since":-1"#, since),
            (r#","since":1.5"#, since),
            (r#","since":1e3"#, since),
            (r#","since":18446744073709551616"#, since),
            (r#","since":"end""#, since),
            (r#","since":null"#, since),
            (r#","limit":-1"#, "`limit` must be a whole number from 0 to 18446744073709551615"),
            (r#","recover":{"epoch":"a","offset":-1}"#, offset),
            (r#","recover":{"epoch":"a","offset":"1"}"#, offset),
            (r#","recover":{"epoch":"a"}"#, "`offset` is missing in `recover`"),
            (r#","recover":{"offset":1}"#, "`epoch` is missing in `recover`"),
            (r#","recover":{"epoch":1,"offset":1}"#, "`epoch` must be a string of Unicode text"),
            (r#","recover":7"#, "`recover` must be an object"),
            (
                r#","recover":{"offset":1,"off\u0073et":2}"#,
                "`offset` appears more than once in `recover`",
            ),
            (r#","recover":{},"since":1"#, "`recover` and `since` exclude each other"),
            (r#","since":1,"since":1"#, "`since` appears more than once"),
        ] {
            assert_eq!(subscribe(fields), Err(expected.to_owned()), "{fields}");
        }
    }

    #[test]
    fn a_query_asks_for_a_range() {
        let whole = HistoryQuery { since: Since::Oldest, until: None, limit: 100, reverse: false };
        assert_eq!(query(r#"{"resource":"history","parameters":{"channel":"a:b"}}"#), Ok(whole));
        assert_eq!(
            query(
                r#"{"parameters":{"reverse":true,"limit":1000,"until":9,"since":1700000000000,
                    "channel":"a\u003ab","more":{}},"resource":"hist\u006fry"}"#
            ),
            Ok(HistoryQuery {
                since: Since::Time(1_700_000_000_000),
                until: Some(Since::Offset(9)),
                limit: 1000,
                reverse: true
            })
        );
    }

    #[test]
    fn queries_are_refused_with_a_reason() {
        let limit = "`limit` must be a whole number from 1 to 1000";
        for (payload, expected) in [
            ("7", "`payload` must be an object"),
            ("{}", "`resource` is missing in `payload`"),
            (r#"{"resource":"history"}"#, "`channel` is missing"),
            (r#"{"resource":"history","parameters":[]}"#, "`parameters` must be an object"),
            (
                r#"{"resource":"history","parameters":{"channel":"system"}}"#,
                "the channel `system` is reserved",
            ),
            (r#"{"resource":"history","parameters":{"channel":"a:b","limit":0}}"#, limit),
            (r#"{"resource":"history","parameters":{"channel":"a:b","limit":1001}}"#, limit),
            (
                r#"{"resource":"history","parameters":{"channel":"a:b","until":"start"}}"#,
                "`until` must be an offset or a Unix time in milliseconds",
            ),
            (
                r#"{"resource":"history","parameters":{"channel":"a:b","reverse":1}}"#,
                "`reverse` must be true or false",
            ),
        ] {
            assert_eq!(query(payload), Err(expected.to_owned()), "{payload}");
        }
    }
}
