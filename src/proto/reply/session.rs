//! What a client hears of its session.

use bytes::Bytes;

use super::{optional, standing_fields};
use crate::ids::{ConnectionId, SessionId, UserName};
use crate::proto::command::RequestId;
use crate::proto::encoder::{Part, text_frame};
use crate::proto::json;
use crate::proto::recall::Restored;

/// How long a connection takes to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkQuality {
    /// It has answered no ping yet.
    Unknown,
    /// Under 100 ms.
    Good,
    /// Under 500 ms.
    Slow,
    Bad,
}

impl LinkQuality {
    /// `rtt`: milliseconds from a ping to its pong.
    pub fn of(rtt: Option<u16>) -> Self {
        match rtt {
            None => Self::Unknown,
            Some(0..100) => Self::Good,
            Some(100..500) => Self::Slow,
            Some(500..) => Self::Bad,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Good => "good",
            Self::Slow => "slow",
            Self::Bad => "bad",
        }
    }
}

/// What the query `session` tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionFacts {
    pub session_id: SessionId,
    pub connection_id: ConnectionId,
    pub user: Option<UserName>,
    pub subscriptions: usize,
    /// Of the last ping that was answered, in milliseconds.
    pub rtt: Option<u16>,
    /// Milliseconds that the session outlives its connection.
    pub ttl_ms: u64,
}

/// The payload of the [`response`](super::response) with these facts.
pub fn session_facts(facts: &SessionFacts) -> String {
    let SessionFacts { session_id, connection_id, user, subscriptions, rtt, ttl_ms } = facts;
    let user = user.as_ref().map_or("null".to_owned(), |user| json::quote(user));
    let quality = LinkQuality::of(*rtt).as_str();
    let rtt = rtt.map_or("null".to_owned(), |rtt| rtt.to_string());
    format!(
        r#"{{"sessionId":"{session_id}","connectionId":"{connection_id}","userId":{user},"subscriptions":{subscriptions},"linkQuality":"{quality}","rtt":{rtt},"sessionTtl":{ttl_ms}}}"#
    )
}

/// What the query `sessions` tells of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    pub session_id: SessionId,
    pub connected: bool,
    pub subscriptions: usize,
    /// Since when its connection is there, or is not: Unix time in milliseconds.
    pub since: u64,
}

/// The payload of the [`response`](super::response) with these sessions. `more`: there are others.
pub fn session_list(sessions: impl Iterator<Item = Listed>, more: bool) -> String {
    let listed: Vec<_> = sessions
        .map(|Listed { session_id, connected, subscriptions, since }| {
            format!(
                r#"{{"sessionId":"{session_id}","connected":{connected},"subscriptions":{subscriptions},"since":{since}}}"#
            )
        })
        .collect();
    format!(r#"{{"sessions":[{}],"more":{more}}}"#, listed.join(","))
}

/// Tells a client that its connection has the session. Of each subscription: where it stands, or why
/// it is refused. `message_id` is the number of this message.
pub fn session_restored(
    (session_id, connection_id): (SessionId, ConnectionId),
    user: Option<&UserName>,
    subscriptions: &[Restored<'_>],
    id: Option<RequestId<'_>>,
    message_id: u64,
) -> Bytes {
    let [id_name, id] = optional(r#","requestId":"#, id.map(RequestId::as_json));
    let head = format!(
        r#"{{"type":"session_restored","id":"{message_id}","sessionId":"{session_id}","connectionId":"{connection_id}""#
    );
    let listed: Vec<_> = subscriptions
        .iter()
        .map(|Restored { channel, subscription_id, outcome }| match outcome {
            Ok(standing) => (channel, standing_fields(standing, *subscription_id)),
            Err(code) => {
                let fields = format!(r#","recovered":false,"reason":"{code}","code":"{code}""#);
                (channel, fields)
            }
        })
        .collect();
    let mut parts = vec![Part::raw(&head), id_name, id];
    if let Some(user) = user {
        parts.extend([Part::raw(r#","userId":"#), Part::String(user)]);
    }
    parts.push(Part::raw(r#","subscriptions":["#));
    for (index, (channel, fields)) in listed.iter().enumerate() {
        parts.push(Part::raw(if index == 0 { r#"{"channel":"# } else { r#",{"channel":"# }));
        parts.push(Part::String(channel));
        parts.push(Part::raw(fields));
        parts.push(Part::raw("}"));
    }
    parts.push(Part::raw("]}"));
    text_frame(&parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Epoch, Position, ShardId};
    use crate::proto::error_code::ErrorCode;
    use crate::proto::recall::{Recovery, Standing, Unavailable};

    const SESSION: SessionId = SessionId { shard: ShardId(1), secret: 10 };
    const CONNECTION: ConnectionId = ConnectionId { shard: ShardId(2), slot: 3, secret: 0 };

    fn payload(frame: Bytes) -> String {
        let header_len = if frame[1] < 126 { 2 } else { 4 };
        String::from_utf8(frame[header_len..].to_vec()).unwrap()
    }

    #[test]
    fn the_quality_of_a_link_is_that_of_its_pongs() {
        let quality = |rtt| LinkQuality::of(rtt).as_str();
        assert_eq!([None, Some(0), Some(99)].map(quality), ["unknown", "good", "good"]);
        assert_eq!(
            [100, 499, 500, u16::MAX].map(Some).map(quality),
            ["slow", "slow", "bad", "bad"]
        );
    }

    #[test]
    fn a_session_is_told_of_byte_exact() {
        let facts = SessionFacts {
            session_id: SESSION,
            connection_id: CONNECTION,
            user: UserName::parse("b\"b"),
            subscriptions: 2,
            rtt: Some(7),
            ttl_ms: 9,
        };
        let pair = r#""sessionId":"00010000000000000000000000000000000a","connectionId":"00020000000300000000000000000000000000000000""#;
        assert_eq!(
            session_facts(&facts),
            format!(
                r#"{{{pair},"userId":"b\"b","subscriptions":2,"linkQuality":"good","rtt":7,"sessionTtl":9}}"#
            )
        );
        let listed = Listed { session_id: SESSION, connected: true, subscriptions: 3, since: 4 };
        assert_eq!(
            session_list([listed, listed].into_iter(), false).matches("connected\":true,").count(),
            2
        );
        assert_eq!(
            session_list([listed].into_iter(), true),
            r#"{"sessions":[{"sessionId":"00010000000000000000000000000000000a","connected":true,"subscriptions":3,"since":4}],"more":true}"#
        );
        let position = Some(Position { epoch: Epoch(0xE), offset: 7 });
        let recovered = Some(Recovery { outcome: Ok(()), count: 3 });
        let live = Some(Recovery { outcome: Err(Unavailable::NoHistory), count: 0 });
        let restored =
            |channel, subscription_id, outcome| Restored { channel, subscription_id, outcome };
        let subscriptions = [
            restored("a\"", Some(3), Ok(Standing { position, recovery: recovered })),
            restored("b", None, Ok(Standing { position: None, recovery: live })),
            restored("c", None, Err(ErrorCode::BacklogFull)),
        ];
        let user = UserName::parse("b\"b");
        assert_eq!(
            payload(session_restored((SESSION, CONNECTION), user.as_ref(), &[], None, 5)),
            format!(
                r#"{{"type":"session_restored","id":"5",{pair},"userId":"b\"b","subscriptions":[]}}"#
            )
        );
        assert_eq!(
            payload(session_restored((SESSION, CONNECTION), None, &subscriptions, None, 5)),
            format!(
                r#"{{"type":"session_restored","id":"5",{pair},"subscriptions":[{{"channel":"a\"","subscriptionId":3,"epoch":"000000000000000e","offset":7,"recovered":true,"recoveredCount":3}},{{"channel":"b","recovered":false,"recoveredCount":0,"reason":"no_history","code":"position_unavailable"}},{{"channel":"c","recovered":false,"reason":"backlog_full","code":"backlog_full"}}]}}"#
            )
        );
    }
}
