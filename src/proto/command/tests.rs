//! Requests of every kind, as they are written, and what is refused of them.

use super::*;

fn all(frame: &str) -> Vec<Result<Command<'_>, Rejection<'_>>> {
    Commands::new(frame).collect()
}

fn one(frame: &str) -> Result<Command<'_>, Rejection<'_>> {
    let mut commands = all(frame);
    assert_eq!(commands.len(), 1, "{frame}");
    commands.remove(0)
}

/// The same, with what is wrong in words.
pub(super) fn read(frame: &str) -> Result<Command<'_>, String> {
    one(frame).map_err(|rejection| rejection.message.into_owned())
}

fn rejected(frame: &str) -> (ErrorCode, String) {
    let rejection = one(frame).expect_err(frame);
    (rejection.code, rejection.message.into_owned())
}

fn subscribe(channel: &str) -> Command<'_> {
    Command::Subscribe {
        channel: channel.into(),
        start: Start::Now,
        limit: None,
        id: None,
        filter: None,
    }
}

#[test]
fn the_three_actions() {
    assert_eq!(one(r#"{"action":"subscribe","channel":"a"}"#), Ok(subscribe("a")));
    assert_eq!(
        one(r#"{"id":-7,"channel":"a:b","action":"unsubscribe"}"#),
        Ok(Command::Unsubscribe {
            subscription: Subscription::Channel("a:b".into()),
            id: Some(RequestId("-7"))
        })
    );
    assert_eq!(
        one(r#" { "data" : { "a" : [1, "x\n"] } , "channel":"news","action":"publish"} "#),
        Ok(Command::Publish {
            channel: "news".into(),
            data: Data::Json(r#"{ "a" : [1, "x\n"] }"#),
            echo: true,
            id: None,
            message_id: None,
            filter: None,
            tags: None,
        })
    );
    assert_eq!(
        one(
            r#"{"action":"publish","channel":"c","data":null,"echo":false,"id":"x","messageId":"m\u0031","more":[{}]}"#
        ),
        Ok(Command::Publish {
            channel: "c".into(),
            data: Data::Json("null"),
            echo: false,
            id: Some(RequestId("\"x\"")),
            message_id: Some(r#""m\u0031""#),
            filter: None,
            tags: None,
        })
    );
}

#[test]
fn tags_and_the_filters_over_them() {
    let frame = r#"{"action":"publish","tags":{ "a":"\u0062"},"channel":"c","data":1}"#;
    let Ok(Command::Publish { tags: Some(tags), data: Data::Json("1"), .. }) = one(frame) else {
        panic!("{frame}")
    };
    assert_eq!(tags.as_json(), r#"{"a":"b"}"#);
    let none = one(r#"{"action":"publish","tags":{},"channel":"c","data":1}"#);
    assert!(matches!(none, Ok(Command::Publish { tags: None, .. })));
    let frame = r#"{"action":"subscribe","channel":"c","filter":"a == '\u0062'"}"#;
    let Ok(Command::Subscribe { filter: Some(filter), .. }) = one(frame) else { panic!("{frame}") };
    assert_eq!(filter.text(), "a == 'b'");
}

#[test]
fn pings_and_pongs() {
    assert_eq!(one(r#"{"type":"ping"}"#), Ok(Command::Ping { id: None, timestamp: None }));
    assert_eq!(
        one(r#"{"type":"ping","id":1,"timestamp":1.5e3}"#),
        Ok(Command::Ping { id: Some(RequestId("1")), timestamp: Some("1.5e3") })
    );
    assert_eq!(
        one(r#"{"type":"ping","timestamp":"2026-01-01"}"#),
        Ok(Command::Ping { id: None, timestamp: Some("\"2026-01-01\"") })
    );
    assert_eq!(one(r#"{"type":"pong","timestamp":[]}"#), Ok(Command::Pong));
}

#[test]
fn escapes_in_keys_actions_and_channels_are_decoded() {
    assert_eq!(
        one(r#"{"\u0061ction":"sub\u0073cribe","channel":"\u00fc\/x"}"#),
        Ok(subscribe("ü/x"))
    );
    assert_eq!(one(r#"{"\ud800":1,"action":"subscribe","channel":"a"}"#), Ok(subscribe("a")));
    let (code, message) = rejected(r#"{"action":"subscribe","channel":"\ud800"}"#);
    assert_eq!(
        (code, &*message),
        (ErrorCode::InvalidMessage, "`channel` must be a string of Unicode text")
    );
}

#[test]
fn several_messages_are_separated_by_newlines() {
    let frame = "\n{\"action\":\"subscribe\",\n \"channel\":\"a\"}\r\n \n{\"type\":\"pong\"}\n7\n{\"type\":\"pong\"}\n\n";
    let commands = all(frame);
    assert_eq!(commands.len(), 4);
    assert_eq!(commands[0], Ok(subscribe("a")));
    assert_eq!(commands[1], Ok(Command::Pong));
    assert_eq!(commands[2].as_ref().unwrap_err().code, ErrorCode::InvalidMessage);
    assert_eq!(commands[3], Ok(Command::Pong));
}

#[test]
fn invalid_json_drops_the_rest_of_the_frame() {
    let pong = r#"{"type":"pong"}"#;
    let frame = format!("{pong}\n{{\"type\" \"pong\"}}\n{pong}");
    let commands = all(&frame);
    assert_eq!(commands.len(), 2);
    assert_eq!(commands[1].as_ref().unwrap_err().code, ErrorCode::InvalidJson);
    // Not separated by a newline: not even the first is obeyed.
    for frame in [format!("{pong} {pong}"), format!("{pong}{pong}"), format!("{pong}x")] {
        assert_eq!(rejected(&frame).0, ErrorCode::InvalidJson);
    }
}

#[test]
fn frames_without_a_message_are_invalid() {
    for frame in ["", " ", "\n\r\n\t"] {
        assert_eq!(rejected(frame).0, ErrorCode::InvalidJson);
    }
    let deep = "[".repeat(100);
    let (code, message) = rejected(&deep);
    assert_eq!(code, ErrorCode::InvalidJson);
    assert_eq!(message, "the message is nested deeper than 64");
}

#[test]
fn fields_are_named_when_they_are_wrong() {
    let long = format!(r#"{{"type":"ping","id":"{}"}}"#, "x".repeat(65));
    let cases = [
        ("[]", "a message must be an object"),
        ("{}", "a message needs `action` or `type`"),
        (r#"{"action":1}"#, "`action` must be a string of Unicode text"),
        (r#"{"type":null}"#, "`type` must be a string of Unicode text"),
        (r#"{"action":"subscribe"}"#, "`channel` is missing"),
        (r#"{"action":"subscribe","channel":1}"#, "`channel` must be a string of Unicode text"),
        (r#"{"action":"publish","channel":"a"}"#, "`data` is missing"),
        (r#"{"action":"publish","channel":"a","data":1,"echo":0}"#, "`echo` must be true or false"),
        (
            r#"{"action":"publish","channel":"a","data":1,"messageId":7}"#,
            "`messageId` must be a string of 1 to 128 bytes",
        ),
        (
            r#"{"action":"publish","channel":"a","data":1,"filter":["a"]}"#,
            "`filter` must be a string of Unicode text",
        ),
        (
            r#"{"action":"publish","channel":"a","data":1,"filter":"a == "}"#,
            "`filter`: expected a value: a number, true, false or a text in quotes at byte 5",
        ),
        (r#"{"action":"publish","channel":"a","data":1,"tags":[]}"#, "`tags` must be an object"),
        (
            r#"{"action":"publish","channel":"a","data":1,"tags":{"a":"b"},"to":{"user":"b"}}"#,
            "`tags` and `to` exclude each other",
        ),
        (
            r#"{"action":"subscribe","channel":"a","filter":"a >"}"#,
            "`filter`: expected a value: a number, true, false or a text in quotes at byte 3",
        ),
        (r#"{"type":"ping","id":1.5}"#, "`id` must be an integer or a string of 1 to 64 bytes"),
        (r#"{"type":"ping","id":""}"#, "`id` must be an integer or a string of 1 to 64 bytes"),
        (&long, "`id` must be an integer or a string of 1 to 64 bytes"),
        (
            r#"{"type":"ping","timestamp":{}}"#,
            "`timestamp` must be a number or a string, of at most 64 bytes",
        ),
        (
            r#"{"action":"subscribe","channel":"a","channel":"b"}"#,
            "`channel` appears more than once",
        ),
        (r#"{"type":"pong","i\u0064":1,"id":2}"#, "`id` appears more than once"),
    ];
    for (frame, expected) in cases {
        assert_eq!(rejected(frame), (ErrorCode::InvalidMessage, expected.to_owned()), "{frame}");
    }
}

#[test]
fn unknown_names_are_shown_short_and_escaped() {
    let frame = format!(r#"{{"action":"a\n{}"}}"#, "x".repeat(1000));
    let (code, message) = rejected(&frame);
    assert_eq!(code, ErrorCode::UnknownAction);
    assert_eq!(message, format!("unknown action `a\\n{}`", "x".repeat(62)));
    let long = "x".repeat(65);
    let (code, message) = rejected(&format!(r#"{{"type":"{long}"}}"#));
    assert_eq!(code, ErrorCode::NoRoute);
    assert_eq!(message, format!("no route for type `{}`", &long[1..]));
}

#[test]
fn what_is_not_built_in_goes_to_its_route() {
    let frame = r#" {"type":"d\u0061nce","id":7,"messageId":"m","channel":"a","x":[ ]} "#;
    let Ok(Command::Routed(message)) = one(frame) else { panic!("{frame}") };
    assert_eq!((&*message.kind, message.text), ("dance", frame.trim()));
    assert_eq!((message.id, message.message_id), (Some(RequestId("7")), Some("\"m\"")));
    assert_eq!((message.channel.as_deref(), &message.resource), (Some("a"), &None));
    let refused = message.no_route();
    assert_eq!((refused.code, refused.family), (ErrorCode::NoRoute, Family::Type));
    assert_eq!(refused.message, "no route for type `dance`");
    // What its other fields must be is not ours to know.
    let frame = r#"{"type":"command","messageId":7,"channel":{},"data":null}"#;
    let Ok(Command::Routed(message)) = one(frame) else { panic!("{frame}") };
    assert_eq!((message.message_id, &message.channel), (None, &None));
    assert_eq!(rejected(r#"{"type":"dance","id":{}}"#).0, ErrorCode::InvalidMessage);
    let frame = r#"{"type":"query","payload":{"resource":"weather"}}"#;
    let Ok(Command::Routed(message)) = one(frame) else { panic!("{frame}") };
    assert_eq!(message.no_route().message, "no route for query `weather`");
}

#[test]
fn channel_names_are_checked() {
    let subscribe = |channel: &str| format!(r#"{{"action":"subscribe","channel":"{channel}"}}"#);
    assert_eq!(rejected(&subscribe("system")).0, ErrorCode::ChannelReserved);
    assert_eq!(rejected(&subscribe("")).0, ErrorCode::ChannelInvalid);
    assert_eq!(rejected(&subscribe("a\\u0000")).0, ErrorCode::ChannelInvalid);
    assert_eq!(rejected(&subscribe(&"x".repeat(256))).0, ErrorCode::ChannelInvalid);
}

#[test]
fn a_rejection_knows_its_family_channel_and_id() {
    let frame = r#"{"action":"publish","type":"ping","channel":"a","id":"x"}"#;
    let rejection = one(frame).unwrap_err();
    assert_eq!(rejection.family, Family::Action);
    assert_eq!(rejection.channel.as_deref(), Some("a"));
    assert_eq!(rejection.id, Some(RequestId("\"x\"")));

    let frame = r#"{"type":"ping","id":7,"timestamp":[]}"#;
    let rejection = one(frame).unwrap_err();
    assert_eq!((rejection.family, rejection.id), (Family::Type, Some(RequestId("7"))));

    let frame = r#"{"action":"dance","id":7,"id":8}"#;
    assert_eq!(one(frame).unwrap_err().id, None);
    let frame = format!(r#"{{"action":"subscribe","channel":"{}"}}"#, "x".repeat(256));
    assert_eq!(one(&frame).unwrap_err().channel, None);
}
