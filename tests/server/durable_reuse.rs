//! Channels that keep little of much: the files of the log serve again and again, and a kill at any moment leaves
//! what is to be kept, and nothing of what a file held before.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::*;

/// Some 4,000 publications to a file.
const CONFIGURATION: &str = r#"
[channels]
level = "durable"
history_size = 1000
history_ttl = "1h"

[store]
segment_size = "1MiB"
cache_size = "4KiB"
"#;

const KILLS: usize = 4;
const KEPT: u64 = 1000;
/// Publications between two looks at the files.
const LOOK: u64 = 500;
/// Publications by which files have served again, some 25 of them.
const SOON: u64 = 100_000;
/// Files at a time, those that wait and the indexes among them.
const FILES_MAX: usize = 30;
/// Publications on their way at a time, also when the server is killed.
const WINDOW: u64 = 300;

fn launch(folder: &Path) -> Server {
    let path = |name| folder.join(name).to_str().expect("text").to_owned();
    Server::start(&["--config", &path("stentor.toml"), "--store", &path("log")])
}

/// Each publication tells its number, and is long enough to fill files.
fn data(number: u64) -> String {
    format!("\"{number} {}\"", "x".repeat(200))
}

fn number(publication: &Value) -> u64 {
    let text = publication["data"].as_str().expect("a text");
    text.split(' ').next().and_then(|digits| digits.parse().ok()).expect("a number")
}

/// Everything that is kept, which is what was acknowledged last; what came through besides is noted.
fn check(server: &Server, known: &mut BTreeMap<u64, u64>) {
    let mut peer = Peer::open(server);
    peer.send_text(r#"{"action":"subscribe","channel":"a","since":"start"}"#);
    let confirmation = peer.json()["data"].clone();
    let count = confirmation["recoveredCount"].as_u64().expect("a number");
    let begin = confirmation["offset"].as_u64().expect("an offset");
    let newest = known.keys().last().copied().unwrap_or(0);
    assert!(begin + count >= newest, "{confirmation}: {newest} was acknowledged");
    assert!(count == KEPT || begin == 0, "{confirmation}");
    for offset in begin + 1..=begin + count {
        let publication = peer.json();
        assert_eq!(publication["offset"], offset);
        let number = number(&publication);
        assert_eq!(*known.entry(offset).or_insert(number), number, "{offset}");
    }
}

/// Names of the log's files that wait to serve again.
fn spares(folder: &Path) -> BTreeSet<String> {
    let names: Vec<_> = fs::read_dir(folder.join("log"))
        .expect("it is there")
        .map(|entry| entry.expect("it is readable").file_name().into_string().expect("a text"))
        .collect();
    assert!(names.len() < FILES_MAX, "{names:?}");
    names.into_iter().filter(|name| name.ends_with(".spare")).collect()
}

/// Publishes until a file has served again, as files do that waited and are gone in a store without a bound, and
/// a random number of times behind that.
fn publish_until_reuse(
    peer: &mut Peer,
    folder: &Path,
    known: &mut BTreeMap<u64, u64>,
    sent: &mut u64,
    random: &mut Random,
) {
    let (begin, mut waiting) = (*sent, spares(folder));
    let (mut answered, mut until) = (0, None);
    while until.is_none_or(|until| answered < until) {
        assert!(until.is_some() || answered < SOON, "no file has served again");
        while *sent - begin < answered + WINDOW {
            *sent += 1;
            let (number, data) = (*sent, data(*sent));
            let action = r#""action":"publish","channel":"a""#;
            peer.send_text(&format!(r#"{{{action},"data":{data},"id":{number}}}"#));
        }
        let ack = peer.json();
        let place = (ack["offset"].as_u64(), ack["requestId"].as_u64());
        let (Some(offset), Some(number)) = place else { panic!("{ack}") };
        assert_eq!(known.insert(offset, number), None, "{offset} was given before");
        answered += 1;
        if until.is_none() && answered % LOOK == 0 {
            let now = spares(folder);
            if !waiting.is_subset(&now) {
                until = Some(answered + random.below(6000) as u64);
            }
            waiting = now;
        }
    }
}

#[test]
fn what_is_kept_survives_kills_while_files_serve_again() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("stentor.toml"), CONFIGURATION).expect("it is ours");
    let mut random = Random::new(12);
    let (mut known, mut sent) = (BTreeMap::new(), 0);
    for _ in 0..KILLS {
        let server = launch(folder.path());
        check(&server, &mut known);
        let mut peer = Peer::open(&server);
        publish_until_reuse(&mut peer, folder.path(), &mut known, &mut sent, &mut random);
        kill(server);
        let path = folder.path().join("log");
        let report = run(&["log", "verify", path.to_str().expect("text")]);
        assert!(report.status.success(), "{report:?}");
    }
    check(&launch(folder.path()), &mut known);
    let numbers: Vec<_> = known.values().collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "in the order of their publisher, each once");
}
