//! `/metrics`: the format of Prometheus, and numbers that are true.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;

use super::{ALICE, authenticate, start_with_users};
use crate::support::*;

/// Every sample of a text in the format of Prometheus, with its labels. Strict: what breaks a rule of
/// the format or of its conventions panics.
fn parse_metrics(text: &str) -> BTreeMap<String, f64> {
    let is_name = |name: &str| {
        !name.is_empty()
            && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
    };
    let mut samples = BTreeMap::new();
    let mut families = BTreeSet::new();
    let mut lines = text.strip_suffix('\n').expect("the last line ends too").split('\n').peekable();
    while let Some(line) = lines.next() {
        let help = line.strip_prefix("# HELP ").unwrap_or_else(|| panic!("no HELP: {line}"));
        let (name, help) = help.split_once(' ').expect("a name and a text");
        assert!(is_name(name) && !help.trim().is_empty() && !help.ends_with('.'), "{line}");
        assert!(families.insert(name), "{name} comes twice");
        let kind = lines.next().and_then(|line| line.strip_prefix(&format!("# TYPE {name} ")));
        let kind = kind.unwrap_or_else(|| panic!("no TYPE for {name}"));
        assert!(["counter", "gauge", "histogram"].contains(&kind), "{name} is a {kind}");
        assert_eq!(name.ends_with("_total"), kind == "counter", "{name} is a {kind}");
        for unit in ["ms", "us", "milliseconds", "microseconds", "kib"] {
            assert!(
                name.split('_').all(|word| word != unit),
                "{name}: seconds and bytes are the units"
            );
        }
        let mut count = 0;
        while let Some(sample) = lines.next_if(|line| !line.starts_with('#')) {
            let (series, value) = sample.rsplit_once(' ').expect("a series and a value");
            let (sampled, labels) = series.split_once('{').unwrap_or((series, "}"));
            let suffixes = ["_bucket", "_sum", "_count"];
            let base = suffixes.iter().find_map(|suffix| sampled.strip_suffix(suffix));
            let belongs = sampled == name || (kind == "histogram" && base == Some(name));
            assert!(belongs, "{sample} below {name}");
            let labels = labels.strip_suffix('}').expect("a brace");
            for label in labels.split(',').filter(|label| !label.is_empty()) {
                let (label, value) = label.split_once('=').expect("a label and its value");
                assert!(
                    is_name(label) && value.starts_with('"') && value.ends_with('"'),
                    "{sample}"
                );
            }
            let value: f64 = value.parse().unwrap_or_else(|_| panic!("no number: {sample}"));
            assert!(value >= 0.0, "{sample}");
            assert!(samples.insert(series.to_owned(), value).is_none(), "{series} comes twice");
            count += 1;
        }
        assert!(count > 0, "{name} has no sample");
    }
    samples
}

#[test]
fn what_happens_is_counted_by_namespace() {
    let (_folder, api) = start_with_users(&["--set", "namespaces.kept.level=durable"]);
    let mut clients = open_on_both_shards(&api.server);
    for (peer, _) in &mut clients {
        authenticate(peer, ALICE);
        peer.subscribe("x");
    }
    let [(first, _), (second, _)] = &mut clients;
    first.send_text(r#"{"action":"subscribe","channel":"kept:a"}"#);
    assert_eq!(first.json()["data"]["type"], "subscription_confirm");
    for number in 1..=3 {
        second.publish("kept:a", &number.to_string());
        assert_eq!(first.json()["offset"], number);
    }
    // One that reads from the history, and one who has nobody.
    second.send_text(r#"{"action":"subscribe","channel":"kept:a","since":"start"}"#);
    assert_eq!(second.json()["data"]["recoveredCount"], 3);
    for number in 1..=3 {
        assert_eq!(second.json()["offset"], number);
    }
    second.publish_acked("other:a", "1");
    let sent = api.call("send", &json!({"channel": "chat:x", "data": 1, "users": ["alice"]}));
    assert_eq!(sent["responses"][0], json!({"result": {}}));
    for (peer, _) in &mut clients {
        peer.expect_text(r#"{"channel":"chat:x","data":1}"#);
        peer.send_text(r#"{"type":"ping"}"#);
        peer.expect_text(r#"{"type":"pong"}"#);
    }
    let samples = parse_metrics(&api.get("/metrics").body);
    for (namespace, publications, deliveries) in
        [("(none)", 1.0, 0.0), ("chat", 1.0, 2.0), ("kept", 3.0, 6.0), ("mail", 0.0, 0.0)]
    {
        let sum = |name: &str| {
            let series = |shard| {
                format!(
                    "stentor_namespace_{name}_total{{shard=\"{shard}\",namespace=\"{namespace}\"}}"
                )
            };
            samples[&series(0)] + samples[&series(1)]
        };
        assert_eq!(
            (sum("publications"), sum("deliveries")),
            (publications, deliveries),
            "{namespace}"
        );
    }
}

#[test]
fn metrics_are_in_the_format_of_prometheus_and_true() {
    let api = Api::start(&[]);
    let mut clients = open_on_both_shards(&api.server);
    for (peer, _) in &mut clients {
        peer.subscribe("a");
    }
    for number in 0..10 {
        clients[0].0.publish("a", &number.to_string());
        for (peer, _) in &mut clients {
            peer.expect_publication("a", &number.to_string());
        }
    }
    for (peer, _) in &mut clients {
        // Answered a turn later: the one that sent the last publication has counted it.
        peer.send_text(r#"{"type":"ping"}"#);
        peer.expect_text(r#"{"type":"pong"}"#);
    }
    let response = api.get("/metrics");
    assert_eq!(response.field("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let samples = parse_metrics(&response.body);
    let value =
        |series: &str| samples.get(series).copied().unwrap_or_else(|| panic!("no {series}"));
    let sum = |name: &str| {
        (0..2).map(|shard| value(&format!("{name}{{shard=\"{shard}\"}}"))).sum::<f64>()
    };
    assert_eq!(sum("stentor_publications_total"), 10.0);
    assert_eq!(sum("stentor_deliveries_total"), 20.0);
    assert_eq!(
        value("stentor_connections{shard=\"0\"}") + value("stentor_connections{shard=\"1\"}"),
        sum("stentor_connections")
    );
    assert!(sum("stentor_topics") >= 2.0);
    // Each shard has handed all of them out.
    assert_eq!(sum("stentor_fanout_seconds_count"), 20.0);
    let seconds = sum("stentor_fanout_seconds_sum");
    assert!(seconds > 0.0 && seconds < 20.0, "{seconds}");
    check_histograms(&samples);
    assert!(sum("stentor_turn_age_seconds") < 10.0);
    let of_none = |name: &str| {
        let series =
            |shard| format!("stentor_namespace_{name}{{shard=\"{shard}\",namespace=\"(none)\"}}");
        value(&series(0)) + value(&series(1))
    };
    assert_eq!((of_none("publications_total"), of_none("deliveries_total")), (10.0, 20.0));
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(value(&format!("stentor_build_info{{version=\"{version}\"}}")), 1.0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64();
    assert!((now - value("process_start_time_seconds")).abs() < 60.0);
    assert_eq!(value("stentor_admin_requests_total"), 1.0);
    // All that is counted.
    let counters = api.server.counters();
    for name in counters.keys().filter(|name| *name != "longest_turn_us") {
        let family = format!("stentor_{name}");
        assert!(samples.keys().any(|series| series.starts_with(&family)), "no {family}");
    }
}

/// Buckets grow with their bounds, and the last one has all.
fn check_histograms(samples: &BTreeMap<String, f64>) {
    let mut series: BTreeMap<&str, Vec<(f64, f64)>> = BTreeMap::new();
    for (name, value) in samples.iter().filter(|(name, _)| name.contains("_bucket{")) {
        let (labels, bound) = name.split_once(",le=\"").expect("a bound, behind the other labels");
        let bound = bound.trim_end_matches("\"}").replace("+Inf", "inf");
        series.entry(labels).or_default().push((bound.parse().expect("a number"), *value));
    }
    assert_eq!(series.len(), 2);
    for (labels, mut buckets) in series {
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert!(buckets.is_sorted_by_key(|bucket| bucket.1), "{labels}: {buckets:?}");
        let last = buckets.last().expect("it has buckets");
        let count = format!("{}}}", labels.replace("_bucket", "_count"));
        assert_eq!((last.0, last.1), (f64::INFINITY, samples[&count]), "{count}");
    }
}
