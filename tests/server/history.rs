//! Channels with history over real sockets: offsets, recovery, slow readers, queries, message ids, and
//! what a client hears when it asks for what is not there.

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::*;

const CONFIGURATION: &str = r#"
[limits]
max_message_size = "16KiB"
send_queue_size = "64KiB"

[namespaces.kept]
level = "history"
history_size = 100000
history_bytes = "64MiB"

[namespaces.short]
level = "history"
history_size = 5

[namespaces.brief]
level = "history"
history_ttl = "1s"

[namespaces.state]
level = "history"
last = true
"#;

fn start(flags: &[&str]) -> (TempDir, Server) {
    start_with(CONFIGURATION, flags)
}

/// Every shard is met: connections are spread by the kernel, channels by their name.
fn channels(namespace: &str) -> Vec<String> {
    (0..6).map(|number| format!("{namespace}:{number}")).collect()
}

/// Publishes and returns the offset that the acknowledgement has.
#[track_caller]
fn publish(peer: &mut Peer, channel: &str, data: &str) -> u64 {
    peer.send_text(&format!(
        r#"{{"action":"publish","channel":"{channel}","data":{data},"id":1}}"#
    ));
    let answer = peer.json();
    assert_eq!((&answer["type"], &answer["channel"]), (&json!("ack"), &json!(channel)));
    answer["offset"].as_u64().expect("an offset")
}

#[track_caller]
fn expect_publication(peer: &mut Peer, channel: &str, offset: u64, data: &str) {
    peer.expect_text(&format!(r#"{{"channel":"{channel}","offset":{offset},"data":{data}}}"#));
}

#[track_caller]
fn query(peer: &mut Peer, parameters: &str) -> Value {
    peer.send_text(&format!(
        r#"{{"id":"q","type":"query","payload":{{"resource":"history","parameters":{parameters}}}}}"#
    ));
    let answer = peer.json();
    assert_eq!((&answer["type"], &answer["requestId"]), (&json!("response"), &json!("q")));
    answer["payload"].clone()
}

fn offsets(page: &Value) -> Vec<u64> {
    let publications = page["publications"].as_array().expect("a list");
    publications.iter().map(|one| one["offset"].as_u64().expect("an offset")).collect()
}

#[test]
fn a_client_that_comes_back_gets_what_it_missed_and_then_what_comes() {
    let (_folder, server) = start(&[]);
    let mut publisher = Peer::open(&server);
    for channel in channels("kept") {
        let mut peer = Peer::open(&server);
        let confirmation = subscribe(&mut peer, &channel, "");
        let epoch = confirmation["epoch"].as_str().expect("an epoch").to_owned();
        assert_eq!(confirmation["offset"], 0);
        assert_eq!(confirmation.get("recovered"), None);
        assert_eq!(publish(&mut publisher, &channel, r#"{ "n" : 1 }"#), 1);
        expect_publication(&mut peer, &channel, 1, r#"{ "n" : 1 }"#);
        peer.abort();
        for n in 2..=40 {
            assert_eq!(publish(&mut publisher, &channel, &n.to_string()), n);
        }
        // From each of several positions, on any shard.
        for offset in [1, 39, 40, 0] {
            let mut peer = Peer::open(&server);
            let recover = format!(r#","recover":{{"epoch":"{epoch}","offset":{offset}}}"#);
            let confirmation = subscribe(&mut peer, &channel, &recover);
            assert_eq!(confirmation["recovered"], true);
            assert_eq!(confirmation["recoveredCount"], 40 - offset);
            assert_eq!(
                (&confirmation["epoch"], &confirmation["offset"]),
                (&json!(epoch), &json!(offset))
            );
            for n in offset + 1..=40 {
                let data = if n == 1 { r#"{ "n" : 1 }"#.to_owned() } else { n.to_string() };
                expect_publication(&mut peer, &channel, n, &data);
            }
            // Subscribing again is idempotent, and says where it is.
            let again = subscribe(&mut peer, &channel, r#","since":"start""#);
            assert_eq!((&again["offset"], again.get("recovered")), (&json!(40), None));
            peer.close();
        }
        let mut peer = Peer::open(&server);
        subscribe(&mut peer, &channel, r#","since":38"#);
        expect_publication(&mut peer, &channel, 39, "39");
        expect_publication(&mut peer, &channel, 40, "40");
        assert_eq!(publish(&mut publisher, &channel, "41"), 41);
        expect_publication(&mut peer, &channel, 41, "41");
    }
}

#[test]
fn since_is_a_place_in_the_history() {
    let (_folder, server) = start(&[]);
    let mut publisher = Peer::open(&server);
    for channel in channels("kept") {
        for n in 1..=10 {
            publish(&mut publisher, &channel, &n.to_string());
        }
        // Long ago, and far from now.
        for (since, limit, recovered, first) in [
            (r#""start""#, "", true, 1),
            ("7", "", true, 8),
            ("1000000000000", "", true, 1),
            ("99999999999999", "", true, 11),
            (r#""start""#, r#","limit":3"#, false, 8),
            (r#""start""#, r#","limit":10"#, true, 1),
            (r#""start""#, r#","limit":0"#, false, 11),
            ("8", r#","limit":18446744073709551615"#, true, 9),
        ] {
            let mut peer = Peer::open(&server);
            let fields = format!(r#","since":{since}{limit}"#);
            let confirmation = subscribe(&mut peer, &channel, &fields);
            assert_eq!(confirmation["recovered"], recovered, "{fields}");
            assert_eq!(confirmation["recoveredCount"], 11 - first, "{fields}");
            assert_eq!(confirmation["offset"], first - 1, "{fields}");
            if !recovered {
                assert_eq!(confirmation["reason"], "limit");
            }
            for n in first..=10 {
                expect_publication(&mut peer, &channel, n, &n.to_string());
            }
            peer.expect_idle();
        }
    }
}

#[test]
fn positions_that_are_not_there_are_told_apart_and_begin_live() {
    let (_folder, server) = start(&[]);
    let mut publisher = Peer::open(&server);
    for channel in channels("short") {
        for n in 1..=20 {
            publish(&mut publisher, &channel, &n.to_string());
        }
        let mut peer = Peer::open(&server);
        let epoch = subscribe(&mut peer, &channel, "")["epoch"].as_str().expect("text").to_owned();
        let recover = |epoch: &str, offset: u64| {
            format!(r#","recover":{{"epoch":"{epoch}","offset":{offset}}}"#)
        };
        for (fields, reason) in [
            (recover(&epoch, 14), "trimmed"),
            (recover(&epoch, 21), "future"),
            (recover(&epoch, u64::MAX), "future"),
            (recover("0123456789abcdef", 20), "epoch"),
            (recover("another server's", 20), "epoch"),
            (recover("", 0), "epoch"),
            (r#","since":3"#.to_owned(), "trimmed"),
            (r#","since":21"#.to_owned(), "future"),
            (r#","since":1000000000000"#.to_owned(), "trimmed"),
        ] {
            let mut peer = Peer::open(&server);
            let confirmation = subscribe(&mut peer, &channel, &fields);
            let got = ["recovered", "recoveredCount", "reason", "code", "offset"]
                .map(|name| confirmation[name].clone());
            let code = "position_unavailable";
            assert_eq!(
                got,
                [json!(false), json!(0), json!(reason), json!(code), json!(20)],
                "{fields}"
            );
            peer.expect_idle();
        }
        let mut peer = Peer::open(&server);
        assert_eq!(subscribe(&mut peer, &channel, &recover(&epoch, 15))["recovered"], true);
        for n in 16..=20 {
            expect_publication(&mut peer, &channel, n, &n.to_string());
        }
    }
    assert_eq!(server.counter("not_recovered"), 9 * 6);
}

#[test]
fn what_is_no_place_is_refused_and_the_connection_goes_on() {
    let (_folder, server) = start(&[]);
    let mut peer = Peer::open(&server);
    for fields in [
        r#","since":-1"#,
        r#","since":18446744073709551616"#,
        r#","since":{}"#,
        r#","limit":-1"#,
        r#","limit":1e99"#,
        r#","recover":{"epoch":"a","offset":-5}"#,
        r#","recover":[]"#,
        r#","recover":{"epoch":"a","offset":1},"since":1"#,
    ] {
        peer.send_text(&format!(r#"{{"action":"subscribe","channel":"kept:a"{fields}}}"#));
        assert_eq!(peer.json()["data"]["code"], "invalid_message", "{fields}");
    }
    for parameters in [
        r#"{"channel":"kept:a","limit":-1}"#,
        r#"{"channel":"kept:a","limit":1001}"#,
        r#"{"channel":"kept:a","limit":99999999999999999999999}"#,
        r#"{"channel":"kept:a","since":"yesterday"}"#,
        r#"{}"#,
    ] {
        peer.send_text(&format!(
            r#"{{"type":"query","payload":{{"resource":"history","parameters":{parameters}}}}}"#
        ));
        assert_eq!(peer.json()["code"], "invalid_message", "{parameters}");
    }
    // A channel without history says so.
    peer.send_text(
        r#"{"type":"query","payload":{"resource":"history","parameters":{"channel":"a"}}}"#,
    );
    assert_eq!(peer.json()["code"], "position_unavailable");
    let confirmation = subscribe(&mut peer, "live", r#","since":"start""#);
    assert_eq!(
        (&confirmation["recovered"], &confirmation["reason"]),
        (&json!(false), &json!("no_history"))
    );
    peer.send_text(r#"{"action":"publish","channel":"live","data":1}"#);
    peer.expect_publication("live", "1");
}

#[test]
fn a_history_is_queried_forwards_backwards_and_in_ranges() {
    let (_folder, server) = start(&[]);
    let mut publisher = Peer::open(&server);
    let mut peer = Peer::open(&server);
    for channel in channels("kept") {
        let nothing = query(&mut peer, &format!(r#"{{"channel":"{channel}"}}"#));
        assert_eq!((&nothing["epoch"], &nothing["offset"]), (&Value::Null, &json!(0)));
        for n in 1..=30 {
            publish(&mut publisher, &channel, &format!("[{n}]"));
        }
        for (parameters, wanted, more) in [
            ("", (1..=30).collect::<Vec<u64>>(), false),
            (r#","limit":3"#, vec![1, 2, 3], true),
            (r#","limit":2,"reverse":true"#, vec![30, 29], true),
            (r#","since":27"#, vec![28, 29, 30], false),
            (r#","since":4,"until":6"#, vec![5, 6], false),
            (r#","since":4,"until":9,"limit":2,"reverse":true"#, vec![9, 8], true),
            (r#","since":30"#, vec![], false),
            (r#","since":31"#, vec![], false),
            (r#","since":"start","until":2"#, vec![1, 2], false),
            (r#","since":99999999999999"#, vec![], false),
            (r#","since":1000000000000,"limit":1"#, vec![1], true),
            (r#","until":1000000000000"#, vec![], false),
        ] {
            let page = query(&mut peer, &format!(r#"{{"channel":"{channel}"{parameters}}}"#));
            assert_eq!(offsets(&page), wanted, "{parameters}");
            assert_eq!(page["more"], more, "{parameters}");
            assert_eq!(page["offset"], 30);
            assert_eq!(page["complete"], parameters != r#","since":31"#);
            for (publication, offset) in page["publications"].as_array().unwrap().iter().zip(wanted)
            {
                assert_eq!(publication, &json!({ "offset": offset, "data": [offset] }));
            }
        }
    }
    for n in 1..=9 {
        publish(&mut publisher, "short:x", &n.to_string());
    }
    let page = query(&mut peer, r#"{"channel":"short:x","since":2}"#);
    assert_eq!((&page["complete"], &page["reason"]), (&json!(false), &json!("trimmed")));
    assert_eq!(offsets(&page), [5, 6, 7, 8, 9]);
}

#[test]
fn a_page_is_bounded_in_bytes_and_queries_that_nobody_reads_are_refused() {
    let (_folder, server) = start(&[]);
    let mut publisher = Peer::open(&server);
    let data = format!("\"{}\"", "x".repeat(1000));
    for _ in 0..200 {
        publish(&mut publisher, "kept:big", &data);
    }
    let mut peer = Peer::open(&server);
    let page = query(&mut peer, r#"{"channel":"kept:big","limit":1000}"#);
    let count = offsets(&page).len();
    assert!((10..=16).contains(&count), "{count} publications in a quarter of 64 KiB");
    assert_eq!(page["more"], true);
    // Together in one frame: the answers would take more than a queue may.
    let one =
        r#"{"type":"query","payload":{"resource":"history","parameters":{"channel":"kept:big"}}}"#;
    peer.send_text(&[one; 50].join("\n"));
    let answers: Vec<Value> = (0..50).map(|_| peer.json()).collect();
    let refused = answers.iter().filter(|answer| answer["code"] == "backlog_full").count();
    assert!((40..=49).contains(&refused), "{refused} of 50 were refused");
    assert_eq!(answers.iter().filter(|answer| answer["type"] == "response").count(), 50 - refused);
}

#[test]
fn a_message_id_is_published_once() {
    let (_folder, server) = start(&[]);
    let mut publisher = Peer::open(&server);
    let mut other = Peer::open(&server);
    for channel in channels("kept") {
        let mut subscriber = Peer::open(&server);
        subscribe(&mut subscriber, &channel, "");
        let message =
            format!(r#"{{"action":"publish","channel":"{channel}","data":1,"messageId":"m-1"}}"#);
        let ack = format!(r#"{{"type":"ack","messageId":"m-1","channel":"{channel}","offset":1}}"#);
        for _ in 0..3 {
            publisher.send_text(&message);
            publisher.expect_text(&ack);
        }
        // Whoever repeats after a lost connection has another one.
        other.send_text(&message);
        other.expect_text(&ack);
        assert_eq!(publish(&mut publisher, &channel, "3"), 2);
        for (offset, data) in [(1, "1"), (2, "3")] {
            expect_publication(&mut subscriber, &channel, offset, data);
        }
        subscriber.expect_idle();
    }
    assert_eq!(server.counter("duplicates"), 3 * 6);
}

#[test]
fn a_publisher_without_echo_gets_everything_but_its_own() {
    let (_folder, server) = start(&[]);
    let mut other = Peer::open(&server);
    for channel in channels("kept") {
        let mut peer = Peer::open(&server);
        peer.send_text(&format!(
            r#"{{"action":"publish","channel":"{channel}","data":1,"echo":false,"id":1}}"#
        ));
        assert_eq!(peer.json()["offset"], 1);
        publish(&mut other, &channel, "2");
        subscribe(&mut peer, &channel, r#","since":"start""#);
        expect_publication(&mut peer, &channel, 2, "2");
        peer.expect_idle();
        let mut stranger = Peer::open(&server);
        subscribe(&mut stranger, &channel, r#","since":"start""#);
        expect_publication(&mut stranger, &channel, 1, "1");
        expect_publication(&mut stranger, &channel, 2, "2");
    }
}

#[test]
fn a_new_subscriber_gets_the_latest_publication_where_the_namespace_says_so() {
    let (_folder, server) = start(&[]);
    let mut publisher = Peer::open(&server);
    for channel in channels("state") {
        let mut early = Peer::open(&server);
        assert_eq!(subscribe(&mut early, &channel, "")["offset"], 0);
        publish(&mut publisher, &channel, "1");
        publish(&mut publisher, &channel, "2");
        expect_publication(&mut early, &channel, 1, "1");
        expect_publication(&mut early, &channel, 2, "2");
        for _ in 0..3 {
            let mut late = Peer::open(&server);
            assert_eq!(subscribe(&mut late, &channel, "")["offset"], 1);
            expect_publication(&mut late, &channel, 2, "2");
            late.expect_idle();
        }
    }
}

/// A subscriber with a small buffer, who does not read from now on.
fn stopped_reader(server: &Server, channel: &str) -> Peer {
    let mut peer = Peer::connect_small(server, 4096);
    peer.upgrade("/ws");
    subscribe(&mut peer, channel, "");
    peer
}

fn kilobyte(number: u64) -> String {
    format!(r#"[{number},"{}"]"#, "x".repeat(1000))
}

#[test]
fn a_slow_reader_is_fed_from_the_history_and_misses_nothing() {
    const PUBLICATIONS: u64 = 6000;
    let (_folder, server) = start(&["--set", "limits.slow_consumer_timeout=60s"]);
    let mut publisher = Peer::open(&server);
    let channels = &channels("kept")[..2];
    let mut stopped: Vec<_> = channels
        .iter()
        .flat_map(|channel| (0..4).map(move |_| channel))
        .map(|channel| (channel, stopped_reader(&server, channel)))
        .collect();
    let mut brisk = Peer::open(&server);
    subscribe(&mut brisk, &channels[0], "");
    for n in 1..=PUBLICATIONS {
        for channel in channels {
            assert_eq!(publish(&mut publisher, channel, &kilobyte(n)), n);
        }
        // The others do not wait.
        expect_publication(&mut brisk, &channels[0], n, &kilobyte(n));
    }
    assert!(server.counter("fell_behind") >= 8, "{:?}", server.counters());
    for (channel, peer) in &mut stopped {
        for n in 1..=PUBLICATIONS {
            expect_publication(peer, channel, n, &kilobyte(n));
        }
    }
    // They are live again.
    for channel in channels {
        publish(&mut publisher, channel, "0");
    }
    for (channel, peer) in &mut stopped {
        expect_publication(peer, channel, PUBLICATIONS + 1, "0");
        peer.expect_idle();
    }
    let counters = server.counters();
    assert_eq!(counters.get("history_gaps"), None);
    assert_eq!(counters.get("slow_consumer"), None);
    assert!(counters["replayed"] > 0);
}

#[test]
fn a_reader_that_is_too_late_is_told_what_is_gone() {
    const PUBLICATIONS: u64 = 6000;
    let (_folder, server) = start(&["--set", "limits.slow_consumer_timeout=60s"]);
    let mut publisher = Peer::open(&server);
    for channel in &channels("short")[..3] {
        let mut peer = stopped_reader(&server, channel);
        for n in 1..=PUBLICATIONS {
            publish(&mut publisher, channel, &kilobyte(n));
        }
        let mut next = 1;
        let mut gaps = 0;
        while next <= PUBLICATIONS {
            let message = peer.json();
            if message["channel"] == "system" {
                let data = &message["data"];
                assert_eq!((&data["type"], &data["reason"]), (&json!("gap"), &json!("trimmed")));
                assert_eq!((&data["channel"], &data["from"]), (&json!(channel), &json!(next)));
                next = data["to"].as_u64().expect("an offset") + 1;
                gaps += 1;
            } else {
                assert_eq!(message["offset"], next);
                assert_eq!(message["data"][0], next);
                next += 1;
            }
        }
        assert!(gaps > 0);
        peer.expect_idle();
    }
    assert!(server.counter("history_gaps") >= 3);
}

#[test]
fn a_reader_of_a_history_that_takes_nothing_is_closed_in_the_end() {
    // It reads on when it is closed, however long that takes.
    let flags = ["--set", "limits.slow_consumer_timeout=1s", "--set", "limits.close_timeout=1m"];
    let (_folder, server) = start(&flags);
    let mut publisher = Peer::open(&server);
    let mut peer = stopped_reader(&server, "kept:a");
    for n in 1..=6000 {
        publish(&mut publisher, "kept:a", &kilobyte(n));
    }
    server.wait_for_counter("slow_consumer", 1);
    let (code, reason) = peer.skip_to_close();
    assert_eq!((code, &*reason), (4002, "slow_consumer"));
}

#[test]
fn what_is_too_old_is_forgotten_and_the_epoch_with_it() {
    let (_folder, server) = start(&[]);
    let mut publisher = Peer::open(&server);
    let mut peer = Peer::open(&server);
    for channel in channels("brief") {
        publish(&mut publisher, &channel, "1");
        let parameters = format!(r#"{{"channel":"{channel}"}}"#);
        let epoch = query(&mut peer, &parameters)["epoch"].clone();
        wait_until("the publication is too old", || {
            let page = query(&mut peer, &parameters);
            page["publications"] == json!([])
        });
        // Nobody listens, so the epoch ends as well.
        wait_until("the history has ended", || query(&mut peer, &parameters)["epoch"].is_null());
        let recover = format!(r#","recover":{{"epoch":{epoch},"offset":1}}"#);
        let confirmation = subscribe(&mut peer, &channel, &recover);
        assert_eq!(confirmation["reason"], "epoch");
        assert_ne!(confirmation["epoch"], epoch);
    }
}

#[test]
fn the_memory_of_all_histories_is_bounded() {
    let (_folder, server) = start(&["--set", "limits.history_memory=64KiB"]);
    let mut publisher = Peer::open(&server);
    let channels = channels("kept");
    for n in 1..=100 {
        for channel in &channels {
            publish(&mut publisher, channel, &kilobyte(n));
        }
    }
    let mut peer = Peer::open(&server);
    let mut kept = 0;
    for channel in &channels {
        let oldest = query(&mut peer, &format!(r#"{{"channel":"{channel}","limit":1}}"#));
        kept += offsets(&oldest).first().map_or(0, |first| 101 - first);
    }
    // Two shards, or one if all channels are at home there.
    assert!((40..=116).contains(&kept), "{kept} publications of 1.2 KiB");
    assert_eq!(server.counter("history_evicted"), 600 - kept);
}

#[test]
fn the_command_line_reads_from_the_past() {
    let (_folder, server) = start(&[]);
    let mut publisher = Peer::open(&server);
    for n in 1..=7 {
        publish(&mut publisher, "short:cli", &n.to_string());
    }
    let listen = |place: &[&str], count: &str| {
        let url = server.url();
        let common = ["subscribe", "short:cli", "--url", &url, "--count", count];
        let output = run(&[&common, place].concat());
        assert!(output.status.success(), "{output:?}");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        (text(output.stdout), text(output.stderr))
    };
    let mut peer = Peer::open(&server);
    let epoch =
        query(&mut peer, r#"{"channel":"short:cli"}"#)["epoch"].as_str().unwrap().to_owned();
    let (lines, errors) = listen(&["--since", "start"], "5");
    assert_eq!(lines, "3\n4\n5\n6\n7\n");
    assert_eq!(errors, format!("subscribed to short:cli at {epoch}:2\n"));
    let (lines, _) = listen(&["--since", "5", "--json"], "1");
    assert_eq!(lines, "{\"channel\":\"short:cli\",\"offset\":6,\"data\":6}\n");
    let (lines, _) = listen(&["--recover", &format!("{epoch}:6")], "1");
    assert_eq!(lines, "7\n");
    for wrong in
        [["--since", "yesterday"], ["--recover", "7"], ["--recover", ":7"], ["--recover", "xy:7"]]
    {
        let output = run(&[&["subscribe", "a"], &wrong[..]].concat());
        assert_eq!(output.status.code(), Some(2), "{output:?}");
    }
}

#[test]
fn a_confirmation_comes_before_publications_whatever_is_published_meanwhile() {
    let (_folder, server) = start(&[]);
    for channel in channels("kept") {
        let mut publisher = Peer::open(&server);
        let mut sent = 0;
        for _ in 0..10 {
            let mut peer = Peer::open(&server);
            for _ in 0..20 {
                sent += 1;
                publisher.publish(&channel, &sent.to_string());
            }
            peer.send_text(&format!(
                r#"{{"action":"subscribe","channel":"{channel}","since":"start"}}"#
            ));
            for _ in 0..20 {
                sent += 1;
                publisher.publish(&channel, &sent.to_string());
            }
            let confirmation = peer.json();
            assert_eq!(confirmation["data"]["recovered"], true, "{confirmation}");
            for n in 1..=sent {
                expect_publication(&mut peer, &channel, n, &n.to_string());
            }
            peer.expect_idle();
        }
    }
}

/// Requests of the documentation and their answers, each block on a connection of its own, behind
/// three publications to `kept:a`.
#[test]
fn the_examples_of_the_documentation_are_true() {
    let text = include_str!("../../docs/protocol.md");
    let (_, section) = text.split_once("## Channels with history").expect("a section");
    let (section, _) = section.split_once("\n## ").expect("the next one");
    let (_folder, server) = start(&[]);
    let mut publisher = Peer::open(&server);
    for n in 1..=3 {
        publish(&mut publisher, "kept:a", &format!(r#"{{"n":{n}}}"#));
    }
    let mut peer = Peer::open(&server);
    let page = query(&mut peer, r#"{"channel":"kept:a"}"#);
    let epoch = page["epoch"].as_str().expect("an epoch");
    let is_request =
        |line: &str| line.starts_with(r#"{"action""#) || line.contains(r#""type":"query""#);
    let mut requests = 0;
    for block in section.split("\n\n") {
        let lines =
            block.lines().map(|line| line.strip_prefix("    ").filter(|l| l.starts_with('{')));
        let Some(lines) = lines.collect::<Option<Vec<_>>>() else { continue };
        if !lines.first().is_some_and(|line| is_request(line)) {
            continue;
        }
        let mut peer = Peer::open(&server);
        for line in lines {
            let line = line.replace("74ac4f2d9a1c53b7", epoch);
            if is_request(&line) {
                requests += 1;
                peer.send_text(&line);
                continue;
            }
            let mut expected: Value = serde_json::from_str(&line).expect("JSON");
            let mut got = peer.json();
            for value in [&mut expected, &mut got] {
                if value["type"] == "response" {
                    (value["id"], value["timestamp"]) = (Value::Null, Value::Null);
                }
            }
            assert_eq!(got, expected);
        }
        peer.expect_idle();
    }
    assert_eq!(requests, 6);
}
