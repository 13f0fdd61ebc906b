//! The JSON scanner and the commands on top of it against `serde_json` and `simd-json`.
//!
//! Differences, none of which is about grammar: we stop at a depth of 64, they at 128 or later;
//! `simd-json` refuses numbers beyond its types and escaped surrogates without a partner.

use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::value::RawValue;

use crate::proto::json::{RawString, Scanner};
use crate::proto::{Command, Commands, Data, ErrorCode};

fn blank() -> impl Strategy<Value = &'static str> {
    select(vec!["", "", "", "", " ", "\t", "\r\n", "  "])
}

fn string() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => "[a-z ]{0,12}",
        2 => "[^\"\\\\\\x00-\\x1f]{0,4}",
        1 => select(vec!["\\n", "\\\"", "\\\\", "\\/", "\\u00e9", "\\ud83d\\ude00", "\\ud800", "\\uDC00x"])
            .prop_map(str::to_owned),
    ];
    proptest::collection::vec(piece, 0..4).prop_map(|pieces| format!("\"{}\"", pieces.concat()))
}

fn scalar() -> impl Strategy<Value = String> {
    let number = select(vec![
        "0",
        "-0",
        "7",
        "-12",
        "1.5",
        "1e5",
        "2E-3",
        "0.10e+2",
        "1e999",
        "18446744073709551616",
        "-9223372036854775809",
    ]);
    prop_oneof![
        3 => string(),
        2 => number.prop_map(str::to_owned),
        1 => any::<i64>().prop_map(|number| number.to_string()),
        1 => any::<f64>().prop_filter("JSON has no others", |number| number.is_finite())
            .prop_map(|number| format!("{number:e}")),
        1 => select(vec!["null", "true", "false"]).prop_map(str::to_owned),
    ]
}

fn document() -> impl Strategy<Value = String> {
    scalar().prop_recursive(4, 24, 4, |inner| {
        let element =
            (blank(), inner.clone(), blank()).prop_map(|(a, value, b)| format!("{a}{value}{b}"));
        let member = (blank(), string(), blank(), blank(), inner, blank())
            .prop_map(|(a, key, b, c, value, d)| format!("{a}{key}{b}:{c}{value}{d}"));
        prop_oneof![
            proptest::collection::vec(element, 0..4)
                .prop_map(|list| format!("[{}]", list.join(","))),
            proptest::collection::vec(member, 0..4)
                .prop_map(|list| format!("{{{}}}", list.join(","))),
        ]
    })
}

/// Characters that a parser decides by.
fn character() -> impl Strategy<Value = char> {
    prop_oneof![
        select("{}[]\",:\\ \n\t0123456789.-+eEutfnald".chars().collect::<Vec<_>>()),
        any::<char>()
    ]
}

#[derive(Debug, Clone)]
enum Edit {
    Insert(Index, char),
    Remove(Index),
    Replace(Index, char),
    Cut(Index),
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let edit = prop_oneof![
        (any::<Index>(), character()).prop_map(|(at, new)| Edit::Insert(at, new)),
        any::<Index>().prop_map(Edit::Remove),
        (any::<Index>(), character()).prop_map(|(at, new)| Edit::Replace(at, new)),
        any::<Index>().prop_map(Edit::Cut),
    ];
    proptest::collection::vec(edit, 1..4)
}

fn mutate(text: &str, edits: &[Edit]) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    for edit in edits {
        if chars.is_empty() {
            break;
        }
        match edit {
            Edit::Insert(at, new) => chars.insert(at.index(chars.len()), *new),
            Edit::Remove(at) => drop(chars.remove(at.index(chars.len()))),
            Edit::Replace(at, new) => {
                let at = at.index(chars.len());
                chars[at] = *new;
            }
            Edit::Cut(at) => chars.truncate(at.index(chars.len())),
        }
    }
    chars.into_iter().collect()
}

/// The one value in `text`, if that is all there is.
fn scan(text: &str) -> Option<&str> {
    let mut scanner = Scanner::new(text);
    let value = scanner.value().ok()?;
    scanner.whitespace();
    scanner.rest().is_empty().then_some(value)
}

/// Whether `text` has what `simd-json` may refuse although it is JSON.
fn is_beyond_simd_json(text: &str) -> bool {
    let has_long_number = text.as_bytes().windows(18).any(|run| run.iter().all(u8::is_ascii_digit));
    let has_exponent = text
        .bytes()
        .zip(text.bytes().skip(1))
        .any(|(a, b)| a.is_ascii_digit() && matches!(b, b'e' | b'E'));
    has_long_number || has_exponent || text.contains("\\ud") || text.contains("\\uD")
}

fn check_verdict(text: &str) -> Result<(), TestCaseError> {
    let ours = scan(text);
    let theirs = serde_json::from_str::<&RawValue>(text).ok().map(RawValue::get);
    prop_assert_eq!(ours, theirs);

    let tree = serde_json::from_str::<serde_json::Value>(text).is_ok();
    let simd = simd_json::to_owned_value(&mut text.as_bytes().to_vec()).is_ok();
    prop_assert!(ours.is_some() || (!tree && !simd), "refused by us alone");
    if !is_beyond_simd_json(text) {
        prop_assert_eq!(ours.is_some(), tree, "serde_json::Value");
        prop_assert_eq!(ours.is_some(), simd, "simd-json");
    }
    Ok(())
}

fn check_publish(text: &str) -> Result<(), TestCaseError> {
    let is_json = serde_json::from_str::<&RawValue>(text).is_ok();
    let commands: Vec<_> = Commands::new(text).collect();
    let is_invalid_json =
        matches!(&commands[..], [Err(rejection)] if rejection.code == ErrorCode::InvalidJson);
    if is_json {
        prop_assert_eq!(commands.len(), 1);
        prop_assert!(!is_invalid_json);
    } else if !text.contains('\n') {
        prop_assert!(is_invalid_json);
    }
    if let [Ok(Command::Publish { channel, data, .. })] = &commands[..] {
        #[derive(serde::Deserialize)]
        struct Publish<'a> {
            channel: String,
            #[serde(borrow)]
            data: &'a RawValue,
        }
        match serde_json::from_str::<Publish<'_>>(text) {
            Ok(theirs) => {
                prop_assert_eq!(&theirs.channel, channel);
                prop_assert_eq!(Data::Json(theirs.data.get()), *data);
            }
            // `serde_json` decodes every key, we only those that may be known.
            Err(error) => prop_assert!(text.contains("\\u"), "{}", error),
        }
    }
    Ok(())
}

fn publish() -> impl Strategy<Value = String> {
    let members =
        (string(), document(), string(), document()).prop_map(|(channel, data, key, value)| {
            vec![
                "\"action\":\"publish\"".to_owned(),
                format!("\"channel\" : {channel}"),
                format!("\"data\": {data} "),
                format!("{key}:{value}"),
            ]
        });
    members
        .prop_flat_map(|members| Just(members).prop_shuffle())
        .prop_map(|members| format!(" {{{}}}", members.join(", ")))
}

/// As `JSON.stringify` writes it, with more members or without.
fn usual_publish() -> impl Strategy<Value = String> {
    let more =
        select(vec!["", ",\"id\":7", ",\"echo\":false", ",\"data\":1", ",\"channel\":\"b\"", ","]);
    (string(), document(), more, blank()).prop_map(|(channel, data, more, behind)| {
        format!("{{\"action\":\"publish\",\"channel\":{channel},\"data\":{data}{more}}}{behind}")
    })
}

proptest! {
    #[test]
    fn the_usual_form_is_read_as_any_other(text in usual_publish(), edits in edits()) {
        for text in [mutate(&text, &edits), text] {
            check_publish(&text)?;
            // Nobody writes it like this: it is read in the other way.
            let unusual = format!(" {text}");
            if !text.is_empty() {
                prop_assert!(Commands::new(&text).eq(Commands::new(&unusual)), "{}", text);
            }
        }
    }

    #[test]
    fn documents_have_one_verdict(text in document()) {
        prop_assert_eq!(scan(&text), Some(&text[..]));
        check_verdict(&text)?;
    }

    #[test]
    fn mutated_documents_have_one_verdict(text in document(), edits in edits()) {
        check_verdict(&mutate(&text, &edits))?;
    }

    #[test]
    fn strings_decode_as_with_serde_json(text in string(), edits in edits()) {
        for text in [mutate(&text, &edits), text] {
            if let Some(string) = scan(&text).and_then(RawString::of_value) {
                let theirs = serde_json::from_str::<String>(&text).ok();
                prop_assert_eq!(string.decode().map(|text| text.into_owned()), theirs);
            }
        }
    }

    #[test]
    fn publications_keep_their_span(text in publish(), edits in edits()) {
        check_publish(&text)?;
        check_publish(&mutate(&text, &edits))?;
    }

    #[test]
    fn no_text_panics(text in any::<String>(), edits in edits()) {
        Commands::new(&text).for_each(drop);
        Commands::new(&mutate("{\"type\":\"ping\",\"id\":\"\\u0041\"}", &edits)).for_each(drop);
    }
}
