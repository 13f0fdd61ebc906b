//! RFC 6455 case by case, by section: raw bytes against the real binary.

use std::io::Write;
use std::thread;

use crate::support::*;

const ECHO: &[&str] = &["--echo", "/echo"];

fn echo() -> (Server, Peer) {
    let server = Server::start(ECHO);
    let peer = Peer::open_at(&server, "/echo");
    (server, peer)
}

/// The answer to a request on a connection of its own.
fn ask(server: &Server, request: &str) -> Response {
    let mut peer = Peer::connect(server);
    peer.send(request.as_bytes());
    peer.response_to(request.starts_with("HEAD"))
}

fn valid() -> String {
    upgrade_request("/ws", "")
}

/// Sends `bytes` as the first of a connection; it must end with this code and nothing else.
#[track_caller]
fn expect_failure(server: &Server, bytes: &[u8], code: u16, reason: &str) {
    for path in ["/echo", "/ws"] {
        let mut peer = Peer::open_at(server, path);
        peer.send(bytes);
        peer.expect_close(code, reason);
        peer.expect_end();
    }
}

// 4.2 The opening handshake

#[test]
fn s4_2_2_a_valid_handshake_is_answered_with_101_and_nothing_unasked() {
    let server = Server::start(&[]);
    let mut peer = Peer::connect(&server);
    peer.send(valid().as_bytes());
    let response = peer.response();
    assert_eq!(response.status, 101);
    assert_eq!(response.field("Upgrade"), Some("websocket"));
    assert_eq!(response.field("Connection"), Some("Upgrade"));
    assert_eq!(response.field("Sec-WebSocket-Accept"), Some(ACCEPT_KEY));
    assert_eq!(response.fields.len(), 3, "{response:?}");
    peer.expect_idle();
}

#[test]
fn s4_2_1_malformed_handshakes_get_400() {
    let server = Server::start(&[]);
    let key = format!("Sec-WebSocket-Key: {KEY}\r\n");
    for (wrong, right) in [
        ("", "Host: test\r\n"),
        ("Host: test\r\nHost: test\r\n", "Host: test\r\n"),
        ("Host: te st\r\n", "Host: test\r\n"),
        ("", "Upgrade: websocket\r\n"),
        ("Upgrade: h2c\r\n", "Upgrade: websocket\r\n"),
        ("", "Connection: Upgrade\r\n"),
        ("Connection: keep-alive\r\n", "Connection: Upgrade\r\n"),
        ("", key.as_str()),
        ("Sec-WebSocket-Key: \r\n", key.as_str()),
        ("Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAA\r\n", key.as_str()),
        ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==x\r\n", key.as_str()),
        (&key.repeat(2), key.as_str()),
        ("HTTP/1.0", "HTTP/1.1"),
    ] {
        let request = valid().replacen(right, wrong, 1);
        assert_ne!(request, valid());
        let response = ask(&server, &request);
        assert_eq!(response.status, 400, "{request}");
        assert_eq!(response.field("Connection"), Some("close"));
    }
    fresh_client_works(&server);
}

#[test]
fn s4_2_1_other_methods_get_405_and_the_allowed_ones() {
    let server = Server::start(&[]);
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH"] {
        let response = ask(&server, &valid().replacen("GET", method, 1));
        assert_eq!(response.status, 405, "{method}");
        assert_eq!(response.field("Allow"), Some("GET, HEAD"));
    }
}

#[test]
fn s4_4_other_versions_get_426_and_the_version_that_is_spoken() {
    let server = Server::start(&[]);
    let right = "Sec-WebSocket-Version: 13\r\n";
    for wrong in ["0", "7", "8", "12", "14", "013", "13, 8", "", "x"] {
        let line = format!("Sec-WebSocket-Version: {wrong}\r\n");
        let response = ask(&server, &valid().replacen(right, &line, 1));
        assert_eq!(response.status, 426, "{wrong}");
        assert_eq!(response.field("Sec-WebSocket-Version"), Some("13"));
        assert_eq!(response.field("Upgrade"), Some("websocket"));
    }
    assert_eq!(ask(&server, &valid().replacen(right, "", 1)).status, 426);
    // Twice is not a version at all.
    assert_eq!(ask(&server, &valid().replacen(right, &right.repeat(2), 1)).status, 400);
}

#[test]
fn s4_2_1_names_and_tokens_have_no_case_and_lists_go_over_lines() {
    let server = Server::start(&[]);
    for (line, right) in [
        ("upgrade: WebSocket\r\n", "Upgrade: websocket\r\n"),
        ("UPGRADE: h2c, websocket\r\n", "Upgrade: websocket\r\n"),
        ("Upgrade: h2c\r\nUpgrade: websocket\r\n", "Upgrade: websocket\r\n"),
        ("connection: UPGRADE\r\n", "Connection: Upgrade\r\n"),
        ("Connection: keep-alive, Upgrade\r\n", "Connection: Upgrade\r\n"),
        ("Connection: ,keep-alive ,\t upgrade,\r\n", "Connection: Upgrade\r\n"),
        ("Connection: keep-alive\r\nConnection: Upgrade\r\n", "Connection: Upgrade\r\n"),
        ("host: [::1]:8080\r\n", "Host: test\r\n"),
        ("Host:test\r\n", "Host: test\r\n"),
    ] {
        let request = valid().replacen(right, line, 1);
        assert_ne!(request, valid());
        assert_eq!(ask(&server, &request).status, 101, "{request}");
    }
}

#[test]
fn s4_2_1_paths_are_percent_decoded_and_queries_do_not_matter() {
    let server = Server::start(ECHO);
    for path in [
        "/echo",
        "/%65cho",
        "/%65%63%68%6F",
        "/echo?",
        "/echo?token=a%20b&x=%zz&%65=+",
        "http://test/echo",
        "ws://test:80/%65cho?a=b",
    ] {
        let mut peer = Peer::open_at(&server, path);
        peer.send(&frame(OpCode::BINARY, b"back"));
        peer.expect_frame(OpCode::BINARY, b"back");
    }
    for path in ["/Echo", "/echo/", "/echo%2F", "/echo%20", "/%2565cho", "/", "/ünï"] {
        if path.is_ascii() {
            // Not the echo, so the native protocol.
            Peer::open_at(&server, path).expect_idle();
        } else {
            assert_eq!(ask(&server, &upgrade_request(path, "")).status, 400, "{path}");
        }
    }
    for path in ["/%", "/%6", "/%6g", "/%ff", "/%0a", "/%00", "echo", "*", "/a#b", "ftp://test/"] {
        assert_eq!(ask(&server, &upgrade_request(path, "")).status, 400, "{path}");
    }
}

#[test]
fn s4_2_2_the_first_subprotocol_that_is_spoken_is_chosen() {
    let server = Server::start(&[]);
    for (offer, chosen) in [
        ("stentor.v1.json", true),
        ("chat, stentor.v1.json", true),
        ("chat\r\nSec-WebSocket-Protocol: stentor.v1.json , x", true),
        ("chat, superchat", false),
        // 11.3.4: names are compared with case.
        ("Stentor.V1.json", false),
        ("stentor.v1.jso", false),
    ] {
        let line = format!("Sec-WebSocket-Protocol: {offer}\r\n");
        let response = ask(&server, &upgrade_request("/ws", &line));
        assert_eq!(response.status, 101, "{offer}");
        let wanted = chosen.then_some("stentor.v1.json");
        assert_eq!(response.field("Sec-WebSocket-Protocol"), wanted, "{offer}");
    }
    for offer in ["a b", "\"chat\"", "a/b", "chat, @", "@"] {
        let line = format!("Sec-WebSocket-Protocol: {offer}\r\n");
        assert_eq!(ask(&server, &upgrade_request("/ws", &line)).status, 400, "{offer}");
    }
}

#[test]
fn s4_2_2_with_a_subprotocol_the_server_welcomes_first() {
    let server = Server::start(&["--max-message-size", "100KiB", "--heartbeat", "20s"]);
    let mut welcomes = Vec::new();
    for _ in 0..2 {
        let mut peer = Peer::connect(&server);
        let offer = "Sec-WebSocket-Protocol: stentor.v1.json\r\n";
        peer.send(upgrade_request("/ws", offer).as_bytes());
        assert_eq!(peer.response().status, 101);
        let welcome = peer.json();
        assert_eq!(welcome["type"], "welcome");
        assert_eq!(welcome["version"], "1.2");
        assert_eq!(welcome["heartbeat"], 20_000);
        assert_eq!(welcome["maxMessageSize"], 102_400);
        peer.expect_idle();
        welcomes.push(welcome);
    }
    let ids: Vec<_> = welcomes
        .iter()
        .flat_map(|welcome| [&welcome["connectionId"], &welcome["sessionId"]])
        .map(|id| id.as_str().expect("a text"))
        .collect();
    assert!(ids.iter().all(|id| id.len() >= 36), "a place and 128 bits: {ids:?}");
    assert!((0..4).all(|i| (0..i).all(|j| ids[i] != ids[j])), "{ids:?}");
}

#[test]
fn s9_1_extensions_are_declined() {
    let server = Server::start(&[]);
    for offer in
        ["permessage-deflate", "x-unknown; a=\"b\", permessage-deflate; client_max_window_bits"]
    {
        let line = format!("Sec-WebSocket-Extensions: {offer}\r\n");
        let response = ask(&server, &upgrade_request("/ws", &line));
        assert_eq!(response.status, 101);
        assert_eq!(response.field("Sec-WebSocket-Extensions"), None);
    }
}

#[test]
fn s4_1_frames_right_behind_the_request_are_kept() {
    let server = Server::start(ECHO);
    let mut peer = Peer::connect(&server);
    let mut bytes = upgrade_request("/echo", "").into_bytes();
    bytes.extend(frame(OpCode::TEXT, b"one"));
    bytes.extend(fragment(OpCode::BINARY, b"t"));
    bytes.extend(frame(OpCode::PING, b"p"));
    bytes.extend(continuation(b"wo", true));
    peer.send(&bytes);
    assert_eq!(peer.response().status, 101);
    // 5.5.2: the pong comes as soon as is practical, ahead of what has not left yet.
    let (pongs, data): (Vec<_>, Vec<_>) =
        (0..3).map(|_| peer.frame()).partition(|frame| frame.opcode == OpCode::PONG);
    assert_eq!(pongs, [Frame { opcode: OpCode::PONG, payload: b"p".to_vec() }]);
    assert_eq!(data[0], Frame { opcode: OpCode::TEXT, payload: b"one".to_vec() });
    assert_eq!(data[1], Frame { opcode: OpCode::BINARY, payload: b"two".to_vec() });

    let mut peer = Peer::connect(&server);
    let mut bytes = upgrade_request("/ws", "").into_bytes();
    bytes.extend(frame(OpCode::TEXT, br#"{"action":"subscribe","channel":"a"}"#));
    bytes.extend(frame(OpCode::TEXT, br#"{"action":"publish","channel":"a","data":1}"#));
    peer.send(&bytes);
    assert_eq!(peer.response().status, 101);
    assert_eq!(peer.json()["data"]["type"], "subscription_confirm");
    peer.expect_publication("a", "1");
}

#[test]
fn s4_1_a_request_and_frames_may_be_cut_anywhere() {
    let server = Server::start(ECHO);
    let mut bytes = upgrade_request("/echo", "").into_bytes();
    bytes.extend(frame(OpCode::TEXT, "grüße".as_bytes()));
    for cut in 1..bytes.len() {
        let mut peer = Peer::connect(&server);
        peer.send(&bytes[..cut]);
        peer.send(&bytes[cut..]);
        assert_eq!(peer.response().status, 101, "cut at {cut}");
        peer.expect_frame(OpCode::TEXT, "grüße".as_bytes());
    }
}

#[test]
fn s4_1_one_byte_at_a_time_is_as_good_as_any() {
    let server = Server::start(ECHO);
    let mut peer = Peer::connect(&server);
    let mut bytes = upgrade_request("/echo", "").into_bytes();
    bytes.extend(fragment(OpCode::TEXT, "sch\u{f6}".as_bytes()));
    bytes.extend(frame(OpCode::PING, b"there?"));
    bytes.extend(continuation("ne ✓ Grüße".as_bytes(), true));
    bytes.extend(frame(OpCode::BINARY, &[0xFF; 300]));
    bytes.extend(frame(OpCode::CLOSE, &close_payload(3000, b"bye")));
    for byte in bytes {
        peer.send(&[byte]);
    }
    assert_eq!(peer.response().status, 101);
    peer.expect_frame(OpCode::PONG, b"there?");
    peer.expect_frame(OpCode::TEXT, "schöne ✓ Grüße".as_bytes());
    peer.expect_frame(OpCode::BINARY, &[0xFF; 300]);
    peer.expect_close(3000, "");
    peer.expect_end();
}

// 5.1 Masking

#[test]
fn s5_1_an_unmasked_frame_fails_the_connection() {
    let server = Server::start(ECHO);
    expect_failure(&server, b"\x81\x05hello", 1002, "unmasked");
    expect_failure(&server, b"\x89\x00", 1002, "unmasked");
    expect_failure(&server, b"\x88\x02\x03\xe8", 1002, "unmasked");
    assert_eq!(server.counter("unmasked"), 6);
}

#[test]
fn s5_3_any_masking_key_is_taken_zero_too() {
    let (_server, mut peer) = echo();
    peer.send(b"\x81\x82\0\0\0\0hi");
    peer.expect_frame(OpCode::TEXT, b"hi");
    peer.send(b"\x82\x83\xff\xff\xff\xff\x00\x01\x02");
    peer.expect_frame(OpCode::BINARY, b"\xff\xfe\xfd");
}

// 5.2 The base framing

#[test]
fn s5_2_every_form_of_length_is_read_and_written() {
    let (_server, mut peer) = echo();
    for length in [0, 1, 2, 124, 125, 126, 127, 128, 255, 256, 65534, 65535, 65536] {
        let payload: Vec<u8> = (0..length).map(|index| (index * 7) as u8).collect();
        peer.send(&frame(OpCode::BINARY, &payload));
        peer.expect_frame(OpCode::BINARY, &payload);
    }
}

#[test]
fn s5_2_a_length_must_be_in_its_shortest_form() {
    let server = Server::start(ECHO);
    for header in [
        &b"\x82\xfe\x00\x00"[..],
        b"\x82\xfe\x00\x7d",
        b"\x82\xff\0\0\0\0\0\0\0\x01",
        b"\x82\xff\0\0\0\0\0\0\xff\xff",
    ] {
        expect_failure(&server, header, 1002, "bad_length");
    }
}

#[test]
fn s5_2_the_top_bit_of_a_length_must_be_0() {
    let server = Server::start(ECHO);
    expect_failure(&server, b"\x82\xff\x80\0\0\0\0\0\0\0", 1002, "bad_length");
    expect_failure(&server, b"\x81\xff\xff\xff\xff\xff\xff\xff\xff\xff", 1002, "bad_length");
}

#[test]
fn s5_2_reserved_bits_must_be_0() {
    let server = Server::start(ECHO);
    for bit in [0x40, 0x20, 0x10] {
        for opcode in [OpCode::TEXT, OpCode::BINARY, OpCode::PING, OpCode::CLOSE] {
            let mut bytes = frame(opcode, b"");
            bytes[0] |= bit;
            expect_failure(&server, &bytes, 1002, "reserved_bits");
        }
    }
}

#[test]
fn s5_2_reserved_opcodes_fail_the_connection() {
    let server = Server::start(ECHO);
    for opcode in (3..8).chain(11..16) {
        expect_failure(&server, &frame(OpCode(opcode), b""), 1002, "reserved_opcode");
        expect_failure(&server, &frame(OpCode(opcode), b"x"), 1002, "reserved_opcode");
    }
}

// 5.4 Fragmentation

#[test]
fn s5_4_fragments_make_one_message() {
    let (_server, mut peer) = echo();
    for opcode in [OpCode::TEXT, OpCode::BINARY] {
        peer.send(&fragment(opcode, b"one "));
        peer.send(&continuation(b"two ", false));
        peer.send(&continuation(b"", false));
        peer.send(&continuation(b"three", true));
        peer.expect_frame(opcode, b"one two three");
        // All of them empty.
        peer.send(&fragment(opcode, b""));
        peer.send(&continuation(b"", true));
        peer.expect_frame(opcode, b"");
    }
}

#[test]
fn s5_4_control_frames_come_between_fragments_and_are_answered_at_once() {
    let (_server, mut peer) = echo();
    peer.send(&fragment(OpCode::TEXT, b"a"));
    peer.send(&frame(OpCode::PING, b"1"));
    peer.expect_frame(OpCode::PONG, b"1");
    peer.send(&continuation(b"b", false));
    peer.send(&frame(OpCode::PONG, b"unasked"));
    peer.send(&frame(OpCode::PING, b""));
    peer.expect_frame(OpCode::PONG, b"");
    peer.send(&continuation(b"c", true));
    peer.expect_frame(OpCode::TEXT, b"abc");
}

#[test]
fn s5_4_a_close_between_fragments_ends_the_connection() {
    let (_server, mut peer) = echo();
    peer.send(&fragment(OpCode::TEXT, b"never"));
    peer.send(&frame(OpCode::CLOSE, &close_payload(1000, b"")));
    peer.expect_close(1000, "");
    peer.expect_end();
}

#[test]
fn s5_4_fragments_must_be_in_their_place() {
    let server = Server::start(ECHO);
    let begun = fragment(OpCode::TEXT, b"a");
    for (bytes, reason) in [
        (continuation(b"a", true), "unexpected_continuation"),
        (continuation(b"a", false), "unexpected_continuation"),
        ([begun.clone(), frame(OpCode::TEXT, b"b")].concat(), "expected_continuation"),
        ([begun.clone(), frame(OpCode::BINARY, b"b")].concat(), "expected_continuation"),
        ([begun.clone(), begun.clone()].concat(), "expected_continuation"),
    ] {
        expect_failure(&server, &bytes, 1002, reason);
    }
    // What ended a message does not leave one open.
    let mut peer = Peer::open_at(&server, "/echo");
    peer.send(&[begun, continuation(b"b", true), continuation(b"c", true)].concat());
    peer.expect_frame(OpCode::TEXT, b"ab");
    peer.expect_close(1002, "unexpected_continuation");
}

// 5.5 Control frames

#[test]
fn s5_5_control_frames_have_125_bytes_at_most_and_no_fragments() {
    let server = Server::start(ECHO);
    for opcode in [OpCode::CLOSE, OpCode::PING, OpCode::PONG] {
        let long = frame(opcode, &[b'x'; 126]);
        expect_failure(&server, &long, 1002, "control_too_long");
        // The form of the length alone is enough.
        expect_failure(&server, &[0x80 | opcode.0, 0xff], 1002, "control_too_long");
        expect_failure(&server, &fragment(opcode, b""), 1002, "control_fragmented");
    }
    let mut peer = Peer::open(&server);
    peer.send(&frame(OpCode::PING, &[0xff; 125]));
    peer.expect_frame(OpCode::PONG, &[0xff; 125]);
}

#[test]
fn s5_5_1_a_close_is_answered_with_its_code_and_the_server_ends_first() {
    let server = Server::start(ECHO);
    let codes = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014];
    for code in codes.into_iter().chain([3000, 3999, 4000, 4999]) {
        for reason in [&b""[..], "Grüße".as_bytes(), &[b'r'; 123]] {
            let mut peer = Peer::open_at(&server, "/echo");
            peer.send(&frame(OpCode::CLOSE, &close_payload(code, reason)));
            peer.expect_close(code, "");
            // 7.1.1: we have not closed our side; the server does.
            peer.expect_end();
        }
    }
    let mut peer = Peer::open(&server);
    peer.send(&frame(OpCode::CLOSE, b""));
    peer.expect_frame(OpCode::CLOSE, b"");
    peer.expect_end();
    drop(peer);
    server.wait_for_connections(0);
    assert_eq!(server.counter("close_timeout"), 0);
}

#[test]
fn s7_4_codes_that_must_not_be_sent_fail_the_connection() {
    let server = Server::start(ECHO);
    for code in [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 1999, 2000, 2999, 5000, 65535] {
        let bytes = frame(OpCode::CLOSE, &close_payload(code, b""));
        expect_failure(&server, &bytes, 1002, "close_code");
    }
    expect_failure(&server, &frame(OpCode::CLOSE, b"\x03"), 1002, "close_too_short");
}

#[test]
fn s5_5_1_a_close_reason_is_utf8() {
    let server = Server::start(ECHO);
    for reason in [&b"\xff"[..], b"\xc3", b"ok \xed\xa0\x80", b"\xf4\x90\x80\x80"] {
        let bytes = frame(OpCode::CLOSE, &close_payload(1000, reason));
        expect_failure(&server, &bytes, 1007, "utf8");
    }
}

#[test]
fn s5_5_1_nothing_follows_a_close() {
    let server = Server::start(ECHO);
    let mut peer = Peer::open_at(&server, "/echo");
    let mut bytes = frame(OpCode::CLOSE, &close_payload(1000, b""));
    bytes.extend(frame(OpCode::TEXT, b"too late"));
    bytes.extend(frame(OpCode::PING, b"too late"));
    bytes.extend(frame(OpCode::CLOSE, &close_payload(1001, b"")));
    peer.send(&bytes);
    peer.expect_close(1000, "");
    peer.expect_end();

    // Nor a publication: its subscriber has closed.
    let mut publisher = Peer::open(&server);
    let mut subscriber = Peer::open(&server);
    subscriber.subscribe("a");
    subscriber.send(&frame(OpCode::CLOSE, &close_payload(1000, b"")));
    subscriber.expect_close(1000, "");
    publisher.publish_acked("a", "1");
    subscriber.expect_end();
}

#[test]
fn s5_5_2_a_ping_is_answered_with_its_data() {
    let (_server, mut peer) = echo();
    for payload in [&b""[..], b"hello", b"\x00\xff\xfe", &[7; 125]] {
        peer.send(&frame(OpCode::PING, payload));
        peer.expect_frame(OpCode::PONG, payload);
    }
    // 5.5.3: a pong that nobody asked for is not answered.
    peer.send(&frame(OpCode::PONG, b"unasked"));
    peer.send(&frame(OpCode::TEXT, b"next"));
    peer.expect_frame(OpCode::TEXT, b"next");
}

#[test]
fn s5_5_3_pings_in_one_write_are_answered_in_order_the_last_one_surely() {
    let (_server, mut peer) = echo();
    let pings: Vec<u8> = (0..10).flat_map(|number| frame(OpCode::PING, &[number])).collect();
    peer.send(&pings);
    let mut last = None;
    while last != Some(9) {
        let pong = peer.frame();
        assert_eq!(pong.opcode, OpCode::PONG);
        assert!(last < Some(pong.payload[0]));
        last = Some(pong.payload[0]);
    }
}

// 5.6 Data frames

#[test]
fn s5_6_binary_is_not_spoken_by_the_json_protocol() {
    let server = Server::start(&[]);
    let mut peer = Peer::open(&server);
    peer.send(&frame(OpCode::BINARY, b"{}"));
    peer.expect_close(1003, "unsupported_data");
    peer.expect_end();
}

#[test]
fn s5_6_messages_come_back_unchanged_in_their_own_type() {
    let (_server, mut peer) = echo();
    for text in
        ["", "ascii", "κόσμε", "\u{0}\u{7f}\u{80}\u{7ff}\u{800}\u{fffd}\u{ffff}", "\u{10ffff}"]
    {
        peer.send(&frame(OpCode::TEXT, text.as_bytes()));
        peer.expect_frame(OpCode::TEXT, text.as_bytes());
        peer.send(&frame(OpCode::BINARY, text.as_bytes()));
        peer.expect_frame(OpCode::BINARY, text.as_bytes());
    }
}

// 8.1 UTF-8

const INVALID: &[&[u8]] = &[
    b"\x80",
    b"\xbf",
    b"\xc0\xaf",
    b"\xc1\xbf",
    b"\xe0\x80\xaf",
    b"\xf0\x80\x80\xaf",
    b"\xed\xa0\x80",
    b"\xed\xbf\xbf",
    b"\xf4\x90\x80\x80",
    b"\xf8\x88\x80\x80\x80",
    b"\xfe",
    b"\xff",
    b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",
];

#[test]
fn s8_1_invalid_text_fails_the_connection() {
    let server = Server::start(ECHO);
    for bytes in INVALID {
        expect_failure(&server, &frame(OpCode::TEXT, bytes), 1007, "utf8");
        let text = [b"good ", *bytes, b" good"].concat();
        expect_failure(&server, &frame(OpCode::TEXT, &text), 1007, "utf8");
    }
    for cut_short in [&b"\xc3"[..], b"\xe2\x9c", b"\xf0\x9f\x98", b"abc\xce"] {
        expect_failure(&server, &frame(OpCode::TEXT, cut_short), 1007, "utf8");
    }
    // As binary it is as good as any.
    let mut peer = Peer::open_at(&server, "/echo");
    peer.send(&frame(OpCode::BINARY, b"\xff\xc0"));
    peer.expect_frame(OpCode::BINARY, b"\xff\xc0");
}

#[test]
fn s8_1_the_first_bad_byte_is_enough_before_the_frame_ends() {
    let server = Server::start(ECHO);
    for bytes in INVALID {
        // Of 1000 announced bytes only these come.
        let text = [b"good ", *bytes, &[b'x'; 1000]].concat();
        let sent = frame(OpCode::TEXT, &text);
        let visible = sent.len() - 1000;
        expect_failure(&server, &sent[..visible], 1007, "utf8");
    }
}

#[test]
fn s8_1_the_first_bad_byte_is_enough_before_the_message_ends() {
    let server = Server::start(ECHO);
    for bytes in INVALID {
        expect_failure(&server, &fragment(OpCode::TEXT, bytes), 1007, "utf8");
        let (first, rest) = bytes.split_at(1);
        let cut = [fragment(OpCode::TEXT, first), continuation(rest, false)].concat();
        let both = [cut, continuation(b"", false)].concat();
        expect_failure(&server, &both, 1007, "utf8");
    }
}

#[test]
fn s8_1_a_character_may_be_cut_anywhere() {
    let (_server, mut peer) = echo();
    let text = "aé€😀\u{10ffff}\u{feff}z".as_bytes();
    for cut in 0..=text.len() {
        peer.send(&fragment(OpCode::TEXT, &text[..cut]));
        peer.send(&continuation(&text[cut..], true));
        peer.expect_frame(OpCode::TEXT, text);
    }
    for byte in &text[..text.len() - 1] {
        let first = byte == &text[0];
        let part = std::slice::from_ref(byte);
        let bytes = if first { fragment(OpCode::TEXT, part) } else { continuation(part, false) };
        peer.send(&bytes);
    }
    peer.send(&continuation(b"z", true));
    peer.expect_frame(OpCode::TEXT, text);
}

// 7 Closing

#[test]
fn s7_1_7_after_a_failure_the_server_ends_the_connection_without_waiting() {
    let (_server, mut peer) = echo();
    let mut bytes = frame(OpCode::TEXT, b"good");
    bytes.extend(b"\x81\x00");
    bytes.extend(frame(OpCode::TEXT, b"never"));
    peer.send(&bytes);
    peer.expect_frame(OpCode::TEXT, b"good");
    peer.expect_close(1002, "unmasked");
    peer.expect_end();
    // 7.1.7: it MUST NOT continue to attempt to process data.
    drop(peer.try_send(&frame(OpCode::TEXT, b"still here")));
}

#[test]
fn s7_1_5_a_connection_that_just_ends_is_forgotten() {
    let server = Server::start(ECHO);
    for _ in 0..10 {
        let mut peer = Peer::open(&server);
        peer.subscribe("a");
        peer.finish();
        peer.expect_end();
        Peer::open(&server).abort();
    }
    server.wait_for_connections(0);
    fresh_client_works(&server);
}

// 10.4 Limits of the implementation

#[test]
fn s10_4_a_message_of_the_limit_passes_and_one_byte_more_does_not() {
    let server = Server::start(&["--echo", "/echo", "--max-message-size", "100000"]);
    let limit = 100_000;
    let payload = vec![b'm'; limit];
    for opcode in [OpCode::TEXT, OpCode::BINARY] {
        let mut peer = Peer::open_at(&server, "/echo");
        peer.send(&frame(opcode, &payload));
        peer.expect_frame(opcode, &payload);
        peer.send(&fragment(opcode, &payload[1..]));
        peer.send(&continuation(b"m", true));
        peer.expect_frame(opcode, &payload);
        // The header alone says that it is too long.
        peer.send(&header(0x80 | opcode.0, limit as u64 + 1));
        peer.expect_close(1009, "too_big");
        peer.expect_end();

        let mut peer = Peer::open_at(&server, "/echo");
        peer.send(&fragment(opcode, &payload));
        peer.send(&header(0x80, 1));
        peer.expect_close(1009, "too_big");
        peer.expect_end();
    }
    assert_eq!(server.counter("too_big"), 4);
}

#[test]
fn s10_4_a_message_of_64_mib_comes_back() {
    const SIZE: usize = 64 << 20;
    let server = Server::start(&["--echo", "/echo", "--max-message-size", "64MiB"]);
    for opcode in [OpCode::BINARY, OpCode::TEXT] {
        let mut peer = Peer::open_at(&server, "/echo");
        let payload: Vec<u8> = (0..SIZE).map(|index| b'!' + (index % 89) as u8).collect();
        let bytes = frame(opcode, &payload);
        let mut sender = peer.sender();
        let sending = thread::spawn(move || sender.write_all(&bytes));
        peer.expect_frame(opcode, &payload);
        sending.join().expect("no panics").expect("the server reads");
        peer.send(&header(0x80 | opcode.0, SIZE as u64 + 1));
        peer.expect_close(1009, "too_big");
    }
    fresh_client_works(&server);
}

#[test]
fn s5_2_100_000_tiny_frames_in_one_write_come_back() {
    let (_server, mut peer) = echo();
    let count = 100_000;
    let bytes: Vec<u8> =
        (0..count).flat_map(|number| frame(OpCode::BINARY, &[number as u8])).collect();
    let mut sender = peer.sender();
    let sending = thread::spawn(move || sender.write_all(&bytes));
    for number in 0..count {
        peer.expect_frame(OpCode::BINARY, &[number as u8]);
    }
    sending.join().expect("no panics").expect("the server reads");
}
