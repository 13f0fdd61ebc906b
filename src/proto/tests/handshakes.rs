//! Handshakes with random damage: never a panic, and what is accepted is answered well.

use crate::proto::http::{
    HeadLimits, Refusal, Request, check_start, find_head_end, parse_request, refusal_response,
    upgrade_response,
};

/// How many damaged handshakes are tried.
const MUTATIONS: u64 = 1_000_000;

const SEED: u64 = 0x5EED_0F57_E270_0001;

const LIMITS: HeadLimits = HeadLimits { bytes_max: 16 * 1024, fields_max: 64 };

const HANDSHAKES: [&str; 3] = [
    "GET /chat?token=a%20b&x=1 HTTP/1.1\r\nHost: example.com:8080\r\nUpgrade: websocket\r\n\
     Connection: keep-alive, Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: chat, stentor.v1.json\r\n\
     Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n",
    "HEAD http://a/%C3%A9?q HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
    "GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
];

/// What damage is made of.
const PIECES: [&[u8]; 16] = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b":",
    b",",
    b"%",
    b"?",
    b"\xff",
    b"\xc3\xa9",
    b"HTTP/2.0",
    b"Host: b\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"\r\n\r\n",
];

/// SplitMix64: a failure is repeated by its seed alone.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

fn damage(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(3) {
        let at = random.below(bytes.len());
        match random.below(5) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..(at + random.below(20)).min(bytes.len()))),
            2 => drop(bytes.splice(at..at, PIECES[random.below(PIECES.len())].iter().copied())),
            3 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = random.next() as u8),
            _ => {
                let copy = bytes[at..].iter().take(40).copied().collect::<Vec<_>>();
                let to = random.below(bytes.len());
                drop(bytes.splice(to..to, copy));
            }
        }
    }
}

/// All that a connection does with its first bytes, in pieces of at most `step`.
fn receive(bytes: &[u8], mut step: impl FnMut() -> usize) -> Option<Result<Request, Refusal>> {
    let (mut received, mut scanned) = (0, 0);
    while received < bytes.len() {
        received = (received + step().max(1)).min(bytes.len());
        let buffer = &bytes[..received];
        match find_head_end(buffer, &mut scanned) {
            Some(head_len) => return Some(parse_request(&buffer[..head_len], &LIMITS)),
            None => match check_start(buffer, &LIMITS) {
                Ok(()) => {}
                Err(refusal) => return Some(Err(refusal)),
            },
        }
    }
    None
}

fn check_answer(outcome: &Result<Request, Refusal>) {
    match outcome {
        Ok(Request::Upgrade(upgrade)) => {
            let response = upgrade_response(upgrade, upgrade.subprotocol);
            assert!(response.starts_with(b"HTTP/1.1 101 ") && response.ends_with(b"\r\n\r\n"));
            assert_eq!(upgrade.accept_key.len(), 28);
            assert!(upgrade.path.starts_with('/'));
        }
        Ok(Request::Plain(plain)) => assert!(plain.path.starts_with('/')),
        Err(refusal) => {
            let response = refusal_response(refusal, "");
            let text = String::from_utf8(response.to_vec()).unwrap();
            assert!(text.contains("\r\nConnection: close"), "{text}");
            assert!([400, 405, 414, 426, 431, 505].contains(&refusal.status), "{text}");
        }
    }
}

#[test]
fn damaged_handshakes_are_answered_or_refused() {
    let mut upgrades = 0;
    for i in 0..MUTATIONS {
        let mut random = Random(SEED + i);
        let mut bytes = HANDSHAKES[random.below(HANDSHAKES.len())].as_bytes().to_vec();
        damage(&mut bytes, &mut random);
        let whole = receive(&bytes, || usize::MAX);
        if let Some(outcome) = &whole {
            check_answer(outcome);
            upgrades += usize::from(matches!(outcome, Ok(Request::Upgrade(_))));
        }
        // Garbage may be refused earlier when it comes in pieces, but a verdict never turns.
        let pieces = receive(&bytes, || random.below(30));
        match (&whole, &pieces) {
            (Some(Err(_)), Some(Err(_))) => {}
            _ => assert_eq!(
                whole,
                pieces,
                "seed {:#x}: {:?}",
                SEED + i,
                bytes.escape_ascii().to_string()
            ),
        }
    }
    assert!(upgrades > 1000, "the damage is too great to test anything: {upgrades}");
}

#[test]
fn the_rest_behind_a_head_is_left_alone() {
    for head in HANDSHAKES {
        let bytes = [head.as_bytes(), b"\x81\x82\0\0\0\0\r\n\x81\x80\0\0\0\0"].concat();
        assert_eq!(find_head_end(&bytes, &mut 0), Some(head.len()));
        assert!(parse_request(head.as_bytes(), &LIMITS).is_ok());
    }
}
