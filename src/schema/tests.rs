//! Schemas against texts, and files that are none.

use std::fs;

use super::*;

fn violation(schema: &str, text: &str) -> (String, String) {
    let violation = Schema::parse(schema).unwrap().check(text).expect_err(text);
    (violation.pointer, violation.rule)
}

fn refused(schema: &str) -> String {
    Schema::parse(schema).expect_err(schema)
}

/// A chat message; `change` is done to it.
fn message(change: impl FnOnce(&mut Value)) -> String {
    let mut message = serde_json::json!({
        "version": "1.2", "messageId": "0b4c1d3e-6a52-4b0c-9c3e-0a1b2c3d4e5f", "timestamp": 7,
        "type": "text", "sender": "alice", "channel": "chat:lobby",
        "payload": {"content": "hello", "mentions": ["bob"]}, "metadata": {}, "more": [1],
    });
    change(&mut message);
    message.to_string()
}

#[test]
fn the_envelope_is_checked_rule_by_rule() {
    let envelope = Schema::envelope();
    assert_eq!(envelope.check(&message(|_| {})), Ok(()));
    let long = "ü".repeat(4096);
    assert_eq!(envelope.check(&message(|m| m["payload"]["content"] = long.clone().into())), Ok(()));
    let image = serde_json::json!({"url": "https://a.example/b", "width": 1, "height": 0});
    type Change<'a> = Box<dyn FnOnce(&mut Value) + 'a>;
    let cases: [(Change<'_>, &str, &str); 10] = [
        (
            Box::new(|m| m["payload"]["content"] = (long + "x").into()),
            "/payload/content",
            "maxLength",
        ),
        (Box::new(|m| m["payload"] = serde_json::json!({})), "/payload", "required"),
        (Box::new(|m| m["payload"]["mentions"][0] = 1.into()), "/payload/mentions/0", "type"),
        (Box::new(|m| m["timestamp"] = (-1).into()), "/timestamp", "minimum"),
        (Box::new(|m| m["messageId"] = "7".into()), "/messageId", "format"),
        (Box::new(|m| m["version"] = "1".into()), "/version", "pattern"),
        (Box::new(|m| m["type"] = "video".into()), "/type", "enum"),
        (Box::new(|m| m["sender"] = "".into()), "/sender", "minLength"),
        (Box::new(|m| *m = Value::Null), "", "type"),
        (
            Box::new(|m| (m["type"], m["payload"]) = ("image".into(), image)),
            "/payload/height",
            "minimum",
        ),
    ];
    for (change, pointer, rule) in cases {
        let text = message(change);
        let violation = envelope.check(&text).expect_err(&text);
        assert_eq!((&*violation.pointer, &*violation.rule), (pointer, rule), "{text}");
    }
}

#[test]
fn drafts_from_07_to_2020_12_mean_what_they_say() {
    for draft in [
        "http://json-schema.org/draft-07/schema#",
        "https://json-schema.org/draft/2019-09/schema",
        "https://json-schema.org/draft/2020-12/schema",
    ] {
        let schema = format!(r#"{{"$schema":"{draft}","properties":{{"a":{{"maximum":3}}}}}}"#);
        assert_eq!(violation(&schema, r#"{"a":4}"#), ("/a".into(), "maximum".into()));
        assert_eq!(Schema::parse(&schema).unwrap().check(r#"{"a":3}"#), Ok(()));
    }
    // Only one of them has a tuple in `items`, only the other one `prefixItems`.
    let tuple = |draft, items| format!(r#"{{"$schema":"{draft}","{items}":[{{"type":"null"}}]}}"#);
    let old = tuple("http://json-schema.org/draft-07/schema#", "items");
    assert_eq!(violation(&old, "[1]"), ("/0".into(), "type".into()));
    let new = tuple("https://json-schema.org/draft/2020-12/schema", "prefixItems");
    assert_eq!(violation(&new, "[1]"), ("/0".into(), "type".into()));
    let wrong = tuple("https://json-schema.org/draft/2020-12/schema", "items");
    assert!(refused(&wrong).starts_with("at `/items`: "), "{}", refused(&wrong));
}

#[test]
fn a_schema_that_is_none_is_refused_with_its_place() {
    assert!(refused("{").starts_with("it is not JSON: "));
    assert!(refused("7").contains("7 is not of types"), "{}", refused("7"));
    let wrong = refused(r#"{"properties":{"a":{"type":"text"}}}"#);
    assert!(wrong.starts_with("at `/properties/a/type`: "), "{wrong}");
    let deep = format!("{}{}{}", r#"{"not":"#.repeat(65), "true", "}".repeat(65));
    assert!(refused(&deep).ends_with("nested deeper than 64"), "{}", refused(&deep));
    let deep = format!("{}{}{}", r#"{"not":"#.repeat(64), "true", "}".repeat(64));
    assert!(Schema::parse(&deep).is_ok());
}

#[test]
fn nothing_is_fetched() {
    for remote in ["http://127.0.0.1:1/x.json", "https://example.com/x.json", "file:///etc/passwd"]
    {
        let reason = refused(&format!(r#"{{"$ref":"{remote}"}}"#));
        assert!(reason.contains(remote), "{reason}");
    }
}

#[test]
fn patterns_are_linear_and_bounded() {
    let pattern = |pattern: &str| format!(r#"{{"pattern":{}}}"#, Value::from(pattern));
    for bad in ["(?=a)b", "(a)\\1", "(", "(\\w{500}){500}"] {
        refused(&pattern(bad));
    }
    // Backtracking would never end with this.
    let text = format!("\"{}!\"", "a".repeat(50_000));
    assert_eq!(violation(&pattern("^(a+)+$"), &text), (String::new(), "pattern".into()));
}

#[test]
fn a_schema_that_refers_to_itself_ends() {
    let tree = r##"{"type":"object","additionalProperties":{"$ref":"#"}}"##;
    let deep = |leaf: &str| format!("{}{leaf}{}", r#"{"a":"#.repeat(63), "}".repeat(63));
    assert_eq!(Schema::parse(tree).unwrap().check(&deep("{}")), Ok(()));
    assert_eq!(violation(tree, &deep("1")), ("/a".repeat(63), "type".into()));
    for endless in [
        r##"{"$ref":"#"}"##,
        r##"{"allOf":[{"$ref":"#"}]}"##,
        r##"{"$ref":"#/$defs/a","$defs":{"a":{"$ref":"#/$defs/b"},"b":{"anyOf":[{"$ref":"#/$defs/a"}]}}}"##,
    ] {
        if let Ok(schema) = Schema::parse(endless) {
            let _ = schema.check(r#"{"a":[1]}"#);
        }
    }
}

#[test]
fn what_is_said_has_a_bound_and_no_values() {
    let key = "k\u{e9}".repeat(40_000);
    let text = format!(r#"{{"{key}":"secret"}}"#);
    for schema in
        [r#"{"additionalProperties":false}"#, r#"{"additionalProperties":{"type":"null"}}"#]
    {
        let violation = Schema::parse(schema).unwrap().check(&text).unwrap_err();
        let said = violation.to_string();
        assert!(said.len() < 700 && !said.contains("secret"), "{said}");
    }
}

#[test]
fn a_text_that_is_not_clear_is_refused() {
    for text in [r#""\ud800""#, "1e999"] {
        assert_eq!(violation("true", text), (String::new(), "json".into()), "{text}");
    }
}

#[test]
fn files_have_a_bound_and_are_read_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.json");
    assert!(Schema::read(&path).unwrap_err().contains("No such file"));
    fs::write(&path, "{}".to_string() + &" ".repeat(1 << 20)).unwrap();
    assert_eq!(Schema::read(&path).unwrap_err(), "it is larger than 1048576 bytes");
    fs::write(&path, r#"{"type":"null"}"#).unwrap();

    let mut reader = SchemasReader::default();
    let source = SchemaSource::File(path);
    assert_eq!(reader.add(None, None), Ok(()));
    assert_eq!(reader.add(Some("a"), Some(&source)), Ok(()));
    assert_eq!(reader.add(Some("b"), Some(&source)), Ok(()));
    assert_eq!(reader.add(Some("c"), None), Ok(()));
    let schemas = reader.finish().unwrap();
    let of = |channel| schemas.of_channel(channel).map(std::sync::Arc::as_ptr);
    assert!(of("a:x").is_some() && of("a:x") == of("b:y"));
    for channel in ["c:x", "x", "a", "other:x", ":a"] {
        assert_eq!(of(channel), None, "{channel}");
    }
    assert_eq!(SchemasReader::default().finish(), None);
}
