//! Plain HTTP on the port of the WebSockets: the pages, persistence, refusals, and requests made to
//! be understood in two ways.

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::*;

const HEALTHY: &str = "{\"status\":\"ok\",\"shards\":2,\"stalled\":[]}\n";

fn ask(server: &Server, request: &str) -> Response {
    let mut peer = Peer::connect(server);
    peer.send(request.as_bytes());
    peer.response_to(request.starts_with("HEAD"))
}

/// One answer with this status, and then the end: nothing behind the request is taken for another.
#[track_caller]
fn expect_refusal(server: &Server, request: &[u8], status: u16) {
    let mut peer = Peer::connect(server);
    peer.send(request);
    let response = peer.response_or_end();
    let found = response.as_ref().map(|response| response.status);
    assert_eq!(found, Some(status), "{:?}", String::from_utf8_lossy(request));
    assert_eq!(response.expect("there is one").field("Connection"), Some("close"));
    peer.expect_end();
}

// The pages.

#[test]
fn the_index_says_what_this_is_and_how_to_connect() {
    let server = Server::start(&[]);
    let response = ask(&server, &get("/", ""));
    assert_eq!(response.status, 200);
    assert_eq!(response.field("Content-Type"), Some("text/html; charset=utf-8"));
    assert_eq!(response.field("X-Content-Type-Options"), Some("nosniff"));
    for word in ["Stentor", "WebSocket", "subscribe", "stentor publish", "/health"] {
        assert!(response.body.contains(word), "{word}");
    }
    assert_eq!(ask(&server, &get("/?query=1", "")), response);
    assert_eq!(server.counter("http_requests"), 2);
}

#[test]
fn health_is_200_while_every_shard_turns() {
    let server = Server::start(&["--shards", "2"]);
    let response = ask(&server, &get("/health", ""));
    assert_eq!(response.status, 200);
    assert_eq!(response.body, HEALTHY);
    assert_eq!(response.field("Content-Type"), Some("application/json"));
    assert_eq!(ask(&server, &get("/%68ealth", "")).body, HEALTHY);
}

#[test]
fn health_is_503_and_names_a_shard_that_does_not_turn() {
    let server = Server::start(&["--shards", "2"]);
    let thread = server.find_thread("stentor-1").expect("it runs");
    let stalled = StalledThread::stop(thread).expect("a parent may trace its child");
    // The kernel gives half of the connections to the shard that stands; those wait.
    let health = || {
        let mut peer = Peer::connect(&server);
        peer.send(get("/health", "Connection: close\r\n").as_bytes());
        peer.response_within(Duration::from_millis(200))
    };
    let expected = "{\"status\":\"stalled\",\"shards\":2,\"stalled\":[1]}\n";
    wait_until("the stalled shard is named", || match health() {
        None => false,
        Some(response) if response.status == 503 => {
            assert_eq!(response.body, expected);
            true
        }
        Some(response) => {
            assert_eq!((response.status, response.body.as_str()), (200, HEALTHY));
            false
        }
    });
    drop(stalled);
    wait_until("it turns again", || health().is_some_and(|response| response.status == 200));
    fresh_client_works(&server);
}

#[test]
fn a_path_that_takes_websockets_asks_for_an_upgrade() {
    let server = Server::start(&["--echo", "/echo"]);
    for path in ["/ws", "/echo", "/index.html", "/healthz", "/health/", "//", "/ws?token=x"] {
        let response = ask(&server, &get(path, ""));
        assert_eq!(response.status, 426, "{path}");
        assert_eq!(response.field("Upgrade"), Some("websocket"));
        assert_eq!(response.field("Connection"), Some("keep-alive, Upgrade"));
        assert!(response.body.starts_with("This path is for WebSocket alone"), "{path}");
    }
    // It is answered, not refused: the connection may go on, and become one.
    let mut peer = Peer::connect(&server);
    peer.send(get("/ws", "").as_bytes());
    assert_eq!(peer.response().status, 426);
    peer.upgrade("/ws");
    peer.expect_idle();
    assert_eq!(server.counter("http_requests"), 0);
}

#[test]
fn a_reserved_path_without_a_page_is_404() {
    let server = Server::start(&[]);
    for path in ["/metrics", "/client.js", "/api/x", "/admin", "/app/key", "/connection/websocket"]
    {
        let response = ask(&server, &get(path, ""));
        assert_eq!((response.status, response.body.as_str()), (404, "not found\n"), "{path}");
        assert_eq!(response.field("Upgrade"), None);
    }
}

#[test]
fn head_has_the_fields_of_get_and_no_body() {
    let server = Server::start(&[]);
    for path in ["/", "/health", "/metrics", "/ws"] {
        let of_get = ask(&server, &get(path, ""));
        let mut peer = Peer::connect(&server);
        peer.send(get(path, "").replacen("GET", "HEAD", 1).as_bytes());
        let of_head = peer.response_to(true);
        assert_eq!((of_head.status, &of_head.fields), (of_get.status, &of_get.fields));
        // The next response follows at once.
        peer.send(get("/health", "").as_bytes());
        assert_eq!(peer.response().body, HEALTHY);
    }
}

#[test]
fn other_methods_get_405() {
    let server = Server::start(&[]);
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PATCH", "BREW", "get"] {
        let response = ask(&server, &get("/", "").replacen("GET", method, 1));
        assert_eq!(response.status, 405, "{method}");
        assert_eq!(response.field("Allow"), Some("GET, HEAD"));
    }
}

#[test]
fn no_websocket_is_served_on_reserved_paths() {
    let server = Server::start(&[]);
    let paths = [
        "/health",
        "/metrics",
        "/client.js",
        "/api/",
        "/api/v1/x",
        "/admin",
        "/admin/x",
        "/demo/chat",
        "/connection/websocket",
        "/app/key",
        "/%68ealth",
        "/a%70i/x",
    ];
    for path in paths {
        expect_refusal(&server, upgrade_request(path, "").as_bytes(), 404);
    }
    assert_eq!(server.counter("bad_request"), paths.len() as u64);
    assert_eq!(server.counter("upgrades"), 0);
    for path in ["/healthy", "/apis", "/demos", "/", "/x/health"] {
        Peer::open_at(&server, path).expect_idle();
    }
}

// Persistence (RFC 9112, 9.3).

#[test]
fn a_connection_serves_request_after_request_and_then_a_websocket() {
    let server = Server::start(&[]);
    let mut peer = Peer::connect(&server);
    for _ in 0..10 {
        peer.send(get("/health", "").as_bytes());
        let response = peer.response();
        assert_eq!(response.body, HEALTHY);
        assert_eq!(response.field("Connection"), Some("keep-alive"));
        peer.send(get("/metrics", "Connection: keep-alive\r\n").as_bytes());
        assert_eq!(peer.response().status, 404);
    }
    peer.upgrade("/ws");
    peer.expect_idle();
}

#[test]
fn close_ends_the_connection_and_http_1_0_does_unless_asked_otherwise() {
    let server = Server::start(&[]);
    let old = |lines: &str| get("/health", lines).replacen("HTTP/1.1", "HTTP/1.0", 1);
    for request in [
        get("/health", "Connection: close\r\n"),
        get("/health", "Connection: x, CLOSE\r\n"),
        get("/health", "Connection: keep-alive\r\nConnection: close\r\n"),
        old(""),
        old("Connection: close\r\n"),
        "GET /health HTTP/1.0\r\n\r\n".to_string(),
    ] {
        let mut peer = Peer::connect(&server);
        peer.send(request.as_bytes());
        let response = peer.response();
        assert_eq!(response.body, HEALTHY);
        assert_eq!(response.field("Connection"), Some("close"), "{request}");
        peer.expect_end();
    }
    let mut peer = Peer::connect(&server);
    for _ in 0..3 {
        peer.send(old("Connection: keep-alive\r\n").as_bytes());
        assert_eq!(peer.response().field("Connection"), Some("keep-alive"));
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = Server::start(&[]);
    let mut peer = Peer::connect(&server);
    let round = [get("/health", ""), get("/metrics", ""), get("/", "")].concat();
    let last = get("/health", "Connection: close\r\n");
    // Behind the last one nothing is served.
    peer.send(format!("{}{last}{round}", round.repeat(100)).as_bytes());
    for _ in 0..100 {
        assert_eq!(peer.response().body, HEALTHY);
        assert_eq!(peer.response().status, 404);
        assert!(peer.response().body.contains("<h1>Stentor</h1>"));
    }
    assert_eq!(peer.response().body, HEALTHY);
    peer.expect_end();
}

#[test]
fn whoever_asks_without_reading_is_not_served_without_end() {
    let server = Server::start(&["--shards", "1"]);
    let mut peer = Peer::connect_small(&server, 4096);
    let before = server.rss();
    let requests = get("/", "").repeat(1000);
    let mut sender = peer.sender();
    let asking = thread::spawn(move || {
        (0..100).all(|_| sender.write_all(requests.as_bytes()).is_ok());
    });
    // Two hundred megabytes of pages were asked for.
    server.wait_for_counter("bytes_received", 1 << 20);
    let growth = server.rss().saturating_sub(before);
    assert!(growth < 4 << 20, "{growth} bytes more");
    let mut served = 0;
    while let Some(response) = peer.response_or_end() {
        assert_eq!(response.status, 200);
        served += 1;
    }
    assert!(served < 5000, "{served} pages");
    peer.hang_up();
    asking.join().expect("no panics");
    fresh_client_works(&server);
}

#[test]
fn a_request_may_come_in_any_pieces() {
    let server = Server::start(&[]);
    let request = get("/health", "X: y\r\n");
    for step in [1, 2, 3, 7] {
        let mut peer = Peer::connect(&server);
        for piece in request.as_bytes().chunks(step) {
            peer.send(piece);
        }
        assert_eq!(peer.response().body, HEALTHY, "pieces of {step}");
    }
    // 2.2: an empty line before the request line is passed over.
    assert_eq!(ask(&server, &format!("\r\n{request}")).body, HEALTHY);
}

// Bounds.

#[test]
fn a_head_of_16_kib_passes_and_one_byte_more_gets_431() {
    let server = Server::start(&[]);
    let head = |length: usize| {
        let empty = get("/health", "X: \r\n").len();
        get("/health", &format!("X: {}\r\n", "y".repeat(length - empty)))
    };
    assert_eq!(head(16 << 10).len(), 16 << 10);
    assert_eq!(ask(&server, &head(16 << 10)).body, HEALTHY);
    expect_refusal(&server, head((16 << 10) + 1).as_bytes(), 431);
    // Without an end, too: it is not waited for.
    let endless = format!("GET / HTTP/1.1\r\nX: {}", "y".repeat(16 << 10));
    expect_refusal(&server, endless.as_bytes(), 431);
    assert_eq!(server.counter("head_too_large"), 2);
}

#[test]
fn sixty_four_fields_pass_and_one_more_gets_431() {
    let server = Server::start(&[]);
    // `Host` is one of them.
    assert_eq!(ask(&server, &get("/health", &"X: y\r\n".repeat(63))).body, HEALTHY);
    expect_refusal(&server, get("/health", &"X: y\r\n".repeat(64)).as_bytes(), 431);
}

#[test]
fn a_slow_head_gets_408_however_its_bytes_trickle() {
    let server = Server::start(&["--set", "limits.handshake_timeout=1s"]);
    let start = Instant::now();
    let mut idle = Peer::connect(&server);
    idle.send(b"GET / HTTP/1.1\r\n");
    let mut silent = Peer::connect(&server);
    let mut trickling = Peer::connect(&server);
    let mut kept = Peer::connect(&server);
    kept.send(get("/health", "").as_bytes());
    assert_eq!(kept.response().status, 200);
    for byte in b"GET / HTTP/1.1\r\nHost: a\r\nX: 0123456789".iter().cycle() {
        if trickling.try_send(&[*byte]).is_err() || start.elapsed() > Duration::from_millis(1300) {
            break;
        }
        thread::sleep(Duration::from_millis(20));
    }
    for mut peer in [idle, trickling] {
        assert_eq!(peer.response_or_end().map(|response| response.status), Some(408));
        peer.expect_gone();
    }
    // Who asked nothing is told nothing.
    silent.expect_end();
    kept.expect_end();
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(950) && took < Duration::from_secs(3), "{took:?}");
    fresh_client_works(&server);
}

// Requests that are none, or two.

#[test]
fn bodies_are_refused() {
    let server = Server::start(&[]);
    for lines in [
        "Content-Length: 5\r\n",
        "Content-Length: 18446744073709551616\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: identity\r\n",
    ] {
        expect_refusal(&server, format!("{}hello", get("/", lines)).as_bytes(), 400);
    }
    assert_eq!(ask(&server, &get("/health", "Content-Length: 0\r\n")).body, HEALTHY);
}

#[test]
fn what_could_be_read_in_two_ways_is_refused() {
    let server = Server::start(&[]);
    let smuggled = get("/health", "");
    for head in [
        "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding:\tchunked\r\n",
        "transfer-encoding: chunked, identity\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding\t: chunked\r\n",
        " Transfer-Encoding: chunked\r\n",
        "X: y\r\n Transfer-Encoding: chunked\r\n",
        "X: y\r\n\tz\r\n",
        "X: y\nTransfer-Encoding: chunked\r\n",
        "X: y\rTransfer-Encoding: chunked\r\n",
        "X: y\r\r\n",
        "X: y\n\r\n",
        "X: \0\r\n",
        "\0X: y\r\n",
        "X\r\n",
        ": y\r\n",
        "X Y: z\r\n",
        "X(Y): z\r\n",
        "Content-Length: 0\r\nContent-Length: 4\r\n",
        "Content-Length: 0, 4\r\n",
        "Content-Length: 4\r\nContent-Length: 4\r\n",
        "Content-Length: +0\r\n",
        "Content-Length: -0\r\n",
        "Content-Length: 0x0\r\n",
        "Content-Length: 0 0\r\n",
        "Content-Length: \r\n",
        "Content-Length: 0;a\r\n",
        "Host: other\r\n",
    ] {
        let request = format!("{}0\r\n\r\n{smuggled}", get("/", head));
        expect_refusal(&server, request.as_bytes(), 400);
    }
    for request in [
        "GET / HTTP/1.1\nHost: test\n\n",
        "GET / HTTP/1.1\r\nHost: test\r\n\n",
        "GET / HTTP/1.1\r\nHost: test\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: \r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: user@a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a:b\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
        "GET / http/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1x\r\nHost: a\r\n\r\n",
        "GET /\r\nHost: a\r\n\r\n",
        "GET / x HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http:// HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        expect_refusal(&server, format!("{request}{smuggled}").as_bytes(), 400);
    }
    fresh_client_works(&server);
}

#[test]
fn what_is_not_http_is_told_so_at_once() {
    // Long before the head could be too slow.
    let server = Server::start(&["--set", "limits.handshake_timeout=1m"]);
    let client_hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    for bytes in [&client_hello[..], b"\x16", b"\0", b"\x81\x80\0\0\0\0", b" GET", b"SSH-2.0-x\r\n"]
    {
        expect_refusal(&server, bytes, 400);
    }
    expect_refusal(&server, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505);
    expect_refusal(&server, b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505);
}
