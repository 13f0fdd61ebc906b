//! What a `command` asks of a room, and the query for one.

use std::borrow::Cow;

use crate::ids::UserName;
use crate::proto::command::addressees::addressee;
use crate::proto::command::fields::{Fields, Refused, channel, decode, invalid};
use crate::proto::command::recall::{members, whole};
use crate::proto::command::{Command, RequestId};
use crate::proto::json::Scanner;
use crate::proto::room::{
    ROOM_METADATA_BYTES_MAX, ROOM_NAME_BYTES_MAX, ROOM_USERS_MAX, RoomAction, RoomPlan,
};

impl<'a> Fields<'a> {
    /// A `command`: of a room, or for the route of its type.
    pub fn command_of_type(
        &self,
        kind: Cow<'a, str>,
        id: Option<RequestId<'a>>,
    ) -> Result<Command<'a>, Refused> {
        let Some(action) = self.payload.and_then(room_action) else {
            return self.routed(kind, id, None);
        };
        // It is a message of the chat, whose version says how it is meant.
        self.check_version()?;
        let payload = self.payload.unwrap_or_default();
        let [parameters, target] = members(payload, "payload", ["parameters", "target"])?;
        let names = ["room", "name", "maxUsers", "metadata", "target", "user"];
        let [room, name, users_max, metadata, aimed, user] = match parameters {
            Some(parameters) => members(parameters, "parameters", names)?,
            None => [None; 6],
        };
        let aims = matches!(&*action, "mute" | "unmute" | "kick");
        let of_chat = match self.metadata {
            Some(metadata) if self.channel.is_none() => {
                members(metadata, "metadata", ["channel"])?[0]
            }
            _ => self.channel,
        };
        // Who joins has nobody to aim at: what it names is the room.
        let room = room.or(of_chat).or(target.filter(|_| !aims));
        let room = room.map(|room| channel(Some(room))).transpose()?;
        let action = match &*action {
            "join" => RoomAction::Join,
            "leave" => RoomAction::Leave,
            "delete_room" => RoomAction::Delete,
            "kick" => RoomAction::Kick { target: aim(aimed.or(user).or(target))? },
            "create_room" => RoomAction::Create(plan(name, users_max, metadata)?),
            mute => {
                let target = aim(aimed.or(user).or(target))?;
                RoomAction::Mute { target, muted: mute == "mute" }
            }
        };
        Ok(Command::Room { room, action, id })
    }
}

/// The action, if it is one of rooms.
fn room_action(payload: &str) -> Option<Cow<'_, str>> {
    let [action] = members(payload, "payload", ["action"]).ok()?;
    let action = decode(action?, "action").ok()?;
    let known = ["create_room", "delete_room", "join", "leave", "mute", "unmute", "kick"];
    known.contains(&&*action).then_some(action)
}

/// Whom a command is aimed at.
fn aim(target: Option<&str>) -> Result<UserName, Refused> {
    let target = target.ok_or_else(|| invalid("`target` is missing"))?;
    addressee(&decode(target, "target")?, "target")
}

fn plan(
    name: Option<&str>,
    users_max: Option<&str>,
    metadata: Option<&str>,
) -> Result<RoomPlan, Refused> {
    let name = name.map(|name| decode(name, "name")).transpose()?;
    if name.as_ref().is_some_and(|name| !(1..=ROOM_NAME_BYTES_MAX).contains(&name.len())) {
        return Err(invalid(format!("`name` must have 1 to {ROOM_NAME_BYTES_MAX} bytes")));
    }
    let users_max = users_max.map(|value| whole(value, "maxUsers")).transpose()?;
    let users_max = users_max.map(|value| match u32::try_from(value) {
        Ok(value @ 1..=ROOM_USERS_MAX) => Ok(value),
        _ => Err(invalid(format!("`maxUsers` must be a whole number from 1 to {ROOM_USERS_MAX}"))),
    });
    let users_max = users_max.transpose()?;
    if metadata.is_some_and(|value| {
        Scanner::new(value).object().is_none() || value.len() > ROOM_METADATA_BYTES_MAX
    }) {
        return Err(invalid(format!(
            "`metadata` must be an object of at most {ROOM_METADATA_BYTES_MAX} bytes"
        )));
    }
    Ok(RoomPlan { name: name.map(Into::into), users_max, metadata: metadata.map(Into::into) })
}

/// The query `room`; `parameters` is JSON.
pub(in crate::proto) fn room<'a>(
    parameters: Option<&'a str>,
    id: Option<RequestId<'a>>,
) -> Result<Command<'a>, Refused> {
    let [room] = match parameters {
        Some(parameters) => members(parameters, "parameters", ["room"])?,
        None => [None],
    };
    let room = room.map(|room| channel(Some(room))).transpose()?;
    Ok(Command::Room { room, action: RoomAction::Describe, id })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::command::Commands;

    fn asked(message: &str) -> Result<(Option<String>, RoomAction), String> {
        match Commands::new(message).next() {
            Some(Ok(Command::Room { room, action, .. })) => Ok((room.map(Cow::into_owned), action)),
            Some(Err(rejection)) => Err(rejection.message.into_owned()),
            other => panic!("{message}: {other:?}"),
        }
    }

    #[test]
    fn the_room_and_the_target_stand_in_many_places() {
        let user = |name: &str| UserName::parse(name).expect("a name");
        let a = || Some("a:b".to_owned());
        for (message, room, action) in [
            (r#"{"payload":{"action":"join","parameters":{"room":"a:b"}}"#, a(), RoomAction::Join),
            (r#"{"payload":{"action":"join","target":"a:b"}"#, a(), RoomAction::Join),
            (r#"{"payload":{"action":"leave"},"channel":"a:b""#, a(), RoomAction::Leave),
            (r#"{"payload":{"action":"leave"}"#, None, RoomAction::Leave),
            (
                r#"{"payload":{"action":"kick","target":"bob"},"metadata":{"channel":"a:b"}"#,
                a(),
                RoomAction::Kick { target: user("bob") },
            ),
            (
                r#"{"payload":{"action":"unmute","parameters":{"room":"a:b","user":"bob"}}"#,
                a(),
                RoomAction::Mute { target: user("bob"), muted: false },
            ),
            (
                r#"{"payload":{"action":"create_room","parameters":{"room":"a:b","name":"A","maxUsers":2,"metadata":{"x": 1}}}"#,
                a(),
                RoomAction::Create(RoomPlan {
                    name: Some("A".into()),
                    users_max: Some(2),
                    metadata: Some(r#"{"x": 1}"#.into()),
                }),
            ),
        ] {
            assert_eq!(asked(&format!(r#"{message},"type":"command"}}"#)), Ok((room, action)));
        }
    }

    #[test]
    fn what_a_room_cannot_be_is_refused() {
        for (parameters, expected) in [
            (r#"{"room":"system"}"#, "the channel `system` is reserved"),
            (r#"{"room":7}"#, "`channel` must be a string of Unicode text"),
            (r#"{"name":""}"#, "`name` must have 1 to 255 bytes"),
            (r#"{"maxUsers":0}"#, "`maxUsers` must be a whole number from 1 to 1000000"),
            (r#"{"metadata":[]}"#, "`metadata` must be an object of at most 4096 bytes"),
            ("7", "`parameters` must be an object"),
        ] {
            let payload = format!(r#"{{"action":"create_room","parameters":{parameters}}}"#);
            let message = format!(r#"{{"type":"command","payload":{payload}}}"#);
            assert_eq!(asked(&message), Err(expected.to_owned()), "{parameters}");
        }
        let newer = r#"{"type":"command","version":"2.0","payload":{"action":"leave"}}"#;
        let said = asked(newer).expect_err("another major version");
        assert!(said.starts_with("version `2.0` is not spoken"), "{said}");
        let kick = r#"{"type":"command","payload":{"action":"kick"}}"#;
        assert_eq!(asked(kick), Err("`target` is missing".to_owned()));
        // What is no action of rooms may have a route.
        for payload in [r#"{"action":"dance"}"#, r#"{"action":7}"#, "7", "{}"] {
            let message = format!(r#"{{"type":"command","payload":{payload}}}"#);
            assert!(matches!(Commands::new(&message).next(), Some(Ok(Command::Routed(_)))));
        }
    }
}
