//! Request heads from bytes in any pieces: one verdict however they are cut, and answers that an
//! HTTP client can read.

#![no_main]

use std::ops::Range;

use libfuzzer_sys::fuzz_target;
use stentor::proto::http::{
    HeadLimits, Plain, Refusal, Request, Upgrade, check_start, find_head_end, parse_request,
    plain_response, refusal_response, upgrade_response,
};
use stentor_fuzz::{Plan, ends, within_cpu_time};
use tungstenite::handshake::derive_accept_key;

/// Small, so that a short input can exceed them.
const LIMITS: HeadLimits = HeadLimits { bytes_max: 2048, fields_max: 16 };

type Verdict = Result<Request, Refusal>;

fuzz_target!(|input: &[u8]| {
    if let Some(Plan { sizes, body, .. }) = Plan::read(input) {
        within_cpu_time(body.len(), || check(body, &sizes));
    }
});

fn check(bytes: &[u8], sizes: &[usize]) {
    let whole = receive(bytes, &[usize::MAX]);
    for sizes in [&[1], sizes] {
        compare(&whole, &receive(bytes, sizes));
    }
    for (range, verdict) in whole {
        match verdict {
            Ok(Request::Upgrade(upgrade)) => check_upgrade(&upgrade, &bytes[range]),
            Ok(Request::Plain(plain)) => check_plain(&plain),
            Err(refusal) => check_refusal(&refusal),
        }
    }
}

/// What a connection does with its bytes until it is closed or becomes a WebSocket: the requests in
/// order, and where each stood.
fn receive(bytes: &[u8], sizes: &[usize]) -> Vec<(Range<usize>, Verdict)> {
    let mut requests = Vec::new();
    let (mut begin, mut scanned) = (0, 0);
    for end in ends(bytes.len(), sizes) {
        loop {
            let buffer = &bytes[begin..end];
            let before = scanned;
            let Some(head_len) = find_head_end(buffer, &mut scanned) else {
                // So no byte is looked at twice.
                assert!(before <= scanned && scanned == buffer.len());
                if let Err(refusal) = check_start(buffer, &LIMITS) {
                    requests.push((begin..end, Err(refusal)));
                    return requests;
                }
                break;
            };
            assert!(head_len == scanned && head_len > before && head_len <= buffer.len());
            let verdict = parse_request(&buffer[..head_len], &LIMITS);
            let goes_on = matches!(&verdict, Ok(Request::Plain(plain)) if plain.keep_alive);
            requests.push((begin..begin + head_len, verdict));
            if !goes_on {
                return requests;
            }
            (begin, scanned) = (begin + head_len, 0);
        }
    }
    requests
}

/// The same requests are accepted, and a refusal stays one. Bytes that can no longer become a
/// request are refused before the end of their head has come; then the reason may be another.
fn compare(whole: &[(Range<usize>, Verdict)], pieces: &[(Range<usize>, Verdict)]) {
    assert_eq!(whole.len(), pieces.len(), "{whole:?} is not {pieces:?}");
    for (whole, pieces) in whole.iter().zip(pieces) {
        match (&whole.1, &pieces.1) {
            (Err(at_once), Err(early)) if at_once != early => {
                assert!([400, 431].contains(&early.status), "{at_once:?} is not {early:?}");
            }
            (Err(_), Err(_)) => assert_eq!(whole.0.start, pieces.0.start),
            _ => assert_eq!(whole, pieces),
        }
    }
}

/// RFC 6455, 4.1: what a client checks of the response to its handshake `head`.
fn check_upgrade(upgrade: &Upgrade, head: &[u8]) {
    let mut headers = [httparse::EMPTY_HEADER; LIMITS.fields_max];
    let mut request = httparse::Request::new(&mut headers);
    request.parse(head).expect("an upgrade is HTTP");
    let sent = |name: &str| {
        let is_named =
            move |header: &&&httparse::Header<'_>| header.name.eq_ignore_ascii_case(name);
        let lines: Vec<_> = request.headers.iter().collect();
        let values = lines.iter().filter(is_named).map(|header| header.value);
        values.map(|value| value.to_vec()).collect::<Vec<_>>()
    };
    assert_eq!((request.method, request.version), (Some("GET"), Some(1)));
    assert_eq!(sent("sec-websocket-version"), [b"13"]);
    assert_eq!(sent("host").len(), 1);
    let key = sent("sec-websocket-key");
    assert!(key.len() == 1 && key[0].len() == 24, "{key:?}");
    assert!(upgrade.path.starts_with('/') && upgrade.query.len() <= LIMITS.fields_max);

    let response = upgrade_response(upgrade, upgrade.subprotocol);
    let response = Response::parse(&response);
    assert_eq!((response.status, response.body), (101, &b""[..]));
    assert_eq!(response.field("Upgrade"), Some("websocket"));
    assert_eq!(response.field("Connection"), Some("Upgrade"));
    assert_eq!(response.field("Sec-WebSocket-Accept"), Some(&derive_accept_key(&key[0])[..]));
    assert_eq!(response.field("Sec-WebSocket-Extensions"), None);
    if let Some(selected) = response.field("Sec-WebSocket-Protocol") {
        let offers = sent("sec-websocket-protocol");
        let mut offers = offers.iter().flat_map(|line| line.split(|&byte| byte == b','));
        assert!(offers.any(|offer| offer.trim_ascii() == selected.as_bytes()), "{selected}");
    }
}

fn check_plain(plain: &Plain) {
    assert!(plain.path.starts_with('/') && !plain.path.contains(char::is_control));
    let body = plain.path.as_bytes();
    let response =
        plain_response(200, "text/plain", body, plain.keep_alive, plain.head_only, "", &[]);
    let response = Response::parse(&response);
    assert_eq!(response.status, 200);
    assert_eq!(response.field("Content-Length"), Some(&body.len().to_string()[..]));
    assert_eq!(response.body, if plain.head_only { b"" } else { body });
}

fn check_refusal(refusal: &Refusal) {
    let response = refusal_response(refusal, "");
    let response = Response::parse(&response);
    assert_eq!(response.status, refusal.status);
    assert!([400, 405, 414, 426, 431, 505].contains(&refusal.status));
    assert!(response.field("Connection").is_some_and(|options| options.starts_with("close")));
    let body_len = response.field("Content-Length").and_then(|len| len.parse().ok());
    match refusal.head_only {
        true => assert_eq!(response.body, b""),
        false => assert_eq!(body_len, Some(response.body.len())),
    }
    // No byte of the request comes back uncontrolled.
    assert!(refusal.text.chars().all(|character| !character.is_control()));
}

/// A response as a client reads it.
struct Response<'a> {
    status: u16,
    fields: Vec<(&'a str, &'a str)>,
    body: &'a [u8],
}

impl<'a> Response<'a> {
    fn parse(bytes: &'a [u8]) -> Self {
        let mut headers = [httparse::EMPTY_HEADER; 16];
        let mut response = httparse::Response::new(&mut headers);
        let Ok(httparse::Status::Complete(head_len)) = response.parse(bytes) else {
            panic!("no response: {}", bytes.escape_ascii());
        };
        assert_eq!(response.version, Some(1));
        let text = |value| std::str::from_utf8(value).expect("our fields are ASCII");
        let fields = response.headers.iter().map(|header| (header.name, text(header.value)));
        Self {
            status: response.code.expect("a complete response has a status"),
            fields: fields.collect(),
            body: &bytes[head_len..],
        }
    }

    /// The value of a field that comes once.
    fn field(&self, name: &str) -> Option<&'a str> {
        let mut values = self.fields.iter().filter(|(known, _)| *known == name);
        let value = values.next().map(|(_, value)| *value);
        assert!(values.next().is_none(), "{name} comes twice");
        value
    }
}
